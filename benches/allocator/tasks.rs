//! Tasks as frameworks launch them and agents report them.

use anyhow::Result;
use divvy_proto::ids::{AgentId, TaskId};
use divvy_proto::resources::Resources;
use divvy_proto::task::{Command, ContainerStatus, Reason, Source, TaskInfo, TaskState, TaskStatus};
use divvy_proto::time::Timestamp;

pub fn task(id: &str, resources: &Resources) -> Result<TaskInfo> {
    Ok(TaskInfo {
        id: id.parse()?,
        name: "bench".to_owned(),
        command: Command::Shell("true".to_owned()),
        resources: resources.clone(),
        cpu_limit: None,
        pids_limit: None,
        ports: Vec::new(),
        env: Default::default(),
        user: None,
        artifacts: Vec::new(),
        health: Vec::new(),
        kill_grace: None,
        labels: Default::default(),
        priority: 0,
        volumes: Vec::new(),
        container: None,
    })
}

/// Without an update id there is nothing to acknowledge.
pub fn status(id: &TaskId, agent: Option<&AgentId>, state: TaskState, now: Timestamp) -> TaskStatus {
    TaskStatus {
        task_id: id.clone(),
        agent_id: agent.cloned(),
        state,
        reason: Reason::CommandExited,
        source: Source::Agent,
        message: String::new(),
        time: now,
        update_id: None,
        healthy: None,
        container: ContainerStatus::default(),
    }
}
