//! `shim nursery`: where an agent's shims are born. It is the agent's binary, executed once; each shim is a fork of it, which
//! shares its pages and costs far less than executing a program of this size.
//!
//! It knows nothing of containers, keeps nothing, and ends with its agent. The shims stay: they are orphans from then on, as
//! they are when it is killed alone.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{dup2_stdin, dup2_stdout};

use crate::container::{Cloned, Record, clone, receive_order, show_arguments};

pub(super) fn nursery() -> i32 {
    let orders = io::stdin();
    let Ok(ends) = ends_of_children() else { return 1 };
    loop {
        let mut watched = [orders.as_fd(), ends.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return 1,
        }
        let [ordered, ended] = watched.map(|fd| fd.any() == Some(true));
        if ended {
            reap(&ends);
        }
        if !ordered {
            continue;
        }
        match receive_order(orders.as_fd()) {
            Ok(None) => return 0,
            Ok(Some((directory, report))) => {
                if let Ok(Cloned::Child) = clone(0, None) {
                    drop(ends);
                    return shim(directory, report);
                }
                // Without a child nobody holds the report's other end, and the agent learns that there is no shim.
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
            Err(_) => return 1,
        }
    }
}

/// What becomes readable when a child ends.
fn ends_of_children() -> nix::Result<SignalFd> {
    let ends = SigSet::from(Signal::SIGCHLD);
    ends.thread_block()?;
    SignalFd::with_flags(&ends, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// Nobody asks how a shim ended; but what it has used is counted as its parent's when it is waited for.
fn reap(ends: &SignalFd) {
    while let Ok(Some(_)) = ends.read_signal() {}
    while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status != WaitStatus::StillAlive) {}
}

/// In the fork: becomes what `shim run DIR` says.
fn shim(directory: PathBuf, report: OwnedFd) -> i32 {
    let own = fs::OpenOptions::new().read(true).open("/dev/null").map_err(drop).and_then(|null| {
        dup2_stdin(&null).map_err(drop)?;
        dup2_stdout(&report).map_err(drop)?;
        // The agent hears the end of the report when no copy of it is left.
        drop(report);
        SigSet::from(Signal::SIGCHLD).thread_unblock().map_err(drop)
    });
    if own.is_err() {
        return 1;
    }
    // For whoever lists processes; a shim works without it, too.
    let program = std::env::args_os().next().unwrap_or_else(|| OsString::from("divvy"));
    let _ = show_arguments(&[program, "shim".into(), "run".into(), directory.clone().into_os_string()]);
    super::run::run(&Record::at(directory))
}
