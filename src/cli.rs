//! The command line: what can be typed, and its help.
//!
//! Not here: what is then done. See [`crate::commands`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use divvy_agent::container::{DeviceRule, SubIds};
use divvy_agent::{FixedReservation, ResourceOverrides, Subnet, UserName};
use divvy_proto::container::Capability;
use divvy_proto::ids::{AgentId, FrameworkId, Hostname, Principal, TaskId};
use divvy_proto::resources::Resources;
use divvy_proto::{Attributes, Bytes, RolePath};
use divvy_sdk::cli::Output;

mod agents;
mod explain;
mod images;
mod policy;
mod streams;

pub(crate) use agents::{Drain, MaintenanceAction, Marks, Reserve, VolumeAction};
pub(crate) use explain::{About, Decisions, Events, Explain};
pub(crate) use images::{ImageAction, Images};
pub(crate) use policy::{QuotaAction, SetQuota, WeightAction};
pub(crate) use streams::{Exec, FilesAction, Logs, Stats};

/// A cluster kernel: divides the resources of many machines among pluggable schedulers, fairly.
#[derive(Debug, Parser)]
#[command(
    name = "divvy",
    version,
    propagate_version = true,
    after_help = "Start here:\n  divvy dev\n  divvy status"
)]
pub(crate) struct Cli {
    /// Address of the master.
    #[arg(
        long,
        global = true,
        env = "DIVVY_MASTER",
        default_value = "127.0.0.1:5050",
        value_name = "HOST:PORT"
    )]
    pub(crate) master: String,
    /// How to print results.
    #[arg(short, long, global = true, env = "DIVVY_OUTPUT", value_enum, default_value = "table")]
    pub(crate) output: Output,
    /// How servers write their logs, to stderr. RUST_LOG chooses what they write.
    #[arg(long, global = true, env = "DIVVY_LOG_FORMAT", value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How logs look.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For programs: one object a line.
    Json,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one, for the life of the process")]
pub(crate) enum Command {
    /// Run a whole cluster in this process, for trying things out.
    #[command(after_help = "Example:\n  divvy dev --agents 5\n  curl http://127.0.0.1:5050/api/v1/status")]
    Dev(Dev),
    /// Run a master.
    #[command(
        after_help = "Example:\n  divvy master --listen 127.0.0.1:5050 --data-dir /var/lib/divvy/master"
    )]
    Master(Master),
    /// Run an agent on this machine.
    #[command(
        after_help = "Example:\n  divvy agent --master 127.0.0.1:5050 --work-dir /var/lib/divvy/agent --resources 'cpus=4;mem=8GiB' --attributes 'rack=r1'"
    )]
    Agent(Agent),
    /// Run web apps and other services that should never end.
    #[command(
        subcommand,
        after_help = "Example:\n  divvy service apply frameworks/service/examples/web.toml --wait\n  divvy service status web"
    )]
    Service(divvy_service::cli::Command),
    /// Run jobs that end.
    #[command(
        subcommand,
        after_help = "Example:\n  divvy batch submit frameworks/batch/examples/wordcount.toml --wait\n  divvy batch logs wordcount"
    )]
    Batch(divvy_batch::cli::Command),
    /// Show the cluster at a glance.
    #[command(after_help = "Example:\n  divvy status\n  divvy status -o json | jq .tasks.RUNNING")]
    Status,
    /// List agents: what they have, and who holds it.
    #[command(after_help = "Example:\n  divvy agents\n  divvy agents gone a1-3")]
    Agents {
        #[command(subcommand)]
        action: Option<AgentAction>,
    },
    /// List frameworks and their shares.
    #[command(after_help = "Example:\n  divvy frameworks\n  divvy frameworks teardown f1-2")]
    Frameworks {
        #[command(subcommand)]
        action: Option<FrameworkAction>,
    },
    /// List roles: weights, shares, and what they are promised, limited to and consume.
    #[command(after_help = "Example:\n  divvy roles")]
    Roles,
    /// Promise roles a part of the cluster, and limit them.
    #[command(
        after_help = "Example:\n  divvy quota set eng --guarantee 'cpus=1;mem=1GiB' --limit cpus=2\n  divvy quota get"
    )]
    Quota {
        #[command(subcommand)]
        action: Option<QuotaAction>,
    },
    /// Weigh roles against their siblings.
    #[command(after_help = "Example:\n  divvy weights set eng 2\n  divvy weights get")]
    Weights {
        #[command(subcommand)]
        action: Option<WeightAction>,
    },
    /// Say why something waits.
    ///
    /// All agents, and what excludes how many of them, stage by stage; which comes nearest; what could be done.
    #[command(after_help = "Example:\n  divvy explain role eng\n  divvy explain demand batch train --watch")]
    Explain(Explain),
    /// List what frameworks want and have not been offered.
    #[command(after_help = "Example:\n  divvy demand")]
    Demand,
    /// List tasks.
    #[command(
        after_help = "Example:\n  divvy tasks\n  divvy tasks --all --framework batch\n  divvy tasks kill web.1.0-1"
    )]
    Tasks(Tasks),
    /// List outstanding offers.
    #[command(after_help = "Example:\n  divvy offers")]
    Offers,
    /// List what frameworks have been asked to give back, and by when.
    #[command(after_help = "Example:\n  divvy inverse-offers")]
    InverseOffers,
    /// Set unreserved resources of an agent aside for a role and all below it.
    #[command(
        after_help = "Example:\n  divvy reserve agent-1 db 'cpus=0.2;disk=10GiB'\n  divvy reserve a1-3 db/log disk=1GiB --label team=storage"
    )]
    Reserve(Reserve),
    /// Undo reservations of a role, as far as no task and no volume needs them.
    #[command(after_help = "Example:\n  divvy unreserve agent-1 db disk=10GiB")]
    Unreserve(Reserve),
    /// List what is reserved, for whom, and how much of it is used.
    #[command(after_help = "Example:\n  divvy reservations")]
    Reservations,
    /// List and manage persistent volumes.
    #[command(after_help = "Example:\n  divvy volumes\n  divvy volumes create agent-1 db data 10GiB")]
    Volumes {
        #[command(subcommand)]
        action: Option<VolumeAction>,
    },
    /// List and manage the images that agents have.
    #[command(after_help = "Example:\n  divvy images\n  divvy images pull docker://127.0.0.1:5000/web:1.2")]
    Images(Images),
    /// Empty an agent, before it is maintained or goes.
    ///
    /// It gets no new tasks, frameworks are asked to move theirs, and what is left at the deadline is killed.
    #[command(
        after_help = "Example:\n  divvy drain agent-2 --deadline 10m --wait\n  divvy reactivate agent-2"
    )]
    Drain(Drain),
    /// Offer nothing of an agent any more; its tasks run on.
    #[command(after_help = "Example:\n  divvy deactivate agent-2")]
    Deactivate {
        /// Which agent: its id or its hostname.
        agent: String,
    },
    /// Offer an agent again, after a drain or a deactivate.
    #[command(after_help = "Example:\n  divvy reactivate agent-2")]
    Reactivate {
        /// Which agent: its id or its hostname.
        agent: String,
    },
    /// Plan when which agents are maintained.
    ///
    /// They are drained before, and offered again after.
    #[command(after_help = "Example:\n  divvy maintenance set schedule.json\n  divvy maintenance get")]
    Maintenance {
        #[command(subcommand)]
        action: Option<MaintenanceAction>,
    },
    /// Print what changes, as it happens, until you stop it.
    #[command(
        after_help = "Example:\n  divvy events --kind task,agent\n  divvy events --decisions\n  divvy events -o json > events.jsonl"
    )]
    Events(Events),
    /// List what the kernel decided, and why, the latest last.
    #[command(after_help = "Example:\n  divvy decisions\n  divvy decisions --role eng --offers")]
    Decisions(Decisions),
    /// Print what a task writes.
    #[command(
        after_help = "Example:\n  divvy logs web.1.0-1 -f\n  divvy logs wordcount-1.3.1 --stderr --tail 100\n  divvy logs web.1.0-1 --since 10m"
    )]
    Logs(Logs),
    /// Run a command inside a task's container.
    ///
    /// With -it, as if you sat there. The exit code is that of the command, 128 and the number of the signal that ended it, 127 if
    /// there is no such program, 126 if it cannot be executed, and 125 if it did not come to that. When you go, it is ended.
    #[command(
        after_help = "Example:\n  divvy exec -it web.1.0-1 -- sh\n  divvy exec web.1.0-1 -- ps ax\n  tar c data | divvy exec -i web.1.0-1 -- tar x"
    )]
    Exec(Exec),
    /// Show what tasks use, beside their limits, again and again.
    #[command(after_help = "Example:\n  divvy stats\n  divvy stats web.1.0-1 --once -o json")]
    Stats(Stats),
    /// Look at and copy what is in a task's sandbox, also after its end.
    #[command(
        after_help = "Example:\n  divvy files ls web.1.0-1\n  divvy files cat web.1.0-1 stdout\n  divvy files get web.1.0-1 data"
    )]
    Files {
        #[command(subcommand)]
        action: FilesAction,
    },
    /// Print a script that completes commands in your shell.
    #[command(after_help = "Example:\n  divvy completions bash > /etc/bash_completion.d/divvy")]
    Completions {
        /// Which shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Whether it runs until it is told to stop.
    pub(crate) fn is_server(&self) -> bool {
        match self {
            Self::Dev(_) | Self::Master(_) | Self::Agent(_) => true,
            Self::Service(command) => command.is_server(),
            Self::Batch(command) => command.is_server(),
            _ => false,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// Address for the API and the dashboard.
    #[arg(long, env = "DIVVY_LISTEN", default_value = "127.0.0.1:5050", value_name = "HOST:PORT")]
    pub(crate) listen: SocketAddr,
    /// How many agents; they share out this machine's processors and memory evenly.
    #[arg(long, env = "DIVVY_AGENTS", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) agents: u16,
    /// Where everything is kept. Starting again in the same place finds services and jobs again.
    #[arg(long, env = "DIVVY_DATA_DIR", default_value = "run/dev", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Roles that services and jobs may name beside `*`, joined by commas.
    #[arg(long, env = "DIVVY_ROLES", value_delimiter = ',', value_name = "ROLE,...")]
    pub(crate) roles: Vec<RolePath>,
    #[command(flatten)]
    pub(crate) kernel: KernelArgs,
}

/// What the kernel obeys, in a cluster of its own and in `divvy dev`.
#[derive(Debug, Args)]
pub(crate) struct KernelArgs {
    /// How long a demand waits before an agent is kept for it.
    #[arg(long, env = "DIVVY_PATIENCE", default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub(crate) patience: Duration,
    /// From one preemption to the next at least.
    #[arg(long, env = "DIVVY_PREEMPTION_INTERVAL", default_value = "1s", value_parser = duration, value_name = "TIME")]
    pub(crate) preemption_interval: Duration,
    /// How long frameworks have to give back what is asked of them before it is taken.
    #[arg(long, env = "DIVVY_REVOCATION_GRACE", default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub(crate) revocation_grace: Duration,
    /// So long before a planned maintenance its agents are drained.
    #[arg(long, env = "DIVVY_MAINTENANCE_LEAD", default_value = "10m", value_parser = duration, value_name = "TIME")]
    pub(crate) maintenance_lead: Duration,
    /// So many calls a second a principal may make, by its name; `*` is everybody who is not named. No limit by default.
    #[arg(long = "rate-limit", env = "DIVVY_RATE_LIMIT", value_parser = rate_limit, value_name = "PRINCIPAL=CALLS", value_delimiter = ',')]
    pub(crate) rate_limits: Vec<RateLimit>,
}

/// How often somebody may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RateLimit {
    /// Who; everybody who is not named if absent.
    pub(crate) principal: Option<Principal>,
    /// Calls a second.
    pub(crate) calls: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Master {
    /// Address for frameworks, agents, operators and the dashboard.
    #[arg(long, env = "DIVVY_LISTEN", default_value = "127.0.0.1:5050", value_name = "HOST:PORT")]
    pub(crate) listen: SocketAddr,
    /// Where the registry is kept.
    #[arg(long, env = "DIVVY_DATA_DIR", default_value = "/var/lib/divvy/master", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Listen beyond this machine although nothing is encrypted or authenticated yet.
    #[arg(long, env = "DIVVY_INSECURE")]
    pub(crate) insecure: bool,
    /// How long an offer may be held.
    #[arg(long, env = "DIVVY_OFFER_TIMEOUT", default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub(crate) offer_timeout: Duration,
    /// From one ping of an agent to the next.
    #[arg(long, env = "DIVVY_PING_INTERVAL", default_value = "15s", value_parser = duration, value_name = "TIME")]
    pub(crate) ping_interval: Duration,
    /// So many missed pings, and an agent is unreachable.
    #[arg(long, env = "DIVVY_MISSED_PINGS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) missed_pings: u32,
    /// How long agents may take to come back after the master has restarted.
    #[arg(long, env = "DIVVY_REREGISTER_TIMEOUT", default_value = "10m", value_parser = duration, value_name = "TIME")]
    pub(crate) reregister_timeout: Duration,
    /// When more than this part of all agents falls silent at once, none is marked unreachable; 0 switches this off.
    #[arg(long, env = "DIVVY_BREAKER_PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) breaker_percent: u32,
    #[command(flatten)]
    pub(crate) kernel: KernelArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Agent {
    /// Where sandboxes and checkpoints are kept; it is the agent's identity.
    #[arg(long, env = "DIVVY_WORK_DIR", default_value = "/var/lib/divvy/agent", value_name = "DIR")]
    pub(crate) work_dir: PathBuf,
    /// Address for logs and sandboxes.
    #[arg(long, env = "DIVVY_LISTEN", default_value = "127.0.0.1:5051", value_name = "HOST:PORT")]
    pub(crate) listen: SocketAddr,
    /// Listen beyond this machine although nothing is encrypted or authenticated yet.
    #[arg(long, env = "DIVVY_INSECURE")]
    pub(crate) insecure: bool,
    /// The address at which others reach this machine's tasks; the one it listens on by default.
    #[arg(long, env = "DIVVY_ADVERTISE", value_name = "HOST")]
    pub(crate) advertise: Option<Hostname>,
    /// The machine's name; what the system says by default.
    #[arg(long, env = "DIVVY_HOSTNAME")]
    pub(crate) hostname: Option<Hostname>,
    /// What it has; what is not named is detected.
    #[arg(
        long,
        env = "DIVVY_RESOURCES",
        default_value = "",
        value_name = "RESOURCES",
        hide_default_value = true
    )]
    pub(crate) resources: ResourceOverrides,
    /// Resources that are set aside for a role, for as long as this stands here; again for each role.
    #[arg(long, value_name = "ROLE:RESOURCES")]
    pub(crate) reserve: Vec<FixedReservation>,
    /// What may be used beyond its resources for as long as nobody needs it.
    #[arg(
        long,
        env = "DIVVY_REVOCABLE",
        default_value = "",
        value_name = "RESOURCES",
        hide_default_value = true
    )]
    pub(crate) revocable: Resources,
    /// What else is to be said of it, for constraints.
    #[arg(
        long,
        env = "DIVVY_ATTRIBUTES",
        default_value = "",
        value_name = "ATTRIBUTES",
        hide_default_value = true
    )]
    pub(crate) attributes: Attributes,
    /// The user that tasks run as unless they name one.
    #[arg(long, env = "DIVVY_TASK_USER", default_value = "nobody")]
    pub(crate) task_user: UserName,
    /// A directory or file of this machine that tasks may mount, with all below it; again for each, or joined by colons.
    #[arg(long, env = "DIVVY_ALLOW_HOST_PATH", value_delimiter = ':', value_name = "PATH")]
    pub(crate) allow_host_path: Vec<PathBuf>,
    /// The directory with the secrets that tasks may name: files that only root can read.
    #[arg(long, env = "DIVVY_SECRETS_DIR", value_name = "DIR")]
    pub(crate) secrets_dir: Option<PathBuf>,
    /// A capability beyond the usual ones that tasks may add, such as NET_ADMIN; again for each. With most of them a task that
    /// runs as root is root on this machine.
    #[arg(long, value_name = "CAPABILITY")]
    pub(crate) allow_capability: Vec<Capability>,
    /// A device that tasks may use, such as /dev/fuse:rw; to read only without `:rw`. Again for each.
    #[arg(long, value_name = "DEVICE[:rw]")]
    pub(crate) allow_device: Vec<DeviceRule>,
    /// Ids of this machine that belong to nobody, for tasks with a user namespace: each gets 65536 of them.
    #[arg(long, env = "DIVVY_SUBUID_RANGE", default_value_t = SubIds::default(), value_name = "FIRST:COUNT")]
    pub(crate) subuid_range: SubIds,
    /// The directory with the configurations of CNI networks, which tasks ask for by name; `bridge` needs none.
    #[arg(long, env = "DIVVY_CNI_CONFIG_DIR", default_value = "/etc/cni/net.d", value_name = "DIR")]
    pub(crate) cni_config_dir: PathBuf,
    /// Where CNI plugins are; again for each directory, or joined by colons.
    #[arg(
        long,
        env = "DIVVY_CNI_PLUGIN_DIR",
        default_value = "/usr/lib/cni:/opt/cni/bin",
        value_delimiter = ':',
        value_name = "DIR"
    )]
    pub(crate) cni_plugin_dir: Vec<PathBuf>,
    /// The addresses of the network `bridge`; a second one, of IPv6, gives each container an address of both kinds.
    #[arg(
        long,
        env = "DIVVY_BRIDGE_SUBNET",
        default_value = "172.26.64.0/20",
        value_delimiter = ',',
        value_name = "SUBNET"
    )]
    pub(crate) bridge_subnet: Vec<Subnet>,
    /// How long sandboxes of ended tasks are kept; less as the disk fills up, and not at all from 90% on.
    #[arg(long, env = "DIVVY_SANDBOX_RETENTION", default_value = "7days", value_parser = duration, value_name = "TIME")]
    pub(crate) sandbox_retention: Duration,
    /// Most of each of a task's logs in one file; then the next is begun.
    #[arg(long, env = "DIVVY_LOG_MAX_SIZE", default_value = "10MiB", value_parser = log_size, value_name = "SIZE")]
    pub(crate) log_max_size: u64,
    /// How many files of each log are kept.
    #[arg(long, env = "DIVVY_LOG_MAX_FILES", default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..=100))]
    pub(crate) log_max_files: u32,
    /// A Docker configuration file (config.json) with credentials for registries.
    #[arg(long, env = "DIVVY_REGISTRY_CREDENTIALS", value_name = "FILE")]
    pub(crate) registry_credentials: Option<PathBuf>,
    /// A registry that is asked without TLS, as those on loopback are; again for each.
    #[arg(long, env = "DIVVY_INSECURE_REGISTRY", value_name = "HOST[:PORT]", value_delimiter = ',')]
    pub(crate) insecure_registry: Vec<String>,
    /// When more percent than the first of the disk are used, unused images are removed until the second are.
    #[arg(long, env = "DIVVY_IMAGE_GC", default_value = "85:80", value_parser = watermarks, value_name = "HIGH:LOW")]
    pub(crate) image_gc: (u64, u64),
    /// How much disk downloaded artifacts may take for later tasks; 0 keeps none.
    #[arg(long, env = "DIVVY_FETCH_CACHE_SIZE", default_value = "2GiB", value_name = "SIZE")]
    pub(crate) fetch_cache_size: Bytes,
    /// How long a task may take to fetch all of its artifacts.
    #[arg(long, env = "DIVVY_FETCH_TIMEOUT", default_value = "5m", value_parser = duration, value_name = "TIME")]
    pub(crate) fetch_timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AgentAction {
    /// Declare that an agent will not come back: its tasks are GONE. If it does, it ends them and is a new agent.
    ///
    /// The data of its persistent volumes is not removed: on its return the agent moves them to `volumes.gone-AGENT` in its
    /// work directory.
    #[command(after_help = "Example:\n  divvy agents gone a1-3")]
    Gone {
        /// Its id.
        id: AgentId,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum FrameworkAction {
    /// End a framework for good: its tasks are killed, and its id is never used again.
    #[command(after_help = "Example:\n  divvy frameworks teardown f1-2")]
    Teardown {
        /// Its id.
        id: FrameworkId,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Tasks {
    #[command(subcommand)]
    pub(crate) action: Option<TaskAction>,
    /// Show those that have ended, too. JSON output always does.
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only those of this framework, by name or id.
    #[arg(long, value_name = "FRAMEWORK")]
    pub(crate) framework: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TaskAction {
    /// Kill a task. Its framework may start another.
    #[command(after_help = "Example:\n  divvy tasks kill web.1.0-1")]
    Kill {
        /// Its id.
        task: TaskId,
    },
}

fn rate_limit(text: &str) -> Result<RateLimit, String> {
    let wrong =
        || "expected PRINCIPAL=CALLS with calls a second from 1 up, such as batch=100 or *=1000".to_owned();
    let (principal, calls) = text.rsplit_once('=').ok_or_else(wrong)?;
    let principal =
        (principal != "*").then(|| Principal::new(principal)).transpose().map_err(|e| e.to_string())?;
    let calls = calls.parse().ok().filter(|calls| *calls > 0).ok_or_else(wrong)?;
    Ok(RateLimit { principal, calls })
}

/// Smaller files would be rotated all the time.
const LEAST_LOG: u64 = 4 << 10;

fn log_size(text: &str) -> Result<u64, String> {
    let size: Bytes = text.parse().map_err(|error: divvy_proto::Invalid| error.to_string())?;
    let size = size.as_u64();
    if size < LEAST_LOG { Err("expected 4KiB or more".to_owned()) } else { Ok(size) }
}

/// Two percentages, such as `85:80`.
fn watermarks(text: &str) -> Result<(u64, u64), String> {
    let percent = |text: &str| text.parse::<u64>().ok().filter(|percent| *percent <= 100);
    let both = text.split_once(':').and_then(|(high, low)| Some((percent(high)?, percent(low)?)));
    both.filter(|(high, low)| low <= high).ok_or_else(|| "expected two percentages, such as 85:80".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; expected a time such as 30s or 5m"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_makes_sense_and_every_command_has_an_example() {
        Cli::command().debug_assert();
        fn without_example(command: &clap::Command, path: &str, found: &mut Vec<String>) {
            let path = format!("{path} {}", command.get_name());
            let example = command.get_after_help().is_some_and(|help| help.to_string().contains("divvy "));
            found.extend((!example).then(|| path.clone()));
            command.get_subcommands().for_each(|inner| without_example(inner, &path, found));
        }
        let mut found = Vec::new();
        without_example(&Cli::command(), "", &mut found);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn a_rate_limit_is_for_one_principal_or_for_all_others() {
        let limit = |principal: Option<&str>, calls| {
            Ok(RateLimit { principal: principal.map(|name| name.parse().unwrap()), calls })
        };
        assert_eq!(rate_limit("batch=100"), limit(Some("batch"), 100));
        assert_eq!(rate_limit("a=b=1"), limit(Some("a=b"), 1));
        assert_eq!(rate_limit("*=1000"), limit(None, 1000));
        for text in ["batch", "batch=", "batch=0", "batch=-1", "=1", "batch=many"] {
            assert!(rate_limit(text).is_err(), "{text:?} is taken");
        }
    }
}
