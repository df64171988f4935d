//! The agent's end of the shim's socket, and the words that go over it.
//!
//! On every connection the shim first says [`Greeting`], one JSON line, once the program has been executed; at the end of the
//! first process it says [`Exited`], one JSON line, and is gone. In between it takes lines `signal N`, and answers each with
//! an empty line.

use std::io::{self, ErrorKind};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::error::LaunchError;
use super::plan::Record;
use super::spec::Exited;

/// What the shim says first on a connection.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Greeting {
    /// The first process as the host sees it.
    pub(crate) pid: u32,
}

/// What the shim tells whoever started it, on its standard output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The program has been executed.
    Started(Greeting),
    /// It has not, and nothing runs.
    Failed(LaunchError),
}

/// What the helper that runs a command in a container is told, on its standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecRequest {
    /// The container's first process as the host sees it.
    pub(crate) pid: u32,
    /// The command.
    pub(crate) argv: Vec<String>,
}

/// What came of it, on the helper's standard error.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExecReport {
    /// The command ended like this.
    Ended(divvy_proto::task::ExitStatus),
    /// It was not executed.
    Failed(LaunchError),
}

/// A connection to a shim that has executed its program.
#[derive(Debug)]
pub(super) struct Link {
    stream: BufReader<UnixStream>,
    /// The container's first process.
    pub(super) pid: u32,
}

impl Link {
    /// Connects, and waits until the program has been executed if that is still under way. `None` if there is no shim, or it
    /// ended first.
    pub(super) async fn connect(record: &Record) -> io::Result<Option<Self>> {
        let (_directory, path) = match record.socket() {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut stream = match UnixStream::connect(&path).await {
            Err(error) if gone(&error) => return Ok(None),
            other => BufReader::new(other?),
        };
        match line(&mut stream).await? {
            Some(text) => {
                let greeting: Greeting = serde_json::from_str(&text)?;
                Ok(Some(Self { stream, pid: greeting.pid }))
            }
            None => Ok(None),
        }
    }

    /// Asks for a signal to the first process. `Some` if that has ended.
    pub(super) async fn signal(&mut self, signal: i32) -> io::Result<Option<Exited>> {
        match self.stream.write_all(format!("signal {signal}\n").as_bytes()).await {
            Err(error) if gone(&error) => {}
            other => other?,
        }
        match line(&mut self.stream).await? {
            Some(text) if !text.is_empty() => Ok(Some(serde_json::from_str(&text)?)),
            _ => Ok(None),
        }
    }

    /// Waits for the end of the first process. `None` if the shim ended without a word.
    pub(super) async fn exited(&mut self) -> io::Result<Option<Exited>> {
        loop {
            match line(&mut self.stream).await? {
                Some(text) if text.is_empty() => {}
                Some(text) => return Ok(Some(serde_json::from_str(&text)?)),
                None => return Ok(None),
            }
        }
    }
}

/// Whether an error says that there is no shim, or none any more.
fn gone(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound};
    matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | NotFound)
}

/// A line without its end; `None` if the other side is gone.
async fn line(stream: &mut BufReader<UnixStream>) -> io::Result<Option<String>> {
    let mut text = String::new();
    match stream.read_line(&mut text).await {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
