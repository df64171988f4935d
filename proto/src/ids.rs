//! One type per kind of identity. There is no conversion between kinds, and none from a bare string but by parsing.
//!
//! Not here: how ids are made. The master makes agent, framework and offer ids; a framework makes task ids.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Invalid;
use crate::text::Text;

/// Longest text id, in bytes (Mesos: 255).
pub const MAX_ID_LEN: usize = 255;

/// The rule of Mesos for ids that become file names: 1 to 255 bytes, no slash, backslash or control character, and
/// neither `.` nor `..`.
fn check(field: &'static str, text: &str) -> Result<(), Invalid> {
    let bad = text.is_empty()
        || text.len() > MAX_ID_LEN
        || text == "."
        || text == ".."
        || text.chars().any(|c| c == '/' || c == '\\' || c.is_control() || c.is_whitespace());
    if bad {
        return Err(Invalid::new(
            field,
            text,
            "1 to 255 characters without slashes, spaces or control characters",
        ));
    }
    Ok(())
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Text);

        impl $name {
            /// Parses an id.
            ///
            /// # Errors
            /// The text is empty, too long, or could not be the name of a file.
            pub fn new(text: impl AsRef<str>) -> Result<Self, Invalid> {
                check($field, text.as_ref())?;
                Ok(Self(Text::from(text.as_ref())))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = Invalid;
            fn from_str(text: &str) -> Result<Self, Invalid> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;
            fn try_from(text: String) -> Result<Self, Invalid> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.as_str().to_owned()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }
    };
}

text_id!(
    /// An agent, for as long as its work directory lives. Made by the master: `a3-12` is the 12th of its third epoch.
    AgentId,
    "agent_id"
);
text_id!(
    /// A framework, for life. Made by the master at the first subscription and stored by the framework.
    FrameworkId,
    "framework_id"
);
text_id!(
    /// A task, unique for the life of its framework, which makes it.
    TaskId,
    "task_id"
);
text_id!(
    /// Names one call of a framework, so that its reply can be matched and a repetition recognised.
    CallId,
    "call_id"
);
text_id!(
    /// Names one status update, so that exactly it is acknowledged.
    UpdateId,
    "update_id"
);
text_id!(
    /// Names an operation on reserved resources and volumes.
    OperationId,
    "operation_id"
);
text_id!(
    /// Names a persistent volume, unique on its agent.
    VolumeId,
    "volume_id"
);
text_id!(
    /// Names a CNI network in an agent's configuration.
    NetworkName,
    "network"
);
text_id!(
    /// Names a secret in an agent's directory of secrets.
    SecretName,
    "secret"
);
text_id!(
    /// Names a task group, unique for the life of its framework.
    TaskGroupId,
    "task_group_id"
);
text_id!(
    /// Who a framework or operator is, as authentication has it.
    Principal,
    "principal"
);
text_id!(
    /// The name under which an agent's machine is known; its `hostname` attribute in constraints.
    Hostname,
    "hostname"
);

/// An outstanding offer. Never reused: the upper half is the master's epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OfferId(pub u64);

impl fmt::Display for OfferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "o{}-{}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl fmt::Debug for OfferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Resources that are wanted back. Never reused: the upper half is the master's epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InverseOfferId(pub u64);

impl fmt::Display for InverseOfferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{}-{}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl fmt::Debug for InverseOfferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The incarnation of a leading master. Every stream carries it, and peers drop what comes from a lower one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u32);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
