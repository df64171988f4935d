//! Resources of one agent by pool: unreserved, reserved for somebody, revocable.
//!
//! Not here: who may take from which pool. What is reserved for a role is only ever in the hands of that role.

use std::cmp::Reverse;

use divvy_proto::reservation::{Allocation, Reserved};
use divvy_proto::resources::Resources;
use divvy_proto::role::RolePath;

/// Some of an agent's resources, by the pool from which they come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::kernel) struct Charge {
    /// What is nobody's in particular.
    pub(in crate::kernel) unreserved: Resources,
    /// What is set aside. Sorted by stack, each stack once, nothing empty.
    pub(in crate::kernel) reserved: Vec<Reserved>,
    /// What may be taken back at any time.
    pub(in crate::kernel) revocable: Resources,
}

impl Charge {
    /// Nothing.
    pub(in crate::kernel) const fn new() -> Self {
        Self { unreserved: Resources::new(), reserved: Vec::new(), revocable: Resources::new() }
    }

    /// Unreserved resources.
    pub(in crate::kernel) const fn unreserved(resources: Resources) -> Self {
        Self { unreserved: resources, reserved: Vec::new(), revocable: Resources::new() }
    }

    /// Revocable resources.
    pub(in crate::kernel) const fn revocable(resources: Resources) -> Self {
        Self { unreserved: Resources::new(), reserved: Vec::new(), revocable: resources }
    }

    /// With these reserved resources, in any order; those of one stack are added up.
    ///
    /// `None` where a sum leaves the range of quantities, or a port is in two of them.
    pub(in crate::kernel) fn with_reserved(
        self,
        reserved: impl IntoIterator<Item = Reserved>,
    ) -> Option<Self> {
        let more = reserved.into_iter();
        more.into_iter().try_fold(self, |mut all, piece| {
            all.add_reserved(&piece)?;
            Some(all)
        })
    }

    fn add_reserved(&mut self, piece: &Reserved) -> Option<()> {
        if piece.resources.is_empty() {
            return Some(());
        }
        match self.reserved.binary_search_by(|mine| mine.stack.cmp(&piece.stack)) {
            Ok(at) => {
                let mine = self.reserved.get_mut(at)?;
                mine.resources = mine.resources.checked_add(&piece.resources)?;
            }
            Err(at) => self.reserved.insert(at, piece.clone()),
        }
        Some(())
    }

    /// All of it, whatever the pool.
    pub(in crate::kernel) fn total(&self) -> Resources {
        if self.reserved.is_empty() && self.revocable.is_empty() {
            return self.unreserved.clone();
        }
        let reserved = self.reserved.iter().map(|piece| &piece.resources);
        reserved.chain([&self.revocable]).fold(self.unreserved.clone(), |all, more| super::sum(&all, more))
    }

    /// What is unreserved and what is revocable: what counts for the roles above, where reservations count anyway.
    pub(in crate::kernel) fn unowned(&self) -> Resources {
        match self.revocable.is_empty() {
            true => self.unreserved.clone(),
            false => super::sum(&self.unreserved, &self.revocable),
        }
    }

    /// The resources of each pool.
    pub(super) fn pools(&self) -> impl Iterator<Item = &Resources> + '_ {
        let reserved = self.reserved.iter().map(|piece| &piece.resources);
        [&self.unreserved, &self.revocable].into_iter().chain(reserved)
    }

    pub(in crate::kernel) fn is_empty(&self) -> bool {
        self.unreserved.is_empty() && self.reserved.is_empty() && self.revocable.is_empty()
    }

    /// Whether it is revocable resources and nothing else.
    pub(in crate::kernel) fn is_revocable(&self) -> bool {
        self.unreserved.is_empty() && self.reserved.is_empty() && !self.revocable.is_empty()
    }

    /// What is reserved under this stack.
    pub(in crate::kernel) fn under(&self, stack: &[divvy_proto::Reservation]) -> Option<&Resources> {
        let at = self.reserved.binary_search_by(|mine| mine.stack.as_slice().cmp(stack)).ok()?;
        self.reserved.get(at).map(|piece| &piece.resources)
    }

    /// Both together; `None` where a sum leaves the range of quantities, or a port is in both.
    pub(in crate::kernel) fn checked_add(&self, other: &Self) -> Option<Self> {
        let sum = Self {
            unreserved: self.unreserved.checked_add(&other.unreserved)?,
            reserved: self.reserved.clone(),
            revocable: self.revocable.checked_add(&other.revocable)?,
        };
        sum.with_reserved(other.reserved.iter().cloned())
    }

    /// Whether `other` could be taken from this, pool by pool.
    pub(super) fn contains(&self, other: &Self) -> bool {
        let is_there =
            |piece: &Reserved| self.under(&piece.stack).is_some_and(|mine| mine.contains(&piece.resources));
        self.unreserved.contains(&other.unreserved)
            && self.revocable.contains(&other.revocable)
            && other.reserved.iter().all(is_there)
    }

    /// This without `other`; `None` if some pool does not hold what is taken from it.
    pub(in crate::kernel) fn checked_sub(&self, other: &Self) -> Option<Self> {
        self.contains(other).then(|| self.saturating_sub(other))
    }

    /// This without `other`, pool by pool, as far as there is any.
    pub(in crate::kernel) fn saturating_sub(&self, other: &Self) -> Self {
        let rest_of = |piece: &Reserved| {
            let rest = match other.under(&piece.stack) {
                Some(taken) => piece.resources.saturating_sub(taken),
                None => piece.resources.clone(),
            };
            (!rest.is_empty()).then(|| Reserved { stack: piece.stack.clone(), resources: rest })
        };
        Self {
            unreserved: self.unreserved.saturating_sub(&other.unreserved),
            reserved: self.reserved.iter().filter_map(rest_of).collect(),
            revocable: self.revocable.saturating_sub(&other.revocable),
        }
    }

    /// Takes what a task needs out of it: from reserved pieces first, those of the innermost role first, then in order; the
    /// rest from what is unreserved. Revocable resources do not mix: they are taken only where there is nothing else.
    /// `None`, and nothing is taken, if it is not all there.
    pub(in crate::kernel) fn take(&mut self, wanted: &Resources) -> Option<Charge> {
        if self.is_revocable() {
            self.revocable = self.revocable.checked_sub(wanted)?;
            return Some(Self::revocable(wanted.clone()));
        }
        if self.reserved.is_empty() {
            self.unreserved = self.unreserved.checked_sub(wanted)?;
            return Some(Self::unreserved(wanted.clone()));
        }
        let mut pieces: Vec<&Reserved> = self.reserved.iter().collect();
        pieces.sort_by_key(|piece| Reverse(depth(piece)));
        let mut rest = wanted.clone();
        let mut taken = Self::new();
        for piece in pieces {
            let part = common(&piece.resources, &rest);
            rest = rest.saturating_sub(&part);
            taken.add_reserved(&Reserved { stack: piece.stack.clone(), resources: part })?;
        }
        if !self.unreserved.contains(&rest) {
            return None;
        }
        taken.unreserved = rest;
        *self = self.saturating_sub(&taken);
        Some(taken)
    }

    /// As an agent keeps it with a task of this role.
    pub(in crate::kernel) fn to_allocation(&self, role: &RolePath) -> Allocation {
        Allocation {
            role: Some(role.clone()),
            reserved: self.reserved.clone(),
            revocable: !self.revocable.is_empty(),
        }
    }

    /// What a task that needs `resources` holds, by what its agent kept of it. Where the two do not agree, unreserved.
    pub(in crate::kernel) fn from_allocation(allocation: &Allocation, resources: &Resources) -> Self {
        if allocation.revocable {
            return Self::revocable(resources.clone());
        }
        let by_pool = || {
            let reserved = Self::new().with_reserved(allocation.reserved.iter().cloned())?;
            let unreserved = resources.checked_sub(&reserved.total())?;
            Some(Self { unreserved, ..reserved })
        };
        by_pool().unwrap_or_else(|| Self::unreserved(resources.clone()))
    }
}

/// How far down the role tree its owner is.
fn depth(piece: &Reserved) -> usize {
    piece.owner().map_or(0, |role| role.parts().count())
}

/// What is in both: the smaller amount of each dimension, the ports that both have.
pub(super) fn common(left: &Resources, right: &Resources) -> Resources {
    left.saturating_sub(&left.saturating_sub(right))
}

#[cfg(test)]
mod tests {
    use divvy_proto::Reservation;

    use super::*;

    fn reserved(roles: &[&str], resources: &str) -> Reserved {
        let reservation = |role: &&str| Reservation {
            role: role.parse().unwrap(),
            principal: None,
            labels: Default::default(),
            fixed: false,
        };
        Reserved { stack: roles.iter().map(reservation).collect(), resources: resources.parse().unwrap() }
    }

    fn charge(unreserved: &str, pieces: &[Reserved]) -> Charge {
        Charge::unreserved(unreserved.parse().unwrap()).with_reserved(pieces.iter().cloned()).unwrap()
    }

    #[test]
    fn a_task_takes_from_the_innermost_reservation_first_and_from_the_unreserved_last() {
        let (outer, inner) =
            (reserved(&["eng"], "cpus=2;ports=[1-2]"), reserved(&["eng", "eng/ads"], "cpus=1"));
        let mut left = charge("cpus=4;mem=1GiB;ports=[3-4]", &[outer.clone(), inner.clone()]);
        let whole = left.clone();

        let first = left.take(&"cpus=2;ports=[2-3]".parse().unwrap()).unwrap();
        assert_eq!(first, charge("ports=[3]", &[inner, reserved(&["eng"], "cpus=1;ports=[2]")]));
        assert_eq!(left, charge("cpus=4;mem=1GiB;ports=[4]", &[reserved(&["eng"], "cpus=1;ports=[1]")]));
        assert_eq!(left.checked_add(&first), Some(whole));

        let before = left.clone();
        assert_eq!(left.take(&"cpus=6".parse().unwrap()), None);
        assert_eq!(left, before);
        assert_eq!(left.checked_sub(&charge("", &[reserved(&["eng"], "cpus=2")])), None);
    }

    #[test]
    fn what_an_agent_kept_says_what_a_task_holds() {
        let mut left = charge("cpus=4", &[reserved(&["eng"], "cpus=1")]);
        let resources: Resources = "cpus=3".parse().unwrap();
        let held = left.take(&resources).unwrap();
        let kept = held.to_allocation(&"eng".parse().unwrap());
        assert_eq!(Charge::from_allocation(&kept, &resources), held);
        assert_eq!(Charge::from_allocation(&Allocation::default(), &resources), charge("cpus=3", &[]));

        let mut revocable = Charge::revocable(resources.clone());
        let held = revocable.take(&resources).unwrap();
        let kept = held.to_allocation(&"eng".parse().unwrap());
        assert_eq!(Charge::from_allocation(&kept, &resources), held);
        assert!(revocable.is_empty());
    }
}
