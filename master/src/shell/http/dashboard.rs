//! The dashboard: what `make dashboard` built, embedded in the binary, or a page that says how to build it.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::failure::Failure;

#[derive(RustEmbed)]
#[folder = "dashboard/dist"]
#[allow_missing = true]
struct Built;

/// The page of the application. Its file never changes its name, so it is asked for anew each time.
const INDEX: &str = "index.html";

/// Vite puts a hash of the content into the names of files below this.
const HASHED: &str = "assets/";

const NOT_BUILT: &str = include_str!("not_built.html");

/// Any path that no other route has.
pub(super) async fn serve(request: Request) -> Response {
    let path = request.uri().path();
    if is_grpc(request.headers()) {
        return tonic::Status::unimplemented(path).into_http::<axum::body::Body>();
    }
    if path.starts_with("/api/") {
        return Failure::not_found(path).into_response();
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Failure::new(StatusCode::METHOD_NOT_ALLOWED, format!("{path} can only be read"))
            .into_response();
    }
    page(path.trim_start_matches('/'), request.headers())
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn page(path: &str, headers: &HeaderMap) -> Response {
    if let Some(file) = Built::get(path) {
        return answer(path, &file, headers);
    }
    // A path of the application, which routes by itself; but a file that is missing is missing.
    if path.rsplit('/').next().is_some_and(|last| last.contains('.')) {
        return Failure::not_found(format_args!("/{path}")).into_response();
    }
    match Built::get(INDEX) {
        Some(file) => answer(INDEX, &file, headers),
        None => Html(NOT_BUILT).into_response(),
    }
}

fn answer(path: &str, file: &EmbeddedFile, headers: &HeaderMap) -> Response {
    let hash: String =
        file.metadata.sha256_hash().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{hash}\"");
    let caching = if path.starts_with(HASHED) { "public, max-age=31536000, immutable" } else { "no-cache" };
    let unchanged =
        headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = if unchanged {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        file.data.clone().into_owned().into_response()
    };
    let set = |headers: &mut HeaderMap, name, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    let kind = file.metadata.mimetype();
    let charset = if kind.starts_with("text/") { "; charset=utf-8" } else { "" };
    set(response.headers_mut(), header::CONTENT_TYPE, &format!("{kind}{charset}"));
    set(response.headers_mut(), header::CACHE_CONTROL, caching);
    set(response.headers_mut(), header::ETAG, &tag);
    response
}
