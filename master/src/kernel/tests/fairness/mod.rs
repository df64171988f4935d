//! Fairness as theorems: what the kernel gives, against an independent solver and against the four properties of DRF (Ghodsi
//! et al., NSDI 2011, section 3). All of it through offers, as frameworks see it, and within one task, as work is indivisible.

mod theorems;
mod water;

use divvy_proto::demand::{Demand, DemandShape, Preference};
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

    /// Lets the kernel divide the cluster: everybody states a demand without end, all machines come in one turn, and then
    /// work ends and begins, agent by agent, until nothing moves any more. Says how many tasks each has.
    fn divided_by_the_kernel(&self) -> Vec<u32> {
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
        let mut counts = Vec::new();
        for _ in 0..50 {
            let before = std::mem::replace(&mut counts, tasks_on_offer(&cluster, &frameworks));
            if before == counts {
                break;
            }
            work_ends_and_begins(&mut cluster, &frameworks);
        }
        counts
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

fn tasks_on_offer(cluster: &Cluster, frameworks: &[FrameworkHandle]) -> Vec<u32> {
    let count = |framework: &FrameworkHandle| {
        let offers = cluster.frameworks[framework.0].offers.values();
        offers.map(|offer| offer.demand.as_ref().map_or(0, |demand| demand.count)).sum()
    };
    frameworks.iter().map(count).collect()
}

/// Each framework gives back what it has, agent by agent, and takes what it is then given.
fn work_ends_and_begins(cluster: &mut Cluster, frameworks: &[FrameworkHandle]) {
    for framework in frameworks {
        for offer in cluster.held(*framework) {
            cluster.frameworks[framework.0].offers.remove(&offer);
            cluster.call(*framework, CallBody::Decline { offers: vec![offer], filters: NO_FILTER });
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

/// Each framework is within one task of its level. Where weights differ, one task of the lightest is worth as many of the
/// heaviest as it weighs; and water fills each further machine to the brim, where tasks leave room for a part of one.
fn assert_level(scene: &Scene) -> Result<(), TestCaseError> {
    let (given, level) = (scene.divided_by_the_kernel(), scene.pond().tasks());
    let weights = scene.weights();
    let heaviest = f64::from(weights.iter().map(|(_, weight)| *weight).max().unwrap_or(1));
    let further = f64::from(u32::try_from(scene.machines.len()).unwrap() - 1);
    for (nth, (given, level)) in given.iter().zip(&level).enumerate() {
        let off = (f64::from(*given) - level).abs();
        prop_assert!(
            off <= heaviest + further,
            "framework {nth} has {given} tasks, water stands at {level}: {scene:?}"
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn weighted_shares_in_a_tree_are_where_water_would_stand(scene in scenes(1..4)) {
        assert_level(&scene.pooled())?;
    }

    /// Whoever may run on few machines only is not pushed off them by those who may run elsewhere. (In a tree this holds for
    /// the shares of siblings at the top: to level out below, frameworks of other branches would have to move.)
    #[test]
    fn weighted_shares_under_constraints_are_where_water_would_stand(scene in scenes(1..2)) {
        assert_level(&scene.flat())?;
    }
}
