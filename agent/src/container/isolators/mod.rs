//! The chain of isolators. Each makes one kind of boundary, knows nothing of its neighbours, and has the same verbs.
//!
//! `check`, `prepare`, `update` and `cleanup` run in the agent; `isolate` runs in the container's first process, a single-threaded
//! child of the shim, between clone and exec.

mod cgroup;
mod layers;
mod logs;
mod namespaces;
pub(crate) mod network;
pub(crate) mod rootfs;
pub(crate) mod security;
pub(crate) mod userns;
mod users;

use std::fmt::Display;
use std::path::Path;

use super::RuntimeConfig;
use super::cgroup::Hierarchy;
use super::error::{LaunchError, RuntimeError};
use super::nursery::Nursery;
use super::plan::{Plan, Record};
use super::spec::ContainerSpec;
use crate::crash;
use crate::disk::Bin;

pub(crate) use namespaces::CLONE_FLAGS;

/// What the isolators may use of this host.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) config: RuntimeConfig,
    pub(crate) cgroups: Box<dyn Hierarchy>,
    pub(crate) nursery: Nursery,
    /// Where records wait for their removal.
    pub(crate) bin: Bin,
}

/// One kind of boundary around a container.
pub(crate) trait Isolator: Sync {
    /// Refuses what cannot or must not be, before anything is made.
    fn check(&self, _host: &Host, _spec: &ContainerSpec) -> Result<(), LaunchError> {
        Ok(())
    }

    /// Makes what the host must have before the container's first process exists.
    fn prepare(&self, _host: &Host, _record: &Record, _plan: &mut Plan) -> Result<(), LaunchError> {
        Ok(())
    }

    /// Puts the calling process behind the boundary, for good.
    fn isolate(&self, _plan: &Plan) -> Result<(), LaunchError> {
        Ok(())
    }

    /// Moves the boundary of a running container.
    fn update(&self, _host: &Host, _spec: &ContainerSpec) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// Removes whatever `prepare` made, also if it failed half-way or never ran. Called when no process is left inside.
    fn cleanup(&self, _host: &Host, _record: &Record, _id: &super::ContainerId) -> Result<(), RuntimeError> {
        Ok(())
    }
}

/// In the order in which a process passes through them: the first parts from the host's mounts, so that the others may mount,
/// and the later ones take away what the earlier ones need.
const CHAIN: [&dyn Isolator; 6] = [
    &namespaces::Namespaces,
    &logs::Logs,
    &cgroup::Cgroup,
    &network::Network,
    &rootfs::Rootfs,
    &security::Security,
];

/// All `check`, in order.
pub(crate) fn check(host: &Host, spec: &ContainerSpec) -> Result<(), LaunchError> {
    CHAIN.iter().try_for_each(|isolator| isolator.check(host, spec))
}

/// How many steps it takes to prepare a container, and to clean up after one.
pub const STEPS: usize = CHAIN.len();

/// All `prepare`, in order. After a failure the caller cleans up, all of it: cleaning what was not prepared does nothing.
pub(crate) fn prepare(host: &Host, record: &Record, plan: &mut Plan) -> Result<(), LaunchError> {
    for (number, isolator) in CHAIN.iter().enumerate() {
        isolator.prepare(host, record, plan)?;
        crash::point(format_args!("prepared {number}"));
    }
    Ok(())
}

/// All `isolate`, in order.
pub(crate) fn isolate(plan: &Plan) -> Result<(), LaunchError> {
    CHAIN.iter().try_for_each(|isolator| isolator.isolate(plan))
}

/// Confines the calling process, which has entered a container that there is, as that container's first process.
pub(crate) fn enter(plan: &Plan) -> Result<(), LaunchError> {
    security::Security.isolate(plan)
}

/// All `update`, in order.
pub(crate) fn update(host: &Host, spec: &ContainerSpec) -> Result<(), RuntimeError> {
    CHAIN.iter().try_for_each(|isolator| isolator.update(host, spec))
}

/// All `cleanup`, in reverse order, each whether or not those before it succeeded; the first error is told.
pub(crate) fn cleanup(host: &Host, record: &Record, id: &super::ContainerId) -> Result<(), RuntimeError> {
    let results = CHAIN.iter().enumerate().rev().map(|(number, isolator)| {
        let cleaned = isolator.cleanup(host, record, id);
        crash::point(format_args!("cleaned {number}"));
        cleaned
    });
    results.fold(Ok(()), Result::and)
}

/// A step that the kernel refused.
pub(crate) fn step<E: Display>(what: impl Into<String>) -> impl FnOnce(E) -> LaunchError {
    let what = what.into();
    move |why| LaunchError::Step { what, why: why.to_string() }
}

/// A step on a file that the kernel refused.
pub(crate) fn step_on<E: Display>(what: &str, path: &Path) -> impl FnOnce(E) -> LaunchError {
    step(format!("{what} {}", path.display()))
}
