//! Who the agent is to a registry: a Docker configuration file (`~/.docker/config.json`, `auth.json`), and the challenges with
//! which registries ask.
//!
//! Not here: credential helpers, which are programs to be run.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use super::super::error::ImageError;
use super::super::manifest::json;

/// Who somebody is to one registry. Never shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Credentials {
    /// `user:password` in base64, as a header has it.
    auth: String,
    username: String,
    password: String,
    /// What stands for both, once the user has signed in elsewhere (OAuth 2: a refresh token).
    #[serde(rename = "identitytoken")]
    pub(super) identity: String,
}

impl Credentials {
    /// Adds them to a request.
    pub(super) fn sign(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match (self.auth.is_empty(), self.username.is_empty()) {
            (false, _) => request.header(reqwest::header::AUTHORIZATION, format!("Basic {}", self.auth)),
            (true, false) => request.basic_auth(&self.username, Some(&self.password)),
            (true, true) => request,
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Credentials>,
}

/// What a Docker configuration file says for a repository: the entry with the longest name that begins its own.
///
/// # Errors
/// It is no such file.
pub(super) fn find(
    what: &str,
    bytes: &[u8],
    host: &str,
    name: &str,
) -> Result<Option<Credentials>, ImageError> {
    let file: File = json(what, bytes)?;
    let wanted = format!("{}/{name}", plain(host));
    let is_for =
        |entry: &str| wanted == entry || wanted.strip_prefix(entry).is_some_and(|rest| rest.starts_with('/'));
    let entries = file.auths.into_iter().map(|(name, credentials)| (plain(&name).to_owned(), credentials));
    let best = entries.filter(|(name, _)| is_for(name)).max_by_key(|(name, _)| name.len());
    Ok(best.map(|(_, credentials)| credentials))
}

/// Entries may be URLs, and that of Docker's own registry has had several names.
fn plain(entry: &str) -> &str {
    let entry = entry.split_once("://").map_or(entry, |(_, rest)| rest).trim_end_matches('/');
    let entry = entry.trim_end_matches("/v1").trim_end_matches("/v2");
    match entry {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        entry => entry,
    }
}

/// How a registry wants to be told who asks (RFC 9110, 11.6.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// With a token from the place that `realm` names.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// Reads the header `WWW-Authenticate`.
pub(super) fn challenge(header: &str) -> Option<Challenge> {
    let (scheme, mut rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    let mut fields = BTreeMap::new();
    while let Some((name, behind)) = rest.split_once('=') {
        let (value, behind) = match behind.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => behind.split_once(',').unwrap_or((behind, "")),
        };
        fields.insert(name.trim().trim_start_matches(',').trim().to_ascii_lowercase(), value.to_owned());
        rest = behind.trim_start().trim_start_matches(',');
    }
    let realm = fields.remove("realm").filter(|_| scheme.eq_ignore_ascii_case("bearer"))?;
    Some(Challenge::Bearer { realm, service: fields.remove("service"), scope: fields.remove("scope") })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_nearest_entry_counts() {
        let file = br#"{"auths":{"https://index.docker.io/v1/":{"auth":"ZG9ja2Vy"},"r.test:5000":{"auth":"YQ=="},
                        "r.test:5000/team":{"username":"u","password":"p"},"r.test":{"auth":"bm8="}},"credsStore":"x"}"#;
        let found =
            |host, name| find("f", file, host, name).unwrap().map(|found| (found.auth, found.username));
        let plain = |auth: &str| Some((auth.to_owned(), String::new()));
        assert_eq!(found("docker.io", "library/nginx"), plain("ZG9ja2Vy"));
        assert_eq!(found("r.test:5000", "other/app"), plain("YQ=="));
        assert_eq!(found("r.test:5000", "team/app"), Some((String::new(), "u".to_owned())));
        assert_eq!(found("r.test:5000", "teams/app"), plain("YQ=="));
        assert_eq!(found("elsewhere", "app"), None);
        assert!(find("f", b"auths", "h", "n").is_err());
    }

    #[test]
    fn challenges_are_read() {
        let bearer =
            r#"Bearer realm="https://auth.test/token",service="r.test",scope="repository:a/b:pull,push""#;
        let expected = Challenge::Bearer {
            realm: "https://auth.test/token".into(),
            service: Some("r.test".into()),
            scope: Some("repository:a/b:pull,push".into()),
        };
        assert_eq!(challenge(bearer), Some(expected));
        assert_eq!(challenge("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(challenge("Negotiate"), None);
        assert_eq!(challenge("Bearer service=\"x\""), None);
    }

    proptest! {
        #[test]
        fn no_header_stops_the_reader(text in ".{0,80}", tail in "[a-z=\", ]{0,40}") {
            drop(challenge(&text));
            drop(challenge(&format!("Bearer {tail}")));
        }
    }
}
