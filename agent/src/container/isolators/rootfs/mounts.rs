//! Mounts, and what they do not allow.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::super::step_on;
use crate::container::{LaunchError, sys};

/// For what the container may write to.
pub(super) const HARMLESS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

pub(super) fn mount_at(
    source: Option<&Path>,
    target: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    options: Option<&str>,
) -> Result<(), LaunchError> {
    mount(source, target, kind, flags, options).map_err(step_on("mount", target))
}

pub(super) fn bind(source: &Path, target: &Path, flags: MsFlags) -> Result<(), LaunchError> {
    mount_at(Some(source), target, None, flags | MsFlags::MS_BIND, None)
}

pub(super) fn tmpfs(target: &Path, options: &str) -> Result<(), LaunchError> {
    mount_at(Some(Path::new("tmpfs")), target, Some("tmpfs"), HARMLESS, Some(options))
}

/// Makes a mount read-only, recursively where asked for.
pub(super) fn make_read_only(target: &Path, recursive: bool) -> Result<(), LaunchError> {
    restrict(target, libc::MOUNT_ATTR_RDONLY, MsFlags::MS_RDONLY, recursive)
}

/// Has a mount that can be written to give nobody rights or devices.
pub(super) fn make_harmless(target: &Path, recursive: bool) -> Result<(), LaunchError> {
    restrict(target, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV, HARMLESS, recursive)
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
    // A mount that is named by a descriptor is listed by its path.
    let target = if target.starts_with("/proc/self/fd") { fs::read_link(target) } else { Ok(target.into()) };
    let target = target.map_err(step_on("find", Path::new("/proc/self/fd")))?;
    let mountinfo = fs::read_to_string("/proc/self/mountinfo")
        .map_err(step_on("read", Path::new("/proc/self/mountinfo")))?;
    for line in mountinfo.lines() {
        let mut fields = line.split(' ').skip(4);
        let (Some(point), Some(options)) = (fields.next(), fields.next()) else { continue };
        let point = PathBuf::from(unescape(point));
        if point != target && !(recursive && point.starts_with(&target)) {
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
