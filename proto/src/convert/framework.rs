//! How a framework introduces itself, and what it is offered.

use std::time::Duration;

use super::resources::{from_attributes, to_attributes};
use super::{field, limits};
use crate::error::Invalid;
use crate::ids::OfferId;
use crate::pb;
use crate::scheduler::{DEFAULT_FAILOVER_TIMEOUT, Filters, FrameworkInfo, OfferInfo};

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
        })
    }
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
            attributes: from_attributes(offer.attributes),
            role: offer.role.into(),
            resources: Some(offer.resources.into()),
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
        })
    }
}
