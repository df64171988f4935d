//! What a task sees of its container, and how its limits hold.

use std::path::Path;
use std::time::{Duration, Instant};

use divvy_batch::planner::{JobState, JobStatus};
use divvy_proto::api::Usage;
use divvy_proto::task::TaskState;

use crate::harness::{Cluster, job_file};

/// Runs a job of one task to its end.
fn run(cluster: &Cluster, id: &str, shell: &str, more: &str) -> JobStatus {
    let file = cluster.file(&format!("{id}.toml"), &job_file(id, "", shell, more));
    let ran = cluster.divvy(&["batch", "submit", &file, "--wait"]);
    let job = cluster.job(id).unwrap_or_else(|| panic!("no job {id}: {ran}"));
    assert_eq!(ran.code == 0, job.summary.state == JobState::Succeeded, "{ran}");
    job
}

#[test]
fn a_task_sees_a_machine_of_its_own_and_cannot_touch_the_other() {
    let cluster = Cluster::start("isolation", 1);
    let host = nix::unistd::gethostname().expect("a hostname").to_string_lossy().into_owned();
    let hostname = format!("[ \"$(uname -n)\" != '{host}' ] && echo its own");
    let secret = format!("[ -e {} ] || echo hidden", cluster.file("secret", ""));
    // What is asked, and what a task must answer.
    let interview = [
        ("echo $$", "1"),
        (&hostname, "its own"),
        ("touch /etc/divvy-was-here 2>/dev/null || echo refused", "refused"),
        ("[ -r /usr/share/common-licenses/GPL-2 ] && echo readable", "readable"),
        ("touch /tmp/divvy-was-here && echo writable", "writable"),
        (&secret, "hidden"),
        ("[ $(ls -d /proc/[0-9]* | wc -l) -lt 8 ] && echo few processes", "few processes"),
        ("whoami", "nobody"),
        ("grep NoNewPrivs /proc/self/status | tr '\\t' ' '", "NoNewPrivs: 1"),
        ("grep CapEff /proc/self/status | tr '\\t' ' '", "CapEff: 0000000000000000"),
        ("[ \"$PWD\" = \"$DIVVY_SANDBOX\" ] && touch here && echo a sandbox", "a sandbox"),
        ("echo $DIVVY_TASK_ID $DIVVY_TASK_INDEX $DIVVY_ATTEMPT", "look-1.0.1 0 1"),
    ];
    let shell: Vec<&str> = interview.iter().map(|(question, _)| *question).collect();
    let job = run(&cluster, "look", &shell.join("\n"), "mem = \"32MiB\"");
    let said = cluster.divvy(&["batch", "logs", "look", "0"]).ok();
    assert_eq!(said.lines().collect::<Vec<_>>(), interview.map(|(_, answer)| answer), "{job:#?}");
    assert_eq!(job.summary.state, JobState::Succeeded);
    let there = ["/etc/divvy-was-here", "/tmp/divvy-was-here"].map(|path| Path::new(path).exists());
    assert_eq!(there, [false, false]);
}

#[test]
fn limits_hold_and_say_so() {
    let cluster = Cluster::start("limits", 1);

    let greedy = run(
        &cluster,
        "greedy",
        "head -c 200000000 /dev/zero | tail -c 150000000 > /dev/null",
        "mem = \"16MiB\"",
    );
    let end = &greedy.tasks[0];
    assert_eq!(
        (greedy.summary.state, end.state, end.reason.as_str()),
        (JobState::Failed, TaskState::Failed, "out_of_memory")
    );
    // The limit, and the peak.
    assert!(end.message.contains("limit of 16MiB (at most 16MiB)"), "{}", end.message);

    let shell = "i=0; while [ ! -e go ]; do i=$((i + 1)); done";
    let file = cluster.file("busy.toml", &job_file("busy", "", shell, "mem = \"16MiB\"\ncpu_limit = 0.2"));
    cluster.divvy(&["batch", "submit", &file]).ok();
    let task = cluster.wait_for("it runs", || {
        cluster.tasks().into_iter().find(|task| task.name == "busy" && task.pid.is_some())
    });
    let path = format!("/api/v1/tasks/{}/{}/usage", task.framework_id, task.id);
    let used = || {
        cluster.try_get::<Usage>(&path).map(|usage| (Instant::now(), Duration::from_micros(usage.cpu_usec)))
    };
    let (since, before) = cluster.wait_for("its use is told", used);
    // A fifth of a core uses this in 2 s at the earliest.
    let enough = before + Duration::from_millis(400);
    let (until, after) =
        cluster.wait_for("it has used a second's work", || used().filter(|(_, used)| *used >= enough));
    let share = (after - before).as_secs_f64() / (until - since).as_secs_f64();
    assert!((0.02..0.3).contains(&share), "a limit of 0.2 cores, and it uses {share:.2}");
    cluster.touch(task.id.as_str(), "go");
    cluster.wait_until("it ends", || {
        cluster.job("busy").is_some_and(|job| job.summary.state == JobState::Succeeded)
    });
}
