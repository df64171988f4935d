//! Frameworks subscribe, fail over, disconnect and end.

use divvy_proto::api::FrameworkState;
use divvy_proto::scheduler::{CallBody, FrameworkInfo};
use divvy_proto::task::TaskState;

use crate::kernel::testing::*;
use crate::kernel::*;
use crate::story;

#[test]
fn a_framework_is_stored_before_it_is_told_its_id() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    cluster.store_is_slow = true;
    cluster.forget();
    let app = cluster.framework("app");
    cluster.call(app, CallBody::Revive { roles: vec![] });
    story!(cluster, "persist f1-0", "app < c2 refused: the first call on a stream is Subscribe");
    cluster.store_answers();
    story!(cluster, "app < subscribed as f1-0", "app < offers o1-1 of a1-0: cpus=4;mem=8GiB");
}

#[test]
fn one_that_leaves_before_it_knows_its_id_is_forgotten() {
    let mut cluster = Cluster::new();
    cluster.store_is_slow = true;
    let app = cluster.framework("app");
    cluster.unsubscribe(app);
    cluster.store_answers();
    cluster.store_answers();
    story!(cluster, "persist f1-0", "persist f1-0 retired");
    assert_eq!(cluster.kernel.frameworks()[0].state, FrameworkState::Completed);
}

#[test]
fn a_disconnected_framework_keeps_its_tasks_and_not_its_offers() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.launch(app, &[("t1", "cpus=1;mem=1GiB")]);
    let running = cluster.report(agent, "t1", TaskState::Running);
    cluster.framework("other");
    cluster.forget();

    cluster.unsubscribe(app);
    story!(cluster, "persist f1-0 disconnected", "other < offers o1-3 of a1-0: cpus=3;mem=7GiB");
    cluster.report(agent, "t1", TaskState::Failed);
    story!(cluster, "other < offers o1-4 of a1-0: cpus=1;mem=1GiB");

    // What it has missed it hears at once, without waiting for the agent to repeat it.
    cluster.subscribe(app);
    story!(
        cluster,
        "persist f1-0",
        "app < subscribed as f1-0",
        format!("app < t1 is FAILED: command_exited (u2)"),
    );
    cluster.acknowledge(app, agent, "t1", &running);
    assert_eq!(cluster.kernel.snapshot(cluster.now).agents[0].tasks, 0);
}

#[test]
fn a_second_subscription_takes_over_and_the_first_is_told() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.forget();
    cluster.subscribe(app);
    story!(
        cluster,
        "link 2 closed: another connection has subscribed with the same id",
        "app < subscribed as f1-0",
        "app < offers o1-2 of a1-0: cpus=4;mem=8GiB",
    );
}

#[test]
fn after_its_failover_timeout_a_framework_ends_for_good() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.launch(app, &[("t1", "cpus=1;mem=1GiB")]);
    cluster.report(agent, "t1", TaskState::Running);
    cluster.unsubscribe(app);
    cluster.forget();
    cluster.advance(secs(599));
    story!(cluster,);
    cluster.advance(secs(1));
    story!(cluster, "persist f1-0 retired", "agent 0 < shut down f1-0");
    assert_eq!(cluster.kernel.tasks()[0].state, TaskState::Killed);
    assert_eq!(cluster.kernel.agents()[0].resources.used, Default::default());

    cluster.subscribe(app);
    story!(cluster, "app closed: the framework was torn down");
}

#[test]
fn the_failover_timeout_runs_through_a_failover_of_the_master() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.launch(app, &[("t1", "cpus=1;mem=1GiB")]);
    cluster.unsubscribe(app);
    cluster.advance(secs(400));
    cluster.fail_over();
    cluster.connect(agent);
    cluster.forget();
    cluster.advance(secs(199));
    story!(cluster,);
    cluster.advance(secs(1));
    story!(cluster, "persist f1-0 retired", "agent 0 < shut down f1-0");
}

#[test]
fn an_agent_that_returns_with_tasks_of_a_framework_that_has_ended_is_told_to_end_them() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.launch(app, &[("t1", "cpus=1;mem=1GiB")]);
    cluster.disconnect(agent);
    cluster.forget();
    cluster.call(app, CallBody::Teardown);
    story!(cluster, "persist f1-0 retired", "app < c3 accepted", "app closed: the framework was torn down",);
    cluster.connect(agent);
    story!(cluster, "agent 0 < registered as a1-0", "agent 0 < shut down f1-0");
}

#[test]
fn an_operator_ends_a_framework() {
    let mut cluster = Cluster::new();
    let app = cluster.framework("app");
    cluster.forget();
    let id = cluster.framework_id(app);
    cluster.operator(OperatorRequest::Teardown(id.clone()));
    cluster.operator(OperatorRequest::Teardown(id));
    story!(
        cluster,
        "persist f1-0 retired",
        "app closed: the framework was torn down",
        "answer: done",
        "answer: framework f1-0 was torn down already",
    );
}

#[test]
fn a_subscription_that_is_not_valid_ends_the_stream_with_the_reason() {
    let mut cluster = Cluster::new();
    let mut subscribe = |change: fn(&mut FrameworkInfo)| {
        let link = cluster.next_link();
        let mut framework = framework_info("app", &["eng", "ops"]);
        change(&mut framework);
        cluster.call_on(link, CallBody::Subscribe { framework, suppressed: Vec::new() });
    };
    subscribe(|info| info.roles.clear());
    subscribe(|info| info.roles.push("eng".parse().unwrap()));
    subscribe(|info| info.id = Some("f7-7".parse().unwrap()));
    story!(
        cluster,
        "link 1 closed: refused: framework.roles: \"\" is not valid: expected at least one role",
        "link 2 closed: refused: framework.roles: \"eng,ops,eng\" is not valid: expected each role once",
        "link 3 closed: refused: framework f7-7 is not known here: it was torn down, or its failover timeout has passed",
    );
    assert_eq!(cluster.kernel.frameworks(), Vec::new());
}

#[test]
fn an_update_of_a_framework_is_answered_once_it_is_stored() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework_in("app", &["eng"]);
    cluster.forget();
    cluster.store_is_slow = true;
    let framework = FrameworkInfo { url: Some("http://app".to_owned()), ..framework_info("app", &["ops"]) };
    cluster.call(app, CallBody::UpdateFramework { framework, suppressed: Vec::new() });
    story!(
        cluster,
        "app < rescind o1-1",
        "persist f1-0",
        "app < offers o1-2 of a1-0 for ops: cpus=4;mem=8GiB",
    );
    cluster.store_answers();
    story!(cluster, "app < c2 accepted");
    assert_eq!(cluster.kernel.frameworks()[0].url, Some("http://app".to_owned()));
}

#[test]
fn a_call_that_is_repeated_has_no_second_effect_and_gets_the_same_answer() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.launch(app, &[("t1", "cpus=1;mem=1GiB")]);
    cluster.forget();
    cluster.subscribe(app);
    let stranger = CallBody::Kill { task_id: "t1".parse().unwrap(), grace: None };
    cluster.forget();
    cluster.call_again(app, "c2", stranger);
    story!(cluster, "app < c2 accepted");
}

#[test]
fn roles_are_suppressed_from_the_start_and_wanted_again_without_their_filters() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.decline(app, secs(600));
    let update = |suppressed: &[&str]| CallBody::UpdateFramework {
        framework: framework_info("app", &["*"]),
        suppressed: suppressed.iter().map(|role| role.parse().unwrap()).collect(),
    };
    cluster.forget();
    cluster.call(app, update(&["*"]));
    cluster.call(app, update(&[]));
    cluster.call(app, update(&["ops"]));
    story!(
        cluster,
        "persist f1-0",
        "app < c3 accepted",
        "persist f1-0",
        "app < offers o1-2 of a1-0: cpus=4;mem=8GiB",
        "app < c4 accepted",
        "app < c5 refused: suppressed: \"ops\" is not valid: expected one of the framework's roles",
    );

    let link = cluster.next_link();
    let framework = framework_info("idle", &["*"]);
    cluster.call_on(link, CallBody::Subscribe { framework, suppressed: vec!["*".parse().unwrap()] });
    cluster.decline(app, secs(600));
    story!(cluster, "persist f1-1", "link 3 < subscribed as f1-1", "app < c7 accepted");
}

#[test]
fn a_stream_subscribes_once_and_does_not_speak_as_an_agent() {
    let mut cluster = Cluster::new();
    let app = cluster.framework("app");
    cluster.forget();
    let framework = framework_info("app", &["*"]);
    cluster.call(app, CallBody::Subscribe { framework, suppressed: Vec::new() });
    let link = cluster.frameworks[0].link.unwrap();
    cluster.feed(Input::Agent { link, message: divvy_proto::agent::AgentMessage::Pong });
    story!(
        cluster,
        "app < c2 refused: subscribe: \"app\" is not valid: expected one Subscribe on a stream",
        "app closed: refused: a framework does not speak as an agent",
        "persist f1-0 disconnected",
    );
}
