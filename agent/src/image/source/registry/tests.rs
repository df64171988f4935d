//! A registry that wants to know who asks, and breaks off. What a real one does is told in `agent/tests/agent/images.rs`.

use std::io::Read;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::routing::get;

use super::*;

/// What the registry has and heard.
struct Fake {
    port: u16,
    blob: Vec<u8>,
    /// Whether it can begin in the middle.
    has_ranges: bool,
    heard: Mutex<Vec<String>>,
}

impl Fake {
    fn hear(&self, what: &str) {
        self.heard.lock().unwrap().push(what.to_owned());
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

fn header_of(headers: &HeaderMap, name: header::HeaderName) -> String {
    headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

async fn token(
    State(fake): State<Arc<Fake>>,
    Query(asked): Query<std::collections::BTreeMap<String, String>>,
    headers: HeaderMap,
) -> impl IntoResponse {
    fake.hear(&format!("token {} {}", header_of(&headers, header::AUTHORIZATION), asked["scope"]));
    r#"{"token":"secret"}"#
}

async fn manifest(State(fake): State<Arc<Fake>>, headers: HeaderMap) -> axum::response::Response {
    fake.hear(&format!("manifest {}", header_of(&headers, header::AUTHORIZATION)));
    if header_of(&headers, header::AUTHORIZATION) != "Bearer secret" {
        let challenge =
            format!(r#"Bearer realm="http://127.0.0.1:{}/token",service="s",scope="x:pull""#, fake.port);
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response();
    }
    "a manifest".into_response()
}

/// Gives a third of what is left, twice; then all.
async fn blob(State(fake): State<Arc<Fake>>, headers: HeaderMap) -> axum::response::Response {
    let range = header_of(&headers, header::RANGE);
    fake.hear(&format!("blob {range}"));
    let from = range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-')?.parse().ok());
    let from = from.filter(|_| fake.has_ranges).unwrap_or(0);
    let rest = &fake.blob[from..];
    let count = if fake.heard().len() < 3 { rest.len() / 3 } else { rest.len() };
    let body = rest[..count].to_vec();
    if from == 0 {
        return body.into_response();
    }
    let range = format!("bytes {from}-{}/{}", fake.blob.len() - 1, fake.blob.len());
    (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, range)], body).into_response()
}

async fn serve(has_ranges: bool) -> (Arc<Fake>, Repository, tempfile::TempDir) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let fake = Arc::new(Fake { port, blob: (0..=255).collect(), has_ranges, heard: Mutex::default() });
    let routes = Router::new()
        .route("/token", get(token))
        .route("/v2/team/app/manifests/v1", get(manifest))
        .route("/v2/team/app/blobs/{digest}", get(blob))
        .with_state(fake.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.json");
    std::fs::write(&file, format!(r#"{{"auths":{{"127.0.0.1:{port}":{{"auth":"dTpw"}}}}}}"#)).unwrap();
    let registries = Registries::new(BTreeSet::new(), Some(file)).unwrap();
    let reference = ImageReference::Tag("v1".to_owned());
    let repository =
        registries.repository(&format!("127.0.0.1:{port}"), "team/app", reference).await.unwrap();
    (fake, repository, directory)
}

fn descriptor(bytes: &[u8], size: u64) -> Descriptor {
    let digest = layer::digest_of(bytes).parse().unwrap();
    Descriptor { media_type: String::new(), digest, size, platform: None, annotations: None }
}

#[tokio::test]
async fn a_registry_is_told_who_asks_when_it_wants_to_know() {
    let (fake, repository, _directory) = serve(true).await;
    let (digest, bytes) = repository.top().await.unwrap();
    assert_eq!((digest.to_string(), bytes), (layer::digest_of(b"a manifest"), b"a manifest".to_vec()));
    repository.top().await.unwrap();
    let heard = ["manifest ", "token Basic dTpw x:pull", "manifest Bearer secret", "manifest Bearer secret"];
    assert_eq!(fake.heard(), heard);
}

#[tokio::test]
async fn what_breaks_off_goes_on_or_begins_anew() {
    for (has_ranges, heard) in [
        (true, ["blob ", "blob bytes=85-", "blob bytes=142-"]),
        (false, ["blob ", "blob bytes=85-", "blob bytes=85-"]),
    ] {
        let (fake, repository, directory) = serve(has_ranges).await;
        let mut file = repository.blob(&descriptor(&fake.blob, 256), directory.path(), |_| {}).await.unwrap();
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        assert!(bytes == fake.blob && fake.heard() == heard, "{:?}", fake.heard());
    }
}

#[tokio::test]
async fn what_is_not_what_was_promised_is_refused() {
    let (_, repository, directory) = serve(true).await;
    let blob = async |descriptor: Descriptor| {
        repository.blob(&descriptor, directory.path(), |_| {}).await.unwrap_err()
    };
    let other = blob(descriptor(b"other", 256)).await.to_string();
    assert!(other.contains("has the digest sha256:40aff2e9"), "{other}");
    let longer = blob(descriptor(b"other", 100)).await.to_string();
    assert!(longer.contains("longer than the 100 bytes"), "{longer}");
    let wanted = Repository { reference: ImageReference::Tag("none".into()), ..repository };
    assert!(matches!(wanted.top().await, Err(ImageError::NotFound(_))));
}

#[test]
fn loopback_needs_no_encryption() {
    for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.3.2.1", "[::1]:80", "[::1]"] {
        assert!(is_loopback(host), "{host}");
    }
    for host in ["localhost.evil.test", "10.0.0.1:5000", "registry", "[2001:db8::1]:5000"] {
        assert!(!is_loopback(host), "{host}");
    }
}
