//! What frameworks' own REST APIs share: errors as [`Problem`]s in JSON, bodies in TOML or JSON, metrics, a port to listen on.
//!
//! ```no_run
//! # async fn example() -> Result<(), divvy_sdk::rest::BindError> {
//! use divvy_sdk::rest::{Json, Listener, Refused, complete};
//! use axum::{Router, routing::get};
//!
//! async fn app() -> Result<Json<u32>, Refused> {
//!     Err(Refused::not_found("no app web; see `divvy service ls`"))
//! }
//!
//! let listener = Listener::bind("127.0.0.1:0").await?;
//! println!("{}", listener.url()); // for `Framework::url`
//! listener.serve(complete(Router::new().route("/v1/apps/web", get(app))), std::future::pending()).await;
//! # Ok(())
//! # }
//! ```
//!
//! Not here: any route; a scheduler behind the routes (see [`crate::hosted`]).

use std::fmt::{self, Write as _};
use std::future::Future;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::header::{CONTENT_TYPE, ORIGIN};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use divvy_proto::Invalid;
use divvy_proto::api::Problem;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tracing::warn;

use crate::Stopped;
use crate::spec::{Format, SpecError};

pub use axum::Json;

/// Largest body of a request (Nomad keeps sources up to 1 MB).
pub const MAX_BODY: usize = 1 << 20;

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

impl From<BytesRejection> for Refused {
    fn from(rejection: BytesRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<JsonRejection> for Refused {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Refused {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

/// A body that is a file as users write it: in TOML or JSON, as its content type says, or as it looks where that says neither.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// All of it.
    pub text: String,
    /// How it is written.
    pub format: Format,
}

impl Document {
    fn new(headers: &HeaderMap, body: &[u8]) -> Result<Self, Refused> {
        let text = std::str::from_utf8(body).map_err(|error| {
            let at = error.valid_up_to();
            Refused::invalid(format!("the body is not UTF-8 at byte {at}: expected TOML or JSON"))
        })?;
        let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let format = match (kind.contains("json"), kind.contains("toml")) {
            (true, _) => Format::Json,
            (_, true) => Format::Toml,
            _ if text.trim_start().starts_with('{') => Format::Json,
            _ => Format::Toml,
        };
        Ok(Self { text: text.to_owned(), format })
    }
}

impl<S: Send + Sync> FromRequest<S> for Document {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let headers = request.headers().clone();
        Self::new(&headers, &Bytes::from_request(request, state).await?)
    }
}

/// An app, job or the like that waits now: what `?waiting=true` of a framework's list answers, for dashboards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Its id.
    pub id: String,
    /// Why, most pressing first; never empty.
    pub waiting: Vec<String>,
}

/// The query of a framework's list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct ListQuery {
    /// Only what waits now, and why: [`Waiting`] instead of the whole.
    #[serde(default)]
    pub waiting: bool,
}

/// What every API answers in the same way: 404 and 405 as [`Problem`]s, 413 to bodies beyond [`MAX_BODY`], 403 to pages of others.
/// To be called when all routes are there.
pub fn complete<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(refuse_pages))
}

/// A browser on this machine reaches loopback, so any page that it shows could try to change things here. Programs say no origin;
/// nor does the master, which has looked at it before it passes a request on.
async fn refuse_pages(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    let is_page = headers.contains_key(ORIGIN) || site.is_some_and(|site| site != b"none");
    if is_page && !request.method().is_safe() {
        let reason = "a page in a browser may change things here by way of the master's address only";
        return Refused::new(StatusCode::FORBIDDEN, reason).into_response();
    }
    next.run(request).await
}

async fn unknown_path(uri: Uri) -> Refused {
    Refused::not_found(format!("there is nothing at {}; /openapi.json lists what there is", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Refused {
    let reason = format!("{method} cannot be asked of {}; /openapi.json lists what can", uri.path());
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, reason)
}

/// A document that is JSON already, such as an API's description.
#[must_use]
pub fn json_text(text: &'static str) -> Response {
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

/// Numbers in the text format of Prometheus.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metrics(String);

impl Metrics {
    /// One gauge: a number for each value of `label`. `name` is a metric's name in Prometheus; `help` is one line.
    #[must_use]
    pub fn gauge<L: fmt::Display, N: fmt::Display>(
        mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (L, N)>,
    ) -> Self {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (value, number) in values {
            let value = value.to_string().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = writeln!(self.0, "{name}{{{label}=\"{value}\"}} {number}");
        }
        self
    }
}

impl IntoResponse for Metrics {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], self.0).into_response()
    }
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
        Self::bind_anywhere(address).await
    }

    /// Listens on any address. Beyond loopback, whoever can reach it can do everything.
    ///
    /// # Errors
    /// The address is not one of this machine, or is in use.
    pub async fn bind_anywhere(address: SocketAddr) -> Result<Self, BindError> {
        let io = |source| BindError::Io { address, source };
        let listener = TcpListener::bind(address).await.map_err(io)?;
        let address = listener.local_addr().map_err(io)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Base address, for [`crate::Framework::url`].
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Serves until `stop` resolves; requests that are under way are finished.
    pub async fn serve(self, routes: Router, stop: impl Future<Output = ()> + Send + 'static) {
        if let Err(error) = axum::serve(self.listener, routes).with_graceful_shutdown(stop).await {
            warn!(%error, "the REST API has ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::spec;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Scale {
        instances: u32,
    }

    fn body(kind: &'static str, text: &'static str) -> Result<Scale, String> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
        let document = Document::new(&headers, text.as_bytes()).map_err(|refused| refused.reason)?;
        spec::parse(&document.text, document.format).map_err(|error| error.to_string())
    }

    #[test]
    fn a_body_is_read_as_it_says_it_is_written() {
        assert_eq!(body("application/toml; charset=utf-8", "instances = 3"), Ok(Scale { instances: 3 }));
        assert_eq!(body("application/json", "{\"instances\": 3}"), Ok(Scale { instances: 3 }));
        let error = "line 1, column 1: instance: unknown field `instance`, expected `instances`".to_owned();
        assert_eq!(body("application/toml", "instance = 3"), Err(error));
    }

    #[test]
    fn a_body_that_does_not_say_is_read_as_it_looks() {
        assert_eq!(body("text/plain", "instances = 3"), Ok(Scale { instances: 3 }));
        assert_eq!(body("text/plain", "\n {\"instances\": 3}"), Ok(Scale { instances: 3 }));
        let refused = Document::new(&HeaderMap::new(), b"a = \"\xff\"").unwrap_err();
        let reason = "the body is not UTF-8 at byte 5: expected TOML or JSON".to_owned();
        assert_eq!(refused, Refused { status: StatusCode::BAD_REQUEST, reason });
    }

    #[test]
    fn metrics_are_text_that_a_label_cannot_break() {
        let metrics = Metrics::default().gauge("apps", "Apps.", "state", [("running", 2), ("a\"\\\n", 0)]);
        let text = "# HELP apps Apps.\n# TYPE apps gauge\napps{state=\"running\"} 2\napps{state=\"a\\\"\\\\\\n\"} 0\n";
        assert_eq!(metrics, Metrics(text.to_owned()));
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

    /// A form on any page can send text, without asking first.
    #[tokio::test]
    async fn a_page_of_others_changes_nothing() {
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let url = listener.url();
        let routes = Router::new().route("/", axum::routing::post(|| async { "done" }));
        let server = tokio::spawn(listener.serve(complete(routes), std::future::pending()));
        let post = async |header: &'static str, value: &'static str| {
            let request = reqwest::Client::new().post(&url).header(header, value).body("id = \"evil\"");
            request.send().await.unwrap().status().as_u16()
        };
        assert_eq!(post("content-type", "text/plain").await, 200);
        assert_eq!(post("origin", "http://evil.example").await, 403);
        assert_eq!(post("sec-fetch-site", "cross-site").await, 403);
        server.abort();
    }
}
