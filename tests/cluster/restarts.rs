//! Each part in turn is killed without warning and started again. What runs goes on running, and nothing is lost or done twice.

use std::collections::{BTreeMap, BTreeSet};

use divvy_batch::planner::{JobState, JobStatus};
use divvy_proto::task::{ExitStatus, TaskState};
use divvy_service::api_types::{AppState, AppStatus, DeploymentState};

use crate::harness::{Cluster, Part, app_file, is_alive, job_file};

/// A task that never ends, and one that ends with 7 when there is a file `go` in its sandbox.
fn start_work(cluster: &Cluster) -> BTreeMap<String, u32> {
    let app = cluster.file("forever.toml", &app_file("forever", 2, "exec sleep 100000", ""));
    cluster.divvy(&["service", "apply", &app, "--wait"]).ok();
    let shell = "while [ ! -e go ]; do sleep 0.05; done; exit 7";
    let job = cluster.file("seven.toml", &job_file("seven", "retries = 0", shell, "mem = \"16MiB\""));
    cluster.divvy(&["batch", "submit", &job]).ok();
    cluster.wait_for("all three tasks run", || Some(cluster.running()).filter(|running| running.len() == 3))
}

fn pid(running: &BTreeMap<String, u32>, task: &str) -> i32 {
    i32::try_from(running[task]).expect("a pid")
}

#[test]
fn an_agent_that_was_killed_finds_its_tasks_and_how_those_ended_that_did_meanwhile() {
    let mut cluster = Cluster::start("agent-restart", 1);
    let before = start_work(&cluster);
    let names = cluster.identities();

    cluster.kill9(Part::Agent(1));
    cluster.touch("seven-1.0.1", "go");
    let seven = pid(&before, "seven-1.0.1");
    cluster.wait_until("the job's task has ended while no agent looks", || !is_alive(seven));
    let pids: Vec<i32> = before.keys().map(|task| pid(&before, task)).filter(|pid| *pid != seven).collect();
    assert!(pids.iter().all(|pid| is_alive(*pid)));

    cluster.restart(Part::Agent(1));
    let job = cluster.wait_for("the job's end is known", || {
        cluster.job("seven").filter(|job| job.summary.state.has_ended())
    });
    let tries: Vec<_> = job.tasks[0].tries.iter().map(|t| (t.attempt, t.state, t.exit)).collect();
    assert_eq!(
        (job.summary.state, tries),
        (JobState::Failed, vec![(1, TaskState::Failed, Some(ExitStatus::Code(7)))])
    );
    cluster.wait_until("the agent is back as who it was", || cluster.identities() == names);
    let after: BTreeMap<String, u32> = before.into_iter().filter(|(task, _)| task != "seven-1.0.1").collect();
    assert_eq!(cluster.running(), after);
    let app = cluster.app("forever").expect("the app");
    assert_eq!((app.state, app.last_failure), (AppState::Running, None));
}

#[test]
fn a_master_that_was_killed_comes_back_and_nobody_else_notices() {
    let mut cluster = Cluster::start("master-restart", 2);
    let (before, names) = (start_work(&cluster), cluster.identities());
    assert_eq!(names.len(), 4);

    cluster.kill9(Part::Master);
    let unreachable = cluster.divvy(&["status"]);
    assert_eq!(unreachable.code, 3, "{unreachable}");
    cluster.restart(Part::Master);
    cluster.wait_until("agents and frameworks come back by themselves", || cluster.identities() == names);
    cluster.wait_until("all tasks are known again, with the same processes", || cluster.running() == before);

    cluster.wait_until("the frameworks answer", || cluster.answers("service") && cluster.answers("batch"));
    cluster.divvy(&["service", "scale", "forever", "4", "--wait"]).ok();
    cluster.touch("seven-1.0.1", "go");
    let job =
        cluster.wait_for("the job ends", || cluster.job("seven").filter(|job| job.summary.state.has_ended()));
    assert_eq!(job.tasks[0].exit, Some(ExitStatus::Code(7)));
    let after = cluster.running();
    let kept: Vec<_> = before.iter().filter(|(task, pid)| after.get(*task) == Some(pid)).collect();
    assert_eq!((after.len(), kept.len()), (4, 2));
}

/// Two of three instances are always healthy, and one that is new is so when there is a file `well` in its sandbox.
fn gated_app(version: u32) -> String {
    let shell = format!("echo {version} > version; exec sleep 100000");
    let health =
        "health = [{ shell = \"test -e well\", interval = \"100ms\", timeout = \"10s\", grace = \"10m\" }]";
    app_file("gated", 3, &shell, health).replace("[update]", "[update]\nmax_unavailable = 1\nmax_surge = 1")
}

/// Instances of a version that run and are not healthy yet.
fn unwell(app: &AppStatus, version: u32) -> Vec<String> {
    let of_version =
        app.tasks.iter().filter(|task| task.version == version && task.state == TaskState::Running);
    of_version.filter(|task| !task.healthy).map(|task| task.id.to_string()).collect()
}

fn cure(cluster: &Cluster, version: u32) -> Option<AppStatus> {
    let app = cluster.app("gated")?;
    unwell(&app, version).iter().for_each(|task| cluster.touch(task, "well"));
    Some(app)
}

#[test]
fn a_service_framework_that_was_killed_finishes_the_deployment_that_it_had_begun() {
    let mut cluster = Cluster::start("service-restart", 2);
    let file = |version| cluster.file(&format!("gated-{version}.toml"), &gated_app(version));
    let (first, second) = (file(1), file(2));
    cluster.divvy(&["service", "apply", &first]).ok();
    cluster
        .wait_until("version 1 runs", || cure(&cluster, 1).is_some_and(|app| app.state == AppState::Running));

    cluster.divvy(&["service", "apply", &second]).ok();
    cluster.wait_until("an instance of version 2 runs", || {
        cluster.app("gated").is_some_and(|app| !unwell(&app, 2).is_empty())
    });
    cluster.kill9(Part::Service);
    let before = cluster.running();
    cluster.restart(Part::Service);
    cluster.wait_until("the framework is back", || cluster.answers("service"));
    let after = cluster.running();
    assert!(
        before.iter().all(|task| after.get(task.0) == Some(task.1)),
        "it touches tasks: {before:?}, {after:?}"
    );

    let app = cluster.wait_for("version 2 runs", || {
        let app = cure(&cluster, 2)?;
        assert!(app.healthy >= 2, "fewer are healthy than must be: {app:#?}");
        (app.state != AppState::Deploying).then_some(app)
    });
    assert_eq!(
        (app.state, app.deployment.state, app.healthy, app.tasks.len()),
        (AppState::Running, DeploymentState::Succeeded, 3, 3)
    );
    let launched: Vec<String> = cluster.sandboxes().into_keys().collect();
    let of_version = |prefix: &str| launched.iter().filter(|task| task.starts_with(prefix)).count();
    assert_eq!(
        (of_version("gated.1."), of_version("gated.2.")),
        (3, 3),
        "no instance is launched twice: {launched:?}"
    );
}

/// The attempts of each index that left a sandbox.
fn attempts(cluster: &Cluster) -> BTreeMap<u32, Vec<u32>> {
    let mut attempts: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for task in cluster.sandboxes().into_keys() {
        let mut parts = task.rsplit('.').map(|part| part.parse::<u32>().expect("a number"));
        let (attempt, index) = (parts.next().expect("an attempt"), parts.next().expect("an index"));
        attempts.entry(index).or_default().push(attempt);
    }
    attempts
}

#[test]
fn a_batch_framework_that_was_killed_runs_no_index_twice_and_forgets_none() {
    const COUNT: u32 = 10;
    let mut cluster = Cluster::start("batch-restart", 2);
    // Even ones end at once, odd ones when they are told to.
    let shell = "if [ $((DIVVY_TASK_INDEX % 2)) = 1 ]; then while [ ! -e go ]; do sleep 0.05; done; fi; echo done > result";
    let head = format!("count = {COUNT}\nretries = 3\nbackoff = \"100ms\"\nparallelism = 4");
    let file = cluster.file("work.toml", &job_file("work", &head, shell, "mem = \"16MiB\""));
    cluster.divvy(&["batch", "submit", &file]).ok();
    let standing = |cluster: &Cluster| cluster.job("work").map(|job| job.summary.counts).unwrap_or_default();
    cluster.wait_until("four wait and some are done", || {
        let counts = standing(&cluster);
        counts.running == 4 && counts.succeeded >= 3 && cluster.running().len() == 4
    });

    cluster.kill9(Part::Batch);
    // One of those that run ends while nobody looks.
    let (task, pid) = cluster.running().pop_first().expect("a task");
    cluster.touch(&task, "go");
    cluster.wait_until("it has ended", || !is_alive(i32::try_from(pid).expect("a pid")));
    cluster.restart(Part::Batch);

    let job = cluster.wait_for("the job ends", || {
        cluster.running().keys().for_each(|task| cluster.touch(task, "go"));
        cluster.job("work").filter(|job| job.summary.state.has_ended())
    });
    assert_eq!((job.summary.state, job.summary.counts.succeeded), (JobState::Succeeded, COUNT));
    let once: BTreeMap<u32, Vec<u32>> = (0..COUNT).map(|index| (index, vec![1])).collect();
    assert_eq!((attempts(&cluster), tries(&job)), (once.clone(), once));
    let results: BTreeSet<bool> =
        cluster.sandboxes().values().map(|path| path.join("result").exists()).collect();
    assert_eq!(results, BTreeSet::from([true]));
}

/// The attempts of each index that the job knows of.
fn tries(job: &JobStatus) -> BTreeMap<u32, Vec<u32>> {
    job.tasks.iter().map(|index| (index.index, index.tries.iter().map(|t| t.attempt).collect())).collect()
}
