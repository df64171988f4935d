//! Tasks: what a framework asks an agent to run, and what is then said of it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::container::{ContainerInfo, Digest};
use crate::ids::{AgentId, FrameworkId, TaskId, UpdateId};
use crate::quantity::{Bytes, Cpus};
use crate::reservation::{Allocation, VolumeMount};
use crate::resources::Resources;
use crate::time::Timestamp;

/// Where a task stands. The names are Mesos's, without the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TaskState {
    /// The master has sent it to its agent.
    Staging,
    /// The agent prepares its container.
    Starting,
    /// Its process runs.
    Running,
    /// It was told to end and has not yet.
    Killing,
    /// Its agent does not answer; it may still run.
    Unreachable,
    /// It ended by itself, well.
    Finished,
    /// It ended by itself, badly.
    Failed,
    /// It ended because it was told to.
    Killed,
    /// It was not valid and never started.
    Error,
    /// It never started, through no fault of its own; trying again is fine.
    Dropped,
    /// An operator has said that its agent will not come back.
    Gone,
    /// Nobody knows of it. Only in answers to reconciliation.
    Unknown,
}

impl TaskState {
    /// Whether nothing can follow.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        use TaskState::{Dropped, Error, Failed, Finished, Gone, Killed};
        matches!(self, Finished | Failed | Killed | Error | Dropped | Gone)
    }

    /// The name in JSON and tables: `RUNNING`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Staging => "STAGING",
            Self::Starting => "STARTING",
            Self::Running => "RUNNING",
            Self::Killing => "KILLING",
            Self::Unreachable => "UNREACHABLE",
            Self::Finished => "FINISHED",
            Self::Failed => "FAILED",
            Self::Killed => "KILLED",
            Self::Error => "ERROR",
            Self::Dropped => "DROPPED",
            Self::Gone => "GONE",
            Self::Unknown => "UNKNOWN",
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why a task is in its state, for programs. The message beside it is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The command ended (or runs) by itself.
    CommandExited,
    /// A framework or operator asked for its end.
    KillRequested,
    /// The kill came before the launch was through.
    KilledDuringLaunch,
    /// Its health checks failed too often.
    Unhealthy,
    /// Its health changed.
    HealthChanged,
    /// It used more memory than its limit.
    OutOfMemory,
    /// Its container could not be made.
    LaunchFailed,
    /// An artifact could not be fetched or was not what its checksum says.
    FetchFailed,
    /// The description of the task was not valid.
    TaskInvalid,
    /// An offer of its Accept was no longer there.
    OfferGone,
    /// Its agent stopped answering.
    AgentUnreachable,
    /// Its agent answers again.
    AgentReturned,
    /// Its agent had disconnected before the launch was sent.
    AgentDisconnected,
    /// Its agent restarted or its machine rebooted, and the task did not survive.
    AgentRestarted,
    /// An operator declared its agent gone.
    AgentGone,
    /// Its framework was torn down.
    FrameworkRemoved,
    /// The answer to a question about it.
    Reconciliation,
    /// Its container ended and nobody can tell how.
    StatusLost,
    /// Another role was below its guarantee and needed what it held.
    Preempted,
    /// Its agent is being drained.
    AgentDrained,
    /// Its agent has fewer revocable resources than it promised.
    Revoked,
    /// It was launched together with others, all or none, and one of them could not be.
    GangBroken,
    /// Its image could not be had, or is not one.
    ImageFailed,
    /// It wrote more than it may: its disk, or the container's own files.
    DiskLimit,
    /// Another task of its group ended.
    GroupEnded,
}

impl Reason {
    /// The name in JSON and tables: `out_of_memory`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CommandExited => "command_exited",
            Self::KillRequested => "kill_requested",
            Self::KilledDuringLaunch => "killed_during_launch",
            Self::Unhealthy => "unhealthy",
            Self::HealthChanged => "health_changed",
            Self::OutOfMemory => "out_of_memory",
            Self::LaunchFailed => "launch_failed",
            Self::FetchFailed => "fetch_failed",
            Self::TaskInvalid => "task_invalid",
            Self::OfferGone => "offer_gone",
            Self::AgentUnreachable => "agent_unreachable",
            Self::AgentReturned => "agent_returned",
            Self::AgentDisconnected => "agent_disconnected",
            Self::AgentRestarted => "agent_restarted",
            Self::AgentGone => "agent_gone",
            Self::FrameworkRemoved => "framework_removed",
            Self::Reconciliation => "reconciliation",
            Self::StatusLost => "status_lost",
            Self::Preempted => "preempted",
            Self::AgentDrained => "agent_drained",
            Self::Revoked => "revoked",
            Self::GangBroken => "gang_broken",
            Self::ImageFailed => "image_failed",
            Self::DiskLimit => "disk_limit",
            Self::GroupEnded => "group_ended",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The master's kernel.
    Master,
    /// The agent's supervisor.
    Agent,
}

/// How a task's first process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// By exiting with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl ExitStatus {
    /// Exit code 0.
    #[must_use]
    pub const fn success(self) -> bool {
        matches!(self, Self::Code(0))
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What the agent knows of a task's container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// The container's first process as the host sees it.
    pub pid: Option<u32>,
    /// How it ended, once it has.
    pub exit: Option<ExitStatus>,
    /// The memory limit, where it was hit.
    pub memory_limit: Option<Bytes>,
    /// The most memory that was used, where the limit was hit.
    pub memory_peak: Option<Bytes>,
    /// The sandbox on the agent's disk.
    pub sandbox: Option<String>,
    /// Its own addresses, where it has a network of its own.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// What it may write, where it wrote more.
    #[serde(default)]
    pub disk_limit: Option<Bytes>,
    /// The digest of its image's manifest, where it has one.
    #[serde(default)]
    pub image: Option<Digest>,
}

/// One statement about a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// Which task.
    pub task_id: TaskId,
    /// On which agent, where that is known.
    pub agent_id: Option<AgentId>,
    /// Its state.
    pub state: TaskState,
    /// Why.
    pub reason: Reason,
    /// Who says so.
    pub source: Source,
    /// Why, for people.
    pub message: String,
    /// Since when.
    pub time: Timestamp,
    /// To be acknowledged with; absent where nothing is to be acknowledged.
    pub update_id: Option<UpdateId>,
    /// Whether its health checks pass; absent without checks, or before the first result.
    pub healthy: Option<bool>,
    /// What is known of its container.
    pub container: ContainerStatus,
}

/// What to execute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// A line for `/bin/sh -c`.
    Shell(String),
    /// A program and its arguments.
    Exec(Vec<String>),
    /// What the task's image says, with the task's arguments if it has any.
    Image,
}

impl Command {
    /// The arguments to execute, the program first.
    #[must_use]
    pub fn argv(&self) -> Vec<String> {
        match self {
            Self::Shell(line) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()],
            Self::Exec(argv) => argv.clone(),
            Self::Image => Vec::new(),
        }
    }
}

/// A file to put into the sandbox before the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// `file:///…`, an absolute path, `http://…` or `https://…`.
    pub uri: String,
    /// Lower-case hexadecimal SHA-256 of the file; required for http and https.
    pub sha256: Option<String>,
    /// Where in the sandbox; the last part of the URI by default.
    pub path: Option<String>,
    /// Unpack it (tar, tar.gz) where it lands.
    pub extract: bool,
    /// Give it the executable bit.
    pub executable: bool,
}

/// How to tell whether a task works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// GET answers 200 to 399.
    Http {
        /// On this port of the task.
        port: u16,
        /// With this path and query.
        path: String,
    },
    /// The same over TLS; nobody asks whose certificate it is.
    Https {
        /// On this port of the task.
        port: u16,
        /// With this path and query.
        path: String,
    },
    /// `grpc.health.v1.Health/Check` answers SERVING.
    Grpc {
        /// On this port of the task.
        port: u16,
        /// About this service; about the whole server if empty.
        service: String,
    },
    /// A connection is accepted.
    Tcp {
        /// On this port of the task.
        port: u16,
    },
    /// A command in the container exits with 0.
    Command(Command),
}

/// A probe and its rhythm. Failures do not count before `grace` has passed or a first success came, whichever is sooner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What to ask.
    pub probe: Probe,
    /// From one probe's end to the next's start.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// After which a probe has failed.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// See above.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
    /// So many failures on end and the task is killed; at least 1.
    pub failures: u32,
}

/// A port of a task by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskPort {
    /// The name, `http`.
    pub name: String,
    /// The number on the host.
    pub number: u16,
    /// The number in the container, where that has a network of its own; the same if absent.
    #[serde(default)]
    pub container: Option<u16>,
}

/// A task to run: everything its agent needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskInfo {
    /// Unique for the life of the framework.
    pub id: TaskId,
    /// For people; tasks of one service share it.
    pub name: String,
    /// What to execute.
    pub command: Command,
    /// What it is charged with: cpus are guaranteed, mem is a hard limit, ports are its own.
    pub resources: Resources,
    /// Caps its cpu time; without it, it may burst into idle cores.
    pub cpu_limit: Option<Cpus>,
    /// Most processes and threads it may have; the agent's default otherwise.
    pub pids_limit: Option<u32>,
    /// Its ports by name, in order; all of them are in `resources`.
    pub ports: Vec<TaskPort>,
    /// Its environment, beside what the agent adds.
    pub env: BTreeMap<String, String>,
    /// The user to run as; the agent's default otherwise.
    pub user: Option<String>,
    /// Files to fetch first.
    pub artifacts: Vec<Artifact>,
    /// Ways to tell whether it works; all must pass.
    pub health: Vec<HealthCheck>,
    /// From SIGTERM to SIGKILL; the agent's default otherwise.
    #[serde(with = "humantime_serde")]
    pub kill_grace: Option<Duration>,
    /// Free for the framework and for people.
    pub labels: BTreeMap<String, String>,
    /// Of two tasks that could be preempted, the one with the lower number is.
    #[serde(default)]
    pub priority: i32,
    /// Persistent volumes of its agent that it sees.
    #[serde(default)]
    pub volumes: Vec<VolumeMount>,
    /// How its container differs from the default, if it does.
    #[serde(default)]
    pub container: Option<Box<ContainerInfo>>,
}

/// A task as an agent reports it when it comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentTask {
    /// Whose it is.
    pub framework_id: FrameworkId,
    /// What it is.
    pub info: TaskInfo,
    /// Out of what it was given what it holds.
    #[serde(default)]
    pub allocation: Allocation,
    /// The latest that is known of it, acknowledged or not.
    pub status: TaskStatus,
}
