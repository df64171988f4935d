//! What agents and frameworks answer through the master.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::routing::any;
use divvy_proto::agent::AgentInfo;
use divvy_proto::api::{self, FrameworkState};
use divvy_proto::scheduler::FrameworkInfo;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::harness::{Cluster, Framework, agent_info, framework_info, running_task, within};

/// A server that answers every request with what it was asked, on a free port.
async fn echo() -> String {
    let app = Router::new().fallback(any(async |request: Request| {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        format!("{} {} {}", parts.method, parts.uri, String::from_utf8_lossy(&body))
    }));
    serve(app).await
}

async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, app).await });
    url
}

#[tokio::test]
async fn an_agent_is_asked_with_the_same_path_and_query() {
    let cluster = Cluster::start().await;
    let agent = AgentInfo { url: echo().await, ..agent_info("agent-1") };
    let (_agent, framework) = running_task(&cluster, agent, "t1").await;
    let path = format!("/api/v1/tasks/{}/t1/files/a%20b/c?offset=5", framework.id);
    let answer = cluster.answer(cluster.http.get(cluster.url(&path))).await;
    let policy = answer.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("sandbox;"), "a task's file is no page of the master: {policy}");
    assert_eq!(answer.text().await.unwrap(), format!("GET {path} "));
}

#[tokio::test]
async fn a_stream_passes_piece_by_piece_and_ends_with_its_reader() {
    let (pieces, body) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body = Arc::new(Mutex::new(Some(ReceiverStream::new(body))));
    let app = Router::new().fallback(any(async move || {
        let body = body.lock().unwrap().take().unwrap();
        Body::from_stream(body)
    }));
    let cluster = Cluster::start().await;
    let agent = AgentInfo { url: serve(app).await, ..agent_info("agent-1") };
    let (_agent, framework) = running_task(&cluster, agent, "t1").await;
    let url = cluster.url(&format!("/api/v1/tasks/{}/t1/logs?follow=true", framework.id));
    let mut log = cluster.answer(cluster.http.get(url)).await.bytes_stream();
    for piece in ["one\n", "two\n"] {
        pieces.send(Ok(Bytes::from_static(piece.as_bytes()))).await.unwrap();
        assert_eq!(within("a piece", log.next()).await.unwrap().unwrap(), piece);
    }
    drop(log);
    within("the agent to notice", async {
        while pieces.send(Ok(Bytes::from_static(b"more"))).await.is_ok() {}
    })
    .await;
}

#[tokio::test]
async fn a_frameworks_own_api_is_reached_by_its_name() {
    let cluster = Cluster::start().await;
    let info = FrameworkInfo { url: Some(echo().await), ..framework_info("service") };
    let framework = Framework::subscribe(&cluster, info).await;
    let post = cluster.http.post(cluster.url("/frameworks/service/api/v1/apps?x=1")).body("hello");
    assert_eq!(cluster.answer(post).await.text().await.unwrap(), "POST /api/v1/apps?x=1 hello");

    drop(framework);
    cluster
        .until("/api/v1/frameworks", |all: &Vec<api::Framework>| {
            all.iter().all(|framework| framework.state == FrameworkState::Disconnected)
        })
        .await;
    let get = |path: &str| cluster.http.get(cluster.url(path));
    let (status, error) = cluster.refusal(get("/frameworks/service/api/v1/apps")).await;
    assert!(status == 502 && error.contains("is not connected since"), "{error}");
    let (status, error) = cluster.refusal(get("/frameworks/batch/api/v1/jobs")).await;
    assert!(status == 502 && error.contains("no framework named batch is known"), "{error}");
}

#[tokio::test]
async fn what_a_forgotten_task_wrote_is_asked_of_the_agent_that_is_named() {
    let cluster = Cluster::start().await;
    let agent = AgentInfo { url: echo().await, ..agent_info("agent-1") };
    let (_agent, framework) = running_task(&cluster, agent, "t1").await;
    let agents: Vec<api::Agent> = cluster.get("/api/v1/agents").await;
    let path = |agent: &str| format!("/api/v1/tasks/{}/t0/logs?agent={agent}", framework.id);
    let known = path(agents[0].id.as_str());
    let answer = cluster.answer(cluster.http.get(cluster.url(&known))).await;
    assert_eq!(answer.text().await.unwrap(), format!("GET {known} "));
    let (status, error) = cluster.refusal(cluster.http.get(cluster.url(&path("a9-9")))).await;
    assert_eq!((status, error.as_str()), (502, "the agent of task t0, a9-9, is no longer known"));
}

#[tokio::test]
async fn an_agent_that_does_not_answer_is_named() {
    let cluster = Cluster::start().await;
    let (_agent, framework) = running_task(&cluster, agent_info("agent-1"), "t1").await;
    let path = format!("/api/v1/tasks/{}/t1/logs", framework.id);
    let (status, error) = cluster.refusal(cluster.http.get(cluster.url(&path))).await;
    assert_eq!(status, 502);
    assert!(error.starts_with("agent agent-1 at http://127.0.0.1:9 did not answer: "), "{error}");
}
