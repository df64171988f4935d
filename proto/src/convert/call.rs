//! What a framework asks.

use std::fmt::Display;
use std::time::Duration;

use super::demand::{from_demand, to_demand};
use super::{field, limits};
use crate::error::Invalid;
use crate::ids::{AgentId, InverseOfferId, OfferId, TaskId};
use crate::pb;
use crate::pb::call::Body as Wire;
use crate::role::RolePath;
use crate::scheduler::{Call, CallBody, Filters, Operation};

impl From<Call> for pb::Call {
    fn from(call: Call) -> Self {
        Self { id: call.id.into(), body: Some(call.body.into()) }
    }
}

impl TryFrom<pb::Call> for Call {
    type Error = Invalid;
    fn try_from(wire: pb::Call) -> Result<Self, Invalid> {
        Ok(Self { id: super::call_id(&wire)?, body: field::required("body", wire.body)?.try_into()? })
    }
}

impl From<CallBody> for Wire {
    fn from(body: CallBody) -> Self {
        match body {
            CallBody::Subscribe { framework, suppressed } => Self::Subscribe(pb::Subscribe {
                framework: Some(framework.into()),
                suppressed: field::to_list(suppressed),
            }),
            CallBody::Accept { offers, operations, filters } => Self::Accept(pb::Accept {
                offers: numbers(&offers),
                operations: field::to_list(operations),
                filters: Some(filters.into()),
            }),
            CallBody::Decline { offers, filters } => {
                Self::Decline(pb::Decline { offers: numbers(&offers), filters: Some(filters.into()) })
            }
            CallBody::AcceptInverse { offers } => {
                Self::AcceptInverse(pb::AcceptInverse { offers: inverse_numbers(&offers) })
            }
            CallBody::DeclineInverse { offers } => {
                Self::DeclineInverse(pb::DeclineInverse { offers: inverse_numbers(&offers) })
            }
            CallBody::Demand { role, demand } => Self::Demand(from_demand(role.into(), demand)),
            CallBody::Revive { roles } => Self::Revive(pb::Revive { roles: field::to_list(roles) }),
            CallBody::Suppress { roles } => Self::Suppress(pb::Suppress { roles: field::to_list(roles) }),
            CallBody::Kill { task_id, grace } => kill(task_id, grace),
            CallBody::Acknowledge { agent_id, task_id, update_id } => Self::Acknowledge(pb::Acknowledge {
                agent_id: agent_id.into(),
                task_id: task_id.into(),
                update_id: update_id.into(),
            }),
            CallBody::Reconcile { tasks } => Self::Reconcile(reconcile(tasks)),
            CallBody::Message { agent_id, task_id, data } => {
                Self::Message(pb::TaskMessage { agent_id: agent_id.into(), task_id: task_id.into(), data })
            }
            CallBody::UpdateFramework { framework, suppressed } => {
                Self::UpdateFramework(pb::UpdateFramework {
                    framework: Some(framework.into()),
                    suppressed: field::to_list(suppressed),
                })
            }
            CallBody::Teardown => Self::Teardown(pb::Teardown {}),
        }
    }
}

fn kill(task_id: TaskId, grace: Option<Duration>) -> Wire {
    Wire::Kill(pb::Kill { task_id: task_id.into(), grace_ms: grace.map(field::ms) })
}

fn reconcile(tasks: Vec<(TaskId, Option<AgentId>)>) -> pb::Reconcile {
    let task = |(task_id, agent_id): (TaskId, Option<AgentId>)| pb::ReconcileTask {
        task_id: task_id.into(),
        agent_id: agent_id.map(Into::into),
    };
    pb::Reconcile { tasks: tasks.into_iter().map(task).collect() }
}

fn numbers(offers: &[OfferId]) -> Vec<u64> {
    offers.iter().map(|offer| offer.0).collect()
}

fn inverse_numbers(offers: &[InverseOfferId]) -> Vec<u64> {
    offers.iter().map(|offer| offer.0).collect()
}

impl TryFrom<Wire> for CallBody {
    type Error = Invalid;
    fn try_from(wire: Wire) -> Result<Self, Invalid> {
        let (name, body) = match wire {
            Wire::Subscribe(call) => ("subscribe", subscribe(call)),
            Wire::Accept(call) => ("accept", accept(call)),
            Wire::Decline(call) => ("decline", decline(call)),
            Wire::AcceptInverse(call) => {
                ("accept_inverse", inverse(&call.offers).map(|offers| Self::AcceptInverse { offers }))
            }
            Wire::DeclineInverse(call) => {
                ("decline_inverse", inverse(&call.offers).map(|offers| Self::DeclineInverse { offers }))
            }
            Wire::Demand(call) => ("demand", to_demand(call)),
            Wire::Revive(call) => ("revive", roles(&call.roles).map(|roles| Self::Revive { roles })),
            Wire::Suppress(call) => ("suppress", roles(&call.roles).map(|roles| Self::Suppress { roles })),
            Wire::Kill(call) => ("kill", to_kill(&call)),
            Wire::Acknowledge(call) => ("acknowledge", acknowledge(&call)),
            Wire::Reconcile(call) => ("reconcile", to_reconcile(&call)),
            Wire::Message(call) => ("message", message(call)),
            Wire::UpdateFramework(call) => ("update_framework", update_framework(call)),
            Wire::Teardown(pb::Teardown {}) => ("teardown", Ok(Self::Teardown)),
        };
        body.map_err(|e| e.within(name))
    }
}

fn subscribe(call: pb::Subscribe) -> Result<CallBody, Invalid> {
    let framework = field::message("framework", call.framework)?;
    let suppressed = field::parsed_list("suppressed", &call.suppressed, limits::ROLES)?;
    Ok(CallBody::Subscribe { framework, suppressed })
}

fn update_framework(call: pb::UpdateFramework) -> Result<CallBody, Invalid> {
    let framework = field::message("framework", call.framework)?;
    let suppressed = field::parsed_list("suppressed", &call.suppressed, limits::ROLES)?;
    Ok(CallBody::UpdateFramework { framework, suppressed })
}

fn accept(call: pb::Accept) -> Result<CallBody, Invalid> {
    let operations: Vec<Operation> = field::list("operations", call.operations, limits::OPERATIONS)?;
    let tasks = operations.iter().map(|operation| match operation {
        Operation::Launch(tasks) | Operation::LaunchOn { tasks, .. } | Operation::LaunchGroup(tasks) => {
            tasks.len()
        }
        _ => 0,
    });
    field::at_most("operations.launch", tasks.sum(), limits::TASKS_PER_ACCEPT)?;
    let filters = filters(call.filters);
    Ok(CallBody::Accept { offers: offers(&call.offers)?, operations, filters })
}

fn decline(call: pb::Decline) -> Result<CallBody, Invalid> {
    Ok(CallBody::Decline { offers: offers(&call.offers)?, filters: filters(call.filters) })
}

fn filters(wire: Option<pb::Filters>) -> Filters {
    wire.map(Filters::from).unwrap_or_default()
}

fn offers(numbers: &[u64]) -> Result<Vec<OfferId>, Invalid> {
    check_offers(numbers.iter().copied().map(OfferId).collect())
}

fn inverse(numbers: &[u64]) -> Result<Vec<InverseOfferId>, Invalid> {
    check_offers(numbers.iter().copied().map(InverseOfferId).collect())
}

fn check_offers<T: Ord + Display>(offers: Vec<T>) -> Result<Vec<T>, Invalid> {
    field::at_least_one("offers", offers.len())?;
    field::at_most("offers", offers.len(), limits::OFFERS)?;
    field::each_once("offers", &offers)?;
    Ok(offers)
}

fn roles(roles: &[String]) -> Result<Vec<RolePath>, Invalid> {
    field::parsed_list("roles", roles, limits::ROLES)
}

fn to_kill(call: &pb::Kill) -> Result<CallBody, Invalid> {
    let grace = field::duration_opt("grace", call.grace_ms)?;
    Ok(CallBody::Kill { task_id: field::parsed("task_id", &call.task_id)?, grace })
}

fn acknowledge(call: &pb::Acknowledge) -> Result<CallBody, Invalid> {
    Ok(CallBody::Acknowledge {
        agent_id: field::parsed("agent_id", &call.agent_id)?,
        task_id: field::parsed("task_id", &call.task_id)?,
        update_id: field::parsed("update_id", &call.update_id)?,
    })
}

fn to_reconcile(call: &pb::Reconcile) -> Result<CallBody, Invalid> {
    field::at_most("tasks", call.tasks.len(), limits::TASKS)?;
    let task = |(i, task): (usize, &pb::ReconcileTask)| {
        let asked = || {
            let agent_id = field::parsed_opt("agent_id", task.agent_id.as_ref())?;
            Ok((field::parsed("task_id", &task.task_id)?, agent_id))
        };
        asked().map_err(|e: Invalid| e.within(format_args!("tasks[{i}]")))
    };
    let tasks = call.tasks.iter().enumerate().map(task).collect::<Result<_, _>>()?;
    Ok(CallBody::Reconcile { tasks })
}

fn message(call: pb::TaskMessage) -> Result<CallBody, Invalid> {
    let (agent_id, task_id, data) = field::task_message(call)?;
    Ok(CallBody::Message { agent_id, task_id, data })
}
