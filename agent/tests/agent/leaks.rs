//! The count of what an agent has on its machine, beside the sandboxes of ended tasks.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::World;

/// Processes, mounts, cgroups, interfaces, and files, among them leases of addresses. Equal before and after, or something has been left.
pub(crate) fn census(world: &World) -> Vec<String> {
    let mark = world.beside().to_str().unwrap();
    let mut seen: Vec<String> = processes().filter_map(|pid| belongs(&pid, mark)).collect();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    seen.extend(mounts.lines().filter(|line| line.contains(mark)).map(|line| format!("mount {line}")));
    let mut groups = Vec::new();
    below(Path::new("/sys/fs/cgroup"), &|path| path.is_dir(), &mut groups);
    seen.extend(
        groups.iter().map(|path| path.display().to_string()).filter(|path| path.contains(&world.name)),
    );
    // Where the bridge's addresses were given out last is kept, for the next to be others.
    let counted = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name != "sandboxes" && !name.starts_with("last_reserved")
    };
    let mut files = Vec::new();
    below(world.beside(), &counted, &mut files);
    let bridge = crate::network::config(&world.work_dir()).bridge;
    below(&Path::new("/sys/class/net").join(bridge).join("brif"), &|_| true, &mut files);
    seen.extend(files.iter().map(|path| path.display().to_string()));
    seen.sort();
    seen
}

/// A process whose command line or environment says so, or that sees the agent's files in a mount namespace of its own.
fn belongs(pid: &str, mark: &str) -> Option<String> {
    let process = Path::new("/proc").join(pid);
    let says =
        |file: &str| String::from_utf8_lossy(&fs::read(process.join(file)).unwrap_or_default()).into_owned();
    let elsewhere = fs::read_link(process.join("ns/mnt")).ok() != fs::read_link("/proc/self/ns/mnt").ok();
    let ours = says("cmdline").contains(mark)
        || says("environ").contains(mark)
        || (elsewhere && says("mountinfo").contains(mark));
    ours.then(|| format!("process {pid}: {}", says("cmdline").replace('\0', " ")))
}

fn processes() -> impl Iterator<Item = String> {
    let names = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.into_string().ok().filter(|name| name.parse::<u32>().is_ok()))
}

fn below(directory: &Path, wanted: &dyn Fn(&Path) -> bool, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if !wanted(&path) {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below(&path, wanted, found);
        }
        found.push(path);
    }
}
