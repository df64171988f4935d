//! `divvy master` and `divvy agent`: one part of the house as a process of its own.

use std::ffi::OsString;

use divvy_agent::container::Rights;
use divvy_agent::{Agent, AgentConfig, ImageOptions, KillTasks, LogLimits, MasterAddress, NetworkConfig};
use divvy_master::{Master, MasterConfig, kernel};
use divvy_proto::ids::Hostname;
use divvy_sdk::cli::{CliError, Context, open_store, print_line, refuse_beyond_loopback, stop_signal};

use crate::cli;

/// A failure that names what was attempted.
pub(crate) fn failed(what: &str) -> impl Fn(&dyn std::fmt::Display) -> CliError + '_ {
    move |error| CliError::Failed(format!("{what}: {error}"))
}

/// This program, as a container's shim.
///
/// # Errors
/// The system does not say where this program is.
pub(crate) fn shim() -> Result<Vec<OsString>, CliError> {
    let program =
        std::env::current_exe().map_err(|error| failed("cannot find this program's file")(&error))?;
    Ok(vec![program.into(), "shim".into()])
}

pub(crate) async fn master(options: cli::Master) -> Result<(), CliError> {
    let stop = stop_signal()?;
    let mut config = MasterConfig::new(options.listen, open_store(&options.data_dir)?);
    config.insecure = options.insecure;
    config.kernel.offer_timeout = options.offer_timeout;
    config.kernel.ping_interval = options.ping_interval;
    config.kernel.missed_pings = options.missed_pings;
    config.kernel.reregister_timeout = options.reregister_timeout;
    config.kernel.breaker_percent = options.breaker_percent;
    options.kernel.apply(&mut config.kernel);
    let mut master = Master::start(config).await.map_err(CliError::failed)?;
    print_line(&format!("master      http://{}", master.addr()));
    print_line("ready");
    tokio::select! {
        ended = master.done() => return ended.map_err(CliError::failed),
        () = stop => {}
    }
    master.shutdown();
    master.done().await.map_err(CliError::failed)
}

impl cli::KernelArgs {
    pub(crate) fn apply(&self, kernel: &mut kernel::Config) {
        kernel.patience = self.patience;
        kernel.preemption_interval = self.preemption_interval;
        kernel.revocation_grace = self.revocation_grace;
        kernel.maintenance_lead = self.maintenance_lead;
        for limit in &self.rate_limits {
            match &limit.principal {
                Some(principal) => drop(kernel.rate_limits.insert(principal.clone(), limit.calls)),
                None => kernel.default_rate_limit = Some(limit.calls),
            }
        }
    }
}

pub(crate) async fn agent(options: cli::Agent, context: &Context) -> Result<(), CliError> {
    let stop = stop_signal()?;
    let agent = Agent::start(agent_config(options, context)?).await;
    let mut agent = agent.map_err(CliError::failed)?;
    print_line(&format!("agent       http://{}", agent.http_addr()));
    print_line("ready");
    tokio::select! {
        () = agent.done() => return Err(CliError::failed("the agent has stopped by itself; its log says why")),
        () = stop => {}
    }
    // The tasks stay: whoever starts the agent again in the same place finds them.
    agent.shutdown(KillTasks::No).await;
    Ok(())
}

fn agent_config(options: cli::Agent, context: &Context) -> Result<AgentConfig, CliError> {
    let usage = |error: divvy_proto::Invalid| CliError::Usage(error.to_string());
    refuse_beyond_loopback(options.listen, options.insecure)?;
    let master: MasterAddress = context.master.parse().map_err(usage)?;
    let hostname = match options.hostname {
        Some(hostname) => hostname,
        None => system_hostname()?,
    };
    if !matches!(nix::unistd::User::from_name(options.task_user.as_str()), Ok(Some(_))) {
        return Err(CliError::Usage(format!(
            "--task-user {}: there is no such user here, and each task would fail",
            options.task_user
        )));
    }
    let mut config =
        AgentConfig::new(options.work_dir, master, hostname, options.listen, shim()?).map_err(usage)?;
    config.advertise = options.advertise;
    config.resources = options.resources;
    config.reserve = options.reserve;
    config.revocable = options.revocable;
    config.attributes = options.attributes;
    config.default_user = options.task_user;
    config.rights = Rights {
        capabilities: options.allow_capability,
        devices: options.allow_device,
        subids: options.subuid_range,
    };
    config.network = NetworkConfig {
        config_dir: options.cni_config_dir,
        plugin_dirs: options.cni_plugin_dir,
        subnets: options.bridge_subnet,
        ..NetworkConfig::default()
    };
    config.allow_host_paths = options.allow_host_path;
    config.secrets_dir = options.secrets_dir;
    config.sandbox_retention = options.sandbox_retention;
    config.logs = LogLimits { max_size: options.log_max_size, max_files: options.log_max_files };
    config.images = ImageOptions {
        credentials: options.registry_credentials,
        insecure: options.insecure_registry.into_iter().collect(),
        watermarks: options.image_gc,
    };
    config.fetch_cache_size = options.fetch_cache_size;
    config.fetch_timeout = options.fetch_timeout;
    Ok(config)
}

fn system_hostname() -> Result<Hostname, CliError> {
    let name =
        nix::unistd::gethostname().map_err(|error| failed("cannot read the machine's name")(&error))?;
    Hostname::new(name.to_string_lossy())
        .map_err(|error| CliError::Usage(format!("{error}; name the machine with --hostname")))
}
