//! The images of this agent: listed, pulled with a word on how far it is, removed, collected.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use divvy_proto::api::{AgentImage, ImageCollection, ImageOrder, PullEvent, RemovedImages};
use divvy_proto::container::ImageName;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;

use super::{Api, Refusal};
use crate::image::{ImageError, Progress};

/// So many words on a pull may wait for whoever listens.
const WORDS: usize = 64;

pub(super) async fn list(State(api): State<Api>) -> Json<Vec<AgentImage>> {
    Json(api.images.list())
}

/// Answers with one object a line while it pulls. Whoever hangs up stops the pull.
pub(super) async fn pull(
    State(api): State<Api>,
    headers: HeaderMap,
    order: Result<Json<ImageOrder>, JsonRejection>,
) -> Result<Response, Refusal> {
    comes_from_a_program(&headers)?;
    let name: ImageName = said(order)?.image.parse()?;
    let (teller, words) = mpsc::channel(WORDS);
    let images = api.images.clone();
    let pull = AbortOnDropHandle::new(tokio::spawn(async move {
        let pulled = images.pull(&name, &Progress(Some(teller.clone()))).await;
        let end = match pulled {
            Ok(image) => PullEvent::Done { image },
            Err(error) => PullEvent::Failed { error: format!("{name}: {error}") },
        };
        drop(teller.send(end).await);
    }));
    let line = move |word: PullEvent| {
        let _goes_on = &pull;
        let mut line = serde_json::to_vec(&word).unwrap_or_default();
        line.push(b'\n');
        Ok::<_, Infallible>(Bytes::from(line))
    };
    let lines = ReceiverStream::new(words).map(line).take_until(api.stop.clone().cancelled_owned());
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

pub(super) async fn remove(
    State(api): State<Api>,
    headers: HeaderMap,
    order: Result<Json<ImageOrder>, JsonRejection>,
) -> Result<Json<RemovedImages>, Refusal> {
    comes_from_a_program(&headers)?;
    Ok(Json(api.images.remove(said(order)?.image).await?))
}

pub(super) async fn collect(
    State(api): State<Api>,
    headers: HeaderMap,
    order: Result<Json<ImageCollection>, JsonRejection>,
) -> Result<Json<RemovedImages>, Refusal> {
    comes_from_a_program(&headers)?;
    let unused = Duration::from_secs(said(order)?.unused_for);
    Ok(Json(api.images.collect(unused).await?))
}

/// A page of a browser could reach an agent on loopback, too; the master, which asks for others, has looked at where they come from.
fn comes_from_a_program(headers: &HeaderMap) -> Result<(), Refusal> {
    match headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site") {
        true => Err(Refusal(StatusCode::FORBIDDEN, "no page may change images here".to_owned())),
        false => Ok(()),
    }
}

fn said<T>(body: Result<Json<T>, JsonRejection>) -> Result<T, Refusal> {
    let Json(said) = body.map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.body_text()))?;
    Ok(said)
}

impl From<ImageError> for Refusal {
    fn from(error: ImageError) -> Self {
        let status = match error {
            ImageError::NotFound(_) => StatusCode::NOT_FOUND,
            ImageError::InUse { .. } => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}
