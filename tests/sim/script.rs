//! What users do and what goes wrong, drawn from the seed.

use std::time::Duration;

use divvy_batch::planner::{JobId, JobSpec};
use divvy_proto::quantity::{Bytes, Cpus};
use divvy_sdk::{HealthSpec, ProbeSpec, TaskSpec};
use divvy_service::planner::spec::{AppId, AppSpec};
use rand::Rng;
use rand::rngs::SmallRng;

/// How long everything goes wrong.
pub const TROUBLE: Duration = Duration::from_secs(600);

/// What the task of an app does in the simulation, by this variable of its environment.
pub const BEHAVIOUR: &str = "BEHAVIOUR";

/// The behaviour of a version that works.
pub const FINE: &str = "fine";

#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)]
pub enum Step {
    Apply(AppSpec),
    Scale(AppId, u32),
    Restart(AppId),
    Remove(AppId),
    Submit(JobSpec),
    Cancel(JobId),
    CrashMaster,
    CrashAgent(usize),
    RebootAgent(usize),
    PartitionAgent(usize, Duration),
    CrashFramework(usize),
    CutWire,
}

pub const AGENTS: usize = 4;
const APPS: [&str; 2] = ["web", "api"];

pub fn script(rng: &mut SmallRng) -> Vec<(Duration, Step)> {
    let mut steps = vec![(Duration::from_secs(1), apply(rng, "web", FINE))];
    for _ in 0..rng.random_range(4..12) {
        steps.push((moment(rng), wish(rng)));
    }
    for _ in 0..rng.random_range(3..15) {
        steps.push((moment(rng), fault(rng)));
    }
    steps.sort_by_key(|(at, _)| *at);
    steps
}

fn moment(rng: &mut SmallRng) -> Duration {
    Duration::from_millis(rng.random_range(2_000..TROUBLE.as_millis() as u64))
}

fn wish(rng: &mut SmallRng) -> Step {
    let app = APPS[rng.random_range(0..APPS.len())];
    let id = app.parse::<AppId>().expect("an app's name");
    match rng.random_range(0..10) {
        0..3 => apply(rng, app, FINE),
        3 => apply(rng, app, "dies"),
        4 => apply(rng, app, "sick"),
        5 => Step::Scale(id, rng.random_range(0..6)),
        6 => Step::Restart(id),
        7 => Step::Remove(id),
        8 => Step::Cancel(job_id(rng.random_range(0..3))),
        _ => submit(rng),
    }
}

fn fault(rng: &mut SmallRng) -> Step {
    let agent = rng.random_range(0..AGENTS);
    match rng.random_range(0..12) {
        0 => Step::CrashMaster,
        1..4 => Step::CrashAgent(agent),
        4 => Step::RebootAgent(agent),
        5..7 => Step::PartitionAgent(agent, Duration::from_secs(rng.random_range(1..180))),
        7..9 => Step::CrashFramework(rng.random_range(0..2)),
        _ => Step::CutWire,
    }
}

fn apply(rng: &mut SmallRng, id: &str, behaviour: &str) -> Step {
    let mut task = TaskSpec::shell("serve")
        .named(id)
        .cpus(Cpus::from_millis(500).expect("cpus"))
        .mem(Bytes::mib(64))
        .port("http")
        .env(BEHAVIOUR, behaviour)
        .env("VERSION", rng.random_range(0..1000).to_string());
    let second = Duration::from_secs(1);
    let probe = ProbeSpec::Http { port: "http".to_owned(), path: "/".to_owned() };
    task.health.push(HealthSpec {
        probe,
        interval: 2 * second,
        timeout: second,
        grace: 10 * second,
        failures: 3,
    });
    let mut spec = AppSpec::new(id.parse::<AppId>().expect("an app's name"), rng.random_range(1..6), task);
    spec.update.progress_deadline = Duration::from_secs(120);
    Step::Apply(spec)
}

fn job_id(number: u32) -> JobId {
    format!("job{number}").parse::<JobId>().expect("a job's name")
}

fn submit(rng: &mut SmallRng) -> Step {
    let task =
        TaskSpec::shell("work").named("work").cpus(Cpus::from_millis(250).expect("cpus")).mem(Bytes::mib(32));
    Step::Submit(JobSpec {
        id: job_id(rng.random_range(0..3)),
        count: rng.random_range(1..15),
        retries: rng.random_range(0..4),
        backoff: Duration::from_secs(2),
        timeout: Some(Duration::from_secs(90)),
        parallelism: None,
        fail_fast: rng.random_bool(0.5),
        task,
    })
}
