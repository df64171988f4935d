//! Accept: offers become tasks, reservations and volumes.
//!
//! The call is done whole or not at all. If it is refused, those of its offers that still stand return with the call's
//! filter, and each of its tasks gets one update, so that nobody waits for it for ever: DROPPED where trying again is fine
//! (an offer, a limit or a volume is at fault), ERROR where the call is. A task whose id is in use gets none: it would be
//! taken for the end of the task that has the id. Each operation with an id gets its feedback, too.
//!
//! A call that changes reservations or volumes is answered, and its tasks are sent to their agent, once the store has the
//! change: until then nobody else is given what it took, nor what it gives, and its tasks are STAGING.

use std::collections::{BTreeMap, BTreeSet};

use divvy_proto::agent::MasterMessage;
use divvy_proto::api::AgentState;
use divvy_proto::ids::{AgentId, CallId, FrameworkId, OfferId, OperationId, TaskId};
use divvy_proto::reservation::Volume;
use divvy_proto::resources::Resources;
use divvy_proto::scheduler::{Event, Filters, Operation, Outcome, Refusal};
use divvy_proto::task::{Reason, TaskInfo, TaskState};
use divvy_proto::time::Timestamp;

use super::Done;
use super::plan::{Desk, Plan};
use crate::kernel::agents::Agent;
use crate::kernel::allocator::{Charge, ClientIx, OverLimit};
use crate::kernel::registry::Awaited;
use crate::kernel::tasks::{Task, master_status};
use crate::kernel::{Effects, Kernel, TaskKey};

/// An Accept on its way to the store. What its tasks leave is charged to its client as used.
#[derive(Debug, Clone)]
pub(in crate::kernel) struct Pending {
    pub(in crate::kernel) framework: FrameworkId,
    call: CallId,
    pub(in crate::kernel) agent: AgentId,
    pub(in crate::kernel) client: ClientIx,
    pub(in crate::kernel) left: Charge,
    tasks: Vec<TaskId>,
    feedback: Vec<OperationId>,
    filters: Filters,
    /// The agent's volumes from then on.
    volumes: Vec<Volume>,
}

impl From<OverLimit> for Refusal {
    fn from(over: OverLimit) -> Self {
        Self::OverLimit { role: over.role, shortage: over.shortage }
    }
}

impl Kernel {
    pub(super) fn accept(
        &mut self,
        now: Timestamp,
        id: &FrameworkId,
        call: CallId,
        (offers, operations, filters): (Vec<OfferId>, Vec<Operation>, Filters),
        out: &mut Effects,
    ) -> Done {
        let mut after = Effects::new();
        match self.plan(now, id, &offers, &operations) {
            Ok(plan) if plan.is_durable() => {
                self.begin_accept(now, id, call, plan, filters, out);
                Done::Later
            }
            Ok(plan) => {
                self.carry_out(now, id, plan, filters, &mut after);
                Done::Now(Outcome::Accepted, after)
            }
            Err(refusal) => {
                // The list may be anybody's: only the framework's own offers return.
                let _ = self.decline(now, id, &offers, filters);
                self.drop_tasks(now, id, operations, &refusal, &mut after);
                Done::Now(Outcome::Refused(refusal), after)
            }
        }
    }

    /// All at once: nothing of it waits for the store.
    fn carry_out(
        &mut self,
        now: Timestamp,
        id: &FrameworkId,
        plan: Plan,
        filters: Filters,
        out: &mut Effects,
    ) {
        // What tasks take is charged below, task by task.
        plan.agents.values().for_each(|desk| self.take_offers_of(desk));
        let launching = plan.agents.values().filter(|desk| !desk.launches.is_empty()).count();
        let gang = (launching > 1).then(|| self.gangs.next());
        let mut staged = Vec::new();
        for (agent, desk) in plan.agents {
            for launch in desk.launches {
                let key = self.stage_task(now, id, (&agent, plan.client), launch);
                if let Some(gang) = gang {
                    self.gangs.join(gang, &key);
                }
                staged.push(key);
            }
            if !desk.left.is_empty() {
                self.refuse(now, &agent, plan.client, desk.left.total(), filters);
            }
        }
        staged.iter().for_each(|key| self.send_launch(now, key, out));
        self.feed_back(id, &plan.feedback, &Outcome::Accepted, out);
    }

    /// Takes what the call takes, and makes durable what it changes.
    fn begin_accept(
        &mut self,
        now: Timestamp,
        id: &FrameworkId,
        call: CallId,
        mut plan: Plan,
        filters: Filters,
        out: &mut Effects,
    ) {
        let Some((agent_id, mut desk)) = plan.agents.pop_first() else { return };
        self.take_offers_of(&desk);
        let Some(agent) = self.agents.get_mut(&agent_id) else { return };
        agent.owned.holdings = desk.holdings.take().unwrap_or_default();
        let slot = agent.slot;
        self.sync_total(&agent_id);
        self.allocator.hold(slot, plan.client, &desk.left);
        let stage = |launch| self.stage_task(now, id, (&agent_id, plan.client), launch).1;
        let tasks = desk.launches.into_iter().map(stage).collect();
        let (framework, client, agent) = (id.clone(), plan.client, agent_id.clone());
        let (left, feedback) = (desk.left, plan.feedback);
        let then = |volumes| {
            Awaited::Accept(Box::new(Pending {
                framework,
                call,
                agent,
                client,
                left,
                tasks,
                feedback,
                filters,
                volumes,
            }))
        };
        self.persist_owned(&agent_id, then, out);
    }

    /// The store has what the call changes: the rest of it happens now.
    pub(in crate::kernel) fn accept_is_stored(
        &mut self,
        now: Timestamp,
        pending: Pending,
        out: &mut Effects,
    ) {
        let Pending { framework: id, call, agent, client, left, tasks, feedback, filters, volumes } = pending;
        if let Some(known) = self.agents.get(&agent) {
            self.allocator.release(known.slot, client, &left);
        }
        self.changes.agent(&agent);
        self.changes.framework(&id);
        self.volumes_are_stored(&agent, volumes, out);
        // One that has been torn down meanwhile is told nothing and launches nothing.
        if self.frameworks.get(&id).is_none_or(|framework| framework.retiring || framework.retired) {
            return;
        }
        self.answer_later(&id, call, Outcome::Accepted, out);
        for task in tasks {
            self.send_launch(now, &(id.clone(), task), out);
        }
        if !left.is_empty() {
            self.refuse(now, &agent, client, left.total(), filters);
        }
        self.feed_back(&id, &feedback, &Outcome::Accepted, out);
    }

    /// Ends the offers of one agent; what is launched counts towards the demands for which they were made.
    fn take_offers_of(&mut self, desk: &Desk) {
        let demands = desk.offers.iter().filter_map(|id| {
            let grant = &self.offers.get(id)?.grant;
            Some((*id, grant.charge.total(), grant.demand.as_ref().map_or(0, |demand| demand.count)))
        });
        for (offer, launched) in launched_from(demands.collect(), &desk.launches) {
            self.take_offer(offer, launched);
        }
    }

    /// A task that is about to be sent to its agent.
    fn stage_task(
        &mut self,
        now: Timestamp,
        id: &FrameworkId,
        (agent, client): (&AgentId, ClientIx),
        (info, charge): (TaskInfo, Charge),
    ) -> TaskKey {
        let key = (id.clone(), info.id.clone());
        let (state, reason) = (TaskState::Staging, Reason::CommandExited);
        let status = master_status(now, &key, Some(agent), state, reason, "sent to its agent");
        let task = Task { unsent: true, ..Task::new(info, agent.clone(), (client, charge), status) };
        self.insert_task(id, task);
        self.settle_task(&key);
        key
    }

    /// Sends a task to its agent, unless it has ended or its end was asked for since it was staged.
    fn send_launch(&mut self, now: Timestamp, key: &TaskKey, out: &mut Effects) {
        let Some(task) = self.task_mut(key).filter(|task| task.is_live()) else { return };
        let (agent, client, is_killed) = (task.agent.clone(), task.client, task.kill.is_some());
        let (info, charge) = (task.info.clone(), task.charge.clone());
        if std::mem::take(&mut task.unsent) && is_killed {
            let message = "its end was asked for before it was sent to its agent";
            return self.say_of_task(now, key, TaskState::Killed, Reason::KilledDuringLaunch, message, out);
        }
        let framework_name = self.frameworks.get(&key.0).map(|f| f.info.name.clone()).unwrap_or_default();
        let message = MasterMessage::Launch {
            framework_id: key.0.clone(),
            framework_name,
            task: info,
            allocation: charge.to_allocation(&self.allocator.client_of(client).role),
        };
        if !self.tell_agent(&agent, message, out) {
            let message = "its agent had disconnected";
            self.say_of_task(now, key, TaskState::Dropped, Reason::AgentDisconnected, message, out);
        }
    }

    /// One update for each task of a refused call, and one for each operation that wants to hear.
    fn drop_tasks(
        &self,
        now: Timestamp,
        id: &FrameworkId,
        operations: Vec<Operation>,
        refusal: &Refusal,
        out: &mut Effects,
    ) {
        // An earlier master may have done it: whoever asks hears it from the agents that are still to come back.
        let operations = if self.may_have_been_done(refusal) { Vec::new() } else { operations };
        let (state, reason) = fault(refusal);
        let mut told = BTreeSet::new();
        let feedback: Vec<_> = operations.iter().filter_map(|operation| operation.id().cloned()).collect();
        for operation in operations {
            let (Operation::Launch(tasks)
            | Operation::LaunchGroup(tasks)
            | Operation::LaunchOn { tasks, .. }) = operation
            else {
                continue;
            };
            for task in tasks {
                if !self.is_used(id, &task.id) && told.insert(task.id.clone()) {
                    let key = (id.clone(), task.id);
                    let status = master_status(now, &key, None, state, reason, refusal.to_string());
                    self.tell(id, Event::Update(status), out);
                }
            }
        }
        self.feed_back(id, &feedback, &Outcome::Refused(refusal.clone()), out);
    }

    /// Whether a call that is refused for a lost offer may be the repetition of one that an earlier master has carried out.
    fn may_have_been_done(&self, refusal: &Refusal) -> bool {
        let of_earlier = |offer: &OfferId| offer.0 >> 32 < u64::from(self.config.epoch.0);
        let is_away =
            |agent: &Agent| matches!(agent.standing, AgentState::Recovering | AgentState::Unreachable);
        matches!(refusal, Refusal::OfferGone(offer) if of_earlier(offer)) && self.agents.values().any(is_away)
    }

    fn feed_back(&self, id: &FrameworkId, operations: &[OperationId], outcome: &Outcome, out: &mut Effects) {
        for operation_id in operations {
            let (operation_id, outcome) = (operation_id.clone(), outcome.clone());
            self.tell(id, Event::OperationUpdate { operation_id, outcome }, out);
        }
    }
}

impl Kernel {
    /// Calls on their way to the store.
    pub(in crate::kernel) fn pending_accepts(&self) -> impl Iterator<Item = &Pending> {
        self.awaited.values().filter_map(|awaited| match awaited {
            Awaited::Accept(pending) => Some(&**pending),
            _ => None,
        })
    }
}

/// Whose fault it is that nothing was launched.
fn fault(refusal: &Refusal) -> (TaskState, Reason) {
    match refusal {
        Refusal::OfferGone(_)
        | Refusal::SeveralAgents
        | Refusal::OverLimit { .. }
        | Refusal::UnknownVolume(_)
        | Refusal::VolumeInUse(_) => (TaskState::Dropped, Reason::OfferGone),
        _ => (TaskState::Error, Reason::TaskInvalid),
    }
}

/// How many tasks each offer has given, of offers with what they hold together and for how many pieces: a task belongs to the
/// first that has a piece left in which it fits, else to the first that has a piece left.
fn launched_from(
    offers: Vec<(OfferId, Resources, u32)>,
    launches: &[(TaskInfo, Charge)],
) -> BTreeMap<OfferId, u32> {
    let mut launched: BTreeMap<OfferId, u32> = offers.iter().map(|(id, ..)| (*id, 0)).collect();
    for (info, _) in launches {
        let has_left =
            |(id, _, count): &&(OfferId, Resources, u32)| launched.get(id).is_some_and(|n| n < count);
        let fits = |offer: &&(OfferId, Resources, u32)| fits_piece(&offer.1, offer.2, &info.resources);
        let fitting = offers.iter().filter(has_left).find(fits);
        let of = fitting.or_else(|| offers.iter().find(has_left)).map(|(id, ..)| *id);
        of.and_then(|id| launched.get_mut(&id)).into_iter().for_each(|count| *count += 1);
    }
    launched
}

/// Whether a task fits into one of so many equal pieces.
fn fits_piece(all: &Resources, count: u32, task: &Resources) -> bool {
    let amount = |name: &str| all.scalars().find(|(mine, _)| *mine == name).map_or(0, |(_, amount)| amount);
    task.scalars().all(|(name, wanted)| wanted.saturating_mul(count.into()) <= amount(name))
}
