//! A container's attachment to a network: everything that is needed to undo it, written down before it is made.

use std::fs::{File, OpenOptions, TryLockError};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::conflist::{addresses, resolver};
use super::plugin::{self, Errand, Verb};
use super::{Conflist, NetworkConfig, NetworkError, Resolver, netns, step};
use crate::container::PortMap;

/// How long to wait for plugins that an agent before this one has started. They take milliseconds; whoever calls tries again.
const PREDECESSORS: Duration = Duration::from_secs(5);

/// What ties a container to a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attachment {
    /// Names the container among all of the machine, in letters that a plugin takes.
    id: String,
    network: Conflist,
    port_maps: Vec<PortMap>,
    plugin_dirs: Vec<PathBuf>,
    /// What the last plugin answered; absent until it has.
    #[serde(default)]
    result: Option<Value>,
}

impl Attachment {
    /// Checks that a network can be had, without making anything.
    pub(crate) fn new(
        config: &NetworkConfig,
        network: Conflist,
        id: String,
        port_maps: &[PortMap],
    ) -> Result<Self, NetworkError> {
        for program in network.programs() {
            plugin::find(&config.plugin_dirs, program)?;
        }
        if !port_maps.is_empty() && !network.maps_ports() {
            let ports: Vec<_> = port_maps.iter().map(|map| map.host.to_string()).collect();
            return Err(NetworkError::NoPortMaps { ports: ports.join(", ") });
        }
        let (port_maps, plugin_dirs) = (port_maps.to_vec(), config.plugin_dirs.clone());
        Ok(Self { id, network, port_maps, plugin_dirs, result: None })
    }

    /// Whether all plugins have done their part.
    pub(crate) fn is_made(&self) -> bool {
        self.result.is_some()
    }

    /// The container's addresses, once it is attached.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.result.as_ref().map(addresses).unwrap_or_default()
    }

    /// What the network says of name resolution, once the container is attached.
    pub(crate) fn resolver(&self) -> Resolver {
        self.result.as_ref().map(resolver).unwrap_or_default()
    }

    /// Attaches the namespace that the file `pin` keeps.
    pub(crate) fn attach(&mut self, pin: &Path, log: &Path) -> Result<(), NetworkError> {
        let log = lock(log)?;
        let errand = Errand { id: &self.id, namespace: Some(pin), directories: &self.plugin_dirs, log: &log };
        let mut result = None;
        for (plugin, told) in self.network.told(&self.port_maps) {
            result = Some(errand.run(Verb::Add, plugin, &told(result.as_ref()))?);
        }
        self.result = result;
        Ok(())
    }

    /// Undoes an attachment, or what there is of it. The specification wants this to succeed however often it is done.
    pub(crate) fn detach(&self, pin: &Path, log: &Path) -> Result<(), NetworkError> {
        let log = lock(log)?;
        let namespace = Some(pin).filter(|pin| netns::is_kept(pin));
        let errand = Errand { id: &self.id, namespace, directories: &self.plugin_dirs, log: &log };
        let mut outcome = Ok(());
        for (plugin, told) in self.network.told(&self.port_maps).rev() {
            outcome = outcome.and(errand.run(Verb::Del, plugin, &told(self.result.as_ref())).map(drop));
        }
        outcome
    }
}

/// Opens the plugins' log and waits until no plugin of this container runs: one may have outlived the agent that started it.
fn lock(path: &Path) -> Result<File, NetworkError> {
    let log =
        OpenOptions::new().append(true).create(true).open(path).map_err(step("open the plugins' log"))?;
    let deadline = Instant::now() + PREDECESSORS;
    loop {
        match log.try_lock() {
            Ok(()) => return Ok(log),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => {
                let source = std::io::ErrorKind::TimedOut.into();
                return Err(step("wait for a plugin that still runs")(source));
            }
            Err(TryLockError::Error(error)) => return Err(step("lock the plugins' log")(error)),
        }
    }
}
