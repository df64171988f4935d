//! MultiFrameworkAllocations: 554 frameworks of three kinds want 19,500 tasks on 80 large agents. Mesos stalls at 5,132: its
//! frameworks that have all they want are offered everything again in each round.

use std::time::Duration;

use anyhow::Result;
use divvy_master::kernel::Input;
use divvy_proto::demand::{Demand, DemandShape};
use divvy_proto::resources::Resources;
use divvy_proto::scheduler::OfferInfo;

use crate::cluster::Cluster;
use crate::figures::{Book, Size, Spent, micros, size};
use crate::{resources, tasks};

/// How long frameworks take to answer. There is no interval between allocations: the next one follows at once.
const ANSWER: Duration = Duration::from_millis(10);

/// One kind of framework.
struct Kind {
    count: usize,
    /// Each has a role of its own, or all share one.
    role: &'static str,
    shared: bool,
    tasks: u32,
    per_offer: u32,
    shape: &'static str,
}

const KINDS: [Kind; 3] = [
    Kind {
        count: 4,
        role: "roleA",
        shared: false,
        tasks: 4000,
        per_offer: 100,
        shape: "cpus=0.07;mem=400MiB",
    },
    Kind { count: 500, role: "roleB", shared: true, tasks: 5, per_offer: 1, shape: "cpus=0.1;mem=4000MiB" },
    Kind { count: 50, role: "roleC", shared: false, tasks: 20, per_offer: 5, shape: "cpus=1;mem=1000MiB" },
];

/// What a framework still wants.
struct Want {
    shape: Resources,
    left: u32,
    per_offer: u32,
}

struct Run {
    cluster: Cluster,
    wants: Vec<Want>,
    launched: u64,
    wanted: u64,
    spent: Vec<Spent>,
}

impl Run {
    /// One in `of` of everything, so that a quick run is one.
    fn new(of: usize) -> Result<Self> {
        let mut cluster = Cluster::new();
        let mut wants = Vec::new();
        let mut subscriptions = Vec::new();
        for kind in KINDS {
            for number in 0..kind.count.div_ceil(of) {
                let role = if kind.shared { kind.role.to_owned() } else { format!("{}-{number}", kind.role) };
                subscriptions.push(cluster.subscribe(&role, &[])?);
                let tasks = kind.tasks.div_ceil(u32::try_from(of)?);
                wants.push(Want { shape: resources(kind.shape)?, left: tasks, per_offer: kind.per_offer });
            }
        }
        cluster.turn(subscriptions)?;
        let wanted = wants.iter().map(|want| u64::from(want.left)).sum();
        Ok(Self { cluster, wants, launched: 0, wanted, spent: Vec::new() })
    }

    fn add_agents(&mut self, count: usize) -> Result<()> {
        let spent = self.cluster.add_agents(count, &resources("cpus=64;mem=488000MiB")?)?;
        self.spent.push(spent);
        Ok(())
    }

    /// Launches what an offer has room for, of what is wanted and may be taken at once.
    fn answer(&mut self, framework: usize, offer: &OfferInfo, most: u32) -> Result<Option<Input>> {
        let (mut rest, mut launched) = (offer.resources.clone(), Vec::new());
        let want = &mut self.wants[framework];
        while want.left > 0
            && launched.len() < most as usize
            && let Some(less) = rest.checked_sub(&want.shape)
        {
            rest = less;
            want.left -= 1;
            launched.push(tasks::task(&format!("t{}", want.left), &want.shape)?);
        }
        self.launched += launched.len() as u64;
        if launched.is_empty() {
            return Ok(None);
        }
        self.cluster.accept(framework, offer, launched).map(Some)
    }

    /// Everybody answers all offers; what is not used is declined. Then comes the next allocation.
    fn round(&mut self, most: impl Fn(&Want, &OfferInfo) -> u32) -> Result<()> {
        let mut calls = Vec::new();
        for framework in 0..self.wants.len() {
            let mut unused = Vec::new();
            for offer in std::mem::take(&mut self.cluster.frameworks[framework].offers) {
                let most = most(&self.wants[framework], &offer);
                match self.answer(framework, &offer, most)? {
                    Some(call) => calls.push(call),
                    None => unused.push(offer.id),
                }
            }
            if !unused.is_empty() {
                let filters = Default::default();
                let body = divvy_proto::scheduler::CallBody::Decline { offers: unused, filters };
                calls.push(self.cluster.call(framework, body)?);
            }
        }
        self.spent.push(self.cluster.turn(calls)?);
        self.cluster.now = self.cluster.now + ANSWER;
        Ok(())
    }
}

/// How large it is, for the report.
fn shown(run: &Run) -> Size {
    size(run.cluster.agents.len(), run.cluster.frameworks.len(), 54)
}

/// Everybody says what it wants.
pub fn with_demand(book: &mut Book, of: usize) -> Result<()> {
    let scenario = "MultiFrameworkAllocations";
    let mut run = Run::new(of)?;
    let mut calls = Vec::new();
    for at in 0..run.wants.len() {
        let want = &run.wants[at];
        let shape = DemandShape {
            name: "task".to_owned(),
            resources: want.shape.clone(),
            ports: 0,
            count: want.left,
            constraint: None,
            preference: Default::default(),
        };
        calls.push(run.cluster.demand(at, Demand { shapes: vec![shape], gang: None })?);
    }
    run.spent.push(run.cluster.turn(calls)?);
    run.add_agents(80_usize.div_ceil(of))?;
    let mut rounds = 0;
    while run.launched < run.wanted && rounds < 1000 {
        rounds += 1;
        run.round(|want, offer| offer.demand.as_ref().map_or(want.per_offer, |demand| demand.count))?;
    }
    report(book, scenario, &run, "with demand", rounds, 100_000.0)
}

/// Nobody says anything but by declining.
pub fn classic(book: &mut Book, of: usize) -> Result<()> {
    let scenario = "MultiFrameworkAllocations";
    let mut run = Run::new(of)?;
    run.add_agents(80_usize.div_ceil(of))?;
    let mut rounds = 0;
    while run.launched < run.wanted && rounds < 1000 {
        rounds += 1;
        run.round(|want, _| want.per_offer)?;
    }
    report(book, scenario, &run, "classic", rounds, f64::INFINITY)
}

fn report(book: &mut Book, scenario: &str, run: &Run, how: &str, rounds: u32, target_us: f64) -> Result<()> {
    let size = shown(run);
    let spent: Spent = run.spent.iter().copied().sum();
    book.record(scenario, size, &format!("{how}: all rounds"), run.launched, &[spent]);
    book.fact(
        scenario,
        size,
        &format!("{how}: tasks placed (Mesos: 5132)"),
        run.launched as f64,
        Some(run.wanted as f64),
    );
    book.fact(scenario, size, &format!("{how}: rounds (Mesos never ends)"), f64::from(rounds), Some(300.0));
    if target_us.is_finite() {
        book.fact(scenario, size, &format!("{how}: ms"), micros(spent.cpu) / 1e3, Some(target_us / 1e3));
    }
    Ok(())
}
