//! Agents that are emptied, switched off and on again; the schedule by which that happens; what is asked back for it.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use divvy_proto::Invalid;
use divvy_proto::api::{self, MaintenanceWindow};
use divvy_proto::ids::AgentId;
use serde::Deserialize;

use super::actions::operate;
use super::extract::{Asked, At, Listed, Said};
use super::failure::Failure;
use super::views::Nothing;
use crate::kernel::OperatorRequest;
use crate::shell::api::Api;

type Answer<T> = Result<Json<T>, Failure>;
type Done = Result<StatusCode, Failure>;

/// How an agent is to be emptied.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Drain {
    /// From now to the deadline, such as `10m`; at once if absent.
    #[serde(default)]
    deadline: Option<String>,
    /// Declare it gone once it is empty.
    #[serde(default)]
    then_gone: bool,
}

pub(super) async fn drain(
    State(api): State<Api>,
    At(agent_id): At<AgentId>,
    Asked(Nothing {}): Asked<Nothing>,
    Said(Drain { deadline, then_gone }): Said<Drain>,
) -> Done {
    let within = deadline.as_deref().map(time).transpose()?;
    operate(&api, OperatorRequest::Drain { agent_id, within, then_gone }).await
}

fn time(text: &str) -> Result<Duration, Invalid> {
    humantime::parse_duration(text).map_err(|_| Invalid::new("deadline", text, "a time such as 10m or 2h"))
}

pub(super) async fn deactivate(
    State(api): State<Api>,
    At(id): At<AgentId>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Done {
    operate(&api, OperatorRequest::Deactivate(id)).await
}

pub(super) async fn reactivate(
    State(api): State<Api>,
    At(id): At<AgentId>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Done {
    operate(&api, OperatorRequest::Reactivate(id)).await
}

pub(super) async fn schedule(
    State(api): State<Api>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Answer<Vec<MaintenanceWindow>> {
    Ok(Json(api.kernel.query(|kernel, _| kernel.maintenance()).await?))
}

/// Replaces the schedule, whole.
pub(super) async fn set_schedule(
    State(api): State<Api>,
    Asked(Nothing {}): Asked<Nothing>,
    Listed(windows): Listed<MaintenanceWindow>,
) -> Done {
    operate(&api, OperatorRequest::SetMaintenance(windows)).await
}

pub(super) async fn inverse_offers(
    State(api): State<Api>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Answer<Vec<api::InverseOfferView>> {
    Ok(Json(api.kernel.query(|kernel, _| kernel.inverse_offers()).await?))
}
