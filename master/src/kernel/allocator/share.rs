//! The policy: weighted Dominant Resource Fairness (Ghodsi et al., NSDI 2011). Exact: shares are ratios of whole numbers,
//! compared without division or floats.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use divvy_proto::resources::{Dimension, Resources};

/// The weight of a role that nobody has given one, in thousandths.
pub(in crate::kernel) const DEFAULT_WEIGHT: u32 = 1000;

/// A sum of scalars over any number of agents. Ports are left out: they mean nothing beyond their agent. Wider than a
/// quantity, so that no sum of what agents claim can overflow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::kernel) struct Quantities {
    known: [i128; 4],
    custom: BTreeMap<String, i128>,
}

impl Quantities {
    pub(in crate::kernel) fn add(&mut self, resources: &Resources) {
        self.apply(resources, 1);
    }

    pub(in crate::kernel) fn sub(&mut self, resources: &Resources) {
        self.apply(resources, -1);
    }

    fn apply(&mut self, resources: &Resources, sign: i128) {
        for (mine, dimension) in self.known.iter_mut().zip(Dimension::ALL) {
            *mine += sign * i128::from(resources.scalar(dimension));
        }
        for (name, amount) in resources.custom() {
            let mine = self.custom.entry(name.to_owned()).or_default();
            *mine += sign * i128::from(amount);
            if *mine == 0 {
                self.custom.remove(name);
            }
        }
    }

    pub(in crate::kernel) fn merge(&mut self, other: &Self) {
        self.known.iter_mut().zip(&other.known).for_each(|(mine, theirs)| *mine += theirs);
        for (name, amount) in &other.custom {
            *self.custom.entry(name.clone()).or_default() += amount;
        }
    }

    pub(in crate::kernel) fn is_negative(&self) -> bool {
        self.known.iter().chain(self.custom.values()).any(|amount| *amount < 0)
    }

    /// For people: cut to the largest quantity there is.
    pub(in crate::kernel) fn to_resources(&self) -> Resources {
        let clamp = |amount: i128| {
            i64::try_from(amount.clamp(0, i128::from(divvy_proto::quantity::MAX))).unwrap_or_default()
        };
        let mut all = Resources::new();
        let mut put = |name: &str, amount: i128| {
            // Every name here was a resource's name before, so none is refused.
            all = all.clone().with_scalar(name, clamp(amount)).unwrap_or_default();
        };
        Dimension::ALL
            .into_iter()
            .zip(self.known)
            .for_each(|(dimension, amount)| put(dimension.name(), amount));
        self.custom.iter().for_each(|(name, amount)| put(name, *amount));
        all
    }

    /// Each scalar of which `total` has any, as held and total.
    fn against<'a>(&'a self, total: &'a Self) -> impl Iterator<Item = (i128, i128)> + 'a {
        let known = self.known.iter().copied().zip(total.known.iter().copied());
        let custom = self.custom.iter();
        let custom = custom.filter_map(|(name, held)| total.custom.get(name).map(|total| (*held, *total)));
        known.chain(custom).filter(|(held, total)| *held > 0 && *total > 0)
    }
}

/// A ratio of whole numbers, not negative.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernel) struct Share {
    part: u128,
    whole: u128,
}

impl Share {
    /// The largest share of any scalar.
    pub(in crate::kernel) fn dominant(held: &Quantities, total: &Quantities) -> Self {
        let shares = held
            .against(total)
            .map(|(held, total)| Self { part: held.unsigned_abs(), whole: total.unsigned_abs() });
        shares.max().unwrap_or(Self { part: 0, whole: 1 })
    }

    /// Divided by a weight in thousandths, which is not zero.
    pub(in crate::kernel) fn by_weight(self, weight: u32) -> Self {
        Self {
            part: self.part.saturating_mul(u128::from(DEFAULT_WEIGHT)),
            whole: self.whole.saturating_mul(u128::from(weight.max(1))),
        }
    }

    /// For people.
    #[allow(clippy::cast_precision_loss, reason = "nothing is decided by this number")]
    pub(in crate::kernel) fn as_f64(self) -> f64 {
        self.part as f64 / self.whole as f64
    }
}

impl Ord for Share {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.part.checked_mul(other.whole), other.part.checked_mul(self.whole)) {
            (Some(mine), Some(theirs)) => mine.cmp(&theirs),
            _ => compare_by_quotients((self.part, self.whole), (other.part, other.whole)),
        }
    }
}

/// Compares two ratios whose cross products overflow: whole parts first, then, reversed, the inverses of the rests.
fn compare_by_quotients(mut left: (u128, u128), mut right: (u128, u128)) -> Ordering {
    let mut reversed = false;
    loop {
        let order = (left.0 / left.1).cmp(&(right.0 / right.1));
        let rests = (left.0 % left.1, right.0 % right.1);
        let order = match (order, rests) {
            (Ordering::Equal, (0, 0)) => Ordering::Equal,
            (Ordering::Equal, (0, _)) => Ordering::Less,
            (Ordering::Equal, (_, 0)) => Ordering::Greater,
            (Ordering::Equal, (l, r)) => {
                (left, right) = ((left.1, l), (right.1, r));
                reversed = !reversed;
                continue;
            }
            (order, _) => order,
        };
        return if reversed { order.reverse() } else { order };
    }
}

impl PartialOrd for Share {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Share {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Share {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ratios_compare_alike_by_products_and_by_quotients(
            a in 0_u64.., b in 1_u64.., c in 0_u64.., d in 1_u64..
        ) {
            let wide = |n: u64| u128::from(n);
            let by_products = (wide(a) * wide(d)).cmp(&(wide(c) * wide(b)));
            prop_assert_eq!(compare_by_quotients((wide(a), wide(b)), (wide(c), wide(d))), by_products);
        }

        #[test]
        fn a_ratio_too_wide_for_products_equals_itself_scaled(a in 0_u64.., b in 1_u64..) {
            let share = |scale: u128| Share { part: u128::from(a) * scale, whole: u128::from(b) * scale };
            prop_assert_eq!(share(1 << 63), share(1 << 62));
        }
    }

    #[test]
    fn the_dominant_share_is_the_largest_of_what_there_is() {
        let sum = |text: &str| {
            let mut sum = Quantities::default();
            sum.add(&text.parse().unwrap());
            sum
        };
        let share = Share::dominant(&sum("cpus=1;mem=4GiB;licenses=3"), &sum("cpus=9;mem=18GiB;gpus=2"));
        assert_eq!(share, Share { part: 2, whole: 9 });
        assert_eq!(share.by_weight(2000), Share { part: 1, whole: 9 });
    }
}
