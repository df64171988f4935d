//! Who owns what of an agent.

use super::{field, limits};
use crate::error::Invalid;
use crate::pb;
use crate::quantity::Bytes;
use crate::reservation::{Allocation, Reservation, Reserved, Volume, VolumeMount};

impl From<Reservation> for pb::Reservation {
    fn from(reservation: Reservation) -> Self {
        let Reservation { role, principal, labels, fixed } = reservation;
        Self { role: role.into(), principal: principal.map(Into::into), labels, fixed }
    }
}

impl TryFrom<pb::Reservation> for Reservation {
    type Error = Invalid;
    fn try_from(wire: pb::Reservation) -> Result<Self, Invalid> {
        if wire.role == "*" {
            return Err(Invalid::new("role", wire.role, "a role that is not `*`"));
        }
        Ok(Self {
            role: field::parsed("role", &wire.role)?,
            principal: field::parsed_opt("principal", wire.principal.as_ref())?,
            labels: reservation_labels(wire.labels)?,
            fixed: wire.fixed,
        })
    }
}

/// The labels of a reservation: they are kept with each of its uses, so there are fewer.
pub(super) fn reservation_labels(labels: field::Labels) -> Result<field::Labels, Invalid> {
    field::at_most("labels", labels.len(), limits::RESERVATION_LABELS)?;
    field::labels(labels)
}

/// Reservations, each for the role of the one before it or one below; maybe none.
pub(super) fn to_stack(field: &str, wire: Vec<pb::Reservation>) -> Result<Vec<Reservation>, Invalid> {
    let stack: Vec<Reservation> = field::list(field, wire, limits::RESERVATION_STACK)?;
    let pairs = stack.iter().zip(stack.iter().skip(1)).enumerate();
    match pairs.map(|(i, pair)| (i + 1, pair)).find(|(_, (outer, inner))| !outer.role.contains(&inner.role)) {
        Some((i, (outer, inner))) => Err(Invalid::new(
            format!("{field}[{i}].role"),
            &inner.role,
            format!("{0}, or a role below {0}", outer.role),
        )),
        None => Ok(stack),
    }
}

/// Reservations as above, at least one.
pub(super) fn to_owned_stack(field: &str, wire: Vec<pb::Reservation>) -> Result<Vec<Reservation>, Invalid> {
    field::at_least_one(field, wire.len())?;
    to_stack(field, wire)
}

impl From<Reserved> for pb::Reserved {
    fn from(reserved: Reserved) -> Self {
        Self { stack: field::to_list(reserved.stack), resources: Some(reserved.resources.into()) }
    }
}

impl TryFrom<pb::Reserved> for Reserved {
    type Error = Invalid;
    fn try_from(wire: pb::Reserved) -> Result<Self, Invalid> {
        let stack = to_owned_stack("stack", wire.stack)?;
        Ok(Self { stack, resources: field::message("resources", wire.resources)? })
    }
}

impl From<Volume> for pb::Volume {
    fn from(volume: Volume) -> Self {
        Self {
            id: volume.id.into(),
            size_bytes: volume.size.bytes(),
            stack: field::to_list(volume.stack),
            principal: volume.principal.map(Into::into),
            created_ms: field::time_ms(volume.created),
        }
    }
}

impl TryFrom<pb::Volume> for Volume {
    type Error = Invalid;
    fn try_from(wire: pb::Volume) -> Result<Self, Invalid> {
        Ok(Self {
            id: field::parsed("id", &wire.id)?,
            size: field::bytes("size", wire.size_bytes)?,
            stack: to_owned_stack("stack", wire.stack)?,
            principal: field::parsed_opt("principal", wire.principal.as_ref())?,
            created: field::time("created", wire.created_ms)?,
        })
    }
}

impl From<VolumeMount> for pb::VolumeMount {
    fn from(mount: VolumeMount) -> Self {
        let VolumeMount { id, path, read_only } = mount;
        Self { id: id.into(), path, read_only }
    }
}

impl TryFrom<pb::VolumeMount> for VolumeMount {
    type Error = Invalid;
    fn try_from(wire: pb::VolumeMount) -> Result<Self, Invalid> {
        let path = field::filled("path", wire.path, limits::URL)?;
        if path.split('/').any(|part| part == "..") {
            return Err(Invalid::new("path", path, "a path without `..`"));
        }
        Ok(Self { id: field::parsed("id", &wire.id)?, path, read_only: wire.read_only })
    }
}

impl From<Allocation> for pb::Allocation {
    fn from(allocation: Allocation) -> Self {
        let Allocation { role, reserved, revocable } = allocation;
        Self { role: role.map(Into::into), reserved: field::to_list(reserved), revocable }
    }
}

impl TryFrom<pb::Allocation> for Allocation {
    type Error = Invalid;
    fn try_from(wire: pb::Allocation) -> Result<Self, Invalid> {
        Ok(Self {
            role: field::parsed_opt("role", wire.role.as_ref())?,
            reserved: field::list("reserved", wire.reserved, limits::RESERVED)?,
            revocable: wire.revocable,
        })
    }
}

/// An amount of bytes that is not zero.
pub(super) fn some_bytes(field: &str, bytes: i64) -> Result<Bytes, Invalid> {
    match field::bytes(field, bytes)? {
        Bytes::ZERO => Err(Invalid::new(field, "0B", "a size above zero")),
        bytes => Ok(bytes),
    }
}
