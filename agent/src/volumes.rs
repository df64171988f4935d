//! Persistent volumes: one directory for each, which outlives tasks, agents' processes and reboots, until the master no longer
//! names it.
//!
//! The directories are the durable list: an agent that starts finds its volumes here, before any master has spoken.
//!
//! Not here: mounts, which are made in each container's own namespace, nor who may use what.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use divvy_proto::ids::{AgentId, VolumeId};
use tracing::{info, warn};

/// The directory of all volumes: `<volume_id>` below it.
#[derive(Debug, Clone)]
pub(crate) struct Volumes {
    root: PathBuf,
    /// Where the volumes of an agent that was declared gone are kept: `volumes.gone-<agent_id>` here.
    work_dir: PathBuf,
    /// Where volumes wait for their contents to be removed.
    doomed: PathBuf,
}

impl Volumes {
    /// Only the agent may enter the directory: containers get their own volumes mounted, and see no other.
    pub(crate) fn open(work_dir: &Path) -> io::Result<Self> {
        let work_dir = work_dir.to_owned();
        let (root, doomed) = (work_dir.join("volumes"), work_dir.join("removed-volumes"));
        let volumes = Self { root, work_dir, doomed };
        for directory in [&volumes.root, &volumes.doomed] {
            fs::create_dir_all(directory)?;
            fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
        }
        Ok(volumes)
    }

    /// The volumes that are there.
    pub(crate) fn list(&self) -> io::Result<BTreeSet<VolumeId>> {
        let entries = fs::read_dir(&self.root)?.collect::<io::Result<Vec<_>>>()?;
        let names = entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter_map(|name| VolumeId::new(name).ok()).collect())
    }

    /// Has exactly these volumes. What is removed is out of the way at once, and waits for [`Volumes::collect`].
    ///
    /// # Errors
    /// A directory cannot be made or moved; the others are as they should be.
    pub(crate) fn set(&self, wanted: &BTreeSet<VolumeId>) -> io::Result<()> {
        let there = self.list()?;
        let made = wanted.difference(&there).map(|id| {
            info!("volume {id} is made");
            DirBuilder::new().mode(0o755).create(self.root.join(id.as_str()))
        });
        let removed = there.difference(wanted).map(|id| {
            info!("volume {id} is removed");
            let place = self.doomed.join(uuid::Uuid::new_v4().simple().to_string());
            fs::rename(self.root.join(id.as_str()), place)
        });
        // All are tried; the first error is told.
        let results: Vec<io::Result<()>> = made.chain(removed).collect();
        if !results.is_empty() {
            File::open(&self.root)?.sync_all()?;
        }
        results.into_iter().collect()
    }

    /// Moves all volumes to a directory of the agent that this was, where nothing removes them. Repeating it does no harm.
    ///
    /// # Errors
    /// A directory cannot be made or moved.
    pub(crate) fn set_aside(&self, agent: &AgentId) -> io::Result<()> {
        let place = self.work_dir.join(format!("volumes.gone-{agent}"));
        DirBuilder::new().mode(0o700).recursive(true).create(&place)?;
        for id in self.list()? {
            fs::rename(self.root.join(id.as_str()), place.join(id.as_str()))?;
            warn!("volume {id} of {agent}, which was declared gone, is kept in {}", place.display());
        }
        for directory in [&place, &self.root, &self.work_dir] {
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    }

    /// Removes the contents of what was removed. Takes as long as that takes; links are not followed.
    pub(crate) fn collect(&self) {
        let entries = match fs::read_dir(&self.doomed) {
            Ok(entries) => entries,
            Err(error) => return warn!("cannot look for removed volumes: {error}"),
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            match crate::disk::remove_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    warn!("cannot remove the contents of a removed volume, {}: {error}", path.display());
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> BTreeSet<VolumeId> {
        names.iter().map(|name| VolumeId::new(name).unwrap()).collect()
    }

    #[test]
    fn what_is_named_is_kept_and_the_rest_goes_with_its_contents_but_not_with_what_these_point_to() {
        let work = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(work.path()).unwrap();
        volumes.set(&ids(&["a", "b"])).unwrap();
        fs::write(work.path().join("volumes/a/data"), "kept").unwrap();
        fs::create_dir(work.path().join("elsewhere")).unwrap();
        fs::write(work.path().join("elsewhere/precious"), "").unwrap();
        std::os::unix::fs::symlink(work.path().join("elsewhere"), work.path().join("volumes/b/link"))
            .unwrap();

        volumes.set(&ids(&["a", "c"])).unwrap();
        volumes.collect();
        let again = Volumes::open(work.path()).unwrap();
        assert_eq!(again.list().unwrap(), ids(&["a", "c"]));
        assert_eq!(fs::read_to_string(work.path().join("volumes/a/data")).unwrap(), "kept");
        assert!(work.path().join("elsewhere/precious").exists());
        assert_eq!(fs::read_dir(work.path().join("removed-volumes")).unwrap().count(), 0);
    }

    #[test]
    fn what_is_set_aside_is_no_volume_any_more_and_keeps_its_data() {
        let work = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(work.path()).unwrap();
        volumes.set(&ids(&["a", "b"])).unwrap();
        fs::write(work.path().join("volumes/a/data"), "kept").unwrap();
        let gone = AgentId::new("a1-3").unwrap();

        volumes.set_aside(&gone).unwrap();
        volumes.set_aside(&gone).unwrap();
        volumes.set(&ids(&["a"])).unwrap();
        volumes.collect();
        assert_eq!(volumes.list().unwrap(), ids(&["a"]));
        assert_eq!(fs::read_to_string(work.path().join("volumes.gone-a1-3/a/data")).unwrap(), "kept");
        assert!(!work.path().join("volumes/a/data").exists(), "a volume of the same name begins empty");
    }
}
