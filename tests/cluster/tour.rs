//! What a user does on the first day, command by command, and the contracts that scripts rely on.

use std::collections::BTreeSet;
use std::path::Path;

use divvy_batch::planner::JobState;
use divvy_service::api_types::{AppState, AppStatus};
use serde_json::Value;

use crate::harness::{Cluster, Process, is_alive, job_file};

const WEB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/frameworks/service/examples/web.toml");
const WORDCOUNT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/frameworks/batch/examples/wordcount.toml");

#[test]
fn the_tour_of_the_readme_works_as_written() {
    let cluster = Cluster::start("tour", 3);

    cluster.divvy(&["service", "apply", WEB, "--wait"]).ok();
    let addresses = cluster.divvy(&["service", "endpoints", "web"]).ok();
    let bodies: Vec<String> = addresses.lines().map(get).collect();
    assert_eq!(bodies.len(), 3);
    assert!(bodies.iter().all(|body| body.starts_with("hello from web.1.")), "{bodies:?}");

    cluster.divvy(&["service", "scale", "web", "5", "--wait"]).ok();
    let web: AppStatus = cluster.json(&["service", "status", "web"]);
    assert_eq!((web.state, web.instances, web.running, web.healthy), (AppState::Running, 5, 5, 5));

    heals_after_kill9(&cluster, &web);
    runs_wordcount(&cluster);
    keeps_the_contracts_of_its_json(&cluster);
}

/// The body that an endpoint answers.
fn get(address: &str) -> String {
    crate::harness::get(address, "/").expect("an answer").body
}

fn heals_after_kill9(cluster: &Cluster, web: &AppStatus) {
    let victim = &web.tasks[0];
    let pid = i32::try_from(victim.pid.expect("a pid")).expect("a pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .expect("a process");
    let healed = cluster.wait_for("the killed instance is replaced", || {
        let web = cluster.app("web")?;
        (web.healthy == 5 && web.tasks.iter().all(|task| task.id != victim.id)).then_some(web)
    });
    let end = healed.last_failure.expect("the end of the victim");
    assert_eq!(
        (end.task, end.exit.map(|exit| exit.to_string())),
        (victim.id.clone(), Some("signal 9".to_owned()))
    );
    assert!(!is_alive(pid));
}

fn runs_wordcount(cluster: &Cluster) {
    let job: Value = cluster.json(&["batch", "submit", WORDCOUNT, "--wait"]);
    let expected =
        serde_json::json!({"pending": 0, "running": 0, "succeeded": 20, "failed": 0, "cancelled": 0});
    assert_eq!((&job["state"], &job["counts"]), (&Value::from("succeeded"), &expected));
    let all = cluster.divvy(&["batch", "logs", "wordcount"]).ok();
    let indexes: BTreeSet<&str> = all.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(indexes.len(), 20, "{all}");
    let one = cluster.divvy(&["batch", "logs", "wordcount", "7"]).ok();
    assert!(one.trim_end().ends_with("total"), "{one}");
    assert_eq!(cluster.job("wordcount").map(|job| job.summary.state), Some(JobState::Succeeded));
}

/// The fields that issue 2 fixes are there, and lists are never empty where they are looked at.
fn keeps_the_contracts_of_its_json(cluster: &Cluster) {
    let has = |arguments: &[&str], fields: &str| {
        let value: Value = cluster.json(arguments);
        let object = if value.is_array() { &value[0] } else { &value };
        let missing: Vec<&str> =
            fields.split_whitespace().filter(|field| object.get(field).is_none()).collect();
        assert_eq!(missing, Vec::<&str>::new(), "divvy {arguments:?}: {value:#}");
        value
    };
    let agents = has(&["agents"], "id hostname state resources attributes tasks");
    has(&["frameworks"], "id name roles state tasks offers dominant_share");
    has(
        &["tasks"],
        "id name framework framework_id agent_id hostname state healthy ports pid started_at reason message",
    );
    has(
        &["service", "status", "web"],
        "id version state instances running healthy deployment endpoints tasks",
    );
    has(&["batch", "status", "wordcount"], "id state counts tasks");
    has(&["status"], "leader version uptime agents frameworks tasks resources");
    let offers: Value = cluster.json(&["offers"]);
    assert!(offers.is_array());

    // Numbers of cores, bytes, ranges.
    let total = &agents[0]["resources"]["total"];
    let size = (&total["cpus"], &total["mem"], total["ports"][0].as_array().map(Vec::len));
    assert_eq!((size.0.as_f64(), size.1.as_i64(), size.2), (Some(4.0), Some(2 << 30), Some(2)), "{total}");
    let parts: BTreeSet<&String> = agents[0]["resources"].as_object().expect("an object").keys().collect();
    assert_eq!(
        parts.into_iter().map(String::as_str).collect::<Vec<_>>(),
        ["available", "offered", "total", "used"]
    );
}

#[test]
fn a_followed_log_ends_when_its_task_ends() {
    let cluster = Cluster::start("follow", 1);
    let shell = "echo begins; while [ ! -e go ]; do sleep 0.05; done; echo ends";
    let file = cluster.file("talk.toml", &job_file("talk", "", shell, "mem = \"16MiB\""));
    cluster.divvy(&["batch", "submit", &file]).ok();
    cluster.wait_until("the task runs", || cluster.running().contains_key("talk-1.0.1"));

    let (master, log) = (format!("--master={}", cluster.master()), cluster.path("follow.log"));
    let mut reader = Process::start(&[&master, "logs", "talk-1.0.1", "-f"], &log);
    cluster.wait_until("the reader has the first line", || reader.output() == "begins\n");
    assert!(reader.is_running());
    cluster.touch("talk-1.0.1", "go");
    cluster.wait_until("the reader ends by itself", || !reader.is_running());
    assert_eq!(reader.output(), "begins\nends\n");
}

#[test]
fn the_keep_alive_example_keeps_three_tasks_alive() {
    let cluster = Cluster::start("keep-alive", 1);
    let binary = Path::new(env!("CARGO_BIN_EXE_divvy"));
    let example = binary.parent().expect("a directory").join("examples/keep_alive");
    // `cargo test --workspace --all-targets` builds it; `cargo test --test cluster` alone does not.
    assert!(example.exists(), "not built: cargo build -p divvy-sdk --example keep_alive");
    let scheduler = cluster.start_scheduler(&example);
    let three = || Some(cluster.running()).filter(|running| running.len() == 3);
    let before = cluster.wait_for("three tasks run", three);
    let (victim, pid) = before.first_key_value().expect("a task");
    cluster.divvy(&["tasks", "kill", victim]).ok();
    let after = cluster.wait_for("another has come for the one that was killed", || {
        three().filter(|running| !running.contains_key(victim))
    });
    let stayed = before.iter().filter(|(id, pid)| after.get(*id) == Some(pid)).count();
    assert_eq!((stayed, is_alive(i32::try_from(*pid).expect("a pid"))), (2, false));
    drop(scheduler);
}
