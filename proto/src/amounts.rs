//! Named amounts: what a quota speaks of. Unlike [`crate::Resources`], an amount that is not named is different from zero,
//! and ports are a count.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Invalid;
use crate::quantity::{self, Bytes, Scalar};
use crate::resources::Resources;

/// The name under which ports are counted.
pub const PORTS: &str = "ports";

/// So many names at most: far more than any cluster has kinds of resources.
pub const MAX_NAMES: usize = 64;

/// Amounts by name, each in its dimension's smallest unit: thousandths for `cpus`, `gpus` and custom scalars, bytes for `mem`
/// and `disk`, single ports for `ports`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amounts(BTreeMap<String, i64>);

impl Amounts {
    /// Nothing is named.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The amount under this name, if it is named.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<i64> {
        self.0.get(name).copied()
    }

    /// With this amount under this name.
    ///
    /// # Errors
    /// The name is not one, the amount is negative or absurd, or there are [`MAX_NAMES`] others.
    pub fn with(mut self, name: &str, amount: i64) -> Result<Self, Invalid> {
        if name != PORTS {
            Resources::new().with_scalar(name, amount)?;
        } else if !(0..=quantity::MAX).contains(&amount) {
            return Err(Invalid::new(name, amount, "a count of ports from 0 up"));
        }
        if self.0.len() >= MAX_NAMES && !self.0.contains_key(name) {
            return Err(Invalid::new("amounts", name, format!("at most {MAX_NAMES} names")));
        }
        self.0.insert(name.to_owned(), amount);
        Ok(self)
    }

    /// All that are named, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> + '_ {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    /// Whether nothing is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An amount under a name, as people write it: `4`, `512MiB`.
    #[must_use]
    pub fn show(name: &str, amount: i64) -> String {
        match name {
            "mem" | "disk" => {
                Bytes::from_bytes(amount).map_or_else(|_| amount.to_string(), |b| b.to_string())
            }
            PORTS => amount.to_string(),
            _ => quantity::show_thousandths(amount),
        }
    }
}

/// All that resources have, ports counted; zeroes are not named.
impl From<&Resources> for Amounts {
    fn from(resources: &Resources) -> Self {
        let mut all: BTreeMap<String, i64> =
            resources.scalars().map(|(name, amount)| (name.to_owned(), amount)).collect();
        let ports = i64::try_from(resources.ports().count()).unwrap_or(i64::MAX);
        if ports > 0 {
            all.insert(PORTS.to_owned(), ports);
        }
        Self(all)
    }
}

/// As it is written on the command line: `cpus=10;mem=4GiB;ports=100`.
impl fmt::Display for Amounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> =
            self.iter().map(|(name, amount)| format!("{name}={}", Self::show(name, amount))).collect();
        f.write_str(&parts.join(";"))
    }
}

impl FromStr for Amounts {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut amounts = Self::new();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| {
                Invalid::new(
                    "amounts",
                    part,
                    "name=value pairs joined by `;`, such as cpus=4;mem=8GiB;ports=10",
                )
            })?;
            let (name, value) = (name.trim(), value.trim());
            if amounts.get(name).is_some() {
                return Err(Invalid::new(
                    "amounts",
                    text,
                    format!("each name once, but `{name}` stands twice"),
                ));
            }
            let named = |e: Invalid| Invalid { field: name.to_owned(), ..e };
            let amount = match name {
                "mem" | "disk" => value.parse::<Bytes>().map_err(named)?.bytes(),
                PORTS => value.parse::<i64>().map_err(|_| Invalid::new(PORTS, value, "a count of ports"))?,
                _ => value.parse::<Scalar>().map_err(named)?.millis(),
            };
            amounts = amounts.with(name, amount)?;
        }
        Ok(amounts)
    }
}

/// In JSON an object of what is named: `{"cpus": 4, "mem": 8589934592, "ports": 10}`.
impl Serialize for Amounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, amount) in &self.0 {
            match name.as_str() {
                "mem" | "disk" | PORTS => map.serialize_entry(name, amount)?,
                _ => {
                    map.serialize_entry(
                        name,
                        &Scalar::from_millis(*amount).map_err(serde::ser::Error::custom)?,
                    )?;
                }
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Amounts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Value {
            Number(serde_json::Number),
            Text(String),
        }
        let mut amounts = Self::new();
        for (name, value) in BTreeMap::<String, Value>::deserialize(deserializer)? {
            let text = match value {
                Value::Number(number) => number.to_string(),
                Value::Text(text) => text,
            };
            let one: Self = format!("{name}={text}").parse().map_err(D::Error::custom)?;
            for (name, amount) in one.iter() {
                amounts = amounts.with(name, amount).map_err(D::Error::custom)?;
            }
        }
        Ok(amounts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_however_they_are_said() {
        let said = |count: usize| {
            let text = (0..count).map(|n| format!("made-up-{n}=1")).collect::<Vec<_>>().join(";");
            let json: serde_json::Map<_, _> =
                (0..count).map(|n| (format!("made-up-{n}"), 1.into())).collect();
            let text = text.parse::<Amounts>().map_err(|e| e.to_string());
            let json = serde_json::from_value::<Amounts>(json.into()).map_err(|e| e.to_string());
            (text, json)
        };
        let (text, json) = said(MAX_NAMES);
        assert_eq!(text, json);
        assert_eq!(text.map(|amounts| amounts.iter().count()), Ok(MAX_NAMES));
        for refused in <[_; 2]>::from(said(MAX_NAMES + 1)) {
            let why = refused.unwrap_err();
            assert!(why.contains("at most 64 names"), "{why}");
        }
    }
}
