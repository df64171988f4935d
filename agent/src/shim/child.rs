//! What a process does between clone and exec, and how its parent learns whether it got there.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use divvy_proto::task::ExitStatus;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, execve, pipe2};

use crate::container::{Cloned, ContainerSpec, LaunchError, cgroups, clone, prctl};
use crate::container::{Plan, pidfd_open};

/// A child whose program has been executed.
pub(super) struct Child {
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
}

/// Said by the child when nothing but `execve` is left to do.
const READY: u8 = b'.';

/// Clones a child, has it `confine` itself and execute `argv`, and returns when it has. The channel between the two is closed
/// by a successful `execve`.
pub(super) fn spawn(
    plan: &Plan,
    namespaces: u64,
    argv: &[String],
    confine: impl FnOnce() -> Result<(), LaunchError>,
) -> Result<Child, LaunchError> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(step("make a pipe"))?;
    let cgroup = match &plan.entrance.clone_into {
        Some(directory) => {
            Some(File::open(directory).map_err(step(format!("open {}", directory.display())))?)
        }
        None => None,
    };
    match clone(namespaces, cgroup.as_ref().map(AsFd::as_fd)).map_err(step("clone into new namespaces"))? {
        Cloned::Child => {
            drop(reader);
            let error = become_program(plan, argv, &writer, confine);
            super::tell(File::from(writer), &error);
            // Not `exit`: what the parent has registered to be done at its end is not this process's business.
            // SAFETY: the call only ends the process.
            unsafe { libc::_exit(127) }
        }
        Cloned::Parent(pid, pidfd) => {
            drop(writer);
            let child = Child { pid, pidfd };
            started(plan, argv, reader).map(|()| child).inspect_err(|_| {
                let _ = wait(pid);
            })
        }
    }
}

fn step<E: std::fmt::Display>(what: impl Into<String>) -> impl FnOnce(E) -> LaunchError {
    let what = what.into();
    move |why| LaunchError::Step { what, why: why.to_string() }
}

/// Reads what the child has to say until it has executed its program or is dead.
fn started(plan: &Plan, argv: &[String], reader: OwnedFd) -> Result<(), LaunchError> {
    let mut words = Vec::new();
    File::from(reader).read_to_end(&mut words).map_err(step("hear from the container's first process"))?;
    let ready = words.first() == Some(&READY);
    let error = if ready { words.get(1..).unwrap_or_default() } else { &words };
    match (ready, error) {
        (true, []) => Ok(()),
        (false, []) => Err(died(plan, argv)),
        (_, error) => {
            Err(serde_json::from_slice(error).unwrap_or_else(step("hear from the container's first process")))
        }
    }
}

/// The child is dead and could not say why.
fn died(plan: &Plan, argv: &[String]) -> LaunchError {
    let oom = cgroups().ok().and_then(|cgroups| cgroups.oom(&plan.group).ok().flatten());
    match oom {
        Some(_) => LaunchError::MemoryTooLow {
            limit: plan.spec.memory,
            program: argv.first().cloned().unwrap_or_default(),
        },
        None => step("set up the container")("its first process was killed"),
    }
}

/// In the child. Returns only if something failed.
fn become_program(
    plan: &Plan,
    argv: &[String],
    channel: &OwnedFd,
    confine: impl FnOnce() -> Result<(), LaunchError>,
) -> LaunchError {
    // Until execve this process is the agent's binary. No root inside the container may get at it through /proc/PID/exe
    // (CVE-2019-5736).
    let hidden = prctl(libc::PR_SET_DUMPABLE, 0).map_err(step("hide from the container"));
    let failed = hidden.and_then(|()| confine()).and_then(|()| die_with_parent(channel)).and_then(|()| {
        let written = channel.try_clone().and_then(|channel| File::from(channel).write_all(&[READY]));
        written.map_err(step("speak to the shim"))
    });
    match failed {
        Err(error) => error,
        Ok(()) => execute(&plan.spec, argv),
    }
}

/// If the shim is killed, nobody watches any more: the kernel then kills this process, and with it the container. This comes
/// after the change of user, which would undo it.
fn die_with_parent(channel: &OwnedFd) -> Result<(), LaunchError> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL.unsigned_abs().into())
        .map_err(step("tie the container to its shim"))?;
    // The shim may have died before that: then nobody holds the other end of the channel.
    let mut end = [PollFd::new(channel.as_fd(), PollFlags::empty())];
    match poll(&mut end, PollTimeout::ZERO) {
        Ok(0) => Ok(()),
        _ => Err(step("tie the container to its shim")("the shim has been killed")),
    }
}

/// What `execvp` searches where there is no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Executes a program, and says why if that fails.
fn execute(spec: &ContainerSpec, argv: &[String]) -> LaunchError {
    let program = argv.first().map_or("", String::as_str);
    let missing = std::cell::Cell::new(false);
    let error =
        |why: String| LaunchError::Program { program: program.to_owned(), why, missing: missing.get() };
    let arguments: Result<Vec<_>, _> = argv.iter().map(|text| CString::new(text.as_str())).collect();
    let variables = spec.env.iter().map(|(name, value)| CString::new(format!("{name}={value}")));
    let (Ok(arguments), Ok(variables)) = (arguments, variables.collect::<Result<Vec<_>, _>>()) else {
        return error("an argument contains a zero byte".to_owned());
    };
    if program.contains('/') {
        let errno = exec(program, &arguments, &variables);
        missing.set(errno == Errno::ENOENT && !Path::new(program).exists());
        return error(why(spec, program, errno));
    }
    let path = spec.env.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    let mut found = None;
    for directory in path.split(':').filter(|directory| !directory.is_empty()) {
        let candidate = format!("{directory}/{program}");
        match exec(&candidate, &arguments, &variables) {
            Errno::ENOENT | Errno::ENOTDIR if !Path::new(&candidate).exists() => {}
            errno => found = found.or(Some((candidate, errno))),
        }
    }
    match found {
        Some((candidate, errno)) => error(why(spec, &candidate, errno)),
        None => {
            missing.set(true);
            error(format!("no such program in the container's PATH, {path}"))
        }
    }
}

/// Returns only if it failed.
fn exec(program: &str, arguments: &[CString], variables: &[CString]) -> Errno {
    match CString::new(program).map(|program| execve(&program, arguments, variables)) {
        Ok(Err(errno)) => errno,
        _ => Errno::EINVAL,
    }
}

/// The errno of `execve` in words that name what is to be mended.
fn why(spec: &ContainerSpec, program: &str, errno: Errno) -> String {
    let user = &spec.user;
    match errno {
        Errno::ENOENT if Path::new(program).exists() => {
            format!("{program} exists, but the interpreter or loader that it names does not")
        }
        Errno::ENOENT => format!("{program}: no such file in the container"),
        Errno::EACCES => match fs::metadata(program) {
            Ok(metadata) if metadata.is_dir() => format!("{program} is a directory"),
            Ok(_) => format!("{program} is not executable by user {user}"),
            Err(_) => format!("user {user} may not enter a directory on the way to {program}"),
        },
        Errno::ENOEXEC => {
            format!("{program} is neither a binary for this machine nor a script that begins with #!")
        }
        Errno::E2BIG => "its arguments and environment are longer than the kernel takes".to_owned(),
        errno => format!("{program}: {}", errno.desc()),
    }
}

/// Reaps a child and says how it ended.
pub(super) fn wait(pid: u32) -> nix::Result<ExitStatus> {
    let pid = Pid::from_raw(pid.cast_signed());
    loop {
        match waitpid(pid, None) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(ExitStatus::Code(code)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(ExitStatus::Signal(signal as i32)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// A pidfd of a container's first process.
pub(super) fn first_process(pid: u32) -> Result<OwnedFd, LaunchError> {
    let opened = pidfd_open(pid).map_err(step("find the container's first process"))?;
    opened.ok_or_else(|| step("find the container's first process")("it has ended"))
}
