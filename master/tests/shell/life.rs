//! One task's life, seen from all sides.

use divvy_proto::agent::MasterMessage;
use divvy_proto::api;
use divvy_proto::ids::UpdateId;
use divvy_proto::scheduler::CallBody;
use divvy_proto::task::TaskState;

use crate::harness::{Cluster, agent_info, running_task};

#[tokio::test]
async fn a_task_runs_is_seen_and_is_killed_by_an_operator() {
    let cluster = Cluster::start().await;
    let (mut agent, mut framework) = running_task(&cluster, agent_info("agent-1"), "t1").await;

    let update_id = UpdateId::new("u1").unwrap();
    let (agent_id, task_id) = (agent.id.clone(), "t1".parse().unwrap());
    framework.call(CallBody::Acknowledge { agent_id, task_id, update_id: update_id.clone() }).await;
    let acknowledged = agent
        .expect("Acknowledge", |message| match message {
            MasterMessage::Acknowledge { update_id, .. } => Some(update_id),
            _ => None,
        })
        .await;
    assert_eq!(acknowledged, update_id);

    let path = format!("/api/v1/tasks/{}/t1", framework.id);
    let seen: api::Task = cluster.get(&path).await;
    assert_eq!((seen.state, seen.pid, seen.hostname.as_str()), (TaskState::Running, Some(4711), "agent-1"));
    let status: api::Status = cluster.get("/api/v1/status").await;
    assert_eq!(status.tasks.get(&TaskState::Running), Some(&1));
    assert_eq!((status.leader, status.epoch), (cluster.master.address().to_owned(), 1));

    assert_eq!(cluster.post(&format!("{path}/kill")).await, 204);
    agent.expect("Kill", |message| matches!(message, MasterMessage::Kill { .. }).then_some(())).await;
    agent.update(&framework.id, agent.status("t1", TaskState::Killed, "u2")).await;
    framework.expect_update(TaskState::Killed).await;
    let agents: Vec<api::Agent> = cluster.get("/api/v1/agents").await;
    assert_eq!(agents.iter().map(|agent| agent.tasks).collect::<Vec<_>>(), [0]);
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let cluster = Cluster::start().await;
    let _running = running_task(&cluster, agent_info("agent-1"), "t1").await;
    let text = cluster.answer(cluster.http.get(cluster.url("/metrics"))).await.text().await.unwrap();
    for line in [
        "divvy_master_agents{state=\"active\"} 1",
        "divvy_master_tasks{state=\"RUNNING\"} 1",
        "divvy_master_links 2",
        "divvy_master_messages_received_total{peer=\"framework\",kind=\"accept\"} 1",
        "divvy_master_messages_sent_total{peer=\"agent\",kind=\"launch\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}
