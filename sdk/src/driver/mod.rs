//! The driver: everything between a [`Scheduler`] and a master, as a pure state machine.
//!
//! ```text
//!      shell (stream, store, timers)                  driver (this module)
//!   ──────────────────────────────────   input    ─────────────────────────────
//!   the stream said something           ───────►   handle(now, input, effects)
//!   the store has acknowledged          ───────►      keeps the view,
//!   next_deadline() has come            ───────►      pushes effects
//!   somebody holds a Handle             ───────►   apply(now, change, effects)
//!   the queue is drained                ───────►   end_turn(now, effects)
//!                                       ◄───────      calls reconcile once
//!   carries effects out, in order        effects
//! ```
//!
//! It keeps for a framework the contract of the offer protocol: one framework id for life; the record of a task is durable
//! before its Accept leaves; an update is acknowledged after `reconcile` saw it and the store has it; kills are repeated until
//! the end is known; after each subscription every live task is asked for until the master has answered; offers are used or
//! declined in the turn in which they come; no offers are asked for while none are wanted.
//!
//! What the shell owes it: after [`Effect::Connect`] and after [`Effect::Disconnect`], no event of an earlier stream; writes
//! become durable in the order of the effects; [`Driver::end_turn`] after each batch of inputs.
//!
//! Not here: sockets, the store, what to run.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod effect;
mod event;
mod input;
mod interest;
mod kills;
mod link;
mod outbox;
mod questions;
mod record;
mod status;
#[cfg(test)]
mod tests;
mod turn;

use std::collections::{BTreeMap, BTreeSet};

use divvy_proto::api::Agent;
use divvy_proto::ids::{CallId, Epoch, FrameworkId, InverseOfferId, TaskId, VolumeId};
use divvy_proto::scheduler::{CallBody, FrameworkInfo, OfferInfo, StreamError};
use divvy_proto::time::Timestamp;

pub use effect::{Effect, PersistToken};
pub use input::{Config, Input};
pub use record::Restored;

use crate::{Actions, Scheduler, View};
use interest::Interest;
use kills::Kills;
use link::{Link, State};
use outbox::{Batch, Outbox};
use questions::Questions;

/// The volumes of an agent.
fn volumes(agent: &Agent) -> BTreeSet<&VolumeId> {
    agent.volumes.iter().map(|volume| &volume.volume.id).collect()
}

/// A scheduler with all that the protocol asks of it. See the module.
#[derive(Debug)]
pub struct Driver<S> {
    config: Config,
    scheduler: S,
    view: View,
    id: Option<FrameworkId>,
    epoch: Epoch,
    link: Link,
    outbox: Outbox,
    interest: Interest,
    kills: Kills,
    questions: Questions,
    /// Came since the last turn; used or declined at its end.
    offers: Vec<OfferInfo>,
    /// Inverse offers that were accepted.
    inverse_accepted: BTreeSet<InverseOfferId>,
    /// To be sent when `reconcile` has seen what they are about.
    acknowledgements: Vec<CallBody>,
    /// Tasks whose records have to be written.
    changed: BTreeSet<TaskId>,
    /// Whether `reconcile` is to be called at the end of the turn.
    stale: bool,
    wake_at: Option<Timestamp>,
    /// Calls that have not been answered.
    asked: BTreeMap<CallId, CallBody>,
    calls: u64,
    tearing_down: bool,
    stopped: Option<StreamError>,
}

impl<S: Scheduler> Driver<S> {
    /// Begins with what an earlier process has stored. The first deadline is at once: it connects.
    pub fn new(config: Config, scheduler: S, restored: Restored) -> Self {
        let Restored { framework_id, tasks } = restored;
        let roles = config.framework.roles.clone();
        let view = View { connected: false, roles, ..View::of(Timestamp(0), tasks, []) };
        let killing = view.tasks().filter(|task| task.killing && task.is_live());
        let kills = Kills::of(killing.map(|task| task.id().clone()));
        Self {
            link: Link::new(&config),
            interest: Interest::new(&config),
            scheduler,
            view,
            id: framework_id,
            epoch: Epoch::default(),
            outbox: Outbox::default(),
            kills,
            questions: Questions::default(),
            offers: Vec::new(),
            inverse_accepted: BTreeSet::new(),
            acknowledgements: Vec::new(),
            changed: BTreeSet::new(),
            stale: true,
            wake_at: None,
            asked: BTreeMap::new(),
            calls: 0,
            tearing_down: false,
            stopped: None,
            config,
        }
    }

    /// Takes in what happened. `reconcile` is not called before the end of the turn.
    pub fn handle(&mut self, now: Timestamp, input: Input, effects: &mut Vec<Effect>) {
        self.view.now = self.view.now.max(now);
        if self.stopped.is_some() {
            return;
        }
        match input {
            Input::Connected => self.subscribe(effects),
            Input::Disconnected => self.go_down(),
            Input::Event(event) => self.event(event, effects),
            Input::Persisted(token) => self.outbox.persisted(token),
            Input::Agents(agents) => self.inventory(agents),
            Input::Agent(agent) => self.agent(agent),
            Input::Teardown => self.tear_down(),
            Input::Tick => self.fire(effects),
        }
        self.flush(effects);
    }

    /// Changes the scheduler from outside, and has what it says done. The change counts as durable when the token, if there is
    /// one, has been [`Input::Persisted`]. `reconcile` is called at the end of the turn.
    pub fn apply<R>(
        &mut self,
        now: Timestamp,
        change: impl FnOnce(&mut S, &View) -> (R, Actions),
        effects: &mut Vec<Effect>,
    ) -> (R, Option<PersistToken>) {
        self.view.now = self.view.now.max(now);
        let (answer, actions) = change(&mut self.scheduler, &self.view);
        if self.stopped.is_some() {
            return (answer, None);
        }
        self.stale = true;
        let token = self.carry_out(actions, turn::Due::default(), effects);
        self.flush(effects);
        (answer, token)
    }

    /// Ends a batch of inputs: `reconcile` is called if anything changed, and what it says is done.
    pub fn end_turn(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.view.now = self.view.now.max(now);
        if self.stopped.is_some() {
            return;
        }
        self.reconcile(effects);
        self.flush(effects);
    }

    /// When [`Input::Tick`] is due at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if self.stopped.is_some() {
            return None;
        }
        let subscribed = self.link.is_subscribed();
        let work = [self.kills.next(), self.questions.next(), self.interest.next(), self.outbox.next()];
        let work = work.into_iter().flatten().filter(|_| subscribed);
        work.chain(self.wake_at).chain([self.link.deadline()]).min()
    }

    /// The scheduler.
    pub fn scheduler(&self) -> &S {
        &self.scheduler
    }

    /// What the scheduler sees.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The framework's id, once it has one.
    pub fn framework_id(&self) -> Option<&FrameworkId> {
        self.id.as_ref()
    }

    /// Why it has stopped for good, if it has.
    pub fn stopped(&self) -> Option<&StreamError> {
        self.stopped.as_ref()
    }

    /// Everything whose time has come.
    fn fire(&mut self, effects: &mut Vec<Effect>) {
        let now = self.view.now;
        if self.link.deadline() <= now {
            self.link_is_due(effects);
        }
        if self.wake_at.is_some_and(|time| time <= now) {
            self.wake_at = None;
            self.stale = true;
        }
        if self.link.is_subscribed() {
            self.repeat(effects);
        }
    }

    /// Kills, questions and revives whose time has come.
    fn repeat(&mut self, effects: &mut Vec<Effect>) {
        let now = self.view.now;
        let mut calls = self.kills.due(now, &self.config);
        calls.extend(self.questions.due(now, &self.config, &self.view));
        calls.extend(self.interest.due(now));
        self.post(Batch { writes: Vec::new(), calls }, effects);
    }

    fn link_is_due(&mut self, effects: &mut Vec<Effect>) {
        match self.link.state() {
            State::Down { .. } => {
                self.link.open(self.view.now, &self.config);
                effects.push(Effect::Connect);
            }
            State::Opening { .. } | State::Subscribed { .. } => self.hang_up(effects),
        }
    }

    fn subscribe(&mut self, effects: &mut Vec<Effect>) {
        if !self.link.is_opening() {
            return;
        }
        let framework = FrameworkInfo { id: self.id.clone(), ..self.config.framework.clone() };
        let suppressed = self.interest.subscribe();
        self.send(CallBody::Subscribe { framework, suppressed }, effects);
    }

    /// Ends the connection, which is of no use any more.
    fn hang_up(&mut self, effects: &mut Vec<Effect>) {
        effects.push(Effect::Disconnect);
        self.go_down();
    }

    /// The connection is gone, and with it the offers and all calls that have not left.
    fn go_down(&mut self) {
        self.link.go_down(self.view.now, &self.config);
        self.stale |= self.view.connected;
        self.view.connected = false;
        self.offers.clear();
        self.acknowledgements.clear();
        self.asked.clear();
        for call in self.outbox.clear_calls() {
            if let CallBody::Accept { operations, .. } = call {
                self.never_left(&operations);
            }
        }
    }

    fn tear_down(&mut self) {
        self.tearing_down = true;
        if self.link.is_subscribed() {
            self.outbox.push(None, vec![CallBody::Teardown]);
        }
    }

    fn inventory(&mut self, agents: Vec<Agent>) {
        let listed: BTreeSet<_> = agents.iter().map(|agent| &agent.id).collect();
        let known = self.view.agents.len();
        self.view.agents.retain(|id, _| listed.contains(id));
        self.stale |= self.view.agents.len() != known;
        for agent in agents {
            self.agent(agent);
        }
    }

    /// What an agent's resources are used for changes with each task of anybody; only what it is wakes the scheduler.
    fn agent(&mut self, agent: Agent) {
        let same = self.view.agents.get(&agent.id).is_some_and(|known| {
            known.state == agent.state
                && known.hostname == agent.hostname
                && known.attributes == agent.attributes
                && known.resources.total == agent.resources.total
                && known.address == agent.address
                && volumes(known) == volumes(&agent)
        });
        self.stale |= !same;
        self.view.agents.insert(agent.id.clone(), agent);
    }

    /// Queues writes, and calls that may leave when these and all earlier writes are durable.
    fn post(&mut self, batch: Batch, effects: &mut Vec<Effect>) -> Option<PersistToken> {
        let writes = if self.config.durable { batch.writes } else { Vec::new() };
        let calls = if self.link.is_subscribed() { batch.calls } else { Vec::new() };
        let token = (!writes.is_empty()).then(|| self.outbox.token());
        if let Some(token) = token {
            effects.push(Effect::Persist { token, writes });
        }
        if token.is_some() || !calls.is_empty() {
            self.outbox.push(token, calls);
        }
        token
    }

    /// Sends the calls whose writes are durable.
    fn flush(&mut self, effects: &mut Vec<Effect>) {
        for body in self.outbox.take_ready(self.view.now) {
            self.send(body, effects);
        }
    }

    fn send(&mut self, body: CallBody, effects: &mut Vec<Effect>) {
        self.calls += 1;
        // The seed tells this process's calls from those of an earlier one under the same framework id.
        let Ok(id) = CallId::new(format!("{:x}-{}", self.config.seed, self.calls)) else { return };
        // An acknowledgement is answered only if it was refused, and that is nobody's business.
        if !matches!(body, CallBody::Acknowledge { .. }) {
            self.asked.insert(id.clone(), body.clone());
        }
        effects.push(Effect::Send(divvy_proto::scheduler::Call { id, body }));
    }

    /// Ends for good.
    fn stop(&mut self, error: StreamError, effects: &mut Vec<Effect>) {
        if self.tearing_down && error == StreamError::TornDown {
            let writes = record::all_deleted(&self.view);
            self.post(Batch { writes, calls: Vec::new() }, effects);
        }
        self.outbox.clear_calls();
        effects.extend([Effect::Disconnect, Effect::Stop(error.clone())]);
        self.view.connected = false;
        self.stopped = Some(error);
    }
}
