//! Rights and limits of processes, by the names that manuals give them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Invalid;

macro_rules! text_form {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = Invalid;
            fn try_from(text: String) -> Result<Self, Invalid> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    };
}

/// In the order of their numbers: capabilities(7).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A right of root that can be had by itself: `NET_ADMIN`. A leading `CAP_` is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Capability(u8);

impl Capability {
    /// The kernel's number of it.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// All that there are.
    pub fn all() -> impl Iterator<Item = Self> {
        (0_u8..).zip(CAPABILITIES).map(|(number, _)| Self(number))
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(CAPABILITIES.get(usize::from(self.0)).copied().unwrap_or_default())
    }
}

impl FromStr for Capability {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let known = (0_u8..).zip(CAPABILITIES).find(|(_, known)| *known == name);
        known.map(|(number, _)| Self(number)).ok_or_else(|| {
            Invalid::new("capability", text, "a capability such as NET_BIND_SERVICE; see capabilities(7)")
        })
    }
}

text_form!(Capability);

/// In the order of their numbers on x86-64 and aarch64: getrlimit(2).
const RLIMITS: [&str; 16] = [
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "locks",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
];

/// What a limit is on: `nofile`. A leading `RLIMIT_` is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RlimitKind(u8);

impl RlimitKind {
    /// The kernel's number of it.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for RlimitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(RLIMITS.get(usize::from(self.0)).copied().unwrap_or_default())
    }
}

impl FromStr for RlimitKind {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let lower = text.to_ascii_lowercase();
        let name = lower.strip_prefix("rlimit_").unwrap_or(&lower);
        let known = (0_u8..).zip(RLIMITS).find(|(_, known)| *known == name);
        known
            .map(|(number, _)| Self(number))
            .ok_or_else(|| Invalid::new("rlimit", text, "a limit such as nofile; see getrlimit(2)"))
    }
}

text_form!(RlimitKind);

/// A limit of each process of a container, in the unit of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// On what.
    pub kind: RlimitKind,
    /// The limit in force; `None` is none.
    pub soft: Option<u64>,
    /// As far as the process may raise it; `None` is none.
    pub hard: Option<u64>,
}

/// From 1 to 31, in the order of their numbers on x86-64 and aarch64: signal(7).
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// glibc keeps two of the kernel's real-time signals, which begin at 32, for itself.
const RTMIN: i32 = 34;

/// A signal: `SIGTERM`, `TERM`, `15` or `SIGRTMIN+3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StopSignal(i32);

impl StopSignal {
    /// Asks a process to end.
    pub const TERM: Self = Self(15);

    /// The kernel's number of it, from 1 to 64.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0
    }
}

impl Default for StopSignal {
    fn default() -> Self {
        Self::TERM
    }
}

impl fmt::Display for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = usize::try_from(self.0 - 1).ok().and_then(|at| SIGNALS.get(at));
        match named {
            Some(name) => write!(f, "SIG{name}"),
            None => write!(f, "SIGRTMIN+{}", self.0 - RTMIN),
        }
    }
}

impl FromStr for StopSignal {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let named = || (1..).zip(SIGNALS).find(|(_, known)| *known == name).map(|(number, _)| number);
        let real_time = || match name.strip_prefix("RTMIN")? {
            "" => Some(RTMIN),
            rest => rest.strip_prefix('+')?.parse::<i32>().ok().map(|more| RTMIN.saturating_add(more)),
        };
        let number = text.parse::<i32>().ok().or_else(named).or_else(real_time);
        let is_one = |number: &i32| (1..=31).contains(number) || (RTMIN..=64).contains(number);
        let expected = "a signal such as SIGTERM, SIGRTMIN+3 or 15";
        number.filter(is_one).map(Self).ok_or_else(|| Invalid::new("signal", text, expected))
    }
}

text_form!(StopSignal);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_manuals() {
        let capability = |text: &str| text.parse::<Capability>().map(|it| (it.number(), it.to_string()));
        assert_eq!(capability("CAP_NET_ADMIN"), Ok((12, "NET_ADMIN".to_owned())));
        assert_eq!(capability("checkpoint_restore"), Ok((40, "CHECKPOINT_RESTORE".to_owned())));
        let limit = |text: &str| text.parse::<RlimitKind>().map(|it| (it.number(), it.to_string()));
        assert_eq!(limit("RLIMIT_NOFILE"), Ok((7, "nofile".to_owned())));
        let signal = |text: &str| text.parse::<StopSignal>().map(|it| (it.number(), it.to_string()));
        assert_eq!(signal("quit"), Ok((3, "SIGQUIT".to_owned())));
        assert_eq!(signal("SIGRTMIN+3"), Ok((37, "SIGRTMIN+3".to_owned())));
        assert_eq!(signal("15"), signal("SIGTERM"));
        for text in ["0", "32", "65", "SIGNOT", "SIGRTMIN+31", ""] {
            assert!(signal(text).is_err(), "{text}");
        }
    }
}
