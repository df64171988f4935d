//! One download, taken up again where it broke off. What comes is hashed on the way.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, ETAG, HeaderValue, IF_RANGE, LAST_MODIFIED, RANGE};
use reqwest::{Client, Response, StatusCode, Url};
use sha2::{Digest, Sha256};

use super::{FetchError, hexadecimal};
use crate::causes::causes;

/// A connection that breaks so often in a row without a byte gained is given up.
const TRIES: u32 = 5;
/// The first pause before a broken download is taken up again; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(200);

/// A download whose first answer is there.
pub(super) struct Download<'a> {
    source: Source<'a>,
    answer: Response,
}

struct Source<'a> {
    http: &'a Client,
    uri: &'a str,
    url: Url,
    length: Option<u64>,
    /// What tells one version of the file from another.
    version: Option<HeaderValue>,
}

/// How far it has come.
struct Received<'a> {
    to: &'a mut File,
    count: u64,
    digest: Sha256,
}

enum Broken {
    Network(reqwest::Error),
    Disk(io::Error),
}

impl<'a> Download<'a> {
    /// Asks for it. A server that cannot be reached is not asked again: the task's framework decides what comes then.
    pub(super) async fn begin(http: &'a Client, uri: &'a str, url: Url) -> Result<Self, FetchError> {
        let failed =
            |error: reqwest::Error| FetchError::Download { uri: uri.to_owned(), what: causes(&error) };
        let answer = http.get(url.clone()).send().await.map_err(failed)?;
        let headers = answer.headers();
        let version = headers.get(ETAG).or_else(|| headers.get(LAST_MODIFIED)).cloned();
        let version = version.filter(|version| !version.as_bytes().starts_with(b"W/"));
        let source = Source { http, uri, url, length: answer.content_length(), version };
        match answer.status().is_success() {
            true => Ok(Self { source, answer }),
            false => Err(source.failed(format!("the server answers {}", answer.status()))),
        }
    }

    /// How many bytes are to come, if the server says so.
    pub(super) const fn length(&self) -> Option<u64> {
        self.source.length
    }

    /// Writes all of it to a file, and returns its SHA-256.
    pub(super) async fn save(self, to: &mut File) -> Result<String, FetchError> {
        let Self { source, answer } = self;
        let mut received = Received { to, count: 0, digest: Sha256::new() };
        let (mut answer, mut in_vain) = (Ok(answer), 0);
        loop {
            let before = received.count;
            let poured = match answer {
                Ok(answer) => received.pour(answer).await,
                Err(error) => Err(Broken::Network(error)),
            };
            let error = match poured {
                Ok(()) => return Ok(hexadecimal(received.digest)),
                Err(Broken::Disk(error)) => return Err(source.disk(error)),
                Err(Broken::Network(error)) => error,
            };
            in_vain = if received.count > before { 1 } else { in_vain + 1 };
            if error.is_timeout() || in_vain >= TRIES {
                return Err(source.failed(causes(&error)));
            }
            tokio::time::sleep(PAUSE * 2_u32.pow(in_vain - 1)).await;
            answer = source.ask_for_rest(&mut received).await?;
        }
    }
}

impl Received<'_> {
    async fn pour(&mut self, mut answer: Response) -> Result<(), Broken> {
        while let Some(chunk) = answer.chunk().await.map_err(Broken::Network)? {
            // A write to the page cache, of a few KiB: not worth another thread.
            self.to.write_all(&chunk).map_err(Broken::Disk)?;
            self.digest.update(&chunk);
            self.count += chunk.len() as u64;
        }
        Ok(())
    }

    fn begin_anew(&mut self) -> io::Result<()> {
        self.to.set_len(0)?;
        self.to.rewind()?;
        (self.count, self.digest) = (0, Sha256::new());
        Ok(())
    }
}

impl Source<'_> {
    /// What the server has beyond what was received, or all of it again where the server cannot do that or has another version.
    async fn ask_for_rest(
        &self,
        received: &mut Received<'_>,
    ) -> Result<Result<Response, reqwest::Error>, FetchError> {
        let mut request = self.http.get(self.url.clone()).header(RANGE, format!("bytes={}-", received.count));
        if let Some(version) = &self.version {
            request = request.header(IF_RANGE, version);
        }
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return Ok(Err(error)),
        };
        let goes_on = |range: &HeaderValue| {
            range.to_str().is_ok_and(|range| range.starts_with(&format!("bytes {}-", received.count)))
        };
        match answer.status() {
            StatusCode::PARTIAL_CONTENT if answer.headers().get(CONTENT_RANGE).is_some_and(goes_on) => {}
            StatusCode::OK if answer.content_length() == self.length => {
                received.begin_anew().map_err(|error| self.disk(error))?;
            }
            StatusCode::OK => return Err(self.failed("it changed while it was fetched".to_owned())),
            status => {
                let what = format!("the connection broke, and then the server answers {status}");
                return Err(self.failed(what));
            }
        }
        Ok(Ok(answer))
    }

    fn failed(&self, what: String) -> FetchError {
        FetchError::Download { uri: self.uri.to_owned(), what }
    }

    fn disk(&self, source: io::Error) -> FetchError {
        FetchError::File { uri: self.uri.to_owned(), what: "write it", source }
    }
}
