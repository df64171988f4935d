//! The JSON of the REST API under `/v1`, shared by the server and its clients, and printed by `-o json`. Fields are added,
//! never renamed.

use std::collections::BTreeMap;

use divvy_sdk::proto::ids::{AgentId, Hostname, TaskId};
use divvy_sdk::proto::task::{ExitStatus, Reason, TaskPort, TaskState};
use divvy_sdk::proto::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Where an app stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppState {
    /// A deployment is under way.
    Deploying,
    /// All instances are healthy.
    Running,
    /// Fewer instances are healthy than should be.
    Degraded,
    /// The latest deployment failed; what it had not yet replaced runs on.
    Failed,
}

impl AppState {
    /// The name in JSON and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deploying => "deploying",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        }
    }
}

/// What began a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentKind {
    /// A first or changed definition of the task.
    Update,
    /// Another number of instances.
    Scale,
    /// The wish for new tasks.
    Restart,
    /// The wish for none.
    Remove,
}

/// Where a deployment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentState {
    /// Under way.
    Running,
    /// All instances were of its version and healthy.
    Succeeded,
    /// It gave up, and why is in `reason`.
    Failed,
}

/// The latest deployment of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// What began it.
    pub kind: DeploymentKind,
    /// The version it leads to.
    pub version: u32,
    /// Where it stands.
    pub state: DeploymentState,
    /// Why it failed.
    pub reason: Option<String>,
    /// How many instances are of its version and count as healthy.
    pub updated: u32,
    /// How many tasks of other versions still run.
    pub outdated: u32,
    /// Since when.
    pub started_at: Timestamp,
    /// Until when.
    pub ended_at: Option<Timestamp>,
}

/// Where an instance can be reached: it is healthy and will not be stopped before it has been taken off this list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The task behind it.
    pub task: TaskId,
    /// Its machine.
    pub hostname: Hostname,
    /// The address at which its ports are reached.
    pub host: String,
    /// Its ports by name.
    pub ports: BTreeMap<String, u16>,
    /// Its first port.
    pub port: u16,
    /// `host:port`, with its first port.
    pub address: String,
}

/// A task of an app that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// The task.
    pub id: TaskId,
    /// Which of the instances it is, from 0.
    pub instance: u32,
    /// Of which version.
    pub version: u32,
    /// Where the task stands.
    pub state: TaskState,
    /// RUNNING, and its health checks pass where there are any.
    pub healthy: bool,
    /// It was chosen to be stopped; its endpoint is withdrawn.
    pub stopping: bool,
    /// Its agent.
    pub agent_id: AgentId,
    /// Its machine.
    pub hostname: Hostname,
    /// Its ports by name.
    pub ports: Vec<TaskPort>,
    /// The container's first process as the host sees it.
    pub pid: Option<u32>,
    /// When it was first RUNNING.
    pub started_at: Option<Timestamp>,
    /// Why it is in this state, for people.
    pub message: String,
}

/// A task that ended without being asked to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Termination {
    /// The task.
    pub task: TaskId,
    /// Which of the instances it was.
    pub instance: u32,
    /// Of which version.
    pub version: u32,
    /// Where it ran.
    pub hostname: Hostname,
    /// How it ended.
    pub state: TaskState,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
    /// The exit code or signal, where there is one.
    pub exit: Option<ExitStatus>,
    /// When.
    pub at: Timestamp,
}

/// `GET /v1/apps/{id}`; `GET /v1/apps` answers a list of these, without `history`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppStatus {
    /// Its name.
    pub id: String,
    /// The version that is wanted.
    pub version: u32,
    /// Where it stands.
    pub state: AppState,
    /// Why it is not `running`, for people.
    pub reason: Option<String>,
    /// How many instances are wanted.
    pub instances: u32,
    /// How many tasks are RUNNING.
    pub running: u32,
    /// How many of them are healthy and will not be stopped.
    pub healthy: u32,
    /// The latest deployment.
    pub deployment: Deployment,
    /// Where it can be reached.
    pub endpoints: Vec<Endpoint>,
    /// Its tasks that have not ended.
    pub tasks: Vec<Instance>,
    /// Why instances are not launched now, for people.
    pub waiting: Option<String>,
    /// The latest task that ended without being asked to.
    pub last_failure: Option<Termination>,
    /// The latest such tasks, the newest first.
    #[serde(default)]
    pub history: Vec<Termination>,
}

/// `GET /v1/apps/{id}/endpoints`, and each event of the stream of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// The app.
    pub id: String,
    /// Where it can be reached now.
    pub endpoints: Vec<Endpoint>,
}

/// What an apply does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// The app is new.
    Created,
    /// Its task is another; instances are replaced.
    Updated,
    /// Its task is the same; instances are added or removed, or the way of updating is another.
    Scaled,
    /// The same version is tried again.
    Retried,
    /// Nothing.
    Unchanged,
}

/// The answer to a change, done or (`dry_run`) proposed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The app.
    pub id: String,
    /// Its version after the change.
    pub version: u32,
    /// What the change does.
    pub change: ChangeKind,
    /// Each field that differs, with both values.
    pub differences: Vec<String>,
    /// Most instances that may run at once meanwhile: what the cluster must have room for.
    pub peak: u32,
    /// Nothing was changed.
    pub dry_run: bool,
}

/// The body of `POST /v1/apps/{id}/scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// How many instances are wanted.
    pub instances: u32,
}

/// `GET /health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether the master can be reached.
    pub connected: bool,
    /// How many apps there are.
    pub apps: usize,
}
