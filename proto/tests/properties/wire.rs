//! What is sent arrives as it was, and whatever arrives stops nobody.

use std::fmt::Debug;

use divvy_proto::agent::{AgentMessage, MasterMessage};
use divvy_proto::scheduler::{Call, Event};
use divvy_proto::{Invalid, api, pb};
use proptest::prelude::*;
use prost::Message;

use crate::{any, any_api};

/// Sends a value through bytes.
fn there_and_back<D, P>(value: D) -> Result<(), TestCaseError>
where
    D: Clone + Debug + PartialEq + TryFrom<P, Error = Invalid>,
    P: From<D> + Message + Default,
{
    let bytes = P::from(value.clone()).encode_to_vec();
    let arrived = P::decode(bytes.as_slice()).expect("what was encoded can be decoded");
    prop_assert_eq!(D::try_from(arrived).map_err(|e| TestCaseError::fail(e.to_string()))?, value);
    Ok(())
}

/// Takes bytes as a message; what becomes a value has to survive another round.
fn arrive<D, P>(bytes: &[u8]) -> Result<(), TestCaseError>
where
    D: Clone + Debug + PartialEq + TryFrom<P, Error = Invalid>,
    P: From<D> + Message + Default,
{
    match P::decode(bytes).map(D::try_from) {
        Ok(Ok(value)) => there_and_back::<D, P>(value),
        _ => Ok(()),
    }
}

/// Bytes as all messages there are.
fn arrive_as_any(bytes: &[u8]) -> Result<(), TestCaseError> {
    arrive::<Call, pb::Call>(bytes)?;
    arrive::<Event, pb::Event>(bytes)?;
    arrive::<AgentMessage, pb::AgentMessage>(bytes)?;
    arrive::<MasterMessage, pb::MasterMessage>(bytes)?;
    arrive::<api::Change, pb::Change>(bytes)?;
    arrive::<api::Offer, pb::OfferView>(bytes)?;
    arrive::<api::Role, pb::RoleView>(bytes)
}

/// Damages bytes here and there, so that most of the message is still understood.
fn damage(mut bytes: Vec<u8>, hits: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    for (at, flip) in hits {
        let length = bytes.len().max(1);
        bytes.iter_mut().skip(at.index(length)).take(1).for_each(|byte| *byte ^= flip);
    }
    bytes
}

fn hits() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..4)
}

proptest! {
    #[test]
    fn calls_arrive_as_they_were(call in any::call()) {
        there_and_back::<Call, pb::Call>(call)?;
    }

    #[test]
    fn events_arrive_as_they_were(event in any::event()) {
        there_and_back::<Event, pb::Event>(event)?;
    }

    #[test]
    fn agents_messages_arrive_as_they_were(message in any::agent_message()) {
        there_and_back::<AgentMessage, pb::AgentMessage>(message)?;
    }

    #[test]
    fn masters_messages_arrive_as_they_were(message in any::master_message()) {
        there_and_back::<MasterMessage, pb::MasterMessage>(message)?;
    }

    #[test]
    fn changes_arrive_as_they_were(change in any_api::change()) {
        there_and_back::<api::Change, pb::Change>(change)?;
    }

    #[test]
    fn offers_and_roles_arrive_as_they_were(offer in any_api::offer(), role in any_api::role_view()) {
        there_and_back::<api::Offer, pb::OfferView>(offer)?;
        there_and_back::<api::Role, pb::RoleView>(role)?;
    }

    #[test]
    fn changes_are_the_same_in_json(change in any_api::change()) {
        let text = serde_json::to_string(&change).unwrap();
        prop_assert_eq!(serde_json::from_str::<api::Change>(&text).unwrap(), change, "{}", text);
    }

    #[test]
    fn any_bytes_stop_nobody(bytes in any::<Vec<u8>>()) {
        arrive_as_any(&bytes)?;
    }

    #[test]
    fn a_damaged_call_stops_nobody(call in any::call(), hits in hits()) {
        arrive_as_any(&damage(pb::Call::from(call).encode_to_vec(), &hits))?;
    }

    #[test]
    fn a_damaged_event_stops_nobody(event in any::event(), hits in hits()) {
        arrive_as_any(&damage(pb::Event::from(event).encode_to_vec(), &hits))?;
    }

    #[test]
    fn a_damaged_registration_stops_nobody(message in any::agent_message(), hits in hits()) {
        arrive_as_any(&damage(pb::AgentMessage::from(message).encode_to_vec(), &hits))?;
    }
}
