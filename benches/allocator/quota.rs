//! Mesos's benchmarks of quota: what a cycle costs in which every role has one.

use anyhow::Result;
use divvy_master::kernel::OperatorRequest;
use divvy_proto::amounts::Amounts;
use divvy_proto::quota::Quota;
use divvy_proto::role::RolePath;

use crate::cluster::Cluster;
use crate::figures::{Book, Size};
use crate::resources;

const SMALL: &str = "cpus=1;mem=1GiB;disk=1GiB";
const AGENT: &str = "cpus=2;mem=2GiB;disk=2GiB";
const LARGE: &str = "cpus=4;mem=4GiB;disk=4GiB";

fn set_quota(cluster: &mut Cluster, role: &str, amounts: &str) -> Result<()> {
    let amounts: Amounts = amounts.parse()?;
    let quota = Quota { guarantee: amounts.clone(), limit: amounts, ..Quota::default() };
    let role = RolePath::new(role)?;
    let request = cluster.operator(OperatorRequest::SetQuota { role, quota: Some(quota), force: true });
    cluster.feed(vec![request]).map(drop)
}

/// LargeAndSmallQuota: of six roles one wants four times as much as fits an agent half.
pub fn large_and_small(book: &mut Book, size: Size) -> Result<()> {
    let scenario = "LargeAndSmallQuota";
    let mut cluster = Cluster::new();
    cluster.add_agents(size.agents, &resources(AGENT)?)?;
    for number in 0..size.roles {
        let amounts = if number < size.roles / 6 { LARGE } else { SMALL };
        set_quota(&mut cluster, &format!("role{number}"), amounts)?;
    }
    let mut subscriptions = Vec::new();
    for number in 0..size.frameworks {
        subscriptions.push(cluster.subscribe(&format!("role{number}"), &[])?);
    }
    let spent = cluster.feed(subscriptions)?;
    book.record(scenario, size, "add frameworks", size.frameworks as u64, &[spent]);
    two_cycles(book, &mut cluster, scenario, size, "")
}

/// NonQuotaVsQuota: two frameworks a role, and two agents, promised to it or not.
pub fn none_and_some(book: &mut Book, size: Size, with_quota: bool) -> Result<()> {
    let scenario = "NonQuotaVsQuota";
    let mut cluster = Cluster::new();
    cluster.add_agents(size.agents, &resources(AGENT)?)?;
    for number in 0..size.roles {
        if with_quota {
            set_quota(&mut cluster, &format!("role{number}"), LARGE)?;
        }
    }
    let mut subscriptions = Vec::new();
    for number in 0..size.frameworks {
        subscriptions.push(cluster.subscribe(&format!("role{}", number % size.roles), &[])?);
    }
    cluster.feed(subscriptions)?;
    two_cycles(book, &mut cluster, scenario, size, if with_quota { ", quota" } else { ", no quota" })
}

fn two_cycles(book: &mut Book, cluster: &mut Cluster, scenario: &str, size: Size, what: &str) -> Result<()> {
    let spent = cluster.end_turn()?;
    book.record(scenario, size, &format!("first cycle{what}"), cluster.offers(), &[spent]);
    let idle: Result<Vec<_>> = (0..10).map(|_| cluster.end_turn()).collect();
    book.record(scenario, size, &format!("idle cycle{what}"), 1, &idle?);
    Ok(())
}
