//! The explanation and the allocator agree, on random clusters: every agent is counted once, nothing that waits fits anywhere,
//! and whoever removes what is said to be in the way is offered what waited.

use divvy_proto::api::{Exclusion, Funnel, Nearest, Question};
use divvy_proto::demand::{Demand, DemandShape, Gang};
use divvy_proto::quota::Quota;
use divvy_proto::resources::{Resources, Shortage};
use divvy_proto::scheduler::{CallBody, Filters};
use divvy_proto::task::TaskState;
use proptest::prelude::*;

use super::{in_rack, quiet, reserve, shape};
use crate::kernel::testing::*;
use crate::kernel::*;

const ROLES: [&str; 4] = ["a", "a/x", "b", "*"];
const CONSTRAINTS: [&str; 4] = [
    "rack == \"r1\"",
    "rack != \"r1\" && hostname != \"host-0\"",
    "hostname == \"host-1\" || rack == \"r2\"",
    "exists(rack)",
];

#[derive(Debug, Clone)]
struct Machine {
    cpus: u32,
    mem: u32,
    rack: u32,
    /// For which role how many cpus of it are reserved.
    reserved: Option<(usize, u32)>,
}

#[derive(Debug, Clone)]
struct Wanted {
    cpus: u32,
    mem: u32,
    count: u32,
    constraint: Option<usize>,
}

#[derive(Debug, Clone)]
struct Asker {
    role: usize,
    /// Without shapes it takes anything.
    shapes: Vec<Wanted>,
    gang: bool,
}

#[derive(Debug, Clone)]
struct Promise {
    role: usize,
    guarantee: Option<u32>,
    limit: Option<u32>,
}

#[derive(Debug, Clone)]
enum Step {
    Launch { who: usize, cpus: u32 },
    Decline { who: usize, refuse: u64 },
    Drain(usize),
    Disconnect(usize),
    Connect(usize),
    Advance(u64),
    Ask(usize),
}

#[derive(Debug, Clone)]
struct Scene {
    machines: Vec<Machine>,
    askers: Vec<Asker>,
    promises: Vec<Promise>,
    steps: Vec<Step>,
}

fn machine() -> impl Strategy<Value = Machine> {
    let reserved = prop::option::weighted(0.3, (0..3_usize, 1..4_u32));
    (1..9_u32, 1..9_u32, 0..3_u32, reserved).prop_map(|(cpus, mem, rack, reserved)| Machine {
        cpus,
        mem,
        rack,
        reserved,
    })
}

fn asker() -> impl Strategy<Value = Asker> {
    let constraint = prop::option::weighted(0.4, 0..CONSTRAINTS.len());
    let wanted = (1..7_u32, 1..7_u32, 1..4_u32, constraint)
        .prop_map(|(cpus, mem, count, constraint)| Wanted { cpus, mem, count, constraint });
    let shapes = prop_oneof![3 => prop::collection::vec(wanted, 1..3), 1 => Just(Vec::new())];
    (0..ROLES.len(), shapes, prop::bool::weighted(0.15)).prop_map(|(role, shapes, gang)| Asker {
        role,
        shapes,
        gang,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..5_usize, 1..4_u32).prop_map(|(who, cpus)| Step::Launch { who, cpus }),
        3 => (0..5_usize, 0..60_u64).prop_map(|(who, refuse)| Step::Decline { who, refuse }),
        1 => (0..5_usize).prop_map(Step::Drain),
        1 => (0..5_usize).prop_map(Step::Disconnect),
        1 => (0..5_usize).prop_map(Step::Connect),
        2 => (0..50_u64).prop_map(Step::Advance),
        1 => (0..5_usize).prop_map(Step::Ask),
    ]
}

fn scene() -> impl Strategy<Value = Scene> {
    let promise = (0..ROLES.len(), prop::option::of(1..6_u32), prop::option::of(2..10_u32))
        .prop_map(|(role, guarantee, limit)| Promise { role, guarantee, limit });
    let machines = prop::collection::vec(machine(), 0..5);
    let askers = prop::collection::vec(asker(), 1..5);
    (machines, askers, prop::collection::vec(promise, 0..3), prop::collection::vec(step(), 0..12))
        .prop_map(|(machines, askers, promises, steps)| Scene { machines, askers, promises, steps })
}

impl Asker {
    fn demand(&self) -> Demand {
        let shapes = self.shapes.iter().enumerate().map(|(nth, wanted)| DemandShape {
            constraint: wanted.constraint.map(|at| CONSTRAINTS[at].parse().unwrap()),
            ..shape(&format!("s{nth}"), &size(wanted.cpus, wanted.mem), wanted.count)
        });
        let gang = self.gang.then_some(Gang { hold: secs(20) });
        Demand { shapes: shapes.collect(), gang }
    }

    fn ask(&self, cluster: &mut Cluster, framework: FrameworkHandle) {
        let role = ROLES[self.role].parse().unwrap();
        match self.shapes.is_empty() {
            true => cluster.call(framework, CallBody::Revive { roles: vec![] }),
            false => cluster.call(framework, CallBody::Demand { role, demand: self.demand() }),
        }
    }
}

fn size(cpus: u32, mem: u32) -> String {
    format!("cpus={cpus};mem={mem}GiB")
}

struct Play {
    cluster: Cluster,
    agents: Vec<AgentHandle>,
    askers: Vec<(FrameworkHandle, Asker)>,
    launched: u32,
}

impl Play {
    fn new(scene: &Scene) -> Self {
        let mut cluster = Cluster::new();
        let mut askers = Vec::new();
        for (nth, asker) in scene.askers.iter().enumerate() {
            let framework = quiet(&mut cluster, &format!("f{nth}"), ROLES[asker.role]);
            askers.push((framework, asker.clone()));
        }
        scene.promises.iter().for_each(|promise| promise.make(&mut cluster));
        let agents = scene.machines.iter().map(|machine| {
            cluster.agent_that(&size(machine.cpus, machine.mem), |info| {
                in_rack(&format!("r{}", machine.rack))(info);
                if let Some((role, cpus)) = machine.reserved {
                    reserve(info, ROLES[role], &format!("cpus={}", cpus.min(machine.cpus)));
                }
            })
        });
        let agents = agents.collect();
        for (framework, asker) in &askers {
            asker.ask(&mut cluster, *framework);
        }
        Self { cluster, agents, askers, launched: 0 }
    }

    fn take(&mut self, step: &Step) -> Option<()> {
        let cluster = &mut self.cluster;
        match step {
            Step::Launch { who, cpus } => {
                let (framework, _) = self.askers.get(*who)?;
                let offer = *cluster.held(*framework).first()?;
                self.launched += 1;
                let id = format!("t{}", self.launched);
                let filters = Filters { refuse: secs(7) };
                cluster.accept(*framework, vec![offer], &[(&id, &format!("cpus={cpus};mem=1GiB"))], filters);
            }
            Step::Decline { who, refuse } => {
                let (framework, _) = self.askers.get(*who)?;
                let offers: Vec<OfferId> = cluster.held(*framework).into_iter().take(1).collect();
                cluster.accept(*framework, offers, &[], Filters { refuse: secs(*refuse) });
            }
            Step::Drain(which) => cluster.drain(*self.agents.get(*which)?, None, false),
            Step::Disconnect(which) => cluster.disconnect(*self.agents.get(*which)?),
            Step::Connect(which) => cluster.connect(*self.agents.get(*which)?),
            Step::Advance(time) => cluster.advance(secs(*time)),
            Step::Ask(who) => {
                let (framework, asker) = self.askers.get(*who)?.clone();
                asker.ask(cluster, framework);
            }
        }
        Some(())
    }

    fn funnels(&self, framework: FrameworkHandle) -> Vec<Funnel> {
        let question = Question::Framework(self.cluster.framework_id(framework));
        self.cluster.kernel.explain(self.cluster.now, &question).unwrap().funnels
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        self.cluster.advance(secs(0));
        for (framework, asker) in &self.askers {
            for funnel in self.funnels(*framework) {
                let excluded: usize = funnel.stages.iter().map(|stage| stage.agents).sum();
                prop_assert_eq!(excluded + funnel.fits, self.agents.len(), "{:#?}", funnel);
                prop_assert!(
                    funnel.fits == 0 || asker.gang,
                    "the allocator would have offered it: {:#?}",
                    funnel
                );
                prop_assert_eq!(funnel.nearest.is_some(), !self.agents.is_empty());
                prop_assert!(!funnel.hint.is_empty());
            }
        }
        Ok(())
    }

    /// Removes what is in the way on the agent that comes nearest, until the framework is offered something. Nobody else wants
    /// anything any more, so that nobody takes it instead.
    fn follow(&mut self, who: usize) -> Result<(), TestCaseError> {
        let (framework, mut asker) = self.askers[who].clone();
        asker.gang = false;
        for (other, _) in self.askers.iter().filter(|(other, _)| *other != framework) {
            self.cluster.call(*other, CallBody::Suppress { roles: vec![] });
        }
        asker.ask(&mut self.cluster, framework);
        let mut followed = Vec::new();
        for _ in 0..12 {
            let funnel = self.funnels(framework).into_iter().next();
            let Some((funnel, nearest)) = funnel.and_then(|f| Some((f.clone(), f.nearest?))) else {
                return Ok(());
            };
            let before = self.cluster.held(framework);
            self.fix(framework, &mut asker, &funnel, &nearest);
            followed.push(nearest);
            if self.cluster.held(framework).iter().any(|offer| !before.contains(offer)) {
                return Ok(());
            }
        }
        prop_assert!(false, "what is said to be in the way is not all: {:#?}", followed);
        Ok(())
    }

    fn fix(&mut self, framework: FrameworkHandle, asker: &mut Asker, funnel: &Funnel, nearest: &Nearest) {
        let is_it = |agent: &&AgentHandle| self.cluster.agent_id(**agent) == nearest.agent_id;
        let agent = *self.agents.iter().find(is_it).unwrap();
        let cluster = &mut self.cluster;
        // What was kept for a demand that is gone is offered in the next turn.
        let Some(reason) = nearest.reason.clone() else { return cluster.advance(secs(0)) };
        match reason {
            Exclusion::NotActive => cluster.connect(agent),
            Exclusion::Draining => cluster.operator(OperatorRequest::Reactivate(nearest.agent_id.clone())),
            Exclusion::Constraint { .. } => {
                asker.shapes.iter_mut().for_each(|wanted| wanted.constraint = None);
                asker.ask(cluster, framework);
            }
            Exclusion::Filter { .. } => asker.ask(cluster, framework),
            Exclusion::Reservation { .. } => cluster.change(agent, |info| info.reserved.clear()),
            Exclusion::TooSmall { .. } | Exclusion::HeldByOthers { .. } => {
                let lacks = lacks(funnel, nearest);
                cluster.change(agent, |info| info.resources = info.resources.checked_add(&lacks).unwrap());
            }
            Exclusion::HeldForWaiting { .. } => wait(cluster, agent),
            Exclusion::Limit { role, .. } => no_quota(cluster, role),
            Exclusion::Headroom { roles } => roles.into_iter().for_each(|role| no_quota(cluster, role)),
        }
    }
}

impl Promise {
    fn make(&self, cluster: &mut Cluster) {
        let amount = |cpus: u32| format!("cpus={cpus}").parse().unwrap();
        let limit = self.limit.map(|limit| limit.max(self.guarantee.unwrap_or(0)));
        let quota = Quota {
            guarantee: self.guarantee.map(amount).unwrap_or_default(),
            limit: limit.map(amount).unwrap_or_default(),
            ..Quota::default()
        };
        super::quota(cluster, ROLES[self.role], quota);
    }
}

/// Time passes, and what was told to end on the agent does.
fn wait(cluster: &mut Cluster, agent: AgentHandle) {
    cluster.advance(secs(60));
    for task in cluster.agents_tasks(agent) {
        let key = (task.framework_id, task.info.id);
        if cluster.kernel.task_ref(&key).is_some_and(preempt::is_ending) {
            cluster.report(agent, key.1.as_str(), TaskState::Killed);
        }
    }
}

fn no_quota(cluster: &mut Cluster, role: divvy_proto::role::RolePath) {
    cluster.operator(OperatorRequest::SetQuota { role, quota: None, force: true });
}

/// What the agent that comes nearest would need beside what it has.
fn lacks(funnel: &Funnel, nearest: &Nearest) -> Resources {
    let parse = |shortage: &Shortage, text: &str| -> Resources {
        format!("{}={text}", shortage.dimension).parse().unwrap()
    };
    let one = |shortage: &Shortage| {
        parse(shortage, &shortage.wanted).saturating_sub(&parse(shortage, &shortage.available))
    };
    match funnel.shape {
        Some(_) => {
            nearest.missing.iter().map(one).fold(Resources::new(), |all, one| all.checked_add(&one).unwrap())
        }
        None => size(1, 1).parse().unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn every_agent_is_counted_once_and_nothing_that_waits_fits(scene in scene()) {
        let mut play = Play::new(&scene);
        play.check()?;
        for step in &scene.steps {
            let _ = play.take(step);
            play.check()?;
        }
    }

    #[test]
    fn whoever_removes_what_is_in_the_way_is_offered_what_waited(scene in scene(), who in 0..4_usize) {
        let mut play = Play::new(&scene);
        for step in &scene.steps {
            let _ = play.take(step);
        }
        play.follow(who % play.askers.len())?;
        play.check()?;
    }
}
