//! `divvy images`: what agents have of images, and what is done about it.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::duration;

#[derive(Debug, Args)]
pub(crate) struct Images {
    /// Only this agent: its id or its hostname. All that are active if absent.
    #[arg(long, global = true, value_name = "AGENT")]
    pub(crate) agent: Option<String>,
    #[command(subcommand)]
    pub(crate) action: Option<ImageAction>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageAction {
    /// List images, and which containers run in them.
    #[command(after_help = "Example:\n  divvy images ls --agent agent-1")]
    Ls,
    /// Have an image on agents before a task wants it, or ask its registry for it anew.
    #[command(
        after_help = "Example:\n  divvy images pull docker://127.0.0.1:5000/web:1.2\n  divvy images pull oci:/srv/images/web:1.2 --agent agent-1"
    )]
    Pull {
        /// oci:/PATH[:TAG], docker-archive:/FILE[:TAG] or docker://HOST[:PORT]/NAME[:TAG|@DIGEST]
        image: divvy_proto::ImageName,
    },
    /// Remove an image that no container runs in.
    #[command(
        after_help = "Example:\n  divvy images rm docker://127.0.0.1:5000/web:1.2\n  divvy images rm 3f5a0c29"
    )]
    Rm {
        /// A name, a digest, or the first six or more digits of one.
        image: String,
    },
    /// Remove all images that no container runs in.
    ///
    /// Agents do so by themselves when their disk becomes full, with those first that were not used for longest.
    #[command(after_help = "Example:\n  divvy images gc --unused-for 24h")]
    Gc {
        /// Only what was not used for so long.
        #[arg(long, default_value = "0s", value_parser = duration, value_name = "TIME")]
        unused_for: Duration,
    },
}
