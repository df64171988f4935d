//! What the end of a task means for its index.
//!
//! Only what the work itself did uses up its retries. What the cluster did to it does not (Kubernetes learned this late and
//! calls it podFailurePolicy), but is bounded too.

use std::fmt;
use std::time::Duration;

use divvy_proto::task::{Reason, TaskState};
use divvy_sdk::Task;
use serde::{Deserialize, Serialize};

use super::spec::doubled;

/// How many tries of one index may be lost before it fails.
pub const MAX_LOST: u32 = 20;

/// What became of one try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It ended well, and its index is done.
    Succeeded,
    /// It ended badly by itself: an exit code, a signal, too much memory, failed health checks. Uses up a retry.
    Failed,
    /// It ran longer than the job's timeout and was killed. Uses up a retry.
    TimedOut,
    /// It can never run as described. Its index fails at once.
    Invalid,
    /// It never ran, or did not end by itself: its agent went away, its offer was gone, somebody killed it.
    Lost,
    /// Its resources were wanted back, for a drain or a guarantee. Tried again at once; counts for nothing.
    TakenBack,
    /// It was killed because its job ends.
    Cancelled,
    /// Another try had taken its place, or its index was done without it. Counts for nothing.
    Superseded,
}

impl Outcome {
    /// Whether it uses up a retry.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::TimedOut | Self::Invalid)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed out",
            Self::Invalid => "invalid",
            Self::Lost => "lost",
            Self::TakenBack => "taken back",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
        })
    }
}

/// What its job knows of a try that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Circumstances {
    /// Its index is done, or its job has ended.
    pub(super) settled: bool,
    /// A later try of the same index was launched.
    pub(super) superseded: bool,
    /// It was killed for its time.
    pub(super) timed_out: bool,
    /// It was killed because its resources were wanted back.
    pub(super) taken_back: bool,
    /// Its job is being ended.
    pub(super) ending: bool,
}

/// The rule. A success counts whatever else happened, unless the index has one.
pub(super) fn judge(task: &Task, now: Circumstances) -> Outcome {
    match (task.state(), task.status.reason) {
        _ if now.settled => Outcome::Superseded,
        (TaskState::Finished, _) => Outcome::Succeeded,
        _ if now.superseded => Outcome::Superseded,
        (TaskState::Error, _) => Outcome::Invalid,
        (TaskState::Dropped | TaskState::Gone, _) => Outcome::Lost,
        _ if now.timed_out => Outcome::TimedOut,
        (_, reason) if is_own_fault(reason) => Outcome::Failed,
        (TaskState::Killed, _) if now.ending => Outcome::Cancelled,
        (TaskState::Killed, _) if now.taken_back => Outcome::TakenBack,
        (_, reason) if is_taken_back(reason) => Outcome::TakenBack,
        (TaskState::Killed, _) => Outcome::Lost,
        (_, reason) if is_cluster_fault(reason) => Outcome::Lost,
        _ => Outcome::Failed,
    }
}

/// Reasons for which even a kill counts against the task.
const fn is_own_fault(reason: Reason) -> bool {
    matches!(reason, Reason::Unhealthy | Reason::OutOfMemory | Reason::DiskLimit | Reason::GroupEnded)
}

/// Reasons of the kernel for ending a task that are nobody's fault.
const fn is_taken_back(reason: Reason) -> bool {
    matches!(reason, Reason::Preempted | Reason::AgentDrained | Reason::Revoked)
}

/// Reasons for which even a failure does not count against the task.
const fn is_cluster_fault(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::AgentRestarted
            | Reason::AgentUnreachable
            | Reason::AgentDisconnected
            | Reason::AgentGone
            | Reason::StatusLost
            | Reason::OfferGone
            | Reason::KillRequested
            | Reason::KilledDuringLaunch
            | Reason::GangBroken
    )
}

/// How long an index waits after its `lost`-th lost try: from 1 s to 1 min, as most are lost to a hiccup.
pub(super) fn delay_after_loss(lost: u32) -> Duration {
    doubled(Duration::from_secs(1), lost, Duration::from_secs(60))
}

/// Why a try ended, for people: `exit code 1`, `timeout after 5m`, `OOM: …`.
pub(super) fn cause(task: &Task, outcome: Outcome, timeout: Option<Duration>) -> String {
    let status = &task.status;
    let exit = || status.container.exit.filter(|exit| !exit.success()).map(|exit| exit.to_string());
    let message = || (!status.message.is_empty()).then(|| status.message.clone());
    match outcome {
        Outcome::Succeeded => String::new(),
        Outcome::TimedOut => {
            format!("timeout after {}", humantime::format_duration(timeout.unwrap_or_default()))
        }
        Outcome::Failed if status.reason == Reason::CommandExited => {
            exit().or_else(message).unwrap_or_else(|| task.state().to_string())
        }
        _ => message().unwrap_or_else(|| format!("{}: {}", task.state(), status.reason)),
    }
}
