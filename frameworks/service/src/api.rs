//! The REST API: requests become commands to the planner and looks at it; nothing is decided here.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use divvy_sdk::proto::Invalid;
use divvy_sdk::proto::api::Problem;
use divvy_sdk::spec::{Format, SpecError};
use divvy_sdk::{Actions, Handle, Stopped, View};
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api_types::{AppStatus, Change, Endpoints, Health, Scale};
use crate::app_file::AppFile;
use crate::planner::spec::AppId;
use crate::planner::{Planner, Refusal};
use crate::serve::Watched;

mod follow;

/// Largest spec (Nomad keeps sources up to 1 MB).
const MAX_BODY: usize = 1 << 20;

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
        .route("/v1/apps", get(list))
        .route("/v1/apps/{id}", get(status).put(apply).delete(remove))
        .route("/v1/apps/{id}/scale", post(scale))
        .route("/v1/apps/{id}/restart", post(restart))
        .route("/v1/apps/{id}/events", get(follow::events))
        .route("/v1/apps/{id}/endpoints", get(follow::endpoints))
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
    /// The agents' addresses are not known yet.
    NoInventory,
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

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        Self::Refused(invalid.into())
    }
}

impl From<SpecError> for Failure {
    fn from(error: SpecError) -> Self {
        Self::Bad(StatusCode::BAD_REQUEST, error.to_string())
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        Self::Bad(rejection.status(), rejection.body_text())
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
            Self::Stopped => {
                (StatusCode::SERVICE_UNAVAILABLE, "the service framework is stopping".to_owned())
            }
            Self::NoInventory => {
                let error = "the addresses of agents are not known yet: the master has not told them";
                (StatusCode::SERVICE_UNAVAILABLE, error.to_owned())
            }
            Self::Refused(refusal) => {
                let status = match &refusal {
                    Refusal::NotFound(_) => StatusCode::NOT_FOUND,
                    Refusal::Removing(_) => StatusCode::CONFLICT,
                    Refusal::VersionMismatch { .. } => StatusCode::PRECONDITION_FAILED,
                    Refusal::Invalid(_) => StatusCode::BAD_REQUEST,
                };
                (status, refusal.to_string())
            }
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
        command: impl FnOnce(&mut Planner, &View) -> Result<(R, Actions), Refusal> + Send + 'static,
    ) -> Result<R, Failure> {
        let update = |watched: &mut Watched, view: &View| match command(&mut watched.planner, view) {
            Ok((answer, actions)) => (Ok(answer), actions),
            Err(refusal) => (Err(refusal), Actions::none()),
        };
        Ok(self.handle.update(update).await??)
    }

    async fn status(&self, id: AppId) -> Result<AppStatus, Failure> {
        let name = id.to_string();
        let status = self.look(move |planner, view| planner.status(&id, view)).await?;
        Ok(status.ok_or(Refusal::NotFound(name))?)
    }
}

/// The app that a path names; text that cannot be a name is no app's.
fn app_id(text: &str) -> Result<AppId, Refusal> {
    text.parse().map_err(|_| Refusal::NotFound(text.to_owned()))
}

async fn list(State(api): State<Api>) -> Result<Json<Vec<AppStatus>>, Failure> {
    Ok(Json(api.look(Planner::list).await?))
}

async fn status(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<AppStatus>, Failure> {
    Ok(Json(api.status(app_id(&id)?).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApplyQuery {
    #[serde(default)]
    dry_run: bool,
}

async fn apply(
    State(api): State<Api>,
    Path(id): Path<String>,
    query: Result<Query<ApplyQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Change>, Failure> {
    let Query(ApplyQuery { dry_run }) = query?;
    let body = body?;
    let text = std::str::from_utf8(&body).map_err(|_| not_text())?;
    let spec = AppFile::parse(text, format_of(&headers, text))?.into_spec()?;
    if spec.id.as_str() != id {
        return Err(Invalid::new("id", &spec.id, format!("{id}, as the path has it")).into());
    }
    let expected = expected_version(&headers)?;
    let apply = move |planner: &mut Planner, view: &View| planner.apply(spec, expected, dry_run, view.now());
    Ok(Json(api.command(apply).await?))
}

fn not_text() -> Failure {
    Failure::Bad(StatusCode::BAD_REQUEST, "the body is not UTF-8: expected an app in TOML or JSON".to_owned())
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

/// `If-Match: "3"`: only if the app is at version 3. `If-None-Match: *`: only if there is no such app.
fn expected_version(headers: &HeaderMap) -> Result<Option<u32>, Failure> {
    let text = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    if text(header::IF_NONE_MATCH) == Some("*") {
        return Ok(Some(0));
    }
    let Some(tag) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let version = tag.to_str().ok().and_then(|tag| tag.trim().trim_matches('"').parse().ok());
    let invalid = || Invalid::new("If-Match", format!("{tag:?}"), "a version, such as \"3\"");
    version.map(Some).ok_or_else(|| invalid().into())
}

async fn scale(
    State(api): State<Api>,
    Path(id): Path<String>,
    body: Result<Json<Scale>, JsonRejection>,
) -> Result<Json<AppStatus>, Failure> {
    let (id, Json(Scale { instances })) = (app_id(&id)?, body?);
    let app = id.clone();
    api.command(move |planner, view| Ok(((), planner.scale(&app, instances, view.now())?))).await?;
    Ok(Json(api.status(id).await?))
}

async fn restart(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<AppStatus>, Failure> {
    let id = app_id(&id)?;
    let app = id.clone();
    api.command(move |planner, view| Ok(((), planner.restart(&app, view.now())?))).await?;
    Ok(Json(api.status(id).await?))
}

/// 202: the app drains and then is gone.
async fn remove(State(api): State<Api>, Path(id): Path<String>) -> Result<StatusCode, Failure> {
    let id = app_id(&id)?;
    api.command(move |planner, view| Ok(((), planner.remove(&id, view.now())?))).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn health(State(api): State<Api>) -> Result<Json<Health>, Failure> {
    let look =
        |planner: &Planner, view: &View| Health { connected: view.connected(), apps: planner.apps().count() };
    Ok(Json(api.look(look).await?))
}

/// In the text format of Prometheus.
async fn metrics(State(api): State<Api>) -> Result<Response, Failure> {
    let apps = api.look(Planner::list).await?;
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((kind, render_metrics(&apps)).into_response())
}

fn render_metrics(apps: &[AppStatus]) -> String {
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for app in apps {
        *states.entry(app.state.name()).or_default() += 1;
    }
    let mut text =
        String::from("# HELP divvy_service_apps Apps by state.\n# TYPE divvy_service_apps gauge\n");
    for (state, count) in states {
        let _ = writeln!(text, "divvy_service_apps{{state=\"{state}\"}} {count}");
    }
    let gauges = [
        ("wanted", "Instances that should run.", (|app| app.instances) as fn(&AppStatus) -> u32),
        ("running", "Instances that run.", |app| app.running),
        ("healthy", "Instances that are healthy and will not be stopped.", |app| app.healthy),
    ];
    for (name, help, of) in gauges {
        let name = format!("divvy_service_instances_{name}");
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for app in apps {
            let _ = writeln!(text, "{name}{{app=\"{}\"}} {}", app.id, of(app));
        }
    }
    text
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("openapi.json")).into_response()
}

async fn unknown_path(uri: axum::http::Uri) -> Failure {
    let error = format!("there is nothing at {}; /openapi.json lists what there is", uri.path());
    Failure::Bad(StatusCode::NOT_FOUND, error)
}

async fn wrong_method(method: axum::http::Method, uri: axum::http::Uri) -> Failure {
    let error = format!("{method} cannot be asked of {}; /openapi.json lists what can", uri.path());
    Failure::Bad(StatusCode::METHOD_NOT_ALLOWED, error)
}

/// The answer of `GET /v1/apps/{id}/endpoints`. An empty list means that nothing serves, and nothing less: until the agents'
/// addresses are known there is no answer.
async fn endpoints_of(api: &Api, id: &AppId) -> Result<Endpoints, Failure> {
    let app = id.clone();
    let look = move |planner: &Planner, view: &View| {
        let known = view.agents().next().is_some();
        planner.endpoints(&app, view).map(|endpoints| known.then_some(endpoints))
    };
    let endpoints = api.look(look).await?.ok_or_else(|| Refusal::NotFound(id.to_string()))?;
    Ok(Endpoints { id: id.to_string(), endpoints: endpoints.ok_or(Failure::NoInventory)? })
}
