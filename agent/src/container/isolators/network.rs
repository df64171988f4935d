//! What the container is connected to: the host's network, nothing, a CNI network, or whatever another container is connected
//! to.
//!
//! A namespace for a CNI network is made and attached by the agent before the container's first process exists, and kept by a
//! file until it has been detached: some plugins can undo only what they still see. The shim enters it before it clones.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use divvy_proto::container::Network as Kind;
use divvy_proto::ids::NetworkName;
use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::rootfs::ShownFile;
use super::{Host, Isolator, step};
use crate::container::plan::{Plan, Record, boot_id};
use crate::container::sys::{pidfd_open, start_time};
use crate::container::{ContainerId, ContainerSpec, LaunchError, Root, RuntimeError};
use crate::network::{self, Attachment, NetworkError, Resolver, netns};

/// How a container is wired, as the shim has to know it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Wiring {
    namespaces: Namespaces,
    /// The container's own addresses.
    pub(crate) addresses: Vec<IpAddr>,
}

/// Where the container's network and ipc namespaces come from.
#[derive(Debug, Default, Serialize, Deserialize)]
enum Namespaces {
    /// The host's network, and an ipc namespace of its own.
    #[default]
    Host,
    /// Made with the first process.
    New,
    /// The network that a file keeps, and an ipc namespace of its own.
    Kept(PathBuf),
    /// Both those of another container, by its first process and when that started.
    Joined { pid: u32, start: Option<u64> },
}

impl Wiring {
    /// Moves the shim into the namespaces that there are already, before it clones: so a child with a user namespace of its own
    /// need not have the right to.
    pub(crate) fn enter(&self) -> Result<(), LaunchError> {
        match &self.namespaces {
            Namespaces::Host | Namespaces::New => Ok(()),
            Namespaces::Kept(pin) => {
                let entered = fs::File::open(pin).and_then(netns::enter);
                entered.map_err(step("enter the container's network"))
            }
            Namespaces::Joined { pid, start } => join(*pid, *start),
        }
    }

    /// The namespaces to clone the first process into, where `usual` are those of a container that uses the host's network.
    #[allow(clippy::cast_sign_loss, reason = "the flags are single bits, none of them the sign")]
    pub(crate) const fn clone_flags(&self, usual: u64) -> u64 {
        match self.namespaces {
            Namespaces::Host | Namespaces::Kept(_) => usual,
            Namespaces::New => usual | libc::CLONE_NEWNET as u64,
            Namespaces::Joined { .. } => usual & !(libc::CLONE_NEWIPC as u64),
        }
    }
}

fn join(pid: u32, start: Option<u64>) -> Result<(), LaunchError> {
    let joined = "join the other container's network";
    let process = pidfd_open(pid).map_err(step(joined))?;
    let process = process.ok_or_else(|| step(joined)("it has ended"))?;
    // The pidfd stands for one process, which is the right one if it started when that did.
    if start.is_none() || start_time(pid).map_err(step(joined))? != start {
        return Err(step(joined)("it has ended"));
    }
    setns(process.as_fd(), CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC).map_err(step(joined))
}

pub(super) struct Network;

impl Isolator for Network {
    fn check(&self, host: &Host, spec: &ContainerSpec) -> Result<(), LaunchError> {
        let refused = |value: u16, why: &str| {
            Err(LaunchError::Spec { field: "port".to_owned(), value: value.to_string(), why: why.to_owned() })
        };
        let mut seen = BTreeSet::new();
        if let Some(twice) = spec.port_maps.iter().find(|map| !seen.insert(map.host)) {
            return refused(twice.host, "it leads to the container twice");
        }
        match (&spec.network, spec.port_maps.first()) {
            (Kind::Named(_), Some(map)) if spec.joins.is_some() => refused(
                map.host,
                "the container uses the network of another one, to which ports have to lead",
            ),
            (Kind::Named(name), _) if spec.joins.is_none() => attachment(host, spec, name).map(drop),
            (Kind::Host | Kind::None, Some(map)) => {
                refused(map.host, "ports lead only to a container with a network such as bridge")
            }
            _ => Ok(()),
        }
    }

    fn prepare(&self, host: &Host, record: &Record, plan: &mut Plan) -> Result<(), LaunchError> {
        let (namespaces, own) = match (&plan.spec.joins, &plan.spec.network) {
            (Some(other), _) => joined(host, other)?,
            (None, Kind::Host) => return Ok(()),
            (None, Kind::None) => (Namespaces::New, Some(Own::default())),
            (None, Kind::Named(name)) => attach(host, record, plan, name)?,
        };
        let addresses = own.as_ref().map(|own| own.addresses.clone()).unwrap_or_default();
        plan.network = Wiring { namespaces, addresses };
        match own {
            Some(own) => write_files(record, plan, &own),
            None => Ok(()),
        }
    }

    fn isolate(&self, plan: &Plan) -> Result<(), LaunchError> {
        match plan.network.namespaces {
            Namespaces::New => netns::furnish().map_err(step("switch on loopback")),
            _ => Ok(()),
        }
    }

    fn cleanup(&self, _host: &Host, record: &Record, id: &ContainerId) -> Result<(), RuntimeError> {
        let failed = |why: String| RuntimeError::Network { id: id.clone(), why };
        let attachment = record.attachment().map_err(|error| failed(error.to_string()))?;
        let pin = record.network_pin();
        if let Some(attachment) = attachment {
            match attachment.detach(&pin, &record.network_log()) {
                // A plugin that could not be told to attach cannot be told to detach either, however often it is tried.
                Err(error @ NetworkError::Plugin { .. }) if !attachment.is_made() => {
                    tracing::warn!(container = %id, %error, "what was not attached may not be detached");
                }
                outcome => outcome.map_err(|error| failed(error.to_string()))?,
            }
        }
        netns::remove(&pin).map_err(|error| failed(format!("cannot let go of its namespace: {error}")))
    }
}

/// What is known of a network that is not the host's.
#[derive(Default)]
struct Own {
    addresses: Vec<IpAddr>,
    resolver: Resolver,
}

impl From<&Attachment> for Own {
    fn from(attachment: &Attachment) -> Self {
        Self { addresses: attachment.addresses(), resolver: attachment.resolver() }
    }
}

fn joined(host: &Host, other: &ContainerId) -> Result<(Namespaces, Option<Own>), LaunchError> {
    let joining = format!("join the network of container {other}");
    let gone = || step(joining.clone())("it does not run");
    let failed = |error: io::Error| step(joining.clone())(error);
    let record = Record::at(host.config.state_dir.join(other.as_str()));
    let running = record.running().map_err(failed)?.filter(|_| matches!(record.exited(), Ok(None)));
    let running = running.ok_or_else(gone)?;
    if running.boot != boot_id().map_err(failed)?
        || running.shim_start.is_none()
        || start_time(running.shim).map_err(failed)? != running.shim_start
    {
        return Err(gone());
    }
    let start = start_time(running.pid).map_err(failed)?;
    let attachment = record.attachment().map_err(failed)?;
    let plan = record.plan().map_err(failed)?;
    let own = plan.filter(|plan| !matches!(plan.network.namespaces, Namespaces::Host)).map(|plan| Own {
        addresses: plan.network.addresses,
        resolver: attachment.as_ref().map(Attachment::resolver).unwrap_or_default(),
    });
    Ok((Namespaces::Joined { pid: running.pid, start }, own))
}

fn refused(name: &NetworkName) -> impl Fn(NetworkError) -> LaunchError {
    move |error| LaunchError::Network { network: name.to_string(), why: error.to_string() }
}

/// What ties a container to a network, not made yet.
fn attachment(host: &Host, spec: &ContainerSpec, name: &NetworkName) -> Result<Attachment, LaunchError> {
    let config = &host.config.network;
    let network = config.find(name).map_err(refused(name))?;
    let id = plugin_id(&host.config.state_dir, &spec.id);
    Attachment::new(config, network, id, &spec.port_maps).map_err(refused(name))
}

/// Makes a namespace, and has the network's plugins attach it.
fn attach(
    host: &Host,
    record: &Record,
    plan: &Plan,
    name: &NetworkName,
) -> Result<(Namespaces, Option<Own>), LaunchError> {
    let mut attachment = attachment(host, &plan.spec, name)?;
    let write = |attachment: &Attachment| {
        record.write_attachment(attachment).map_err(step("write down the container's network"))
    };
    write(&attachment)?;
    let pin = record.network_pin();
    netns::create(&pin).map_err(step("make a network namespace"))?;
    attachment.attach(&pin, &record.network_log()).map_err(refused(name))?;
    write(&attachment)?;
    Ok((Namespaces::Kept(pin), Some(Own::from(&attachment))))
}

/// What plugins know the container as. Agents of one machine may have containers of the same id, and plugins do not take all
/// letters.
fn plugin_id(state_dir: &Path, id: &ContainerId) -> String {
    let digest = Sha256::new().chain_update(state_dir.as_os_str().as_encoded_bytes()).chain_update([0]);
    let digest = digest.chain_update(id.as_str()).finalize();
    let letters: String = digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("divvy-{letters}")
}

fn write_files(record: &Record, plan: &mut Plan, own: &Own) -> Result<(), LaunchError> {
    let host = match fs::read_to_string("/etc/resolv.conf") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        other => other.map_err(step("read /etc/resolv.conf"))?,
    };
    let hosts = network::hosts(&plan.spec.hostname, &own.addresses);
    let resolv_conf = network::resolv_conf(&own.resolver, &host);
    for (name, text) in [("hosts", hosts), ("resolv.conf", resolv_conf)] {
        let source = record.path().join(name);
        fs::write(&source, text).map_err(step(format!("write {}", source.display())))?;
        let target = Path::new("/etc").join(name);
        // The host's may be a link; one that it does not have cannot be put into its read-only root.
        let target = match plan.spec.root {
            Root::Host => fs::canonicalize(target).ok(),
            Root::Image { .. } => Some(target),
        };
        plan.layout.shown.extend(target.map(|target| ShownFile { source, target }));
    }
    Ok(())
}
