//! The REST API: requests become commands to the planner and looks at it; nothing is decided here.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use divvy_sdk::hosted::Hosted;
use divvy_sdk::rest::{self, Document, Json, ListQuery, Metrics, Refused};
use divvy_sdk::{View, placement};
use serde::{Deserialize, Serialize};

use crate::file::JobFile;
use crate::planner::{Counts, JobId, JobSpec, JobState, JobStatus, JobSummary, Planner, Refusal};

/// What all requests share.
type Api = State<Hosted<Planner>>;

/// The routes.
pub(crate) fn router(hosted: Hosted<Planner>) -> axum::Router {
    let routes = axum::Router::new()
        .route("/v1/jobs", get(list).post(submit))
        .route("/v1/jobs/{id}", get(status).delete(remove))
        .route("/v1/jobs/{id}/cancel", post(cancel))
        .route("/v1/jobs/{id}/events", get(events))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(openapi));
    rest::complete(routes).with_state(hosted)
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoJob(_) => Self::not_found(refusal),
            Refusal::Invalid(invalid) => invalid.into(),
            _ => Self::conflict(refusal),
        }
    }
}

async fn status_of(hosted: &Hosted<Planner>, id: JobId) -> Result<JobStatus, Refused> {
    hosted.find(Refusal::NoJob(id.to_string()), move |planner, view| planner.status(&id, view)).await
}

async fn summary_of(hosted: &Hosted<Planner>, id: JobId) -> Result<JobSummary, Refused> {
    hosted.find(Refusal::NoJob(id.to_string()), move |planner, view| planner.summary(&id, view)).await
}

/// The job that a path names; text that cannot be a name is no job's.
fn job_id(text: &str) -> Result<JobId, Refusal> {
    text.parse().map_err(|_| Refusal::NoJob(text.to_owned()))
}

/// With `?waiting=true`, only the jobs that wait, and why.
async fn list(
    State(hosted): Api,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Refused> {
    hosted.list(query, Planner::list, Planner::waiting).await
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
    State(hosted): Api,
    query: Result<Query<SubmitQuery>, QueryRejection>,
    document: Document,
) -> Result<Response, Refused> {
    let Query(SubmitQuery { dry_run }) = query?;
    let job = JobFile::parse(&document.text, document.format)?;
    if dry_run {
        return Ok(Json(try_out(&hosted, job).await?).into_response());
    }
    let id = job.id.clone();
    let submit = move |planner: &mut Planner, view: &View| {
        view.check_role(job.task.role.as_ref()).map_err(Refusal::from)?;
        planner.submit(job, view.now())
    };
    hosted.command(submit).await?;
    Ok((StatusCode::CREATED, Json(status_of(&hosted, id).await?)).into_response())
}

async fn try_out(hosted: &Hosted<Planner>, job: JobSpec) -> Result<DryRun, Refused> {
    let look = move |planner: &Planner, view: &View| {
        planner.may_submit(&job.id)?;
        view.check_role(job.task.role.as_ref())?;
        let placement = placement::explain(&job.task, &[], view).summary;
        Ok::<_, Refusal>(DryRun { job, placement })
    };
    Ok(hosted.look(look).await??)
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
    State(hosted): Api,
    Path(id): Path<String>,
    query: Result<Query<StatusQuery>, QueryRejection>,
) -> Result<Response, Refused> {
    let (id, Query(StatusQuery { tasks })) = (job_id(&id)?, query?);
    Ok(match tasks {
        true => Json(status_of(&hosted, id).await?).into_response(),
        false => Json(summary_of(&hosted, id).await?).into_response(),
    })
}

/// Answers at once; the job has ended when its tasks have.
async fn cancel(State(hosted): Api, Path(id): Path<String>) -> Result<Json<JobStatus>, Refused> {
    let id = job_id(&id)?;
    let job = id.clone();
    hosted.command(move |planner, _| planner.cancel(&job).map(|actions| ((), actions))).await?;
    Ok(Json(status_of(&hosted, id).await?))
}

async fn remove(State(hosted): Api, Path(id): Path<String>) -> Result<StatusCode, Refused> {
    let id = job_id(&id)?;
    hosted.command(move |planner, _| planner.remove(&id).map(|actions| ((), actions))).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `status` events with the job's summary: the first at once, then one for each change; `gone` when the job was removed.
async fn events(State(hosted): Api, Path(id): Path<String>) -> Result<Response, Refused> {
    let id = job_id(&id)?;
    summary_of(&hosted, id.clone()).await?;
    Ok(hosted.events("status", move |planner, view| planner.summary(&id, view).into()))
}

/// Whether the framework works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Health {
    /// Whether the master can be reached.
    connected: bool,
    /// How many jobs are kept.
    jobs: usize,
}

async fn health(State(hosted): Api) -> Result<Json<Health>, Refused> {
    let look = |planner: &Planner, view: &View| {
        let jobs = planner.totals().0.values().sum();
        Health { connected: view.connected(), jobs }
    };
    Ok(Json(hosted.look(look).await?))
}

async fn metrics(State(hosted): Api) -> Result<Metrics, Refused> {
    let (jobs, indexes) = hosted.look(|planner, _| planner.totals()).await?;
    Ok(metrics_of(jobs, indexes))
}

fn metrics_of(jobs: impl IntoIterator<Item = (JobState, usize)>, indexes: Counts) -> Metrics {
    let Counts { pending, running, succeeded, failed, cancelled } = indexes;
    let indexes = [
        ("pending", pending),
        ("running", running),
        ("succeeded", succeeded),
        ("failed", failed),
        ("cancelled", cancelled),
    ];
    Metrics::default().gauge("divvy_batch_jobs", "Jobs by state.", "state", jobs).gauge(
        "divvy_batch_indexes",
        "Tasks of all jobs by where they stand.",
        "state",
        indexes,
    )
}

async fn openapi() -> Response {
    rest::json_text(include_str!("openapi.json"))
}
