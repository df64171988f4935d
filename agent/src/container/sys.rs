//! The kernel interfaces that neither `nix` nor `rustix` wrap, each in a small function.
//!
//! Not here: policy. Nothing in this file knows what a container is.

use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, pipe2};

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

/// The next packet of a socket, a path, and the descriptor that came with it; `None` at the end.
///
/// # Errors
/// `InvalidData` for a packet that is something else, and what the kernel says.
pub(crate) fn receive_order(socket: BorrowedFd<'_>) -> io::Result<Option<(PathBuf, OwnedFd)>> {
    const PATH_MAX: usize = 4096;
    let mut path = vec![0; PATH_MAX];
    let mut space = nix::cmsg_space!(RawFd);
    let (length, descriptors) = loop {
        let mut words = [IoSliceMut::new(&mut path)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut words, Some(&mut space), flags) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(message) => break (message.bytes, descriptors(message.cmsgs()?)),
        }
    };
    path.truncate(length);
    match (length, <[OwnedFd; 1]>::try_from(descriptors)) {
        (0, _) => Ok(None),
        (_, Ok([descriptor])) => Ok(Some((PathBuf::from(OsString::from_vec(path)), descriptor))),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn descriptors(messages: impl Iterator<Item = ControlMessageOwned>) -> Vec<OwnedFd> {
    let raw = messages.filter_map(|message| match message {
        ControlMessageOwned::ScmRights(raw) => Some(raw),
        _ => None,
    });
    // SAFETY: the kernel has just made these descriptors, which nobody else owns.
    raw.flatten().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }).collect()
}

/// Has this process listed (`ps`, `/proc/PID/cmdline`) with these arguments, as far as there is room where its own are: `prctl`
/// could put them elsewhere, but not for everybody. What asks for this process's arguments later finds these.
pub(crate) fn show_arguments(arguments: &[OsString]) -> io::Result<()> {
    const ARG_START: usize = 45; // after the program's name; proc(5) counts from one and from the pid
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let mut fields = after_the_name(&stat).skip(ARG_START).map(str::parse::<usize>);
    let (Some(Ok(start)), Some(Ok(end))) = (fields.next(), fields.next()) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let room = end.checked_sub(start).filter(|room| *room > 0).ok_or(io::ErrorKind::InvalidData)?;
    let bytes = arguments.iter().flat_map(|argument| argument.as_bytes().iter().copied().chain([0]));
    let mut shown: Vec<u8> = bytes.take(room - 1).collect();
    shown.resize(room, 0);
    // SAFETY: the kernel has put this process's arguments between the two addresses, on its stack, which it may write to; whoever
    // reads them does so as strings that end with a zero byte, and the last byte is one.
    unsafe { std::ptr::copy_nonoverlapping(shown.as_ptr(), start as *mut u8, room) };
    Ok(())
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

/// Puts a mount of a directory on top of it that shows its ids as the user namespace has them (Linux 5.12).
pub(crate) fn map_mount(directory: &Path, namespace: BorrowedFd<'_>) -> io::Result<()> {
    let clone = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    let path = CString::new(directory.as_os_str().as_bytes())?;
    // SAFETY: the path outlives the call.
    let tree = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), clone) };
    let tree = match RawFd::try_from(tree) {
        // SAFETY: the kernel has just made this descriptor, which nobody else owns.
        Ok(tree) if tree >= 0 => unsafe { OwnedFd::from_raw_fd(tree) },
        _ => return Err(io::Error::last_os_error()),
    };
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: namespace.as_raw_fd().unsigned_abs().into(),
    };
    // SAFETY: path and attributes outlive the call, and the size is theirs.
    let mapped = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    if mapped != 0 {
        return Err(io::Error::last_os_error());
    }
    const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
    // SAFETY: both paths outlive the call.
    let moved = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    if moved == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A new user namespace in which the ids from 0 to `count` are those from `first` on outside. The caller must have a single thread.
pub(crate) fn user_namespace(first: u32, count: u32) -> io::Result<OwnedFd> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    match clone(libc::CLONE_NEWUSER.unsigned_abs().into(), None)? {
        Cloned::Child => {
            drop(writer);
            // It is there so that the namespace is. When the parent hangs up, or is killed, the pipe ends.
            let _ = File::from(reader).read(&mut [0]);
            // SAFETY: the call only ends the process.
            unsafe { libc::_exit(0) }
        }
        Cloned::Parent(pid, _) => {
            drop(reader);
            let process = Path::new("/proc").join(pid.to_string());
            let map = format!("0 {first} {count}");
            let made = std::fs::write(process.join("uid_map"), &map)
                .and_then(|()| std::fs::write(process.join("gid_map"), &map))
                .and_then(|()| File::open(process.join("ns/user")));
            drop(writer);
            while waitpid(Pid::from_raw(pid.cast_signed()), None) == Err(Errno::EINTR) {}
            made.map(OwnedFd::from)
        }
    }
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

/// A process's capabilities as `capget` and `capset` of version 3 have them: the lower and the upper half.
#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityWords {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

const OWN_CAPABILITIES: CapabilityHeader = CapabilityHeader { version: 0x2008_0522, pid: 0 };

fn capabilities() -> io::Result<[CapabilityWords; 2]> {
    let mut header = OWN_CAPABILITIES;
    let mut data = [CapabilityWords { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: version 3 writes two data words, which is what there is, and both arguments outlive the call.
    match unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) } {
        0 => Ok(data),
        _ => Err(io::Error::last_os_error()),
    }
}

/// This process's permitted capabilities, a mask of capability numbers.
pub(crate) fn own_capabilities() -> io::Result<u64> {
    let [low, high] = capabilities()?;
    Ok(u64::from(high.permitted) << 32 | u64::from(low.permitted))
}

/// Limits this process's permitted, effective and inheritable capabilities to those in `keep`, a mask of capability numbers.
/// The inheritable set is always emptied.
pub(crate) fn limit_capabilities(keep: u64) -> io::Result<()> {
    let mut header = OWN_CAPABILITIES;
    let mut data = capabilities()?;
    for (word, kept) in data.iter_mut().zip([keep & 0xffff_ffff, keep >> 32]) {
        let kept = u32::try_from(kept).unwrap_or_default();
        word.permitted &= kept;
        word.effective &= kept;
        word.inheritable = 0;
    }
    // SAFETY: version 3 reads two data words, which is what there is, and both arguments outlive the call.
    match unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Limits each process that this one becomes; the kinds are `RLIMIT_…`.
pub(crate) fn set_rlimit(kind: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limits = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the limits outlive the call, and the kernel takes a null pointer for the old ones.
    let result =
        unsafe { libc::syscall(libc::SYS_prlimit64, 0, kind, &raw const limits, std::ptr::null_mut::<u8>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the kernel ask a program of extended BPF before a process in a cgroup (of version 2) uses or makes a device.
pub(crate) fn attach_device_program(group: &File, program: &[u64]) -> io::Result<()> {
    /// The parts of `union bpf_attr` that loading and attaching use.
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        program: u64,
        license: u64,
        log: [u64; 3],
    }
    const PROG_LOAD: libc::c_int = 5;
    const PROG_ATTACH: libc::c_int = 8;
    const CGROUP_DEVICE: u32 = 15;
    const ATTACH_CGROUP_DEVICE: u32 = 6;
    const ALLOW_MULTI: u32 = 2;
    let count = u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let license = c"Apache-2.0";
    let load = Load {
        kind: CGROUP_DEVICE,
        count,
        program: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log: [0; 3],
    };
    // SAFETY: program and license outlive the call, and the sizes are theirs.
    let loaded = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size_of_val(&load)) };
    let loaded = match RawFd::try_from(loaded) {
        // SAFETY: the kernel has just made this descriptor, which nobody else owns.
        Ok(loaded) if loaded >= 0 => unsafe { OwnedFd::from_raw_fd(loaded) },
        _ => return Err(io::Error::last_os_error()),
    };
    let target = group.as_raw_fd().unsigned_abs();
    let attach = [target, loaded.as_raw_fd().unsigned_abs(), ATTACH_CGROUP_DEVICE, ALLOW_MULTI];
    // SAFETY: the words outlive the call, and the size is theirs.
    let attached =
        unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, attach.as_ptr(), size_of_val(&attach)) };
    if attached == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the kernel run a program of classic BPF before each system call of this process and its descendants. The process must
/// have no_new_privs.
pub(crate) fn install_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies as many instructions as the program says, and writes to none of them.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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
            // It has been reaped, and its number is still somebody's session or process group.
            error if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
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
    Ok(after_the_name(&stat).nth(19).and_then(|field| field.parse().ok()))
}

/// The fields of `/proc/PID/stat` from the third on. The second, the program's name, is in brackets and may contain anything.
fn after_the_name(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace()
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
