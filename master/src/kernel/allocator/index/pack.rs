//! Agents by how much they have free, fullest first: a treap over (key, agent) in which each node also knows the most room
//! of any agent below it. Agents are its nodes, by number; a change allocates nothing.

use super::Room;

const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Node {
    key: u64,
    left: u32,
    right: u32,
    room: Room,
    most: Room,
    is_in: bool,
}

const ABSENT: Node =
    Node { key: 0, left: NONE, right: NONE, room: Room::ABSENT, most: Room::ABSENT, is_in: false };

#[derive(Debug, Clone)]
pub(super) struct Pack {
    nodes: Vec<Node>,
    root: u32,
}

impl Default for Pack {
    fn default() -> Self {
        Self { nodes: Vec::new(), root: NONE }
    }
}

/// Where an agent stands in the heap: mixed bits of its number (SplitMix64's finalizer), as good as chance for balance, and
/// the same in every run.
fn priority(at: u32) -> u64 {
    let mut bits = u64::from(at).wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[allow(clippy::indexing_slicing, reason = "a link is NONE or the number of a node")]
impl Pack {
    pub(super) fn reserve(&mut self, agents: usize) {
        self.nodes.resize(agents.max(self.nodes.len()), ABSENT);
    }

    /// An agent that is not in it, and for which there is place.
    pub(super) fn insert(&mut self, at: usize, key: u64, room: Room) {
        let Ok(new) = u32::try_from(at) else { return };
        self.nodes[at] = Node { key, room, most: room, is_in: true, ..ABSENT };
        self.root = self.inserted(self.root, new);
    }

    pub(super) fn remove(&mut self, at: usize) {
        let Ok(old) = u32::try_from(at) else { return };
        if self.nodes[at].is_in {
            self.root = self.removed(self.root, old);
            self.nodes[at] = ABSENT;
        }
    }

    fn is_before(&self, one: u32, other: u32) -> bool {
        let rank = |at: u32| (self.nodes[at as usize].key, at);
        rank(one) < rank(other)
    }

    fn update(&mut self, at: u32) -> u32 {
        let Node { left, right, room, .. } = self.nodes[at as usize];
        let below = [left, right].into_iter().filter(|child| *child != NONE);
        self.nodes[at as usize].most =
            below.fold(room, |most, child| most.most(&self.nodes[child as usize].most));
        at
    }

    fn inserted(&mut self, root: u32, new: u32) -> u32 {
        if root == NONE {
            return new;
        }
        if priority(new) > priority(root) {
            let (left, right) = self.split(root, new);
            (self.nodes[new as usize].left, self.nodes[new as usize].right) = (left, right);
            return self.update(new);
        }
        if self.is_before(new, root) {
            self.nodes[root as usize].left = self.inserted(self.nodes[root as usize].left, new);
        } else {
            self.nodes[root as usize].right = self.inserted(self.nodes[root as usize].right, new);
        }
        self.update(root)
    }

    /// Those before `at`, and those after it.
    fn split(&mut self, root: u32, at: u32) -> (u32, u32) {
        if root == NONE {
            return (NONE, NONE);
        }
        if self.is_before(root, at) {
            let (left, right) = self.split(self.nodes[root as usize].right, at);
            self.nodes[root as usize].right = left;
            (self.update(root), right)
        } else {
            let (left, right) = self.split(self.nodes[root as usize].left, at);
            self.nodes[root as usize].left = right;
            (left, self.update(root))
        }
    }

    fn removed(&mut self, root: u32, old: u32) -> u32 {
        let Node { left, right, .. } = self.nodes[root as usize];
        if root == old {
            return self.merged(left, right);
        }
        if self.is_before(old, root) {
            self.nodes[root as usize].left = self.removed(left, old);
        } else {
            self.nodes[root as usize].right = self.removed(right, old);
        }
        self.update(root)
    }

    /// All of `left` is before all of `right`.
    fn merged(&mut self, left: u32, right: u32) -> u32 {
        if left == NONE || right == NONE {
            return left.min(right);
        }
        if priority(left) > priority(right) {
            self.nodes[left as usize].right = self.merged(self.nodes[left as usize].right, right);
            self.update(left)
        } else {
            self.nodes[right as usize].left = self.merged(left, self.nodes[right as usize].left);
            self.update(right)
        }
    }

    /// The first in order that has room and is accepted.
    pub(super) fn first(&self, need: &Room, accept: &mut impl FnMut(usize) -> bool) -> Option<usize> {
        self.first_below(self.root, need, accept)
    }

    fn first_below(&self, at: u32, need: &Room, accept: &mut impl FnMut(usize) -> bool) -> Option<usize> {
        let node = self.nodes.get(at as usize)?;
        if !node.most.contains(need) {
            return None;
        }
        self.first_below(node.left, need, accept)
            .or_else(|| Some(at as usize).filter(|at| node.room.contains(need) && accept(*at)))
            .or_else(|| self.first_below(node.right, need, accept))
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.iter().filter(|node| node.is_in).count()
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let mut seen = Vec::new();
        self.check_below(self.root, &mut seen)?;
        let ranks: Vec<_> = seen.iter().map(|at| (self.nodes[*at as usize].key, *at)).collect();
        if !ranks.is_sorted() || seen.len() != self.len() {
            return Err("index: the fullest are out of order".to_owned());
        }
        Ok(())
    }

    fn check_below(&self, at: u32, seen: &mut Vec<u32>) -> Result<Room, String> {
        let Some(node) = self.nodes.get(at as usize) else { return Ok(Room::ABSENT) };
        let left = self.check_below(node.left, seen)?;
        seen.push(at);
        let right = self.check_below(node.right, seen)?;
        if node.most != node.room.most(&left).most(&right) {
            return Err(format!("index: {at} does not know the most of what is below it"));
        }
        Ok(node.most)
    }
}
