//! `POST /api/v1/…`: what an operator asks to be done. Answered with 204 once the kernel has done it.

use axum::extract::State;
use axum::http::StatusCode;
use divvy_proto::ids::{AgentId, FrameworkId, TaskId};

use super::Api;
use super::extract::{Asked, At};
use super::failure::Failure;
use super::views::Nothing;
use crate::kernel::OperatorRequest;

pub(super) async fn kill(
    State(api): State<Api>,
    At((framework_id, task_id)): At<(FrameworkId, TaskId)>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Result<StatusCode, Failure> {
    let wanted = (framework_id.clone(), task_id.clone());
    let known = api.kernel.query(move |kernel, _| kernel.task(&wanted.0, &wanted.1).is_some()).await?;
    if !known {
        return Err(Failure::not_found(format_args!("task {framework_id}/{task_id}")));
    }
    operate(&api, OperatorRequest::KillTask { framework_id, task_id }).await
}

pub(super) async fn teardown(
    State(api): State<Api>,
    At(id): At<FrameworkId>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Result<StatusCode, Failure> {
    let wanted = id.clone();
    if !api.kernel.query(move |kernel, _| kernel.framework(&wanted).is_some()).await? {
        return Err(Failure::not_found(format_args!("framework {id}")));
    }
    operate(&api, OperatorRequest::Teardown(id)).await
}

pub(super) async fn gone(
    State(api): State<Api>,
    At(id): At<AgentId>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Result<StatusCode, Failure> {
    let wanted = id.clone();
    if !api.kernel.query(move |kernel, _| kernel.agent(&wanted).is_some()).await? {
        return Err(Failure::not_found(format_args!("agent {id}")));
    }
    operate(&api, OperatorRequest::MarkGone(id)).await
}

async fn operate(api: &Api, request: OperatorRequest) -> Result<StatusCode, Failure> {
    match api.kernel.operate(request).await? {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(refusal) => Err(Failure::new(StatusCode::CONFLICT, refusal)),
    }
}
