//! Why a task is where it is, or is not there.

use divvy_proto::api::{AgentState, Explanation};
use divvy_proto::ids::{FrameworkId, TaskId};
use divvy_proto::task::TaskState;
use divvy_proto::time::Timestamp;

use super::{UnknownObject, words};
use crate::kernel::Kernel;
use crate::kernel::tasks::Task;

impl Kernel {
    /// A task that nobody knows is one that its framework has not launched yet: then what the framework waits for is the answer.
    pub(super) fn explain_task(
        &self,
        now: Timestamp,
        framework_id: &FrameworkId,
        task_id: &TaskId,
    ) -> Result<Explanation, UnknownObject> {
        let framework = self.known_framework(framework_id)?;
        let known = framework.tasks.get(task_id).or_else(|| framework.ended.get(task_id));
        let Some(task) = known else {
            let mut explanation = self.explain_framework(now, framework_id)?;
            let name = &framework.info.name;
            explanation.summary = format!(
                "{name} has launched no task {task_id} that is still remembered. {}",
                explanation.summary
            );
            return Ok(explanation);
        };
        let role = self.allocator.client_of(task.client).role.clone();
        let mut explanation = self.about(framework_id, vec![role], self.why_there(now, task), Vec::new());
        explanation.decisions = self.decisions(&super::DecisionFilter {
            framework: Some(framework_id.clone()),
            without_offers: true,
            ..Default::default()
        });
        explanation.decisions.retain(|decision| decision.tasks.contains(task_id));
        Ok(explanation)
    }

    fn why_there(&self, now: Timestamp, task: &Task) -> String {
        let (id, status) = (&task.info.id, &task.status);
        let agent = self.agents.get(&task.agent);
        let host = agent.map_or_else(|| task.agent.to_string(), |agent| agent.info.hostname.to_string());
        let since = words::since(now, status.time);
        let message = match status.message.as_str() {
            "" => String::new(),
            message => format!(": {message}"),
        };
        let what = match status.state {
            state if state.is_terminal() => {
                return format!("{id} ended as {state} on {host} {since} ago ({}){message}.", status.reason);
            }
            TaskState::Unreachable => {
                format!(
                    "{id} is UNREACHABLE since {since}: {host} does not answer, and the task may be running"
                )
            }
            TaskState::Staging => {
                format!("{id} was sent to {host} {since} ago, which has not said yet that it is starting it")
            }
            TaskState::Starting => format!("{id} is being started on {host} since {since}{message}"),
            TaskState::Killing => {
                format!("{id} is being ended on {host} since {since} ({}){message}", status.reason)
            }
            state => format!("{id} is {state} on {host} since {since}{}", health(status.healthy)),
        };
        format!("{what}{}{}.", asked_to_end(task), self.agent_trouble(now, task))
    }

    fn agent_trouble(&self, now: Timestamp, task: &Task) -> String {
        let Some(agent) = self.agents.get(&task.agent) else { return String::new() };
        let since = words::since(now, agent.since);
        match agent.standing {
            AgentState::Active => String::new(),
            AgentState::Recovering => {
                "; its agent has not come back after the master's failover yet".to_owned()
            }
            AgentState::Suspected => format!("; its agent is silent since {since}"),
            AgentState::Unreachable => format!("; its agent is unreachable since {since}"),
            AgentState::Gone => format!("; its agent was declared gone {since} ago"),
        }
    }
}

fn health(healthy: Option<bool>) -> &'static str {
    match healthy {
        Some(true) => " and healthy",
        Some(false) => " and fails its health checks",
        None => "",
    }
}

fn asked_to_end(task: &Task) -> String {
    match task.kill {
        None => String::new(),
        Some(None) => "; its end was asked for".to_owned(),
        Some(Some(grace)) => format!("; its end was asked for, with {} of grace", words::duration(grace)),
    }
}
