//! The floor: what the kernel takes, with nobody in between.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use nix::sys::wait::{WaitStatus, waitpid};

use crate::COMMAND;
use crate::subject::{Parallel, Sample, Subject, on_threads};

/// Starts a command and waits for its end.
pub fn run(command: &mut Command) -> Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

fn timed(once: impl FnOnce() -> Result<()>) -> Result<Sample> {
    let begun = Instant::now();
    once()?;
    Ok(Sample { running: None, ended: begun.elapsed() })
}

/// A process and nothing else, by the standard library (`posix_spawn`).
pub struct ForkExec;

fn fork_exec() -> Result<()> {
    run(Command::new(COMMAND[0]).args(COMMAND.get(1..).unwrap_or_default()))
}

impl Subject for ForkExec {
    fn name(&self) -> String {
        "floor: fork + exec".to_owned()
    }

    fn sample(&mut self) -> Result<Sample> {
        timed(fork_exec)
    }

    fn parallel(&mut self, count: usize, width: usize) -> Result<Parallel> {
        on_threads(count, width, fork_exec)
    }
}

/// No process: one small file made durable, as an agent's checkpoint and a shim's exit status are. It tells the disk's part of
/// a launch.
pub struct DurableWrite(pub tempfile::TempDir);

impl DurableWrite {
    fn write(&self) -> Result<()> {
        let thread = format!("{:?}", std::thread::current().id());
        let (draft, path) = (self.0.path().join(format!("{thread}.new")), self.0.path().join(thread));
        let mut file = File::create(&draft)?;
        file.write_all(&[b'x'; 1024])?;
        file.sync_all()?;
        fs::rename(&draft, &path)?;
        Ok(File::open(self.0.path())?.sync_all()?)
    }
}

impl Subject for DurableWrite {
    fn name(&self) -> String {
        "disk: 1 KiB written, file and directory synced".to_owned()
    }

    fn sample(&mut self) -> Result<Sample> {
        timed(|| self.write())
    }

    fn parallel(&mut self, count: usize, width: usize) -> Result<Parallel> {
        on_threads(count, width, || self.write())
    }
}

/// By util-linux: it forks twice, and is a program itself.
pub struct Unshare;

fn unshare() -> Result<()> {
    run(Command::new("unshare").args(["-mpiu", "--mount-proc", "--fork"]).args(COMMAND))
}

impl Subject for Unshare {
    fn name(&self) -> String {
        "floor: unshare -mpiu --mount-proc".to_owned()
    }

    fn sample(&mut self) -> Result<Sample> {
        timed(unshare)
    }

    fn parallel(&mut self, count: usize, width: usize) -> Result<Parallel> {
        on_threads(count, width, unshare)
    }
}

/// A process in new mount, pid, ipc and uts namespaces with its own /proc: the least that could be called a container.
pub struct Clone;

impl Subject for Clone {
    fn name(&self) -> String {
        "floor: clone (mnt, pid, ipc, uts) + /proc".to_owned()
    }

    fn sample(&mut self) -> Result<Sample> {
        timed(clone_exec)
    }

    fn parallel(&mut self, count: usize, width: usize) -> Result<Parallel> {
        on_threads(count, width, clone_exec)
    }
}

fn clone_exec() -> Result<()> {
    let argv: Vec<CString> = COMMAND.iter().map(|&word| CString::new(word)).collect::<Result<_, _>>()?;
    let mut stack = vec![0; 256 << 10];
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    let child = Box::new(|| match in_child(&argv) {
        Ok(never) => match never {},
        Err(_) => 127,
    });
    // SAFETY: the memory is a copy (no CLONE_VM) and so is the stack; the child only makes system calls whose arguments are
    // ready or lie on the stack, then executes or ends.
    let pid = unsafe { nix::sched::clone(child, &mut stack, flags, Some(libc::SIGCHLD)) }.context("clone")?;
    match waitpid(pid, None).context("wait")? {
        WaitStatus::Exited(_, 0) => Ok(()),
        other => bail!("a cloned process has ended with {other:?}"),
    }
}

fn in_child(argv: &[CString]) -> nix::Result<Infallible> {
    let nothing: Option<&str> = None;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), nothing)?;
    let program = argv.first().ok_or(nix::Error::EINVAL)?;
    // `execv` of nix would allocate the list of pointers.
    let pointers =
        [program.as_ptr(), argv.get(1).map_or(std::ptr::null(), |word| word.as_ptr()), std::ptr::null()];
    // SAFETY: both are terminated by a null, and what they point to lives on.
    unsafe { libc::execv(program.as_ptr(), pointers.as_ptr()) };
    Err(nix::Error::last())
}
