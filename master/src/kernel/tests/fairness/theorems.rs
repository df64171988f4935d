//! The four properties by which the paper recommends DRF, for one pool and equal weights. All tasks have one dominant share, so
//! that "one task" means the same to everybody, and need more than half as much of the other resource.

use proptest::prelude::*;

use super::{Scene, Wish, fit};

/// The pool: so many thousandths of a cpu, so many MiB.
const POOL: [u32; 2] = [200_000, 200_000];

/// The dominant need of every task.
const NEED: u32 = 2_000;

/// By so many tasks one may have more than another where the theorem for divisible work says that it has no more: one because
/// somebody is served last, and one because what is left may be too small for all but it. A second fits into no leftover.
const INDIVISIBLE: u32 = 2;

fn scene(tasks: &[[u32; 2]]) -> Scene {
    let wish = |(group, task): (usize, &[u32; 2])| Wish { task: *task, machines: vec![0], group, weight: 1 };
    Scene {
        machines: vec![POOL],
        wishes: tasks.iter().enumerate().map(wish).collect(),
        groups: vec![1; tasks.len()],
    }
}

fn divided(tasks: &[[u32; 2]]) -> Vec<u32> {
    scene(tasks).divided_over_time().tasks
}

fn bundle(count: u32, task: [u32; 2]) -> [u32; 2] {
    task.map(|need| need * count)
}

fn task() -> impl Strategy<Value = [u32; 2]> {
    (NEED / 2 + 1..=NEED, prop::bool::ANY)
        .prop_map(|(other, cpus_dominate)| if cpus_dominate { [NEED, other] } else { [other, NEED] })
}

fn tasks() -> impl Strategy<Value = Vec<[u32; 2]>> {
    prop::collection::vec(task(), 2..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn sharing_incentive_nobody_is_worse_off_than_with_its_part_of_a_split_cluster(tasks in tasks()) {
        let part = POOL.map(|amount| amount / u32::try_from(tasks.len()).unwrap());
        for (given, task) in divided(&tasks).into_iter().zip(&tasks) {
            prop_assert!(given + 1 >= fit(part, *task), "{given} tasks of {task:?} among {tasks:?}");
        }
    }

    #[test]
    fn strategy_proofness_nobody_gains_by_lying_about_what_it_needs(tasks in tasks(), lie in task()) {
        let honest = divided(&tasks)[0];
        let mut claimed = tasks.clone();
        claimed[0] = lie;
        let useful = fit(bundle(divided(&claimed)[0], lie), tasks[0]);
        prop_assert!(useful <= honest + INDIVISIBLE, "{useful} tasks by the lie {lie:?}, {honest} without it: {tasks:?}");
    }

    #[test]
    fn envy_freeness_nobody_would_rather_have_what_another_has(tasks in tasks()) {
        let given = divided(&tasks);
        for (mine, task) in given.iter().zip(&tasks) {
            for (theirs, other) in given.iter().zip(&tasks) {
                let instead = fit(bundle(*theirs, *other), *task);
                prop_assert!(instead <= mine + INDIVISIBLE, "{mine} tasks of {task:?}, but {instead} with {theirs} of {other:?}");
            }
        }
    }

    #[test]
    fn pareto_efficiency_nothing_is_left_that_anybody_could_use(tasks in tasks()) {
        let left = scene(&tasks).divided_over_time().left[0];
        prop_assert!(tasks.iter().all(|task| fit(left, *task) == 0), "{left:?} is left: {tasks:?}");
    }
}
