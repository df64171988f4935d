//! What can go wrong, in words that a person can act on.

use std::path::PathBuf;
use std::time::Duration;

use divvy_proto::ids::{SecretName, VolumeId};
use serde::{Deserialize, Serialize};

use super::spec::{ContainerId, UserName};

/// Why a container was not launched. Nothing of it is left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LaunchError {
    /// The program cannot be executed.
    #[error("cannot run {program}: {why}")]
    Program {
        /// As the specification has it.
        program: String,
        /// What stands in the way.
        why: String,
        /// It is not there at all.
        #[serde(default)]
        missing: bool,
    },
    /// The host does not have the user.
    #[error("user {0} does not exist on this host")]
    UnknownUser(UserName),
    /// A part of the specification cannot be met by any host.
    #[error("{field} {value} is not possible: {why}")]
    Spec {
        /// Which part.
        field: String,
        /// Its value.
        value: String,
        /// The limit that it breaks.
        why: String,
    },
    /// A container with this id has not been destroyed.
    #[error("container {0} exists already")]
    Exists(ContainerId),
    /// A volume cannot be mounted.
    #[error("volume {id} cannot be mounted at {}: {why}", .path.display())]
    Volume {
        /// Which.
        id: VolumeId,
        /// Where the container would see it.
        path: PathBuf,
        /// What stands in the way.
        why: String,
    },
    /// A network cannot be had.
    #[error("network {network}: {why}")]
    Network {
        /// Its name.
        network: String,
        /// What stands in the way, and what to install or to change.
        why: String,
    },
    /// Something cannot be mounted.
    #[error("nothing can be mounted at {}: {why}", .path.display())]
    Mount {
        /// Where the container would see it.
        path: PathBuf,
        /// What stands in the way.
        why: String,
    },
    /// A secret cannot be given to the container.
    #[error("secret {name}: {why}")]
    Secret {
        /// Which.
        name: SecretName,
        /// What stands in the way.
        why: String,
    },
    /// The kernel refused a step.
    #[error("cannot {what}: {why}")]
    Step {
        /// What was tried, with the object: "mount /proc".
        what: String,
        /// What the kernel said.
        why: String,
    },
    /// The container's memory limit is so low that its program could not even be set up in it.
    #[error("the memory limit {limit} is too low to start {program} in")]
    MemoryTooLow {
        /// The limit.
        limit: divvy_proto::Bytes,
        /// What was to be run.
        program: String,
    },
    /// The shim ended without a word.
    #[error("the shim ended before the program was started ({0})")]
    ShimLost(String),
}

/// Why an operation on a container, or on all of them, failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// This host, or this process's rights on it, do not suffice to run containers.
    #[error("containers cannot run here: {missing}; {remedy}")]
    Host {
        /// What is missing.
        missing: String,
        /// What would help.
        remedy: String,
    },
    /// There is no such container, or none that runs.
    #[error("container {0} is not running")]
    NotRunning(ContainerId),
    /// A command in a container took too long and was killed.
    #[error("the command did not end within {}", humantime::format_duration(*.0))]
    ExecTimeout(Duration),
    /// A command in a container was not executed.
    #[error(transparent)]
    Exec(LaunchError),
    /// A file of the kernel or of the runtime cannot be read or written, or says what it should not.
    #[error("cannot {what} {}: {source}", .path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The kernel refused to change, read or remove a container's cgroup.
    #[error("container {id}: {why}")]
    Cgroup {
        /// Which container.
        id: ContainerId,
        /// On which file, and what the kernel said.
        why: String,
    },
    /// A container cannot be detached from its network.
    #[error("container {id}: cannot detach it from its network: {why}")]
    Network {
        /// Which container.
        id: ContainerId,
        /// Why not.
        why: String,
    },
    /// A container's shim cannot be started or spoken to.
    #[error("container {id}: cannot {what} its shim: {source}")]
    Shim {
        /// Which container.
        id: ContainerId,
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// Processes of a container outlive SIGKILL: most likely they hang in the kernel.
    #[error("container {id}: processes {pids:?} do not end after SIGKILL")]
    Unkillable {
        /// Which container.
        id: ContainerId,
        /// Its processes that are left, as the host sees them.
        pids: Vec<u32>,
    },
}
