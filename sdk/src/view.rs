//! What a scheduler sees: its own tasks, the agents, the time.
//!
//! Kept by the driver: updates applied, lost agents marked. Nothing here decides.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use divvy_proto::Invalid;
use divvy_proto::api;
use divvy_proto::ids::{AgentId, Hostname, InverseOfferId, OperationId, TaskId};
use divvy_proto::role::RolePath;
use divvy_proto::scheduler::{InverseOffer, Outcome};
use divvy_proto::task::{TaskInfo, TaskState, TaskStatus};
use divvy_proto::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::group::COMPANION;

/// A task as its framework knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// What was launched.
    pub info: TaskInfo,
    /// Where.
    pub agent_id: AgentId,
    /// On which machine.
    pub hostname: Hostname,
    /// The latest that is known. Before the first update: STAGING, since the Accept.
    pub status: TaskStatus,
    /// When it was put into an Accept.
    pub launched_at: Timestamp,
    /// When it was first RUNNING.
    pub running_since: Option<Timestamp>,
    /// A kill was asked for and its end is not yet known.
    pub killing: bool,
}

impl Task {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &TaskId {
        &self.info.id
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> TaskState {
        self.status.state
    }

    /// Whether it has not ended, as far as is known: UNREACHABLE counts, as it may still run.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.status.state.is_terminal()
    }

    /// Whether it runs beside another task and starts and ends with that: then there is nothing to decide about it.
    #[must_use]
    pub fn is_companion(&self) -> bool {
        self.info.labels.contains_key(COMPANION)
    }

    /// RUNNING, and healthy where it has health checks.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.state() == TaskState::Running
            && !self.killing
            && (self.info.health.is_empty() || self.status.healthy == Some(true))
    }
}

/// The framework's own tasks, all agents, and the time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    pub(crate) now: Timestamp,
    pub(crate) connected: bool,
    pub(crate) tasks: BTreeMap<TaskId, Task>,
    pub(crate) agents: BTreeMap<AgentId, api::Agent>,
    pub(crate) roles: Vec<RolePath>,
    pub(crate) inverse: BTreeMap<InverseOfferId, InverseOffer>,
    pub(crate) operations: BTreeMap<OperationId, Outcome>,
}

impl View {
    /// A view for a test of a scheduler: at this time, connected, with these tasks and agents.
    #[must_use]
    pub fn of(
        now: Timestamp,
        tasks: impl IntoIterator<Item = Task>,
        agents: impl IntoIterator<Item = api::Agent>,
    ) -> Self {
        let tasks = tasks.into_iter().map(|task| (task.info.id.clone(), task)).collect();
        let agents = agents.into_iter().map(|agent| (agent.id.clone(), agent)).collect();
        Self { now, connected: true, tasks, agents, ..Self::default() }
    }

    /// With these roles of the framework, for a test.
    #[must_use]
    pub fn with_roles(self, roles: impl IntoIterator<Item = RolePath>) -> Self {
        Self { roles: roles.into_iter().collect(), ..self }
    }

    /// With these inverse offers, for a test.
    #[must_use]
    pub fn with_inverse_offers(self, offers: impl IntoIterator<Item = InverseOffer>) -> Self {
        Self { inverse: offers.into_iter().map(|offer| (offer.id, offer)).collect(), ..self }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Whether the master can be reached. While it cannot, actions are kept and tasks run on.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.connected
    }

    /// The framework's roles. In a view that was made for a test, `*` unless it says otherwise.
    #[must_use]
    pub fn roles(&self) -> &[RolePath] {
        if self.roles.is_empty() { std::slice::from_ref(self.role()) } else { &self.roles }
    }

    /// The first of the framework's roles: that of whatever names none.
    #[must_use]
    pub fn role(&self) -> &RolePath {
        static ANY: LazyLock<RolePath> = LazyLock::new(RolePath::default);
        self.roles.first().unwrap_or(&ANY)
    }

    /// Whether a task that names this role can be launched at all.
    ///
    /// # Errors
    /// It is none of the framework's.
    pub fn check_role(&self, role: Option<&RolePath>) -> Result<(), Invalid> {
        match role {
            Some(role) if !self.roles().contains(role) => {
                let own: Vec<&str> = self.roles().iter().map(RolePath::as_str).collect();
                let expected =
                    format!("one of the framework's roles ({}); --roles names them", own.join(", "));
                Err(Invalid::new("role", role, expected))
            }
            _ => Ok(()),
        }
    }

    /// Resources that are wanted back, and have not come back yet. Whoever kills the tasks before the deadline, once others have
    /// taken their place, loses nothing; at the deadline they are killed.
    pub fn inverse_offers(&self) -> impl Iterator<Item = &InverseOffer> {
        self.inverse.values()
    }

    /// The inverse offer that names this task, if one does.
    #[must_use]
    pub fn wanted_back(&self, task: &TaskId) -> Option<&InverseOffer> {
        self.inverse.values().find(|offer| offer.tasks.contains(task))
    }

    /// What became of an operation that carried this id ([`crate::Offer::tracked`]). The latest thousand are known.
    #[must_use]
    pub fn operation(&self, id: &OperationId) -> Option<&Outcome> {
        self.operations.get(id)
    }

    /// All tasks that are not forgotten, by id.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values()
    }

    /// One task.
    #[must_use]
    pub fn task(&self, id: &TaskId) -> Option<&Task> {
        self.tasks.get(id)
    }

    /// How many tasks have not ended.
    #[must_use]
    pub fn live(&self) -> usize {
        self.tasks().filter(|task| task.is_live()).count()
    }

    /// All agents that the master knows, for placement and for explaining why something waits. Empty before the first
    /// answer of the master.
    pub fn agents(&self) -> impl Iterator<Item = &api::Agent> {
        self.agents.values()
    }

    /// One agent.
    #[must_use]
    pub fn agent(&self, id: &AgentId) -> Option<&api::Agent> {
        self.agents.get(id)
    }
}
