//! The kernel interfaces that neither `nix` nor `rustix` wrap, each in a small function.
//!
//! Not here: policy. Nothing in this file knows what a container is.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// `CLONE_INTO_CGROUP` of `linux/sched.h`, which `libc` does not have for all targets.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A process made by [`clone`].
pub(crate) enum Cloned {
    /// In the parent: the child's pid as the parent sees it, and its pidfd.
    Parent(u32, OwnedFd),
    /// In the child.
    Child,
}

/// `fork` into new namespaces and, on cgroup v2, into a cgroup. The caller must have a single thread; then the child may do
/// whatever the parent may.
pub(crate) fn clone(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain data for which all zeroes are valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces | libc::CLONE_PIDFD.unsigned_abs() as u64;
    args.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD.unsigned_abs().into();
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd().unsigned_abs().into();
    }
    // SAFETY: without CLONE_VM the child has its own copy of everything, as after fork; args and pidfd outlive the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of_val(&args)) };
    match u32::try_from(pid) {
        Err(_) => Err(io::Error::last_os_error()),
        Ok(0) => Ok(Cloned::Child),
        // SAFETY: the kernel has just put a new descriptor there, which nobody else owns.
        Ok(pid) => Ok(Cloned::Parent(pid, unsafe { OwnedFd::from_raw_fd(pidfd) })),
    }
}

/// Adds attributes (`MOUNT_ATTR_…`) to a mount and, where asked for, to all below it (Linux 5.12).
pub(crate) fn add_mount_attributes(path: &CStr, added: u64, recursive: bool) -> io::Result<()> {
    let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
    let attributes = libc::mount_attr { attr_set: added, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: path and attributes outlive the call, and the size is theirs.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has all descriptors from `first` on closed by the next `execve`.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: the call takes three numbers and touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `prctl` with one number.
pub(crate) fn prctl(option: i32, argument: u64) -> io::Result<()> {
    // SAFETY: only options that take a number are passed, and no memory is touched.
    let result = unsafe { libc::prctl(option, argument, 0, 0, 0) };
    if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Limits this process's permitted, effective and inheritable capabilities to those in `keep`, a mask of capability numbers.
/// The inheritable set is always emptied.
pub(crate) fn limit_capabilities(keep: u64) -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: version 3 reads and writes two data words, which is what there is.
    if unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    for (word, kept) in data.iter_mut().zip([keep & 0xffff_ffff, keep >> 32]) {
        let kept = u32::try_from(kept).unwrap_or_default();
        word.permitted &= kept;
        word.effective &= kept;
        word.inheritable = 0;
    }
    // SAFETY: as above; the kernel only reads.
    if unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Gives every signal its default action again and unblocks all of them. By the kernel's own call: that of libc leaves out
/// the two signals that it keeps for itself, and a parent may have had those ignored.
pub(crate) fn default_signals() {
    const SIGNALS: libc::c_int = 64;
    const SET_SIZE: usize = 8;
    let default = [0_u64; 4]; // the kernel's struct sigaction: SIG_DFL, no flags, no restorer, an empty mask
    for signal in 1..=SIGNALS {
        // SAFETY: the action is as large as the kernel's and outlives the call; where it refuses (SIGKILL), nothing changes.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                SET_SIZE,
            )
        };
    }
    let none = 0_u64;
    // SAFETY: the set has the size that is stated, and outlives the call.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            std::ptr::null_mut::<u64>(),
            SET_SIZE,
        )
    };
}

/// Sends a signal to the process that a pidfd stands for. A process that has ended is not an error.
pub(crate) fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the call takes numbers and a null pointer, which it allows.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    match result {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(error),
        },
    }
}

/// A pidfd of a process, or `None` if there is no such process.
pub(crate) fn pidfd_open(pid: u32) -> io::Result<Option<OwnedFd>> {
    // SAFETY: the call takes two numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just made this descriptor, which nobody else owns.
        Ok(fd) if fd >= 0 => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
            error => Err(error),
        },
    }
}

/// Bytes per page of memory.
pub(crate) fn page_size() -> u64 {
    // SAFETY: the call takes a number and touches no memory.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// When a process started, in clock ticks since boot; `None` if there is none. With its pid it names a process for as long as
/// the machine runs.
pub(crate) fn start_time(pid: u32) -> io::Result<Option<u64>> {
    let stat = match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // The process ended between the opening and the reading.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        other => other?,
    };
    // The second field, the program's name, is in brackets and may contain anything.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace());
    Ok(fields.and_then(|mut fields| fields.nth(19)?.parse().ok()))
}

/// Waits for the end of the process that a pidfd stands for; false if it did not come in time.
pub(crate) fn ended_within(pidfd: &OwnedFd, patience: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout) {
            Err(Errno::EINTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}
