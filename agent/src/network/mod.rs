//! Networks of containers: their configuration as CNI has it, the plugins that carry it out, and the namespaces.
//!
//! Not here: when a container is attached and detached, which is its network isolator's to say.

mod attachment;
mod conflist;
mod files;
pub(crate) mod netns;
mod plugin;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use divvy_proto::Invalid;
use divvy_proto::ids::NetworkName;

pub(crate) use attachment::Attachment;
pub(crate) use conflist::{Conflist, Resolver};
pub(crate) use files::{hosts, resolv_conf};

/// The network that exists without any configuration.
const BRIDGE: &str = "bridge";

/// Where networks are configured, and how the built-in one is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// A directory of CNI configurations: `*.conflist`, `*.conf` and `*.json`.
    pub config_dir: PathBuf,
    /// Directories of CNI plugins; a plugin is taken from the first one that has it.
    pub plugin_dirs: Vec<PathBuf>,
    /// The built-in network's bridge, at most 15 bytes. Agents of one machine share it.
    pub bridge: String,
    /// The built-in network's addresses: one subnet, or one for IPv4 and one for IPv6.
    pub subnets: Vec<Subnet>,
    /// Where the built-in network's addresses are noted while they are in use: one directory for all agents that share the
    /// bridge, on a file system that the next boot empties.
    pub leases: PathBuf,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            config_dir: PathBuf::from("/etc/cni/net.d"),
            plugin_dirs: vec![PathBuf::from("/usr/lib/cni"), PathBuf::from("/opt/cni/bin")],
            bridge: "divvy0".to_owned(),
            subnets: vec![Subnet::DEFAULT],
            leases: PathBuf::from("/run/divvy/leases"),
        }
    }
}

/// A range of addresses by its first one and the length of their common prefix: `172.26.64.0/20`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    address: IpAddr,
    prefix: u8,
}

impl Subnet {
    /// Of 4,094 containers, and apart from what Docker, Podman and most offices use.
    const DEFAULT: Self = Self { address: IpAddr::V4(std::net::Ipv4Addr::new(172, 26, 64, 0)), prefix: 20 };

    /// Whether it is of IPv6.
    #[must_use]
    pub const fn is_ipv6(&self) -> bool {
        self.address.is_ipv6()
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("subnet", text, "a range of addresses such as 172.26.64.0/20");
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let prefix: u8 = prefix.parse().map_err(|_| invalid())?;
        // Room for the bridge, a container and what IPv4 sets aside.
        let longest = if address.is_ipv6() { 126 } else { 29 };
        if (8..=longest).contains(&prefix) { Ok(Self { address, prefix }) } else { Err(invalid()) }
    }
}

/// Why a container is not attached to its network, or not detached from it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error("there is none of that name in {}{}", .directory.display(), .note)]
    Unknown { directory: PathBuf, note: String },
    #[error("{}: {why}", .path.display())]
    Config { path: PathBuf, why: String },
    #[error(
        "the CNI plugin `{plugin}` is in none of {directories}: apt-get install containernetworking-plugins iptables"
    )]
    NoPlugin { plugin: String, directories: String },
    #[error(
        "none of its plugins maps ports (has the capability portMappings), and the task has ports: {ports}"
    )]
    NoPortMaps { ports: String },
    #[error("the CNI plugin `{plugin}` {what}")]
    Plugin { plugin: String, what: String },
    #[error("cannot {what}: {source}")]
    Step { what: &'static str, source: io::Error },
}

fn step(what: &'static str) -> impl FnOnce(io::Error) -> NetworkError {
    move |source| NetworkError::Step { what, source }
}

impl NetworkConfig {
    /// The configuration of a network: the first file by name that has it, as the standard runtimes choose.
    pub(crate) fn find(&self, name: &NetworkName) -> Result<Conflist, NetworkError> {
        let mut unreadable = String::new();
        for path in self.files()? {
            match Conflist::read(&path) {
                Ok(list) if list.name == name.as_str() => {
                    return list.checked().map_err(|why| NetworkError::Config { path, why: why.to_string() });
                }
                Ok(_) => {}
                Err(why) => unreadable = format!("{unreadable}; {}: {why}", path.display()),
            }
        }
        match name.as_str() {
            BRIDGE => Ok(Conflist::bridge(self)),
            _ => Err(NetworkError::Unknown { directory: self.config_dir.clone(), note: unreadable }),
        }
    }

    fn files(&self) -> Result<Vec<PathBuf>, NetworkError> {
        let entries = match fs::read_dir(&self.config_dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|error| self.unlisted(&error))?,
        };
        let known = |path: &Path| {
            path.extension()
                .is_some_and(|extension| ["conflist", "conf", "json"].iter().any(|e| *e == extension))
        };
        let mut files: Vec<_> =
            entries.flatten().map(|entry| entry.path()).filter(|path| known(path)).collect();
        files.sort();
        Ok(files)
    }

    fn unlisted(&self, error: &io::Error) -> NetworkError {
        NetworkError::Config { path: self.config_dir.clone(), why: error.to_string() }
    }
}

#[cfg(test)]
mod tests;
