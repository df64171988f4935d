//! `/api/v1/reservations`, `/api/v1/volumes`, and what operators do about both on an agent.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use divvy_proto::ids::{AgentId, Principal, VolumeId};
use divvy_proto::quantity::Bytes;
use divvy_proto::reservation::Reservation;
use divvy_proto::resources::Resources;
use divvy_proto::role::RolePath;
use divvy_proto::{Invalid, api};
use serde::Deserialize;

use super::actions::operate;
use super::extract::{Asked, At, Said};
use super::failure::Failure;
use super::views::{Nothing, listed, wants};
use crate::kernel::OperatorRequest;
use crate::shell::api::Api;

type Answer<T> = Result<Json<T>, Failure>;
type Done = Result<StatusCode, Failure>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// The id or the hostname of an agent.
    agent: Option<String>,
    /// The owner.
    role: Option<RolePath>,
    limit: Option<usize>,
}

/// What is to be reserved, or not to be any longer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reserve {
    role: RolePath,
    resources: Resources,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    principal: Option<Principal>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    id: VolumeId,
    role: RolePath,
    size: Bytes,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    principal: Option<Principal>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resize {
    by: Bytes,
}

pub(super) async fn reservations(
    State(api): State<Api>,
    Asked(filter): Asked<Filter>,
) -> Answer<Vec<api::ReservationView>> {
    let all = api.kernel.query(|kernel, _| kernel.reservations()).await?;
    Ok(listed(all, filter.limit, |found| {
        wants(filter.agent.as_ref(), &[found.agent_id.as_str(), found.hostname.as_str()])
            && filter.role.as_ref().is_none_or(|role| found.role == *role)
    }))
}

pub(super) async fn volumes(
    State(api): State<Api>,
    Asked(filter): Asked<Filter>,
) -> Answer<Vec<api::AgentVolume>> {
    let all = api.kernel.query(|kernel, _| kernel.volumes()).await?;
    Ok(listed(all, filter.limit, |found| {
        wants(filter.agent.as_ref(), &[found.agent_id.as_str(), found.hostname.as_str()])
            && filter.role.as_ref().is_none_or(|role| found.role == *role)
    }))
}

pub(super) async fn reserve(
    State(api): State<Api>,
    At(agent_id): At<AgentId>,
    Asked(Nothing {}): Asked<Nothing>,
    Said(Reserve { role, resources, labels, principal }): Said<Reserve>,
) -> Done {
    check(&role, &resources)?;
    let reservation = Reservation { role, principal, labels, fixed: false };
    operate(&api, OperatorRequest::Reserve { agent_id, resources, reservation }).await
}

pub(super) async fn unreserve(
    State(api): State<Api>,
    At(agent_id): At<AgentId>,
    Asked(Nothing {}): Asked<Nothing>,
    Said(Reserve { role, resources, labels, principal }): Said<Reserve>,
) -> Done {
    check(&role, &resources)?;
    let reservation = Reservation { role, principal, labels, fixed: false };
    operate(&api, OperatorRequest::Unreserve { agent_id, resources, reservation }).await
}

/// What is wrong with it whatever the agent has.
fn check(role: &RolePath, resources: &Resources) -> Result<(), Invalid> {
    if *role == RolePath::default() {
        return Err(Invalid::new("role", role, "a role other than `*`, from which nothing is set aside"));
    }
    match resources.is_empty() {
        true => Err(Invalid::missing("resources", "some, such as cpus=2;mem=4GiB")),
        false => Ok(()),
    }
}

pub(super) async fn create(
    State(api): State<Api>,
    At(agent_id): At<AgentId>,
    Asked(Nothing {}): Asked<Nothing>,
    Said(Create { id: volume_id, role, size, labels, principal }): Said<Create>,
) -> Done {
    let reservation = Reservation { role, principal, labels, fixed: false };
    operate(&api, OperatorRequest::CreateVolume { agent_id, volume_id, size, reservation }).await
}

pub(super) async fn destroy(
    State(api): State<Api>,
    At((agent_id, volume_id)): At<(AgentId, VolumeId)>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Done {
    volume(&api, &agent_id, &volume_id).await?;
    operate(&api, OperatorRequest::DestroyVolume { agent_id, volume_id }).await
}

pub(super) async fn grow(
    State(api): State<Api>,
    At((agent_id, volume_id)): At<(AgentId, VolumeId)>,
    Asked(Nothing {}): Asked<Nothing>,
    Said(Resize { by }): Said<Resize>,
) -> Done {
    check_step(by)?;
    let size = volume(&api, &agent_id, &volume_id).await?.bytes().saturating_add(by.bytes());
    resize(&api, agent_id, volume_id, size).await
}

pub(super) async fn shrink(
    State(api): State<Api>,
    At((agent_id, volume_id)): At<(AgentId, VolumeId)>,
    Asked(Nothing {}): Asked<Nothing>,
    Said(Resize { by }): Said<Resize>,
) -> Done {
    check_step(by)?;
    let size = volume(&api, &agent_id, &volume_id).await?;
    if by >= size {
        return Err(Invalid::new("by", by, format!("less than the volume's {size}")).into());
    }
    resize(&api, agent_id, volume_id, size.bytes() - by.bytes()).await
}

fn check_step(by: Bytes) -> Result<(), Invalid> {
    match by == Bytes::ZERO {
        true => Err(Invalid::new("by", by, "more than nothing, such as 1GiB")),
        false => Ok(()),
    }
}

async fn resize(api: &Api, agent_id: AgentId, volume_id: VolumeId, size: i64) -> Done {
    let size = Bytes::from_bytes(size)?;
    operate(api, OperatorRequest::ResizeVolume { agent_id, volume_id, size }).await
}

/// The size of a volume.
async fn volume(api: &Api, agent: &AgentId, id: &VolumeId) -> Result<Bytes, Failure> {
    let (wanted, all) = ((agent.clone(), id.clone()), api.kernel.query(|kernel, _| kernel.volumes()).await?);
    let found =
        all.into_iter().find(|found| (&found.agent_id, &found.volume.volume.id) == (&wanted.0, &wanted.1));
    let missing = || Failure::not_found(format_args!("volume {id} of agent {agent}"));
    Ok(found.ok_or_else(missing)?.volume.volume.size)
}
