//! `divvy batch …`: what can be typed, and what is then asked of the REST API and shown.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use divvy_sdk::cli::{CliError, Context, LogArgs, Output, ServeArgs, read_spec};

use crate::client::Client;
use crate::file::JobFile;
use crate::planner::JobId;

mod logs;
mod show;
mod wait;

/// Run jobs that end.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the batch framework as a process of its own.
    #[command(
        mut_arg("data_dir", |arg| arg.default_value("/var/lib/divvy/batch")),
        after_help = "Example:\n  divvy --master 127.0.0.1:5050 batch serve --data-dir /var/lib/divvy/batch"
    )]
    Serve(ServeArgs),
    /// Submit a job as a file describes it.
    #[command(
        after_help = "Example:\n  divvy batch submit wordcount.toml --dry-run\n  divvy batch submit wordcount.toml --wait\n\nWith --wait, the exit code is 0 only if the job has succeeded."
    )]
    Submit(Submit),
    /// List jobs, the newest first.
    #[command(after_help = "Example:\n  divvy batch ls\n  divvy batch ls -o json | jq '.[].id'")]
    Ls,
    /// Show where a job stands, and why.
    #[command(
        after_help = "Example:\n  divvy batch status wordcount\n  divvy batch status wordcount -o json | jq .counts"
    )]
    Status {
        /// The job.
        id: JobId,
    },
    /// Print what a job's tasks write.
    #[command(
        after_help = "Example:\n  divvy batch logs wordcount\n  divvy batch logs wordcount 7 --attempt 1 --stderr\n  divvy batch logs wordcount 7 -f"
    )]
    Logs(Logs),
    /// Kill what runs of a job and start nothing more of it.
    #[command(after_help = "Example:\n  divvy batch cancel wordcount --wait")]
    Cancel {
        /// The job.
        id: JobId,
        /// Whether and how long to wait.
        #[command(flatten)]
        wait: Wait,
    },
    /// Forget a job that has ended, with its results.
    #[command(after_help = "Example:\n  divvy batch rm wordcount")]
    Rm {
        /// The job.
        id: JobId,
    },
}

/// Options of `submit`.
#[derive(Debug, Args)]
pub struct Submit {
    /// The job, in TOML, or in JSON if the name ends in .json.
    file: PathBuf,
    /// Say what would be run and whether there is room, and change nothing.
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    #[command(flatten)]
    wait: Wait,
}

/// Options of what can be waited for.
#[derive(Debug, Args)]
pub struct Wait {
    /// Wait until the job has ended, and show how it goes.
    #[arg(short, long)]
    wait: bool,
    /// Wait no longer than this; the job goes on. Without it, there is no limit.
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    timeout: Option<Duration>,
}

/// Options of `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// The job.
    id: JobId,
    /// Which of its tasks, from 0; all by default, each line with the task's index.
    index: Option<u32>,
    /// Which try, from 1; by default the one that succeeded, or the latest.
    #[arg(long, requires = "index")]
    attempt: Option<u32>,
    #[command(flatten)]
    which: LogArgs,
}

impl Command {
    /// Whether it runs until it is told to stop.
    #[must_use]
    pub fn is_server(&self) -> bool {
        matches!(self, Self::Serve(_))
    }

    /// Does what was typed.
    ///
    /// # Errors
    /// What is to be shown to the user; its kind is the exit code.
    pub async fn run(self, context: &Context) -> Result<(), CliError> {
        let client = Client::new(context);
        match self {
            Self::Serve(options) => options.run(crate::NAME, context, crate::serve).await,
            Self::Submit(options) => submit(context, options).await,
            Self::Ls => context.print(&client.list().await?, |jobs| show::list(jobs)),
            Self::Status { id } => {
                let job = client.status(id.as_str()).await?;
                let why = match (job.summary.waiting.is_empty(), context.output) {
                    (false, Output::Table) => context.why_it_waits(crate::NAME, id.as_str()).await,
                    _ => String::new(),
                };
                context.print(&job, |job| show::status_with(job, &why))
            }
            Self::Logs(options) => logs::print(context, options).await,
            Self::Cancel { id, wait } => cancel(context, &id, &wait).await,
            Self::Rm { id } => {
                client.remove(id.as_str()).await?;
                context.progress(format_args!("{id} is forgotten"));
                Ok(())
            }
        }
    }
}

async fn submit(context: &Context, options: Submit) -> Result<(), CliError> {
    let (text, format) = read_spec(&options.file)?;
    let job = JobFile::parse(&text, format).map_err(|error| {
        CliError::Usage(format!("{}: {error}; nothing was submitted", options.file.display()))
    })?;
    let client = Client::new(context);
    if options.dry_run {
        return context.print(&client.try_out(text, format).await?, show::dry_run);
    }
    let status = client.submit(text, format).await?;
    let (tasks, run) = (show::tasks(job.count), status.summary.run);
    context.progress(format_args!("{} is submitted: {tasks}, run {run}", job.id));
    if options.wait.wait {
        return wait::until_succeeded(context, &job.id, run, options.wait.timeout).await;
    }
    match context.output {
        Output::Json => context.print(&status, show::status),
        Output::Table => Ok(()),
    }
}

async fn cancel(context: &Context, id: &JobId, wait: &Wait) -> Result<(), CliError> {
    let status = Client::new(context).cancel(id.as_str()).await?;
    if wait.wait {
        return wait::until_ended(context, id, status.summary.run, wait.timeout).await;
    }
    context.progress(format_args!("{id} is being cancelled"));
    match context.output {
        Output::Json => context.print(&status, show::status),
        Output::Table => Ok(()),
    }
}
