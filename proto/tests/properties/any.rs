//! Arbitrary values of the basic types, and of what frameworks, agents and the master say.

use std::collections::BTreeMap;
use std::time::Duration;

use divvy_proto::agent::{AgentInfo, AgentMessage, MasterMessage};
use divvy_proto::attributes::OrderedRanges;
use divvy_proto::convert::limits;
use divvy_proto::quantity;
use divvy_proto::resources::{Resources, Shortage};
use divvy_proto::scheduler::{
    Call, CallBody, Capability, Event, Filters, FrameworkInfo, InverseOffer, InverseReason, OfferInfo,
    Operation, Outcome, Refusal, StreamError,
};
use divvy_proto::{
    AttributeValue, Attributes, Epoch, Invalid, InverseOfferId, OfferId, OperationId, Principal, RangeSet,
    RolePath, Scalar, Timestamp,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;

use crate::any_owned::{
    allocation, demand, offered_demand, own_reserved, reserved, some_bytes, something, stack, volumes,
};
use crate::any_task::{agent_task, task_info, task_status};

/// An id of any kind.
pub(crate) fn id<T: TryFrom<String, Error = Invalid> + std::fmt::Debug>() -> impl Strategy<Value = T> {
    "[a-zA-Z0-9._é-]{1,12}".prop_filter_map("an id", |text| T::try_from(text).ok())
}

/// A name or other short text.
pub(crate) fn name() -> impl Strategy<Value = String> {
    "[a-zé ]{1,10}"
}

/// Any text for people.
pub(crate) fn text() -> impl Strategy<Value = String> {
    ".{0,20}"
}

/// A duration of whole milliseconds, as the wire has them.
pub(crate) fn duration() -> impl Strategy<Value = Duration> {
    let longest = limits::DURATION.as_millis() as u64;
    prop_oneof![0..100_000_u64, 0..=longest, Just(longest)].prop_map(Duration::from_millis)
}

/// A duration that is not zero.
pub(crate) fn some_time() -> impl Strategy<Value = Duration> {
    duration().prop_map(|duration| duration.max(Duration::from_millis(1)))
}

pub(crate) fn time() -> impl Strategy<Value = Timestamp> {
    (0..=limits::TIME_MS).prop_map(Timestamp)
}

pub(crate) fn role() -> impl Strategy<Value = RolePath> {
    prop_oneof![
        Just(RolePath::default()),
        "[a-z]{1,4}(/[a-zé.]{1,3}x){0,3}".prop_map(|text| text.parse().unwrap())
    ]
}

fn roles(from: usize) -> impl Strategy<Value = Vec<RolePath>> {
    btree_set(role(), from..4).prop_map(|roles| roles.into_iter().collect())
}

/// An amount: often small, sometimes as large as any.
pub(crate) fn amount() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0), 0..10_i64, 0..=100_000_i64, 0..=quantity::MAX, Just(quantity::MAX)]
}

/// Ports, touching and overlapping.
pub(crate) fn ports() -> impl Strategy<Value = RangeSet> {
    let range = (1..=65_535_u32, 0..50_u32).prop_map(|(first, more)| (first, (first + more).min(65_535)));
    prop_oneof![
        Just(RangeSet::new()),
        vec((1..60_u32, 0..5_u32).prop_map(|(first, more)| (first, first + more)), 0..8)
            .prop_map(RangeSet::from_ranges),
        vec(range, 0..5).prop_map(RangeSet::from_ranges)
    ]
}

pub(crate) fn resources() -> impl Strategy<Value = Resources> {
    let custom =
        btree_map("(licenses|gpu-[ab]|x\\.y|Z_?)".prop_map(|name| name.to_lowercase()), amount(), 0..3);
    ([amount(), amount(), amount(), amount()], custom, ports()).prop_map(|(known, custom, ports)| {
        let known = ["cpus", "mem", "disk", "gpus"].into_iter().map(str::to_owned).zip(known);
        let all = known
            .chain(custom)
            .fold(Resources::new(), |all, (name, amount)| all.with_scalar(&name, amount).unwrap());
        all.with_ports(ports)
    })
}

pub(crate) fn attributes() -> impl Strategy<Value = Attributes> {
    // Numbers beyond what a float holds to three decimals become text in JSON.
    let value = prop_oneof![
        (0..1_000_000_000_000_000_i64)
            .prop_map(|millis| AttributeValue::Scalar(Scalar::from_millis(millis).unwrap())),
        ports().prop_map(|ranges| AttributeValue::Ranges(OrderedRanges(ranges))),
        ".{0,9}".prop_map(AttributeValue::Text),
    ];
    btree_map("[a-gA-Z_.-]{1,6}", value, 0..4).prop_map(Attributes::from)
}

pub(crate) fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map("[a-z ]{1,5}", text(), 0..4)
}

fn framework() -> impl Strategy<Value = FrameworkInfo> {
    let who = (of(id()), name(), of(name()), of(id::<Principal>()), of(name()));
    let capabilities = btree_set(Just(Capability::Revocable), 0..2);
    (who, roles(1), duration(), labels(), capabilities).prop_map(
        |((id, name, user, principal, url), roles, failover_timeout, labels, capabilities)| FrameworkInfo {
            id,
            name,
            user,
            roles,
            principal,
            failover_timeout,
            url,
            labels,
            capabilities,
        },
    )
}

fn filters() -> impl Strategy<Value = Filters> {
    duration().prop_map(|refuse| Filters { refuse: refuse.min(limits::REFUSE) })
}

fn offers() -> impl Strategy<Value = Vec<OfferId>> {
    btree_set(any::<u64>(), 1..5).prop_map(|numbers| numbers.into_iter().rev().map(OfferId).collect())
}

fn inverse() -> impl Strategy<Value = Vec<InverseOfferId>> {
    offers().prop_map(|offers| offers.into_iter().map(|offer| InverseOfferId(offer.0)).collect())
}

fn operation() -> BoxedStrategy<Operation> {
    let of_id = || of(id::<OperationId>());
    prop_oneof![
        vec(task_info(), 1..3).prop_map(Operation::Launch),
        vec(task_info(), 1..3).prop_map(Operation::LaunchGroup),
        (id(), vec(task_info(), 1..3)).prop_map(|(agent_id, tasks)| Operation::LaunchOn { agent_id, tasks }),
        (of_id(), something(), of(stack()), labels()).prop_map(|(id, resources, refines, labels)| {
            Operation::Reserve { id, resources, refines: refines.unwrap_or_default(), labels }
        }),
        (of_id(), something(), stack()).prop_map(|(id, resources, stack)| Operation::Unreserve {
            id,
            resources,
            stack
        }),
        (of_id(), id(), some_bytes(), stack()).prop_map(|(id, volume_id, size, stack)| Operation::Create {
            id,
            volume_id,
            size,
            stack
        }),
        (of_id(), id()).prop_map(|(id, volume_id)| Operation::Destroy { id, volume_id }),
        (of_id(), id(), some_bytes()).prop_map(|(id, volume_id, by)| Operation::Grow { id, volume_id, by }),
        (of_id(), id(), some_bytes()).prop_map(|(id, volume_id, by)| Operation::Shrink { id, volume_id, by }),
    ]
    .boxed()
}

fn introduction() -> impl Strategy<Value = (FrameworkInfo, Vec<RolePath>)> {
    (framework(), roles(0))
}

fn body() -> impl Strategy<Value = CallBody> {
    prop_oneof![
        introduction().prop_map(|(framework, suppressed)| CallBody::Subscribe { framework, suppressed }),
        introduction()
            .prop_map(|(framework, suppressed)| CallBody::UpdateFramework { framework, suppressed }),
        (offers(), vec(operation(), 0..3), filters())
            .prop_map(|(offers, operations, filters)| CallBody::Accept { offers, operations, filters }),
        (offers(), filters()).prop_map(|(offers, filters)| CallBody::Decline { offers, filters }),
        inverse().prop_map(|offers| CallBody::AcceptInverse { offers }),
        inverse().prop_map(|offers| CallBody::DeclineInverse { offers }),
        (role(), demand()).prop_map(|(role, demand)| CallBody::Demand { role, demand }),
        roles(0).prop_map(|roles| CallBody::Revive { roles }),
        roles(0).prop_map(|roles| CallBody::Suppress { roles }),
        (id(), of(duration())).prop_map(|(task_id, grace)| CallBody::Kill { task_id, grace }),
        (id(), id(), id()).prop_map(|(agent_id, task_id, update_id)| CallBody::Acknowledge {
            agent_id,
            task_id,
            update_id
        }),
        vec((id(), of(id())), 0..4).prop_map(|tasks| CallBody::Reconcile { tasks }),
        (id(), id(), any::<Vec<u8>>()).prop_map(|(agent_id, task_id, data)| CallBody::Message {
            agent_id,
            task_id,
            data
        }),
        Just(CallBody::Teardown),
    ]
}

pub(crate) fn call() -> impl Strategy<Value = Call> {
    (id(), body()).prop_map(|(id, body)| Call { id, body })
}

fn offer() -> BoxedStrategy<OfferInfo> {
    let what = (resources(), reserved(), volumes(), any::<bool>(), of(time()), of(offered_demand()));
    (any::<u64>(), id(), id(), attributes(), role(), what)
        .prop_map(|(number, agent_id, hostname, attributes, role, what)| {
            let (resources, reserved, volumes, revocable, unavailable, demand) = what;
            OfferInfo {
                id: OfferId(number),
                agent_id,
                hostname,
                attributes,
                role,
                resources,
                reserved,
                volumes,
                revocable,
                unavailable,
                demand,
            }
        })
        .boxed()
}

pub(crate) fn inverse_offer() -> BoxedStrategy<InverseOffer> {
    let reason = prop_oneof![
        Just(InverseReason::Maintenance),
        role().prop_map(InverseReason::Preemption),
        Just(InverseReason::Revocation),
    ];
    let tasks = btree_set(id(), 0..4).prop_map(|tasks| tasks.into_iter().collect());
    (any::<u64>(), id(), id(), tasks, resources(), of(time()), reason)
        .prop_map(|(number, agent_id, hostname, tasks, resources, deadline, reason)| InverseOffer {
            id: InverseOfferId(number),
            agent_id,
            hostname,
            tasks,
            resources,
            deadline,
            reason,
        })
        .boxed()
}

fn refusal() -> impl Strategy<Value = Refusal> {
    let shortage = || {
        (name(), text(), text()).prop_map(|(dimension, wanted, available)| Shortage {
            dimension,
            wanted,
            available,
        })
    };
    let to_come =
        ["Demand", "LaunchGroup", "AcceptInverse", "DeclineInverse", "Message", "Create", "Destroy"];
    prop_oneof![
        (text(), ".{0,100}", text())
            .prop_map(|(field, value, expected)| Refusal::Invalid(Invalid::new(field, value, expected))),
        any::<u64>().prop_map(|number| Refusal::OfferGone(OfferId(number))),
        Just(Refusal::SeveralAgents),
        (id(), shortage()).prop_map(|(task_id, shortage)| Refusal::NotEnough { task_id, shortage }),
        id().prop_map(Refusal::DuplicateTask),
        id().prop_map(Refusal::UnknownTask),
        role().prop_map(Refusal::UnknownRole),
        id().prop_map(Refusal::UnknownFramework),
        Just(Refusal::NotSubscribed),
        prop::sample::select(to_come.to_vec()).prop_map(Refusal::NotSupported),
        prop_oneof![
            (any::<u32>(), shortage())
                .prop_map(|(operation, shortage)| Refusal::OperationShort { operation, shortage }),
            (role(), shortage()).prop_map(|(role, shortage)| Refusal::OverLimit { role, shortage }),
            id().prop_map(Refusal::UnknownVolume),
            id().prop_map(Refusal::DuplicateVolume),
            id().prop_map(Refusal::VolumeInUse),
            any::<u64>().prop_map(|number| Refusal::UnknownInverseOffer(InverseOfferId(number))),
            duration().prop_map(|retry_after| Refusal::Later { retry_after }),
        ],
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![Just(Outcome::Accepted), refusal().prop_map(Outcome::Refused)]
}

fn stream_error() -> impl Strategy<Value = StreamError> {
    prop_oneof![
        Just(StreamError::TakenOver),
        text().prop_map(StreamError::Refused),
        any::<usize>().prop_map(StreamError::TooSlow),
        Just(StreamError::TornDown),
        Just(StreamError::Gone),
    ]
}

pub(crate) fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (id(), any::<u32>(), some_time()).prop_map(|(framework_id, epoch, heartbeat)| Event::Subscribed {
            framework_id,
            epoch: Epoch(epoch),
            heartbeat
        }),
        (id(), outcome()).prop_map(|(call_id, outcome)| Event::Reply { call_id, outcome }),
        vec(offer(), 0..3).prop_map(Event::Offers),
        any::<u64>().prop_map(|number| Event::Rescind(OfferId(number))),
        vec(inverse_offer(), 0..3).prop_map(Event::InverseOffers),
        any::<u64>().prop_map(|number| Event::RescindInverse(InverseOfferId(number))),
        task_status().prop_map(Event::Update),
        (id(), outcome())
            .prop_map(|(operation_id, outcome)| Event::OperationUpdate { operation_id, outcome }),
        (id(), id(), any::<Vec<u8>>()).prop_map(|(agent_id, task_id, data)| Event::Message {
            agent_id,
            task_id,
            data
        }),
        id().prop_map(|agent_id| Event::Failure { agent_id }),
        stream_error().prop_map(Event::Error),
        Just(Event::Heartbeat),
    ]
}

fn agent_info() -> BoxedStrategy<AgentInfo> {
    let what = resources().prop_flat_map(|all| (own_reserved(&all), Just(all), resources()));
    (of(id()), id(), text(), text(), what, attributes(), text())
        .prop_map(|(id, hostname, url, address, (reserved, resources, revocable), attributes, version)| {
            AgentInfo { id, hostname, url, address, resources, reserved, revocable, attributes, version }
        })
        .boxed()
}

pub(crate) fn agent_message() -> impl Strategy<Value = AgentMessage> {
    prop_oneof![
        (agent_info(), vec(agent_task(), 0..3))
            .prop_map(|(agent, tasks)| AgentMessage::Register { agent, tasks }),
        Just(AgentMessage::Pong),
        (id(), task_status())
            .prop_map(|(framework_id, status)| AgentMessage::Update { framework_id, status }),
        (id(), id()).prop_map(|(framework_id, task_id)| AgentMessage::Ended { framework_id, task_id }),
    ]
}

pub(crate) fn master_message() -> impl Strategy<Value = MasterMessage> {
    prop_oneof![
        (id(), any::<u32>(), some_time()).prop_map(|(agent_id, epoch, ping_interval)| {
            MasterMessage::Registered { agent_id, epoch: Epoch(epoch), ping_interval }
        }),
        Just(MasterMessage::Ping),
        (id(), name(), task_info(), allocation()).prop_map(
            |(framework_id, framework_name, task, allocation)| {
                MasterMessage::Launch { framework_id, framework_name, task, allocation }
            }
        ),
        volumes().prop_map(MasterMessage::Volumes),
        (id(), id(), of(duration())).prop_map(|(framework_id, task_id, grace)| MasterMessage::Kill {
            framework_id,
            task_id,
            grace
        }),
        (id(), id(), id()).prop_map(|(framework_id, task_id, update_id)| MasterMessage::Acknowledge {
            framework_id,
            task_id,
            update_id
        }),
        id().prop_map(|framework_id| MasterMessage::ShutdownFramework { framework_id }),
        stream_error().prop_map(MasterMessage::Error),
    ]
}
