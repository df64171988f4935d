//! `GET /api/v1/events`: changes as server-sent events. The event name is the `kind` of a [`Change`], the data is its `data`,
//! the id increases. A reader that lags gets one event `lagged` with a `Problem` and is cut off; browsers
//! then connect again by themselves and begin with a new snapshot.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use divvy_proto::api::{Change, Problem};
use futures::{Stream, StreamExt};
use tokio::sync::broadcast::error::RecvError;

use super::extract::Asked;
use super::failure::Failure;
use super::views::Nothing;
use crate::shell::api::Api;
use crate::shell::changes::{Numbered, Subscription};

/// A comment goes to a silent stream so often, for the sake of what stands in between (usual idle limits: 30 s and more).
const KEEP_ALIVE: Duration = Duration::from_secs(10);

pub(super) async fn events(
    State(api): State<Api>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failure> {
    let (snapshot, subscription) = api.snapshot().await?;
    let first = Numbered::new(subscription.since, Change::Snapshot(Box::new(snapshot)));
    let first = futures::stream::once(async move { event(&first) });
    let stream = first.chain(later(subscription)).take_until(api.stop.cancelled_owned()).map(Ok);
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn later(subscription: Subscription) -> impl Stream<Item = Event> {
    futures::stream::unfold(Some(subscription.later), async |later| {
        let mut later = later?;
        match later.recv().await {
            Ok(numbered) => Some((event(&numbered), Some(later))),
            Err(RecvError::Lagged(missed)) => Some((lagged(missed), None)),
            Err(RecvError::Closed) => None,
        }
    })
}

fn event(numbered: &Numbered) -> Event {
    Event::default().event(numbered.kind()).id(numbered.number.to_string()).data(numbered.data())
}

fn lagged(missed: u64) -> Event {
    let error =
        format!("this reader fell behind and missed {missed} changes; connect again for a new snapshot");
    let data = serde_json::to_string(&Problem { error }).unwrap_or_default();
    Event::default().event("lagged").data(data)
}
