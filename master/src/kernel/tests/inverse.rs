//! Tasks are asked back, and end: by themselves, by their framework, or by force.

use divvy_proto::api::InverseAnswer;
use divvy_proto::ids::InverseOfferId;
use divvy_proto::scheduler::CallBody;
use divvy_proto::task::TaskState;

use crate::kernel::testing::*;
use crate::story;

const FIRST: InverseOfferId = InverseOfferId(1 << 32 | 1);

/// An agent with two tasks of `app` and one of `other`, drained within ten minutes.
fn drained() -> (Cluster, AgentHandle, [FrameworkHandle; 2]) {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.launch(app, &[("t1", "cpus=1;mem=1GiB"), ("t2", "cpus=1;mem=1GiB")]);
    cluster.decline(app, secs(3600));
    let other = cluster.framework("other");
    cluster.launch(other, &[("o1", "cpus=1;mem=1GiB")]);
    cluster.decline(other, secs(3600));
    for task in ["t1", "t2", "o1"] {
        let update = cluster.report(agent, task, TaskState::Running);
        cluster.acknowledge(if task == "o1" { other } else { app }, agent, task, &update);
    }
    cluster.forget();
    cluster.drain(agent, Some(secs(600)), false);
    (cluster, agent, [app, other])
}

#[test]
fn each_framework_is_asked_for_all_its_tasks_at_once_and_told_when_they_have_ended() {
    let (mut cluster, agent, [app, other]) = drained();
    story!(
        cluster,
        "persist a1-0 drains",
        "answer: done",
        "app < asked back i1-1 of a1-0: t1, t2 (cpus=2;mem=2GiB) by +600s, maintenance",
        "other < asked back i1-2 of a1-0: o1 (cpus=1;mem=1GiB) by +600s, maintenance",
    );
    cluster.kill(app, "t1");
    cluster.killed(agent, app, "t1");
    cluster.forget();
    assert_eq!(cluster.kernel.inverse_offers()[0].offer.tasks, ["t2".parse().unwrap()]);

    // Ended for good: whatever ends it.
    let update = cluster.report(agent, "t2", TaskState::Finished);
    story!(cluster, "app < t2 is FINISHED: command_exited (u5)", "app < rescind i1-1");
    cluster.acknowledge(app, agent, "t2", &update);
    cluster.forget();
    cluster.kill(other, "o1");
    cluster.killed(agent, other, "o1");
    story!(
        cluster,
        "other < c13 accepted",
        "agent 0 < kill f1-1/o1",
        "other < o1 is KILLED: kill_requested (u6)",
        "persist a1-0 drained",
        "other < rescind i1-2",
        "persist f1-1 used o[1]",
        "agent 0 < acknowledge u6 of o1",
    );
}

#[test]
fn at_the_deadline_what_still_runs_is_killed_with_its_own_grace_and_its_end_says_why() {
    let (mut cluster, agent, [app, other]) = drained();
    cluster.forget();
    cluster.advance(secs(599));
    story!(cluster,);
    cluster.advance(secs(1));
    story!(cluster, "agent 0 < kill f1-0/t1", "agent 0 < kill f1-0/t2", "agent 0 < kill f1-1/o1");
    cluster.killed(agent, app, "t1");
    cluster.take_updates(other);
    cluster.killed(agent, other, "o1");
    let told = cluster.take_updates(other);
    assert_eq!(told[0].reason, divvy_proto::task::Reason::AgentDrained);
    assert_eq!(cluster.kernel.inverse_offers().len(), 1, "t2 is still to end");
}

#[test]
fn a_kill_that_does_not_reach_its_agent_is_repeated_when_that_is_back() {
    let (mut cluster, agent, [app, _]) = drained();
    cluster.disconnect(agent);
    cluster.advance(secs(600));
    cluster.forget();
    cluster.connect(agent);
    let story = cluster.story();
    assert!(story.contains(&"agent 0 < kill f1-0/t1".to_owned()), "{story:#?}");
    cluster.take_updates(app);
    cluster.killed(agent, app, "t1");
    assert_eq!(cluster.take_updates(app)[0].reason, divvy_proto::task::Reason::AgentDrained);
}

#[test]
fn answers_are_noted_whole_or_not_at_all() {
    let (mut cluster, _, [app, other]) = drained();
    cluster.forget();
    let answer = |cluster: &Cluster| cluster.kernel.inverse_offers()[0].answer;
    cluster.call(app, CallBody::AcceptInverse { offers: vec![FIRST, InverseOfferId(1 << 32 | 2)] });
    assert_eq!(answer(&cluster), InverseAnswer::Pending);
    cluster.call(app, CallBody::AcceptInverse { offers: vec![FIRST] });
    assert_eq!(answer(&cluster), InverseAnswer::Accepted);
    cluster.call(app, CallBody::DeclineInverse { offers: vec![FIRST] });
    assert_eq!(answer(&cluster), InverseAnswer::Declined);
    cluster.call(other, CallBody::DeclineInverse { offers: vec![FIRST] });
    story!(
        cluster,
        "app < c10 refused: inverse offer i1-2 is not outstanding",
        "app < c11 accepted",
        "app < c12 accepted",
        "other < c13 refused: inverse offer i1-1 is not outstanding",
    );
}

#[test]
fn a_framework_that_is_back_hears_again_what_is_asked_of_it() {
    let (mut cluster, _, [app, _]) = drained();
    cluster.unsubscribe(app);
    cluster.forget();
    cluster.subscribe(app);
    story!(
        cluster,
        "persist f1-0",
        "app < subscribed as f1-0",
        "app < asked back i1-1 of a1-0: t1, t2 (cpus=2;mem=2GiB) by +600s, maintenance",
    );
}

#[test]
fn what_a_framework_that_is_torn_down_had_is_not_asked_back_any_more() {
    let (mut cluster, _, [app, other]) = drained();
    cluster.call(app, CallBody::Teardown);
    cluster.call(other, CallBody::Teardown);
    assert_eq!(cluster.kernel.inverse_offers(), Vec::new());
}
