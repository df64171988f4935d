//! How a task's container differs from the default, which sees the host's files read-only and uses the host's network.
//!
//! Not here: how any of it is done, which is the agent's; nor limits on processor time, memory and processes, which are
//! resources of the task.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Invalid;
use crate::ids::{NetworkName, SecretName, TaskGroupId};
use crate::quantity::Bytes;
use crate::ranges::RangeSet;

mod image;
mod rights;

pub use image::{Digest, ImageName, ImageReference};
pub use rights::{Capability, Rlimit, RlimitKind, StopSignal};

/// Beside what [`crate::TaskInfo`] says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerInfo {
    /// Its root file system; the host's, read-only, if absent.
    pub image: Option<ImageName>,
    /// With an image and no command: what follows the image's entry point, instead of the image's own arguments.
    pub args: Vec<String>,
    /// Where it starts; the image's directory, or the sandbox, if absent.
    pub workdir: Option<String>,
    /// Its network.
    pub network: Network,
    /// The root file system cannot be written to. That of the host never can.
    pub read_only: bool,
    /// What it sees beside its root and its volumes.
    pub mounts: Vec<Mount>,
    /// Files with secrets, on a file system in memory.
    pub secrets: Vec<SecretFile>,
    /// Groups beside the user's own: names or numbers.
    pub groups: Vec<String>,
    /// Beyond the default set. They count for root only.
    pub add_capabilities: Vec<Capability>,
    /// Out of the default set; all of it if the list holds all.
    pub drop_capabilities: Vec<Capability>,
    /// Limits of its processes.
    pub rlimits: Vec<Rlimit>,
    /// Its root is nobody on the host.
    pub user_namespace: bool,
    /// Beyond the harmless ones.
    pub devices: Vec<DeviceAccess>,
    /// The size of `/dev/shm`; 64 MiB if absent (Docker's default).
    pub shm: Option<Bytes>,
    /// Only these processors.
    pub cpuset: Option<RangeSet>,
    /// Beyond this much memory it is slowed down and its pages are reclaimed (cgroup v2 only).
    pub memory_high: Option<Bytes>,
    /// What asks it to end; the image's, or SIGTERM, if absent.
    pub stop_signal: Option<StopSignal>,
    /// The tasks with which it shares network, ipc and fate.
    pub group: Option<GroupMember>,
}

/// What a container is connected to.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Network {
    /// The host's network, with the ports that the task was given.
    #[default]
    Host,
    /// Nothing but its own loopback.
    None,
    /// A CNI network of the agent's configuration; `bridge` exists without any.
    Named(NetworkName),
}

impl Network {
    /// Whether it has an address of its own.
    #[must_use]
    pub const fn is_own(&self) -> bool {
        matches!(self, Self::Named(_))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.pad("host"),
            Self::None => f.pad("none"),
            Self::Named(name) => name.fmt(f),
        }
    }
}

impl FromStr for Network {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "host" => Ok(Self::Host),
            "none" => Ok(Self::None),
            name => NetworkName::new(name).map(Self::Named).map_err(|_| {
                Invalid::new("network", name, "host, none, bridge or the name of a CNI network")
            }),
        }
    }
}

impl TryFrom<String> for Network {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

/// Something at a path of the container. Paths in it are absolute, without `..`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mount {
    /// A directory or file of the host. The operator has to have allowed it.
    Host {
        /// Its absolute path on the host.
        source: String,
        /// Where.
        path: String,
        /// Without the right to write.
        read_only: bool,
    },
    /// An empty file system in memory, charged to the container.
    Tmpfs {
        /// Where.
        path: String,
        /// At most so much.
        size: Bytes,
    },
    /// A directory or file below the sandbox; a directory is made where there is nothing.
    Sandbox {
        /// Below the sandbox.
        source: String,
        /// Where.
        path: String,
        /// Without the right to write.
        read_only: bool,
    },
}

impl Mount {
    /// Where the container sees it.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Host { path, .. } | Self::Tmpfs { path, .. } | Self::Sandbox { path, .. } => path,
        }
    }
}

/// A secret of the agent's secret directory, as a file that only the container's user can read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretFile {
    /// Which.
    pub name: SecretName,
    /// Where the container sees it; `/run/secrets/<name>` if absent.
    pub path: Option<String>,
}

/// A device that a container may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceAccess {
    /// On the host and in the container: below `/dev`. The operator has to have allowed it.
    pub path: String,
    /// Not only to read.
    pub write: bool,
}

/// A task's place in a task group: tasks on one agent that share network, ipc and volumes, start together and, unless said
/// otherwise, end together. They are launched by one call; the network is that of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMember {
    /// Which group, unique for the life of the framework.
    pub id: TaskGroupId,
    /// So many tasks it has: none starts before all are there.
    pub size: u32,
    /// When it ends, the others go on, and it may be launched again.
    pub ends_alone: bool,
}
