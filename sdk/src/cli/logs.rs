//! What tasks write, from their sandboxes, by way of the master's address.

use std::io::Write;
use std::time::Duration;

use divvy_proto::Timestamp;
use divvy_proto::api;
use divvy_proto::ids::{AgentId, FrameworkId, TaskId};
use divvy_proto::time::millis;
use reqwest::{Method, Response};

use super::{CliError, Context};

/// Which part of a task's log is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub struct LogArgs {
    /// Go on as more is written, until the task has ended.
    #[arg(short, long)]
    pub follow: bool,
    /// What it writes to stderr instead of stdout.
    #[arg(long)]
    pub stderr: bool,
    /// Only so many lines from the end, and what follows.
    #[arg(long, value_name = "LINES")]
    pub tail: Option<u64>,
    /// Only what was written at this time or later, to the second: a time such as 2026-11-21T09:00:00Z, or so long ago, such as 10m.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<Timestamp>,
}

/// A time, or how long ago it was.
fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(Timestamp(Timestamp::wall_clock().0.saturating_sub(millis(ago))));
    }
    let time = humantime::parse_rfc3339_weak(text).map_err(|_| {
        "expected a time such as 2026-11-21T09:00:00Z, or how long ago, such as 10m".to_owned()
    })?;
    time.duration_since(std::time::UNIX_EPOCH)
        .map(|since| Timestamp(millis(since)))
        .map_err(|e| e.to_string())
}

impl LogArgs {
    /// Which of its outputs: `stdout` or `stderr`.
    #[must_use]
    pub fn stream(&self) -> &'static str {
        if self.stderr { "stderr" } else { "stdout" }
    }

    fn path(&self, framework: &FrameworkId, task: &TaskId, agent: Option<&AgentId>) -> String {
        let tail = self.tail.map(|lines| format!("&tail={lines}")).unwrap_or_default();
        let since = self.since.map(|time| format!("&since={time}")).unwrap_or_default();
        format!("{}{tail}{since}", self.base(framework, task, agent))
    }

    /// From this byte on, as when the line broke off.
    fn path_from(
        &self,
        offset: u64,
        framework: &FrameworkId,
        task: &TaskId,
        agent: Option<&AgentId>,
    ) -> String {
        format!("{}&offset={offset}", self.base(framework, task, agent))
    }

    fn base(&self, framework: &FrameworkId, task: &TaskId, agent: Option<&AgentId>) -> String {
        let (stream, follow) = (self.stream(), self.follow);
        let agent = agent.map(|agent| format!("&agent={agent}")).unwrap_or_default();
        format!("/api/v1/tasks/{framework}/{task}/logs?stream={stream}&follow={follow}{agent}")
    }
}

impl Context {
    /// The id of the framework of this name: part of the address of its tasks' logs. Of several, the one that runs, or else the
    /// latest.
    ///
    /// # Errors
    /// There is none, or the master cannot be reached.
    pub async fn framework_id(&self, name: &str) -> Result<FrameworkId, CliError> {
        let frameworks: Vec<api::Framework> = self.get("/api/v1/frameworks").await?;
        let own = frameworks.into_iter().filter(|framework| framework.name == name);
        let latest = own.min_by_key(|framework| (framework.state, std::cmp::Reverse(framework.since)));
        let missing = || CliError::Unreachable(format!("the {name} framework is not known to the master"));
        latest.map(|framework| framework.id).ok_or_else(missing)
    }

    /// Opens a task's log. The master forgets tasks that have ended before their agent removes what they wrote: `agent` says where
    /// to ask then.
    ///
    /// # Errors
    /// There is no such task or no longer its log, or the master or the agent cannot be reached.
    pub async fn log(
        &self,
        framework: &FrameworkId,
        task: &TaskId,
        agent: Option<&AgentId>,
        which: LogArgs,
    ) -> Result<Log, CliError> {
        let body = self.send(self.request(Method::GET, &which.path(framework, task, agent))).await?;
        let (framework, task, agent) = (framework.clone(), task.clone(), agent.cloned());
        Ok(Log { context: self.clone(), framework, task, agent, which, offset: offset(&body), body })
    }
}

/// Where in the log an answer begins.
fn offset(answer: &Response) -> u64 {
    let header = answer.headers().get("divvy-log-offset");
    header.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or_default()
}

/// From one attempt to go on with a log to the next.
const AGAIN: Duration = Duration::from_secs(1);

/// A log that is about to be read.
#[derive(Debug)]
pub struct Log {
    context: Context,
    framework: FrameworkId,
    task: TaskId,
    agent: Option<AgentId>,
    which: LogArgs,
    /// How much of it has been read.
    offset: u64,
    body: Response,
}

impl Log {
    /// Prints it to stdout to its end, or until nobody reads there any more; each line begins with `prefix`. Lines of logs that are
    /// printed at once, each with a prefix, do not mix. Whoever follows a log is not bothered with agents and masters that are
    /// started again: it goes on where it was.
    ///
    /// # Errors
    /// The connection broke off and nobody follows, or the log is gone when it could be asked for again.
    pub async fn print(mut self, prefix: &str) -> Result<(), CliError> {
        let mut lines = Lines { prefix, rest: Vec::new() };
        loop {
            match self.body.chunk().await {
                Ok(Some(chunk)) => {
                    self.offset += chunk.len() as u64;
                    if !write(&lines.push(&chunk)) {
                        return Ok(()); // whoever reads has had enough
                    }
                }
                Ok(None) => break,
                Err(_) if self.which.follow => self.reopen().await?,
                Err(error) => {
                    return Err(CliError::Unreachable(format!(
                        "the log of {} broke off: {error}",
                        self.task
                    )));
                }
            }
        }
        write(&lines.finish());
        Ok(())
    }

    /// Asks for what comes next until somebody answers.
    async fn reopen(&mut self) -> Result<(), CliError> {
        let path = self.which.path_from(self.offset, &self.framework, &self.task, self.agent.as_ref());
        let mut told = false;
        loop {
            match self.context.send(self.context.request(Method::GET, &path)).await {
                Ok(body) => {
                    let at = offset(&body);
                    if at > self.offset {
                        let lost = at - self.offset;
                        self.context.progress(format_args!(
                            "{lost} bytes of the log of {} are missing here: they were rotated away",
                            self.task
                        ));
                    }
                    (self.body, self.offset) = (body, at);
                    return Ok(());
                }
                Err(CliError::Unreachable(why)) => {
                    if !std::mem::replace(&mut told, true) {
                        self.context.progress(format_args!("the log of {} waits: {why}", self.task));
                    }
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Puts the prefix before each line.
struct Lines<'a> {
    prefix: &'a str,
    rest: Vec<u8>,
}

impl Lines<'_> {
    /// What can be written now: whole lines, or everything where there is no prefix.
    fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.prefix.is_empty() {
            return bytes.to_vec();
        }
        self.rest.extend_from_slice(bytes);
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let whole: Vec<u8> = self.rest.drain(..whole).collect();
        self.prefixed(&whole)
    }

    /// The last line, where it has no end.
    fn finish(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() {
            rest.push(b'\n');
        }
        self.prefixed(&rest)
    }

    fn prefixed(&self, whole: &[u8]) -> Vec<u8> {
        let lines = whole.split_inclusive(|byte| *byte == b'\n');
        lines.flat_map(|line| [self.prefix.as_bytes(), line].concat()).collect()
    }
}

fn write(bytes: &[u8]) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_gets_the_prefix_however_it_arrives() {
        let lines = Lines { prefix: "7: ", rest: Vec::new() };
        assert_eq!(lines.prefixed(b"one\ntwo\n\n"), b"7: one\n7: two\n7: \n");
    }

    #[test]
    fn lines_that_arrive_in_pieces_are_written_whole() {
        let written = |prefix| {
            let mut lines = Lines { prefix, rest: Vec::new() };
            let mut written: Vec<Vec<u8>> =
                [&b"on"[..], b"e\ntw", b"o"].map(|bytes| lines.push(bytes)).into();
            written.push(lines.finish());
            written.into_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(written("7: "), ["", "7: one\n", "", "7: two\n"]);
        assert_eq!(written(""), ["on", "e\ntw", "o", ""]);
    }

    #[test]
    fn what_is_asked_of_the_master() {
        let path = |which: LogArgs, agent: Option<&str>| {
            let agent: Option<AgentId> = agent.map(|id| id.parse().unwrap());
            which.path(&"f1-2".parse().unwrap(), &"web.1".parse().unwrap(), agent.as_ref())
        };
        let all = LogArgs { follow: true, stderr: true, tail: Some(9), since: Some(Timestamp(0)) };
        let seen = [path(LogArgs::default(), None), path(all, Some("a1-3"))];
        let base = "/api/v1/tasks/f1-2/web.1/logs";
        let expected = [
            "?stream=stdout&follow=false",
            "?stream=stderr&follow=true&agent=a1-3&tail=9&since=1970-01-01T00:00:00.000Z",
        ];
        assert_eq!(seen, expected.map(|query| format!("{base}{query}")));
    }
}
