//! `divvy service …`: what can be typed, and what is then asked of the REST API and shown.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use divvy_sdk::cli::{CliError, Context, LogArgs, Output, ServeArgs, print_line, read_spec};
use divvy_sdk::proto::ids::{AgentId, TaskId};
use futures::StreamExt;

use crate::api_types::{AppStatus, Change, ChangeKind, Endpoint};
use crate::app_file::AppFile;
use crate::client::Client;

mod show;
mod wait;

/// Run web apps and other services that should never end.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service framework as a process of its own.
    #[command(
        mut_arg("data_dir", |arg| arg.default_value("/var/lib/divvy/service")),
        after_help = "Example:\n  divvy --master 127.0.0.1:5050 service serve --data-dir /var/lib/divvy/service"
    )]
    Serve(ServeArgs),
    /// Make an app as a file says: create it, update it, or change its number of instances.
    #[command(
        after_help = "Example:\n  divvy service apply web.toml --dry-run\n  divvy service apply web.toml --wait"
    )]
    Apply(Apply),
    /// List apps.
    #[command(after_help = "Example:\n  divvy service ls\n  divvy service ls -o json | jq '.[].id'")]
    Ls,
    /// Show where an app stands, and why.
    #[command(
        after_help = "Example:\n  divvy service status web\n  divvy service status web -o json | jq .endpoints"
    )]
    Status {
        /// The app.
        id: String,
    },
    /// Change an app's number of instances.
    #[command(after_help = "Example:\n  divvy service scale web 5 --wait")]
    Scale {
        /// The app.
        id: String,
        /// How many instances should run.
        instances: u32,
        /// Whether and how long to wait.
        #[command(flatten)]
        wait: Wait,
    },
    /// Replace all instances by new ones, within the bounds of an update.
    #[command(after_help = "Example:\n  divvy service restart web --wait")]
    Restart {
        /// The app.
        id: String,
        /// Whether and how long to wait.
        #[command(flatten)]
        wait: Wait,
    },
    /// Remove an app: its instances are drained and stopped.
    #[command(after_help = "Example:\n  divvy service rm web --wait")]
    Rm {
        /// The app.
        id: String,
        /// Whether and how long to wait.
        #[command(flatten)]
        wait: Wait,
    },
    /// Print what an instance writes; of one that ended, what is kept.
    #[command(
        after_help = "Example:\n  divvy service logs web -f\n  divvy service logs web --instance 2 --stderr"
    )]
    Logs(Logs),
    /// Print where an app can be reached, one address a line.
    #[command(
        after_help = "Example:\n  curl $(divvy service endpoints web | head -1)\n  divvy service endpoints web --follow"
    )]
    Endpoints {
        /// The app.
        id: String,
        /// Go on, with one line of JSON for each change.
        #[arg(short, long)]
        follow: bool,
    },
}

/// Options of `apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// The app, in TOML, or in JSON if the name ends in .json.
    file: PathBuf,
    /// Say what would change, and change nothing.
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    #[command(flatten)]
    wait: Wait,
}

/// Options of what can be waited for.
#[derive(Debug, Args)]
pub struct Wait {
    /// Wait until it is done, and show how it goes.
    #[arg(short, long)]
    wait: bool,
    /// Wait no longer than this; what was begun goes on.
    #[arg(long, default_value = "10m", value_parser = humantime::parse_duration, value_name = "TIME")]
    timeout: Duration,
}

/// Options of `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// The app.
    id: String,
    /// Which of the instances, from 0; the first that there is by default.
    #[arg(long)]
    instance: Option<u32>,
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
            Self::Apply(options) => apply(context, options).await,
            Self::Ls => context.print(&client.list().await?, |apps| show::list(apps)),
            Self::Status { id } => {
                let app = client.status(&id).await?;
                let why = match (&app.waiting, context.output) {
                    (Some(_), Output::Table) => context.why_it_waits(crate::NAME, &id).await,
                    _ => String::new(),
                };
                context.print(&app, |app| show::status_with(app, &why))
            }
            Self::Scale { id, instances, wait } => {
                let status = client.scale(&id, instances).await?;
                settle(context, &wait, status, &format!("{id} scales to {instances}")).await
            }
            Self::Restart { id, wait } => {
                let status = client.restart(&id).await?;
                settle(context, &wait, status, &format!("{id} restarts")).await
            }
            Self::Rm { id, wait } => remove(context, &id, &wait).await,
            Self::Logs(options) => logs(context, options).await,
            Self::Endpoints { id, follow: true } => follow_endpoints(context, &id).await,
            Self::Endpoints { id, .. } => {
                let endpoints = client.endpoints(&id).await?.endpoints;
                context.print(&endpoints, |endpoints| addresses(endpoints))
            }
        }
    }
}

fn addresses(endpoints: &[Endpoint]) -> String {
    endpoints.iter().map(|endpoint| endpoint.address.as_str()).collect::<Vec<_>>().join("\n")
}

async fn apply(context: &Context, options: Apply) -> Result<(), CliError> {
    let (text, format) = read_spec(&options.file)?;
    let in_file = |error: &dyn std::fmt::Display| {
        CliError::Usage(format!("{}: {error}; nothing was changed", options.file.display()))
    };
    let file = AppFile::parse(&text, format).map_err(|error| in_file(&error))?;
    let id = file.id.to_string();
    file.into_spec().map_err(|error| in_file(&error))?;
    let client = Client::new(context);
    let change = client.apply(&id, text, format, options.dry_run).await?;
    if options.dry_run {
        return context.print(&change, describe);
    }
    context.progress(describe(&change));
    if options.wait.wait {
        return wait::until_deployed(context, &id, change.version, options.wait.timeout).await;
    }
    if context.output == Output::Json {
        return context.print(&client.status(&id).await?, show::status);
    }
    Ok(())
}

/// What a change does, in a line, and the fields that differ below it.
fn describe(change: &Change) -> String {
    let Change { id, version, peak, .. } = change;
    let (is, would) = if change.dry_run { ("would be", "would") } else { ("is", "will") };
    let mut text = match change.change {
        ChangeKind::Created => format!("{id} {is} created as version {version}"),
        ChangeKind::Updated => {
            format!("{id} {is} updated to version {version}; at most {peak} instances {would} run at once")
        }
        ChangeKind::Scaled => format!("{id} {is} changed; version {version} stays"),
        ChangeKind::Retried => format!("{id} {is} tried again at version {version}"),
        ChangeKind::Unchanged => format!("{id} {is} unchanged at version {version}"),
    };
    for difference in &change.differences {
        text.push_str("\n  ");
        text.push_str(difference);
    }
    text
}

/// After a command that begins a deployment: waits for it, or says that it has begun.
async fn settle(context: &Context, wait: &Wait, status: AppStatus, began: &str) -> Result<(), CliError> {
    if wait.wait {
        return wait::until_deployed(context, &status.id, status.version, wait.timeout).await;
    }
    match context.output {
        Output::Json => context.print(&status, show::status),
        Output::Table => {
            context.progress(format_args!("{began} (version {})", status.version));
            Ok(())
        }
    }
}

async fn remove(context: &Context, id: &str, wait: &Wait) -> Result<(), CliError> {
    Client::new(context).remove(id).await?;
    if wait.wait {
        return wait::until_gone(context, id, wait.timeout).await;
    }
    context.progress(format_args!("{id} is being removed"));
    Ok(())
}

async fn follow_endpoints(context: &Context, id: &str) -> Result<(), CliError> {
    let mut changes = Client::new(context).follow_endpoints(id).await?;
    while let Some(endpoints) = changes.next().await {
        print_line(&endpoints);
    }
    Err(CliError::Unreachable(format!("the stream of {id}'s endpoints has ended")))
}

async fn logs(context: &Context, options: Logs) -> Result<(), CliError> {
    let status = Client::new(context).status(&options.id).await?;
    let (task, agent) = choose_task(&status, options.instance)?;
    let framework = context.framework_id(crate::NAME).await?;
    context.progress(format_args!("{} of {task}", options.which.stream()));
    context.log(&framework, task, agent, options.which).await?.print("").await
}

/// The task of an instance: the newest that runs, or the last that ended.
fn choose_task(status: &AppStatus, instance: Option<u32>) -> Result<(&TaskId, Option<&AgentId>), CliError> {
    let is = |number: u32| instance.is_none_or(|wanted| wanted == number);
    let live = status.tasks.iter().filter(|task| is(task.instance));
    let best = live.min_by_key(|task| (task.instance, std::cmp::Reverse(task.version)));
    let ended = status.history.iter().find(|end| is(end.instance));
    match (best, ended) {
        (Some(task), _) => Ok((&task.id, Some(&task.agent_id))),
        (None, Some(end)) => Ok((&end.task, None)),
        (None, None) => {
            let number = instance.map(|number| format!(" {number}")).unwrap_or_default();
            let there = match status.instances {
                0 => "it has none".to_owned(),
                count => format!("it has 0 to {}", count - 1),
            };
            Err(CliError::Usage(format!("{} has no instance{number}: {there}", status.id)))
        }
    }
}
