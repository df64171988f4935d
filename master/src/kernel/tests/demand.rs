//! A framework says what it wants, and is offered that: cut to size, no more than it wants, and nothing once it has it.

use std::time::Duration;

use divvy_proto::demand::{Demand, Gang};
use divvy_proto::scheduler::CallBody;
use divvy_proto::task::TaskState;

use crate::kernel::testing::*;
use crate::story;

/// A framework that is connected and wants nothing.
fn quiet(cluster: &mut Cluster, name: &str, roles: &[&str]) -> FrameworkHandle {
    let app = cluster.framework_in(name, roles);
    cluster.decline(app, Duration::ZERO);
    cluster.call(app, CallBody::Suppress { roles: vec![] });
    cluster.decline(app, Duration::ZERO);
    cluster.forget();
    app
}

#[test]
fn offers_are_cut_to_what_is_wanted_and_end_when_it_is_met() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=8;mem=8GiB");
    let app = quiet(&mut cluster, "app", &["*"]);
    cluster.demand(app, "*", vec![shape("web", "cpus=1;mem=1GiB", 3)]);
    story!(cluster, "app < c5 accepted", "app < offers o1-3 of a1-0: cpus=3;mem=3GiB for 3 web");
    // Two of three are launched; the third is wanted again at once.
    cluster.launch(app, &[("t1", "cpus=1;mem=1GiB"), ("t2", "cpus=1;mem=1GiB")]);
    story!(
        cluster,
        "app < c6 accepted",
        "agent 0 < launch f1-0/t1",
        "agent 0 < launch f1-0/t2",
        "app < offers o1-4 of a1-0: cpus=1;mem=1GiB for 1 web",
    );
    cluster.launch(app, &[("t3", "cpus=1;mem=1GiB")]);
    story!(cluster, "app < c7 accepted", "agent 0 < launch f1-0/t3");
    // What ends is not wanted again until somebody says so.
    cluster.report(agent, "t1", TaskState::Finished);
    story!(cluster, "app < t1 is FINISHED: command_exited (u1)");
    cluster.demand(app, "*", vec![shape("web", "cpus=1;mem=1GiB", 1)]);
    story!(cluster, "app < c8 accepted", "app < offers o1-5 of a1-0: cpus=1;mem=1GiB for 1 web");
}

#[test]
fn what_is_on_offer_counts_towards_a_new_demand() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=8;mem=8GiB");
    let app = quiet(&mut cluster, "app", &["*"]);
    cluster.demand(app, "*", vec![shape("web", "cpus=1;mem=1GiB", 3)]);
    cluster.forget();
    cluster.demand(app, "*", vec![shape("web", "cpus=1;mem=1GiB", 3)]);
    cluster.demand(app, "*", vec![shape("web", "cpus=1;mem=1GiB", 4)]);
    story!(
        cluster,
        "app < c6 accepted",
        "app < c7 accepted",
        "app < offers o1-4 of a1-0: cpus=1;mem=1GiB for 1 web",
    );
}

#[test]
fn what_is_declined_is_wanted_again_when_the_filter_ends() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=8;mem=8GiB");
    let app = quiet(&mut cluster, "app", &["*"]);
    cluster.demand(app, "*", vec![shape("web", "cpus=1;mem=1GiB", 1)]);
    cluster.forget();
    cluster.decline(app, secs(7));
    cluster.advance(secs(6));
    story!(cluster, "app < c6 accepted");
    cluster.advance(secs(1));
    story!(cluster, "app < offers o1-4 of a1-0: cpus=1;mem=1GiB for 1 web");
}

#[test]
fn a_revive_ends_the_demand_and_so_does_a_suppress() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=8;mem=8GiB");
    let app = quiet(&mut cluster, "app", &["*"]);
    cluster.demand(app, "*", vec![shape("web", "cpus=1;mem=1GiB", 1)]);
    cluster.forget();
    cluster.call(app, CallBody::Revive { roles: vec![] });
    story!(cluster, "app < c6 accepted", "app < offers o1-4 of a1-0: cpus=7;mem=7GiB");
    cluster.demand(app, "*", vec![shape("web", "cpus=1;mem=1GiB", 1)]);
    cluster.call(app, CallBody::Suppress { roles: vec![] });
    cluster.decline(app, Duration::ZERO);
    story!(cluster, "app < c7 accepted", "app < c8 accepted", "app < c9 accepted");
}

#[test]
fn a_demand_lives_as_long_as_its_connection() {
    let mut cluster = Cluster::new();
    let app = quiet(&mut cluster, "app", &["*"]);
    cluster.demand(app, "*", vec![shape("web", "cpus=1;mem=1GiB", 1)]);
    cluster.unsubscribe(app);
    cluster.forget();
    cluster.agent("cpus=8;mem=8GiB");
    cluster.subscribe(app);
    // It said nothing of what it wants: all is offered.
    story!(
        cluster,
        "persist a1-0",
        "agent 0 < registered as a1-0",
        "persist f1-0",
        "app < subscribed as f1-0",
        "app < offers o1-1 of a1-0: cpus=8;mem=8GiB",
    );
    cluster.decline(app, Duration::ZERO);
    cluster.demand(app, "*", vec![shape("web", "cpus=1;mem=1GiB", 1)]);
    cluster.fail_over_and_return();
    assert_eq!(cluster.kernel.offers()[0].resources.to_string(), "cpus=8;mem=8GiB");
}

#[test]
fn tasks_count_towards_the_shape_into_which_they_fit() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=9;mem=9GiB");
    let app = quiet(&mut cluster, "app", &["*"]);
    let shapes = vec![shape("small", "cpus=1;mem=1GiB", 2), shape("large", "cpus=3;mem=3GiB", 2)];
    cluster.demand(app, "*", shapes);
    assert_eq!(cluster.held(app).len(), 2);
    cluster.forget();
    cluster.launch(app, &[("l1", "cpus=3;mem=3GiB"), ("s1", "cpus=1;mem=1GiB")]);
    story!(
        cluster,
        "app < c6 accepted",
        "agent 0 < launch f1-0/l1",
        "agent 0 < launch f1-0/s1",
        "app < offers o1-5 of a1-0: cpus=1;mem=1GiB for 1 small, o1-6 of a1-0: cpus=3;mem=3GiB for 1 large",
    );
}

#[test]
fn a_gang_is_offered_whole_and_launched_whole() {
    let mut cluster = Cluster::new();
    let one = cluster.agent("cpus=4;mem=4GiB");
    let app = quiet(&mut cluster, "app", &["*"]);
    cluster.demand_gang(app, "*", vec![shape("rank", "cpus=4;mem=4GiB", 2)], 60);
    story!(cluster, "app < c5 accepted");
    let two = cluster.agent("cpus=4;mem=4GiB");
    let offers = cluster.offers_of(app);
    let gangs: Vec<_> = offers.iter().filter_map(|offer| offer.demand.as_ref()?.gang).collect();
    assert_eq!((offers.len(), gangs.len()), (2, 2));
    assert_eq!(gangs[0], gangs[1]);
    cluster.forget();
    cluster.launch_gang(app, &[(one, "r0", "cpus=4;mem=4GiB"), (two, "r1", "cpus=4;mem=4GiB")]);
    story!(cluster, "app < c6 accepted", "agent 0 < launch f1-0/r0", "agent 1 < launch f1-0/r1");
}

#[test]
fn a_gang_that_loses_an_agent_is_wanted_whole_again() {
    let mut cluster = Cluster::new();
    let agents = [cluster.agent("cpus=4;mem=4GiB"), cluster.agent("cpus=4;mem=4GiB")];
    let app = quiet(&mut cluster, "app", &["*"]);
    cluster.demand_gang(app, "*", vec![shape("rank", "cpus=4;mem=4GiB", 2)], 60);
    cluster.forget();
    cluster.disconnect(agents[1]);
    story!(cluster, "app < rescind o1-6", "app < rescind o1-5");
    cluster.connect(agents[1]);
    story!(
        cluster,
        "agent 1 < registered as a1-1",
        "app < offers o1-7 of a1-0: cpus=4;mem=4GiB for 1 rank of gang 2, o1-8 of a1-1: cpus=4;mem=4GiB for 1 rank of gang 2",
    );
}

#[test]
fn what_no_framework_can_mean_is_refused_and_what_was_wanted_stays() {
    let refused = |role: &str, demand: Demand| {
        let mut cluster = Cluster::new();
        let app = cluster.framework("app");
        cluster.forget();
        cluster.call(app, CallBody::Demand { role: role.parse().unwrap(), demand });
        cluster.agent("cpus=1;mem=1GiB");
        assert_eq!(cluster.held(app).len(), 1);
        cluster.story().remove(0)
    };
    let of = |shapes| Demand { shapes, gang: None };
    assert_eq!(refused("eng", of(vec![])), "app < c2 refused: role eng is not subscribed");
    let web = || shape("web", "cpus=1;mem=1GiB", 1);
    assert_eq!(
        refused("*", of(vec![web(), web()])),
        "app < c2 refused: demand.shapes[1].name: \"web\" is not valid: expected each name once"
    );
    assert_eq!(
        refused("*", of(vec![shape("", "cpus=1", 1)])),
        "app < c2 refused: demand.shapes[0].name: \"\" is not valid: expected 1 to 255 bytes"
    );
    assert_eq!(
        refused("*", of(vec![shape("web", "ports=[1]", 1)])),
        "app < c2 refused: demand.shapes[0].resources: \"ports=[1]\" is not valid: expected at least 0.01 cpus or 32 MiB of \
         mem, as an offer is worth making"
    );
    assert_eq!(
        refused("*", of(vec![shape("web", "cpus=0.009;mem=31MiB", 1)])),
        "app < c2 refused: demand.shapes[0].resources: \"cpus=0.009;mem=31MiB\" is not valid: expected at least 0.01 cpus or \
         32 MiB of mem, as an offer is worth making"
    );
    assert_eq!(
        refused("*", of(vec![shape("web", "cpus=0.01", 100_001)])),
        "app < c2 refused: demand.shapes[0].count: \"100001\" is not valid: expected at most 100000"
    );
    let many = (0..11).map(|at| shape(&format!("web{at}"), "mem=32MiB", 100_000)).collect();
    assert_eq!(
        refused("*", of(many)),
        "app < c2 refused: demand.shapes: \"1100000\" is not valid: expected at most 1000000 in all"
    );
    for (hold, shown) in [(secs(3601), "3601000 ms"), (Duration::from_millis(999), "999 ms")] {
        assert_eq!(
            refused("*", Demand { shapes: vec![web()], gang: Some(Gang { hold }) }),
            format!("app < c2 refused: demand.gang.hold: \"{shown}\" is not valid: expected 1 s to an hour")
        );
    }
}
