//! Path, query and body as axum has them, but refused with a [`Failure`].

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::failure::Failure;

/// The parameters in the path. Ids are checked as they are parsed.
pub(super) struct At<T>(pub(super) T);

impl<T, S> FromRequestParts<S> for At<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        Ok(Self(Path::from_request_parts(parts, state).await?.0))
    }
}

/// The query. Types that derive with `deny_unknown_fields` refuse a parameter that they do not know by its name.
pub(super) struct Asked<T>(pub(super) T);

impl<T, S> FromRequestParts<S> for Asked<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        Ok(Self(Query::from_request_parts(parts, state).await?.0))
    }
}

/// The body, as JSON, whatever its type is said to be; no body stands for an empty object.
pub(super) struct Said<T>(pub(super) T);

impl<T, S> FromRequest<S> for Said<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let body = Bytes::from_request(request, state).await?;
        let body = if body.is_empty() { Bytes::from_static(b"{}") } else { body };
        let said = serde_json::from_slice(&body);
        said.map(Self).map_err(|error| Failure::bad(format!("the body cannot be read: {error}")))
    }
}
