//! The `[task]` table, and what makes sense in it.
//!
//! Not here: how text becomes a table.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use divvy_proto::Invalid;
use divvy_proto::container::{ImageName, Network, RlimitKind, StopSignal};
use divvy_proto::demand::{LEAST_CPUS, LEAST_MEM};
use divvy_proto::ids::VolumeId;
use divvy_proto::predicate::Predicate;
use divvy_proto::quantity::{Bytes, Cpus};
use divvy_proto::reservation::VolumeMount;
use divvy_proto::task::{Artifact, Command};
use serde::{Deserialize, Serialize};

use super::container::{self, CapabilityTable, DeviceTable, MountTable, RlimitValue, SecretTable};
use crate::task_spec::{Constraint, HealthSpec, PortRequest, ProbeSpec, TaskSpec};

/// The `[task]` table: what to run and what it needs. Anything that is left out takes the default in its comment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskTable {
    /// A line for `/bin/sh -c`. Either this or `command`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// A program and its arguments. Either this or `shell`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Guaranteed cores: 0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Cpus>,
    /// Most cores, even if others are idle: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_limit: Option<Cpus>,
    /// Memory, a hard limit: `"32MiB"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem: Option<Bytes>,
    /// Disk: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Bytes>,
    /// Most processes and threads: the agent's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<u32>,
    /// `[{ name = "http" }]`, with `number = 8080` where it must be that one: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortTable>,
    /// Environment variables: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The user to run as: the agent's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Files to fetch first: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<ArtifactTable>,
    /// Ways to tell whether it works; all must pass: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub health: Vec<HealthTable>,
    /// Where it may run: anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<ConstraintTable>,
    /// From SIGTERM to SIGKILL: the agent's default.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub kill_grace: Option<Duration>,
    /// Free: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Agents on which it may run: any. `rack == "r1" && (ssd >= 2 || !exists(slow)) && version(kernel) >= "6.1"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraint: Option<Predicate>,
    /// Of two tasks that could be preempted, the one with the lower number is: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Persistent volumes: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeTable>,
    /// `oci:/PATH[:TAG]`, `docker-archive:/FILE[:TAG]` or `docker://HOST[:PORT]/NAME[:TAG|@DIGEST]`: the files of the agent's
    /// machine, read-only. With an image `shell` and `command` may be left out: then what the image says is run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageName>,
    /// What follows the image's entry point: the image's own arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Where it starts: the image's directory, or the sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// `"host"`, `"none"`, `"bridge"` or the name of a CNI network: `"host"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// The image's files cannot be written to: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub readonly: bool,
    /// `[{ tmpfs = "64MiB", path = "/cache" }]`, `[{ host = "/srv/data", path = "/data", read_only = true }]` where the operator
    /// allows it, `[{ sandbox = "data", path = "/var/lib/x" }]`: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<MountTable>,
    /// `[{ name = "db-password" }]`, as a file `/run/secrets/db-password` or at `path`: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretTable>,
    /// Groups beside the user's own: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// `{ add = ["NET_ADMIN"], drop = ["ALL"] }`; they count for root only: the default set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<CapabilityTable>,
    /// `{ nofile = 4096, core = "unlimited" }`: the agent's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rlimits: BTreeMap<RlimitKind, RlimitValue>,
    /// Root in the container is nobody outside: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub user_namespace: bool,
    /// `[{ path = "/dev/kvm", write = true }]` where the operator allows it: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceTable>,
    /// The size of /dev/shm: `"64MiB"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm: Option<Bytes>,
    /// Only these processors, `"0-1,4"`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpuset: Option<String>,
    /// Beyond this much memory it is slowed down (cgroup v2 only): none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_high: Option<Bytes>,
    /// What asks it to end, `"SIGQUIT"`: the image's, or SIGTERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<StopSignal>,
    /// Tables like this one, by name: tasks that run beside each of its tasks, on the same agent and network, and start and end
    /// with it: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub companions: BTreeMap<String, TaskTable>,
}

/// A persistent volume of the role. A task runs where its volumes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeTable {
    /// Its name.
    pub id: VolumeId,
    /// Where the task sees it: an absolute path of a directory that exists on its agent, or a path below the sandbox.
    pub path: String,
    /// Without the right to write: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

/// A port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortTable {
    /// A lower-case letter, then letters, digits, `-` or `_`.
    pub name: String,
    /// This very number on the host; any that is free otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u16>,
    /// The number in a container with a network of its own; the same as on the host otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<u16>,
}

/// A file to fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactTable {
    /// An absolute path, `file:///…`, `http://…` or `https://…`.
    pub uri: String,
    /// Hexadecimal SHA-256; required for http and https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Where in the sandbox: the last part of the URI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Unpack it: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub extract: bool,
    /// Make it executable: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

/// A health check: one of `http`, `tcp`, `command` and `shell`, and its rhythm.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthTable {
    /// GET answers 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpTable>,
    /// The same over TLS; nobody asks whose certificate it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https: Option<HttpTable>,
    /// `grpc.health.v1.Health/Check` answers SERVING.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcTable>,
    /// A connection is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpTable>,
    /// A program in the container exits with 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// A line for `/bin/sh -c` in the container exits with 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// From one probe's end to the next's start: 10 s.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// After which a probe has failed: 5 s.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Failures do not count before this has passed or a first success came: 30 s.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub grace: Option<Duration>,
    /// So many failures on end and the task is killed: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
}

/// An http probe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpTable {
    /// Name of the port: the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Path and query: `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// A gRPC probe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrpcTable {
    /// Name of the port: the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// About which service: the whole server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// A tcp probe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpTable {
    /// Name of the port: the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
}

/// A constraint: an attribute and one of `unique = true`, `like = "pattern"` and `spread = true`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConstraintTable {
    /// Name of the attribute; every agent has `hostname`.
    pub attribute: String,
    /// No two tasks on agents with the same value.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unique: bool,
    /// Only where the value matches: text with `*` for any run of characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub like: Option<String>,
    /// Evenly over the values.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub spread: bool,
}

/// Longest time that a table may state: a day.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

impl TaskTable {
    /// The table as a task of this name.
    ///
    /// # Errors
    /// A value makes no sense by itself or beside another; the error names the field, from this table on.
    pub fn into_spec(self, name: &str) -> Result<TaskSpec, Invalid> {
        let spec = self.into_part(name)?;
        let all = spec.whole();
        if all.cpus < LEAST_CPUS && all.mem < LEAST_MEM {
            let expected = format!("at least {LEAST_CPUS}, or mem of {LEAST_MEM}: less is never offered");
            return Err(Invalid::new("cpus", all.cpus, expected));
        }
        Ok(spec)
    }

    /// The same for a task or one of its companions.
    fn into_part(self, name: &str) -> Result<TaskSpec, Invalid> {
        let container = container::container(&self)?;
        let command = match one_command(self.shell, self.command)? {
            Some(_) if !self.args.is_empty() => {
                return Err(Invalid::new("args", self.args.join(" "), "none beside `shell` or `command`"));
            }
            Some(command) => command,
            None if self.image.is_some() => Command::Image,
            None => return Err(Invalid::missing("command", "either `shell` or `command`, or an `image`")),
        };
        let ports = ports(self.ports)?;
        let health = self.health.into_iter().enumerate();
        let health = health.map(|(at, table)| {
            health_spec(table, &ports).map_err(|invalid| invalid.within(format!("health[{at}]")))
        });
        let (health, mut spec) = (health.collect::<Result<_, _>>()?, TaskSpec::command(command).named(name));
        spec.cpus = self.cpus.unwrap_or(spec.cpus);
        spec.mem = self.mem.unwrap_or(spec.mem);
        spec.disk = self.disk.unwrap_or(spec.disk);
        spec.cpu_limit = self.cpu_limit;
        spec.pids_limit = self.pids_limit;
        check_limits(&spec)?;
        spec.ports = ports;
        spec.env = environment(self.env)?;
        spec.user = self.user;
        spec.artifacts = each("artifacts", self.artifacts, artifact)?;
        spec.health = health;
        spec.constraints = each("constraints", self.constraints, constraint)?;
        spec.kill_grace = self.kill_grace.map(|grace| duration("kill_grace", grace)).transpose()?;
        spec.labels = self.labels;
        spec.constraint = self.constraint;
        spec.priority = self.priority.unwrap_or_default();
        spec.volumes = each("volumes", self.volumes, volume)?;
        spec.container = container.map(Box::new);
        spec.companions = companions(self.companions, &spec)?;
        check_ports(&spec)?;
        Ok(spec)
    }
}

/// What runs beside a task is placed and ends with it, and is on its network.
fn companions(
    tables: BTreeMap<String, TaskTable>,
    main: &TaskSpec,
) -> Result<BTreeMap<String, TaskSpec>, Invalid> {
    let network = |spec: &TaskSpec| spec.container.as_ref().map(|c| c.network.clone()).unwrap_or_default();
    let convert = |(name, mut table): (String, TaskTable)| {
        let within = |invalid: Invalid| invalid.within(format!("companions.{name}"));
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(Invalid::new("companions", &name, "a name of letters, digits and hyphens"));
        }
        let placed = !table.constraints.is_empty() || table.constraint.is_some();
        if placed || !table.companions.is_empty() {
            let expected = "no constraints and no companions: it is where its task is";
            return Err(within(Invalid::new("", &name, expected)));
        }
        table.network.get_or_insert_with(|| network(main));
        let spec = table.into_part(&name).map_err(within)?;
        match network(&spec) == network(main) {
            true => Ok((name, spec)),
            false => Err(within(Invalid::new(
                "network",
                network(&spec),
                format!("that of its task, {}", network(main)),
            ))),
        }
    };
    tables.into_iter().map(convert).collect()
}

/// A port can be another one inside only where the container has a network of its own.
fn check_ports(spec: &TaskSpec) -> Result<(), Invalid> {
    let is_own = spec.container.as_ref().is_some_and(|container| container.network.is_own());
    let other = (0..).zip(&spec.ports).find_map(|(at, port): (usize, _)| Some((at, port.container?)));
    match other.filter(|_| !is_own) {
        Some((at, number)) => Err(Invalid::new(
            format!("ports[{at}].container"),
            number,
            "a number only with a network of its own, such as network = \"bridge\"",
        )),
        None => Ok(()),
    }
}

pub(super) fn each<T, U>(
    field: &str,
    list: Vec<T>,
    convert: impl Fn(T) -> Result<U, Invalid>,
) -> Result<Vec<U>, Invalid> {
    let convert = |(at, item)| convert(item).map_err(|invalid| invalid.within(format!("{field}[{at}]")));
    list.into_iter().enumerate().map(convert).collect()
}

fn one_command(shell: Option<String>, command: Option<Vec<String>>) -> Result<Option<Command>, Invalid> {
    let whole = |text: &String| !text.contains('\0');
    match (shell, command) {
        (None, None) => Ok(None),
        (Some(line), None) if !line.trim().is_empty() && whole(&line) => Ok(Some(Command::Shell(line))),
        (Some(line), None) => Err(Invalid::new("shell", line, "a line for /bin/sh, without zero bytes")),
        (None, Some(argv)) if !argv.iter().all(whole) => {
            Err(Invalid::new("command", argv.join(" "), "arguments without zero bytes"))
        }
        (None, Some(argv)) if argv.first().is_some_and(|program| !program.is_empty()) => {
            Ok(Some(Command::Exec(argv)))
        }
        (None, Some(argv)) => Err(Invalid::new("command", argv.join(" "), "a program and its arguments")),
        (Some(_), Some(argv)) => {
            Err(Invalid::new("command", argv.join(" "), "either `shell` or `command`, not both"))
        }
    }
}

fn check_limits(spec: &TaskSpec) -> Result<(), Invalid> {
    if spec.cpus == Cpus::ZERO {
        return Err(Invalid::new("cpus", spec.cpus, "more than 0"));
    }
    if spec.mem == Bytes::ZERO {
        return Err(Invalid::new("mem", spec.mem, "more than 0"));
    }
    if let Some(limit) = spec.cpu_limit.filter(|limit| *limit < spec.cpus) {
        return Err(Invalid::new("cpu_limit", limit, format!("at least cpus, which is {}", spec.cpus)));
    }
    match spec.pids_limit {
        Some(0) => Err(Invalid::new("pids_limit", 0, "at least 1")),
        _ => Ok(()),
    }
}

fn ports(tables: Vec<PortTable>) -> Result<Vec<PortRequest>, Invalid> {
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (at, PortTable { name, number, container }) in tables.iter().enumerate() {
        if *container == Some(0) {
            return Err(Invalid::new(format!("ports[{at}].container"), 0, "1 to 65535"));
        }
        let tail = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let fine = name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(tail);
        if !fine || name.len() > 63 {
            let expected = "a lower-case letter, then letters, digits, `-` or `_`";
            return Err(Invalid::new(format!("ports[{at}].name"), name, expected));
        }
        // Names that differ only in case or in `-` and `_` would be one variable in the environment.
        if !names.insert(name.to_ascii_uppercase().replace('-', "_")) {
            return Err(Invalid::new(format!("ports[{at}].name"), name, "each name once"));
        }
        if let Some(number) = number
            && (*number == 0 || !numbers.insert(*number))
        {
            return Err(Invalid::new(format!("ports[{at}].number"), number, "1 to 65535, each number once"));
        }
    }
    let request = |PortTable { name, number, container }| PortRequest { name, number, container };
    Ok(tables.into_iter().map(request).collect())
}

fn environment(env: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Invalid> {
    for (name, value) in &env {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(Invalid::new("env", name, "names without `=`"));
        }
        if value.contains('\0') {
            return Err(Invalid::new(format!("env.{name}"), value, "text without a zero byte"));
        }
    }
    Ok(env)
}

fn artifact(table: ArtifactTable) -> Result<Artifact, Invalid> {
    let ArtifactTable { uri, sha256, path, extract, executable } = table;
    let remote = uri.starts_with("http://") || uri.starts_with("https://");
    if !remote && !uri.starts_with('/') && !uri.starts_with("file:///") {
        return Err(Invalid::new("uri", uri, "an absolute path, file:///…, http://… or https://…"));
    }
    let sha256 = sha256.map(|sum| sum.to_ascii_lowercase());
    match &sha256 {
        Some(sum) if sum.len() != 64 || !sum.bytes().all(|b| b.is_ascii_hexdigit()) => {
            return Err(Invalid::new("sha256", sum, "64 hexadecimal digits, as sha256sum prints them"));
        }
        None if remote => {
            return Err(Invalid::missing("sha256", "a checksum, as the file is fetched over the network"));
        }
        _ => {}
    }
    if let Some(path) = &path {
        let inside = |part: &str| !part.is_empty() && part != "." && part != "..";
        if path.starts_with('/') || !path.split('/').all(inside) {
            return Err(Invalid::new("path", path, "a path in the sandbox, without `..`"));
        }
    }
    Ok(Artifact { uri, sha256, path, extract, executable })
}

fn volume(table: VolumeTable) -> Result<VolumeMount, Invalid> {
    let VolumeTable { id, path, read_only } = table;
    let fine = |part: &str| !part.is_empty() && part != "." && part != "..";
    if path.contains('\0') || !path.strip_prefix('/').unwrap_or(&path).split('/').all(fine) {
        return Err(Invalid::new("path", path, "a path without `..`, absolute or below the sandbox"));
    }
    Ok(VolumeMount { id, path, read_only })
}

fn health_spec(table: HealthTable, ports: &[PortRequest]) -> Result<HealthSpec, Invalid> {
    let command = one_command(table.shell, table.command)?;
    let probe = probe(table.http, table.https, table.grpc, table.tcp, command, ports)?;
    let failures = table.failures.unwrap_or(3);
    if failures == 0 {
        return Err(Invalid::new("failures", failures, "at least 1"));
    }
    let or = |field, value: Option<Duration>, seconds| {
        duration(field, value.unwrap_or(Duration::from_secs(seconds)))
    };
    let (interval, timeout) = (or("interval", table.interval, 10)?, or("timeout", table.timeout, 5)?);
    if interval.is_zero() || timeout.is_zero() {
        let field = if interval.is_zero() { "interval" } else { "timeout" };
        return Err(Invalid::new(field, "0s", "more than 0"));
    }
    Ok(HealthSpec { probe, interval, timeout, grace: or("grace", table.grace, 30)?, failures })
}

fn probe(
    http: Option<HttpTable>,
    https: Option<HttpTable>,
    grpc: Option<GrpcTable>,
    tcp: Option<TcpTable>,
    command: Option<Command>,
    ports: &[PortRequest],
) -> Result<ProbeSpec, Invalid> {
    let path = |name: &str, path: Option<String>| match path.unwrap_or_else(|| "/".to_owned()) {
        path if path.starts_with('/') => Ok(path),
        path => Err(Invalid::new(name, path, "a path that begins with a slash")),
    };
    match (http, https, grpc, tcp, command) {
        (Some(http), None, None, None, None) => {
            let path = path("http.path", http.path)?;
            Ok(ProbeSpec::Http { port: probed_port("http.port", http.port, ports)?, path })
        }
        (None, Some(https), None, None, None) => {
            let path = path("https.path", https.path)?;
            Ok(ProbeSpec::Https { port: probed_port("https.port", https.port, ports)?, path })
        }
        (None, None, Some(grpc), None, None) => {
            let service = grpc.service.unwrap_or_default();
            Ok(ProbeSpec::Grpc { port: probed_port("grpc.port", grpc.port, ports)?, service })
        }
        (None, None, None, Some(tcp), None) => {
            Ok(ProbeSpec::Tcp { port: probed_port("tcp.port", tcp.port, ports)? })
        }
        (None, None, None, None, Some(command)) => Ok(ProbeSpec::Command(command)),
        _ => {
            Err(Invalid::missing("", "exactly one of `http`, `https`, `grpc`, `tcp`, `command` and `shell`"))
        }
    }
}

fn probed_port(field: &str, name: Option<String>, ports: &[PortRequest]) -> Result<String, Invalid> {
    let names = || ports.iter().map(|port| port.name.as_str()).collect::<Vec<_>>().join(", ");
    match name {
        Some(name) if ports.iter().any(|port| port.name == name) => Ok(name),
        Some(name) if ports.is_empty() => {
            Err(Invalid::new(field, name, "a port of the task, which has none"))
        }
        Some(name) => Err(Invalid::new(field, name, format!("one of the task's ports: {}", names()))),
        None => ports
            .first()
            .map(|port| port.name.clone())
            .ok_or_else(|| Invalid::missing(field, "a port of the task, which has none")),
    }
}

fn constraint(table: ConstraintTable) -> Result<Constraint, Invalid> {
    let ConstraintTable { attribute, unique, like, spread } = table;
    if attribute.is_empty() {
        return Err(Invalid::missing("attribute", "the name of an attribute, such as hostname"));
    }
    match (unique, like, spread) {
        (true, None, false) => Ok(Constraint::Unique { attribute }),
        (false, Some(pattern), false) => Ok(Constraint::Like { attribute, pattern }),
        (false, None, true) => Ok(Constraint::Spread { attribute }),
        _ => Err(Invalid::new(
            "",
            attribute,
            "exactly one of `unique = true`, `like = \"pattern\"` and `spread = true`",
        )),
    }
}

fn duration(field: &str, value: Duration) -> Result<Duration, Invalid> {
    if value > LONGEST {
        return Err(Invalid::new(field, humantime::format_duration(value), "at most a day"));
    }
    Ok(value)
}
