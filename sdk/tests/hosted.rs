//! A framework with a REST API, over its socket and without a master: looked at, changed, followed, restored.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use divvy_sdk::hosted::{Error, HostConfig, Hosted, Running, Seen};
use divvy_sdk::rest::{Document, Json, Refused, complete};
use divvy_sdk::{Actions, Offer, Scheduler, View};
use divvy_store::{Embedded, Store};

/// Keeps one number; it is not known while it is 0, and gone when it is 9.
struct Number(u8);

impl Scheduler for Number {
    fn reconcile(&mut self, _: &View, _: Vec<Offer>) -> Actions {
        Actions::none()
    }
}

impl Number {
    fn restore(stored: Vec<(String, Vec<u8>)>) -> Result<Self, String> {
        let number = stored.iter().find(|(key, _)| key == "number").map_or(&b"0"[..], |(_, value)| value);
        let text = String::from_utf8_lossy(number);
        text.parse().map(Self).map_err(|error| format!("{text}: {error}"))
    }

    fn set(&mut self, text: &str) -> Result<(u8, Actions), Refused> {
        let number = text.parse().map_err(Refused::invalid)?;
        if number < self.0 {
            return Err(Refused::conflict(format!("it is {} and only grows", self.0)));
        }
        let mut actions = Actions::none();
        actions.put("number", text.as_bytes().to_vec());
        Ok((std::mem::replace(&mut self.0, number), actions))
    }
}

async fn look(State(hosted): State<Hosted<Number>>) -> Result<Json<u8>, Refused> {
    let missing = Refused::not_found("nothing was set");
    Ok(Json(hosted.find(missing, |number, _| Some(number.0).filter(|number| *number > 0)).await?))
}

async fn set(State(hosted): State<Hosted<Number>>, body: Document) -> Result<Json<u8>, Refused> {
    Ok(Json(hosted.command(move |number, _| number.set(&body.text)).await?))
}

async fn follow(State(hosted): State<Hosted<Number>>) -> Response {
    hosted.events("number", |number, _| match number.0 {
        0 => Seen::Unknown,
        9 => Seen::Gone,
        number => Seen::Is(number),
    })
}

async fn start(store: &Arc<dyn Store>) -> Result<Running<Number>, Error> {
    let routes = |hosted| {
        let routes = axum::Router::new().route("/number", get(look).put(set)).route("/events", get(follow));
        complete(routes).with_state(hosted)
    };
    // Nothing listens on port 1.
    HostConfig::new("mine", "127.0.0.1:1", store.clone()).start(Number::restore, routes).await
}

fn memory() -> Arc<dyn Store> {
    Arc::new(Embedded::in_memory().unwrap())
}

/// Status and body of the answer.
async fn ask(running: &Running<Number>, method: &str, path: &str, body: &'static str) -> (u16, String) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}{path}", running.addr());
    let answer = http.request(method.parse().unwrap(), url).body(body).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn it_is_looked_at_and_changed_or_says_why_not() {
    let running = start(&memory()).await.unwrap();
    let mut answers = Vec::new();
    let requests = [
        ("GET", "/number", ""),
        ("PUT", "/number", "3"),
        ("PUT", "/number", "2"),
        ("PUT", "/number", "x"),
        ("GET", "/number", ""),
        ("GET", "/numbers", ""),
        ("POST", "/number", ""),
    ];
    for (method, path, body) in requests {
        answers.push(ask(&running, method, path, body).await);
    }
    let problem = |error: &str| format!("{{\"error\":\"{error}\"}}");
    let expected = [
        (404, problem("nothing was set")),
        (200, "0".to_owned()),
        (409, problem("it is 3 and only grows")),
        (400, problem("invalid digit found in string")),
        (200, "3".to_owned()),
        (404, problem("there is nothing at /numbers; /openapi.json lists what there is")),
        (405, problem("POST cannot be asked of /number; /openapi.json lists what can")),
    ];
    assert_eq!(answers, expected);
    running.shutdown().await;
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let store = memory();
    let running = start(&store).await.unwrap();
    ask(&running, "PUT", "/number", "7").await;
    running.shutdown().await;
    let running = start(&store).await.unwrap();
    assert_eq!(ask(&running, "GET", "/number", "").await, (200, "7".to_owned()));
}

#[tokio::test]
async fn changes_are_followed_from_when_something_is_known_until_it_is_gone() {
    let running = start(&memory()).await.unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut events = http.get(format!("http://{}/events", running.addr())).send().await.unwrap();
    ask(&running, "PUT", "/number", "5").await;
    let mut seen = String::new();
    while let Some(chunk) = events.chunk().await.unwrap() {
        seen += std::str::from_utf8(&chunk).unwrap();
        if seen.ends_with("data: 5\n\n") {
            ask(&running, "PUT", "/number", "9").await;
        }
    }
    assert_eq!(seen, "event: number\ndata: 5\n\nevent: gone\ndata: {}\n\n");
}

#[tokio::test]
async fn what_cannot_be_restored_or_bound_is_said_with_the_name() {
    let store = memory();
    let running = start(&store).await.unwrap();
    ask(&running, "PUT", "/number", "7").await;
    let taken = HostConfig { listen: running.addr(), ..HostConfig::new("other", "127.0.0.1:1", memory()) };
    let taken = taken.start(Number::restore, |_| axum::Router::new()).await.unwrap_err().to_string();
    assert!(taken.starts_with("framework other: listening on 127.0.0.1:"), "{taken}");
    running.shutdown().await;
    let refuse = |_| Err::<Number, _>("not mine");
    let config = HostConfig::new("mine", "127.0.0.1:1", store);
    let damaged = config.start(refuse, |_| axum::Router::new()).await.unwrap_err().to_string();
    assert_eq!(damaged, "framework mine: restoring its state: not mine");
}
