//! What a task's container is made of: its environment, its limits, its user.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use divvy_proto::Invalid;
use divvy_proto::ids::Hostname;
use divvy_proto::reservation::VolumeMount;
use divvy_proto::task::TaskInfo;

use super::Turn;
use super::input::{Config, TaskKey};
use super::record::TaskRecord;
use crate::container::{ContainerSpec, UserName, VolumeBind};

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
    if info.command.argv().iter().all(String::is_empty) {
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
    }
    Ok(())
}

/// The container of a task.
pub(super) fn container(turn: &Turn<'_>, record: &TaskRecord) -> ContainerSpec {
    let info = &record.info;
    ContainerSpec {
        id: record.container.clone(),
        hostname: hostname(info).unwrap_or_else(|| turn.config.agent.hostname.clone()),
        sandbox: sandbox(turn.config, &record.key()),
        argv: info.command.argv(),
        env: environment(turn, record),
        user: user(turn, record),
        cpus: info.resources.cpus(),
        cpu_limit: info.cpu_limit,
        memory: info.resources.mem(),
        pids: info.pids_limit.unwrap_or(turn.config.pids_limit),
        volumes: info.volumes.iter().map(|mount| volume(turn.config, &record.key(), mount)).collect(),
    }
}

/// A volume at its place: below the sandbox unless its path is absolute.
fn volume(config: &Config, key: &TaskKey, mount: &VolumeMount) -> VolumeBind {
    VolumeBind {
        id: mount.id.clone(),
        source: config.volumes.join(mount.id.as_str()),
        target: sandbox(config, key).join(&mount.path),
        read_only: mount.read_only,
    }
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

/// The task's own variables win over the agent's, but not over what tells a task who it is.
fn environment(turn: &Turn<'_>, record: &TaskRecord) -> BTreeMap<String, String> {
    let info = &record.info;
    let sandbox = sandbox(turn.config, &record.key()).display().to_string();
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), PATH.to_owned()),
        ("HOME".to_owned(), sandbox.clone()),
        ("HOST".to_owned(), turn.config.agent.address.clone()),
    ]);
    for (index, number) in port_numbers(info).into_iter().enumerate() {
        env.insert(format!("PORT{index}"), number.to_string());
    }
    for port in info.ports.iter().filter(|port| !port.name.is_empty()) {
        env.insert(format!("PORT_{}", variable_name(&port.name)), port.number.to_string());
    }
    env.extend(info.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    env.insert("DIVVY_TASK_ID".to_owned(), info.id.to_string());
    env.insert("DIVVY_FRAMEWORK_ID".to_owned(), record.framework_id.to_string());
    env.insert("DIVVY_AGENT_ID".to_owned(), turn.agent_id.map(ToString::to_string).unwrap_or_default());
    env.insert("DIVVY_SANDBOX".to_owned(), sandbox);
    env
}

/// A task's ports in its own order, or, where it names none, all that it is charged with.
fn port_numbers(info: &TaskInfo) -> Vec<u32> {
    match info.ports.is_empty() {
        true => info.resources.ports().iter().collect(),
        false => info.ports.iter().map(|port| u32::from(port.number)).collect(),
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
