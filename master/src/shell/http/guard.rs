//! Keeps web pages of others away from this master.
//!
//! A browser on the operator's machine reaches loopback, so any page that it shows could try to kill tasks or submit jobs.
//! Two checks stand against that: what changes something must come from a page of this very address, and a master on
//! loopback answers only to names of loopback (a foreign name that resolves to 127.0.0.1 is an attack: DNS rebinding).
//! Programs are not affected: they send no `Origin` and ask for the address that they connect to.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::header::{self, AsHeaderName};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::failure::Failure;

/// The names that this master answers to; any if absent.
#[derive(Debug, Clone)]
pub(in crate::shell) struct Guard {
    names: Option<Vec<String>>,
}

impl Guard {
    /// For a master that listens on `ip` and may be reached as `advertised` (an address or a URL).
    pub(in crate::shell) fn new(ip: IpAddr, advertised: Option<&str>) -> Self {
        let advertised = advertised.map(|text| text.split_once("://").map_or(text, |(_, rest)| rest));
        let names = vec!["localhost".to_owned(), host_of(advertised.unwrap_or_default()).to_owned()];
        Self { names: ip.is_loopback().then_some(names) }
    }

    fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Failure> {
        let authority = uri.authority().map(|authority| authority.as_str()).or(text(headers, header::HOST));
        if let (Some(names), Some(authority)) = (&self.names, authority) {
            let host = host_of(authority);
            let known = names.iter().any(|name| name == host)
                || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
                || host.ends_with(".localhost");
            if !known {
                let error =
                    format!("this master does not answer to {host:?}: ask for 127.0.0.1 or localhost");
                return Err(Failure::new(StatusCode::MISDIRECTED_REQUEST, error));
            }
        }
        let foreign_origin = text(headers, header::ORIGIN)
            .is_some_and(|origin| origin.split_once("://").map(|(_, rest)| rest) != authority);
        let foreign_site =
            text(headers, "sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none"));
        if !method.is_safe() && (foreign_origin || foreign_site) {
            let error = "a page of another address may not change anything here";
            return Err(Failure::new(StatusCode::FORBIDDEN, error));
        }
        Ok(())
    }
}

fn text<K: AsHeaderName>(headers: &HeaderMap, name: K) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The host in `host`, `host:port`, `[v6]`, `[v6]:port`, with or without a path behind it.
fn host_of(authority: &str) -> &str {
    let authority = authority.split('/').next().unwrap_or_default();
    match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    }
}

/// The checks as a layer over all routes.
pub(super) async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.check(request.method(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(listen: &str, method: Method, headers: &[(&'static str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let guard = Guard::new(listen.parse().unwrap(), Some("http://master.example:5050"));
        guard.check(&method, &"/x".parse().unwrap(), &map).is_ok()
    }

    #[test]
    fn a_loopback_master_answers_to_names_of_loopback() {
        for host in ["127.0.0.1:5050", "localhost:5050", "[::1]:5050", "master.example:5050", "a.localhost"] {
            assert!(allowed("127.0.0.1", Method::GET, &[("host", host)]), "{host}");
        }
        for host in ["evil.example:5050", "10.0.0.1", "localhost.evil.example"] {
            assert!(!allowed("127.0.0.1", Method::GET, &[("host", host)]), "{host}");
            assert!(allowed("10.0.0.1", Method::GET, &[("host", host)]), "{host}");
        }
    }

    #[test]
    fn a_foreign_page_can_change_nothing() {
        let host = ("host", "localhost:5050");
        assert!(allowed("127.0.0.1", Method::POST, &[host]));
        assert!(allowed("127.0.0.1", Method::POST, &[host, ("origin", "http://localhost:5050")]));
        assert!(!allowed("127.0.0.1", Method::POST, &[host, ("origin", "http://evil.example")]));
        assert!(!allowed("127.0.0.1", Method::POST, &[host, ("origin", "http://localhost:8080")]));
        assert!(!allowed("127.0.0.1", Method::DELETE, &[host, ("sec-fetch-site", "cross-site")]));
        assert!(allowed("127.0.0.1", Method::GET, &[host, ("sec-fetch-site", "cross-site")]));
    }
}
