//! Whoever calls too often is told when to call again; nothing of it is done, and nothing is lost.

use divvy_proto::scheduler::CallBody;
use divvy_proto::task::TaskState;

use crate::kernel::testing::*;
use crate::kernel::*;
use crate::story;

#[test]
fn a_call_too_many_is_refused_with_the_time_to_wait_and_is_welcome_then() {
    let config = Config { default_rate_limit: Some(2), ..Config::default() };
    let mut cluster = Cluster::with(config);
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.forget();
    cluster.call(app, CallBody::Revive { roles: vec![] });
    cluster.call(app, CallBody::Revive { roles: vec![] });
    let offers = cluster.held(app);
    let operations = vec![launch(&[("t1", "cpus=4;mem=8GiB")])];
    let accept = CallBody::Accept { offers, operations, filters: NO_FILTER };
    cluster.call(app, accept.clone());
    story!(
        cluster,
        "app < c2 accepted",
        "app < c3 accepted",
        "app < c4 refused: too many calls: try again in 500 ms",
    );
    assert_eq!(cluster.kernel.offers().len(), 1);
    cluster.advance(std::time::Duration::from_millis(500));
    cluster.call_again(app, "c4", accept);
    // Acknowledgements are free.
    let running = cluster.report(agent, "t1", TaskState::Running);
    cluster.acknowledge(app, agent, "t1", &running);
    // And so is the repetition of what was done.
    cluster.call_again(app, "c2", CallBody::Revive { roles: vec![] });
    story!(
        cluster,
        "app < c4 accepted",
        "agent 0 < launch f1-0/t1",
        "app < t1 is RUNNING: command_exited (u1)",
        "agent 0 < acknowledge u1 of t1",
        "app < c2 accepted",
    );
}

#[test]
fn one_principal_has_one_limit_whatever_its_frameworks_and_others_are_not_disturbed() {
    let config = Config {
        rate_limits: [("alice".parse().unwrap(), 1), ("bob".parse().unwrap(), 1)].into(),
        ..Config::default()
    };
    let mut cluster = Cluster::with(config);
    let [one, two, bob, carol] = ["one", "two", "bob", "carol"].map(|name| cluster.framework(name));
    for (at, alices) in [one, two].into_iter().enumerate() {
        cluster.unsubscribe(alices);
        cluster.frameworks[at].info.principal = Some("alice".parse().unwrap());
        cluster.subscribe(alices);
    }
    cluster.forget();
    for framework in [one, two, bob, carol, carol, carol] {
        cluster.call(framework, CallBody::Suppress { roles: vec![] });
    }
    story!(
        cluster,
        "one < c7 accepted",
        "two < c8 refused: too many calls: try again in 1000 ms",
        "bob < c9 accepted",
        "carol < c10 accepted",
        "carol < c11 accepted",
        "carol < c12 accepted",
    );
}
