//! What an Accept does with what it takes.

use super::reservation::{reservation_labels, some_bytes, to_owned_stack, to_stack};
use super::{field, limits};
use crate::error::Invalid;
use crate::pb;
use crate::pb::operation::Operation as Wire;
use crate::resources::Resources;
use crate::scheduler::Operation;
use crate::task::TaskInfo;

impl From<Operation> for pb::Operation {
    fn from(operation: Operation) -> Self {
        let launch = |tasks: Vec<TaskInfo>| pb::Launch { tasks: field::to_list(tasks) };
        let operation = match operation {
            Operation::Launch(tasks) => Wire::Launch(launch(tasks)),
            Operation::LaunchOn { agent_id, tasks } => {
                Wire::LaunchOn(pb::LaunchOn { agent_id: agent_id.into(), tasks: field::to_list(tasks) })
            }
            Operation::LaunchGroup(tasks) => Wire::LaunchGroup(launch(tasks)),
            Operation::Reserve { id, resources, refines, labels } => Wire::Reserve(pb::Reserve {
                id: id.map(Into::into),
                resources: Some(resources.into()),
                refines: field::to_list(refines),
                labels,
            }),
            Operation::Unreserve { id, resources, stack } => Wire::Unreserve(pb::Unreserve {
                id: id.map(Into::into),
                resources: Some(resources.into()),
                stack: field::to_list(stack),
            }),
            Operation::Create { id, volume_id, size, stack } => Wire::Create(pb::CreateVolume {
                id: id.map(Into::into),
                volume_id: volume_id.into(),
                size_bytes: size.bytes(),
                stack: field::to_list(stack),
            }),
            Operation::Destroy { id, volume_id } => {
                Wire::Destroy(pb::DestroyVolume { id: id.map(Into::into), volume_id: volume_id.into() })
            }
            Operation::Grow { id, volume_id, by } => Wire::Grow(pb::ResizeVolume {
                id: id.map(Into::into),
                volume_id: volume_id.into(),
                by_bytes: by.bytes(),
            }),
            Operation::Shrink { id, volume_id, by } => Wire::Shrink(pb::ResizeVolume {
                id: id.map(Into::into),
                volume_id: volume_id.into(),
                by_bytes: by.bytes(),
            }),
        };
        Self { operation: Some(operation) }
    }
}

impl TryFrom<pb::Operation> for Operation {
    type Error = Invalid;
    fn try_from(wire: pb::Operation) -> Result<Self, Invalid> {
        let (name, operation) = match field::required("operation", wire.operation)? {
            Wire::Launch(launch) => return tasks("launch", launch.tasks).map(Self::Launch),
            Wire::LaunchGroup(launch) => return tasks("launch_group", launch.tasks).map(Self::LaunchGroup),
            Wire::LaunchOn(wire) => ("launch_on", launch_on(wire)),
            Wire::Reserve(wire) => ("reserve", reserve(wire)),
            Wire::Unreserve(wire) => ("unreserve", unreserve(wire)),
            Wire::Create(wire) => ("create", create(wire)),
            Wire::Destroy(wire) => ("destroy", destroy(&wire)),
            Wire::Grow(wire) => ("grow", grow(&wire)),
            Wire::Shrink(wire) => ("shrink", shrink(&wire)),
        };
        operation.map_err(|e| e.within(name))
    }
}

fn tasks(field: &str, tasks: Vec<pb::TaskInfo>) -> Result<Vec<TaskInfo>, Invalid> {
    field::at_least_one(field, tasks.len())?;
    field::list(field, tasks, limits::TASKS_PER_ACCEPT)
}

fn launch_on(wire: pb::LaunchOn) -> Result<Operation, Invalid> {
    let agent_id = field::parsed("agent_id", &wire.agent_id)?;
    Ok(Operation::LaunchOn { agent_id, tasks: tasks("tasks", wire.tasks)? })
}

fn something(wire: Option<pb::Resources>) -> Result<Resources, Invalid> {
    let resources: Resources = field::message("resources", wire)?;
    match resources.is_empty() {
        true => Err(Invalid::new("resources", resources, "more than nothing")),
        false => Ok(resources),
    }
}

fn reserve(wire: pb::Reserve) -> Result<Operation, Invalid> {
    Ok(Operation::Reserve {
        id: field::parsed_opt("id", wire.id.as_ref())?,
        resources: something(wire.resources)?,
        refines: to_stack("refines", wire.refines)?,
        labels: reservation_labels(wire.labels)?,
    })
}

fn unreserve(wire: pb::Unreserve) -> Result<Operation, Invalid> {
    Ok(Operation::Unreserve {
        id: field::parsed_opt("id", wire.id.as_ref())?,
        resources: something(wire.resources)?,
        stack: to_owned_stack("stack", wire.stack)?,
    })
}

fn create(wire: pb::CreateVolume) -> Result<Operation, Invalid> {
    Ok(Operation::Create {
        id: field::parsed_opt("id", wire.id.as_ref())?,
        volume_id: field::parsed("volume_id", &wire.volume_id)?,
        size: some_bytes("size", wire.size_bytes)?,
        stack: to_owned_stack("stack", wire.stack)?,
    })
}

fn destroy(wire: &pb::DestroyVolume) -> Result<Operation, Invalid> {
    Ok(Operation::Destroy {
        id: field::parsed_opt("id", wire.id.as_ref())?,
        volume_id: field::parsed("volume_id", &wire.volume_id)?,
    })
}

fn grow(wire: &pb::ResizeVolume) -> Result<Operation, Invalid> {
    Ok(Operation::Grow {
        id: field::parsed_opt("id", wire.id.as_ref())?,
        volume_id: field::parsed("volume_id", &wire.volume_id)?,
        by: some_bytes("by", wire.by_bytes)?,
    })
}

fn shrink(wire: &pb::ResizeVolume) -> Result<Operation, Invalid> {
    Ok(Operation::Shrink {
        id: field::parsed_opt("id", wire.id.as_ref())?,
        volume_id: field::parsed("volume_id", &wire.volume_id)?,
        by: some_bytes("by", wire.by_bytes)?,
    })
}
