//! Reconciliation answers from what is known, and says nothing while it is not known yet.

use divvy_proto::scheduler::CallBody;
use divvy_proto::task::TaskState;

use crate::kernel::testing::*;
use crate::kernel::*;
use crate::story;

fn ask(cluster: &mut Cluster, framework: FrameworkHandle, tasks: &[(&str, Option<&str>)]) {
    let tasks = tasks
        .iter()
        .map(|(task, agent)| (task.parse().unwrap(), agent.map(|agent| agent.parse().unwrap())))
        .collect();
    cluster.call(framework, CallBody::Reconcile { tasks });
}

#[test]
fn an_implicit_question_is_answered_for_all_that_have_not_ended() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    let tasks = [("t1", "cpus=1;mem=1GiB"), ("t2", "cpus=1;mem=1GiB"), ("t3", "cpus=2;mem=6GiB")];
    cluster.launch(app, &tasks);
    cluster.report(agent, "t2", TaskState::Running);
    let ended = cluster.report(agent, "t3", TaskState::Finished);
    cluster.acknowledge(app, agent, "t3", &ended);
    cluster.forget();
    ask(&mut cluster, app, &[]);
    story!(
        cluster,
        "app < c4 accepted",
        "app < t1 is STAGING: reconciliation",
        "app < t2 is RUNNING: reconciliation",
    );
}

#[test]
fn an_explicit_question_is_answered_by_what_is_known_of_the_task_or_else_of_its_agent() {
    let mut cluster = Cluster::new();
    let (_here, away, gone) = (
        cluster.agent("cpus=4;mem=8GiB"),
        cluster.agent("cpus=4;mem=8GiB"),
        cluster.agent("cpus=4;mem=8GiB"),
    );
    let app = cluster.framework("app");
    cluster.decline(app, secs(100_000));
    cluster.disconnect(away);
    cluster.advance(secs(75));
    let id = cluster.agent_id(gone);
    cluster.operator(OperatorRequest::MarkGone(id));
    cluster.forget();
    let unknown = [
        ("t1", Some("a1-0")),
        ("t2", Some("a1-1")),
        ("t3", Some("a1-2")),
        ("t4", Some("a1-9")),
        ("t5", None),
    ];
    ask(&mut cluster, app, &unknown);
    story!(
        cluster,
        "app < c3 accepted",
        "app < t1 is GONE: reconciliation",
        "app < t2 is UNREACHABLE: reconciliation",
        "app < t3 is GONE: reconciliation",
        "app < t4 is UNKNOWN: reconciliation",
        "app < t5 is UNKNOWN: reconciliation",
    );
}

#[test]
fn nothing_is_said_of_a_task_that_an_agent_may_still_come_back_with() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.launch(app, &[("t1", "cpus=4;mem=8GiB")]);
    cluster.report(agent, "t1", TaskState::Running);
    cluster.fail_over();
    cluster.subscribe(app);
    cluster.forget();
    ask(&mut cluster, app, &[("t1", Some("a1-0")), ("t1", None), ("t2", None)]);
    story!(cluster, "app < c4 accepted");
    cluster.connect(agent);
    ask(&mut cluster, app, &[("t1", Some("a1-0")), ("t2", None)]);
    story!(
        cluster,
        "agent 0 < registered as a1-0",
        "app < c5 accepted",
        "app < t1 is RUNNING: reconciliation",
        "app < t2 is UNKNOWN: reconciliation",
    );
}

/// A kill does not say where the task was. That nobody knows of it would be false while it may run out of reach; the framework
/// would launch it a second time.
#[test]
fn a_kill_of_a_task_that_may_run_out_of_reach_is_refused_and_nothing_is_said_of_the_task() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.launch(app, &[("t1", "cpus=4;mem=8GiB")]);
    cluster.disconnect(agent);
    cluster.advance(secs(75));
    cluster.fail_over();
    cluster.subscribe(app);
    cluster.forget();
    cluster.kill(app, "t1");
    story!(cluster, "app < c4 refused: task t1 is not known");
    ask(&mut cluster, app, &[("t1", Some("a1-0"))]);
    story!(cluster, "app < c5 accepted", "app < t1 is UNREACHABLE: reconciliation");
}
