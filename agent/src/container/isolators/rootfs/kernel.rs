//! The file systems that the kernel makes: `/proc`, `/sys` and `/dev`, as OCI runtimes have them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use divvy_proto::Bytes;
use divvy_proto::container::DeviceAccess;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use super::super::{step, step_on};
use super::mounts::{HARMLESS, bind, make_harmless, make_read_only, mount_at, tmpfs};
use crate::container::LaunchError;

/// The paths that runc and crun make read-only and hide (their default specification).
const PROC_READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];
const PROC_HIDDEN: [&str; 10] = [
    "acpi",
    "asound",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
    "interrupts",
];

/// `null` is the container's `/dev/null`, or the host's.
pub(super) fn proc(proc: &Path, null: &Path) -> Result<(), LaunchError> {
    mount_at(Some(Path::new("proc")), proc, Some("proc"), HARMLESS | MsFlags::MS_NOEXEC, None)?;
    for name in PROC_READ_ONLY {
        let path = proc.join(name);
        if path.exists() {
            bind(&path, &path, MsFlags::empty())?;
            make_read_only(&path, false)?;
        }
    }
    PROC_HIDDEN.iter().try_for_each(|name| mask(&proc.join(name), null))
}

/// What Docker and podman hide of it.
const SYS_HIDDEN: [&str; 2] = ["firmware", "devices/virtual/powercap"];

/// That of the container's own network, where the kernel allows that, and nothing of what the host has mounted in it but the
/// container's cgroups.
pub(super) fn sys(sys: &Path, null: &Path) -> Result<(), LaunchError> {
    let flags = HARMLESS | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    match mount(Some("sysfs"), sys, Some("sysfs"), flags, None::<&str>) {
        // It is refused where the network is not that of the own user namespace.
        Err(Errno::EPERM) => bind(Path::new("/sys"), sys, MsFlags::empty())
            .and_then(|()| make_harmless(sys, false))
            .and_then(|()| make_read_only(sys, false))?,
        // It is there already, with all that it has on the host.
        Err(Errno::EBUSY) => return hide_in(sys, null),
        other => other.map_err(step_on("mount", sys))?,
    }
    let (host, own) = (Path::new("/sys/fs/cgroup"), sys.join("fs/cgroup"));
    if host.is_dir() && own.is_dir() {
        bind(host, &own, MsFlags::MS_REC)?;
        make_harmless(&own, true)?;
        make_read_only(&own, true)?;
    }
    hide_in(sys, null)
}

fn hide_in(sys: &Path, null: &Path) -> Result<(), LaunchError> {
    SYS_HIDDEN.iter().try_for_each(|name| mask(&sys.join(name), null))
}

/// Hides a file or directory, if there is one.
fn mask(path: &Path, null: &Path) -> Result<(), LaunchError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            tmpfs(path, "size=0,mode=755").and_then(|()| make_read_only(path, false))
        }
        Ok(_) => bind(null, path, MsFlags::empty()),
        Err(_) => Ok(()),
    }
}

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const LINKS: [(&str, &str); 5] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// The size of `/dev/shm` where nothing is said (Docker: 64 MiB).
const SHM: Bytes = Bytes::mib(64);

/// Devices are bound, not made: making them takes a right that an agent in a container of its own does not have.
pub(super) fn dev(dev: &Path, devices: &[DeviceAccess], shm: Option<Bytes>) -> Result<(), LaunchError> {
    mount_at(Some(Path::new("tmpfs")), dev, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=755,size=64k"))?;
    for name in DEVICES {
        device(&Path::new("/dev").join(name), &dev.join(name))?;
    }
    for (name, target) in LINKS {
        symlink(target, dev.join(name)).map_err(step_on("link", &dev.join(name)))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        fs::create_dir(dev.join(name)).map_err(step_on("create", &dev.join(name)))?;
    }
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let terminals = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    mount_at(Some(Path::new("devpts")), &dev.join("pts"), Some("devpts"), quiet, Some(terminals))?;
    let memory = format!("mode=1777,size={}", shm.unwrap_or(SHM).as_u64());
    let shm = dev.join("shm");
    mount_at(Some(Path::new("shm")), &shm, Some("tmpfs"), HARMLESS | MsFlags::MS_NOEXEC, Some(&memory))?;
    // Not every kernel has message queues, and hardly a program misses them.
    let queues =
        mount_at(Some(Path::new("mqueue")), &dev.join("mqueue"), Some("mqueue"), quiet | HARMLESS, None);
    let _ = queues;
    devices.iter().try_for_each(|access| asked(dev, access))?;
    make_read_only(dev, false)
}

fn device(host: &Path, own: &Path) -> Result<(), LaunchError> {
    fs::File::create(own).map_err(step_on("create", own))?;
    bind(host, own, MsFlags::empty())
}

/// A device that the task has asked for, at the path that it has on the host. What it may do there is the cgroup's business.
fn asked(dev: &Path, access: &DeviceAccess) -> Result<(), LaunchError> {
    let host = Path::new(&access.path);
    let below =
        host.strip_prefix("/dev").map_err(|_| step_on("show the device", host)("it is not below /dev"))?;
    let own = dev.join(below);
    if own.exists() {
        return Ok(());
    }
    if let Some(directory) = own.parent() {
        fs::create_dir_all(directory).map_err(step_on("create", directory))?;
    }
    device(host, &own).map_err(|error| step(format!("show the device {}", access.path))(error))
}
