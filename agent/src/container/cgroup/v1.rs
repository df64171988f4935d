//! Version 1: one tree per controller. Limits are set through `cgroups-rs`, and read back here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cgroups_rs::MaxValue;
use cgroups_rs::cpu::CpuController;
use cgroups_rs::freezer::FreezerController;
use cgroups_rs::memory::MemController;
use cgroups_rs::pid::PidController;
use divvy_proto::Bytes;
use divvy_proto::api::Usage;

use super::files::{self, CgroupError};
use super::kill::{self, KillError};
use super::{
    CONTROLLERS_V1, Entrance, Group, Hierarchy, Limits, PERIOD_USEC, Unsupported, processor_list,
    wanted_processors,
};
use crate::container::spec::Oom;

/// Where each controller's tree is mounted. Two controllers may share a tree.
#[derive(Debug)]
pub(super) struct V1 {
    cpu: PathBuf,
    cpuacct: PathBuf,
    memory: PathBuf,
    pids: PathBuf,
    freezer: PathBuf,
    /// For statistics only.
    blkio: Option<PathBuf>,
    /// Only containers with a cpuset have a cgroup in it.
    cpuset: Option<PathBuf>,
}

impl V1 {
    pub(super) fn new(controllers: &BTreeMap<String, PathBuf>) -> Result<Self, String> {
        let missing: Vec<_> =
            CONTROLLERS_V1.into_iter().filter(|name| !controllers.contains_key(*name)).collect();
        let mounted = |name: &str| {
            let missing = || format!("no controller {} is mounted", missing.join(", "));
            controllers.get(name).cloned().ok_or_else(missing)
        };
        Ok(Self {
            cpu: mounted("cpu")?,
            cpuacct: mounted("cpuacct")?,
            memory: mounted("memory")?,
            pids: mounted("pids")?,
            freezer: mounted("freezer")?,
            blkio: controllers.get("blkio").cloned(),
            cpuset: controllers.get("cpuset").cloned(),
        })
    }

    /// The trees that every container is in, each once.
    fn trees(&self) -> BTreeSet<&Path> {
        let trees = [&self.cpu, &self.cpuacct, &self.memory, &self.pids, &self.freezer];
        trees.into_iter().chain(&self.blkio).map(PathBuf::as_path).collect()
    }

    /// The trees that this container is in.
    fn trees_of(&self, group: &Group) -> BTreeSet<&Path> {
        let cpuset = self.cpuset.as_deref().filter(|tree| tree.join(&group.0).exists());
        self.trees().into_iter().chain(cpuset).collect()
    }

    /// The group's directory in each tree.
    fn directories(&self, group: &Group) -> Vec<PathBuf> {
        self.trees_of(group).into_iter().map(|tree| tree.join(&group.0)).collect()
    }

    /// A new cgroup of this tree has no processors and no memory nodes, and takes no processes before it has.
    fn set_cpuset(&self, group: &Group, limits: &Limits) -> Result<(), CgroupError> {
        let Some(tree) = self.cpuset.as_ref().filter(|tree| {
            limits.cpuset.is_some() || self.trees().contains(tree.as_path()) // mounted together with another
        }) else {
            return Ok(());
        };
        let mut directory = tree.clone();
        for part in group.0.components() {
            let above = directory.clone();
            directory.push(part);
            files::create(&directory)?;
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if files::read(&directory.join(file))?.is_empty() {
                    files::write(&directory.join(file), &files::read(&above.join(file))?)?;
                }
            }
        }
        match &limits.cpuset {
            Some(processors) => {
                files::write_checked(&directory.join("cpuset.cpus"), &processor_list(processors))
            }
            None => Ok(()),
        }
    }

    fn set_cpu(&self, group: &Group, limits: &Limits) -> Result<(), CgroupError> {
        let directory = self.cpu.join(&group.0);
        let controller = CpuController::new(directory.clone(), false);
        controller.set_shares(limits.shares()).map_err(failed("cpu.shares", &directory))?;
        let quota = limits.quota().map_or(-1, u64::cast_signed);
        let set = controller.set_cfs_quota_and_period(Some(quota), Some(PERIOD_USEC));
        set.map_err(failed("cpu.cfs_quota_us", &directory))?;
        files::check(&directory.join("cpu.shares"), &limits.shares().to_string())?;
        files::check(&directory.join("cpu.cfs_period_us"), &PERIOD_USEC.to_string())?;
        files::check(&directory.join("cpu.cfs_quota_us"), &quota.to_string())
    }

    /// Sets the limits on memory and on memory with swap, of which the first may never exceed the second.
    fn set_memory(&self, group: &Group, limits: &Limits) -> Result<(), CgroupError> {
        let directory = self.memory.join(&group.0);
        let controller = MemController::new(directory.clone(), false);
        let limit = limits.memory();
        let memory =
            || controller.set_limit(limit.cast_signed()).map_err(failed("memory.limit_in_bytes", &directory));
        let with_swap = directory.join("memory.memsw.limit_in_bytes");
        if !with_swap.exists() {
            memory()?;
            return files::check(&directory.join("memory.limit_in_bytes"), &limit.to_string());
        }
        let swap = || {
            let set = controller.set_memswap_limit(limit.cast_signed());
            set.map_err(failed("memory.memsw.limit_in_bytes", &directory))
        };
        if files::read_number(&with_swap)? < limit {
            swap().and_then(|()| memory())?;
        } else {
            memory().and_then(|()| swap())?;
        }
        files::check(&with_swap, &limit.to_string())?;
        files::check(&directory.join("memory.limit_in_bytes"), &limit.to_string())
    }

    fn set_pids(&self, group: &Group, limits: &Limits) -> Result<(), CgroupError> {
        let directory = self.pids.join(&group.0);
        let controller = PidController::new(directory.clone(), false);
        let set = controller.set_pid_max(MaxValue::Value(limits.pids.into()));
        set.map_err(failed("pids.max", &directory))?;
        files::check(&directory.join("pids.max"), &limits.pids.to_string())
    }
}

/// Turns an error of `cgroups-rs` into ours, with its cause.
fn failed(what: &'static str, directory: &Path) -> impl FnOnce(cgroups_rs::error::Error) -> CgroupError {
    let path = directory.to_path_buf();
    move |error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        CgroupError::Crate { what, path, message: format!("{error}{cause}") }
    }
}

impl Hierarchy for V1 {
    fn check(&self, limits: &Limits) -> Result<(), Unsupported> {
        if let Some(high) = limits.memory_high {
            let why = "this host has cgroup v1, which cannot slow a container down for its memory".to_owned();
            return Err(Unsupported { field: "memory_high", value: high.to_string(), why });
        }
        let present = self.cpuset.as_ref().and_then(|tree| files::read_optional(&tree.join("cpuset.cpus")));
        match (&limits.cpuset, present) {
            (Some(wanted), None) => {
                Err(wanted_processors(wanted, "no controller cpuset is mounted".to_owned()))
            }
            (_, present) => limits.check_cpuset(&present.unwrap_or_default()),
        }
    }

    fn create(&self, group: &Group, limits: &Limits) -> Result<(), CgroupError> {
        for tree in self.trees() {
            files::create(&tree.join(&group.0))?;
        }
        self.update(group, limits)
    }

    fn update(&self, group: &Group, limits: &Limits) -> Result<(), CgroupError> {
        self.set_cpu(group, limits)?;
        self.set_memory(group, limits)?;
        self.set_cpuset(group, limits)?;
        self.set_pids(group, limits)
    }

    fn entrance(&self, group: &Group) -> Entrance {
        let directories = self.directories(group);
        let join = directories.iter().map(|directory| directory.join("tasks")).collect();
        let trees = self.trees_of(group).into_iter().map(Path::to_path_buf);
        let views = directories.into_iter().zip(trees).collect();
        Entrance { join, clone_into: None, views }
    }

    fn oom(&self, group: &Group) -> Result<Option<Oom>, CgroupError> {
        let directory = self.memory.join(&group.0);
        if files::read_key(&directory.join("memory.oom_control"), "oom_kill")? == 0 {
            return Ok(None);
        }
        let limit = files::read_number(&directory.join("memory.limit_in_bytes"))?;
        let peak = files::read_number(&directory.join("memory.max_usage_in_bytes"))?;
        Ok(Some(Oom { limit: bytes(limit), peak: bytes(peak) }))
    }

    fn usage(&self, group: &Group) -> Result<Usage, CgroupError> {
        let memory = self.memory.join(&group.0);
        let used = files::read_number(&memory.join("memory.usage_in_bytes"))?;
        let reclaimable = files::read_key(&memory.join("memory.stat"), "total_inactive_file")?;
        let io = |tree: &PathBuf| {
            files::read_optional(&tree.join(&group.0).join("blkio.throttle.io_service_bytes"))
        };
        let io = self.blkio.as_ref().and_then(io);
        Ok(Usage {
            cpu_usec: files::read_number(&self.cpuacct.join(&group.0).join("cpuacct.usage"))? / 1000,
            memory: used.saturating_sub(reclaimable),
            memory_peak: files::read_number(&memory.join("memory.max_usage_in_bytes"))?,
            pids: files::read_number(&self.pids.join(&group.0).join("pids.current"))?,
            io_read: io.as_ref().map(|io| files::sum_of(io, "Read")),
            io_written: io.as_ref().map(|io| files::sum_of(io, "Write")),
            pressure: None,
        })
    }

    /// Freeze, SIGKILL, thaw: frozen processes cannot fork away from the signal, and thawed ones take it.
    fn kill(&self, group: &Group) -> Result<(), KillError> {
        let directory = self.freezer.join(&group.0);
        let freezer = FreezerController::new(directory.clone(), false);
        kill::until_empty(&directory, |victims| {
            freezer.freeze().map_err(failed("freezer.state", &directory))?;
            let signalled = kill::signal_all(victims);
            freezer.thaw().map_err(failed("freezer.state", &directory))?;
            signalled
        })?;
        // A launch that was interrupted may have left a process that had not joined every tree.
        for tree in self.directories(group) {
            kill::until_empty(&tree, kill::signal_all)?;
        }
        Ok(())
    }

    fn remove(&self, group: &Group) -> Result<(), CgroupError> {
        self.directories(group).iter().try_for_each(|directory| files::remove(directory))
    }

    fn prune(&self, group: &Group) {
        self.trees_of(group).into_iter().for_each(|tree| files::prune(tree, &group.0));
    }

    fn children(&self, parent: &Group) -> Result<Vec<String>, CgroupError> {
        let mut names = BTreeSet::new();
        for directory in self.directories(parent) {
            names.extend(files::children(&directory)?);
        }
        Ok(names.into_iter().collect())
    }
}

fn bytes(count: u64) -> Bytes {
    i64::try_from(count).ok().and_then(|count| Bytes::from_bytes(count).ok()).unwrap_or_default()
}
