//! The allocator: whose turn it is, and what there is to give. It thinks in dense numbers, not in ids; it knows nothing of
//! streams, tasks or calls.
//!
//! ```text
//! share.rs     the policy: weighted dominant shares, compared exactly
//! roles.rs     the mechanism: a tree of roles, each level kept in that order
//! filters.rs   what was refused, until when
//! mod.rs       what each agent has: total = available + offered + used
//! allocate.rs  matching the two, touching only what changed
//! ```

mod allocate;
mod filters;
mod roles;
mod share;

use std::collections::{BTreeMap, BTreeSet};

use divvy_proto::ids::{AgentId, FrameworkId};
use divvy_proto::resources::Resources;
use divvy_proto::role::RolePath;
use divvy_proto::time::Timestamp;

pub(super) use allocate::Grant;
use filters::Filters;
use roles::{NodeIx, RoleTree};
pub(super) use share::{Quantities, Share};

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

/// What one agent has.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) id: AgentId,
    /// What it said it has.
    pub(super) declared: Resources,
    pub(super) used: Resources,
    pub(super) offered: Resources,
    /// What is left. Where tasks hold more than the agent declares (it came back smaller), there is none of it, and the
    /// agent counts as having what they hold until they end.
    pub(super) available: Resources,
    /// Its resources may be offered.
    active: bool,
    /// It is part of what shares are shares of.
    counted: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) framework: FrameworkId,
    pub(super) role: RolePath,
    node: NodeIx,
}

/// Sums over all agents that count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sums {
    declared: Quantities,
    pub(super) used: Quantities,
    pub(super) offered: Quantities,
    pub(super) available: Quantities,
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
        }
    }

    /// An agent that neither counts nor is offered yet.
    pub(super) fn add_agent(&mut self, id: AgentId, declared: Resources) -> AgentIx {
        let available = declared.clone();
        let (used, offered) = (Resources::new(), Resources::new());
        self.slots.push(Slot { id, declared, used, offered, available, active: false, counted: false });
        AgentIx(self.slots.len() - 1)
    }

    /// A framework in a role, made at the first question. It wants nothing at first.
    pub(super) fn client(&mut self, framework: &FrameworkId, role: &RolePath) -> ClientIx {
        let known = self.clients_of.get(framework).into_iter().flatten();
        if let Some(client) = known.copied().find(|client| self.clients[client.0].role == *role) {
            return client;
        }
        let client = ClientIx(self.clients.len());
        let node = self.tree.add_client(role, framework.as_str(), client);
        self.clients.push(Client { framework: framework.clone(), role: role.clone(), node });
        self.clients_of.entry(framework.clone()).or_default().push(client);
        client
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

    pub(super) fn set_weight(&mut self, role: &RolePath, weight: u32) {
        self.tree.set_weight(role, weight);
    }

    pub(super) fn weight(&self, role: &RolePath) -> u32 {
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
        let taken = sum(&slot.used, &slot.offered);
        slot.available = slot.declared.saturating_sub(&taken);
        if slot.counted {
            self.sums.add(slot);
        }
        let is_free = slot.active && is_worth_an_offer(&slot.available);
        match is_free {
            true => self.free.insert(agent),
            false => self.free.remove(&agent),
        };
        match is_free {
            true => self.untried.insert(agent, Untried::Everyone),
            false => self.untried.remove(&agent),
        };
    }

    /// What the agent says it has, now.
    pub(super) fn set_declared(&mut self, agent: AgentIx, declared: &Resources) {
        if self.slots[agent.0].declared != *declared {
            self.total_changed |= self.slots[agent.0].counted;
            self.change(agent, |slot| slot.declared = declared.clone());
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

    /// A task holds resources that were not offered by this master.
    pub(super) fn hold(&mut self, agent: AgentIx, client: ClientIx, resources: &Resources) {
        self.tree.hold(self.clients[client.0].node, resources);
        self.change(agent, |slot| slot.used = sum(&slot.used, resources));
    }

    /// A task has ended.
    pub(super) fn release(&mut self, agent: AgentIx, client: ClientIx, resources: &Resources) {
        self.tree.release(self.clients[client.0].node, resources);
        self.change(agent, |slot| slot.used = slot.used.saturating_sub(resources));
    }

    /// An offer is no more; `used` of it is now held by tasks.
    pub(super) fn end_offer(
        &mut self,
        agent: AgentIx,
        client: ClientIx,
        offered: &Resources,
        used: &Resources,
    ) {
        let node = self.clients[client.0].node;
        self.tree.release(node, offered);
        self.tree.hold(node, used);
        self.change(agent, |slot| {
            slot.offered = slot.offered.saturating_sub(offered);
            slot.used = sum(&slot.used, used);
        });
    }

    /// Whether the client wants offers. One that begins to is tried on every free agent.
    pub(super) fn set_wants(&mut self, client: ClientIx, wants: bool) {
        let node = self.clients[client.0].node;
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
            let taken = sum(&slot.used, &slot.offered);
            if slot.available != slot.declared.saturating_sub(&taken) {
                return Err(format!("{}: available is not what is left", slot.id));
            }
            if slot.declared.contains(&taken) && sum(&slot.available, &taken) != slot.declared {
                return Err(format!("{}: total is not available + offered + used", slot.id));
            }
            if self.free.contains(&AgentIx(at)) != (slot.active && is_worth_an_offer(&slot.available)) {
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

impl Sums {
    fn add(&mut self, slot: &Slot) {
        self.declared.add(&slot.declared);
        self.used.add(&slot.used);
        self.offered.add(&slot.offered);
        self.available.add(&slot.available);
    }

    fn sub(&mut self, slot: &Slot) {
        self.declared.sub(&slot.declared);
        self.used.sub(&slot.used);
        self.offered.sub(&slot.offered);
        self.available.sub(&slot.available);
    }
}

/// Both together. The kernel admits no task whose resources could not be added (`Kernel::check_report`), so the second
/// branch is not reached; it keeps `used` from shrinking if it ever were, and the invariants would tell.
pub(super) fn sum(left: &Resources, right: &Resources) -> Resources {
    left.checked_add(right).unwrap_or_else(|| left.clone())
}

/// Less than both a hundredth of a core and 32 MiB is not worth an offer (Mesos: `--min_allocatable_resources`).
fn is_worth_an_offer(available: &Resources) -> bool {
    available.cpus().millis() >= 10 || available.mem().bytes() >= 32 << 20
}
