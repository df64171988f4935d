//! An independent solver: what weighted, hierarchical, constrained DRF gives to whom if work were divisible. It knows nothing
//! of the kernel: max-min fairness by linear programs, level after level, each lifting the lowest as far as it goes.

use microlp::{ComparisonOp, LinearExpr, OptimizationDirection, Problem, Variable};

/// Below this, two levels are one.
const EPSILON: f64 = 1e-5;

/// Somebody who wants as many tasks of one shape as there can be.
#[derive(Debug, Clone)]
pub(super) struct Taker {
    /// What one task needs, by resource.
    pub(super) task: Vec<f64>,
    /// On which machines a task may run.
    pub(super) machines: Vec<usize>,
    /// In which group of the tree; siblings of a group share what the group gets.
    pub(super) group: usize,
    /// Its weight among its siblings.
    pub(super) weight: f64,
}

/// Who shares what.
#[derive(Debug, Clone)]
pub(super) struct Pond {
    /// What each machine has, by resource.
    pub(super) machines: Vec<Vec<f64>>,
    pub(super) takers: Vec<Taker>,
    /// The weights of the groups among each other.
    pub(super) groups: Vec<f64>,
}

/// Shares that some takers have together: a sum over takers, divided by a weight.
#[derive(Debug, Clone)]
struct Float {
    takers: Vec<usize>,
    weight: f64,
    /// Its level, once it cannot rise any more.
    frozen: Option<f64>,
}

impl Pond {
    /// How many tasks each taker has when the water stands still: the groups level out first, then the takers of each group.
    pub(super) fn tasks(&self) -> Vec<f64> {
        let members = |group| (0..self.takers.len()).filter(|nth| self.takers[*nth].group == group).collect();
        let groups = self.groups.iter().enumerate();
        let groups =
            groups.map(|(group, weight)| Float { takers: members(group), weight: *weight, frozen: None });
        let groups = self.level(groups.collect(), &[]);
        let mut takers = Vec::new();
        for group in &groups {
            let single =
                |nth: &usize| Float { takers: vec![*nth], weight: self.takers[*nth].weight, frozen: None };
            takers.extend(group.takers.iter().map(single));
        }
        // What the groups have is settled; within each, its takers level out.
        let takers = self.level(takers, &groups);
        let mut tasks = vec![0.0; self.takers.len()];
        for float in takers {
            let nth = float.takers[0];
            tasks[nth] = float.frozen.unwrap_or(0.0) * float.weight / self.share_of_a_task(nth);
        }
        tasks
    }

    /// The dominant share of one task.
    pub(super) fn share_of_a_task(&self, taker: usize) -> f64 {
        let total = |resource: usize| self.machines.iter().map(|machine| machine[resource]).sum::<f64>();
        let shares =
            self.takers[taker].task.iter().enumerate().map(|(resource, need)| need / total(resource));
        shares.fold(0.0, f64::max)
    }

    /// Lifts all floats together until one cannot rise, freezes it, and goes on with the others.
    fn level(&self, mut floats: Vec<Float>, settled: &[Float]) -> Vec<Float> {
        while floats.iter().any(|float| float.frozen.is_none()) {
            let rising = |float: &Float| float.frozen.is_none();
            let level = self.highest(&floats, settled, 0.0, &rising);
            let stuck: Vec<usize> = (0..floats.len())
                .filter(|nth| rising(&floats[*nth]))
                .filter(|nth| {
                    let only = &floats[*nth];
                    self.highest(&floats, settled, level, &|float| std::ptr::eq(float, only))
                        < level + EPSILON
                })
                .collect();
            // One at least is stuck; if numerics say otherwise, all are.
            let stuck = if stuck.is_empty() { (0..floats.len()).collect() } else { stuck };
            for nth in stuck {
                floats[nth].frozen.get_or_insert(level);
            }
        }
        floats
    }

    /// How high those that `lift` names can be lifted together, while all others that are not frozen stay above `floor`.
    fn highest(&self, floats: &[Float], settled: &[Float], floor: f64, lift: &dyn Fn(&Float) -> bool) -> f64 {
        let mut problem = Problem::new(OptimizationDirection::Maximize);
        let level = problem.add_var(1.0, (0.0, f64::INFINITY));
        let tasks: Vec<Vec<(usize, Variable)>> = self
            .takers
            .iter()
            .map(|taker| {
                let on = |machine: &usize| (*machine, problem.add_var(0.0, (0.0, f64::INFINITY)));
                taker.machines.iter().map(on).collect()
            })
            .collect();
        self.bound_by_machines(&mut problem, &tasks);
        let share = |float: &Float| {
            let mut sum = LinearExpr::empty();
            for taker in &float.takers {
                let each = self.share_of_a_task(*taker) / float.weight;
                tasks[*taker].iter().for_each(|(_, count)| sum.add(*count, each));
            }
            sum
        };
        for float in floats.iter().chain(settled) {
            let mut sum = share(float);
            match float.frozen {
                Some(frozen) => problem.add_constraint(sum, ComparisonOp::Ge, frozen - EPSILON / 10.0),
                None if lift(float) => {
                    sum.add(level, -1.0);
                    problem.add_constraint(sum, ComparisonOp::Ge, 0.0);
                }
                None => problem.add_constraint(sum, ComparisonOp::Ge, floor - EPSILON / 10.0),
            }
        }
        problem.solve().unwrap().into_solution().unwrap().var_value(level)
    }

    fn bound_by_machines(&self, problem: &mut Problem, tasks: &[Vec<(usize, Variable)>]) {
        for (nth, machine) in self.machines.iter().enumerate() {
            for (resource, capacity) in machine.iter().enumerate() {
                let mut sum = LinearExpr::empty();
                for (taker, counts) in self.takers.iter().zip(tasks) {
                    let here = counts.iter().filter(|(on, _)| *on == nth);
                    here.for_each(|(_, count)| sum.add(*count, taker.task[resource]));
                }
                problem.add_constraint(sum, ComparisonOp::Le, *capacity);
            }
        }
    }
}

/// The solver itself on what can be worked out by hand.
#[test]
fn water_finds_the_levels_of_the_paper_and_of_a_tree() {
    let taker = |task: &[f64], group, weight| Taker { task: task.to_vec(), machines: vec![0], group, weight };
    let paper = Pond {
        machines: vec![vec![9.0, 18.0]],
        takers: vec![taker(&[1.0, 4.0], 0, 1.0), taker(&[3.0, 1.0], 1, 1.0)],
        groups: vec![1.0, 1.0],
    };
    let round =
        |tasks: Vec<f64>| tasks.into_iter().map(|x| (x * 1000.0).round() / 1000.0).collect::<Vec<_>>();
    assert_eq!(round(paper.tasks()), [3.0, 2.0]);

    let one = |group, weight| taker(&[1.0, 1.0], group, weight);
    let tree = Pond {
        machines: vec![vec![24.0, 24.0]],
        takers: vec![one(0, 1.0), one(0, 3.0), one(1, 1.0)],
        groups: vec![2.0, 1.0],
    };
    assert_eq!(round(tree.tasks()), [4.0, 12.0, 8.0]);

    // The first may run on the small machine only, and cannot keep up.
    let mut bound = one(0, 1.0);
    bound.machines = vec![1];
    let mut free = one(1, 1.0);
    free.machines = vec![0, 1];
    let constrained = Pond {
        machines: vec![vec![10.0, 10.0], vec![4.0, 4.0]],
        takers: vec![bound, free],
        groups: vec![1.0, 1.0],
    };
    assert_eq!(round(constrained.tasks()), [4.0, 10.0]);
}
