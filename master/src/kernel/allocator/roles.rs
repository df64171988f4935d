//! The tree of roles, each level kept in fair order. A change costs the depth of the tree times the logarithm of its breadth.
//!
//! ```text
//! root ─ eng ─ ads ─ .  ─ f1-0        a role with frameworks has a leaf "." for them,
//!      │     └ .   ─ f1-2             which competes with the roles below it (Mesos)
//!      └ *   ─ .   ─ f1-1
//! ```
//!
//! A client's share within its role counts all that it holds. A role's share counts what is reserved for it or below, held or
//! not, and what is held beyond that.
//!
//! Not here: agents and filters; what guarantees are owed (`owed`); walking through the order in a turn (`walk`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use divvy_proto::quota::Weight;
use divvy_proto::resources::Resources;
use divvy_proto::role::RolePath;

use super::ClientIx;
use super::charge::Charge;
use super::fits::FitTable;
use super::owed::{Owed, Promise};
use super::share::{Key, Quantities, Share};
use super::size::Size;
use super::walk::Cursors;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeIx(u32);

pub(super) const ROOT: NodeIx = NodeIx(0);

impl NodeIx {
    pub(super) const fn at(self) -> usize {
        self.0 as usize
    }

    fn of(at: usize) -> Self {
        Self(u32::try_from(at).unwrap_or(u32::MAX))
    }
}

/// Who goes first among siblings: smallest weighted share, then fewest grants, then name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    key: Key,
    grants: u64,
    /// The name's place among its siblings.
    rank: u64,
    pub(super) node: NodeIx,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) parent: NodeIx,
    name: Arc<str>,
    rank: u64,
    weight: Weight,
    pub(super) client: Option<ClientIx>,
    children: BTreeMap<Arc<str>, NodeIx>,
    /// What the share counts: held by tasks and offers, and reserved.
    held: Quantities,
    /// What tasks at or below it use of the unreserved.
    pub(super) used: Size,
    /// What is on offer to it or below of the unreserved.
    pub(super) offered: Size,
    /// What is reserved for it or below.
    pub(super) reserved: Size,
    pub(super) promise: Option<Box<Promise>>,
    /// What is owed to it and below; absent where nobody at or below it has a quota.
    pub(super) owed: Option<Box<Owed>>,
    grants: u64,
    /// Where it stands among its siblings, if it does.
    pub(super) turn: Turn,
    /// A client that wants offers.
    wants: bool,
    /// It wants offers, or somebody below it does: it stands in its parent's `order`.
    in_order: bool,
    /// Such a one, and its guarantee is not met, or there are such below it: it stands in its parent's `hungry`.
    is_hungry: bool,
    /// The children that want offers.
    pub(super) order: BTreeSet<Turn>,
    /// Those of them whose guarantee, or that of one below, is not met.
    pub(super) hungry: BTreeSet<Turn>,
    pub(super) cursors: Cursors,
}

impl Node {
    fn new(parent: NodeIx, name: Arc<str>, rank: u64, at: NodeIx, client: Option<ClientIx>) -> Self {
        Self {
            parent,
            name,
            rank,
            weight: Weight::default(),
            client,
            children: BTreeMap::new(),
            held: Quantities::default(),
            used: Size::new(),
            offered: Size::new(),
            reserved: Size::new(),
            promise: None,
            owed: None,
            grants: 0,
            turn: Turn { key: Key::default(), grants: 0, rank, node: at },
            wants: false,
            in_order: false,
            is_hungry: false,
            order: BTreeSet::new(),
            hungry: BTreeSet::new(),
            cursors: Cursors::default(),
        }
    }

    pub(super) fn consumed(&self) -> Size {
        let mut consumed = self.used.clone();
        consumed.add(&self.reserved);
        consumed
    }

    fn in_hands(&mut self, hands: Hands) -> &mut Size {
        match hands {
            Hands::Used => &mut self.used,
            Hands::Offered => &mut self.offered,
        }
    }

    /// Nothing would be lost with it.
    fn is_idle(&self) -> bool {
        self.client.is_none()
            && self.children.is_empty()
            && self.promise.is_none()
            && self.weight == Weight::default()
            && self.reserved.is_zero()
    }
}

/// Which of a node's sums a change is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hands {
    /// Tasks hold it.
    Used,
    /// It is on offer.
    Offered,
}

#[derive(Debug, Clone)]
pub(super) struct RoleTree {
    pub(super) nodes: Vec<Node>,
    /// Places of nodes that are no more.
    vacant: BTreeSet<NodeIx>,
    total: Quantities,
    /// How many roles have a quota.
    pub(super) promises: usize,
    pub(super) fits: FitTable,
    /// Roles whose limit leaves more than it did. Each turn asks, and empties it.
    pub(super) loosened: BTreeSet<NodeIx>,
    /// What is owed to somebody has changed. Each turn asks, and unsets it.
    pub(super) owed_moved: bool,
}

/// The distance of names that are ranked anew.
const RANK_STEP: u64 = 1 << 32;

#[allow(
    clippy::indexing_slicing,
    reason = "a NodeIx is made by this tree only, and forgotten before its node is"
)]
impl RoleTree {
    pub(super) fn new() -> Self {
        Self {
            nodes: vec![Node::new(ROOT, "".into(), 0, ROOT, None)],
            vacant: BTreeSet::new(),
            total: Quantities::default(),
            promises: 0,
            fits: FitTable::default(),
            loosened: BTreeSet::new(),
            owed_moved: false,
        }
    }

    fn child(&mut self, parent: NodeIx, name: &str, client: Option<ClientIx>) -> NodeIx {
        if let Some(node) = self.nodes[parent.at()].children.get(name) {
            return *node;
        }
        let name: Arc<str> = name.into();
        let rank = self.rank_between(parent, &name);
        let at = self.vacant.pop_first().unwrap_or_else(|| NodeIx::of(self.nodes.len()));
        let node = Node::new(parent, name.clone(), rank, at, client);
        match self.nodes.get_mut(at.at()) {
            Some(place) => *place = node,
            None => self.nodes.push(node),
        }
        self.nodes[parent.at()].children.insert(name, at);
        at
    }

    /// A rank between those of the names beside it; all siblings are ranked anew if there is none.
    fn rank_between(&mut self, parent: NodeIx, name: &Arc<str>) -> u64 {
        for _ in 0..2 {
            let children = &self.nodes[parent.at()].children;
            let rank = |(_, node): (_, &NodeIx)| self.nodes[node.at()].rank;
            let low = children.range::<Arc<str>, _>(..name).next_back().map_or(0, rank);
            let above = children.range::<Arc<str>, _>(name..).next().map(rank);
            let high = above.unwrap_or_else(|| low.saturating_add(2 * RANK_STEP));
            if high - low >= 2 {
                return low + (high - low) / 2;
            }
            self.rank_anew(parent);
        }
        // Not reached: there are fewer nodes than ranks.
        u64::MAX
    }

    fn rank_anew(&mut self, parent: NodeIx) {
        let children: Vec<NodeIx> = self.children(parent).collect();
        for (place, child) in (1_u64..).zip(children) {
            self.nodes[child.at()].rank = place * RANK_STEP;
            self.settle(child);
        }
    }

    fn role(&mut self, role: &RolePath) -> NodeIx {
        role.parts().fold(ROOT, |node, part| self.child(node, part, None))
    }

    pub(super) fn find(&self, role: &RolePath) -> Option<NodeIx> {
        role.parts().try_fold(ROOT, |node, part| self.nodes[node.at()].children.get(part).copied())
    }

    pub(super) fn node_of(&self, role: &RolePath) -> Option<&Node> {
        self.find(role).map(|node| &self.nodes[node.at()])
    }

    /// All clients in a role and below it.
    pub(super) fn clients_below(&self, role: &RolePath) -> Vec<ClientIx> {
        let (mut found, mut open) = (Vec::new(), Vec::from_iter(self.find(role)));
        while let Some(at) = open.pop() {
            found.extend(self.nodes[at.at()].client);
            open.extend(self.children(at));
        }
        found
    }

    /// The node's children, by name.
    pub(super) fn children(&self, at: NodeIx) -> impl Iterator<Item = NodeIx> + '_ {
        self.nodes[at.at()].children.values().copied()
    }

    /// The node and all above it but the root, innermost first.
    pub(super) fn path(&self, from: NodeIx) -> impl Iterator<Item = (NodeIx, &Node)> + '_ {
        let mut at = from;
        std::iter::from_fn(move || {
            let found = (at != ROOT).then(|| (at, &self.nodes[at.at()]))?;
            at = found.1.parent;
            Some(found)
        })
    }

    /// The path of a role's node.
    pub(super) fn name_of(&self, at: NodeIx) -> Option<RolePath> {
        let mut parts: Vec<&str> = self.path(at).map(|(_, node)| node.name.as_ref()).collect();
        parts.reverse();
        RolePath::new(parts.join("/")).ok()
    }

    /// A place for a framework under a role. It wants nothing yet.
    pub(super) fn add_client(&mut self, role: &RolePath, name: &str, client: ClientIx) -> NodeIx {
        let role = self.role(role);
        let leaf = self.child(role, ".", None);
        self.child(leaf, name, Some(client))
    }

    /// Takes out a client that holds nothing, and the roles that only it was in.
    pub(super) fn remove_client(&mut self, client: NodeIx) {
        self.set_wants(client, false);
        self.nodes[client.at()].client = None;
        self.prune(client);
    }

    /// Takes out a node that stands for nothing, and those above it that then do so, too.
    fn prune(&mut self, from: NodeIx) {
        let mut at = from;
        while at != ROOT && self.nodes[at.at()].is_idle() {
            let (parent, name) = (self.nodes[at.at()].parent, self.nodes[at.at()].name.clone());
            self.leave(at);
            self.nodes[parent.at()].children.remove(&name);
            self.vacant.insert(at);
            self.loosened.remove(&at);
            self.settle(parent);
            at = parent;
        }
    }

    pub(super) fn set_weight(&mut self, role: &RolePath, weight: Weight) {
        let node = self.role(role);
        self.nodes[node.at()].weight = weight;
        self.settle(node);
        self.prune(node);
    }

    pub(super) fn weight(&self, role: &RolePath) -> Weight {
        self.node_of(role).map_or_else(Weight::default, |node| node.weight)
    }

    /// Promises something to a role, or no longer. `shapes` are those of which clients below it want some.
    pub(super) fn set_promise(&mut self, role: &RolePath, promise: Option<Promise>, shapes: &[Size]) {
        let node = self.role(role);
        self.promise(node, promise, shapes);
        self.prune(node);
    }

    pub(super) fn promise_of(&self, role: &RolePath) -> Option<&Promise> {
        self.node_of(role)?.promise.as_deref()
    }

    /// What a role and all below it hold, and what is reserved for them.
    pub(super) fn held_by_role(&self, role: &RolePath) -> Quantities {
        self.node_of(role).map(|node| node.held.clone()).unwrap_or_default()
    }

    pub(super) fn held(&self, node: NodeIx) -> &Quantities {
        &self.nodes[node.at()].held
    }

    /// A node's place in fair order, from the root down.
    pub(super) fn place(&self, node: NodeIx) -> Vec<Turn> {
        let mut place: Vec<Turn> = self.path(node).map(|(_, node)| node.turn).collect();
        place.reverse();
        place
    }

    /// Changes what a client holds, and with it all roles above.
    pub(super) fn hold(&mut self, client: NodeIx, charge: &Charge, hands: Hands) {
        let unowned = charge.unowned();
        self.upwards(client, |node| {
            node.take(charge, &unowned);
            node.in_hands(hands).add_resources(&charge.unreserved);
        });
    }

    pub(super) fn release(&mut self, client: NodeIx, charge: &Charge, hands: Hands) {
        let unowned = charge.unowned();
        if hands == Hands::Used {
            self.note_loosened(client);
        }
        self.upwards(client, |node| {
            match node.client.is_some() {
                true => charge.pools().for_each(|pool| node.held.sub(pool)),
                false => node.held.sub(&unowned),
            }
            node.in_hands(hands).sub_resources(&charge.unreserved);
        });
    }

    /// Counts an allocation, which decides between equal shares, and holds it as an offer.
    pub(super) fn grant(&mut self, client: NodeIx, charge: &Charge) {
        let unowned = charge.unowned();
        self.upwards(client, |node| {
            node.take(charge, &unowned);
            node.offered.add_resources(&charge.unreserved);
            node.grants += 1;
        });
    }

    /// Undoes `grant`.
    pub(super) fn ungrant(&mut self, client: NodeIx, charge: &Charge) {
        let path: Vec<NodeIx> = self.path(client).map(|(at, _)| at).collect();
        path.into_iter().for_each(|at| self.nodes[at.at()].grants -= 1);
        self.release(client, charge, Hands::Offered);
    }

    /// Sets something aside for a role.
    pub(super) fn reserve(&mut self, role: &RolePath, resources: &Resources) {
        let node = self.role(role);
        self.upwards(node, |node| {
            node.held.add(resources);
            node.reserved.add_resources(resources);
        });
    }

    pub(super) fn unreserve(&mut self, role: &RolePath, resources: &Resources) {
        let node = self.role(role);
        self.note_loosened(node);
        self.upwards(node, |node| {
            node.held.sub(resources);
            node.reserved.sub_resources(resources);
        });
        self.prune(node);
    }

    fn note_loosened(&mut self, from: NodeIx) {
        if self.promises > 0 {
            let limits = |node: &Node| node.promise.as_ref().is_some_and(|promise| !promise.limit.is_open());
            let found: Vec<NodeIx> =
                self.path(from).filter(|(_, node)| limits(node)).map(|(at, _)| at).collect();
            self.loosened.extend(found);
        }
    }

    fn upwards(&mut self, from: NodeIx, mut change: impl FnMut(&mut Node)) {
        let mut at = from;
        while at != ROOT {
            change(&mut self.nodes[at.at()]);
            self.settle_owed(at);
            self.settle(at);
            at = self.nodes[at.at()].parent;
        }
    }

    fn turn_of(&self, at: NodeIx) -> Turn {
        let node = &self.nodes[at.at()];
        let share = Share::dominant(&node.held, &self.total).by_weight(node.weight.thousandths());
        Turn { key: share.key(), grants: node.grants, rank: node.rank, node: at }
    }

    /// Whether it stands among its siblings that want offers, and among those that are owed something.
    fn stands(&self, at: NodeIx) -> (bool, bool) {
        let node = &self.nodes[at.at()];
        let wants = match node.client {
            Some(_) => node.wants,
            None => !node.order.is_empty(),
        };
        (wants, wants && (node.is_unmet() || !node.hungry.is_empty()))
    }

    /// Puts a node where it belongs among its siblings.
    pub(super) fn settle(&mut self, at: NodeIx) {
        let (wants, is_hungry) = self.stands(at);
        if at == ROOT || (!wants && !self.nodes[at.at()].in_order) {
            return;
        }
        let turn = self.turn_of(at);
        let node = &self.nodes[at.at()];
        if (node.turn, node.in_order, node.is_hungry) == (turn, wants, is_hungry) {
            return;
        }
        self.leave(at);
        let node = &mut self.nodes[at.at()];
        (node.turn, node.in_order, node.is_hungry) = (turn, wants, is_hungry);
        let parent = node.parent;
        if wants {
            self.nodes[parent.at()].order.insert(turn);
        }
        if is_hungry {
            self.nodes[parent.at()].hungry.insert(turn);
        }
    }

    fn leave(&mut self, at: NodeIx) {
        let node = &mut self.nodes[at.at()];
        let (parent, turn, stood) = (node.parent, node.turn, (node.in_order, node.is_hungry));
        (node.in_order, node.is_hungry) = (false, false);
        if stood.0 {
            self.nodes[parent.at()].order.remove(&turn);
        }
        if stood.1 {
            self.nodes[parent.at()].hungry.remove(&turn);
        }
    }

    pub(super) fn wants(&self, client: NodeIx) -> bool {
        self.nodes[client.at()].wants
    }

    /// Says whether a client wants offers.
    pub(super) fn set_wants(&mut self, client: NodeIx, wants: bool) {
        self.nodes[client.at()].wants = wants;
        let mut at = client;
        while at != ROOT {
            self.settle(at);
            at = self.nodes[at.at()].parent;
        }
    }

    /// Whether no sibling that wants offers has a smaller share.
    pub(super) fn is_least(&self, node: NodeIx) -> bool {
        let (this, parent) = (&self.nodes[node.at()], self.nodes[node.at()].parent);
        self.nodes[parent.at()].order.first().is_none_or(|first| this.turn.key <= first.key)
    }

    /// What all shares are shares of. Every order is made anew, each as a whole: this is for agents that come, go or change
    /// size. Who wants something, and who is owed something, does not depend on the total.
    pub(super) fn set_total(&mut self, total: &Quantities) {
        self.total = total.clone();
        for parent in 0..self.nodes.len() {
            let order = std::mem::take(&mut self.nodes[parent].order);
            let settled = order.into_iter().map(|turn| {
                let turn = self.turn_of(turn.node);
                self.nodes[turn.node.at()].turn = turn;
                turn
            });
            self.nodes[parent].order = settled.collect();
            let hungry = std::mem::take(&mut self.nodes[parent].hungry);
            self.nodes[parent].hungry =
                hungry.into_iter().map(|turn| self.nodes[turn.node.at()].turn).collect();
        }
    }

    /// A client's share, by which it stands in its order while it wants something.
    pub(super) fn share_of(&self, client: NodeIx) -> Key {
        self.nodes[client.at()].turn.key
    }

    /// The children of a role's parent that want something, in fair order; the frameworks of the parent itself under its name.
    pub(super) fn fair_order(&self, role: &RolePath) -> Vec<RolePath> {
        let parent = role.parent();
        let Some(node) = parent.as_ref().map_or(Some(ROOT), |parent| self.find(parent)) else {
            return Vec::new();
        };
        let path = |turn: &Turn| match (&parent, self.nodes[turn.node.at()].name.as_ref()) {
            (None, name) => RolePath::new(name).ok(),
            (Some(parent), ".") => Some(parent.clone()),
            (Some(parent), name) => RolePath::new(format!("{parent}/{name}")).ok(),
        };
        self.nodes[node.at()].order.iter().filter_map(path).collect()
    }

    /// Checks that sums and orders agree with a recount.
    pub(super) fn check(&self) -> Result<(), String> {
        let places = (0..self.nodes.len()).map(NodeIx::of);
        for at in places.filter(|at| !self.vacant.contains(at)) {
            let node = &self.nodes[at.at()];
            let negative = [&node.used, &node.offered, &node.reserved].into_iter().any(Size::is_negative);
            if node.held.is_negative() || negative {
                return Err(format!("role tree: {} holds less than nothing: {:?}", node.name, node.held));
            }
            if node.client.is_none() && at != ROOT {
                self.check_sums(at)?;
            }
            self.check_owed(at)?;
            self.check_order(at)?;
        }
        Ok(())
    }

    fn check_order(&self, at: NodeIx) -> Result<(), String> {
        let node = &self.nodes[at.at()];
        let parent = &self.nodes[node.parent.at()];
        let stands = self.stands(at);
        let found = (parent.order.contains(&node.turn), parent.hungry.contains(&node.turn));
        let is_placed = found == stands && (node.in_order, node.is_hungry) == stands;
        if at != ROOT && (!is_placed || (stands.0 && node.turn != self.turn_of(at))) {
            return Err(format!("role tree: {} is out of order", node.name));
        }
        if node.order.len() > node.children.len() || node.hungry.len() > node.order.len() {
            return Err(format!("role tree: {} has too many below it in order", node.name));
        }
        Ok(())
    }

    fn check_sums(&self, at: NodeIx) -> Result<(), String> {
        let node = &self.nodes[at.at()];
        let (mut used, mut offered) = (Size::new(), Size::new());
        for child in self.children(at).map(|child| &self.nodes[child.at()]) {
            used.add(&child.used);
            offered.add(&child.offered);
        }
        if (&used, &offered) != (&node.used, &node.offered) {
            return Err(format!(
                "role tree: {} does not use, or is offered, what those below it are",
                node.name
            ));
        }
        Ok(())
    }

    /// The order by the book: at each level sort everybody from scratch.
    #[cfg(test)]
    pub(super) fn naive_order(&self) -> Vec<ClientIx> {
        fn below(tree: &RoleTree, at: NodeIx, found: &mut Vec<ClientIx>) {
            let node = &tree.nodes[at.at()];
            if let Some(client) = node.client {
                found.extend(node.wants.then_some(client));
            }
            let mut children: Vec<NodeIx> = tree.children(at).collect();
            children.sort_by_key(|child| {
                let Turn { key, grants, .. } = tree.turn_of(*child);
                (key, grants, tree.nodes[child.at()].name.clone())
            });
            children.into_iter().for_each(|child| below(tree, child, found));
        }
        let mut found = Vec::new();
        below(self, ROOT, &mut found);
        found
    }
}

impl Node {
    /// Within a role all that is held counts; above it only what is not counted as reserved already.
    fn take(&mut self, charge: &Charge, unowned: &Resources) {
        match self.client.is_some() {
            true => charge.pools().for_each(|pool| self.held.add(pool)),
            false => self.held.add(unowned),
        }
    }
}
