//! One run of one job: which index stands where. Indexes are kept by what they wait for, so that what a reconcile costs
//! depends on the tasks that live, not on the size of the job.

use std::collections::{BTreeMap, BTreeSet};

use divvy_proto::time::Timestamp;
use divvy_sdk::{Actions, Kill, Task, View};

use super::outcome::{Circumstances, MAX_LOST, Outcome, cause, delay_after_loss, judge};
use super::record::{End, Index, JobRecord, Key, Standing, Try, put};
use super::report::{Counts, JobState, RunSummary};
use super::spec::{JobSpec, TryId};

/// How many ended tries of an index are kept; of older ones only their number is known.
const MAX_TRIES_KEPT: usize = 10;

/// A try that was launched and has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Live {
    /// Its agent does not answer since.
    pub(super) unreachable_since: Option<Timestamp>,
    killing: bool,
    /// When it will have run for the job's timeout.
    deadline: Option<Timestamp>,
}

impl Live {
    fn of(task: &Task, spec: &JobSpec) -> Self {
        let unreachable = task.state() == divvy_proto::TaskState::Unreachable;
        Self {
            unreachable_since: unreachable.then_some(task.status.time),
            killing: task.killing,
            deadline: task.running_since.zip(spec.timeout).map(|(since, timeout)| since + timeout),
        }
    }

    /// As it stands when it is launched.
    fn new() -> Self {
        Self { unreachable_since: None, killing: false, deadline: None }
    }
}

/// One run of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) spec: JobSpec,
    pub(super) run: u64,
    pub(super) submitted_at: Timestamp,
    pub(super) started_at: Option<Timestamp>,
    pub(super) cancelling: bool,
    pub(super) end: Option<End>,
    pub(super) history: Vec<RunSummary>,
    /// Every index of which anything is known; the others were never tried.
    pub(super) indexes: BTreeMap<u32, Index>,
    /// To be tried as soon as there is room.
    pub(super) ready: BTreeSet<u32>,
    /// To be tried after some time.
    pub(super) backing_off: BTreeSet<(Timestamp, u32)>,
    /// Their agents did not answer for so long that another try may start.
    pub(super) replaceable: BTreeSet<u32>,
    /// Tries that have not ended, by index and attempt.
    pub(super) live: BTreeMap<(u32, u32), Live>,
    running: u32,
    succeeded: u32,
    failed: u32,
}

impl Job {
    pub(super) fn new(spec: JobSpec, run: u64, now: Timestamp, history: Vec<RunSummary>) -> Self {
        let record = JobRecord {
            spec,
            run,
            submitted_at: now,
            started_at: None,
            cancelling: false,
            end: None,
            history,
        };
        Self::restore(record, BTreeMap::new())
    }

    /// As it was, from its records. Which tries live is learned from the view.
    pub(super) fn restore(record: JobRecord, mut indexes: BTreeMap<u32, Index>) -> Self {
        let JobRecord { spec, run, submitted_at, started_at, cancelling, end, history } = record;
        if end.is_some() {
            indexes.values_mut().for_each(|index| index.retry_at = None);
        }
        let standing = |standing| indexes.values().filter(|index| index.standing == standing).count();
        let (succeeded, failed) = (standing(Standing::Succeeded), standing(Standing::Failed));
        let open = |number: &u32| indexes.get(number).is_none_or(|index| index.standing == Standing::Open);
        let waits = |number: &u32| indexes.get(number).and_then(|index| index.retry_at);
        let todo = if end.is_none() { 0..spec.count } else { 0..0 };
        let todo = todo.filter(open);
        let (backing_off, ready): (Vec<u32>, Vec<u32>) = todo.partition(|number| waits(number).is_some());
        let backing_off = backing_off.into_iter().filter_map(|number| Some((waits(&number)?, number)));
        Self {
            backing_off: backing_off.collect(),
            ready: ready.into_iter().collect(),
            replaceable: BTreeSet::new(),
            live: BTreeMap::new(),
            running: 0,
            succeeded: u32::try_from(succeeded).unwrap_or(u32::MAX),
            failed: u32::try_from(failed).unwrap_or(u32::MAX),
            spec,
            run,
            submitted_at,
            started_at,
            cancelling,
            end,
            history,
            indexes,
        }
    }

    pub(super) fn keep(&self, actions: &mut Actions) {
        let record = JobRecord {
            spec: self.spec.clone(),
            run: self.run,
            submitted_at: self.submitted_at,
            started_at: self.started_at,
            cancelling: self.cancelling,
            end: self.end.clone(),
            history: self.history.clone(),
        };
        put(actions, &Key::Job(self.spec.id.clone()), &record);
    }

    pub(super) fn index_key(&self, index: u32) -> Key {
        Key::Index { job: self.spec.id.clone(), run: self.run, index }
    }

    // -- Looking --

    pub(super) fn state(&self) -> JobState {
        match (&self.end, self.started_at) {
            (Some(end), _) => end.state,
            (None, Some(_)) => JobState::Running,
            (None, None) => JobState::Pending,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let Self { succeeded, failed, .. } = *self;
        let open = self.spec.count.saturating_sub(succeeded).saturating_sub(failed);
        match self.end {
            Some(_) => Counts { succeeded, failed, cancelled: open, ..Counts::default() },
            None => {
                let pending = open.saturating_sub(self.running);
                Counts { pending, running: self.running, succeeded, failed, cancelled: 0 }
            }
        }
    }

    /// Whether nothing new is started and what runs is killed.
    pub(super) fn is_ending(&self) -> bool {
        self.cancelling || (self.failed > 0 && self.spec.fail_fast)
    }

    pub(super) fn ending_because(&self) -> Option<String> {
        match self.cancelling {
            true => Some("it is being cancelled".to_owned()),
            false => self.first_failure(),
        }
    }

    fn first_failure(&self) -> Option<String> {
        let failed = |(_, index): &(&u32, &Index)| index.standing == Standing::Failed;
        let (number, index) = self.indexes.iter().find(failed)?;
        let others = match self.failed {
            0 | 1 => String::new(),
            many => format!(" (and {} more indexes)", many - 1),
        };
        Some(format!("index {number} {}{others}", index.cause))
    }

    /// How many indexes have a task.
    pub(super) fn running(&self) -> u32 {
        self.running
    }

    /// How many more indexes may run.
    pub(super) fn slots(&self) -> u32 {
        self.spec.parallelism.map_or(u32::MAX, |most| most.saturating_sub(self.running))
    }

    /// Whether it would use an offer.
    pub(super) fn wants_offers(&self) -> bool {
        self.wanted() > 0
    }

    /// How many tasks it would launch now if there were room.
    pub(super) fn wanted(&self) -> u32 {
        if self.end.is_some() || self.is_ending() {
            return 0;
        }
        let count = |set: &BTreeSet<u32>| u32::try_from(set.len()).unwrap_or(u32::MAX);
        count(&self.replaceable).saturating_add(count(&self.ready).min(self.slots()))
    }

    /// Its tasks that have not ended, for placement.
    pub(super) fn peers<'a>(&self, view: &'a View) -> Vec<&'a Task> {
        let task = |&(index, attempt)| {
            let id = TryId { job: self.spec.id.clone(), run: self.run, index, attempt };
            view.task(&id.task_id().ok()?)
        };
        self.live.keys().filter_map(task).collect()
    }

    /// The earlier runs and this one, which has ended, as the next run keeps them.
    pub(super) fn history_with_itself(&self) -> Vec<RunSummary> {
        let mut history = self.history.clone();
        history.extend(self.end.as_ref().map(|end| RunSummary {
            run: self.run,
            state: end.state,
            counts: self.counts(),
            reason: Some(end.reason.clone()).filter(|reason| !reason.is_empty()),
            submitted_at: self.submitted_at,
            ended_at: end.at,
        }));
        let surplus = history.len().saturating_sub(super::MAX_HISTORY);
        history.split_off(surplus)
    }

    // -- Observing --

    /// A task of this run exists: no attempt up to it is made again.
    pub(super) fn saw(&mut self, id: &TryId) {
        let index = self.indexes.entry(id.index).or_default();
        if id.attempt > index.launched {
            index.launched = id.attempt;
            if let Some(at) = index.retry_at.take() {
                self.backing_off.remove(&(at, id.index));
                self.ready.insert(id.index);
            }
        }
    }

    /// A task of this run that has not ended. To be called after all were seen.
    pub(super) fn lives(&mut self, id: &TryId, task: &Task) {
        self.live.insert((id.index, id.attempt), Live::of(task, &self.spec));
        if self.indexes.get(&id.index).is_some_and(|index| index.launched == id.attempt) {
            self.ready.remove(&id.index);
        }
    }

    /// A task of this run has ended: what that means is recorded in the same commit in which it is forgotten.
    pub(super) fn account(&mut self, id: &TryId, task: &Task, now: Timestamp, actions: &mut Actions) {
        actions.forget(task.id().clone());
        let ending = self.is_ending();
        let index = self.indexes.entry(id.index).or_default();
        if index.tries.iter().any(|known| known.attempt == id.attempt) {
            return;
        }
        let outcome = judge(
            task,
            Circumstances {
                settled: index.standing != Standing::Open || self.end.is_some(),
                superseded: index.launched > id.attempt,
                timed_out: index.timed_out == Some(id.attempt),
                taken_back: index.taken_back == Some(id.attempt),
                ending,
            },
        );
        if index.launched == id.attempt {
            self.ready.remove(&id.index);
        }
        match index.apply(&self.spec, outcome, || cause(task, outcome, self.spec.timeout)) {
            Next::Nothing => {}
            Next::Succeeded => self.succeeded += 1,
            Next::Failed => self.failed += 1,
            // It is queued below.
            Next::AtOnce => {}
            Next::Retry(delay) => {
                index.retry_at = Some(now + delay);
                self.backing_off.insert((now + delay, id.index));
            }
        }
        if index.standing != Standing::Open {
            self.ready.remove(&id.index);
            if let Some(at) = index.retry_at.take() {
                self.backing_off.remove(&(at, id.index));
            }
        }
        index.remember(ended(id, task, outcome, self.spec.timeout));
        let key = Key::Index { job: self.spec.id.clone(), run: self.run, index: id.index };
        put(actions, &key, &*index);
        self.queue_if_idle(id.index, now);
    }

    /// An index that is not done, has no task and waits for nothing is to be tried.
    fn queue_if_idle(&mut self, number: u32, now: Timestamp) {
        let Some(index) = self.indexes.get(&number) else { return };
        let waits = index.retry_at.is_some_and(|at| at > now);
        let busy = self.is_held(number, now) || self.live.contains_key(&(number, index.launched));
        if index.standing == Standing::Open && self.end.is_none() && !waits && !busy {
            self.ready.insert(number);
        }
    }

    /// Whether a try of the index lives on an agent that answers, or has not been silent for long.
    fn is_held(&self, number: u32, now: Timestamp) -> bool {
        let mut tries = self.live.range((number, 0)..=(number, u32::MAX));
        tries.any(|(_, live)| {
            live.unreachable_since.is_none_or(|since| since + super::UNREACHABLE_AFTER > now)
        })
    }

    /// Closes an observation: `before` are the tries that lived at the last one. One that is no longer known at all was
    /// lost by the driver, which should never happen, and holds nothing up.
    pub(super) fn observed(&mut self, before: &BTreeMap<(u32, u32), Live>, now: Timestamp) {
        for id in before.keys() {
            if !self.live.contains_key(id) {
                self.queue_if_idle(id.0, now);
            }
        }
        let open =
            |number: &u32| self.indexes.get(number).is_some_and(|index| index.standing == Standing::Open);
        let live: BTreeSet<u32> = self.live.keys().map(|(number, _)| *number).filter(open).collect();
        self.running = u32::try_from(live.len()).unwrap_or(u32::MAX);
    }

    // -- Deciding --

    /// Does what is due, and says when the next thing is.
    pub(super) fn advance(&mut self, view: &View, actions: &mut Actions) {
        let now = view.now();
        self.take_back(view, actions);
        self.end_backoffs(now, actions);
        self.replaceable.clear();
        if self.is_ending() {
            self.ready.clear();
        }
        let live: Vec<((u32, u32), Live)> = self.live.iter().map(|(id, live)| (*id, *live)).collect();
        for ((number, attempt), live) in live {
            self.watch(number, attempt, live, now, actions);
        }
        self.settle(now, actions);
    }

    /// Ends the tries whose resources are wanted back. Marked before the kill leaves, so that their ends are known for what they
    /// are even after a restart.
    fn take_back(&mut self, view: &View, actions: &mut Actions) {
        for offer in view.inverse_offers() {
            for id in offer
                .tasks
                .iter()
                .filter_map(TryId::parse)
                .filter(|id| id.job == self.spec.id && id.run == self.run)
            {
                let live = self.live.get(&(id.index, id.attempt)).is_some_and(|live| !live.killing);
                let Some(index) = self.indexes.get_mut(&id.index).filter(|_| live) else { continue };
                if index.taken_back == Some(id.attempt) {
                    continue;
                }
                index.taken_back = Some(id.attempt);
                let key = Key::Index { job: self.spec.id.clone(), run: self.run, index: id.index };
                put(actions, &key, &*index);
                actions.kills.extend(id.task_id().ok().map(|task_id| Kill { task_id, grace: None }));
            }
        }
    }

    fn end_backoffs(&mut self, now: Timestamp, actions: &mut Actions) {
        while let Some((at, number)) = self.backing_off.first().copied() {
            if at > now {
                if !self.is_ending() {
                    actions.wake_at(at);
                }
                return;
            }
            self.backing_off.pop_first();
            self.ready.insert(number);
            // What was refused while this index waited may be just right for it.
            actions.revive = true;
        }
    }

    /// Looks at one try that lives.
    fn watch(&mut self, number: u32, attempt: u32, live: Live, now: Timestamp, actions: &mut Actions) {
        let ending = self.end.is_some() || self.is_ending();
        let Some(index) = self.indexes.get_mut(&number) else { return };
        let wanted = !ending && index.standing == Standing::Open;
        if let Some(since) = live.unreachable_since {
            if wanted {
                self.watch_silent(number, attempt, since, now, actions);
            }
            return;
        }
        // Also beside a try that was replaced, has come back and is being killed: there is one at a time.
        self.ready.remove(&number);
        let unwanted = !wanted || index.launched != attempt;
        if live.killing {
            return;
        }
        let overdue = live.deadline.is_some_and(|deadline| deadline <= now);
        if !unwanted && !overdue {
            live.deadline.into_iter().for_each(|deadline| actions.wake_at(deadline));
            return;
        }
        if !unwanted {
            // Durable before the kill leaves, so that its end is known for what it is even after a restart.
            index.timed_out = Some(attempt);
            let key = Key::Index { job: self.spec.id.clone(), run: self.run, index: number };
            put(actions, &key, &*index);
        }
        let id = TryId { job: self.spec.id.clone(), run: self.run, index: number, attempt };
        actions.kills.extend(id.task_id().ok().map(|task_id| Kill { task_id, grace: None }));
    }

    /// Looks at one try on an agent that does not answer: after some time it holds its index up no more.
    fn watch_silent(
        &mut self,
        number: u32,
        attempt: u32,
        since: Timestamp,
        now: Timestamp,
        actions: &mut Actions,
    ) {
        let due = since + super::UNREACHABLE_AFTER;
        if due > now {
            self.ready.remove(&number);
            actions.wake_at(due);
            return;
        }
        let Some(index) = self.indexes.get(&number) else { return };
        if index.launched != attempt {
            self.queue_if_idle(number, now);
        } else if index.may_be_tried(&self.spec) && !self.is_held(number, now) {
            self.replaceable.insert(number);
        }
    }

    /// Ends the run if nothing more is to come. A try on an agent that does not answer holds nothing up.
    fn settle(&mut self, now: Timestamp, actions: &mut Actions) {
        if self.end.is_some() {
            return;
        }
        let open = self.spec.count.saturating_sub(self.succeeded).saturating_sub(self.failed);
        let busy = self.live.values().any(|live| live.unreachable_since.is_none());
        let state = match () {
            () if open == 0 && self.failed == 0 => JobState::Succeeded,
            () if busy => return,
            () if self.cancelling => JobState::Cancelled,
            () if open == 0 || self.is_ending() => JobState::Failed,
            () => return,
        };
        let reason = match state {
            JobState::Failed => self.ending_because(),
            _ => None,
        };
        self.end = Some(End { state, at: now, reason: reason.unwrap_or_default() });
        self.ready.clear();
        self.backing_off.clear();
        self.indexes.values_mut().for_each(|index| index.retry_at = None);
        self.replaceable.clear();
        self.running = 0;
        self.keep(actions);
    }

    // -- Launching --

    /// The index to be tried next, and its attempt.
    pub(super) fn next(&self) -> Option<TryId> {
        self.upcoming().next()
    }

    /// The indexes to be tried, in order, and their attempts.
    pub(super) fn upcoming(&self) -> impl Iterator<Item = TryId> + '_ {
        self.replaceable.iter().chain(&self.ready).map(|index| {
            let attempt = self.indexes.get(index).map_or(0, |index| index.launched) + 1;
            TryId { job: self.spec.id.clone(), run: self.run, index: *index, attempt }
        })
    }

    /// A try was put into an Accept.
    pub(super) fn launched(&mut self, id: &TryId, now: Timestamp, actions: &mut Actions) {
        self.ready.remove(&id.index);
        if !self.replaceable.remove(&id.index) {
            self.running += 1;
        }
        let index = self.indexes.entry(id.index).or_default();
        index.launched = id.attempt;
        index.retry_at = None;
        self.live.insert((id.index, id.attempt), Live::new());
        if self.started_at.is_none() {
            self.started_at = Some(now);
            self.keep(actions);
        }
    }
}

/// What follows for an index from the end of a try.
enum Next {
    Nothing,
    Succeeded,
    Failed,
    AtOnce,
    Retry(std::time::Duration),
}

impl Index {
    /// Whether its bounds leave another try.
    pub(super) fn may_be_tried(&self, spec: &JobSpec) -> bool {
        let counted = self.launched.saturating_sub(self.given_back);
        counted < spec.retries.saturating_add(1).saturating_add(MAX_LOST)
    }

    fn apply(&mut self, spec: &JobSpec, outcome: Outcome, cause: impl FnOnce() -> String) -> Next {
        let delay = match outcome {
            Outcome::Succeeded => {
                self.standing = Standing::Succeeded;
                self.cause.clear();
                return Next::Succeeded;
            }
            Outcome::Cancelled | Outcome::Superseded => return Next::Nothing,
            Outcome::TakenBack => {
                self.given_back += 1;
                return Next::AtOnce;
            }
            Outcome::Lost => {
                self.lost += 1;
                delay_after_loss(self.lost)
            }
            Outcome::Failed | Outcome::TimedOut | Outcome::Invalid => {
                self.failures += 1;
                spec.delay(self.failures)
            }
        };
        let cause = cause();
        let for_good = match outcome {
            Outcome::Invalid => Some(format!("cannot run: {cause}")),
            Outcome::Lost if self.lost >= MAX_LOST || !self.may_be_tried(spec) => {
                Some(format!("was lost {} times, the last time: {cause}", self.lost))
            }
            Outcome::Lost => None,
            _ if self.failures > spec.retries || !self.may_be_tried(spec) => match self.failures {
                1 => Some(format!("failed: {cause}")),
                many => Some(format!("failed {many} times, the last time: {cause}")),
            },
            _ => None,
        };
        let failed = for_good.is_some();
        self.cause = for_good.unwrap_or(cause);
        if failed {
            self.standing = Standing::Failed;
            return Next::Failed;
        }
        Next::Retry(delay)
    }

    fn remember(&mut self, ended: Try) {
        self.tries.push(ended);
        if self.tries.len() > MAX_TRIES_KEPT {
            self.tries.remove(0);
        }
    }
}

fn ended(id: &TryId, task: &Task, outcome: Outcome, timeout: Option<std::time::Duration>) -> Try {
    let status = &task.status;
    let message = match outcome {
        Outcome::TimedOut => cause(task, outcome, timeout),
        _ => status.message.clone(),
    };
    Try {
        attempt: id.attempt,
        task_id: task.id().clone(),
        agent_id: task.agent_id.clone(),
        hostname: task.hostname.clone(),
        state: status.state,
        outcome,
        exit: status.container.exit,
        reason: status.reason,
        message,
        // The framework's clock and the agent's need not agree.
        started_at: task.running_since.map(|since| since.min(status.time)),
        ended_at: status.time,
        sandbox: status.container.sandbox.clone(),
    }
}
