//! What a task wrote to stdout and stderr: all of it, its end, or on and on until the task has ended and all is read.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::Stream;
use rustix::fs::ResolveFlags;
use serde::Deserialize;

use super::files::{blocking, open_file, refusal};
use super::{Api, Refusal, task_key};
use crate::supervisor::TaskKey;

/// How often a log that is followed is looked at. There is no event for "somebody appended" that is cheaper at this pace.
const LOOK: Duration = Duration::from_millis(100);
/// So much is read at once.
const CHUNK: usize = 64 << 10;

#[derive(Debug, Deserialize)]
pub(super) struct LogsQuery {
    #[serde(default)]
    stream: LogStream,
    /// Go on until the task has ended.
    #[serde(default)]
    follow: bool,
    /// Begin so many lines before the end.
    tail: Option<usize>,
    /// Begin at this byte. Not together with `tail`.
    offset: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LogStream {
    #[default]
    Stdout,
    Stderr,
}

impl LogStream {
    const fn file_name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

pub(super) async fn logs(
    State(api): State<Api>,
    Path(task): Path<(String, String)>,
    query: Result<Query<LogsQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(query) = query.map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.body_text()))?;
    if query.tail.is_some() && query.offset.is_some() {
        return Err(Refusal(StatusCode::BAD_REQUEST, "tail and offset exclude each other".to_owned()));
    }
    let key = task_key(task)?;
    let name = query.stream.file_name();
    let sandbox = api.sandboxes.path(&key);
    let (directory, tail, offset) = (sandbox.clone(), query.tail, query.offset);
    let opened = blocking(move || open(&directory, name, tail, offset)).await;
    let start = match opened {
        Ok(start) => Some(start),
        // Its container is being made, and the log comes with it.
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_live(&api, &key) => None,
        Err(error) => return Err(refusal(name, &error)),
    };
    let reader = Reader { api, key, sandbox, name, at: start, follow: query.follow };
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    Ok((headers, Body::from_stream(reader.into_stream())).into_response())
}

fn is_live(api: &Api, key: &TaskKey) -> bool {
    api.live.borrow().contains_key(key)
}

/// An open log and the position from which to read.
struct Position {
    file: File,
    offset: u64,
}

/// A task owns its sandbox and could have put a link in the place of its log: none is followed.
fn open(
    sandbox: &std::path::Path,
    name: &str,
    tail: Option<usize>,
    offset: Option<u64>,
) -> io::Result<Position> {
    let mut file = open_file(sandbox, name, ResolveFlags::NO_SYMLINKS)?;
    let offset = match tail {
        Some(lines) => start_of_tail(&mut file, lines)?,
        None => offset.unwrap_or(0),
    };
    Ok(Position { file, offset })
}

/// Where the last `lines` lines begin.
fn start_of_tail(file: &mut File, lines: usize) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(end);
    }
    let mut buffer = vec![0; CHUNK];
    let (mut found, mut at_end) = (0_usize, true);
    while end > 0 {
        let size = end.min(CHUNK as u64);
        let start = end - size;
        let Some(block) = buffer.get_mut(..usize::try_from(size).unwrap_or(CHUNK)) else { break };
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(block)?;
        for (index, byte) in block.iter().enumerate().rev() {
            if *byte != b'\n' {
                at_end = false;
                continue;
            }
            // The line end that closes the last line begins no further one.
            found += usize::from(!std::mem::take(&mut at_end));
            if found >= lines {
                return Ok(start + index as u64 + 1);
            }
        }
        end = start;
    }
    Ok(0)
}

/// Reads a log piece by piece, as fast as the reader at the other end takes it.
struct Reader {
    api: Api,
    key: TaskKey,
    sandbox: PathBuf,
    name: &'static str,
    at: Option<Position>,
    follow: bool,
}

impl Reader {
    fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> {
        futures::stream::unfold(self, |mut reader| async move {
            let next = reader.next().await.transpose()?;
            Some((next, reader))
        })
    }

    /// The next piece; none at the end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            // Asked before reading: what was written before the end is then certainly read.
            let goes_on = self.follow && is_live(&self.api, &self.key) && !self.api.stop.is_cancelled();
            let piece = self.read().await?;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
            if !goes_on {
                return Ok(None);
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.api.stop.cancelled() => {}
            }
        }
    }

    async fn read(&mut self) -> io::Result<Bytes> {
        let (at, sandbox, name) = (self.at.take(), self.sandbox.clone(), self.name);
        let (at, piece) = blocking(move || {
            let mut at = match at {
                Some(at) => at,
                None => match open(&sandbox, name, None, None) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((None, Bytes::new())),
                    opened => opened?,
                },
            };
            let mut buffer = vec![0; CHUNK];
            let count = at.file.read_at(&mut buffer, at.offset)?;
            buffer.truncate(count);
            at.offset += count as u64;
            Ok((Some(at), Bytes::from(buffer)))
        })
        .await?;
        self.at = at;
        Ok(piece)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_tail_begins_at_a_line() {
        let tail = |text: &str, lines| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            let start = start_of_tail(&mut file, lines).unwrap();
            text[usize::try_from(start).unwrap()..].to_owned()
        };
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc\n");
        assert_eq!(tail("a\nb\nc", 2), "b\nc");
        assert_eq!(tail("a\n\n", 1), "\n");
        assert_eq!(tail("a\nb\n", 9), "a\nb\n");
        assert_eq!(tail("a\nb\n", 0), "");
        assert_eq!(tail("a\nb", 0), "");
        assert_eq!(tail("", 3), "");
        let long = format!("{}\n{}\nend\n", "x".repeat(CHUNK), "y".repeat(CHUNK));
        assert_eq!(tail(&long, 2), long[CHUNK + 1..]);
    }
}
