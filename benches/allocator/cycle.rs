//! Cycle: everything free, everything offered, everything back; again and again. And one agent more, one framework more.

use anyhow::{Result, ensure};

use crate::cluster::{Cluster, NEVER};
use crate::figures::{Book, Size, Spent};
use crate::{floor, resources};
use std::time::Duration;

/// How the roles are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roles {
    Flat,
    /// Two levels, ten above.
    Nested,
}

impl Roles {
    pub fn name(self, number: usize) -> String {
        match self {
            Self::Flat => format!("role{number}"),
            Self::Nested => format!("org{}/team{number}", number % 10),
        }
    }

    fn scenario(self) -> &'static str {
        if self == Self::Flat { "Cycle" } else { "Cycle nested" }
    }
}

pub fn measure(book: &mut Book, size: Size, roles: Roles, repetitions: usize) -> Result<()> {
    let scenario = roles.scenario();
    let mut cluster = Cluster::new();
    let all = size.agents as u64;
    let spent =
        cluster.add_agents(size.agents, &resources("cpus=24;mem=4GiB;disk=4GiB;ports=[31000-32000]")?)?;
    book.record(scenario, size, "add agents", all, &[spent]);
    let mut subscriptions = Vec::new();
    for number in 0..size.frameworks {
        subscriptions.push(cluster.subscribe(&roles.name(number % size.roles), &[])?);
    }
    let spent = cluster.feed(subscriptions)?;
    book.record(scenario, size, "add frameworks", size.frameworks as u64, &[spent]);
    let spent = cluster.end_turn()?;
    ensure!(cluster.offers() == all, "{} of {all} agents are offered", cluster.offers());
    book.record(scenario, size, "first allocation", all, &[spent]);

    rounds(book, &mut cluster, size, scenario, Duration::ZERO, repetitions, ["recover", "allocate"])?;
    rounds(book, &mut cluster, size, scenario, NEVER, 3, ["decline", "allocate what others declined"])?;
    one_more_of_each(book, &mut cluster, size, roles)
}

/// All offers come back, and whoever has not refused is offered them.
fn rounds(
    book: &mut Book,
    cluster: &mut Cluster,
    size: Size,
    scenario: &str,
    refuse: Duration,
    repetitions: usize,
    [back, out]: [&str; 2],
) -> Result<()> {
    let (mut returned, mut allocated, mut told, mut items) = (Vec::new(), Vec::new(), Vec::new(), 0);
    cluster.tell_changes()?;
    for _ in 0..repetitions {
        let (declines, count) = cluster.decline_all(refuse)?;
        if count > 0 {
            items = count;
            returned.push(cluster.feed(declines)?);
            allocated.push(cluster.end_turn()?);
            told.push(cluster.tell_changes()?);
        }
    }
    book.record(scenario, size, back, items, &returned);
    book.record(scenario, size, out, items, &allocated);
    book.against(floor::offers(items, size.frameworks));
    if refuse.is_zero() {
        let both: Vec<Spent> = returned.into_iter().zip(allocated).map(|(back, out)| back + out).collect();
        book.record(scenario, size, "whole cycle: recover and allocate", items, &both);
        book.against(floor::offers(items, size.frameworks));
        book.record(scenario, size, "and show those who watch what changed", items, &told);
    }
    Ok(())
}

/// Each in a turn of its own.
fn one_more_of_each(book: &mut Book, cluster: &mut Cluster, size: Size, roles: Roles) -> Result<()> {
    let agent = resources("cpus=24;mem=4GiB;disk=4GiB;ports=[31000-32000]")?;
    let mut added = Vec::new();
    for _ in 0..50 {
        let input = cluster.register(&agent, Vec::new())?;
        added.push(cluster.turn(vec![input])?);
    }
    book.record(roles.scenario(), size, "add one agent", 1, &added);
    Ok(())
}
