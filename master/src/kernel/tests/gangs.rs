//! One Accept over several agents: all its tasks run, or none do.

use divvy_proto::scheduler::Operation;
use divvy_proto::task::TaskState;

use crate::kernel::testing::*;
use crate::story;

/// Two agents, all of which a framework holds.
fn at_hand() -> (Cluster, [AgentHandle; 2], FrameworkHandle) {
    let mut cluster = Cluster::new();
    let agents = [cluster.agent("cpus=4;mem=8GiB"), cluster.agent("cpus=4;mem=8GiB")];
    let app = cluster.framework("app");
    cluster.forget();
    (cluster, agents, app)
}

#[test]
fn all_are_launched_at_once() {
    let (mut cluster, [one, two], app) = at_hand();
    cluster.launch_gang(app, &[(one, "t1", "cpus=4;mem=8GiB"), (two, "t2", "cpus=3;mem=8GiB")]);
    story!(
        cluster,
        "app < c2 accepted",
        "agent 0 < launch f1-0/t1",
        "agent 1 < launch f1-0/t2",
        "app < offers o1-3 of a1-1: cpus=1",
    );
}

#[test]
fn none_is_launched_if_one_does_not_fit() {
    let (mut cluster, [one, two], app) = at_hand();
    cluster.launch_gang(app, &[(one, "t1", "cpus=4;mem=8GiB"), (two, "t2", "cpus=5;mem=8GiB")]);
    story!(
        cluster,
        "app < c2 refused: task t2: needs cpus=5, has 4",
        "app < t1 is ERROR: task_invalid",
        "app < t2 is ERROR: task_invalid",
        "app < offers o1-3 of a1-0: cpus=4;mem=8GiB, o1-4 of a1-1: cpus=4;mem=8GiB",
    );
}

#[test]
fn none_is_launched_if_one_agent_has_left() {
    let (mut cluster, [one, two], app) = at_hand();
    let offers = cluster.held(app);
    cluster.disconnect(two);
    cluster.frameworks[0].offers.clear();
    let on = |agent, id: &str| Operation::LaunchOn {
        agent_id: cluster.agent_id(agent),
        tasks: vec![task(id, "cpus=1;mem=1GiB")],
    };
    let operations = vec![on(one, "t1"), on(two, "t2")];
    let body = divvy_proto::scheduler::CallBody::Accept { offers, operations, filters: NO_FILTER };
    cluster.call(app, body);
    story!(
        cluster,
        "app < rescind o1-2",
        "app < c2 refused: offer o1-2 is no longer outstanding",
        "app < t1 is DROPPED: offer_gone",
        "app < t2 is DROPPED: offer_gone",
        "app < offers o1-3 of a1-0: cpus=4;mem=8GiB",
    );
}

#[test]
fn what_does_not_name_its_agent_is_refused_and_so_is_an_agent_without_an_offer() {
    let (mut cluster, [one, _], app) = at_hand();
    let stranger = cluster.agent("cpus=1");
    cluster.decline(app, secs(0));
    cluster.forget();
    cluster.accept_with(app, vec![reserve("", "cpus=1", &[])]);
    let offer = cluster.held(app)[0];
    cluster.frameworks[0].offers.retain(|id, _| *id == offer);
    cluster.launch_gang(app, &[(one, "t1", "cpus=1;mem=1GiB"), (stranger, "t2", "cpus=1;mem=1GiB")]);
    let refused = cluster.story().into_iter().filter(|line| line.contains("refused"));
    assert_eq!(
        refused.collect::<Vec<_>>(),
        [
            "app < c3 refused: the offers are of several agents; only LaunchOn, which names the agent, takes offers of several",
            "app < c4 refused: accept.operations[1].agent_id: \"a1-2\" is not valid: expected an agent of the call's offers",
        ]
    );
}

#[test]
fn if_one_is_lost_before_it_ran_the_others_are_killed_and_say_why() {
    let (mut cluster, [one, two], app) = at_hand();
    cluster.launch_gang(app, &[(one, "t1", "cpus=4;mem=8GiB"), (two, "t2", "cpus=4;mem=8GiB")]);
    let running = cluster.report(one, "t1", TaskState::Running);
    cluster.acknowledge(app, one, "t1", &running);
    cluster.forget();
    // The launch never reached the second agent.
    cluster.lose_tasks(two);
    cluster.disconnect(two);
    cluster.connect(two);
    cluster.killed(one, app, "t1");
    story!(
        cluster,
        "agent 1 < registered as a1-1",
        "app < t2 is DROPPED: agent_restarted",
        "agent 0 < kill f1-0/t1",
        "persist f1-0 used t[2]",
        "app < offers o1-3 of a1-1: cpus=4;mem=8GiB",
        "app < t1 is KILLED: gang_broken (u2)",
        "app < offers o1-4 of a1-0: cpus=4;mem=8GiB",
        "persist f1-0 used t[1-2]",
        "agent 0 < acknowledge u2 of t1",
    );
}

#[test]
fn once_all_have_run_each_is_on_its_own() {
    let (mut cluster, [one, two], app) = at_hand();
    cluster.launch_gang(app, &[(one, "t1", "cpus=4;mem=8GiB"), (two, "t2", "cpus=4;mem=8GiB")]);
    cluster.report(one, "t1", TaskState::Running);
    cluster.report(two, "t2", TaskState::Running);
    cluster.forget();
    cluster.lose_tasks(two);
    cluster.connect(two);
    story!(
        cluster,
        "link 2 closed: another connection has subscribed with the same id",
        "agent 1 < registered as a1-1",
        "app < t2 is FAILED: agent_restarted",
        "persist f1-0 used t[2]",
        "app < offers o1-3 of a1-1: cpus=4;mem=8GiB",
    );
}

#[test]
fn one_that_ends_by_itself_or_is_killed_takes_nobody_with_it() {
    let (mut cluster, [one, two], app) = at_hand();
    cluster.launch_gang(app, &[(one, "t1", "cpus=4;mem=8GiB"), (two, "t2", "cpus=4;mem=8GiB")]);
    cluster.forget();
    cluster.report(two, "t2", TaskState::Failed);
    story!(cluster, "app < t2 is FAILED: command_exited (u1)", "app < offers o1-3 of a1-1: cpus=4;mem=8GiB",);
}

#[test]
fn one_that_ended_while_its_agent_was_away_is_of_no_gang() {
    let (mut cluster, [one, two], app) = at_hand();
    cluster.launch_gang(app, &[(one, "t1", "cpus=4;mem=8GiB"), (two, "t2", "cpus=4;mem=8GiB")]);
    cluster.disconnect(two);
    for task in cluster.agents[1].tasks.values_mut() {
        task.status.state = TaskState::Finished;
    }
    cluster.forget();
    cluster.connect(two);
    assert_eq!(cluster.kernel.check_invariants(), Ok(()));
    story!(
        cluster,
        "agent 1 < registered as a1-1",
        "persist f1-0 used t[2]",
        "app < offers o1-3 of a1-1: cpus=4;mem=8GiB",
    );
}
