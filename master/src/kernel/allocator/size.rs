//! How much, by dimension, over any number of agents: what quotas are counted in.

use std::sync::Arc;

use divvy_proto::amounts::{Amounts, PORTS};
use divvy_proto::quantity;
use divvy_proto::resources::{Dimension, Resources};

/// The well-known scalars, and ports by number.
pub(super) const KNOWN: usize = 5;
const PORT_COUNT: usize = 4;
pub(super) const NAMES: [&str; KNOWN] = ["cpus", "mem", "disk", "gpus", PORTS];

/// An amount of every dimension; what is not named is zero. Wider than a quantity, so that no sum overflows.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::kernel) struct Size {
    known: [i128; KNOWN],
    /// Sorted by name, without zeroes.
    custom: Vec<(Arc<str>, i128)>,
}

impl Size {
    pub(in crate::kernel) const fn new() -> Self {
        Self { known: [0; KNOWN], custom: Vec::new() }
    }

    pub(in crate::kernel) fn of(resources: &Resources) -> Self {
        let mut size = Self::new();
        size.add_resources(resources);
        size
    }

    pub(in crate::kernel) fn of_amounts(amounts: &Amounts) -> Self {
        let mut size = Self::new();
        amounts.iter().for_each(|(name, amount)| size.set(name, i128::from(amount)));
        size
    }

    fn place(name: &str) -> Option<usize> {
        NAMES.iter().position(|known| *known == name)
    }

    pub(in crate::kernel) fn get(&self, name: &str) -> i128 {
        match Self::place(name) {
            Some(at) => self.known.get(at).copied().unwrap_or_default(),
            None => {
                self.custom.iter().find(|(mine, _)| mine.as_ref() == name).map_or(0, |(_, amount)| *amount)
            }
        }
    }

    pub(in crate::kernel) fn set(&mut self, name: &str, amount: i128) {
        if let Some(at) = Self::place(name) {
            self.known.get_mut(at).into_iter().for_each(|mine| *mine = amount);
            return;
        }
        match self.custom.binary_search_by(|(mine, _)| mine.as_ref().cmp(name)) {
            Ok(at) if amount == 0 => drop(self.custom.remove(at)),
            Ok(at) => self.custom.get_mut(at).into_iter().for_each(|entry| entry.1 = amount),
            Err(_) if amount == 0 => {}
            Err(at) => self.custom.insert(at, (name.into(), amount)),
        }
    }

    /// All that is not zero, by name.
    pub(in crate::kernel) fn iter(&self) -> impl Iterator<Item = (&str, i128)> + '_ {
        let names: [&str; KNOWN] = NAMES;
        let known = names.into_iter().zip(self.known.iter().copied()).filter(|(_, amount)| *amount != 0);
        known.chain(self.custom.iter().map(|(name, amount)| (name.as_ref(), *amount)))
    }

    pub(in crate::kernel) fn is_zero(&self) -> bool {
        self.known == [0; KNOWN] && self.custom.is_empty()
    }

    pub(in crate::kernel) fn is_negative(&self) -> bool {
        self.known.iter().chain(self.custom.iter().map(|(_, amount)| amount)).any(|amount| *amount < 0)
    }

    pub(in crate::kernel) fn add_resources(&mut self, resources: &Resources) {
        self.apply(resources, 1);
    }

    pub(in crate::kernel) fn sub_resources(&mut self, resources: &Resources) {
        self.apply(resources, -1);
    }

    fn apply(&mut self, resources: &Resources, sign: i128) {
        for (mine, dimension) in self.known.iter_mut().zip(Dimension::ALL) {
            *mine += sign * i128::from(resources.scalar(dimension));
        }
        if let Some(ports) = self.known.get_mut(PORT_COUNT)
            && !resources.ports().is_empty()
        {
            *ports += sign * i128::from(resources.ports().count());
        }
        for (name, amount) in resources.custom() {
            self.set(name, self.get(name) + sign * i128::from(amount));
        }
    }

    pub(in crate::kernel) fn add(&mut self, other: &Self) {
        self.known.iter_mut().zip(&other.known).for_each(|(mine, theirs)| *mine += theirs);
        for (name, amount) in &other.custom {
            self.set(name, self.get(name) + amount);
        }
    }

    pub(in crate::kernel) fn sub(&mut self, other: &Self) {
        self.known.iter_mut().zip(&other.known).for_each(|(mine, theirs)| *mine -= theirs);
        for (name, amount) in &other.custom {
            self.set(name, self.get(name) - amount);
        }
    }

    /// So many times this much.
    pub(super) fn times(&self, times: u32) -> Self {
        self.zip(self, |amount, _| amount * i128::from(times))
    }

    /// Dimension by dimension, the result of `f`.
    pub(in crate::kernel) fn zip(&self, other: &Self, f: impl Fn(i128, i128) -> i128) -> Self {
        let mut result = Self::new();
        for (mine, (left, right)) in result.known.iter_mut().zip(self.known.iter().zip(&other.known)) {
            *mine = f(*left, *right);
        }
        for (name, _) in self.custom.iter().chain(&other.custom) {
            result.set(name, f(self.get(name), other.get(name)));
        }
        result
    }

    /// For people and for the wire: cut to the largest quantity there is, zeroes not named.
    pub(in crate::kernel) fn to_amounts(&self) -> Amounts {
        self.iter().filter(|(_, amount)| *amount > 0).fold(Amounts::new(), |all, (name, amount)| {
            let most = if name == PORTS { 65_535_000 } else { quantity::MAX };
            let amount = i64::try_from(amount.min(i128::from(most))).unwrap_or(most);
            // Every name here was a resource's name before, so none is refused.
            all.clone().with(name, amount).unwrap_or(all)
        })
    }
}
