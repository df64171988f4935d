//! Who is offered what: fairness, filters, revive and suppress, expiry.

use divvy_proto::scheduler::{CallBody, Filters};
use divvy_proto::task::TaskState;

use crate::kernel::testing::*;
use crate::kernel::*;
use crate::story;

/// Lets frameworks launch a task of their one shape from whatever they are offered, until nobody can. Says how many each has.
fn fill(cluster: &mut Cluster, shapes: &[(FrameworkHandle, &str)]) -> Vec<usize> {
    let mut launched = vec![0; shapes.len()];
    loop {
        let mut is_quiet = true;
        for (nth, (framework, shape)) in shapes.iter().enumerate() {
            let Some(offer) = cluster.held(*framework).first().copied() else { continue };
            is_quiet = false;
            if cluster.frameworks[nth].offers[&offer].resources.contains(&shape.parse().unwrap()) {
                let id = format!("t{}", launched[nth]);
                cluster.accept(*framework, vec![offer], &[(&id, shape)], NO_FILTER);
                launched[nth] += 1;
            } else {
                cluster.decline(*framework, secs(1_000_000));
            }
        }
        if is_quiet {
            return launched;
        }
    }
}

/// Ghodsi et al., NSDI 2011, section 4.1: 9 cpus and 18 GB; A wants <1, 4>, B wants <3, 1>; A gets three, B two.
#[test]
fn the_example_of_the_paper() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.framework("a"), cluster.framework("b"));
    cluster.agent("cpus=9;mem=18GB");
    let launched = fill(&mut cluster, &[(a, "cpus=1;mem=4GB"), (b, "cpus=3;mem=1GB")]);
    assert_eq!(launched, [3, 2]);
    let shares: Vec<f64> = cluster.kernel.frameworks().iter().map(|f| f.dominant_share).collect();
    assert_eq!(shares, [12.0 / 18.0, 6.0 / 9.0]);
}

#[test]
fn a_role_of_twice_the_weight_gets_twice_as_much() {
    let weights = [("heavy".parse().unwrap(), 2000)].into();
    let mut cluster = Cluster::with(Config { weights, ..Config::default() });
    let heavy = cluster.framework_in("a", &["heavy"]);
    let light = cluster.framework_in("b", &["light"]);
    cluster.agent("cpus=12;mem=12GiB");
    let shape = "cpus=1;mem=1GiB";
    assert_eq!(fill(&mut cluster, &[(heavy, shape), (light, shape)]), [8, 4]);
    let weights: Vec<_> =
        cluster.kernel.roles().iter().map(|role| (role.path.to_string(), role.weight)).collect();
    assert_eq!(weights, [("heavy".to_owned(), 2000), ("light".to_owned(), 1000)]);
}

#[test]
fn a_role_shares_with_its_siblings_whatever_number_of_roles_it_has_below() {
    let mut cluster = Cluster::new();
    let ads = cluster.framework_in("a", &["eng/ads"]);
    let web = cluster.framework_in("b", &["eng/web"]);
    let eng = cluster.framework_in("c", &["eng"]);
    let ops = cluster.framework_in("d", &["ops"]);
    cluster.agent("cpus=12;mem=12GiB");
    let shape = "cpus=1;mem=1GiB";
    let launched = fill(&mut cluster, &[(ads, shape), (web, shape), (eng, shape), (ops, shape)]);
    assert_eq!(launched, [2, 2, 2, 6]);
    let held: Vec<_> =
        cluster.kernel.roles().iter().map(|r| format!("{} {}", r.path, r.resources.cpus())).collect();
    assert_eq!(held, ["eng 6", "eng/ads 2", "eng/web 2", "ops 6"]);
}

#[test]
fn equal_shares_are_decided_by_fewest_grants_and_then_by_name() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.framework("a"), cluster.framework("b"));
    cluster.forget();
    cluster.agent("cpus=4;mem=8GiB");
    cluster.decline(a, secs(0));
    cluster.decline(b, secs(0));
    cluster.decline(a, secs(0));
    story!(
        cluster,
        "persist a1-0",
        "agent 0 < registered as a1-0",
        "a < offers o1-1 of a1-0: cpus=4;mem=8GiB",
        "a < c3 accepted",
        "b < offers o1-2 of a1-0: cpus=4;mem=8GiB",
        "b < c4 accepted",
        "a < offers o1-3 of a1-0: cpus=4;mem=8GiB",
        "a < c5 accepted",
        "b < offers o1-4 of a1-0: cpus=4;mem=8GiB",
    );
}

#[test]
fn what_was_declined_is_not_seen_again_until_the_time_is_up_or_there_is_more() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.launch(app, &[("t1", "cpus=1;mem=1GiB")]);
    cluster.decline(app, secs(60));
    cluster.forget();
    cluster.advance(secs(59));
    story!(cluster,);
    cluster.advance(secs(1));
    story!(cluster, "app < offers o1-3 of a1-0: cpus=3;mem=7GiB");

    cluster.decline(app, secs(60));
    cluster.report(agent, "t1", TaskState::Finished);
    story!(
        cluster,
        "app < c4 accepted",
        "app < t1 is FINISHED: command_exited (u1)",
        "app < offers o1-4 of a1-0: cpus=4;mem=8GiB",
    );
}

#[test]
fn what_one_declines_the_next_is_offered() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    let (a, b) = (cluster.framework("a"), cluster.framework("b"));
    cluster.forget();
    cluster.decline(a, secs(60));
    cluster.decline(b, secs(60));
    story!(cluster, "a < c3 accepted", "b < offers o1-2 of a1-0: cpus=4;mem=8GiB", "b < c4 accepted");
}

#[test]
fn revive_clears_filters_and_suppress_ends_offers_by_role() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework_in("app", &["eng", "ops"]);
    cluster.forget();
    let eng = || vec!["eng".parse().unwrap()];
    cluster.decline(app, secs(60));
    cluster.call(app, CallBody::Suppress { roles: eng() });
    cluster.decline(app, secs(60));
    story!(
        cluster,
        "app < c2 accepted",
        "app < offers o1-2 of a1-0 for ops: cpus=4;mem=8GiB",
        "app < c3 accepted",
        "app < c4 accepted",
    );
    cluster.advance(secs(50));
    cluster.call(app, CallBody::Revive { roles: eng() });
    story!(cluster, "app < c5 accepted", "app < offers o1-3 of a1-0 for eng: cpus=4;mem=8GiB");
    cluster.call(app, CallBody::Suppress { roles: vec![] });
    cluster.call(app, CallBody::Revive { roles: vec!["other".parse().unwrap()] });
    cluster.decline(app, secs(0));
    story!(
        cluster,
        "app < c6 accepted",
        "app < c7 refused: role other is not subscribed",
        "app < c8 accepted",
    );
}

#[test]
fn an_offer_that_nobody_answers_goes_to_the_next() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    let (app, _) = (cluster.framework("app"), cluster.framework("next"));
    cluster.forget();
    cluster.advance(secs(30));
    story!(cluster, "app < rescind o1-1", "next < offers o1-2 of a1-0: cpus=4;mem=8GiB");
    let late = vec![divvy_proto::OfferId(1 << 32 | 1)];
    cluster.call(app, CallBody::Accept { offers: late, operations: vec![], filters: Filters::default() });
    story!(cluster, "app < c3 refused: offer o1-1 is no longer outstanding");
}

#[test]
fn what_is_too_little_to_be_of_use_is_not_offered() {
    let mut cluster = Cluster::new();
    cluster.framework("app");
    cluster.agent("cpus=0.009;mem=31MiB;disk=100GiB;ports=[1-9]");
    cluster.forget();
    cluster.agent("cpus=0.01");
    cluster.agent("mem=32MiB");
    story!(
        cluster,
        "persist a1-1",
        "agent 1 < registered as a1-1",
        "app < offers o1-1 of a1-1: cpus=0.01",
        "persist a1-2",
        "agent 2 < registered as a1-2",
        "app < offers o1-2 of a1-2: mem=32MiB",
    );
}

#[test]
fn a_framework_in_several_roles_is_offered_in_the_one_that_is_furthest_behind() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework_in("app", &["eng", "ops"]);
    cluster.launch(app, &[("t1", "cpus=1;mem=1GiB")]);
    let shown: Vec<_> = cluster.kernel.offers().into_iter().map(|offer| offer.role.to_string()).collect();
    assert_eq!(shown, ["ops"]);
}
