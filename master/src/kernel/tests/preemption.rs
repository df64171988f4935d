//! Roles below their guarantee get back what others use beyond theirs: who has to end, when, and when nobody has to.

mod random;

use divvy_proto::api::DecisionKind;
use divvy_proto::quota::Quota;
use divvy_proto::scheduler::{CallBody, Capability, Operation};
use divvy_proto::task::{Reason, TaskInfo, TaskState};

use crate::kernel::testing::*;
use crate::kernel::*;
use crate::story;

/// A task's id, resources and priority.
type Work<'a> = (&'a str, &'a str, i32);

impl Cluster {
    /// The framework runs these on an agent that it is offered, one a second.
    fn run(&mut self, framework: FrameworkHandle, agent: AgentHandle, tasks: &[Work<'_>]) {
        let agent_id = self.agent_id(agent);
        let offers = self.offers_of(framework);
        let offers =
            offers.into_iter().filter(|offer| offer.agent_id == agent_id).map(|offer| offer.id).collect();
        let info = |&(id, resources, priority): &Work<'_>| TaskInfo { priority, ..task(id, resources) };
        let operations = vec![Operation::Launch(tasks.iter().map(info).collect())];
        self.accept_these(framework, offers, operations);
        for (id, ..) in tasks {
            self.advance(secs(1));
            let update = self.report(agent, id, TaskState::Running);
            self.acknowledge(framework, agent, id, &update);
        }
    }

    fn promise(&mut self, role: &str, guarantee: &str) {
        let quota = Quota { guarantee: guarantee.parse().unwrap(), ..Quota::default() };
        self.quota(role, quota);
    }

    fn quota(&mut self, role: &str, quota: Quota) {
        let role = role.parse().unwrap();
        self.operator(OperatorRequest::SetQuota { role, quota: Some(quota), force: true });
    }

    /// The framework wants so many of this.
    fn wants(&mut self, framework: FrameworkHandle, role: &str, resources: &str, count: u32) {
        let shapes = if count == 0 { Vec::new() } else { vec![shape("it", resources, count)] };
        self.demand(framework, role, shapes);
    }

    /// What is asked back now: framework, tasks.
    fn asked_back(&self) -> Vec<String> {
        let show = |offer: divvy_proto::api::InverseOfferView| {
            let tasks: Vec<&str> = offer.offer.tasks.iter().map(|task| task.as_str()).collect();
            format!("{}: {}", offer.framework, tasks.join(", "))
        };
        self.kernel.inverse_offers().into_iter().map(show).collect()
    }
}

/// One full agent: `greedy` has most of it, in role `batch`; `modest` the rest, in role `dev`. `web` wants in role `prod`.
fn full() -> (Cluster, AgentHandle, [FrameworkHandle; 3]) {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=6;mem=6GiB");
    let greedy = cluster.framework_in("greedy", &["batch"]);
    let one = "cpus=1;mem=1GiB";
    cluster.run(greedy, agent, &[("g1", one, 0), ("g2", one, 7), ("g3", one, 0), ("g4", one, 7)]);
    cluster.decline(greedy, secs(1_000_000));
    let modest = cluster.framework_in("modest", &["dev"]);
    cluster.run(modest, agent, &[("m1", one, 0), ("m2", one, 0)]);
    let web = cluster.framework_in("web", &["prod"]);
    cluster.forget();
    (cluster, agent, [greedy, modest, web])
}

#[test]
fn the_youngest_of_the_least_important_of_who_is_furthest_above_its_share_end_and_the_promised_role_gets_it()
{
    let (mut cluster, agent, [greedy, modest, web]) = full();
    cluster.promise("prod", "cpus=2;mem=2GiB");
    cluster.forget();
    cluster.wants(web, "prod", "cpus=2;mem=1GiB", 1);
    story!(
        cluster,
        "web < c13 accepted",
        "greedy < asked back i1-1 of a1-0: g1, g3 (cpus=2;mem=2GiB) by +36s, preemption for role prod",
    );
    cluster.advance(secs(30));
    story!(cluster, "agent 0 < kill f1-0/g1", "agent 0 < kill f1-0/g3");
    cluster.killed(agent, greedy, "g3");
    assert_eq!(cluster.take_updates(greedy).pop().map(|update| update.reason), Some(Reason::Preempted));
    assert_eq!(cluster.held(web), [], "one is not enough");
    cluster.forget();
    cluster.killed(agent, greedy, "g1");
    story!(
        cluster,
        "greedy < g1 is KILLED: preempted (u8)",
        "web < offers o1-4 of a1-0 for prod: cpus=2;mem=1GiB for 1 it",
        "greedy < rescind i1-1",
        "persist f1-0 used g[1,3]",
        "agent 0 < acknowledge u8 of g1",
    );
    assert_eq!(cluster.held(modest), []);
}

#[test]
fn a_decision_says_why() {
    let (mut cluster, _, [_, _, web]) = full();
    cluster.promise("prod", "cpus=2;mem=2GiB");
    cluster.wants(web, "prod", "cpus=1;mem=1GiB", 1);
    let decisions =
        cluster.kernel.decisions(&DecisionFilter { without_offers: true, ..DecisionFilter::default() });
    let decided: Vec<_> = decisions.iter().map(|decision| (decision.what, decision.why.as_str())).collect();
    assert_eq!(
        decided,
        [(
            DecisionKind::Preempted,
            "role prod lacks cpus=2;mem=2GiB of its guarantee of cpus=2;mem=2GiB, and framework f1-2 waits for it \
             (cpus=1;mem=1GiB), which fits nowhere. It fits on a1-0 once task g3 of f1-0 (cpus=1;mem=1GiB, priority 0; batch \
             uses cpus=4;mem=4GiB beyond its guarantee) has ended; of the agents looked at, 1 would do, and this one needs the \
             fewest and least important victims. They are killed at 2001-09-09T01:47:16.000Z"
        )]
    );
}

#[test]
fn who_ends_its_tasks_itself_is_not_killed_and_units_come_one_a_second() {
    let (mut cluster, agent, [greedy, _, web]) = full();
    cluster.promise("prod", "cpus=3;mem=3GiB");
    cluster.wants(web, "prod", "cpus=1;mem=1GiB", 9);
    assert_eq!(cluster.asked_back(), ["greedy: g3"]);
    cluster.advance(secs(1));
    assert_eq!(cluster.asked_back(), ["greedy: g3", "greedy: g1"]);
    cluster.kill(greedy, "g3");
    cluster.killed(agent, greedy, "g3");
    assert_eq!((cluster.held(web).len(), cluster.asked_back()), (1, vec!["greedy: g1".to_owned()]));
    // More than the guarantee is not owed, whatever is wanted.
    cluster.advance(secs(10));
    assert_eq!(cluster.asked_back(), ["greedy: g1", "greedy: g4"]);
}

#[test]
fn nobody_has_to_end_where_it_fits_without() {
    let (mut cluster, _, [_, _, web]) = full();
    cluster.agent("cpus=1;mem=1GiB");
    cluster.promise("prod", "cpus=1;mem=1GiB");
    cluster.wants(web, "prod", "cpus=1;mem=1GiB", 1);
    assert_eq!((cluster.held(web).len(), cluster.asked_back()), (1, Vec::new()));
    // Nor where the framework does not want what fits, as long as it soon may.
    cluster.decline(web, secs(20));
    cluster.advance(secs(19));
    assert_eq!(cluster.asked_back(), Vec::<String>::new());
}

#[test]
fn an_agent_that_is_refused_for_long_does_not_stand_in_the_way_of_others() {
    let (mut cluster, _, [_, _, web]) = full();
    cluster.agent("cpus=1;mem=1GiB");
    cluster.promise("prod", "cpus=1;mem=1GiB");
    cluster.wants(web, "prod", "cpus=1;mem=1GiB", 1);
    cluster.decline(web, secs(3600));
    cluster.advance(secs(1));
    assert_eq!(cluster.asked_back(), ["greedy: g3"]);
}

#[test]
fn what_was_told_to_end_is_no_longer_beyond_a_guarantee() {
    let (mut cluster, _, [greedy, _, web]) = full();
    cluster.promise("batch", "cpus=3");
    cluster.promise("prod", "cpus=2;mem=2GiB");
    cluster.kill(greedy, "g1");
    cluster.wants(web, "prod", "cpus=2;mem=1GiB", 1);
    assert_eq!(cluster.asked_back(), ["modest: m2"]);
}

#[test]
fn nobody_has_to_end_where_it_would_not_fit_even_so() {
    let (mut cluster, _, [_, _, web]) = full();
    cluster.promise("prod", "cpus=7;mem=1GiB");
    cluster.wants(web, "prod", "cpus=7;mem=1GiB", 1);
    cluster.advance(secs(5));
    assert_eq!(cluster.asked_back(), Vec::<String>::new());
}

#[test]
fn nobody_has_to_end_for_what_is_not_promised() {
    let (mut cluster, _, [_, _, web]) = full();
    cluster.promise("prod", "cpus=1;mem=1GiB");
    cluster.wants(web, "prod", "cpus=2;mem=1GiB", 1);
    cluster.advance(secs(5));
    assert_eq!(cluster.asked_back(), Vec::<String>::new());
}

#[test]
fn what_is_within_a_guarantee_and_what_may_not_be_preempted_does_not_end() {
    let (mut cluster, _, [_, _, web]) = full();
    cluster.promise("batch", "cpus=3");
    cluster.quota("dev", Quota { preemptible: false, ..Quota::default() });
    cluster.promise("prod", "cpus=2;mem=2GiB");
    cluster.wants(web, "prod", "cpus=2;mem=1GiB", 1);
    cluster.advance(secs(5));
    assert_eq!(cluster.asked_back(), Vec::<String>::new(), "batch can lose 1 only");
    cluster.wants(web, "prod", "cpus=1;mem=1GiB", 2);
    cluster.advance(secs(5));
    assert_eq!(cluster.asked_back(), ["greedy: g3"]);
}

#[test]
fn a_role_takes_back_from_its_siblings_what_is_promised_to_both_together() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=2;mem=2GiB");
    let dev = cluster.framework_in("dev", &["eng/dev"]);
    cluster.run(dev, agent, &[("d1", "cpus=1;mem=1GiB", 0), ("d2", "cpus=1;mem=1GiB", 0)]);
    let ads = cluster.framework_in("ads", &["eng/ads"]);
    cluster.promise("eng", "cpus=2");
    cluster.promise("eng/ads", "cpus=1");
    cluster.wants(ads, "eng/ads", "cpus=1;mem=1GiB", 1);
    assert_eq!(cluster.asked_back(), ["dev: d2"]);
}

#[test]
fn a_demand_that_is_withdrawn_or_met_otherwise_takes_everything_back() {
    let (mut cluster, _, [_, _, web]) = full();
    cluster.promise("prod", "cpus=1;mem=1GiB");
    cluster.wants(web, "prod", "cpus=1;mem=1GiB", 1);
    cluster.forget();
    cluster.wants(web, "prod", "cpus=1;mem=1GiB", 0);
    story!(cluster, "web < c14 accepted", "greedy < rescind i1-1");

    cluster.advance(secs(1));
    cluster.wants(web, "prod", "cpus=1;mem=1GiB", 1);
    assert_eq!(cluster.asked_back(), ["greedy: g3"]);
    cluster.forget();
    cluster.agent("cpus=1;mem=1GiB");
    story!(
        cluster,
        "persist a1-1",
        "agent 1 < registered as a1-1",
        "web < offers o1-4 of a1-1 for prod: cpus=1;mem=1GiB for 1 it",
        "greedy < rescind i1-2",
    );
}

#[test]
fn two_roles_that_starve_do_not_count_on_the_same_victims() {
    let (mut cluster, _, [_, _, web]) = full();
    let db = cluster.framework_in("db", &["store"]);
    cluster.promise("prod", "cpus=2;mem=2GiB");
    cluster.promise("store", "cpus=2;mem=2GiB");
    cluster.wants(web, "prod", "cpus=2;mem=2GiB", 1);
    cluster.wants(db, "store", "cpus=2;mem=2GiB", 1);
    cluster.agent("cpus=1;mem=1GiB");
    assert_eq!(cluster.asked_back(), ["greedy: g1, g3"]);
    // The agent has room for one of them at a time.
    cluster.advance(secs(5));
    assert_eq!(cluster.asked_back(), ["greedy: g1, g3"]);
}

#[test]
fn who_turns_out_not_to_be_needed_is_spared() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=6;mem=6GiB");
    let greedy = cluster.framework_in("greedy", &["batch"]);
    let (small, large) = ("cpus=1;mem=1GiB", "cpus=4;mem=4GiB");
    cluster.run(greedy, agent, &[("large", large, 7), ("s1", small, 0), ("s2", small, 0)]);
    let web = cluster.framework_in("web", &["prod"]);
    cluster.promise("prod", "cpus=4;mem=4GiB");
    cluster.wants(web, "prod", large, 1);
    assert_eq!(cluster.asked_back(), ["greedy: large"]);
}

#[test]
fn the_agent_with_the_fewest_and_least_important_victims_is_taken() {
    let mut cluster = Cluster::new();
    let greedy = cluster.framework_in("greedy", &["batch"]);
    let mut filled = |tasks: &[Work<'_>]| {
        let agent = cluster.agent("cpus=2;mem=2GiB");
        cluster.run(greedy, agent, tasks);
    };
    let (half, whole) = ("cpus=1;mem=1GiB", "cpus=2;mem=2GiB");
    filled(&[("h1", half, 0), ("h2", half, 0)]);
    filled(&[("w1", whole, 7)]);
    filled(&[("w2", whole, 3)]);
    filled(&[("w3", whole, 3)]);
    filled(&[("w4", whole, 4)]);
    let web = cluster.framework_in("web", &["prod"]);
    cluster.promise("prod", whole);
    cluster.wants(web, "prod", whole, 1);
    assert_eq!(cluster.asked_back(), ["greedy: w3"]);
}

#[test]
fn what_victims_leave_bit_by_bit_is_for_nobody_else() {
    let mut cluster = Cluster::new();
    let greedy = cluster.framework_in("greedy", &["batch"]);
    let one = "cpus=1;mem=1GiB";
    let agent = cluster.agent("cpus=2;mem=2GiB");
    cluster.run(greedy, agent, &[("g1", one, 0), ("g2", one, 0)]);
    // Much is free elsewhere, in pieces that are too small.
    let scraps: Vec<_> = (0..4).map(|_| cluster.agent(one)).collect();
    let web = cluster.framework_in("web", &["prod"]);
    cluster.decline(greedy, secs(0));
    cluster.decline(web, secs(1_000_000));
    cluster.promise("prod", "cpus=2;mem=2GiB");
    cluster.wants(web, "prod", "cpus=2;mem=2GiB", 1);
    assert_eq!(cluster.asked_back(), ["greedy: g1, g2"]);
    for task in ["g1", "g2"] {
        assert_eq!(cluster.offers_of(web), []);
        cluster.kill(greedy, task);
        cluster.killed(agent, greedy, task);
    }
    assert_eq!(cluster.offers_of(web).len(), 1);
    let of_agent = |offer: &divvy_proto::scheduler::OfferInfo| offer.agent_id == cluster.agent_id(agent);
    assert!(!cluster.offers_of(greedy).iter().any(of_agent));
    assert_eq!(scraps.len(), 4);
}

#[test]
fn nobody_has_to_end_beside_those_who_end_anyway() {
    let (mut cluster, agent, [_, modest, web]) = full();
    cluster.promise("prod", "cpus=1;mem=1GiB");
    cluster.kill(modest, "m1");
    cluster.wants(web, "prod", "cpus=1;mem=1GiB", 1);
    assert_eq!(cluster.asked_back(), Vec::<String>::new());
    cluster.killed(agent, modest, "m1");
    assert_eq!(cluster.held(web).len(), 1);
}

#[test]
fn after_a_failover_the_need_asks_again() {
    let (mut cluster, agent, [greedy, modest, web]) = full();
    cluster.promise("prod", "cpus=1;mem=1GiB");
    cluster.wants(web, "prod", "cpus=1;mem=1GiB", 1);
    cluster.fail_over();
    cluster.connect(agent);
    [greedy, modest, web].into_iter().for_each(|framework| cluster.subscribe(framework));
    assert_eq!(cluster.asked_back(), Vec::<String>::new());
    cluster.wants(web, "prod", "cpus=1;mem=1GiB", 1);
    assert_eq!(cluster.asked_back().len(), 1);
}

#[test]
fn a_drain_takes_over_what_was_asked_back_for_others() {
    let (mut cluster, agent, [_, _, web]) = full();
    cluster.promise("prod", "cpus=1;mem=1GiB");
    cluster.wants(web, "prod", "cpus=1;mem=1GiB", 1);
    cluster.forget();
    cluster.drain(agent, Some(secs(600)), false);
    story!(
        cluster,
        "persist a1-0 drains",
        "answer: done",
        "greedy < rescind i1-1",
        "greedy < asked back i1-2 of a1-0: g1, g2, g3, g4 (cpus=4;mem=4GiB) by +606s, maintenance",
        "modest < asked back i1-3 of a1-0: m1, m2 (cpus=2;mem=2GiB) by +606s, maintenance",
    );
}

#[test]
fn an_agent_that_comes_back_with_less_that_is_revocable_asks_the_least_important_back() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent_that("cpus=1;mem=1GiB", |info| info.revocable = "cpus=3".parse().unwrap());
    let app =
        cluster.framework_that("app", &["*"], |info| info.capabilities = [Capability::Revocable].into());
    let revocable: Vec<_> = cluster.offers_of(app).into_iter().filter(|offer| offer.revocable).collect();
    let offers = revocable.iter().map(|offer| offer.id).collect();
    let work = [("r1", 0), ("r2", 7), ("r3", 0)];
    let info = |(id, priority)| TaskInfo { priority, ..task(id, "cpus=1") };
    let operations = vec![Operation::Launch(work.map(info).to_vec())];
    cluster.call(app, CallBody::Accept { offers, operations, filters: NO_FILTER });
    for (id, _) in work {
        cluster.advance(secs(1));
        let update = cluster.report(agent, id, TaskState::Running);
        cluster.acknowledge(app, agent, id, &update);
    }
    cluster.decline(app, secs(1_000_000));

    let mut comes_back_with = |revocable: &str| {
        cluster.disconnect(agent);
        cluster.agents[0].info.revocable = revocable.parse().unwrap();
        cluster.connect(agent);
        cluster.asked_back()
    };
    assert_eq!(comes_back_with("cpus=2"), ["app: r3"]);
    assert_eq!(comes_back_with("cpus=1"), ["app: r3", "app: r1"]);
    assert_eq!(comes_back_with("cpus=2"), ["app: r3"]);
    assert_eq!(comes_back_with("cpus=3"), Vec::<String>::new());
    assert_eq!(comes_back_with("cpus=0"), ["app: r1, r2, r3"]);
    cluster.advance(secs(30));
    cluster.take_updates(app);
    cluster.killed(agent, app, "r1");
    assert_eq!(cluster.take_updates(app).pop().map(|update| update.reason), Some(Reason::Revoked));
}
