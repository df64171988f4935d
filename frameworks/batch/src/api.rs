//! The REST API: requests become commands to the planner and looks at it; nothing is decided here.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use divvy_sdk::proto::api::Problem;
use divvy_sdk::spec::{Format, SpecError};
use divvy_sdk::{Actions, Handle, Stopped, View, placement};
use futures::Stream;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::file::JobFile;
use crate::planner::{Counts, JobId, JobSpec, JobState, JobStatus, JobSummary, Planner, Refusal};
use crate::serve::Watched;

/// Largest job file (Nomad keeps sources up to 1 MB).
const MAX_BODY: usize = 1 << 20;
/// A comment is sent after so long without an event, so that both sides notice a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What all requests share.
#[derive(Clone)]
pub(crate) struct Api {
    handle: Handle<Watched>,
    changes: watch::Receiver<u64>,
    stop: CancellationToken,
}

/// The routes.
pub(crate) fn router(api: Api) -> axum::Router {
    axum::Router::new()
        .route("/v1/jobs", get(list).post(submit))
        .route("/v1/jobs/{id}", get(status).delete(remove))
        .route("/v1/jobs/{id}/cancel", post(cancel))
        .route("/v1/jobs/{id}/events", get(events))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(openapi))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(api)
}

/// A request that was not carried out, and why.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was sent is not what was expected.
    Bad(StatusCode, String),
    /// The planner refused.
    Refused(Refusal),
    /// The framework is stopping.
    Stopped,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Stopped> for Failure {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<SpecError> for Failure {
    fn from(error: SpecError) -> Self {
        Self::Bad(StatusCode::BAD_REQUEST, error.to_string())
    }
}

impl From<BytesRejection> for Failure {
    fn from(rejection: BytesRejection) -> Self {
        Self::Bad(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self::Bad(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, error) = match self {
            Self::Bad(status, error) => (status, error),
            Self::Refused(refusal @ Refusal::NoJob(_)) => (StatusCode::NOT_FOUND, refusal.to_string()),
            Self::Refused(refusal) => (StatusCode::CONFLICT, refusal.to_string()),
            Self::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "the batch framework is stopping".to_owned()),
        };
        (status, Json(Problem { error })).into_response()
    }
}

impl Api {
    pub(crate) fn new(
        handle: Handle<Watched>,
        changes: watch::Receiver<u64>,
        stop: CancellationToken,
    ) -> Self {
        Self { handle, changes, stop }
    }

    async fn look<R: Send + 'static>(
        &self,
        look: impl FnOnce(&Planner, &View) -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        self.handle.read(move |watched, view| look(&watched.planner, view)).await
    }

    /// A command, carried out whole and durable when this returns, or refused.
    async fn command<R: Send + 'static>(
        &self,
        command: impl FnOnce(&mut Planner, &View) -> (Result<R, Refusal>, Actions) + Send + 'static,
    ) -> Result<R, Failure> {
        Ok(self.handle.update(move |watched, view| command(&mut watched.planner, view)).await??)
    }

    async fn status(&self, id: JobId) -> Result<JobStatus, Failure> {
        let name = id.to_string();
        let status = self.look(move |planner, view| planner.status(&id, view)).await?;
        Ok(status.ok_or(Refusal::NoJob(name))?)
    }

    async fn summary(&self, id: JobId) -> Result<JobSummary, Failure> {
        let name = id.to_string();
        let summary = self.look(move |planner, view| planner.summary(&id, view)).await?;
        Ok(summary.ok_or(Refusal::NoJob(name))?)
    }
}

/// The job that a path names; text that cannot be a name is no job's.
fn job_id(text: &str) -> Result<JobId, Refusal> {
    text.parse().map_err(|_| Refusal::NoJob(text.to_owned()))
}

async fn list(State(api): State<Api>) -> Result<Json<Vec<JobSummary>>, Failure> {
    Ok(Json(api.look(Planner::list).await?))
}

/// What `POST /v1/jobs?dry_run=true` answers: the job as it was understood, and where its tasks could go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DryRun {
    /// The job with all defaults filled in.
    pub(crate) job: JobSpec,
    /// Whether and where there is room, for people.
    pub(crate) placement: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubmitQuery {
    #[serde(default)]
    dry_run: bool,
}

async fn submit(
    State(api): State<Api>,
    query: Result<Query<SubmitQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let (Query(SubmitQuery { dry_run }), body) = (query?, body?);
    let text = std::str::from_utf8(&body).map_err(|_| {
        let error = "the body is not UTF-8: expected a job in TOML or JSON".to_owned();
        Failure::Bad(StatusCode::BAD_REQUEST, error)
    })?;
    let job = JobFile::parse(text, format_of(&headers, text))?;
    if dry_run {
        return Ok(Json(try_out(&api, job).await?).into_response());
    }
    let id = job.id.clone();
    api.command(move |planner, view| planner.submit(job, view.now())).await?;
    Ok((StatusCode::CREATED, Json(api.status(id).await?)).into_response())
}

async fn try_out(api: &Api, job: JobSpec) -> Result<DryRun, Failure> {
    let look = move |planner: &Planner, view: &View| {
        planner.may_submit(&job.id)?;
        let placement = placement::explain(&job.task, &[], view).summary;
        Ok::<_, Refusal>(DryRun { job, placement })
    };
    Ok(api.look(look).await??)
}

/// What the content type says, or what it looks like where that says neither.
fn format_of(headers: &HeaderMap, text: &str) -> Format {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match (kind.contains("json"), kind.contains("toml")) {
        (true, _) => Format::Json,
        (_, true) => Format::Toml,
        _ if text.trim_start().starts_with('{') => Format::Json,
        _ => Format::Toml,
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusQuery {
    #[serde(default = "yes")]
    tasks: bool,
}

fn yes() -> bool {
    true
}

/// With `?tasks=false`, only the summary: that of a large job is as short as any.
async fn status(
    State(api): State<Api>,
    Path(id): Path<String>,
    query: Result<Query<StatusQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let (id, Query(StatusQuery { tasks })) = (job_id(&id)?, query?);
    Ok(match tasks {
        true => Json(api.status(id).await?).into_response(),
        false => Json(api.summary(id).await?).into_response(),
    })
}

/// Answers at once; the job has ended when its tasks have.
async fn cancel(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<JobStatus>, Failure> {
    let id = job_id(&id)?;
    let job = id.clone();
    api.command(move |planner, _| planner.cancel(&job)).await?;
    Ok(Json(api.status(id).await?))
}

async fn remove(State(api): State<Api>, Path(id): Path<String>) -> Result<StatusCode, Failure> {
    let id = job_id(&id)?;
    api.command(move |planner, _| planner.remove(&id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `status` events with the job's summary: the first at once, then one for each change; `gone` when the job was removed. A
/// slow reader is not sent what it missed, but what is.
async fn events(State(api): State<Api>, Path(id): Path<String>) -> Result<Response, Failure> {
    let id = job_id(&id)?;
    api.summary(id.clone()).await?;
    Ok(Sse::new(follow(api, id)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

fn follow(api: Api, id: JobId) -> impl Stream<Item = Result<Event, Infallible>> + Send + 'static {
    let stop = api.stop.clone();
    let start = Some((api.changes.clone(), None));
    let events = futures::stream::unfold(start, move |state| {
        let (api, id) = (api.clone(), id.clone());
        async move {
            let (mut changes, sent) = state?;
            loop {
                changes.borrow_and_update();
                match api.summary(id.clone()).await {
                    Ok(now) if sent.as_ref() == Some(&now) => {}
                    Ok(now) => {
                        let event = Event::default().event("status").json_data(&now).ok()?;
                        return Some((Ok(event), Some((changes, Some(now)))));
                    }
                    Err(Failure::Refused(_)) => {
                        return Some((Ok(Event::default().event("gone").data("{}")), None));
                    }
                    Err(_) => return None,
                }
                changes.changed().await.ok()?;
            }
        }
    });
    futures::StreamExt::take_until(events, stop.cancelled_owned())
}

/// Whether the framework works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Health {
    /// Whether the master can be reached.
    connected: bool,
    /// How many jobs are kept.
    jobs: usize,
}

async fn health(State(api): State<Api>) -> Result<Json<Health>, Failure> {
    let look = |planner: &Planner, view: &View| {
        let jobs = planner.totals().0.values().sum();
        Health { connected: view.connected(), jobs }
    };
    Ok(Json(api.look(look).await?))
}

/// In the text format of Prometheus.
async fn metrics(State(api): State<Api>) -> Result<Response, Failure> {
    let (jobs, indexes) = api.look(|planner, _| planner.totals()).await?;
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((kind, render_metrics(jobs, indexes)).into_response())
}

fn render_metrics(jobs: impl IntoIterator<Item = (JobState, usize)>, indexes: Counts) -> String {
    let mut text = String::from("# HELP divvy_batch_jobs Jobs by state.\n# TYPE divvy_batch_jobs gauge\n");
    for (state, count) in jobs {
        let _ = writeln!(text, "divvy_batch_jobs{{state=\"{state}\"}} {count}");
    }
    text.push_str("# HELP divvy_batch_indexes Tasks of all jobs by where they stand.\n");
    text.push_str("# TYPE divvy_batch_indexes gauge\n");
    let Counts { pending, running, succeeded, failed, cancelled } = indexes;
    let counts = [
        ("pending", pending),
        ("running", running),
        ("succeeded", succeeded),
        ("failed", failed),
        ("cancelled", cancelled),
    ];
    for (state, count) in counts {
        let _ = writeln!(text, "divvy_batch_indexes{{state=\"{state}\"}} {count}");
    }
    text
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("openapi.json")).into_response()
}

async fn unknown_path(uri: Uri) -> Failure {
    let error = format!("there is nothing at {}; /openapi.json lists what there is", uri.path());
    Failure::Bad(StatusCode::NOT_FOUND, error)
}

async fn wrong_method(method: Method, uri: Uri) -> Failure {
    let error = format!("{method} cannot be asked of {}; /openapi.json lists what can", uri.path());
    Failure::Bad(StatusCode::METHOD_NOT_ALLOWED, error)
}
