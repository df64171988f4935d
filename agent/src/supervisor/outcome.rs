//! What ends mean: from an exit status, or from an order to end, to a state, a reason and words for people.

use std::time::Duration;

use divvy_proto::task::{Reason, TaskState};

use super::record::{Kill, KillCause};
use crate::container::Exited;

/// A state, why, and why in words for people.
pub(super) type Outcome = (TaskState, Reason, String);

/// What the end of a task's first process means.
pub(super) fn of_exit(kill: Option<&Kill>, exited: &Exited) -> Outcome {
    let how = exited.status.map_or_else(|| "nobody saw how".to_owned(), |status| status.to_string());
    if let Some(kill) = kill {
        let (state, reason, message) = killed(&kill.cause);
        return (state, reason, format!("{message} ({how})"));
    }
    if let Some(oom) = exited.oom {
        let message = format!("it used more memory than its limit of {} (at most {})", oom.limit, oom.peak);
        return (TaskState::Failed, Reason::OutOfMemory, message);
    }
    match exited.status {
        Some(status) if status.success() => (TaskState::Finished, Reason::CommandExited, how),
        Some(_) => (TaskState::Failed, Reason::CommandExited, how),
        None => {
            let message = "its container ended and nobody can tell how".to_owned();
            (TaskState::Failed, Reason::StatusLost, message)
        }
    }
}

fn killed(cause: &KillCause) -> Outcome {
    match cause {
        KillCause::Requested => (TaskState::Killed, Reason::KillRequested, "killed on request".to_owned()),
        KillCause::Unhealthy(how) => (TaskState::Failed, Reason::Unhealthy, format!("killed: {how}")),
        KillCause::DiskLimit { limit, used } => {
            let message = format!("it wrote more than its limit of {limit} on disk (found {used})");
            (TaskState::Failed, Reason::DiskLimit, message)
        }
        KillCause::GroupEnded(how) => (TaskState::Killed, Reason::GroupEnded, format!("killed: {how}")),
        KillCause::FrameworkRemoved => {
            (TaskState::Killed, Reason::FrameworkRemoved, "killed: its framework was torn down".to_owned())
        }
        KillCause::AgentGone => {
            (TaskState::Killed, Reason::AgentGone, "killed: the agent was declared gone".to_owned())
        }
    }
}

/// The end of a task that was never started, because it was to end before that.
pub(super) fn of_unstarted(kill: Option<&Kill>) -> Outcome {
    match kill.map(|kill| &kill.cause) {
        Some(KillCause::GroupEnded(how)) => (TaskState::Failed, Reason::GroupEnded, how.clone()),
        _ => {
            let message = "it was killed before it was started".to_owned();
            (TaskState::Killed, Reason::KilledDuringLaunch, message)
        }
    }
}

/// What is said when the order is given: why, and why in words.
pub(super) fn of_order(cause: &KillCause, grace: Duration) -> (Reason, String) {
    let (_, reason, message) = killed(cause);
    let message = match cause {
        KillCause::DiskLimit { .. } => message,
        KillCause::Unhealthy(how) | KillCause::GroupEnded(how) => how.clone(),
        _ => format!("it has {} to end", span(grace)),
    };
    (reason, message)
}

/// The end of a task that did not listen to SIGTERM.
pub(super) fn of_force(kill: &Kill) -> Outcome {
    let (state, reason, message) = killed(&kill.cause);
    if let KillCause::DiskLimit { .. } = kill.cause {
        return (state, reason, message); // it had no grace
    }
    (state, reason, format!("{message}; it did not end within {} of SIGTERM", span(kill.grace)))
}

/// A duration as people write it.
fn span(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}
