//! Streams of server-sent events: an app's status, and its endpoints. Each event carries the whole new value, and the first
//! comes at once, so a reader that was cut off begins again and has missed nothing that still holds.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use serde::Serialize;

use super::{Api, Failure, app_id, endpoints_of};

/// A comment is sent after so long without an event, so that both sides notice a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// `GET /v1/apps/{id}/events`: `status` events, then one `gone` when the app has been removed.
pub(super) async fn events(State(api): State<Api>, Path(id): Path<String>) -> Result<Response, Failure> {
    let id = app_id(&id)?;
    api.status(id.clone()).await?;
    let stream = follow(api.clone(), "status", move || {
        let (api, id) = (api.clone(), id.clone());
        async move { api.status(id).await }
    });
    Ok(stream_of(stream))
}

/// `GET /v1/apps/{id}/endpoints`: once, or as `endpoints` events where `Accept: text/event-stream` asks for it.
pub(super) async fn endpoints(
    State(api): State<Api>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let id = app_id(&id)?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !accept.contains("text/event-stream") {
        return Ok(Json(endpoints_of(&api, &id).await?).into_response());
    }
    api.status(id.clone()).await?;
    let stream = follow(api.clone(), "endpoints", move || {
        let (api, id) = (api.clone(), id.clone());
        async move { endpoints_of(&api, &id).await }
    });
    Ok(stream_of(stream))
}

fn stream_of(stream: impl Stream<Item = Result<Event, Infallible>> + Send + 'static) -> Response {
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

/// Looks whenever the planner has, and sends what differs from what was sent last. A slow reader is not sent what it missed,
/// but what is.
fn follow<T, F>(
    api: Api,
    name: &'static str,
    look: impl Fn() -> F + Send + 'static,
) -> impl Stream<Item = Result<Event, Infallible>> + Send + 'static
where
    T: Serialize + PartialEq + Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send,
{
    let Api { changes, stop, .. } = api;
    let start = Some((changes, None, look));
    let events = futures::stream::unfold(start, move |state| async move {
        let (mut changes, sent, look) = state?;
        loop {
            changes.borrow_and_update();
            match look().await {
                Ok(value) if sent.as_ref() == Some(&value) => {}
                Ok(value) => {
                    let event = Event::default().event(name).json_data(&value).ok()?;
                    return Some((Ok(event), Some((changes, Some(value), look))));
                }
                Err(Failure::Refused(_)) => {
                    return Some((Ok(Event::default().event("gone").data("{}")), None));
                }
                Err(Failure::NoInventory) => {}
                Err(_) => return None,
            }
            changes.changed().await.ok()?;
        }
    });
    futures::StreamExt::take_until(events, stop.cancelled_owned())
}
