//! `divvy explain|events|decisions`: what happens, and why.

use clap::{Args, Subcommand};
use divvy_proto::role::RolePath;

#[derive(Debug, Args)]
pub(crate) struct Explain {
    #[command(subcommand)]
    pub(crate) about: About,
    /// Ask again every second.
    #[arg(short, long, global = true)]
    pub(crate) watch: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum About {
    /// All that waits in a role and below it, and where the role stands.
    #[command(after_help = "Example:\n  divvy explain role eng")]
    Role {
        /// Which.
        role: RolePath,
    },
    /// All that a framework waits for.
    #[command(after_help = "Example:\n  divvy explain framework batch")]
    Framework {
        /// Its name or id.
        framework: String,
    },
    /// One shape of a framework's demand.
    #[command(after_help = "Example:\n  divvy explain demand batch train --role eng --watch")]
    Demand {
        /// The framework's name or id.
        framework: String,
        /// The shape's name; `divvy demand` lists them.
        shape: String,
        /// The role, where the framework wants a shape of this name in several.
        #[arg(long)]
        role: Option<RolePath>,
    },
    /// Why a task is where it is, or is not there.
    #[command(after_help = "Example:\n  divvy explain task web.1.0-1")]
    Task {
        /// Its id, or the beginning of it.
        task: String,
        /// Its framework's name or id.
        #[arg(long)]
        framework: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Go on after the change with this index, instead of from now.
    #[arg(long, value_name = "INDEX")]
    pub(crate) since: Option<u64>,
    /// Only of these kinds: agent, framework, task, status, role, decision.
    #[arg(long = "kind", value_name = "KIND", value_delimiter = ',')]
    pub(crate) kinds: Vec<String>,
    /// Only what the kernel decided: preemptions, gangs, holds, drains.
    #[arg(long, conflicts_with = "kinds")]
    pub(crate) decisions: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Decisions {
    /// Only those about this role or one below it.
    #[arg(long)]
    pub(crate) role: Option<RolePath>,
    /// Only those about this framework, by name or id.
    #[arg(long, value_name = "FRAMEWORK")]
    pub(crate) framework: Option<String>,
    /// Only the latest so many.
    #[arg(long, default_value_t = 50, value_name = "COUNT")]
    pub(crate) limit: usize,
    /// Offers, too: each is a decision.
    #[arg(long)]
    pub(crate) offers: bool,
}
