//! What was refused, each amount once: what one agent has free is refused by many, and most agents are alike.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use divvy_proto::resources::Resources;

#[derive(Debug, Clone)]
struct Amount {
    resources: Resources,
    /// In so many groups.
    uses: u32,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Refused {
    amounts: Vec<Amount>,
    unused: Vec<u32>,
    by_hash: BTreeSet<(u64, u32)>,
    /// The one asked for last: frameworks refuse in bulk.
    last: u32,
    nothing: Resources,
}

/// The same in every run: this hasher has no seed.
fn hash(resources: &Resources) -> u64 {
    let mut hasher = DefaultHasher::new();
    resources.hash(&mut hasher);
    hasher.finish()
}

impl Refused {
    pub(super) fn get(&self, number: u32) -> &Resources {
        self.amounts.get(number as usize).map_or(&self.nothing, |amount| &amount.resources)
    }

    /// The number of an amount. It has to be used before another is asked for.
    pub(super) fn number_of(&mut self, resources: Resources) -> u32 {
        let is_known = |amount: &Amount| amount.uses > 0 && amount.resources == resources;
        if !self.amounts.get(self.last as usize).is_some_and(is_known) {
            let hash = hash(&resources);
            let alike = self.by_hash.range((hash, 0)..=(hash, u32::MAX)).map(|(_, number)| *number);
            let known = alike.into_iter().find(|number| *self.get(*number) == resources);
            self.last = known.unwrap_or_else(|| self.insert(hash, resources));
        }
        self.last
    }

    fn insert(&mut self, hash: u64, resources: Resources) -> u32 {
        let number = self.unused.pop().unwrap_or_else(|| {
            self.amounts.push(Amount { resources: Resources::new(), uses: 0 });
            u32::try_from(self.amounts.len() - 1).unwrap_or(u32::MAX)
        });
        self.amounts
            .get_mut(number as usize)
            .into_iter()
            .for_each(|amount| amount.resources = resources.clone());
        self.by_hash.insert((hash, number));
        number
    }

    pub(super) fn add_use(&mut self, number: u32) {
        self.amounts.get_mut(number as usize).into_iter().for_each(|amount| amount.uses += 1);
    }

    pub(super) fn drop_use(&mut self, number: u32) {
        let Some(amount) = self.amounts.get_mut(number as usize) else { return };
        amount.uses -= 1;
        if amount.uses == 0 {
            let resources = std::mem::take(&mut amount.resources);
            self.by_hash.remove(&(hash(&resources), number));
            self.unused.push(number);
        }
    }

    pub(super) fn check(&self, uses: &BTreeMap<u32, u32>) -> Result<(), String> {
        let used = self.amounts.iter().enumerate().filter(|(_, amount)| amount.uses > 0);
        let used: BTreeMap<u32, u32> =
            used.filter_map(|(at, amount)| Some((u32::try_from(at).ok()?, amount.uses))).collect();
        let known = self.by_hash.iter().map(|(_, number)| *number).collect::<BTreeSet<_>>();
        let agree = used == *uses && known.iter().eq(uses.keys()) && known.len() == self.by_hash.len();
        if agree { Ok(()) } else { Err("filters: an amount is used otherwise than counted".to_owned()) }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        // A set's leaves are at least half full, and its inner nodes are few.
        self.amounts.capacity() * size_of::<Amount>()
            + self.unused.capacity() * size_of::<u32>()
            + self.by_hash.len() * size_of::<(u64, u32)>() * 2
    }
}
