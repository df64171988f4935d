//! What the commands do: ask the master's public API, print what it says.

mod cluster;
mod logs;

use std::process::ExitCode;

use clap::CommandFactory;
use divvy_sdk::cli::{CliError, Context};

use crate::cli::{Cli, Command};
use crate::{dev, serve};

/// Runs a command; its exit code says how it ended (see [`CliError`]).
pub(crate) async fn run(cli: Cli) -> ExitCode {
    let done = match Context::new(&cli.master, cli.output) {
        Ok(context) => dispatch(cli.command, &context).await,
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
        Command::Logs(options) => logs::run(context, options).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "divvy", &mut std::io::stdout());
            Ok(())
        }
    }
}
