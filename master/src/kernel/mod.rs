//! The kernel: who may use how much of which agent, decided without clock, sockets or randomness.
//!
//! ```text
//!      shell (sockets, store, timers)                 kernel (this module)
//!   ──────────────────────────────────   input    ─────────────────────────────
//!   a stream said something             ───────►   handle(now, input, effects)
//!   the store has acknowledged          ───────►      changes itself,
//!   next_deadline() has come            ───────►      pushes effects
//!   the queue is drained                ───────►   end_turn(now, effects)
//!                                       ◄───────      allocates once for the batch
//!   carries effects out, in order        effects
//! ```
//!
//! An effect that depends on a fact which must survive a crash is pushed only after [`Input::Persisted`] has named that
//! fact: the kernel says `Persist`, waits, and then speaks.
//!
//! The listing is the design: `agents` register, return and fall silent (`pings`); `frameworks` subscribe, and their `calls`
//! move `offers` and `tasks`, `gangs` of them together; `reservations` says who owns what of an agent (`holdings`); the
//! `allocator` decides whose turn it is; `registry` says what must be remembered, `task_ids` that no id is used twice, and
//! `forgetting` what need not be; `changes` and `views` say what everyone may see; `invariants` says what must always hold.
//!
//! Not here: what a service or a job is; protobuf; JSON but for the views in [`divvy_proto::api`].
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod agents;
mod allocator;
mod calls;
mod changes;
mod decisions;
mod effect;
mod explain;
mod forgetting;
mod frameworks;
mod gangs;
mod holdings;
mod input;
mod invariants;
mod inverse;
mod maintenance;
mod offers;
mod operator;
mod pings;
mod policy;
mod preempt;
mod rates;
mod reconcile;
mod registry;
mod reservations;
mod revocable;
mod tally;
mod task_ids;
mod tasks;
mod timers;
mod views;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use divvy_proto::ids::{AgentId, FrameworkId, OfferId, TaskId};
use divvy_proto::quota::Weight;
use divvy_proto::reservation::Reserved;
use divvy_proto::scheduler::{Event, StreamError};
use divvy_proto::time::Timestamp;

pub use decisions::DecisionFilter;
pub use effect::{
    Absence, Effect, LinkId, PersistToken, RegistryChange, RequestId, TaskIdBucket, UsedTaskIds,
};
pub use explain::UnknownObject;
pub use input::{Config, Input, OperatorRequest};

use agents::Agent;
use allocator::Allocator;
use changes::Changes;
use decisions::Decisions;
use frameworks::{Connection, Framework};
use gangs::Gangs;
use inverse::InverseOffers;
use maintenance::Maintenance;
use offers::{Expiries, Offer};
use pings::Silences;
use policy::Policy;
use preempt::Preemptions;
use rates::Rates;
use registry::Awaited;
use tally::Tally;
use task_ids::NewlyUsed;
use timers::{Timer, Timers};

/// Names a task: it is unique within its framework only.
type TaskKey = (FrameworkId, TaskId);

/// What pushes effects takes them last, under this name.
type Effects = Vec<Effect>;

/// Who is at the other end of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Peer {
    /// An agent whose admission is being made durable.
    JoiningAgent(PersistToken),
    /// An agent.
    Agent(AgentId),
    /// A framework, subscribed or about to be.
    Framework(FrameworkId),
}

/// The state of the cluster and the rules by which it changes.
#[derive(Debug, Clone)]
pub struct Kernel {
    config: Config,
    /// The time of the first input, from which uptime counts.
    started: Option<Timestamp>,
    agents: BTreeMap<AgentId, Agent>,
    frameworks: BTreeMap<FrameworkId, Framework>,
    /// In boxes: they are large, and come and go at all ends of the map.
    offers: BTreeMap<OfferId, Box<Offer>>,
    expiries: Expiries,
    links: BTreeMap<LinkId, Peer>,
    allocator: Allocator,
    timers: Timers,
    awaited: BTreeMap<PersistToken, Awaited>,
    changes: Changes,
    decisions: Decisions,
    policy: Policy,
    inverse: InverseOffers,
    maintenance: Maintenance,
    preemptions: Preemptions,
    /// Tasks that were launched together on several agents and have not all run yet.
    gangs: Gangs,
    /// Task ids that were used up in this turn.
    newly_used: NewlyUsed,
    /// Task ids that are on the way to the store, in how many writes.
    ids_on_the_way: BTreeMap<TaskKey, u32>,
    rates: Rates,
    /// Agents that no longer have all that is reserved of them.
    too_small: BTreeSet<AgentId>,
    /// What is being reserved by writes that are on the way to the store.
    reserving: BTreeMap<PersistToken, Vec<Reserved>>,
    tally: Tally,
    silences: Silences,
    made: Made,
    /// Effects of `recover`, which has nowhere to push them.
    unsaid: Effects,
}

/// How many ids of each kind this epoch has made.
#[derive(Debug, Clone, Copy, Default)]
struct Made {
    agents: u64,
    frameworks: u64,
    offers: u32,
    tokens: u64,
}

impl Kernel {
    /// A cluster without agents and frameworks.
    #[must_use]
    pub fn new(config: Config) -> Self {
        // A rhythm of nothing would never let time pass.
        let least = Duration::from_millis(1);
        let (ping_interval, heartbeat) = (config.ping_interval.max(least), config.heartbeat.max(least));
        let config = Config { ping_interval, heartbeat, ..config };
        let mut allocator = Allocator::new();
        allocator.set_patience(config.patience);
        for (role, weight) in &config.weights {
            allocator.set_weight(role, Weight::from_thousandths(*weight).unwrap_or_default());
        }
        let decisions = Decisions::new(config.epoch, config.decisions_kept);
        Self {
            config,
            started: None,
            agents: BTreeMap::new(),
            frameworks: BTreeMap::new(),
            offers: BTreeMap::new(),
            expiries: Expiries::default(),
            links: BTreeMap::new(),
            allocator,
            timers: Timers::default(),
            awaited: BTreeMap::new(),
            changes: Changes::default(),
            decisions,
            policy: Policy::default(),
            inverse: InverseOffers::default(),
            maintenance: Maintenance::default(),
            preemptions: Preemptions::default(),
            gangs: Gangs::default(),
            newly_used: NewlyUsed::default(),
            ids_on_the_way: BTreeMap::new(),
            rates: Rates::default(),
            too_small: BTreeSet::new(),
            reserving: BTreeMap::new(),
            tally: Tally::default(),
            silences: Silences::default(),
            made: Made::default(),
            unsaid: Vec::new(),
        }
    }

    /// Takes in what happened, and pushes what is to be done about it.
    pub fn handle(&mut self, now: Timestamp, input: Input, effects: &mut Vec<Effect>) {
        self.started.get_or_insert(now);
        effects.append(&mut self.unsaid);
        match input {
            Input::Agent { link, message } => self.agent_says(now, link, message, effects),
            Input::Framework { link, call } => self.framework_says(now, link, call, effects),
            Input::AgentClosed { link } | Input::FrameworkClosed { link } => {
                self.link_closed(now, link, effects);
            }
            Input::Operator { request, body } => self.operator_asks(now, request, body, effects),
            Input::Persisted(token) => self.persisted(now, token, effects),
            Input::Tick => self.tick(now, effects),
        }
    }

    /// Ends a batch of inputs: allocates once for all of it. [`Kernel::tell_changes`] is for those who watch.
    pub fn end_turn(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.started.get_or_insert(now);
        effects.append(&mut self.unsaid);
        self.persist_task_ids(effects);
        self.send_offers(now, effects);
        self.preempt(now);
        self.empty_agents(now, effects);
        self.tell_inverse_offers(effects);
        self.tell_decisions(effects);
        self.count_frameworks();
        debug_assert_eq!(self.check_invariants(), Ok(()));
    }

    /// When to feed `Input::Tick` (and end a turn) if nothing else happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        // After a recovery there is something to say at once.
        let unsaid = self.started.filter(|_| !self.unsaid.is_empty());
        let offers = self.expiries.next();
        unsaid.into_iter().chain(self.timers.next()).chain(offers).chain(self.allocator.next_deadline()).min()
    }

    fn tick(&mut self, now: Timestamp, out: &mut Effects) {
        while let Some(id) = self.expiries.pop_due(now) {
            self.expire_offer(now, id, out);
        }
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Agent(id) => self.agent_due(now, &id, out),
                Timer::Failover(id) => self.failover_timeout(now, &id, out),
                Timer::Heartbeat(id) => self.heartbeat(now, &id, out),
                Timer::Inverse(id) => self.inverse_due(now, id, out),
                Timer::Maintenance => self.maintenance_due(now, out),
                // The end of the turn looks for victims.
                Timer::Preemption => {}
            }
        }
    }

    fn link_closed(&mut self, now: Timestamp, link: LinkId, out: &mut Effects) {
        match self.links.remove(&link) {
            None => {}
            Some(Peer::Agent(id)) => self.agent_left(now, &id, out),
            Some(Peer::JoiningAgent(token)) => self.joining_left(token, link),
            Some(Peer::Framework(id)) => self.framework_left(now, &id, link, out),
        }
    }

    /// Ends a stream that said what no honest peer would say. Whoever was on it is treated as if it had left.
    fn refuse_link(&mut self, now: Timestamp, link: LinkId, why: impl ToString, out: &mut Effects) {
        out.push(Effect::Close { link, error: StreamError::Refused(why.to_string()) });
        self.link_closed(now, link, out);
    }

    /// Tells a framework, if it is connected.
    fn tell(&self, framework: &FrameworkId, event: Event, out: &mut Effects) {
        if let Some(Connection::Connected { link }) = self.frameworks.get(framework).map(|f| f.connection) {
            out.push(Effect::ToFramework { link, event });
        }
    }
}
