//! What an Accept does with what it takes.

use super::{field, limits};
use crate::error::Invalid;
use crate::ids::OperationId;
use crate::pb;
use crate::pb::operation::Operation as Wire;
use crate::resources::Resources;
use crate::scheduler::Operation;
use crate::task::TaskInfo;

impl From<Operation> for pb::Operation {
    fn from(operation: Operation) -> Self {
        let launch = |tasks: Vec<TaskInfo>| pb::Launch { tasks: field::to_list(tasks) };
        let reserve = |id: Option<OperationId>, resources: Resources| pb::Reserve {
            id: id.map(Into::into),
            resources: Some(resources.into()),
        };
        let operation = match operation {
            Operation::Launch(tasks) => Wire::Launch(launch(tasks)),
            Operation::LaunchGroup(tasks) => Wire::LaunchGroup(launch(tasks)),
            Operation::Reserve { id, resources } => Wire::Reserve(reserve(id, resources)),
            Operation::Unreserve { id, resources } => Wire::Unreserve(reserve(id, resources)),
            Operation::Create { id, resources, volume_id } => Wire::Create(pb::CreateVolume {
                id: id.map(Into::into),
                resources: Some(resources.into()),
                volume_id,
            }),
            Operation::Destroy { id, volume_id } => {
                Wire::Destroy(pb::DestroyVolume { id: id.map(Into::into), volume_id })
            }
        };
        Self { operation: Some(operation) }
    }
}

impl TryFrom<pb::Operation> for Operation {
    type Error = Invalid;
    fn try_from(wire: pb::Operation) -> Result<Self, Invalid> {
        let (name, operation) = match field::required("operation", wire.operation)? {
            Wire::Launch(launch) => return tasks("launch", launch).map(Self::Launch),
            Wire::LaunchGroup(launch) => return tasks("launch_group", launch).map(Self::LaunchGroup),
            Wire::Reserve(wire) => {
                ("reserve", reserve(wire).map(|(id, resources)| Self::Reserve { id, resources }))
            }
            Wire::Unreserve(wire) => {
                ("unreserve", reserve(wire).map(|(id, resources)| Self::Unreserve { id, resources }))
            }
            Wire::Create(wire) => ("create", create(wire)),
            Wire::Destroy(wire) => ("destroy", destroy(wire)),
        };
        operation.map_err(|e| e.within(name))
    }
}

fn tasks(field: &str, launch: pb::Launch) -> Result<Vec<TaskInfo>, Invalid> {
    field::at_least_one(field, launch.tasks.len())?;
    field::list(field, launch.tasks, limits::TASKS_PER_ACCEPT)
}

fn reserve(wire: pb::Reserve) -> Result<(Option<OperationId>, Resources), Invalid> {
    let id = field::parsed_opt("id", wire.id.as_ref())?;
    Ok((id, field::message("resources", wire.resources)?))
}

fn create(wire: pb::CreateVolume) -> Result<Operation, Invalid> {
    Ok(Operation::Create {
        id: field::parsed_opt("id", wire.id.as_ref())?,
        resources: field::message("resources", wire.resources)?,
        volume_id: field::filled("volume_id", wire.volume_id, limits::NAME)?,
    })
}

fn destroy(wire: pb::DestroyVolume) -> Result<Operation, Invalid> {
    Ok(Operation::Destroy {
        id: field::parsed_opt("id", wire.id.as_ref())?,
        volume_id: field::filled("volume_id", wire.volume_id, limits::NAME)?,
    })
}
