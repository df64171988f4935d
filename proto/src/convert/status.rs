//! What is said of a task.

use std::net::IpAddr;

use super::field::{self, same_names};
use super::limits;
use crate::error::Invalid;
use crate::pb;
use crate::quantity::Bytes;
use crate::task::{ContainerStatus, ExitStatus, Reason, Source, TaskState, TaskStatus};

same_names!(
    TaskState,
    pb::TaskState,
    [
        Staging,
        Starting,
        Running,
        Killing,
        Unreachable,
        Finished,
        Failed,
        Killed,
        Error,
        Dropped,
        Gone,
        Unknown
    ]
);

same_names!(
    Reason,
    pb::Reason,
    [
        CommandExited,
        KillRequested,
        KilledDuringLaunch,
        Unhealthy,
        HealthChanged,
        OutOfMemory,
        LaunchFailed,
        FetchFailed,
        TaskInvalid,
        OfferGone,
        AgentUnreachable,
        AgentReturned,
        AgentDisconnected,
        AgentRestarted,
        AgentGone,
        FrameworkRemoved,
        Reconciliation,
        StatusLost,
        Preempted,
        AgentDrained,
        Revoked,
        GangBroken,
        ImageFailed,
        DiskLimit,
        GroupEnded
    ]
);

same_names!(Source, pb::Source, [Master, Agent]);

impl From<TaskStatus> for pb::TaskStatus {
    fn from(status: TaskStatus) -> Self {
        Self {
            task_id: status.task_id.into(),
            agent_id: status.agent_id.map(Into::into),
            state: pb::TaskState::from(status.state).into(),
            reason: pb::Reason::from(status.reason).into(),
            source: pb::Source::from(status.source).into(),
            message: field::cut(status.message),
            time_ms: field::time_ms(status.time),
            update_id: status.update_id.map(Into::into),
            healthy: status.healthy,
            container: (status.container != ContainerStatus::default()).then(|| status.container.into()),
        }
    }
}

impl TryFrom<pb::TaskStatus> for TaskStatus {
    type Error = Invalid;
    fn try_from(wire: pb::TaskStatus) -> Result<Self, Invalid> {
        Ok(Self {
            task_id: field::parsed("task_id", &wire.task_id)?,
            agent_id: field::parsed_opt("agent_id", wire.agent_id.as_ref())?,
            state: field::known::<pb::TaskState, _>("state", wire.state)?,
            reason: field::known::<pb::Reason, _>("reason", wire.reason)?,
            source: field::known::<pb::Source, _>("source", wire.source)?,
            message: field::text("message", wire.message, limits::TEXT)?,
            time: field::time("time", wire.time_ms)?,
            update_id: field::parsed_opt("update_id", wire.update_id.as_ref())?,
            healthy: wire.healthy,
            container: match wire.container {
                Some(container) => field::inner("container", container)?,
                None => ContainerStatus::default(),
            },
        })
    }
}

impl From<ContainerStatus> for pb::ContainerStatus {
    fn from(status: ContainerStatus) -> Self {
        use pb::container_status::Exit;
        let exit = status.exit.map(|exit| match exit {
            ExitStatus::Code(code) => Exit::ExitCode(code),
            ExitStatus::Signal(signal) => Exit::ExitSignal(signal),
        });
        Self {
            pid: status.pid,
            exit,
            memory_limit_bytes: status.memory_limit.map(Bytes::bytes),
            memory_peak_bytes: status.memory_peak.map(Bytes::bytes),
            sandbox: status.sandbox,
            addresses: status.addresses.iter().map(ToString::to_string).collect(),
            disk_limit_bytes: status.disk_limit.map(Bytes::bytes),
            image: status.image.map(Into::into),
        }
    }
}

impl TryFrom<pb::ContainerStatus> for ContainerStatus {
    type Error = Invalid;
    fn try_from(wire: pb::ContainerStatus) -> Result<Self, Invalid> {
        use pb::container_status::Exit;
        let exit = wire.exit.map(|exit| match exit {
            Exit::ExitCode(code) => ExitStatus::Code(code),
            Exit::ExitSignal(signal) => ExitStatus::Signal(signal),
        });
        Ok(Self {
            pid: wire.pid,
            exit,
            memory_limit: size("memory_limit", wire.memory_limit_bytes)?,
            memory_peak: size("memory_peak", wire.memory_peak_bytes)?,
            sandbox: field::text_opt("sandbox", wire.sandbox, limits::URL)?,
            addresses: addresses(&wire.addresses)?,
            disk_limit: size("disk_limit", wire.disk_limit_bytes)?,
            image: field::parsed_opt("image", wire.image.as_ref())?,
        })
    }
}

fn addresses(wire: &[String]) -> Result<Vec<IpAddr>, Invalid> {
    field::at_most("addresses", wire.len(), limits::ADDRESSES)?;
    let parse = |(i, text): (usize, &String)| {
        text.parse().map_err(|_| Invalid::new(format!("addresses[{i}]"), text, "an IP address"))
    };
    wire.iter().enumerate().map(parse).collect()
}

fn size(field: &str, bytes: Option<i64>) -> Result<Option<Bytes>, Invalid> {
    bytes.map(|bytes| field::bytes(field, bytes)).transpose()
}
