//! How a task's container differs from the default.

use super::{field, limits, resources};
use crate::container::{ContainerInfo, DeviceAccess, GroupMember, Mount, Network, Rlimit, SecretFile};
use crate::error::Invalid;
use crate::pb;
use crate::quantity::Bytes;
use crate::ranges::RangeSet;

impl From<ContainerInfo> for pb::ContainerInfo {
    fn from(container: ContainerInfo) -> Self {
        let names = |all: Vec<crate::container::Capability>| all.iter().map(ToString::to_string).collect();
        Self {
            image: container.image.map(Into::into),
            args: container.args,
            workdir: container.workdir,
            network: container.network.into(),
            read_only: container.read_only,
            mounts: field::to_list(container.mounts),
            secrets: field::to_list(container.secrets),
            groups: container.groups,
            add_capabilities: names(container.add_capabilities),
            drop_capabilities: names(container.drop_capabilities),
            rlimits: field::to_list(container.rlimits),
            user_namespace: container.user_namespace,
            devices: field::to_list(container.devices),
            shm_bytes: container.shm.map(Bytes::bytes),
            cpuset: container.cpuset.map(|set| resources::from_ranges(&set)).unwrap_or_default(),
            memory_high_bytes: container.memory_high.map(Bytes::bytes),
            stop_signal: container.stop_signal.map(Into::into),
            group: container.group.map(Into::into),
        }
    }
}

impl TryFrom<pb::ContainerInfo> for ContainerInfo {
    type Error = Invalid;
    fn try_from(wire: pb::ContainerInfo) -> Result<Self, Invalid> {
        let mounts: Vec<Mount> = field::list("mounts", wire.mounts, limits::MOUNTS)?;
        field::each_once("mounts", &mounts.iter().map(Mount::path).collect::<Vec<_>>())?;
        Ok(Self {
            image: field::parsed_opt("image", wire.image.as_ref())?,
            args: arguments(wire.args)?,
            workdir: wire.workdir.map(|path| absolute("workdir", path)).transpose()?,
            network: if wire.network.is_empty() { Network::Host } else { wire.network.parse()? },
            read_only: wire.read_only,
            mounts,
            secrets: field::list("secrets", wire.secrets, limits::MOUNTS)?,
            groups: groups(wire.groups)?,
            add_capabilities: field::parsed_list(
                "add_capabilities",
                &wire.add_capabilities,
                limits::CAPABILITIES,
            )?,
            drop_capabilities: field::parsed_list(
                "drop_capabilities",
                &wire.drop_capabilities,
                limits::CAPABILITIES,
            )?,
            rlimits: rlimits(wire.rlimits)?,
            user_namespace: wire.user_namespace,
            devices: field::list("devices", wire.devices, limits::MOUNTS)?,
            shm: some_bytes("shm", wire.shm_bytes)?,
            cpuset: cpuset(wire.cpuset)?,
            memory_high: some_bytes("memory_high", wire.memory_high_bytes)?,
            stop_signal: field::parsed_opt("stop_signal", wire.stop_signal.as_ref())?,
            group: wire.group.map(|group| field::inner("group", group)).transpose()?,
        })
    }
}

fn some_bytes(name: &str, bytes: Option<i64>) -> Result<Option<Bytes>, Invalid> {
    match bytes {
        Some(0) => Err(Invalid::new(name, 0, "more than nothing")),
        bytes => bytes.map(|bytes| field::bytes(name, bytes)).transpose(),
    }
}

fn cpuset(wire: Vec<pb::Range>) -> Result<Option<RangeSet>, Invalid> {
    let set = resources::to_ranges("cpuset", wire)?;
    Ok((!set.is_empty()).then_some(set))
}

fn arguments(args: Vec<String>) -> Result<Vec<String>, Invalid> {
    field::at_most("args", args.len(), limits::ARGUMENTS)?;
    match args.iter().position(|argument| argument.contains('\0')) {
        Some(i) => Err(Invalid::new(format!("args[{i}]"), "", "an argument without zero bytes")),
        None => Ok(args),
    }
}

fn groups(groups: Vec<String>) -> Result<Vec<String>, Invalid> {
    field::at_most("groups", groups.len(), limits::GROUPS)?;
    let filled = |(i, group)| field::filled(&format!("groups[{i}]"), group, limits::NAME);
    groups.into_iter().enumerate().map(filled).collect()
}

fn rlimits(wire: Vec<pb::Rlimit>) -> Result<Vec<Rlimit>, Invalid> {
    let rlimits: Vec<Rlimit> = field::list("rlimits", wire, limits::RLIMITS)?;
    field::each_once("rlimits", &rlimits.iter().map(|rlimit| rlimit.kind.to_string()).collect::<Vec<_>>())?;
    Ok(rlimits)
}

/// Below the root, and without a way out of where it leads.
pub(super) fn absolute(name: &str, path: String) -> Result<String, Invalid> {
    let fine = |part: &str| !part.is_empty() && part != "." && part != "..";
    let is_fine = path == "/" || path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(fine));
    match is_fine && !path.contains('\0') {
        true => field::text(name, path, limits::URL),
        false => Err(Invalid::new(name, path, "an absolute path without `.`, `..` or doubled slashes")),
    }
}

impl From<Mount> for pb::Mount {
    fn from(mount: Mount) -> Self {
        use pb::mount::Source;
        let (path, source, read_only) = match mount {
            Mount::Host { source, path, read_only } => (path, Source::Host(source), read_only),
            Mount::Tmpfs { path, size } => (path, Source::TmpfsBytes(size.bytes()), false),
            Mount::Sandbox { source, path, read_only } => (path, Source::Sandbox(source), read_only),
        };
        Self { path, source: Some(source), read_only }
    }
}

impl TryFrom<pb::Mount> for Mount {
    type Error = Invalid;
    fn try_from(wire: pb::Mount) -> Result<Self, Invalid> {
        use pb::mount::Source;
        let (path, read_only) = (absolute("path", wire.path)?, wire.read_only);
        if path == "/" {
            return Err(Invalid::new("path", path, "a path below the root"));
        }
        match field::required("source", wire.source)? {
            Source::Host(source) => Ok(Self::Host { source: absolute("host", source)?, path, read_only }),
            Source::TmpfsBytes(_) if read_only => {
                Err(Invalid::new("read_only", true, "false for an empty file system"))
            }
            Source::TmpfsBytes(size) => {
                let size = some_bytes("tmpfs", Some(size))?.unwrap_or_default();
                Ok(Self::Tmpfs { path, size })
            }
            Source::Sandbox(source) => {
                let whole = absolute("sandbox", format!("/{source}"))?;
                let source = whole.strip_prefix('/').unwrap_or_default().to_owned();
                Ok(Self::Sandbox { source, path, read_only })
            }
        }
    }
}

impl From<SecretFile> for pb::SecretFile {
    fn from(secret: SecretFile) -> Self {
        Self { name: secret.name.into(), path: secret.path }
    }
}

impl TryFrom<pb::SecretFile> for SecretFile {
    type Error = Invalid;
    fn try_from(wire: pb::SecretFile) -> Result<Self, Invalid> {
        Ok(Self {
            name: field::parsed("name", &wire.name)?,
            path: wire.path.map(|path| absolute("path", path)).transpose()?,
        })
    }
}

impl From<Rlimit> for pb::Rlimit {
    fn from(rlimit: Rlimit) -> Self {
        Self { kind: rlimit.kind.into(), soft: rlimit.soft, hard: rlimit.hard }
    }
}

impl TryFrom<pb::Rlimit> for Rlimit {
    type Error = Invalid;
    fn try_from(wire: pb::Rlimit) -> Result<Self, Invalid> {
        let (soft, hard) = (wire.soft, wire.hard);
        match (soft.unwrap_or(u64::MAX)) > hard.unwrap_or(u64::MAX) {
            true => Err(Invalid::new("soft", soft.unwrap_or(u64::MAX), "at most `hard`")),
            false => Ok(Self { kind: field::parsed("kind", &wire.kind)?, soft, hard }),
        }
    }
}

impl From<DeviceAccess> for pb::DeviceAccess {
    fn from(device: DeviceAccess) -> Self {
        Self { path: device.path, write: device.write }
    }
}

impl TryFrom<pb::DeviceAccess> for DeviceAccess {
    type Error = Invalid;
    fn try_from(wire: pb::DeviceAccess) -> Result<Self, Invalid> {
        let path = absolute("path", wire.path)?;
        match path.starts_with("/dev/") {
            true => Ok(Self { path, write: wire.write }),
            false => Err(Invalid::new("path", path, "a path below /dev")),
        }
    }
}

impl From<GroupMember> for pb::GroupMember {
    fn from(group: GroupMember) -> Self {
        Self { id: group.id.into(), size: group.size, ends_alone: group.ends_alone }
    }
}

impl TryFrom<pb::GroupMember> for GroupMember {
    type Error = Invalid;
    fn try_from(wire: pb::GroupMember) -> Result<Self, Invalid> {
        match wire.size {
            0 => Err(Invalid::new("size", 0, "at least 1")),
            size => Ok(Self { id: field::parsed("id", &wire.id)?, size, ends_alone: wire.ends_alone }),
        }
    }
}
