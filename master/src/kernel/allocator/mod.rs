//! The allocator: whose turn it is, and what there is to give. It thinks in dense numbers, not in ids; it knows nothing of
//! streams, tasks or calls.
//!
//! ```text
//! share.rs     the policy: weighted dominant shares, compared exactly
//! roles.rs     the mechanism: a tree of roles, each level kept in that order; walk.rs goes through it
//! owed.rs      what guarantees still lack (fits.rs: in shapes), and what that leaves for others
//! quota.rs     the same for those who ask, and what roles may not exceed
//! slots.rs     what each agent has, pool by pool (charge.rs): total = available + offered + used
//! index.rs     agents by what they have free; classes.rs: by what constraints ask of them
//! clients.rs   frameworks in their roles, and what each wants (wishes.rs)
//! filters.rs   what was refused, until when; holds.rs: what is kept for those who have waited long
//! obstacle.rs  the one place that says whether something can be given, or why not
//! explain.rs   the obstacles of all agents to one thing, counted
//! allocate.rs  a turn: matching all that, touching only what changed; place.rs finds an agent for a shape
//! oracle.rs    the same turn by the book, for tests
//! ```

mod agent_set;
mod allocate;
mod charge;
mod classes;
mod clients;
mod explain;
mod filters;
mod fits;
mod gang;
mod holds;
mod index;
mod most;
mod obstacle;
#[cfg(test)]
mod oracle;
mod owed;
mod place;
mod quota;
#[cfg(test)]
mod random;
mod roles;
mod share;
mod size;
mod slots;
#[cfg(test)]
mod stories;
mod walk;
mod wishes;

use std::collections::{BTreeMap, BTreeSet};

use divvy_proto::ids::{AgentId, FrameworkId};
use divvy_proto::quantity::Bytes;
use divvy_proto::quota::Weight;
use divvy_proto::resources::Resources;
use divvy_proto::role::RolePath;
use divvy_proto::time::Timestamp;

use agent_set::AgentSet;
#[cfg(test)]
use allocate::Allocated;
pub(super) use allocate::{Grant, Note};
pub(super) use charge::Charge;
use classes::Classes;
use clients::Client;
pub(super) use explain::{Away, Cause, Counted, Waiting};
use filters::Filters;
use gang::Gangs;
use holds::Holds;
use index::{Index, Room};
pub(super) use obstacle::Obstacle;
pub(super) use quota::{OverLimit, Starving};
use roles::{Hands, RoleTree};
pub(super) use share::{Key, Quantities, Share};
pub(super) use size::Size;
pub(super) use slots::{Facts, Slot, Sums};
pub(super) use walk::Stage;
pub(super) use wishes::Wish;

macro_rules! index {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) struct $name(usize);
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

impl AgentIx {
    const MIN: Self = Self(0);
}

#[derive(Debug, Clone)]
pub(super) struct Allocator {
    slots: Vec<Slot>,
    /// Places of agents that are no more.
    vacant_slots: BTreeSet<AgentIx>,
    clients: Vec<Client>,
    vacant_clients: BTreeSet<ClientIx>,
    clients_of: BTreeMap<FrameworkId, Vec<ClientIx>>,
    /// Those that may be offered what can be taken back.
    revocable_frameworks: BTreeSet<FrameworkId>,
    tree: RoleTree,
    filters: Filters,
    classes: Classes,
    holds: Holds,
    gangs: Gangs,
    sums: Sums,
    total_changed: bool,
    /// What active agents have free and unreserved.
    free_sum: Size,
    /// There is more of it, or there was for a while.
    free_grew: bool,
    /// Active agents by what they have free, revocable resources apart.
    index: Index,
    /// By what they have free of these.
    revocable_index: Index,
    /// How many active agents have something free that is reserved.
    with_reserved: usize,
    /// Active agents with anything free.
    free: AgentSet,
    /// Those that have become freer since everybody was asked.
    fresh: AgentSet,
    /// Clients to be asked of all agents.
    hot: BTreeSet<ClientIx>,
    /// Clients to be asked of these agents.
    paired: BTreeMap<ClientIx, BTreeSet<AgentIx>>,
    /// Clients whom a limit stopped when they were last asked.
    limited: BTreeSet<ClientIx>,
    /// Clients whom headroom stopped when they were last asked.
    kept_back: BTreeSet<ClientIx>,
    /// Those of them whom headroom in shapes stopped, in this turn or an earlier one.
    kept_back_by_shape: BTreeSet<ClientIx>,
    /// How many clients want anything at all.
    wants_anything: usize,
    /// The least processor time, and the least memory, of what each of the others wants; and how many want it.
    least_wanted: [BTreeMap<i64, u32>; 2],
    /// Counts turns, and what within a turn makes those hope again who had found nothing.
    epoch: u64,
    /// The time of the latest turn.
    now: Timestamp,
}

#[allow(clippy::indexing_slicing, reason = "an index is made by this allocator only")]
impl Allocator {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            vacant_slots: BTreeSet::new(),
            clients: Vec::new(),
            vacant_clients: BTreeSet::new(),
            clients_of: BTreeMap::new(),
            revocable_frameworks: BTreeSet::new(),
            tree: RoleTree::new(),
            filters: Filters::default(),
            classes: Classes::default(),
            holds: Holds::default(),
            gangs: Gangs::default(),
            sums: Sums::default(),
            total_changed: false,
            free_sum: Size::new(),
            free_grew: false,
            index: Index::default(),
            revocable_index: Index::default(),
            with_reserved: 0,
            free: AgentSet::default(),
            fresh: AgentSet::default(),
            hot: BTreeSet::new(),
            paired: BTreeMap::new(),
            limited: BTreeSet::new(),
            kept_back: BTreeSet::new(),
            kept_back_by_shape: BTreeSet::new(),
            wants_anything: 0,
            least_wanted: [BTreeMap::new(), BTreeMap::new()],
            epoch: 0,
            now: Timestamp::default(),
        }
    }

    /// An agent that has nothing, and neither counts nor is offered yet.
    pub(super) fn add_agent(&mut self, id: AgentId, facts: Facts) -> AgentIx {
        let mut slot = Slot::new(id, facts);
        let agent = self.vacant_slots.pop_first().unwrap_or(AgentIx(self.slots.len()));
        slot.class = self.classes.add(agent, &slot);
        match self.slots.get_mut(agent.0) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
        agent
    }

    /// The agent will not come back; no task and no offer is on it. Its place is given to another.
    pub(super) fn remove_agent(&mut self, agent: AgentIx) {
        self.set_standing(agent, false, false);
        self.set_total(agent, Charge::new());
        self.set_volumes(agent, Vec::new());
        self.filters.clear_agent(agent);
        self.classes.remove(agent, &self.slots[agent.0]);
        self.end_room(agent);
        if let Some(client) = self.holds.on(agent) {
            self.end_hold(client);
        }
        self.lose_gathered(agent);
        self.vacant_slots.insert(agent);
    }

    /// What is known of the agent, now. If that is something else, what was refused of it is forgotten.
    pub(super) fn set_facts(&mut self, agent: AgentIx, facts: Facts) {
        if self.slots[agent.0].facts == facts {
            return;
        }
        let holders = self.slots[agent.0].holders.clone();
        holders.iter().for_each(|(client, count)| self.spread_less(agent, *client, *count));
        self.classes.remove(agent, &self.slots[agent.0]);
        self.slots[agent.0].facts = facts;
        self.slots[agent.0].class = self.classes.add(agent, &self.slots[agent.0]);
        holders.iter().for_each(|(client, count)| self.spread_more(agent, *client, *count));
        self.gangs.capacity += 1;
        self.clear_agent_filters(agent);
    }

    pub(super) fn slot(&self, agent: AgentIx) -> &Slot {
        &self.slots[agent.0]
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
        let before = (slot.active, slot.available.clone());
        change(slot);
        slot.settle();
        if slot.counted {
            self.sums.add(slot);
        }
        self.note_free(agent, before);
    }

    /// What an agent has free may be another than before.
    fn note_free(&mut self, agent: AgentIx, (was_active, before): (bool, Charge)) {
        let slot = &self.slots[agent.0];
        let (is_active, now) = (slot.active, &slot.available);
        if (was_active, &before) == (is_active, now) {
            return;
        }
        let was_free = was_active.then_some(&before);
        let is_free = is_active.then_some(now);
        was_free.iter().for_each(|free| self.free_sum.sub_resources(&free.unreserved));
        is_free.iter().for_each(|free| self.free_sum.add_resources(&free.unreserved));
        if !self.tree.fits.is_empty() {
            self.tree
                .fits
                .update(was_free.map(|free| &free.unreserved), is_free.map(|free| &free.unreserved));
        }
        let has_reserved = |free: Option<&Charge>| usize::from(free.is_some_and(|f| !f.reserved.is_empty()));
        self.with_reserved += has_reserved(is_free);
        self.with_reserved -= has_reserved(was_free);
        let is_freer = is_free.is_some_and(|now| was_free.is_none_or(|before| !before.contains(now)));
        self.free_grew |= is_freer;
        self.index_free(agent, is_freer);
    }

    fn index_free(&mut self, agent: AgentIx, is_freer: bool) {
        let slot = &self.slots[agent.0];
        if !slot.active || slot.available.is_empty() {
            self.index.remove(agent);
            self.revocable_index.remove(agent);
            self.free.remove(agent);
            self.fresh.remove(agent);
            return;
        }
        let free = &slot.available;
        let (room, total) = (room_of(free), room_of(&slot.total));
        self.index.set_total(agent, &total);
        self.index.set(agent, &room);
        if !slot.total.revocable.is_empty() {
            self.revocable_index.set_total(agent, &Room::from(&slot.total.revocable));
            self.revocable_index.set(agent, &Room::from(&free.revocable));
        }
        self.free.insert(agent);
        match self.is_of_use(free) {
            true if is_freer => self.fresh.insert(agent),
            true => {}
            false => self.fresh.remove(agent),
        }
    }

    /// Whether it could be enough for anybody who wants something.
    fn is_of_use(&self, free: &Charge) -> bool {
        let sum = |of: fn(&Resources) -> i64| free.pools().map(of).fold(0, i64::saturating_add);
        let (cpus, mem) = (sum(|pool| pool.cpus().millis()), sum(|pool| pool.mem().bytes()));
        let [least_cpus, least_mem] = &self.least_wanted;
        let least = least_cpus.first_key_value().zip(least_mem.first_key_value());
        self.wants_anything > 0 && (cpus >= LEAST_CPUS || mem >= LEAST_MEM)
            || least.is_some_and(|((least_cpus, _), (least_mem, _))| cpus >= *least_cpus && mem >= *least_mem)
    }

    /// What tasks on the agent can be given, now, by pool. The disk of its volumes is not in it.
    pub(super) fn set_total(&mut self, agent: AgentIx, total: Charge) {
        let slot = &self.slots[agent.0];
        if slot.total == total {
            return;
        }
        self.total_changed |= slot.counted;
        self.gangs.capacity += 1;
        let moves = slot.counted && slot.total.reserved != total.reserved;
        self.reserve_anew(agent, moves, |this| this.change(agent, |slot| slot.total = total));
    }

    /// The volumes on the agent: for whom, how large. They count as reserved for their role, and as part of the cluster.
    pub(super) fn set_volumes(&mut self, agent: AgentIx, volumes: Vec<(RolePath, Bytes)>) {
        let slot = &self.slots[agent.0];
        if slot.volumes == volumes {
            return;
        }
        self.total_changed |= slot.counted;
        let moves = slot.counted;
        self.reserve_anew(agent, moves, |this| this.change(agent, |slot| slot.volumes = volumes));
    }

    /// Whether the agent's resources may be offered, and whether they are part of what shares are shares of.
    pub(super) fn set_standing(&mut self, agent: AgentIx, active: bool, counted: bool) {
        let slot = &self.slots[agent.0];
        if (slot.active, slot.counted) == (active, counted) {
            return;
        }
        let moves = slot.counted != counted;
        self.total_changed |= moves;
        self.gangs.capacity += 1;
        if !active {
            self.lose_gathered(agent);
        }
        self.reserve_anew(agent, moves, |this| {
            let slot = &mut this.slots[agent.0];
            if slot.counted {
                this.sums.sub(slot);
            }
            slot.counted = counted;
            if counted {
                this.sums.add(slot);
            }
            this.change(agent, |slot| slot.active = active);
        });
    }

    /// What is reserved on an agent is counted for its roles as long as the agent counts.
    fn reserve_anew(&mut self, agent: AgentIx, moves: bool, change: impl FnOnce(&mut Self)) {
        let owned = |this: &Self| match moves && this.slots[agent.0].counted {
            true => this.slots[agent.0].owned(),
            false => Vec::new(),
        };
        let before = owned(self);
        change(self);
        for (role, resources) in owned(self) {
            self.tree.reserve(&role, &resources);
        }
        for (role, resources) in before {
            self.tree.unreserve(&role, &resources);
        }
    }

    /// A task holds this.
    pub(super) fn hold(&mut self, agent: AgentIx, client: ClientIx, charge: &Charge) {
        self.tree.hold(self.clients[client.0].node, charge, Hands::Used);
        self.change(agent, |slot| slot.used = slots::sum(&slot.used, charge));
        self.count_held(agent, client, 1);
    }

    /// A task has ended.
    pub(super) fn release(&mut self, agent: AgentIx, client: ClientIx, charge: &Charge) {
        self.tree.release(self.clients[client.0].node, charge, Hands::Used);
        self.change(agent, |slot| slot.used = slot.used.saturating_sub(charge));
        self.count_released(agent, client, 1);
    }

    /// The client does not want to see the like of `refused` on this agent before `until`.
    pub(super) fn refuse(&mut self, agent: AgentIx, client: ClientIx, refused: Resources, until: Timestamp) {
        self.filters.add(client, agent, obstacle::by_count(&refused), until);
    }

    pub(super) fn clear_client_filters(&mut self, client: ClientIx) {
        self.filters.clear_client(client);
        self.hot.insert(client);
    }

    pub(super) fn clear_agent_filters(&mut self, agent: AgentIx) {
        self.filters.clear_agent(agent);
        if self.free.contains(agent) {
            self.fresh.insert(agent);
        }
    }

    /// Counts on how many agents shapes fit that were not asked about before.
    fn count_fits(&mut self) {
        if self.tree.fits.is_uncounted() {
            let free = self.slots.iter().filter(|slot| slot.active).map(|slot| &slot.available.unreserved);
            self.tree.fits.count(free);
        }
    }

    /// When the turn has to be ended again because of what the allocator itself waits for: a filter that ends, a gang whose
    /// time is up, a demand that has waited long.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        let own = [self.filters.next_end(), self.next_gang_deadline(), self.holds.next_due()];
        own.into_iter().flatten().min()
    }

    /// Checks that everything derived agrees with what it is derived from.
    pub(super) fn check(&self) -> Result<(), String> {
        let (mut sums, mut free, mut with_reserved) = (Sums::default(), Size::new(), 0);
        for (at, slot) in self.slots.iter().enumerate() {
            slot.check()?;
            let is_free = slot.active && !slot.available.is_empty();
            if self.free.contains(AgentIx(at)) != is_free {
                return Err(format!("{}: the set of free agents is wrong", slot.id));
            }
            if slot.counted {
                sums.add(slot);
            }
            if slot.active {
                free.add_resources(&slot.available.unreserved);
                with_reserved += usize::from(!slot.available.reserved.is_empty());
            }
        }
        if (&sums, &free, with_reserved) != (&self.sums, &self.free_sum, self.with_reserved) {
            return Err("the cluster's sums do not agree with a recount".to_owned());
        }
        if let Some(agent) = self.fresh.iter().find(|agent| !self.free.contains(*agent)) {
            return Err(format!("{}: freer, but not free", self.slots[agent.0].id));
        }
        let free = self.slots.iter().filter(|slot| slot.active).map(|slot| &slot.available.unreserved);
        self.tree.fits.check(free)?;
        self.check_wants()?;
        self.index.check()?;
        self.tree.check()?;
        self.filters.check()
    }
}

/// What is not revocable.
fn room_of(charge: &Charge) -> Room {
    match charge.reserved.is_empty() {
        true => Room::from(&charge.unreserved),
        false => {
            let reserved = charge.reserved.iter().map(|piece| &piece.resources);
            Room::from(&reserved.fold(charge.unreserved.clone(), |all, more| sum(&all, more)))
        }
    }
}

/// Both together. The kernel admits no task whose resources could not be added (`Kernel::check_report`), so the second
/// branch is not reached; it keeps `used` from shrinking if it ever were, and the invariants would tell.
pub(super) fn sum(left: &Resources, right: &Resources) -> Resources {
    left.checked_add(right).unwrap_or_else(|| left.clone())
}

/// The least that is worth an offer, in thousandths and in bytes.
const LEAST_CPUS: i64 = divvy_proto::demand::LEAST_CPUS.millis();
const LEAST_MEM: i64 = divvy_proto::demand::LEAST_MEM.bytes();

/// Less than both a hundredth of a core and 32 MiB is not worth an offer (Mesos: `--min_allocatable_resources`).
fn is_worth_an_offer(available: &Resources) -> bool {
    available.cpus().millis() >= LEAST_CPUS || available.mem().bytes() >= LEAST_MEM
}
