//! What machines ask a master about itself: `/health`, `/ready`, `/metrics`, and the description of the API.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::failure::Failure;
use crate::shell::api::Api;

/// A kernel that does not get to a question within this time is not healthy.
const PATIENCE: Duration = Duration::from_secs(5);

/// The kernel answers.
pub(super) async fn health(State(api): State<Api>) -> Result<Json<Value>, Failure> {
    match tokio::time::timeout(PATIENCE, api.kernel.query(|_, _| ())).await {
        Ok(answered) => Ok(answered.map(|()| Json(json!({ "status": "ok" })))?),
        Err(_) => {
            let error = format!("the kernel has not answered for {}", humantime::format_duration(PATIENCE));
            Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, error))
        }
    }
}

/// The kernel answers, and it only runs while this master leads.
pub(super) async fn ready(State(api): State<Api>) -> Result<Json<Value>, Failure> {
    let Json(_) = health(State(api.clone())).await?;
    Ok(Json(json!({ "status": "ready", "leader": *api.address })))
}

/// For Prometheus.
pub(super) async fn metrics(State(api): State<Api>) -> Result<impl IntoResponse, Failure> {
    let (status, offers) =
        api.kernel.query(|kernel, now| (kernel.status(now), kernel.offers().len())).await?;
    let text = api
        .metrics
        .encode(&status, offers, api.kernel.depth())
        .map_err(|error| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, format!("metrics: {error}")))?;
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}

/// `GET /api/v1/openapi.json`.
pub(super) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("openapi.json"))
}
