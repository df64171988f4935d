//! Killing everything in a cgroup, and waiting for it without polling: by pidfd.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use super::files::{self, CgroupError};
use crate::container::sys;

/// How long the kernel may take to end killed processes: one in an uninterruptible wait on a disk takes its time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Something in a cgroup cannot be killed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KillError {
    /// Its files cannot be used.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// A process cannot be signalled or waited for.
    #[error("cannot kill process {pid}: {source}")]
    Signal { pid: u32, source: io::Error },
    /// These did not end in time.
    #[error("processes {0:?} do not end after SIGKILL")]
    Stuck(Vec<u32>),
}

/// Kills in rounds until the cgroup is empty: what was forked during one round is found by the next. `strike` makes the
/// blow: it is given the processes, and all that are left must be dying when it returns.
pub(super) fn until_empty(
    directory: &Path,
    mut strike: impl FnMut(&[(u32, OwnedFd)]) -> Result<(), KillError>,
) -> Result<(), KillError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let victims = open(&files::processes(directory)?)?;
        // A pid that was free again before it was opened would stand for a stranger now: only members count.
        let members = files::processes(directory)?;
        let victims: Vec<_> = victims.into_iter().filter(|(pid, _)| members.contains(pid)).collect();
        if members.is_empty() {
            return Ok(());
        }
        strike(&victims)?;
        for (pid, pidfd) in &victims {
            let left = deadline.saturating_duration_since(Instant::now());
            if !sys::ended_within(pidfd, left).map_err(|source| KillError::Signal { pid: *pid, source })? {
                return Err(KillError::Stuck(members));
            }
        }
        if Instant::now() > deadline {
            return Err(KillError::Stuck(members));
        }
    }
}

fn open(pids: &[u32]) -> Result<Vec<(u32, OwnedFd)>, KillError> {
    let mut opened = Vec::with_capacity(pids.len());
    for &pid in pids {
        match sys::pidfd_open(pid) {
            Ok(Some(pidfd)) => opened.push((pid, pidfd)),
            Ok(None) => {}
            Err(source) => return Err(KillError::Signal { pid, source }),
        }
    }
    Ok(opened)
}

/// SIGKILL to each.
pub(super) fn signal_all(victims: &[(u32, OwnedFd)]) -> Result<(), KillError> {
    for (pid, pidfd) in victims {
        sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL)
            .map_err(|source| KillError::Signal { pid: *pid, source })?;
    }
    Ok(())
}
