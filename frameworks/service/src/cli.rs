//! `divvy service …`: what can be typed, and what is then asked of the REST API and shown.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use divvy_sdk::cli::{CliError, Context, Output, print_line, table};
use divvy_sdk::proto::api;
use divvy_sdk::proto::role::RolePath;
use divvy_sdk::spec::Format;
use divvy_store::Embedded;
use futures::StreamExt;
use reqwest::Method;

use crate::api_types::{AppStatus, Change, ChangeKind, Endpoint};
use crate::app_file::AppFile;
use crate::client::Client;
use crate::{ServiceConfig, serve};

mod show;
mod wait;

/// Run web apps and other services that should never end.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service framework as a process of its own.
    #[command(
        after_help = "Example:\n  divvy --master 127.0.0.1:5050 service serve --data-dir /var/lib/divvy/service"
    )]
    Serve(Serve),
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

/// Options of `serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Address of the REST API, which the master passes requests on to. Any free port by default.
    #[arg(long, env = "DIVVY_LISTEN", default_value = "127.0.0.1:0", value_name = "HOST:PORT")]
    listen: SocketAddr,
    /// Base address at which the master reaches the REST API, where it differs from --listen.
    #[arg(long, env = "DIVVY_ADVERTISE", value_name = "URL")]
    advertise: Option<String>,
    /// Where apps are kept.
    #[arg(long, env = "DIVVY_DATA_DIR", default_value = "/var/lib/divvy/service", value_name = "DIR")]
    data_dir: PathBuf,
    /// The role whose resources are used.
    #[arg(long, env = "DIVVY_ROLE", default_value = "*")]
    role: RolePath,
    /// Listen beyond this machine although nothing is encrypted or authenticated yet.
    #[arg(long, env = "DIVVY_INSECURE")]
    insecure: bool,
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
    /// Go on while the task runs.
    #[arg(short, long)]
    follow: bool,
    /// What it writes to stderr instead of stdout.
    #[arg(long)]
    stderr: bool,
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
            Self::Serve(options) => run_server(options, context).await,
            Self::Apply(options) => apply(context, options).await,
            Self::Ls => context.print(&client.list().await?, |apps| show::list(apps)),
            Self::Status { id } => context.print(&client.status(&id).await?, show::status),
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

async fn run_server(options: Serve, context: &Context) -> Result<(), CliError> {
    if !options.listen.ip().is_loopback() && !options.insecure {
        return Err(CliError::Usage(format!(
            "--listen {} reaches beyond this machine, and nothing is encrypted or authenticated yet: listen on \
             127.0.0.1, or say --insecure",
            options.listen
        )));
    }
    let failed = |what: String| move |error: std::io::Error| CliError::Failed(format!("{what}: {error}"));
    let dir = &options.data_dir;
    std::fs::create_dir_all(dir).map_err(failed(format!("cannot make {}", dir.display())))?;
    let store =
        Embedded::open(dir.join("state.redb")).map_err(|error| CliError::Failed(error.to_string()))?;
    let config = ServiceConfig {
        listen: options.listen,
        url: options.advertise,
        role: options.role,
        ..ServiceConfig::new(context.master.clone(), Arc::new(store))
    };
    let stop = stop_signal().map_err(failed("cannot watch for signals".to_owned()))?;
    let mut running = serve(config).await.map_err(|error| CliError::Failed(error.to_string()))?;
    print_line(&format!("service     http://{}", running.addr()));
    print_line("ready");
    tokio::select! {
        ended = running.done() => return ended.map_err(|error| CliError::Failed(error.to_string())),
        () = stop => {}
    }
    running.shutdown().await;
    Ok(())
}

/// Comes true when the process is told to end.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

async fn apply(context: &Context, options: Apply) -> Result<(), CliError> {
    let (text, format) = read(&options.file)?;
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

fn read(path: &Path) -> Result<(String, Format), CliError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| CliError::Usage(format!("cannot read {}: {error}", path.display())))?;
    Ok((text, Format::of(path)))
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
    let task = choose_task(&status, options.instance)?;
    let framework = framework_id(context).await?;
    let stream = if options.stderr { "stderr" } else { "stdout" };
    let path = format!("/api/v1/tasks/{framework}/{task}/logs?stream={stream}&follow={}", options.follow);
    context.progress(format_args!("{stream} of {task}"));
    let mut body = context.send(context.request(Method::GET, &path)).await?.bytes_stream();
    let mut out = std::io::stdout();
    while let Some(chunk) = body.next().await {
        let chunk =
            chunk.map_err(|error| CliError::Unreachable(format!("the log of {task} broke off: {error}")))?;
        if out.write_all(&chunk).and_then(|()| out.flush()).is_err() {
            return Ok(()); // whoever reads has had enough
        }
    }
    Ok(())
}

/// The task of an instance: the newest that runs, or the last that ended.
fn choose_task(status: &AppStatus, instance: Option<u32>) -> Result<String, CliError> {
    let is = |number: u32| instance.is_none_or(|wanted| wanted == number);
    let live = status.tasks.iter().filter(|task| is(task.instance));
    let best = live.min_by_key(|task| (task.instance, std::cmp::Reverse(task.version)));
    let ended = status.history.iter().find(|end| is(end.instance));
    match (best, ended) {
        (Some(task), _) => Ok(task.id.to_string()),
        (None, Some(end)) => Ok(end.task.to_string()),
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

/// The id of the framework that runs the apps.
async fn framework_id(context: &Context) -> Result<String, CliError> {
    let frameworks: Vec<api::Framework> = context.get("/api/v1/frameworks").await?;
    let own = frameworks.into_iter().filter(|framework| framework.name == crate::NAME);
    let latest = own.min_by_key(|framework| (framework.state, std::cmp::Reverse(framework.since)));
    let missing = || CliError::Unreachable("the service framework is not known to the master".to_owned());
    latest.map(|framework| framework.id.to_string()).ok_or_else(missing)
}
