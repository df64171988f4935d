//! `/api/v1/quotas` and `/api/v1/weights`: what roles are promised, what they may not exceed, how much they weigh.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use divvy_proto::api;
use divvy_proto::quota::Quota;
use divvy_proto::role::RolePath;
use serde::Deserialize;

use super::actions::operate;
use super::extract::{Asked, At, Said};
use super::failure::Failure;
use super::views::Nothing;
use crate::kernel::OperatorRequest;
use crate::shell::api::Api;

type Answer<T> = Result<Json<T>, Failure>;
type Done = Result<StatusCode, Failure>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Force {
    /// Also where the cluster does not have it, or more is in use.
    #[serde(default)]
    force: bool,
}

pub(super) async fn quotas(
    State(api): State<Api>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Answer<Vec<api::RoleQuota>> {
    Ok(Json(api.kernel.query(|kernel, _| kernel.quotas()).await?))
}

pub(super) async fn quota(
    State(api): State<Api>,
    At(role): At<RolePath>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Answer<api::RoleQuota> {
    let wanted = role.clone();
    let found = api.kernel.query(move |kernel, _| kernel.quota(&wanted)).await?;
    found.map(Json).ok_or_else(|| no_quota(&role))
}

pub(super) async fn set_quota(
    State(api): State<Api>,
    At(role): At<RolePath>,
    Asked(Force { force }): Asked<Force>,
    Said(quota): Said<Quota>,
) -> Done {
    quota.check()?;
    operate(&api, OperatorRequest::SetQuota { role, quota: Some(quota), force }).await
}

pub(super) async fn remove_quota(
    State(api): State<Api>,
    At(role): At<RolePath>,
    Asked(Force { force }): Asked<Force>,
) -> Done {
    let wanted = role.clone();
    if api.kernel.query(move |kernel, _| kernel.quota(&wanted)).await?.is_none() {
        return Err(no_quota(&role));
    }
    operate(&api, OperatorRequest::SetQuota { role, quota: None, force }).await
}

pub(super) async fn weights(
    State(api): State<Api>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Answer<Vec<api::RoleWeight>> {
    Ok(Json(api.kernel.query(|kernel, _| kernel.weights()).await?))
}

/// The weight of any role: 1 where nobody has said otherwise.
pub(super) async fn weight(
    State(api): State<Api>,
    At(role): At<RolePath>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Answer<api::RoleWeight> {
    let wanted = role.clone();
    let weight = api.kernel.query(move |kernel, _| kernel.weight(&wanted)).await?;
    Ok(Json(api::RoleWeight { role, weight }))
}

pub(super) async fn set_weight(
    State(api): State<Api>,
    At(role): At<RolePath>,
    Asked(Nothing {}): Asked<Nothing>,
    Said(api::SetWeight { weight }): Said<api::SetWeight>,
) -> Done {
    operate(&api, OperatorRequest::SetWeight { role, weight: Some(weight) }).await
}

pub(super) async fn remove_weight(
    State(api): State<Api>,
    At(role): At<RolePath>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Done {
    let wanted = role.clone();
    let set = api.kernel.query(move |kernel, _| kernel.weights().iter().any(|w| w.role == wanted)).await?;
    if !set {
        return Err(Failure::not_found(format_args!("a weight of {role}")));
    }
    operate(&api, OperatorRequest::SetWeight { role, weight: None }).await
}

fn no_quota(role: &RolePath) -> Failure {
    Failure::not_found(format_args!("a quota of {role}"))
}
