//! What a task is to be.

use std::collections::BTreeMap;

use super::{field, limits};
use crate::container::ContainerInfo;
use crate::error::Invalid;
use crate::pb;
use crate::quantity::Cpus;
use crate::ranges::RangeSet;
use crate::reservation::VolumeMount;
use crate::resources::Resources;
use crate::task::{AgentTask, Artifact, Command, HealthCheck, Probe, TaskInfo, TaskPort};

impl From<TaskInfo> for pb::TaskInfo {
    fn from(task: TaskInfo) -> Self {
        Self {
            id: task.id.into(),
            name: task.name,
            command: Some(task.command.into()),
            resources: Some(task.resources.into()),
            cpu_limit_millis: task.cpu_limit.map(Cpus::millis),
            pids_limit: task.pids_limit,
            ports: field::to_list(task.ports),
            env: task.env,
            user: task.user,
            artifacts: field::to_list(task.artifacts),
            health: field::to_list(task.health),
            kill_grace_ms: task.kill_grace.map(field::ms),
            labels: task.labels,
            priority: task.priority,
            volumes: field::to_list(task.volumes),
            container: task.container.map(|container| (*container).into()),
        }
    }
}

impl TryFrom<pb::TaskInfo> for TaskInfo {
    type Error = Invalid;
    fn try_from(wire: pb::TaskInfo) -> Result<Self, Invalid> {
        let resources: Resources = field::message("resources", wire.resources)?;
        let ports = field::list("ports", wire.ports, limits::TASK_PORTS)?;
        check_ports(&ports, &resources)?;
        let command = field::message("command", wire.command)?;
        let container: Option<ContainerInfo> =
            wire.container.map(|container| field::inner("container", container)).transpose()?;
        check_image(&command, container.as_ref())?;
        let env = environment(wire.env)?;
        check_size(&command, &env)?;
        Ok(Self {
            id: field::parsed("id", &wire.id)?,
            name: field::filled("name", wire.name, limits::NAME)?,
            command,
            resources,
            cpu_limit: wire.cpu_limit_millis.map(cpu_limit).transpose()?,
            pids_limit: wire.pids_limit.map(pids_limit).transpose()?,
            ports,
            env,
            user: field::text_opt("user", wire.user, limits::NAME)?,
            artifacts: field::list("artifacts", wire.artifacts, limits::ARTIFACTS)?,
            health: field::list("health", wire.health, limits::HEALTH_CHECKS)?,
            kill_grace: field::duration_opt("kill_grace", wire.kill_grace_ms)?,
            labels: field::labels(wire.labels)?,
            priority: wire.priority,
            volumes: volumes(wire.volumes)?,
            container: container.map(Box::new),
        })
    }
}

/// Only an image has a command of its own, and only that takes arguments.
fn check_image(command: &Command, container: Option<&ContainerInfo>) -> Result<(), Invalid> {
    let has_image = container.is_some_and(|container| container.image.is_some());
    let args = container.map(|container| container.args.as_slice()).unwrap_or_default();
    match command {
        Command::Image if !has_image => {
            Err(Invalid::missing("command", "what to execute: there is no image"))
        }
        Command::Shell(_) | Command::Exec(_) if !args.is_empty() => {
            Err(Invalid::new("container.args", args.join(" "), "none beside a command"))
        }
        _ => Ok(()),
    }
}

fn volumes(wire: Vec<pb::VolumeMount>) -> Result<Vec<VolumeMount>, Invalid> {
    let volumes: Vec<VolumeMount> = field::list("volumes", wire, limits::TASK_VOLUMES)?;
    let paths: Vec<&str> = volumes.iter().map(|volume| volume.path.as_str()).collect();
    field::each_once("volumes", &paths)?;
    Ok(volumes)
}

fn cpu_limit(millis: i64) -> Result<Cpus, Invalid> {
    let limit = Cpus::from_millis(millis).map_err(|e| Invalid { field: "cpu_limit".into(), ..e })?;
    match limit == Cpus::ZERO {
        true => Err(Invalid::new("cpu_limit", 0, "more than none, or no limit")),
        false => Ok(limit),
    }
}

fn pids_limit(limit: u32) -> Result<u32, Invalid> {
    match limit {
        0 => Err(Invalid::new("pids_limit", 0, "at least 1, or no limit")),
        limit => Ok(limit),
    }
}

/// Names and numbers are unique, and the task is charged with all of them.
fn check_ports(ports: &[TaskPort], resources: &Resources) -> Result<(), Invalid> {
    let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
    let numbers: Vec<u16> = ports.iter().map(|port| port.number).collect();
    field::each_once("ports", &names)?;
    field::each_once("ports", &numbers)?;
    let own = |number: u16| resources.ports().contains(&RangeSet::range(number.into(), number.into()));
    match numbers.iter().enumerate().find(|(_, number)| !own(**number)) {
        Some((i, number)) => Err(Invalid::new(
            format!("ports[{i}].number"),
            number,
            format!("one of the task's resources, ports={}", resources.ports()),
        )),
        None => Ok(()),
    }
}

fn environment(env: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Invalid> {
    field::at_most("env", env.len(), limits::ARGUMENTS)?;
    let bad = |(name, value): &(&String, &String)| {
        name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
    };
    match env.iter().find(bad) {
        Some((name, _)) => Err(Invalid::new(
            "env",
            name,
            "names that are not empty and have no `=`; no zero bytes in names or values",
        )),
        None => Ok(env),
    }
}

fn check_size(command: &Command, env: &BTreeMap<String, String>) -> Result<(), Invalid> {
    let command: usize = match command {
        Command::Shell(line) => line.len(),
        Command::Exec(argv) => argv.iter().map(|argument| argument.len() + 1).sum(),
        Command::Image => 0,
    };
    let env: usize = env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    match command + env > limits::COMMAND_AND_ENV {
        true => Err(Invalid::new(
            "command",
            format!("{} bytes with env", command + env),
            format!("at most {} bytes with env", limits::COMMAND_AND_ENV),
        )),
        false => Ok(()),
    }
}

impl From<Command> for pb::Command {
    fn from(command: Command) -> Self {
        use pb::command::Command as Wire;
        let command = match command {
            Command::Shell(line) => Wire::Shell(line),
            Command::Exec(argv) => Wire::Exec(pb::Exec { argv }),
            Command::Image => Wire::Image(pb::ImageCommand {}),
        };
        Self { command: Some(command) }
    }
}

impl TryFrom<pb::Command> for Command {
    type Error = Invalid;
    fn try_from(wire: pb::Command) -> Result<Self, Invalid> {
        use pb::command::Command as Wire;
        match field::required("command", wire.command).map_err(|e| Invalid { field: String::new(), ..e })? {
            Wire::Shell(line) if line.trim().is_empty() || line.contains('\0') => {
                Err(Invalid::new("shell", line, "a line for /bin/sh without zero bytes"))
            }
            Wire::Shell(line) => Ok(Self::Shell(line)),
            Wire::Image(pb::ImageCommand {}) => Ok(Self::Image),
            Wire::Exec(exec) => {
                field::at_most("exec", exec.argv.len(), limits::ARGUMENTS)?;
                if exec.argv.first().is_none_or(String::is_empty) {
                    return Err(Invalid::missing("exec", "a program and its arguments"));
                }
                match exec.argv.iter().position(|argument| argument.contains('\0')) {
                    Some(i) => Err(Invalid::new(format!("exec[{i}]"), "", "an argument without zero bytes")),
                    None => Ok(Self::Exec(exec.argv)),
                }
            }
        }
    }
}

impl From<TaskPort> for pb::TaskPort {
    fn from(port: TaskPort) -> Self {
        Self { name: port.name, number: port.number.into(), container: port.container.map(Into::into) }
    }
}

impl TryFrom<pb::TaskPort> for TaskPort {
    type Error = Invalid;
    fn try_from(wire: pb::TaskPort) -> Result<Self, Invalid> {
        Ok(Self {
            name: field::filled("name", wire.name, limits::NAME)?,
            number: field::port("number", wire.number)?,
            container: wire.container.map(|number| field::port("container", number)).transpose()?,
        })
    }
}

impl From<Artifact> for pb::Artifact {
    fn from(artifact: Artifact) -> Self {
        let Artifact { uri, sha256, path, extract, executable } = artifact;
        Self { uri, sha256, path, extract, executable }
    }
}

impl TryFrom<pb::Artifact> for Artifact {
    type Error = Invalid;
    fn try_from(wire: pb::Artifact) -> Result<Self, Invalid> {
        let uri = field::filled("uri", wire.uri, limits::URL)?;
        let remote = uri.starts_with("http://") || uri.starts_with("https://");
        if !remote && !uri.starts_with("file:///") && !uri.starts_with('/') {
            return Err(Invalid::new("uri", uri, "file:///…, an absolute path, http://… or https://…"));
        }
        if remote && wire.sha256.is_none() {
            return Err(Invalid::missing("sha256", "the checksum, which http and https need"));
        }
        Ok(Self {
            uri,
            sha256: wire.sha256.map(checksum).transpose()?,
            path: wire.path.map(sandbox_path).transpose()?,
            extract: wire.extract,
            executable: wire.executable,
        })
    }
}

fn checksum(text: String) -> Result<String, Invalid> {
    match text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        true => Ok(text),
        false => Err(Invalid::new("sha256", text, "64 lower-case hexadecimal digits")),
    }
}

fn sandbox_path(path: String) -> Result<String, Invalid> {
    let path = field::filled("path", path, limits::URL)?;
    match path.starts_with('/') || path.split('/').any(|part| part == "..") {
        true => Err(Invalid::new("path", path, "a path within the sandbox: relative, without `..`")),
        false => Ok(path),
    }
}

impl From<HealthCheck> for pb::HealthCheck {
    fn from(check: HealthCheck) -> Self {
        use pb::health_check::Probe as Wire;
        let probe = match check.probe {
            Probe::Http { port, path } => Wire::Http(pb::HttpProbe { port: port.into(), path }),
            Probe::Https { port, path } => Wire::Https(pb::HttpProbe { port: port.into(), path }),
            Probe::Grpc { port, service } => Wire::Grpc(pb::GrpcProbe { port: port.into(), service }),
            Probe::Tcp { port } => Wire::Tcp(pb::TcpProbe { port: port.into() }),
            Probe::Command(command) => Wire::Command(command.into()),
        };
        Self {
            probe: Some(probe),
            interval_ms: field::ms(check.interval),
            timeout_ms: field::ms(check.timeout),
            grace_ms: field::ms(check.grace),
            failures: check.failures,
        }
    }
}

impl TryFrom<pb::HealthCheck> for HealthCheck {
    type Error = Invalid;
    fn try_from(wire: pb::HealthCheck) -> Result<Self, Invalid> {
        if wire.failures == 0 {
            return Err(Invalid::new("failures", 0, "at least 1"));
        }
        Ok(Self {
            probe: field::required("probe", wire.probe)?.try_into()?,
            interval: field::some_time("interval", wire.interval_ms)?,
            timeout: field::some_time("timeout", wire.timeout_ms)?,
            grace: field::duration("grace", wire.grace_ms)?,
            failures: wire.failures,
        })
    }
}

impl TryFrom<pb::health_check::Probe> for Probe {
    type Error = Invalid;
    fn try_from(wire: pb::health_check::Probe) -> Result<Self, Invalid> {
        use pb::health_check::Probe as Wire;
        Ok(match wire {
            Wire::Http(http) => Self::Http {
                port: field::port("http.port", http.port)?,
                path: probe_path("http.path", http.path)?,
            },
            Wire::Https(http) => Self::Https {
                port: field::port("https.port", http.port)?,
                path: probe_path("https.path", http.path)?,
            },
            Wire::Grpc(grpc) => Self::Grpc {
                port: field::port("grpc.port", grpc.port)?,
                service: field::text("grpc.service", grpc.service, limits::NAME)?,
            },
            Wire::Tcp(tcp) => Self::Tcp { port: field::port("tcp.port", tcp.port)? },
            Wire::Command(command) => match field::inner("command", command)? {
                Command::Image => return Err(Invalid::missing("command", "a command of its own")),
                command => Self::Command(command),
            },
        })
    }
}

/// Goes into a request line as it is, so it may not end that line.
fn probe_path(name: &str, path: String) -> Result<String, Invalid> {
    let fine = path.starts_with('/') && !path.contains(|c: char| c.is_whitespace() || c.is_control());
    match fine {
        true => field::text(name, path, limits::URL),
        false => Err(Invalid::new(name, path, "a path that starts with a slash, without spaces")),
    }
}

impl From<AgentTask> for pb::AgentTask {
    fn from(task: AgentTask) -> Self {
        Self {
            framework_id: task.framework_id.into(),
            info: Some(task.info.into()),
            allocation: Some(task.allocation.into()),
            status: Some(task.status.into()),
        }
    }
}

impl TryFrom<pb::AgentTask> for AgentTask {
    type Error = Invalid;
    fn try_from(wire: pb::AgentTask) -> Result<Self, Invalid> {
        let task = Self {
            framework_id: field::parsed("framework_id", &wire.framework_id)?,
            info: field::message("info", wire.info)?,
            allocation: field::inner("allocation", wire.allocation.unwrap_or_default())?,
            status: field::message("status", wire.status)?,
        };
        match task.info.id == task.status.task_id {
            true => Ok(task),
            false => Err(Invalid::new(
                "status.task_id",
                &task.status.task_id,
                format!("the id of the task that it is about, {}", task.info.id),
            )),
        }
    }
}
