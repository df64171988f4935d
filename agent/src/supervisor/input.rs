//! All that can happen to the supervisor, and what it is told of its machine.

use core::net::IpAddr;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use divvy_proto::Bytes;
use divvy_proto::agent::{AgentInfo, MasterMessage};
use divvy_proto::ids::{FrameworkId, TaskId, VolumeId};
use divvy_proto::task::Reason;
use divvy_proto::time::Timestamp;

use super::record::{AgentRecord, TaskRecord};
use crate::container::{ContainerId, ContainerState, Exited, UserName};
use crate::image::Image;

/// What the operator sets and the machine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Names this process among all agents that ever run: the first part of every update and container id.
    pub incarnation: String,
    /// Which boot of the machine this is: containers do not survive another one.
    pub boot_id: String,
    /// How the agent introduces itself; its `id` is ignored, for the supervisor keeps that itself.
    pub agent: AgentInfo,
    /// Sandboxes are made below this directory.
    pub sandboxes: PathBuf,
    /// Persistent volumes are directories below this one, by id.
    pub volumes: PathBuf,
    /// Who runs the tasks that do not say.
    pub default_user: UserName,
    /// From SIGTERM to SIGKILL for tasks that do not say (Mesos: 3 s).
    pub kill_grace: Duration,
    /// Most processes and threads of tasks that do not say.
    pub pids_limit: u32,
    /// An update that is not acknowledged is sent again after this long, then after twice as long (Mesos: 10 s).
    pub retry_first: Duration,
    /// The longest pause between two sendings of an update (Mesos: 10 min).
    pub retry_longest: Duration,
    /// So many missed pings and the master is looked for anew (Mesos: 5).
    pub missed_pings: u32,
    /// How long a new stream may take to bring `Registered`.
    pub registration_timeout: Duration,
}

/// One stream to the master, as the shell names it. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Names something that is to be made durable. Later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// A task among all tasks: task ids are unique only within their framework.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKey {
    /// Whose.
    pub framework_id: FrameworkId,
    /// Which.
    pub task_id: TaskId,
}

/// Something happened.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "inputs are moved once, out of a queue")]
pub enum Input {
    /// What earlier processes left behind. The first input, and only the first.
    Recovered(Recovered),
    /// A stream to a master is open.
    Connected(LinkId),
    /// A stream has ended.
    Disconnected(LinkId),
    /// The master said something.
    Master {
        /// On this stream.
        link: LinkId,
        /// What.
        message: MasterMessage,
    },
    /// A checkpoint is on disk.
    Checkpointed(Token),
    /// The sandbox is there and all artifacts are in it, and so is the image.
    Prepared {
        /// For this container.
        container: ContainerId,
        /// What the task's image is here, if it has one.
        image: Option<Image>,
    },
    /// There is no sandbox, or an artifact is missing.
    PrepareFailed {
        /// For this container.
        container: ContainerId,
        /// `FetchFailed`, `ImageFailed` or `LaunchFailed`.
        reason: Reason,
        /// What stood in the way, for people.
        message: String,
    },
    /// The container's first process runs.
    Launched {
        /// Which container.
        container: ContainerId,
        /// Its first process as the host sees it.
        pid: u32,
        /// Its own addresses, where it has a network of its own.
        addresses: Vec<IpAddr>,
    },
    /// There is no container, and nothing of it is left.
    LaunchFailed {
        /// Which container.
        container: ContainerId,
        /// What stood in the way, for people.
        message: String,
    },
    /// The container's first process has ended.
    Exited {
        /// Which container.
        container: ContainerId,
        /// How.
        exited: Exited,
    },
    /// Nothing is left of the container but its sandbox.
    Destroyed(ContainerId),
    /// A health check has been made.
    Health {
        /// Of this container.
        container: ContainerId,
        /// Which of its task's checks, from 0.
        check: usize,
        /// How it failed, if it did.
        result: Result<(), String>,
    },
    /// The container has written more than it may.
    DiskLimit {
        /// Which container.
        container: ContainerId,
        /// What it may.
        limit: Bytes,
        /// What it has.
        used: Bytes,
    },
    /// The agent is to leave nothing behind: every task is killed, and no new one is accepted.
    KillAll {
        /// From SIGTERM to SIGKILL at most, whatever a task would like.
        grace: Duration,
    },
    /// Time has passed; due deadlines fire.
    Tick,
}

/// What earlier processes left behind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recovered {
    /// Who the agent is.
    pub agent: Option<AgentRecord>,
    /// What its tasks were, and what their containers are now.
    pub tasks: Vec<(TaskRecord, ContainerState)>,
    /// Every container that there is any trace of.
    pub containers: Vec<ContainerId>,
    /// The persistent volumes that are there.
    pub volumes: BTreeSet<VolumeId>,
}

/// A task that has a container, for those who show its logs and its use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveTask {
    /// Its container.
    pub container: ContainerId,
    /// Since when its process runs.
    pub running_since: Option<Timestamp>,
}
