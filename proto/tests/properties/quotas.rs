//! Amounts, weights and quotas as text and in JSON.

use divvy_proto::api::{AgentVolume, RoleQuota, RoleStanding, Stage};
use divvy_proto::{Amounts, Quota, Resources, Weight};
use proptest::prelude::*;
use serde_json::json;

use crate::{any, any_api, any_owned};

proptest! {
    #[test]
    fn amounts_come_back_from_text_and_json(amounts in any_owned::amounts()) {
        prop_assert_eq!(&amounts.to_string().parse::<Amounts>().unwrap(), &amounts, "{}", amounts);
        let json = serde_json::to_string(&amounts).unwrap();
        prop_assert_eq!(serde_json::from_str::<Amounts>(&json).unwrap(), amounts, "{}", json);
    }

    #[test]
    fn the_amounts_of_resources_are_their_scalars_and_the_count_of_their_ports(resources in any::resources()) {
        let amounts = Amounts::from(&resources);
        let ports = resources.ports().iter().count() as i64;
        prop_assert_eq!(amounts.get("ports").unwrap_or_default(), ports);
        let scalars: Vec<(&str, i64)> = amounts.iter().filter(|(name, _)| *name != "ports").collect();
        let mut expected: Vec<(&str, i64)> = resources.scalars().collect();
        expected.sort_unstable();
        prop_assert_eq!(scalars, expected);
        prop_assert!(amounts.iter().all(|(_, amount)| amount > 0));
    }

    #[test]
    fn weights_come_back_from_text_and_json(thousandths in 1..=1_000_000_000_u32) {
        let weight = Weight::from_thousandths(thousandths).unwrap();
        prop_assert_eq!(weight.to_string().parse::<Weight>().unwrap(), weight);
        let json = serde_json::to_string(&weight).unwrap();
        prop_assert_eq!(serde_json::from_str::<Weight>(&json).unwrap(), weight, "{}", json);
    }

    #[test]
    fn quotas_and_demands_come_back_from_json(quota in any_owned::quota(), demand in any_owned::demand()) {
        let json = serde_json::to_string(&quota).unwrap();
        prop_assert_eq!(serde_json::from_str::<Quota>(&json).unwrap(), quota, "{}", json);
        let json = serde_json::to_string(&demand).unwrap();
        prop_assert_eq!(serde_json::from_str::<divvy_proto::Demand>(&json).unwrap(), demand, "{}", json);
    }

    #[test]
    fn what_is_flattened_comes_back_from_json(role in any_api::role_view(), quota in any_owned::quota()) {
        let standing = RoleStanding { role: role.clone(), place: Some(2), siblings: 3 };
        let json = serde_json::to_string(&standing).unwrap();
        prop_assert_eq!(serde_json::from_str::<RoleStanding>(&json).unwrap(), standing, "{}", json);
        let quota = RoleQuota { role: role.path, quota, consumed: role.consumed };
        let json = serde_json::to_string(&quota).unwrap();
        prop_assert_eq!(serde_json::from_str::<RoleQuota>(&json).unwrap(), quota, "{}", json);
    }
}

#[test]
fn amounts_are_written_as_people_write_them() {
    let amounts: Amounts = "ports=100; cpus=10.5;mem=4GiB;licenses=0".parse().unwrap();
    assert_eq!(amounts.to_string(), "cpus=10.5;licenses=0;mem=4GiB;ports=100");
    assert_eq!(
        serde_json::to_value(&amounts).unwrap(),
        json!({ "cpus": 10.5, "mem": 4_294_967_296_i64, "ports": 100, "licenses": 0 })
    );
    let same = json!({ "cpus": "10.5", "mem": "4GiB", "ports": 100, "licenses": 0 });
    assert_eq!(serde_json::from_value::<Amounts>(same).unwrap(), amounts);
    assert_eq!((amounts.get("licenses"), amounts.get("disk")), (Some(0), None), "zero is not nothing");
}

#[test]
fn bad_amounts_are_refused() {
    for text in
        ["cpus", "cpus=-1", "mem=4 apples", "ports=1.5", "ports=[1-5]", "ports=-1", "Cpus=1", "cpus=1;cpus=1"]
    {
        assert!(text.parse::<Amounts>().is_err(), "{text} is taken");
    }
    for bad in [json!({ "cpus": -1 }), json!({ "mem": 0.5 }), json!({ "A": 1 }), json!({ "cpus": [] })] {
        assert!(serde_json::from_value::<Amounts>(bad.clone()).is_err(), "{bad} is taken");
    }
}

#[test]
fn weights_are_positive_numbers() {
    assert_eq!("2.5".parse::<Weight>().unwrap().thousandths(), 2500);
    assert_eq!(Weight::default().to_string(), "1");
    assert_eq!(serde_json::to_value("0.25".parse::<Weight>().unwrap()).unwrap(), json!(0.25));
    for text in ["0", "-1", "0.0001", "1000000.001", "much", ""] {
        let refused = text.parse::<Weight>().unwrap_err();
        assert_eq!((refused.field.as_str(), refused.value.as_str()), ("weight", text));
    }
}

#[test]
fn a_quota_has_defaults_and_promises_no_more_than_its_limit() {
    let quota: Quota = serde_json::from_value(json!({ "guarantee": { "cpus": 4 } })).unwrap();
    let guarantee: Amounts = "cpus=4".parse().unwrap();
    assert_eq!(quota, Quota { guarantee, ..Quota::default() });
    assert!(quota.preemptible);
    assert!(serde_json::from_value::<Quota>(json!({ "guarante": {} })).is_err());

    let limited = |limit: &str| Quota { limit: limit.parse().unwrap(), ..quota.clone() }.check();
    assert!(limited("cpus=4;mem=1GiB").is_ok());
    assert_eq!(
        limited("cpus=3.5").unwrap_err().to_string(),
        "quota.guarantee.cpus: \"4\" is not valid: expected at most the limit, 3.5"
    );
}

#[test]
fn what_scripts_read_stays() {
    let stage: Stage =
        serde_json::from_value(json!({ "reason": "constraint", "clause": "ssd > 1", "agents": 3 })).unwrap();
    assert_eq!(serde_json::to_value(&stage).unwrap()["clause"], "ssd > 1");
    let volume = json!({
        "agent_id": "a1-0", "hostname": "m1", "agent_state": "active", "role": "eng", "id": "data", "size": 1024,
        "stack": [{ "role": "eng" }], "created": "2026-01-01T00:00:00Z", "used_by": ["f1/t1"], "orphan": false
    });
    let volume: AgentVolume = serde_json::from_value(volume).unwrap();
    assert_eq!(serde_json::to_value(&volume).unwrap()["size"], 1024);
    let shape = divvy_proto::DemandShape {
        name: "w".to_owned(),
        resources: Resources::new().with_ports("[1-2]".parse().unwrap()),
        ports: 3,
        count: 1,
        constraint: None,
        preference: Default::default(),
    };
    assert_eq!(shape.amounts().to_string(), "ports=5");
}
