//! Why something waits, as an operator reads it.

use divvy_proto::agent::AgentInfo;
use divvy_proto::api::{Exclusion, Explanation, Funnel, MaintenanceWindow, Question, Window};
use divvy_proto::demand::{Demand, DemandShape, Gang, Preference};
use divvy_proto::quota::Quota;
use divvy_proto::reservation::{Reservation, Reserved};
use divvy_proto::scheduler::{CallBody, Filters};
use divvy_proto::task::TaskState;

use crate::kernel::testing::*;
use crate::kernel::*;

mod agrees;

fn shape(name: &str, resources: &str, count: u32) -> DemandShape {
    DemandShape {
        name: name.to_owned(),
        resources: resources.parse().unwrap(),
        ports: 0,
        count,
        constraint: None,
        preference: Preference::None,
    }
}

fn demand(cluster: &mut Cluster, framework: FrameworkHandle, role: &str, shapes: Vec<DemandShape>) {
    let demand = Demand { shapes, gang: None };
    cluster.call(framework, CallBody::Demand { role: role.parse().unwrap(), demand });
}

fn explain(cluster: &Cluster, framework: FrameworkHandle) -> Explanation {
    let question = Question::Framework(cluster.framework_id(framework));
    cluster.kernel.explain(cluster.now, &question).unwrap()
}

fn funnel(cluster: &Cluster, framework: FrameworkHandle) -> Funnel {
    explain(cluster, framework).funnels.remove(0)
}

/// The summary, and the hint below it.
fn words(cluster: &Cluster, framework: FrameworkHandle) -> [String; 2] {
    let explanation = explain(cluster, framework);
    let hint = explanation.funnels.first().map(|funnel| funnel.hint.clone()).unwrap_or_default();
    [explanation.summary, hint]
}

/// A framework that wants nothing, whatever it was offered before.
fn quiet(cluster: &mut Cluster, name: &str, role: &str) -> FrameworkHandle {
    let framework = cluster.framework_in(name, &[role]);
    cluster.call(framework, CallBody::Suppress { roles: vec![] });
    cluster.decline(framework, secs(0));
    framework
}

fn reserve(info: &mut AgentInfo, role: &str, resources: &str) {
    let role = role.parse().unwrap();
    let stack = vec![Reservation { role, principal: None, labels: Default::default(), fixed: true }];
    info.reserved.push(Reserved { stack, resources: resources.parse().unwrap() });
}

fn quota(cluster: &mut Cluster, role: &str, quota: Quota) {
    let role = role.parse().unwrap();
    cluster.operator(OperatorRequest::SetQuota { role, quota: Some(quota), force: true });
}

fn in_rack(rack: &str) -> impl Fn(&mut AgentInfo) {
    let attributes: divvy_proto::attributes::Attributes = format!("rack={rack}").parse().unwrap();
    move |info: &mut AgentInfo| info.attributes = attributes.clone()
}

#[test]
fn what_others_hold_is_named_with_who_holds_it_and_how_little_is_missing() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    cluster.agent("cpus=4;mem=8GiB");
    let batch = cluster.framework("batch");
    for offer in cluster.held(batch) {
        let task = format!("t{}", offer.0 & 0xff);
        cluster.accept(batch, vec![offer], &[(&task, "cpus=1;mem=6GiB")], Filters { refuse: secs(3600) });
    }
    let web = quiet(&mut cluster, "web", "*");
    demand(&mut cluster, web, "*", vec![shape("front", "cpus=2;mem=4GiB", 3)]);
    cluster.advance(secs(42));
    assert_eq!(
        words(&cluster, web),
        [
            "web in * wants 3 more of front <2 cpus, 4GiB mem>, and has waited 42s: of 2 agents, 2 have too little free \
             mem (the best lacks 2GiB; held mostly by batch).",
            "host-0 comes nearest, with 2GiB of 4GiB mem free: ask for less mem, wait for batch, give * a guarantee, or add agents.",
        ]
    );
    let nearest = funnel(&cluster, web).nearest.unwrap();
    assert_eq!((nearest.hostname.as_str(), nearest.missing.len()), ("host-0", 1));
}

#[test]
fn each_agent_is_counted_once_by_the_first_thing_that_excludes_it() {
    let mut cluster = Cluster::new();
    let away = cluster.agent("cpus=8;mem=8GiB");
    let drained = cluster.agent_that("cpus=8;mem=8GiB", in_rack("r1"));
    cluster.agent_that("cpus=8;mem=8GiB", in_rack("r2"));
    cluster.agent_that("cpus=2;mem=8GiB", in_rack("r1"));
    cluster.disconnect(away);
    cluster.drain(drained, None, false);
    let web = quiet(&mut cluster, "web", "*");
    let wanted = DemandShape { constraint: Some("rack == \"r1\"".parse().unwrap()), ..shape("front", "cpus=4;mem=1GiB", 1) };
    demand(&mut cluster, web, "*", vec![wanted]);
    assert_eq!(
        words(&cluster, web),
        [
            "web in * wants 1 more of front <4 cpus, 1GiB mem>: of 4 agents, 1 is not connected, 1 is drained or \
             deactivated, 1 fails `rack == \"r1\"` and 1 is too small in cpus (lacks 2).",
            "Relax `rack == \"r1\"`, or add agents of which it is true: host-2 would do.",
        ]
    );
}
