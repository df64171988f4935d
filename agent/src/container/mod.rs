//! Containers, made from cgroups and namespaces by a chain of isolators, each kept by a shim that outlives the agent.
//!
//! Not here: when to launch, kill or report; that is the supervisor's. Not here either: images and networks.

mod cgroup;
mod command;
mod error;
mod isolators;
mod link;
mod nursery;
mod plan;
mod rights;
mod spec;
mod sys;

// What the shim is made of.
pub(crate) use cgroup::detect as cgroups;
pub(crate) use isolators::userns::UserNamespace;
pub(crate) use isolators::{CLONE_FLAGS, enter, isolate};
pub(crate) use link::{AttachRequest, ExecReport, ExecRequest, Greeting, Report};
pub(crate) use plan::{LogPipes, Plan, Record, Running, boot_id};
pub(crate) use sys::{
    Cloned, clone, ended_within, pidfd_open, pidfd_signal, prctl, receive_order, show_arguments, start_time,
};

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use divvy_proto::api::Usage;
pub use divvy_proto::container::StopSignal;
use divvy_proto::{Bytes, Timestamp};

use crate::crash;
use crate::disk::Bin;
pub use crate::disk::DiskLimit;
pub use crate::log::LogLimits;
use crate::network::{NetworkConfig, netns};
use cgroup::{Group, KillError};
pub use command::Attached;
use command::ExecFailure;
pub use error::{LaunchError, RuntimeError};
use isolators::Host;
pub use isolators::STEPS;
use link::Link;
use nursery::Nursery;
pub use rights::{DeviceRule, Rights, SubIds};
pub use spec::{
    ContainerId, ContainerSpec, ContainerState, ExecResult, Exited, Oom, PortMap, Root, SANDBOX, Started,
    UserName, VolumeBind,
};

/// Where a runtime keeps what it must not lose, and how it starts a shim.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// One directory per container: its plan, its exit status, its shim's socket, its private `/tmp`. It lies below the
    /// agent's work directory; that is, its parent is hidden from all containers, but for their own sandbox.
    pub state_dir: PathBuf,
    /// The cgroup below which containers get theirs, relative to each hierarchy's root: `divvy/agent-1-4f2a`. No other
    /// runtime may use it.
    pub cgroup_parent: String,
    /// The command that enters [`crate::shim::main`]: the agent's own binary, then `shim`.
    pub shim: Vec<OsString>,
    /// Further host paths that no container may see, such as the work directories of other agents on this host.
    pub hidden: Vec<PathBuf>,
    /// How much of each log is kept.
    pub logs: LogLimits,
    /// What of the host's files tasks may mount: these, and all below them.
    pub allow_host_paths: Vec<PathBuf>,
    /// The files in it, root's alone, are the secrets that tasks may name.
    pub secrets_dir: Option<PathBuf>,
    /// The networks that containers may ask for.
    pub network: NetworkConfig,
    /// What containers may be given beyond the default.
    pub rights: Rights,
}

/// Launches and ends containers, and finds those again that an earlier agent launched. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Runtime {
    host: Arc<Host>,
}

/// The least memory in which a process can be set up at all. The kernel charges page tables and stacks, too.
const MEMORY_MIN: Bytes = Bytes::mib(2);

/// How long a shim may take to answer, and to end after its container's first process was killed.
const SHIM_PATIENCE: Duration = Duration::from_secs(5);

impl Runtime {
    /// Checks that containers can run here at all.
    ///
    /// # Errors
    /// Says what is missing (root, a cgroup controller, a namespace) and what to do about it.
    pub fn new(config: RuntimeConfig) -> Result<Self, RuntimeError> {
        check_rights()?;
        let cgroups = cgroup::detect().map_err(no_cgroups)?;
        cgroups.settle().map_err(|error| no_cgroups(error.to_string()))?;
        let created = fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.state_dir);
        created.map_err(file("create", &config.state_dir))?;
        // The shim runs elsewhere, and symbolic links mean something else inside a container.
        let state_dir = fs::canonicalize(&config.state_dir).map_err(file("find", &config.state_dir))?;
        let bin = Bin::beside(&state_dir).map_err(file("keep what is to be removed beside", &state_dir))?;
        let nursery = Nursery::new(config.shim.clone()).map_err(no_shim)?;
        let config = RuntimeConfig { state_dir, ..config };
        Ok(Self { host: Arc::new(Host { config, cgroups, nursery, bin }) })
    }

    /// Makes a container and executes its program. Returns when `execve` has succeeded. If the future is dropped before
    /// that, [`Runtime::destroy`] removes what there is by then.
    ///
    /// # Errors
    /// Why it was not started. Nothing is left of it then but what was in the sandbox.
    pub async fn launch(&self, spec: &ContainerSpec) -> Result<Started, LaunchError> {
        check_spec(spec)?;
        isolators::check(&self.host, spec)?;
        let record = self.record(&spec.id);
        match record.create() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(LaunchError::Exists(spec.id.clone()));
            }
            other => other.map_err(isolators::step_on("create", record.path()))?,
        }
        crash::point(format_args!("record made"));
        let plan = Plan {
            group: self.group(&spec.id),
            spec: spec.clone(),
            entrance: cgroup::Entrance::default(),
            network: isolators::network::Wiring::default(),
            layout: isolators::rootfs::Layout::default(),
            identity: isolators::security::Identity::default(),
            userns: None,
            logs: LogLimits::default(),
            pipes: None,
        };
        let launched = match self.blocking(move |host| prepare(host, plan)).await {
            Ok((addresses, report)) => command::started(report).await.map(|pid| Started { pid, addresses }),
            Err(error) => Err(error),
        };
        if launched.is_err()
            && let Err(error) = self.destroy(&spec.id).await
        {
            tracing::warn!(container = %spec.id, %error, "a container that did not start cannot be removed");
        }
        launched
    }

    /// Waits for the end of a container's first process. Can be cancelled, repeated, and called by an agent that did not
    /// launch the container.
    ///
    /// # Errors
    /// There is no such container, or it was destroyed meanwhile before anyone could tell how it ended.
    pub async fn wait(&self, id: &ContainerId) -> Result<Exited, RuntimeError> {
        if let Some(mut link) = self.connect(id).await?
            && let Some(exited) = link.exited().await.map_err(shim(id, "listen to"))?
        {
            return Ok(exited);
        }
        match self.remembered(id)? {
            ContainerState::Exited(exited) => Ok(exited),
            _ => Err(RuntimeError::NotRunning(id.clone())),
        }
    }

    /// What is known of a container now.
    ///
    /// # Errors
    /// Its state cannot be read.
    pub async fn state(&self, id: &ContainerId) -> Result<ContainerState, RuntimeError> {
        match self.connect(id).await? {
            Some(link) => Ok(ContainerState::Running { pid: link.pid, addresses: self.addresses(id)? }),
            None => self.remembered(id),
        }
    }

    /// Every container that left something here: state or cgroups. What nobody claims is to be destroyed.
    ///
    /// # Errors
    /// The directories cannot be read.
    pub async fn list(&self) -> Result<Vec<ContainerId>, RuntimeError> {
        self.blocking(|host| {
            let state_dir = &host.config.state_dir;
            let entries = fs::read_dir(state_dir).map_err(file("list", state_dir))?;
            let mut names: Vec<_> =
                entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
            let groups = host.cgroups.children(&Group::new(&host.config.cgroup_parent, ""));
            names.extend(groups.map_err(|error| RuntimeError::Host {
                missing: error.to_string(),
                remedy: "check the mounts below /sys/fs/cgroup".to_owned(),
            })?);
            names.sort();
            names.dedup();
            Ok(names.into_iter().filter_map(|name| ContainerId::new(name).ok()).collect())
        })
        .await
    }

    /// Sends a signal to a container's first process. It is not an error if that has ended.
    ///
    /// The kernel discards signals for which a pid 1 has no handler. So that SIGTERM ends `sleep` inside a container as it
    /// does outside, a signal that would end the process by default and is neither caught, ignored nor blocked is carried
    /// out as SIGKILL, and the end is reported as by the signal that was sent.
    ///
    /// # Errors
    /// There is no such container, or its shim cannot be spoken to.
    pub async fn signal(&self, id: &ContainerId, signal: StopSignal) -> Result<(), RuntimeError> {
        match self.connect(id).await? {
            Some(mut link) => link.signal(signal.number()).await.map(|_| ()).map_err(shim(id, "speak to")),
            None => match self.remembered(id)? {
                ContainerState::Exited(_) => Ok(()),
                _ => Err(RuntimeError::NotRunning(id.clone())),
            },
        }
    }

    /// Changes the limits of a container that runs: `cpus`, `cpu_limit`, `memory` and `pids` of `spec`. The rest of it must
    /// be what it was launched with.
    ///
    /// # Errors
    /// There is no such container, or the kernel refuses a limit: less memory than is in use and cannot be reclaimed.
    pub async fn update(&self, spec: &ContainerSpec) -> Result<(), RuntimeError> {
        let spec = spec.clone();
        self.blocking(move |host| isolators::update(host, &spec)).await
    }

    /// Ends whatever runs in a container, and removes all that it has but its sandbox. Idempotent, and fit for what an
    /// interrupted launch or destruction has left.
    ///
    /// # Errors
    /// Something resists; calling again is right.
    pub async fn destroy(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let obeys = match self.connect(id).await {
            Ok(Some(link)) => end(link).await.map_err(shim(id, "end")),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        crash::point(format_args!("container told to end"));
        let patience = match obeys {
            Ok(()) => SHIM_PATIENCE,
            Err(error) => {
                tracing::warn!(container = %id, %error, "the shim does not answer and is killed");
                Duration::ZERO
            }
        };
        let (id, record, group) = (id.clone(), self.record(id), self.group(id));
        self.blocking(move |host| {
            end_shim(&record, patience).map_err(shim(&id, "end"))?;
            crash::point(format_args!("shim ended"));
            host.cgroups.kill(&group).map_err(|error| unkillable(&id, error))?;
            crash::point(format_args!("processes killed"));
            isolators::cleanup(host, &record, &id)?;
            record.remove(&host.bin).map_err(file("remove", record.path()))?;
            crash::point(format_args!("record removed"));
            Ok(())
        })
        .await
    }

    /// Removes what all containers share, once there is none: the cgroups above theirs, and the bridge. For an agent that leaves the host for
    /// good, or ends with nothing running; the next launch makes them again.
    ///
    /// # Errors
    /// None but the end of the process: what is still in use stays.
    pub async fn retire(&self) -> Result<(), RuntimeError> {
        self.blocking(|host| {
            host.cgroups.prune(&Group::new(&host.config.cgroup_parent, ""));
            if let Err(error) = netns::remove_idle_bridge(&host.config.network.bridge) {
                tracing::warn!(%error, "cannot remove the bridge {}", host.config.network.bridge);
            }
            Ok(())
        })
        .await
    }

    /// What a container uses now. Memory is without the page cache that the kernel could drop at once, as `docker stats` has
    /// it.
    ///
    /// # Errors
    /// It does not exist, or its cgroup cannot be read.
    pub async fn usage(&self, id: &ContainerId) -> Result<Usage, RuntimeError> {
        let usage = self.host.cgroups.usage(&self.group(id));
        usage.map_err(|error| RuntimeError::Cgroup { id: id.clone(), why: error.to_string() })
    }

    /// What a container was launched with.
    ///
    /// # Errors
    /// It does not exist, or its record cannot be read.
    pub fn spec(&self, id: &ContainerId) -> Result<ContainerSpec, RuntimeError> {
        let record = self.record(id);
        let plan = record.plan().map_err(file("read the plan in", record.path()))?;
        plan.map(|plan| plan.spec).ok_or_else(|| RuntimeError::NotRunning(id.clone()))
    }

    /// What a container may write, and where; `None` if it has no limit, or there is none.
    ///
    /// # Errors
    /// Its record cannot be read.
    pub fn disk(&self, id: &ContainerId) -> Result<Option<DiskLimit>, RuntimeError> {
        let record = self.record(id);
        let Some(plan) = record.plan().map_err(file("read", record.path()))? else { return Ok(None) };
        let directories = vec![plan.spec.sandbox, record.upper(), record.tmp()];
        Ok(plan.spec.disk.map(|limit| DiskLimit { limit, directories }))
    }

    /// Runs a command inside a container: its namespaces, cgroup, user, environment and sandbox.
    ///
    /// # Errors
    /// The container does not run, the command cannot be executed, or it did not end within `timeout`; then it has been
    /// killed with its process group.
    pub async fn exec(
        &self,
        id: &ContainerId,
        argv: &[String],
        timeout: Duration,
    ) -> Result<ExecResult, RuntimeError> {
        let link = self.connect(id).await?.ok_or_else(|| RuntimeError::NotRunning(id.clone()))?;
        let request = ExecRequest { pid: link.pid, argv: argv.to_vec() };
        let result = command::exec(&self.host.config, &self.record(id), &request, timeout).await;
        result.map_err(|failure| match failure {
            ExecFailure::Timeout => RuntimeError::ExecTimeout(timeout),
            ExecFailure::Launch(error) => RuntimeError::Exec(error),
            ExecFailure::Helper(source) => {
                RuntimeError::Shim { id: id.clone(), what: "run a command by", source }
            }
        })
    }

    /// Runs a command inside a container as [`Runtime::exec`] does, for somebody who types and reads along.
    ///
    /// # Errors
    /// The container does not run, or no helper can be started. Whether the command can is told in its output.
    pub async fn attach(
        &self,
        id: &ContainerId,
        start: divvy_proto::exec::ExecStart,
    ) -> Result<Attached, RuntimeError> {
        let link = self.connect(id).await?.ok_or_else(|| RuntimeError::NotRunning(id.clone()))?;
        let request = AttachRequest { pid: link.pid, start };
        let attached = command::attach(&self.host.config, &self.record(id), &request).await;
        attached.map_err(shim(id, "run a command by"))
    }

    fn record(&self, id: &ContainerId) -> Record {
        Record::at(self.host.config.state_dir.join(id.as_str()))
    }

    fn group(&self, id: &ContainerId) -> Group {
        Group::new(&self.host.config.cgroup_parent, id.as_str())
    }

    async fn connect(&self, id: &ContainerId) -> Result<Option<Link>, RuntimeError> {
        in_time(Link::connect(&self.record(id))).await.map_err(shim(id, "connect to"))
    }

    /// The network namespace of a container that runs, and its addresses there; `None` if it uses the host's.
    ///
    /// # Errors
    /// There is no such container, or its state cannot be read.
    pub async fn network(&self, id: &ContainerId) -> Result<Option<(fs::File, Vec<IpAddr>)>, RuntimeError> {
        let link = self.connect(id).await?.ok_or_else(|| RuntimeError::NotRunning(id.clone()))?;
        let path = PathBuf::from(format!("/proc/{}/ns/net", link.pid));
        let namespace = netns::open_other(&path).map_err(file("open", &path))?;
        namespace.map(|namespace| Ok((namespace, self.addresses(id)?))).transpose()
    }

    /// The addresses of a container with a network that is not the host's.
    fn addresses(&self, id: &ContainerId) -> Result<Vec<IpAddr>, RuntimeError> {
        let record = self.record(id);
        let plan = record.plan().map_err(file("read", record.path()))?;
        Ok(plan.map(|plan| plan.network.addresses).unwrap_or_default())
    }

    /// What is on record of a container without a shim.
    fn remembered(&self, id: &ContainerId) -> Result<ContainerState, RuntimeError> {
        let record = self.record(id);
        let unreadable = || file("read", record.path());
        if let Some(exited) = record.exited().map_err(unreadable())? {
            return Ok(ContainerState::Exited(exited));
        }
        match record.running().map_err(unreadable())? {
            Some(running) if running.boot == boot_id().map_err(unreadable())? => {
                let oom = self.host.cgroups.oom(&self.group(id)).ok().flatten();
                Ok(ContainerState::Exited(Exited { status: None, oom, at: Timestamp::wall_clock() }))
            }
            _ => Ok(ContainerState::Absent),
        }
    }

    /// Files of the kernel answer fast, but not always.
    async fn blocking<T: Send + 'static, E: Send + From<Interrupted> + 'static>(
        &self,
        work: impl FnOnce(&Host) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let host = self.host.clone();
        tokio::task::spawn_blocking(move || work(&host)).await.unwrap_or_else(|_| Err(Interrupted.into()))
    }
}

/// The agent's runtime shuts down, and took a piece of work with it.
struct Interrupted;

impl From<Interrupted> for LaunchError {
    fn from(_: Interrupted) -> Self {
        Self::Step { what: "prepare the container".to_owned(), why: "the agent ends".to_owned() }
    }
}

impl From<Interrupted> for RuntimeError {
    fn from(_: Interrupted) -> Self {
        Self::Host { missing: "the agent ends".to_owned(), remedy: "start it again".to_owned() }
    }
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RuntimeError {
    let path = path.to_path_buf();
    move |source| RuntimeError::File { what, path, source }
}

fn shim(id: &ContainerId, what: &'static str) -> impl FnOnce(io::Error) -> RuntimeError {
    let id = id.clone();
    move |source| RuntimeError::Shim { id, what, source }
}

fn unkillable(id: &ContainerId, error: KillError) -> RuntimeError {
    match error {
        KillError::Stuck(pids) => RuntimeError::Unkillable { id: id.clone(), pids },
        error => RuntimeError::Cgroup { id: id.clone(), why: error.to_string() },
    }
}

fn no_shim(error: io::Error) -> RuntimeError {
    RuntimeError::Host {
        missing: format!("the program that keeps containers cannot be started ({error})"),
        remedy: "check the agent's binary".to_owned(),
    }
}

fn no_cgroups(missing: String) -> RuntimeError {
    let remedy = "mount cgroup2 with the controllers cpu, memory and pids, or their v1 trees and the freezer's; under \
                  systemd, give the agent's unit Delegate=yes";
    RuntimeError::Host { missing, remedy: remedy.to_owned() }
}

/// Root by name is not enough in a container that was given few capabilities.
fn check_rights() -> Result<(), RuntimeError> {
    const SYS_ADMIN: u64 = 1 << 21;
    let status = Path::new("/proc/self/status");
    let text = fs::read_to_string(status).map_err(file("read", status))?;
    let effective = text.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    if !nix::unistd::geteuid().is_root() || effective & SYS_ADMIN == 0 {
        return Err(RuntimeError::Host {
            missing: "this process is not root, or has no CAP_SYS_ADMIN".to_owned(),
            remedy: "start the agent as root".to_owned(),
        });
    }
    for namespace in ["mnt", "pid", "ipc", "uts", "cgroup"] {
        if !Path::new("/proc/self/ns").join(namespace).exists() {
            return Err(RuntimeError::Host {
                missing: format!("the kernel has no {namespace} namespaces"),
                remedy: "use a kernel that is built with them".to_owned(),
            });
        }
    }
    Ok(())
}

/// Refuses what could not be passed to the kernel, before anything is made.
fn check_spec(spec: &ContainerSpec) -> Result<(), LaunchError> {
    let refuse = |field: &str, value: String, why: &str| {
        Err(LaunchError::Spec { field: field.to_owned(), value, why: why.to_owned() })
    };
    if spec.memory < MEMORY_MIN {
        let why = format!("a container needs at least {MEMORY_MIN} to be set up in");
        return refuse("memory", spec.memory.to_string(), &why);
    }
    if spec.pids == 0 {
        return refuse("pids", spec.pids.to_string(), "the program itself is one");
    }
    if spec.hostname.as_str().len() > 63 {
        return refuse("hostname", spec.hostname.to_string(), "the kernel takes at most 63 bytes");
    }
    if spec.argv.is_empty() {
        return refuse("argv", "[]".to_owned(), "the program must be named");
    }
    if let Some(text) = spec.argv.iter().find(|text| text.contains('\0')) {
        return refuse("argv", format!("{text:?}"), "arguments cannot contain a zero byte");
    }
    if let Some(name) = spec.env.iter().find_map(|(name, value)| bad_variable(name, value)) {
        return refuse(
            "env",
            format!("{name:?}"),
            "names cannot be empty or contain =, and nothing a zero byte",
        );
    }
    Ok(())
}

fn bad_variable<'a>(name: &'a str, value: &str) -> Option<&'a str> {
    (name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')).then_some(name)
}

/// A shim answers at once, or at the end of a launch. One that has been stopped must not hold up the agent.
async fn in_time<T>(answer: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(SHIM_PATIENCE, answer).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The part of a launch that the agent does, to the order of a shim. Answers with the container's own addresses, and with what
/// the shim's report comes from.
fn prepare(host: &Host, mut plan: Plan) -> Result<(Vec<IpAddr>, OwnedFd), LaunchError> {
    let record = Record::at(host.config.state_dir.join(plan.spec.id.as_str()));
    isolators::prepare(host, &record, &mut plan)?;
    record.write_plan(&plan).map_err(isolators::step_on("write the plan in", record.path()))?;
    crash::point(format_args!("plan written"));
    let report = host.nursery.shim(&record).map_err(|error| LaunchError::ShimLost(error.to_string()))?;
    crash::point(format_args!("shim started"));
    Ok((plan.network.addresses, report))
}

/// Kills the first process, and with it everything in its pid namespace, and gives the shim time to note how it ended.
async fn end(mut link: Link) -> io::Result<()> {
    let last_words = async {
        if link.signal(libc::SIGKILL).await?.is_none() {
            link.exited().await?;
        }
        Ok(())
    };
    in_time(last_words).await
}

/// Waits until the shim is no process any more: it says its last word a little before that. One that hangs is killed.
fn end_shim(record: &Record, patience: Duration) -> io::Result<()> {
    let Ok(Some(running)) = record.running() else { return Ok(()) };
    let Some(shim) = pidfd_open(running.shim)? else { return Ok(()) };
    if running.shim_start.is_none()
        || start_time(running.shim)? != running.shim_start
        || running.boot != boot_id()?
    {
        return Ok(()); // it has ended, and its pid is another's
    }
    if sys::ended_within(&shim, patience)? {
        return Ok(());
    }
    pidfd_signal(shim.as_fd(), libc::SIGKILL)?;
    match sys::ended_within(&shim, SHIM_PATIENCE)? {
        true => Ok(()),
        false => Err(io::ErrorKind::TimedOut.into()),
    }
}
