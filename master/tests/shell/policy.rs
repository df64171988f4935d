//! What operators decide about roles and agents over HTTP, and that it survives a restart.

use std::collections::BTreeSet;

use divvy_proto::agent::AgentInfo;
use divvy_proto::api;
use divvy_proto::ids::AgentId;
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::harness::{Agent, Cluster, agent_info, running_task};

/// The status of the answer, and what is wrong if it is not a success.
async fn send(cluster: &Cluster, method: Method, path: &str, body: &Value) -> (u16, String) {
    let answer = cluster.answer(cluster.http.request(method, cluster.url(path)).json(body)).await;
    let status = answer.status().as_u16();
    match answer.status().is_success() {
        true => (status, String::new()),
        false => (status, answer.json::<api::Problem>().await.unwrap().error),
    }
}

async fn put(cluster: &Cluster, path: &str, body: Value) -> (u16, String) {
    send(cluster, Method::PUT, path, &body).await
}

async fn post(cluster: &Cluster, path: &str, body: Value) -> (u16, String) {
    send(cluster, Method::POST, path, &body).await
}

fn done() -> (u16, String) {
    (204, String::new())
}

#[tokio::test]
async fn a_quota_is_an_object_of_a_few_names_and_what_is_refused_changes_nothing() {
    let cluster = Cluster::start().await;
    let quota = json!({ "limit": { "cpus": 3 } });
    assert_eq!(put(&cluster, "/api/v1/quotas/eng", quota).await, done());
    let names: Map<String, Value> = (0..65).map(|n| (format!("made-up-{n}"), 1.into())).collect();
    let refused = [
        (json!([]), "the body is a JSON list; expected an object"),
        (json!({ "limit": [] }), "invalid type: sequence"),
        (json!({ "limit": names }), "at most 64 names"),
    ];
    for (body, why) in refused {
        let (status, error) = put(&cluster, "/api/v1/quotas/eng", body).await;
        assert!(status == 400 && error.contains(why), "{status} {error}");
    }
    let kept: Value = cluster.get("/api/v1/quotas/eng").await;
    assert_eq!(kept["limit"], json!({ "cpus": 3 }));
}

#[tokio::test]
async fn quotas_and_weights_are_set_shown_and_removed_and_survive_a_restart() {
    let mut cluster = Cluster::start().await;
    let _agent = Agent::register(&cluster, agent_info("agent-1"), Vec::new()).await;
    let quota = json!({ "guarantee": { "cpus": 2 }, "limit": { "cpus": 3, "mem": "512MiB" } });
    assert_eq!(put(&cluster, "/api/v1/quotas/eng", quota).await, done());
    assert_eq!(
        put(&cluster, "/api/v1/quotas/eng/ads", json!({ "guarantee": { "cpus": 0.5 } })).await,
        done()
    );
    assert_eq!(
        put(&cluster, "/api/v1/quotas/ops?force=true", json!({ "guarantee": { "cpus": 9 } })).await,
        done()
    );
    assert_eq!(put(&cluster, "/api/v1/weights/eng/ads", json!({ "weight": 2.5 })).await, done());
    cluster.restart().await;

    let quotas: Value = cluster.get("/api/v1/quotas").await;
    let roles: Vec<_> = quotas.as_array().unwrap().iter().map(|quota| &quota["role"]).collect();
    assert_eq!(roles, ["eng", "eng/ads", "ops"]);
    let expected = json!({
        "role": "eng", "guarantee": { "cpus": 2 }, "limit": { "cpus": 3, "mem": 512 << 20 }, "shape": null,
        "preemptible": true, "consumed": {},
    });
    assert_eq!(cluster.get::<Value>("/api/v1/quotas/eng").await, expected);
    let weights: Value = cluster.get("/api/v1/weights").await;
    assert_eq!(weights, json!([{ "role": "eng/ads", "weight": 2.5 }]));
    assert_eq!(cluster.get::<Value>("/api/v1/weights/eng").await["weight"], 1);

    for path in ["/api/v1/quotas/eng/ads", "/api/v1/weights/eng/ads"] {
        assert_eq!(send(&cluster, Method::DELETE, path, &Value::Null).await, done(), "{path}");
        assert_eq!(send(&cluster, Method::DELETE, path, &Value::Null).await.0, 404, "{path}");
    }
    cluster.restart().await;
    let quotas: Vec<api::RoleQuota> = cluster.get("/api/v1/quotas").await;
    assert_eq!(quotas.iter().map(|quota| quota.role.as_str()).collect::<Vec<_>>(), ["eng", "ops"]);
    assert_eq!(cluster.get::<Value>("/api/v1/weights").await, json!([]));
}

#[tokio::test]
async fn each_refusal_names_the_field_the_value_and_what_was_expected() {
    let cluster = Cluster::start().await;
    let agent = Agent::register(&cluster, agent_info("agent-1"), Vec::new()).await;
    let on_agent = |action: &str| format!("/api/v1/agents/{}/{action}", agent.id);
    let quota = |guarantee: Value| json!({ "guarantee": guarantee });
    let cases = [
        (
            Method::PUT,
            "/api/v1/quotas/a//b".to_owned(),
            quota(json!({})),
            400,
            "names joined by single slashes",
        ),
        (
            Method::PUT,
            "/api/v1/quotas/a".to_owned(),
            json!({ "garantee": {} }),
            400,
            "unknown field `garantee`",
        ),
        (
            Method::PUT,
            "/api/v1/quotas/a".to_owned(),
            quota(json!({ "cpus": "x" })),
            400,
            "cpus: \"x\" is not valid",
        ),
        (
            Method::PUT,
            "/api/v1/quotas/a".to_owned(),
            json!({ "guarantee": { "cpus": 2 }, "limit": { "cpus": 1 } }),
            400,
            "quota.guarantee.cpus: \"2\" is not valid: expected at most the limit, 1",
        ),
        (
            Method::PUT,
            "/api/v1/quotas/a".to_owned(),
            quota(json!({ "cpus": 5 })),
            409,
            "cpus=5 (a 5) would be promised in all, more than the cluster's cpus=4",
        ),
        (
            Method::GET,
            "/api/v1/quotas/none".to_owned(),
            Value::Null,
            404,
            "a quota of none is not known here",
        ),
        (
            Method::PUT,
            "/api/v1/weights/a".to_owned(),
            json!({ "weight": 0 }),
            400,
            "a number from 0.001 to 1000000",
        ),
        (
            Method::POST,
            on_agent("drain"),
            json!({ "deadline": "soon" }),
            400,
            "deadline: \"soon\" is not valid",
        ),
        (Method::POST, on_agent("drain"), json!({ "dead": "1m" }), 400, "unknown field `dead`"),
        (Method::POST, on_agent("reserve"), json!({ "role": "db" }), 400, "missing field `resources`"),
        (
            Method::POST,
            "/api/v1/agents/a9-9/drain".to_owned(),
            json!({}),
            404,
            "agent a9-9 is not known here",
        ),
        (Method::POST, on_agent("volumes/v1/grow"), json!({ "by": "1MiB" }), 404, "volume v1 of agent"),
        (Method::DELETE, on_agent("volumes/v1"), Value::Null, 404, "volume v1 of agent"),
        (
            Method::PUT,
            "/api/v1/maintenance".to_owned(),
            json!([{ "agents": [] }]),
            400,
            "missing field `window`",
        ),
    ];
    for (method, path, body, status, error) in cases {
        let found = send(&cluster, method, &path, &body).await;
        assert!(
            found.0 == status && found.1.contains(error),
            "{path}: expected {status} {error:?}, found {found:?}"
        );
    }
}

#[tokio::test]
async fn reservations_and_volumes_come_and_go_and_survive_a_restart() {
    let mut cluster = Cluster::start().await;
    let info =
        AgentInfo { resources: "cpus=4;mem=1GiB;disk=10GiB".parse().unwrap(), ..agent_info("agent-1") };
    let agent = Agent::register(&cluster, info.clone(), Vec::new()).await;
    let on_agent = |action: &str| format!("/api/v1/agents/{}/{action}", agent.id);
    let reserve = json!({
        "role": "db", "resources": { "cpus": 1, "disk": 6_u64 << 30 }, "labels": { "team": "storage" }, "principal": "ops",
    });
    assert_eq!(post(&cluster, &on_agent("reserve"), reserve).await, done());
    let volume = json!({ "id": "data", "role": "db", "size": "4GiB", "labels": { "team": "storage" } });
    assert_eq!(post(&cluster, &on_agent("volumes"), volume).await, done());
    assert_eq!(post(&cluster, &on_agent("volumes/data/grow"), json!({ "by": "1GiB" })).await, done());
    cluster.restart().await;

    let volumes: Vec<api::AgentVolume> = cluster.get("/api/v1/volumes?role=db").await;
    let seen: Vec<_> =
        volumes.iter().map(|v| (v.volume.volume.id.as_str(), v.volume.volume.size.bytes())).collect();
    assert_eq!(seen, [("data", 5 << 30)]);
    let reserved: Vec<api::ReservationView> = cluster.get("/api/v1/reservations").await;
    let seen: Vec<_> = reserved.iter().map(|r| (r.role.as_str(), r.reserved.resources.to_string())).collect();
    assert_eq!(seen, [("db", "cpus=1;disk=1GiB".to_owned())]);
    assert!(cluster.get::<Vec<Value>>("/api/v1/reservations?role=other").await.is_empty());

    let info = AgentInfo { id: Some(agent.id.clone()), ..info };
    let _agent = Agent::register(&cluster, info, Vec::new()).await;
    let path = on_agent("volumes/data");
    assert_eq!(send(&cluster, Method::DELETE, &path, &Value::Null).await, done());
    let all = json!({
        "role": "db", "resources": { "cpus": 1, "disk": 6_u64 << 30 }, "labels": { "team": "storage" },
    });
    assert_eq!(post(&cluster, &on_agent("unreserve"), all).await, done());
    assert_eq!(cluster.get::<Value>("/api/v1/reservations").await, json!([]));
}

#[tokio::test]
async fn an_agent_is_drained_deactivated_and_reactivated() {
    let cluster = Cluster::start().await;
    let (agent, _framework) = running_task(&cluster, agent_info("agent-1"), "t1").await;
    let seen = async || -> api::Agent { cluster.get(&format!("/api/v1/agents/{}", agent.id)).await };
    let ask = async |id: &AgentId, action: &str, body: Value| {
        assert_eq!(post(&cluster, &format!("/api/v1/agents/{id}/{action}"), body).await, done(), "{action}");
    };
    ask(&agent.id, "drain", json!({ "deadline": "1h" })).await;
    let drain = seen().await.drain.unwrap();
    assert_eq!((drain.drained, drain.then_gone, drain.deadline.is_some()), (false, false, true));
    let inverse: Vec<api::InverseOfferView> = cluster.get("/api/v1/inverse-offers").await;
    assert_eq!(inverse.iter().map(|found| found.framework.as_str()).collect::<Vec<_>>(), ["test"]);

    ask(&agent.id, "reactivate", json!({})).await;
    assert_eq!(seen().await.drain, None);
    assert_eq!(cluster.get::<Value>("/api/v1/inverse-offers").await, json!([]));
    ask(&agent.id, "deactivate", Value::Null).await;
    assert!(seen().await.deactivated);
}

#[tokio::test]
async fn maintenance_is_planned_and_survives_a_restart() {
    let mut cluster = Cluster::start().await;
    let agent = Agent::register(&cluster, agent_info("agent-1"), Vec::new()).await;
    let plan = json!([{
        "agents": [agent.id],
        "window": { "start": "2999-01-01T00:00:00.000Z", "duration": "2h", "reason": "new disks" },
    }]);
    assert_eq!(put(&cluster, "/api/v1/maintenance", plan.clone()).await, done());
    cluster.restart().await;
    assert_eq!(cluster.get::<Value>("/api/v1/maintenance").await, plan);
    let seen: api::Agent = cluster.get(&format!("/api/v1/agents/{}", agent.id)).await;
    assert_eq!(seen.maintenance.map(|window| window.reason), Some("new disks".to_owned()));
    assert_eq!(put(&cluster, "/api/v1/maintenance", json!([])).await, done());
    assert_eq!(cluster.get::<Value>("/api/v1/maintenance").await, json!([]));
}

#[tokio::test]
async fn the_openapi_document_describes_what_operators_read() {
    let cluster = Cluster::start().await;
    let info =
        AgentInfo { resources: "cpus=4;mem=1GiB;disk=10GiB".parse().unwrap(), ..agent_info("agent-1") };
    let (agent, framework) = running_task(&cluster, info, "t1").await;
    let on_agent = |action: &str| format!("/api/v1/agents/{}/{action}", agent.id);
    let window = json!({ "start": "2999-01-01T00:00:00Z", "duration": "2h" });
    let asked = [
        (Method::PUT, "/api/v1/quotas/*".to_owned(), json!({ "guarantee": { "cpus": 1 } })),
        (Method::PUT, "/api/v1/weights/eng".to_owned(), json!({ "weight": 2 })),
        (Method::POST, on_agent("reserve"), json!({ "role": "db", "resources": { "disk": 2_u64 << 30 } })),
        (Method::POST, on_agent("volumes"), json!({ "id": "data", "role": "db", "size": "1GiB" })),
        (Method::PUT, "/api/v1/maintenance".to_owned(), json!([{ "agents": [agent.id], "window": window }])),
        (Method::POST, on_agent("drain"), json!({ "deadline": "1h" })),
    ];
    for (method, path, body) in asked {
        assert_eq!(send(&cluster, method, &path, &body).await, done(), "{path}");
    }
    let document: Value = cluster.get("/api/v1/openapi.json").await;
    for (path, schema) in [
        ("/api/v1/quotas/*", "RoleQuota"),
        ("/api/v1/weights", "RoleWeight"),
        ("/api/v1/reservations", "ReservationView"),
        ("/api/v1/volumes", "AgentVolume"),
        ("/api/v1/maintenance", "MaintenanceWindow"),
        ("/api/v1/inverse-offers", "InverseOffer"),
        ("/api/v1/decisions?offers=false", "Decision"),
        ("/api/v1/roles", "Role"),
        ("/api/v1/agents", "Agent"),
        ("/api/v1/explain?role=*", "Explanation"),
        (&format!("/api/v1/explain?framework={}", framework.id), "Explanation"),
    ] {
        let found: Value = cluster.get(path).await;
        let found = found.get(0).unwrap_or(&found).as_object().unwrap();
        let described = document["components"]["schemas"][schema]["properties"].as_object().unwrap();
        let keys = |object: &Map<String, Value>| object.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(keys(found), keys(described), "{path}");
    }
    let agents: Value = cluster.get("/api/v1/agents").await;
    for (field, schema) in [("drain", "Drain"), ("maintenance", "Window")] {
        let found: BTreeSet<&String> = agents[0][field].as_object().unwrap().keys().collect();
        let described = document["components"]["schemas"][schema]["properties"].as_object().unwrap();
        assert_eq!(found, described.keys().collect(), "{field}");
    }
}
