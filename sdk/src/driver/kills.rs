//! Kills, repeated with back-off until the end of the task is known.

use std::collections::BTreeMap;
use std::time::Duration;

use divvy_proto::ids::TaskId;
use divvy_proto::scheduler::CallBody;
use divvy_proto::time::Timestamp;

use super::Config;
use super::link::doubled;
use crate::Kill;

/// The tasks that are to end, with when to say so again.
#[derive(Debug, Default)]
pub(super) struct Kills(BTreeMap<TaskId, Entry>);

#[derive(Debug)]
struct Entry {
    grace: Option<Duration>,
    next: Timestamp,
    times: u32,
}

impl Kills {
    /// Kills that an earlier process asked for.
    pub(super) fn of(tasks: impl Iterator<Item = TaskId>) -> Self {
        Self(tasks.map(|id| (id, Entry { grace: None, next: Timestamp(0), times: 0 })).collect())
    }

    /// Wants a task to end. Nothing new if that is wanted already with the same grace.
    pub(super) fn want(&mut self, now: Timestamp, kill: &Kill) -> bool {
        match self.0.get(&kill.task_id) {
            Some(entry) if entry.grace == kill.grace => return false,
            _ => {}
        }
        self.0.insert(kill.task_id.clone(), Entry { grace: kill.grace, next: now, times: 0 });
        true
    }

    /// The task has ended, or was never there.
    pub(super) fn done(&mut self, task_id: &TaskId) {
        self.0.remove(task_id);
    }

    /// On a new connection all are due at once.
    pub(super) fn restart(&mut self, now: Timestamp) {
        for entry in self.0.values_mut() {
            (entry.next, entry.times) = (now, 0);
        }
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        self.0.values().map(|entry| entry.next).min()
    }

    /// The calls that are due.
    pub(super) fn due(&mut self, now: Timestamp, config: &Config) -> Vec<CallBody> {
        let mut calls = Vec::new();
        for (task_id, entry) in self.0.iter_mut().filter(|(_, entry)| entry.next <= now) {
            entry.next = now + doubled(config.kill_retry, entry.times);
            entry.times = entry.times.saturating_add(1);
            calls.push(CallBody::Kill { task_id: task_id.clone(), grace: entry.grace });
        }
        calls
    }
}
