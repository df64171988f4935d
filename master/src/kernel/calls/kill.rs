//! Kill: forwarded to the agent, and remembered until the task has ended.

use std::time::Duration;

use divvy_proto::api::AgentState;
use divvy_proto::ids::{FrameworkId, TaskId};
use divvy_proto::scheduler::{Event, Outcome, Refusal};
use divvy_proto::task::TaskState;
use divvy_proto::time::Timestamp;

use super::Done;
use crate::kernel::agents::Agent;
use crate::kernel::{Effect, Effects, Kernel};

impl Kernel {
    /// A task that is not known is refused, and answered for as if it had been asked about: the framework may be waiting for
    /// its end.
    pub(super) fn kill(
        &mut self,
        now: Timestamp,
        id: &FrameworkId,
        task: TaskId,
        grace: Option<Duration>,
    ) -> Done {
        let key = (id.clone(), task.clone());
        let mut after = Effects::new();
        if self.kill_task(&key, grace, &mut after) {
            return Done::Now(Outcome::Accepted, after);
        }
        let has_ended = self.frameworks.get(id).is_some_and(|framework| framework.ended.contains_key(&task));
        let answer = self.state_of(now, id, &task, None);
        // It may run on an agent out of reach. Who asks with its agent's id is told so.
        let is_away = |agent: &Agent| agent.standing == AgentState::Unreachable;
        let may_run = self.agents.values().any(is_away);
        let answer = answer.filter(|status| status.state != TaskState::Unknown || !may_run);
        let link = self.frameworks.get(id).and_then(|framework| framework.link());
        if let (Some(status), Some(link)) = (answer, link) {
            after.push(Effect::ToFramework { link, event: Event::Update(status) });
        }
        let outcome =
            if has_ended { Outcome::Accepted } else { Outcome::Refused(Refusal::UnknownTask(task)) };
        Done::Now(outcome, after)
    }
}
