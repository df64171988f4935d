//! Why something waits, as an operator reads it.

use divvy_proto::agent::AgentInfo;
use divvy_proto::api::{Explanation, Funnel, Question};
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
            "host-0 comes nearest, with 2GiB of 4GiB mem free: ask for less mem, wait for batch, give * a guarantee, or \
             add agents.",
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
    let in_r1 = Some("rack == \"r1\"".parse().unwrap());
    demand(
        &mut cluster,
        web,
        "*",
        vec![DemandShape { constraint: in_r1, ..shape("front", "cpus=4;mem=1GiB", 1) }],
    );
    assert_eq!(
        words(&cluster, web),
        [
            "web in * wants 1 more of front <4 cpus, 1GiB mem>: of 4 agents, 1 is not connected, 1 is drained or \
             deactivated, 1 fails `rack == \"r1\"` and 1 is too small in cpus (lacks 2).",
            "Relax `rack == \"r1\"`, or add agents of which it is true: host-2 would do.",
        ]
    );
}

#[test]
fn without_agents_the_hint_is_to_start_some() {
    let mut cluster = Cluster::new();
    let web = quiet(&mut cluster, "web", "*");
    demand(&mut cluster, web, "*", vec![shape("front", "cpus=1;mem=1GiB", 1)]);
    assert_eq!(
        words(&cluster, web),
        [
            "web in * wants 1 more of front <1 cpus, 1GiB mem>: there are no agents.",
            "Start agents: `divvy agent --master …`."
        ]
    );
}

#[test]
fn what_the_framework_has_refused_itself_is_told_with_when_it_is_asked_again() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    let web = quiet(&mut cluster, "web", "*");
    demand(&mut cluster, web, "*", vec![shape("front", "cpus=1;mem=1GiB", 2)]);
    cluster.decline(web, secs(60));
    cluster.advance(secs(12));
    assert_eq!(
        words(&cluster, web),
        [
            "web in * wants 2 more of front <1 cpus, 1GiB mem>, and has waited 12s: of 1 agent, 1 it has refused itself \
             (asked again in 48s).",
            "host-0 has enough, but web has refused it: it is asked again in 48s, or at once after a Revive.",
        ]
    );
    let classic = cluster.framework("classic");
    cluster.decline(classic, secs(60));
    assert_eq!(
        words(&cluster, classic)[0],
        "classic in * takes any offer: of 1 agent, 1 it has refused itself (asked again in 1m)."
    );
}

#[test]
fn what_is_reserved_for_others_names_them() {
    let mut cluster = Cluster::new();
    cluster.agent_that("cpus=4;mem=8GiB", |info| reserve(info, "ads", "cpus=3"));
    let web = quiet(&mut cluster, "web", "*");
    demand(&mut cluster, web, "*", vec![shape("front", "cpus=2;mem=1GiB", 1)]);
    assert_eq!(
        words(&cluster, web),
        [
            "web in * wants 1 more of front <2 cpus, 1GiB mem>: of 1 agent, 1 has what it takes reserved for ads.",
            "Ask in the role ads, take the reservation away (`divvy unreserve`), or add agents.",
        ]
    );
}

#[test]
fn a_limit_is_told_with_its_arithmetic() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=16;mem=16GiB");
    let limit = "cpus=6".parse().unwrap();
    quota(&mut cluster, "prod", Quota { limit, ..Quota::default() });
    let web = quiet(&mut cluster, "web", "prod/web");
    demand(&mut cluster, web, "prod/web", vec![shape("front", "cpus=4;mem=1GiB", 2)]);
    cluster.launch(web, &[("t1", "cpus=4;mem=1GiB")]);
    assert_eq!(
        words(&cluster, web),
        [
            "web in prod/web wants 1 more of front <4 cpus, 1GiB mem>: of 1 agent, 1 would do, but prod is at its limit of \
             cpus.",
            "prod uses 4 of its limit of 6 cpus, and one more needs 4: end something, or raise the limit (`divvy quota set \
             prod --limit …`).",
        ]
    );
}

#[test]
fn a_limit_is_told_first_even_where_no_agent_has_room() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    let limit = "cpus=3".parse().unwrap();
    quota(&mut cluster, "eng", Quota { limit, ..Quota::default() });
    let web = quiet(&mut cluster, "web", "eng");
    demand(&mut cluster, web, "eng", vec![shape("front", "cpus=3;mem=1GiB", 2)]);
    cluster.launch(web, &[("t1", "cpus=3;mem=1GiB")]);
    assert_eq!(
        words(&cluster, web),
        [
            "eng is at its limit of cpus=3 (`divvy quota set`). web in eng wants 1 more of front <3 cpus, 1GiB mem>: of 1 \
             agent, 1 has too little free cpus (lacks 2; held mostly by web).",
            "eng uses 3 of its limit of 3 cpus, and one more needs 3: end something, or raise the limit (`divvy quota set eng \
             --limit …`).",
        ]
    );
}

#[test]
fn a_role_whose_guarantee_is_not_met_is_not_told_to_get_one() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    let batch = cluster.framework("batch");
    cluster.launch(batch, &[("t1", "cpus=4;mem=1GiB")]);
    let guarantee = "cpus=2".parse().unwrap();
    quota(&mut cluster, "eng", Quota { guarantee, ..Quota::default() });
    let web = quiet(&mut cluster, "web", "eng");
    demand(&mut cluster, web, "eng", vec![shape("front", "cpus=2;mem=1GiB", 1)]);
    let [_, hint] = words(&cluster, web);
    assert_eq!(
        hint,
        "host-0 comes nearest, with 0 of 2 cpus and 0B of 1GiB mem free: ask for less cpus, wait for batch to give back what eng \
         is owed, or add agents."
    );
}

#[test]
fn headroom_is_told_with_the_guarantee_for_which_it_is_kept() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=6;mem=16GiB");
    let guarantee = "cpus=4;mem=2GiB".parse().unwrap();
    quota(&mut cluster, "ads", Quota { guarantee, ..Quota::default() });
    let web = quiet(&mut cluster, "web", "*");
    demand(&mut cluster, web, "*", vec![shape("front", "cpus=3;mem=1GiB", 1)]);
    assert_eq!(
        words(&cluster, web),
        [
            "web in * wants 1 more of front <3 cpus, 1GiB mem>: of 1 agent, 1 is kept for what ads is promised.",
            "It is kept for guarantees that are not met (ads lacks cpus=4;mem=2GiB): wait until they are, lower them \
             (`divvy quota set`), or add agents.",
        ]
    );
}

#[test]
fn a_framework_that_waits_for_nothing_says_why() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    let web = quiet(&mut cluster, "web", "*");
    assert_eq!(words(&cluster, web)[0], "web wants no offers: it has suppressed them, or demands nothing.");
    demand(&mut cluster, web, "*", vec![shape("front", "cpus=1;mem=1GiB", 2)]);
    assert_eq!(words(&cluster, web)[0], "web waits for nothing: all that it demands is on offer (1 offer).");
    cluster.unsubscribe(web);
    cluster.advance(secs(65));
    assert_eq!(
        words(&cluster, web)[0],
        "web is not connected since 1m 5s: nothing is offered to it until it is back."
    );
}

#[test]
fn a_role_is_told_with_those_before_it_in_fair_order() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    let busy = cluster.framework_in("busy", &["eng/ads"]);
    cluster.launch(busy, &[("t1", "cpus=2;mem=1GiB")]);
    let idle = quiet(&mut cluster, "idle", "eng/web");
    demand(&mut cluster, idle, "eng/web", vec![shape("front", "cpus=8;mem=1GiB", 1)]);
    let question = Question::Role("eng/ads".parse().unwrap());
    let explanation = cluster.kernel.explain(cluster.now, &question).unwrap();
    let standings = explanation.roles.iter().map(|s| (s.role.path.as_str(), s.place, s.siblings));
    let expected = [("eng", Some(1), 1), ("eng/web", Some(1), 2), ("eng/ads", Some(2), 2)];
    assert_eq!(standings.collect::<Vec<_>>(), expected);
    assert!(
        explanation.summary.ends_with("eng/ads is number 2 of 2 in fair order with a share of 100.0%."),
        "{}",
        explanation.summary
    );
}

#[test]
fn a_task_is_where_it_is_for_a_reason() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let web = cluster.framework("web");
    cluster.launch(web, &[("t1", "cpus=1;mem=1GiB")]);
    let why = |cluster: &Cluster, task: &str| {
        let question =
            Question::Task { framework_id: cluster.framework_id(web), task_id: task.parse().unwrap() };
        cluster.kernel.explain(cluster.now, &question).unwrap().summary
    };
    cluster.advance(secs(3));
    assert_eq!(
        why(&cluster, "t1"),
        "t1 was sent to host-0 3s ago, which has not said yet that it is starting it."
    );
    cluster.report(agent, "t1", TaskState::Running);
    cluster.advance(secs(5));
    assert_eq!(why(&cluster, "t1"), "t1 is RUNNING on host-0 since 5s.");
    cluster.kill(web, "t1");
    assert_eq!(why(&cluster, "t1"), "t1 is RUNNING on host-0 since 5s; its end was asked for.");
    cluster.disconnect(agent);
    cluster.advance(secs(2));
    assert_eq!(
        why(&cluster, "t1"),
        "t1 is RUNNING on host-0 since 7s; its end was asked for; its agent is silent since 2s."
    );
    cluster.connect(agent);
    cluster.report(agent, "t1", TaskState::Killed);
    assert_eq!(why(&cluster, "t1"), "t1 ended as KILLED on host-0 0s ago (command_exited).");
    assert!(why(&cluster, "t2").starts_with("web has launched no task t2 that is still remembered. "));
}

#[test]
fn an_agent_that_is_kept_for_an_older_demand_says_for_whose() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    let batch = cluster.framework("batch");
    cluster.launch(batch, &[("t1", "cpus=2;mem=1GiB")]);
    cluster.call(batch, CallBody::Suppress { roles: vec![] });
    cluster.decline(batch, secs(0));
    let (big, small) = (quiet(&mut cluster, "big", "*"), quiet(&mut cluster, "small", "*"));
    demand(&mut cluster, big, "*", vec![shape("all", "cpus=4;mem=1GiB", 1)]);
    cluster.advance(secs(31));
    demand(&mut cluster, small, "*", vec![shape("bit", "cpus=1;mem=1GiB", 1)]);
    assert_eq!(
        words(&cluster, small),
        [
            "small in * wants 1 more of bit <1 cpus, 1GiB mem>: of 1 agent, 1 is kept for big, which has waited longer or is \
             owed it.",
            "Wait: host-0 is kept for big, whose demand is older, or whose guarantee is not met.",
        ]
    );
}

fn gang(cluster: &mut Cluster, framework: FrameworkHandle, each: &str, count: u32) {
    let demand = Demand { shapes: vec![shape("part", each, count)], gang: Some(Gang { hold: secs(20) }) };
    cluster.call(framework, CallBody::Demand { role: "*".parse().unwrap(), demand });
}

#[test]
fn a_gang_says_what_is_gathered_and_what_the_rest_lacks() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    let batch = cluster.framework("batch");
    cluster.launch(batch, &[("t1", "cpus=2;mem=1GiB")]);
    cluster.call(batch, CallBody::Suppress { roles: vec![] });
    cluster.decline(batch, secs(0));
    cluster.agent("cpus=4;mem=8GiB");
    let web = quiet(&mut cluster, "web", "*");
    gang(&mut cluster, web, "cpus=3;mem=1GiB", 2);
    assert_eq!(
        words(&cluster, web),
        [
            "web in * wants 1 more of part <3 cpus, 1GiB mem> together: of 2 agents, 2 have too little free cpus (the best \
             lacks 1; held mostly by web).",
            "One piece of the gang is gathered, and kept for 20s at most. host-0 comes nearest, with 2 of 3 cpus free: ask \
             for less cpus, wait until web ends work of its own, or add agents.",
        ]
    );
}

#[test]
fn a_gang_that_there_is_no_room_for_is_told_apart_from_one_of_its_pieces() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    let web = quiet(&mut cluster, "web", "*");
    gang(&mut cluster, web, "cpus=3;mem=1GiB", 2);
    assert_eq!(
        words(&cluster, web),
        [
            "web in * wants 2 more of part <3 cpus, 1GiB mem> together: of 1 agent, 1 could have it now, but not together \
             with the rest.",
            "It is a gang: all of it, or nothing. One of it could be had now, but not all of it together.",
        ]
    );
}

#[test]
fn what_is_not_known_is_said_to_be() {
    let cluster = Cluster::new();
    let refused =
        |question: Question| cluster.kernel.explain(cluster.now, &question).unwrap_err().to_string();
    let framework_id: divvy_proto::ids::FrameworkId = "f9-9".parse().unwrap();
    assert_eq!(refused(Question::Role("eng".parse().unwrap())), "role eng");
    assert_eq!(refused(Question::Framework(framework_id.clone())), "framework f9-9");
    let role = "*".parse().unwrap();
    assert_eq!(refused(Question::Demand { framework_id, role, shape: "a".to_owned() }), "framework f9-9");
}
