//! Whether an agent could run a task at all, whatever it is offered.

use std::collections::BTreeSet;

use divvy_proto::Invalid;
use divvy_proto::ranges::RangeSet;
use divvy_proto::reservation::VolumeMount;
use divvy_proto::task::{Command, Probe, TaskInfo};

/// # Errors
/// Which field no agent could do anything with.
pub(super) fn check_task(task: &TaskInfo) -> Result<(), Invalid> {
    if task.resources.scalars().next().is_none() {
        return Err(Invalid::new("resources", &task.resources, "some cpus or mem"));
    }
    if matches!(&task.command, Command::Exec(argv) if argv.is_empty()) {
        return Err(Invalid::missing("command", "a program and its arguments"));
    }
    let owns = |port: u16| task.resources.ports().contains(&RangeSet::range(port.into(), port.into()));
    let mut names = BTreeSet::new();
    for port in &task.ports {
        if !names.insert(&port.name) {
            return Err(Invalid::new("ports", &port.name, "each name once"));
        }
        if !owns(port.number) {
            return Err(Invalid::new("ports", port.number, "a port that is among the task's resources"));
        }
    }
    for check in &task.health {
        if let Probe::Http { port, .. }
        | Probe::Https { port, .. }
        | Probe::Grpc { port, .. }
        | Probe::Tcp { port } = check.probe
            && !owns(port)
        {
            return Err(Invalid::new("health", port, "a port that is among the task's resources"));
        }
        if check.failures == 0 {
            return Err(Invalid::new("health.failures", 0, "at least 1"));
        }
    }
    check_mounts(&task.volumes)
}

fn check_mounts(mounts: &[VolumeMount]) -> Result<(), Invalid> {
    let (mut ids, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for (nth, mount) in mounts.iter().enumerate() {
        let field = |name: &str| format!("volumes[{nth}].{name}");
        if !ids.insert(&mount.id) {
            return Err(Invalid::new(field("id"), &mount.id, "each volume once"));
        }
        let leads_out = mount.path.split('/').any(|part| part == "..");
        if mount.path.trim_matches('/').is_empty() || leads_out || mount.path.contains('\0') {
            let expected = "an absolute path other than `/`, or one below the sandbox, without `..`";
            return Err(Invalid::new(field("path"), &mount.path, expected));
        }
        if !paths.insert(mount.path.trim_end_matches('/')) {
            return Err(Invalid::new(field("path"), &mount.path, "each path once"));
        }
    }
    Ok(())
}
