//! What a framework wants.

use super::{field, limits};
use crate::demand::{Demand, DemandShape, Gang, OfferedDemand, Preference};
use crate::error::Invalid;
use crate::pb;
use crate::resources::Resources;
use crate::scheduler::CallBody;

/// A demand as the call has it.
pub(super) fn from_demand(role: String, demand: Demand) -> pb::Demand {
    pb::Demand { role, shapes: field::to_list(demand.shapes), gang: demand.gang.map(Into::into) }
}

pub(super) fn to_demand(wire: pb::Demand) -> Result<CallBody, Invalid> {
    let shapes: Vec<DemandShape> = field::list("shapes", wire.shapes, limits::SHAPES)?;
    let names: Vec<&str> = shapes.iter().map(|shape| shape.name.as_str()).collect();
    field::each_once("shapes", &names)?;
    let gang = wire.gang.map(|gang| field::inner("gang", gang)).transpose()?;
    Ok(CallBody::Demand { role: field::parsed("role", &wire.role)?, demand: Demand { shapes, gang } })
}

impl From<DemandShape> for pb::DemandShape {
    fn from(shape: DemandShape) -> Self {
        use pb::demand_shape::Preference as Wire;
        Self {
            resources: Some(shape.resources.into()),
            count: shape.count,
            name: shape.name,
            ports: shape.ports.into(),
            constraint: shape.constraint.map(|constraint| constraint.to_string()),
            preference: match shape.preference {
                Preference::None => None,
                Preference::Pack => Some(Wire::Pack(pb::Pack {})),
                Preference::Spread(attribute) => Some(Wire::Spread(attribute)),
            },
        }
    }
}

impl TryFrom<pb::DemandShape> for DemandShape {
    type Error = Invalid;
    fn try_from(wire: pb::DemandShape) -> Result<Self, Invalid> {
        use pb::demand_shape::Preference as Wire;
        let resources: Resources = field::message("resources", wire.resources)?;
        let ports = u16::try_from(wire.ports)
            .map_err(|_| Invalid::new("ports", wire.ports, "at most 65535 ports"))?;
        if resources.is_empty() && ports == 0 {
            return Err(Invalid::new("resources", resources, "something, or ports"));
        }
        Ok(Self {
            name: field::filled("name", wire.name, limits::SHAPE_NAME)?,
            resources,
            ports,
            count: wire.count,
            constraint: field::parsed_opt("constraint", wire.constraint.as_ref())?,
            preference: match wire.preference {
                None => Preference::None,
                Some(Wire::Pack(pb::Pack {})) => Preference::Pack,
                Some(Wire::Spread(name)) => Preference::Spread(field::filled("spread", name, limits::NAME)?),
            },
        })
    }
}

impl From<Gang> for pb::Gang {
    fn from(gang: Gang) -> Self {
        Self { hold_ms: field::ms(gang.hold) }
    }
}

impl TryFrom<pb::Gang> for Gang {
    type Error = Invalid;
    fn try_from(wire: pb::Gang) -> Result<Self, Invalid> {
        let hold = field::duration("hold", wire.hold_ms)?;
        match (limits::GANG_HOLD_LEAST..=limits::GANG_HOLD).contains(&hold) {
            true => Ok(Self { hold }),
            false => Err(Invalid::new("hold", format!("{} ms", wire.hold_ms), "1 s to an hour")),
        }
    }
}

impl From<OfferedDemand> for pb::OfferedDemand {
    fn from(demand: OfferedDemand) -> Self {
        let OfferedDemand { shape, count, gang } = demand;
        Self { shape, count, gang }
    }
}

impl TryFrom<pb::OfferedDemand> for OfferedDemand {
    type Error = Invalid;
    fn try_from(wire: pb::OfferedDemand) -> Result<Self, Invalid> {
        let pb::OfferedDemand { shape, count, gang } = wire;
        Ok(Self { shape: field::filled("shape", shape, limits::SHAPE_NAME)?, count, gang })
    }
}
