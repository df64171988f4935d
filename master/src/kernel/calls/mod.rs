//! What frameworks ask: one file per call that is more than a line.
//!
//! Every call is validated whole before anything changes, and answered by a `Reply`, with these exceptions: `Subscribe` is
//! answered by `Subscribed`, or its stream ends with the reason; `Acknowledge` is answered only if it is refused, for there
//! is one to every update. The answers to the last 1024 calls are kept, so that a repeated call has no second effect; one that
//! comes again while its answer still waits for the store is answered once, then.
//!
//! Each principal may call so often; beyond that it is refused with the time to wait, and nothing is done. Subscribe and
//! Acknowledge are free, as is the repetition of a call.

pub(super) mod accept;
mod check_groups;
mod check_task;
mod demand;
mod kill;
mod plan;
mod update_framework;
mod wishes;

use divvy_proto::Invalid;
use divvy_proto::agent::MasterMessage;
use divvy_proto::api::InverseAnswer;
use divvy_proto::ids::{AgentId, CallId, FrameworkId, TaskId, UpdateId};
use divvy_proto::scheduler::{Call, CallBody, Event, Outcome, Refusal};
use divvy_proto::time::Timestamp;

use super::registry::Asker;
use super::task_ids::EndAck;
use super::{Connection, Effect, Effects, Kernel, LinkId, Peer};

/// What became of a call, where that is known at once.
pub(super) enum Done {
    /// The answer, and what is to be sent after it.
    Now(Outcome, Effects),
    /// The answer waits for the store.
    Later,
}

impl From<Result<(), Refusal>> for Done {
    fn from(result: Result<(), Refusal>) -> Self {
        Self::Now(result.map_or_else(Outcome::Refused, |()| Outcome::Accepted), Vec::new())
    }
}

impl Kernel {
    pub(super) fn framework_says(&mut self, now: Timestamp, link: LinkId, call: Call, out: &mut Effects) {
        let refuse = |refusal: Refusal, out: &mut Effects| {
            let event = Event::Reply { call_id: call.id.clone(), outcome: Outcome::Refused(refusal) };
            out.push(Effect::ToFramework { link, event });
        };
        match (self.links.get(&link).cloned(), call.body) {
            (None, CallBody::Subscribe { framework, suppressed }) => {
                self.subscribe(now, link, framework, suppressed, out);
            }
            (None, _) => refuse(Refusal::NotSubscribed, out),
            (Some(Peer::Framework(_)), CallBody::Subscribe { framework, .. }) => {
                let invalid = Invalid::new("subscribe", framework.name, "one Subscribe on a stream");
                refuse(invalid.into(), out);
            }
            (Some(Peer::Framework(id)), body) => match self.frameworks.get(&id) {
                Some(framework) if framework.retiring => refuse(Refusal::UnknownFramework(id), out),
                Some(framework) if framework.connection == (Connection::Connected { link }) => {
                    self.call(now, &id, Call { id: call.id, body }, out);
                }
                _ => refuse(Refusal::NotSubscribed, out),
            },
            (Some(Peer::Agent(_) | Peer::JoiningAgent(_)), _) => {
                self.refuse_link(now, link, "an agent does not speak as a framework", out);
            }
        }
    }

    fn call(&mut self, now: Timestamp, id: &FrameworkId, call: Call, out: &mut Effects) {
        if let CallBody::Acknowledge { agent_id, task_id, update_id } = call.body {
            if let Err(refusal) = self.acknowledge(id, agent_id, task_id, update_id, out) {
                let event = Event::Reply { call_id: call.id, outcome: Outcome::Refused(refusal) };
                self.tell(id, event, out);
            }
            return;
        }
        if let Some(outcome) = self.frameworks.get(id).and_then(|framework| framework.answer_to(&call.id)) {
            let event = Event::Reply { call_id: call.id, outcome: outcome.clone() };
            return self.tell(id, event, out);
        }
        let Some(framework) = self.frameworks.get(id) else { return };
        if framework.is_at_work_on(&call.id) {
            return;
        }
        if let Err(retry_after) = self.rates.take(now, &self.config, &framework.info) {
            // Not kept: the same call again is welcome then.
            let outcome = Outcome::Refused(Refusal::Later { retry_after });
            return self.tell(id, Event::Reply { call_id: call.id, outcome }, out);
        }
        let call_id = call.id.clone();
        match self.perform(now, id, call, out) {
            Done::Now(outcome, mut after) => {
                self.answer_later(id, call_id, outcome, out);
                out.append(&mut after);
            }
            Done::Later => {
                if let Some(framework) = self.frameworks.get_mut(id) {
                    framework.answers_later(call_id);
                }
            }
        }
    }

    fn perform(&mut self, now: Timestamp, id: &FrameworkId, call: Call, out: &mut Effects) -> Done {
        let unsupported = |what| Done::from(Err(Refusal::NotSupported(what)));
        match call.body {
            CallBody::Accept { offers, operations, filters } => {
                self.accept(now, id, call.id, (offers, operations, filters), out)
            }
            CallBody::Decline { offers, filters } => self.decline(now, id, &offers, filters).into(),
            CallBody::Revive { roles } => self.revive(now, id, &roles).into(),
            CallBody::Suppress { roles } => self.suppress(now, id, &roles).into(),
            CallBody::Kill { task_id, grace } => self.kill(now, id, task_id, grace),
            CallBody::Reconcile { tasks } => self.reconcile(now, id, tasks),
            CallBody::UpdateFramework { framework, suppressed } => {
                match self.update_framework(now, id, framework, suppressed, call.id, out) {
                    Ok(()) => Done::Later,
                    Err(refusal) => Err(refusal).into(),
                }
            }
            CallBody::Teardown => {
                self.retire(now, id, Some(Asker::Framework(call.id)), out);
                Done::Later
            }
            CallBody::AcceptInverse { offers } => {
                self.answer_inverse(id, &offers, InverseAnswer::Accepted).into()
            }
            CallBody::DeclineInverse { offers } => {
                self.answer_inverse(id, &offers, InverseAnswer::Declined).into()
            }
            CallBody::Demand { role, demand } => self.demand(now, id, role, demand).into(),
            CallBody::Message { .. } => unsupported("Message"),
            CallBody::Subscribe { .. } | CallBody::Acknowledge { .. } => Ok(()).into(),
        }
    }

    /// Answers a call, and keeps the answer.
    pub(super) fn answer_later(
        &mut self,
        id: &FrameworkId,
        call: CallId,
        outcome: Outcome,
        out: &mut Effects,
    ) {
        if let Some(framework) = self.frameworks.get_mut(id) {
            framework.keep_answer(call.clone(), outcome.clone());
        }
        self.tell(id, Event::Reply { call_id: call, outcome }, out);
    }

    /// Passes an acknowledgement on; that of a task's end once the task's id is durable. If the agent is away, it repeats the
    /// update when it is back, and so will the framework.
    fn acknowledge(
        &mut self,
        id: &FrameworkId,
        agent: AgentId,
        task: TaskId,
        update: UpdateId,
        out: &mut Effects,
    ) -> Result<(), Refusal> {
        if !self.agents.contains_key(&agent) {
            return Err(Invalid::new("acknowledge.agent_id", agent, "the agent of the update").into());
        }
        let key = (id.clone(), task.clone());
        if let Some(known) = self.task_ref(&key)
            && known.agent != agent
        {
            let expected = format!("{}, the task's agent", known.agent);
            return Err(Invalid::new("acknowledge.agent_id", agent, expected).into());
        }
        if self.has_ended_task(&key) {
            self.acknowledge_when_used(EndAck { agent, key, update });
            return Ok(());
        }
        let message =
            MasterMessage::Acknowledge { framework_id: id.clone(), task_id: task, update_id: update.clone() };
        self.tell_agent(&agent, message, out);
        self.acknowledged(&key, &update);
        Ok(())
    }
}
