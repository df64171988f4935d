//! Version 2: one tree, controllers handed down level by level. All by plain files: `cgroups-rs` writes weights unconverted,
//! has no OOM events, and says nothing when a controller is missing.

use std::path::{Path, PathBuf};

use divvy_proto::Bytes;
use divvy_proto::api::Usage;

use super::files::{self, CgroupError};
use super::kill::{self, KillError};
use super::{CONTROLLERS, Entrance, Group, Hierarchy, Limits, PERIOD_USEC};
use crate::container::spec::Oom;

/// Where the tree is mounted.
#[derive(Debug)]
pub(super) struct V2 {
    root: PathBuf,
}

impl V2 {
    pub(super) fn new(root: PathBuf) -> Result<Self, String> {
        let offered = files::read(&root.join("cgroup.controllers")).map_err(|error| error.to_string())?;
        let offered: Vec<_> = offered.split(' ').collect();
        let missing: Vec<_> = CONTROLLERS.into_iter().filter(|name| !offered.contains(name)).collect();
        if missing.is_empty() {
            return Ok(Self { root });
        }
        Err(format!("{} has no controller {}", root.display(), missing.join(", ")))
    }

    fn directory(&self, group: &Group) -> PathBuf {
        self.root.join(&group.0)
    }

    /// Makes the cgroups from the root down to `group` and hands the controllers down to it. A cgroup that hands down may
    /// not hold processes itself (the root may): so containers are leaves, and nothing lives in their parents.
    fn create_parents(&self, group: &Group) -> Result<(), CgroupError> {
        let mut directory = self.root.clone();
        hand_down(&directory)?;
        for part in group.0.components() {
            directory.push(part);
            files::create(&directory)?;
            hand_down(&directory)?;
        }
        Ok(())
    }
}

/// Enables the controllers for the cgroups below `directory`.
fn hand_down(directory: &Path) -> Result<(), CgroupError> {
    let control = directory.join("cgroup.subtree_control");
    let enabled = files::read(&control)?;
    let missing: Vec<_> =
        CONTROLLERS.into_iter().filter(|name| !enabled.split(' ').any(|on| on == *name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let request: Vec<_> = missing.iter().map(|name| format!("+{name}")).collect();
    files::write(&control, &request.join(" "))
}

impl Hierarchy for V2 {
    fn create(&self, group: &Group, limits: &Limits) -> Result<(), CgroupError> {
        let attempt = || {
            self.create_parents(&group.parent())?;
            files::create(&self.directory(group))?;
            self.update(group, limits)
        };
        // Another agent that leaves may remove what both have above them, until there is something of ours in it.
        attempt().or_else(|error| match error {
            CgroupError::Missing(_) => attempt(),
            error => Err(error),
        })
    }

    fn update(&self, group: &Group, limits: &Limits) -> Result<(), CgroupError> {
        let directory = self.directory(group);
        files::write_checked(&directory.join("cpu.weight"), &limits.weight().to_string())?;
        let quota = limits.quota().map_or_else(|| "max".to_owned(), |usec| usec.to_string());
        files::write_checked(&directory.join("cpu.max"), &format!("{quota} {PERIOD_USEC}"))?;
        files::write_checked(&directory.join("memory.max"), &limits.memory().to_string())?;
        // The limit is on memory with swap, which version 2 cannot say: so no swap at all.
        match files::write_checked(&directory.join("memory.swap.max"), "0") {
            Err(CgroupError::Missing(_)) => {} // a kernel without swap accounting, or without swap
            other => other?,
        }
        files::write_checked(&directory.join("pids.max"), &limits.pids.to_string())
    }

    fn entrance(&self, group: &Group) -> Entrance {
        let directory = self.directory(group);
        let views = vec![(directory.clone(), self.root.clone())];
        Entrance { join: Vec::new(), clone_into: Some(directory), views }
    }

    fn oom(&self, group: &Group) -> Result<Option<Oom>, CgroupError> {
        let directory = self.directory(group);
        if files::read_key(&directory.join("memory.events"), "oom_kill")? == 0 {
            return Ok(None);
        }
        let limit = bytes(files::read_number(&directory.join("memory.max"))?);
        // Before Linux 5.19 there is no record of the peak; where the limit was hit, the peak was the limit.
        let peak = files::read_number(&directory.join("memory.peak")).map_or(limit, bytes);
        Ok(Some(Oom { limit, peak }))
    }

    fn usage(&self, group: &Group) -> Result<Usage, CgroupError> {
        let directory = self.directory(group);
        let used = files::read_number(&directory.join("memory.current"))?;
        let reclaimable = files::read_key(&directory.join("memory.stat"), "inactive_file")?;
        Ok(Usage {
            cpu_usec: files::read_key(&directory.join("cpu.stat"), "usage_usec")?,
            memory: used.saturating_sub(reclaimable),
            memory_peak: files::read_number(&directory.join("memory.peak")).unwrap_or(used),
            pids: files::read_number(&directory.join("pids.current"))?,
            io_read: io_bytes(&directory, "rbytes="),
            io_written: io_bytes(&directory, "wbytes="),
        })
    }

    /// `cgroup.kill` where there is one (Linux 5.14), which no fork escapes; else freeze, SIGKILL, thaw.
    fn kill(&self, group: &Group) -> Result<(), KillError> {
        let directory = self.directory(group);
        kill::until_empty(&directory, |victims| match files::write(&directory.join("cgroup.kill"), "1") {
            Err(CgroupError::Missing(_)) => {
                files::write(&directory.join("cgroup.freeze"), "1")?;
                let signalled = kill::signal_all(victims);
                files::write(&directory.join("cgroup.freeze"), "0")?;
                signalled
            }
            other => Ok(other?),
        })
    }

    fn remove(&self, group: &Group) -> Result<(), CgroupError> {
        files::remove(&self.directory(group))
    }

    fn prune(&self, group: &Group) {
        files::prune(&self.root, &group.0);
    }

    fn children(&self, parent: &Group) -> Result<Vec<String>, CgroupError> {
        files::children(&self.directory(parent))
    }
}

/// The sum over all devices; `None` where the controller is not handed down.
fn io_bytes(directory: &Path, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(directory.join("io.stat")).ok()?;
    Some(text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok()).sum())
}

fn bytes(count: u64) -> Bytes {
    i64::try_from(count).ok().and_then(|count| Bytes::from_bytes(count).ok()).unwrap_or_default()
}
