//! Agents are drained, deactivated and maintained, through failovers of the master.

use divvy_proto::agent::AgentMessage;
use divvy_proto::api::{AgentState, Drain, MaintenanceWindow, Window};
use divvy_proto::task::{Reason, TaskState};

use crate::kernel::testing::*;
use crate::kernel::*;
use crate::story;

/// One agent with one task, and nothing more that is wanted.
fn at_work() -> (Cluster, AgentHandle, FrameworkHandle) {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.launch(app, &[("t1", "cpus=1;mem=1GiB")]);
    let update = cluster.report(agent, "t1", TaskState::Running);
    cluster.acknowledge(app, agent, "t1", &update);
    cluster.forget();
    (cluster, agent, app)
}

fn window(cluster: &Cluster, agent: AgentHandle, start: u64, duration: u64) -> MaintenanceWindow {
    let reason = "a new disk".to_owned();
    let window = Window { start: START + secs(start), duration: secs(duration), reason };
    MaintenanceWindow { agents: vec![cluster.agent_id(agent)], window }
}

#[test]
fn an_agent_is_drained_and_offered_again() {
    let (mut cluster, agent, app) = at_work();
    cluster.drain(agent, Some(secs(60)), false);
    story!(
        cluster,
        "persist a1-0 drains",
        "app < rescind o1-2",
        "answer: done",
        "app < asked back i1-1 of a1-0: t1 (cpus=1;mem=1GiB) by +60s, maintenance",
    );
    let drain = |drained| Drain { since: START, deadline: Some(START + secs(60)), then_gone: false, drained };
    assert_eq!((cluster.state(agent), cluster.shown(agent).drain), (AgentState::Active, Some(drain(false))));

    cluster.advance(secs(60));
    cluster.killed(agent, app, "t1");
    assert_eq!(cluster.shown(agent).drain, Some(drain(true)));
    story!(
        cluster,
        "agent 0 < kill f1-0/t1",
        "app < t1 is KILLED: agent_drained (u2)",
        "persist a1-0 drained",
        "app < rescind i1-1",
        "persist f1-0 used t[1]",
        "agent 0 < acknowledge u2 of t1",
    );

    // It stays so whoever restarts.
    cluster.disconnect(agent);
    cluster.connect(agent);
    cluster.fail_over();
    cluster.connect(agent);
    cluster.subscribe(app);
    assert_eq!(cluster.shown(agent).drain, Some(drain(true)));
    cluster.forget();
    cluster.operator(OperatorRequest::Reactivate(cluster.agent_id(agent)));
    story!(
        cluster,
        "persist a1-0 offered again",
        "answer: done",
        "app < offers o2-1 of a1-0: cpus=4;mem=8GiB",
    );
    assert_eq!(cluster.shown(agent).drain, None);
}

#[test]
fn a_drain_without_a_deadline_kills_at_once() {
    let (mut cluster, agent, _) = at_work();
    cluster.drain(agent, None, false);
    story!(cluster, "persist a1-0 drains", "app < rescind o1-2", "answer: done", "agent 0 < kill f1-0/t1");
}

/// Its agent says one thing of a task at a time, so the end cannot be heard while KILLING waits for the framework.
#[test]
fn a_task_that_ends_while_its_framework_is_away_is_free_at_once_and_its_framework_hears_all_in_order() {
    let (mut cluster, agent, app) = at_work();
    cluster.unsubscribe(app);
    cluster.drain(agent, None, false);
    let killing = cluster.report(agent, "t1", TaskState::Killing);
    let used = |cluster: &Cluster| cluster.kernel.agents()[0].resources.used.to_string();
    assert_eq!(used(&cluster), "cpus=1;mem=1GiB");
    assert!(!cluster.shown(agent).drain.unwrap().drained);
    cluster.forget();

    let (framework_id, task_id) = (cluster.framework_id(app), "t1".parse().unwrap());
    cluster.agent_says(agent, AgentMessage::Ended { framework_id, task_id });
    story!(cluster, "persist a1-0 drained");
    assert_eq!(used(&cluster), "");
    assert!(cluster.shown(agent).drain.unwrap().drained);
    assert_eq!(cluster.kernel.tasks()[0].state, TaskState::Killing, "how it ended is not known yet");

    cluster.subscribe(app);
    cluster.acknowledge(app, agent, "t1", &killing);
    cluster.killed(agent, app, "t1");
    story!(
        cluster,
        "persist f1-0",
        "app < subscribed as f1-0",
        "app < t1 is KILLING: command_exited (u2)",
        "agent 0 < acknowledge u2 of t1",
        "app < t1 is KILLED: agent_drained (u3)",
        "persist f1-0 used t[1]",
        "agent 0 < acknowledge u3 of t1",
    );
    assert_eq!(cluster.agents_tasks(agent), Vec::new());
}

/// An agent that restarts removes the container once more, and until then says that the task is about to end.
#[test]
fn what_a_task_held_that_is_over_is_somebody_elses_whatever_its_agent_says_when_it_comes_back() {
    let (mut cluster, agent, app) = at_work();
    let other = cluster.framework("other");
    cluster.unsubscribe(app);
    cluster.report(agent, "t1", TaskState::Killing);
    let (framework_id, task_id) = (cluster.framework_id(app), "t1".parse().unwrap());
    let ended = AgentMessage::Ended { framework_id, task_id };
    cluster.forget();
    cluster.agent_says(agent, ended.clone());
    story!(cluster, "other < offers o1-4 of a1-0: cpus=1;mem=1GiB");
    cluster.agent_says(agent, ended);
    story!(cluster,);

    cluster.launch(other, &[("big", "cpus=4;mem=8GiB")]);
    cluster.disconnect(agent);
    cluster.forget();
    cluster.connect(agent);
    story!(cluster, "agent 0 < registered as a1-0");
    assert_eq!(cluster.kernel.agents()[0].resources.used.to_string(), "cpus=4;mem=8GiB");
}

#[test]
fn a_drain_goes_on_after_a_failover_with_its_deadline() {
    let (mut cluster, agent, app) = at_work();
    cluster.drain(agent, Some(secs(60)), false);
    cluster.advance(secs(20));
    cluster.fail_over();
    cluster.subscribe(app);
    cluster.forget();
    cluster.connect(agent);
    story!(
        cluster,
        "agent 0 < registered as a1-0",
        "app < asked back i2-1 of a1-0: t1 (cpus=1;mem=1GiB) by +60s, maintenance",
    );
    cluster.fail_over();
    cluster.advance(secs(60));
    cluster.subscribe(app);
    cluster.forget();
    cluster.connect(agent);
    cluster.killed(agent, app, "t1");
    story!(
        cluster,
        "agent 0 < registered as a1-0",
        "agent 0 < kill f1-0/t1",
        "app < t1 is KILLED: agent_drained (u2)",
        "persist a1-0 drained",
        "persist f1-0 used t[1]",
        "agent 0 < acknowledge u2 of t1",
    );
}

#[test]
fn an_agent_that_is_away_is_drained_when_it_is_back() {
    let (mut cluster, agent, app) = at_work();
    cluster.silence(agent);
    cluster.advance(secs(100));
    assert_eq!(cluster.state(agent), AgentState::Unreachable);
    cluster.drain(agent, None, false);
    assert!(!cluster.shown(agent).drain.unwrap().drained, "who knows what it runs");
    cluster.fail_over();
    cluster.subscribe(app);
    cluster.connect(agent);
    cluster.take_updates(app);
    cluster.killed(agent, app, "t1");
    assert_eq!(cluster.take_updates(app)[0].reason, Reason::AgentDrained);
    assert!(cluster.shown(agent).drain.unwrap().drained);
}

#[test]
fn a_later_drain_says_the_deadline_and_a_reactivation_takes_everything_back() {
    let (mut cluster, agent, app) = at_work();
    cluster.drain(agent, Some(secs(60)), false);
    cluster.advance(secs(10));
    cluster.forget();
    cluster.drain(agent, Some(secs(600)), false);
    story!(
        cluster,
        "persist a1-0 drains",
        "answer: done",
        "app < rescind i1-1",
        "app < asked back i1-2 of a1-0: t1 (cpus=1;mem=1GiB) by +610s, maintenance",
    );
    cluster.operator(OperatorRequest::Reactivate(cluster.agent_id(agent)));
    story!(
        cluster,
        "persist a1-0 offered again",
        "answer: done",
        "app < offers o1-3 of a1-0: cpus=3;mem=7GiB",
        "app < rescind i1-2",
    );
    cluster.decline(app, secs(3600));
    cluster.forget();
    cluster.advance(secs(1000));
    story!(cluster,);
}

#[test]
fn a_deactivated_agent_keeps_its_tasks_and_is_not_offered() {
    let (mut cluster, agent, app) = at_work();
    let id = cluster.agent_id(agent);
    cluster.operator(OperatorRequest::Deactivate(id.clone()));
    cluster.fail_over();
    cluster.connect(agent);
    cluster.subscribe(app);
    assert!(cluster.shown(agent).deactivated);
    assert_eq!((cluster.held(app), cluster.shown(agent).tasks), (Vec::new(), 1));
    cluster.operator(OperatorRequest::Reactivate(id));
    assert_eq!(cluster.held(app).len(), 1);
}

#[test]
fn orders_that_come_together_build_on_each_other() {
    let (mut cluster, agent, _) = at_work();
    let id = cluster.agent_id(agent);
    cluster.store_is_slow = true;
    cluster.operator(OperatorRequest::Deactivate(id));
    cluster.drain(agent, Some(secs(60)), false);
    cluster.settle_store();
    let shown = cluster.shown(agent);
    assert_eq!((shown.deactivated, shown.drain.is_some()), (true, true));
    assert_eq!(cluster.check_registry(), Ok(()));
}

#[test]
fn operators_hear_why_an_order_makes_no_sense() {
    let (mut cluster, agent, _) = at_work();
    let id = cluster.agent_id(agent);
    let stranger: divvy_proto::AgentId = "a9-9".parse().unwrap();
    cluster.operator(OperatorRequest::Reactivate(id.clone()));
    cluster.operator(OperatorRequest::Deactivate(stranger));
    cluster.operator(OperatorRequest::Deactivate(id.clone()));
    cluster.operator(OperatorRequest::Deactivate(id.clone()));
    cluster.operator(OperatorRequest::MarkGone(id));
    cluster.drain(agent, None, false);
    let answers: Vec<_> = cluster
        .story()
        .into_iter()
        .filter_map(|line| Some(line.strip_prefix("answer: ")?.to_owned()))
        .collect();
    assert_eq!(
        answers,
        [
            "agent a1-0 is neither deactivated nor drained",
            "agent a9-9 is not known",
            "done",
            "agent a1-0 is deactivated already",
            "done",
            "agent a1-0 was declared gone"
        ]
    );
}

#[test]
fn a_drained_agent_is_declared_gone_if_that_was_asked() {
    let (mut cluster, agent, app) = at_work();
    cluster.drain(agent, None, true);
    cluster.forget();
    cluster.killed(agent, app, "t1");
    story!(
        cluster,
        "app < t1 is KILLED: agent_drained (u2)",
        "persist a1-0 drained",
        "agent 0 closed: refused: agent a1-0 is being declared gone",
        "persist a1-0 gone",
        "app < failure of a1-0",
        "persist f1-0 used t[1]",
    );
    assert_eq!(cluster.state(agent), AgentState::Gone);
    cluster.connect(agent);
    story!(cluster, "agent 0 closed: the agent was declared gone");
}

#[test]
fn everybody_who_asks_for_an_agent_to_be_gone_is_answered_when_it_is() {
    let (mut cluster, agent, _) = at_work();
    let id = cluster.agent_id(agent);
    cluster.store_is_slow = true;
    cluster.operator(OperatorRequest::MarkGone(id.clone()));
    cluster.operator(OperatorRequest::MarkGone(id.clone()));
    cluster.connect(agent);
    cluster.forget();
    cluster.settle_store();
    story!(
        cluster,
        "app < t1 is GONE: agent_gone",
        "app < failure of a1-0",
        "answer: done",
        "answer: done",
        "persist f1-0 used t[1]",
    );
    cluster.operator(OperatorRequest::MarkGone(id));
    story!(cluster, "answer: agent a1-0 is gone already");
}

#[test]
fn a_window_is_announced_empties_the_agent_and_gives_it_back() {
    let (mut cluster, agent, app) = at_work();
    let windows = vec![window(&cluster, agent, 3600, 1800)];
    cluster.operator(OperatorRequest::SetMaintenance(windows.clone()));
    story!(
        cluster,
        "persist 1 windows of maintenance",
        "app < rescind o1-2",
        "answer: done",
        "app < offers o1-3 of a1-0: cpus=3;mem=7GiB",
    );
    let unavailable = |cluster: &Cluster| {
        cluster.frameworks[0].offers.values().map(|offer| offer.unavailable).collect::<Vec<_>>()
    };
    assert_eq!(unavailable(&cluster), [Some(START + secs(3600))]);
    cluster.decline(app, secs(100_000));
    cluster.forget();

    // Ten minutes before, with a failover in between.
    cluster.fail_over();
    cluster.connect(agent);
    cluster.subscribe(app);
    cluster.decline(app, secs(100_000));
    assert_eq!(cluster.kernel.maintenance(), windows);
    cluster.forget();
    cluster.advance(secs(2999));
    story!(cluster,);
    cluster.advance(secs(1));
    story!(cluster, "app < asked back i2-1 of a1-0: t1 (cpus=1;mem=1GiB) by +3600s, maintenance");
    let shown = cluster.shown(agent);
    assert_eq!(shown.maintenance, Some(windows[0].window.clone()));
    assert_eq!(
        shown.drain.map(|drain| (drain.deadline, drain.drained)),
        Some((Some(START + secs(3600)), false))
    );

    cluster.advance(secs(600));
    cluster.killed(agent, app, "t1");
    cluster.forget();
    cluster.advance(secs(1799));
    story!(cluster,);
    cluster.call(app, divvy_proto::scheduler::CallBody::Revive { roles: Vec::new() });
    cluster.forget();
    cluster.advance(secs(1));
    story!(cluster, "app < offers o2-2 of a1-0: cpus=4;mem=8GiB");
    assert_eq!((unavailable(&cluster), cluster.shown(agent).maintenance), (vec![None], None));
    assert_eq!(cluster.kernel.maintenance(), Vec::new());
}

#[test]
fn a_schedule_that_is_taken_back_takes_everything_back() {
    let (mut cluster, agent, _) = at_work();
    cluster.operator(OperatorRequest::SetMaintenance(vec![window(&cluster, agent, 60, 1800)]));
    story!(
        cluster,
        "persist 1 windows of maintenance",
        "app < rescind o1-2",
        "answer: done",
        "app < asked back i1-1 of a1-0: t1 (cpus=1;mem=1GiB) by +60s, maintenance",
    );
    cluster.operator(OperatorRequest::Reactivate(cluster.agent_id(agent)));
    cluster.operator(OperatorRequest::SetMaintenance(Vec::new()));
    story!(
        cluster,
        "answer: agent a1-0 is neither deactivated nor drained by order; it is under maintenance from \
         2001-09-09T01:47:40.000Z to 2001-09-09T02:17:40.000Z: change the schedule to end that",
        "persist 0 windows of maintenance",
        "answer: done",
        "app < offers o1-3 of a1-0: cpus=3;mem=7GiB",
        "app < rescind i1-1",
    );
}

#[test]
fn a_schedule_is_checked_whole() {
    let (mut cluster, agent, _) = at_work();
    let good = window(&cluster, agent, 600, 60);
    let stranger = MaintenanceWindow { agents: vec!["a9-9".parse().unwrap()], ..good.clone() };
    let nobody = MaintenanceWindow { agents: Vec::new(), ..good.clone() };
    cluster.advance(secs(1));
    for windows in [
        vec![good.clone(), stranger],
        vec![nobody],
        vec![window(&cluster, agent, 600, 0)],
        vec![window(&cluster, agent, 0, 1)],
        vec![good.clone(), window(&cluster, agent, 659, 60)],
        vec![good, window(&cluster, agent, 660, 60)],
    ] {
        cluster.operator(OperatorRequest::SetMaintenance(windows));
    }
    let answers: Vec<_> = cluster
        .story()
        .into_iter()
        .filter_map(|line| Some(line.strip_prefix("answer: ")?.to_owned()))
        .collect();
    assert_eq!(
        answers,
        [
            "windows[1].agents: agent a9-9 is not known",
            "windows[0].agents is empty; expected at least one agent",
            "windows[0].window.duration is 0; expected some time",
            "windows[0].window ends at 2001-09-09T01:46:41.000Z; expected an end after now, 2001-09-09T01:46:41.000Z",
            "agent a1-0 has a window that begins at 2001-09-09T01:57:39.000Z before the one from \
             2001-09-09T01:56:40.000Z ends at 2001-09-09T01:57:40.000Z; expected windows that do not overlap",
            "done"
        ]
    );
}
