//! What cannot be is refused or waits with a visible reason, and changes nothing else.

use std::collections::BTreeMap;

use divvy_batch::planner::JobState;
use divvy_service::api_types::AppState;

use crate::harness::{Cluster, app_file, job_file};

/// Applies text that must be refused: exit code 2, with all of these words.
fn refused(cluster: &Cluster, text: &str, words: &[&str]) {
    let file = cluster.file("bad.toml", text);
    let ran = cluster.divvy(&["service", "apply", &file, "--wait"]);
    let told = words.iter().all(|word| ran.stderr.contains(word));
    assert!((ran.code, told) == (2, true), "expected {words:?} for\n{text}\n{ran}");
    assert_eq!(ran.stdout, "");
}

#[test]
fn bad_input_is_refused_or_waits_with_a_reason_and_changes_nothing_else() {
    let cluster = Cluster::start("bad-input", 2);
    let good = cluster.file("good.toml", &app_file("good", 2, "exec sleep 100000", ""));
    cluster.divvy(&["service", "apply", &good, "--wait"]).ok();
    let before = cluster.running();

    files_that_make_no_sense_are_refused(&cluster);
    wishes_that_nobody_can_fulfil_wait(&cluster);
    commands_that_cannot_run_fail(&cluster);
    questions_about_nothing_are_answered(&cluster);

    let after: BTreeMap<String, u32> =
        cluster.running().into_iter().filter(|(id, _)| id.starts_with("good.")).collect();
    assert_eq!(after, before);
    let good = cluster.app("good").expect("the app");
    assert_eq!((good.state, good.version, good.last_failure), (AppState::Running, 1, None));
}

fn files_that_make_no_sense_are_refused(cluster: &Cluster) {
    let valid = app_file("bad", 1, "true", "");
    refused(cluster, &valid.replace("instances", "instnces"), &["bad.toml", "line 2", "instnces"]);
    refused(cluster, &valid.replace("cpus = 0.1", "cpus = -1"), &["task.cpus", "-1"]);
    refused(cluster, &valid.replace("cpus = 0.1", "cpus = 1e300"), &["task.cpus"]);
    refused(cluster, &valid.replace("32MiB", "32 potatoes"), &["task.mem", "32 potatoes"]);
    refused(
        cluster,
        &app_file("bad", 1, "true", "ports = [{ name = \"http\", number = 99999 }]"),
        &["ports", "99999"],
    );
    refused(cluster, "not = [toml", &["line 1"]);
    let missing = cluster.divvy(&["service", "apply", "/nowhere/app.toml"]);
    assert_eq!(missing.code, 2, "{missing}");
    assert!(cluster.app("bad").is_none());

    let job = cluster.file("bad-job.toml", &job_file("bad", "cuont = 3", "true", ""));
    let ran = cluster.divvy(&["batch", "submit", &job, "--wait"]);
    assert!(ran.code == 2 && ran.stderr.contains("line 2") && ran.stderr.contains("cuont"), "{ran}");
}

/// Applies an app that must wait; the reason must have these words.
fn waits(cluster: &Cluster, id: &str, text: &str, words: &[&str]) {
    let file = cluster.file(&format!("{id}.toml"), text);
    cluster.divvy(&["service", "apply", &file]).ok();
    cluster.wait_until(&format!("{id} says that it waits, and why"), || {
        let waiting = cluster.app(id).and_then(|app| app.waiting).unwrap_or_default();
        words.iter().all(|word| waiting.contains(word))
    });
    let shown = cluster.divvy(&["service", "status", id]).ok();
    assert!(words.iter().all(|word| shown.contains(word)), "{shown}");
    let late = cluster.divvy(&["service", "apply", &file, "--wait", "--timeout", "100ms"]);
    assert_eq!(late.code, 124, "{late}");
    cluster.divvy(&["service", "rm", id, "--wait"]).ok();
}

fn wishes_that_nobody_can_fulfil_wait(cluster: &Cluster) {
    let huge = app_file("huge", 1, "true", "").replace("32MiB", "900GiB");
    waits(cluster, "huge", &huge, &["mem"]);
    let port = app_file("port", 1, "true", "ports = [{ name = \"http\", number = 7 }]");
    waits(cluster, "port", &port, &["port"]);
    let nowhere = app_file("nowhere", 1, "true", "constraints = [{ attribute = \"rack\", like = \"r9\" }]");
    waits(cluster, "nowhere", &nowhere, &["rack"]);
    let many = app_file(
        "many",
        3,
        "exec sleep 100000",
        "constraints = [{ attribute = \"hostname\", unique = true }]",
    );
    waits(cluster, "many", &many, &["hostname"]);
}

fn commands_that_cannot_run_fail(cluster: &Cluster) {
    let text = job_file("none", "", "x", "").replace("shell = '''x'''", "command = [\"/no/such/program\"]");
    let file = cluster.file("none.toml", &text);
    let ran = cluster.divvy(&["batch", "submit", &file, "--wait"]);
    let job = cluster.job("none").expect("the job");
    assert_eq!((ran.code, job.summary.state), (1, JobState::Failed), "{ran}");
    assert!(ran.stderr.contains("/no/such/program"), "{ran}");
    let end = &job.tasks[0];
    assert!(end.reason == "launch_failed" && end.message.contains("/no/such/program"), "{end:#?}");
}

fn questions_about_nothing_are_answered(cluster: &Cluster) {
    for question in [
        &["service", "status", "nothing"][..],
        &["service", "scale", "nothing", "3"],
        &["batch", "status", "nothing"],
        &["batch", "cancel", "nothing"],
        &["agents", "gone", "nothing"],
    ] {
        let ran = cluster.divvy(question);
        assert!(ran.code == 1 && ran.stderr.contains("nothing"), "{question:?}: {ran}");
    }
    for question in
        [&["logs", "nothing"][..], &["tasks", "kill", "nothing"], &["service", "scale", "good", "-1"]]
    {
        let ran = cluster.divvy(question);
        assert!(ran.code == 2 && !ran.stderr.is_empty(), "{question:?}: {ran}");
    }
}
