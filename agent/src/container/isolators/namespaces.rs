//! Own mounts, pids, System V objects and host name. The network is made elsewhere.

use std::fs;

use divvy_proto::container::Network;
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
        if let Some(users) = &plan.userns {
            users.map()?;
        }
        if plan.spec.network != Network::Host && plan.spec.joins.is_none() {
            open_ports();
        }
        setsid().map_err(step("start a session"))?;
        sethostname(plan.spec.hostname.as_str())
            .map_err(step(format!("set the host name {}", plan.spec.hostname)))
    }
}

/// In a network of its own, anybody may listen on any port and ping, as in Docker: there is nobody to take a port away from. Where
/// the kernel has no such settings, root may.
fn open_ports() {
    let settings = [("ip_unprivileged_port_start", "0"), ("ping_group_range", "0 2147483647")];
    for (name, value) in settings {
        let _ = fs::write(format!("/proc/sys/net/ipv4/{name}"), value);
    }
}
