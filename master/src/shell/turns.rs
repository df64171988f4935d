//! The task that owns the kernel. A turn: take everything that waits, let the kernel handle each, let it allocate once for
//! all of it, carry the effects out in order, answer questions. The task waits for nothing but its queue and its deadline.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use divvy_proto::api::Change;
use divvy_proto::scheduler::{Event, Outcome, Refusal, StreamError};
use divvy_proto::time::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::changes::Changes;
use super::clock::Clock;
use super::handle::{Outbox, Query, Request};
use super::metrics::{Metrics, gauge, names};
use super::queue::Pushed;
use super::registry::{Commit, CommitError};
use crate::kernel::{Effect, Input, Kernel, LinkId, OperatorRequest, RequestId};

/// So many requests are taken into one turn at most, so that a flood cannot keep effects from leaving.
const LARGEST_TURN: usize = 4096;

/// While nobody watches, changes are told no more often than this: whoever comes back later finds them, and busy masters do
/// not draw each state of each task for nobody.
const UNWATCHED: Duration = Duration::from_secs(1);

/// The kernel and all that its effects need.
pub(super) struct Turns {
    pub(super) kernel: Kernel,
    pub(super) clock: Clock,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) changes: Changes,
    /// When those who watch were last told.
    pub(super) told: Timestamp,
    pub(super) metrics: Metrics,
    /// Where this master is reached.
    pub(super) address: Arc<str>,
    /// To the task that writes the registry. Unbounded, because this task waits for nobody; it holds no more than one
    /// change for each agent and framework that waits to be admitted.
    pub(super) commits: mpsc::UnboundedSender<Commit>,
    /// From it.
    pub(super) committed: mpsc::UnboundedReceiver<Result<Vec<Commit>, CommitError>>,
    pub(super) stop: CancellationToken,
    pub(super) links: Links,
    pub(super) operators: Operators,
}

/// Open streams by name.
pub(super) type Links = BTreeMap<LinkId, Outbox>;

/// Operators' questions that the kernel has not answered yet.
#[derive(Default)]
pub(super) struct Operators {
    waiting: BTreeMap<RequestId, oneshot::Sender<Result<(), String>>>,
    last: u64,
}

/// What one turn is fed with, and what is answered after it.
#[derive(Default)]
struct Turn {
    effects: Vec<Effect>,
    queries: Vec<Query>,
    inputs: u64,
}

/// Comes true when the kernel wants to be told the time.
async fn due(clock: Clock, deadline: Option<Timestamp>) {
    match deadline {
        Some(deadline) => tokio::time::sleep(clock.until(deadline)).await,
        None => std::future::pending().await,
    }
}

impl Turns {
    /// Runs until told to stop, or until the registry cannot be written any more.
    pub(super) async fn run(mut self) -> Result<(), CommitError> {
        let mut requests = Vec::new();
        loop {
            let due = due(self.clock, self.next_deadline());
            let committed = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                committed = self.committed.recv() => committed.ok_or(CommitError::Stopped)??,
                taken = self.requests.recv_many(&mut requests, LARGEST_TURN) => match taken {
                    0 => return Ok(()),
                    _ => Vec::new(),
                },
                () = due => Vec::new(),
            };
            while requests.len() < LARGEST_TURN
                && let Ok(request) = self.requests.try_recv()
            {
                requests.push(request);
            }
            let started = Instant::now();
            self.turn(committed, requests.drain(..));
            self.metrics.turn_seconds.observe(started.elapsed().as_secs_f64());
            // A turn does not wait, so a busy master must let its connections run in between.
            tokio::task::yield_now().await;
        }
    }

    /// When something is to be done if nothing happens before.
    fn next_deadline(&self) -> Option<Timestamp> {
        let tell = self.kernel.has_changes().then(|| self.told + UNWATCHED);
        self.kernel.next_deadline().into_iter().chain(tell).min()
    }

    fn turn(&mut self, committed: Vec<Commit>, requests: impl Iterator<Item = Request>) {
        let mut turn = Turn::default();
        for commit in committed {
            self.handle(Input::Persisted(commit.token), &mut turn);
        }
        let now = self.clock.now();
        if self.kernel.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.handle(Input::Tick, &mut turn);
        }
        for request in requests {
            self.take(request, &mut turn);
        }
        if turn.inputs > 0 {
            self.metrics.turn_inputs.observe(turn.inputs as f64);
            self.kernel.end_turn(self.clock.now(), &mut turn.effects);
        }
        for effect in turn.effects.drain(..) {
            self.carry_out(effect);
        }
        let now = self.clock.now();
        if self.changes.readers() > 0 || !turn.queries.is_empty() || now >= self.told + UNWATCHED {
            self.told = now;
            self.kernel.tell_changes(now, &mut turn.effects);
        }
        for effect in turn.effects {
            self.carry_out(effect);
        }
        for query in turn.queries {
            query(&self.kernel, &self.changes, now);
        }
        self.metrics.links.set(gauge(self.links.len()));
        self.metrics.watchers.set(gauge(self.changes.readers()));
    }

    fn take(&mut self, request: Request, turn: &mut Turn) {
        match request {
            Request::Open(link, outbox) => {
                self.links.insert(link, outbox);
            }
            Request::Input(input) => {
                if let Input::AgentClosed { link } | Input::FrameworkClosed { link } = input {
                    self.links.remove(&link);
                }
                self.handle(input, turn);
            }
            Request::Refuse(link, call_id, invalid) => {
                tracing::debug!(link = link.0, %call_id, %invalid, "a call is not valid");
                let outcome = Outcome::Refused(Refusal::Invalid(invalid));
                let event = Event::Reply { call_id, outcome };
                turn.effects.push(Effect::ToFramework { link, event });
            }
            Request::Reject(link, why) => {
                tracing::warn!(link = link.0, %why, "a stream's peer does not speak the protocol");
                turn.effects.push(Effect::Close { link, error: StreamError::Refused(why) });
            }
            Request::Operate(body, answer) => self.operate(body, answer, turn),
            Request::Query(query) => turn.queries.push(query),
        }
    }

    fn operate(
        &mut self,
        body: OperatorRequest,
        answer: oneshot::Sender<Result<(), String>>,
        turn: &mut Turn,
    ) {
        self.operators.last += 1;
        let request = RequestId(self.operators.last);
        self.operators.waiting.insert(request, answer);
        self.handle(Input::Operator { request, body }, turn);
    }

    fn handle(&mut self, input: Input, turn: &mut Turn) {
        if let Some(name) = names::input(&input) {
            self.metrics.received.get_or_create(&name).inc();
        }
        turn.inputs += 1;
        self.kernel.handle(self.clock.now(), input, &mut turn.effects);
    }

    fn carry_out(&mut self, effect: Effect) {
        if let Some(name) = names::effect(&effect) {
            self.metrics.sent.get_or_create(&name).inc();
        }
        match effect {
            Effect::ToAgent { link, message } => {
                if let Some(Outbox::Agent(outgoing)) = self.links.get(&link) {
                    self.note(link, outgoing.push(message));
                }
            }
            Effect::ToFramework { link, event } => {
                if let Some(Outbox::Framework(outgoing)) = self.links.get(&link) {
                    self.note(link, outgoing.push(event));
                }
            }
            Effect::Close { link, error } => match self.links.remove(&link) {
                Some(Outbox::Agent(outgoing)) => outgoing.end(error),
                Some(Outbox::Framework(outgoing)) => outgoing.end(error),
                None => {}
            },
            Effect::Persist { token, changes } => {
                // The other end is gone only when this task is about to hear why.
                let _ = self.commits.send(Commit { token, changes });
            }
            Effect::Answer { request, result } => {
                if let Some(answer) = self.operators.waiting.remove(&request) {
                    let _ = answer.send(result);
                }
            }
            Effect::Changed(mut change) => {
                if let Change::Status(status) = &mut change {
                    self.address.as_ref().clone_into(&mut status.leader);
                }
                self.changes.publish(change);
            }
        }
    }

    /// The kernel hears of a stream that was cut off when its reading half has ended, as of any other.
    fn note(&self, link: LinkId, pushed: Pushed) {
        if pushed == Pushed::CutOff {
            self.metrics.cut_off.inc();
            tracing::warn!(link = link.0, "a stream did not drain and was cut off");
        }
    }
}
