//! Exact quantities, a type per dimension: cpus in thousandths of a core, memory and disk in bytes, and everything else
//! that can be counted in thousandths. No floats: sums are exact and associative.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Invalid;

/// Largest count of any quantity, in its smallest unit: an exbibyte, or 10^15 cores. Sums of a million of them fit an `i64`
/// only by checked arithmetic, which is what [`crate::Resources`] uses.
pub const MAX: i64 = 1 << 60;

macro_rules! thousandths {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(i64);

        impl $name {
            /// None at all.
            pub const ZERO: Self = Self(0);

            /// From thousandths, which may not be negative.
            ///
            /// # Errors
            /// The count is negative or absurdly large.
            pub fn from_millis(millis: i64) -> Result<Self, Invalid> {
                if !(0..=MAX).contains(&millis) {
                    let expected = if millis < 0 { "a number from 0 up" } else { "a smaller number" };
                    return Err(Invalid::new($field, show_thousandths(millis), expected));
                }
                Ok(Self(millis))
            }

            /// So many thousandths, for constants.
            #[must_use]
            pub const fn thousandths(count: u32) -> Self {
                Self(count as i64)
            }

            /// Thousandths.
            #[must_use]
            pub const fn millis(self) -> i64 {
                self.0
            }
        }

        /// Up to three decimals, none that are not needed: `4`, `0.25`.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&show_thousandths(self.0))
            }
        }

        impl FromStr for $name {
            type Err = Invalid;
            fn from_str(text: &str) -> Result<Self, Invalid> {
                parse_thousandths($field, text).and_then(Self::from_millis)
            }
        }

        /// In JSON a number (of cores, of units).
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serialize_thousandths(self.0, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = NumberOrText::deserialize(deserializer)?.to_string();
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

thousandths!(
    /// Processor time, in thousandths of a core.
    Cpus,
    "cpus"
);
thousandths!(
    /// Anything else that is counted, in thousandths of a unit.
    Scalar,
    "scalar"
);

/// An amount of memory or disk, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(i64);

impl Bytes {
    /// None at all.
    pub const ZERO: Self = Self(0);

    /// From a count of bytes, which may not be negative.
    ///
    /// # Errors
    /// The count is negative or absurdly large.
    pub fn from_bytes(bytes: i64) -> Result<Self, Invalid> {
        if !(0..=MAX).contains(&bytes) {
            return Err(Invalid::new("bytes", bytes, "a size from 0 up, such as 512MiB"));
        }
        Ok(Self(bytes))
    }

    /// Mebibytes; saturates at the largest size there is.
    #[must_use]
    pub const fn mib(count: u32) -> Self {
        Self((count as i64) << 20)
    }

    /// Bytes.
    #[must_use]
    pub const fn bytes(self) -> i64 {
        self.0
    }

    /// Bytes, as the kernel's interfaces take them.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0.unsigned_abs()
    }
}

const UNITS: [(&str, i64); 11] = [
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("PB", 1_000_000_000_000_000),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// The largest binary unit that is exact: `512MiB`, or plain bytes.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = UNITS.iter().take(5).find(|(_, unit)| self.0 != 0 && self.0 % unit == 0);
        match binary {
            Some((name, unit)) => f.pad(&format!("{}{name}", self.0 / unit)),
            None => f.pad(&format!("{}B", self.0)),
        }
    }
}

impl FromStr for Bytes {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || {
            Invalid::new(
                "size",
                text,
                "a whole number of bytes, or a number with a unit, such as 512MiB or 2GB",
            )
        };
        let text = text.trim();
        let (number, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| text.strip_suffix(name).map(|number| (number.trim_end(), *unit)))
            .unwrap_or((text, 1));
        // Wide, as the largest size has more thousandths of a byte than an `i64` holds.
        let thousandths = parse_wide("size", number).map_err(|_| invalid())?;
        let bytes = thousandths.checked_mul(unit.into()).ok_or_else(invalid)?;
        if bytes % 1000 != 0 {
            return Err(invalid());
        }
        i64::try_from(bytes / 1000).map_err(|_| invalid()).and_then(Self::from_bytes)
    }
}

/// In JSON a number of bytes.
impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        NumberOrText::deserialize(deserializer)?.to_string().parse().map_err(serde::de::Error::custom)
    }
}

/// What a quantity may be written as in JSON or TOML. A float is taken by its shortest decimal text, so `0.1` is exact.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number, or text such as \"512MiB\"")]
pub(crate) enum NumberOrText {
    Whole(i64),
    Decimal(f64),
    Text(String),
}

impl fmt::Display for NumberOrText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(number) => number.fmt(f),
            Self::Decimal(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// Thousandths as text.
pub(crate) fn show_thousandths(millis: i64) -> String {
    let (whole, rest) = (millis / 1000, (millis % 1000).abs());
    let sign = if millis < 0 && whole == 0 { "-" } else { "" };
    match rest {
        0 => format!("{sign}{whole}"),
        rest => format!("{sign}{whole}.{rest:03}").trim_end_matches('0').to_owned(),
    }
}

/// A decimal number with at most three decimals, in thousandths.
pub(crate) fn parse_thousandths(field: &'static str, text: &str) -> Result<i64, Invalid> {
    parse_wide(field, text)?.try_into().map_err(|_| Invalid::new(field, text, "a smaller number"))
}

fn parse_wide(field: &'static str, text: &str) -> Result<i128, Invalid> {
    let invalid = || Invalid::new(field, text, "a number with at most three decimals, such as 4 or 0.25");
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let numeric = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !numeric(whole) || !numeric(fraction) || fraction.len() > 3 {
        return Err(invalid());
    }
    let whole: i128 = whole.parse().map_err(|_| invalid())?;
    let fraction: i128 = format!("{fraction:0<3}").parse().map_err(|_| invalid())?;
    let millis = whole.checked_mul(1000).and_then(|m| m.checked_add(fraction)).ok_or_else(invalid)?;
    Ok(if negative { -millis } else { millis })
}

/// Thousandths as a JSON number: whole where it is whole. The few that are too large for any float to have their decimals
/// are text, which is taken back as well.
pub(crate) fn serialize_thousandths<S: serde::Serializer>(
    millis: i64,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    if millis % 1000 == 0 {
        return serializer.serialize_i64(millis / 1000);
    }
    const LARGEST: i64 = 1 << 53; // above, readers of JSON need not agree on a float's last digit
    let exact = show_thousandths(millis);
    match exact.parse::<f64>() {
        Ok(number) if millis < LARGEST && number.to_string() == exact => serializer.serialize_f64(number),
        _ => serializer.serialize_str(&exact),
    }
}
