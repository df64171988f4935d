//! Waiting for a job, with a line on stderr for each change.

use std::time::Duration;

use divvy_sdk::cli::{CliError, Context, Output};

use super::show;
use crate::client::Client;
use crate::planner::{JobId, JobState, JobStatus, JobSummary};

/// From one look at a job's summary, which is short however large the job, to the next.
const INTERVAL: Duration = Duration::from_millis(250);

/// Waits until this run has ended; it is an error if it did not succeed.
pub(super) async fn until_succeeded(
    context: &Context,
    id: &JobId,
    run: u64,
    timeout: Option<Duration>,
) -> Result<(), CliError> {
    let status = ended(context, id, run, timeout).await?;
    let JobSummary { state, reason, .. } = &status.summary;
    match state {
        JobState::Succeeded => Ok(()),
        JobState::Cancelled => Err(CliError::Failed(format!("{id} was cancelled"))),
        _ => {
            Err(CliError::Failed(format!("{id} failed: {}", reason.as_deref().unwrap_or("no reason given"))))
        }
    }
}

/// Waits until this run has ended, however it does.
pub(super) async fn until_ended(
    context: &Context,
    id: &JobId,
    run: u64,
    timeout: Option<Duration>,
) -> Result<(), CliError> {
    ended(context, id, run, timeout).await.map(drop)
}

async fn ended(
    context: &Context,
    id: &JobId,
    run: u64,
    timeout: Option<Duration>,
) -> Result<JobStatus, CliError> {
    let watch = watch(context, id, run);
    match timeout {
        None => watch.await?,
        Some(timeout) => tokio::time::timeout(timeout, watch).await.unwrap_or_else(|_| {
            let shown = humantime::format_duration(timeout);
            let hint = format!("it goes on, see `divvy batch status {id}`");
            Err(CliError::TimedOut(format!("{id} has not ended within {shown}; {hint}")))
        })?,
    }
    let status = Client::new(context).status(id.as_str()).await?;
    if context.output == Output::Json {
        context.print(&status, show::status)?;
    }
    Ok(status)
}

async fn watch(context: &Context, id: &JobId, run: u64) -> Result<(), CliError> {
    let client = Client::new(context);
    let mut last = String::new();
    loop {
        let line = match client.summary(id.as_str()).await {
            Ok(summary) if summary.run != run => {
                let other = summary.run;
                return Err(CliError::Failed(format!("run {run} of {id} has given way to run {other}")));
            }
            Ok(summary) if summary.state.has_ended() => {
                context.progress(show::progress(&summary));
                return Ok(());
            }
            Ok(summary) => show::progress(&summary),
            // What was there a moment ago is likely to come back: the framework or the master may be restarting.
            Err(CliError::Unreachable(reason)) => reason,
            Err(error) => return Err(error),
        };
        // Waiting times count down; that alone is no news.
        let news: String = line.chars().filter(|c| !c.is_ascii_digit()).collect();
        let counts = line.split(';').next().unwrap_or_default();
        let shown = format!("{counts}{news}");
        if shown != last {
            context.progress(&line);
            last = shown;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
