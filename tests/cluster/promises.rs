//! What the kernel promises, kept by processes: a guarantee that is met by taking back, an agent that is emptied under load (see
//! also `rolling`), a volume that outlives everything but its owner's word, and a service that can never run and says why.

use std::fs;
use std::path::PathBuf;

use divvy_batch::planner::Outcome;
use divvy_service::api_types::AppState;
use serde_json::Value;

use crate::harness::{Cluster, Part, app_file, job_file};

const FOREVER: &str = "exec sleep 100000";

#[test]
fn a_guarantee_is_met_by_taking_back_what_others_use_beyond_theirs() {
    let cluster = Cluster::start("guarantee", 1);
    let fill = job_file("fill", "count = 4", FOREVER, "priority = -1").replace("cpus = 0.1", "cpus = 1");
    cluster.divvy(&["batch", "submit", &cluster.file("fill.toml", &fill)]).ok();
    let running = || cluster.job("fill").map_or(0, |job| job.summary.counts.running);
    cluster.wait_until("the job has the whole agent", || running() == 4);

    cluster.divvy(&["quota", "set", "eng", "--guarantee", "cpus=2;mem=128MiB"]).ok();
    let web = app_file("web", 2, FOREVER, "").replace("cpus = 0.1", "cpus = 1");
    let web = web.replace("instances = 2", "instances = 2\nrole = \"eng\"");
    cluster.divvy(&["service", "apply", &cluster.file("web.toml", &web), "--wait"]).ok();

    // Not less than was promised, and not more: two of the four run on.
    cluster.wait_until("two wait for their turn", || {
        cluster
            .job("fill")
            .is_some_and(|job| (job.summary.counts.running, job.summary.counts.pending) == (2, 2))
    });
    let job = cluster.job("fill").expect("the job");
    assert_eq!(job.summary.counts.failed, 0);
    let tries: Vec<Outcome> =
        job.tasks.iter().flat_map(|task| &task.tries).map(|ended| ended.outcome).collect();
    assert_eq!(tries, [Outcome::TakenBack; 2], "{job:#?}");
    let decisions: Value = cluster.json(&["decisions"]);
    let why = decisions.as_array().into_iter().flatten().find(|decision| decision["what"] == "preempted");
    assert!(why.is_some_and(|decision| decision["role"] == "eng"), "{decisions:#}");

    cluster.divvy(&["service", "rm", "web", "--wait"]).ok();
    assert_eq!(running(), 2, "what was promised is kept free");
    cluster.divvy(&["quota", "rm", "eng"]).ok();
    cluster.wait_until("the job has it all again", || running() == 4);
}

fn lines(path: &PathBuf) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

#[test]
fn a_volume_outlives_its_tasks_its_agent_and_the_master() {
    let mut cluster = Cluster::start("volume", 2);
    cluster.divvy(&["reserve", "agent-1", "db", "cpus=1;mem=256MiB;disk=1GiB"]).ok();
    cluster.divvy(&["volumes", "create", "agent-1", "db", "data", "512MiB"]).ok();
    let keeper = app_file(
        "keeper",
        1,
        &format!("echo started >> db/log; {FOREVER}"),
        "volumes = [{ id = \"data\", path = \"db\" }]",
    )
    .replace("instances = 1", "instances = 1\nrole = \"db\"");
    let keeper = cluster.file("keeper.toml", &keeper);
    cluster.divvy(&["service", "apply", &keeper, "--wait"]).ok();
    let log = cluster.path("agent-1").join("volumes/data/log");
    assert_eq!(lines(&log), 1);
    let before = cluster.running();

    for part in [Part::Master, Part::Agent(1)] {
        cluster.kill9(part);
        cluster.restart(part);
    }
    cluster.wait_until("all are back, and the task runs on", || {
        cluster.running() == before
            && cluster.identities().contains_key("agent-1")
            && cluster.answers("service")
    });
    let reserved: Value = cluster.json(&["reservations"]);
    assert_eq!(reserved[0]["role"], "db", "{reserved:#}");
    let volumes: Value = cluster.json(&["volumes"]);
    let users = volumes[0]["used_by"].as_array().map_or(0, Vec::len);
    assert_eq!((&volumes[0]["id"], users), (&Value::from("data"), 1), "{volumes:#}");
    let refused = cluster.divvy(&["volumes", "rm", "agent-1", "data"]);
    assert!(refused.code == 1 && refused.stderr.contains("data"), "{refused}");

    cluster.divvy(&["service", "restart", "keeper", "--wait"]).ok();
    assert_eq!(lines(&log), 2, "the next task goes on where the one before it ended");
    cluster.divvy(&["service", "rm", "keeper", "--wait"]).ok();
    cluster.wait_until("the volume can be removed", || {
        cluster.divvy(&["volumes", "rm", "agent-1", "data"]).code == 0
    });
    cluster.wait_until("what was in it is gone", || !log.exists());
}

#[test]
fn a_service_that_can_never_run_says_why() {
    let cluster = Cluster::start("impossible", 2);
    let large = app_file("large", 1, "true", "").replace("cpus = 0.1", "cpus = 64");
    cluster.divvy(&["service", "apply", &cluster.file("large.toml", &large)]).ok();
    let shown = cluster.wait_for("the kernel's words", || {
        let shown = cluster.divvy(&["service", "status", "large"]).ok();
        shown.contains("kernel: ").then_some(shown)
    });
    let kernel = shown.lines().find(|line| line.starts_with("kernel: ")).expect("a line of the kernel's");
    assert!(kernel.contains("of 2 agents") && kernel.contains("cpus"), "{shown}");
    assert_eq!(cluster.app("large").expect("the app").state, AppState::Deploying);

    let picky = app_file("picky", 1, FOREVER, "constraint = 'zone == \"moon\" && version(os) >= \"1\"'");
    cluster.divvy(&["service", "apply", &cluster.file("picky.toml", &picky)]).ok();
    let shown = cluster.divvy(&["service", "status", "picky"]).ok();
    assert!(shown.contains("zone == \"moon\""), "{shown}");
    let wrong = picky.replace("zone == \"moon\" &&", "zone = \"moon\" &&");
    let ran = cluster.divvy(&["service", "apply", &cluster.file("wrong.toml", &wrong)]);
    assert!(ran.code == 2 && ran.stderr.contains("\"zone = "), "the clause is named: {ran}");
    let elsewhere = picky.replace("instances = 1", "instances = 1\nrole = \"nobody\"");
    let ran = cluster.divvy(&["service", "apply", &cluster.file("elsewhere.toml", &elsewhere)]);
    assert!(ran.code == 2 && ran.stderr.contains("--roles"), "{ran}");
}

#[test]
fn a_gang_starts_as_one() {
    let cluster = Cluster::start("gang", 2);
    // Each agent has room for three: the gang needs both.
    let gang = job_file("gang", "count = 6\ngang = true\ngang_hold = \"20s\"", FOREVER, "")
        .replace("cpus = 0.1", "cpus = 1.3");
    cluster.divvy(&["batch", "submit", &cluster.file("gang.toml", &gang)]).ok();
    cluster.wait_until("all run", || {
        let running = cluster.job("gang").map_or(0, |job| job.summary.counts.running);
        assert!(matches!(running, 0 | 6), "{running} of 6 were launched");
        running == 6 && cluster.running().len() == 6
    });
}
