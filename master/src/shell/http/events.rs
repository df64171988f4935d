//! `GET /api/v1/events`: changes as server-sent events. The event name is the `kind` of a [`Change`], the data is its `data`,
//! the id its index. Without `since` the first is a snapshot; `?since=N` goes on after the change with index N, or is answered
//! 410. `?kind=task,agent` names the kinds that are wanted.
//!
//! A reader that falls behind gets one event `error`, with a `Problem` and the index that it had come to, and is cut off.
//! Browsers connect again by themselves, with that index as `Last-Event-ID`: where it is of no use any more they get a
//! snapshot, as a 410 would end their attempts for good.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use divvy_proto::api::{Change, Problem};
use futures::{Stream, StreamExt};
use serde::Deserialize;

use super::extract::Asked;
use super::failure::Failure;
use crate::shell::api::Api;
use crate::shell::changes::{FellBehind, Kinds, Numbered, Subscription};

/// A comment goes to a silent stream so often, for the sake of what stands in between (usual idle limits: 30 s and more).
const KEEP_ALIVE: Duration = Duration::from_secs(10);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Go on after the change with this index.
    since: Option<u64>,
    /// Only these kinds, joined by commas.
    kind: Option<String>,
}

pub(super) async fn events(
    State(api): State<Api>,
    Asked(wanted): Asked<Wanted>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failure> {
    let kinds = Kinds::parse(wanted.kind.as_deref())?;
    let (snapshot, subscription) = begin(&api, wanted.since, &kinds, &headers).await?;
    let first = snapshot.filter(|snapshot| kinds.want(snapshot.kind())).map(|snapshot| event(&snapshot));
    let later = later(subscription, kinds);
    let stream = futures::stream::iter(first).chain(later).take_until(api.stop.cancelled_owned()).map(Ok);
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// Where the reader left off, or a snapshot.
async fn begin(
    api: &Api,
    since: Option<u64>,
    kinds: &Kinds,
    headers: &HeaderMap,
) -> Result<(Option<Numbered>, Subscription), Failure> {
    if let Some(since) = since {
        let resumed = api.kernel.resume(since, kinds).await?;
        return resumed
            .map(|subscription| (None, subscription))
            .map_err(|why| Failure::new(StatusCode::GONE, why.to_string()));
    }
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    if let Some(last) = last
        && let Ok(subscription) = api.kernel.resume(last, kinds).await?
    {
        return Ok((None, subscription));
    }
    let (snapshot, subscription) = api.snapshot().await?;
    let snapshot = Numbered::new(subscription.last(), Change::Snapshot(Box::new(snapshot)));
    Ok((Some(snapshot), subscription))
}

fn later(subscription: Subscription, kinds: Kinds) -> impl Stream<Item = Event> {
    futures::stream::unfold((subscription, kinds), async |(mut subscription, kinds)| {
        loop {
            match subscription.next().await? {
                Ok(numbered) if !kinds.want(numbered.kind()) => {}
                Ok(numbered) => return Some((event(&numbered), (subscription, kinds))),
                Err(fell_behind) => return Some((error(&fell_behind), (subscription, kinds))),
            }
        }
    })
}

fn event(numbered: &Numbered) -> Event {
    Event::default().event(numbered.kind().name()).id(numbered.index.to_string()).data(numbered.data())
}

fn error(fell_behind: &FellBehind) -> Event {
    let data = serde_json::to_string(&Problem { error: fell_behind.to_string() }).unwrap_or_default();
    Event::default().event("error").id(fell_behind.last.to_string()).data(data)
}
