//! At most so much of some dimensions: limits, and what headroom leaves.

use std::sync::Arc;

use divvy_proto::amounts::{Amounts, PORTS};
use divvy_proto::resources::{Dimension, Resources};

use super::size::{KNOWN, NAMES, Size};

/// An upper bound for each dimension that is named; the others have none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Most {
    /// `i64::MAX`: no bound.
    known: [i64; KNOWN],
    custom: Vec<(Arc<str>, i64)>,
}

const NONE: i64 = i64::MAX;

/// The well-known scalars, and ports by number.
pub(super) fn known_of(resources: &Resources) -> [i64; KNOWN] {
    let [cpus, mem, disk, gpus] = Dimension::ALL.map(|dimension| resources.scalar(dimension));
    let ports = match resources.ports().is_empty() {
        true => 0,
        false => i64::try_from(resources.ports().count()).unwrap_or(i64::MAX),
    };
    [cpus, mem, disk, gpus, ports]
}

impl Most {
    /// No bounds.
    pub(super) const fn new() -> Self {
        Self { known: [NONE; KNOWN], custom: Vec::new() }
    }

    pub(super) fn of(amounts: &Amounts) -> Self {
        let mut most = Self::new();
        amounts.iter().for_each(|(name, amount)| most.lower(name, i128::from(amount)));
        most
    }

    /// Without any bound.
    pub(super) fn is_open(&self) -> bool {
        self.custom.is_empty() && self.known == [NONE; KNOWN]
    }

    /// The bound of a dimension is `to`, or what it was if that is less. Never negative.
    pub(super) fn lower(&mut self, name: &str, to: i128) {
        let to = i64::try_from(to.max(0)).unwrap_or(NONE - 1);
        if let Some(mine) =
            NAMES.iter().position(|known| *known == name).and_then(|at| self.known.get_mut(at))
        {
            *mine = to.min(*mine);
            return;
        }
        match self.custom.iter_mut().find(|(mine, _)| mine.as_ref() == name) {
            Some((_, mine)) => *mine = to.min(*mine),
            None => self.custom.push((name.into(), to)),
        }
    }

    /// All bounds, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, i64)> + '_ {
        let names: [&str; KNOWN] = NAMES;
        let known = names.into_iter().zip(self.known).filter(|(_, bound)| *bound != NONE);
        known.chain(self.custom.iter().map(|(name, bound)| (name.as_ref(), *bound)))
    }

    /// These bounds less what is gone already.
    pub(super) fn less(&self, gone: &Size) -> Self {
        let mut rest = Self::new();
        if !self.is_open() {
            self.iter().for_each(|(name, bound)| rest.lower(name, i128::from(bound) - gone.get(name)));
        }
        rest
    }

    /// Within these bounds and within the others.
    pub(super) fn and(&mut self, other: &Self) {
        self.known.iter_mut().zip(&other.known).for_each(|(mine, theirs)| *mine = (*mine).min(*theirs));
        other.custom.iter().for_each(|(name, bound)| self.lower(name, i128::from(*bound)));
    }

    /// Whether this much is within bounds.
    pub(super) fn holds(&self, resources: &Resources) -> bool {
        self.is_open() || self.exceeded(resources).is_none()
    }

    /// The same with so many ports more, whichever.
    pub(super) fn holds_with_ports(&self, resources: &Resources, more: usize) -> bool {
        if self.is_open() {
            return true;
        }
        let [.., ports] = self.known;
        let wanted = resources.ports().count().saturating_add(more as u64);
        i64::try_from(wanted).unwrap_or(NONE) <= ports && self.holds(resources)
    }

    /// The bound of a dimension by name; the most there can be, if it has none.
    pub(super) fn at_most(&self, name: &str) -> i64 {
        self.iter().find(|(mine, _)| *mine == name).map_or(NONE, |(_, bound)| bound)
    }

    /// The first dimension in which this much is not within bounds.
    pub(super) fn exceeded(&self, resources: &Resources) -> Option<&str> {
        let names: [&str; KNOWN] = NAMES;
        let mut known = names.into_iter().zip(known_of(resources).into_iter().zip(self.known));
        let known = known.find(|(_, (amount, bound))| amount > bound).map(|(name, _)| name);
        let custom = || {
            let amount =
                |name: &str| resources.custom().find(|(mine, _)| *mine == name).map_or(0, |(_, a)| a);
            self.custom.iter().find(|(name, bound)| amount(name) > *bound).map(|(name, _)| name.as_ref())
        };
        known.or_else(custom)
    }

    /// Whether there is any of a dimension that has a bound of more than nothing.
    pub(super) fn has_use_for(&self, resources: &Resources) -> bool {
        let mut known = known_of(resources).into_iter().zip(self.known);
        let custom = |name: &str| self.custom.iter().any(|(mine, bound)| mine.as_ref() == name && *bound > 0);
        known.any(|(amount, bound)| amount > 0 && bound != NONE && bound > 0)
            || resources.custom().any(|(name, _)| custom(name))
    }

    /// As much of it as is within bounds; of ports the lowest.
    pub(super) fn cut(&self, resources: &Resources) -> Resources {
        let mut rest = resources.clone();
        if self.holds(resources) {
            return rest;
        }
        for (name, bound) in self.iter() {
            if name == PORTS {
                let most = usize::try_from(bound).unwrap_or(usize::MAX);
                if let Some(lowest) = resources.ports().take_lowest(most) {
                    rest = rest.with_ports(lowest);
                }
            } else if let Some((_, amount)) = resources.scalars().find(|(mine, _)| *mine == name) {
                // A smaller amount of what was there is never refused.
                rest = rest.clone().with_scalar(name, amount.min(bound)).unwrap_or(rest);
            }
        }
        rest
    }
}
