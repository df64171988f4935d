//! Control groups, of version 1 or 2, behind one small trait. Every limit that is set is read back: a controller that is
//! missing or a value that the kernel changed is an error, never a container without its limit.
//!
//! Not here: which container gets what; that is [`super::isolators`].

mod files;
mod kill;
mod v1;
mod v2;

use std::fmt;
use std::path::{Path, PathBuf};

use divvy_proto::api::Usage;
use divvy_proto::{Bytes, Cpus, RangeSet};

use super::spec::{ContainerSpec, Oom};
pub(crate) use files::CgroupError;
pub(crate) use kill::KillError;

/// The CFS period that quotas are stated for, in microseconds (kernel default, and what Mesos and Docker use: 100 ms).
const PERIOD_USEC: u64 = 100_000;
/// The least quota that the kernel takes, in microseconds (1 ms).
const QUOTA_MIN_USEC: u64 = 1_000;

/// What a container may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    cpus: Cpus,
    cpu_limit: Option<Cpus>,
    cpuset: Option<RangeSet>,
    memory: Bytes,
    memory_high: Option<Bytes>,
    pids: u32,
}

impl Limits {
    pub(crate) fn of(spec: &ContainerSpec) -> Self {
        Self {
            cpus: spec.cpus,
            cpu_limit: spec.cpu_limit,
            cpuset: spec.cpuset.clone(),
            memory: spec.memory,
            memory_high: spec.memory_high,
            pids: spec.pids,
        }
    }

    /// `cpu.shares`: 1024 per core, at least 2 (Mesos: `CPU_SHARES_PER_CPU`, `MIN_CPU_SHARES`), at most what the kernel
    /// takes.
    fn shares(&self) -> u64 {
        (self.cpus.millis().unsigned_abs() * 1024 / 1000).clamp(2, 262_144)
    }

    /// `cpu.weight`: 100, the kernel's default, per core. Linear, unlike the curve by which runc maps `cpu.shares`: a
    /// container with twice the cores gets twice the time, as it does on v1.
    fn weight(&self) -> u64 {
        (self.cpus.millis().unsigned_abs() / 10).clamp(1, 10_000)
    }

    /// Microseconds of processor time per period.
    fn quota(&self) -> Option<u64> {
        let usec = |limit: Cpus| limit.millis().unsigned_abs() * (PERIOD_USEC / 1000);
        self.cpu_limit.map(|limit| usec(limit).max(QUOTA_MIN_USEC))
    }

    /// The memory limit as the kernel keeps it.
    fn memory(&self) -> u64 {
        whole_pages(self.memory)
    }

    /// Refuses processors that are not among those `present`: the kernel would give others instead.
    fn check_cpuset(&self, present: &str) -> Result<(), Unsupported> {
        let Some(wanted) = &self.cpuset else { return Ok(()) };
        match !wanted.is_empty() && processors(present).contains(wanted) {
            true => Ok(()),
            false => Err(wanted_processors(wanted, format!("there are processors {present} here"))),
        }
    }
}

fn whole_pages(bytes: Bytes) -> u64 {
    let page = super::sys::page_size();
    bytes.as_u64() / page * page
}

/// A limit that the control groups of this host cannot set.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unsupported {
    /// The part of the specification.
    pub(crate) field: &'static str,
    /// What it says.
    pub(crate) value: String,
    /// What stands against it.
    pub(crate) why: String,
}

fn wanted_processors(wanted: &RangeSet, why: String) -> Unsupported {
    Unsupported { field: "cpuset", value: processor_list(wanted), why }
}

/// Processors as the kernel writes them: `0-1,3`.
fn processor_list(set: &RangeSet) -> String {
    let range = |(first, last)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    set.ranges().map(range).collect::<Vec<_>>().join(",")
}

fn processors(list: &str) -> RangeSet {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
    };
    RangeSet::from_ranges(list.split(',').filter_map(range))
}

/// A cgroup by its path below the root of every hierarchy: `divvy/agent-1/web.0`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Group(PathBuf);

impl Group {
    pub(crate) fn new(parent: &str, name: &str) -> Self {
        Self(Path::new(parent.trim_matches('/')).join(name))
    }

    fn parent(&self) -> Self {
        Self(self.0.parent().map(Path::to_path_buf).unwrap_or_default())
    }
}

/// How a process that is about to execute the program gets into its cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Entrance {
    /// Files to which the process writes `0`. On v1 this is `tasks` and not `cgroup.procs`: a thread that moves only
    /// itself spares the kernel a grace period of some 15 ms.
    pub(crate) join: Vec<PathBuf>,
    /// On v2, the directory that it can be cloned into at no cost.
    pub(crate) clone_into: Option<PathBuf>,
    /// What it is to see in place of each whole tree: its own cgroup's directory, and where the tree is mounted. Programs
    /// that size themselves by their limits (JVM, Go) look there.
    pub(crate) views: Vec<(PathBuf, PathBuf)>,
}

impl Entrance {
    /// Moves the calling process, which must have a single thread, into the cgroup.
    pub(crate) fn join(&self) -> Result<(), CgroupError> {
        self.join.iter().try_for_each(|file| files::write(file, "0"))
    }
}

/// The control groups of this host, whichever version they are of.
pub(crate) trait Hierarchy: fmt::Debug + Send + Sync {
    /// Makes room for this process beside its containers, where it has to share a part of the tree with them.
    fn settle(&self) -> Result<(), CgroupError> {
        Ok(())
    }
    /// Refuses limits that cannot be set here.
    fn check(&self, limits: &Limits) -> Result<(), Unsupported>;
    /// Makes a cgroup, with its parents, and sets its limits.
    fn create(&self, group: &Group, limits: &Limits) -> Result<(), CgroupError>;
    /// Changes the limits of a cgroup.
    fn update(&self, group: &Group, limits: &Limits) -> Result<(), CgroupError>;
    /// The way in.
    fn entrance(&self, group: &Group) -> Entrance;
    /// The kernel's killings for memory, if there were any.
    fn oom(&self, group: &Group) -> Result<Option<Oom>, CgroupError>;
    /// What is used now.
    fn usage(&self, group: &Group) -> Result<Usage, CgroupError>;
    /// Kills everything in a cgroup, without exception, and returns when it is empty or does not exist.
    fn kill(&self, group: &Group) -> Result<(), KillError>;
    /// Removes an empty cgroup; one that does not exist is fine.
    fn remove(&self, group: &Group) -> Result<(), CgroupError>;
    /// Removes a cgroup and those above it, as far as nothing else is in them.
    fn prune(&self, group: &Group);
    /// The names of the cgroups below one.
    fn children(&self, parent: &Group) -> Result<Vec<String>, CgroupError>;
}

/// What every container needs; the freezer is a controller on v1 only.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// What some containers ask for, or only statistics need.
const OPTIONAL: [&str; 2] = ["cpuset", "io"];
const CONTROLLERS_V1: [&str; 5] = ["cpu", "cpuacct", "memory", "pids", "freezer"];

/// Finds the version that can be used here: v2 if its tree has the controllers, v1 otherwise. A hybrid host has a v2 tree
/// without controllers beside v1, and is one of v1.
///
/// # Errors
/// Neither will do: what is missing in each.
pub(crate) fn detect() -> Result<Box<dyn Hierarchy>, String> {
    let mounts = files::cgroup_mounts().map_err(|error| error.to_string())?;
    let unified = match &mounts.unified {
        None => Err("no cgroup2 filesystem is mounted".to_owned()),
        Some(root) => v2::V2::new(root.clone()),
    };
    match unified {
        Ok(hierarchy) => Ok(Box::new(hierarchy)),
        Err(unified) => match v1::V1::new(&mounts.controllers) {
            Ok(hierarchy) => Ok(Box::new(hierarchy)),
            Err(legacy) => Err(format!("cgroup v2: {unified}; cgroup v1: {legacy}")),
        },
    }
}

/// Where the devices controller of version 1 is mounted, which no container needs but those with devices.
pub(crate) fn devices_tree() -> Option<PathBuf> {
    files::cgroup_mounts().ok()?.controllers.remove("devices")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(cpus: &str, cpu_limit: Option<&str>) -> Limits {
        let parse = |text: &str| text.parse().expect("cpus");
        Limits {
            cpus: parse(cpus),
            cpu_limit: cpu_limit.map(parse),
            cpuset: None,
            memory: Bytes::mib(1),
            memory_high: None,
            pids: 1,
        }
    }

    #[test]
    fn processors_are_read_and_written_as_the_kernel_does() {
        let lists = ["0", "0-1", "0-1,3", "2,4-7,9"];
        assert_eq!(lists.map(|list| processor_list(&processors(list))), lists);
        let wants = |list| Limits { cpuset: Some(processors(list)), ..limits("1", None) }.check_cpuset("0-3");
        assert_eq!((wants("0,3"), limits("1", None).check_cpuset("0")), (Ok(()), Ok(())));
        let refused = ["", "2-4"].map(|list| wants(list).map_err(|refused| (refused.value, refused.why)));
        let why = "there are processors 0-3 here".to_owned();
        assert_eq!(refused, [Err((String::new(), why.clone())), Err(("2-4".to_owned(), why))]);
    }

    #[test]
    fn shares_and_weights_are_proportional_and_clamped() {
        let seen = ["0", "0.001", "0.1", "1", "4", "1000"].map(|cpus| {
            let limits = limits(cpus, None);
            (limits.shares(), limits.weight())
        });
        let expected = [(2, 1), (2, 1), (102, 10), (1024, 100), (4096, 400), (262_144, 10_000)];
        assert_eq!(seen, expected);
    }

    #[test]
    fn the_quota_is_microseconds_per_period_and_at_least_a_millisecond() {
        let quota = |limit| limits("1", limit).quota();
        let seen = [quota(None), quota(Some("0.001")), quota(Some("0.25")), quota(Some("2"))];
        assert_eq!(seen, [None, Some(1_000), Some(25_000), Some(200_000)]);
    }
}
