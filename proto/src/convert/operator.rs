//! What operators are answered: the types of [`crate::api`] as messages.

use std::collections::BTreeMap;

use super::field::{self, same_names};
use super::limits;
use super::resources::{from_attributes, to_attributes};
use crate::api;
use crate::error::Invalid;
use crate::ids::OfferId;
use crate::pb;
use crate::resources::Resources;
use crate::time::Timestamp;

same_names!(api::AgentState, pb::AgentState, [Active, Recovering, Suspected, Unreachable, Gone]);
same_names!(api::FrameworkState, pb::FrameworkState, [Active, Disconnected, Completed]);

impl From<api::ResourceUse> for pb::ResourceUse {
    fn from(parts: api::ResourceUse) -> Self {
        Self {
            total: Some(parts.total.into()),
            used: Some(parts.used.into()),
            offered: Some(parts.offered.into()),
            available: Some(parts.available.into()),
        }
    }
}

impl TryFrom<pb::ResourceUse> for api::ResourceUse {
    type Error = Invalid;
    fn try_from(wire: pb::ResourceUse) -> Result<Self, Invalid> {
        Ok(Self {
            total: field::message("total", wire.total)?,
            used: field::message("used", wire.used)?,
            offered: field::message("offered", wire.offered)?,
            available: field::message("available", wire.available)?,
        })
    }
}

impl From<api::Agent> for pb::AgentView {
    fn from(agent: api::Agent) -> Self {
        Self {
            id: agent.id.into(),
            hostname: agent.hostname.into(),
            state: pb::AgentState::from(agent.state).into(),
            resources: Some(agent.resources.into()),
            attributes: from_attributes(&agent.attributes),
            tasks: agent.tasks as u64,
            address: agent.address,
            url: agent.url,
            version: agent.version,
            since_ms: field::time_ms(agent.since),
            deactivated: agent.deactivated,
            drain: agent.drain.map(Into::into),
            maintenance: agent.maintenance.map(Into::into),
            reserved: field::to_list(agent.reserved),
            volumes: field::to_list(agent.volumes),
            revocable: Some(agent.revocable.into()),
        }
    }
}

impl TryFrom<pb::AgentView> for api::Agent {
    type Error = Invalid;
    fn try_from(wire: pb::AgentView) -> Result<Self, Invalid> {
        Ok(Self {
            id: field::parsed("id", &wire.id)?,
            hostname: field::parsed("hostname", &wire.hostname)?,
            state: field::known::<pb::AgentState, _>("state", wire.state)?,
            resources: field::message("resources", wire.resources)?,
            attributes: to_attributes(wire.attributes)?,
            tasks: field::count("tasks", wire.tasks)?,
            address: field::text("address", wire.address, limits::NAME)?,
            url: field::text("url", wire.url, limits::URL)?,
            version: field::text("version", wire.version, limits::NAME)?,
            since: field::time("since", wire.since_ms)?,
            deactivated: wire.deactivated,
            drain: wire.drain.map(|drain| field::inner("drain", drain)).transpose()?,
            maintenance: wire.maintenance.map(|window| field::inner("maintenance", window)).transpose()?,
            reserved: field::list("reserved", wire.reserved, limits::RESERVED)?,
            volumes: field::list("volumes", wire.volumes, limits::VOLUMES)?,
            revocable: match wire.revocable {
                Some(revocable) => field::inner("revocable", revocable)?,
                None => api::ResourceUse::default(),
            },
        })
    }
}

impl From<api::Framework> for pb::FrameworkView {
    fn from(framework: api::Framework) -> Self {
        Self {
            id: framework.id.into(),
            name: framework.name,
            roles: field::to_list(framework.roles),
            state: pb::FrameworkState::from(framework.state).into(),
            tasks: framework.tasks as u64,
            offers: framework.offers as u64,
            dominant_share: framework.dominant_share,
            resources: Some(framework.resources.into()),
            url: framework.url,
            since_ms: field::time_ms(framework.since),
        }
    }
}

impl TryFrom<pb::FrameworkView> for api::Framework {
    type Error = Invalid;
    fn try_from(wire: pb::FrameworkView) -> Result<Self, Invalid> {
        Ok(Self {
            id: field::parsed("id", &wire.id)?,
            name: field::text("name", wire.name, limits::NAME)?,
            roles: field::parsed_list("roles", &wire.roles, limits::ROLES)?,
            state: field::known::<pb::FrameworkState, _>("state", wire.state)?,
            tasks: field::count("tasks", wire.tasks)?,
            offers: field::count("offers", wire.offers)?,
            dominant_share: field::share("dominant_share", wire.dominant_share)?,
            resources: field::message("resources", wire.resources)?,
            url: field::text_opt("url", wire.url, limits::URL)?,
            since: field::time("since", wire.since_ms)?,
        })
    }
}

impl From<api::Task> for pb::TaskView {
    fn from(task: api::Task) -> Self {
        Self {
            id: task.id.into(),
            name: task.name,
            framework: task.framework,
            framework_id: task.framework_id.into(),
            agent_id: task.agent_id.into(),
            hostname: task.hostname.into(),
            state: pb::TaskState::from(task.state).into(),
            healthy: task.healthy,
            ports: field::to_list(task.named_ports),
            resources: Some(task.resources.into()),
            pid: task.pid,
            started_at_ms: task.started_at.map(field::time_ms),
            updated_at_ms: field::time_ms(task.updated_at),
            reason: pb::Reason::from(task.reason).into(),
            message: field::cut(task.message),
            sandbox: task.sandbox,
        }
    }
}

impl TryFrom<pb::TaskView> for api::Task {
    type Error = Invalid;
    fn try_from(wire: pb::TaskView) -> Result<Self, Invalid> {
        let started_at: Option<Timestamp> =
            wire.started_at_ms.map(|ms| field::time("started_at", ms)).transpose()?;
        let resources: Resources = field::message("resources", wire.resources)?;
        Ok(Self {
            id: field::parsed("id", &wire.id)?,
            name: field::text("name", wire.name, limits::NAME)?,
            framework: field::text("framework", wire.framework, limits::NAME)?,
            framework_id: field::parsed("framework_id", &wire.framework_id)?,
            agent_id: field::parsed("agent_id", &wire.agent_id)?,
            hostname: field::parsed("hostname", &wire.hostname)?,
            state: field::known::<pb::TaskState, _>("state", wire.state)?,
            healthy: wire.healthy,
            ports: resources.ports().clone(),
            named_ports: field::list("ports", wire.ports, limits::TASK_PORTS)?,
            resources,
            pid: wire.pid,
            started_at,
            updated_at: field::time("updated_at", wire.updated_at_ms)?,
            reason: field::known::<pb::Reason, _>("reason", wire.reason)?,
            message: field::text("message", wire.message, limits::TEXT)?,
            sandbox: field::text_opt("sandbox", wire.sandbox, limits::URL)?,
        })
    }
}

impl From<api::Offer> for pb::OfferView {
    fn from(offer: api::Offer) -> Self {
        Self {
            number: offer.number.0,
            id: offer.id,
            framework_id: offer.framework_id.into(),
            framework: offer.framework,
            role: offer.role.into(),
            agent_id: offer.agent_id.into(),
            hostname: offer.hostname.into(),
            resources: Some(offer.resources.into()),
            since_ms: field::time_ms(offer.since),
            expires_ms: field::time_ms(offer.expires),
        }
    }
}

impl TryFrom<pb::OfferView> for api::Offer {
    type Error = Invalid;
    fn try_from(wire: pb::OfferView) -> Result<Self, Invalid> {
        Ok(Self {
            id: field::text("id", wire.id, limits::NAME)?,
            number: OfferId(wire.number),
            framework_id: field::parsed("framework_id", &wire.framework_id)?,
            framework: field::text("framework", wire.framework, limits::NAME)?,
            role: field::parsed("role", &wire.role)?,
            agent_id: field::parsed("agent_id", &wire.agent_id)?,
            hostname: field::parsed("hostname", &wire.hostname)?,
            resources: field::message("resources", wire.resources)?,
            since: field::time("since", wire.since_ms)?,
            expires: field::time("expires", wire.expires_ms)?,
        })
    }
}

impl From<api::Status> for pb::ClusterStatus {
    fn from(status: api::Status) -> Self {
        let agents = status.agents.into_iter();
        let frameworks = status.frameworks.into_iter();
        let tasks = status.tasks.into_iter();
        Self {
            leader: status.leader,
            version: status.version,
            epoch: status.epoch,
            uptime_s: status.uptime,
            agents: agents
                .map(|(state, count)| pb::AgentCount {
                    state: pb::AgentState::from(state).into(),
                    count: count as u64,
                })
                .collect(),
            frameworks: frameworks
                .map(|(state, count)| pb::FrameworkCount {
                    state: pb::FrameworkState::from(state).into(),
                    count: count as u64,
                })
                .collect(),
            tasks: tasks
                .map(|(state, count)| pb::TaskCount {
                    state: pb::TaskState::from(state).into(),
                    count: count as u64,
                })
                .collect(),
            resources: Some(status.resources.into()),
            warnings: status.warnings.into_iter().map(field::cut).collect(),
        }
    }
}

impl TryFrom<pb::ClusterStatus> for api::Status {
    type Error = Invalid;
    fn try_from(wire: pb::ClusterStatus) -> Result<Self, Invalid> {
        let agents = wire.agents.iter().map(|entry| (entry.state, entry.count));
        let frameworks = wire.frameworks.iter().map(|entry| (entry.state, entry.count));
        let tasks = wire.tasks.iter().map(|entry| (entry.state, entry.count));
        field::at_most("warnings", wire.warnings.len(), limits::WARNINGS)?;
        let warnings = wire.warnings.into_iter().map(|text| field::text("warnings", text, limits::TEXT));
        Ok(Self {
            leader: field::text("leader", wire.leader, limits::URL)?,
            version: field::text("version", wire.version, limits::NAME)?,
            epoch: wire.epoch,
            uptime: wire.uptime_s,
            agents: counts::<pb::AgentState, _>("agents", agents)?,
            frameworks: counts::<pb::FrameworkState, _>("frameworks", frameworks)?,
            tasks: counts::<pb::TaskState, _>("tasks", tasks)?,
            resources: field::message("resources", wire.resources)?,
            warnings: warnings.collect::<Result<_, _>>()?,
        })
    }
}

/// Counts by state, each state once.
fn counts<P: TryFrom<i32>, D: TryFrom<P, Error = Invalid> + Ord>(
    field: &str,
    entries: impl Iterator<Item = (i32, u64)>,
) -> Result<BTreeMap<D, usize>, Invalid> {
    let mut counts = BTreeMap::new();
    for (i, (state, count)) in entries.enumerate() {
        let at = |e: Invalid| e.within(format_args!("{field}[{i}]"));
        let known = field::known::<P, D>("state", state).map_err(at)?;
        if counts.insert(known, field::count("count", count).map_err(at)?).is_some() {
            return Err(at(Invalid::new("state", state, "each state once")));
        }
    }
    Ok(counts)
}

impl From<api::Snapshot> for pb::Snapshot {
    fn from(snapshot: api::Snapshot) -> Self {
        Self {
            status: Some(snapshot.status.into()),
            agents: field::to_list(snapshot.agents),
            frameworks: field::to_list(snapshot.frameworks),
            tasks: field::to_list(snapshot.tasks),
        }
    }
}

impl TryFrom<pb::Snapshot> for api::Snapshot {
    type Error = Invalid;
    fn try_from(wire: pb::Snapshot) -> Result<Self, Invalid> {
        Ok(Self {
            status: field::message("status", wire.status)?,
            agents: field::list("agents", wire.agents, limits::LISTED)?,
            frameworks: field::list("frameworks", wire.frameworks, limits::LISTED)?,
            tasks: field::list("tasks", wire.tasks, limits::LISTED)?,
        })
    }
}

/// Without an index, which the change does not know.
impl From<api::Change> for pb::Change {
    fn from(change: api::Change) -> Self {
        use pb::change::Change as Wire;
        let change = match change {
            api::Change::Snapshot(snapshot) => Wire::Snapshot((*snapshot).into()),
            api::Change::Agent(agent) => Wire::Agent((*agent).into()),
            api::Change::Framework(framework) => Wire::Framework(framework.into()),
            api::Change::Task(task) => Wire::Task(task.into()),
            api::Change::TaskRemoved { framework_id, id } => {
                Wire::TaskRemoved(pb::TaskRemoved { framework_id: framework_id.into(), id: id.into() })
            }
            api::Change::Status(status) => Wire::Status((*status).into()),
            api::Change::Role(role) => Wire::Role(role.into()),
            api::Change::Decision(decision) => Wire::Decision(decision.into()),
        };
        Self { change: Some(change), index: 0 }
    }
}

impl TryFrom<pb::Change> for api::Change {
    type Error = Invalid;
    fn try_from(wire: pb::Change) -> Result<Self, Invalid> {
        use pb::change::Change as Wire;
        Ok(match field::required("change", wire.change)? {
            Wire::Snapshot(snapshot) => Self::Snapshot(Box::new(field::inner("snapshot", snapshot)?)),
            Wire::Agent(agent) => Self::Agent(Box::new(field::inner("agent", agent)?)),
            Wire::Framework(framework) => Self::Framework(field::inner("framework", framework)?),
            Wire::Task(task) => Self::Task(field::inner("task", task)?),
            Wire::TaskRemoved(task) => Self::TaskRemoved {
                framework_id: field::parsed("task_removed.framework_id", &task.framework_id)?,
                id: field::parsed("task_removed.id", &task.id)?,
            },
            Wire::Status(status) => Self::Status(Box::new(field::inner("status", status)?)),
            Wire::Role(role) => Self::Role(field::inner("role", role)?),
            Wire::Decision(decision) => Self::Decision(field::inner("decision", decision)?),
        })
    }
}
