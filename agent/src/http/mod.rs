//! The agent's own HTTP API: logs and files of sandboxes, commands in containers and their live use, health, metrics.
//!
//! Not here: anything that changes which tasks there are. Such orders come from the master alone.

mod archive;
mod exec;
mod files;
mod images;
mod logs;
mod segments;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use divvy_proto::Invalid;
use divvy_proto::Timestamp;
use divvy_proto::api::{Problem, TaskUsage};
use divvy_proto::ids::{FrameworkId, Hostname, TaskId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::container::{ContainerId, Runtime, RuntimeError};
use crate::image::Images;
use crate::metrics::Metrics;
use crate::sandbox::Sandboxes;
use crate::supervisor::{LiveTask, TaskKey};

/// The tasks that have a container, as the main loop last saw them.
pub(crate) type Live = Arc<BTreeMap<TaskKey, LiveTask>>;

/// What the handlers know.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) sandboxes: Sandboxes,
    pub(crate) runtime: Runtime,
    pub(crate) live: watch::Receiver<Live>,
    /// The machine's name.
    pub(crate) hostname: Hostname,
    /// How long sandboxes of ended tasks are kept.
    pub(crate) retention: Duration,
    pub(crate) images: Images,
    pub(crate) metrics: Arc<Metrics>,
    /// Cancelled when the agent stops: streams that follow a log end.
    pub(crate) stop: CancellationToken,
}

/// Every route of the agent.
pub(crate) fn router(api: Api) -> Router {
    let task = "/api/v1/tasks/{framework_id}/{task_id}";
    Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route("/metrics", get(metrics))
        .route(&format!("{task}/exec"), post(exec::exec))
        .route("/api/v1/images", get(images::list))
        .route("/api/v1/images/pull", post(images::pull))
        .route("/api/v1/images/remove", post(images::remove))
        .route("/api/v1/images/gc", post(images::collect))
        .route(&format!("{task}/logs"), get(logs::logs))
        .route(&format!("{task}/usage"), get(usage))
        .route(&format!("{task}/files"), get(files::list))
        .route(&format!("{task}/files/content"), get(files::content))
        .route(&format!("{task}/files/archive"), get(archive::archive))
        .route("/api/v1/usage", get(usage_of_all))
        .with_state(api)
}

/// An answer that is not a success, with words that a person can act on.
#[derive(Debug)]
struct Refusal(StatusCode, String);

impl Refusal {
    fn not_found(what: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, what.into())
    }
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        Self(StatusCode::BAD_REQUEST, invalid.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(Problem { error: self.1 })).into_response()
    }
}

fn task_key((framework_id, task_id): (String, String)) -> Result<TaskKey, Refusal> {
    Ok(TaskKey { framework_id: FrameworkId::new(framework_id)?, task_id: TaskId::new(task_id)? })
}

/// The container of a task that runs, or what is left of it.
fn live_container(api: &Api, key: &TaskKey) -> Result<ContainerId, Refusal> {
    let container = api.live.borrow().get(key).map(|task| task.container.clone());
    container.ok_or_else(|| match api.sandboxes.kept_until(key, api.retention) {
        Some(until) => Refusal(
            StatusCode::CONFLICT,
            format!(
                "task {} has ended: its sandbox is kept until {until}; see `divvy logs` and `divvy files`",
                key.task_id
            ),
        ),
        None => Refusal::not_found(format!("task {} does not run here", key.task_id)),
    })
}

async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    let text = api.metrics.render(api.live.borrow().len());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

async fn usage(
    State(api): State<Api>,
    Path(task): Path<(String, String)>,
) -> Result<Json<TaskUsage>, Refusal> {
    let key = task_key(task)?;
    let container = live_container(&api, &key)?;
    let usage = usage_of(&api, key, &container).await;
    usage.map(Json).map_err(|error| Refusal::not_found(error.to_string()))
}

/// Of every task that runs. One that ends meanwhile is left out.
async fn usage_of_all(State(api): State<Api>) -> Json<Vec<TaskUsage>> {
    let live = api.live.borrow().clone();
    let mut all = Vec::with_capacity(live.len());
    for (key, task) in live.iter() {
        all.extend(usage_of(&api, key.clone(), &task.container).await.ok());
    }
    Json(all)
}

async fn usage_of(api: &Api, key: TaskKey, container: &ContainerId) -> Result<TaskUsage, RuntimeError> {
    let usage = api.runtime.usage(container).await?;
    let spec = api.runtime.spec(container)?;
    Ok(TaskUsage {
        framework_id: key.framework_id,
        task_id: key.task_id,
        hostname: api.hostname.clone(),
        at: Timestamp::wall_clock(),
        cpus: spec.cpus,
        cpu_limit: spec.cpu_limit,
        memory_limit: spec.memory.as_u64(),
        pids_limit: spec.pids.into(),
        usage,
    })
}
