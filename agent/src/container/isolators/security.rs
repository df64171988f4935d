//! Whom the program runs as, and what that user can never do: no new privileges, few capabilities even for root, few system calls,
//! limits of each process.

mod capabilities;
mod devices;
mod rlimits;
mod seccomp;

use std::fs;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;

use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, chdir, setgroups, setresgid, setresuid};
use serde::{Deserialize, Serialize};

use super::userns::{self, UserNamespace};
use super::{Host, Isolator, step, step_on, users};
use crate::container::plan::{Plan, Record};
use crate::container::spec::ContainerSpec;
use crate::container::sys;
use crate::container::{ContainerId, LaunchError, RuntimeError};
use capabilities::Capabilities;
use seccomp::Filter;

/// A user as the kernel knows it.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    fn check(&self, host: &Host, spec: &ContainerSpec) -> Result<(), LaunchError> {
        capabilities::check(spec, &host.config.rights.capabilities)?;
        devices::check(spec, &host.config.rights)?;
        rlimits::check(spec)
    }

    fn prepare(&self, host: &Host, record: &Record, plan: &mut Plan) -> Result<(), LaunchError> {
        let account = users::look_up(&plan.spec)?;
        if let Some(home) = account.home {
            plan.spec.env.entry("HOME".to_owned()).or_insert(home);
        }
        plan.identity = account.identity.clone();
        if plan.spec.user_namespace {
            let users = UserNamespace::prepare(&plan.spec, host.config.rights.subids, record)?;
            plan.identity = users.outside(&account.identity)?;
            give_root(record, &users)?;
            plan.userns = Some(users);
        }
        devices::prepare(host, plan)?;
        give(&plan.spec.sandbox, &plan.identity)?;
        // A volume's ids are mapped where the container's are others.
        let writable = plan.spec.volumes.iter().filter(|volume| !volume.read_only);
        writable.into_iter().try_for_each(|volume| give_once(&volume.source, &account.identity))
    }

    fn isolate(&self, plan: &Plan) -> Result<(), LaunchError> {
        let capabilities = Capabilities::of(&plan.spec);
        // Before the limits, which may leave no memory for it.
        let filter = Filter::of(capabilities)?;
        // When memory is short the kernel should take a task rather than the agent.
        fs::write("/proc/self/oom_score_adj", OOM_SCORE).map_err(step("set oom_score_adj"))?;
        umask(Mode::from_bits_truncate(0o022));
        rlimits::apply(&plan.spec)?;
        let identity = match &plan.userns {
            Some(users) => users.enter().map(|()| users.inside(&plan.identity))?,
            None => plan.identity.clone(),
        };
        capabilities.bound()?;
        become_user(&identity)?;
        let own = if identity.uid == 0 { capabilities } else { Capabilities::NONE };
        own.limit()?;
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(step("set no_new_privs"))?;
        chdir(&plan.layout.start).map_err(step_on("enter", &plan.layout.start))?;
        sys::default_signals();
        sys::close_on_exec_from(3).map_err(step("close what must not be inherited"))?;
        filter.install()
    }

    fn cleanup(&self, host: &Host, record: &Record, id: &ContainerId) -> Result<(), RuntimeError> {
        let failed = |what| move |source| RuntimeError::File { what, path: record.path().to_owned(), source };
        userns::give_back(record).map_err(failed("give back the ids of"))?;
        devices::cleanup(host, id).map_err(failed("remove the devices cgroup of"))
    }
}

/// The kernel adds this to a task's badness, in thousandths of the machine's memory.
const OOM_SCORE: &str = "100";

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

/// What a container with a user namespace has for its own life belongs to its root.
fn give_root(record: &Record, users: &UserNamespace) -> Result<(), LaunchError> {
    let own = [record.upper(), record.tmp()];
    own.iter().filter(|directory| directory.exists()).try_for_each(|directory| {
        lchown(directory, Some(users.root()), Some(users.root()))
            .map_err(step_on("give to the container's root", directory))
    })
}

/// Gives away a volume, if it is not the user's already: a large one is not walked through for each task.
fn give_once(path: &Path, to: &Identity) -> Result<(), LaunchError> {
    let metadata = fs::symlink_metadata(path).map_err(step_on("look at the volume", path))?;
    match (metadata.uid(), metadata.gid()) == (to.uid, to.gid) {
        true => Ok(()),
        false => give(path, to),
    }
}

fn become_user(identity: &Identity) -> Result<(), LaunchError> {
    let groups: Vec<_> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    setgroups(&groups).map_err(step("set the groups"))?;
    setresgid(gid, gid, gid).map_err(step(format!("become group {gid}")))?;
    setresuid(uid, uid, uid).map_err(step(format!("become user {uid}")))
}
