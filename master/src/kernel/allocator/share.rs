//! The policy: weighted Dominant Resource Fairness (Ghodsi et al., NSDI 2011). Sums are exact, a share is a ratio of whole
//! numbers, and what orders are made of is that ratio in fixed point: one integer.

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
    /// Without zeroes.
    custom: BTreeMap<String, i128>,
}

impl Quantities {
    pub(in crate::kernel) fn add(&mut self, resources: &Resources) {
        self.apply(resources, 1);
    }

    pub(in crate::kernel) fn sub(&mut self, resources: &Resources) {
        self.apply(resources, -1);
    }

    fn apply(&mut self, resources: &Resources, sign: i64) {
        for (mine, dimension) in self.known.iter_mut().zip(Dimension::ALL) {
            // A quantity is at most 2^60, so that its negative is one, too.
            *mine += i128::from(sign * resources.scalar(dimension));
        }
        for (name, amount) in resources.custom() {
            self.add_custom(name, i128::from(sign * amount));
        }
    }

    fn add_custom(&mut self, name: &str, amount: i128) {
        let mine = self.custom.entry(name.to_owned()).or_default();
        *mine += amount;
        if *mine == 0 {
            self.custom.remove(name);
        }
    }

    pub(in crate::kernel) fn merge(&mut self, other: &Self) {
        self.known.iter_mut().zip(&other.known).for_each(|(mine, theirs)| *mine += theirs);
        other.custom().for_each(|(name, amount)| self.add_custom(name, amount));
    }

    fn custom(&self) -> impl Iterator<Item = (&str, i128)> + '_ {
        self.custom.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    pub(in crate::kernel) fn is_negative(&self) -> bool {
        self.known.iter().any(|amount| *amount < 0) || self.custom().any(|(_, amount)| amount < 0)
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
        self.custom().for_each(|(name, amount)| put(name, amount));
        all
    }

    /// Each scalar of which there is some here and in `total`, as held and total.
    fn against<'a>(&'a self, total: &'a Self) -> impl Iterator<Item = (i128, i128)> + 'a {
        let known = self.known.iter().copied().zip(total.known.iter().copied());
        let custom = self.custom().filter_map(|(name, held)| Some((held, *total.custom.get(name)?)));
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
        if weight == DEFAULT_WEIGHT {
            return self;
        }
        Self {
            part: self.part.saturating_mul(u128::from(DEFAULT_WEIGHT)),
            whole: self.whole.saturating_mul(u128::from(weight.max(1))),
        }
    }

    /// What orders are made of.
    pub(in crate::kernel) fn key(self) -> Key {
        Key(fixed_point(self.part, self.whole))
    }

    /// For people.
    #[allow(clippy::cast_precision_loss, reason = "nothing is decided by this number")]
    pub(in crate::kernel) fn as_f64(self) -> f64 {
        self.part as f64 / self.whole as f64
    }
}

/// A weighted share as one integer: `floor(share * 2^52)`.
///
/// Equal ratios have equal keys, and a smaller ratio never has a larger key. Two ratios may have one key only if they are
/// closer than 2^-52: of 100,000 agents with a TiB each that is 32 bytes, times the weight. A share of 4,096 or more (four
/// whole clusters at the least weight there is, 0.001) saturates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::kernel) struct Key(u64);

const FRACTION_BITS: u32 = 52;

impl Key {
    /// For people: in millionths.
    pub(in crate::kernel) fn millionths(self) -> u32 {
        u32::try_from((u128::from(self.0) * 1_000_000) >> FRACTION_BITS).unwrap_or(u32::MAX)
    }
}

/// `floor(part / whole * 2^52)`, or `u64::MAX` where that is more. Exact for every `whole` below 2^127.
fn fixed_point(part: u128, whole: u128) -> u64 {
    if part.leading_zeros() >= FRACTION_BITS {
        return u64::try_from((part << FRACTION_BITS) / whole).unwrap_or(u64::MAX);
    }
    let (mut quotient, mut rest, mut whole, mut bits) = (part / whole, part % whole, whole, FRACTION_BITS);
    if quotient >= 1 << (u64::BITS - FRACTION_BITS) {
        return u64::MAX;
    }
    while bits > 0 {
        if whole.leading_zeros() == 0 {
            (rest, whole) = (rest >> 1, whole >> 1);
        }
        // The rest is smaller than the whole, so it can be moved as far as the whole could.
        let step = bits.min(whole.leading_zeros());
        quotient = (quotient << step) | ((rest << step) / whole);
        rest = (rest << step) % whole;
        bits -= step;
    }
    u64::try_from(quotient).unwrap_or(u64::MAX)
}

impl Ord for Share {
    fn cmp(&self, other: &Self) -> Ordering {
        let narrow = |n: u128| u64::try_from(n).ok().map(u128::from);
        if let (Some(a), Some(b), Some(c), Some(d)) =
            (narrow(self.part), narrow(self.whole), narrow(other.part), narrow(other.whole))
        {
            return (a * d).cmp(&(c * b));
        }
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

    fn sum(text: &str) -> Quantities {
        let mut sum = Quantities::default();
        sum.add(&text.parse().unwrap());
        sum
    }

    /// Numbers of every size that sums of quantities may have: up to 2^110, times a weight.
    fn wide() -> impl Strategy<Value = u128> {
        (1_u128..1 << 100, 0_u32..100).prop_map(|(n, shift)| (n >> shift).max(1))
    }

    fn share() -> impl Strategy<Value = Share> {
        (wide(), wide(), 1_u32..=1_000_000_000)
            .prop_map(|(part, whole, weight)| Share { part, whole }.by_weight(weight))
    }

    proptest! {
        #[test]
        fn ratios_compare_alike_by_products_and_by_quotients(
            a in 0_u64.., b in 1_u64.., c in 0_u64.., d in 1_u64..
        ) {
            let wide = |n: u64| u128::from(n);
            let by_products = (wide(a) * wide(d)).cmp(&(wide(c) * wide(b)));
            prop_assert_eq!(compare_by_quotients((wide(a), wide(b)), (wide(c), wide(d))), by_products);
            let share = |part, whole| Share { part: wide(part), whole: wide(whole) };
            prop_assert_eq!(share(a, b).cmp(&share(c, d)), by_products);
        }

        #[test]
        fn a_ratio_too_wide_for_products_equals_itself_scaled(a in 0_u64.., b in 1_u64..) {
            let share = |scale: u128| Share { part: u128::from(a) * scale, whole: u128::from(b) * scale };
            prop_assert_eq!(share(1 << 63), share(1 << 62));
        }

        #[test]
        fn keys_never_order_two_shares_the_wrong_way(one in share(), other in share()) {
            match one.cmp(&other) {
                Ordering::Less => prop_assert!(one.key() <= other.key()),
                Ordering::Equal => prop_assert_eq!(one.key(), other.key()),
                Ordering::Greater => prop_assert!(one.key() >= other.key()),
            }
        }

        #[test]
        fn equal_ratios_have_equal_keys(a in 0_u128..1 << 60, b in 1_u128..1 << 60, scale in 1_u128..1 << 50) {
            let scaled = Share { part: a * scale, whole: b * scale };
            prop_assert_eq!(scaled.key(), Share { part: a, whole: b }.key());
        }

        #[test]
        fn shares_as_far_apart_as_the_precision_have_different_keys(
            part in 0_u128..1 << 62, whole in 1_u128..1 << 58, step in 1_u128..100
        ) {
            // step / 2^52 more, exactly; below the saturation at 2^12.
            prop_assume!(part / whole < 4000);
            let scaled = |part: u128| Share { part, whole: whole << 52 };
            let (low, high) = (scaled(part << 52), scaled((part << 52) + step * whole));
            prop_assert_eq!(u128::from(high.key().0 - low.key().0), step);
        }

        #[test]
        fn a_sum_of_any_parts_less_the_same_parts_is_nothing(
            parts in prop::collection::vec((0_i64..1 << 60, 0_i64..1 << 60, 0_i64..3), 0..20)
        ) {
            let resources = |&(cpus, mem, custom): &(i64, i64, i64)| {
                let scalars = Resources::new().with_scalar("cpus", cpus).unwrap().with_scalar("mem", mem);
                scalars.unwrap().with_scalar("licenses", custom).unwrap()
            };
            let mut sum = Quantities::default();
            parts.iter().for_each(|part| sum.add(&resources(part)));
            prop_assert!(!sum.is_negative());
            parts.iter().rev().for_each(|part| sum.sub(&resources(part)));
            prop_assert_eq!(sum, Quantities::default());
        }
    }

    #[test]
    fn the_dominant_share_is_the_largest_of_what_there_is() {
        let share = Share::dominant(&sum("cpus=1;mem=4GiB;licenses=3"), &sum("cpus=9;mem=18GiB;gpus=2"));
        assert_eq!(share, Share { part: 2, whole: 9 });
        assert_eq!(share.by_weight(2000), Share { part: 1, whole: 9 });
        assert_eq!(share.by_weight(2000).key(), Key((1 << 52) / 9));
    }

    #[test]
    fn an_absurd_share_saturates() {
        let most = Share { part: u128::MAX, whole: 1 };
        assert_eq!(most.key(), Key(u64::MAX));
        assert_eq!(Share { part: 4096, whole: 1 }.key(), Key(u64::MAX));
        assert_eq!(Share { part: 4095, whole: 1 }.key(), Key(4095 << 52));
    }
}
