//! `divvy batch logs`: what tasks write, from their sandboxes, by way of the master's address.

use divvy_sdk::cli::{CliError, Context, Log, LogArgs};
use divvy_sdk::proto::ids::{AgentId, FrameworkId, TaskId};
use futures::StreamExt;

use super::Logs as Options;
use crate::client::Client;
use crate::planner::{IndexStatus, JobStatus};

/// How many logs are asked for before they are printed.
const ASKED_AHEAD: usize = 8;

/// One log to be printed.
struct Source {
    task_id: TaskId,
    agent_id: AgentId,
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
    let framework = context.framework_id(crate::NAME).await?;
    let logs = Logs { context, framework, which: options.which };
    match sources.as_slice() {
        [source] => logs.open(source).await?.print(&source.prefix).await,
        many => report(context, logs.print_all(many).await),
    }
}

/// Where logs are asked for, and how.
struct Logs<'a> {
    context: &'a Context,
    framework: FrameworkId,
    which: LogArgs,
}

impl Logs<'_> {
    async fn open(&self, source: &Source) -> Result<Log, CliError> {
        self.context.log(&self.framework, &source.task_id, Some(&source.agent_id), self.which).await
    }

    async fn print_all<'s>(&self, sources: &'s [Source]) -> Vec<(&'s Source, Result<(), CliError>)> {
        let open = |source| async move { (source, self.open(source).await) };
        if self.which.follow {
            let print = |source| async move { print_opened(open(source).await).await };
            return futures::future::join_all(sources.iter().map(print)).await;
        }
        // One after the other, in order; the next few are asked for while one is printed.
        let opened = futures::stream::iter(sources).map(open).buffered(ASKED_AHEAD);
        opened.then(print_opened).collect().await
    }
}

async fn print_opened((source, log): (&Source, Result<Log, CliError>)) -> (&Source, Result<(), CliError>) {
    let printed = match log {
        Ok(log) => log.print(&source.prefix).await,
        Err(error) => Err(error),
    };
    (source, printed)
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
    let source = |task: &IndexStatus| Source {
        task_id: task.task_id.clone(),
        agent_id: task.agent_id.clone(),
        prefix: prefix(task),
    };
    status.tasks.iter().map(source).collect()
}

fn one(status: &JobStatus, index: u32, attempt: Option<u32>) -> Result<Source, CliError> {
    let id = &status.summary.id;
    let task = status.tasks.iter().find(|task| task.index == index);
    let task = task.ok_or_else(|| CliError::Usage(format!("index {index} of {id} was not launched yet")))?;
    let ran = match attempt.filter(|attempt| *attempt != task.attempt) {
        None => Some((&task.task_id, &task.agent_id)),
        Some(attempt) => {
            let ended = task.tries.iter().find(|ended| ended.attempt == attempt);
            ended.map(|ended| (&ended.task_id, &ended.agent_id))
        }
    };
    let missing = || {
        let known: Vec<String> = task.tries.iter().map(|ended| ended.attempt.to_string()).collect();
        let known = if known.is_empty() { task.attempt.to_string() } else { known.join(", ") };
        CliError::Usage(format!("index {index} of {id} has no such attempt; there is {known}"))
    };
    let (task_id, agent_id) = ran.ok_or_else(missing)?;
    Ok(Source { task_id: task_id.clone(), agent_id: agent_id.clone(), prefix: String::new() })
}
