//! `shim exec`: runs a command inside a container that there is, and kills it when the agent hangs up.

use std::fs::File;
use std::io::{self, BufRead};
use std::os::fd::{AsFd, OwnedFd};

use divvy_proto::task::ExitStatus;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, setsid};

use super::child::{self, Child};
use crate::container::{ExecReport, ExecRequest, LaunchError, Plan, Record, enter};

pub(super) fn exec(record: &Record) -> i32 {
    let report = match start(record) {
        Ok(child) => match watch(&child) {
            Ok(status) => ExecReport::Ended(status),
            Err(errno) => ExecReport::Failed(failed("wait for the command")(errno)),
        },
        Err(error) => ExecReport::Failed(error),
    };
    super::tell(io::stderr(), &report);
    0
}

pub(super) fn failed<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> LaunchError {
    let what = what.to_owned();
    move |why| LaunchError::Step { what, why: why.to_string() }
}

fn start(record: &Record) -> Result<Child, LaunchError> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(failed("read the command"))?;
    let request: ExecRequest = serde_json::from_str(&line).map_err(failed("read the command"))?;
    let mut plan = super::plan(record)?;
    plan.userns.as_mut().map_or(Ok(()), |users| users.find(request.pid))?;
    let container = child::first_process(request.pid)?;
    // A pid namespace is entered by children only.
    setns(container.as_fd(), CloneFlags::CLONE_NEWPID)
        .map_err(failed("enter the container's pid namespace"))?;
    let redirect = || {
        let nowhere = File::open("/dev/null").map_err(failed("open /dev/null"))?;
        dup2_stdin(nowhere.as_fd())
            .and_then(|()| dup2_stderr(io::stdout().as_fd()))
            .map_err(failed("redirect stdin and stderr"))
    };
    child::spawn(&plan, 0, &request.argv, || go_inside(&plan, &container, redirect))
}

/// Puts the calling process into a container that there is, in a session of its own, and has it `redirect` its standard streams
/// there. The cgroup first: its files are not to be seen from inside.
pub(super) fn go_inside(
    plan: &Plan,
    container: &OwnedFd,
    redirect: impl FnOnce() -> Result<(), LaunchError>,
) -> Result<(), LaunchError> {
    plan.entrance.join().map_err(failed("join the container's cgroup"))?;
    setsid().map_err(failed("start a session"))?;
    let namespaces = CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS;
    setns(container.as_fd(), namespaces).map_err(failed("enter the container's namespaces"))?;
    redirect()?;
    enter(plan)
}

/// Waits for the end of the command, or for the agent to hang up, which ends the command with all of its process group.
fn watch(child: &Child) -> nix::Result<ExitStatus> {
    let stdin = io::stdin();
    loop {
        let mut watched = [
            PollFd::new(child.pidfd.as_fd(), PollFlags::POLLIN),
            PollFd::new(stdin.as_fd(), PollFlags::empty()),
        ];
        match poll(&mut watched, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
            Ok(_) => {}
        }
        let [ended, hung_up] = watched.map(|end| end.any() == Some(true));
        if hung_up && !ended {
            killpg(Pid::from_raw(child.pid.cast_signed()), Signal::SIGKILL)?;
        }
        return child::wait(child.pid);
    }
}
