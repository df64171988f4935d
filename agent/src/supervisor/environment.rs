//! What a task's container is made of: its environment, its limits, its user.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use divvy_proto::container::StopSignal;
use divvy_proto::ids::Hostname;
use divvy_proto::reservation::VolumeMount;
use divvy_proto::task::{Command, HealthCheck, Probe, TaskInfo, TaskPort};
use divvy_proto::{Bytes, Invalid};

use super::Turn;
use super::input::{Config, TaskKey};
use super::record::TaskRecord;
use crate::container::{ContainerSpec, PortMap, Root, SANDBOX, UserName, VolumeBind};
use crate::image::Image;

/// What Debian gives to root; a task may set another.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The longest name that uname(2) can hold, less one.
const MAX_HOSTNAME: usize = 63;

/// Where a task's sandbox is. Task ids are unique for the life of their framework, so each try has its own.
pub(super) fn sandbox(config: &Config, key: &TaskKey) -> PathBuf {
    config.sandboxes.join(key.framework_id.as_str()).join(key.task_id.as_str())
}

/// Whether a container can be made of a task.
///
/// # Errors
/// Names the field that is not right.
pub(super) fn check(info: &TaskInfo) -> Result<(), Invalid> {
    if info.command != Command::Image && info.command.argv().iter().all(String::is_empty) {
        return Err(Invalid::missing("task.command", "a program to execute"));
    }
    if let Some(user) = &info.user {
        UserName::new(user).map_err(|error| error.within("task"))?;
    }
    info.volumes.iter().try_for_each(check_volume)?;
    for port in &info.ports {
        let number = u32::from(port.number);
        if !info.resources.ports().contains(&divvy_proto::RangeSet::range(number, number)) {
            let expected = format!("one of the ports in task.resources, {}", info.resources.ports());
            return Err(Invalid::new("task.ports", port.number, expected));
        }
        if port
            .container
            .is_some_and(|inside| inside == 0 || (inside != port.number && !has_own_network(info)))
        {
            let expected = "none, or a port other than 0 in a container with a network such as bridge";
            return Err(Invalid::new("task.ports.container", port.container.unwrap_or_default(), expected));
        }
    }
    Ok(())
}

/// What asks a task to end.
pub(super) fn stop_signal(info: &TaskInfo, image: Option<&Image>) -> StopSignal {
    let own = info.container.as_ref().and_then(|container| container.stop_signal);
    own.or_else(|| image.and_then(|image| image.config.stop_signal)).unwrap_or_default()
}

/// The container of a task.
pub(super) fn container(turn: &Turn<'_>, record: &TaskRecord, image: Option<Image>) -> ContainerSpec {
    let info = &record.info;
    let own = info.container.as_deref().cloned().unwrap_or_default();
    let (user, group) = user_and_group(turn, record, image.as_ref());
    let hostname = hostname(info).unwrap_or_else(|| turn.config.agent.hostname.clone());
    let limits = (info.resources.mem(), info.pids_limit.unwrap_or(turn.config.pids_limit));
    let sandbox = sandbox(turn.config, &record.key());
    ContainerSpec {
        argv: argv(info, image.as_ref()),
        env: environment(turn, record, image.as_ref()),
        group,
        workdir: own.workdir.or_else(|| image.as_ref()?.config.workdir.clone()).map(PathBuf::from),
        cpus: info.resources.cpus(),
        cpu_limit: info.cpu_limit,
        volumes: info.volumes.iter().map(|mount| volume(turn.config, record, mount)).collect(),
        port_maps: port_maps(info),
        network: own.network,
        root: image.map_or(Root::Host, |image| Root::Image { layers: image.layers }),
        read_only: own.read_only,
        mounts: own.mounts,
        secrets: own.secrets,
        groups: own.groups,
        add_capabilities: own.add_capabilities,
        drop_capabilities: own.drop_capabilities,
        rlimits: own.rlimits,
        user_namespace: own.user_namespace,
        devices: own.devices,
        shm: own.shm,
        cpuset: own.cpuset,
        memory_high: own.memory_high,
        disk: Some(info.resources.disk()).filter(|disk| *disk > Bytes::ZERO),
        ..ContainerSpec::plain(record.container.clone(), hostname, sandbox, user, limits)
    }
}

/// A task's command, or its image's: the task's arguments take the place of the image's.
fn argv(info: &TaskInfo, image: Option<&Image>) -> Vec<String> {
    let (Command::Image, Some(image)) = (&info.command, image) else { return info.command.argv() };
    let args = info.container.as_ref().map(|container| container.args.clone()).unwrap_or_default();
    let args = if args.is_empty() { image.config.cmd.clone() } else { args };
    image.config.entrypoint.iter().cloned().chain(args).collect()
}

/// Where its ports of the host lead to.
pub(super) fn port_maps(info: &TaskInfo) -> Vec<PortMap> {
    let map =
        |port: &TaskPort| PortMap { host: port.number, container: port.container.unwrap_or(port.number) };
    let is_own = info.container.as_ref().is_some_and(|container| container.network.is_own());
    if is_own { info.ports.iter().map(map).collect() } else { Vec::new() }
}

/// Whom it runs as, and in which main group: what the task says, what its image says, or the default, which is root in an image
/// (as Docker has it).
fn user_and_group(turn: &Turn<'_>, record: &TaskRecord, image: Option<&Image>) -> (UserName, Option<String>) {
    let Some(image) = image.filter(|_| record.info.user.is_none()) else { return (user(turn, record), None) };
    let text = image.config.user.as_deref().unwrap_or_default();
    let (user, group) =
        text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group.to_owned())));
    let user = UserName::new(user).or_else(|_| UserName::new("root"));
    (user.unwrap_or_else(|_| turn.config.default_user.clone()), group)
}

/// A volume at its place: below the sandbox, as the container sees it, unless its path is absolute.
fn volume(config: &Config, record: &TaskRecord, mount: &VolumeMount) -> VolumeBind {
    VolumeBind {
        id: mount.id.clone(),
        source: config.volumes.join(mount.id.as_str()),
        target: seen_sandbox(config, record).join(&mount.path),
        read_only: mount.read_only,
    }
}

/// Where the container sees its sandbox.
fn seen_sandbox(config: &Config, record: &TaskRecord) -> PathBuf {
    let has_image = record.info.container.as_ref().is_some_and(|container| container.image.is_some());
    if has_image { PathBuf::from(SANDBOX) } else { sandbox(config, &record.key()) }
}

/// What a container's own `/proc`, `/dev` and `/sys` are, no volume replaces.
const OWN: [&str; 3] = ["/proc", "/dev", "/sys"];

fn check_volume(mount: &VolumeMount) -> Result<(), Invalid> {
    let path = Path::new(&mount.path);
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::RootDir);
    let names = path.components().any(|part| matches!(part, Component::Normal(_)));
    if !names || !path.components().all(plain) || OWN.iter().any(|own| path.starts_with(own)) {
        let expected = "a path below the sandbox, or an absolute one that is not below /proc, /dev or /sys";
        return Err(Invalid::new("task.volumes.path", &mount.path, expected));
    }
    Ok(())
}

/// Whom a task runs as.
pub(super) fn user(turn: &Turn<'_>, record: &TaskRecord) -> UserName {
    let own = record.info.user.as_ref().and_then(|user| UserName::new(user).ok());
    own.unwrap_or_else(|| turn.config.default_user.clone())
}

/// The task's own variables win over its image's, and these over the agent's, but none over what tells a task who it is.
fn environment(turn: &Turn<'_>, record: &TaskRecord, image: Option<&Image>) -> BTreeMap<String, String> {
    let info = &record.info;
    let sandbox = seen_sandbox(turn.config, record).display().to_string();
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), PATH.to_owned()),
        ("HOST".to_owned(), turn.config.agent.address.clone()),
    ]);
    if image.is_none() {
        env.insert("HOME".to_owned(), sandbox.clone());
    }
    for (index, number) in port_numbers(info).into_iter().enumerate() {
        env.insert(format!("PORT{index}"), number.to_string());
    }
    for port in info.ports.iter().filter(|port| !port.name.is_empty()) {
        env.insert(format!("PORT_{}", variable_name(&port.name)), inner(info, port).to_string());
    }
    env.extend(image.into_iter().flat_map(|image| image.config.env.clone()));
    env.extend(info.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    env.insert("DIVVY_TASK_ID".to_owned(), info.id.to_string());
    env.insert("DIVVY_FRAMEWORK_ID".to_owned(), record.framework_id.to_string());
    env.insert("DIVVY_AGENT_ID".to_owned(), turn.agent_id.map(ToString::to_string).unwrap_or_default());
    env.insert("DIVVY_SANDBOX".to_owned(), sandbox);
    env
}

/// The number on which the task is to listen.
fn inner(info: &TaskInfo, port: &TaskPort) -> u16 {
    port.container.filter(|_| has_own_network(info)).unwrap_or(port.number)
}

fn has_own_network(info: &TaskInfo) -> bool {
    info.container.as_ref().is_some_and(|container| container.network.is_own())
}

/// A task's health checks as they are made: in its network, where its ports have the numbers on which it listens.
pub(super) fn checks(info: &TaskInfo) -> Vec<HealthCheck> {
    let mut checks = info.health.clone();
    for check in &mut checks {
        let (Probe::Http { port, .. }
        | Probe::Https { port, .. }
        | Probe::Grpc { port, .. }
        | Probe::Tcp { port }) = &mut check.probe
        else {
            continue;
        };
        if let Some(own) = info.ports.iter().find(|own| own.number == *port) {
            *port = inner(info, own);
        }
    }
    checks
}

/// A task's ports in its own order, or, where it names none, all that it is charged with.
fn port_numbers(info: &TaskInfo) -> Vec<u32> {
    match info.ports.is_empty() {
        true => info.resources.ports().iter().collect(),
        false => info.ports.iter().map(|port| u32::from(inner(info, port))).collect(),
    }
}

fn variable_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// The task's id, as far as it can be a host's name.
fn hostname(info: &TaskInfo) -> Option<Hostname> {
    let letters = info.id.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
    let name: String = letters.take(MAX_HOSTNAME).collect();
    Hostname::new(name.trim_matches('-')).ok()
}
