//! What became of a call, and why a stream ends.

use super::{field, limits};
use crate::error::Invalid;
use crate::ids::{InverseOfferId, OfferId};
use crate::pb;
use crate::scheduler::{Outcome, Refusal, StreamError};

impl From<Outcome> for pb::Outcome {
    fn from(outcome: Outcome) -> Self {
        use pb::outcome::Outcome as Wire;
        let outcome = match outcome {
            Outcome::Accepted => Wire::Accepted(pb::Accepted {}),
            Outcome::Refused(refusal) => Wire::Refused(refusal.into()),
        };
        Self { outcome: Some(outcome) }
    }
}

impl TryFrom<pb::Outcome> for Outcome {
    type Error = Invalid;
    fn try_from(wire: pb::Outcome) -> Result<Self, Invalid> {
        use pb::outcome::Outcome as Wire;
        Ok(match field::required("outcome", wire.outcome)? {
            Wire::Accepted(pb::Accepted {}) => Self::Accepted,
            Wire::Refused(refusal) => Self::Refused(field::inner("refused", refusal)?),
        })
    }
}

impl From<Refusal> for pb::Refusal {
    fn from(refusal: Refusal) -> Self {
        use pb::refusal::Refusal as Wire;
        let text = field::cut(refusal.to_string());
        let refusal = match refusal {
            Refusal::Invalid(invalid) => Wire::Invalid(invalid.into()),
            Refusal::OfferGone(offer) => Wire::OfferGone(offer.0),
            Refusal::SeveralAgents => Wire::SeveralAgents(pb::SeveralAgents {}),
            Refusal::NotEnough { task_id, shortage } => {
                Wire::NotEnough(pb::NotEnough { task_id: task_id.into(), shortage: Some(shortage.into()) })
            }
            Refusal::DuplicateTask(task) => Wire::DuplicateTask(task.into()),
            Refusal::UnknownTask(task) => Wire::UnknownTask(task.into()),
            Refusal::UnknownRole(role) => Wire::UnknownRole(role.into()),
            Refusal::UnknownFramework(framework) => Wire::UnknownFramework(framework.into()),
            Refusal::NotSubscribed => Wire::NotSubscribed(pb::NotSubscribed {}),
            Refusal::OperationShort { operation, shortage } => {
                Wire::OperationShort(pb::OperationShort { operation, shortage: Some(shortage.into()) })
            }
            Refusal::OverLimit { role, shortage } => {
                Wire::OverLimit(pb::OverLimit { role: role.into(), shortage: Some(shortage.into()) })
            }
            Refusal::UnknownVolume(volume) => Wire::UnknownVolume(volume.into()),
            Refusal::DuplicateVolume(volume) => Wire::DuplicateVolume(volume.into()),
            Refusal::VolumeInUse(volume) => Wire::VolumeInUse(volume.into()),
            Refusal::UnknownInverseOffer(offer) => Wire::UnknownInverseOffer(offer.0),
            Refusal::Later { retry_after } => {
                Wire::Later(pb::Later { retry_after_ms: field::ms(retry_after) })
            }
            Refusal::NotSupported(what) => Wire::NotSupported(what.to_owned()),
        };
        Self { text, refusal: Some(refusal) }
    }
}

impl TryFrom<pb::Refusal> for Refusal {
    type Error = Invalid;
    fn try_from(wire: pb::Refusal) -> Result<Self, Invalid> {
        use pb::refusal::Refusal as Wire;
        Ok(match field::required("refusal", wire.refusal)? {
            Wire::Invalid(invalid) => Self::Invalid(field::inner("invalid", invalid)?),
            Wire::OfferGone(offer) => Self::OfferGone(OfferId(offer)),
            Wire::SeveralAgents(pb::SeveralAgents {}) => Self::SeveralAgents,
            Wire::NotEnough(wire) => not_enough(wire).map_err(|e| e.within("not_enough"))?,
            Wire::DuplicateTask(task) => Self::DuplicateTask(field::parsed("duplicate_task", &task)?),
            Wire::UnknownTask(task) => Self::UnknownTask(field::parsed("unknown_task", &task)?),
            Wire::UnknownRole(role) => Self::UnknownRole(field::parsed("unknown_role", &role)?),
            Wire::UnknownFramework(id) => Self::UnknownFramework(field::parsed("unknown_framework", &id)?),
            Wire::NotSubscribed(pb::NotSubscribed {}) => Self::NotSubscribed,
            Wire::OperationShort(wire) => operation_short(wire).map_err(|e| e.within("operation_short"))?,
            Wire::OverLimit(wire) => over_limit(wire).map_err(|e| e.within("over_limit"))?,
            Wire::UnknownVolume(volume) => Self::UnknownVolume(field::parsed("unknown_volume", &volume)?),
            Wire::DuplicateVolume(volume) => {
                Self::DuplicateVolume(field::parsed("duplicate_volume", &volume)?)
            }
            Wire::VolumeInUse(volume) => Self::VolumeInUse(field::parsed("volume_in_use", &volume)?),
            Wire::UnknownInverseOffer(offer) => Self::UnknownInverseOffer(InverseOfferId(offer)),
            Wire::Later(wire) => {
                Self::Later { retry_after: field::duration("later.retry_after", wire.retry_after_ms)? }
            }
            Wire::NotSupported(what) => Self::NotSupported(to_come(&what)),
        })
    }
}

fn not_enough(wire: pb::NotEnough) -> Result<Refusal, Invalid> {
    let shortage = field::message("shortage", wire.shortage)?;
    Ok(Refusal::NotEnough { task_id: field::parsed("task_id", &wire.task_id)?, shortage })
}

fn operation_short(wire: pb::OperationShort) -> Result<Refusal, Invalid> {
    let shortage = field::message("shortage", wire.shortage)?;
    Ok(Refusal::OperationShort { operation: wire.operation, shortage })
}

fn over_limit(wire: pb::OverLimit) -> Result<Refusal, Invalid> {
    let shortage = field::message("shortage", wire.shortage)?;
    Ok(Refusal::OverLimit { role: field::parsed("role", &wire.role)?, shortage })
}

/// The parts of the interface that are still to come (`Message`), and those that masters of earlier versions do
/// not support. A newer master may name one that is not here; it is then not named.
fn to_come(what: &str) -> &'static str {
    const TO_COME: [&str; 9] = [
        "AcceptInverse",
        "Create",
        "DeclineInverse",
        "Demand",
        "Destroy",
        "LaunchGroup",
        "Message",
        "Reserve",
        "Unreserve",
    ];
    TO_COME.into_iter().find(|known| *known == what).unwrap_or("the call")
}

impl From<Invalid> for pb::InvalidField {
    fn from(invalid: Invalid) -> Self {
        Self {
            field: field::cut(invalid.field),
            value: field::cut(invalid.value),
            expected: field::cut(invalid.expected.into_owned()),
        }
    }
}

impl TryFrom<pb::InvalidField> for Invalid {
    type Error = Invalid;
    fn try_from(wire: pb::InvalidField) -> Result<Self, Invalid> {
        Ok(Self {
            field: field::text("field", wire.field, limits::TEXT)?,
            value: field::text("value", wire.value, limits::TEXT)?,
            expected: field::text("expected", wire.expected, limits::TEXT)?.into(),
        })
    }
}

impl From<StreamError> for pb::StreamError {
    fn from(error: StreamError) -> Self {
        use pb::stream_error::Error as Wire;
        let error = match error {
            StreamError::TakenOver => Wire::TakenOver(pb::TakenOver {}),
            StreamError::Refused(why) => Wire::Refused(field::cut(why)),
            StreamError::TooSlow(waiting) => Wire::TooSlow(waiting as u64),
            StreamError::TornDown => Wire::TornDown(pb::TornDown {}),
            StreamError::Gone => Wire::Gone(pb::AgentGone {}),
        };
        Self { error: Some(error) }
    }
}

impl TryFrom<pb::StreamError> for StreamError {
    type Error = Invalid;
    fn try_from(wire: pb::StreamError) -> Result<Self, Invalid> {
        use pb::stream_error::Error as Wire;
        Ok(match field::required("error", wire.error)? {
            Wire::TakenOver(pb::TakenOver {}) => Self::TakenOver,
            Wire::Refused(why) => Self::Refused(field::text("refused", why, limits::TEXT)?),
            Wire::TooSlow(waiting) => Self::TooSlow(field::count("too_slow", waiting)?),
            Wire::TornDown(pb::TornDown {}) => Self::TornDown,
            Wire::Gone(pb::AgentGone {}) => Self::Gone,
        })
    }
}
