//! `divvy batch logs`: what tasks write, from their sandboxes, by way of the master's address.

use std::io::Write;

use divvy_sdk::cli::{CliError, Context};
use futures::StreamExt;
use reqwest::{Method, Response};

use super::Logs as Options;
use crate::client::Client;
use crate::planner::{IndexStatus, JobStatus};

/// How many logs are asked for before they are printed.
const ASKED_AHEAD: usize = 8;

/// One log to be printed.
struct Source {
    task_id: String,
    /// What each line begins with, where several logs are printed.
    prefix: String,
}

pub(super) async fn print(context: &Context, options: Options) -> Result<(), CliError> {
    let client = Client::new(context);
    let status = client.status(options.id.as_str()).await?;
    let sources = match options.index {
        Some(index) => vec![one(&status, index, options.attempt)?],
        None => all(&status),
    };
    if sources.is_empty() {
        context.progress(format_args!("{}: nothing was launched yet", options.id));
        return Ok(());
    }
    let stream = if options.stderr { "stderr" } else { "stdout" };
    let query = format!("stream={stream}&follow={}", options.follow);
    let logs = Logs { context, framework: client.framework_id().await?, query };
    match sources.as_slice() {
        [source] => copy(logs.open(source).await, source).await,
        many => report(context, logs.copy_all(many, options.follow).await),
    }
}

/// Where logs are asked for, and how.
struct Logs<'a> {
    context: &'a Context,
    framework: String,
    query: String,
}

impl Logs<'_> {
    async fn open(&self, source: &Source) -> Result<Response, CliError> {
        let path = format!("/api/v1/tasks/{}/{}/logs?{}", self.framework, source.task_id, self.query);
        self.context.send(self.context.request(Method::GET, &path)).await
    }

    async fn copy_all<'s>(
        &self,
        sources: &'s [Source],
        at_once: bool,
    ) -> Vec<(&'s Source, Result<(), CliError>)> {
        if at_once {
            let copy = |source| async move { (source, copy(self.open(source).await, source).await) };
            return futures::future::join_all(sources.iter().map(copy)).await;
        }
        // One after the other, in order; the next few are asked for while one is printed.
        let open = |source| async move { (source, self.open(source).await) };
        let bodies = futures::stream::iter(sources).map(open).buffered(ASKED_AHEAD);
        bodies.then(|(source, body)| async move { (source, copy(body, source).await) }).collect().await
    }
}

/// A log that is gone does not hide the others.
fn report(context: &Context, results: Vec<(&Source, Result<(), CliError>)>) -> Result<(), CliError> {
    let mut missing = 0;
    for (source, result) in &results {
        if let Err(error) = result {
            missing += 1;
            context.progress(format_args!("{}: {error}", source.task_id));
        }
    }
    match missing {
        0 => Ok(()),
        missing => Err(CliError::Failed(format!(
            "{missing} of {} logs could not be read to their end",
            results.len()
        ))),
    }
}

fn all(status: &JobStatus) -> Vec<Source> {
    let prefix = |task: &IndexStatus| match status.tasks.len() {
        1 => String::new(),
        _ => format!("{}: ", task.index),
    };
    let source = |task| Source { prefix: prefix(task), task_id: task.task_id.to_string() };
    status.tasks.iter().map(source).collect()
}

fn one(status: &JobStatus, index: u32, attempt: Option<u32>) -> Result<Source, CliError> {
    let id = &status.summary.id;
    let task = status.tasks.iter().find(|task| task.index == index);
    let task = task.ok_or_else(|| CliError::Usage(format!("index {index} of {id} was not launched yet")))?;
    let task_id = match attempt.filter(|attempt| *attempt != task.attempt) {
        None => Some(&task.task_id),
        Some(attempt) => task.tries.iter().find(|ended| ended.attempt == attempt).map(|ended| &ended.task_id),
    };
    let missing = || {
        let known: Vec<String> = task.tries.iter().map(|ended| ended.attempt.to_string()).collect();
        let known = if known.is_empty() { task.attempt.to_string() } else { known.join(", ") };
        CliError::Usage(format!("index {index} of {id} has no such attempt; there is {known}"))
    };
    task_id.map(|id| Source { task_id: id.to_string(), prefix: String::new() }).ok_or_else(missing)
}

async fn copy(body: Result<Response, CliError>, source: &Source) -> Result<(), CliError> {
    let mut body = body?.bytes_stream();
    let mut lines = Lines { prefix: &source.prefix, rest: Vec::new() };
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| {
            CliError::Unreachable(format!("the log of {} broke off: {error}", source.task_id))
        })?;
        if !lines.push(&chunk) {
            return Ok(()); // whoever reads has had enough
        }
    }
    lines.finish();
    Ok(())
}

/// Puts the prefix before each line. Lines of logs that are followed at once do not mix.
struct Lines<'a> {
    prefix: &'a str,
    rest: Vec<u8>,
}

impl Lines<'_> {
    /// Whether anybody still reads.
    fn push(&mut self, bytes: &[u8]) -> bool {
        if self.prefix.is_empty() {
            return write(bytes);
        }
        self.rest.extend_from_slice(bytes);
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let whole: Vec<u8> = self.rest.drain(..whole).collect();
        write(&self.prefixed(&whole))
    }

    fn prefixed(&self, whole: &[u8]) -> Vec<u8> {
        let lines = whole.split_inclusive(|byte| *byte == b'\n');
        lines.flat_map(|line| [self.prefix.as_bytes(), line].concat()).collect()
    }

    fn finish(&mut self) {
        let mut rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() {
            rest.push(b'\n');
            write(&self.prefixed(&rest));
        }
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
}
