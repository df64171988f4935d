//! What a task wrote to stdout and stderr: all that is kept of it, its end, what came since a time, or on and on until the task
//! has ended and all is read.
//!
//! Not here: how a log lies in its files; see [`crate::log`] and [`super::segments`].

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use divvy_proto::Timestamp;
use futures::Stream;
use serde::Deserialize;

use super::files::{blocking, refusal};
use super::segments::{Log, Position};
use super::{Api, Refusal, task_key};
use crate::supervisor::TaskKey;

/// How often a log that is followed is looked at. There is no event for "somebody appended" that is cheaper at this pace.
const LOOK: Duration = Duration::from_millis(100);

/// Where in the log the answer begins: so that a client whose line broke off can go on from where it was.
pub(super) const OFFSET: &str = "divvy-log-offset";

#[derive(Debug, Deserialize)]
pub(super) struct LogsQuery {
    #[serde(default)]
    stream: LogStream,
    /// Go on until the task has ended.
    #[serde(default)]
    follow: bool,
    /// Begin so many lines before the end.
    tail: Option<usize>,
    /// Begin with what was written at this time or later, to the second.
    since: Option<Timestamp>,
    /// Begin at this byte of the log, or the first after it that is kept. Not together with `tail` and `since`.
    offset: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LogStream {
    #[default]
    Stdout,
    Stderr,
}

impl LogStream {
    const fn file_name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

pub(super) async fn logs(
    State(api): State<Api>,
    Path(task): Path<(String, String)>,
    query: Result<Query<LogsQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(query) = query.map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.body_text()))?;
    if query.offset.is_some() && (query.tail.is_some() || query.since.is_some()) {
        return Err(Refusal(
            StatusCode::BAD_REQUEST,
            "tail or since and offset exclude each other".to_owned(),
        ));
    }
    let key = task_key(task)?;
    let name = query.stream.file_name();
    let log = Log { sandbox: api.sandboxes.path(&key), name };
    let (opened, follow) = (log.clone(), query.follow);
    let at = match blocking(move || start(&opened, &query)).await {
        Ok((at, until)) => Some((at, until)),
        // Its container is being made, and the log comes with it.
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_live(&api, &key) => None,
        Err(error) => return Err(refusal(name, &error)),
    };
    let offset = at.as_ref().map_or(0, |(at, _)| at.offset).to_string();
    let until = at.as_ref().filter(|_| !follow).map(|(_, until)| *until);
    let reader = Reader { api, key, log, at: at.map(|(at, _)| at), until, follow };
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::HeaderName::from_static(OFFSET), offset),
    ];
    Ok((headers, Body::from_stream(reader.into_stream())).into_response())
}

/// Where to begin, and where the log ends by now.
fn start(log: &Log, query: &LogsQuery) -> io::Result<(Position, u64)> {
    let segments = log.segments()?;
    let mut start = query.offset.unwrap_or(0);
    if let Some(lines) = query.tail {
        start = start.max(segments.start_of_tail(lines)?);
    }
    if let Some(time) = query.since {
        start = start.max(segments.start_of_time(log, time)?);
    }
    let end = segments.end();
    Ok((segments.position(start), end))
}

fn is_live(api: &Api, key: &TaskKey) -> bool {
    api.live.borrow().contains_key(key)
}

/// Reads a log piece by piece, as fast as the reader at the other end takes it.
struct Reader {
    api: Api,
    key: TaskKey,
    log: Log,
    at: Option<Position>,
    /// Who does not follow gets what was there when asked; a task that writes faster than it is read would have no end.
    until: Option<u64>,
    follow: bool,
}

impl Reader {
    fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> {
        futures::stream::unfold(Some(self), |reader| async move {
            let mut reader = reader?;
            match reader.next().await.transpose()? {
                Ok(piece) => Some((Ok(piece), Some(reader))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// The next piece; none at the end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            // Asked before reading: what was written before the end is then certainly read.
            let goes_on = self.follow && is_live(&self.api, &self.key);
            let piece = self.read().await?;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
            if !goes_on {
                return Ok(None);
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                // The answer breaks off rather than ends: whoever follows asks again.
                () = self.api.stop.cancelled() => return Err(io::Error::other("the agent stops")),
            }
        }
    }

    async fn read(&mut self) -> io::Result<Bytes> {
        let (at, log, until) = (self.at.take(), self.log.clone(), self.until);
        let (at, piece) = blocking(move || {
            let mut at = match at {
                Some(at) => at,
                None => match log.segments() {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((None, Bytes::new())),
                    segments => segments?.position(0),
                },
            };
            let most = until.map_or(u64::MAX, |until| until.saturating_sub(at.offset));
            let piece = at.read(&log, most)?;
            Ok((Some(at), Bytes::from(piece)))
        })
        .await?;
        self.at = at;
        Ok(piece)
    }
}
