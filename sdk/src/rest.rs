//! What frameworks' own REST APIs share: errors as [`Problem`]s in JSON, bodies in TOML or JSON, a port on loopback.
//!
//! ```no_run
//! # async fn example() -> Result<(), divvy_sdk::rest::BindError> {
//! use divvy_sdk::rest::{Json, Listener, Refused};
//! use axum::{Router, routing::get};
//!
//! async fn app() -> Result<Json<u32>, Refused> {
//!     Err(Refused::not_found("no app web; see `divvy service ls`"))
//! }
//!
//! let listener = Listener::bind("127.0.0.1:0").await?;
//! println!("{}", listener.url()); // for `Framework::url`
//! listener.serve(Router::new().route("/v1/apps/web", get(app)), std::future::pending()).await;
//! # Ok(())
//! # }
//! ```
//!
//! Not here: any route.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use divvy_proto::Invalid;
use divvy_proto::api::Problem;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tracing::warn;

use crate::Stopped;
use crate::spec::{self, Format, SpecError};

pub use axum::Json;

/// A request that was not done, and why: a status for programs, text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What kind of refusal.
    pub status: StatusCode,
    /// Why, and what to do next.
    pub reason: String,
}

impl Refused {
    /// Any status.
    pub fn new(status: StatusCode, reason: impl fmt::Display) -> Self {
        Self { status, reason: reason.to_string() }
    }

    /// 400: what was sent is wrong.
    pub fn invalid(reason: impl fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason)
    }

    /// 404: no such object.
    pub fn not_found(reason: impl fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, reason)
    }

    /// 409: not as things stand.
    pub fn conflict(reason: impl fmt::Display) -> Self {
        Self::new(StatusCode::CONFLICT, reason)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, Json(Problem { error: self.reason })).into_response()
    }
}

impl From<Invalid> for Refused {
    fn from(invalid: Invalid) -> Self {
        Self::invalid(invalid)
    }
}

impl From<SpecError> for Refused {
    fn from(error: SpecError) -> Self {
        Self::invalid(error)
    }
}

impl From<Stopped> for Refused {
    fn from(stopped: Stopped) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, stopped)
    }
}

/// Reads a body as the headers say it is written: TOML for `application/toml`, JSON otherwise.
///
/// # Errors
/// The body is not what `T` expects.
pub fn read<T: DeserializeOwned>(headers: &HeaderMap, body: &Bytes) -> Result<T, SpecError> {
    let written = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let toml = written.split(';').next().is_some_and(|kind| kind.trim().ends_with("toml"));
    let text = std::str::from_utf8(body).map_err(|error| {
        let text = String::from_utf8_lossy(body);
        Invalid::new("body", text, format!("text in UTF-8, but byte {} is not", error.valid_up_to()))
    })?;
    spec::parse(text, if toml { Format::Toml } else { Format::Json })
}

/// A port that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is not one.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The system refuses.
    #[error("listening on {address}: {source}")]
    Io {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// A port that REST requests come to.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens on a loopback address, such as `127.0.0.1:5060`; with port 0 on any that is free. Other addresses are refused, as
    /// there is no authentication yet.
    ///
    /// # Errors
    /// The address is not one of loopback, or is in use.
    pub async fn bind(address: &str) -> Result<Self, BindError> {
        let invalid =
            || Invalid::new("listen", address, "a loopback address and a port, such as 127.0.0.1:5060");
        let address: SocketAddr = address.parse().map_err(|_| invalid())?;
        if !address.ip().is_loopback() {
            return Err(invalid().into());
        }
        let io = |source| BindError::Io { address, source };
        let listener = TcpListener::bind(address).await.map_err(io)?;
        let address = listener.local_addr().map_err(io)?;
        Ok(Self { listener, address })
    }

    /// Base address, for [`crate::Framework::url`].
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Serves until `stop` resolves; requests that are under way are finished. What no route takes is a [`Problem`] too.
    pub async fn serve(self, routes: Router, stop: impl Future<Output = ()> + Send + 'static) {
        let routes =
            routes.fallback(async |uri: axum::http::Uri| Refused::not_found(format!("no such path: {uri}")));
        if let Err(error) = axum::serve(self.listener, routes).with_graceful_shutdown(stop).await {
            warn!(%error, "the REST API stopped");
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Scale {
        instances: u32,
    }

    fn body(kind: &'static str, text: &'static str) -> Result<Scale, String> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
        read(&headers, &Bytes::from_static(text.as_bytes())).map_err(|error| error.to_string())
    }

    #[test]
    fn a_body_is_read_as_it_says_it_is_written() {
        assert_eq!(body("application/toml; charset=utf-8", "instances = 3"), Ok(Scale { instances: 3 }));
        assert_eq!(body("application/json", "{\"instances\": 3}"), Ok(Scale { instances: 3 }));
        let error = "line 1, column 1: instance: unknown field `instance`, expected `instances`".to_owned();
        assert_eq!(body("application/toml", "instance = 3"), Err(error));
    }

    #[tokio::test]
    async fn only_loopback_is_listened_on() {
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        assert!(listener.url().starts_with("http://127.0.0.1:"));
        for address in ["0.0.0.0:0", "localhost", "127.0.0.1"] {
            let error = Listener::bind(address).await.unwrap_err().to_string();
            assert!(error.contains("a loopback address and a port"), "{error}");
        }
    }
}
