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
//! Not here: agents and filters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use divvy_proto::quota::Weight;
use divvy_proto::resources::Resources;
use divvy_proto::role::RolePath;

use super::ClientIx;
use super::charge::Charge;
use super::quota::Promise;
use super::share::{Quantities, Share};
use super::size::Size;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeIx(usize);

const ROOT: NodeIx = NodeIx(0);

/// Who goes first among siblings: smallest weighted share, then fewest grants, then name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    share: Share,
    grants: u64,
    name: Arc<str>,
    node: NodeIx,
}

#[derive(Debug, Clone)]
struct Node {
    parent: NodeIx,
    name: Arc<str>,
    weight: Weight,
    client: Option<ClientIx>,
    children: BTreeMap<Arc<str>, NodeIx>,
    /// What the share counts: held by tasks and offers, and reserved.
    held: Quantities,
    /// What tasks at or below it use of the unreserved.
    used: Size,
    /// What is on offer to it or below of the unreserved.
    offered: Size,
    /// What is reserved for it or below.
    reserved: Size,
    promise: Option<Box<Promise>>,
    grants: u64,
    /// Where it stands in its parent's order, if anybody at or below it wants offers.
    turn: Option<Turn>,
    /// The children that want offers.
    order: BTreeSet<Turn>,
}

impl Node {
    fn new(parent: NodeIx, name: Arc<str>, client: Option<ClientIx>) -> Self {
        Self {
            parent,
            name,
            weight: Weight::default(),
            client,
            children: BTreeMap::new(),
            held: Quantities::default(),
            used: Size::new(),
            offered: Size::new(),
            reserved: Size::new(),
            promise: None,
            grants: 0,
            turn: None,
            order: BTreeSet::new(),
        }
    }

    fn consumed(&self) -> Size {
        let mut consumed = self.used.clone();
        consumed.add(&self.reserved);
        consumed
    }

    /// What its own guarantee lacks, by dimension.
    fn unmet(&self) -> Size {
        let mut unmet = Size::new();
        for (name, promised) in self.promise.iter().flat_map(|promise| promise.quota.guarantee.iter()) {
            let had = self.used.get(name) + self.reserved.get(name) + self.offered.get(name);
            unmet.set(name, (i128::from(promised) - had).max(0));
        }
        unmet
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
    nodes: Vec<Node>,
    total: Quantities,
}

#[allow(clippy::indexing_slicing, reason = "a NodeIx is made by this tree only, and nodes are never removed")]
impl RoleTree {
    pub(super) fn new() -> Self {
        Self { nodes: vec![Node::new(ROOT, "".into(), None)], total: Quantities::default() }
    }

    fn child(&mut self, parent: NodeIx, name: &str, client: Option<ClientIx>) -> NodeIx {
        if let Some(node) = self.nodes[parent.0].children.get(name) {
            return *node;
        }
        let (node, name): (_, Arc<str>) = (NodeIx(self.nodes.len()), name.into());
        self.nodes.push(Node::new(parent, name.clone(), client));
        self.nodes[parent.0].children.insert(name, node);
        node
    }

    fn role(&mut self, role: &RolePath) -> NodeIx {
        role.parts().fold(ROOT, |node, part| self.child(node, part, None))
    }

    fn find(&self, role: &RolePath) -> Option<NodeIx> {
        role.parts().try_fold(ROOT, |node, part| self.nodes[node.0].children.get(part).copied())
    }

    /// A place for a framework under a role. It wants nothing yet.
    pub(super) fn add_client(&mut self, role: &RolePath, name: &str, client: ClientIx) -> NodeIx {
        let role = self.role(role);
        let leaf = self.child(role, ".", None);
        self.child(leaf, name, Some(client))
    }

    pub(super) fn set_weight(&mut self, role: &RolePath, weight: Weight) {
        let node = self.role(role);
        self.nodes[node.0].weight = weight;
        self.reorder(node);
    }

    pub(super) fn weight(&self, role: &RolePath) -> Weight {
        self.find(role).map_or_else(Weight::default, |node| self.nodes[node.0].weight)
    }

    pub(super) fn set_quota(&mut self, role: &RolePath, promise: Option<Promise>) {
        let node = self.role(role);
        self.nodes[node.0].promise = promise.map(Box::new);
    }

    pub(super) fn promise_of(&self, role: &RolePath) -> Option<&Promise> {
        self.nodes[self.find(role)?.0].promise.as_deref()
    }

    pub(super) fn consumed(&self, role: &RolePath) -> Size {
        self.find(role).map(|node| self.nodes[node.0].consumed()).unwrap_or_default()
    }

    pub(super) fn reserved_for(&self, role: &RolePath) -> Size {
        self.find(role).map(|node| self.nodes[node.0].reserved.clone()).unwrap_or_default()
    }

    pub(super) fn unmet(&self, role: &RolePath) -> Size {
        self.find(role).map(|node| self.nodes[node.0].unmet()).unwrap_or_default()
    }

    /// What a role and all below it hold, and what is reserved for them.
    pub(super) fn held_by_role(&self, role: &RolePath) -> Quantities {
        self.find(role).map(|node| self.nodes[node.0].held.clone()).unwrap_or_default()
    }

    pub(super) fn held(&self, node: NodeIx) -> &Quantities {
        &self.nodes[node.0].held
    }

    /// Changes what a client holds, and with it all roles above.
    pub(super) fn hold(&mut self, client: NodeIx, charge: &Charge, hands: Hands) {
        self.nodes[client.0].held.add(&charge.total());
        let unowned = charge.unowned();
        self.upwards(client, |node| {
            if node.client.is_none() {
                node.held.add(&unowned);
            }
            node.in_hands(hands).add_resources(&charge.unreserved);
        });
    }

    pub(super) fn release(&mut self, client: NodeIx, charge: &Charge, hands: Hands) {
        self.nodes[client.0].held.sub(&charge.total());
        let unowned = charge.unowned();
        self.upwards(client, |node| {
            if node.client.is_none() {
                node.held.sub(&unowned);
            }
            node.in_hands(hands).sub_resources(&charge.unreserved);
        });
    }

    /// Counts an allocation, which decides between equal shares, and holds it as an offer.
    pub(super) fn grant(&mut self, client: NodeIx, charge: &Charge) {
        let mut at = client;
        while at != ROOT {
            self.nodes[at.0].grants += 1;
            at = self.nodes[at.0].parent;
        }
        self.hold(client, charge, Hands::Offered);
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
        self.upwards(node, |node| {
            node.held.sub(resources);
            node.reserved.sub_resources(resources);
        });
    }

    fn upwards(&mut self, from: NodeIx, mut change: impl FnMut(&mut Node)) {
        let mut at = from;
        while at != ROOT {
            change(&mut self.nodes[at.0]);
            self.reorder(at);
            at = self.nodes[at.0].parent;
        }
    }

    fn turn_of(&self, at: NodeIx) -> Turn {
        let node = &self.nodes[at.0];
        let share = Share::dominant(&node.held, &self.total).by_weight(node.weight.thousandths());
        Turn { share, grants: node.grants, name: node.name.clone(), node: at }
    }

    fn reorder(&mut self, at: NodeIx) {
        if self.nodes[at.0].turn.is_some() {
            self.leave(at);
            self.join(at);
        }
    }

    fn join(&mut self, at: NodeIx) {
        let (turn, parent) = (self.turn_of(at), self.nodes[at.0].parent);
        self.nodes[parent.0].order.insert(turn.clone());
        self.nodes[at.0].turn = Some(turn);
    }

    fn leave(&mut self, at: NodeIx) {
        let parent = self.nodes[at.0].parent;
        if let Some(turn) = self.nodes[at.0].turn.take() {
            self.nodes[parent.0].order.remove(&turn);
        }
    }

    pub(super) fn wants(&self, client: NodeIx) -> bool {
        self.nodes[client.0].turn.is_some()
    }

    /// Says whether a client wants offers.
    pub(super) fn set_wants(&mut self, client: NodeIx, wants: bool) {
        let mut at = client;
        while at != ROOT && self.wants(at) != wants {
            let parent = self.nodes[at.0].parent;
            match wants {
                true => self.join(at),
                false => self.leave(at),
            }
            // A node above stays in order for as long as anybody below it wants offers.
            if !wants && !self.nodes[parent.0].order.is_empty() {
                return;
            }
            at = parent;
        }
    }

    /// What all shares are shares of. Every order is made anew: this is for agents that come, go or change size.
    pub(super) fn set_total(&mut self, total: &Quantities) {
        self.total = total.clone();
        for at in 1..self.nodes.len() {
            self.reorder(NodeIx(at));
        }
    }

    /// The first client in fair order that `takes`.
    pub(super) fn first(&self, takes: &mut impl FnMut(ClientIx) -> bool) -> Option<ClientIx> {
        self.first_below(ROOT, takes)
    }

    fn first_below(&self, at: NodeIx, takes: &mut impl FnMut(ClientIx) -> bool) -> Option<ClientIx> {
        match self.nodes[at.0].client {
            Some(client) => takes(client).then_some(client),
            None => self.nodes[at.0].order.iter().find_map(|turn| self.first_below(turn.node, takes)),
        }
    }

    /// The children of a role's parent that want something, in fair order; the frameworks of the parent itself under its name.
    pub(super) fn fair_order(&self, role: &RolePath) -> Vec<RolePath> {
        let parent = role.parent();
        let Some(node) = parent.as_ref().map_or(Some(ROOT), |parent| self.find(parent)) else {
            return Vec::new();
        };
        let path = |name: &str| match &parent {
            None => RolePath::new(name).ok(),
            Some(parent) if name == "." => Some(parent.clone()),
            Some(parent) => RolePath::new(format!("{parent}/{name}")).ok(),
        };
        self.nodes[node.0].order.iter().filter_map(|turn| path(&turn.name)).collect()
    }

    /// Checks that sums and orders agree with a recount.
    pub(super) fn check(&self) -> Result<(), String> {
        for (at, node) in self.nodes.iter().enumerate().skip(1) {
            if node.held.is_negative() || node.used.is_negative() || node.offered.is_negative() {
                return Err(format!("role tree: {} holds less than nothing: {:?}", node.name, node.held));
            }
            if node.client.is_none() {
                self.check_sums(node)?;
            }
            if let Some(turn) = &node.turn
                && (*turn != self.turn_of(NodeIx(at)) || !self.nodes[node.parent.0].order.contains(turn))
            {
                return Err(format!("role tree: {} is out of order", node.name));
            }
            if node.client.is_none() && node.turn.is_some() == node.order.is_empty() {
                return Err(format!("role tree: {} wants offers for nobody, or not for somebody", node.name));
            }
        }
        Ok(())
    }

    fn check_sums(&self, node: &Node) -> Result<(), String> {
        let (mut used, mut offered) = (Size::new(), Size::new());
        for child in node.children.values().map(|child| &self.nodes[child.0]) {
            used.add(&child.used);
            offered.add(&child.offered);
        }
        if (&used, &offered) != (&node.used, &node.offered) {
            return Err(format!("role tree: {} does not use or is offered what those below it are", node.name));
        }
        Ok(())
    }

    /// The order by the book: at each level sort everybody from scratch.
    #[cfg(test)]
    pub(super) fn naive_order(&self) -> Vec<ClientIx> {
        fn below(tree: &RoleTree, at: NodeIx, found: &mut Vec<ClientIx>) {
            let node = &tree.nodes[at.0];
            if let Some(client) = node.client {
                found.extend(node.turn.is_some().then_some(client));
            }
            let mut children: Vec<NodeIx> = node.children.values().copied().collect();
            children.sort_by_key(|child| tree.turn_of(*child));
            children.into_iter().for_each(|child| below(tree, child, found));
        }
        let mut found = Vec::new();
        below(self, ROOT, &mut found);
        found
    }
}

impl Node {
    fn in_hands(&mut self, hands: Hands) -> &mut Size {
        match hands {
            Hands::Used => &mut self.used,
            Hands::Offered => &mut self.offered,
        }
    }
}
