//! Arbitrary reservations, volumes, quotas, demands and predicates.

use std::time::Duration;

use divvy_proto::convert::limits;
use divvy_proto::demand::{Gang, OfferedDemand, Preference};
use divvy_proto::predicate::{Comparison, Order, Predicate, Test};
use divvy_proto::{
    Allocation, Amounts, Bytes, Demand, DemandShape, Quota, Reservation, Reserved, Resources, RolePath,
    Volume, VolumeMount,
};
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;

use crate::any::{amount, id, labels, name, resources, role, time};

pub(crate) fn bytes() -> impl Strategy<Value = Bytes> {
    amount().prop_map(|bytes| Bytes::from_bytes(bytes).unwrap())
}

pub(crate) fn some_bytes() -> impl Strategy<Value = Bytes> {
    bytes().prop_map(|bytes| bytes.max(Bytes::from_bytes(1).unwrap()))
}

pub(crate) fn something() -> impl Strategy<Value = Resources> {
    resources().prop_filter("something", |resources| !resources.is_empty())
}

pub(crate) fn amounts() -> impl Strategy<Value = Amounts> {
    let name = prop::sample::select(vec!["cpus", "mem", "disk", "gpus", "ports", "licenses", "gpu-a.x"]);
    btree_map(name, amount(), 0..5).prop_map(|named| {
        named.into_iter().fold(Amounts::new(), |all, (name, amount)| all.with(name, amount).unwrap())
    })
}

pub(crate) fn quota() -> impl Strategy<Value = Quota> {
    (amounts(), amounts(), of(resources()), any::<bool>())
        .prop_map(|(guarantee, limit, shape, preemptible)| Quota { guarantee, limit, shape, preemptible })
        .prop_filter("no more than the limit", |quota| quota.check().is_ok())
}

/// One to three reservations along a path of roles; often several for one role.
pub(crate) fn stack() -> BoxedStrategy<Vec<Reservation>> {
    let owned = role().prop_filter("not the default", |role| role.as_str() != "*");
    let rest = (of(id()), labels(), any::<bool>(), any::<prop::sample::Index>());
    (owned, vec(rest, 1..4))
        .prop_map(|(role, parts)| {
            let lineage = role.lineage();
            let mut at: Vec<usize> = parts.iter().map(|part| part.3.index(lineage.len())).collect();
            at.sort_unstable();
            let reservation = |(at, (principal, labels, fixed, _)): (usize, _)| {
                let role: &RolePath = &lineage[at];
                Reservation { role: role.clone(), principal, labels, fixed }
            };
            at.into_iter().zip(parts).map(reservation).collect()
        })
        .boxed()
}

pub(crate) fn reserved() -> BoxedStrategy<Vec<Reserved>> {
    vec((stack(), resources()).prop_map(|(stack, resources)| Reserved { stack, resources }), 0..3).boxed()
}

/// What an agent reserves by itself: all that it has, or nothing.
pub(crate) fn own_reserved(all: &Resources) -> impl Strategy<Value = Vec<Reserved>> + use<> {
    let all = all.clone();
    of(stack()).prop_map(move |stack| {
        let fixed = stack.and_then(|mut stack| stack.pop()).map(|r| Reservation { fixed: true, ..r });
        fixed.into_iter().map(|r| Reserved { stack: vec![r], resources: all.clone() }).collect()
    })
}

pub(crate) fn volume() -> BoxedStrategy<Volume> {
    (id(), bytes(), stack(), of(id()), time())
        .prop_map(|(id, size, stack, principal, created)| Volume { id, size, stack, principal, created })
        .boxed()
}

/// Volumes of one agent.
pub(crate) fn volumes() -> BoxedStrategy<Vec<Volume>> {
    vec(volume(), 0..3)
        .prop_map(|mut volumes| {
            volumes.sort_by(|a, b| a.id.cmp(&b.id));
            volumes.dedup_by(|a, b| a.id == b.id);
            volumes
        })
        .boxed()
}

pub(crate) fn mounts() -> impl Strategy<Value = Vec<VolumeMount>> {
    let mount = (id(), any::<bool>());
    btree_map("/?[a-z]{1,3}(/[a-z.]{1,3}x){0,2}", mount, 0..3).prop_map(|mounts| {
        let mount = |(path, (id, read_only))| VolumeMount { id, path, read_only };
        mounts.into_iter().map(mount).collect()
    })
}

pub(crate) fn allocation() -> BoxedStrategy<Allocation> {
    (of(role()), reserved(), any::<bool>())
        .prop_map(|(role, reserved, revocable)| Allocation { role, reserved, revocable })
        .boxed()
}

pub(crate) fn demand() -> BoxedStrategy<Demand> {
    let preference = prop_oneof![
        Just(Preference::None),
        Just(Preference::Pack),
        "[a-z]{1,8}".prop_map(Preference::Spread)
    ];
    let shape = (resources(), any::<u16>(), any::<u32>(), of(predicate()), preference)
        .prop_filter("something", |(resources, ports, ..)| !resources.is_empty() || *ports > 0);
    let gang = (limits::GANG_HOLD_LEAST.as_millis() as u64..=limits::GANG_HOLD.as_millis() as u64)
        .prop_map(|ms| Gang { hold: Duration::from_millis(ms) });
    (btree_map(name(), shape, 0..3), of(gang))
        .prop_map(|(shapes, gang)| {
            let shape = |(name, (resources, ports, count, constraint, preference))| DemandShape {
                name,
                resources,
                ports,
                count,
                constraint,
                preference,
            };
            Demand { shapes: shapes.into_iter().map(shape).collect(), gang }
        })
        .boxed()
}

pub(crate) fn offered_demand() -> impl Strategy<Value = OfferedDemand> {
    (name(), any::<u32>(), any::<Option<u64>>()).prop_map(|(shape, count, gang)| OfferedDemand {
        shape,
        count,
        gang,
    })
}

fn comparison() -> impl Strategy<Value = Comparison> {
    let value = || prop_oneof!["[a-z]{0,2}", "-?[0-9]{1,2}(\\.[0-9]{1,3})?", "[\"\\\\ &|)é\n]{0,4}"];
    let order = || prop::sample::select(vec![Order::Less, Order::AtMost, Order::More, Order::AtLeast]);
    prop_oneof![
        Just(Comparison::Exists),
        value().prop_map(Comparison::Equals),
        value().prop_map(Comparison::NotEquals),
        vec(value(), 0..3).prop_map(Comparison::In),
        vec(value(), 0..3).prop_map(Comparison::NotIn),
        "[a-c*?]{0,4}".prop_map(Comparison::Like),
        (0..6_u32).prop_map(Comparison::Contains),
        (order(), prop_oneof![any::<i64>(), -2000..4000_i64]).prop_map(|(o, n)| Comparison::Number(o, n)),
        (order(), "[0-9]{1,2}([.-][0-9a-c]{1,2}){0,2}").prop_map(|(o, v)| Comparison::Version(o, v)),
    ]
}

/// Without conjunctions of one, which vanish in text.
pub(crate) fn predicate() -> BoxedStrategy<Predicate> {
    let attribute = prop_oneof![
        "[a-c]",
        Just("hostname".to_owned()),
        Just("agent".to_owned()),
        "(in|not|true|exists|a b|é/-.1)"
    ];
    let test = (attribute, comparison())
        .prop_map(|(attribute, comparison)| Predicate::Test(Test { attribute, comparison }));
    let several = |parts: Vec<Predicate>| parts.len() != 1;
    test.prop_recursive(4, 24, 4, move |inner| {
        let parts = vec(inner.clone(), 0..4).prop_filter("not one", move |parts| several(parts.clone()));
        prop_oneof![
            parts.clone().prop_map(Predicate::All),
            parts.prop_map(Predicate::Any),
            inner.prop_map(|part| Predicate::Not(Box::new(part))),
        ]
    })
    .boxed()
}
