//! What machines have and tasks need: four well-known scalars, custom scalars by name, and ports.
//!
//! Not here: who owns them. Reservations and volumes wrap `Resources`; they do not live in it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

use crate::error::Invalid;
use crate::quantity::{self, Bytes, Cpus, Scalar};
use crate::ranges::RangeSet;

/// The well-known scalars, in the order in which [`Resources`] keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dimension {
    /// Processor time, in thousandths of a core.
    Cpus,
    /// Memory, in bytes.
    Mem,
    /// Disk, in bytes.
    Disk,
    /// Graphics processors, in thousandths.
    Gpus,
}

impl Dimension {
    /// All of them.
    pub const ALL: [Dimension; 4] = [Dimension::Cpus, Dimension::Mem, Dimension::Disk, Dimension::Gpus];

    /// The name in text and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Dimension::Cpus => "cpus",
            Dimension::Mem => "mem",
            Dimension::Disk => "disk",
            Dimension::Gpus => "gpus",
        }
    }

    const fn is_bytes(self) -> bool {
        matches!(self, Dimension::Mem | Dimension::Disk)
    }
}

/// A custom scalar's name: a lower-case letter, then letters, digits, `_`, `-` or `.`.
type Name = Arc<str>;

/// An amount of everything, never negative. The well-known scalars are a dense array, so that adding and comparing are a
/// few machine instructions; custom scalars (rare) are a short list sorted by name, without zeroes.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    scalars: [i64; 4],
    custom: SmallVec<[(Name, i64); 1]>,
    ports: RangeSet,
}

/// Mostly a copy of a few words: allocations are made of little else.
impl Clone for Resources {
    #[inline]
    fn clone(&self) -> Self {
        let custom = if self.custom.is_empty() { SmallVec::new_const() } else { self.custom.clone() };
        Self { scalars: self.scalars, custom, ports: self.ports.clone() }
    }
}

/// What could not be taken because it was not there: which dimension, how much was wanted, how much there was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("needs {dimension}={wanted}, has {available}")]
pub struct Shortage {
    /// The scarce dimension's name.
    pub dimension: String,
    /// What was wanted, as text with its unit.
    pub wanted: String,
    /// What there was, as text with its unit.
    pub available: String,
}

#[allow(clippy::indexing_slicing, reason = "a Dimension is always within the four scalars")]
impl Resources {
    /// Nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { scalars: [0; 4], custom: SmallVec::new_const(), ports: RangeSet::new() }
    }

    /// With this many cores.
    #[must_use]
    pub const fn with_cpus(mut self, cpus: Cpus) -> Self {
        self.scalars[Dimension::Cpus as usize] = cpus.millis();
        self
    }

    /// With this much memory.
    #[must_use]
    pub const fn with_mem(mut self, mem: Bytes) -> Self {
        self.scalars[Dimension::Mem as usize] = mem.bytes();
        self
    }

    /// With this much disk.
    #[must_use]
    pub const fn with_disk(mut self, disk: Bytes) -> Self {
        self.scalars[Dimension::Disk as usize] = disk.bytes();
        self
    }

    /// With these ports.
    #[must_use]
    pub fn with_ports(mut self, ports: RangeSet) -> Self {
        self.ports = ports;
        self
    }

    /// With this much of a scalar by name, well-known or custom.
    ///
    /// # Errors
    /// The name is not one, or the amount is negative or absurd. `amount` is in the dimension's smallest unit.
    pub fn with_scalar(mut self, name: &str, amount: i64) -> Result<Self, Invalid> {
        if !(0..=quantity::MAX).contains(&amount) {
            return Err(Invalid::new(name, amount, "a number from 0 up"));
        }
        match Dimension::ALL.into_iter().find(|d| d.name() == name) {
            Some(dimension) => *self.scalar_mut(dimension) = amount,
            None => self.set_custom(check_name(name)?, amount),
        }
        Ok(self)
    }

    /// Cores.
    #[must_use]
    pub fn cpus(&self) -> Cpus {
        Cpus::from_millis(self.scalar(Dimension::Cpus)).unwrap_or_default()
    }

    /// Memory.
    #[must_use]
    pub fn mem(&self) -> Bytes {
        Bytes::from_bytes(self.scalar(Dimension::Mem)).unwrap_or_default()
    }

    /// Disk.
    #[must_use]
    pub fn disk(&self) -> Bytes {
        Bytes::from_bytes(self.scalar(Dimension::Disk)).unwrap_or_default()
    }

    /// Ports.
    #[must_use]
    #[inline]
    pub fn ports(&self) -> &RangeSet {
        &self.ports
    }

    /// A well-known scalar in its smallest unit.
    #[must_use]
    #[inline]
    pub const fn scalar(&self, dimension: Dimension) -> i64 {
        self.scalars[dimension as usize]
    }

    const fn scalar_mut(&mut self, dimension: Dimension) -> &mut i64 {
        &mut self.scalars[dimension as usize]
    }

    /// All scalars that are not zero, by name, in their smallest unit; the well-known first.
    pub fn scalars(&self) -> impl Iterator<Item = (&str, i64)> + '_ {
        let known =
            Dimension::ALL.into_iter().map(|d| (d.name(), self.scalar(d))).filter(|(_, amount)| *amount != 0);
        known.chain(self.custom.iter().map(|(name, amount)| (name.as_ref(), *amount)))
    }

    /// Custom scalars, by name, in thousandths.
    #[inline]
    pub fn custom(&self) -> impl Iterator<Item = (&str, i64)> + '_ {
        self.custom.iter().map(|(name, amount)| (name.as_ref(), *amount))
    }

    /// Whether there is nothing.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.scalars == [0; 4] && self.custom.is_empty() && self.ports.is_empty()
    }

    /// Whether `other` could be taken from this.
    #[must_use]
    #[inline]
    pub fn contains(&self, other: &Self) -> bool {
        self.scalars.iter().zip(&other.scalars).all(|(mine, theirs)| mine >= theirs)
            && other.custom.iter().all(|(name, amount)| self.custom_amount(name) >= *amount)
            && (other.ports.is_empty() || self.ports.contains(&other.ports))
    }

    /// The first dimension in which `other` could not be taken from this.
    #[must_use]
    pub fn shortage(&self, other: &Self) -> Option<Shortage> {
        let known =
            Dimension::ALL.into_iter().find(|d| self.scalar(*d) < other.scalar(*d)).map(|d| Shortage {
                dimension: d.name().to_owned(),
                wanted: show_scalar(d.is_bytes(), other.scalar(d)),
                available: show_scalar(d.is_bytes(), self.scalar(d)),
            });
        let custom = || {
            let scarce = other.custom.iter().find(|(name, amount)| self.custom_amount(name) < *amount);
            scarce.map(|(name, amount)| Shortage {
                dimension: name.to_string(),
                wanted: show_scalar(false, *amount),
                available: show_scalar(false, self.custom_amount(name)),
            })
        };
        let ports = || {
            (!self.ports.contains(&other.ports)).then(|| Shortage {
                dimension: "ports".to_owned(),
                wanted: other.ports.to_string(),
                available: self.ports.to_string(),
            })
        };
        known.or_else(custom).or_else(ports)
    }

    /// Both together, or `None` where a sum leaves the range of quantities or a port is in both.
    #[must_use]
    pub fn checked_add(&self, other: &Self) -> Option<Self> {
        let mut sum = self.clone();
        for (mine, theirs) in sum.scalars.iter_mut().zip(&other.scalars) {
            *mine = sum_of(*mine, *theirs)?;
        }
        for (name, amount) in &other.custom {
            sum.set_custom(name.clone(), sum_of(self.custom_amount(name), *amount)?);
        }
        if !other.ports.is_empty() {
            if self.ports.intersects(&other.ports) {
                return None;
            }
            sum.ports = self.ports.union(&other.ports);
        }
        Some(sum)
    }

    /// This without `other`, or `None` if it does not contain it.
    #[must_use]
    pub fn checked_sub(&self, other: &Self) -> Option<Self> {
        if !self.contains(other) {
            return None;
        }
        let mut rest = self.clone();
        for (mine, theirs) in rest.scalars.iter_mut().zip(&other.scalars) {
            *mine -= theirs;
        }
        for (name, amount) in &other.custom {
            rest.set_custom(name.clone(), self.custom_amount(name) - amount);
        }
        if !other.ports.is_empty() {
            rest.ports = self.ports.difference(&other.ports);
        }
        Some(rest)
    }

    /// This without `other`, as far as there is any: never negative.
    #[must_use]
    pub fn saturating_sub(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        for (mine, theirs) in rest.scalars.iter_mut().zip(&other.scalars) {
            *mine = (*mine - theirs).max(0);
        }
        for (name, amount) in &other.custom {
            rest.set_custom(name.clone(), (self.custom_amount(name) - amount).max(0));
        }
        if !other.ports.is_empty() && !self.ports.is_empty() {
            rest.ports = self.ports.difference(&other.ports);
        }
        rest
    }

    fn custom_amount(&self, name: &str) -> i64 {
        self.custom.iter().find(|(mine, _)| mine.as_ref() == name).map_or(0, |(_, amount)| *amount)
    }

    fn set_custom(&mut self, name: Name, amount: i64) {
        match self.custom.binary_search_by(|(mine, _)| mine.cmp(&name)) {
            Ok(at) if amount == 0 => drop(self.custom.remove(at)),
            Ok(at) => self.custom.get_mut(at).into_iter().for_each(|entry| entry.1 = amount),
            Err(_) if amount == 0 => {}
            Err(at) => self.custom.insert(at, (name, amount)),
        }
    }
}

/// Two amounts together, if that is still a quantity.
fn sum_of(one: i64, other: i64) -> Option<i64> {
    one.checked_add(other).filter(|sum| *sum <= quantity::MAX)
}

fn check_name(name: &str) -> Result<Name, Invalid> {
    let tail = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let fine =
        name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(tail) && name.len() <= 64;
    if !fine || name == "ports" {
        return Err(Invalid::new("resource", name, "a name such as `licenses`"));
    }
    Ok(name.into())
}

fn show_scalar(is_bytes: bool, amount: i64) -> String {
    match is_bytes {
        true => Bytes::from_bytes(amount).unwrap_or_default().to_string(),
        false => quantity::show_thousandths(amount),
    }
}

/// As it is written on the command line: `cpus=4;mem=8GiB;ports=[31000-32000]`.
impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scalar = |(name, amount): (&str, i64)| {
            let is_bytes = matches!(name, "mem" | "disk");
            format!("{name}={}", show_scalar(is_bytes, amount))
        };
        let mut parts: Vec<String> = self.scalars().map(scalar).collect();
        if !self.ports.is_empty() {
            parts.push(format!("ports={}", self.ports));
        }
        f.write_str(&parts.join(";"))
    }
}

impl FromStr for Resources {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut resources = Self::new();
        let mut seen = Vec::new();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| {
                Invalid::new("resources", part, "name=value pairs joined by `;`, such as cpus=4;mem=8GiB")
            })?;
            let name = name.trim();
            if seen.contains(&name) {
                return Err(Invalid::new(
                    "resources",
                    text,
                    format!("each name once, but `{name}` stands twice"),
                ));
            }
            seen.push(name);
            resources = resources.with_text(name, value.trim())?;
        }
        Ok(resources)
    }
}

impl Resources {
    fn with_text(self, name: &str, value: &str) -> Result<Self, Invalid> {
        match name {
            "ports" => {
                let ports: RangeSet =
                    value.parse().map_err(|e: Invalid| Invalid { field: "ports".into(), ..e })?;
                check_ports(&ports)?;
                Ok(self.with_ports(ports))
            }
            "mem" | "disk" => {
                let amount: Bytes =
                    value.parse().map_err(|e: Invalid| Invalid { field: name.to_owned(), ..e })?;
                self.with_scalar(name, amount.bytes())
            }
            _ => {
                let amount: Scalar =
                    value.parse().map_err(|e: Invalid| Invalid { field: name.to_owned(), ..e })?;
                self.with_scalar(name, amount.millis())
            }
        }
    }
}

/// Ports are 1 to 65535.
pub(crate) fn check_ports(ports: &RangeSet) -> Result<(), Invalid> {
    match ports.ranges().find(|(first, last)| *first == 0 || *last > 65_535) {
        Some((first, last)) => Err(Invalid::new("ports", format!("{first}-{last}"), "ports from 1 to 65535")),
        None => Ok(()),
    }
}

/// In JSON `{cpus: 4, mem: 8589934592, disk: 0, ports: [[31000,32000]], licenses: 20}`; cpus and mem always, the rest
/// where there is any.
impl Serialize for Resources {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("cpus", &self.cpus())?;
        map.serialize_entry("mem", &self.mem())?;
        map.serialize_entry("disk", &self.disk())?;
        map.serialize_entry("ports", &self.ports)?;
        for (name, amount) in self.scalars().filter(|(name, _)| !matches!(*name, "cpus" | "mem" | "disk")) {
            map.serialize_entry(name, &Scalar::from_millis(amount).map_err(serde::ser::Error::custom)?)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Resources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            #[serde(default)]
            cpus: Cpus,
            #[serde(default)]
            mem: Bytes,
            #[serde(default)]
            disk: Bytes,
            #[serde(default)]
            ports: RangeSet,
            #[serde(flatten)]
            custom: std::collections::BTreeMap<String, Scalar>,
        }
        let wire = Wire::deserialize(deserializer)?;
        check_ports(&wire.ports).map_err(D::Error::custom)?;
        let mut resources =
            Self::new().with_cpus(wire.cpus).with_mem(wire.mem).with_disk(wire.disk).with_ports(wire.ports);
        for (name, amount) in wire.custom {
            resources = resources.with_scalar(&name, amount.millis()).map_err(D::Error::custom)?;
        }
        Ok(resources)
    }
}
