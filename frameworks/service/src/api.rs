//! The REST API: requests become commands to the planner and looks at it; nothing is decided here.

use std::collections::BTreeMap;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use divvy_sdk::hosted::{Hosted, Seen};
use divvy_sdk::proto::Invalid;
use divvy_sdk::rest::{self, Document, Json, ListQuery, Metrics, Refused};
use divvy_sdk::{Actions, View};
use serde::Deserialize;

use crate::api_types::{AppStatus, Change, Endpoints, Health, Scale};
use crate::app_file::AppFile;
use crate::planner::spec::AppId;
use crate::planner::{Planner, Refusal};

/// What all requests share.
type Api = State<Hosted<Planner>>;

/// The routes.
pub(crate) fn router(hosted: Hosted<Planner>) -> axum::Router {
    let routes = axum::Router::new()
        .route("/v1/apps", get(list))
        .route("/v1/apps/{id}", get(status).put(apply).delete(remove))
        .route("/v1/apps/{id}/scale", post(scale))
        .route("/v1/apps/{id}/restart", post(restart))
        .route("/v1/apps/{id}/events", get(events))
        .route("/v1/apps/{id}/endpoints", get(endpoints))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(openapi));
    rest::complete(routes).with_state(hosted)
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let status = match &refusal {
            Refusal::NotFound(_) => StatusCode::NOT_FOUND,
            Refusal::Removing(_) => StatusCode::CONFLICT,
            Refusal::VersionMismatch { .. } => StatusCode::PRECONDITION_FAILED,
            Refusal::Invalid(_) => StatusCode::BAD_REQUEST,
        };
        Self::new(status, refusal)
    }
}

async fn status_of(hosted: &Hosted<Planner>, id: AppId) -> Result<AppStatus, Refused> {
    hosted.find(Refusal::NotFound(id.to_string()), move |planner, view| planner.status(&id, view)).await
}

/// The app that a path names; text that cannot be a name is no app's.
fn app_id(text: &str) -> Result<AppId, Refusal> {
    text.parse().map_err(|_| Refusal::NotFound(text.to_owned()))
}

/// With `?waiting=true`, only the apps that wait, and why.
async fn list(
    State(hosted): Api,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Refused> {
    hosted.list(query, Planner::list, Planner::waiting).await
}

async fn status(State(hosted): Api, Path(id): Path<String>) -> Result<Json<AppStatus>, Refused> {
    Ok(Json(status_of(&hosted, app_id(&id)?).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApplyQuery {
    #[serde(default)]
    dry_run: bool,
}

async fn apply(
    State(hosted): Api,
    Path(id): Path<String>,
    query: Result<Query<ApplyQuery>, QueryRejection>,
    headers: HeaderMap,
    document: Document,
) -> Result<Json<Change>, Refused> {
    let Query(ApplyQuery { dry_run }) = query?;
    let spec = AppFile::parse(&document.text, document.format)?.into_spec()?;
    if spec.id.as_str() != id {
        return Err(Invalid::new("id", &spec.id, format!("{id}, as the path has it")).into());
    }
    let expected = expected_version(&headers)?;
    let apply = move |planner: &mut Planner, view: &View| {
        view.check_role(spec.task.role.as_ref()).map_err(Refusal::from)?;
        planner.apply(spec, expected, dry_run, view.now())
    };
    Ok(Json(hosted.command(apply).await?))
}

/// `If-Match: "3"`: only if the app is at version 3. `If-None-Match: *`: only if there is no such app.
fn expected_version(headers: &HeaderMap) -> Result<Option<u32>, Refused> {
    let text = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    if text(header::IF_NONE_MATCH) == Some("*") {
        return Ok(Some(0));
    }
    let Some(tag) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let version = tag.to_str().ok().and_then(|tag| tag.trim().trim_matches('"').parse().ok());
    let invalid = || Invalid::new("If-Match", format!("{tag:?}"), "a version, such as \"3\"");
    version.map(Some).ok_or_else(|| invalid().into())
}

/// A command whose answer is that it was carried out.
fn done(actions: Result<Actions, Refusal>) -> Result<((), Actions), Refusal> {
    actions.map(|actions| ((), actions))
}

async fn scale(
    State(hosted): Api,
    Path(id): Path<String>,
    body: Result<Json<Scale>, JsonRejection>,
) -> Result<Json<AppStatus>, Refused> {
    let (id, Json(Scale { instances })) = (app_id(&id)?, body?);
    let app = id.clone();
    hosted.command(move |planner, view| done(planner.scale(&app, instances, view.now()))).await?;
    Ok(Json(status_of(&hosted, id).await?))
}

async fn restart(State(hosted): Api, Path(id): Path<String>) -> Result<Json<AppStatus>, Refused> {
    let id = app_id(&id)?;
    let app = id.clone();
    hosted.command(move |planner, view| done(planner.restart(&app, view.now()))).await?;
    Ok(Json(status_of(&hosted, id).await?))
}

/// 202: the app drains and then is gone.
async fn remove(State(hosted): Api, Path(id): Path<String>) -> Result<StatusCode, Refused> {
    let id = app_id(&id)?;
    hosted.command(move |planner, view| done(planner.remove(&id, view.now()))).await?;
    Ok(StatusCode::ACCEPTED)
}

/// `status` events, then one `gone` when the app has been removed.
async fn events(State(hosted): Api, Path(id): Path<String>) -> Result<Response, Refused> {
    let id = app_id(&id)?;
    status_of(&hosted, id.clone()).await?;
    Ok(hosted.events("status", move |planner, view| planner.status(&id, view).into()))
}

/// Once, or as `endpoints` events where `Accept: text/event-stream` asks for it.
async fn endpoints(
    State(hosted): Api,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let (id, name) = (app_id(&id)?, id);
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.contains("text/event-stream") {
        status_of(&hosted, id.clone()).await?;
        return Ok(hosted.events("endpoints", move |planner, view| endpoints_of(&id, planner, view)));
    }
    match hosted.look(move |planner, view| endpoints_of(&id, planner, view)).await? {
        Seen::Is(endpoints) => Ok(Json(endpoints).into_response()),
        Seen::Unknown => {
            let reason = "the addresses of agents are not known yet: the master has not told them";
            Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, reason))
        }
        Seen::Gone => Err(Refusal::NotFound(name).into()),
    }
}

/// An empty list means that nothing serves, and nothing less: until the agents' addresses are known there is no answer.
fn endpoints_of(id: &AppId, planner: &Planner, view: &View) -> Seen<Endpoints> {
    match planner.endpoints(id, view) {
        None => Seen::Gone,
        Some(_) if view.agents().next().is_none() => Seen::Unknown,
        Some(endpoints) => Seen::Is(Endpoints { id: id.to_string(), endpoints }),
    }
}

async fn health(State(hosted): Api) -> Result<Json<Health>, Refused> {
    let look =
        |planner: &Planner, view: &View| Health { connected: view.connected(), apps: planner.apps().count() };
    Ok(Json(hosted.look(look).await?))
}

async fn metrics(State(hosted): Api) -> Result<Metrics, Refused> {
    Ok(metrics_of(&hosted.look(Planner::list).await?))
}

fn metrics_of(apps: &[AppStatus]) -> Metrics {
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for app in apps {
        *states.entry(app.state.name()).or_default() += 1;
    }
    let metrics = Metrics::default().gauge("divvy_service_apps", "Apps by state.", "state", states);
    let gauges = [
        ("wanted", "Instances that should run.", (|app| app.instances) as fn(&AppStatus) -> u32),
        ("running", "Instances that run.", |app| app.running),
        ("healthy", "Instances that are healthy and will not be stopped.", |app| app.healthy),
    ];
    gauges.into_iter().fold(metrics, |metrics, (name, help, of)| {
        let name = format!("divvy_service_instances_{name}");
        metrics.gauge(&name, help, "app", apps.iter().map(|app| (&app.id, of(app))))
    })
}

async fn openapi() -> Response {
    rest::json_text(include_str!("openapi.json"))
}
