//! Limits hold for the whole of a call, at the role and at every role above it; what is only on offer does not count.

use divvy_proto::quota::Quota;

use crate::kernel::testing::*;
use crate::kernel::*;

fn limit(cluster: &mut Cluster, role: &str, limit: &str) {
    let quota = Some(Quota { limit: limit.parse().unwrap(), ..Quota::default() });
    cluster.operator(OperatorRequest::SetQuota { role: role.parse().unwrap(), quota, force: true });
    cluster.forget();
}

/// Two frameworks, each of which holds as much as the limit of three cores leaves: what is on offer to others does not count.
fn at_hand(roles: [&str; 2]) -> (Cluster, [AgentHandle; 2], [FrameworkHandle; 2]) {
    let mut cluster = Cluster::new();
    limit(&mut cluster, "eng", "cpus=3");
    let frameworks = [cluster.framework_in("one", &[roles[0]]), cluster.framework_in("two", &[roles[1]])];
    let agents = [cluster.agent("cpus=3;mem=8GiB"), cluster.agent("cpus=3;mem=8GiB")];
    let held = frameworks.map(|framework| cluster.offers_of(framework)[0].resources.to_string());
    assert_eq!(held, ["cpus=3;mem=8GiB", "cpus=3;mem=8GiB"]);
    cluster.forget();
    (cluster, agents, frameworks)
}

fn refusals(cluster: &mut Cluster) -> Vec<String> {
    let lines = cluster.story().into_iter();
    lines.filter_map(|line| Some(line.split_once(" refused: ")?.1.to_owned())).collect()
}

#[test]
fn a_call_may_not_exceed_the_limit_of_a_role_above() {
    let (mut cluster, _, [one, two]) = at_hand(["eng/ads", "eng/web"]);
    cluster.launch(one, &[("t1", "cpus=2;mem=1GiB")]);
    cluster.forget();
    cluster.launch(two, &[("t2", "cpus=1;mem=1GiB"), ("t3", "cpus=1;mem=1GiB")]);
    assert_eq!(
        cluster.story()[..3],
        [
            "two < c4 refused: role eng would exceed its limit: needs cpus=2, has 1",
            "two < t2 is DROPPED: offer_gone",
            "two < t3 is DROPPED: offer_gone",
        ]
    );
    // What the limit leaves is offered again.
    cluster.launch(two, &[("t2", "cpus=1;mem=1GiB")]);
    assert_eq!((refusals(&mut cluster), cluster.kernel.tasks().len()), (vec![], 2));
}

#[test]
fn a_call_over_several_agents_is_counted_whole() {
    let mut cluster = Cluster::new();
    limit(&mut cluster, "eng", "cpus=3");
    let app = cluster.framework_in("app", &["eng"]);
    let agents = [cluster.agent("cpus=2;mem=8GiB"), cluster.agent("cpus=1;mem=8GiB")];
    let rival = cluster.framework_in("rival", &["eng"]);
    cluster.agent("cpus=1;mem=8GiB");
    cluster.launch(rival, &[("t", "cpus=1;mem=1GiB")]);
    cluster.forget();
    cluster.launch_gang(app, &[(agents[0], "t1", "cpus=2;mem=1GiB"), (agents[1], "t2", "cpus=1;mem=1GiB")]);
    assert_eq!(
        cluster.story()[..3],
        [
            "app < c4 refused: role eng would exceed its limit: needs cpus=3, has 2",
            "app < t1 is DROPPED: offer_gone",
            "app < t2 is DROPPED: offer_gone",
        ]
    );
}

#[test]
fn what_is_reserved_counts_once_also_when_a_task_takes_it() {
    let (mut cluster, [agent, other], [one, two]) = at_hand(["eng", "eng"]);
    cluster.accept_with(one, vec![reserve("", "cpus=3", &[]), launch(&[("t1", "cpus=3;mem=1GiB")])]);
    assert_eq!(cluster.kernel.tasks().len(), 1);
    assert_eq!(cluster.allocation(agent, "t1"), "eng: cpus=3");
    cluster.forget();
    cluster.accept_with(two, vec![reserve("", "cpus=1", &[])]);
    assert_eq!(refusals(&mut cluster), ["role eng would exceed its limit: needs cpus=1, has 0"]);
    cluster.reserve(other, "eng", "cpus=1");
    assert!(
        cluster.story().contains(&"answer: role eng would exceed its limit: needs cpus=1, has 0".to_owned())
    );
}

#[test]
fn what_is_on_the_way_to_the_store_counts_as_reserved() {
    let (mut cluster, [agent, other], [_, two]) = at_hand(["eng", "eng/ads"]);
    cluster.store_is_slow = true;
    cluster.reserve(agent, "eng/web", "cpus=2");
    cluster.forget();
    cluster.reserve(other, "eng", "cpus=2");
    assert_eq!(cluster.story(), ["answer: role eng would exceed its limit: needs cpus=4, has 3"]);
    cluster.launch(two, &[("t1", "cpus=2;mem=1GiB")]);
    assert_eq!(refusals(&mut cluster), ["role eng would exceed its limit: needs cpus=4, has 3"]);
    cluster.reserve(other, "eng", "cpus=1");
    cluster.settle_store();
    assert_eq!(cluster.reservations(), ["eng/web: cpus=2 of a1-0, an orphan", "eng: cpus=1 of a1-1"]);
}

#[test]
fn what_an_unreserve_gives_back_may_be_used_in_the_same_call() {
    let (mut cluster, _, [one, _]) = at_hand(["eng", "eng"]);
    cluster.accept_with(one, vec![reserve("", "cpus=3", &[])]);
    cluster.forget();
    let operations = vec![unreserve("", "cpus=2", &["eng"]), launch(&[("t1", "cpus=3;mem=1GiB")])];
    cluster.accept_with(one, operations);
    assert_eq!((refusals(&mut cluster), cluster.kernel.tasks().len()), (vec![], 1));
}

#[test]
fn a_refinement_counts_only_between_the_roles() {
    let mut cluster = Cluster::new();
    limit(&mut cluster, "eng/ads", "cpus=2");
    let agent = cluster.agent("cpus=4;mem=8GiB");
    cluster.reserve(agent, "eng", "cpus=4");
    limit(&mut cluster, "eng", "cpus=4");
    let app = cluster.framework_in("app", &["eng/ads"]);
    cluster.accept_with(app, vec![reserve("", "cpus=3", &["eng"])]);
    assert_eq!(refusals(&mut cluster), ["role eng/ads would exceed its limit: needs cpus=3, has 2"]);
    cluster.accept_with(app, vec![reserve("", "cpus=2", &["eng"])]);
    assert_eq!(refusals(&mut cluster), Vec::<String>::new());
    assert_eq!(cluster.reservations(), ["eng: cpus=2 of a1-0", "eng>eng/ads: cpus=2 of a1-0"]);
}
