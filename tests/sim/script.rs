//! What users do and what goes wrong, drawn from the seed.

use std::collections::BTreeMap;
use std::time::Duration;

use divvy_batch::planner::{JobId, JobSpec};
use divvy_proto::attributes::Attributes;
use divvy_proto::quantity::{Bytes, Cpus};
use divvy_proto::reservation::{Reservation, Reserved};
use divvy_proto::resources::Resources;
use divvy_proto::role::RolePath;
use divvy_sdk::{Constraint, HealthSpec, ProbeSpec, TaskSpec};
use divvy_service::planner::spec::{Amount, AppId, AppSpec, Floor, UpdatePolicy};
use rand::Rng;
use rand::rngs::SmallRng;

use crate::framework::{BATCH, CREW, FRAMEWORKS, GUEST, KEEPER, PICKY, RIVAL, SERVICE};
use crate::operator::Errand;
use crate::orders;

/// How long everything goes wrong.
pub const TROUBLE: Duration = Duration::from_secs(400);

/// What the task of an app does in the simulation, by this variable of its environment.
pub const BEHAVIOUR: &str = "BEHAVIOUR";

/// The behaviour of a version that works.
pub const FINE: &str = "fine";

/// The app whose updates must keep their bounds.
pub const SHOP: &str = "shop";

/// What kind of history a seed tells.
#[derive(Debug, Clone)]
pub struct Nature {
    /// Nothing fails. Then an update must keep its bounds at every moment.
    pub calm: bool,
    /// Processes start with clocks that differ by minutes.
    pub clocks_err: bool,
    /// Operators change policy, and drain agents: then an update may fall short of its bounds even while nothing fails.
    pub meddled: bool,
    /// How many instances of the shop, and how they are replaced.
    pub shop: (u32, UpdatePolicy),
    /// Which frameworks there are.
    pub present: [bool; FRAMEWORKS],
    /// The roles of each framework.
    pub roles: [Vec<RolePath>; FRAMEWORKS],
    /// What the crowd's frameworks are like.
    pub tastes: [u64; FRAMEWORKS],
    pub bursts_on_revocable: bool,
    pub agents: [AgentNature; AGENTS],
}

/// What an agent says of itself beside its size.
#[derive(Debug, Clone)]
pub struct AgentNature {
    pub attributes: Attributes,
    pub reserved: Vec<Reserved>,
    pub revocable: Resources,
}

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
    /// It comes back with more or less than it had.
    ResizeAgent(usize),
    /// The machine and its disk are lost; another takes its place. The operator declares the agent gone after a while.
    ReplaceMachine(usize, Duration),
    PartitionAgent(usize, Duration),
    CrashFramework(usize),
    /// A second process of a framework starts while the first lives on.
    TakeOver(usize),
    DismissGuest,
    KillSomeTask,
    /// An agent that may be well is declared gone.
    Condemn(usize),
    Operate(Errand),
    /// Nothing becomes durable for a while.
    StallStore(Store, Duration),
    CutWire,
}

#[derive(Debug, Clone, Copy)]
pub enum Store {
    Master,
    Agent(usize),
    Framework(usize),
}

pub const AGENTS: usize = 4;
const APPS: [&str; 2] = ["web", "api"];

type Moments = Vec<(Duration, Step)>;

pub fn nature(rng: &mut SmallRng) -> Nature {
    let instances = rng.random_range(1..5);
    let floor = match rng.random_range(0..3) {
        0 => None,
        1 => Some(Floor::MaxUnavailable(Amount::Count(rng.random_range(0..instances)))),
        _ => Some(Floor::MinHealthy(Amount::Percent(rng.random_range(0..=100)))),
    };
    let max_surge = Amount::Count(rng.random_range(0..3));
    let mut policy = UpdatePolicy { floor, max_surge, ..UpdatePolicy::default() };
    if policy.check(instances).is_err() {
        policy.max_surge = Amount::Count(1);
    }
    let calm = rng.random_bool(0.3);
    Nature {
        calm,
        clocks_err: !calm && rng.random_bool(0.4),
        meddled: rng.random_bool(0.6),
        shop: (instances, policy),
        present: std::array::from_fn(|kind| kind <= GUEST || rng.random_bool(0.4)),
        roles: std::array::from_fn(|kind| roles(kind, rng)),
        tastes: std::array::from_fn(|_| rng.random()),
        bursts_on_revocable: rng.random_bool(0.4),
        agents: std::array::from_fn(|agent| agent_nature(agent, rng)),
    }
}

pub fn role(path: &str) -> RolePath {
    path.parse().expect("a role")
}

/// Frameworks share roles, and parts of the tree, now and then.
fn roles(kind: usize, rng: &mut SmallRng) -> Vec<RolePath> {
    let own: &[&str] = match kind {
        SERVICE => &["*", "prod", "prod/web"],
        BATCH => &["*", "prod/batch", "dev"],
        PICKY => &["dev/x", "dev", "prod/web"],
        CREW | RIVAL => &["lab", "dev", "*"],
        KEEPER => &["prod", "dev/x", "lab/store"],
        GUEST => &["*"],
        _ => &["lab/burst", "dev/x", "lab", "*"],
    };
    let at = rng.random_range(0..own.len());
    let two = kind == PICKY && rng.random_bool(0.5);
    let other = two.then(|| role(own[(at + 1) % own.len()]));
    std::iter::once(role(own[at])).chain(other).collect()
}

/// Agents have the racks r0 and r1.
fn agent_nature(agent: usize, rng: &mut SmallRng) -> AgentNature {
    let mut attributes = format!("rack=r{}", agent % 2);
    if rng.random_bool(0.5) {
        attributes += &format!(";ssd={}", rng.random_range(1..4));
    }
    if rng.random_bool(0.5) {
        attributes += &format!(";kernel=6.{}-amd64", rng.random_range(0..3));
    }
    if rng.random_bool(0.2) {
        attributes += ";slow=yes";
    }
    let fixed = |name: &str| Reserved {
        stack: vec![Reservation { role: role(name), principal: None, labels: BTreeMap::new(), fixed: true }],
        resources: "cpus=0.2;mem=32MiB;disk=1GiB".parse().expect("resources"),
    };
    let owner = ["prod", "dev/x", "lab"][rng.random_range(0..3)];
    let revocable = if rng.random_bool(0.3) { "cpus=2;mem=512MiB" } else { "" };
    AgentNature {
        attributes: attributes.parse().expect("attributes"),
        reserved: rng.random_bool(0.2).then(|| fixed(owner)).into_iter().collect(),
        revocable: revocable.parse().expect("resources"),
    }
}

pub fn script(nature: &Nature, rng: &mut SmallRng) -> Moments {
    let mut steps = vec![(Duration::from_secs(1), apply(nature, rng, "web", FINE))];
    for _ in 0..rng.random_range(4..12) {
        steps.push((moment(rng), wish(nature, rng)));
    }
    update_shop(nature, rng, &mut steps);
    if rng.random_bool(0.2) {
        many_small_jobs(rng, &mut steps);
    }
    if nature.meddled {
        for _ in 0..rng.random_range(2..14) {
            let order = orders::draw(rng);
            steps.push((moment(rng), Step::Operate(Errand::Order(order))));
        }
    }
    if !nature.calm {
        for _ in 0..rng.random_range(3..15) {
            let at = moment(rng);
            fault(rng, at, &mut steps);
        }
    }
    steps.sort_by_key(|(at, _)| *at);
    steps
}

fn moment(rng: &mut SmallRng) -> Duration {
    Duration::from_millis(rng.random_range(2_000..TROUBLE.as_millis() as u64))
}

fn app_id(app: &str) -> AppId {
    app.parse().expect("an app's name")
}

fn wish(nature: &Nature, rng: &mut SmallRng) -> Step {
    let app = APPS[rng.random_range(0..APPS.len())];
    let bad = |behaviour| if nature.calm { FINE } else { behaviour };
    match rng.random_range(0..10) {
        0..3 => apply(nature, rng, app, FINE),
        3 => apply(nature, rng, app, bad("dies")),
        4 => apply(nature, rng, app, bad("sick")),
        5 => Step::Scale(app_id(app), rng.random_range(0..6)),
        6 => Step::Restart(app_id(app)),
        7 => Step::Remove(app_id(app)),
        8 => Step::Cancel(job_id(rng.random_range(0..3))),
        _ => submit(rng, 0..3, 15),
    }
}

fn update_shop(nature: &Nature, rng: &mut SmallRng, steps: &mut Moments) {
    steps.push((Duration::from_secs(1), apply(nature, rng, SHOP, FINE)));
    for _ in 0..rng.random_range(0..4) {
        let again = match rng.random_bool(0.3) {
            true => Step::Restart(app_id(SHOP)),
            false => apply(nature, rng, SHOP, FINE),
        };
        steps.push((moment(rng), again));
    }
}

fn many_small_jobs(rng: &mut SmallRng, steps: &mut Moments) {
    let at = moment(rng);
    for number in 100..rng.random_range(110..130) {
        steps.push((at, submit(rng, number..number + 1, 3)));
    }
}

fn fault(rng: &mut SmallRng, at: Duration, steps: &mut Moments) {
    let agent = rng.random_range(0..AGENTS);
    let anyone = rng.random_range(0..FRAMEWORKS);
    let framework = [SERVICE, BATCH, SERVICE, BATCH, GUEST, anyone][rng.random_range(0..6)];
    let seconds = |rng: &mut SmallRng, range| Duration::from_secs(rng.random_range(range));
    let step = match rng.random_range(0..23) {
        0 => Step::CrashMaster,
        1..4 => Step::CrashAgent(agent),
        4 => Step::RebootAgent(agent),
        5 => Step::ResizeAgent(agent),
        6 => Step::ReplaceMachine(agent, seconds(rng, 0..200)),
        7..9 => Step::PartitionAgent(agent, seconds(rng, 1..180)),
        9 => {
            // A master fails over while an agent is away.
            steps.push((at, Step::PartitionAgent(agent, seconds(rng, 30..180))));
            steps.push((at + seconds(rng, 0..60), Step::CrashMaster));
            return;
        }
        10..12 => Step::CrashFramework(framework),
        12..14 => Step::TakeOver(framework),
        14 => Step::DismissGuest,
        15..17 => Step::KillSomeTask,
        17 => Step::StallStore(Store::Master, seconds(rng, 1..20)),
        18 => Step::StallStore(Store::Agent(agent), seconds(rng, 1..20)),
        19 => Step::StallStore(Store::Framework(framework), seconds(rng, 1..20)),
        20 => Step::Condemn(agent),
        _ => Step::CutWire,
    };
    steps.push((at, step));
}

fn apply(nature: &Nature, rng: &mut SmallRng, id: &str, behaviour: &str) -> Step {
    let mut task = TaskSpec::shell("serve")
        .named(id)
        .cpus(Cpus::from_millis(500).expect("cpus"))
        .mem(Bytes::mib(64))
        .port("http")
        .env("APP", id)
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
    if id != SHOP {
        task.constraints = constraints(rng);
    }
    let mut spec = AppSpec::new(app_id(id), rng.random_range(1..6), task);
    if id == SHOP {
        (spec.instances, spec.update) = nature.shop.clone();
    }
    spec.update.progress_deadline = Duration::from_secs(120);
    Step::Apply(spec)
}

fn constraints(rng: &mut SmallRng) -> Vec<Constraint> {
    let (hostname, rack) = ("hostname".to_owned(), "rack".to_owned());
    match rng.random_range(0..8) {
        0 => vec![Constraint::Unique { attribute: hostname }],
        1 => vec![Constraint::Like { attribute: rack, pattern: "*1".to_owned() }],
        2 => vec![Constraint::Spread { attribute: rack }],
        3 => vec![Constraint::Unique { attribute: hostname }, Constraint::Spread { attribute: rack }],
        _ => Vec::new(),
    }
}

fn job_id(number: u32) -> JobId {
    format!("job{number}").parse::<JobId>().expect("a job's name")
}

fn submit(rng: &mut SmallRng, numbers: std::ops::Range<u32>, most: u32) -> Step {
    let task =
        TaskSpec::shell("work").named("work").cpus(Cpus::from_millis(250).expect("cpus")).mem(Bytes::mib(32));
    Step::Submit(JobSpec {
        id: job_id(rng.random_range(numbers)),
        count: rng.random_range(1..most),
        retries: rng.random_range(0..4),
        backoff: Duration::from_secs(2),
        timeout: Some(Duration::from_secs(90)),
        parallelism: None,
        fail_fast: rng.random_bool(0.5),
        gang: None,
        task,
    })
}
