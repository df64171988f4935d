//! The operator API's manners: problems that say what is wrong, filters, probes, pages.

use std::collections::BTreeSet;

use divvy_proto::TaskState;
use divvy_proto::api;
use serde_json::Value;

use crate::harness::{Agent, Cluster, Framework, agent_info, framework_info, running_task};

#[tokio::test]
async fn every_refusal_is_a_problem_with_its_status() {
    let cluster = Cluster::start().await;
    let get = |path: &str| cluster.http.get(cluster.url(path));
    let cases = [
        (get("/api/v1/tasks?colour=red"), 400, "unknown field `colour`, expected one of `framework`"),
        (get("/api/v1/tasks?state=running"), 400, "unknown variant `running`, expected one of `STAGING`"),
        (get("/api/v1/agents?limit=-1"), 400, "limit"),
        (get("/api/v1/agents/a9-9"), 404, "agent a9-9 is not known here"),
        (get("/api/v1/frameworks/f9-9"), 404, "framework f9-9 is not known here"),
        (get("/api/v1/tasks/f9-9/t1"), 404, "task f9-9/t1 is not known here"),
        (get("/api/v1/tasks/t1"), 404, "a task whose id is or begins with t1 is not known here"),
        (get("/api/v1/tasks/f9-9/t1/logs"), 404, "task f9-9/t1 is not known here"),
        (get("/api/v1/nonsense"), 404, "/api/v1/nonsense is not known here"),
        (get("/api/v1/agents/a%20b"), 400, "1 to 255 characters"),
        (get("/missing.js"), 404, "/missing.js is not known here"),
        (get("/api/v1/frameworks/f9-9/teardown"), 405, "does not answer to GET"),
        (cluster.http.post(cluster.url("/api/v1/agents")), 405, "does not answer to POST"),
        (cluster.http.post(cluster.url("/api/v1/events")), 405, "does not answer to POST"),
        (cluster.http.post(cluster.url("/api/v1/tasks/f9-9/t1/kill")), 404, "task f9-9/t1"),
        (cluster.http.post(cluster.url("/api/v1/frameworks/f9-9/teardown")), 404, "framework f9-9"),
        (cluster.http.post(cluster.url("/api/v1/agents/a9-9/gone")), 404, "agent a9-9"),
        (get("/api/v1/status").header("host", "evil.example"), 421, "does not answer to \"evil.example\""),
        (
            cluster
                .http
                .post(cluster.url("/api/v1/agents/a9-9/gone"))
                .header("origin", "http://evil.example"),
            403,
            "a page of another address",
        ),
    ];
    for (request, status, error) in cases {
        let found = cluster.refusal(request).await;
        assert!(found.0 == status && found.1.contains(error), "expected {status} {error:?}, found {found:?}");
    }
}

#[tokio::test]
async fn lists_can_be_filtered_and_ids_abbreviated() {
    let cluster = Cluster::start().await;
    let agent = Agent::register(&cluster, agent_info("agent-1"), Vec::new()).await;
    let mut framework = Framework::subscribe(&cluster, framework_info("test")).await;
    let offer = framework.expect_offer().await;
    framework.launch(&offer, &["web-1", "web-2"]).await;
    agent.update(&framework.id, agent.status("web-1", TaskState::Running, "u1")).await;
    framework.expect_update(TaskState::Running).await;
    let _other = Agent::register(&cluster, agent_info("agent-2"), Vec::new()).await;

    let ids = async |path: &str| -> Vec<String> {
        let tasks: Vec<api::Task> = cluster.get(path).await;
        tasks.iter().map(|task| task.id.to_string()).collect()
    };
    assert_eq!(ids("/api/v1/tasks").await, ["web-1", "web-2"]);
    assert_eq!(ids("/api/v1/tasks?state=RUNNING").await, ["web-1"]);
    assert_eq!(ids("/api/v1/tasks?framework=test&agent=agent-1&limit=1").await, ["web-1"]);
    assert!(ids("/api/v1/tasks?framework=other").await.is_empty());
    assert!(ids("/api/v1/tasks?agent=agent-2").await.is_empty());

    let task: api::Task = cluster.get("/api/v1/tasks/web-1").await;
    assert_eq!(task.id.as_str(), "web-1");
    let (status, error) = cluster.refusal(cluster.http.get(cluster.url("/api/v1/tasks/web"))).await;
    let candidates = format!("web fits 2 tasks: {0}/web-1 (RUNNING), {0}/web-2 (STAGING)", framework.id);
    assert!(status == 409 && error.starts_with(&candidates), "{error}");
}

#[tokio::test]
async fn probes_the_openapi_document_and_the_page_answer() {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.get::<Value>("/health").await["status"], "ok");
    assert_eq!(cluster.get::<Value>("/ready").await["status"], "ready");
    assert_eq!(cluster.get::<Value>("/api/v1/openapi.json").await["openapi"], "3.1.0");
    let page = cluster.answer(cluster.http.get(cluster.url("/"))).await;
    assert_eq!(page.status(), 200);
    assert!(page.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    assert!(page.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'self'"));
}

#[tokio::test]
async fn an_operator_ends_a_framework_and_an_agent_for_good() {
    let cluster = Cluster::start().await;
    let (agent, mut framework) = running_task(&cluster, agent_info("agent-1"), "t1").await;
    let other = Framework::subscribe(&cluster, framework_info("other")).await;
    assert_eq!(cluster.post(&format!("/api/v1/frameworks/{}/teardown", other.id)).await, 204);
    let gone: api::Framework = cluster.get(&format!("/api/v1/frameworks/{}", other.id)).await;
    assert_eq!(gone.state, api::FrameworkState::Completed);

    assert_eq!(cluster.post(&format!("/api/v1/agents/{}/gone", agent.id)).await, 204);
    framework.expect_update(TaskState::Gone).await;
}

#[tokio::test]
async fn the_openapi_document_is_true() {
    let cluster = Cluster::start().await;
    let agent = Agent::register(&cluster, agent_info("agent-1"), Vec::new()).await;
    let mut framework = Framework::subscribe(&cluster, framework_info("test")).await;
    let offer = framework.expect_offer().await;
    let other = Framework::subscribe(&cluster, framework_info("other")).await;
    framework.launch(&offer, &["t1"]).await;
    let document: Value = cluster.get("/api/v1/openapi.json").await;

    for path in document["paths"].as_object().unwrap().keys().filter(|path| path.starts_with("/api/")) {
        let filled = path.replace("{id}", "x-1").replace("{framework_id}", "x-1").replace("{task_id}", "x-1");
        let filled = filled.replace("{rest}", "logs");
        let answer = cluster.answer(cluster.http.get(cluster.url(&filled))).await;
        if !answer.status().is_success() {
            let problem: api::Problem = answer.json().await.unwrap();
            assert_ne!(problem.error, format!("{filled} is not known here"), "no route for {path}");
        }
    }

    for (path, schema) in [
        ("/api/v1/status".to_owned(), "Status"),
        (format!("/api/v1/agents/{}", agent.id), "Agent"),
        (format!("/api/v1/frameworks/{}", other.id), "Framework"),
        (format!("/api/v1/tasks/{}/t1", framework.id), "Task"),
        ("/api/v1/roles".to_owned(), "Role"),
        ("/api/v1/offers".to_owned(), "Offer"),
    ] {
        let found = cluster.until(&path, |found: &Value| found != &Value::Array(Vec::new())).await;
        let found = found.get(0).unwrap_or(&found).as_object().unwrap();
        let described = document["components"]["schemas"][schema]["properties"].as_object().unwrap();
        let keys = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(keys(found), keys(described), "{path}");
    }
}
