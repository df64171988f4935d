//! What this machine has, and who it is.

use std::io;
use std::path::Path;
use std::thread::available_parallelism;

use divvy_proto::quantity::{Bytes, Cpus};
use divvy_proto::ranges::RangeSet;
use divvy_proto::resources::Resources;

const GIB: u64 = 1 << 30;

/// All that tasks may have. As in Mesos (src/slave/containerizer/containerizer.cpp), the machine keeps 1 GiB of memory and
/// 5 GiB of disk for itself, or half, if it has little.
///
/// # Errors
/// /proc or the file system of `work_dir` cannot be asked.
pub fn resources(work_dir: &Path) -> io::Result<Resources> {
    let cores = available_parallelism()?.get();
    let cpus = Cpus::from_millis(i64::try_from(cores).unwrap_or(1).saturating_mul(1000));
    let memory = spare(total_memory(&std::fs::read_to_string("/proc/meminfo")?)?, 2 * GIB, GIB);
    let disk = spare(total_disk(work_dir)?, 10 * GIB, 5 * GIB);
    Ok(Resources::new()
        .with_cpus(cpus.map_err(io::Error::other)?)
        .with_mem(bytes(memory)?)
        .with_disk(bytes(disk)?)
        .with_ports(RangeSet::range(31_000, 32_000)))
}

/// Which boot of the machine this is.
///
/// # Errors
/// /proc cannot be read.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn spare(total: u64, enough: u64, reserve: u64) -> u64 {
    if total >= enough { total - reserve } else { total / 2 }
}

fn total_memory(meminfo: &str) -> io::Result<u64> {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB"));
    let kib = kib.and_then(|number| number.trim().parse::<u64>().ok());
    kib.map(|kib| kib.saturating_mul(1024)).ok_or_else(|| io::Error::other("/proc/meminfo has no MemTotal"))
}

fn total_disk(path: &Path) -> io::Result<u64> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    Ok(stat.blocks().saturating_mul(stat.fragment_size()))
}

fn bytes(count: u64) -> io::Result<Bytes> {
    Bytes::from_bytes(i64::try_from(count).unwrap_or(i64::MAX)).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_keeps_something_for_itself() {
        let meminfo = "MemFree:   5 kB\nMemTotal:       4194304 kB\n";
        assert_eq!(total_memory(meminfo).unwrap(), 4 * GIB);
        assert_eq!([spare(4 * GIB, 2 * GIB, GIB), spare(GIB, 2 * GIB, GIB)], [3 * GIB, GIB / 2]);
        let here = resources(Path::new("/")).unwrap();
        assert!(here.cpus() > Cpus::ZERO && here.mem() > Bytes::ZERO && here.ports().count() == 1001);
    }
}
