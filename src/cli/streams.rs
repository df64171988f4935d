//! `divvy exec`, `divvy logs`, `divvy stats`, `divvy files`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use divvy_proto::ids::TaskId;
use divvy_sdk::cli::LogArgs;

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Send standard input to the command.
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command a terminal of its own.
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// A variable for it beside the task's own; again for each.
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,
    /// Id of the task, or the beginning of it.
    pub(crate) task: TaskId,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Id of the task, or the beginning of it.
    pub(crate) task: TaskId,
    #[command(flatten)]
    pub(crate) which: LogArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// Id of one task, or the beginning of it; all tasks by default.
    pub(crate) task: Option<TaskId>,
    /// Print once, and end.
    #[arg(long)]
    pub(crate) once: bool,
    /// From one look to the next.
    #[arg(long, default_value = "2s", value_parser = super::duration, value_name = "TIME")]
    pub(crate) interval: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FilesAction {
    /// List a directory of the sandbox.
    #[command(after_help = "Example:\n  divvy files ls web.1.0-1\n  divvy files ls web.1.0-1 data -o json")]
    Ls {
        /// Id of the task, or the beginning of it.
        task: TaskId,
        /// Which directory, relative to the sandbox.
        #[arg(default_value = "")]
        path: String,
    },
    /// Print a file of the sandbox.
    #[command(after_help = "Example:\n  divvy files cat web.1.0-1 config.toml")]
    Cat {
        /// Id of the task, or the beginning of it.
        task: TaskId,
        /// Which file, relative to the sandbox.
        path: String,
    },
    /// Copy a file, or a directory with all that is in it, out of the sandbox.
    #[command(
        after_help = "Example:\n  divvy files get web.1.0-1 dump.bin\n  divvy files get web.1.0-1 data ./data-of-web\n  divvy files get web.1.0-1 . - | tar -t"
    )]
    Get {
        /// Id of the task, or the beginning of it.
        task: TaskId,
        /// Which file or directory, relative to the sandbox.
        path: String,
        /// Where to; its own name here by default. `-` prints the bytes of a file, or a directory as a tar archive.
        to: Option<PathBuf>,
    },
}
