//! Waiting for a job, with a line on stderr for each change.

use std::time::Duration;

use divvy_sdk::cli::{CliError, Context, Output, wait_within};

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
    let late =
        |limit| format!("{id} has not ended within {limit}; it goes on, see `divvy batch status {id}`");
    wait_within(timeout, watch(context, id, run), late).await?;
    let status = Client::new(context).status(id.as_str()).await?;
    if context.output == Output::Json {
        context.print(&status, show::status)?;
    }
    Ok(status)
}

async fn watch(context: &Context, id: &JobId, run: u64) -> Result<(), CliError> {
    let client = Client::new(context);
    let mut progress = Progress::default();
    loop {
        let summary = match client.summary(id.as_str()).await {
            Ok(summary) if summary.run != run => {
                let other = summary.run;
                return Err(CliError::Failed(format!("run {run} of {id} has given way to run {other}")));
            }
            Ok(summary) => Ok(summary),
            // What was there a moment ago is likely to come back: the framework or the master may be restarting.
            Err(CliError::Unreachable(reason)) => Err(reason),
            Err(error) => return Err(error),
        };
        if let Some(line) = progress.look(&summary) {
            context.progress(line);
        }
        if summary.is_ok_and(|summary| summary.state.has_ended()) {
            return Ok(());
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// So many looks without a change, and the job is said to wait.
const STUCK: u32 = 4;

/// What is worth a line: where a job stands, when that has changed and at most once a second; why it waits, when nothing has
/// changed for a second.
#[derive(Debug, Default)]
struct Progress {
    counts: String,
    said: String,
    /// Looks since a line about counts.
    since: u32,
    /// Looks since the counts changed.
    still: u32,
}

impl Progress {
    fn look(&mut self, seen: &Result<JobSummary, String>) -> Option<String> {
        let summary = match seen {
            Ok(summary) => summary,
            Err(reason) => return self.say(reason.clone()),
        };
        let counts = show::counts(summary);
        (self.since, self.still) = (self.since + 1, self.still + 1);
        if counts != self.counts {
            self.still = 0;
        }
        let first = self.counts.is_empty();
        self.counts.clone_from(&counts);
        if summary.state.has_ended() {
            return self.say(show::progress(summary));
        }
        if self.still >= STUCK && !(summary.waiting.is_empty() && summary.reason.is_none()) {
            return self.say(show::progress(summary));
        }
        if !first && self.since < STUCK {
            return None;
        }
        let line = self.say(counts)?;
        self.since = 0;
        Some(line)
    }

    /// Numbers that count down are no news.
    fn say(&mut self, line: String) -> Option<String> {
        let (counts, why) = line.split_once(';').unwrap_or((&line, ""));
        let why: String = why.chars().filter(|c| !c.is_ascii_digit()).collect();
        let news = format!("{counts};{why}");
        let known = std::mem::replace(&mut self.said, news);
        (known != self.said).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use divvy_sdk::proto::Timestamp;

    use super::*;
    use crate::planner::Counts;

    fn summary(state: JobState, succeeded: u32, waiting: &str) -> JobSummary {
        JobSummary {
            id: "a".to_owned(),
            run: 1,
            state,
            counts: Counts { running: 9 - succeeded, succeeded, ..Counts::default() },
            reason: None,
            waiting: if waiting.is_empty() { Vec::new() } else { vec![waiting.to_owned()] },
            submitted_at: Timestamp(0),
            started_at: None,
            ended_at: None,
        }
    }

    #[test]
    fn a_line_a_second_while_it_moves_and_the_reason_when_it_does_not() {
        let mut progress = Progress::default();
        let mut lines = Vec::new();
        for succeeded in 1..=8 {
            lines.extend(progress.look(&Ok(summary(JobState::Running, succeeded, "noise"))));
        }
        for seconds in (0..10).rev() {
            let waiting = format!("index 3 tries again in {seconds} s");
            lines.extend(progress.look(&Ok(summary(JobState::Running, 8, &waiting))));
        }
        lines.extend(progress.look(&Err("cannot reach the master".to_owned())));
        lines.extend(progress.look(&Ok(summary(JobState::Succeeded, 9, ""))));
        assert_eq!(
            lines,
            [
                "a: running, 1 succeeded, 8 running",
                "a: running, 5 succeeded, 4 running",
                "a: running, 8 succeeded, 1 running",
                "a: running, 8 succeeded, 1 running; index 3 tries again in 6 s",
                "cannot reach the master",
                "a: succeeded, 9 succeeded",
            ]
        );
    }
}
