//! What a framework wants: shapes, how many of each, where, and whether all together or none.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::amounts::Amounts;
use crate::predicate::Predicate;
use crate::quantity::{Bytes, Cpus};
use crate::resources::Resources;

/// The least processor time that is worth an offer by itself: who demands less than this and less than [`LEAST_MEM`] is refused, and
/// a classic offer has more of one of them (Mesos: `--min_allocatable_resources`).
pub const LEAST_CPUS: Cpus = Cpus::thousandths(10);
/// The least memory that is worth an offer by itself.
pub const LEAST_MEM: Bytes = Bytes::mib(32);

/// All that a framework wants in one role, beyond what it has accepted. What is on offer to it and unanswered counts towards
/// it. A new demand replaces the old one; an empty one wants nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demand {
    /// The shapes, each by its own name.
    pub shapes: Vec<DemandShape>,
    /// All counts of all shapes together, or nothing.
    #[serde(default)]
    pub gang: Option<Gang>,
}

/// One shape that a framework wants, how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DemandShape {
    /// Its name, unique in the demand; offers for it carry it.
    pub name: String,
    /// How large. Ports in it are wanted by number.
    pub resources: Resources,
    /// So many ports more, whichever.
    #[serde(default)]
    pub ports: u16,
    /// How many.
    pub count: u32,
    /// On which agents; on any if absent.
    #[serde(default)]
    pub constraint: Option<Predicate>,
    /// On which of those first.
    #[serde(default)]
    pub preference: Preference,
}

impl DemandShape {
    /// What one of it needs, ports counted.
    #[must_use]
    pub fn amounts(&self) -> Amounts {
        let all = Amounts::from(&self.resources);
        let ports = all.get(crate::amounts::PORTS).unwrap_or_default() + i64::from(self.ports);
        match ports {
            0 => all,
            _ => all.with(crate::amounts::PORTS, ports).unwrap_or_default(),
        }
    }
}

/// Which of the agents that fit comes first. The framework still sees an offer, and decides.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preference {
    /// The one that has been known the longest.
    #[default]
    None,
    /// The one that has the least left.
    Pack,
    /// One whose value of this attribute holds the fewest of the framework's tasks and offers in this role; `hostname` is an
    /// attribute.
    Spread(String),
}

/// All or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gang {
    /// How long the kernel may hold what it has gathered while it waits for the rest: 1 s to an hour.
    #[serde(with = "humantime_serde")]
    pub hold: Duration,
}

/// For which demand an offer was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedDemand {
    /// The shape's name.
    pub shape: String,
    /// How many of it the offer holds.
    pub count: u32,
    /// The offers of one gang carry one number, and come in one event.
    #[serde(default)]
    pub gang: Option<u64>,
}
