//! Offers become tasks, tasks are updated, acknowledged and killed.

use divvy_proto::scheduler::{CallBody, Filters, Operation};
use divvy_proto::task::{TaskPort, TaskState};

use crate::kernel::testing::*;
use crate::kernel::*;
use crate::story;

#[test]
fn the_life_of_a_task() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB;ports=[31000-31009]");
    let app = cluster.framework("app");
    cluster.forget();
    cluster.launch(app, &[("t1", "cpus=1;mem=1GiB;ports=[31000-31001]")]);
    story!(
        cluster,
        "app < c2 accepted",
        "agent 0 < launch f1-0/t1",
        "app < offers o1-2 of a1-0: cpus=3;mem=7GiB;ports=[31002-31009]",
    );
    let running = cluster.report(agent, "t1", TaskState::Running);
    cluster.acknowledge(app, agent, "t1", &running);
    story!(cluster, "app < t1 is RUNNING: command_exited (u1)", "agent 0 < acknowledge u1 of t1",);
    // What it held is free at once, and not only when its end is acknowledged.
    let finished = cluster.report(agent, "t1", TaskState::Finished);
    story!(
        cluster,
        "app < t1 is FINISHED: command_exited (u2)",
        "app < offers o1-3 of a1-0: cpus=1;mem=1GiB;ports=[31000-31001]",
    );
    cluster.acknowledge(app, agent, "t1", &finished);
    story!(cluster, "persist f1-0 used t[1]", "agent 0 < acknowledge u2 of t1");
    let shown = cluster.kernel.tasks().remove(0);
    assert_eq!((shown.state, shown.started_at), (TaskState::Finished, Some(cluster.now)));
}

#[test]
fn several_offers_of_one_agent_are_taken_together() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.launch(app, &[("t1", "cpus=1;mem=1GiB")]);
    cluster.report(agent, "t1", TaskState::Finished);
    cluster.forget();
    cluster.launch(app, &[("t2", "cpus=4;mem=8GiB")]);
    story!(cluster, "app < c3 accepted", "agent 0 < launch f1-0/t2");
}

#[test]
fn what_an_accept_leaves_is_refused_for_as_long_as_it_says() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.forget();
    let offers = cluster.held(app);
    cluster.accept(app, offers, &[("t1", "cpus=1;mem=1GiB")], Filters { refuse: secs(7) });
    cluster.advance(secs(6));
    story!(cluster, "app < c2 accepted", "agent 0 < launch f1-0/t1");
    cluster.advance(secs(1));
    story!(cluster, "app < offers o1-2 of a1-0: cpus=3;mem=7GiB");
}

#[test]
fn if_an_offer_is_gone_every_task_of_the_call_is_dropped_and_the_other_offers_return() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.framework("other");
    cluster.forget();
    let mut offers = cluster.held(app);
    offers.push("9".parse().map(divvy_proto::OfferId).unwrap());
    let tasks = [("t1", "cpus=1;mem=1GiB"), ("t2", "cpus=1;mem=1GiB")];
    cluster.accept(app, offers, &tasks, Filters::default());
    story!(
        cluster,
        "app < c3 refused: offer o0-9 is no longer outstanding",
        "app < t1 is DROPPED: offer_gone",
        "app < t2 is DROPPED: offer_gone",
        "other < offers o1-2 of a1-0: cpus=4;mem=8GiB",
    );
}

#[test]
fn nothing_is_called_dropped_that_an_earlier_master_may_have_launched() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    let (offers, operations) = (cluster.held(app), vec![launch(&[("t1", "cpus=1;mem=1GiB")])]);
    let body = CallBody::Accept { offers, operations, filters: NO_FILTER };
    cluster.call(app, body.clone());
    cluster.fail_over();
    cluster.subscribe(app);
    cluster.forget();
    cluster.call_again(app, "c2", body.clone());
    story!(cluster, "app < c2 refused: offer o1-1 is no longer outstanding");
    cluster.connect(agent);
    cluster.forget();
    cluster.call_again(app, "c3", body);
    story!(cluster, "app < c3 refused: offer o1-1 is no longer outstanding");
    assert_eq!(cluster.kernel.tasks()[0].state, TaskState::Staging);
}

#[test]
fn an_offer_is_of_use_to_its_holder_only() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    let thief = cluster.framework("thief");
    cluster.forget();
    let offers = cluster.held(app);
    cluster.accept(thief, offers.clone(), &[("t1", "cpus=1;mem=1GiB")], Filters::default());
    cluster.call(thief, CallBody::Decline { offers, filters: Filters::default() });
    story!(
        cluster,
        "thief < c3 refused: offer o1-1 is no longer outstanding",
        "thief < t1 is DROPPED: offer_gone",
        "thief < c4 accepted",
    );
    assert_eq!(cluster.kernel.offers().len(), 1);
}

#[test]
fn offers_of_several_agents_are_refused_together() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    cluster.agent("cpus=2;mem=8GiB");
    let app = cluster.framework("app");
    cluster.forget();
    let offers = cluster.held(app);
    cluster.accept(app, offers, &[("t1", "cpus=1;mem=1GiB")], Filters::default());
    story!(
        cluster,
        "app < c2 refused: the offers are of several agents; only LaunchOn, which names the agent, takes offers of several",
        "app < t1 is DROPPED: offer_gone",
    );
}

/// One Accept of everything on a new agent, with these tasks.
fn refused(change: impl FnOnce(&mut Vec<Operation>)) -> String {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB;ports=[31000-31009]");
    let app = cluster.framework("app");
    cluster.forget();
    let mut operations =
        vec![Operation::Launch(vec![task("t1", "cpus=1;mem=1GiB"), task("t2", "cpus=1;mem=1GiB")])];
    change(&mut operations);
    let offers = cluster.held(app);
    cluster.call(app, CallBody::Accept { offers, operations, filters: Filters::default() });
    assert_eq!(cluster.kernel.tasks(), Vec::new());
    cluster.story().join("\n")
}

fn second(operations: &mut [Operation]) -> &mut divvy_proto::TaskInfo {
    match &mut operations[0] {
        Operation::Launch(tasks) => &mut tasks[1],
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_call_with_one_bad_task_launches_nothing_and_says_so_of_each() {
    let both = |why: &str| {
        format!("app < c2 refused: {why}\napp < t1 is ERROR: task_invalid\napp < t2 is ERROR: task_invalid")
    };
    assert_eq!(
        refused(|ops| second(ops).resources = "cpus=4;mem=1GiB".parse().unwrap()),
        both("task t2: needs cpus=4, has 3"),
    );
    assert_eq!(
        refused(|ops| second(ops).resources = "ports=[31000]".parse().unwrap()),
        both(
            "accept.operations[0].launch[1].resources: \"ports=[31000]\" is not valid: expected some cpus or mem"
        ),
    );
    let port = TaskPort { name: "http".to_owned(), number: 31000, container: None };
    assert_eq!(
        refused(|ops| second(ops).ports.push(port)),
        both(
            "accept.operations[0].launch[1].ports: \"31000\" is not valid: \
             expected a port that is among the task's resources"
        ),
    );
    assert_eq!(
        refused(|ops| ops.push(Operation::LaunchGroup(vec![]))),
        both("accept.operations[1].launch_group: \"0 tasks\" is not valid: expected the tasks of one group"),
    );
    assert_eq!(
        refused(|ops| second(ops).id = "t1".parse().unwrap()),
        "app < c2 refused: task id t1 has been used before\napp < t1 is ERROR: task_invalid",
    );
}

#[test]
fn the_id_of_a_task_is_used_once() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.launch(app, &[("t1", "cpus=1;mem=1GiB")]);
    cluster.forget();
    // The one that runs is not said to have ended.
    cluster.launch(app, &[("t1", "cpus=1;mem=1GiB")]);
    story!(
        cluster,
        "app < c3 refused: task id t1 has been used before",
        "app < offers o1-3 of a1-0: cpus=3;mem=7GiB",
    );
    let update = cluster.report(agent, "t1", TaskState::Finished);
    cluster.acknowledge(app, agent, "t1", &update);
    cluster.forget();
    cluster.launch(app, &[("t1", "cpus=1;mem=1GiB")]);
    story!(
        cluster,
        "app < c5 refused: task id t1 has been used before",
        "app < offers o1-5 of a1-0: cpus=4;mem=8GiB",
    );
}

#[test]
fn a_kill_is_remembered_until_the_task_has_ended() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.launch(app, &[("t1", "cpus=4;mem=8GiB")]);
    cluster.disconnect(agent);
    cluster.forget();
    cluster.kill(app, "t1");
    story!(cluster, "app < c3 accepted");
    cluster.connect(agent);
    story!(cluster, "agent 0 < registered as a1-0", "agent 0 < kill f1-0/t1");
    let update = cluster.report(agent, "t1", TaskState::Killed);
    cluster.acknowledge(app, agent, "t1", &update);
    cluster.forget();
    // Its end is what was asked for, so the answer is that, again.
    cluster.kill(app, "t1");
    story!(cluster, "app < c5 accepted", "app < t1 is KILLED: reconciliation");
}

#[test]
fn a_kill_of_what_nobody_knows_is_refused_and_answered_for() {
    let mut cluster = Cluster::new();
    let app = cluster.framework("app");
    cluster.forget();
    cluster.kill(app, "t9");
    story!(cluster, "app < c2 refused: task t9 is not known", "app < t9 is UNKNOWN: reconciliation");
}

#[test]
fn an_operator_kills_a_task() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.launch(app, &[("t1", "cpus=4;mem=8GiB")]);
    cluster.forget();
    let framework_id = cluster.framework_id(app);
    let kill = |task: &str| OperatorRequest::KillTask {
        framework_id: framework_id.clone(),
        task_id: task.parse().unwrap(),
    };
    cluster.operator(kill("t1"));
    cluster.operator(kill("t2"));
    story!(
        cluster,
        "agent 0 < kill f1-0/t1",
        "answer: done",
        "answer: framework f1-0 has no task t2 that has not ended",
    );
}

#[test]
fn an_update_is_repeated_to_the_framework_and_counted_once() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.launch(app, &[("t1", "cpus=4;mem=8GiB")]);
    let update = cluster.report(agent, "t1", TaskState::Finished);
    cluster.forget();
    let status = cluster.frameworks[0].updates[0].clone();
    let framework_id = cluster.framework_id(app);
    let message = divvy_proto::agent::AgentMessage::Update { framework_id, status };
    cluster.agent_says(agent, message.clone());
    cluster.acknowledge(app, agent, "t1", &update);
    cluster.agent_says(agent, message);
    story!(
        cluster,
        "app < t1 is FINISHED: command_exited (u1)",
        "persist f1-0 used t[1]",
        "agent 0 < acknowledge u1 of t1",
        "app < t1 is FINISHED: command_exited (u1)",
    );
}

#[test]
fn nobody_speaks_for_the_task_of_another_agent() {
    let mut cluster = Cluster::new();
    let owner = cluster.agent("cpus=4;mem=8GiB");
    let liar = cluster.agent("cpus=1;mem=1GiB");
    let app = cluster.framework("app");
    let offer = cluster.held(app)[0];
    cluster.accept(app, vec![offer], &[("t1", "cpus=4;mem=8GiB")], NO_FILTER);
    let update = cluster.report(owner, "t1", TaskState::Running);
    cluster.forget();
    let mut status = cluster.frameworks[0].updates[0].clone();
    status.state = TaskState::Failed;
    let framework_id = cluster.framework_id(app);
    cluster.agent_says(liar, divvy_proto::agent::AgentMessage::Update { framework_id, status });
    cluster.acknowledge(app, liar, "t1", &update);
    story!(
        cluster,
        "app < c3 refused: acknowledge.agent_id: \"a1-1\" is not valid: expected a1-0, the task's agent",
    );
    assert_eq!(cluster.kernel.tasks()[0].state, TaskState::Running);
}

#[test]
fn what_is_still_to_come_says_so() {
    let mut cluster = Cluster::new();
    let app = cluster.framework("app");
    cluster.forget();
    let (agent_id, task_id) = ("a1-0".parse().unwrap(), "t1".parse().unwrap());
    cluster.call(app, CallBody::Message { agent_id, task_id, data: vec![] });
    story!(cluster, "app < c2 refused: Message is not supported yet");
}
