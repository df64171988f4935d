//! The part of the `[task]` table that says how its container differs from the default.

use divvy_proto::Invalid;
use divvy_proto::container::{Capability, ContainerInfo, DeviceAccess, Mount, Rlimit, SecretFile};
use divvy_proto::ids::SecretName;
use divvy_proto::quantity::Bytes;
use divvy_proto::ranges::RangeSet;
use serde::{Deserialize, Serialize};

use super::table::{TaskTable, each};

/// Something at a path: one of `host`, `tmpfs` and `sandbox`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountTable {
    /// Where the container sees it: an absolute path.
    pub path: String,
    /// A path of the agent's machine, which its operator has to have allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// An empty file system in memory of this size, charged to the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tmpfs: Option<Bytes>,
    /// A path below the sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// Without the right to write: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

/// A secret of the agent's directory of secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretTable {
    /// Its name.
    pub name: SecretName,
    /// Where the container sees it: `/run/secrets/<name>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// What differs from the default set. `drop = ["ALL"]` drops all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapabilityTable {
    /// Beyond the default set: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<String>,
    /// Out of the default set: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
}

/// `1024`, `"unlimited"`, or `{ soft = 1024, hard = 4096 }`, where what is left out is unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RlimitValue {
    /// Both.
    Number(u64),
    /// `unlimited`.
    Word(String),
    /// Each.
    Two {
        /// In force.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        soft: Option<u64>,
        /// As far as a process may raise it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hard: Option<u64>,
    },
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceTable {
    /// Below `/dev`.
    pub path: String,
    /// Not only to read: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub write: bool,
}

/// What the table says of the container; nothing if that is the default.
pub(super) fn container(table: &TaskTable) -> Result<Option<ContainerInfo>, Invalid> {
    let (add_capabilities, drop_capabilities) = capabilities(table)?;
    let info = ContainerInfo {
        image: table.image.clone(),
        args: table.args.clone(),
        workdir: table.workdir.as_ref().map(|path| absolute("workdir", path)).transpose()?,
        network: table.network.clone().unwrap_or_default(),
        read_only: table.readonly,
        mounts: each("mounts", table.mounts.clone(), mount)?,
        secrets: each("secrets", table.secrets.clone(), secret)?,
        groups: table.groups.clone(),
        add_capabilities,
        drop_capabilities,
        rlimits: rlimits(table)?,
        user_namespace: table.user_namespace,
        devices: each("devices", table.devices.clone(), device)?,
        shm: some("shm", table.shm)?,
        cpuset: table.cpuset.as_deref().map(cpuset).transpose()?,
        memory_high: some("memory_high", table.memory_high)?,
        stop_signal: table.stop_signal,
        group: None,
    };
    Ok((info != ContainerInfo::default()).then_some(info))
}

fn capabilities(table: &TaskTable) -> Result<(Vec<Capability>, Vec<Capability>), Invalid> {
    let lists = table.capabilities.clone().unwrap_or_default();
    let parse =
        |field: &str, names: Vec<String>| match names.iter().any(|name| name.eq_ignore_ascii_case("all")) {
            true => Ok(Capability::all().collect()),
            false => each(field, names, |name| {
                name.parse().map_err(|invalid: Invalid| Invalid { field: String::new(), ..invalid })
            }),
        };
    Ok((parse("capabilities.add", lists.add)?, parse("capabilities.drop", lists.drop)?))
}

fn rlimits(table: &TaskTable) -> Result<Vec<Rlimit>, Invalid> {
    let rlimit = |(kind, value): (&_, &RlimitValue)| {
        let (soft, hard) = match value {
            RlimitValue::Number(number) => (Some(*number), Some(*number)),
            RlimitValue::Word(word) if word == "unlimited" => (None, None),
            RlimitValue::Word(word) => {
                let expected = "a number, \"unlimited\", or { soft = …, hard = … }";
                return Err(Invalid::new(format!("rlimits.{kind}"), word, expected));
            }
            RlimitValue::Two { soft, hard } => (*soft, *hard),
        };
        match soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
            true => {
                Err(Invalid::new(format!("rlimits.{kind}.soft"), soft.unwrap_or(u64::MAX), "at most `hard`"))
            }
            false => Ok(Rlimit { kind: *kind, soft, hard }),
        }
    };
    table.rlimits.iter().map(rlimit).collect()
}

fn some(field: &str, bytes: Option<Bytes>) -> Result<Option<Bytes>, Invalid> {
    match bytes {
        Some(Bytes::ZERO) => Err(Invalid::new(field, 0, "more than nothing")),
        bytes => Ok(bytes),
    }
}

fn cpuset(text: &str) -> Result<RangeSet, Invalid> {
    let set = format!("[{text}]").parse::<RangeSet>().ok().filter(|set| !set.is_empty());
    set.ok_or_else(|| Invalid::new("cpuset", text, "numbers of processors, such as 0-1,4"))
}

fn absolute(field: &str, path: &str) -> Result<String, Invalid> {
    let fine = |part: &str| !part.is_empty() && part != "." && part != "..";
    match path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(fine)) && !path.contains('\0') {
        true => Ok(path.to_owned()),
        false => Err(Invalid::new(field, path, "an absolute path without `.` and `..`")),
    }
}

fn mount(table: MountTable) -> Result<Mount, Invalid> {
    let MountTable { path, host, tmpfs, sandbox, read_only } = table;
    let path = absolute("path", &path)?;
    match (host, tmpfs, sandbox) {
        (Some(host), None, None) => Ok(Mount::Host { source: absolute("host", &host)?, path, read_only }),
        (None, Some(_), None) if read_only => {
            Err(Invalid::new("read_only", true, "false for an empty file system"))
        }
        (None, Some(size), None) => {
            let size = some("tmpfs", Some(size))?.unwrap_or_default();
            Ok(Mount::Tmpfs { path, size })
        }
        (None, None, Some(source)) => {
            absolute("sandbox", &format!("/{source}"))
                .map_err(|_| Invalid::new("sandbox", &source, "a path below the sandbox, without `..`"))?;
            Ok(Mount::Sandbox { source, path, read_only })
        }
        _ => Err(Invalid::missing("", "exactly one of `host`, `tmpfs` and `sandbox`")),
    }
}

fn secret(table: SecretTable) -> Result<SecretFile, Invalid> {
    let path = table.path.map(|path| absolute("path", &path)).transpose()?;
    Ok(SecretFile { name: table.name, path })
}

fn device(table: DeviceTable) -> Result<DeviceAccess, Invalid> {
    let path = absolute("path", &table.path)?;
    match path.starts_with("/dev/") {
        true => Ok(DeviceAccess { path, write: table.write }),
        false => Err(Invalid::new("path", path, "a path below /dev")),
    }
}
