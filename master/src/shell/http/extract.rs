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

/// The body, a JSON object, whatever its type is said to be; no body stands for an empty object. A list is refused: serde would
/// take it for the fields in their order, and an empty one for nothing said.
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
        if body.trim_ascii_start().first() == Some(&b'[') {
            return Err(Failure::bad("the body is a JSON list; expected an object".to_owned()));
        }
        read(&body).map(Self)
    }
}

/// The body, a JSON list, whatever its type is said to be.
pub(super) struct Listed<T>(pub(super) Vec<T>);

impl<T, S> FromRequest<S> for Listed<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        read(&Bytes::from_request(request, state).await?).map(Self)
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure::bad(format!("the body cannot be read: {error}")))
}
