//! HTTP, on the same port as gRPC: the JSON operator API, `/metrics`, `/health`, `/ready`, the dashboard, and proxies to
//! agents and frameworks. Every answer that is not a success is a [`divvy_proto::api::Problem`].
//!
//! Not here: who may do what. There is no authentication yet, which is why a master listens on loopback only by default.

mod actions;
mod dashboard;
mod events;
mod explain;
mod extract;
mod failure;
mod guard;
mod maintenance;
mod policy;
mod probes;
mod proxy;
mod reservations;
mod views;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::routing::{any, delete, get, post};
use tower_http::compression::CompressionLayer;
use tower_http::set_header::SetResponseHeaderLayer;

pub(super) use guard::Guard;
pub(super) use proxy::client;

use super::api::Api;
use super::registry::LARGEST_RECORD;
use failure::Failure;

/// All HTTP routes. `grpc` has those of the gRPC services, which share the guard.
pub(super) fn router(api: Api, grpc: Router, guard: Guard) -> Router {
    let answers = Router::new()
        .merge(operator_api())
        .merge(probes())
        .fallback(dashboard::serve)
        .layer(CompressionLayer::new());
    let streams = Router::new()
        .route("/api/v1/events", get(events::events))
        .route("/api/v1/agents/{id}/usage", get(proxy::usage))
        .route("/api/v1/tasks/{framework_id}/{task_id}/exec", post(proxy::exec))
        .route("/api/v1/tasks/{framework_id}/{task_id}/{*rest}", get(proxy::task))
        .route("/api/v1/agents/{id}/images", get(proxy::images))
        .route("/api/v1/agents/{id}/images/{verb}", post(proxy::images))
        .route("/frameworks/{name}/", any(proxy::framework))
        .route("/frameworks/{name}/{*rest}", any(proxy::framework));
    answers
        .merge(streams)
        .method_not_allowed_fallback(wrong_method)
        .with_state(api)
        .layer(header_by_default(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .layer(header_by_default(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(header_by_default(header::REFERRER_POLICY, "no-referrer"))
        .layer(header_by_default(header::CACHE_CONTROL, "no-store"))
        .merge(grpc)
        .layer(middleware::from_fn_with_state(guard, guard::guard))
}

/// The dashboard loads from its own address only, and nobody frames it. Its component library writes the theme's colours
/// into a style element, so styles (which cannot run anything) may stand in the page.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; \
                                       object-src 'none'; base-uri 'none'; frame-ancestors 'none'";

fn operator_api() -> Router<Api> {
    Router::new()
        .route("/api/v1/status", get(views::status))
        .route("/api/v1/agents", get(views::agents))
        .route("/api/v1/agents/{id}", get(views::agent))
        .route("/api/v1/agents/{id}/gone", post(actions::gone))
        .route("/api/v1/frameworks", get(views::frameworks))
        .route("/api/v1/frameworks/{id}", get(views::framework))
        .route("/api/v1/frameworks/{id}/teardown", post(actions::teardown))
        .route("/api/v1/tasks", get(views::tasks))
        .route("/api/v1/tasks/{task_id}", get(views::resolve))
        .route("/api/v1/tasks/{framework_id}/{task_id}", get(views::task))
        .route("/api/v1/tasks/{framework_id}/{task_id}/kill", post(actions::kill))
        .route("/api/v1/offers", get(views::offers))
        .route("/api/v1/roles", get(views::roles))
        .route("/api/v1/openapi.json", get(probes::openapi))
        .merge(operator_agents())
        .merge(operator_policy())
        .layer(DefaultBodyLimit::max(LARGEST_RECORD))
}

/// What is done about agents, and what follows from it.
fn operator_agents() -> Router<Api> {
    Router::new()
        .route("/api/v1/agents/{id}/drain", post(maintenance::drain))
        .route("/api/v1/agents/{id}/deactivate", post(maintenance::deactivate))
        .route("/api/v1/agents/{id}/reactivate", post(maintenance::reactivate))
        .route("/api/v1/maintenance", get(maintenance::schedule).put(maintenance::set_schedule))
        .route("/api/v1/inverse-offers", get(maintenance::inverse_offers))
        .route("/api/v1/agents/{id}/reserve", post(reservations::reserve))
        .route("/api/v1/agents/{id}/unreserve", post(reservations::unreserve))
        .route("/api/v1/reservations", get(reservations::reservations))
        .route("/api/v1/agents/{id}/volumes", post(reservations::create))
        .route("/api/v1/agents/{id}/volumes/{volume}", delete(reservations::destroy))
        .route("/api/v1/agents/{id}/volumes/{volume}/grow", post(reservations::grow))
        .route("/api/v1/agents/{id}/volumes/{volume}/shrink", post(reservations::shrink))
        .route("/api/v1/volumes", get(reservations::volumes))
}

/// What is promised to roles, and why something waits.
fn operator_policy() -> Router<Api> {
    let quota = get(policy::quota).put(policy::set_quota).delete(policy::remove_quota);
    let weight = get(policy::weight).put(policy::set_weight).delete(policy::remove_weight);
    Router::new()
        .route("/api/v1/quotas", get(policy::quotas))
        .route("/api/v1/quotas/{*role}", quota)
        .route("/api/v1/weights", get(policy::weights))
        .route("/api/v1/weights/{*role}", weight)
        .route("/api/v1/demands", get(explain::demands))
        .route("/api/v1/explain", get(explain::explain))
        .route("/api/v1/decisions", get(explain::decisions))
}

fn probes() -> Router<Api> {
    Router::new()
        .route("/health", get(probes::health))
        .route("/ready", get(probes::ready))
        .route("/metrics", get(probes::metrics))
}

fn header_by_default(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}

async fn wrong_method(request: Request) -> Failure {
    let error = format!("{} does not answer to {}", request.uri().path(), request.method());
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, error)
}
