//! Who owns what of an agent: reservations, the volumes made of them, and what of all that a task was given.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Principal, VolumeId};
use crate::quantity::Bytes;
use crate::resources::Resources;
use crate::role::RolePath;
use crate::time::Timestamp;

/// Resources set aside for a role and all below it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reservation {
    /// For whom. Not `*`.
    pub role: RolePath,
    /// Who made it, where that is known.
    #[serde(default)]
    pub principal: Option<Principal>,
    /// Free for whoever made it; two reservations with different labels do not mix.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// It stands on the agent's command line, and ends only there.
    #[serde(default)]
    pub fixed: bool,
}

/// Some of an agent's resources under their reservations, the outermost first: each refines the one before it, for a role
/// below. The innermost is the owner. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserved {
    /// Under which reservations.
    pub stack: Vec<Reservation>,
    /// How much.
    pub resources: Resources,
}

impl Reserved {
    /// The role that owns it, if the stack is as it should be.
    #[must_use]
    pub fn owner(&self) -> Option<&RolePath> {
        self.stack.last().map(|reservation| &reservation.role)
    }
}

/// Disk with an id that outlives tasks. Made from reserved disk, and owned by the role for which that is reserved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name, unique on its agent.
    pub id: VolumeId,
    /// How large.
    pub size: Bytes,
    /// The reservations of its disk, the outermost first; where the disk returns to.
    pub stack: Vec<Reservation>,
    /// Who made it, where that is known.
    #[serde(default)]
    pub principal: Option<Principal>,
    /// Since when.
    pub created: Timestamp,
}

impl Volume {
    /// The role that owns it.
    #[must_use]
    pub fn owner(&self) -> Option<&RolePath> {
        self.stack.last().map(|reservation| &reservation.role)
    }
}

/// Where a task sees a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// Which volume of its agent. It must be in the offer that the task is launched on.
    pub id: VolumeId,
    /// An absolute path in the container, or one below the sandbox.
    pub path: String,
    /// Without the right to write.
    #[serde(default)]
    pub read_only: bool,
}

/// Out of which of its agent's resources a task was given what it holds. The agent keeps it with the task and reports it,
/// so that a new master charges the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// Who is charged. Absent in what agents of an earlier version kept: then the framework's first role is.
    #[serde(default)]
    pub role: Option<RolePath>,
    /// How much of it came from reservations; the rest of the task's resources came from what is unreserved.
    #[serde(default)]
    pub reserved: Vec<Reserved>,
    /// All of it came from revocable resources.
    #[serde(default)]
    pub revocable: bool,
}
