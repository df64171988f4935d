//! What the container sees as its files: the host's root, read-only with everything mounted in it, except for
//! - its sandbox: writable, at the path that it has on the host;
//! - `/tmp` and `/var/tmp`: its own, on disk, gone with the container;
//! - `/proc`: that of its own pid namespace, without what the OCI runtimes hide;
//! - `/dev`: the harmless devices, own pseudo-terminals, own shared memory;
//! - its volumes: each a directory of the host, at the path that the task wants;
//! - `/run` and the agents' directories: empty.
//!
//! All mounts are made in the container's own mount namespace, so the host never has one to remove.

use std::ffi::CString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, pivot_root};
use serde::{Deserialize, Serialize};

use super::{Host, Isolator, step, step_on};
use crate::container::plan::{Plan, Record};
use crate::container::sys;
use crate::container::{LaunchError, VolumeBind};

/// Where the container's files come from.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Layout {
    /// An empty directory, to become the container's root.
    root: PathBuf,
    /// Its `/tmp`.
    tmp: PathBuf,
    /// The sandbox, without symbolic links.
    sandbox: PathBuf,
    /// Directories that it finds empty.
    hidden: Vec<PathBuf>,
    /// A file below `/run` that must stay: what `/etc/resolv.conf` points to.
    resolver: Option<PathBuf>,
    /// Volumes, their directories without symbolic links.
    #[serde(default)]
    volumes: Vec<VolumeBind>,
}

pub(super) struct Rootfs;

impl Isolator for Rootfs {
    fn prepare(&self, host: &Host, record: &Record, plan: &mut Plan) -> Result<(), LaunchError> {
        for directory in [record.root(), record.tmp()] {
            fs::create_dir(&directory).map_err(step_on("create", &directory))?;
        }
        let tmp = record.tmp();
        fs::set_permissions(&tmp, fs::Permissions::from_mode(0o1777))
            .map_err(step_on("open to all", &tmp))?;
        let sandbox =
            fs::canonicalize(&plan.spec.sandbox).map_err(step_on("find the sandbox", &plan.spec.sandbox))?;
        let work_dir = host.config.state_dir.parent().unwrap_or(&host.config.state_dir);
        let hidden = host.config.hidden.iter().map(PathBuf::as_path).chain([work_dir]);
        // The shallow ones first: what lies in a hidden directory needs no hiding.
        let mut hidden: Vec<_> = hidden.filter_map(|path| fs::canonicalize(path).ok()).collect();
        hidden.sort();
        let resolver = fs::canonicalize("/etc/resolv.conf").ok().filter(|path| path.starts_with("/run"));
        let volumes = plan.spec.volumes.iter().map(found).collect::<Result<_, _>>()?;
        plan.layout = Layout { root: record.root(), tmp, sandbox, hidden, resolver, volumes };
        Ok(())
    }

    fn isolate(&self, plan: &Plan) -> Result<(), LaunchError> {
        let layout = &plan.layout;
        let inside = |path: &str| join(&layout.root, Path::new(path));
        bind(Path::new("/"), &layout.root, MsFlags::MS_REC)?;
        make_read_only(&layout.root, true)?;
        proc(&inside("/proc"), &inside("/dev/null"))?;
        dev(&inside("/dev"))?;
        temporary(layout)?;
        let mut sealed = hide(layout)?;
        sealed.extend(run(layout)?);
        sandbox(layout)?;
        layout.volumes.iter().try_for_each(|bind| volume(layout, bind))?;
        sealed.iter().try_for_each(|directory| make_read_only(directory, false))?;
        pivot(&layout.root)
    }
}

const HARMLESS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

fn join(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn mount_at(
    source: Option<&Path>,
    target: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    options: Option<&str>,
) -> Result<(), LaunchError> {
    mount(source, target, kind, flags, options).map_err(step_on("mount", target))
}

fn bind(source: &Path, target: &Path, flags: MsFlags) -> Result<(), LaunchError> {
    mount_at(Some(source), target, None, flags | MsFlags::MS_BIND, None)
}

fn tmpfs(target: &Path, options: &str) -> Result<(), LaunchError> {
    mount_at(Some(Path::new("tmpfs")), target, Some("tmpfs"), HARMLESS, Some(options))
}

/// Makes a mount read-only, recursively where asked for.
fn make_read_only(target: &Path, recursive: bool) -> Result<(), LaunchError> {
    restrict(target, libc::MOUNT_ATTR_RDONLY, MsFlags::MS_RDONLY, recursive)
}

/// Has a mount that can be written to give nobody rights or devices.
fn make_harmless(target: &Path) -> Result<(), LaunchError> {
    restrict(target, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV, HARMLESS, false)
}

/// Adds to what a mount does not allow. Kernels before 5.12 are asked in the old words, mount by mount.
fn restrict(target: &Path, attributes: u64, flags: MsFlags, recursive: bool) -> Result<(), LaunchError> {
    let path = CString::new(target.as_os_str().as_bytes()).map_err(step_on("mount", target))?;
    match sys::add_mount_attributes(&path, attributes, recursive) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => remount(target, flags, recursive),
        other => other.map_err(step_on("restrict", target)),
    }
}

fn remount(target: &Path, added: MsFlags, recursive: bool) -> Result<(), LaunchError> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").map_err(step("read /proc/self/mountinfo"))?;
    for line in mountinfo.lines() {
        let mut fields = line.split(' ').skip(4);
        let (Some(point), Some(options)) = (fields.next(), fields.next()) else { continue };
        let point = PathBuf::from(unescape(point));
        if point != target && !(recursive && point.starts_with(target)) {
            continue;
        }
        let flags = options.split(',').map(flag).collect::<MsFlags>();
        mount_at(None, &point, None, flags | added | MsFlags::MS_REMOUNT | MsFlags::MS_BIND, None)?;
    }
    Ok(())
}

/// A remount drops the flags that it does not repeat.
fn flag(option: &str) -> MsFlags {
    match option {
        "ro" => MsFlags::MS_RDONLY,
        "nosuid" => MsFlags::MS_NOSUID,
        "nodev" => MsFlags::MS_NODEV,
        "noexec" => MsFlags::MS_NOEXEC,
        "noatime" => MsFlags::MS_NOATIME,
        "nodiratime" => MsFlags::MS_NODIRATIME,
        "relatime" => MsFlags::MS_RELATIME,
        _ => MsFlags::empty(),
    }
}

/// Mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

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

fn proc(proc: &Path, null: &Path) -> Result<(), LaunchError> {
    mount_at(Some(Path::new("proc")), proc, Some("proc"), HARMLESS | MsFlags::MS_NOEXEC, None)?;
    for name in PROC_READ_ONLY {
        let path = proc.join(name);
        if path.exists() {
            bind(&path, &path, MsFlags::empty())?;
            make_read_only(&path, false)?;
        }
    }
    for name in PROC_HIDDEN {
        let path = proc.join(name);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {
                tmpfs(&path, "size=0,mode=755").and_then(|()| make_read_only(&path, false))?;
            }
            Ok(_) => bind(null, &path, MsFlags::empty())?,
            Err(_) => {}
        }
    }
    Ok(())
}

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const LINKS: [(&str, &str); 5] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Devices are bound, not made: making them takes a right that an agent in a container of its own does not have.
fn dev(dev: &Path) -> Result<(), LaunchError> {
    mount_at(Some(Path::new("tmpfs")), dev, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=755,size=64k"))?;
    for name in DEVICES {
        let device = dev.join(name);
        fs::File::create(&device).map_err(step_on("create", &device))?;
        bind(&Path::new("/dev").join(name), &device, MsFlags::empty())?;
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
    tmpfs(&dev.join("shm"), "mode=1777")?;
    // Not every kernel has message queues, and hardly a program misses them.
    let queues =
        mount_at(Some(Path::new("mqueue")), &dev.join("mqueue"), Some("mqueue"), quiet | HARMLESS, None);
    let _ = queues;
    make_read_only(dev, false)
}

/// `/tmp` and `/var/tmp`. `/var/tmp` is left alone where it is a link.
fn temporary(layout: &Layout) -> Result<(), LaunchError> {
    for path in ["/tmp", "/var/tmp"] {
        let target = join(&layout.root, Path::new(path));
        if fs::symlink_metadata(&target).is_ok_and(|metadata| metadata.is_dir()) {
            bind(&layout.tmp, &target, MsFlags::empty())?;
            make_harmless(&target)?;
        }
    }
    Ok(())
}

/// Covers what is hidden, and answers with what must be made read-only once the sandbox's place in it exists.
fn hide(layout: &Layout) -> Result<Vec<PathBuf>, LaunchError> {
    let mut covered = Vec::new();
    for path in &layout.hidden {
        let target = join(&layout.root, path);
        // It is not there if it lies in something that has been replaced or hidden already.
        if target.is_dir() {
            tmpfs(&target, "mode=755,size=1m")?;
            covered.push(target);
        }
    }
    Ok(covered)
}

/// The host's `/run` is full of sockets of its services, and read-only does not keep anyone from connecting.
fn run(layout: &Layout) -> Result<Option<PathBuf>, LaunchError> {
    let target = join(&layout.root, Path::new("/run"));
    if !target.is_dir() {
        return Ok(None);
    }
    tmpfs(&target, "mode=755,size=1m")?;
    if let Some(resolver) = &layout.resolver {
        let place = join(&layout.root, resolver);
        place.parent().map_or(Ok(()), fs::create_dir_all).map_err(step_on("create", &place))?;
        fs::File::create(&place).map_err(step_on("create", &place))?;
        bind(resolver, &place, MsFlags::empty())?;
        make_read_only(&place, false)?;
    }
    Ok(Some(target))
}

fn sandbox(layout: &Layout) -> Result<(), LaunchError> {
    let target = join(&layout.root, &layout.sandbox);
    fs::create_dir_all(&target).map_err(step_on("create", &target))?;
    bind(&layout.sandbox, &target, MsFlags::empty())?;
    make_harmless(&target)
}

fn no_volume(bind: &VolumeBind, why: impl Into<String>) -> LaunchError {
    LaunchError::Volume { id: bind.id.clone(), path: bind.target.clone(), why: why.into() }
}

/// The volume with its directory as the host knows it.
fn found(bind: &VolumeBind) -> Result<VolumeBind, LaunchError> {
    let source = fs::canonicalize(&bind.source).map_err(|error| no_volume(bind, error.to_string()))?;
    Ok(VolumeBind { source, ..bind.clone() })
}

fn volume(layout: &Layout, bind: &VolumeBind) -> Result<(), LaunchError> {
    let target = place(layout, bind)?;
    self::bind(&bind.source, &target, MsFlags::empty())?;
    make_harmless(&target)?;
    if bind.read_only { make_read_only(&target, false) } else { Ok(()) }
}

/// The directory at which a volume is mounted. What was fetched into the sandbox may hold symbolic links, and here they would
/// still lead to the host's files: none is followed.
fn place(layout: &Layout, bind: &VolumeBind) -> Result<PathBuf, LaunchError> {
    let own = [layout.sandbox.as_path(), Path::new("/tmp"), Path::new("/var/tmp"), Path::new("/run")];
    let may_be_made = own.iter().any(|directory| bind.target.starts_with(directory));
    let mut at = layout.root.clone();
    for part in bind.target.components().skip(1) {
        let Component::Normal(name) = part else {
            return Err(no_volume(bind, "the path is not plain"));
        };
        at.push(name);
        match fs::symlink_metadata(&at) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(metadata) if metadata.is_symlink() => {
                return Err(no_volume(bind, "a part of the path is a symbolic link"));
            }
            Ok(_) => return Err(no_volume(bind, "a part of the path is not a directory")),
            Err(error) if error.kind() == ErrorKind::NotFound && may_be_made => {
                fs::create_dir(&at).map_err(|error| no_volume(bind, error.to_string()))?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let why = "there is no such directory on this machine; below the sandbox and /tmp it is made";
                return Err(no_volume(bind, why));
            }
            Err(error) => return Err(no_volume(bind, error.to_string())),
        }
    }
    Ok(at)
}

/// Makes `root` the root, and forgets the old one.
fn pivot(root: &Path) -> Result<(), LaunchError> {
    chdir(root).map_err(step_on("enter", root))?;
    pivot_root(".", ".").map_err(|errno| match errno {
        nix::errno::Errno::EINVAL => step("change the root")(
            "the host's root is an initial ramdisk; it must be left by switch_root first",
        ),
        errno => step("change the root")(errno.desc()),
    })?;
    umount2(".", MntFlags::MNT_DETACH).map_err(step("let go of the old root"))?;
    chdir("/").map_err(step("enter the new root"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_way_of_restricting_keeps_the_flags_of_a_mount() {
        let flags = "rw,nosuid,nodev,relatime".split(',').map(flag).collect::<MsFlags>();
        assert_eq!(flags, MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_RELATIME);
        assert_eq!(unescape("/mnt/a\\040b"), "/mnt/a b");
    }
}
