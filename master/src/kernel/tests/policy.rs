//! Quotas and weights: how operators set them, what is refused, and what follows at once.

use divvy_proto::amounts::Amounts;
use divvy_proto::api::Change;
use divvy_proto::quota::Quota;

use crate::kernel::testing::*;
use crate::kernel::*;
use crate::story;

fn quota(guarantee: &str, limit: &str) -> Option<Quota> {
    let (guarantee, limit) = (guarantee.parse().unwrap(), limit.parse().unwrap());
    Some(Quota { guarantee, limit, ..Quota::default() })
}

fn set(cluster: &mut Cluster, role: &str, quota: Option<Quota>, force: bool) {
    cluster.operator(OperatorRequest::SetQuota { role: role.parse().unwrap(), quota, force });
}

fn set_weight(cluster: &mut Cluster, role: &str, weight: Option<&str>) {
    let (role, weight) = (role.parse().unwrap(), weight.map(|weight| weight.parse().unwrap()));
    cluster.operator(OperatorRequest::SetWeight { role, weight });
}

#[test]
fn a_quota_is_durable_before_it_counts_and_is_answered() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    cluster.forget();
    cluster.store_is_slow = true;
    set(&mut cluster, "eng", quota("cpus=2", "cpus=3"), false);
    story!(cluster, "persist quota of eng");
    assert_eq!(cluster.kernel.quotas(), []);
    cluster.store_answers();
    story!(cluster, "answer: done");
    let role = cluster.kernel.roles().into_iter().find(|role| role.path.as_str() == "eng").unwrap();
    assert_eq!((role.quota, role.unmet), (quota("cpus=2", "cpus=3"), "cpus=2".parse().unwrap()));
    cluster.store_is_slow = false;
    set(&mut cluster, "eng", None, false);
    story!(cluster, "persist no quota of eng", "answer: done");
    assert_eq!(cluster.kernel.quotas(), []);
}

#[test]
fn a_quota_has_to_go_with_those_that_are_on_their_way_to_the_store() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    cluster.store_is_slow = true;
    set(&mut cluster, "a", quota("cpus=3", ""), false);
    cluster.forget();
    set(&mut cluster, "b", quota("cpus=2", ""), false);
    story!(
        cluster,
        "answer: cpus=5 (a 3, b 2) would be promised in all, more than the cluster's cpus=4: add agents first, promise less, \
         or force it"
    );
    set(&mut cluster, "b", quota("cpus=2", ""), true);
    set(&mut cluster, "a/x", quota("cpus=3.5", ""), true);
    story!(
        cluster,
        "persist quota of b",
        "answer: the roles below a would be promised cpus=3.5 (a/x 3.5), more than a's own guarantee of 3: raise that \
         first, or promise less"
    );
}

#[test]
fn a_limit_below_what_is_used_has_to_be_forced_and_stops_new_launches_only() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework_in("app", &["eng/app"]);
    cluster.launch(app, &[("t1", "cpus=3;mem=1GiB")]);
    cluster.forget();
    set(&mut cluster, "eng", quota("", "cpus=2;mem=1GiB"), false);
    story!(
        cluster,
        "answer: eng has cpus=3 in use or reserved, more than the limit of 2 that is asked for: force it to stop new launches \
         until enough has ended (nothing is killed)"
    );
    let offer = cluster.held(app)[0];
    set(&mut cluster, "eng", quota("", "cpus=2;mem=1GiB"), true);
    story!(cluster, "persist quota of eng", format!("app < rescind {offer}"), "answer: done");
    // What is in use already does not stand in the way of another limit.
    set(&mut cluster, "eng", quota("", "cpus=2;mem=1GiB;disk=1GiB"), false);
    story!(cluster, "persist quota of eng", "answer: done");
}

#[test]
fn offers_that_a_new_guarantee_needs_are_taken_back_the_latest_first_and_no_more_than_it_needs() {
    let mut cluster = Cluster::new();
    for _ in 0..4 {
        cluster.agent("cpus=4;mem=8GiB");
    }
    let other = cluster.framework_in("other", &["other"]);
    let offers = cluster.held(other);
    assert_eq!(offers.len(), 4);
    cluster.forget();
    set(&mut cluster, "eng", quota("cpus=6", ""), false);
    let story = cluster.story();
    let rescinded: Vec<_> =
        story.iter().filter(|line| line.starts_with("other < rescind")).cloned().collect();
    let latest = |nth: usize| format!("other < rescind {}", offers[nth]);
    assert_eq!(rescinded, [latest(3), latest(2)], "{story:#?}");
}

#[test]
fn the_flags_weights_count_where_the_registry_has_none() {
    let weights = [("flag".parse().unwrap(), 3000), ("both".parse().unwrap(), 3000)].into();
    let mut cluster = Cluster::with(Config { weights, ..Config::default() });
    set_weight(&mut cluster, "both", Some("2.5"));
    set_weight(&mut cluster, "set", Some("0.5"));
    let all = |kernel: &Kernel| -> Vec<String> {
        kernel.weights().iter().map(|found| format!("{} {}", found.role, found.weight)).collect()
    };
    assert_eq!(all(&cluster.kernel), ["both 2.5", "flag 3", "set 0.5"]);
    let next = Kernel::recover(cluster.kernel.config.clone(), cluster.registry.clone(), cluster.now);
    assert_eq!(all(&next), ["both 2.5", "flag 3", "set 0.5"]);
    set_weight(&mut cluster, "both", None);
    set_weight(&mut cluster, "set", None);
    assert_eq!(all(&cluster.kernel), ["both 3", "flag 3"]);
}

#[test]
fn quotas_survive_a_restart_and_the_next_one_has_to_go_with_them() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    set(&mut cluster, "eng", quota("cpus=3", ""), false);
    set(&mut cluster, "gone", quota("cpus=1", ""), false);
    set(&mut cluster, "gone", None, false);
    let quotas = cluster.kernel.quotas();
    cluster.kernel = Kernel::recover(cluster.kernel.config.clone(), cluster.registry.clone(), cluster.now);
    assert_eq!(cluster.kernel.quotas(), quotas);
    let unmet: Amounts = "cpus=3".parse().unwrap();
    assert_eq!(cluster.kernel.role(&"eng".parse().unwrap()).unmet, unmet);
    cluster.forget();
    // Agents that may still come back are part of the cluster.
    set(&mut cluster, "ops", quota("cpus=2", ""), false);
    let answer = cluster.story().last().cloned().unwrap_or_default();
    assert!(answer.starts_with("answer: cpus=5 (eng 3, ops 2) would be promised in all"), "{answer}");
}

#[test]
fn those_who_watch_are_told_of_a_role_whose_policy_is_different() {
    let mut cluster = Cluster::new();
    cluster.forget();
    set_weight(&mut cluster, "eng/ads", Some("2"));
    let roles: Vec<_> = cluster
        .changes
        .drain(..)
        .filter_map(|change| match change {
            Change::Role(role) => Some((role.path.to_string(), role.weight)),
            _ => None,
        })
        .collect();
    assert_eq!(roles, [("eng/ads".to_owned(), 2000)]);
}
