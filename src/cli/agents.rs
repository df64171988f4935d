//! `divvy reserve|unreserve|reservations|volumes|drain|deactivate|reactivate|maintenance`: what operators do about agents.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use divvy_proto::ids::{Principal, VolumeId};
use divvy_proto::role::RolePath;
use divvy_proto::{Bytes, Resources};

use super::duration;

#[derive(Debug, Args)]
pub(crate) struct Reserve {
    /// Which agent: its id or its hostname.
    pub(crate) agent: String,
    /// For whom.
    pub(crate) role: RolePath,
    /// How much.
    pub(crate) resources: Resources,
    #[command(flatten)]
    pub(crate) marks: Marks,
}

/// What tells reservations of one role apart.
#[derive(Debug, Args)]
pub(crate) struct Marks {
    /// A label of the reservation. Two with different labels do not mix.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Who does it, for the record.
    #[arg(long, value_name = "PRINCIPAL")]
    pub(crate) principal: Option<Principal>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VolumeAction {
    /// List volumes.
    #[command(after_help = "Example:\n  divvy volumes ls")]
    Ls,
    /// Make a volume of disk that is reserved for a role.
    #[command(
        after_help = "Example:\n  divvy reserve agent-1 db disk=10GiB\n  divvy volumes create agent-1 db data 10GiB"
    )]
    Create {
        /// On which agent: its id or its hostname.
        agent: String,
        /// Whose disk.
        role: RolePath,
        /// The volume's name, unique on its agent.
        id: VolumeId,
        /// How large.
        size: Bytes,
        #[command(flatten)]
        marks: Marks,
    },
    /// Remove a volume, and what is in it. Its disk is reserved again.
    #[command(after_help = "Example:\n  divvy volumes rm agent-1 data")]
    Rm {
        /// On which agent: its id or its hostname.
        agent: String,
        /// The volume's name.
        id: VolumeId,
    },
    /// Make a volume larger, out of disk under the same reservation.
    #[command(after_help = "Example:\n  divvy volumes grow agent-1 data 5GiB")]
    Grow {
        /// On which agent: its id or its hostname.
        agent: String,
        /// The volume's name.
        id: VolumeId,
        /// By how much.
        by: Bytes,
    },
    /// Make a volume smaller.
    #[command(after_help = "Example:\n  divvy volumes shrink agent-1 data 5GiB")]
    Shrink {
        /// On which agent: its id or its hostname.
        agent: String,
        /// The volume's name.
        id: VolumeId,
        /// By how much.
        by: Bytes,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// Which agent: its id or its hostname.
    pub(crate) agent: String,
    /// How long frameworks have to move their tasks away; then what is left is killed. At once if absent.
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub(crate) deadline: Option<Duration>,
    /// Declare it gone once it is empty: it will not come back.
    #[arg(long)]
    pub(crate) gone: bool,
    /// Wait until it is empty, and show how it goes.
    #[arg(short, long)]
    pub(crate) wait: bool,
    /// Wait no longer than this; what was begun goes on.
    #[arg(long, default_value = "30m", value_parser = duration, value_name = "TIME", requires = "wait")]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MaintenanceAction {
    /// Show the schedule.
    #[command(
        after_help = "Example:\n  divvy maintenance get\n  divvy maintenance get -o json > schedule.json"
    )]
    Get,
    /// Replace the schedule, whole. Agents are named by id or by hostname.
    #[command(
        after_help = "The file is JSON, as `get -o json` writes it, if its name ends in .json, or else TOML:\n\n  [[windows]]\n  agents = [\"a1-3\", \"agent-2\"]\n  window = { start = \
                      \"2030-01-01T02:00:00Z\", duration = \"2h\", reason = \"new disks\" }\n\nExample:\n  divvy maintenance set \
                      schedule.json"
    )]
    Set {
        /// The schedule, in TOML, or in JSON if the name ends in .json.
        file: PathBuf,
    },
    /// Plan nothing any more. Agents that are drained for a window are offered again.
    #[command(after_help = "Example:\n  divvy maintenance rm")]
    Rm,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, such as team=storage")?;
    Ok((key.to_owned(), value.to_owned()))
}
