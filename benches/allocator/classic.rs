//! Mesos's own benchmarks of agents and classic offers.

use anyhow::{Context, Result};
use divvy_master::kernel::Input;
use divvy_proto::scheduler::Capability;
use divvy_proto::task::{AgentTask, TaskState};

use crate::cluster::{Cluster, NEVER};
use crate::figures::{Book, Size, Spent};
use crate::{floor, resources, tasks};

const USED_PORTS: &str = "[31126-31510,31512-31623,31810-31852,31854-31964]";
const SIXTEEN_RANGES: &str = "[31000,31002,31004,31006,31008,31010,31012,31014,31016,31018,31020,31022,31024,31026,\
                              31028,31030-32000]";

/// AddAndUpdateSlave: agents with a task each join one by one, then each has more than it had.
pub fn add_and_update(book: &mut Book, size: Size) -> Result<()> {
    let scenario = "AddAndUpdateAgent";
    let mut cluster = with_frameworks(book, scenario, size, &[Capability::Revocable])?;
    let total = resources("cpus=2;mem=1GiB;disk=4GiB;ports=[31000-32000]")?;
    let used = format!("cpus=1;mem=128MiB;disk=1GiB;ports={USED_PORTS}");
    let mut running = Vec::new();
    let mut spent = Vec::new();
    for at in 0..size.agents {
        let task = reported(&cluster, at, &used)?;
        running.push(task.clone());
        let input = cluster.register(&total, vec![task])?;
        spent.push(cluster.turn(vec![input])?);
    }
    record_sum(book, scenario, size, "add agents", &spent);
    let (more, mut spent) = (resources("cpus=10")?, Vec::new());
    for (at, task) in running.into_iter().enumerate() {
        let input = cluster.register_again(at, &total, &more, vec![task])?;
        spent.push(cluster.turn(vec![input])?);
    }
    record_sum(book, scenario, size, "update agents", &spent);
    Ok(())
}

fn record_sum(book: &mut Book, scenario: &str, size: Size, step: &str, spent: &[Spent]) {
    book.record(scenario, size, step, spent.len() as u64, &[spent.iter().copied().sum()]);
}

fn with_frameworks(
    book: &mut Book,
    scenario: &str,
    size: Size,
    capabilities: &[Capability],
) -> Result<Cluster> {
    let mut cluster = Cluster::new();
    let subscriptions: Result<Vec<Input>> =
        (0..size.frameworks).map(|_| cluster.subscribe("*", capabilities)).collect();
    let spent = cluster.turn(subscriptions?)?;
    book.record(scenario, size, "add frameworks", size.frameworks as u64, &[spent]);
    Ok(cluster)
}

/// A task that an agent runs when it joins, of one framework after the other.
fn reported(cluster: &Cluster, agent: usize, used: &str) -> Result<AgentTask> {
    let framework = cluster.frameworks.get(agent % cluster.frameworks.len()).context("no frameworks")?;
    let info = tasks::task(&format!("used-{agent}"), &resources(used)?)?;
    let status = tasks::status(&info.id, None, TaskState::Running, cluster.now);
    Ok(AgentTask { framework_id: framework.id.clone(), info, allocation: Default::default(), status })
}

/// Agents of which a part is used.
fn partly_used(book: &mut Book, scenario: &str, size: Size, mem: &str) -> Result<Cluster> {
    let mut cluster = with_frameworks(book, scenario, size, &[])?;
    let total = resources("cpus=24;mem=4GiB;disk=4GiB;ports=[31000-32000]")?;
    let used = format!("cpus=16;mem={mem};disk=1GiB;ports={SIXTEEN_RANGES}");
    let mut inputs = Vec::new();
    for at in 0..size.agents {
        let task = reported(&cluster, at, &used)?;
        inputs.push(cluster.register(&total, vec![task])?);
    }
    let spent = cluster.turn(inputs)?;
    book.record(scenario, size, "add agents", size.agents as u64, &[spent]);
    Ok(cluster)
}

/// DeclineOffers: everybody declines everything for ever; each round asks others.
pub fn decline(book: &mut Book, size: Size) -> Result<()> {
    let scenario = "DeclineOffers";
    let mut cluster = partly_used(book, scenario, size, "2014MiB")?;
    let (mut allocated, mut offers) = (Vec::new(), 0);
    for _ in 0..(2 * size.frameworks).min(6) {
        let (declines, count) = cluster.decline_all(NEVER)?;
        cluster.feed(declines)?;
        if count > 0 {
            offers = count;
            allocated.push(cluster.end_turn()?);
        }
    }
    book.record(scenario, size, "allocate", offers, &allocated);
    book.against(floor::offers(offers, size.frameworks));
    Ok(())
}

/// All frameworks have refused all agents, for ever: nothing is to be done, and that should cost nothing.
pub fn idle(book: &mut Book, size: Size, turns: usize) -> Result<()> {
    let scenario = "All filters standing";
    let mut cluster = with_frameworks(book, scenario, size, &[])?;
    cluster.add_agents(size.agents, &resources("cpus=24;mem=4GiB;disk=4GiB;ports=[31000-32000]")?)?;
    loop {
        let (declines, count) = cluster.decline_all(NEVER)?;
        if count == 0 {
            break;
        }
        cluster.turn(declines)?;
    }
    let mut spent = Vec::new();
    for _ in 0..turns {
        spent.push(cluster.event(Input::Tick)?);
    }
    book.record_latencies(scenario, size, "idle turn", &spent)
}

/// SuppressOffers: a fifth more of the frameworks suppresses in each round.
pub fn suppress(book: &mut Book, size: Size) -> Result<()> {
    let scenario = "SuppressOffers";
    let mut cluster = partly_used(book, scenario, size, "1GiB")?;
    let share = size.frameworks.div_ceil(5);
    for round in 0..5 {
        let (declines, _) = cluster.decline_all(std::time::Duration::ZERO)?;
        cluster.feed(declines)?;
        let mut suppressed = Vec::new();
        for framework in round * share..((round + 1) * share).min(size.frameworks) {
            suppressed.push(cluster.suppress(framework)?);
        }
        let count = suppressed.len() as u64;
        let spent = cluster.feed(suppressed)?;
        book.record(scenario, size, &format!("suppress a fifth ({})", round + 1), count, &[spent]);
        let spent = cluster.end_turn()?;
        let step = format!("allocate, {}% suppressed", 20 * (round + 1));
        book.record(scenario, size, &step, cluster.offers(), &[spent]);
    }
    Ok(())
}

/// AllocatorBacklog: everybody revives, one call after the other, while everything is on offer.
pub fn backlog(book: &mut Book, size: Size) -> Result<()> {
    let scenario = "AllocatorBacklog";
    let mut cluster = with_frameworks(book, scenario, size, &[])?;
    let agent = resources("cpus=24;mem=4GiB;disk=4GiB;ports=[31000-32000]")?;
    let spent = cluster.add_agents(size.agents, &agent)?;
    book.record(scenario, size, "add agents", size.agents as u64, &[spent]);
    let mut spent = Vec::new();
    for framework in 0..size.frameworks {
        let call = cluster.revive(framework)?;
        spent.push(cluster.turn(vec![call])?);
    }
    record_sum(book, scenario, size, "revive everybody", &spent);
    Ok(())
}
