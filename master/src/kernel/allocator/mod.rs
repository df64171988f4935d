//! The allocator: whose turn it is, and what there is to give. It thinks in dense numbers, not in ids; it knows nothing of
//! streams, tasks or calls.
//!
//! ```text
//! share.rs     the policy: weighted dominant shares, compared exactly
//! roles.rs     the mechanism: a tree of roles, each level kept in that order
//! slots.rs     what each agent has, pool by pool (charge.rs): total = available + offered + used
//! wishes.rs    what each client wants
//! quota.rs     what roles are promised and may not exceed, counted in size.rs
//! filters.rs   what was refused, until when
//! obstacle.rs  the one place that says whether something can be given, or why not
//! explain.rs   the obstacles of all agents to one thing, counted
//! allocate.rs  matching them, touching only what changed
//! ```

mod allocate;
mod charge;
mod explain;
mod filters;
#[allow(dead_code, reason = "used from the next step on")]
mod index;
mod obstacle;
mod quota;
mod roles;
mod share;
mod size;
mod slots;
mod wishes;

use std::collections::{BTreeMap, BTreeSet};

use divvy_proto::ids::{AgentId, FrameworkId};
use divvy_proto::quantity::Bytes;
use divvy_proto::quota::Weight;
use divvy_proto::resources::Resources;
use divvy_proto::role::RolePath;
use divvy_proto::scheduler::Capability;
use divvy_proto::time::Timestamp;

#[allow(unused_imports, reason = "the rest of the kernel is about to use them")]
pub(super) use allocate::{Allocated, Grant, Note};
pub(super) use charge::Charge;
pub(super) use explain::{Away, Cause, Counted, Waiting};
use filters::Filters;
#[allow(unused_imports, reason = "the rest of the kernel is about to use them")]
pub(super) use obstacle::Obstacle;
#[allow(unused_imports, reason = "the rest of the kernel is about to use them")]
pub(super) use quota::{OverLimit, Starving};
use roles::{Hands, NodeIx, RoleTree};
pub(super) use share::{Key, Quantities, Share};
pub(super) use size::Size;
pub(super) use slots::{Facts, Slot, Sums};
pub(super) use wishes::{DemandState, Wish};
use wishes::Want;

macro_rules! index {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) struct $name(usize);

        impl $name {
            const MIN: Self = Self(usize::MIN);
            const MAX: Self = Self(usize::MAX);
        }
    };
}

index!(
    /// An agent, by the order in which agents became known.
    AgentIx
);
index!(
    /// A framework in one of its roles.
    ClientIx
);

#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) framework: FrameworkId,
    pub(super) role: RolePath,
    node: NodeIx,
    want: Want,
    /// How many of each shape are on offer, by the shape's name; also of shapes that are no longer wanted.
    offered: BTreeMap<String, u32>,
    /// It may be offered what can be taken back.
    revocable: bool,
}

/// Whom an agent with something free has still to be tried on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Untried {
    Everyone,
    Only(BTreeSet<ClientIx>),
}

#[derive(Debug, Clone)]
pub(super) struct Allocator {
    slots: Vec<Slot>,
    clients: Vec<Client>,
    clients_of: BTreeMap<FrameworkId, Vec<ClientIx>>,
    tree: RoleTree,
    filters: Filters,
    sums: Sums,
    total_changed: bool,
    /// Agents with enough free to be worth an offer.
    free: BTreeSet<AgentIx>,
    /// Those of them that somebody has not refused yet. All others are filtered by everybody who wants offers.
    untried: BTreeMap<AgentIx, Untried>,
    /// As of the end of the last turn.
    starving: Vec<Starving>,
}

#[allow(
    clippy::indexing_slicing,
    reason = "an index is made by this allocator only, and nothing is ever removed"
)]
impl Allocator {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            clients: Vec::new(),
            clients_of: BTreeMap::new(),
            tree: RoleTree::new(),
            filters: Filters::default(),
            sums: Sums::default(),
            total_changed: false,
            free: BTreeSet::new(),
            untried: BTreeMap::new(),
            starving: Vec::new(),
        }
    }

    /// An agent that has nothing, and neither counts nor is offered yet.
    pub(super) fn add_agent(&mut self, id: AgentId, facts: Facts) -> AgentIx {
        self.slots.push(Slot::new(id, facts));
        AgentIx(self.slots.len() - 1)
    }

    /// What is known of the agent, now. If that is something else, what was refused of it is forgotten.
    pub(super) fn set_facts(&mut self, agent: AgentIx, facts: Facts) {
        if self.slots[agent.0].facts != facts {
            self.slots[agent.0].facts = facts;
            self.clear_agent_filters(agent);
        }
    }

    /// A framework in a role, made at the first question. It wants nothing at first.
    pub(super) fn client(&mut self, framework: &FrameworkId, role: &RolePath) -> ClientIx {
        let known = self.clients_of.get(framework).into_iter().flatten();
        if let Some(client) = known.copied().find(|client| self.clients[client.0].role == *role) {
            return client;
        }
        let client = ClientIx(self.clients.len());
        let node = self.tree.add_client(role, framework.as_str(), client);
        self.clients.push(Client {
            framework: framework.clone(),
            role: role.clone(),
            node,
            want: Want::Nothing,
            offered: BTreeMap::new(),
            revocable: false,
        });
        self.clients_of.entry(framework.clone()).or_default().push(client);
        client
    }

    /// The framework will not come back, and holds nothing.
    pub(super) fn remove_framework(&mut self, framework: &FrameworkId) {
        for client in self.clients_of.get(framework).cloned().unwrap_or_default() {
            self.clients[client.0].want = Want::Nothing;
            self.sync_want(client);
            self.filters.clear_client(client);
        }
    }

    /// The agent will not come back; no task and no offer is on it.
    pub(super) fn remove_agent(&mut self, agent: AgentIx) {
        self.set_standing(agent, false, false);
        self.filters.clear_agent(agent);
    }

    /// What a framework can deal with, in all the roles that it has been seen in.
    pub(super) fn set_capabilities(&mut self, framework: &FrameworkId, all: &BTreeSet<Capability>) {
        let revocable = all.contains(&Capability::Revocable);
        for client in self.clients_of.get(framework).cloned().unwrap_or_default() {
            self.clients[client.0].revocable = revocable;
        }
    }

    /// What a framework holds in all its roles.
    pub(super) fn held_by_framework(&self, framework: &FrameworkId) -> Quantities {
        let mut held = Quantities::default();
        for client in self.clients_of.get(framework).into_iter().flatten() {
            held.merge(self.tree.held(self.clients[client.0].node));
        }
        held
    }

    pub(super) fn slot(&self, agent: AgentIx) -> &Slot {
        &self.slots[agent.0]
    }

    pub(super) fn client_of(&self, client: ClientIx) -> &Client {
        &self.clients[client.0]
    }

    pub(super) fn sums(&self) -> &Sums {
        &self.sums
    }

    /// How much a role counts among its siblings.
    pub(super) fn set_weight(&mut self, role: &RolePath, weight: Weight) {
        self.tree.set_weight(role, weight);
    }

    pub(super) fn weight(&self, role: &RolePath) -> Weight {
        self.tree.weight(role)
    }

    pub(super) fn held_by_role(&self, role: &RolePath) -> Quantities {
        self.tree.held_by_role(role)
    }

    pub(super) fn share(&self, held: &Quantities) -> Share {
        Share::dominant(held, &self.sums.declared)
    }

    /// Changes an agent, and everything that is derived from it.
    fn change(&mut self, agent: AgentIx, change: impl FnOnce(&mut Slot)) {
        let slot = &mut self.slots[agent.0];
        if slot.counted {
            self.sums.sub(slot);
        }
        change(slot);
        slot.settle();
        if slot.counted {
            self.sums.add(slot);
        }
        let is_free = slot.active && is_worth_an_offer(&slot.available.total());
        match is_free {
            true => self.free.insert(agent),
            false => self.free.remove(&agent),
        };
        match is_free {
            true => self.untried.insert(agent, Untried::Everyone),
            false => self.untried.remove(&agent),
        };
    }

    /// What tasks on the agent can be given, now, by pool. The disk of its volumes is not in it.
    pub(super) fn set_total(&mut self, agent: AgentIx, total: Charge) {
        if self.slots[agent.0].total != total {
            self.total_changed |= self.slots[agent.0].counted;
            self.change(agent, |slot| slot.total = total);
        }
    }

    /// The volumes on the agent: for whom, how large. They count as reserved for their role, and as part of the cluster.
    pub(super) fn set_volumes(&mut self, agent: AgentIx, volumes: Vec<(RolePath, Bytes)>) {
        if self.slots[agent.0].volumes != volumes {
            self.total_changed |= self.slots[agent.0].counted;
            self.change(agent, |slot| slot.volumes = volumes);
        }
    }

    /// Whether the agent's resources may be offered, and whether they are part of what shares are shares of.
    pub(super) fn set_standing(&mut self, agent: AgentIx, active: bool, counted: bool) {
        let slot = &self.slots[agent.0];
        if (slot.active, slot.counted) == (active, counted) {
            return;
        }
        self.total_changed |= slot.counted != counted;
        if slot.counted {
            self.sums.sub(slot);
        }
        self.slots[agent.0].counted = counted;
        if counted {
            self.sums.add(&self.slots[agent.0]);
        }
        self.change(agent, |slot| slot.active = active);
    }

    /// A task holds this.
    pub(super) fn hold(&mut self, agent: AgentIx, client: ClientIx, charge: &Charge) {
        self.tree.hold(self.clients[client.0].node, charge, Hands::Used);
        self.change(agent, |slot| slot.used = slots::sum(&slot.used, charge));
    }

    /// A task has ended.
    pub(super) fn release(&mut self, agent: AgentIx, client: ClientIx, charge: &Charge) {
        self.tree.release(self.clients[client.0].node, charge, Hands::Used);
        self.change(agent, |slot| slot.used = slot.used.saturating_sub(charge));
    }

    /// An offer is no more: all of it is free. Of what was demanded, so many have been launched.
    pub(super) fn end_offer(&mut self, grant: &Grant, launched: u32) {
        self.tree.release(self.clients[grant.client.0].node, &grant.charge, Hands::Offered);
        self.change(grant.agent, |slot| slot.offered = slot.offered.saturating_sub(&grant.charge));
        let Some(offered) = &grant.demand else { return };
        let client = &mut self.clients[grant.client.0];
        if let Some(count) = client.offered.get_mut(&offered.shape) {
            *count = count.saturating_sub(offered.count);
            if *count == 0 {
                client.offered.remove(&offered.shape);
            }
        }
        if let Some(wanted) = client.want.shape_mut(&offered.shape) {
            wanted.offered = wanted.offered.saturating_sub(offered.count);
            wanted.count = wanted.count.saturating_sub(launched.min(offered.count));
        }
        self.sync_want(grant.client);
    }

    /// What the client wants from here on. What is on offer stays so, and counts towards a demand.
    pub(super) fn set_wish(&mut self, now: Timestamp, client: ClientIx, wish: Wish) {
        let this = &mut self.clients[client.0];
        if this.want == Want::Anything && wish == Wish::Anything {
            return;
        }
        let is_demand = matches!(wish, Wish::Demand(_));
        this.want = Want::new(now, wish, &this.offered);
        if is_demand {
            self.filters.clear_client(client);
        }
        self.sync_want(client);
    }

    /// How the client's demand stands, if it has one.
    pub(super) fn wish_view(&self, client: ClientIx) -> Option<DemandState> {
        let client = &self.clients[client.0];
        client.want.state(&client.offered)
    }

    /// One that begins to want something is tried on every free agent.
    fn sync_want(&mut self, client: ClientIx) {
        let (node, wants) = (self.clients[client.0].node, self.clients[client.0].want.is_wanting());
        if self.tree.wants(node) != wants {
            self.tree.set_wants(node, wants);
            if wants {
                self.retry(client);
            }
        }
    }

    /// The client does not want to see the like of `refused` on this agent before `until`.
    pub(super) fn refuse(&mut self, agent: AgentIx, client: ClientIx, refused: Resources, until: Timestamp) {
        self.filters.add(client, agent, refused, until);
    }

    pub(super) fn clear_client_filters(&mut self, client: ClientIx) {
        self.filters.clear_client(client);
        if self.tree.wants(self.clients[client.0].node) {
            self.retry(client);
        }
    }

    pub(super) fn clear_agent_filters(&mut self, agent: AgentIx) {
        self.filters.clear_agent(agent);
        if self.free.contains(&agent) {
            self.untried.insert(agent, Untried::Everyone);
        }
    }

    fn retry(&mut self, client: ClientIx) {
        let free: Vec<AgentIx> = self.free.iter().copied().collect();
        free.into_iter().for_each(|agent| self.retry_on(client, agent));
    }

    fn retry_on(&mut self, client: ClientIx, agent: AgentIx) {
        if !self.free.contains(&agent) {
            return;
        }
        match self.untried.entry(agent).or_insert_with(|| Untried::Only(BTreeSet::new())) {
            Untried::Everyone => {}
            Untried::Only(clients) => drop(clients.insert(client)),
        }
    }

    /// Checks that clients hold what a recount says, and all others nothing.
    pub(super) fn check_clients(&self, held: &BTreeMap<ClientIx, Quantities>) -> Result<(), String> {
        let nothing = Quantities::default();
        for (at, client) in self.clients.iter().enumerate() {
            if self.tree.held(client.node) != held.get(&ClientIx(at)).unwrap_or(&nothing) {
                return Err(format!("{} does not hold in {} what it does", client.framework, client.role));
            }
        }
        Ok(())
    }

    pub(super) fn roles_that_hold(&self) -> impl Iterator<Item = &RolePath> {
        let nothing = Quantities::default();
        self.clients
            .iter()
            .filter(move |client| *self.tree.held(client.node) != nothing)
            .map(|client| &client.role)
    }

    /// When a filter ends and the turn has to be ended again.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.filters.next_end()
    }

    /// Checks that everything derived agrees with what it is derived from.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut sums = Sums::default();
        for (at, slot) in self.slots.iter().enumerate() {
            slot.check()?;
            if self.free.contains(&AgentIx(at)) != (slot.active && is_worth_an_offer(&slot.available.total())) {
                return Err(format!("{}: the set of free agents is wrong", slot.id));
            }
            if slot.counted {
                sums.add(slot);
            }
        }
        if sums != self.sums {
            return Err("the cluster's sums do not agree with a recount".to_owned());
        }
        if let Some(agent) = self.untried.keys().find(|agent| !self.free.contains(agent)) {
            return Err(format!("{}: untried, but not free", self.slots[agent.0].id));
        }
        self.tree.check()?;
        self.filters.check()
    }
}

/// Both together. The kernel admits no task whose resources could not be added (`Kernel::check_report`), so the second
/// branch is not reached; it keeps `used` from shrinking if it ever were, and the invariants would tell.
pub(super) fn sum(left: &Resources, right: &Resources) -> Resources {
    left.checked_add(right).unwrap_or_else(|| left.clone())
}

/// The least processor time that is worth an offer, in thousandths.
const LEAST_CPUS: i64 = 10;
/// The least memory that is worth an offer.
const LEAST_MEM: i64 = 32 << 20;

/// Less than both a hundredth of a core and 32 MiB is not worth an offer (Mesos: `--min_allocatable_resources`).
fn is_worth_an_offer(available: &Resources) -> bool {
    available.cpus().millis() >= LEAST_CPUS || available.mem().bytes() >= LEAST_MEM
}
