//! `divvy quota|weights …`.

use clap::{Args, Subcommand};
use divvy_proto::quota::Weight;
use divvy_proto::role::RolePath;
use divvy_proto::{Amounts, Resources};

#[derive(Debug, Subcommand)]
pub(crate) enum QuotaAction {
    /// Promise and limit a role, in place of what was set before.
    #[command(
        after_help = "Amounts are name=value pairs joined by `;`: cpus=4;mem=8GiB;ports=10. What is not named is neither promised nor \
                      limited.\n\nExample:\n  divvy quota set eng --guarantee 'cpus=1;mem=1GiB' --limit 'cpus=2'\n  \
                      divvy quota set eng/ads --guarantee cpus=0.5 --shape 'cpus=0.25;mem=128MiB' --no-preempt"
    )]
    Set(SetQuota),
    /// Show what roles are promised and limited to, and what they consume.
    #[command(after_help = "Example:\n  divvy quota get\n  divvy quota get eng -o json")]
    Get {
        /// Only this role.
        role: Option<RolePath>,
    },
    /// Take a role's quota away.
    #[command(after_help = "Example:\n  divvy quota rm eng")]
    Rm {
        /// Whose.
        role: RolePath,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SetQuota {
    /// Whose.
    pub(crate) role: RolePath,
    /// What the role gets before others get more than their own guarantee. For its demands others are preempted, for gangs not.
    #[arg(long, value_name = "AMOUNTS", required_unless_present_any = ["limit", "shape", "no_preempt"])]
    pub(crate) guarantee: Option<Amounts>,
    /// What the role, and all below it, may use at most.
    #[arg(long, value_name = "AMOUNTS")]
    pub(crate) limit: Option<Amounts>,
    /// What one task typically needs: what is kept free for the guarantee is kept in pieces in which this fits.
    #[arg(long, value_name = "RESOURCES")]
    pub(crate) shape: Option<Resources>,
    /// Never end the role's work beyond its guarantee for a role that is below its own.
    #[arg(long)]
    pub(crate) no_preempt: bool,
    /// Also where the cluster does not have what is promised, or the role uses more than the limit.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WeightAction {
    /// Weigh a role against its siblings: with 2 its fair share is twice that of one with 1.
    #[command(after_help = "Example:\n  divvy weights set eng 2.5")]
    Set {
        /// Whose.
        role: RolePath,
        /// From 0.001 to 1000000.
        weight: Weight,
    },
    /// Show the weights that were set, or a role's.
    #[command(after_help = "Example:\n  divvy weights get\n  divvy weights get eng")]
    Get {
        /// Only this role.
        role: Option<RolePath>,
    },
    /// Give a role the default weight again.
    #[command(after_help = "Example:\n  divvy weights rm eng")]
    Rm {
        /// Whose.
        role: RolePath,
    },
}
