//! What agents and the master say to each other, over one stream per agent.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::attributes::Attributes;
use crate::ids::{AgentId, Epoch, FrameworkId, Hostname, TaskId, UpdateId};
use crate::reservation::{Allocation, Reserved, Volume};
use crate::resources::Resources;
use crate::scheduler::StreamError;
use crate::task::{AgentTask, TaskInfo, TaskStatus};

/// An agent as it introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// Its id; absent the very first time.
    pub id: Option<AgentId>,
    /// The name of its machine.
    pub hostname: Hostname,
    /// Base address of its own HTTP API (logs, sandboxes): `http://10.0.0.7:5051`.
    pub url: String,
    /// The address at which its tasks' ports are reached.
    pub address: String,
    /// All it has, what is reserved included, what is revocable not.
    pub resources: Resources,
    /// What of it its command line reserves; each stack is one fixed reservation.
    #[serde(default)]
    pub reserved: Vec<Reserved>,
    /// What may be used beyond its resources for as long as nobody needs it (Mesos: oversubscription).
    #[serde(default)]
    pub revocable: Resources,
    /// What else it says of itself.
    pub attributes: Attributes,
    /// Its version.
    pub version: String,
}

/// What an agent tells the master. The first message on a stream is `Register`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentMessage {
    /// Begin, or come back with all that runs.
    Register {
        /// Who.
        agent: AgentInfo,
        /// Everything it runs or has not yet had acknowledged.
        tasks: Vec<AgentTask>,
    },
    /// The answer to a ping.
    Pong,
    /// A task changed. Repeated with back-off until acknowledged.
    Update {
        /// Whose task.
        framework_id: FrameworkId,
        /// What changed.
        status: TaskStatus,
    },
    /// A task has ended and nothing is left of its container, while earlier updates of it wait for their acknowledgement (Mesos:
    /// `latest_state`). How it ended comes as an update, when its turn comes.
    Ended {
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        task_id: TaskId,
    },
}

/// What the master tells an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "messages are moved once, into a queue")]
pub enum MasterMessage {
    /// The registration stands. The first message on a stream.
    Registered {
        /// To be kept for the life of the work directory.
        agent_id: AgentId,
        /// The master's incarnation.
        epoch: Epoch,
        /// A ping comes at least so often.
        ping_interval: Duration,
    },
    /// Still there?
    Ping,
    /// Run a task.
    Launch {
        /// Whose.
        framework_id: FrameworkId,
        /// The name of its framework, for people.
        framework_name: String,
        /// What.
        task: TaskInfo,
        /// Out of what it was given what it holds; to be reported with the task.
        allocation: Allocation,
    },
    /// End a task.
    Kill {
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        task_id: TaskId,
        /// From SIGTERM to SIGKILL; the task's own grace otherwise.
        grace: Option<Duration>,
    },
    /// An update has been taken care of by its framework.
    Acknowledge {
        /// Whose task.
        framework_id: FrameworkId,
        /// Which task.
        task_id: TaskId,
        /// Which update.
        update_id: UpdateId,
    },
    /// Kill all tasks of a framework and forget its unacknowledged updates.
    ShutdownFramework {
        /// Which.
        framework_id: FrameworkId,
    },
    /// All persistent volumes that the agent is to have. It makes the directories that are missing, and removes (with all that
    /// is in them) those that are not named. Sent after `Registered` and whenever it changes.
    Volumes(Vec<Volume>),
    /// The stream ends here, and why.
    Error(StreamError),
}
