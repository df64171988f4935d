//! The agent's end of its nursery, the process that forks its shims: started with the agent, and again when it has died.

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socketpair,
};
use nix::unistd::pipe2;

use super::command::command;
use super::plan::Record;

/// So many bytes the nursery's arguments are longer than they need be: a shim shows its own there.
const TITLE_ROOM: usize = 1024;

/// Orders shims.
#[derive(Debug)]
pub(crate) struct Nursery {
    /// The command that enters [`crate::shim::main`].
    shim: Vec<OsString>,
    running: Mutex<Running>,
}

#[derive(Debug)]
struct Running {
    orders: OwnedFd,
    process: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It ends by itself when `orders` is closed; this is for one that hangs, and it holds nothing that could be lost.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Nursery {
    /// Starts it, so that the first container does not wait for it.
    ///
    /// # Errors
    /// The shim's program cannot be executed.
    pub(crate) fn new(shim: Vec<OsString>) -> io::Result<Self> {
        let running = Mutex::new(start(&shim)?);
        Ok(Self { shim, running })
    }

    /// Has a shim started for a container, and returns the end of the pipe that carries its report. One that could not be
    /// started reports nothing.
    ///
    /// # Errors
    /// There is no nursery, and none can be started.
    pub(crate) fn shim(&self, record: &Record) -> io::Result<OwnedFd> {
        let (report, its_end) = pipe2(OFlag::O_CLOEXEC)?;
        // A poisoned lock means that a thread died between two whole states.
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match send(&running, record, &its_end) {
            Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN) => {
                *running = start(&self.shim)?;
                send(&running, record, &its_end)?;
            }
            sent => sent?,
        }
        Ok(report)
    }
}

fn start(shim: &[OsString]) -> io::Result<Running> {
    let (orders, its_end) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let mut command = command(shim, "nursery", " ".repeat(TITLE_ROOM))?;
    command.stdin(its_end).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Running { orders, process: command.spawn()? })
}

fn send(running: &Running, record: &Record, report: &OwnedFd) -> nix::Result<()> {
    let words = [IoSlice::new(record.path().as_os_str().as_bytes())];
    let report = [report.as_raw_fd()];
    let with = [ControlMessage::ScmRights(&report)];
    sendmsg::<UnixAddr>(running.orders.as_raw_fd(), &words, &with, MsgFlags::MSG_NOSIGNAL, None).map(drop)
}
