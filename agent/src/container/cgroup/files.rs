//! Reading and writing the kernel's small files, and finding where they are mounted.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A file of a cgroup did not take or hold what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CgroupError {
    /// The kernel refused.
    #[error("cannot {what} {}: {source}", .path.display())]
    Refused { what: &'static str, path: PathBuf, source: io::Error },
    /// The controller's file is not there: the controller is not enabled.
    #[error("{} does not exist: is the controller enabled in the cgroups above?", .0.display())]
    Missing(PathBuf),
    /// The limit that was read back is not the one that was set.
    #[error("{} holds {read} after {written} was written", .path.display())]
    NotApplied { path: PathBuf, written: String, read: String },
    /// The file's text is not what the kernel documents.
    #[error("{} holds {read:?}, which is not a number", .path.display())]
    NotANumber { path: PathBuf, read: String },
    /// `cgroups-rs` refused.
    #[error("cannot set {what} of {}: {message}", .path.display())]
    Crate { what: &'static str, path: PathBuf, message: String },
}

pub(super) fn refused(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.to_path_buf();
    move |source| match source.kind() {
        ErrorKind::NotFound => CgroupError::Missing(path),
        _ => CgroupError::Refused { what, path, source },
    }
}

pub(super) fn read(path: &Path) -> Result<String, CgroupError> {
    let text = fs::read_to_string(path).map_err(refused("read", path))?;
    Ok(text.trim_end().to_owned())
}

pub(super) fn read_number(path: &Path) -> Result<u64, CgroupError> {
    let text = read(path)?;
    text.parse().map_err(|_| CgroupError::NotANumber { path: path.to_path_buf(), read: text })
}

/// The number behind `key` in a file of `key number` lines; 0 if an old kernel does not have the key.
pub(super) fn read_key(path: &Path, key: &str) -> Result<u64, CgroupError> {
    let text = read(path)?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    value.map_or(Ok(0), |value| {
        let number = value.trim().parse();
        number.map_err(|_| CgroupError::NotANumber { path: path.to_path_buf(), read: value.to_owned() })
    })
}

pub(super) fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    // Not fs::write: it would create a file where the controller is missing, or try to.
    let mut file = fs::OpenOptions::new().write(true).open(path).map_err(refused("open", path))?;
    io::Write::write_all(&mut file, value.as_bytes()).map_err(refused("write", path))
}

/// Fails unless the file holds `expected`.
pub(super) fn check(path: &Path, expected: &str) -> Result<(), CgroupError> {
    let read = read(path)?;
    if read == expected {
        return Ok(());
    }
    Err(CgroupError::NotApplied { path: path.to_path_buf(), written: expected.to_owned(), read })
}

pub(super) fn write_checked(path: &Path, value: &str) -> Result<(), CgroupError> {
    write(path, value)?;
    check(path, value)
}

/// A file that may not be there, because the kernel or the host does without it.
pub(super) fn read_optional(path: &Path) -> Option<String> {
    read(path).ok()
}

/// The sum of the numbers behind `key` in lines of `device key=number …` (v2) or `device key number` (v1).
pub(super) fn sum_of(text: &str, key: &str) -> u64 {
    let words = text.lines().flat_map(|line| {
        let words: Vec<&str> = line.split([' ', '=']).collect();
        words
            .windows(2)
            .filter_map(|pair| (pair.first() == Some(&key)).then(|| pair.last()?.parse().ok())?)
            .collect::<Vec<u64>>()
    });
    words.sum()
}

/// The processes in a cgroup directory, as this process sees them; none if it does not exist.
pub(super) fn processes(directory: &Path) -> Result<Vec<u32>, CgroupError> {
    match read(&directory.join("cgroup.procs")) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        Err(CgroupError::Missing(_)) => Ok(Vec::new()),
        // What reading says once the directory has been removed under an open file.
        Err(CgroupError::Refused { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

pub(super) fn children(directory: &Path) -> Result<Vec<String>, CgroupError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(refused("list", directory)(error)),
    };
    let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(directories.filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// How long an emptied cgroup may take until the kernel lets go of its last process.
const REMOVAL: Duration = Duration::from_secs(2);

/// Removes a cgroup directory and those that its processes made below it.
pub(super) fn remove(directory: &Path) -> Result<(), CgroupError> {
    for child in children(directory)? {
        remove(&directory.join(child))?;
    }
    let deadline = Instant::now() + REMOVAL;
    loop {
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            // A process that has been reaped may still hold its cgroup for an instant, and v1 has no event for the end of it.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(refused("remove", directory)(error)),
        }
    }
}

/// Makes a cgroup directory and those above it. Another agent may remove the last of what is shared at the same time: then
/// once more.
pub(super) fn create(directory: &Path) -> Result<(), CgroupError> {
    fs::create_dir_all(directory)
        .or_else(|error| match error.kind() {
            ErrorKind::NotFound => fs::create_dir_all(directory),
            _ => Err(error),
        })
        .map_err(refused("create", directory))
}

/// Removes `group` below `tree` and what is above it, as far as it is empty.
pub(super) fn prune(tree: &Path, group: &Path) {
    let above = group.ancestors().filter(|part| !part.as_os_str().is_empty());
    for part in above {
        if fs::remove_dir(tree.join(part)).is_err() {
            return;
        }
    }
}

/// Where cgroup filesystems are mounted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Mounts {
    /// The v2 tree.
    pub(super) unified: Option<PathBuf>,
    /// Each v1 controller's tree.
    pub(super) controllers: BTreeMap<String, PathBuf>,
}

pub(super) fn cgroup_mounts() -> Result<Mounts, CgroupError> {
    Ok(parse_mounts(&read(Path::new("/proc/self/mountinfo"))?))
}

fn parse_mounts(mountinfo: &str) -> Mounts {
    let mut mounts = Mounts::default();
    for line in mountinfo.lines() {
        let Some((place, filesystem)) = line.split_once(" - ") else { continue };
        let Some(point) = place.split(' ').nth(4).map(PathBuf::from) else { continue };
        let mut filesystem = filesystem.split(' ');
        match (filesystem.next(), filesystem.nth(1)) {
            (Some("cgroup2"), _) => mounts.unified = Some(point),
            (Some("cgroup"), Some(options)) => {
                for controller in options.split(',') {
                    mounts.controllers.insert(controller.to_owned(), point.clone());
                }
            }
            _ => {}
        }
    }
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_is_summed_over_devices_in_both_versions() {
        let v2 =
            "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=5 wbytes=6 rios=1 wios=1\n";
        let v1 = "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\n8:16 Read 5\nTotal 35\n";
        let seen = [sum_of(v2, "rbytes"), sum_of(v2, "wbytes"), sum_of(v1, "Read"), sum_of(v1, "Write")];
        assert_eq!(seen, [15, 26, 15, 20]);
    }

    #[test]
    fn mounts_of_both_versions_are_found_with_or_without_optional_fields() {
        let mounts = parse_mounts(
            "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
             32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw",
        );
        let both = PathBuf::from("/sys/fs/cgroup/cpu,cpuacct");
        let controllers = ["cpu", "cpuacct", "rw"].map(|name| (name.to_owned(), both.clone()));
        let unified = Some(PathBuf::from("/sys/fs/cgroup/unified"));
        assert_eq!(mounts, Mounts { unified, controllers: BTreeMap::from(controllers) });
    }
}
