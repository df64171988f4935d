//! Whom the program runs as, and what that user can never do: no new privileges, few capabilities even for root.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;

use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, User, chdir, getgrouplist, setgroups, setresgid, setresuid};
use serde::{Deserialize, Serialize};

use super::{Host, Isolator, step, step_on};
use crate::container::LaunchError;
use crate::container::plan::{Plan, Record};
use crate::container::sys;

/// A user as the kernel knows it.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The user.
    pub(crate) uid: u32,
    /// Its main group.
    pub(crate) gid: u32,
    /// All its groups.
    pub(crate) groups: Vec<u32>,
}

pub(crate) struct Security;

impl Isolator for Security {
    fn prepare(&self, _host: &Host, _record: &Record, plan: &mut Plan) -> Result<(), LaunchError> {
        plan.identity = look_up(plan)?;
        give(&plan.spec.sandbox, &plan.identity)?;
        let writable = plan.spec.volumes.iter().filter(|volume| !volume.read_only);
        writable.into_iter().try_for_each(|volume| give_once(&volume.source, &plan.identity))
    }

    fn isolate(&self, plan: &Plan) -> Result<(), LaunchError> {
        // When memory is short the kernel should take a task rather than the agent.
        fs::write("/proc/self/oom_score_adj", OOM_SCORE).map_err(step("set oom_score_adj"))?;
        umask(Mode::from_bits_truncate(0o022));
        drop_bounding_set()?;
        become_user(&plan.identity)?;
        // For anyone but root the kernel has emptied these sets by now.
        sys::limit_capabilities(KEPT).map_err(step("drop capabilities"))?;
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(step("set no_new_privs"))?;
        chdir(&plan.spec.sandbox).map_err(step_on("enter the sandbox", &plan.spec.sandbox))?;
        sys::default_signals();
        sys::close_on_exec_from(3).map_err(step("close what must not be inherited"))
    }
}

/// The kernel adds this to a task's badness, in thousandths of the machine's memory.
const OOM_SCORE: &str = "100";

/// Docker's default capabilities: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE,
/// NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP. Only a task whose user is root has them.
const KEPT: u64 = bits(&[0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31]);

const fn bits(numbers: &[u32]) -> u64 {
    match numbers {
        [] => 0,
        [first, rest @ ..] => (1 << *first) | bits(rest),
    }
}

fn look_up(plan: &Plan) -> Result<Identity, LaunchError> {
    let name = &plan.spec.user;
    let user = User::from_name(name.as_str()).map_err(step(format!("look up user {name}")))?;
    let user = user.ok_or_else(|| LaunchError::UnknownUser(name.clone()))?;
    let text = CString::new(name.as_str()).map_err(step(format!("look up user {name}")))?;
    let groups = getgrouplist(&text, user.gid).map_err(step(format!("look up the groups of {name}")))?;
    let groups = groups.into_iter().map(Gid::as_raw).collect();
    Ok(Identity { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups })
}

/// Gives away a directory and all in it. Links are given, not followed.
fn give(path: &Path, to: &Identity) -> Result<(), LaunchError> {
    lchown(path, Some(to.uid), Some(to.gid)).map_err(step_on("give to the user", path))?;
    let metadata = fs::symlink_metadata(path).map_err(step_on("look at", path))?;
    if !metadata.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(step_on("list", path))? {
        give(&entry.map_err(step_on("list", path))?.path(), to)?;
    }
    Ok(())
}

/// Gives away a volume, if it is not the user's already: a large one is not walked through for each task.
fn give_once(path: &Path, to: &Identity) -> Result<(), LaunchError> {
    let metadata = fs::symlink_metadata(path).map_err(step_on("look at the volume", path))?;
    match (metadata.uid(), metadata.gid()) == (to.uid, to.gid) {
        true => Ok(()),
        false => give(path, to),
    }
}

/// Nothing that the process executes can ever have more than [`KEPT`].
fn drop_bounding_set() -> Result<(), LaunchError> {
    for capability in 0..64 {
        if KEPT & (1 << capability) != 0 {
            continue;
        }
        match sys::prctl(libc::PR_CAPBSET_DROP, capability) {
            // The kernel does not have so many.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            other => other.map_err(step(format!("drop capability {capability}")))?,
        }
    }
    Ok(())
}

fn become_user(identity: &Identity) -> Result<(), LaunchError> {
    let groups: Vec<_> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    setgroups(&groups).map_err(step("set the groups"))?;
    setresgid(gid, gid, gid).map_err(step(format!("become group {gid}")))?;
    setresuid(uid, uid, uid).map_err(step(format!("become user {uid}")))
}
