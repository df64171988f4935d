//! What command lines share: where the master is, how to ask it, how to print, how to serve and wait, how to end.
//!
//! Not here: any one command.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use comfy_table::{ContentArrangement, Table};
use divvy_proto::api::{Explanation, Problem};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::spec::Format;

mod logs;
mod serve;

pub use logs::{Log, LogArgs};
pub use serve::{ServeArgs, open_store, refuse_beyond_loopback, stop_signal};

/// How results are printed, to stdout. Everything else goes to stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// What every command knows.
#[derive(Debug, Clone)]
pub struct Context {
    /// Base address of the master: `http://127.0.0.1:5050`.
    pub master: String,
    /// How to print.
    pub output: Output,
    http: reqwest::Client,
}

/// Why a command failed. Its kind is the exit code, so that a script can tell.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// What was asked for did not come about. Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// What was typed or written in a file is wrong, and nothing was changed. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Nobody answers. Exit code 3.
    #[error("{0}")]
    Unreachable(String),
    /// It was not done in time, and may still be. Exit code 124, as of timeout(1).
    #[error("{0}")]
    TimedOut(String),
}

impl CliError {
    /// [`Self::Failed`] with an error's text.
    pub fn failed(error: impl fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// The code that the process ends with.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::TimedOut(_) => 124,
        })
    }
}

impl Context {
    /// `master` is `host:port`, or a base address with `http://` or `https://`.
    ///
    /// # Errors
    /// The system offers no way to make connections.
    pub fn new(master: &str, output: Output) -> Result<Self, CliError> {
        let master = match master.contains("://") {
            true => master.trim_end_matches('/').to_owned(),
            false => format!("http://{master}"),
        };
        // A proxy of the surroundings has no business between a user and the master.
        let http = reqwest::Client::builder().no_proxy().build();
        let http = http.map_err(|error| CliError::Failed(format!("cannot make connections: {error}")))?;
        Ok(Self { master, output, http })
    }

    /// A request to the master: `path` begins with a slash.
    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.master))
    }

    /// Asks for JSON.
    ///
    /// # Errors
    /// The master cannot be reached, or refuses.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.json(self.request(reqwest::Method::GET, path)).await
    }

    /// Sends a request and reads the JSON of the answer.
    ///
    /// # Errors
    /// The master cannot be reached, refuses, or answers something else.
    pub async fn json<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, CliError> {
        let body = self.send(request).await?.bytes().await.map_err(|error| self.unreachable(&error))?;
        serde_json::from_slice(&body).map_err(|error| {
            CliError::Failed(format!("{} answers what this version does not know: {error}", self.master))
        })
    }

    /// Sends a request; what is not a success becomes an error with the reason that the server gave.
    ///
    /// # Errors
    /// The master cannot be reached, or refuses.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, CliError> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.text().await.unwrap_or_default();
        let reason = serde_json::from_str::<Problem>(&body).map_or(body, |problem| problem.error);
        Err(match status.as_u16() {
            400 | 413 | 422 => CliError::Usage(reason),
            502..=504 => CliError::Unreachable(reason),
            _ if reason.is_empty() => CliError::Failed(format!("{} answers {status}", self.master)),
            _ => CliError::Failed(reason),
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliError {
        let why = std::error::Error::source(error).map_or_else(|| error.to_string(), innermost);
        CliError::Unreachable(format!(
            "cannot reach the master at {}: {why}\nIs it running? Start one with `divvy dev`, or name another with --master or DIVVY_MASTER.",
            self.master
        ))
    }

    /// Why a framework's demand waits, as the master's kernel explains it: one line or two, each with a line break before it.
    /// Nothing where there is nothing to explain. Names are those of frameworks, apps and jobs, which need no escaping.
    pub async fn why_it_waits(&self, framework: &str, shape: &str) -> String {
        let path = format!("/api/v1/explain?framework={framework}&demand={shape}");
        // It may have been served meanwhile: then the master knows of no such demand.
        let Ok(Explanation { summary, funnels, .. }) = self.get(&path).await else { return String::new() };
        let hint = funnels.into_iter().map(|funnel| funnel.hint).find(|hint| !hint.is_empty());
        let lines = [("kernel", Some(summary)), ("hint", hint)];
        let lines =
            lines.into_iter().filter_map(|(name, line)| Some((name, line.filter(|l| !l.is_empty())?)));
        lines.map(|(name, line)| format!("\n{name}: {line}")).collect()
    }

    /// Prints one value: as JSON, or as `table` shows it.
    ///
    /// # Errors
    /// The value cannot be written as JSON.
    pub fn print<T: Serialize>(&self, value: &T, table: impl FnOnce(&T) -> String) -> Result<(), CliError> {
        let text = match self.output {
            Output::Table => table(value),
            Output::Json => {
                serde_json::to_string_pretty(value).map_err(|error| CliError::Failed(error.to_string()))?
            }
        };
        print_line(text.trim_end());
        Ok(())
    }

    /// Says something to people while a command works; nothing that a script would read.
    pub fn progress(&self, text: impl fmt::Display) {
        eprintln!("{text}");
    }
}

/// Reads a file that a user wrote; how it is written is told by its name.
///
/// # Errors
/// The file cannot be read, or is not text.
pub fn read_spec(path: &Path) -> Result<(String, Format), CliError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| CliError::Usage(format!("cannot read {}: {error}", path.display())))?;
    Ok((text, Format::of(path)))
}

/// Waits for what goes on whether or not it is waited for; no longer than `limit`, if there is one. `late` makes the error's text of
/// the limit.
///
/// # Errors
/// What `work` answers, or [`CliError::TimedOut`].
pub async fn wait_within<T>(
    limit: Option<Duration>,
    work: impl Future<Output = Result<T, CliError>>,
    late: impl FnOnce(humantime::FormattedDuration) -> String,
) -> Result<T, CliError> {
    let Some(limit) = limit else { return work.await };
    let over = |_| Err(CliError::TimedOut(late(humantime::format_duration(limit))));
    tokio::time::timeout(limit, work).await.unwrap_or_else(over)
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Prints to stdout, where a reader that has gone (`| head`) is not an error.
pub fn print_line(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// A table without lines, so that `awk` can read it too. Says so when there are no rows.
#[must_use]
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    let mut empty = true;
    for row in rows {
        empty = false;
        table.add_row(row.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }));
    }
    if empty {
        return "none".to_owned();
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}
