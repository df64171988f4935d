//! Registries: the pull half of the OCI distribution specification, which is Docker's Registry HTTP API V2.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Seek, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use divvy_proto::container::{Digest, ImageReference};
use futures::StreamExt;
use reqwest::{Method, Response, StatusCode, Url, header};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use super::super::error::ImageError;
use super::super::layer;
use super::super::manifest::{Descriptor, MAX_DOCUMENT, MEDIA_TYPES, json};
use super::credentials::{self, Challenge, Credentials};
use super::{blocking, check, read_small};
use crate::causes::causes;

/// A registry that says nothing for so long is given up (Mesos's fetcher: 1 min).
const STALLED: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(15);
/// So often in a row a request may fail without having brought anything.
const ATTEMPTS: u32 = 5;
/// Before the second attempt; twice as long before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const MAX_REDIRECTS: usize = 5;

/// How registries are reached. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::image) struct Registries {
    http: reqwest::Client,
    insecure: BTreeSet<String>,
    credentials: Option<PathBuf>,
}

impl Registries {
    /// Registries on `insecure` hosts are asked without TLS, as those of loopback are; `credentials` is a Docker configuration file.
    ///
    /// # Errors
    /// The system has no certificates, or the like.
    pub(in crate::image) fn new(
        insecure: BTreeSet<String>,
        credentials: Option<PathBuf>,
    ) -> Result<Self, reqwest::Error> {
        let redirect = reqwest::redirect::Policy::custom(|attempt| {
            let was_safe = attempt.previous().iter().any(|url| url.scheme() == "https");
            match attempt.previous().len() > MAX_REDIRECTS || (was_safe && attempt.url().scheme() != "https")
            {
                true => attempt.error("the registry redirects too often, or to where nothing is encrypted"),
                false => attempt.follow(),
            }
        });
        let http =
            reqwest::Client::builder().connect_timeout(CONNECT).read_timeout(STALLED).redirect(redirect);
        Ok(Self { http: http.build()?, insecure, credentials })
    }

    pub(super) async fn repository(
        &self,
        host: &str,
        name: &str,
        reference: ImageReference,
    ) -> Result<Repository, ImageError> {
        let is_plain = is_loopback(host) || self.insecure.contains(host);
        // Docker's own registry is not where its name says, and its own images have no owner in their name.
        let (at, name) = match host {
            "docker.io" if !name.contains('/') => ("registry-1.docker.io", format!("library/{name}")),
            "docker.io" => ("registry-1.docker.io", name.to_owned()),
            host => (host, name.to_owned()),
        };
        let scheme = if is_plain { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{at}/v2/{name}/"));
        let base =
            base.map_err(|error| ImageError::malformed(format!("registry {host}"), error.to_string()))?;
        let (host, http) = (host.to_owned(), self.http.clone());
        let credentials = match &self.credentials {
            Some(path) => {
                let (path, host, name) = (path.clone(), host.clone(), name.clone());
                let what = path.display().to_string();
                blocking(move || credentials::find(&what, &read_small(&path)?, &host, &name)).await?
            }
            None => None,
        };
        Ok(Repository { http, base, host, name, reference, credentials, authorization: Mutex::default() })
    }
}

/// With or without a port.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// One repository, and which image of it is wanted.
#[derive(Debug)]
pub(in crate::image) struct Repository {
    http: reqwest::Client,
    /// With a slash at its end.
    base: Url,
    host: String,
    name: String,
    reference: ImageReference,
    credentials: Option<Credentials>,
    /// What the registry wants to see with each request, once it has said so.
    authorization: Mutex<Option<Authorization>>,
}

#[derive(Debug, Clone)]
enum Authorization {
    Basic,
    Token(Secret),
}

/// Not shown in logs.
#[derive(Clone)]
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

/// Why a request brought nothing, and whether another may.
struct Trouble {
    why: ImageError,
    again: bool,
}

impl From<ImageError> for Trouble {
    fn from(why: ImageError) -> Self {
        let again = matches!(why, ImageError::Unreachable { .. });
        Self { why, again }
    }
}

impl Repository {
    /// The wanted image's manifest, or index, and its digest.
    ///
    /// # Errors
    /// There is none, or the registry does not deliver it.
    pub(super) async fn top(&self) -> Result<(Digest, Vec<u8>), ImageError> {
        let reference = match &self.reference {
            ImageReference::Tag(tag) => tag.as_str(),
            ImageReference::Digest(digest) => digest.as_str(),
        };
        let (bytes, said) = self.manifest(reference).await?;
        let found = layer::digest_of(&bytes);
        let expected = match &self.reference {
            ImageReference::Digest(digest) => Some(digest.clone()),
            ImageReference::Tag(_) => said.and_then(|said| said.parse().ok()),
        };
        if let Some(expected) = expected {
            check("the registry's manifest", &expected, &bytes)?;
        }
        let digest = found.parse().map_err(|_| ImageError::malformed("the manifest", "it has no digest"))?;
        Ok((digest, bytes))
    }

    /// A manifest, or a configuration. The caller checks it.
    pub(super) async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let digest = descriptor.digest.as_str();
        let is_manifest = MEDIA_TYPES.split(", ").any(|known| known == descriptor.media_type);
        if is_manifest {
            return Ok(self.manifest(digest).await?.0);
        }
        self.retrying(|| async {
            let answer = self.get(&format!("blobs/{digest}"), |request| request).await?;
            self.body(self.success(answer, digest).await?).await
        })
        .await
    }

    /// A manifest and the digest that the registry says it has.
    async fn manifest(&self, reference: &str) -> Result<(Vec<u8>, Option<String>), ImageError> {
        self.retrying(|| async {
            let path = format!("manifests/{reference}");
            let answer = self.get(&path, |request| request.header(header::ACCEPT, MEDIA_TYPES)).await?;
            let answer = self.success(answer, reference).await?;
            let said = answer.headers().get("docker-content-digest");
            let said = said.and_then(|said| said.to_str().ok()).map(str::to_owned);
            Ok((self.body(answer).await?, said))
        })
        .await
    }

    /// Downloads a layer into a file that has no name. What is interrupted goes on where it stopped, if the registry can.
    ///
    /// # Errors
    /// The registry does not deliver it, or something else.
    pub(super) async fn blob(
        &self,
        descriptor: &Descriptor,
        tmp: &Path,
        progress: impl Fn(u64) + Send,
    ) -> Result<File, ImageError> {
        let file = tempfile::tempfile_in(tmp).map_err(ImageError::file("make a file in", tmp))?;
        let mut download = Download { file, digest: Sha256::new(), have: 0, size: descriptor.size, tmp };
        let mut attempt = 0;
        loop {
            let before = download.have;
            let trouble = match self.download(descriptor, &mut download, &progress).await {
                Ok(()) => break,
                Err(trouble) => trouble,
            };
            attempt = if download.have > before { 1 } else { attempt + 1 };
            if !trouble.again || attempt >= ATTEMPTS {
                return Err(trouble.why);
            }
            tracing::debug!("{}; trying again from byte {}", trouble.why, download.have);
            tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(attempt - 1)).await;
        }
        let found = layer::text(download.digest);
        if found != descriptor.digest.as_str() {
            let (what, expected) = ("a layer from the registry".to_owned(), descriptor.digest.clone());
            return Err(ImageError::Digest { what, expected, found });
        }
        Ok(download.file)
    }

    async fn download(
        &self,
        descriptor: &Descriptor,
        download: &mut Download<'_>,
        progress: &(impl Fn(u64) + Send),
    ) -> Result<(), Trouble> {
        let digest = descriptor.digest.as_str();
        let range = format!("bytes={}-", download.have);
        let resumes = download.have > 0;
        let ask = |request: reqwest::RequestBuilder| match resumes {
            true => request.header(header::RANGE, &range),
            false => request,
        };
        let answer = self.success(self.get(&format!("blobs/{digest}"), ask).await?, digest).await?;
        if resumes && !continues(&answer, download.have) {
            download.restart()?;
        }
        let mut body = answer.bytes_stream();
        while let Some(chunk) = body.next().await {
            download.take(&chunk.map_err(|error| self.unreachable(&error))?)?;
            progress(download.have);
        }
        match download.have == descriptor.size {
            true => Ok(()),
            false => Err(Trouble { why: self.stopped(download.have, descriptor), again: true }),
        }
    }

    fn stopped(&self, have: u64, descriptor: &Descriptor) -> ImageError {
        let why = format!("it sent {have} of the {} bytes of {}", descriptor.size, descriptor.digest);
        ImageError::Unreachable { host: self.host.clone(), why }
    }

    /// Asks until there is an answer that counts.
    async fn retrying<T, F>(&self, ask: impl Fn() -> F) -> Result<T, ImageError>
    where
        F: Future<Output = Result<T, Trouble>>,
    {
        let mut attempt = 1;
        loop {
            match ask().await {
                Ok(answer) => return Ok(answer),
                Err(Trouble { why, again }) if !again || attempt >= ATTEMPTS => return Err(why),
                Err(_) => tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(attempt - 1)).await,
            }
            attempt += 1;
        }
    }

    /// Sends a request, and once more with what the registry wants to know of who asks.
    async fn get(
        &self,
        path: &str,
        with: impl Fn(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Result<Response, Trouble> {
        let url = self.base.join(path);
        let url = url.map_err(|error| ImageError::malformed(path, error.to_string()))?;
        let authorization = self.authorization.lock().await.clone();
        let send = async |authorization: Option<Authorization>| {
            let request = with(self.http.request(Method::GET, url.clone()));
            let request = match (authorization, &self.credentials) {
                (Some(Authorization::Token(Secret(token))), _) => request.bearer_auth(token),
                (Some(Authorization::Basic), Some(credentials)) => credentials.sign(request),
                _ => request,
            };
            request.send().await.map_err(|error| self.unreachable(&error))
        };
        let answer = send(authorization).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let wanted = answer.headers().get(header::WWW_AUTHENTICATE).and_then(|text| text.to_str().ok());
        let Some(challenge) = wanted.and_then(credentials::challenge) else { return Ok(answer) };
        let authorization = self.authorize(challenge).await?;
        *self.authorization.lock().await = Some(authorization.clone());
        Ok(send(Some(authorization)).await?)
    }

    async fn authorize(&self, challenge: Challenge) -> Result<Authorization, Trouble> {
        let Challenge::Bearer { realm, service, scope } = challenge else { return Ok(Authorization::Basic) };
        let mut url =
            Url::parse(&realm).map_err(|error| self.refuses(format!("its realm {realm:?}: {error}")))?;
        if url.scheme() != "https" && self.base.scheme() == "https" {
            return Err(self.refuses(format!("it wants passwords sent to {realm}, unencrypted")).into());
        }
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.name));
        let identity = self.credentials.as_ref().filter(|credentials| !credentials.identity.is_empty());
        let mut form = url::form(&scope, service.as_deref());
        let request = match identity {
            Some(credentials) => {
                form.extend([("grant_type", "refresh_token"), ("client_id", "divvy")].map(url::owned));
                form.push(url::owned(("refresh_token", &credentials.identity)));
                let body = url::encoded(&form);
                let kind = "application/x-www-form-urlencoded";
                self.http.post(url).header(header::CONTENT_TYPE, kind).body(body)
            }
            None => {
                url.query_pairs_mut().extend_pairs(&form);
                let request = self.http.get(url);
                self.credentials.iter().fold(request, |request, credentials| credentials.sign(request))
            }
        };
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        if !answer.status().is_success() {
            return Err(self.refuses(format!("{realm} gives no token: {}", answer.status())).into());
        }
        let answer: TokenAnswer = json(&format!("the answer of {realm}"), &self.body(answer).await?)?;
        let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
        Ok(Authorization::Token(Secret(token)))
    }

    /// The answer, if it is one to build on.
    async fn success(&self, answer: Response, what: &str) -> Result<Response, Trouble> {
        let status = answer.status();
        let image = format!("{}/{}", self.host, self.name);
        let why = match status {
            _ if status.is_success() => return Ok(answer),
            StatusCode::NOT_FOUND => ImageError::NotFound(format!("{image} has no {what}")),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let hint = match self.credentials {
                    Some(_) => "the credentials in the agent's Docker configuration file do not suffice",
                    None => "the agent has no credentials for it: see `divvy agent --registry-credentials`",
                };
                self.refuses(format!("{image} may not be read ({status}): {hint}"))
            }
            _ => self.refuses(format!("it answers {status} when asked for {what} of {image}")),
        };
        let again = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        Err(Trouble { why, again })
    }

    /// A short body, whole.
    async fn body(&self, answer: Response) -> Result<Vec<u8>, Trouble> {
        let (mut bytes, mut body) = (Vec::new(), answer.bytes_stream());
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk.map_err(|error| self.unreachable(&error))?);
            if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_DOCUMENT) {
                return Err(self.refuses("a document of it is longer than 4 MiB".to_owned()).into());
            }
        }
        Ok(bytes)
    }

    fn refuses(&self, why: String) -> ImageError {
        ImageError::Registry { host: self.host.clone(), why }
    }

    fn unreachable(&self, error: &reqwest::Error) -> ImageError {
        match error.is_redirect() {
            true => self.refuses(causes(error)),
            false => ImageError::Unreachable { host: self.host.clone(), why: causes(error) },
        }
    }
}

/// Whether an answer begins where we stopped.
fn continues(answer: &Response, have: u64) -> bool {
    let range = answer.headers().get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
    answer.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.starts_with(&format!("bytes {have}-")))
}

/// A layer on its way.
struct Download<'a> {
    file: File,
    digest: Sha256,
    have: u64,
    size: u64,
    tmp: &'a Path,
}

impl Download<'_> {
    fn restart(&mut self) -> Result<(), ImageError> {
        (self.digest, self.have) = (Sha256::new(), 0);
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(ImageError::file("empty a file in", self.tmp))
    }

    /// A write to the page cache, of a few KiB: not worth another thread.
    fn take(&mut self, chunk: &[u8]) -> Result<(), ImageError> {
        self.have = self.have.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        if self.have > self.size {
            let why = format!("it is longer than the {} bytes that its manifest says", self.size);
            return Err(ImageError::malformed("a layer from the registry", why));
        }
        self.digest.update(chunk);
        self.file.write_all(chunk).map_err(ImageError::file("write a file in", self.tmp))
    }
}

/// Pairs of a form or a query.
mod url {
    pub(super) fn owned((name, value): (&str, &str)) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    pub(super) fn form(scope: &str, service: Option<&str>) -> Vec<(String, String)> {
        let service = service.map(|service| ("service", service));
        service.into_iter().chain([("scope", scope)]).map(owned).collect()
    }

    /// As forms are sent.
    pub(super) fn encoded(form: &[(String, String)]) -> String {
        let mut url = reqwest::Url::parse("http://form/").ok();
        if let Some(url) = &mut url {
            url.query_pairs_mut().extend_pairs(form);
        }
        url.as_ref().and_then(|url| url.query()).unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests;
