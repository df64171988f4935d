//! What agents and the master say to each other.

use super::resources::{from_attributes, to_attributes};
use super::{field, limits};
use crate::agent::{AgentInfo, AgentMessage, MasterMessage};
use crate::error::Invalid;
use crate::ids::Epoch;
use crate::pb;
use crate::reservation::{Reserved, Volume};
use crate::resources::Resources;

impl From<AgentInfo> for pb::AgentInfo {
    fn from(agent: AgentInfo) -> Self {
        Self {
            id: agent.id.map(Into::into),
            hostname: agent.hostname.into(),
            url: agent.url,
            address: agent.address,
            resources: Some(agent.resources.into()),
            attributes: from_attributes(&agent.attributes),
            version: agent.version,
            reserved: field::to_list(agent.reserved),
            revocable: Some(agent.revocable.into()),
        }
    }
}

impl TryFrom<pb::AgentInfo> for AgentInfo {
    type Error = Invalid;
    fn try_from(wire: pb::AgentInfo) -> Result<Self, Invalid> {
        let attributes = to_attributes(wire.attributes)?;
        if let Some(value) = attributes.get("hostname") {
            return Err(Invalid::new(
                "attributes[hostname]",
                value,
                "another name: every agent has this one",
            ));
        }
        let resources = field::message("resources", wire.resources)?;
        Ok(Self {
            id: field::parsed_opt("id", wire.id.as_ref())?,
            hostname: field::parsed("hostname", &wire.hostname)?,
            url: field::text("url", wire.url, limits::URL)?,
            address: field::text("address", wire.address, limits::NAME)?,
            reserved: reserved(wire.reserved, &resources)?,
            revocable: field::inner("revocable", wire.revocable.unwrap_or_default())?,
            resources,
            attributes,
            version: field::text("version", wire.version, limits::NAME)?,
        })
    }
}

/// What an agent reserves by itself: parts of what it has, each under one fixed reservation.
fn reserved(wire: Vec<pb::Reserved>, resources: &Resources) -> Result<Vec<Reserved>, Invalid> {
    let reserved: Vec<Reserved> = field::list("reserved", wire, limits::RESERVED)?;
    let is_fixed = |part: &Reserved| matches!(part.stack.as_slice(), [only] if only.fixed);
    if let Some(i) = reserved.iter().position(|part| !is_fixed(part)) {
        return Err(Invalid::missing(format!("reserved[{i}].stack"), "one fixed reservation"));
    }
    let rest = reserved.iter().try_fold(resources.clone(), |rest, part| {
        rest.checked_sub(&part.resources).ok_or_else(|| {
            Invalid::new("reserved", &part.resources, format!("no more than the agent has, {resources}"))
        })
    });
    rest.map(|_| reserved)
}

impl From<AgentMessage> for pb::AgentMessage {
    fn from(message: AgentMessage) -> Self {
        use pb::agent_message::Message as Wire;
        let message = match message {
            AgentMessage::Register { agent, tasks } => {
                Wire::Register(pb::Register { agent: Some(agent.into()), tasks: field::to_list(tasks) })
            }
            AgentMessage::Pong => Wire::Pong(pb::Pong {}),
            AgentMessage::Update { framework_id, status } => Wire::Update(pb::AgentUpdate {
                framework_id: framework_id.into(),
                status: Some(status.into()),
            }),
            AgentMessage::Ended { framework_id, task_id } => {
                Wire::Ended(pb::TaskEnded { framework_id: framework_id.into(), task_id: task_id.into() })
            }
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<pb::AgentMessage> for AgentMessage {
    type Error = Invalid;
    fn try_from(wire: pb::AgentMessage) -> Result<Self, Invalid> {
        use pb::agent_message::Message as Wire;
        match field::required("message", wire.message)? {
            Wire::Register(message) => register(message).map_err(|e| e.within("register")),
            Wire::Pong(pb::Pong {}) => Ok(Self::Pong),
            Wire::Update(message) => update(message).map_err(|e| e.within("update")),
            Wire::Ended(message) => ended(&message).map_err(|e| e.within("ended")),
        }
    }
}

fn register(message: pb::Register) -> Result<AgentMessage, Invalid> {
    let agent = field::message("agent", message.agent)?;
    Ok(AgentMessage::Register { agent, tasks: field::list("tasks", message.tasks, limits::TASKS)? })
}

fn update(message: pb::AgentUpdate) -> Result<AgentMessage, Invalid> {
    let framework_id = field::parsed("framework_id", &message.framework_id)?;
    Ok(AgentMessage::Update { framework_id, status: field::message("status", message.status)? })
}

fn ended(message: &pb::TaskEnded) -> Result<AgentMessage, Invalid> {
    Ok(AgentMessage::Ended {
        framework_id: field::parsed("framework_id", &message.framework_id)?,
        task_id: field::parsed("task_id", &message.task_id)?,
    })
}

impl From<MasterMessage> for pb::MasterMessage {
    fn from(message: MasterMessage) -> Self {
        use pb::master_message::Message as Wire;
        let message = match message {
            MasterMessage::Registered { agent_id, epoch, ping_interval } => {
                Wire::Registered(pb::Registered {
                    agent_id: agent_id.into(),
                    epoch: epoch.0,
                    ping_interval_ms: field::ms(ping_interval),
                })
            }
            MasterMessage::Ping => Wire::Ping(pb::Ping {}),
            MasterMessage::Launch { framework_id, framework_name, task, allocation } => {
                Wire::Launch(pb::LaunchTask {
                    framework_id: framework_id.into(),
                    framework_name,
                    task: Some(task.into()),
                    allocation: Some(allocation.into()),
                })
            }
            MasterMessage::Kill { framework_id, task_id, grace } => Wire::Kill(pb::KillAgentTask {
                framework_id: framework_id.into(),
                task_id: task_id.into(),
                grace_ms: grace.map(field::ms),
            }),
            MasterMessage::Acknowledge { framework_id, task_id, update_id } => {
                Wire::Acknowledge(pb::AcknowledgeUpdate {
                    framework_id: framework_id.into(),
                    task_id: task_id.into(),
                    update_id: update_id.into(),
                })
            }
            MasterMessage::ShutdownFramework { framework_id } => {
                Wire::ShutdownFramework(pb::ShutdownFramework { framework_id: framework_id.into() })
            }
            MasterMessage::Volumes(volumes) => {
                Wire::Volumes(pb::Volumes { volumes: field::to_list(volumes) })
            }
            MasterMessage::Error(error) => Wire::Error(error.into()),
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<pb::MasterMessage> for MasterMessage {
    type Error = Invalid;
    fn try_from(wire: pb::MasterMessage) -> Result<Self, Invalid> {
        use pb::master_message::Message as Wire;
        let (name, message) = match field::required("message", wire.message)? {
            Wire::Registered(message) => ("registered", registered(&message)),
            Wire::Ping(pb::Ping {}) => return Ok(Self::Ping),
            Wire::Launch(message) => ("launch", launch(message)),
            Wire::Kill(message) => ("kill", kill(&message)),
            Wire::Acknowledge(message) => ("acknowledge", acknowledge(&message)),
            Wire::ShutdownFramework(message) => ("shutdown_framework", shutdown(&message)),
            Wire::Volumes(message) => ("volumes", volumes(message)),
            Wire::Error(error) => return Ok(Self::Error(field::inner("error", error)?)),
        };
        message.map_err(|e| e.within(name))
    }
}

fn registered(message: &pb::Registered) -> Result<MasterMessage, Invalid> {
    Ok(MasterMessage::Registered {
        agent_id: field::parsed("agent_id", &message.agent_id)?,
        epoch: Epoch(message.epoch),
        ping_interval: field::some_time("ping_interval", message.ping_interval_ms)?,
    })
}

fn launch(message: pb::LaunchTask) -> Result<MasterMessage, Invalid> {
    Ok(MasterMessage::Launch {
        framework_id: field::parsed("framework_id", &message.framework_id)?,
        framework_name: field::text("framework_name", message.framework_name, limits::NAME)?,
        task: field::message("task", message.task)?,
        allocation: field::inner("allocation", message.allocation.unwrap_or_default())?,
    })
}

fn volumes(message: pb::Volumes) -> Result<MasterMessage, Invalid> {
    let volumes: Vec<Volume> = field::list("", message.volumes, limits::VOLUMES)?;
    let ids: Vec<&str> = volumes.iter().map(|volume| volume.id.as_str()).collect();
    field::each_once("", &ids)?;
    Ok(MasterMessage::Volumes(volumes))
}

fn kill(message: &pb::KillAgentTask) -> Result<MasterMessage, Invalid> {
    Ok(MasterMessage::Kill {
        framework_id: field::parsed("framework_id", &message.framework_id)?,
        task_id: field::parsed("task_id", &message.task_id)?,
        grace: field::duration_opt("grace", message.grace_ms)?,
    })
}

fn acknowledge(message: &pb::AcknowledgeUpdate) -> Result<MasterMessage, Invalid> {
    Ok(MasterMessage::Acknowledge {
        framework_id: field::parsed("framework_id", &message.framework_id)?,
        task_id: field::parsed("task_id", &message.task_id)?,
        update_id: field::parsed("update_id", &message.update_id)?,
    })
}

fn shutdown(message: &pb::ShutdownFramework) -> Result<MasterMessage, Invalid> {
    Ok(MasterMessage::ShutdownFramework {
        framework_id: field::parsed("framework_id", &message.framework_id)?,
    })
}
