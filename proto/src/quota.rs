//! What a role may count on, what it may not exceed, and how much it weighs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::amounts::Amounts;
use crate::error::Invalid;
use crate::quantity;
use crate::resources::Resources;

/// How much a role counts among its siblings, in thousandths; 1 (1000 thousandths) unless somebody says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u32);

impl Weight {
    /// From thousandths.
    ///
    /// # Errors
    /// It is zero, or more than a million.
    pub fn from_thousandths(thousandths: u32) -> Result<Self, Invalid> {
        match thousandths {
            1..=1_000_000_000 => Ok(Self(thousandths)),
            _ => Err(Invalid::new("weight", quantity::show_thousandths(thousandths.into()), EXPECTED)),
        }
    }

    /// Thousandths; never zero.
    #[must_use]
    pub const fn thousandths(self) -> u32 {
        self.0
    }
}

const EXPECTED: &str = "a number from 0.001 to 1000000, such as 2.5";

impl Default for Weight {
    fn default() -> Self {
        Self(1000)
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&quantity::show_thousandths(self.0.into()))
    }
}

impl FromStr for Weight {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("weight", text, EXPECTED);
        let thousandths = quantity::parse_thousandths("weight", text).map_err(|_| invalid())?;
        u32::try_from(thousandths)
            .map_err(|_| invalid())
            .and_then(|t| Self::from_thousandths(t).map_err(|_| invalid()))
    }
}

/// In JSON a number.
impl Serialize for Weight {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        quantity::serialize_thousandths(self.0.into(), serializer)
    }
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = quantity::NumberOrText::deserialize(deserializer)?.to_string();
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What a role and all below it are promised, and what they may not exceed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// What the role gets before others get more than their own guarantee. What is not named is not promised.
    #[serde(default)]
    pub guarantee: Amounts,
    /// What the role may use at most, reservations included. What is not named is not limited.
    #[serde(default)]
    pub limit: Amounts,
    /// What one task of the role typically needs: headroom for the guarantee is kept in pieces in which this fits. Where it is
    /// absent, the shapes of the role's own demand stand in for it; without demand, only sums count.
    #[serde(default)]
    pub shape: Option<Resources>,
    /// Whether work beyond the guarantee may be ended for a role that is below its own.
    #[serde(default = "yes")]
    pub preemptible: bool,
}

const fn yes() -> bool {
    true
}

/// No promise and no limit; preemptible.
impl Default for Quota {
    fn default() -> Self {
        Self { guarantee: Amounts::new(), limit: Amounts::new(), shape: None, preemptible: true }
    }
}

impl Quota {
    /// Checks the quota by itself: nothing is promised beyond its own limit.
    ///
    /// # Errors
    /// A guarantee exceeds the limit of the same name.
    pub fn check(&self) -> Result<(), Invalid> {
        for (name, promised) in self.guarantee.iter() {
            if let Some(limit) = self.limit.get(name).filter(|limit| *limit < promised) {
                let field = format!("quota.guarantee.{name}");
                let expected = format!("at most the limit, {}", Amounts::show(name, limit));
                return Err(Invalid::new(field, Amounts::show(name, promised), expected));
            }
        }
        Ok(())
    }
}
