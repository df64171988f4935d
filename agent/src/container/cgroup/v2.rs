//! Version 2: one tree, controllers handed down level by level. All by plain files: `cgroups-rs` writes weights unconverted,
//! has no OOM events, and says nothing when a controller is missing.

use std::path::{Path, PathBuf};

use divvy_proto::Bytes;
use divvy_proto::api::{Pressure, Usage};

use super::files::{self, CgroupError};
use super::kill::{self, KillError};
use super::{
    CONTROLLERS, Entrance, Group, Hierarchy, Limits, OPTIONAL, PERIOD_USEC, Unsupported, processor_list,
    wanted_processors, whole_pages,
};
use crate::container::spec::Oom;

/// The part of the tree that is ours.
#[derive(Debug)]
pub(super) struct V2 {
    /// Where the tree is mounted.
    mount: PathBuf,
    /// The top of what is ours: the whole tree, or what the host's manager has delegated to this process.
    root: PathBuf,
}

/// Where this process lives in a subtree that has been delegated to it: what hands controllers down may not hold processes.
const OWN_LEAF: &str = "divvy-agent";

impl V2 {
    pub(super) fn new(mount: PathBuf) -> Result<Self, String> {
        let root = delegated(&mount).unwrap_or_else(|| mount.clone());
        let offered = files::read(&root.join("cgroup.controllers")).map_err(|error| error.to_string())?;
        let missing: Vec<_> = CONTROLLERS.into_iter().filter(|name| !has(&offered, name)).collect();
        if missing.is_empty() {
            return Ok(Self { mount, root });
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

    fn pressure(directory: &Path) -> Option<Pressure> {
        let total = |file| {
            let text = files::read_optional(&directory.join(file))?;
            Some(files::sum_of(text.lines().find(|line| line.starts_with("some "))?, "total"))
        };
        Some(Pressure {
            cpu_usec: total("cpu.pressure")?,
            memory_usec: total("memory.pressure")?,
            io_usec: total("io.pressure")?,
        })
    }
}

fn has(controllers: &str, name: &str) -> bool {
    controllers.split(' ').any(|controller| controller == name)
}

/// The nearest cgroup above this process that its manager has marked as delegated (systemd: `Delegate=yes`). Everything
/// above it is the manager's.
fn delegated(mount: &Path) -> Option<PathBuf> {
    let text = files::read_optional(Path::new("/proc/self/cgroup"))?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let own = mount.join(own);
    let ours =
        own.ancestors().take_while(|directory| *directory != mount).find(|directory| is_delegated(directory));
    ours.map(Path::to_path_buf)
}

fn is_delegated(directory: &Path) -> bool {
    ["trusted.delegate", "user.delegate"].into_iter().any(|name| {
        let mut value = [0; 8];
        rustix::fs::getxattr(directory, name, &mut value[..])
            .is_ok_and(|length| value.get(..length) == Some(b"1"))
    })
}

/// Enables the controllers for the cgroups below `directory`; those that not all need, where there are any.
fn hand_down(directory: &Path) -> Result<(), CgroupError> {
    let control = directory.join("cgroup.subtree_control");
    let enabled = files::read(&control)?;
    let missing = |names: &[&str]| -> Vec<String> {
        names.iter().filter(|name| !has(&enabled, name)).map(|name| format!("+{name}")).collect()
    };
    let (required, optional) = (missing(&CONTROLLERS), missing(&OPTIONAL));
    if !required.is_empty() {
        files::write(&control, &required.join(" "))?;
    }
    for name in optional {
        // Whoever asks for what it limits is refused; nobody else is.
        let _ = files::write(&control, &name);
    }
    Ok(())
}

impl Hierarchy for V2 {
    fn settle(&self) -> Result<(), CgroupError> {
        // Only the root of all has no type, and may hold processes beside cgroups.
        if !self.root.join("cgroup.type").exists() {
            return Ok(());
        }
        let leaf = self.root.join(OWN_LEAF);
        for pid in files::processes(&self.root)? {
            files::create(&leaf)?;
            match files::write(&leaf.join("cgroup.procs"), &pid.to_string()) {
                Err(CgroupError::Refused { source, .. }) if source.raw_os_error() == Some(libc::ESRCH) => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn check(&self, limits: &Limits) -> Result<(), Unsupported> {
        let Some(wanted) = &limits.cpuset else { return Ok(()) };
        match files::read_optional(&self.root.join("cpuset.cpus.effective")) {
            Some(present) => limits.check_cpuset(&present),
            None => {
                let why = format!("{} has no controller cpuset", self.root.display());
                Err(wanted_processors(wanted, why))
            }
        }
    }

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
        if let Some(high) = limits.memory_high {
            files::write_checked(&directory.join("memory.high"), &whole_pages(high).to_string())?;
        }
        if let Some(processors) = &limits.cpuset {
            files::write_checked(&directory.join("cpuset.cpus"), &processor_list(processors))?;
        }
        files::write_checked(&directory.join("pids.max"), &limits.pids.to_string())
    }

    fn entrance(&self, group: &Group) -> Entrance {
        let directory = self.directory(group);
        let views = vec![(directory.clone(), self.mount.clone())];
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
        let io = files::read_optional(&directory.join("io.stat"));
        Ok(Usage {
            cpu_usec: files::read_key(&directory.join("cpu.stat"), "usage_usec")?,
            memory: used.saturating_sub(reclaimable),
            memory_peak: files::read_number(&directory.join("memory.peak")).unwrap_or(used),
            pids: files::read_number(&directory.join("pids.current"))?,
            io_read: io.as_ref().map(|io| files::sum_of(io, "rbytes")),
            io_written: io.as_ref().map(|io| files::sum_of(io, "wbytes")),
            pressure: Self::pressure(&directory),
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

fn bytes(count: u64) -> Bytes {
    i64::try_from(count).ok().and_then(|count| Bytes::from_bytes(count).ok()).unwrap_or_default()
}
