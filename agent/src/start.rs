//! How an agent starts: takes its work directory, sees what an earlier process left, and opens its doors.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use divvy_proto::Invalid;
use divvy_proto::agent::AgentInfo;
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::agent::{Clock, Ears, Hands, MainLoop, Running};
use crate::checkpoint::{CheckpointError, Checkpoints};
use crate::config::{self, AgentConfig};
use crate::container::{ContainerId, ContainerState, Runtime, RuntimeConfig, RuntimeError};
use crate::disk::Disks;
use crate::fetcher::{Fetcher, FetcherError};
use crate::http::{self, Api, Live};
use crate::image::{ImageError, Images};
use crate::metrics::Metrics;
use crate::prober::Prober;
use crate::sandbox::Sandboxes;
use crate::supervisor::{Config, Input, LiveTask, Recovered, Supervisor, TaskKey};
use crate::volumes::Volumes;
use crate::{detect, link};

/// So many inputs may wait for the main loop.
const QUEUE: usize = 4096;
/// How long a master may take to accept a registration.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(30);
/// So many missed pings and the master is looked for anew (Mesos: 5).
const MISSED_PINGS: u32 = 5;

/// Why an agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The work directory cannot be used.
    #[error("cannot {what} {}: {source}", .path.display())]
    WorkDir {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another agent uses the work directory.
    #[error("another agent uses the work directory {}", .0.display())]
    InUse(PathBuf),
    /// Checkpoints cannot be read or written.
    #[error(transparent)]
    Checkpoints(#[from] CheckpointError),
    /// Containers cannot run here.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// What is kept of images cannot be used.
    #[error("images: {0}")]
    Images(String),
    /// The HTTP API cannot listen.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The machine cannot be asked what it has.
    #[error("cannot detect the machine's resources: {0}")]
    Detect(io::Error),
    /// The HTTP client cannot be made.
    #[error("cannot set up the HTTP client: {0}")]
    HttpClient(#[from] reqwest::Error),
    /// Artifacts cannot be fetched.
    #[error(transparent)]
    Fetcher(#[from] FetcherError),
    /// What the operator stated is not valid.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// The agent of one machine.
#[derive(Debug)]
pub struct Agent;

impl Agent {
    /// Starts an agent on its work directory, with the tasks that an earlier one left running there.
    ///
    /// # Errors
    /// The work directory, the listening address or the machine itself cannot be used; the error says why.
    pub async fn start(config: AgentConfig) -> Result<Running, StartError> {
        let work_dir = WorkDir::take(&config.work_dir)?;
        let runtime = Runtime::new(RuntimeConfig {
            state_dir: work_dir.path.join("containers"),
            cgroup_parent: cgroup_parent(&config, &work_dir.path),
            shim: config.shim.clone(),
            hidden: config.hidden.clone(),
            logs: config.logs,
            allow_host_paths: config.allow_host_paths.clone(),
            secrets_dir: config.secrets_dir.clone(),
            rights: config.rights.clone(),
            network: config.network.clone(),
        })?;
        let sandboxes = Sandboxes::open(work_dir.path.join("sandboxes"));
        let sandboxes = sandboxes.map_err(work_dir.failed("prepare the sandboxes in"))?;
        let volumes = Volumes::open(&work_dir.path).map_err(work_dir.failed("prepare the volumes in"))?;
        let checkpoints = Checkpoints::open(work_dir.path.join("checkpoints"))?;
        let mut recovered = recover(&checkpoints, &runtime).await?;
        recovered.volumes = volumes.list().map_err(work_dir.failed("list the volumes in"))?;

        let no_images = |error: ImageError| StartError::Images(error.to_string());
        let images = Images::open(work_dir.path.join("images"), &config.images).map_err(no_images)?;
        images.retain(&containers(&recovered));

        let failed = |source| StartError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let http_addr = listener.local_addr().map_err(failed)?;
        let core = supervisor_config(&config, &work_dir.path, http_addr)?;
        info!("agent {} at {} has {}", core.agent.hostname, core.agent.url, core.agent.resources);

        let (inputs, inputs_in) = mpsc::channel(QUEUE);
        let (live, live_seen) = watch::channel(running(&recovered));
        let (metrics, stop) = (Arc::<Metrics>::default(), CancellationToken::new());
        let done = inputs.clone();
        let writer = checkpoints.writer(move |token| drop(done.blocking_send(Input::Checkpointed(token))));
        let hands = Hands {
            prober: Prober::new(runtime.clone(), core.agent.address.clone(), inputs.clone())
                .map_err(work_dir.failed("start the thread that probes tasks of"))?,
            disks: Disks::new(runtime.clone(), inputs.clone()),
            inputs,
            runtime: runtime.clone(),
            writer: writer.map_err(work_dir.failed("start the thread that writes to"))?,
            fetcher: Fetcher::new(
                work_dir.path.join("cache"),
                config.fetch_cache_size,
                config.fetch_timeout,
            )?,
            images: images.clone(),
            sandboxes: sandboxes.clone(),
            volumes,
            metrics: metrics.clone(),
            live,
        };
        let retention = config.sandbox_retention;
        let hostname = config.hostname.clone();
        let api = Api {
            hostname,
            sandboxes,
            runtime,
            live: live_seen,
            retention,
            images: images.clone(),
            metrics,
            stop: stop.clone(),
        };
        let http = tokio::spawn(serve(listener, api));
        let (orders, orders_in) = mpsc::channel(1);
        let (events, links) = mpsc::channel(QUEUE);
        let ears = Ears { inputs: inputs_in, links, orders: orders_in };
        let main_loop = MainLoop::new(Supervisor::new(core), Clock::new(), hands, config.sandbox_retention);
        let main = tokio::spawn(async move {
            let dial = tokio::spawn(link::keep_open(config.master, events));
            let tend = tokio::spawn(images.tend());
            main_loop.run(Input::Recovered(recovered), ears).await;
            dial.abort();
            tend.abort();
            drop(work_dir); // only now may another agent have it
        });
        Ok(Running { http_addr, orders, main, http, stop })
    }
}

/// The work directory, for as long as this agent holds it.
struct WorkDir {
    path: PathBuf,
    _lock: Flock<File>,
}

impl WorkDir {
    fn take(path: &Path) -> Result<Self, StartError> {
        let failed =
            |what: &'static str| move |source| StartError::WorkDir { what, path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed("make the work directory"))?;
        let path = path.canonicalize().map_err(failed("find the work directory"))?;
        let lock = File::create(path.join("lock")).map_err(failed("lock the work directory"))?;
        match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { path, _lock: lock }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(StartError::InUse(path)),
            Err((_, errno)) => Err(failed("lock the work directory")(errno.into())),
        }
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(io::Error) -> StartError {
        let path = self.path.clone();
        move |source| StartError::WorkDir { what, path, source }
    }
}

/// The tasks that run already. Whoever asks before the main loop has looked must not hear that there are none.
fn running(recovered: &Recovered) -> Live {
    let running = recovered.tasks.iter().filter(|(_, state)| matches!(state, ContainerState::Running { .. }));
    let live = running.map(|(record, _)| {
        let key = TaskKey { framework_id: record.framework_id.clone(), task_id: record.info.id.clone() };
        (key, LiveTask { container: record.container.clone(), running_since: record.running_since })
    });
    Live::new(live.collect())
}

/// What an earlier process wrote down, and what has become of its containers.
async fn recover(checkpoints: &Checkpoints, runtime: &Runtime) -> Result<Recovered, StartError> {
    let loaded = checkpoints.load()?;
    let mut recovered =
        Recovered { agent: loaded.agent, containers: runtime.list().await?, ..Recovered::default() };
    for record in loaded.tasks {
        let state = runtime.state(&record.container).await.unwrap_or_else(|error| {
            warn!("cannot tell what became of container {}: {error}", record.container);
            ContainerState::Absent
        });
        recovered.tasks.push((record, state));
    }
    if !recovered.tasks.is_empty() {
        info!("recovered {} tasks", recovered.tasks.len());
    }
    Ok(recovered)
}

/// Every container that there is, or that a task will want destroyed.
fn containers(recovered: &Recovered) -> BTreeSet<ContainerId> {
    let of_tasks = recovered.tasks.iter().map(|(record, _)| record.container.clone());
    of_tasks.chain(recovered.containers.iter().cloned()).collect()
}

fn supervisor_config(
    config: &AgentConfig,
    work_dir: &Path,
    http_addr: SocketAddr,
) -> Result<Config, StartError> {
    let detected = detect::resources(work_dir).map_err(StartError::Detect)?;
    let address = address(config, http_addr);
    let host = if address.contains(':') { format!("[{address}]") } else { address.clone() };
    let id = uuid::Uuid::new_v4().simple().to_string();
    let resources = config.resources.over(&detected)?;
    Ok(Config {
        incarnation: id.chars().take(12).collect(),
        boot_id: detect::boot_id().map_err(StartError::Detect)?,
        agent: AgentInfo {
            id: None,
            hostname: config.hostname.clone(),
            url: format!("http://{host}:{}", http_addr.port()),
            address,
            reserved: config::reserved(&config.reserve, &resources)?,
            revocable: config.revocable.clone(),
            resources,
            attributes: config.attributes.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        sandboxes: work_dir.join("sandboxes"),
        volumes: work_dir.join("volumes"),
        default_user: config.default_user.clone(),
        kill_grace: config.kill_grace,
        pids_limit: config.pids_limit,
        retry_first: config.retry_first,
        retry_longest: config.retry_longest,
        missed_pings: MISSED_PINGS,
        registration_timeout: REGISTRATION_TIMEOUT,
    })
}

/// How others reach this machine: as the operator says, or where the API listens, or else by the machine's name.
fn address(config: &AgentConfig, http_addr: SocketAddr) -> String {
    match &config.advertise {
        Some(host) => host.to_string(),
        None if http_addr.ip().is_unspecified() => config.hostname.to_string(),
        None => http_addr.ip().to_string(),
    }
}

/// A cgroup of this work directory alone, with a name that tells people whose it is.
fn cgroup_parent(config: &AgentConfig, work_dir: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    // The same for every build of the agent: the next one must find the cgroups of this one.
    let digest = Sha256::digest(work_dir.as_os_str().as_bytes());
    let digest: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let letters = config.hostname.as_str().chars().take(64);
    let name: String = letters.map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("divvy/{name}-{digest}")
}

async fn serve(listener: TcpListener, api: Api) {
    let stop = api.stop.clone();
    let server = axum::serve(listener, http::router(api)).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = server.await {
        warn!("the HTTP API has ended: {error}");
    }
}
