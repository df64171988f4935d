//! What an Accept would do: every operation is tried, in order, on what is left of the offers and on what the agent's
//! reservations and volumes have become by then. Nothing changes; the first problem refuses the whole call.

use std::collections::{BTreeMap, BTreeSet};

use divvy_proto::Invalid;
use divvy_proto::ids::{
    AgentId, FrameworkId, OfferId, OperationId, Principal, TaskGroupId, TaskId, VolumeId,
};
use divvy_proto::quantity::Bytes;
use divvy_proto::reservation::{Reservation, Volume};
use divvy_proto::resources::{Resources, Shortage};
use divvy_proto::role::RolePath;
use divvy_proto::scheduler::{Operation, Refusal};
use divvy_proto::task::TaskInfo;
use divvy_proto::time::Timestamp;

use super::check_groups::{check_groups, check_is_group, group_of};
use super::check_task::check_task;
use crate::kernel::allocator::{Charge, ClientIx, Size};
use crate::kernel::holdings::{Change, Holdings, check_role, reservation, shortage};
use crate::kernel::tasks::Task;
use crate::kernel::{Kernel, TaskKey};

/// What a valid Accept does.
#[derive(Debug, Clone)]
pub(in crate::kernel) struct Plan {
    pub(in crate::kernel) client: ClientIx,
    pub(in crate::kernel) role: RolePath,
    principal: Option<Principal>,
    now: Timestamp,
    pub(in crate::kernel) agents: BTreeMap<AgentId, Desk>,
    /// What tasks and reservations take of the unreserved.
    fresh: Size,
    tasks: BTreeSet<TaskId>,
    /// Operations that want to hear.
    pub(in crate::kernel) feedback: Vec<OperationId>,
}

/// What an Accept does on one agent.
#[derive(Debug, Clone)]
pub(in crate::kernel) struct Desk {
    pub(in crate::kernel) offers: Vec<OfferId>,
    /// What is not used.
    pub(in crate::kernel) left: Charge,
    pub(in crate::kernel) launches: Vec<(TaskInfo, Charge)>,
    /// What is reserved, and which volumes there are, if this changes.
    pub(in crate::kernel) holdings: Option<Holdings>,
    /// Volumes that the tasks use which this call launches, and of which group those are.
    used: BTreeMap<VolumeId, Option<TaskGroupId>>,
}

impl Plan {
    /// The agent of all offers.
    fn only(&mut self) -> Result<(&AgentId, &mut Desk), Refusal> {
        let is_one = self.agents.len() == 1;
        self.agents.iter_mut().next().filter(|_| is_one).ok_or(Refusal::SeveralAgents)
    }

    /// Whether something of it must outlive the master.
    pub(in crate::kernel) fn is_durable(&self) -> bool {
        self.agents.values().any(|desk| desk.holdings.is_some())
    }
}

impl Desk {
    fn take(&mut self, operation: usize, change: &Change) -> Result<(), Refusal> {
        let operation_ix = u32::try_from(operation).unwrap_or(u32::MAX);
        let Some(rest) = self.left.checked_sub(&change.takes) else {
            let lacking = shortage(&self.left, &change.takes).map(|(_, shortage)| shortage);
            let shortage = lacking.unwrap_or_else(|| nothing_of(&change.takes.total()));
            return Err(Refusal::OperationShort { operation: operation_ix, shortage });
        };
        let found = change.gives.total();
        self.left = rest.checked_add(&change.gives).ok_or_else(|| {
            Invalid::new(field(operation, "resources"), found, "what can stand beside what is there")
        })?;
        Ok(())
    }
}

fn nothing_of(wanted: &Resources) -> Shortage {
    Shortage { dimension: "resources".to_owned(), wanted: wanted.to_string(), available: "none".to_owned() }
}

fn field(operation: usize, name: &str) -> String {
    format!("accept.operations[{operation}].{name}")
}

impl Kernel {
    /// Validates the whole call.
    pub(super) fn plan(
        &self,
        now: Timestamp,
        id: &FrameworkId,
        offers: &[OfferId],
        operations: &[Operation],
    ) -> Result<Plan, Refusal> {
        let mut plan = self.take_together(now, id, offers)?;
        for (at, operation) in operations.iter().enumerate() {
            plan.feedback.extend(operation.id().cloned());
            match operation {
                Operation::Launch(tasks) => {
                    let agent = plan.only()?.0.clone();
                    self.plan_launch(&mut plan, id, &agent, at, "launch", tasks)?;
                }
                Operation::LaunchOn { agent_id, tasks } => {
                    if !plan.agents.contains_key(agent_id) {
                        let expected = "an agent of the call's offers";
                        return Err(Invalid::new(field(at, "agent_id"), agent_id, expected).into());
                    }
                    self.plan_launch(&mut plan, id, agent_id, at, "launch_on", tasks)?;
                }
                Operation::LaunchGroup(tasks) => {
                    let agent = plan.only()?.0.clone();
                    check_is_group(tasks).map_err(|invalid| invalid.within(field(at, "launch_group")))?;
                    self.plan_launch(&mut plan, id, &agent, at, "launch_group", tasks)?;
                }
                change => self.plan_change(&mut plan, at, change)?,
            }
        }
        self.check_limits(&plan.role, None, &plan.fresh)?;
        Ok(plan)
    }

    /// What offers in one role hold together, agent by agent.
    fn take_together(&self, now: Timestamp, id: &FrameworkId, offers: &[OfferId]) -> Result<Plan, Refusal> {
        let mut plan: Option<Plan> = None;
        let mut seen = BTreeSet::new();
        for offer_id in offers {
            if !seen.insert(offer_id) {
                return Err(Invalid::new("accept.offers", offer_id, "each offer once").into());
            }
            let offer = self.offers.get(offer_id).filter(|offer| offer.framework == *id);
            let offer = offer.ok_or(Refusal::OfferGone(*offer_id))?;
            let plan = plan.get_or_insert_with(|| Plan {
                client: offer.grant.client,
                role: offer.role.clone(),
                principal: self.frameworks.get(id).and_then(|framework| framework.info.principal.clone()),
                now,
                agents: BTreeMap::new(),
                fresh: Size::new(),
                tasks: BTreeSet::new(),
                feedback: Vec::new(),
            });
            if plan.client != offer.grant.client {
                return Err(Invalid::new("accept.offers", offer_id, "offers in one role").into());
            }
            let charge = &offer.grant.charge;
            let is_revocable = |desk: &Desk| desk.left.is_revocable();
            if plan.agents.values().next().is_some_and(|desk| is_revocable(desk) != charge.is_revocable()) {
                let expected = "offers that are all revocable, or none of them";
                return Err(Invalid::new("accept.offers", offer_id, expected).into());
            }
            let desk = plan.agents.entry(offer.agent.clone()).or_insert_with(|| Desk {
                offers: Vec::new(),
                left: Charge::new(),
                launches: Vec::new(),
                holdings: None,
                used: BTreeMap::new(),
            });
            desk.offers.push(*offer_id);
            desk.left = desk.left.checked_add(charge).ok_or(Refusal::OfferGone(*offer_id))?;
        }
        plan.ok_or_else(|| Invalid::missing("accept.offers", "at least one offer").into())
    }

    fn plan_launch(
        &self,
        plan: &mut Plan,
        id: &FrameworkId,
        agent: &AgentId,
        at: usize,
        name: &str,
        tasks: &[TaskInfo],
    ) -> Result<(), Refusal> {
        let Plan { agents, tasks: planned, fresh, role, .. } = plan;
        let Some(desk) = agents.get_mut(agent) else { return Ok(()) };
        if let Some(framework) = self.frameworks.get(id) {
            let checked = check_groups(framework, agent, tasks);
            checked.map_err(|invalid| invalid.within(field(at, name)))?;
        }
        for (nth, task) in tasks.iter().enumerate() {
            let field = format!("accept.operations[{at}].{name}[{nth}]");
            check_task(task).map_err(|invalid| invalid.within(field))?;
            if !planned.insert(task.id.clone()) || self.is_used(id, &task.id) {
                return Err(Refusal::DuplicateTask(task.id.clone()));
            }
            for mount in &task.volumes {
                self.volume_for(desk, agent, role, &mount.id)?;
                let group = group_of(task).map(|group| (id, &group.id));
                self.check_unused(desk, agent, &mount.id, group)?;
                desk.used.insert(mount.id.clone(), group.map(|(_, group)| group.clone()));
            }
            let Some(charge) = desk.left.take(&task.resources) else {
                let lacking = desk.left.total().shortage(&task.resources);
                let shortage = lacking.unwrap_or_else(|| nothing_of(&task.resources));
                return Err(Refusal::NotEnough { task_id: task.id.clone(), shortage });
            };
            fresh.add_resources(&charge.unreserved);
            desk.launches.push((task.clone(), charge));
        }
        Ok(())
    }

    /// Reserve, Unreserve, Create, Destroy, Grow and Shrink.
    fn plan_change(&self, plan: &mut Plan, at: usize, operation: &Operation) -> Result<(), Refusal> {
        let (role, principal, now) = (plan.role.clone(), plan.principal.clone(), plan.now);
        let (agent, desk) = plan.only()?;
        let agent = agent.clone();
        let change = match operation {
            Operation::Reserve { resources, refines, labels, .. } => {
                check_some(at, resources)?;
                check_role(&role).map_err(|invalid| invalid.within(field(at, "reserve")))?;
                self.check_refines(&role, at, refines, resources)?;
                Change::reserve(
                    refines,
                    reservation(&role, principal.as_ref(), labels.clone()),
                    resources.clone(),
                )
            }
            Operation::Unreserve { resources, stack, .. } => {
                check_some(at, resources)?;
                check_undone(&role, at, stack)?;
                Change::unreserve(stack, resources.clone())
            }
            Operation::Create { volume_id, size, stack, .. } => {
                check_size(at, *size)?;
                if stack.is_empty() {
                    return Err(Invalid::missing(field(at, "stack"), "the reservations of the disk").into());
                }
                if self.volume_on(desk, &agent, volume_id).is_some() {
                    return Err(Refusal::DuplicateVolume(volume_id.clone()));
                }
                let (id, stack) = (volume_id.clone(), stack.clone());
                Change::create(Volume { id, size: *size, stack, principal, created: now })
            }
            Operation::Destroy { volume_id, .. } => {
                let volume = self.volume_for(desk, &agent, &role, volume_id)?;
                self.check_unused(desk, &agent, volume_id, None)?;
                Change::destroy(volume)
            }
            Operation::Grow { volume_id, by, .. } => {
                check_size(at, *by)?;
                let volume = self.volume_for(desk, &agent, &role, volume_id)?;
                Change::resize(volume, resized(at, volume.size, by.bytes())?)
            }
            Operation::Shrink { volume_id, by, .. } => {
                check_size(at, *by)?;
                let volume = self.volume_for(desk, &agent, &role, volume_id)?;
                self.check_unused(desk, &agent, volume_id, None)?;
                Change::resize(volume, resized(at, volume.size, -by.bytes())?)
            }
            Operation::Launch(_) | Operation::LaunchOn { .. } | Operation::LaunchGroup(_) => return Ok(()),
        };
        desk.take(at, &change)?;
        let known = || self.agents.get(&agent).map(|agent| agent.owned.holdings.clone()).unwrap_or_default();
        desk.holdings = Some(desk.holdings.take().unwrap_or_else(known).changed(&change)?);
        plan.fresh.add_resources(&change.takes.unreserved);
        plan.fresh.sub_resources(&change.gives.unreserved);
        Ok(())
    }

    /// A refinement is for a role below the one whose reservation it refines, and counts towards the limits between them.
    fn check_refines(
        &self,
        role: &RolePath,
        at: usize,
        refines: &[Reservation],
        resources: &Resources,
    ) -> Result<(), Refusal> {
        // What takes from the unreserved is part of the call's sum.
        let Some(outer) = refines.last() else { return Ok(()) };
        if outer.role == *role || !outer.role.contains(role) {
            let expected = format!("a reservation for a role above {role}, that of the offers");
            return Err(Invalid::new(field(at, "reserve.refines"), &outer.role, expected).into());
        }
        Ok(self.check_limits(role, Some(&outer.role), &Size::of(resources))?)
    }

    /// A volume as this call has it so far.
    fn volume_on<'a>(&'a self, desk: &'a Desk, agent: &AgentId, id: &VolumeId) -> Option<&'a Volume> {
        match &desk.holdings {
            Some(holdings) => holdings.volumes.get(id),
            None => self.agents.get(agent)?.owned.volume(id),
        }
    }

    /// A volume of the role or one above it.
    fn volume_for<'a>(
        &'a self,
        desk: &'a Desk,
        agent: &AgentId,
        role: &RolePath,
        id: &VolumeId,
    ) -> Result<&'a Volume, Refusal> {
        let volume = self.volume_on(desk, agent, id);
        let volume = volume.filter(|volume| volume.owner().is_some_and(|owner| owner.contains(role)));
        volume.ok_or_else(|| Refusal::UnknownVolume(id.clone()))
    }

    /// Whether nobody uses a volume but, if at all, tasks of this group of a framework.
    fn check_unused(
        &self,
        desk: &Desk,
        agent: &AgentId,
        id: &VolumeId,
        group: Option<(&FrameworkId, &TaskGroupId)>,
    ) -> Result<(), Refusal> {
        let planned = desk
            .used
            .get(id)
            .is_none_or(|user| user.is_some() && user.as_ref() == group.map(|(_, group)| group));
        let is_friend = |key: &TaskKey| {
            let user = self.task_ref(key).and_then(Task::group);
            group
                .is_some_and(|(framework, id)| key.0 == *framework && user.is_some_and(|user| user.id == *id))
        };
        match planned && self.users_of(agent, id).iter().all(is_friend) {
            true => Ok(()),
            false => Err(Refusal::VolumeInUse(id.clone())),
        }
    }

    /// Whether a task has this id, or ever had it.
    pub(super) fn is_used(&self, id: &FrameworkId, task: &TaskId) -> bool {
        let framework = self.frameworks.get(id);
        framework.is_some_and(|f| {
            f.tasks.contains_key(task) || f.ended.contains_key(task) || f.used_ids.contains(task)
        })
    }
}

fn check_some(at: usize, resources: &Resources) -> Result<(), Invalid> {
    match resources.is_empty() {
        true => Err(Invalid::missing(field(at, "resources"), "some resources")),
        false => Ok(()),
    }
}

fn check_size(at: usize, size: Bytes) -> Result<(), Invalid> {
    match size.bytes() {
        0 => Err(Invalid::new(field(at, "size"), size, "more than nothing")),
        _ => Ok(()),
    }
}

/// A framework undoes what stands for its own role, and was not made on the agent's command line.
fn check_undone(role: &RolePath, at: usize, stack: &[Reservation]) -> Result<(), Invalid> {
    let Some(innermost) = stack.last() else {
        return Err(Invalid::missing(field(at, "stack"), "the reservations, the outermost first"));
    };
    if innermost.role != *role {
        let expected = format!("a reservation for {role}, the role of the offers");
        return Err(Invalid::new(field(at, "stack"), &innermost.role, expected));
    }
    if innermost.fixed {
        let expected = "a reservation that is not on the agent's command line";
        return Err(Invalid::new(field(at, "stack"), &innermost.role, expected));
    }
    Ok(())
}

fn resized(at: usize, size: Bytes, by: i64) -> Result<Bytes, Invalid> {
    let new = size.bytes().saturating_add(by);
    let bytes = if new > 0 { Bytes::from_bytes(new).ok() } else { None };
    bytes.ok_or_else(|| {
        let expected = format!("an amount that leaves a volume of {size} more than nothing");
        Invalid::new(field(at, "by"), Bytes::from_bytes(by.saturating_abs()).unwrap_or_default(), expected)
    })
}
