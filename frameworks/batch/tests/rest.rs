//! The REST API over a socket, with a framework whose master is not there: everything but running tasks.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail")]

use std::sync::Arc;

use divvy_batch::{NAME, Running, serve};
use divvy_sdk::hosted::HostConfig;
use divvy_store::{Embedded, Store};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

struct Batch {
    running: Running,
    store: Arc<dyn Store>,
    http: Client,
}

const JOB: &str = "id = \"wc\"\ncount = 3\n[task]\nshell = \"true\"\n";

impl Batch {
    async fn start() -> Self {
        Self::on(Arc::new(Embedded::in_memory().unwrap())).await
    }

    async fn on(store: Arc<dyn Store>) -> Self {
        // Nobody listens on this port.
        let running = serve(HostConfig::new(NAME, "127.0.0.1:1", store.clone())).await.unwrap();
        Self { running, store, http: Client::builder().no_proxy().build().unwrap() }
    }

    async fn restart(self) -> Self {
        self.running.shutdown().await;
        Self::on(self.store).await
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running.addr())
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        read(self.http.get(self.url(path)).send().await.unwrap()).await
    }

    async fn delete(&self, path: &str) -> (StatusCode, Value) {
        read(self.http.delete(self.url(path)).send().await.unwrap()).await
    }

    async fn post(&self, path: &str, kind: &str, body: &str) -> (StatusCode, Value) {
        let request = self.http.post(self.url(path)).header("content-type", kind).body(body.to_owned());
        read(request.send().await.unwrap()).await
    }
}

async fn read(response: reqwest::Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

#[tokio::test]
async fn a_job_is_submitted_listed_kept_over_a_restart_cancelled_and_forgotten() {
    let batch = Batch::start().await;
    let (status, job) = batch.post("/v1/jobs", "application/toml", JOB).await;
    assert_eq!((status, &job["state"], &job["run"]), (StatusCode::CREATED, &json!("pending"), &json!(1)));
    let none = json!({"pending": 3, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0});
    assert_eq!(job["counts"], none);
    let batch = batch.restart().await;
    let (_, jobs) = batch.get("/v1/jobs").await;
    assert_eq!((jobs[0]["id"].as_str(), jobs[0]["counts"].clone()), (Some("wc"), none));
    assert_eq!(jobs[0]["waiting"][0], "the master cannot be reached");
    let (status, problem) = batch.post("/v1/jobs", "application/toml", JOB).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(problem["error"].as_str().unwrap().starts_with("job wc has not ended"), "{problem}");
    assert_eq!(batch.delete("/v1/jobs/wc").await.0, StatusCode::CONFLICT);
    assert_eq!(batch.post("/v1/jobs/wc/cancel", "", "").await.0, StatusCode::OK);
    assert_eq!(batch.get("/v1/jobs/wc").await.1["state"], "cancelled");
    assert_eq!(batch.delete("/v1/jobs/wc").await.0, StatusCode::NO_CONTENT);
    assert_eq!(batch.get("/v1/jobs/wc").await.0, StatusCode::NOT_FOUND);
    let (_, job) = batch.post("/v1/jobs", "application/toml", JOB).await;
    assert_eq!(job["run"], 2, "no run number is used twice, so no task id is");
    batch.running.shutdown().await;
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let batch = Batch::start().await;
    let json = r#"{"id": "wc", "task": {"shell": "true"}}"#;
    let (status, found) = batch.post("/v1/jobs?dry_run=true", "application/json", json).await;
    assert_eq!((status, &found["job"]["count"]), (StatusCode::OK, &json!(1)));
    assert_eq!(found["placement"], "waiting for the inventory: no agent is known");
    assert_eq!(batch.get("/v1/jobs").await.1, json!([]));
}

#[tokio::test]
async fn bad_input_is_refused_by_name_and_place() {
    let batch = Batch::start().await;
    let cases = [
        ("id = \"a\"\ncuont = 3\n[task]\nshell = \"true\"\n", "line 2"),
        ("id = \"a\"\ncount = 0\n[task]\nshell = \"true\"\n", "count: \"0\" is not valid"),
        ("id = \"a\"\n", "task"),
        ("\u{0}", "line 1"),
    ];
    for (body, expected) in cases {
        let (status, problem) = batch.post("/v1/jobs", "application/toml", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        let error = problem["error"].as_str().unwrap();
        assert!(error.contains(expected), "{body}: {error}");
    }
    let long = "a".repeat(2 << 20);
    assert_eq!(batch.post("/v1/jobs", "application/toml", &long).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(batch.get("/v1/jobs/no%20name").await.0, StatusCode::NOT_FOUND);
    assert_eq!(batch.get("/v1/jobs?x=1").await.1, json!([]));
    assert_eq!(batch.get("/v1/jobs/a?tasks=maybe").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(batch.get("/v2").await.0, StatusCode::NOT_FOUND);
    assert_eq!(batch.delete("/v1/jobs").await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(batch.get("/v1/jobs").await.1, json!([]));
}

#[tokio::test]
async fn only_what_waits_is_listed_where_that_is_asked_for() {
    let batch = Batch::start().await;
    for id in ["runs", "ends"] {
        batch.post("/v1/jobs", "application/toml", &JOB.replace("wc", id)).await;
    }
    batch.post("/v1/jobs/ends/cancel", "", "").await;
    let (_, jobs) = batch.get("/v1/jobs").await;
    let runs = jobs.as_array().unwrap().iter().find(|job| job["id"] == "runs").unwrap();
    let (status, waiting) = batch.get("/v1/jobs?waiting=true").await;
    assert_eq!((status, waiting), (StatusCode::OK, json!([{"id": "runs", "waiting": runs["waiting"]}])));
    assert_eq!(batch.get("/v1/jobs?waiting=maybe").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn events_tell_of_each_change_until_the_job_is_gone() {
    let batch = Batch::start().await;
    batch.post("/v1/jobs", "application/toml", JOB).await;
    let mut events = batch.http.get(batch.url("/v1/jobs/wc/events")).send().await.unwrap();
    let mut seen = String::new();
    for (expected, next) in [("\"pending\":3", Some("cancel")), ("\"cancelled\":3", None)] {
        while !seen.contains(expected) {
            seen += std::str::from_utf8(&events.chunk().await.unwrap().unwrap()).unwrap();
        }
        match next {
            Some(verb) => drop(batch.post(&format!("/v1/jobs/wc/{verb}"), "", "").await),
            None => drop(batch.delete("/v1/jobs/wc").await),
        }
    }
    while let Some(chunk) = events.chunk().await.unwrap() {
        seen += std::str::from_utf8(&chunk).unwrap();
    }
    assert!(seen.ends_with("event: gone\ndata: {}\n\n"), "{seen}");
}

#[tokio::test]
async fn health_metrics_and_the_document_are_there() {
    let batch = Batch::start().await;
    batch.post("/v1/jobs", "application/toml", JOB).await;
    assert_eq!(batch.get("/health").await.1, json!({"connected": false, "jobs": 1}));
    let (_, metrics) = batch.get("/metrics").await;
    assert!(metrics.as_str().unwrap().contains("divvy_batch_indexes{state=\"pending\"} 3\n"), "{metrics}");
    let (_, document) = batch.get("/openapi.json").await;
    let status = batch.get("/v1/jobs/wc").await.1;
    let known = &document["components"]["schemas"]["JobStatus"]["properties"];
    let names = |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(names(&status), names(known), "the document describes what is answered");
}
