//! Ids, roles, attributes and points in time as text.

use divvy_proto::{AgentId, AttributeValue, Attributes, RolePath, TaskId, Timestamp};
use proptest::prelude::*;

use crate::any;

proptest! {
    #[test]
    fn any_text_is_an_id_or_an_error(text in ".{0,9}") {
        if let Ok(id) = text.parse::<TaskId>() {
            prop_assert_eq!(id.as_str(), &text);
            prop_assert_eq!(std::path::Path::new(&text).file_name(), Some(text.as_ref()), "could be a file");
        }
    }

    #[test]
    fn any_text_is_a_role_or_an_error(text in "[a-c*./ -]{0,8}") {
        if let Ok(role) = text.parse::<RolePath>() {
            prop_assert_eq!(role.to_string(), text);
        }
    }

    #[test]
    fn a_role_lies_below_those_along_its_path(role in any::role()) {
        let lineage = role.lineage();
        prop_assert_eq!(lineage.last(), Some(&role));
        prop_assert_eq!(lineage.len(), role.parts().count());
        let mut up = Some(role.clone());
        for above in lineage.iter().rev() {
            prop_assert_eq!(up.as_ref(), Some(above));
            prop_assert!(above.contains(&role));
            prop_assert_eq!(role.contains(above), *above == role);
            up = above.parent();
        }
        prop_assert_eq!(up, None);
    }

    #[test]
    fn attributes_come_back_from_json(attributes in any::attributes()) {
        let json = serde_json::to_string(&attributes).unwrap();
        prop_assert_eq!(serde_json::from_str::<Attributes>(&json).unwrap(), attributes, "{}", json);
    }

    #[test]
    fn any_text_is_attributes_or_an_error(text in "([a-c]=?[a-z0-9.\\[\\] -]{0,5};?){0,3}") {
        if let Ok(attributes) = text.parse::<Attributes>() {
            prop_assert_eq!(&attributes.to_string().parse::<Attributes>().unwrap(), &attributes, "{}", attributes);
        }
    }

    #[test]
    fn times_come_back_from_json(time in any::time()) {
        let json = serde_json::to_string(&time).unwrap();
        prop_assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), time, "{}", json);
    }

    #[test]
    fn time_does_not_overflow(a in any::<u64>(), b in any::<u64>()) {
        let (a, b) = (Timestamp(a), Timestamp(b));
        prop_assert!(a + b.since(a) >= a);
        prop_assert!(a.to_string().ends_with('Z'));
        prop_assert!((a + std::time::Duration::MAX) >= a);
    }
}

#[test]
fn bad_ids_are_refused() {
    let long = "x".repeat(256);
    for text in ["", ".", "..", "a/b", "a\\b", "a b", "a\n", "\u{0}", "a\u{a0}b", long.as_str()] {
        assert!(text.parse::<AgentId>().is_err(), "{text:?} is taken");
        assert!(serde_json::from_value::<AgentId>(text.into()).is_err(), "{text:?} is taken");
    }
    assert!("x".repeat(255).parse::<AgentId>().is_ok());
}

#[test]
fn bad_roles_are_refused() {
    let long = "x".repeat(256);
    for text in
        ["", "/", "a/", "/a", "a//b", "a/.", "..", "a/*", "*/a", "-a", "a/-b", "a b", "a\\b", long.as_str()]
    {
        assert!(text.parse::<RolePath>().is_err(), "{text:?} is taken");
    }
    let eng: RolePath = "eng".parse().unwrap();
    assert!(!eng.contains(&"engine".parse().unwrap()) && eng.contains(&"eng/ads".parse().unwrap()));
}

#[test]
fn attributes_know_numbers_and_ranges_from_text() {
    let attributes: Attributes = "rack=r1; ssd=1;slots=[1-4,5];note=a=b;empty=".parse().unwrap();
    assert_eq!(attributes.to_string(), "empty=;note=a=b;rack=r1;slots=[1-5];ssd=1");
    assert!(matches!(attributes.get("ssd"), Some(AttributeValue::Scalar(_))));
    assert!(matches!(attributes.get("slots"), Some(AttributeValue::Ranges(_))));
    for text in ["rack", "=r1", "a b=c", "hostname=x", "a=1;a=2"] {
        assert!(text.parse::<Attributes>().is_err(), "{text} is taken");
    }
}
