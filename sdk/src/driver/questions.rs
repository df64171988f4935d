//! Reconciliation: which tasks the master still owes an answer, and when to ask again (mesos.md 2.4, "client duty").

use std::collections::BTreeSet;

use divvy_proto::ids::TaskId;
use divvy_proto::scheduler::CallBody;
use divvy_proto::time::Timestamp;

use super::Config;
use super::link::doubled;
use crate::{Task, View};

/// Most tasks in one question.
const CHUNK: usize = 1000;

/// What has been asked and not been answered.
#[derive(Debug, Default)]
pub(super) struct Questions {
    open: BTreeSet<TaskId>,
    next: Option<Timestamp>,
    /// How often the open ones have been asked.
    times: u32,
    /// When to ask for everything again.
    all_at: Option<Timestamp>,
}

impl Questions {
    /// Asks for all live tasks, at once.
    pub(super) fn restart(&mut self, now: Timestamp, view: &View) {
        self.open = view.tasks().filter(|task| task.is_live()).map(|task| task.id().clone()).collect();
        (self.next, self.times, self.all_at) = (Some(now), 0, None);
    }

    /// Asks for one task, at once.
    pub(super) fn ask(&mut self, now: Timestamp, task_id: TaskId) {
        self.open.insert(task_id);
        self.next = Some(now);
    }

    /// The master said something of this task.
    pub(super) fn answered(&mut self, task_id: &TaskId) {
        // The first round has a question for all tasks too, so it goes out even if nothing is open.
        if self.open.remove(task_id) && self.open.is_empty() && self.all_at.is_some() {
            self.next = None;
        }
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        [self.next, self.all_at].into_iter().flatten().min()
    }

    /// The calls that are due.
    pub(super) fn due(&mut self, now: Timestamp, config: &Config, view: &View) -> Vec<CallBody> {
        if self.all_at.is_some_and(|time| time <= now) {
            self.restart(now, view);
        }
        if self.next.is_none_or(|time| time > now) {
            return Vec::new();
        }
        let mut calls = self.explicit(view);
        if self.all_at.is_none() {
            self.all_at = Some(now + config.reconcile_every);
            // Whatever else the master knows: tasks that are not in the table.
            calls.push(CallBody::Reconcile { tasks: Vec::new() });
        }
        self.next = (!self.open.is_empty()).then(|| now + doubled(config.reconcile_retry, self.times));
        self.times = self.times.saturating_add(1);
        calls
    }

    fn explicit(&self, view: &View) -> Vec<CallBody> {
        let agent = |id: &TaskId| view.task(id).map(|task: &Task| task.agent_id.clone());
        let all: Vec<_> = self.open.iter().map(|id| (id.clone(), agent(id))).collect();
        all.chunks(CHUNK).map(|tasks| CallBody::Reconcile { tasks: tasks.to_vec() }).collect()
    }
}
