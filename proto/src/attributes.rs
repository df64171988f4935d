//! What an agent says of itself besides its resources: rack, zone, kernel version.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use crate::error::Invalid;
use crate::quantity::Scalar;
use crate::ranges::RangeSet;

/// One attribute's value: a number, ranges, or else text. In JSON just as much: text stays text, also where it could be read
/// as a number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(untagged)]
pub enum AttributeValue {
    /// A number with at most three decimals.
    Scalar(Scalar),
    /// Ranges: `[1-5,8]`.
    Ranges(OrderedRanges),
    /// Anything else.
    Text(String),
}

impl<'de> Deserialize<'de> for AttributeValue {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number, ranges such as [[1,5]], or text")]
        enum Wire {
            Text(String),
            Scalar(Scalar),
            Ranges(OrderedRanges),
        }
        Ok(match Wire::deserialize(deserializer)? {
            Wire::Text(text) => Self::Text(text),
            Wire::Scalar(number) => Self::Scalar(number),
            Wire::Ranges(ranges) => Self::Ranges(ranges),
        })
    }
}

/// Ranges as an attribute's value, with an order so that values can be sorted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrderedRanges(pub RangeSet);

impl PartialOrd for OrderedRanges {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OrderedRanges {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.ranges().cmp(other.0.ranges())
    }
}

/// As constraints compare it.
impl fmt::Display for AttributeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(number) => number.fmt(f),
            Self::Ranges(ranges) => ranges.0.fmt(f),
            Self::Text(text) => f.pad(text),
        }
    }
}

/// Attributes by name. Every offer carries those of its agent, so a copy shares them.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(from = "BTreeMap<String, AttributeValue>")]
pub struct Attributes(Option<Arc<[(String, AttributeValue)]>>);

impl Attributes {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }

    /// The value under this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&AttributeValue> {
        let all = self.0.as_ref()?;
        let at = all.binary_search_by(|(other, _)| other.as_str().cmp(name)).ok()?;
        all.get(at).map(|(_, value)| value)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &AttributeValue)> + '_ {
        self.0.iter().flat_map(|all| all.iter()).map(|(name, value)| (name.as_str(), value))
    }

    /// With this value under this name.
    #[must_use]
    pub fn with(self, name: impl Into<String>, value: AttributeValue) -> Self {
        let all = self.iter().map(|(name, value)| (name.to_owned(), value.clone()));
        let mut all: BTreeMap<String, AttributeValue> = all.collect();
        all.insert(name.into(), value);
        all.into()
    }
}

impl From<BTreeMap<String, AttributeValue>> for Attributes {
    fn from(all: BTreeMap<String, AttributeValue>) -> Self {
        Self((!all.is_empty()).then(|| all.into_iter().collect()))
    }
}

/// In JSON an object.
impl Serialize for Attributes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// As it is written on the command line: `rack=r1;ssd=1;slots=[1-4]`.
impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.iter().map(|(name, value)| format!("{name}={value}")).collect();
        f.write_str(&parts.join(";"))
    }
}

impl FromStr for Attributes {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut attributes = BTreeMap::new();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let invalid = |expected: &'static str| Invalid::new("attributes", part, expected);
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| invalid("name=value pairs joined by `;`, such as rack=r1;ssd=1"))?;
            let (name, value) = (name.trim(), value.trim());
            if name.is_empty() || name == "hostname" || name.chars().any(char::is_whitespace) {
                return Err(invalid("a name without spaces that is not `hostname`, which every agent has"));
            }
            if attributes.insert(name.to_owned(), parse_value(value)).is_some() {
                return Err(invalid("each name once"));
            }
        }
        Ok(Self::from(attributes))
    }
}

fn parse_value(text: &str) -> AttributeValue {
    if let Ok(number) = text.parse() {
        return AttributeValue::Scalar(number);
    }
    match text.parse() {
        Ok(ranges) => AttributeValue::Ranges(OrderedRanges(ranges)),
        Err(_) => AttributeValue::Text(text.to_owned()),
    }
}
