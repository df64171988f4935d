//! What a status says beside what is already known: rules without state.
//!
//! Updates come at least once; answers to questions come in between and may be ahead of them. So a status never moves a task
//! backwards, and never out of a terminal state.

use divvy_proto::task::{Reason, Source, TaskState, TaskStatus};
use divvy_proto::time::Timestamp;

use crate::Task;

/// What to do with a status.
#[derive(Debug, PartialEq)]
pub(super) enum Judgement {
    /// It is news.
    News(Box<TaskStatus>),
    /// It is known, or older than what is known.
    Known,
    /// The task runs although it counts as ended, and has perhaps been replaced.
    Undead,
}

/// Judges a status of a task that is in the table.
pub(super) fn judge(task: &Task, status: TaskStatus) -> Judgement {
    let known = &task.status;
    if known.state.is_terminal() {
        // The agent's own words, with the exit status, may follow the master's summary.
        let detail = known.state == status.state && known.update_id.is_none() && status.update_id.is_some();
        return match status.state {
            _ if detail => Judgement::News(Box::new(complete(task, status))),
            state if state.is_terminal() || is_absent(state) => Judgement::Known,
            _ => Judgement::Undead,
        };
    }
    match status.state {
        TaskState::Unknown => Judgement::News(Box::new(lost(task, status))),
        state if state.is_terminal() => Judgement::News(Box::new(complete(task, status))),
        state if state == known.state => match repeats(known, &status) {
            true => Judgement::Known,
            false => Judgement::News(Box::new(complete(task, status))),
        },
        TaskState::Unreachable => Judgement::News(Box::new(complete(task, status))),
        state if known.state == TaskState::Unreachable || state > known.state => {
            Judgement::News(Box::new(complete(task, status)))
        }
        _ => Judgement::Known,
    }
}

fn is_absent(state: TaskState) -> bool {
    matches!(state, TaskState::Unknown | TaskState::Unreachable)
}

/// Whether a status of the same state says nothing new. An answer to a question has no details, so it never replaces them. Times
/// are compared only where one clock made both.
fn repeats(known: &TaskStatus, status: &TaskStatus) -> bool {
    let same = status.update_id.is_some() && known.update_id == status.update_id;
    let older = status.source == known.source && status.time < known.time;
    same || older || status.reason == Reason::Reconciliation
}

fn complete(task: &Task, status: TaskStatus) -> TaskStatus {
    TaskStatus { agent_id: Some(task.agent_id.clone()), ..status }
}

/// The master knows nothing of a task that was to be launched: it never was, or it is gone with its agent. Either way nobody
/// waits for it any more.
fn lost(task: &Task, status: TaskStatus) -> TaskStatus {
    let (state, message) = match task.state() {
        TaskState::Staging => (TaskState::Dropped, "the launch did not reach the master"),
        _ => (TaskState::Gone, "the master does not know the task any more"),
    };
    let message = match status.message.is_empty() {
        true => message.to_owned(),
        false => format!("{message}: {}", status.message),
    };
    complete(task, TaskStatus { state, message, healthy: None, ..status })
}

/// A status that the driver itself gives a task.
pub(super) fn own(
    task: &Task,
    state: TaskState,
    reason: Reason,
    message: String,
    time: Timestamp,
) -> TaskStatus {
    TaskStatus {
        task_id: task.info.id.clone(),
        agent_id: Some(task.agent_id.clone()),
        state,
        reason,
        source: Source::Master,
        message,
        time,
        update_id: None,
        healthy: None,
        container: task.status.container.clone(),
    }
}
