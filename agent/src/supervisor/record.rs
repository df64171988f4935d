//! What the supervisor keeps on disk: one small record for itself, and one for each task that is not yet forgotten.

use std::collections::VecDeque;

use divvy_proto::Bytes;
use divvy_proto::container::StopSignal;
use divvy_proto::ids::{AgentId, FrameworkId};
use divvy_proto::reservation::Allocation;
use divvy_proto::task::{TaskInfo, TaskStatus};
use divvy_proto::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::input::TaskKey;
use crate::container::ContainerId;

/// Who the agent is, for the life of its work directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRecord {
    /// What the master calls it.
    pub agent_id: AgentId,
}

/// A task from its launch until its terminal update is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Whose it is.
    pub framework_id: FrameworkId,
    /// The name of its framework, for people.
    pub framework_name: String,
    /// What it is.
    pub info: TaskInfo,
    /// Out of which of the agent's resources it was given what it holds. Kept for the master.
    #[serde(default)]
    pub allocation: Allocation,
    /// Its container. Also the name of this record.
    pub container: ContainerId,
    /// Which boot of the machine it began in.
    pub boot_id: String,
    /// Since when its process runs, if it ever did.
    pub running_since: Option<Timestamp>,
    /// Why it is to end, if it is.
    pub kill: Option<Kill>,
    /// What asks its container to end.
    #[serde(default)]
    pub stop_signal: StopSignal,
    /// The latest that was said of it.
    pub latest: TaskStatus,
    /// What was said of it and not yet acknowledged, in order. Only the first is ever in flight.
    pub unacknowledged: VecDeque<TaskStatus>,
}

impl TaskRecord {
    /// Which task this is.
    #[must_use]
    pub fn key(&self) -> TaskKey {
        TaskKey { framework_id: self.framework_id.clone(), task_id: self.info.id.clone() }
    }
}

/// The order to end a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {
    /// Who wants it.
    pub cause: KillCause,
    /// From SIGTERM to SIGKILL.
    #[serde(with = "humantime_serde")]
    pub grace: std::time::Duration,
}

/// Who wants a task to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KillCause {
    /// Its framework or an operator.
    Requested,
    /// Its health checks; says which and how.
    Unhealthy(String),
    /// It has written more than it may.
    DiskLimit {
        /// What it may.
        limit: Bytes,
        /// What it has.
        used: Bytes,
    },
    /// Its group has ended, or does not start; says with whom.
    GroupEnded(String),
    /// Its framework was torn down: nobody waits for its updates.
    FrameworkRemoved,
    /// The agent was declared gone, and the task with it: nobody waits for its updates, nor for the news that it has ended.
    AgentGone,
}

impl KillCause {
    /// Whether nobody waits for what the task has to say.
    pub(super) const fn abandons(&self) -> bool {
        matches!(self, Self::FrameworkRemoved | Self::AgentGone)
    }
}
