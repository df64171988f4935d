//! What a user wants of an app, as the planner knows it. Not here: how it is written in a file (`app_file`).

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use divvy_sdk::TaskSpec;
use divvy_sdk::proto::Invalid;
use serde::{Deserialize, Serialize};

/// Names an app: a DNS label, so that it can become part of a host name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AppId(String);

/// Longest app id (RFC 1035: labels have at most 63 octets).
const MAX_APP_ID: usize = 63;

impl AppId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// So that a map by id can be asked by text.
impl Borrow<str> for AppId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for AppId {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let good = (1..=MAX_APP_ID).contains(&text.len())
            && text.chars().all(|c| alphanumeric(c) || c == '-')
            && text.starts_with(alphanumeric)
            && text.ends_with(alphanumeric);
        if !good {
            let expected = "1 to 63 lower-case letters, digits and inner hyphens, such as web or shop-api";
            return Err(Invalid::new("id", text, expected));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for AppId {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<AppId> for String {
    fn from(id: AppId) -> String {
        id.0
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A number of instances, or a share of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Amount {
    /// So many.
    Count(u32),
    /// So many of a hundred.
    Percent(u32),
}

impl Amount {
    fn of(self, instances: u32, round_up: bool) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => {
                let hundredths = u64::from(instances) * u64::from(percent);
                let whole = if round_up { hundredths.div_ceil(100) } else { hundredths / 100 };
                u32::try_from(whole).unwrap_or(u32::MAX)
            }
        }
    }
}

/// `3` or `80%`.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for Amount {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid =
            || Invalid::new("", text, "a number of instances from 0 up, or a share such as \"25%\"");
        match text.trim().strip_suffix('%') {
            Some(percent) => {
                let percent = percent.trim().parse().map_err(|_| invalid())?;
                if percent > 100 { Err(invalid()) } else { Ok(Self::Percent(percent)) }
            }
            None => text.trim().parse().map(Self::Count).map_err(|_| invalid()),
        }
    }
}

/// How many instances must stay healthy while others are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Floor {
    /// All but these. A share is rounded down (Kubernetes: `maxUnavailable`).
    MaxUnavailable(Amount),
    /// These. A share is rounded up (Marathon: `minimumHealthCapacity`).
    MinHealthy(Amount),
}

/// How instances are replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdatePolicy {
    /// The floor of the healthy count; without it all but one, and the one where there is only one.
    pub floor: Option<Floor>,
    /// So many more than `instances` may run meanwhile. A share is rounded up. 1 by default.
    pub max_surge: Amount,
    /// A new instance counts once it has been healthy for so long.
    #[serde(with = "humantime_serde")]
    pub min_healthy_time: Duration,
    /// A deployment that gets no further for so long has failed (Nomad, Kubernetes: 10 min).
    #[serde(with = "humantime_serde")]
    pub progress_deadline: Duration,
    /// From withdrawing an endpoint to telling its task to stop.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
}

impl Default for UpdatePolicy {
    fn default() -> Self {
        Self {
            floor: None,
            max_surge: Amount::Count(1),
            min_healthy_time: Duration::from_secs(2),
            progress_deadline: Duration::from_secs(600),
            drain: Duration::from_secs(1),
        }
    }
}

impl UpdatePolicy {
    /// The old instance stops before the new one starts: for what both cannot have at a time, such as a volume.
    #[must_use]
    pub fn one_after_the_other() -> Self {
        let floor = Some(Floor::MaxUnavailable(Amount::Count(1)));
        Self { floor, max_surge: Amount::Count(0), ..Self::default() }
    }

    /// So many of `instances` must stay healthy.
    #[must_use]
    pub fn min_healthy(&self, instances: u32) -> u32 {
        match self.floor {
            None if instances <= 1 => instances,
            None => instances - 1,
            Some(Floor::MaxUnavailable(amount)) => instances.saturating_sub(amount.of(instances, false)),
            Some(Floor::MinHealthy(amount)) => amount.of(instances, true).min(instances),
        }
    }

    /// So many may run at once.
    #[must_use]
    pub fn max_total(&self, instances: u32) -> u32 {
        instances.saturating_add(self.max_surge.of(instances, true))
    }

    /// # Errors
    /// Nothing could ever be replaced: none may be missing, and none may be added.
    pub fn check(&self, instances: u32) -> Result<(), Invalid> {
        if instances > 0 && self.min_healthy(instances) == instances && self.max_total(instances) == instances
        {
            return Err(Invalid::new(
                "update.max_surge",
                self.max_surge,
                format!(
                    "at least 1, as all {instances} instances must stay healthy and could not be replaced"
                ),
            ));
        }
        Ok(())
    }
}

/// Most instances of one app (Nomad caps a job's count at 50,000).
pub const MAX_INSTANCES: u32 = 50_000;

/// An app as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppSpec {
    /// Its name.
    pub id: AppId,
    /// How many tasks are to run.
    pub instances: u32,
    /// What each of them is. A change of it is a new version.
    pub task: TaskSpec,
    /// How they are replaced.
    pub update: UpdatePolicy,
    /// A task on an agent that does not answer is replaced after so long (Marathon: `inactiveAfterSeconds`, 0).
    #[serde(with = "humantime_serde")]
    pub replace_unreachable_after: Duration,
}

/// Labels with this prefix are the planner's own.
pub const LABEL_PREFIX: &str = "divvy.";

impl AppSpec {
    /// An app with the defaults for all but what must be said.
    #[must_use]
    pub fn new(id: AppId, instances: u32, task: TaskSpec) -> Self {
        let update = UpdatePolicy::default();
        Self {
            task: task.named(id.as_str()),
            id,
            instances,
            update,
            replace_unreachable_after: Duration::ZERO,
        }
    }

    /// # Errors
    /// Too many instances, an update that could never proceed, or a label that is the planner's.
    pub fn check(&self) -> Result<(), Invalid> {
        if self.instances > MAX_INSTANCES {
            return Err(Invalid::new("instances", self.instances, format!("at most {MAX_INSTANCES}")));
        }
        if let Some(label) = self.task.labels.keys().find(|label| label.starts_with(LABEL_PREFIX)) {
            return Err(Invalid::new("task.labels", label, "labels that do not begin with divvy."));
        }
        if self.instances > 1 && !self.task.volumes.is_empty() {
            let expected = "at most 1 beside task.volumes, as a volume is used by one task at a time";
            return Err(Invalid::new("instances", self.instances, expected));
        }
        self.update.check(self.instances)
    }
}
