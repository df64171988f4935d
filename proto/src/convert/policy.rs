//! What operators are told of roles and of agents that are on their way out: the rest of [`crate::api`] as messages.

use super::field::{self, same_names};
use super::limits;
use super::resources::{from_amounts, to_amounts};
use crate::api::{self, DecisionKind};
use crate::error::Invalid;
use crate::pb;
use crate::quota::Quota;

same_names!(
    DecisionKind,
    pb::DecisionKind,
    [Offered, Held, GangGathering, GangComplete, GangReleased, Preempted, Killed, Draining, Drained, Revoked]
);

impl From<Quota> for pb::Quota {
    fn from(quota: Quota) -> Self {
        Self {
            guarantee: from_amounts(&quota.guarantee),
            limit: from_amounts(&quota.limit),
            shape: quota.shape.map(Into::into),
            preemptible: Some(quota.preemptible),
        }
    }
}

impl TryFrom<pb::Quota> for Quota {
    type Error = Invalid;
    fn try_from(wire: pb::Quota) -> Result<Self, Invalid> {
        let quota = Self {
            guarantee: to_amounts("guarantee", wire.guarantee)?,
            limit: to_amounts("limit", wire.limit)?,
            shape: wire.shape.map(|shape| field::inner("shape", shape)).transpose()?,
            preemptible: wire.preemptible.unwrap_or(true),
        };
        quota.check()?;
        Ok(quota)
    }
}

impl From<api::Role> for pb::RoleView {
    fn from(role: api::Role) -> Self {
        Self {
            path: role.path.into(),
            weight_millis: role.weight,
            dominant_share: role.dominant_share,
            frameworks: role.frameworks as u64,
            resources: Some(role.resources.into()),
            quota: role.quota.map(Into::into),
            consumed: from_amounts(&role.consumed),
            reserved: Some(role.reserved.into()),
            unmet: from_amounts(&role.unmet),
        }
    }
}

impl TryFrom<pb::RoleView> for api::Role {
    type Error = Invalid;
    fn try_from(wire: pb::RoleView) -> Result<Self, Invalid> {
        Ok(Self {
            path: field::parsed("path", &wire.path)?,
            weight: wire.weight_millis,
            dominant_share: field::share("dominant_share", wire.dominant_share)?,
            frameworks: field::count("frameworks", wire.frameworks)?,
            resources: field::message("resources", wire.resources)?,
            quota: wire.quota.map(|quota| field::inner("quota", quota)).transpose()?,
            consumed: to_amounts("consumed", wire.consumed)?,
            reserved: field::inner("reserved", wire.reserved.unwrap_or_default())?,
            unmet: to_amounts("unmet", wire.unmet)?,
        })
    }
}

impl From<api::Drain> for pb::Drain {
    fn from(drain: api::Drain) -> Self {
        Self {
            since_ms: field::time_ms(drain.since),
            deadline_ms: drain.deadline.map(field::time_ms),
            then_gone: drain.then_gone,
            drained: drain.drained,
        }
    }
}

impl TryFrom<pb::Drain> for api::Drain {
    type Error = Invalid;
    fn try_from(wire: pb::Drain) -> Result<Self, Invalid> {
        Ok(Self {
            since: field::time("since", wire.since_ms)?,
            deadline: field::time_opt("deadline", wire.deadline_ms)?,
            then_gone: wire.then_gone,
            drained: wire.drained,
        })
    }
}

impl From<api::Window> for pb::MaintenanceWindow {
    fn from(window: api::Window) -> Self {
        Self {
            start_ms: field::time_ms(window.start),
            duration_ms: field::ms(window.duration),
            reason: field::cut(window.reason),
        }
    }
}

impl TryFrom<pb::MaintenanceWindow> for api::Window {
    type Error = Invalid;
    fn try_from(wire: pb::MaintenanceWindow) -> Result<Self, Invalid> {
        Ok(Self {
            start: field::time("start", wire.start_ms)?,
            duration: field::duration("duration", wire.duration_ms)?,
            reason: field::text("reason", wire.reason, limits::TEXT)?,
        })
    }
}

impl From<api::VolumeView> for pb::VolumeView {
    fn from(view: api::VolumeView) -> Self {
        Self { volume: Some(view.volume.into()), used_by: view.used_by }
    }
}

impl TryFrom<pb::VolumeView> for api::VolumeView {
    type Error = Invalid;
    fn try_from(wire: pb::VolumeView) -> Result<Self, Invalid> {
        field::at_most("used_by", wire.used_by.len(), limits::TASKS)?;
        let used_by = wire.used_by.into_iter().map(|task| field::text("used_by", task, limits::URL));
        Ok(Self {
            volume: field::message("volume", wire.volume)?,
            used_by: used_by.collect::<Result<_, _>>()?,
        })
    }
}

impl From<api::Decision> for pb::Decision {
    fn from(decision: api::Decision) -> Self {
        Self {
            index: decision.index,
            time_ms: field::time_ms(decision.time),
            what: pb::DecisionKind::from(decision.what).into(),
            framework_id: decision.framework_id.map(Into::into),
            role: decision.role.map(Into::into),
            agent_id: decision.agent_id.map(Into::into),
            tasks: field::to_list(decision.tasks),
            resources: Some(decision.resources.into()),
            why: field::cut(decision.why),
        }
    }
}

impl TryFrom<pb::Decision> for api::Decision {
    type Error = Invalid;
    fn try_from(wire: pb::Decision) -> Result<Self, Invalid> {
        Ok(Self {
            index: wire.index,
            time: field::time("time", wire.time_ms)?,
            what: field::known::<pb::DecisionKind, _>("what", wire.what)?,
            framework_id: field::parsed_opt("framework_id", wire.framework_id.as_ref())?,
            role: field::parsed_opt("role", wire.role.as_ref())?,
            agent_id: field::parsed_opt("agent_id", wire.agent_id.as_ref())?,
            tasks: field::parsed_list("tasks", &wire.tasks, limits::TASKS)?,
            resources: field::message("resources", wire.resources)?,
            why: field::text("why", wire.why, limits::TEXT)?,
        })
    }
}
