//! What survives a restart of the master on the same store.

use divvy_proto::agent::AgentInfo;
use divvy_proto::api::{self, AgentState, FrameworkState};
use divvy_proto::scheduler::FrameworkInfo;
use divvy_proto::task::{AgentTask, TaskState};

use crate::harness::{Agent, Cluster, Framework, agent_info, framework_info, running_task, task};

#[tokio::test]
async fn agents_and_frameworks_keep_their_ids_and_tasks_run_on() {
    let mut cluster = Cluster::start().await;
    let (agent, framework) = running_task(&cluster, agent_info("agent-1"), "t1").await;
    let (agent_id, framework_id) = (agent.id.clone(), framework.id.clone());
    let status = agent.status("t1", TaskState::Running, "u1");

    cluster.restart().await;
    let agents: Vec<api::Agent> = cluster.get("/api/v1/agents").await;
    let frameworks: Vec<api::Framework> = cluster.get("/api/v1/frameworks").await;
    assert_eq!(agents.iter().map(|agent| agent.state).collect::<Vec<_>>(), [AgentState::Recovering]);
    let states: Vec<_> = frameworks.iter().map(|framework| framework.state).collect();
    assert_eq!(states, [FrameworkState::Disconnected]);

    let task = AgentTask {
        framework_id: framework_id.clone(),
        info: task("t1"),
        status,
        allocation: Default::default(),
    };
    let info = AgentInfo { id: Some(agent_id.clone()), ..agent_info("agent-1") };
    let agent = Agent::register(&cluster, info, vec![task]).await;
    let info = FrameworkInfo { id: Some(framework_id.clone()), ..framework_info("test") };
    let framework = Framework::subscribe(&cluster, info).await;
    assert_eq!((agent.id, framework.id), (agent_id, framework_id.clone()));

    let seen: api::Task = cluster.get(&format!("/api/v1/tasks/{framework_id}/t1")).await;
    assert_eq!(seen.state, TaskState::Running);
    let status: api::Status = cluster.get("/api/v1/status").await;
    assert_eq!(status.epoch, 2);
}
