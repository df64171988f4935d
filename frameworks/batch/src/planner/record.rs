//! What survives a restart, and under which keys (below the framework's prefix).
//!
//! A launch needs no record of the planner's: the driver stores each task before its Accept leaves. An end is recorded in the
//! same commit in which the task is forgotten, so each end is accounted for exactly once.

use divvy_proto::ids::{AgentId, Hostname, TaskId};
use divvy_proto::task::{ExitStatus, Reason, TaskState};
use divvy_proto::time::Timestamp;
use divvy_sdk::Actions;
use serde::{Deserialize, Serialize};

use super::outcome::Outcome;
use super::report::{JobState, RunSummary};
use super::spec::{JobId, JobSpec};

/// Number of the next run, in decimal digits.
pub(super) const NEXT_RUN: &str = "next_run";

/// One try that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Try {
    /// Counted from 1.
    pub attempt: u32,
    /// Its task, under which its sandbox and logs are found on its agent.
    pub task_id: TaskId,
    /// Where it ran.
    pub agent_id: AgentId,
    /// On which machine.
    pub hostname: Hostname,
    /// Its last state.
    pub state: TaskState,
    /// What that meant for its index.
    pub outcome: Outcome,
    /// How its process ended, if it ran.
    pub exit: Option<ExitStatus>,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
    /// When it was first RUNNING.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Its sandbox on the agent's disk.
    pub sandbox: Option<String>,
}

/// Where an index stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Standing {
    /// Not done.
    #[default]
    Open,
    /// Done.
    Succeeded,
    /// It will not be tried again.
    Failed,
}

/// What is known of one index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Index {
    pub(super) standing: Standing,
    /// Tries that used up a retry.
    pub(super) failures: u32,
    /// Tries that were lost.
    pub(super) lost: u32,
    /// The latest attempt.
    pub(super) launched: u32,
    /// Not to be tried again before. Kept until the next try is launched.
    pub(super) retry_at: Option<Timestamp>,
    /// The attempt that was killed for its time.
    pub(super) timed_out: Option<u32>,
    /// The attempt that was killed because its resources were wanted back.
    #[serde(default)]
    pub(super) taken_back: Option<u32>,
    /// Tries that ended for that: they count for nothing.
    #[serde(default)]
    pub(super) given_back: u32,
    /// The latest tries that have ended, oldest first.
    pub(super) tries: Vec<Try>,
    /// Why it waits or has failed, for people.
    pub(super) cause: String,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    pub(super) state: JobState,
    pub(super) at: Timestamp,
    pub(super) reason: String,
}

/// What is known of one job besides its indexes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JobRecord {
    pub(super) spec: JobSpec,
    pub(super) run: u64,
    pub(super) submitted_at: Timestamp,
    pub(super) started_at: Option<Timestamp>,
    pub(super) cancelling: bool,
    pub(super) end: Option<End>,
    /// Earlier runs under the same name, oldest first.
    pub(super) history: Vec<RunSummary>,
}

/// What a key below the prefix is about. `None`: not the planner's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    NextRun,
    Job(JobId),
    Index { job: JobId, run: u64, index: u32 },
}

impl Key {
    pub(super) fn text(&self) -> String {
        match self {
            Self::NextRun => NEXT_RUN.to_owned(),
            Self::Job(job) => format!("jobs/{job}"),
            Self::Index { job, run, index } => format!("index/{job}/{run}/{index}"),
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == NEXT_RUN {
            return Some(Self::NextRun);
        }
        if let Some(job) = text.strip_prefix("jobs/") {
            return job.parse().ok().map(Self::Job);
        }
        let mut parts = text.strip_prefix("index/")?.split('/');
        let job = parts.next()?.parse().ok()?;
        Some(Self::Index { job, run: parts.next()?.parse().ok()?, index: parts.next()?.parse().ok()? })
    }
}

/// Records are plain data, so writing one as JSON cannot fail; if it did, keeping nothing is what a reader would notice.
pub(super) fn put<T: Serialize>(actions: &mut Actions, key: &Key, record: &T) {
    match serde_json::to_vec(record) {
        Ok(bytes) => actions.put(key.text(), bytes),
        Err(error) => tracing::error!(key = key.text(), %error, "a record could not be written as JSON"),
    }
}

/// What is stored is not what this version writes.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// One record cannot be read.
    #[error("stored record {key} cannot be read: {reason}")]
    Unreadable {
        /// Its key below the prefix.
        key: String,
        /// What was wrong.
        reason: String,
    },
}

impl RestoreError {
    pub(super) fn new(key: &str, reason: impl ToString) -> Self {
        Self::Unreadable { key: key.to_owned(), reason: reason.to_string() }
    }
}
