//! What operators ask.

use divvy_proto::api::AgentState;
use divvy_proto::ids::{AgentId, FrameworkId};
use divvy_proto::scheduler::StreamError;
use divvy_proto::task::{Reason, TaskState};
use divvy_proto::time::Timestamp;

use super::registry::{Asker, Awaited};
use super::{Absence, Effect, Effects, Kernel, OperatorRequest, RequestId, Timer};

/// When an operator whose request is taken is answered.
enum Answer {
    Now,
    /// Once the store has what was asked for.
    Later,
}

impl Kernel {
    pub(super) fn operator_asks(
        &mut self,
        now: Timestamp,
        request: RequestId,
        body: OperatorRequest,
        out: &mut Effects,
    ) {
        match self.do_for_operator(now, request, body, out) {
            Ok(Answer::Now) => out.push(Effect::Answer { request, result: Ok(()) }),
            Ok(Answer::Later) => {}
            Err(why) => out.push(Effect::Answer { request, result: Err(why) }),
        }
    }

    fn do_for_operator(
        &mut self,
        now: Timestamp,
        request: RequestId,
        body: OperatorRequest,
        out: &mut Effects,
    ) -> Result<Answer, String> {
        let later = |()| Answer::Later;
        match body {
            OperatorRequest::KillTask { framework_id, task_id } => {
                let key = (framework_id, task_id);
                match self.kill_task(&key, None, out) {
                    true => Ok(Answer::Now),
                    false => Err(format!("framework {} has no task {} that has not ended", key.0, key.1)),
                }
            }
            OperatorRequest::Teardown(id) => self.tear_down(now, &id, request, out).map(later),
            OperatorRequest::MarkGone(id) => self.condemn(now, &id, Some(request), out).map(later),
            OperatorRequest::Drain { agent_id, within, then_gone } => {
                self.drain(now, &agent_id, (within, then_gone), request, out).map(later)
            }
            OperatorRequest::Deactivate(id) => self.deactivate(&id, request, out).map(later),
            OperatorRequest::Reactivate(id) => self.reactivate(&id, request, out).map(later),
            OperatorRequest::SetMaintenance(windows) => {
                self.set_maintenance(now, windows, request, out).map(later)
            }
            OperatorRequest::SetQuota { role, quota, force } => {
                self.ask_quota(role, quota, force, request, out).map(later)
            }
            OperatorRequest::SetWeight { role, weight } => {
                self.ask_weight(role, weight, request, out);
                Ok(Answer::Later)
            }
            body @ (OperatorRequest::Reserve { .. }
            | OperatorRequest::Unreserve { .. }
            | OperatorRequest::CreateVolume { .. }
            | OperatorRequest::DestroyVolume { .. }
            | OperatorRequest::ResizeVolume { .. }) => self.change_owned(now, request, body, out).map(later),
        }
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

    /// Begins to declare an agent gone: its stream ends at once, its tasks end once the store has the mark. Everybody who asks
    /// before that is answered then.
    pub(super) fn condemn(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        request: Option<RequestId>,
        out: &mut Effects,
    ) -> Result<(), String> {
        let agent = self.agents.get_mut(id).ok_or_else(|| format!("agent {id} is not known"))?;
        if agent.standing == AgentState::Gone {
            return Err(format!("agent {id} is gone already"));
        }
        agent.condemned_by.extend(request);
        if std::mem::replace(&mut agent.condemned, true) {
            return Ok(());
        }
        let links: Vec<_> = [agent.link.take(), agent.joining.take()].into_iter().flatten().collect();
        for link in links {
            self.links.remove(&link);
            // Not durable yet: when it comes back it is told that it is gone.
            let error = StreamError::Refused(format!("agent {id} is being declared gone"));
            out.push(Effect::Close { link, error });
        }
        self.suspect(now, id, out);
        self.timers.cancel(&Timer::Agent(id.clone()));
        self.persist_absence(id, Absence::Gone(now), Some(Awaited::Gone(id.clone())), out);
        Ok(())
    }

    /// A drained agent is declared gone, as was asked with the drain.
    pub(super) fn condemn_drained(&mut self, now: Timestamp, id: &AgentId, out: &mut Effects) {
        if let Err(why) = self.condemn(now, id, None, out) {
            tracing::warn!(agent = %id, "a drained agent was not declared gone: {why}");
        }
    }

    /// The store has the mark.
    pub(super) fn gone(&mut self, now: Timestamp, id: &AgentId, out: &mut Effects) {
        for key in self.live_tasks_of(id) {
            let message = format!("agent {id} was declared gone");
            self.say_of_task(now, &key, TaskState::Gone, Reason::AgentGone, message, out);
        }
        self.set_standing(now, id, AgentState::Gone);
        self.timers.cancel(&Timer::Agent(id.clone()));
        self.tell_failure(id, out);
        let agent = self.agents.get_mut(id);
        let askers = agent.map(|agent| std::mem::take(&mut agent.condemned_by)).unwrap_or_default();
        out.extend(askers.into_iter().map(|request| Effect::Answer { request, result: Ok(()) }));
        self.forget_surplus(out);
    }
}
