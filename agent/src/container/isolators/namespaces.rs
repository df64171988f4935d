//! Own mounts, pids, System V objects, host name and cgroup root. The network is the host's.

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{sethostname, setsid};

use super::{Isolator, step};
use crate::container::LaunchError;
use crate::container::plan::Plan;

/// The namespaces that the first process is cloned into.
#[allow(clippy::cast_sign_loss, reason = "the flags are single bits, none of them the sign")]
pub(crate) const CLONE_FLAGS: u64 =
    (libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS) as u64;

pub(super) struct Namespaces;

impl Isolator for Namespaces {
    fn isolate(&self, plan: &Plan) -> Result<(), LaunchError> {
        setsid().map_err(step("start a session"))?;
        // A cgroup namespace has its root where its maker stands, so this comes once the process is in its cgroup.
        unshare(CloneFlags::CLONE_NEWCGROUP).map_err(step("make a cgroup namespace"))?;
        sethostname(plan.spec.hostname.as_str())
            .map_err(step(format!("set the host name {}", plan.spec.hostname)))
    }
}
