//! Fairness as theorems: what the kernel gives, against an independent solver and against the four properties of DRF (Ghodsi
//! et al., NSDI 2011, section 3). All of it through offers, as frameworks see it, and as near as indivisible work comes to it.

mod theorems;
mod water;

use std::collections::BTreeMap;

use divvy_proto::demand::{Demand, DemandShape, Preference};
use divvy_proto::ids::{Hostname, OfferId};
use divvy_proto::predicate::Predicate;
use divvy_proto::quota::Weight;
use divvy_proto::resources::Resources;
use divvy_proto::scheduler::CallBody;
use proptest::prelude::*;

use crate::kernel::testing::*;
use crate::kernel::*;
use water::{Pond, Taker};

/// One framework: as many tasks of this shape as there can be, on these machines.
#[derive(Debug, Clone)]
struct Wish {
    /// cpus in thousandths, mem in MiB.
    task: [u32; 2],
    machines: Vec<usize>,
    group: usize,
    weight: u32,
}

/// A cluster and all who want something of it.
#[derive(Debug, Clone)]
struct Scene {
    /// cpus in thousandths, mem in MiB.
    machines: Vec<[u32; 2]>,
    wishes: Vec<Wish>,
    /// Weights of the groups; each group is a role, each wish a role below it.
    groups: Vec<u32>,
}

/// What came of a scene.
#[derive(Debug, Default, PartialEq)]
struct Division {
    /// How many tasks each wish has.
    tasks: Vec<u32>,
    /// What is free on each machine.
    left: Vec<[u32; 2]>,
}

fn resources([cpus, mem]: [u32; 2]) -> Resources {
    format!("cpus={}.{:03};mem={mem}MiB", cpus / 1000, cpus % 1000).parse().unwrap()
}

impl Scene {
    fn role(&self, nth: usize) -> String {
        format!("g{}/w{nth}", self.wishes[nth].group)
    }

    /// The same for the solver.
    fn pond(&self) -> Pond {
        let wide = |amounts: [u32; 2]| amounts.map(f64::from).to_vec();
        let taker = |wish: &Wish| Taker {
            task: wide(wish.task),
            machines: wish.machines.clone(),
            group: wish.group,
            weight: f64::from(wish.weight),
        };
        Pond {
            machines: self.machines.iter().copied().map(wide).collect(),
            takers: self.wishes.iter().map(taker).collect(),
            groups: self.groups.iter().copied().map(f64::from).collect(),
        }
    }

    /// Everybody needs more of the cpus than of the memory of the cluster. Then a group's share is the sum of its members'
    /// shares, with which the solver works.
    fn is_dominated_by_cpus(&self) -> bool {
        let total = |nth: usize| self.machines.iter().map(|machine| u64::from(machine[nth])).sum::<u64>();
        let [cpus, mem] = [total(0), total(1)];
        self.wishes.iter().all(|wish| u64::from(wish.task[1]) * cpus < u64::from(wish.task[0]) * mem)
    }

    fn weights(&self) -> Vec<(String, u32)> {
        let groups = self.groups.iter().enumerate().map(|(nth, weight)| (format!("g{nth}"), *weight));
        let wishes = self.wishes.iter().enumerate().map(|(nth, wish)| (self.role(nth), wish.weight));
        groups.chain(wishes).collect()
    }

    /// Lets the kernel divide the cluster: everybody states a demand without end, and all machines come in one turn.
    fn divided_in_a_turn(&self) -> (Division, Cluster, Vec<FrameworkHandle>) {
        let mut cluster = Cluster::new();
        for (role, weight) in self.weights() {
            let weight = Some(Weight::from_thousandths(weight * 1000).unwrap());
            cluster.operator(OperatorRequest::SetWeight { role: role.parse().unwrap(), weight });
        }
        let frameworks: Vec<_> = (0..self.wishes.len())
            .map(|nth| cluster.framework_in(&format!("f{nth}"), &[&self.role(nth)]))
            .collect();
        for (nth, framework) in frameworks.iter().enumerate() {
            cluster.call(*framework, self.demand(nth));
        }
        cluster.agents_together(self.machines.iter().map(|machine| resources(*machine)).collect());
        (self.on_offer(&cluster, &frameworks), cluster, frameworks)
    }

    /// The same after work has ended and begun, machine by machine, until nothing moves any more.
    fn divided_over_time(&self) -> Division {
        let (mut division, mut cluster, frameworks) = self.divided_in_a_turn();
        for _ in 0..50 {
            work_ends_and_begins(&mut cluster, &frameworks);
            let before = std::mem::replace(&mut division, self.on_offer(&cluster, &frameworks));
            if before == division {
                break;
            }
        }
        division
    }

    fn on_offer(&self, cluster: &Cluster, frameworks: &[FrameworkHandle]) -> Division {
        let mut division = Division { tasks: vec![0; frameworks.len()], left: self.machines.clone() };
        for (nth, framework) in frameworks.iter().enumerate() {
            for offer in cluster.frameworks[framework.0].offers.values() {
                let count = offer.demand.as_ref().map_or(0, |demand| demand.count);
                let machine = self.machine_called(offer.hostname.as_str());
                division.tasks[nth] += count;
                for (left, need) in division.left[machine].iter_mut().zip(self.wishes[nth].task) {
                    *left -= need * count;
                }
            }
        }
        division
    }

    fn machine_called(&self, hostname: &str) -> usize {
        (0..self.machines.len()).find(|nth| hostname == format!("host-{nth}")).unwrap()
    }

    fn demand(&self, nth: usize) -> CallBody {
        let wish = &self.wishes[nth];
        let hosts: Vec<String> = wish.machines.iter().map(|nth| format!("\"host-{nth}\"")).collect();
        let constraint: Predicate = format!("hostname in [{}]", hosts.join(", ")).parse().unwrap();
        let shape = DemandShape {
            name: "task".to_owned(),
            resources: resources(wish.task),
            ports: 0,
            count: 100_000,
            constraint: Some(constraint),
            preference: Preference::None,
        };
        let demand = Demand { shapes: vec![shape], gang: None };
        CallBody::Demand { role: self.role(nth).parse().unwrap(), demand }
    }
}

/// Each framework in turn gives back what it has, machine by machine, and takes what it is then given.
fn work_ends_and_begins(cluster: &mut Cluster, frameworks: &[FrameworkHandle]) {
    for framework in frameworks {
        let mut machines: BTreeMap<Hostname, Vec<OfferId>> = BTreeMap::new();
        for offer in cluster.offers_of(*framework) {
            machines.entry(offer.hostname).or_default().push(offer.id);
        }
        for offers in machines.into_values() {
            cluster.frameworks[framework.0].offers.retain(|id, _| !offers.contains(id));
            cluster.call(*framework, CallBody::Decline { offers, filters: NO_FILTER });
        }
    }
}

/// Tasks are small against machines.
fn scenes(groups: std::ops::Range<usize>) -> impl Strategy<Value = Scene> {
    let machines = prop::collection::vec((20_000..40_000_u32, 15_000..80_000_u32), 1..4);
    let scenes = (machines, prop::collection::vec(1..4_u32, groups)).prop_flat_map(|(machines, groups)| {
        let (count, kinds) = (machines.len(), groups.len());
        let hosts = prop::collection::btree_set(0..count, 1..=count);
        let wish = (900..1100_u32, 100..1500_u32, hosts, 0..kinds, 1..4_u32);
        let wishes = prop::collection::vec(wish, 2..6);
        wishes.prop_map(move |wishes| Scene {
            machines: machines.iter().map(|(cpus, mem)| [*cpus, *mem]).collect(),
            groups: groups.clone(),
            wishes: wishes
                .into_iter()
                .map(|(cpus, mem, machines, group, weight)| Wish {
                    task: [cpus, mem],
                    machines: machines.into_iter().collect(),
                    group,
                    weight,
                })
                .collect(),
        })
    });
    scenes.prop_filter("a group's share is the sum of its members'", Scene::is_dominated_by_cpus)
}

impl Scene {
    /// By how many of its tasks a framework may be behind in one pool. When a task does not fit any more for the first time,
    /// each sibling is ahead of it by one task at most, in proportion to the weights; so is each sibling of its group ahead of
    /// its group; and less than a task is free.
    fn behind_in_a_turn(&self, nth: usize) -> f64 {
        let group = self.wishes[nth].group;
        let behind = |weight: u32, weights: Vec<u32>, above: f64| {
            let others = f64::from(u32::try_from(weights.len()).unwrap() - 1);
            f64::from(weight) / f64::from(weights.iter().sum::<u32>()) * (above + others)
        };
        let groups =
            (0..self.groups.len()).filter(|group| self.wishes.iter().any(|wish| wish.group == *group));
        let of_group = behind(self.groups[group], groups.map(|group| self.groups[group]).collect(), 1.0);
        let siblings =
            self.wishes.iter().filter(|wish| wish.group == group).map(|wish| wish.weight).collect();
        self.largest_task_in_tasks_of(nth) * behind(self.wishes[nth].weight, siblings, of_group)
    }

    /// The same among siblings over time: one that gives back what it has takes, beside its own, what is too small for the
    /// others, and each further machine is another step over which somebody may be ahead.
    fn behind_over_time(&self, nth: usize) -> f64 {
        let further = f64::from(u32::try_from(self.machines.len()).unwrap() - 1);
        let heaviest = f64::from(self.groups.iter().copied().max().unwrap_or(1));
        self.largest_task_in_tasks_of(nth) * (heaviest + 2.0 * further)
    }

    fn largest_task_in_tasks_of(&self, nth: usize) -> f64 {
        let largest = self.wishes.iter().map(|wish| wish.task[0]).max().unwrap_or_default();
        f64::from(largest) / f64::from(self.wishes[nth].task[0])
    }

    /// Only cpus can run short. With two of them, who runs where decides how much runs at all, and that is not a question of
    /// fairness.
    fn with_memory_for_all(mut self) -> Self {
        self.machines.iter_mut().for_each(|machine| machine[1] = 2 * machine[0]);
        self
    }

    /// One pool for all, so that it does not matter what runs where.
    fn pooled(mut self) -> Self {
        let sum = |nth: usize| self.machines.iter().map(|machine| machine[nth]).sum();
        self.machines = vec![[sum(0), sum(1)]];
        self.wishes.iter_mut().for_each(|wish| wish.machines = vec![0]);
        self
    }

    /// Everybody is on its own.
    fn flat(mut self) -> Self {
        self.groups = self.wishes.iter().map(|wish| wish.weight).collect();
        self.wishes.iter_mut().enumerate().for_each(|(nth, wish)| (wish.group, wish.weight) = (nth, 1));
        self
    }
}

/// How many tasks fit into a bundle.
fn fit(bundle: [u32; 2], task: [u32; 2]) -> u32 {
    (bundle[0] / task[0]).min(bundle[1] / task[1])
}

/// Nobody stands below its level by more than is allowed to it, and nothing is left that anybody could use. Above its level
/// somebody may stand by what is too small for all others.
fn assert_level(
    scene: &Scene,
    division: &Division,
    allowed: impl Fn(usize) -> f64,
) -> Result<(), TestCaseError> {
    for (nth, (given, level)) in division.tasks.iter().zip(scene.pond().tasks()).enumerate() {
        let behind = level - f64::from(*given);
        prop_assert!(
            behind <= allowed(nth),
            "framework {nth} is {behind} behind of {division:?}, {} allowed: {scene:?}",
            allowed(nth)
        );
    }
    for (nth, wish) in scene.wishes.iter().enumerate() {
        let room = wish.machines.iter().any(|machine| fit(division.left[*machine], wish.task) > 0);
        prop_assert!(!room, "framework {nth} could use what is left, {:?}: {scene:?}", division.left);
    }
    Ok(())
}

/// The second has two tasks more than the others, and more than one above its level: its last takes what is too small for them.
#[test]
fn what_is_too_small_for_all_others_goes_to_whom_it_fits() {
    let wish = |cpus| Wish { task: [cpus, 100], machines: vec![0], group: 0, weight: 1 };
    let scene = Scene {
        machines: vec![[36_234, 64_899]],
        wishes: [946, 936, 981].map(wish).to_vec(),
        groups: vec![1],
    };
    assert_eq!(scene.divided_in_a_turn().0, Division { tasks: vec![12, 14, 12], left: vec![[6, 61_099]] });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn weighted_shares_in_a_tree_are_where_water_would_stand(scene in scenes(1..4)) {
        let scene = scene.pooled();
        assert_level(&scene, &scene.divided_in_a_turn().0, |nth| scene.behind_in_a_turn(nth))?;
    }

    /// Whoever may run on few machines only is not pushed off them by those who may run elsewhere. (In a tree this holds for
    /// the shares of siblings at the top: to level out below, frameworks of other branches would have to move.)
    #[test]
    fn weighted_shares_under_constraints_are_where_water_would_stand(scene in scenes(1..2)) {
        let scene = scene.flat().with_memory_for_all();
        assert_level(&scene, &scene.divided_over_time(), |nth| scene.behind_over_time(nth))?;
    }
}
