//! Agents register, fall silent, return and are declared gone.

use divvy_proto::agent::AgentMessage;
use divvy_proto::api::AgentState;
use divvy_proto::task::TaskState;

use crate::kernel::testing::*;
use crate::kernel::*;
use crate::story;

#[test]
fn an_agent_is_admitted_before_it_is_told_and_its_resources_exist_after() {
    let mut cluster = Cluster::new();
    cluster.framework("app");
    cluster.store_is_slow = true;
    cluster.forget();
    cluster.agent("cpus=4;mem=8GiB");
    story!(cluster, "persist a1-0");
    assert_eq!(cluster.kernel.agents(), Vec::new());

    cluster.store_answers();
    story!(cluster, "agent 0 < registered as a1-0", "app < offers o1-1 of a1-0: cpus=4;mem=8GiB",);
}

#[test]
fn an_agent_that_comes_back_in_time_finds_everything_as_it_was() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.launch(app, &[("t1", "cpus=1;mem=1GiB")]);
    cluster.report(agent, "t1", TaskState::Running);
    cluster.forget();

    cluster.disconnect(agent);
    story!(cluster, "app < rescind o1-2");
    assert_eq!(cluster.state(agent), AgentState::Suspected);
    cluster.advance(secs(74));
    cluster.connect(agent);
    story!(cluster, "agent 0 < registered as a1-0", "app < offers o1-3 of a1-0: cpus=3;mem=7GiB");
    assert_eq!(cluster.state(agent), AgentState::Active);
}

#[test]
fn a_silent_agent_is_suspected_then_unreachable_and_its_tasks_return_with_it() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.launch(app, &[("t1", "cpus=1;mem=1GiB")]);
    cluster.report(agent, "t1", TaskState::Running);
    cluster.decline(app, secs(3600));
    cluster.forget();

    // The ping at 15 s is not answered; the window ends at 30 s.
    cluster.silence(agent);
    cluster.advance(secs(30));
    assert_eq!(cluster.state(agent), AgentState::Suspected);
    story!(cluster,);
    cluster.advance(secs(59));
    story!(cluster,);
    cluster.store_is_slow = true;
    cluster.advance(secs(1));
    story!(cluster, "agent 0 closed: refused: 5 pings were not answered", "persist a1-0 unreachable",);
    cluster.store_answers();
    story!(cluster, "app < t1 is UNREACHABLE: agent_unreachable", "app < failure of a1-0");

    cluster.store_is_slow = false;
    cluster.connect(agent);
    story!(cluster, "persist a1-0", "agent 0 < registered as a1-0", "app < t1 is RUNNING: agent_returned",);
    assert_eq!(cluster.kernel.agents()[0].resources.used, "cpus=1;mem=1GiB".parse().unwrap());
}

#[test]
fn a_pong_in_time_ends_the_suspicion() {
    let mut cluster = Cluster::with(Config { offer_timeout: secs(3600), ..Config::default() });
    let agent = cluster.agent("cpus=4;mem=8GiB");
    cluster.framework("app");
    cluster.forget();
    cluster.silence(agent);
    cluster.advance(secs(30));
    cluster.agent_says(agent, AgentMessage::Pong);
    story!(cluster, "app < rescind o1-1", "app < offers o1-2 of a1-0: cpus=4;mem=8GiB");
}

#[test]
fn pings_go_to_agents_and_heartbeats_to_frameworks() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.decline(app, secs(3600));
    cluster.forget();
    cluster.with_heartbeats = true;
    cluster.advance(secs(30));
    story!(cluster, "agent 0 < ping", "app < heartbeat", "agent 0 < ping", "app < heartbeat");
}

#[test]
fn when_too_many_fall_silent_together_nobody_is_marked_and_the_operator_is_told() {
    let mut cluster = Cluster::new();
    let agents: Vec<_> = (0..5).map(|_| cluster.agent("cpus=4;mem=8GiB")).collect();
    cluster.forget();
    agents.iter().take(3).for_each(|agent| cluster.silence(*agent));
    cluster.advance(secs(3600));
    story!(cluster,);
    assert_eq!(cluster.state(agents[0]), AgentState::Suspected);
    assert_eq!(cluster.kernel.status(cluster.now).warnings.len(), 1);

    // One of them answers: the other two are below the breaker.
    cluster.agents[0].silent = false;
    cluster.advance(secs(30));
    story!(
        cluster,
        "agent 1 closed: refused: 5 pings were not answered",
        "persist a1-1 unreachable",
        "agent 2 closed: refused: 5 pings were not answered",
        "persist a1-2 unreachable",
    );
    assert_eq!(cluster.kernel.status(cluster.now).warnings, Vec::<String>::new());
}

#[test]
fn a_second_stream_of_an_agent_takes_over_from_the_first() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    cluster.framework("app");
    cluster.forget();
    cluster.connect(agent);
    story!(
        cluster,
        "link 1 closed: another connection has subscribed with the same id",
        "app < rescind o1-1",
        "agent 0 < registered as a1-0",
        "app < offers o1-2 of a1-0: cpus=4;mem=8GiB",
    );
}

#[test]
fn tasks_that_an_agent_comes_back_without_have_ended() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.launch(app, &[("seen", "cpus=1;mem=1GiB"), ("unseen", "cpus=1;mem=1GiB")]);
    cluster.report(agent, "seen", TaskState::Running);
    cluster.decline(app, secs(3600));
    cluster.forget();
    cluster.agents[0].tasks.clear();
    cluster.disconnect(agent);
    cluster.connect(agent);
    story!(
        cluster,
        "agent 0 < registered as a1-0",
        "app < seen is FAILED: agent_restarted",
        "app < unseen is DROPPED: agent_restarted",
        "persist f1-0 used 1 hashed, f1-0 used 1 hashed",
        "app < offers o1-3 of a1-0: cpus=4;mem=8GiB",
    );
}

#[test]
fn an_agent_that_comes_back_smaller_than_its_tasks_has_what_they_hold() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.launch(app, &[("t1", "cpus=3;mem=1GiB")]);
    cluster.agents[0].info.resources = "cpus=2;mem=8GiB".parse().unwrap();
    cluster.disconnect(agent);
    cluster.connect(agent);
    let shown = cluster.kernel.agents().remove(0).resources;
    assert_eq!(shown.total, "cpus=3;mem=8GiB".parse().unwrap());
    assert_eq!(shown.offered, "mem=7GiB".parse().unwrap());
    cluster.report(agent, "t1", TaskState::Finished);
    assert_eq!(cluster.kernel.agents()[0].resources.total, "cpus=2;mem=8GiB".parse().unwrap());
}

#[test]
fn what_no_honest_agent_says_ends_its_stream_and_nothing_else() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    cluster.forget();
    let stranger = cluster.next_link();
    cluster.feed(Input::Agent { link: stranger, message: AgentMessage::Pong });
    cluster.feed(Input::AgentClosed { link: stranger });
    let mut info = cluster.agents[0].info.clone();
    info.id = Some("a9-9".parse().unwrap());
    let message = AgentMessage::Register { agent: info, tasks: Vec::new() };
    cluster.feed(Input::Agent { link: stranger, message });
    story!(
        cluster,
        "link 2 closed: refused: the first message of an agent is Register",
        "link 2 closed: refused: agent id a9-9 was not given out by this master's registry",
    );
    assert_eq!(cluster.state(agent), AgentState::Active);

    let agent_info = cluster.agents[0].info.clone();
    cluster.agent_says(agent, AgentMessage::Register { agent: agent_info, tasks: Vec::new() });
    story!(cluster, "agent 0 closed: refused: this stream is already registered");
    assert_eq!(cluster.state(agent), AgentState::Suspected);
}

#[test]
fn a_gone_agent_loses_its_tasks_and_is_refused() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.launch(app, &[("t1", "cpus=1;mem=1GiB")]);
    cluster.forget();
    let id = cluster.agent_id(agent);
    cluster.operator(OperatorRequest::MarkGone(id.clone()));
    story!(
        cluster,
        "agent 0 closed: refused: agent a1-0 is being declared gone",
        "app < rescind o1-2",
        "persist a1-0 gone",
        "app < t1 is GONE: agent_gone",
        "app < failure of a1-0",
        "answer: done",
        "persist f1-0 used t[1]",
    );
    cluster.connect(agent);
    cluster.operator(OperatorRequest::MarkGone(id));
    story!(cluster, "agent 0 closed: the agent was declared gone", "answer: agent a1-0 is gone already",);
}

#[test]
fn after_a_failover_agents_are_recovering_until_they_return_or_their_time_is_up() {
    let mut cluster = Cluster::new();
    let (back, lost) = (cluster.agent("cpus=4;mem=8GiB"), cluster.agent("cpus=2;mem=2GiB"));
    let app = cluster.framework("app");
    let offers = cluster.held(app);
    cluster.accept(app, vec![offers[0]], &[("t1", "cpus=1;mem=1GiB")], NO_FILTER);
    cluster.report(back, "t1", TaskState::Running);
    cluster.fail_over();
    cluster.forget();

    cluster.subscribe(app);
    cluster.connect(back);
    assert_eq!((cluster.state(back), cluster.state(lost)), (AgentState::Active, AgentState::Recovering));
    cluster.decline(app, secs(3600));
    cluster.advance(secs(600));
    story!(
        cluster,
        "persist f1-0 disconnected",
        "persist f1-0",
        "app < subscribed as f1-0",
        "agent 0 < registered as a1-0",
        "app < offers o2-1 of a1-0: cpus=3;mem=7GiB",
        "app < c4 accepted",
        "persist a1-1 unreachable",
        "app < failure of a1-1",
    );
    assert_eq!(cluster.kernel.tasks()[0].state, TaskState::Running);
}

#[test]
fn after_a_failover_the_breaker_holds_for_agents_that_do_not_come_back() {
    let mut cluster = Cluster::new();
    let agents: Vec<_> = (0..4).map(|_| cluster.agent("cpus=4;mem=8GiB")).collect();
    cluster.fail_over();
    cluster.connect(agents[0]);
    cluster.forget();
    cluster.advance(secs(3600));
    story!(cluster,);
    cluster.connect(agents[1]);
    cluster.advance(secs(15));
    story!(cluster, "agent 1 < registered as a1-1", "persist a1-2 unreachable", "persist a1-3 unreachable",);
}

#[test]
fn an_agent_that_returns_while_its_mark_is_written_is_marked_and_returns() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.launch(app, &[("t1", "cpus=4;mem=8GiB")]);
    cluster.report(agent, "t1", TaskState::Running);
    cluster.disconnect(agent);
    cluster.forget();
    cluster.store_is_slow = true;
    cluster.advance(secs(75));
    cluster.connect(agent);
    story!(cluster, "persist a1-0 unreachable", "persist a1-0");
    cluster.store_answers();
    story!(
        cluster,
        "app < t1 is UNREACHABLE: agent_unreachable",
        "app < failure of a1-0",
        "agent 0 < registered as a1-0",
        "app < t1 is RUNNING: agent_returned",
    );
}

#[test]
fn an_agent_that_leaves_before_it_is_admitted_is_shown_and_given_up_in_time() {
    let mut cluster = Cluster::new();
    cluster.store_is_slow = true;
    let agent = cluster.agent("cpus=4;mem=8GiB");
    cluster.disconnect(agent);
    cluster.settle_store();
    story!(cluster, "persist a1-0");
    assert_eq!(cluster.kernel.agents()[0].state, AgentState::Suspected);
    cluster.advance(secs(75));
    story!(cluster, "persist a1-0 unreachable");
}

#[test]
fn an_agent_that_is_condemned_while_it_returns_stays_gone() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    cluster.disconnect(agent);
    cluster.advance(secs(75));
    cluster.store_is_slow = true;
    cluster.forget();
    cluster.connect(agent);
    let id = cluster.agent_id(agent);
    cluster.operator(OperatorRequest::MarkGone(id));
    cluster.settle_store();
    story!(
        cluster,
        "persist a1-0",
        "agent 0 closed: refused: agent a1-0 is being declared gone",
        "persist a1-0 gone",
        "answer: done",
    );
    assert_eq!(cluster.check_registry(), Ok(()));
}

#[test]
fn a_kill_reaches_a_task_that_returns() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.launch(app, &[("t1", "cpus=4;mem=8GiB")]);
    cluster.disconnect(agent);
    cluster.advance(secs(75));
    cluster.forget();
    cluster.kill(app, "t1");
    cluster.connect(agent);
    story!(
        cluster,
        "app < c3 accepted",
        "persist a1-0",
        "agent 0 < registered as a1-0",
        "app < t1 is STAGING: agent_returned",
        "agent 0 < kill f1-0/t1",
    );
}

#[test]
fn a_task_of_a_framework_that_the_registry_has_lost_waits_for_it() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.launch(app, &[("t1", "cpus=1;mem=1GiB")]);
    cluster.report(agent, "t1", TaskState::Running);
    cluster.registry.retain(|record| matches!(record, RegistryChange::PutAgent { .. }));
    cluster.fail_over();
    cluster.forget();
    cluster.connect(agent);
    cluster.subscribe(app);
    cluster.decline(app, secs(100));
    story!(
        cluster,
        "agent 0 < registered as a1-0",
        "persist f1-0 disconnected",
        "persist f1-0",
        "app < subscribed as f1-0",
        "app < t1 is RUNNING: command_exited (u1)",
        "app < offers o2-1 of a1-0: cpus=3;mem=7GiB",
        "app < c4 accepted",
    );
    assert_eq!(cluster.kernel.tasks()[0].state, TaskState::Running);
}

#[test]
fn a_report_that_cannot_be_true_is_refused_whole() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB;ports=[1-9]");
    let app = cluster.framework("app");
    cluster.launch(app, &[("t1", "cpus=1;mem=1GiB;ports=[1]"), ("t2", "cpus=1;mem=1GiB;ports=[2]")]);
    cluster.disconnect(agent);
    cluster.forget();
    for task in cluster.agents[0].tasks.values_mut() {
        task.info.resources = "cpus=1;mem=1GiB;ports=[1]".parse().unwrap();
    }
    cluster.connect(agent);
    story!(
        cluster,
        "agent 0 closed: refused: register.tasks[1].info.resources: \"cpus=1;mem=1GiB;ports=[1]\" is not valid: \
         expected cpus=1;mem=1GiB;ports=[2], as it was launched",
    );

    // A master that did not launch them sees that they exclude each other.
    cluster.fail_over();
    cluster.connect(agent);
    story!(
        cluster,
        "persist f1-0 disconnected",
        "agent 0 closed: refused: register.tasks[1].info.resources: \"cpus=1;mem=1GiB;ports=[1]\" is not valid: \
         expected what tasks can hold side by side on one agent",
    );
}

/// What the agent of a torn-down framework still has to end counts as free already, and may have been given away.
#[test]
fn a_report_may_show_a_task_that_ends_beside_the_one_that_has_its_ports() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB;ports=[1]");
    let old = cluster.framework("old");
    cluster.launch(old, &[("t1", "cpus=1;mem=1GiB;ports=[1]")]);
    let ending = cluster.agents[0].tasks.clone();
    cluster.call(old, divvy_proto::scheduler::CallBody::Teardown);
    let app = cluster.framework("app");
    cluster.launch(app, &[("t2", "cpus=4;mem=8GiB;ports=[1]")]);
    cluster.agents[0].tasks.extend(ending);
    cluster.disconnect(agent);
    cluster.forget();
    cluster.connect(agent);
    story!(cluster, "agent 0 < registered as a1-0", "agent 0 < shut down f1-0");
    assert_eq!(cluster.kernel.agents()[0].resources.used, "cpus=4;mem=8GiB;ports=[1]".parse().unwrap());
}

/// A master that has lost sight of a task must not let its resources hide those of one that it learns of.
#[test]
fn a_task_that_is_new_may_have_the_ports_of_one_that_is_gone() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB;ports=[1]");
    let app = cluster.framework("app");
    cluster.launch(app, &[("t1", "cpus=1;mem=1GiB;ports=[1]")]);
    cluster.disconnect(agent);
    let (mut key, mut stranger) = cluster.agents[0].tasks.pop_first().unwrap();
    (key.1, stranger.info.id, stranger.status.task_id) =
        ("t2".parse().unwrap(), "t2".parse().unwrap(), "t2".parse().unwrap());
    cluster.agents[0].tasks.insert(key, stranger);
    cluster.forget();
    cluster.connect(agent);
    story!(
        cluster,
        "agent 0 < registered as a1-0",
        "app < t1 is DROPPED: agent_restarted",
        "persist f1-0 used t[1]",
        "app < offers o1-3 of a1-0: cpus=3;mem=7GiB",
    );
    assert_eq!(cluster.kernel.agents()[0].resources.used, "cpus=1;mem=1GiB;ports=[1]".parse().unwrap());
}

#[test]
fn an_update_of_a_task_that_is_not_known_is_left_to_its_framework() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.decline(app, secs(100));
    let framework_id = cluster.framework_id(app);
    let mut status = status(&"t9".parse().unwrap(), None, TaskState::Finished, cluster.now);
    status.update_id = Some("u9".parse().unwrap());
    cluster.forget();
    cluster.agent_says(
        agent,
        AgentMessage::Update { framework_id: framework_id.clone(), status: status.clone() },
    );
    cluster.acknowledge(app, agent, "t9", &"u9".parse().unwrap());
    cluster.call(app, divvy_proto::scheduler::CallBody::Teardown);
    cluster.agent_says(agent, AgentMessage::Update { framework_id, status });
    story!(
        cluster,
        "app < t9 is FINISHED: command_exited (u9)",
        "agent 0 < acknowledge u9 of t9",
        "persist f1-0 retired",
        "app < c4 accepted",
        "app closed: the framework was torn down",
        "agent 0 < shut down f1-0",
    );
}

/// Whether it is as large as the one that was launched again or not.
#[test]
fn a_task_that_was_launched_again_elsewhere_before_its_agent_was_back_is_killed_there_and_counts_until_it_ends()
 {
    for again in ["cpus=1;mem=1GiB", "cpus=2;mem=2GiB"] {
        let mut cluster = Cluster::new();
        let (late, other) = (cluster.agent("cpus=4;mem=8GiB"), cluster.agent("cpus=4;mem=8GiB"));
        let app = cluster.framework("app");
        let offer = cluster.held(app)[0];
        cluster.accept(app, vec![offer], &[("t1", "cpus=1;mem=1GiB")], NO_FILTER);
        cluster.report(late, "t1", TaskState::Running);
        cluster.fail_over();
        cluster.subscribe(app);
        cluster.connect(other);
        cluster.launch(app, &[("t1", again)]);
        cluster.decline(app, secs(3600));
        cluster.forget();

        cluster.connect(late);
        story!(
            cluster,
            "agent 0 < registered as a1-0",
            "agent 0 < kill f1-0/t1",
            "app < offers o2-3 of a1-0: cpus=3;mem=7GiB",
        );
        let tasks = cluster.kernel.tasks();
        assert_eq!((tasks.len(), &tasks[0].agent_id), (1, &cluster.agent_id(other)));
        let used = |cluster: &Cluster, at: usize| cluster.kernel.agents()[at].resources.used.to_string();
        assert_eq!((used(&cluster, 0).as_str(), used(&cluster, 1).as_str()), ("", again));

        cluster.report(late, "t1", TaskState::Killed);
        story!(cluster, "agent 0 < acknowledge u2 of t1", "app < offers o2-4 of a1-0: cpus=1;mem=1GiB");
        assert_eq!(cluster.agents_tasks(late), Vec::new());
        assert_eq!(cluster.kernel.tasks()[0].state, TaskState::Staging);
    }
}
