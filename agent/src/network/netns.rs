//! Network namespaces: made, kept by a file, entered. Nothing here knows what a container is.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, statfs};

/// What `statfs` says of a file that stands for a namespace.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// Makes a namespace with its loopback up, and keeps it for as long as the file `pin`, which must not exist.
pub(crate) fn create(pin: &Path) -> io::Result<()> {
    File::create_new(pin)?;
    let pin = pin.to_path_buf();
    // A namespace is of a thread; this one ends, and nobody else was moved.
    let made = std::thread::Builder::new().name("netns".to_owned()).spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        furnish()?;
        Ok(mount(Some("/proc/thread-self/ns/net"), &pin, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
    })?;
    made.join().unwrap_or_else(|_| Err(io::Error::other("the thread that makes it has died")))
}

/// Whether a file keeps a namespace. After a reboot it is an empty file.
pub(crate) fn is_kept(pin: &Path) -> bool {
    statfs(pin).is_ok_and(|stat| stat.filesystem_type() == NSFS_MAGIC)
}

/// Lets go of a namespace. With the file go the mounts on it that other mount namespaces have copied.
pub(crate) fn remove(pin: &Path) -> io::Result<()> {
    if is_kept(pin) {
        umount2(pin, MntFlags::MNT_DETACH)?;
    }
    match fs::remove_file(pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Switches on loopback in the calling thread's namespace, which is new, and lets everybody there listen on low ports: nobody
/// else's service can be impersonated (Docker does the same).
pub(crate) fn furnish() -> io::Result<()> {
    // Kernels before 4.11 do not have this, and then only root may.
    let _ = fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    switch("lo", libc::IFF_UP | libc::IFF_RUNNING)
}

/// Removes a bridge of the calling thread's namespace, if there is one and nothing is connected to it.
pub(crate) fn remove_idle_bridge(name: &str) -> io::Result<()> {
    let ports = Path::new("/sys/class/net").join(name).join("brif");
    match fs::read_dir(ports).map(|mut ports| ports.next().is_none()) {
        Ok(true) => {}
        // There is no such bridge, or it is in use.
        Ok(false) | Err(_) => return Ok(()),
    }
    switch(name, 0)?;
    let name = CString::new(name)?;
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM)?;
    // SAFETY: the name is what SIOCBRDELBR takes, and outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCBRDELBR, name.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Of `linux/sockios.h`, which `libc` does not have.
const SIOCBRDELBR: libc::Ioctl = 0x89a1;

/// Sets the flags of an interface.
fn switch(interface: &str, flags: i32) -> io::Result<()> {
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM)?;
    // SAFETY: the structure is plain data for which all zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    #[allow(clippy::cast_possible_truncation, reason = "the flags are the lowest bits")]
    let flags = flags as libc::c_short;
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: the request is what SIOCSIFFLAGS takes, and outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The namespace that a file stands for, unless it is that of this process.
pub(crate) fn open_other(path: &Path) -> io::Result<Option<File>> {
    let (other, own) = (File::open(path)?, fs::metadata("/proc/self/ns/net")?);
    let metadata = other.metadata()?;
    Ok(((metadata.dev(), metadata.ino()) != (own.dev(), own.ino())).then_some(other))
}

/// Moves the calling thread into a namespace.
pub(crate) fn enter(namespace: impl AsFd) -> io::Result<()> {
    Ok(setns(namespace, CloneFlags::CLONE_NEWNET)?)
}

/// A socket of the calling thread's namespace, in which it stays, whoever has it. It does not block.
pub(crate) fn socket(family: i32, kind: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes three numbers.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
    // SAFETY: the kernel has just made this descriptor, which nobody else owns.
    if fd >= 0 { Ok(unsafe { OwnedFd::from_raw_fd(fd) }) } else { Err(io::Error::last_os_error()) }
}
