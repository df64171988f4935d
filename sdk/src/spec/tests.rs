//! What users write, and what they are told.

use std::time::Duration;

use divvy_proto::Bytes;
use divvy_proto::task::Artifact;
use serde::Deserialize;

use super::*;
use crate::{Constraint, HealthSpec, PortRequest, ProbeSpec, TaskSpec};

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
            PortRequest { name: "http".into(), number: None, container: None },
            PortRequest { name: "admin".into(), number: Some(8080), container: None },
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
        (r#"shell = "a\u0000b""#, "shell", "without zero bytes"),
        (r#"command = ["a", "\u0000"]"#, "command", "without zero bytes"),
        ("command = []", "command", "a program"),
        ("shell = 'a'\ncpus = 0", "cpus", "more than 0"),
        ("shell = 'a'\nmem = 0", "mem", "more than 0"),
        (
            "shell = 'a'\ncpus = 0.001\nmem = '4MiB'",
            "cpus",
            "at least 0.01, or mem of 32MiB: less is never offered",
        ),
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
        ("shell = 'a'\nhealth = [{ shell = 'b', timeout = '30d' }]", "health[0].timeout", "at most a day"),
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
