//! What the master tells a framework.

use super::{field, limits};
use crate::error::Invalid;
use crate::ids::{Epoch, InverseOfferId, OfferId};
use crate::pb;
use crate::pb::event::Event as Wire;
use crate::scheduler::Event;

impl From<Event> for pb::Event {
    fn from(event: Event) -> Self {
        let event = match event {
            Event::Subscribed { framework_id, epoch, heartbeat } => Wire::Subscribed(pb::Subscribed {
                framework_id: framework_id.into(),
                epoch: epoch.0,
                heartbeat_ms: field::ms(heartbeat),
            }),
            Event::Reply { call_id, outcome } => {
                Wire::Reply(pb::Reply { call_id: call_id.into(), outcome: Some(outcome.into()) })
            }
            Event::Offers(list) => Wire::Offers(pb::Offers { offers: field::to_list(list) }),
            Event::Rescind(offer) => Wire::Rescind(pb::Rescind { offer_id: offer.0 }),
            Event::InverseOffers(list) => {
                Wire::InverseOffers(pb::InverseOffers { offers: field::to_list(list) })
            }
            Event::RescindInverse(offer) => {
                Wire::RescindInverse(pb::RescindInverse { inverse_offer_id: offer.0 })
            }
            Event::Update(status) => Wire::Update(status.into()),
            Event::OperationUpdate { operation_id, outcome } => Wire::OperationUpdate(pb::OperationUpdate {
                operation_id: operation_id.into(),
                outcome: Some(outcome.into()),
            }),
            Event::Message { agent_id, task_id, data } => {
                Wire::Message(pb::TaskMessage { agent_id: agent_id.into(), task_id: task_id.into(), data })
            }
            Event::Failure { agent_id } => Wire::Failure(pb::Failure { agent_id: agent_id.into() }),
            Event::Error(error) => Wire::Error(error.into()),
            Event::Heartbeat => Wire::Heartbeat(pb::Heartbeat {}),
        };
        Self { event: Some(event) }
    }
}

impl TryFrom<pb::Event> for Event {
    type Error = Invalid;
    fn try_from(wire: pb::Event) -> Result<Self, Invalid> {
        let (name, event) = match field::required("event", wire.event)? {
            Wire::Subscribed(event) => ("subscribed", subscribed(&event)),
            Wire::Reply(event) => ("reply", reply(event)),
            Wire::Offers(event) => {
                return field::list("offers", event.offers, limits::OFFERS).map(Self::Offers);
            }
            Wire::Rescind(event) => return Ok(Self::Rescind(OfferId(event.offer_id))),
            Wire::InverseOffers(event) => {
                return field::list("inverse_offers", event.offers, limits::OFFERS).map(Self::InverseOffers);
            }
            Wire::RescindInverse(event) => {
                return Ok(Self::RescindInverse(InverseOfferId(event.inverse_offer_id)));
            }
            Wire::Update(status) => return Ok(Self::Update(field::inner("update", status)?)),
            Wire::OperationUpdate(event) => ("operation_update", operation_update(event)),
            Wire::Message(event) => ("message", message(event)),
            Wire::Failure(event) => ("failure", failure(&event)),
            Wire::Error(error) => return Ok(Self::Error(field::inner("error", error)?)),
            Wire::Heartbeat(pb::Heartbeat {}) => return Ok(Self::Heartbeat),
        };
        event.map_err(|e| e.within(name))
    }
}

fn subscribed(event: &pb::Subscribed) -> Result<Event, Invalid> {
    Ok(Event::Subscribed {
        framework_id: field::parsed("framework_id", &event.framework_id)?,
        epoch: Epoch(event.epoch),
        heartbeat: field::some_time("heartbeat", event.heartbeat_ms)?,
    })
}

fn reply(event: pb::Reply) -> Result<Event, Invalid> {
    let call_id = field::parsed("call_id", &event.call_id)?;
    Ok(Event::Reply { call_id, outcome: field::message("outcome", event.outcome)? })
}

fn operation_update(event: pb::OperationUpdate) -> Result<Event, Invalid> {
    let operation_id = field::parsed("operation_id", &event.operation_id)?;
    Ok(Event::OperationUpdate { operation_id, outcome: field::message("outcome", event.outcome)? })
}

fn message(event: pb::TaskMessage) -> Result<Event, Invalid> {
    let (agent_id, task_id, data) = field::task_message(event)?;
    Ok(Event::Message { agent_id, task_id, data })
}

fn failure(event: &pb::Failure) -> Result<Event, Invalid> {
    Ok(Event::Failure { agent_id: field::parsed("agent_id", &event.agent_id)? })
}
