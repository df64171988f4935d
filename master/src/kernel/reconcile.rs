//! Reconciliation: the state of tasks, as far as it is known; silence where it is not known yet (mesos.md 2.4).

use divvy_proto::api::AgentState;
use divvy_proto::ids::{AgentId, FrameworkId, TaskId};
use divvy_proto::scheduler::{Event, Outcome};
use divvy_proto::task::{Reason, TaskState, TaskStatus};
use divvy_proto::time::Timestamp;

use super::calls::Done;
use super::tasks::{Task, master_status};
use super::{Effect, Effects, Kernel};

impl Kernel {
    /// Answers for the tasks that are named, or for all that have not ended.
    pub(super) fn reconcile(
        &mut self,
        now: Timestamp,
        id: &FrameworkId,
        tasks: Vec<(TaskId, Option<AgentId>)>,
    ) -> Done {
        let Some(framework) = self.frameworks.get(id) else {
            return Done::Now(Outcome::Accepted, Effects::new());
        };
        let answers: Vec<TaskStatus> = match tasks.is_empty() {
            true => framework.tasks.values().map(|task| answer(now, task)).collect(),
            false => tasks
                .into_iter()
                .filter_map(|(task, agent)| self.state_of(now, id, &task, agent.as_ref()))
                .collect(),
        };
        let updates = answers.into_iter().filter_map(|status| {
            let link = framework.link()?;
            Some(Effect::ToFramework { link, event: Event::Update(status) })
        });
        Done::Now(Outcome::Accepted, updates.collect())
    }

    /// What is known of a task; nothing if an agent that may know more is still to come back.
    pub(super) fn state_of(
        &self,
        now: Timestamp,
        framework: &FrameworkId,
        task: &TaskId,
        agent: Option<&AgentId>,
    ) -> Option<TaskStatus> {
        let owner = self.frameworks.get(framework)?;
        if let Some(task) = owner.tasks.get(task).or_else(|| owner.ended.get(task)) {
            return Some(answer(now, task));
        }
        let is_recovering = |agent: &super::agents::Agent| agent.standing == AgentState::Recovering;
        let (state, message) = match agent.map(|id| self.agents.get(id)) {
            Some(Some(agent)) => match agent.standing {
                AgentState::Recovering => return None,
                AgentState::Active | AgentState::Suspected => (TaskState::Gone, "its agent does not have it"),
                AgentState::Unreachable => (TaskState::Unreachable, "its agent does not answer"),
                AgentState::Gone => (TaskState::Gone, "its agent was declared gone"),
            },
            _ if self.agents.values().any(is_recovering) => return None,
            _ => (TaskState::Unknown, "nobody knows of it"),
        };
        let key = (framework.clone(), task.clone());
        Some(master_status(now, &key, agent, state, Reason::Reconciliation, message))
    }
}

/// The latest that is known, as an answer: there is nothing to acknowledge.
fn answer(now: Timestamp, task: &Task) -> TaskStatus {
    let mut status = task.status.clone();
    status.reason = Reason::Reconciliation;
    status.source = divvy_proto::task::Source::Master;
    status.update_id = None;
    status.time = now;
    status
}
