//! Limits hold for the whole of a call, at the role and at every role above it; what is only on offer does not count.

use divvy_proto::quota::Quota;

use crate::kernel::testing::*;
use crate::kernel::*;
use crate::story;

fn limit(cluster: &mut Cluster, role: &str, limit: &str) {
    let quota = Some(Quota { limit: limit.parse().unwrap(), ..Quota::default() });
    cluster.operator(OperatorRequest::SetQuota { role: role.parse().unwrap(), quota, force: true });
    cluster.forget();
}

/// Two agents of four cores each, all of which a framework holds; then its role is limited.
fn at_hand(
    role: &str,
    limited: &str,
    to: &str,
) -> (Cluster, [AgentHandle; 2], FrameworkHandle, Vec<divvy_proto::OfferId>) {
    let mut cluster = Cluster::new();
    let agents = [cluster.agent("cpus=4;mem=8GiB"), cluster.agent("cpus=4;mem=8GiB")];
    let app = cluster.framework_in("app", &[role]);
    limit(&mut cluster, limited, to);
    let offers = cluster.held(app);
    (cluster, agents, app, offers)
}

fn refusals(cluster: &mut Cluster) -> Vec<String> {
    let lines = cluster.story().into_iter();
    lines.filter_map(|line| Some(line.split_once(" refused: ")?.1.to_owned())).collect()
}

#[test]
fn a_call_may_not_exceed_the_limit_of_a_role_above() {
    let (mut cluster, _, app, offers) = at_hand("eng/ads", "eng", "cpus=3");
    let launching = |ids: &[&str]| {
        let tasks: Vec<_> = ids.iter().map(|id| (*id, "cpus=2;mem=1GiB")).collect();
        vec![launch(&tasks)]
    };
    cluster.accept_these(app, offers[..1].to_vec(), launching(&["t1", "t2"]));
    assert_eq!(refusals(&mut cluster), ["role eng would exceed its limit: needs cpus=4, has 3"]);
    cluster.accept_these(app, offers[1..].to_vec(), launching(&["t3"]));
    assert_eq!(cluster.kernel.tasks().len(), 1);
}

#[test]
fn a_call_over_several_agents_is_counted_whole() {
    let (mut cluster, [one, two], app, _) = at_hand("eng", "eng", "cpus=3");
    cluster.launch_gang(app, &[(one, "t1", "cpus=2;mem=1GiB"), (two, "t2", "cpus=2;mem=1GiB")]);
    let told = cluster.story();
    assert_eq!(
        told.iter().take(3).map(String::as_str).collect::<Vec<_>>(),
        [
            "app < c2 refused: role eng would exceed its limit: needs cpus=4, has 3",
            "app < t1 is DROPPED: offer_gone",
            "app < t2 is DROPPED: offer_gone",
        ]
    );
}

#[test]
fn what_is_reserved_counts_once_also_when_a_task_takes_it() {
    let (mut cluster, [agent, _], app, offers) = at_hand("eng", "eng", "cpus=3");
    let operations = vec![reserve("", "cpus=3", &[]), launch(&[("t1", "cpus=3;mem=1GiB")])];
    cluster.accept_these(app, offers[..1].to_vec(), operations);
    assert_eq!(cluster.kernel.tasks().len(), 1);
    assert_eq!(cluster.allocation(agent, "t1"), "eng: cpus=3");
    cluster.forget();
    cluster.accept_these(app, offers[1..].to_vec(), vec![reserve("", "cpus=1", &[])]);
    assert_eq!(refusals(&mut cluster), ["role eng would exceed its limit: needs cpus=1, has 0"]);
    cluster.reserve(agent, "eng", "cpus=1");
    assert!(
        cluster.story().contains(&"answer: role eng would exceed its limit: needs cpus=1, has 0".to_owned())
    );
}

#[test]
fn what_an_unreserve_gives_back_may_be_used_in_the_same_call() {
    let (mut cluster, _, app, offers) = at_hand("eng", "eng", "cpus=3");
    cluster.accept_these(app, offers[..1].to_vec(), vec![reserve("", "cpus=3", &[])]);
    let offers: Vec<_> =
        cluster.offers_of(app).into_iter().filter(|o| !o.reserved.is_empty()).map(|o| o.id).collect();
    cluster.forget();
    let operations = vec![unreserve("", "cpus=2", &["eng"]), launch(&[("t1", "cpus=3;mem=1GiB")])];
    cluster.accept_these(app, offers, operations);
    assert_eq!((refusals(&mut cluster), cluster.kernel.tasks().len()), (vec![], 1));
}

#[test]
fn a_refinement_counts_only_between_the_roles() {
    let (mut cluster, [agent, _], app, _) = at_hand("eng/ads", "eng/ads", "cpus=2");
    cluster.decline(app, secs(0));
    cluster.reserve(agent, "eng", "cpus=4");
    limit(&mut cluster, "eng", "cpus=4");
    let held: Vec<_> =
        cluster.offers_of(app).into_iter().filter(|o| !o.reserved.is_empty()).map(|o| o.id).collect();
    cluster.accept_these(app, held, vec![reserve("", "cpus=3", &["eng"])]);
    assert_eq!(refusals(&mut cluster), ["role eng/ads would exceed its limit: needs cpus=3, has 2"]);
    let held: Vec<_> =
        cluster.offers_of(app).into_iter().filter(|o| !o.reserved.is_empty()).map(|o| o.id).collect();
    cluster.accept_these(app, held, vec![reserve("", "cpus=2", &["eng"])]);
    assert_eq!(refusals(&mut cluster), Vec::<String>::new());
    story!(cluster,);
}
