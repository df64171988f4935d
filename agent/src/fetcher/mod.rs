//! Artifacts: from a file of this machine or from http(s) into a sandbox, checked, unpacked, made executable.
//!
//! What a task asks for is not trusted: a file is opened with the rights of the task's user, and neither a path nor an archive
//! leads out of the sandbox. What comes from http(s) always has a checksum, and goes through a cache that all tasks share.

mod cache;
mod download;
mod local;
mod unpack;

use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use divvy_proto::Bytes;
use divvy_proto::task::Artifact;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::container::UserName;
use cache::{Cache, Key, Taken};
use download::Download;
use local::copy;
use unpack::place;

/// A server that says nothing for so long is given up (Mesos: 1 min).
const STALLED: Duration = Duration::from_secs(60);

/// Why an artifact is not in the sandbox.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The URI, the checksum or the path is not one.
    #[error("artifact {uri}: {what}")]
    Invalid { uri: String, what: String },
    /// It is not there, may not be read, or cannot be written.
    #[error("artifact {uri}: cannot {what}: {source}")]
    File { uri: String, what: &'static str, source: io::Error },
    /// A server does not have it or did not deliver it.
    #[error("artifact {uri}: {what}")]
    Download { uri: String, what: String },
    /// It is not what was promised.
    #[error("artifact {uri}: its SHA-256 is {found}, not {expected}")]
    Checksum { uri: String, expected: String, found: String },
    /// All artifacts of a task together took too long.
    #[error("artifact {uri}: it was not there within {} of the first artifact's begin", humantime::format_duration(*.limit))]
    TooLong { uri: String, limit: Duration },
}

/// Why there is no fetcher.
#[derive(Debug, thiserror::Error)]
pub enum FetcherError {
    /// The HTTP client cannot be made.
    #[error("cannot make an HTTP client: {0}")]
    Http(#[from] reqwest::Error),
    /// The cache's directory cannot be used.
    #[error("cannot use the cache of artifacts {}: {source}", .path.display())]
    Cache {
        /// Which directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Fetches artifacts; one connection pool and one cache for all tasks of an agent. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Fetcher {
    http: reqwest::Client,
    cache: Cache,
    limit: Duration,
}

/// Where an artifact comes from.
enum Origin {
    File(PathBuf),
    /// With the checksum that it has to have.
    Web(reqwest::Url, String),
}

impl Fetcher {
    /// A fetcher with a cache of at most `size` in this directory, for tasks that wait at most `limit` for all of their artifacts.
    pub(crate) fn new(cache: PathBuf, size: Bytes, limit: Duration) -> Result<Self, FetcherError> {
        let http = reqwest::Client::builder().connect_timeout(STALLED).read_timeout(STALLED).build()?;
        let opened = Cache::open(cache.clone(), size);
        let cache = opened.map_err(|source| FetcherError::Cache { path: cache, source })?;
        Ok(Self { http, cache, limit })
    }

    /// Puts a task's artifacts into a sandbox in which nothing runs yet, one after another.
    pub(crate) async fn fetch_all(
        &self,
        artifacts: &[Artifact],
        sandbox: &Path,
        user: &UserName,
    ) -> Result<(), FetchError> {
        let deadline = tokio::time::Instant::now() + self.limit;
        for artifact in artifacts {
            let fetched = tokio::time::timeout_at(deadline, self.fetch(artifact, sandbox, user)).await;
            let too_long = |_| FetchError::TooLong { uri: artifact.uri.clone(), limit: self.limit };
            fetched.map_err(too_long)??;
        }
        Ok(())
    }

    async fn fetch(&self, artifact: &Artifact, sandbox: &Path, user: &UserName) -> Result<(), FetchError> {
        let uri = &artifact.uri;
        let target = target(artifact)?;
        let temporary = NamedTempFile::new_in(sandbox).map_err(failed(uri, "write into the sandbox"))?;
        let temporary = match origin(artifact)? {
            Origin::File(path) => {
                let to = temporary.reopen().map_err(failed(uri, "write into the sandbox"))?;
                let found = copy(uri.clone(), path, user.clone(), to).await?;
                if let Some(expected) = &artifact.sha256 {
                    check(uri, expected, found)?;
                }
                temporary
            }
            Origin::Web(url, sha256) => self.fetch_web(uri, url, &sha256, temporary).await?,
        };
        let (artifact, sandbox) = (artifact.clone(), sandbox.to_owned());
        blocking(uri, move || place(&artifact, &sandbox, &target, temporary)).await
    }

    /// Out of the cache, or into it and out again; what does not fit into the cache goes past it.
    async fn fetch_web(
        &self,
        uri: &str,
        url: reqwest::Url,
        sha256: &str,
        mut to: NamedTempFile,
    ) -> Result<NamedTempFile, FetchError> {
        let key = Key::new(uri, sha256);
        let claim = self.cache.claim(&key).await;
        if let Some(taken) = self.cache.take(&key) {
            drop(claim);
            let copied = take_out(uri, sha256, &taken, &to).await;
            let Err(FetchError::Checksum { .. }) = copied else { return copied.map(|()| to) };
            tracing::warn!("the cached copy of {uri} is broken; it is fetched again");
            self.cache.discard(&key, &taken);
            to.as_file_mut().set_len(0).map_err(failed(uri, "write into the sandbox"))?;
            return Box::pin(self.fetch_web(uri, url, sha256, to)).await;
        }
        let download = Download::begin(&self.http, uri, url).await?;
        let Some(room) = download.length().and_then(|length| self.cache.room(length)) else {
            drop(claim); // the others gain nothing from waiting
            let found = download.save(to.as_file_mut()).await?;
            return check(uri, sha256, found).map(|()| to);
        };
        let cached = NamedTempFile::new_in(self.cache.directory());
        let mut cached = cached.map_err(failed(uri, "write into the cache"))?;
        let found = download.save(cached.as_file_mut()).await?;
        check(uri, sha256, found)?;
        let taken = self.cache.put(key, cached, room).map_err(failed(uri, "write into the cache"))?;
        drop(claim);
        take_out(uri, sha256, &taken, &to).await.map(|()| to)
    }
}

/// Copies what is in the cache, which nobody but the agent may write to and which is checked all the same.
async fn take_out(uri: &str, sha256: &str, taken: &Taken, to: &NamedTempFile) -> Result<(), FetchError> {
    let from = taken.file.try_clone().map_err(failed(uri, "read it in the cache"))?;
    let to = to.reopen().map_err(failed(uri, "write into the sandbox"))?;
    let named = uri.to_owned();
    let copied = blocking(uri, move || local::pour(&named, from, to));
    check(uri, sha256, copied.await?)
}

fn check(uri: &str, expected: &str, found: String) -> Result<(), FetchError> {
    match expected == found {
        true => Ok(()),
        false => Err(FetchError::Checksum { uri: uri.to_owned(), expected: expected.to_owned(), found }),
    }
}

fn failed(uri: &str, what: &'static str) -> impl FnOnce(io::Error) -> FetchError {
    let uri = uri.to_owned();
    move |source| FetchError::File { uri, what, source }
}

fn origin(artifact: &Artifact) -> Result<Origin, FetchError> {
    let invalid = |what: &str| FetchError::Invalid { uri: artifact.uri.clone(), what: what.to_owned() };
    let uri = artifact.uri.as_str();
    if uri.starts_with("http://") || uri.starts_with("https://") {
        let Some(sha256) = artifact.sha256.clone() else {
            return Err(invalid("what comes from http or https needs a sha256"));
        };
        let url = reqwest::Url::parse(uri).map_err(|error| invalid(&error.to_string()))?;
        return Ok(Origin::Web(url, sha256));
    }
    match uri.strip_prefix("file://").unwrap_or(uri) {
        path if path.starts_with('/') => Ok(Origin::File(PathBuf::from(path))),
        _ => Err(invalid("expected an absolute path, file:///…, http://… or https://…")),
    }
}

/// Where in the sandbox an artifact goes: a file, or with `extract` the directory into which it is unpacked (the sandbox
/// itself by default).
fn target(artifact: &Artifact) -> Result<PathBuf, FetchError> {
    let invalid = |what: String| FetchError::Invalid { uri: artifact.uri.clone(), what };
    let path = match (&artifact.path, artifact.extract) {
        (Some(path), _) => path.as_str(),
        (None, true) => ".",
        (None, false) => {
            let name = artifact.uri.split(['?', '#']).next().and_then(|path| path.rsplit('/').next());
            name.filter(|name| !name.is_empty())
                .ok_or_else(|| invalid("it needs a path: its URI has no name".to_owned()))?
        }
    };
    let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if path.is_empty() || !Path::new(path).components().all(inside) {
        return Err(invalid(format!("the path {path:?} is not one inside the sandbox")));
    }
    Ok(PathBuf::from(path))
}

async fn blocking<T: Send + 'static>(
    uri: &str,
    work: impl FnOnce() -> Result<T, FetchError> + Send + 'static,
) -> Result<T, FetchError> {
    let died = |_| FetchError::Download { uri: uri.to_owned(), what: "the fetcher was stopped".to_owned() };
    tokio::task::spawn_blocking(work).await.map_err(died)?
}

fn hexadecimal(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
