//! What the commands do: ask the master's public API, print what it says.

mod agents;
mod cluster;
mod events;
mod exec;
mod explain;
mod files;
mod images;
mod logs;
mod policy;
mod stats;

use std::fmt;
use std::process::ExitCode;

use clap::CommandFactory;
use divvy_proto::api;
use divvy_proto::ids::TaskId;
use divvy_sdk::cli::{CliError, Context, Output};
use serde_json::{Map, Value};

use crate::cli::{Cli, Command};
use crate::{dev, serve};

/// Runs a command; its exit code says how it ended (see [`CliError`]).
pub(crate) async fn run(cli: Cli) -> ExitCode {
    let done = match Context::new(&cli.master, cli.output) {
        Ok(context) => match cli.command {
            Command::Exec(options) => return exec::run(&context, options).await,
            command => dispatch(command, &context).await,
        },
        Err(error) => Err(error),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("divvy: {error}");
            error.exit_code()
        }
    }
}

async fn dispatch(command: Command, context: &Context) -> Result<(), CliError> {
    match command {
        Command::Dev(options) => dev::run(options).await,
        Command::Master(options) => serve::master(options).await,
        Command::Agent(options) => serve::agent(options, context).await,
        Command::Service(command) => command.run(context).await,
        Command::Batch(command) => command.run(context).await,
        Command::Status => cluster::status(context).await,
        Command::Agents { action } => cluster::agents(context, action).await,
        Command::Frameworks { action } => cluster::frameworks(context, action).await,
        Command::Roles => cluster::roles(context).await,
        Command::Tasks(options) => cluster::tasks(context, options).await,
        Command::Offers => cluster::offers(context).await,
        Command::InverseOffers => agents::inverse_offers(context).await,
        Command::Quota { action } => policy::quota(context, action).await,
        Command::Weights { action } => policy::weights(context, action).await,
        Command::Reserve(options) => agents::reserve(context, options).await,
        Command::Unreserve(options) => agents::unreserve(context, options).await,
        Command::Reservations => agents::reservations(context).await,
        Command::Volumes { action } => agents::volumes(context, action).await,
        Command::Images(options) => images::run(context, options).await,
        Command::Drain(options) => agents::drain(context, options).await,
        Command::Deactivate { agent } => agents::deactivate(context, &agent).await,
        Command::Reactivate { agent } => agents::reactivate(context, &agent).await,
        Command::Maintenance { action } => agents::maintenance(context, action).await,
        Command::Explain(options) => explain::explain(context, options).await,
        Command::Demand => explain::demand(context).await,
        Command::Decisions(options) => explain::decisions(context, options).await,
        Command::Events(options) => events::run(context, options).await,
        Command::Logs(options) => logs::run(context, options).await,
        // It has exit codes of its own.
        Command::Exec(_) => Ok(()),
        Command::Stats(options) => stats::run(context, options).await,
        Command::Files { action } => files::run(context, action).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "divvy", &mut std::io::stdout());
            Ok(())
        }
    }
}

/// The task with this id, or the only one whose id begins so.
async fn find_task(context: &Context, wanted: &TaskId) -> Result<api::Task, CliError> {
    context.get(&format!("/api/v1/tasks/{wanted}")).await.map_err(|error| match error {
        CliError::Failed(why) => CliError::Usage(format!("{why}; see `divvy tasks --all`")),
        error => error,
    })
}

/// Says that something was done: to people in a sentence, to programs what is now true, as one object that also has
/// `"done": true`.
fn done(context: &Context, is_true: &Value, said: impl fmt::Display) -> Result<(), CliError> {
    context.progress(said);
    if matches!(context.output, Output::Table) {
        return Ok(());
    }
    let mut object = Map::from_iter([("done".to_owned(), Value::Bool(true))]);
    object.extend(is_true.as_object().cloned().unwrap_or_default());
    context.print(&object, |_| String::new())
}

/// A text as part of a URL: all but letters, digits, `-._~` and what is `kept` is escaped (RFC 3986, section 2).
fn escaped(text: &str, kept: &[u8]) -> String {
    let escape = |byte: u8| match byte {
        b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() || kept.contains(&byte) => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}
