//! How a framework introduces itself, and what it is offered.

use std::collections::BTreeSet;
use std::time::Duration;

use super::field::same_names;
use super::resources::{from_attributes, to_attributes};
use super::{field, limits};
use crate::error::Invalid;
use crate::ids::{InverseOfferId, OfferId};
use crate::pb;
use crate::scheduler::{
    Capability, DEFAULT_FAILOVER_TIMEOUT, Filters, FrameworkInfo, InverseOffer, InverseReason, OfferInfo,
};

same_names!(Capability, pb::Capability, [Revocable]);

impl From<FrameworkInfo> for pb::FrameworkInfo {
    fn from(framework: FrameworkInfo) -> Self {
        Self {
            id: framework.id.map(Into::into),
            name: framework.name,
            user: framework.user,
            roles: field::to_list(framework.roles),
            principal: framework.principal.map(Into::into),
            failover_timeout_ms: Some(field::ms(framework.failover_timeout)),
            url: framework.url,
            labels: framework.labels,
            capabilities: framework
                .capabilities
                .into_iter()
                .map(|c| pb::Capability::from(c).into())
                .collect(),
        }
    }
}

impl TryFrom<pb::FrameworkInfo> for FrameworkInfo {
    type Error = Invalid;
    fn try_from(wire: pb::FrameworkInfo) -> Result<Self, Invalid> {
        field::at_least_one("roles", wire.roles.len())?;
        Ok(Self {
            id: field::parsed_opt("id", wire.id.as_ref())?,
            name: field::filled("name", wire.name, limits::NAME)?,
            user: field::text_opt("user", wire.user, limits::NAME)?,
            roles: field::parsed_list("roles", &wire.roles, limits::ROLES)?,
            principal: field::parsed_opt("principal", wire.principal.as_ref())?,
            failover_timeout: field::duration_opt("failover_timeout", wire.failover_timeout_ms)?
                .unwrap_or(DEFAULT_FAILOVER_TIMEOUT),
            url: field::text_opt("url", wire.url, limits::URL)?,
            labels: field::labels(wire.labels)?,
            capabilities: capabilities(&wire.capabilities)?,
        })
    }
}

fn capabilities(wire: &[i32]) -> Result<BTreeSet<Capability>, Invalid> {
    field::at_most("capabilities", wire.len(), limits::CAPABILITIES)?;
    field::each_once("capabilities", wire)?;
    let known = |(i, number): (usize, &i32)| {
        field::known::<pb::Capability, _>(&format!("capabilities[{i}]"), *number)
    };
    wire.iter().enumerate().map(known).collect()
}

impl From<Filters> for pb::Filters {
    fn from(filters: Filters) -> Self {
        Self { refuse_ms: Some(field::ms(filters.refuse.min(limits::REFUSE))) }
    }
}

impl From<pb::Filters> for Filters {
    fn from(wire: pb::Filters) -> Self {
        match wire.refuse_ms {
            Some(ms) => Self { refuse: Duration::from_millis(ms).min(limits::REFUSE) },
            None => Self::default(),
        }
    }
}

impl From<OfferInfo> for pb::OfferInfo {
    fn from(offer: OfferInfo) -> Self {
        Self {
            id: offer.id.0,
            agent_id: offer.agent_id.into(),
            hostname: offer.hostname.into(),
            attributes: from_attributes(&offer.attributes),
            role: offer.role.into(),
            resources: Some(offer.resources.into()),
            reserved: field::to_list(offer.reserved),
            volumes: field::to_list(offer.volumes),
            revocable: offer.revocable,
            unavailable_ms: offer.unavailable.map(field::time_ms),
            demand: offer.demand.map(Into::into),
        }
    }
}

impl TryFrom<pb::OfferInfo> for OfferInfo {
    type Error = Invalid;
    fn try_from(wire: pb::OfferInfo) -> Result<Self, Invalid> {
        Ok(Self {
            id: OfferId(wire.id),
            agent_id: field::parsed("agent_id", &wire.agent_id)?,
            hostname: field::parsed("hostname", &wire.hostname)?,
            attributes: to_attributes(wire.attributes)?,
            role: field::parsed("role", &wire.role)?,
            resources: field::message("resources", wire.resources)?,
            reserved: field::list("reserved", wire.reserved, limits::RESERVED)?,
            volumes: field::list("volumes", wire.volumes, limits::VOLUMES)?,
            revocable: wire.revocable,
            unavailable: field::time_opt("unavailable", wire.unavailable_ms)?,
            demand: wire.demand.map(|demand| field::inner("demand", demand)).transpose()?,
        })
    }
}

impl From<InverseOffer> for pb::InverseOffer {
    fn from(offer: InverseOffer) -> Self {
        use pb::inverse_offer::Reason as Wire;
        let reason = match offer.reason {
            InverseReason::Maintenance => Wire::Maintenance(pb::Maintenance {}),
            InverseReason::Preemption(role) => Wire::Preemption(role.into()),
            InverseReason::Revocation => Wire::Revocation(pb::Revocation {}),
        };
        Self {
            id: offer.id.0,
            agent_id: offer.agent_id.into(),
            hostname: offer.hostname.into(),
            tasks: field::to_list(offer.tasks),
            resources: Some(offer.resources.into()),
            deadline_ms: offer.deadline.map(field::time_ms),
            reason: Some(reason),
        }
    }
}

impl TryFrom<pb::InverseOffer> for InverseOffer {
    type Error = Invalid;
    fn try_from(wire: pb::InverseOffer) -> Result<Self, Invalid> {
        use pb::inverse_offer::Reason as Wire;
        Ok(Self {
            id: InverseOfferId(wire.id),
            agent_id: field::parsed("agent_id", &wire.agent_id)?,
            hostname: field::parsed("hostname", &wire.hostname)?,
            tasks: field::parsed_list("tasks", &wire.tasks, limits::TASKS)?,
            resources: field::message("resources", wire.resources)?,
            deadline: field::time_opt("deadline", wire.deadline_ms)?,
            reason: match field::required("reason", wire.reason)? {
                Wire::Maintenance(pb::Maintenance {}) => InverseReason::Maintenance,
                Wire::Preemption(role) => InverseReason::Preemption(field::parsed("preemption", &role)?),
                Wire::Revocation(pb::Revocation {}) => InverseReason::Revocation,
            },
        })
    }
}
