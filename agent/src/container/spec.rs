//! What a container is made from, and what is then known of it: plain data, checked where it enters.
//!
//! Not here: how any of it is done.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use divvy_proto::container::{Capability, DeviceAccess, Mount, Network, Rlimit, SecretFile};
use divvy_proto::ids::VolumeId;
use divvy_proto::task::ExitStatus;
use divvy_proto::{Bytes, Cpus, Hostname, Invalid, RangeSet, Timestamp};
use serde::{Deserialize, Serialize};

macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $field:literal, $longest:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks a name.
            ///
            /// # Errors
            /// The text is empty, too long, or could not be the name of a file.
            pub fn new(text: impl Into<String>) -> Result<Self, Invalid> {
                let text = text.into();
                let stray = |c: char| c == '/' || c == '\\' || c == ':' || c.is_control() || c.is_whitespace();
                let bad = text.is_empty() || text.len() > $longest || text.starts_with('.') || text.chars().any(stray);
                if bad { Err(Invalid::new($field, text, $expected)) } else { Ok(Self(text)) }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;
            fn from_str(text: &str) -> Result<Self, Invalid> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;
            fn try_from(text: String) -> Result<Self, Invalid> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

checked_text!(
    /// A container of this agent. It names directories and cgroups, so it is at most 200 bytes, has no slash, colon or
    /// space, and does not begin with a dot.
    ContainerId,
    "container_id",
    200,
    "1 to 200 characters without slashes, colons or spaces, and no dot in front"
);
checked_text!(
    /// A user by the name that the host's user database has for it; in an image, by the name that the image's has, or by number.
    UserName,
    "user",
    32,
    "the name of a user"
);

/// Everything that makes a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Unique on this agent for as long as the container has not been destroyed.
    pub id: ContainerId,
    /// What the container sees as its host's name; at most 63 bytes (`sethostname`).
    pub hostname: Hostname,
    /// An existing directory: the working directory, writable, seen at this very path. It and what lies in it are given
    /// to `user`. It outlives the container.
    pub sandbox: PathBuf,
    /// The program and its arguments. A program without a slash is searched in the `PATH` of `env`.
    pub argv: Vec<String>,
    /// The whole environment; nothing is added and nothing inherited.
    pub env: BTreeMap<String, String>,
    /// Whom the program runs as.
    pub user: UserName,
    /// Processor time that it gets when everyone wants some; it may burst into idle cores.
    pub cpus: Cpus,
    /// Processor time that it never exceeds.
    pub cpu_limit: Option<Cpus>,
    /// Memory, with swap, that it never exceeds.
    pub memory: Bytes,
    /// Processes and threads that it never exceeds.
    pub pids: u32,
    /// Directories of the host that it sees beside its sandbox, and that outlive it.
    #[serde(default)]
    pub volumes: Vec<VolumeBind>,
    /// Its root file system.
    #[serde(default)]
    pub root: Root,
    /// The root file system cannot be written to. That of the host never can.
    #[serde(default)]
    pub read_only: bool,
    /// Its main group, by name or number, instead of the user's own.
    #[serde(default)]
    pub group: Option<String>,
    /// Where the program starts, an absolute path in the container; the sandbox if absent.
    #[serde(default)]
    pub workdir: Option<PathBuf>,
    /// What it is connected to.
    #[serde(default)]
    pub network: Network,
    /// Ports of the host that lead to ports of it, where it has a network of its own.
    #[serde(default)]
    pub port_maps: Vec<PortMap>,
    /// The container whose network and ipc namespaces it uses instead of its own. It has to run.
    #[serde(default)]
    pub joins: Option<ContainerId>,
    /// What it sees beside its root and its volumes.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Files with secrets, on a file system in memory. The agent reads them when the container starts.
    #[serde(default)]
    pub secrets: Vec<SecretFile>,
    /// Groups beside the user's own: names or numbers.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Beyond the default set of capabilities. They count for root only.
    #[serde(default)]
    pub add_capabilities: Vec<Capability>,
    /// Out of the default set of capabilities.
    #[serde(default)]
    pub drop_capabilities: Vec<Capability>,
    /// Limits of its processes.
    #[serde(default)]
    pub rlimits: Vec<Rlimit>,
    /// Its root is nobody on the host.
    #[serde(default)]
    pub user_namespace: bool,
    /// Devices beyond the harmless ones.
    #[serde(default)]
    pub devices: Vec<DeviceAccess>,
    /// The size of `/dev/shm`; 64 MiB if absent.
    #[serde(default)]
    pub shm: Option<Bytes>,
    /// Only these processors.
    #[serde(default)]
    pub cpuset: Option<RangeSet>,
    /// Beyond this much memory it is slowed down (cgroup v2 only).
    #[serde(default)]
    pub memory_high: Option<Bytes>,
    /// What it may write, to its sandbox and to its own layer of the root together.
    #[serde(default)]
    pub disk: Option<Bytes>,
}

impl ContainerSpec {
    /// A container that uses the host's files and network and needs nothing else, for at most `limits` of memory and processes.
    #[must_use]
    pub fn plain(
        id: ContainerId,
        hostname: Hostname,
        sandbox: PathBuf,
        user: UserName,
        limits: (Bytes, u32),
    ) -> Self {
        Self {
            id,
            hostname,
            sandbox,
            argv: Vec::new(),
            env: BTreeMap::new(),
            user,
            cpus: Cpus::ZERO,
            cpu_limit: None,
            memory: limits.0,
            pids: limits.1,
            volumes: Vec::new(),
            root: Root::Host,
            read_only: false,
            group: None,
            workdir: None,
            network: Network::Host,
            port_maps: Vec::new(),
            joins: None,
            mounts: Vec::new(),
            secrets: Vec::new(),
            groups: Vec::new(),
            add_capabilities: Vec::new(),
            drop_capabilities: Vec::new(),
            rlimits: Vec::new(),
            user_namespace: false,
            devices: Vec::new(),
            shm: None,
            cpuset: None,
            memory_high: None,
            disk: None,
        }
    }
}

/// Where a container's root file system comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// The host's, read-only.
    #[default]
    Host,
    /// An image's layers under a private upper one.
    Image {
        /// Directories with unpacked layers, the lowest first. They are not written to, and stay as long as the container.
        layers: Vec<PathBuf>,
    },
}

/// Where a container with an image sees its sandbox; one that uses the host's files sees it at its own path.
pub const SANDBOX: &str = "/mnt/sandbox";

/// A port of the host that leads to one of the container, for TCP and UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMap {
    /// On the host.
    pub host: u16,
    /// In the container.
    pub container: u16,
}

/// A directory of the host at a place in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeBind {
    /// What it is called, for messages.
    pub id: VolumeId,
    /// An existing directory. It is given to the container's user unless it is read-only.
    pub source: PathBuf,
    /// Where the container sees it: an absolute path. Below the sandbox, `/tmp`, `/var/tmp` and `/run` the directory is made;
    /// anywhere else it has to exist on the host. No part of it may be a symbolic link.
    pub target: PathBuf,
    /// Without the right to write.
    pub read_only: bool,
}

/// A container whose program has been executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The first process as the host sees it; inside it is pid 1.
    pub pid: u32,
    /// Its own addresses, where it has a network of its own.
    pub addresses: Vec<IpAddr>,
}

/// The kernel killed processes of a container for memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Oom {
    /// What it was allowed.
    pub limit: Bytes,
    /// The most that it used.
    pub peak: Bytes,
}

/// The end of a container's first process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    /// How it ended; `None` if its shim was killed, so that nobody knows.
    pub status: Option<ExitStatus>,
    /// Present if the kernel killed processes of it for memory, and it did not end with success all the same.
    pub oom: Option<Oom>,
    /// When it ended, or when it was found to have ended.
    pub at: Timestamp,
}

/// What can be found out about a container at any time, also by an agent that did not start it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// Its first process runs.
    Running {
        /// As the host sees it.
        pid: u32,
        /// Its own addresses, where it has a network of its own.
        addresses: Vec<IpAddr>,
    },
    /// Its first process has ended.
    Exited(Exited),
    /// There is none, its launch never got to its program, or the machine has been rebooted under it.
    Absent,
}

/// What came of a command that was run inside a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecResult {
    /// How it ended.
    pub status: ExitStatus,
    /// The last 4 KiB of what it printed on stdout and stderr.
    pub output: String,
}
