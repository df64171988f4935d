//! The agents and frameworks of the test cluster: they remember what they are told, and nothing else.

use std::collections::BTreeMap;

use divvy_proto::agent::{AgentInfo, AgentMessage, MasterMessage};
use divvy_proto::ids::{AgentId, FrameworkId, OfferId, TaskId};
use divvy_proto::resources::Resources;
use divvy_proto::role::RolePath;
use divvy_proto::scheduler::{Event, FrameworkInfo, OfferInfo};
use divvy_proto::task::{
    AgentTask, Command, ContainerStatus, Reason, Source, TaskInfo, TaskState, TaskStatus,
};
use divvy_proto::time::Timestamp;

use super::secs;
use crate::kernel::LinkId;

#[derive(Debug, Clone)]
pub(in crate::kernel) struct TestAgent {
    pub(in crate::kernel) info: AgentInfo,
    pub(in crate::kernel) link: Option<LinkId>,
    /// It reads and says nothing.
    pub(in crate::kernel) silent: bool,
    pub(in crate::kernel) tasks: BTreeMap<(FrameworkId, TaskId), AgentTask>,
    /// What it was last told to have.
    pub(in crate::kernel) volumes: Vec<divvy_proto::Volume>,
}

#[derive(Debug, Clone)]
pub(in crate::kernel) struct TestFramework {
    pub(in crate::kernel) info: FrameworkInfo,
    pub(in crate::kernel) link: Option<LinkId>,
    /// What it holds, as it believes.
    pub(in crate::kernel) offers: BTreeMap<OfferId, OfferInfo>,
    pub(in crate::kernel) updates: Vec<TaskStatus>,
}

impl TestAgent {
    pub(super) fn hears(&mut self, message: MasterMessage, now: Timestamp) -> Option<AgentMessage> {
        match message {
            MasterMessage::Registered { agent_id, .. } => self.info.id = Some(agent_id),
            MasterMessage::Ping => return Some(AgentMessage::Pong),
            MasterMessage::Volumes(volumes) => self.volumes = volumes,
            MasterMessage::Launch { framework_id, task, allocation, .. } => {
                let status = status(&task.id, self.info.id.clone(), TaskState::Staging, now);
                let key = (framework_id.clone(), task.id.clone());
                self.tasks.insert(key, AgentTask { framework_id, info: task, allocation, status });
            }
            MasterMessage::Acknowledge { framework_id, task_id, update_id } => {
                let key = (framework_id, task_id);
                let is_over = |task: &AgentTask| {
                    task.status.state.is_terminal() && task.status.update_id.as_ref() == Some(&update_id)
                };
                if self.tasks.get(&key).is_some_and(is_over) {
                    self.tasks.remove(&key);
                }
            }
            MasterMessage::ShutdownFramework { framework_id } => {
                self.tasks.retain(|(framework, _), _| *framework != framework_id);
            }
            MasterMessage::Kill { .. } | MasterMessage::Error(_) => {}
        }
        None
    }
}

impl TestFramework {
    pub(super) fn hears(&mut self, event: Event) {
        match event {
            Event::Subscribed { framework_id, .. } => self.info.id = Some(framework_id),
            Event::Offers(offers) => self.offers.extend(offers.into_iter().map(|offer| (offer.id, offer))),
            Event::Rescind(id) => drop(self.offers.remove(&id)),
            Event::Update(status) => self.updates.push(status),
            _ => {}
        }
    }
}

pub(in crate::kernel) fn framework_info(name: &str, roles: &[&str]) -> FrameworkInfo {
    FrameworkInfo {
        id: None,
        name: name.to_owned(),
        user: None,
        roles: roles.iter().map(|role| RolePath::new(role).unwrap()).collect(),
        principal: None,
        failover_timeout: secs(600),
        url: None,
        labels: BTreeMap::new(),
        capabilities: Default::default(),
    }
}

pub(in crate::kernel) fn task(id: &str, resources: &str) -> TaskInfo {
    TaskInfo {
        id: id.parse().unwrap(),
        name: id.to_owned(),
        command: Command::Shell("true".to_owned()),
        resources: resources.parse::<Resources>().unwrap(),
        cpu_limit: None,
        pids_limit: None,
        ports: Vec::new(),
        env: BTreeMap::new(),
        user: None,
        artifacts: Vec::new(),
        health: Vec::new(),
        kill_grace: None,
        labels: BTreeMap::new(),
        priority: 0,
        volumes: Vec::new(),
        container: None,
    }
}

pub(in crate::kernel) fn status(
    id: &TaskId,
    agent: Option<AgentId>,
    state: TaskState,
    now: Timestamp,
) -> TaskStatus {
    TaskStatus {
        task_id: id.clone(),
        agent_id: agent,
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
