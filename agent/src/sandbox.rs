//! Sandboxes: one directory for each task, kept after its end so that its logs can be read, and removed when it is old: the
//! sooner, the fuller the disk.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use divvy_proto::ids::{FrameworkId, TaskId};
use divvy_proto::time::{Timestamp, millis};
use tracing::{info, warn};

use crate::supervisor::TaskKey;

/// What is to stay free of the disk: from here on no sandbox outlives its task (Mesos: `gc_disk_headroom`, 0.1).
const HEADROOM_PERMILLE: u32 = 100;

/// The directory of all sandboxes: `<framework_id>/<task_id>` below it.
#[derive(Debug, Clone)]
pub(crate) struct Sandboxes {
    root: PathBuf,
}

impl Sandboxes {
    /// Only the agent may enter the directory: containers get their own sandbox mounted, and see no other.
    pub(crate) fn open(root: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&root)?;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700))?;
        Ok(Self { root })
    }

    pub(crate) fn path(&self, task: &TaskKey) -> PathBuf {
        self.root.join(task.framework_id.as_str()).join(task.task_id.as_str())
    }

    /// Makes a new sandbox.
    ///
    /// # Errors
    /// It exists: no task runs twice, and none finds what another left. Or the file system says no.
    pub(crate) fn create(&self, task: &TaskKey) -> io::Result<PathBuf> {
        let path = self.path(task);
        loop {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            match DirBuilder::new().mode(0o755).create(&path) {
                // The framework's directory was empty and old, and was collected in this very instant.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                created => return created.map(|()| path),
            }
        }
    }

    /// Notes that a task has ended now: its sandbox is kept from here on.
    pub(crate) fn touch(&self, task: &TaskKey) {
        let touched = File::open(self.path(task)).and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(error) = touched
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!("cannot note the end of task {} on its sandbox: {error}", task.task_id);
        }
    }

    /// Until when the sandbox of an ended task is kept at least; `None` if there is none.
    pub(crate) fn kept_until(&self, task: &TaskKey, retention: Duration) -> Option<Timestamp> {
        let ended = fs::symlink_metadata(self.path(task)).and_then(|metadata| metadata.modified()).ok()?;
        let until = (ended + retention).duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(Timestamp(millis(until)))
    }

    /// Removes the sandboxes of tasks that are not in `known` and ended more than `retention` ago, or less as the disk fills up.
    ///
    /// # Errors
    /// The directory cannot be read. A sandbox that resists is reported and tried again next time.
    pub(crate) fn collect(&self, known: &BTreeSet<TaskKey>, retention: Duration) -> io::Result<usize> {
        self.remove_older(known, allowed_age(retention, used_permille(&self.root)?))
    }

    fn remove_older(&self, known: &BTreeSet<TaskKey>, age: Duration) -> io::Result<usize> {
        let mut removed = 0;
        for framework in names(&self.root)? {
            let Ok(framework_id) = FrameworkId::new(&framework) else { continue };
            let directory = self.root.join(&framework);
            for task in names(&directory)? {
                let Ok(task_id) = TaskId::new(&task) else { continue };
                let key = TaskKey { framework_id: framework_id.clone(), task_id };
                if !known.contains(&key) && is_older(&directory.join(&task), age) {
                    removed += usize::from(remove(&directory.join(&task)));
                }
            }
            drop(fs::remove_dir(&directory)); // only if nothing is left in it
        }
        Ok(removed)
    }
}

/// How old a sandbox may get where so much of the disk is used (Mesos: `gc_delay` times what is free beyond the headroom).
fn allowed_age(retention: Duration, used_permille: u32) -> Duration {
    retention.saturating_mul(1000_u32.saturating_sub(HEADROOM_PERMILLE + used_permille)) / 1000
}

fn used_permille(path: &Path) -> io::Result<u32> {
    let disk = rustix::fs::statvfs(path)?;
    let used = disk.f_blocks.saturating_sub(disk.f_bfree);
    Ok(u32::try_from(used.saturating_mul(1000) / disk.f_blocks.max(1)).unwrap_or(1000))
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    Ok(entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn is_older(path: &Path, age: Duration) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|elapsed| elapsed >= age))
}

fn remove(path: &Path) -> bool {
    match crate::disk::remove_all(path) {
        Ok(()) => info!("removed the old sandbox {}", path.display()),
        Err(ref error) => warn!("cannot remove the old sandbox {}: {error}", path.display()),
    }
    !path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(task: &str) -> TaskKey {
        TaskKey { framework_id: FrameworkId::new("f").unwrap(), task_id: TaskId::new(task).unwrap() }
    }

    #[test]
    fn a_sandbox_is_made_once_and_goes_when_it_is_old_and_unknown() {
        let root = tempfile::tempdir().unwrap();
        let sandboxes = Sandboxes::open(root.path().join("sandboxes")).unwrap();
        for task in ["old", "known", "new"] {
            sandboxes.create(&key(task)).unwrap();
        }
        assert_eq!(sandboxes.create(&key("old")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let hour = Duration::from_secs(3600);
        for task in ["old", "known"] {
            let file = File::open(sandboxes.path(&key(task))).unwrap();
            file.set_modified(SystemTime::now() - 2 * hour).unwrap();
        }
        assert_eq!(sandboxes.remove_older(&[key("known")].into(), hour).unwrap(), 1);
        assert_eq!(names(&root.path().join("sandboxes/f")).unwrap().len(), 2);
        sandboxes.touch(&key("known"));
        assert_eq!(sandboxes.remove_older(&BTreeSet::new(), hour).unwrap(), 0, "its end is news");
        assert_eq!(sandboxes.remove_older(&BTreeSet::new(), Duration::ZERO).unwrap(), 2);
        assert_eq!(names(&root.path().join("sandboxes")).unwrap().len(), 0);
    }

    #[test]
    fn the_fuller_the_disk_the_sooner_a_sandbox_goes() {
        let week = Duration::from_secs(7 * 24 * 3600);
        let days = |used| allowed_age(week, used).as_secs_f64() / (24.0 * 3600.0);
        assert_eq!([0, 400, 800, 900, 1000].map(days), [6.3, 3.5, 0.7, 0.0, 0.0]);
    }
}
