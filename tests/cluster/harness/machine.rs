//! What a cluster leaves on the machine, as the kernel tells it: processes, mounts and cgroups.
//!
//! Namespaces are not counted: each lives by its processes and mounts alone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait_until;

/// Everything on this machine that belongs to one directory, and the cgroups of the agents in it.
pub struct Footprint {
    dir: PathBuf,
    /// Cgroups of agents, relative to the root of each hierarchy.
    groups: Vec<PathBuf>,
}

impl Footprint {
    /// What names this directory.
    pub fn of_dir(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), groups: Vec::new() }
    }

    /// What an agent with this work directory and hostname has made.
    pub fn of_agent(work_dir: &Path, hostname: &str) -> Self {
        let mut footprint = Self::of_dir(work_dir);
        footprint.add_agent(work_dir, hostname);
        footprint
    }

    /// Adds the cgroup of an agent: its name is made of the hostname and a digest of the work directory.
    pub fn add_agent(&mut self, work_dir: &Path, hostname: &str) {
        let path = work_dir.canonicalize().unwrap_or_else(|_| work_dir.to_owned());
        let path = path.to_str().expect("a path in UTF-8");
        let digest = Command::new("sh")
            .args(["-c", "printf %s \"$0\" | sha256sum", path])
            .output()
            .expect("sha256sum");
        let digest = String::from_utf8_lossy(&digest.stdout).chars().take(8).collect::<String>();
        self.groups.push(Path::new("divvy").join(format!("{hostname}-{digest}")));
    }

    /// Cgroups that are there.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let paths =
            cgroup_trees().into_iter().flat_map(|tree| self.groups.iter().map(move |group| tree.join(group)));
        paths.filter(|path| path.exists()).collect()
    }

    /// All there is, for people.
    pub fn list(&self) -> Vec<String> {
        let name = self.dir.to_string_lossy();
        let processes =
            self.processes().into_iter().map(|pid| format!("process {pid}: {}", command_line(pid)));
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let mounts = mounts.lines().filter(|line| line.contains(&*name)).map(|line| format!("mount {line}"));
        let cgroups = self.cgroups().into_iter().map(|path| format!("cgroup {}", path.display()));
        processes.chain(mounts).chain(cgroups).collect()
    }

    /// Those that have the directory in their arguments or environment, and those in the cgroups. Not this one.
    fn processes(&self) -> BTreeSet<i32> {
        let name = self.dir.to_string_lossy().into_owned();
        let mentions = |pid: &i32| {
            let read = |file| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            [read("cmdline"), read("environ")]
                .iter()
                .any(|bytes| String::from_utf8_lossy(bytes).contains(&name))
        };
        let own = i32::try_from(std::process::id()).expect("a pid");
        let named = processes().filter(mentions).filter(|pid| *pid != own);
        let members = self.cgroups().into_iter().flat_map(|path| members(&path));
        named.chain(members).filter(|pid| is_alive(*pid)).collect()
    }

    /// Kills all processes at once and waits for their end. Children of this process are reaped elsewhere.
    pub fn kill_processes(&self) {
        wait_until("the end of processes that were killed", Duration::from_secs(20), || {
            // What is frozen does not die.
            for frozen in self.cgroups().into_iter().flat_map(|path| with_children(&path)) {
                let _ = fs::write(frozen.join("freezer.state"), "THAWED");
                let _ = fs::write(frozen.join("cgroup.freeze"), "0");
            }
            let left = self.processes();
            for pid in &left {
                // An error means that it has ended.
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            left.is_empty()
        });
    }

    /// Kills all processes and removes the cgroups.
    pub fn remove(&self) {
        self.kill_processes();
        for path in self.cgroups() {
            let mut groups = with_children(&path);
            groups.reverse();
            // What cannot be removed is counted later.
            groups.iter().for_each(|group| drop(fs::remove_dir(group)));
        }
    }
}

/// Whether a process exists and has not ended; a zombie has.
pub fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which is in parentheses and may hold anything.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn command_line(pid: i32) -> String {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&text).replace('\0', " ")
}

/// Processes of a cgroup and of those below it.
fn members(group: &Path) -> Vec<i32> {
    let lists = with_children(group).into_iter().map(|path| fs::read_to_string(path.join("cgroup.procs")));
    lists
        .flatten()
        .flat_map(|list| list.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// A directory and all below it, parents first.
fn with_children(path: &Path) -> Vec<PathBuf> {
    let below = directories(path);
    [path.to_owned()].into_iter().chain(below.iter().flat_map(|path| with_children(path))).collect()
}

/// The directories in a directory; none if it is not there.
pub fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// The roots of all cgroup trees: `/sys/fs/cgroup` itself where that is version 2, else what is mounted below it.
fn cgroup_trees() -> Vec<PathBuf> {
    let root = PathBuf::from("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() { vec![root] } else { directories(&root) }
}
