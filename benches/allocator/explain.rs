//! What it costs to explain why one thing waits: every agent is asked. It must be cheap enough to ask every second.

use anyhow::{Context, Result, ensure};
use divvy_master::kernel::Kernel;
use divvy_proto::api::Question;
use divvy_proto::demand::{Demand, DemandShape};

use crate::cluster::Cluster;
use crate::figures::{Book, Size, Spent};
use crate::resources;

/// Agents in forty racks, all in the hands of others but a quarter of each. One framework waits for more than that: on half of
/// the racks, anywhere, or for anything at all.
pub fn measure(book: &mut Book, size: Size, samples: usize) -> Result<()> {
    let mut cluster = Cluster::new();
    let subscriptions: Result<Vec<_>> = (0..2).map(|_| cluster.subscribe("role", &[])).collect();
    cluster.turn(subscriptions?)?;
    let quiet = [cluster.suppress(0)?, cluster.suppress(1)?];
    cluster.turn(quiet.into())?;
    cluster.add_agents(size.agents, &resources("cpus=4;mem=4GiB")?)?;
    let holder = demand("held", "cpus=3;mem=1GiB", u32::try_from(size.agents)?, None)?;
    let call = cluster.demand(0, holder)?;
    cluster.turn(vec![call])?;
    ensure!(cluster.offers() == size.agents as u64, "somebody holds something on every agent");

    let racks: Vec<String> = (0..20).map(|rack| format!("\"r{rack}\"")).collect();
    let somewhere = format!("rack in [{}]", racks.join(", "));
    for (what, constraint) in [("a shape anywhere", None), ("a shape on half of the racks", Some(somewhere))]
    {
        let wanted = demand("wanted", "cpus=2;mem=1GiB", 1, constraint.as_deref())?;
        let call = cluster.demand(1, wanted)?;
        cluster.turn(vec![call])?;
        let question = Question::Framework(cluster.frameworks[1].id.clone());
        let spent: Result<Vec<Spent>> = (0..samples).map(|_| ask(&cluster, &question, size.agents)).collect();
        book.record("Explain", size, &format!("{what}, per agent"), size.agents as u64, &spent?);
    }
    Ok(())
}

fn ask(cluster: &Cluster, question: &Question, agents: usize) -> Result<Spent> {
    let kernel: &Kernel = &cluster.kernel;
    let begun = Spent::begin();
    let answer = kernel.explain(cluster.now, question);
    let spent = begun.end();
    let explanation = answer?;
    let funnel = explanation.funnels.first().context("nothing waits")?;
    ensure!(funnel.agents == agents && funnel.fits == 0, "{}", explanation.summary);
    Ok(spent)
}

fn demand(name: &str, each: &str, count: u32, constraint: Option<&str>) -> Result<Demand> {
    let shape = DemandShape {
        name: name.to_owned(),
        resources: resources(each)?,
        ports: 0,
        count,
        constraint: constraint.map(str::parse).transpose()?,
        preference: Default::default(),
    };
    Ok(Demand { shapes: vec![shape], gang: None })
}
