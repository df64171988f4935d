//! What the master says.

use std::time::Duration;

use divvy_proto::ids::{CallId, Epoch, FrameworkId, OperationId, TaskId};
use divvy_proto::scheduler::{CallBody, Event, Operation, Outcome, Refusal, StreamError};
use divvy_proto::task::{Reason, TaskState, TaskStatus};
use tracing::{debug, info, warn};

use super::outbox::Batch;
use super::status::{self, Judgement};
use super::{Driver, Effect, record};
use crate::{Kill, Scheduler};

/// So many ends of operations are known.
const OPERATIONS_KEPT: usize = 1000;

/// A task of an Accept: in which of its operations, and at which place there.
struct Launched<'a> {
    operation: usize,
    at: usize,
    task_id: &'a TaskId,
}

fn launched(operations: &[Operation]) -> impl Iterator<Item = Launched<'_>> {
    operations.iter().enumerate().flat_map(|(operation, what)| {
        let tasks = match what {
            Operation::Launch(tasks) | Operation::LaunchOn { tasks, .. } | Operation::LaunchGroup(tasks) => {
                tasks.as_slice()
            }
            _ => &[],
        };
        let tasks = tasks.iter().enumerate();
        tasks.map(move |(at, task)| Launched { operation, at, task_id: &task.id })
    })
}

/// Whether it is this task of the call that a refusal is about.
fn is_wrong(task: &Launched<'_>, refusal: &Refusal) -> bool {
    match refusal {
        Refusal::NotEnough { task_id: wrong, .. } | Refusal::DuplicateTask(wrong) => wrong == task.task_id,
        // `accept.operations[0].launch[2].resources.cpus`, `accept.operations[1].launch_on.tasks[0].user`
        Refusal::Invalid(invalid) => {
            let number = |after: &str| {
                let (_, rest) = invalid.field.split_once(after)?;
                rest.split(']').next()?.parse::<usize>().ok()
            };
            let operation = number("operations[").is_none_or(|number| number == task.operation);
            let at = number("launch[").or_else(|| number("tasks["));
            operation && at.is_none_or(|number| number == task.at)
        }
        Refusal::NotSupported(_) => true,
        _ => false,
    }
}

impl<S: Scheduler> Driver<S> {
    pub(super) fn event(&mut self, event: Event, effects: &mut Vec<Effect>) {
        if self.link.is_down() {
            return;
        }
        self.link.heard(self.view.now);
        match event {
            Event::Subscribed { framework_id, epoch, heartbeat } => {
                self.subscribed(framework_id, epoch, heartbeat, effects);
            }
            Event::Error(error) => self.ended(error, effects),
            Event::Reply { call_id, outcome } => self.reply(&call_id, outcome, effects),
            // Nothing else counts before the subscription stands.
            _ if !self.link.is_subscribed() => {}
            Event::Offers(offers) => self.offers.extend(offers),
            Event::Rescind(id) => self.offers.retain(|offer| offer.id != id),
            Event::Update(status) => self.update(status, effects),
            Event::Failure { agent_id } => {
                debug!(%agent_id, "an agent was lost");
                self.stale = true;
            }
            Event::Heartbeat => {}
            Event::InverseOffers(offers) => {
                self.view.inverse.extend(offers.into_iter().map(|offer| (offer.id, offer)));
                self.stale = true;
            }
            Event::RescindInverse(id) => {
                self.stale |= self.view.inverse.remove(&id).is_some();
                self.inverse_accepted.remove(&id);
            }
            Event::OperationUpdate { operation_id, outcome } => self.learn(operation_id, outcome),
            Event::Message { .. } => debug!("an event that is not supported yet"),
        }
    }

    fn subscribed(
        &mut self,
        framework_id: FrameworkId,
        epoch: Epoch,
        heartbeat: Duration,
        effects: &mut Vec<Effect>,
    ) {
        if !self.link.is_opening() {
            return;
        }
        if epoch < self.epoch {
            warn!(%epoch, known = %self.epoch, "a deposed master answered");
            return self.hang_up(effects);
        }
        match &self.id {
            Some(id) if *id != framework_id => {
                let text = format!("the master calls framework {id} by another id, {framework_id}");
                return self.stop(StreamError::Refused(text), effects);
            }
            Some(_) => {}
            None => {
                let writes = vec![record::put_id(&framework_id)];
                self.post(Batch { writes, calls: Vec::new() }, effects);
                self.id = Some(framework_id.clone());
            }
        }
        info!(%framework_id, %epoch, "subscribed");
        let now = self.view.now;
        self.epoch = epoch;
        self.asked.clear();
        // The master says anew what it wants back.
        self.view.inverse.clear();
        self.inverse_accepted.clear();
        self.link.subscribed(now, heartbeat, &self.config);
        self.view.connected = true;
        self.stale = true;
        self.questions.restart(now, &self.view);
        self.kills.restart(now);
        if self.tearing_down {
            self.tear_down();
        }
        self.repeat(effects);
    }

    fn ended(&mut self, error: StreamError, effects: &mut Vec<Effect>) {
        match error {
            StreamError::TooSlow(_) => {
                warn!(%error, "connecting again");
                self.hang_up(effects);
            }
            StreamError::TornDown if self.link.is_opening() && !self.tearing_down => self.begin_anew(effects),
            StreamError::TakenOver | StreamError::Refused(_) | StreamError::TornDown | StreamError::Gone => {
                self.stop(error, effects);
            }
        }
    }

    /// While this framework was away its id was retired, by an operator or as its failover timeout had passed. The master says so
    /// of an id that it knows, so the tasks are surely killed, and nothing runs twice under a new id. (An id that the master does
    /// not know at all is refused: it may be the wrong master.)
    fn begin_anew(&mut self, effects: &mut Vec<Effect>) {
        let Some(id) = self.id.take() else { return self.stop(StreamError::TornDown, effects) };
        warn!(framework_id = %id, "the id was retired and the tasks were killed; subscribing under a new id");
        let live: Vec<_> = self.view.tasks().filter(|task| task.is_live()).cloned().collect();
        for task in live {
            let (state, reason) = (TaskState::Gone, Reason::FrameworkRemoved);
            let message = format!("framework {id} was retired while it was away");
            self.take(status::own(&task, state, reason, message, self.view.now));
        }
        // One commit: live tasks without the id that they belong to would be refused at the next start.
        let changed = std::mem::take(&mut self.changed);
        let ended = changed.iter().filter_map(|id| self.view.task(id)).filter_map(record::put_task);
        let writes = [record::delete_id()].into_iter().chain(ended).collect();
        self.post(Batch { writes, calls: Vec::new() }, effects);
        self.hang_up(effects);
    }

    fn reply(&mut self, call_id: &CallId, outcome: Outcome, effects: &mut Vec<Effect>) {
        match (self.asked.remove(call_id), outcome) {
            (Some(CallBody::Teardown), Outcome::Accepted) => self.stop(StreamError::TornDown, effects),
            (_, Outcome::Accepted) => {}
            (Some(CallBody::Subscribe { .. }), Outcome::Refused(refusal)) => {
                self.stop(StreamError::Refused(refusal.to_string()), effects);
            }
            (Some(call), Outcome::Refused(Refusal::Later { retry_after })) => {
                debug!(%call_id, ?retry_after, "the master wants to be asked later");
                self.outbox.defer(self.view.now + retry_after, call);
            }
            (Some(CallBody::Accept { offers, operations, filters }), Outcome::Refused(refusal)) => {
                self.refused(&operations, &refusal);
                // What the master cannot read never reaches its kernel, which so holds the offers as unanswered.
                if matches!(refusal, Refusal::Invalid(_)) {
                    let calls = vec![CallBody::Decline { offers, filters }];
                    self.post(Batch { writes: Vec::new(), calls }, effects);
                }
            }
            (Some(CallBody::Kill { task_id, .. }), Outcome::Refused(refusal)) => {
                debug!(%task_id, %refusal, "a kill was refused");
                match self.view.task(&task_id) {
                    Some(task) if task.is_live() => self.questions.ask(self.view.now, task_id),
                    _ => self.kills.done(&task_id),
                }
            }
            (_, Outcome::Refused(refusal)) => warn!(%call_id, %refusal, "a call was refused"),
        }
    }

    /// An Accept was refused as a whole: what it should have launched never will be. The task that was wrong is in error; those
    /// beside it may be tried again.
    fn refused(&mut self, operations: &[Operation], refusal: &Refusal) {
        for task in launched(operations) {
            let (state, reason) = match is_wrong(&task, refusal) {
                true => (TaskState::Error, Reason::TaskInvalid),
                false => (TaskState::Dropped, Reason::OfferGone),
            };
            self.never_started(task.task_id, state, reason, refusal.to_string());
        }
        for id in operations.iter().filter_map(Operation::id) {
            self.learn(id.clone(), Outcome::Refused(refusal.clone()));
        }
        self.interest.doubt();
        self.stale = true;
    }

    /// What became of an operation. Operations are few: beyond a thousand the lowest ids make room.
    fn learn(&mut self, id: OperationId, outcome: Outcome) {
        self.view.operations.insert(id, outcome);
        if self.view.operations.len() > OPERATIONS_KEPT {
            self.view.operations.pop_first();
        }
        self.stale = true;
    }

    /// The stream ended before these left.
    pub(super) fn never_left(&mut self, operations: &[Operation]) {
        for Launched { task_id, .. } in launched(operations) {
            let message = "the connection to the master ended before the launch was sent".to_owned();
            self.never_started(task_id, TaskState::Dropped, Reason::OfferGone, message);
        }
    }

    fn never_started(&mut self, task_id: &TaskId, state: TaskState, reason: Reason, message: String) {
        let staging = self.view.tasks.get_mut(task_id).filter(|task| task.state() == TaskState::Staging);
        if let Some(task) = staging {
            let status = status::own(task, state, reason, message, self.view.now);
            self.take(status);
        }
    }

    fn update(&mut self, status: TaskStatus, effects: &mut Vec<Effect>) {
        self.questions.answered(&status.task_id);
        self.owe_acknowledgement(&status);
        let (task_id, state) = (status.task_id.clone(), status.state);
        let absent = matches!(state, TaskState::Unknown | TaskState::Unreachable);
        match self.view.tasks.get(&task_id).map(|task| status::judge(task, status)) {
            Some(Judgement::News(status)) => self.take(*status),
            // The end of a task that had counted as ended before, and was killed for running on.
            Some(Judgement::Known) if state.is_terminal() => self.kills.done(&task_id),
            Some(Judgement::Known) => {}
            Some(Judgement::Undead) => self.end_stray(task_id, effects),
            None if state.is_terminal() || absent => self.kills.done(&task_id),
            None => self.end_stray(task_id, effects),
        }
    }

    /// Puts a judged status into the table.
    fn take(&mut self, status: TaskStatus) {
        let Some(task) = self.view.tasks.get_mut(&status.task_id) else { return };
        if status.state == TaskState::Running && task.running_since.is_none() {
            task.running_since = Some(self.view.now);
        }
        task.status = status;
        let (id, ended) = (task.info.id.clone(), !task.is_live());
        if ended {
            task.killing = false;
            self.kills.done(&id);
            self.questions.answered(&id);
        }
        self.changed.insert(id);
        self.stale = true;
    }

    /// A task runs that the table has as ended, or not at all: nobody accounts for it.
    fn end_stray(&mut self, task_id: TaskId, effects: &mut Vec<Effect>) {
        if self.kills.want(self.view.now, &Kill { task_id: task_id.clone(), grace: None }) {
            warn!(%task_id, "a task runs that nobody asked for or that counts as ended; killing it");
            self.repeat(effects);
        }
    }

    fn owe_acknowledgement(&mut self, status: &TaskStatus) {
        let Some(update_id) = status.update_id.clone() else { return };
        let known = || self.view.task(&status.task_id).map(|task| task.agent_id.clone());
        let Some(agent_id) = status.agent_id.clone().or_else(known) else {
            warn!(task_id = %status.task_id, "an update without an agent cannot be acknowledged");
            return;
        };
        let task_id = status.task_id.clone();
        self.acknowledgements.push(CallBody::Acknowledge { agent_id, task_id, update_id });
    }
}
