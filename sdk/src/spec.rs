//! Files that users write: the `[task]` table that all frameworks share, and how a file becomes a value or an error that
//! its writer can mend.
//!
//! Not here: what a framework adds around the table (instances, retries).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::Duration;

use divvy_proto::Invalid;
use divvy_proto::quantity::{Bytes, Cpus};
use divvy_proto::task::{Artifact, Command};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::task_spec::{Constraint, HealthSpec, PortRequest, ProbeSpec, TaskSpec};

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// TOML.
    Toml,
    /// JSON.
    Json,
}

impl Format {
    /// By the path's extension: `.json` is JSON, everything else TOML.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        match path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
            true => Self::Json,
            false => Self::Toml,
        }
    }
}

/// A file that is not what was expected: where, which field, and what would have been right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The text does not have the schema: not TOML or JSON, an unknown field, a value of the wrong type.
    #[error("line {line}, column {column}: {}{message}", prefix(.field))]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// Its path, outermost first: `task.health[0].interval`; empty for the whole.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// The text has the schema, and a value makes no sense.
    #[error(transparent)]
    Value(#[from] Invalid),
}

fn prefix(field: &str) -> String {
    if field.is_empty() { String::new() } else { format!("{field}: ") }
}

/// Reads a file's text. Have `T` derive `Deserialize` with `deny_unknown_fields`.
///
/// # Errors
/// The text is not what `T` expects; the error names the place and the field.
pub fn parse<T: DeserializeOwned>(text: &str, format: Format) -> Result<T, SpecError> {
    match format {
        Format::Toml => parse_toml(text),
        Format::Json => parse_json(text),
    }
}

fn parse_toml<T: DeserializeOwned>(text: &str) -> Result<T, SpecError> {
    let syntax = |field: String, error: &toml::de::Error| {
        let (line, column) = position(text, error.span().map_or(0, |span| span.start));
        SpecError::Syntax { line, column, field, message: error.message().to_owned() }
    };
    let document = toml::Deserializer::parse(text).map_err(|error| syntax(String::new(), &error))?;
    serde_path_to_error::deserialize(document).map_err(|error| syntax(field_of(error.path()), error.inner()))
}

fn parse_json<T: DeserializeOwned>(text: &str) -> Result<T, SpecError> {
    let syntax = |field: String, error: &serde_json::Error| {
        let shown = error.to_string();
        let message = shown.split(" at line ").next().unwrap_or_default().to_owned();
        SpecError::Syntax { line: error.line(), column: error.column(), field, message }
    };
    let mut document = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut document)
        .map_err(|error| syntax(field_of(error.path()), error.inner()))?;
    document.end().map_err(|error| syntax(String::new(), &error))?;
    Ok(value)
}

fn field_of(path: &serde_path_to_error::Path) -> String {
    let shown = path.to_string();
    if shown == "." { String::new() } else { shown }
}

/// Line and column of a byte, from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |tail| tail.chars().count()) + 1;
    (line, column)
}

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
        let command = one_command(self.shell, self.command)?
            .ok_or_else(|| Invalid::missing("command", "either `shell` or `command`"))?;
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
        Ok(spec)
    }
}

fn each<T, U>(
    field: &str,
    list: Vec<T>,
    convert: impl Fn(T) -> Result<U, Invalid>,
) -> Result<Vec<U>, Invalid> {
    let convert = |(at, item)| convert(item).map_err(|invalid| invalid.within(format!("{field}[{at}]")));
    list.into_iter().enumerate().map(convert).collect()
}

fn one_command(shell: Option<String>, command: Option<Vec<String>>) -> Result<Option<Command>, Invalid> {
    match (shell, command) {
        (None, None) => Ok(None),
        (Some(line), None) if !line.trim().is_empty() => Ok(Some(Command::Shell(line))),
        (Some(line), None) => Err(Invalid::new("shell", line, "a line for /bin/sh")),
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
    for (at, PortTable { name, number }) in tables.iter().enumerate() {
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
    Ok(tables.into_iter().map(|PortTable { name, number }| PortRequest { name, number }).collect())
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

fn health_spec(table: HealthTable, ports: &[PortRequest]) -> Result<HealthSpec, Invalid> {
    let command = one_command(table.shell, table.command)?;
    let probe = match (table.http, table.tcp, command) {
        (Some(http), None, None) => {
            let path = http.path.unwrap_or_else(|| "/".to_owned());
            if !path.starts_with('/') {
                return Err(Invalid::new("http.path", path, "a path that begins with a slash"));
            }
            ProbeSpec::Http { port: probed_port("http.port", http.port, ports)?, path }
        }
        (None, Some(tcp), None) => ProbeSpec::Tcp { port: probed_port("tcp.port", tcp.port, ports)? },
        (None, None, Some(command)) => ProbeSpec::Command(command),
        _ => return Err(Invalid::missing("", "exactly one of `http`, `tcp`, `command` and `shell`")),
    };
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

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Toml => "TOML",
            Self::Json => "JSON",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        id: String,
        task: TaskTable,
    }

    const WEB: &str = r#"
id = "web"
[task]
shell = "exec my-server $PORT_HTTP"
cpus = 0.1
mem = "64MiB"
ports = [{ name = "http" }, { name = "admin", number = 8080 }]
env = { GREETING = "hello" }
health = [{ http = { port = "http", path = "/" }, interval = "1s", timeout = "1s", grace = "10s", failures = 3 }]
constraints = [{ attribute = "hostname", unique = true }, { attribute = "rack", like = "r*" }]
artifacts = [{ uri = "/srv/site.tar.gz", extract = true }]
"#;

    fn spec(task: &str) -> Result<TaskSpec, Invalid> {
        let file: TaskTable = parse(task, Format::Toml).unwrap();
        file.into_spec("web")
    }

    #[test]
    fn a_table_is_a_task() {
        let file: File = parse(WEB, Format::Toml).unwrap();
        let spec = file.task.into_spec(&file.id).unwrap();
        let check = HealthSpec {
            probe: ProbeSpec::Http { port: "http".into(), path: "/".into() },
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            grace: Duration::from_secs(10),
            failures: 3,
        };
        let site = Artifact {
            uri: "/srv/site.tar.gz".into(),
            sha256: None,
            path: None,
            extract: true,
            executable: false,
        };
        let expected = TaskSpec {
            ports: vec![
                PortRequest { name: "http".into(), number: None },
                PortRequest { name: "admin".into(), number: Some(8080) },
            ],
            health: vec![check],
            constraints: vec![
                Constraint::Unique { attribute: "hostname".into() },
                Constraint::Like { attribute: "rack".into(), pattern: "r*".into() },
            ],
            artifacts: vec![site],
            ..TaskSpec::shell("exec my-server $PORT_HTTP")
                .named("web")
                .mem(Bytes::mib(64))
                .env("GREETING", "hello")
        };
        assert_eq!(spec, expected);
    }

    #[test]
    fn json_has_the_same_schema() {
        let toml: File = parse(WEB, Format::Toml).unwrap();
        let json = serde_json::json!({ "id": "web", "task": toml.task }).to_string();
        let again: File = parse(&json, Format::Json).unwrap();
        assert_eq!((again.id, again.task), (toml.id, toml.task));
    }

    #[test]
    fn an_error_of_the_text_names_line_column_and_field() {
        let shown = |text: &str, format| parse::<File>(text, format).unwrap_err().to_string();
        let unknown = WEB.replace("mem =", "memory =");
        assert!(
            shown(&unknown, Format::Toml)
                .starts_with("line 6, column 1: task.memory: unknown field `memory`, expected"),
            "{}",
            shown(&unknown, Format::Toml)
        );
        assert_eq!(
            shown(&WEB.replace("0.1", "-1"), Format::Toml),
            "line 5, column 8: task.cpus: cpus: \"-1\" is not valid: expected a number from 0 up"
        );
        assert_eq!(
            shown("id = \"web\"\n[task]\nports = [{ name = 3 }]", Format::Toml),
            "line 3, column 19: task.ports[0].name: invalid type: integer `3`, expected a string"
        );
        assert_eq!(
            shown("{\"id\": \"web\",\n \"task\": {\"cpus\": true}}", Format::Json),
            "line 2, column 23: task.cpus: expected a number, or text such as \"512MiB\""
        );
        assert_eq!(shown("id = ", Format::Toml).split(':').next(), Some("line 1, column 6"));
        assert_eq!(shown("{}]", Format::Json), "line 1, column 2: missing field `id`");
    }

    #[test]
    fn an_error_of_a_value_names_the_field_and_what_was_expected() {
        let rows = [
            ("", "command", "either `shell` or `command`"),
            ("shell = 'a'\ncommand = ['a']", "command", "not both"),
            ("shell = ' '", "shell", "a line"),
            ("command = []", "command", "a program"),
            ("shell = 'a'\ncpus = 0", "cpus", "more than 0"),
            ("shell = 'a'\nmem = 0", "mem", "more than 0"),
            ("shell = 'a'\ncpus = 2\ncpu_limit = 1", "cpu_limit", "at least cpus, which is 2"),
            ("shell = 'a'\npids_limit = 0", "pids_limit", "at least 1"),
            ("shell = 'a'\nports = [{ name = 'HTTP' }]", "ports[0].name", "lower-case"),
            ("shell = 'a'\nports = [{ name = 'a-b' }, { name = 'a_b' }]", "ports[1].name", "once"),
            ("shell = 'a'\nports = [{ name = 'a', number = 0 }]", "ports[0].number", "1 to 65535"),
            ("shell = 'a'\nenv = { 'A=B' = 'c' }", "env", "without `=`"),
            ("shell = 'a'\nhealth = [{ tcp = { port = 'x' } }]", "health[0].tcp.port", "which has none"),
            (
                "shell = 'a'\nports = [{ name = 'a' }]\nhealth = [{ http = { port = 'x' } }]",
                "health[0].http.port",
                "ports: a",
            ),
            ("shell = 'a'\nhealth = [{ interval = '1s' }]", "health[0]", "exactly one of"),
            ("shell = 'a'\nhealth = [{ shell = 'b', interval = '0s' }]", "health[0].interval", "more than 0"),
            (
                "shell = 'a'\nhealth = [{ shell = 'b', timeout = '30d' }]",
                "health[0].timeout",
                "at most a day",
            ),
            ("shell = 'a'\nhealth = [{ shell = 'b', failures = 0 }]", "health[0].failures", "at least 1"),
            ("shell = 'a'\nartifacts = [{ uri = 'x.tar' }]", "artifacts[0].uri", "an absolute path"),
            ("shell = 'a'\nartifacts = [{ uri = 'http://x/y' }]", "artifacts[0].sha256", "a checksum"),
            ("shell = 'a'\nartifacts = [{ uri = '/x', sha256 = 'abc' }]", "artifacts[0].sha256", "64"),
            ("shell = 'a'\nartifacts = [{ uri = '/x', path = '../y' }]", "artifacts[0].path", "without `..`"),
            ("shell = 'a'\nconstraints = [{ attribute = 'rack' }]", "constraints[0]", "exactly one of"),
            (
                "shell = 'a'\nconstraints = [{ attribute = '', unique = true }]",
                "constraints[0].attribute",
                "name",
            ),
            ("shell = 'a'\nkill_grace = '2d'", "kill_grace", "at most a day"),
        ];
        for (task, field, expected) in rows {
            let invalid = spec(task).unwrap_err();
            assert_eq!(invalid.field, field, "{task}");
            assert!(invalid.expected.contains(expected), "{task}: {invalid}");
        }
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        assert_eq!(spec("shell = 'a'").unwrap(), TaskSpec::shell("a").named("web"));
        let check =
            spec("shell = 'a'\nports = [{ name = 'p' }]\nhealth = [{ http = {} }]").unwrap().health.remove(0);
        let expected = HealthSpec {
            probe: ProbeSpec::Http { port: "p".into(), path: "/".into() },
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            grace: Duration::from_secs(30),
            failures: 3,
        };
        assert_eq!(check, expected);
    }
}
