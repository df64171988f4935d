//! Own mounts, pids, System V objects and host name. The network is the host's.

use nix::mount::{MsFlags, mount};
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
        // Private: nothing that is mounted from here on is seen outside, nor the other way round.
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
            .map_err(step("part from the host's mounts"))?;
        setsid().map_err(step("start a session"))?;
        sethostname(plan.spec.hostname.as_str())
            .map_err(step(format!("set the host name {}", plan.spec.hostname)))
    }
}
