//! Sets of whole numbers as ranges: ports, above all.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::error::Invalid;

/// A set of numbers as sorted, disjoint, coalesced, inclusive ranges. Union, subtraction and intersection are exact.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct RangeSet(SmallVec<[(u32, u32); 2]>);

/// In one go: the derived one would clone range by range.
impl Clone for RangeSet {
    #[inline]
    fn clone(&self) -> Self {
        Self(SmallVec::from_slice(&self.0))
    }
}

/// Most ranges that text or a message may bring: as many single ports as there can be.
pub const MAX_RANGES: usize = 32_768;

impl RangeSet {
    /// Nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(SmallVec::new_const())
    }

    /// All numbers from `first` to `last`, both included; nothing if `last` is smaller.
    #[must_use]
    pub fn range(first: u32, last: u32) -> Self {
        let mut set = Self::new();
        if first <= last {
            set.0.push((first, last));
        }
        set
    }

    /// Any ranges, in any order, overlapping or not; a range whose end lies before its start is empty.
    pub fn from_ranges(ranges: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut ranges: SmallVec<[(u32, u32); 2]> =
            ranges.into_iter().filter(|(first, last)| first <= last).collect();
        ranges.sort_unstable();
        let mut set = Self::new();
        for (first, last) in ranges {
            match set.0.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = (*end).max(last),
                _ => set.0.push((first, last)),
            }
        }
        set
    }

    /// The ranges, ascending.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = (u32, u32)> + '_ {
        self.0.iter().copied()
    }

    /// The numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(|&(first, last)| first..=last)
    }

    /// How many numbers there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|&(first, last)| u64::from(last - first) + 1).sum()
    }

    /// Whether there are none.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all numbers of `other` are in this set.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        let mut mine = self.0.iter().peekable();
        other.0.iter().all(|&(first, last)| {
            while mine.next_if(|(_, end)| *end < first).is_some() {}
            mine.peek().is_some_and(|&&(start, end)| start <= first && last <= end)
        })
    }

    /// Whether the two have any number in common.
    #[must_use]
    pub fn intersects(&self, other: &Self) -> bool {
        !self.intersection(other).is_empty()
    }

    /// Numbers in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        match (self.is_empty(), other.is_empty()) {
            (true, _) => other.clone(),
            (_, true) => self.clone(),
            _ => Self::from_ranges(self.0.iter().chain(&other.0).copied()),
        }
    }

    /// Numbers in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (mut mine, mut theirs) = (self.0.iter().copied().peekable(), other.0.iter().copied().peekable());
        let mut common = Self::new();
        while let (Some(&(a, b)), Some(&(c, d))) = (mine.peek(), theirs.peek()) {
            if a.max(c) <= b.min(d) {
                common.0.push((a.max(c), b.min(d)));
            }
            if b < d {
                mine.next();
            } else {
                theirs.next();
            }
        }
        common
    }

    /// Numbers in this set that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut rest = Self::new();
        let mut holes = other.0.iter().copied().peekable();
        for &(first, last) in &self.0 {
            while holes.next_if(|&(_, end)| end < first).is_some() {}
            let mut start = Some(first);
            while let (Some(from), Some(&(hole, end))) = (start, holes.peek()) {
                if hole > last {
                    break;
                }
                if from < hole {
                    rest.0.push((from, hole - 1));
                }
                start = end.checked_add(1).filter(|next| *next <= last);
                if end > last {
                    break; // this hole may reach into the next range as well
                }
                holes.next();
            }
            if let Some(from) = start {
                rest.0.push((from, last));
            }
        }
        rest
    }

    /// The `count` smallest numbers, or `None` if there are not that many.
    #[must_use]
    pub fn take_lowest(&self, count: usize) -> Option<Self> {
        let (mut taken, mut wanted) = (Self::new(), count as u64);
        for &(first, last) in &self.0 {
            let Some(more) = wanted.checked_sub(1) else { break };
            let end = u64::from(last).min(u64::from(first) + more);
            taken.0.push((first, u32::try_from(end).unwrap_or(last)));
            wanted -= end - u64::from(first) + 1;
        }
        (wanted == 0).then_some(taken)
    }
}

/// As it is written in resources: `[31000-32000,8080]`.
impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, (first, last)) in self.ranges().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        f.write_str("]")
    }
}

impl FromStr for RangeSet {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("ranges", text, "ranges in brackets, such as [31000-32000,8080]");
        let inner = text.trim().strip_prefix('[').and_then(|t| t.strip_suffix(']')).ok_or_else(invalid)?;
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| invalid());
        let mut ranges = Vec::new();
        for part in inner.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last || ranges.len() >= MAX_RANGES {
                return Err(invalid());
            }
            ranges.push((first, last));
        }
        Ok(Self::from_ranges(ranges))
    }
}

/// In JSON `[[first,last],…]`.
impl Serialize for RangeSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.0)
    }
}

impl<'de> Deserialize<'de> for RangeSet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ranges = Vec::<(u32, u32)>::deserialize(deserializer)?;
        if ranges.len() > MAX_RANGES {
            return Err(D::Error::custom(format!("{} ranges: expected at most {MAX_RANGES}", ranges.len())));
        }
        match ranges.iter().find(|(first, last)| first > last) {
            Some((first, last)) => Err(D::Error::custom(format!(
                "[{first},{last}]: expected a range whose end does not lie before its start"
            ))),
            None => Ok(Self::from_ranges(ranges)),
        }
    }
}
