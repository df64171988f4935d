//! `POST /api/v1/…`: what an operator asks to be done. Answered with 204 once the kernel has done it.

use axum::extract::State;
use axum::http::StatusCode;
use divvy_proto::ids::{AgentId, FrameworkId, TaskId};

use super::extract::{Asked, At};
use super::failure::Failure;
use super::views::Nothing;
use crate::kernel::OperatorRequest;
use crate::shell::api::Api;

type Done = Result<StatusCode, Failure>;

pub(super) async fn kill(
    State(api): State<Api>,
    At((framework_id, task_id)): At<(FrameworkId, TaskId)>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Done {
    operate(&api, OperatorRequest::KillTask { framework_id, task_id }).await
}

pub(super) async fn teardown(
    State(api): State<Api>,
    At(id): At<FrameworkId>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Done {
    operate(&api, OperatorRequest::Teardown(id)).await
}

pub(super) async fn gone(
    State(api): State<Api>,
    At(id): At<AgentId>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Done {
    operate(&api, OperatorRequest::MarkGone(id)).await
}

pub(super) async fn operate(api: &Api, request: OperatorRequest) -> Done {
    api.operate(request).await?;
    Ok(StatusCode::NO_CONTENT)
}
