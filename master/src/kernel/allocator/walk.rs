//! Walking through the fair order in a turn. Whoever found nothing is passed over until the turn's end: what there is to give
//! only shrinks, and whoever is given something moves back, never forward.

use std::ops::Bound::{Excluded, Unbounded};

use super::ClientIx;
use super::roles::{NodeIx, ROOT, RoleTree, Turn};

/// The two stages of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::kernel) enum Stage {
    /// Those whose guarantee, or that of a role above them, is not met.
    Guaranteed,
    /// Everyone.
    Fair,
}

/// A way through a node's children.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// Those that want something and are owed something, or have such below.
    Hungry,
    /// All that want something, in the first stage: the node itself, or one above it, is owed something.
    Owed,
    /// All that want something, in the second stage.
    Fair,
}

/// How far a walk has come among a node's children, by way: all up to there have been asked, and found nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Cursors([Option<(u64, Turn)>; 3]);

#[allow(
    clippy::indexing_slicing,
    reason = "a NodeIx is made by this tree only; there are as many cursors as ways"
)]
impl RoleTree {
    /// The first client in fair order that has not been passed in this epoch.
    pub(super) fn next(&mut self, stage: Stage, epoch: u64) -> Option<ClientIx> {
        self.next_below(ROOT, stage, epoch, false)
    }

    fn way(stage: Stage, is_owed: bool) -> Way {
        match (stage, is_owed) {
            (Stage::Fair, _) => Way::Fair,
            (Stage::Guaranteed, true) => Way::Owed,
            (Stage::Guaranteed, false) => Way::Hungry,
        }
    }

    fn next_below(&mut self, at: NodeIx, stage: Stage, epoch: u64, is_owed: bool) -> Option<ClientIx> {
        let node = &self.nodes[at.at()];
        if let Some(client) = node.client {
            return Some(client);
        }
        let is_owed = is_owed || node.is_unmet();
        let way = Self::way(stage, is_owed);
        while let Some(turn) = self.after_cursor(at, way, epoch) {
            if let Some(client) = self.next_below(turn.node, stage, epoch, is_owed) {
                return Some(client);
            }
            self.nodes[at.at()].cursors.0[way as usize] = Some((epoch, turn));
        }
        None
    }

    fn after_cursor(&self, at: NodeIx, way: Way, epoch: u64) -> Option<Turn> {
        let node = &self.nodes[at.at()];
        let order = match way {
            Way::Hungry => &node.hungry,
            Way::Owed | Way::Fair => &node.order,
        };
        match node.cursors.0[way as usize] {
            Some((of, passed)) if of == epoch => order.range((Excluded(passed), Unbounded)).next().copied(),
            _ => order.first().copied(),
        }
    }

    /// A client found nothing: it is not asked again in this epoch.
    pub(super) fn pass(&mut self, client: NodeIx, stage: Stage, epoch: u64) {
        let parent = self.nodes[client.at()].parent;
        let is_owed = stage == Stage::Guaranteed && self.is_owed(parent);
        let turn = self.nodes[client.at()].turn;
        self.nodes[parent.at()].cursors.0[Self::way(stage, is_owed) as usize] = Some((epoch, turn));
    }

    /// All clients that want something and are owed something, in fair order.
    pub(super) fn hungry(&self) -> Vec<ClientIx> {
        let mut found = Vec::new();
        self.hungry_below(ROOT, false, &mut found);
        found
    }

    fn hungry_below(&self, at: NodeIx, is_owed: bool, found: &mut Vec<ClientIx>) {
        let node = &self.nodes[at.at()];
        found.extend(node.client);
        let is_owed = is_owed || node.is_unmet();
        let order = if is_owed { &node.order } else { &node.hungry };
        order.iter().for_each(|turn| self.hungry_below(turn.node, is_owed, found));
    }

    /// Whether the guarantee of a role that a node is, or is below, is not met.
    pub(super) fn is_owed(&self, from: NodeIx) -> bool {
        self.promises > 0 && self.path(from).any(|(_, node)| node.is_unmet())
    }
}
