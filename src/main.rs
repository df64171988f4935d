//! The `divvy` binary: parses the command line, wires the parts together, nothing else.

mod cli;
mod commands;
mod dev;
mod serve;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // The shim is a container's parent: it must be single-threaded from its first instruction.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == "shim") {
        divvy_agent::shim::main(args);
    }
    let cli = cli::Cli::parse();
    start_logging(&cli);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("divvy: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(commands::run(cli))
}

/// Logs go to stderr: warnings for commands, more for servers, `RUST_LOG` overrides both.
fn start_logging(cli: &cli::Cli) {
    use std::io::IsTerminal;

    use tracing_subscriber::EnvFilter;

    let default = if cli.command.is_server() { "info" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    // Colours are for terminals, not for files and journals (https://no-color.org).
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colours = std::io::stderr().is_terminal() && !plain;
    let logs =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    match cli.log_format {
        cli::LogFormat::Text => logs.with_target(false).init(),
        cli::LogFormat::Json => logs.json().init(),
    }
}
