//! Quantities as text and JSON, and resources against plain sums.

use std::collections::{BTreeMap, BTreeSet};

use divvy_proto::{Bytes, Cpus, Resources, Scalar, quantity};
use proptest::prelude::*;

use crate::any;

/// Everything by name; ports as a set.
type Model = (BTreeMap<String, i128>, BTreeSet<u32>);

fn model(resources: &Resources) -> Model {
    let scalars = resources.scalars().map(|(name, amount)| (name.to_owned(), i128::from(amount)));
    (scalars.collect(), resources.ports().iter().collect())
}

fn amount(model: &Model, name: &str) -> i128 {
    model.0.get(name).copied().unwrap_or_default()
}

fn contains(mine: &Model, theirs: &Model) -> bool {
    theirs.0.iter().all(|(name, wanted)| amount(mine, name) >= *wanted) && theirs.1.is_subset(&mine.1)
}

/// The sum, if every part of it is a quantity and no port is in both.
fn sum(one: &Model, other: &Model) -> Option<Model> {
    let mut scalars = one.0.clone();
    other.0.iter().for_each(|(name, more)| *scalars.entry(name.clone()).or_default() += more);
    let fits = scalars.values().all(|amount| *amount <= i128::from(quantity::MAX));
    (fits && one.1.is_disjoint(&other.1)).then(|| (scalars, one.1.union(&other.1).copied().collect()))
}

/// What is left, never less than nothing.
fn rest(one: &Model, other: &Model) -> Model {
    let left = one.0.iter().map(|(name, has)| (name.clone(), (has - amount(other, name)).max(0)));
    (left.filter(|(_, left)| *left > 0).collect(), one.1.difference(&other.1).copied().collect())
}

proptest! {
    #[test]
    fn resources_add_up_like_numbers(a in any::resources(), b in any::resources()) {
        let (m, n) = (model(&a), model(&b));
        prop_assert_eq!(a.checked_add(&b).as_ref().map(model), sum(&m, &n));
        prop_assert_eq!(a.checked_add(&b), b.checked_add(&a));
        prop_assert_eq!(a.contains(&b), contains(&m, &n));
        prop_assert_eq!(a.checked_sub(&b).as_ref().map(model), contains(&m, &n).then(|| rest(&m, &n)));
        prop_assert_eq!(model(&a.saturating_sub(&b)), rest(&m, &n));
        prop_assert_eq!(a.is_empty(), m.0.is_empty() && m.1.is_empty());
        prop_assert_eq!(a == b, m == n);
    }

    #[test]
    fn what_was_added_can_be_taken_away(a in any::resources(), b in any::resources()) {
        if let Some(sum) = a.checked_add(&b) {
            prop_assert_eq!(sum.checked_sub(&b), Some(a.clone()));
            prop_assert_eq!(sum.checked_sub(&a), Some(b.clone()));
            prop_assert_eq!(sum.saturating_sub(&a), b);
            prop_assert_eq!(i128::from(sum.cpus().millis()), amount(&model(&sum), "cpus"));
            prop_assert_eq!(i128::from(sum.mem().bytes()), amount(&model(&sum), "mem"));
        }
    }

    #[test]
    fn sums_do_not_depend_on_their_order(a in any::resources(), b in any::resources(), c in any::resources()) {
        let left = a.checked_add(&b).and_then(|ab| ab.checked_add(&c));
        let right = b.checked_add(&c).and_then(|bc| a.checked_add(&bc));
        prop_assert_eq!(left, right);
    }

    #[test]
    fn a_shortage_is_named_exactly_where_there_is_one(a in any::resources(), b in any::resources()) {
        match a.shortage(&b) {
            None => prop_assert!(a.contains(&b)),
            Some(short) => {
                prop_assert!(!a.contains(&b));
                let (m, n) = (model(&a), model(&b));
                let scarce = match short.dimension.as_str() {
                    "ports" => !n.1.is_subset(&m.1),
                    name => amount(&m, name) < amount(&n, name),
                };
                prop_assert!(scarce, "{}", short);
                prop_assert_ne!(short.wanted, short.available);
            }
        }
    }

    #[test]
    fn resources_come_back_from_text_and_json(a in any::resources()) {
        prop_assert_eq!(&a.to_string().parse::<Resources>().unwrap(), &a, "{}", a);
        let json = serde_json::to_string(&a).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Resources>(&json).unwrap(), &a, "{}", json);
    }

    #[test]
    fn any_text_is_resources_or_an_error(text in "((cpus|mem|ports|x)=?[0-9.\\[\\]-]{0,4}(GiB|MB)?;?){0,3}") {
        if let Ok(resources) = text.parse::<Resources>() {
            prop_assert_eq!(&resources.to_string().parse::<Resources>().unwrap(), &resources);
        }
    }

    #[test]
    fn quantities_come_back_from_text_and_json(number in any::amount()) {
        let (cpus, bytes) = (Cpus::from_millis(number).unwrap(), Bytes::from_bytes(number).unwrap());
        prop_assert_eq!(cpus.to_string().parse::<Cpus>().unwrap(), cpus, "{}", cpus);
        prop_assert_eq!(bytes.to_string().parse::<Bytes>().unwrap(), bytes, "{}", bytes);
        let (cpus_json, bytes_json) = (serde_json::to_string(&cpus).unwrap(), serde_json::to_string(&bytes).unwrap());
        prop_assert_eq!(serde_json::from_str::<Cpus>(&cpus_json).unwrap(), cpus, "{}", cpus_json);
        prop_assert_eq!(serde_json::from_str::<Bytes>(&bytes_json).unwrap(), bytes, "{}", bytes_json);
    }

    #[test]
    fn any_text_is_a_quantity_or_an_error(text in "[0-9.,+eE -]{0,20}(MiB|kB|B|GB|PiB)?") {
        if let Ok(cpus) = text.parse::<Cpus>() {
            prop_assert_eq!(cpus.to_string().parse::<Cpus>().unwrap(), cpus);
        }
        if let Ok(bytes) = text.parse::<Bytes>() {
            prop_assert_eq!(bytes.to_string().parse::<Bytes>().unwrap(), bytes);
        }
    }
}

#[test]
fn quantities_are_written_as_people_write_them() {
    let cpus = ["4", "0.25", "0.001", "1000", "0"];
    assert_eq!(cpus.map(|text| text.parse::<Cpus>().unwrap().to_string()), cpus);
    let sizes = ["512MiB", "1GiB", "8PiB", "1KiB", "1025B", "0B"];
    assert_eq!(sizes.map(|text| text.parse::<Bytes>().unwrap().to_string()), sizes);
    let others =
        [("2048MiB", "2GiB"), ("1.5GiB", "1536MiB"), ("2GB", "1953125KiB"), (" 7 kB ", "7000B"), ("9", "9B")];
    for (text, shown) in others {
        assert_eq!(text.parse::<Bytes>().unwrap().to_string(), shown, "{text}");
    }
}

#[test]
fn bad_quantities_are_refused() {
    for text in [
        "",
        "-1",
        "+1",
        "1e3",
        "0.0001",
        "1.",
        ".5",
        "four",
        "1 2",
        "NaN",
        "inf",
        "1,5",
        "9223372036854775807",
    ] {
        assert!(text.parse::<Cpus>().is_err(), "{text} cpus are taken");
        assert!(text.parse::<Scalar>().is_err(), "{text} is taken");
    }
    for text in ["", "-1B", "MiB", "1.5B", "0.0001GiB", "1mb", "1 M", "1 MiB MiB", "2000PiB", "1EB"] {
        assert!(text.parse::<Bytes>().is_err(), "{text} is taken as a size");
    }
    for json in ["-1", "1e30", "null", "true", "[]", "\"x\"", "18446744073709551615", "-9223372036854775808"]
    {
        assert!(serde_json::from_str::<Bytes>(json).is_err(), "{json} is taken as a size");
        assert!(serde_json::from_str::<Cpus>(json).is_err(), "{json} cpus are taken");
    }
    assert!(Cpus::from_millis(quantity::MAX + 1).is_err() && Bytes::from_bytes(i64::MIN).is_err());
}

#[test]
fn resources_are_written_as_on_the_command_line() {
    let text = "cpus=4;mem=8GiB;disk=100GiB;gpus=1;licenses=20;ports=[8080,31000-32000]";
    assert_eq!(text.parse::<Resources>().unwrap().to_string(), text);
    let json = serde_json::to_string(&text.parse::<Resources>().unwrap()).unwrap();
    assert_eq!(
        json,
        r#"{"cpus":4,"mem":8589934592,"disk":107374182400,"ports":[[8080,8080],[31000,32000]],"gpus":1,"licenses":20}"#
    );
}

#[test]
fn bad_resources_are_refused_by_name() {
    let cases = [
        ("cpus", "resources"),
        ("cpus=1;cpus=2", "resources"),
        ("cpus=-1", "cpus"),
        ("cpus=x", "cpus"),
        ("mem=1x", "mem"),
        ("ports=[0-5]", "ports"),
        ("ports=[65536]", "ports"),
        ("ports=80", "ports"),
        ("Licenses=1", "resource"),
        ("=1", "resource"),
    ];
    for (text, field) in cases {
        assert_eq!(text.parse::<Resources>().unwrap_err().field, field, "{text}");
    }
}
