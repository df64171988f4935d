//! Accept: offers become tasks.
//!
//! The call is done whole or not at all. If it is refused, those of its offers that still stand return with the call's
//! filter, and each of its tasks gets one update, so that nobody waits for it for ever: DROPPED where an offer is at fault
//! (trying again is fine), ERROR where the call is. A task whose id is in use gets none: it would be taken for the end of
//! the task that has the id.

use std::collections::BTreeSet;

use divvy_proto::Invalid;
use divvy_proto::agent::MasterMessage;
use divvy_proto::ids::{AgentId, FrameworkId, OfferId, TaskId};
use divvy_proto::ranges::RangeSet;
use divvy_proto::scheduler::{Event, Filters, Operation, Outcome, Refusal};
use divvy_proto::task::{Command, Probe, Reason, TaskInfo, TaskState};
use divvy_proto::time::Timestamp;

use super::Done;
use crate::kernel::allocator::{Charge, ClientIx};
use crate::kernel::tasks::{Task, master_status};
use crate::kernel::{Effects, Kernel};

/// What a valid Accept takes and what of it is used.
struct Plan {
    agent: AgentId,
    client: ClientIx,
    tasks: Vec<(TaskInfo, Charge)>,
    left: Charge,
}

impl Kernel {
    pub(super) fn accept(
        &mut self,
        now: Timestamp,
        id: &FrameworkId,
        offers: Vec<OfferId>,
        operations: Vec<Operation>,
        filters: Filters,
    ) -> Done {
        let planned = self.plan(id, &offers, &operations);
        let mut after = Effects::new();
        let outcome = match planned {
            Ok(plan) => {
                self.launch(now, id, &offers, plan, filters, &mut after);
                Outcome::Accepted
            }
            Err(refusal) => {
                // The list may be anybody's: only the framework's own offers return.
                let _ = self.decline(now, id, &offers, filters);
                self.drop_tasks(now, id, operations, &refusal, &mut after);
                Outcome::Refused(refusal)
            }
        };
        Done::Now(outcome, after)
    }

    /// Validates the whole call.
    fn plan(&self, id: &FrameworkId, offers: &[OfferId], operations: &[Operation]) -> Result<Plan, Refusal> {
        let (agent, client, mut left) = self.take_together(id, offers)?;
        let mut tasks = Vec::new();
        let mut ids = BTreeSet::new();
        for (at, operation) in operations.iter().enumerate() {
            for (nth, task) in launched_by(operation)?.iter().enumerate() {
                let field = format!("accept.operations[{at}].launch[{nth}]");
                check_task(task).map_err(|invalid| invalid.within(field))?;
                if !ids.insert(&task.id) || self.is_used(id, &task.id) {
                    return Err(Refusal::DuplicateTask(task.id.clone()));
                }
                let charge = match (left.take(&task.resources), left.total().shortage(&task.resources)) {
                    (Some(charge), _) => charge,
                    (None, Some(shortage)) => {
                        return Err(Refusal::NotEnough { task_id: task.id.clone(), shortage });
                    }
                    (None, None) => {
                        let expected = "resources that can be taken from the offers";
                        return Err(Invalid::new("task.resources", &task.resources, expected).into());
                    }
                };
                tasks.push((task.clone(), charge));
            }
        }
        Ok(Plan { agent, client, tasks, left })
    }

    /// What offers of one agent, in one role, hold together.
    fn take_together(
        &self,
        id: &FrameworkId,
        offers: &[OfferId],
    ) -> Result<(AgentId, ClientIx, Charge), Refusal> {
        let mut taken: Option<(AgentId, ClientIx, Charge)> = None;
        let mut seen = BTreeSet::new();
        for offer_id in offers {
            if !seen.insert(offer_id) {
                return Err(Invalid::new("accept.offers", offer_id, "each offer once").into());
            }
            let offer = self.offers.get(offer_id).filter(|offer| offer.framework == *id);
            let offer = offer.ok_or(Refusal::OfferGone(*offer_id))?;
            taken = Some(match taken {
                None => (offer.agent.clone(), offer.grant.client, offer.grant.charge.clone()),
                Some((agent, _, _)) if agent != offer.agent => return Err(Refusal::SeveralAgents),
                Some((_, client, _)) if client != offer.grant.client => {
                    return Err(Invalid::new("accept.offers", offer_id, "offers in one role").into());
                }
                Some((agent, client, all)) => {
                    (agent, client, all.checked_add(&offer.grant.charge).unwrap_or(all))
                }
            });
        }
        taken.ok_or_else(|| Invalid::missing("accept.offers", "at least one offer").into())
    }

    /// Whether a task has this id, or had it as far as is remembered.
    fn is_used(&self, id: &FrameworkId, task: &TaskId) -> bool {
        let framework = self.frameworks.get(id);
        framework.is_some_and(|f| f.tasks.contains_key(task) || f.ended.contains_key(task))
    }

    fn launch(
        &mut self,
        now: Timestamp,
        id: &FrameworkId,
        offers: &[OfferId],
        plan: Plan,
        filters: Filters,
        out: &mut Effects,
    ) {
        // What tasks take is charged below, task by task.
        let mut launched = u32::try_from(plan.tasks.len()).unwrap_or(u32::MAX);
        for offer in offers {
            let offer = self.take_offer(*offer, launched);
            let demand = offer.and_then(|offer| offer.grant.demand);
            launched = launched.saturating_sub(demand.map_or(0, |demand| demand.count));
        }
        for (info, charge) in plan.tasks {
            self.launch_task(now, id, &plan.agent, plan.client, (info, charge), out);
        }
        if !plan.left.is_empty() {
            self.refuse(now, &plan.agent, plan.client, plan.left.total(), filters);
        }
    }

    fn launch_task(
        &mut self,
        now: Timestamp,
        id: &FrameworkId,
        agent: &AgentId,
        client: ClientIx,
        (info, charge): (TaskInfo, Charge),
        out: &mut Effects,
    ) {
        let key = (id.clone(), info.id.clone());
        let status = master_status(
            now,
            &key,
            Some(agent),
            TaskState::Staging,
            Reason::CommandExited,
            "sent to its agent",
        );
        let framework_name = self.frameworks.get(id).map(|f| f.info.name.clone()).unwrap_or_default();
        let message = MasterMessage::Launch {
            framework_id: id.clone(),
            framework_name,
            task: info.clone(),
            allocation: charge.to_allocation(&self.allocator.client_of(client).role),
        };
        let task = Task {
            info,
            agent: agent.clone(),
            client,
            charge,
            holds: false,
            status,
            unacknowledged: false,
            kill: None,
            ended_for: None,
            started_at: None,
        };
        self.insert_task(id, task);
        self.settle_task(&key);
        if !self.tell_agent(agent, message, out) {
            let message = "its agent had disconnected";
            self.say_of_task(now, &key, TaskState::Dropped, Reason::AgentDisconnected, message, out);
        }
    }

    /// One update for each task of a refused call.
    fn drop_tasks(
        &self,
        now: Timestamp,
        id: &FrameworkId,
        operations: Vec<Operation>,
        refusal: &Refusal,
        out: &mut Effects,
    ) {
        let (state, reason) = match refusal {
            Refusal::OfferGone(_) | Refusal::SeveralAgents => (TaskState::Dropped, Reason::OfferGone),
            _ => (TaskState::Error, Reason::TaskInvalid),
        };
        let mut told = BTreeSet::new();
        for operation in operations {
            let (Operation::Launch(tasks) | Operation::LaunchGroup(tasks)) = operation else { continue };
            for task in tasks {
                if !self.is_used(id, &task.id) && told.insert(task.id.clone()) {
                    let key = (id.clone(), task.id);
                    let status = master_status(now, &key, None, state, reason, refusal.to_string());
                    self.tell(id, Event::Update(status), out);
                }
            }
        }
    }
}

/// The tasks that an operation launches, or that it is still to come.
fn launched_by(operation: &Operation) -> Result<&[TaskInfo], Refusal> {
    Err(Refusal::NotSupported(match operation {
        Operation::Launch(tasks) => return Ok(tasks),
        Operation::LaunchGroup(_) => "LaunchGroup",
        Operation::LaunchOn { .. } => "LaunchOn",
        Operation::Reserve { .. } => "Reserve",
        Operation::Unreserve { .. } => "Unreserve",
        Operation::Create { .. } => "Create",
        Operation::Destroy { .. } => "Destroy",
        Operation::Grow { .. } => "Grow",
        Operation::Shrink { .. } => "Shrink",
    }))
}

/// Whether an agent could run it at all.
fn check_task(task: &TaskInfo) -> Result<(), Invalid> {
    if task.resources.scalars().next().is_none() {
        return Err(Invalid::new("resources", &task.resources, "some cpus or mem"));
    }
    if matches!(&task.command, Command::Exec(argv) if argv.is_empty()) {
        return Err(Invalid::missing("command", "a program and its arguments"));
    }
    let owns = |port: u16| task.resources.ports().contains(&RangeSet::range(port.into(), port.into()));
    let mut names = BTreeSet::new();
    for port in &task.ports {
        if !names.insert(&port.name) {
            return Err(Invalid::new("ports", &port.name, "each name once"));
        }
        if !owns(port.number) {
            return Err(Invalid::new("ports", port.number, "a port that is among the task's resources"));
        }
    }
    for check in &task.health {
        if let Probe::Http { port, .. } | Probe::Tcp { port } = check.probe
            && !owns(port)
        {
            return Err(Invalid::new("health", port, "a port that is among the task's resources"));
        }
        if check.failures == 0 {
            return Err(Invalid::new("health.failures", 0, "at least 1"));
        }
    }
    Ok(())
}
