//! The REST API over a real socket and a real store. No master is there: what users ask for is taken, kept, and waits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use divvy_sdk::cli::{CliError, Context, Output};
use divvy_sdk::hosted::HostConfig;
use divvy_service::cli::Command;
use divvy_service::{NAME, Running, serve};
use divvy_store::{Embedded, Store};
use futures::StreamExt;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

const WEB: &str = include_str!("../examples/web.toml");

struct Service {
    running: Running,
    http: reqwest::Client,
}

impl Service {
    async fn start(store: Arc<dyn Store>) -> Self {
        // Nothing listens on port 1.
        let running = serve(HostConfig::new(NAME, "127.0.0.1:1", store)).await.unwrap();
        Self { running, http: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.running.addr()))
    }

    async fn answer(&self, request: RequestBuilder) -> (StatusCode, Value) {
        let response = request.send().await.unwrap();
        let status = response.status();
        let body = response.text().await.unwrap();
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.answer(self.ask(Method::GET, path)).await
    }

    async fn put(&self, path: &str, text: &str) -> (StatusCode, Value) {
        self.answer(self.ask(Method::PUT, path).body(text.to_owned())).await
    }
}

fn memory() -> Arc<dyn Store> {
    Arc::new(Embedded::in_memory().unwrap())
}

#[tokio::test]
async fn an_app_is_created_shown_changed_and_removed() {
    let service = Service::start(memory()).await;
    let (status, change) = service.put("/v1/apps/web", WEB).await;
    assert_eq!(
        (status, &change["change"], &change["version"]),
        (StatusCode::OK, &json!("created"), &json!(1))
    );

    let (_, app) = service.get("/v1/apps/web").await;
    let shown = ["id", "version", "state", "instances", "running", "healthy", "endpoints", "tasks"];
    let shown: Vec<&Value> = shown.iter().map(|field| &app[field]).collect();
    let expected =
        [json!("web"), json!(1), json!("deploying"), json!(3), json!(0), json!(0), json!([]), json!([])];
    assert_eq!(shown, expected.iter().collect::<Vec<_>>());
    assert_eq!(app["waiting"], "the master cannot be reached");

    let (status, app) =
        service.answer(service.ask(Method::POST, "/v1/apps/web/scale").json(&json!({"instances": 5}))).await;
    assert_eq!((status, &app["instances"]), (StatusCode::OK, &json!(5)));
    let (status, app) = service.answer(service.ask(Method::POST, "/v1/apps/web/restart")).await;
    assert_eq!((status, &app["version"]), (StatusCode::OK, &json!(2)));

    let (status, _) = service.answer(service.ask(Method::DELETE, "/v1/apps/web")).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    eventually(async || service.get("/v1/apps/web").await.0 == StatusCode::NOT_FOUND).await;
    assert_eq!(service.get("/v1/apps").await.1, json!([]));
    service.running.shutdown().await;
}

async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("it does not come about");
}

#[tokio::test]
async fn apps_survive_a_restart() {
    let store = memory();
    let service = Service::start(store.clone()).await;
    service.put("/v1/apps/web", WEB).await;
    service.running.shutdown().await;
    let service = Service::start(store).await;
    let (status, app) = service.get("/v1/apps/web").await;
    assert_eq!((status, &app["version"], &app["instances"]), (StatusCode::OK, &json!(1), &json!(3)));
}

#[tokio::test]
async fn what_is_wrong_is_said_and_nothing_changes() {
    let service = Service::start(memory()).await;
    service.put("/v1/apps/web", WEB).await;
    let (_, before) = service.get("/v1/apps/web").await;

    let typo = WEB.replace("instances = 3", "instnces = 3");
    let (status, problem) = service.put("/v1/apps/web", &typo).await;
    let error = problem["error"].as_str().unwrap();
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(error.starts_with("line 7, column 1: instnces: unknown field `instnces`"), "{error}");

    let json_body = r#"{"id": "web", "instances": -1, "task": {"shell": "true"}}"#;
    let huge = format!("id = \"web\"\n#{}", "x".repeat(1 << 21));
    let attempts = [
        service.put("/v1/apps/db", WEB),
        service.put("/v1/apps/web", json_body),
        service.put("/v1/apps/web", &huge),
        service.put("/v1/apps/web?dryrun=true", WEB),
    ];
    let mut statuses = Vec::new();
    for attempt in attempts {
        statuses.push(attempt.await.0.as_u16());
    }
    let stale = service.ask(Method::PUT, "/v1/apps/web").header("If-Match", "\"7\"").body(WEB);
    statuses.push(service.answer(stale).await.0.as_u16());
    let fresh = service.ask(Method::PUT, "/v1/apps/web").header("If-None-Match", "*").body(WEB);
    statuses.push(service.answer(fresh).await.0.as_u16());
    let absurd = service.ask(Method::POST, "/v1/apps/web/scale").json(&json!({"instances": 100_000}));
    statuses.push(service.answer(absurd).await.0.as_u16());
    statuses.push(service.get("/v1/apps/..%2f..").await.0.as_u16());
    statuses.push(service.get("/v2").await.0.as_u16());
    statuses.push(service.answer(service.ask(Method::POST, "/v1/apps")).await.0.as_u16());
    assert_eq!(statuses, [400, 400, 413, 400, 412, 412, 400, 404, 404, 405]);
    assert_eq!(service.get("/v1/apps/web").await.1, before);
}

#[tokio::test]
async fn a_dry_run_says_what_would_change() {
    let service = Service::start(memory()).await;
    service.put("/v1/apps/web", WEB).await;
    let other = WEB.replace("hello", "good morning");
    let (_, change) = service.put("/v1/apps/web?dry_run=true", &other).await;
    let expected = json!({
        "id": "web", "version": 2, "change": "updated", "peak": 4, "dry_run": true,
        "differences": ["task.env.GREETING: \"hello\" → \"good morning\""],
    });
    assert_eq!(change, expected);
    assert_eq!(service.get("/v1/apps/web").await.1["version"], json!(1));
}

#[tokio::test]
async fn changes_are_followed_to_the_end() {
    let service = Service::start(memory()).await;
    service.put("/v1/apps/web", WEB).await;
    let stream = service.ask(Method::GET, "/v1/apps/web/events").send().await.unwrap();
    let mut events = stream.bytes_stream().map(|bytes| String::from_utf8_lossy(&bytes.unwrap()).into_owned());
    let first = events.next().await.unwrap();
    assert!(first.starts_with("event: status\ndata: {\"id\":\"web\",\"version\":1,"), "{first}");
    service.answer(service.ask(Method::DELETE, "/v1/apps/web")).await;
    let rest: Vec<String> =
        tokio::time::timeout(Duration::from_secs(10), events.collect()).await.expect("the stream has no end");
    assert!(rest.concat().ends_with("event: gone\ndata: {}\n\n"), "{rest:?}");
}

#[tokio::test]
async fn the_api_describes_itself() {
    let service = Service::start(memory()).await;
    service.put("/v1/apps/web", WEB).await;
    let (_, health) = service.get("/health").await;
    assert_eq!(health, json!({"connected": false, "apps": 1}));
    let (status, _) = service.get("/v1/apps/web/endpoints").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "no endpoints, as no agent is known yet");
    let (_, metrics) = service.get("/metrics").await;
    assert!(metrics.as_str().unwrap().contains("divvy_service_instances_wanted{app=\"web\"} 3\n"));
    let (_, document) = service.get("/openapi.json").await;
    for path in document["paths"].as_object().unwrap().keys() {
        let (status, answer) = service.answer(service.ask(Method::PATCH, &path.replace("{id}", "web"))).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{path} is described and not there: {answer}");
    }
}

#[tokio::test]
async fn only_what_waits_is_listed_where_that_is_asked_for() {
    let service = Service::start(memory()).await;
    let spare = WEB.replace("id = \"web\"", "id = \"spare\"").replace("instances = 3", "instances = 0");
    service.put("/v1/apps/web", WEB).await;
    service.put("/v1/apps/spare", &spare).await;
    assert_eq!(service.get("/v1/apps").await.1.as_array().map(Vec::len), Some(2));
    let waiting = json!([{"id": "web", "waiting": ["the master cannot be reached"]}]);
    assert_eq!(service.get("/v1/apps?waiting=true").await, (StatusCode::OK, waiting));
    assert_eq!(service.get("/v1/apps?waiting=maybe").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_file_that_is_wrong_is_refused_before_anybody_is_asked() {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("web.toml");
    std::fs::write(&file, WEB.replace("port = \"http\"", "port = \"https\"")).unwrap();
    let arguments = ["divvy", "apply", file.to_str().unwrap(), "--wait"];
    let command = <Cli as clap::Parser>::parse_from(arguments).command;
    let context = Context::new("127.0.0.1:1", Output::Table).unwrap();
    let error = command.run(&context).await.unwrap_err();
    assert!(
        matches!(&error, CliError::Usage(text) if text.contains(
            "task.health[0].http.port: \"https\" is not valid: expected one of the task's ports: http; nothing was changed"
        )),
        "{error}"
    );
}
