//! Single events in a large cluster: what one costs, in a turn of its own.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use divvy_proto::resources::Resources;
use divvy_proto::scheduler::OfferInfo;
use divvy_proto::task::TaskState;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::cluster::Cluster;
use crate::figures::{Book, Size};
use crate::{memory, resources, tasks};

/// A full cluster, a task on each agent. One ends; the next offer is decided in the same turn, for one of many who want it.
/// Who gets it launches the next task.
pub fn freed(book: &mut Book, size: Size, samples: usize) -> Result<()> {
    let scenario = "Freed to offered";
    memory::forget_peak();
    let mut cluster = Cluster::new();
    let agent = resources("cpus=4;mem=4GiB")?;
    for number in 0..size.frameworks {
        let subscription = cluster.subscribe(&format!("role{}", number % size.roles), &[])?;
        cluster.turn(vec![subscription])?;
    }
    cluster.add_agents(size.agents, &agent)?;
    let mut holders = fill(&mut cluster, &agent)?;
    book.fact(scenario, size, "MiB at most, resident", memory::peak_mib(), Some(1024.0));

    let (mut ends, mut launches, mut acknowledged) = (Vec::new(), Vec::new(), Vec::new());
    let mut random = SmallRng::seed_from_u64(7);
    for sample in 0..samples {
        let at = random.random_range(0..size.agents);
        let (framework, task) = holders.get(at).cloned().context("an agent without a task")?;
        let mut status = tasks::status(&task, Some(&cluster.agents[at].id), TaskState::Finished, cluster.now);
        status.update_id = Some(format!("u{sample}").parse()?);
        ends.push(cluster.event(cluster.update(at, framework, status.clone()))?);
        let (taker, offer) = take_offer(&mut cluster).context("nobody was offered what was freed")?;
        ensure!(cluster.agent_by_id.get(&offer.agent_id) == Some(&at), "another agent was offered");
        if let Some(call) = cluster.acknowledge(framework, &status)? {
            acknowledged.push(cluster.event(call)?);
        }
        let task = tasks::task(&format!("again-{sample}"), &offer.resources)?;
        holders[at] = (taker, task.id.clone());
        let call = cluster.accept(taker, &offer, vec![task])?;
        launches.push(cluster.event(call)?);
    }
    book.record_latencies(scenario, size, "a task ends: the next offer is decided", &ends)?;
    book.record_latencies(scenario, size, "an end is acknowledged", &acknowledged)?;
    book.record_latencies(scenario, size, "an offer is accepted: the task is sent", &launches)
}

type Holder = (usize, divvy_proto::ids::TaskId);

/// Everybody launches one task on each offer; says who holds which agent.
fn fill(cluster: &mut Cluster, agent: &Resources) -> Result<Vec<Holder>> {
    let nobody = (0, "none".parse()?);
    let (mut holders, mut calls) = (vec![nobody; cluster.agents.len()], Vec::new());
    while let Some((framework, offer)) = take_offer(cluster) {
        let at = *cluster.agent_by_id.get(&offer.agent_id).context("an unknown agent")?;
        let task = tasks::task(&format!("first-{at}"), agent)?;
        *holders.get_mut(at).context("an unknown agent")? = (framework, task.id.clone());
        calls.push(cluster.accept(framework, &offer, vec![task])?);
    }
    // The framework has heard: nothing is left but what comes of it.
    for call in calls {
        cluster.turn(vec![call])?;
    }
    Ok(holders)
}

fn take_offer(cluster: &mut Cluster) -> Option<(usize, OfferInfo)> {
    // Who was offered something last is asked first: most often it is the only one.
    let all = cluster.frameworks.iter_mut().enumerate();
    all.filter_map(|(at, framework)| Some((at, framework.offers.pop()?))).next()
}

/// What the kernel itself takes for each agent, everything offered, and of this bench nothing.
pub fn memory(book: &mut Book, size: Size) -> Result<()> {
    let scenario = "Memory";
    memory::forget_peak();
    let mut cluster = Cluster::new();
    for number in 0..size.frameworks {
        let subscription = cluster.subscribe(&format!("role{}", number % size.roles), &[])?;
        cluster.turn(vec![subscription])?;
    }
    cluster.forget_all_but_the_kernel()?;
    let before = memory::in_use();
    cluster.add_agents(size.agents, &resources("cpus=4;mem=4GiB;disk=4GiB;ports=[31000-32000]")?)?;
    cluster.forget_all_but_the_kernel()?;
    let bytes = memory::in_use() - before;
    let each = bytes as f64 / size.agents as f64;
    book.fact(scenario, size, "bytes an agent, all of it offered", each, Some(2048.0));
    Ok(())
}

/// One framework more, and what it says, while others hold everything.
pub fn one_framework(book: &mut Book, size: Size, samples: usize) -> Result<()> {
    let scenario = "One framework";
    let mut cluster = Cluster::new();
    cluster.add_agents(size.agents, &resources("cpus=24;mem=4GiB;disk=4GiB;ports=[31000-32000]")?)?;
    for number in 0..size.frameworks {
        let subscription = cluster.subscribe(&format!("role{}", number % size.roles), &[])?;
        cluster.turn(vec![subscription])?;
    }
    let (mut added, mut suppressed, mut revived) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..samples {
        let subscription = cluster.subscribe(&format!("role{}", number % size.roles), &[])?;
        added.push(cluster.turn(vec![subscription])?.wall);
        let last = cluster.frameworks.len() - 1;
        let call = cluster.suppress(last)?;
        suppressed.push(cluster.event(call)?);
        let call = cluster.revive(last)?;
        revived.push(cluster.event(call)?);
    }
    record_three(book, scenario, size, "nothing free", [&added, &suppressed, &revived])
}

/// The same while everything is free, and refused by everybody: what the new one is then offered is part of it.
pub fn one_framework_in_a_free_cluster(book: &mut Book, size: Size, samples: usize) -> Result<()> {
    let scenario = "One framework";
    let mut cluster = Cluster::new();
    cluster.add_agents(size.agents, &resources("cpus=24;mem=4GiB;disk=4GiB;ports=[31000-32000]")?)?;
    let (mut suppressed, mut revived, mut silent) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..size.frameworks {
        let subscription = cluster.subscribe(&format!("role{}", number % size.roles), &[])?;
        cluster.turn(vec![subscription])?;
        let (declines, _) = cluster.decline_all(crate::cluster::NEVER)?;
        cluster.turn(declines)?;
    }
    for _ in 0..samples {
        let call = cluster.suppress(0)?;
        suppressed.push(cluster.event(call)?);
        let call = cluster.suppress(0)?;
        silent.push(cluster.event(call)?);
        let call = cluster.revive(0)?;
        revived.push(cluster.event(call)?);
        let (declines, _) = cluster.decline_all(crate::cluster::NEVER)?;
        cluster.turn(declines)?;
    }
    book.record_latencies(scenario, size, "everything free and refused: suppress", &suppressed)?;
    book.record_latencies(scenario, size, "everything free and refused: suppress again", &silent)?;
    book.record_latencies(scenario, size, "everything free and refused: revive, and be offered all", &revived)
}

fn record_three(
    book: &mut Book,
    scenario: &str,
    size: Size,
    when: &str,
    all: [&[Duration]; 3],
) -> Result<()> {
    for (step, times) in ["add", "suppress", "revive"].into_iter().zip(all) {
        book.record_latencies(scenario, size, &format!("{when}: {step}"), times)?;
    }
    Ok(())
}
