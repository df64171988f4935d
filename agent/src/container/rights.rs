//! What an operator lets containers have beyond the default. Nothing of it is given unless a task asks for it.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use divvy_proto::Invalid;
use divvy_proto::container::{Capability, DeviceAccess};

/// The operator's word. By default: no capabilities beyond the usual ones, no devices, and user namespaces of sub-ids that hardly
/// a host uses for something else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    /// Capabilities beyond the default set that a container without a user namespace may have. With most of them root in a
    /// container is root on the host.
    pub capabilities: Vec<Capability>,
    /// Devices.
    pub devices: Vec<DeviceRule>,
    /// Whom the users of user namespaces are on the host.
    pub subids: SubIds,
}

impl Rights {
    /// Whether a container may use a device like this.
    #[must_use]
    pub fn allow(&self, access: &DeviceAccess) -> bool {
        self.devices.iter().any(|rule| rule.path == Path::new(&access.path) && (rule.write || !access.write))
    }
}

/// A device that containers may have: `/dev/fuse:rw`; to read only without `:rw`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    /// Below `/dev`.
    pub path: PathBuf,
    /// Not only to read.
    pub write: bool,
}

impl FromStr for DeviceRule {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (path, write) = match text.rsplit_once(':') {
            Some((path, "rw")) => (path, true),
            Some((path, "r")) => (path, false),
            _ => (text, false),
        };
        let plain = |part| matches!(part, Component::Normal(_) | Component::RootDir);
        let path = Path::new(path);
        let below = path.strip_prefix("/dev").is_ok_and(|name| name.components().count() > 0);
        match below && path.components().all(plain) {
            true => Ok(Self { path: path.to_owned(), write }),
            false => {
                Err(Invalid::new("device", text, "a path below /dev, then :rw or :r, such as /dev/fuse:rw"))
            }
        }
    }
}

/// Ids of the host that belong to no user of it: `1000000:65536000` is the first one and how many. Each container with a user
/// namespace gets 65,536 of them for as long as it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubIds {
    /// The lowest.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl SubIds {
    /// What a container gets: as many as images may use, since ids had 16 bits once.
    pub const EACH: u32 = 65_536;
}

impl Default for SubIds {
    /// For a thousand containers.
    fn default() -> Self {
        Self { first: 1_000_000, count: 1000 * Self::EACH }
    }
}

impl fmt::Display for SubIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.first, self.count)
    }
}

impl FromStr for SubIds {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || {
            let expected = "the first id, a colon and how many, at least 65536, such as 1000000:65536000; no id below 65536";
            Invalid::new("subuid_range", text, expected)
        };
        let (first, count) = text.split_once(':').ok_or_else(invalid)?;
        let (first, count) = (first.trim().parse().ok(), count.trim().parse().ok());
        let (Some(first), Some(count)) = (first, count) else { return Err(invalid()) };
        // The last id of all stands for none.
        let fits = u32::checked_add(first, count).is_some();
        match fits && first >= Self::EACH && count >= Self::EACH {
            true => Ok(Self { first, count }),
            false => Err(invalid()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_allowed_as_far_as_its_rule_goes() {
        let rights = Rights {
            devices: ["/dev/fuse:rw", "/dev/rtc", "/dev/net/tun:r"].map(|rule| rule.parse().unwrap()).into(),
            ..Rights::default()
        };
        let asked = [
            ("/dev/fuse", true),
            ("/dev/fuse", false),
            ("/dev/rtc", true),
            ("/dev/net/tun", false),
            ("/dev", false),
        ];
        let told = asked.map(|(path, write)| rights.allow(&DeviceAccess { path: path.to_owned(), write }));
        assert_eq!(told, [true, true, false, true, false]);
        for bad in ["", "/dev", "fuse", "/dev/../etc/passwd", "/etc/passwd:rw"] {
            assert!(bad.parse::<DeviceRule>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sub_ids_are_nobodys_and_enough_for_one_container() {
        assert_eq!("1000000:65536000".parse(), Ok(SubIds::default()));
        assert_eq!(SubIds::default().to_string(), "1000000:65536000");
        for bad in ["", "1000000", "1000000:65535", "0:65536", "4294967295:65536", "1000000:x"] {
            assert!(bad.parse::<SubIds>().is_err(), "{bad}");
        }
    }
}
