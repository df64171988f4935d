//! What operators ask.

use divvy_proto::api::AgentState;
use divvy_proto::ids::{AgentId, FrameworkId};
use divvy_proto::scheduler::StreamError;
use divvy_proto::task::{Reason, TaskState};
use divvy_proto::time::Timestamp;

use super::registry::{Asker, Awaited};
use super::{Absence, Effect, Effects, Kernel, OperatorRequest, RequestId, Timer};

impl Kernel {
    pub(super) fn operator_asks(
        &mut self,
        now: Timestamp,
        request: RequestId,
        body: OperatorRequest,
        out: &mut Effects,
    ) {
        let result = match body {
            OperatorRequest::KillTask { framework_id, task_id } => {
                let key = (framework_id, task_id);
                match self.kill_task(&key, None, out) {
                    true => Ok(()),
                    false => Err(format!("framework {} has no task {} that has not ended", key.0, key.1)),
                }
            }
            OperatorRequest::Teardown(id) => match self.tear_down(now, &id, request, out) {
                Ok(()) => return,
                Err(why) => Err(why),
            },
            OperatorRequest::MarkGone(id) => match self.condemn(now, &id, request, out) {
                Ok(()) => return,
                Err(why) => Err(why),
            },
        };
        out.push(Effect::Answer { request, result });
    }

    fn tear_down(
        &mut self,
        now: Timestamp,
        id: &FrameworkId,
        request: RequestId,
        out: &mut Effects,
    ) -> Result<(), String> {
        match self.frameworks.get(id) {
            None => Err(format!("framework {id} is not known")),
            Some(framework) if framework.retired => Err(format!("framework {id} was torn down already")),
            Some(framework) if framework.retiring => {
                Err(format!("framework {id} is being torn down already"))
            }
            Some(_) => {
                self.retire(now, id, Some(Asker::Operator(request)), out);
                Ok(())
            }
        }
    }

    /// Begins to declare an agent gone: its stream ends at once, its tasks end once the store has the mark.
    fn condemn(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        request: RequestId,
        out: &mut Effects,
    ) -> Result<(), String> {
        let agent = self.agents.get_mut(id).ok_or_else(|| format!("agent {id} is not known"))?;
        if agent.standing == AgentState::Gone || agent.condemned {
            return Err(format!("agent {id} is gone already"));
        }
        agent.condemned = true;
        let links: Vec<_> = [agent.link.take(), agent.joining.take()].into_iter().flatten().collect();
        for link in links {
            self.links.remove(&link);
            let error = StreamError::Refused(format!("agent {id} was declared gone"));
            out.push(Effect::Close { link, error });
        }
        self.suspect(now, id, out);
        self.timers.cancel(&Timer::Agent(id.clone()));
        self.persist_absence(id, Absence::Gone(now), Some(Awaited::Gone(id.clone(), request)), out);
        Ok(())
    }

    /// The store has the mark.
    pub(super) fn gone(&mut self, now: Timestamp, id: &AgentId, request: RequestId, out: &mut Effects) {
        for key in self.live_tasks_of(id) {
            let message = format!("agent {id} was declared gone");
            self.say_of_task(now, &key, TaskState::Gone, Reason::AgentGone, message, out);
        }
        self.set_standing(now, id, AgentState::Gone);
        self.timers.cancel(&Timer::Agent(id.clone()));
        self.tell_failure(id, out);
        out.push(Effect::Answer { request, result: Ok(()) });
    }
}
