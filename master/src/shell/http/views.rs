//! `GET /api/v1/…`: what is. The kernel's task copies the answer out between two turns; filtering and JSON happen here.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use divvy_proto::api::{self, AgentState, FrameworkState};
use divvy_proto::ids::{AgentId, FrameworkId, TaskId};
use divvy_proto::task::TaskState;
use serde::Deserialize;

use super::extract::{Asked, At};
use super::failure::Failure;
use crate::shell::api::Api;

type Answer<T> = Result<Json<T>, Failure>;

/// No parameters at all.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AgentFilter {
    state: Option<AgentState>,
    limit: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FrameworkFilter {
    state: Option<FrameworkState>,
    name: Option<String>,
    limit: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskFilter {
    /// The id or the name of a framework.
    framework: Option<String>,
    /// The id or the hostname of an agent.
    agent: Option<String>,
    state: Option<TaskState>,
    name: Option<String>,
    limit: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfferFilter {
    framework: Option<String>,
    agent: Option<String>,
    limit: Option<usize>,
}

/// Whether a filter, if there is one, is one of these.
pub(super) fn wants<T: AsRef<str>>(filter: Option<&T>, candidates: &[&str]) -> bool {
    filter.is_none_or(|wanted| candidates.contains(&wanted.as_ref()))
}

pub(super) fn listed<T>(all: Vec<T>, limit: Option<usize>, keep: impl Fn(&T) -> bool) -> Json<Vec<T>> {
    Json(all.into_iter().filter(keep).take(limit.unwrap_or(usize::MAX)).collect())
}

pub(super) async fn status(State(api): State<Api>, Asked(Nothing {}): Asked<Nothing>) -> Answer<api::Status> {
    Ok(Json(api.status().await?))
}

pub(super) async fn agents(
    State(api): State<Api>,
    Asked(filter): Asked<AgentFilter>,
) -> Answer<Vec<api::Agent>> {
    let all = api.kernel.query(|kernel, _| kernel.agents()).await?;
    Ok(listed(all, filter.limit, |agent| filter.state.is_none_or(|state| agent.state == state)))
}

pub(super) async fn frameworks(
    State(api): State<Api>,
    Asked(filter): Asked<FrameworkFilter>,
) -> Answer<Vec<api::Framework>> {
    let all = api.kernel.query(|kernel, _| kernel.frameworks()).await?;
    Ok(listed(all, filter.limit, |framework| {
        filter.state.is_none_or(|state| framework.state == state)
            && wants(filter.name.as_ref(), &[&framework.name])
    }))
}

pub(super) async fn tasks(
    State(api): State<Api>,
    Asked(filter): Asked<TaskFilter>,
) -> Answer<Vec<api::Task>> {
    let all = api.kernel.query(|kernel, _| kernel.tasks()).await?;
    Ok(listed(all, filter.limit, |task| {
        filter.state.is_none_or(|state| task.state == state)
            && wants(filter.framework.as_ref(), &[task.framework_id.as_str(), &task.framework])
            && wants(filter.agent.as_ref(), &[task.agent_id.as_str(), task.hostname.as_str()])
            && wants(filter.name.as_ref(), &[&task.name])
    }))
}

pub(super) async fn offers(
    State(api): State<Api>,
    Asked(filter): Asked<OfferFilter>,
) -> Answer<Vec<api::Offer>> {
    let all = api.kernel.query(|kernel, _| kernel.offers()).await?;
    Ok(listed(all, filter.limit, |offer| {
        wants(filter.framework.as_ref(), &[offer.framework_id.as_str(), &offer.framework])
            && wants(filter.agent.as_ref(), &[offer.agent_id.as_str(), offer.hostname.as_str()])
    }))
}

pub(super) async fn roles(
    State(api): State<Api>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Answer<Vec<api::Role>> {
    Ok(Json(api.kernel.query(|kernel, _| kernel.roles()).await?))
}

pub(super) async fn agent(
    State(api): State<Api>,
    At(id): At<AgentId>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Answer<api::Agent> {
    let wanted = id.clone();
    let found = api.kernel.query(move |kernel, _| kernel.agent(&wanted)).await?;
    found.map(Json).ok_or_else(|| Failure::not_found(format_args!("agent {id}")))
}

pub(super) async fn framework(
    State(api): State<Api>,
    At(id): At<FrameworkId>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Answer<api::Framework> {
    let wanted = id.clone();
    let found = api.kernel.query(move |kernel, _| kernel.framework(&wanted)).await?;
    found.map(Json).ok_or_else(|| Failure::not_found(format_args!("framework {id}")))
}

pub(super) async fn task(
    State(api): State<Api>,
    At((framework_id, id)): At<(FrameworkId, TaskId)>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Answer<api::Task> {
    let wanted = (framework_id.clone(), id.clone());
    let found = api.kernel.query(move |kernel, _| kernel.task(&wanted.0, &wanted.1)).await?;
    found.map(Json).ok_or_else(|| Failure::not_found(format_args!("task {framework_id}/{id}")))
}

/// The one task whose id is this or begins with this.
pub(super) async fn resolve(
    State(api): State<Api>,
    At(start): At<TaskId>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Answer<api::Task> {
    let all = api.kernel.query(|kernel, _| kernel.tasks()).await?;
    one_of(start.as_str(), all).map(Json)
}

/// So many candidates are named where an abbreviation fits several tasks.
const CANDIDATES: usize = 10;

fn one_of(start: &str, all: Vec<api::Task>) -> Result<api::Task, Failure> {
    let (whole, prefixed): (Vec<_>, Vec<_>) = all
        .into_iter()
        .filter(|task| task.id.as_str().starts_with(start))
        .partition(|task| task.id.as_str() == start);
    let mut found = if whole.is_empty() { prefixed } else { whole };
    match found.len() {
        1 => found.pop().ok_or_else(|| Failure::not_found(format_args!("task {start}"))),
        0 => Err(Failure::not_found(format_args!("a task whose id is or begins with {start}"))),
        several => {
            let names: Vec<String> = found
                .iter()
                .take(CANDIDATES)
                .map(|task| format!("{}/{} ({})", task.framework_id, task.id, task.state))
                .collect();
            let more = if several > CANDIDATES { ", …" } else { "" };
            let error =
                format!("{start} fits {several} tasks: {}{more}; give more of the id", names.join(", "));
            Err(Failure::new(StatusCode::CONFLICT, error))
        }
    }
}
