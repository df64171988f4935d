//! Reservations and volumes: frameworks and operators set resources aside, make volumes of them, and undo both; all of it
//! outlives master and agent.

use divvy_proto::scheduler::{CallBody, Operation};
use divvy_proto::task::TaskState;

use crate::kernel::testing::*;
use crate::kernel::*;
use crate::story;

/// An agent, and a framework in `eng` that holds all of it.
fn at_hand() -> (Cluster, AgentHandle, FrameworkHandle) {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB;disk=10GiB");
    let app = cluster.framework_in("app", &["eng"]);
    cluster.forget();
    (cluster, agent, app)
}

#[test]
fn a_framework_reserves_makes_a_volume_and_launches_on_it_in_one_call() {
    let (mut cluster, agent, app) = at_hand();
    let operations = vec![
        reserve("r", "cpus=2;disk=4GiB", &[]),
        create("v", "data", "3GiB", &["eng"]),
        Operation::Launch(vec![task_with("t1", "cpus=1;mem=1GiB", "data")]),
    ];
    cluster.accept_with(app, operations);
    story!(
        cluster,
        "persist a1-0 reserves [eng: cpus=2;disk=1GiB], volumes [data 3GiB]",
        "agent 0 < volumes [data]",
        "app < c2 accepted",
        "agent 0 < launch f1-0/t1",
        "app < r is done",
        "app < v is done",
        "app < offers o1-2 of a1-0 for eng: cpus=3;mem=7GiB;disk=7GiB (eng: cpus=1;disk=1GiB)",
    );
    assert_eq!(cluster.allocation(agent, "t1"), "eng: cpus=1");
    assert_eq!(cluster.reservations(), ["eng: cpus=2;disk=1GiB of a1-0, cpus=1 used"]);
    assert_eq!(cluster.volumes(), ["data 3GiB of a1-0 for eng, used by f1-0/t1"]);

    // When the task has ended the volume is offered, and so is what was reserved.
    let update = cluster.report(agent, "t1", TaskState::Finished);
    cluster.acknowledge(app, agent, "t1", &update);
    cluster.decline(app, secs(0));
    let held = cluster.frameworks[0].offers.values().next().unwrap();
    assert_eq!(held.volumes.len(), 1);
    assert_eq!(held.resources.to_string(), "cpus=4;mem=8GiB;disk=7GiB");
}

#[test]
fn what_is_reserved_is_offered_to_its_role_only_and_what_is_refined_to_the_role_below() {
    let (mut cluster, _, app) = at_hand();
    cluster.accept_and_refuse(app, vec![reserve("", "cpus=3", &[])]);
    let ads = cluster.framework_in("ads", &["eng/ads"]);
    cluster.framework_in("ops", &["ops"]);
    story!(
        cluster,
        "persist a1-0 reserves [eng: cpus=3], volumes []",
        "app < c2 accepted",
        "persist f1-1",
        "ads < subscribed as f1-1",
        "ads < offers o1-2 of a1-0 for eng/ads: cpus=4;mem=8GiB;disk=10GiB (eng: cpus=3)",
        "persist f1-2",
        "ops < subscribed as f1-2",
    );
    cluster.accept_and_refuse(ads, vec![reserve("", "cpus=2", &["eng"])]);
    story!(
        cluster,
        "persist a1-0 reserves [eng: cpus=1, eng>eng/ads: cpus=2], volumes []",
        "ads < c5 accepted",
        "ops < offers o1-3 of a1-0 for ops: cpus=1;mem=8GiB;disk=10GiB",
    );
    cluster.call(ads, CallBody::Revive { roles: vec![] });
    cluster.call(app, CallBody::Revive { roles: vec![] });
    // Eng's own is offered to whoever of eng comes first; what is refined only to those below.
    story!(
        cluster,
        "ads < c6 accepted",
        "ads < offers o1-4 of a1-0 for eng/ads: cpus=3 (eng: cpus=1, eng>eng/ads: cpus=2)",
        "app < c7 accepted",
    );
    cluster.accept_and_refuse(ads, vec![unreserve("", "cpus=2", &["eng", "eng/ads"])]);
    story!(
        cluster,
        "persist a1-0 reserves [eng: cpus=3], volumes []",
        "ads < c8 accepted",
        "app < offers o1-5 of a1-0 for eng: cpus=3 (eng: cpus=3)",
    );
    cluster.accept_and_refuse(app, vec![unreserve("", "cpus=3", &["eng"])]);
    story!(
        cluster,
        "persist a1-0 reserves [], volumes []",
        "app < c9 accepted",
        "ops < offers o1-6 of a1-0 for ops: cpus=3",
    );
}

#[test]
fn nothing_is_said_before_it_is_durable_and_nobody_gets_in_between() {
    let (mut cluster, _, app) = at_hand();
    let other = cluster.framework_in("other", &["eng"]);
    cluster.forget();
    cluster.store_is_slow = true;
    let operations = vec![reserve("r", "cpus=2", &[]), launch(&[("t1", "cpus=1;mem=1GiB")])];
    let offers = cluster.held(app);
    cluster.accept_and_refuse(app, operations.clone());
    cluster.advance(secs(29));
    story!(cluster, "persist a1-0 reserves [eng: cpus=2], volumes []");
    assert_eq!(cluster.held(other), []);
    // The same call again is done once.
    let filters = divvy_proto::scheduler::Filters { refuse: secs(1_000_000) };
    cluster.call_again(
        app,
        "c3",
        CallBody::Accept { offers: offers.clone(), operations: operations.clone(), filters },
    );
    story!(cluster,);
    cluster.settle_store();
    story!(
        cluster,
        "app < c3 accepted",
        "agent 0 < launch f1-0/t1",
        "app < r is done",
        "other < offers o1-2 of a1-0 for eng: cpus=3;mem=7GiB;disk=10GiB (eng: cpus=1)",
    );
    cluster.call_again(app, "c3", CallBody::Accept { offers, operations, filters });
    story!(cluster, "app < c3 accepted");
}

#[test]
fn what_is_killed_before_it_was_sent_never_is() {
    let (mut cluster, agent, app) = at_hand();
    cluster.store_is_slow = true;
    cluster.accept_and_refuse(
        app,
        vec![reserve("", "cpus=1", &[]), launch(&[("t1", "cpus=1"), ("t2", "cpus=1")])],
    );
    cluster.call(app, CallBody::Reconcile { tasks: vec![("t1".parse().unwrap(), None)] });
    cluster.kill(app, "t1");
    cluster.settle_store();
    story!(
        cluster,
        "persist a1-0 reserves [eng: cpus=1], volumes []",
        "app < c3 accepted",
        "app < t1 is STAGING: reconciliation",
        "app < c4 accepted",
        "app < c2 accepted",
        "app < t1 is KILLED: killed_during_launch",
        "agent 0 < launch f1-0/t2",
        "persist f1-0 used t[1]",
        // More than was refused.
        "app < offers o1-2 of a1-0 for eng: cpus=3;mem=8GiB;disk=10GiB (eng: cpus=1)",
    );
    assert_eq!(cluster.agents_tasks(agent).len(), 1);
    assert_eq!(cluster.allocation(agent, "t2"), "unreserved");
}

#[test]
fn an_agent_that_leaves_meanwhile_gets_the_volume_when_it_is_back_and_the_task_is_dropped() {
    let (mut cluster, agent, app) = at_hand();
    cluster.store_is_slow = true;
    let launch = Operation::Launch(vec![task_with("t1", "cpus=1;mem=1GiB", "data")]);
    let operations = vec![reserve("", "disk=4GiB", &[]), create("v", "data", "3GiB", &["eng"]), launch];
    cluster.accept_with(app, operations);
    cluster.disconnect(agent);
    cluster.settle_store();
    cluster.connect(agent);
    story!(
        cluster,
        "persist a1-0 reserves [eng: disk=1GiB], volumes [data 3GiB]",
        "app < c2 accepted",
        "app < t1 is DROPPED: agent_disconnected",
        "app < v is done",
        "persist f1-0 used t[1]",
        "agent 0 < registered as a1-0",
        "agent 0 < volumes [data]",
        "app < offers o1-2 of a1-0 for eng: cpus=4;mem=8GiB;disk=7GiB (eng: disk=1GiB) [data 3GiB]",
    );
}

#[test]
fn a_framework_that_ends_meanwhile_launches_nothing() {
    let (mut cluster, _, app) = at_hand();
    cluster.store_is_slow = true;
    cluster.accept_with(app, vec![reserve("r", "cpus=2", &[]), launch(&[("t1", "cpus=1;mem=1GiB")])]);
    cluster.call(app, CallBody::Teardown);
    cluster.settle_store();
    story!(
        cluster,
        "persist a1-0 reserves [eng: cpus=2], volumes []",
        "persist f1-0 retired",
        "app < c3 accepted",
        "app closed: the framework was torn down",
        "agent 0 < shut down f1-0",
    );
    assert_eq!(cluster.reservations(), ["eng: cpus=2 of a1-0, an orphan"]);
}

#[test]
fn everything_outlives_the_master_and_the_agent() {
    let (mut cluster, agent, app) = at_hand();
    let task = task_with("t1", "cpus=3;mem=1GiB", "data");
    let operations = vec![
        reserve("", "cpus=2;disk=4GiB", &[]),
        create("", "data", "3GiB", &["eng"]),
        Operation::Launch(vec![task]),
    ];
    cluster.accept_with(app, operations);
    cluster.report(agent, "t1", TaskState::Running);
    let before = (cluster.reservations(), cluster.volumes());
    assert_eq!(
        before,
        (
            vec!["eng: cpus=2;disk=1GiB of a1-0, cpus=2 used".to_owned()],
            vec!["data 3GiB of a1-0 for eng, used by f1-0/t1".to_owned()],
        )
    );
    cluster.forget();
    cluster.fail_over();
    // Before its agent is back, what is reserved is known, and what is used is not.
    assert_eq!(cluster.reservations(), ["eng: cpus=2;disk=1GiB of a1-0"]);
    assert_eq!(cluster.volumes(), ["data 3GiB of a1-0 for eng"]);
    cluster.destroy_volume(agent, "data");
    cluster.connect(agent);
    cluster.subscribe(app);
    assert_eq!((cluster.reservations(), cluster.volumes()), before);
    story!(
        cluster,
        "persist f1-0 disconnected",
        "answer: agent a1-0 does not answer, so nobody knows what its tasks hold: wait until it is back, or declare it gone",
        "agent 0 < registered as a1-0",
        "agent 0 < volumes [data]",
        "persist f1-0",
        "app < subscribed as f1-0",
        "app < t1 is RUNNING: command_exited (u1)",
        "app < offers o2-1 of a1-0 for eng: cpus=1;mem=7GiB;disk=7GiB (eng: disk=1GiB)",
    );
    assert_eq!(cluster.kernel.check_invariants(), Ok(()));
}

#[test]
fn what_was_unreserved_while_its_task_was_away_is_charged_as_unreserved() {
    let (mut cluster, agent, app) = at_hand();
    cluster.accept_with(app, vec![reserve("", "cpus=2", &[]), launch(&[("t1", "cpus=2;mem=1GiB")])]);
    assert_eq!(cluster.reservations(), ["eng: cpus=2 of a1-0, cpus=2 used"]);
    cluster.fail_over();
    // The registry of the next master does not know it.
    cluster.registry.retain(|record| !matches!(record, RegistryChange::PutReservations { .. }));
    cluster.fail_over();
    cluster.connect(agent);
    assert_eq!(cluster.reservations(), Vec::<String>::new());
    assert_eq!(cluster.shown(agent).resources.used.to_string(), "cpus=2;mem=1GiB");
}

/// What is said to one Accept with these operations after an agent has `cpus=2;disk=4GiB` reserved for eng, a volume `data` of
/// 1 GiB of it, and `used` of another, which a task uses.
fn refused(operations: Vec<Operation>) -> String {
    let (mut cluster, _, app) = at_hand();
    cluster.accept_with(
        app,
        vec![
            reserve("", "cpus=2;disk=4GiB", &[]),
            create("", "data", "1GiB", &["eng"]),
            create("", "used", "1GiB", &["eng"]),
            Operation::Launch(vec![task_with("user", "cpus=1;mem=1GiB", "used")]),
        ],
    );
    let before = (cluster.reservations(), cluster.volumes(), cluster.kernel.tasks().len());
    cluster.forget();
    cluster.accept_with(app, operations);
    let after = (cluster.reservations(), cluster.volumes(), cluster.kernel.tasks().len());
    assert_eq!(before, after);
    let refused = cluster
        .story()
        .into_iter()
        .filter_map(|line| Some(line.strip_prefix("app < c3 refused: ")?.to_owned()));
    refused.collect::<Vec<_>>().join("\n")
}

#[test]
fn each_thing_that_can_be_wrong_is_named_and_nothing_changes() {
    let one = |operation| refused(vec![operation]);
    assert_eq!(one(reserve("", "cpus=3", &[])), "operation 0: needs cpus=3, has 2");
    assert_eq!(
        one(reserve("", "", &[])),
        "accept.operations[0].resources: \"\" is not valid: expected some resources"
    );
    assert_eq!(
        one(reserve("", "cpus=1", &["eng"])),
        "accept.operations[0].reserve.refines: \"eng\" is not valid: expected a reservation for a role above eng, that of \
         the offers"
    );
    assert_eq!(one(unreserve("", "cpus=2", &["eng"])), "operation 0: needs cpus=2, has 1");
    assert_eq!(
        one(unreserve("", "cpus=1", &["ops"])),
        "accept.operations[0].stack: \"ops\" is not valid: expected a reservation for eng, the role of the offers"
    );
    assert_eq!(one(create("", "data", "1GiB", &["eng"])), "a volume data exists on this agent already");
    assert_eq!(one(create("", "more", "3GiB", &["eng"])), "operation 0: needs disk=3GiB, has 2GiB");
    assert_eq!(
        one(create("", "more", "1GiB", &[])),
        "accept.operations[0].stack: \"\" is not valid: expected the reservations of the disk"
    );
    assert_eq!(one(destroy("", "none")), "volume none is not in the offers");
    assert_eq!(one(destroy("", "used")), "volume used is in use");
    assert_eq!(one(grow("", "data", "3GiB")), "operation 0: needs disk=3GiB, has 2GiB");
    assert_eq!(one(shrink("", "used", "1MiB")), "volume used is in use");
    assert_eq!(
        one(shrink("", "data", "1GiB")),
        "accept.operations[0].by: \"1GiB\" is not valid: expected an amount that leaves a volume of 1GiB more than nothing"
    );
    assert_eq!(
        one(Operation::Launch(vec![task_with("t", "cpus=1", "none")])),
        "volume none is not in the offers"
    );
    assert_eq!(one(Operation::Launch(vec![task_with("t", "cpus=1", "used")])), "volume used is in use");
    let twice = Operation::Launch(vec![task_with("a", "cpus=1", "data"), task_with("b", "cpus=1", "data")]);
    assert_eq!(one(twice), "volume data is in use");
    // The last of several is at fault, and none is done.
    let all = vec![reserve("", "cpus=1", &[]), destroy("", "data"), create("", "x", "9GiB", &["eng"])];
    assert_eq!(refused(all), "operation 2: needs disk=9GiB, has 3GiB");
    // And what is right in itself is done in order: the disk of the volume is there for the next.
    assert_eq!(
        refused(vec![destroy("", "data"), create("", "data", "3GiB", &["eng"]), destroy("", "used")]),
        "volume used is in use"
    );
}

#[test]
fn the_record_of_an_agent_does_not_grow_without_end() {
    let (mut cluster, _, app) = at_hand();
    cluster.accept_with(app, vec![reserve("", "disk=8GiB", &[])]);
    let many = (0..1000).map(|n| create("", &format!("v{n}"), "1MiB", &["eng"])).collect();
    cluster.forget();
    cluster.accept_with(app, many);
    let refused = "app < c3 refused: reservations: \"262";
    assert!(cluster.story()[0].starts_with(refused));
    assert_eq!(cluster.volumes(), Vec::<String>::new());
    cluster.accept_with(app, (0..200).map(|n| create("", &format!("v{n}"), "1MiB", &["eng"])).collect());
    assert_eq!(cluster.volumes().len(), 200);
}

#[test]
fn a_refused_call_says_so_of_each_operation_and_task() {
    let (mut cluster, _, app) = at_hand();
    cluster.accept_with(
        app,
        vec![reserve("r", "cpus=1", &[]), destroy("d", "none"), launch(&[("t1", "cpus=1")])],
    );
    story!(
        cluster,
        "app < c2 refused: volume none is not in the offers",
        "app < t1 is DROPPED: offer_gone",
        "app < r is refused: volume none is not in the offers",
        "app < d is refused: volume none is not in the offers",
        "app < offers o1-2 of a1-0 for eng: cpus=4;mem=8GiB;disk=10GiB",
    );
}

#[test]
fn a_volume_grows_and_shrinks_and_its_disk_returns_where_it_came_from() {
    let (mut cluster, _, app) = at_hand();
    cluster.accept_with(app, vec![reserve("", "disk=4GiB", &[]), create("", "data", "1GiB", &["eng"])]);
    cluster.forget();
    cluster.accept_with(app, vec![grow("g", "data", "2GiB")]);
    cluster.accept_with(app, vec![shrink("s", "data", "1GiB")]);
    cluster.accept_with(app, vec![destroy("d", "data")]);
    story!(
        cluster,
        "persist a1-0 reserves [eng: disk=1GiB], volumes [data 3GiB]",
        "agent 0 < volumes [data]",
        "app < c3 accepted",
        "app < g is done",
        "app < offers o1-3 of a1-0 for eng: cpus=4;mem=8GiB;disk=7GiB (eng: disk=1GiB) [data 3GiB]",
        "persist a1-0 reserves [eng: disk=2GiB], volumes [data 2GiB]",
        "agent 0 < volumes [data]",
        "app < c4 accepted",
        "app < s is done",
        "app < offers o1-4 of a1-0 for eng: cpus=4;mem=8GiB;disk=8GiB (eng: disk=2GiB) [data 2GiB]",
        "persist a1-0 reserves [eng: disk=4GiB], volumes []",
        "agent 0 < volumes []",
        "app < c5 accepted",
        "app < d is done",
        "app < offers o1-5 of a1-0 for eng: cpus=4;mem=8GiB;disk=10GiB (eng: disk=4GiB)",
    );
}

#[test]
fn an_operator_reserves_what_nobody_holds_and_rescinds_only_the_offers_in_the_way() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework_in("app", &["eng"]);
    cluster.launch(app, &[("t1", "cpus=1;mem=1GiB")]);
    let update = cluster.report(agent, "t1", TaskState::Finished);
    cluster.acknowledge(app, agent, "t1", &update);
    // Two offers: one of 3 cpus, one of 1.
    assert_eq!(cluster.held(app).len(), 2);
    cluster.forget();
    cluster.reserve(agent, "ops", "cpus=2");
    story!(
        cluster,
        "app < rescind o1-2",
        "persist a1-0 reserves [ops: cpus=2], volumes []",
        "app < offers o1-4 of a1-0 for eng: cpus=1;mem=7GiB",
        "answer: done",
    );
    assert_eq!(cluster.reservations(), ["ops: cpus=2 of a1-0, an orphan"]);
    cluster.launch(app, &[("t2", "cpus=2;mem=1GiB")]);
    cluster.forget();
    cluster.reserve(agent, "ops", "cpus=1");
    cluster.reserve(agent, "*", "cpus=1");
    cluster.unreserve(agent, "ops", "cpus=3");
    cluster.unreserve(agent, "qa", "cpus=3");
    story!(
        cluster,
        "answer: agent a1-0 does not have that much unreserved that no task holds: needs cpus=1, has 0; held by f1-0/t2",
        "answer: role: \"*\" is not valid: expected a role other than `*`, from which nothing is set aside",
        "answer: agent a1-0 does not have that much reserved for ops that no task and no volume needs: needs cpus=3, has 2",
        "answer: agent a1-0 does not have that much reserved for qa that no task and no volume needs: needs cpus=3, has 0",
    );
    cluster.unreserve(agent, "ops", "cpus=2");
    story!(
        cluster,
        "persist a1-0 reserves [], volumes []",
        "answer: done",
        "app < offers o1-6 of a1-0 for eng: cpus=2",
    );
}

#[test]
fn operators_undo_by_role_and_labels_whoever_made_it() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let agent_id = cluster.agent_id(agent);
    let mut ask = |is_reserve: bool, principal: &str, label: Option<&str>, resources: &str| {
        let labels = label.map(|label| ("for".to_owned(), label.to_owned())).into_iter().collect();
        let principal = Some(principal.parse().unwrap());
        let reservation = divvy_proto::Reservation { principal, labels, ..reserved_for("eng") };
        let (agent_id, resources) = (agent_id.clone(), resources.parse().unwrap());
        cluster.operator(match is_reserve {
            true => OperatorRequest::Reserve { agent_id, resources, reservation },
            false => OperatorRequest::Unreserve { agent_id, resources, reservation },
        });
        cluster.reservations()
    };
    ask(true, "ann", None, "cpus=1");
    ask(true, "bob", None, "cpus=1");
    ask(true, "ann", Some("db"), "cpus=1");
    let left = ask(false, "root", None, "cpus=2");
    assert_eq!(left, ["eng: cpus=1 of a1-0, an orphan"]);
    assert_eq!(ask(false, "root", None, "cpus=1"), left);
    assert_eq!(ask(false, "root", Some("db"), "cpus=1"), Vec::<String>::new());
    let told = cluster.story();
    assert_eq!(
        told.iter().filter(|line| line.starts_with("answer: agent")).collect::<Vec<_>>(),
        [
            "answer: agent a1-0 does not have that much reserved for eng that no task and no volume needs: needs cpus=1, has 0"
        ]
    );
}

#[test]
fn what_an_operator_takes_is_taken_at_once_and_what_it_gives_is_given_when_it_is_durable() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let ops = cluster.framework_in("ops", &["ops"]);
    cluster.decline(ops, secs(0));
    cluster.forget();
    cluster.store_is_slow = true;
    cluster.reserve(agent, "ops", "cpus=2");
    cluster.advance(secs(1));
    story!(
        cluster,
        "ops < rescind o1-2",
        "persist a1-0 reserves [ops: cpus=2], volumes []",
        "ops < offers o1-3 of a1-0 for ops: cpus=2;mem=8GiB",
    );
    // One that is not there yet is not undone.
    cluster.unreserve(agent, "ops", "cpus=2");
    story!(
        cluster,
        "answer: agent a1-0 does not have that much reserved for ops that no task and no volume needs: needs cpus=2, has 0",
    );
    cluster.settle_store();
    story!(cluster, "answer: done", "ops < offers o1-4 of a1-0 for ops: cpus=2 (ops: cpus=2)");
}

#[test]
fn operators_make_resize_and_remove_volumes() {
    let (mut cluster, agent, app) = at_hand();
    cluster.decline(app, secs(1_000_000));
    cluster.forget();
    cluster.reserve(agent, "eng", "disk=4GiB");
    cluster.create_volume(agent, "eng", "data", "5GiB");
    cluster.create_volume(agent, "eng", "data", "3GiB");
    cluster.create_volume(agent, "eng", "data", "1GiB");
    cluster.resize_volume(agent, "data", "5GiB");
    cluster.resize_volume(agent, "data", "2GiB");
    cluster.resize_volume(agent, "none", "2GiB");
    cluster.unreserve(agent, "eng", "disk=4GiB");
    cluster.call(app, CallBody::Revive { roles: vec![] });
    cluster.accept_with(app, vec![Operation::Launch(vec![task_with("t1", "cpus=1", "data")])]);
    cluster.destroy_volume(agent, "data");
    cluster.report(agent, "t1", TaskState::Failed);
    cluster.destroy_volume(agent, "data");
    story!(
        cluster,
        "persist a1-0 reserves [eng: disk=4GiB], volumes []",
        "answer: done",
        "answer: agent a1-0 has no 5GiB of disk reserved for eng that no task holds: the most is 4GiB",
        "persist a1-0 reserves [eng: disk=1GiB], volumes [data 3GiB]",
        "agent 0 < volumes [data]",
        "answer: done",
        "answer: a volume data exists on agent a1-0 already",
        "answer: agent a1-0 does not have that much reserved for eng that no task holds: needs disk=2GiB, has 1GiB",
        "persist a1-0 reserves [eng: disk=2GiB], volumes [data 2GiB]",
        "agent 0 < volumes [data]",
        "answer: done",
        "answer: agent a1-0 has no volume none",
        "answer: agent a1-0 does not have that much reserved for eng that no task and no volume needs: needs disk=4GiB, has 2GiB",
        "app < c3 accepted",
        "app < offers o1-2 of a1-0 for eng: cpus=4;mem=8GiB;disk=8GiB (eng: disk=2GiB) [data 2GiB]",
        "app < c4 accepted",
        "agent 0 < launch f1-0/t1",
        "app < offers o1-3 of a1-0 for eng: cpus=3;mem=8GiB;disk=8GiB (eng: disk=2GiB)",
        "answer: volume data is in use by f1-0/t1",
        "app < t1 is FAILED: command_exited (u1)",
        "app < offers o1-4 of a1-0 for eng: cpus=1 [data 2GiB]",
        // Nobody is left with an offer of what is no longer there.
        "app < rescind o1-3",
        "app < rescind o1-4",
        "persist a1-0 reserves [eng: disk=4GiB], volumes []",
        "app < offers o1-5 of a1-0 for eng: cpus=4;mem=8GiB;disk=8GiB (eng: disk=2GiB)",
        "agent 0 < volumes []",
        "answer: done",
    );
}

#[test]
fn the_command_line_of_an_agent_reserves_and_what_it_reserves_is_refined_but_not_undone() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent_that("cpus=4;mem=8GiB;disk=10GiB", |info| {
        let resources = "cpus=2;disk=6GiB".parse().unwrap();
        info.reserved = vec![divvy_proto::Reserved { stack: vec![fixed_for("eng")], resources }];
    });
    assert_eq!(cluster.reservations(), ["eng!: cpus=2;disk=6GiB of a1-0, an orphan"]);
    let ads = cluster.framework_in("ads", &["eng/ads"]);
    cluster.forget();
    let operation = |operation: Operation| match operation {
        Operation::Reserve { id, resources, labels, .. } => {
            Operation::Reserve { id, resources, labels, refines: vec![fixed_for("eng")] }
        }
        Operation::Create { id, volume_id, size, .. } => {
            Operation::Create { id, volume_id, size, stack: vec![fixed_for("eng")] }
        }
        other => other,
    };
    let operations = vec![operation(reserve("", "cpus=1", &[])), operation(create("", "data", "2GiB", &[]))];
    cluster.accept_with(ads, operations);
    cluster.unreserve(agent, "eng", "cpus=1");
    story!(
        cluster,
        "persist a1-0 reserves [eng!>eng/ads: cpus=1], volumes [data 2GiB]",
        "agent 0 < volumes [data]",
        "ads < c2 accepted",
        "ads < offers o1-2 of a1-0 for eng/ads: cpus=4;mem=8GiB;disk=8GiB (eng!: cpus=1;disk=4GiB, eng!>eng/ads: cpus=1) \
         [data 2GiB]",
        "answer: what is reserved for eng on agent a1-0 is so by the agent's command line, and ends only there",
    );
    cluster.fail_over_and_return();
    assert_eq!(cluster.reservations(), ["eng!: cpus=1;disk=4GiB of a1-0", "eng!>eng/ads: cpus=1 of a1-0"]);
}

#[test]
fn a_task_whose_reservation_left_the_command_line_while_it_was_away_holds_what_is_unreserved() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent_that("cpus=4;mem=8GiB", |info| {
        let resources = "cpus=2".parse().unwrap();
        info.reserved = vec![divvy_proto::Reserved { stack: vec![fixed_for("eng")], resources }];
    });
    let app = cluster.framework_in("app", &["eng"]);
    cluster.launch(app, &[("t1", "cpus=2;mem=1GiB")]);
    cluster.report(agent, "t1", TaskState::Running);
    assert_eq!(cluster.reservations(), ["eng!: cpus=2 of a1-0, cpus=2 used"]);
    cluster.disconnect(agent);
    cluster.advance(secs(100));
    assert_eq!(cluster.kernel.tasks()[0].state, TaskState::Unreachable);
    cluster.agents[0].info.reserved.clear();
    cluster.connect(agent);
    assert_eq!(cluster.reservations(), Vec::<String>::new());
    let slot = cluster.kernel.allocator.slot(cluster.kernel.agents[&cluster.agent_id(agent)].slot);
    assert_eq!(
        (slot.used.unreserved.to_string(), slot.used.reserved.len()),
        ("cpus=2;mem=1GiB".to_owned(), 0)
    );
}

#[test]
fn an_agent_that_reserves_what_it_does_not_have_or_for_all_is_refused() {
    let refused = |role: &str, resources: &str| {
        let mut cluster = Cluster::new();
        cluster.agent_that("cpus=4", |info| {
            let resources = resources.parse().unwrap();
            info.reserved = vec![divvy_proto::Reserved { stack: vec![fixed_for(role)], resources }];
        });
        cluster.story().join("\n")
    };
    assert_eq!(
        refused("eng", "cpus=5"),
        "agent 0 closed: refused: register.agent.reserved[0].resources: \"cpus=5\" is not valid: expected at most what is \
         left of the agent's resources, cpus=4"
    );
    assert_eq!(
        refused("*", "cpus=1"),
        "agent 0 closed: refused: register.agent.reserved[0].stack[0].role: \"*\" is not valid: expected a role other than \
         `*`, from which nothing is set aside"
    );
}

#[test]
fn an_agent_that_comes_back_smaller_keeps_what_fits_and_its_operator_is_told() {
    let (mut cluster, agent, app) = at_hand();
    cluster
        .accept_with(app, vec![reserve("", "cpus=3;disk=4GiB", &[]), create("", "data", "3GiB", &["eng"])]);
    cluster.resize(agent, "cpus=2;mem=8GiB;disk=10GiB");
    cluster.connect(agent);
    assert_eq!(
        cluster.kernel.status(cluster.now).warnings,
        ["agent a1-0 no longer has cpus=1 reserved for eng"]
    );
    assert_eq!(cluster.shown(agent).resources.total.to_string(), "cpus=2;mem=8GiB;disk=7GiB");
    // What is not there can be unreserved all the same.
    cluster.unreserve(agent, "eng", "cpus=3");
    assert_eq!(cluster.kernel.status(cluster.now).warnings, Vec::<String>::new());
    cluster.resize(agent, "cpus=4;mem=8GiB;disk=10GiB");
    cluster.connect(agent);
    assert_eq!(cluster.reservations(), ["eng: disk=1GiB of a1-0"]);
}

#[test]
fn what_is_reserved_on_a_gone_agent_is_an_orphan_until_an_operator_removes_it() {
    let mut cluster = Cluster::with(Config { retired_kept: 0, ..Config::default() });
    let agent = cluster.agent("cpus=4;mem=8GiB;disk=10GiB");
    let app = cluster.framework_in("app", &["eng"]);
    cluster.accept_with(app, vec![reserve("", "disk=4GiB", &[]), create("", "data", "3GiB", &["eng"])]);
    let id = cluster.agent_id(agent);
    cluster.operator(OperatorRequest::MarkGone(id));
    assert_eq!(cluster.reservations(), ["eng: disk=1GiB of a1-0, an orphan"]);
    assert_eq!(cluster.volumes(), ["data 3GiB of a1-0 for eng, an orphan"]);
    cluster.fail_over();
    cluster.forget();
    cluster.create_volume(agent, "eng", "more", "1GiB");
    cluster.resize_volume(agent, "data", "4GiB");
    cluster.destroy_volume(agent, "data");
    cluster.unreserve(agent, "eng", "disk=4GiB");
    story!(
        cluster,
        "persist f1-0 disconnected",
        "answer: agent a1-0 is gone",
        "answer: agent a1-0 is gone",
        "persist a1-0 reserves [eng: disk=4GiB], volumes []",
        "answer: done",
        "persist a1-0 reserves [], volumes []",
        "answer: done",
        "persist a1-0 forgotten",
    );
    assert_eq!(cluster.kernel.agents(), Vec::new());
    assert_eq!(cluster.check_registry(), Ok(()));
}
