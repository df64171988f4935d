//! Random histories: whatever happens in whatever order, with the framework dying between any two steps.
//!
//! More of them: `PROPTEST_CASES=10000 cargo test -p divvy-batch histories`.

use std::time::Duration;

use divvy_proto::TaskState;
use proptest::prelude::*;

use super::world::{Fate, World, id};
use crate::planner::job::Job;
use crate::planner::record::Index;
use crate::planner::spec::TryId;
use crate::planner::{JobState, MAX_LOST, Planner};
use divvy_sdk::Scheduler;

#[derive(Debug, Clone)]
enum Step {
    Turn,
    /// One of the tasks that can: starts to run, or ends if it runs.
    Progress(usize, Fate),
    Pass(u64),
    Lose(usize),
    Return(usize),
    DieBeforeCommit,
    Die,
    Cancel(usize),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Succeeds),
        2 => (1..3).prop_map(Fate::Exits),
        1 => Just(Fate::OutOfMemory),
        1 => Just(Fate::Dropped),
        1 => Just(Fate::AgentRestarts),
        1 => Just(Fate::KilledByOperator),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Turn),
        10 => (any::<usize>(), fate()).prop_map(|(which, fate)| Step::Progress(which, fate)),
        3 => (1_u64..70).prop_map(Step::Pass),
        1 => (1_usize..4).prop_map(Step::Lose),
        1 => (1_usize..4).prop_map(Step::Return),
        2 => Just(Step::DieBeforeCommit),
        2 => Just(Step::Die),
        // Rarely, as little happens afterwards.
        1 => (0_usize..12).prop_map(Step::Cancel),
    ]
}

const JOBS: [&str; 3] = [
    "id = 'a'\ncount = 6\nretries = 2\ntimeout = '50s'\nbackoff = '1s'",
    "id = 'b'\ncount = 4\nretries = 1\nfail_fast = false\nparallelism = 2",
    "id = 'c'\ncount = 3\nretries = 100",
];
const NAMES: [&str; 3] = ["a", "b", "c"];
const RETRIES: [u32; 3] = [2, 1, 100];

impl Step {
    fn happen(self, world: &mut World) {
        match self {
            Step::Turn => world.turn(),
            Step::Progress(which, fate) => {
                let able = world.able();
                if let Some(task) = able.get(which % able.len().max(1)) {
                    match (world.tasks[task].killing, world.tasks[task].state()) {
                        (true, _) => world.ends(task, Fate::KilledByOperator),
                        (false, TaskState::Running) => world.ends(task, fate),
                        _ => world.runs(task),
                    }
                }
            }
            Step::Pass(seconds) => world.now = world.now + Duration::from_secs(seconds),
            Step::Lose(agent) => world.agent_is_lost(agent),
            Step::Return(agent) => world.agent_returns(agent),
            Step::DieBeforeCommit => world.die_before_commit(),
            Step::Die => world.restart(),
            Step::Cancel(which) => {
                if let Some(name) = NAMES.get(which) {
                    let _ = world.cancel(name);
                }
            }
        }
    }
}

/// What is durable is enough: a planner that was restored decides as the one that was there all the time.
fn a_restored_planner_is_the_same(world: &World) {
    let (mut old, mut new) = (world.planner.clone(), Planner::restore(world.store.clone()).unwrap());
    let view = world.view();
    let (a, b) = (old.reconcile(&view, Vec::new()), new.reconcile(&view, Vec::new()));
    assert_eq!((a.kills, a.forget, a.writes, a.wake_at), (b.kills, b.forget, b.writes, b.wake_at));
    for (job, other) in old.jobs.values().zip(new.jobs.values()) {
        assert_eq!(shape(job), shape(other));
        assert_eq!(job, other);
    }
}

/// What can differ, for a message that can be read.
fn shape(job: &Job) -> String {
    let Job { ready, backing_off, replaceable, live, .. } = job;
    let live: Vec<_> = live.keys().collect();
    let index = |(number, index): (&u32, &Index)| {
        let Index { standing, failures, lost, launched, retry_at, timed_out, tries, .. } = index;
        format!(
            "{number}: {standing:?} {failures} {lost} {launched} {retry_at:?} {timed_out:?} {}",
            tries.len()
        )
    };
    let indexes: Vec<String> = job.indexes.iter().map(index).collect();
    format!(
        "{} {indexes:?} ready {ready:?} backing off {backing_off:?} replaceable {replaceable:?} live {live:?}",
        job.state()
    )
}

fn bounds_are_held(world: &World) {
    for (name, retries) in NAMES.into_iter().zip(RETRIES) {
        for index in world.planner.jobs[&id(name)].indexes.values() {
            assert!(index.failures <= retries + 1 && index.lost <= MAX_LOST);
            assert!(index.launched <= retries + 1 + MAX_LOST);
        }
    }
}

/// No more faults: everything that can ends well, agents return, time goes on. All jobs end.
fn heal(world: &mut World) {
    for agent in 1..4 {
        world.agent_returns(agent);
    }
    for _ in 0..200 {
        world.kills_are_done();
        for task in world.able() {
            world.ends(&task, Fate::Succeeds);
        }
        world.turn();
        if NAMES.iter().all(|name| world.status(name).summary.state.has_ended()) {
            return;
        }
        if world.able().is_empty() {
            let next = world.wake_at.expect("somebody waits for something");
            world.now = world.now.max(next);
            world.turn();
        }
    }
    panic!("not all jobs have ended: {:?}", NAMES.map(|name| world.summary(name)));
}

/// Every index succeeded exactly once, unless it or its job failed or was cancelled.
fn the_books_are_right(world: &World) {
    for (name, count) in NAMES.into_iter().zip([6, 4, 3]) {
        let status = world.status(name);
        let counts = status.summary.counts;
        assert_eq!(counts.succeeded + counts.failed + counts.cancelled, count, "{name}");
        match status.summary.state {
            JobState::Succeeded => assert_eq!(counts.succeeded, count, "{name}"),
            JobState::Failed => assert!(counts.failed > 0, "{name}"),
            state => assert_eq!(state, JobState::Cancelled, "{name}"),
        }
        let successes = status.tasks.iter().map(|task| {
            let won = |known: &&crate::planner::Try| known.outcome == crate::planner::Outcome::Succeeded;
            task.tries.iter().filter(won).count()
        });
        assert!(successes.clone().all(|wins| wins <= 1), "{name}");
        assert_eq!(successes.sum::<usize>(), counts.succeeded as usize, "{name}");
    }
    let unique: std::collections::BTreeSet<&TryId> = world.launched.iter().collect();
    assert_eq!(unique.len(), world.launched.len());
}

proptest! {
    #[test]
    fn every_index_ends_exactly_once_whatever_happens(steps in prop::collection::vec(step(), 0..80)) {
        let mut world = World::new(&["cpus=0.3;mem=1GiB", "cpus=0.3;mem=1GiB", "cpus=0.3;mem=1GiB"]);
        for job in JOBS {
            world.submit(job).unwrap();
        }
        for step in steps {
            step.happen(&mut world);
            a_restored_planner_is_the_same(&world);
            bounds_are_held(&world);
        }
        heal(&mut world);
        the_books_are_right(&world);
    }
}
