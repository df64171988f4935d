//! Random histories: updates to good and bad versions, crashes, lost agents, restarts of the planner. The bounds hold at every
//! step (the world checks them), and when the faults stop, what was wanted last comes true.

use std::time::Duration;

use divvy_sdk::proto::ids::TaskId;
use divvy_sdk::proto::task::{Reason, TaskState};
use proptest::prelude::*;

use super::world::{Behaviour, World, app, id};
use crate::api_types::{AppState, DeploymentState};
use crate::planner::spec::{Amount, AppSpec, Floor, UpdatePolicy};

#[derive(Debug, Clone)]
enum Step {
    /// Behaviour 0 crashes, 1 never gets healthy, the rest are good and slow by their number.
    Update {
        behaviour: u64,
        instances: u32,
        policy: UpdatePolicy,
    },
    Scale(u32),
    Restart,
    Crash(prop::sample::Index),
    Cut(usize),
    Mend(usize),
    RestartPlanner,
    Wait(u64),
}

fn policy() -> impl Strategy<Value = UpdatePolicy> {
    let floor = prop_oneof![
        Just(None),
        (1u32..3).prop_map(|n| Some(Floor::MaxUnavailable(Amount::Count(n)))),
        (0u32..=100).prop_map(|n| Some(Floor::MinHealthy(Amount::Percent(n)))),
    ];
    (floor, 0u32..3, 0u64..4).prop_map(|(floor, surge, proof)| UpdatePolicy {
        floor,
        max_surge: Amount::Count(surge),
        min_healthy_time: Duration::from_secs(proof),
        progress_deadline: Duration::from_secs(60),
        ..UpdatePolicy::default()
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u64..6, 0u32..7, policy())
            .prop_map(|(behaviour, instances, policy)| Step::Update { behaviour, instances, policy }),
        2 => (0u32..8).prop_map(Step::Scale),
        1 => Just(Step::Restart),
        3 => any::<prop::sample::Index>().prop_map(Step::Crash),
        1 => (0usize..4).prop_map(Step::Cut),
        1 => (0usize..4).prop_map(Step::Mend),
        1 => Just(Step::RestartPlanner),
        5 => (1u64..20_000).prop_map(Step::Wait),
    ]
}

fn behaviour(number: u64) -> Behaviour {
    match number {
        0 => Behaviour { start: 100, healthy: Some(150), crash: Some(300) },
        1 => Behaviour { start: 100, healthy: None, crash: None },
        slow => Behaviour { start: slow * 400, healthy: Some(slow * 700), crash: None },
    }
}

fn perform(world: &mut World, step: Step) {
    let web = id("web");
    match step {
        Step::Update { behaviour: number, instances, policy } => {
            let program = format!("program-{number}");
            world.behave(&program, behaviour(number));
            let spec = AppSpec { instances, update: policy, ..app(&program) };
            if spec.check().is_ok() {
                world.apply(spec);
            }
        }
        Step::Scale(instances) => {
            if let Ok((spec, _)) = world.planner.spec(&web)
                && spec.update.check(instances).is_ok()
            {
                world.command(|planner, now| planner.scale(&web, instances, now));
            }
        }
        Step::Restart if world.status_of("web").is_some() => {
            world.command(|planner, now| planner.restart(&web, now));
        }
        Step::Restart => {}
        Step::Crash(index) => {
            let running = world.tasks.values().filter(|task| task.state() == TaskState::Running);
            let running: Vec<TaskId> = running.map(|task| task.id().clone()).collect();
            if !running.is_empty() {
                world.crash(index.get(&running), Reason::CommandExited);
            }
        }
        Step::Cut(machine) => world.reach(machine, false),
        Step::Mend(machine) => world.reach(machine, true),
        Step::RestartPlanner => world.restart_planner(),
        Step::Wait(millis) => return world.run(Duration::from_millis(millis)),
    }
    world.run(Duration::from_millis(1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn bounds_hold_always_and_wishes_come_true(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new(4);
        for step in steps {
            perform(&mut world, step);
        }
        for machine in 0..4 {
            world.reach(machine, true);
        }
        world.behave("last", behaviour(2));
        world.apply(AppSpec { instances: 5, ..app("last") });
        world.run(Duration::from_secs(120));
        let (state, deployment, running, healthy, versions) = world.summary();
        prop_assert_eq!((state, deployment, running, healthy), (AppState::Running, DeploymentState::Succeeded, 5, 5));
        prop_assert_eq!(versions.len(), 1);

        // And then there is nothing left to do.
        let (kills, launched) = (world.kills.len(), world.planner.launched);
        world.run(Duration::from_secs(3600));
        prop_assert_eq!((world.kills.len(), world.planner.launched), (kills, launched));
    }
}
