//! `GET /api/v1/explain`, `/demands` and `/decisions`: why something waits, what is wanted, and what was decided.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use divvy_proto::api::{Decision, DemandView, Explanation, FrameworkState, Question};
use divvy_proto::ids::{FrameworkId, TaskId};
use divvy_proto::role::RolePath;
use serde::Deserialize;

use super::extract::Asked;
use super::failure::Failure;
use crate::kernel::{DecisionFilter, Kernel};
use crate::shell::api::Api;

/// So many candidates are named where a name or an abbreviation fits several.
const CANDIDATES: usize = 10;

/// One of `role`, `framework`, `framework` with `demand`, `task`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asking {
    role: Option<RolePath>,
    /// The id or the name of a framework.
    framework: Option<String>,
    /// The name of a shape of its demand.
    demand: Option<String>,
    /// The id of a task, or how it begins.
    task: Option<TaskId>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WantedDemands {
    role: Option<RolePath>,
    framework: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WantedDecisions {
    /// Only those after this index.
    since: Option<u64>,
    /// Only those about this role or one below it.
    role: Option<RolePath>,
    /// Only those about this framework, by id or name.
    framework: Option<String>,
    /// Only the latest so many.
    limit: Option<usize>,
    /// `false` leaves out the offers.
    offers: Option<bool>,
}

pub(super) async fn explain(
    State(api): State<Api>,
    Asked(asking): Asked<Asking>,
) -> Result<Json<Explanation>, Failure> {
    let answer = api.kernel.query(move |kernel, now| {
        let question = question(kernel, asking)?;
        kernel.explain(now, &question).map_err(Failure::not_found)
    });
    Ok(Json(answer.await??))
}

pub(super) async fn demands(
    State(api): State<Api>,
    Asked(wanted): Asked<WantedDemands>,
) -> Result<Json<Vec<DemandView>>, Failure> {
    let mut all = api.kernel.query(|kernel, _| kernel.demands()).await?;
    all.retain(|view| {
        wanted.role.as_ref().is_none_or(|role| role.contains(&view.role))
            && wanted
                .framework
                .as_ref()
                .is_none_or(|f| *f == view.framework || f == view.framework_id.as_str())
    });
    Ok(Json(all))
}

pub(super) async fn decisions(
    State(api): State<Api>,
    Asked(wanted): Asked<WantedDecisions>,
) -> Result<Json<Vec<Decision>>, Failure> {
    let answer = api.kernel.query(move |kernel, _| {
        let framework = wanted.framework.map(|named| framework(kernel, &named)).transpose()?;
        let filter = DecisionFilter {
            since: wanted.since.unwrap_or_default(),
            role: wanted.role,
            framework,
            limit: wanted.limit,
            without_offers: wanted.offers == Some(false),
        };
        Ok::<_, Failure>(kernel.decisions(&filter))
    });
    Ok(Json(answer.await??))
}

fn question(kernel: &Kernel, asking: Asking) -> Result<Question, Failure> {
    let wrong = || Failure::bad("ask with one of `role`, `framework`, `framework` and `demand`, or `task`");
    let owner = asking.framework.map(|named| framework(kernel, &named)).transpose()?;
    match (asking.task, owner, asking.demand, asking.role) {
        (Some(task), owner, None, None) => find_task(kernel, owner, task),
        (None, Some(framework_id), Some(shape), role) => find_demand(kernel, framework_id, shape, role),
        (None, Some(framework_id), None, None) => Ok(Question::Framework(framework_id)),
        (None, None, None, Some(role)) => Ok(Question::Role(role)),
        _ => Err(wrong()),
    }
}

/// The framework with this id, or the only one of this name that is not torn down.
fn framework(kernel: &Kernel, named: &str) -> Result<FrameworkId, Failure> {
    if let Some(id) = FrameworkId::new(named).ok().filter(|id| kernel.framework_name(id).is_some()) {
        return Ok(id);
    }
    let mut found = kernel.frameworks_named(named);
    if found.iter().any(|(_, state)| *state != FrameworkState::Completed) {
        found.retain(|(_, state)| *state != FrameworkState::Completed);
    }
    let ids: Vec<FrameworkId> = found.into_iter().map(|(id, _)| id).collect();
    only(ids, named, "framework", "give its id", FrameworkId::to_string)
}

/// The task with this id, or the only one whose id begins so. One that is not known is asked for of its framework.
fn find_task(kernel: &Kernel, owner: Option<FrameworkId>, start: TaskId) -> Result<Question, Failure> {
    let found = kernel.tasks_that_begin(owner.as_ref(), start.as_str());
    match (found.is_empty(), owner) {
        (true, Some(framework_id)) => Ok(Question::Task { framework_id, task_id: start }),
        _ => {
            let show = |(framework, task): &(FrameworkId, TaskId)| format!("{framework}/{task}");
            let (framework_id, task_id) = only(found, start.as_str(), "task", "give more of the id", show)?;
            Ok(Question::Task { framework_id, task_id })
        }
    }
}

fn find_demand(
    kernel: &Kernel,
    framework_id: FrameworkId,
    shape: String,
    role: Option<RolePath>,
) -> Result<Question, Failure> {
    let role = match role {
        Some(role) => role,
        None => {
            let mut views = kernel.demands();
            views.retain(|view| view.framework_id == framework_id);
            views.retain(|view| view.demand.shapes.iter().any(|known| known.name == shape));
            let roles: Vec<RolePath> = views.into_iter().map(|view| view.role).collect();
            only(roles, &shape, "shape", "give the role, too", RolePath::to_string)?
        }
    };
    Ok(Question::Demand { framework_id, role, shape })
}

fn only<T>(
    mut found: Vec<T>,
    named: &str,
    kind: &str,
    what_to_do: &str,
    show: impl Fn(&T) -> String,
) -> Result<T, Failure> {
    match (found.pop(), found.len()) {
        (Some(only), 0) => Ok(only),
        (None, _) => Err(Failure::not_found(format_args!("{kind} {named}"))),
        (Some(last), others) => {
            let names: Vec<String> = found.iter().chain([&last]).take(CANDIDATES).map(show).collect();
            let more = if others >= CANDIDATES { ", …" } else { "" };
            let names = names.join(", ");
            let error = format!("{named} fits {} {kind}s: {names}{more}; {what_to_do}", others + 1);
            Err(Failure::new(StatusCode::CONFLICT, error))
        }
    }
}
