//! Commands that somebody runs inside a task's container, typing and reading along. The body of the request goes to the command's
//! helper as it comes, and what the helper says is the body of the answer: see [`divvy_proto::exec`] for the words. Nothing is
//! collected here; whoever reads slowly slows the command.

use std::sync::LazyLock;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use divvy_proto::Invalid;
use divvy_proto::exec::{CONTENT_TYPE, ExecStart, Frames, ToCommand};
use futures::{StreamExt, TryStreamExt};
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::io::ReaderStream;
use tokio_util::task::AbortOnDropHandle;

use super::{Api, Refusal, live_container, task_key};

/// So many commands are attended at once.
const MOST: usize = 256;

/// How long a client may take to say what is to be run.
const START: Duration = Duration::from_secs(10);

/// How long a client may take to hang up when it has been told the end. Hanging up first could cut off what is under way to it.
const LINGER: Duration = Duration::from_secs(10);

static PERMITS: LazyLock<std::sync::Arc<Semaphore>> =
    LazyLock::new(|| std::sync::Arc::new(Semaphore::new(MOST)));

pub(super) async fn exec(
    State(api): State<Api>,
    Path(task): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    comes_from_a_program(request.headers())?;
    let container = live_container(&api, &task_key(task)?)?;
    let permit = PERMITS.clone().try_acquire_owned().map_err(|_| {
        Refusal(StatusCode::TOO_MANY_REQUESTS, format!("{MOST} commands are attended here already"))
    })?;
    let mut body = request.into_body().into_data_stream();
    let late = |_| Refusal(StatusCode::REQUEST_TIMEOUT, "no word of what is to be run".to_owned());
    let (start, rest) = tokio::time::timeout(START, first(&mut body)).await.map_err(late)??;
    let attached = api.runtime.attach(&container, start).await;
    let attached = attached.map_err(|error| Refusal(StatusCode::CONFLICT, error.to_string()))?;
    let feeding = AbortOnDropHandle::new(tokio::spawn(feed(body, rest, attached.input, permit)));
    let hang_up = async move {
        let _ = tokio::time::timeout(LINGER, feeding).await;
    };
    let hang_up = futures::stream::once(hang_up).filter_map(async |()| None);
    let words = ReaderStream::new(attached.output).chain(hang_up);
    let headers = [(header::CONTENT_TYPE, CONTENT_TYPE), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    Ok((headers, Body::from_stream(words)).into_response())
}

/// A page of a browser could reach an agent on loopback, too; the master, which asks for others, has looked at where they come from.
fn comes_from_a_program(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site") {
        return Err(Refusal(StatusCode::FORBIDDEN, "no page may run commands here".to_owned()));
    }
    match headers.get(header::CONTENT_TYPE).map(|kind| kind == CONTENT_TYPE) {
        Some(true) => Ok(()),
        _ => Err(Refusal(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("the content type must be {CONTENT_TYPE}: use `divvy exec`"),
        )),
    }
}

/// What is to be run, and what came with it.
async fn first(body: &mut BodyDataStream) -> Result<(ExecStart, Vec<u8>), Refusal> {
    let mut frames = Frames::default();
    loop {
        if let Some(frame) = frames.take()? {
            return match ToCommand::decode(&frame)? {
                ToCommand::Start(start) => Ok((checked(start)?, frames.rest())),
                _ => Err(Invalid::missing("frame", "first what is to be run").into()),
            };
        }
        let piece = body.try_next().await.ok().flatten();
        frames.push(&piece.ok_or_else(|| Invalid::missing("frame", "first what is to be run"))?);
    }
}

fn checked(start: ExecStart) -> Result<ExecStart, Invalid> {
    if start.argv.first().is_none_or(String::is_empty) {
        return Err(Invalid::missing("argv", "a program"));
    }
    if let Some(text) = start.argv.iter().find(|text| text.contains('\0')) {
        return Err(Invalid::new("argv", text, "no zero byte"));
    }
    let bad = |(name, value): &(&String, &String)| {
        name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
    };
    match start.env.iter().find(bad) {
        Some((name, _)) => Err(Invalid::new("env", name, "a name without = and no zero byte")),
        None => Ok(start),
    }
}

/// To the helper, until either side is gone. The helper ends the command when its input ends. The rest of the body is read and
/// dropped: the client hangs up when it has been told the end.
async fn feed(mut body: BodyDataStream, rest: Vec<u8>, input: ChildStdin, _permit: OwnedSemaphorePermit) {
    let mut input = Some(input);
    let mut next = Some(Ok(bytes::Bytes::from(rest)));
    while let Some(Ok(piece)) = next {
        if let Some(pipe) = &mut input
            && pipe.write_all(&piece).await.is_err()
        {
            input = None;
        }
        next = body.next().await;
    }
}
