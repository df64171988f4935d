//! Which images go when room is needed: pure.

use std::collections::{BTreeMap, BTreeSet};

use divvy_proto::Timestamp;
use divvy_proto::container::Digest;

/// An image as the collection sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate<'a> {
    pub(super) digest: &'a Digest,
    pub(super) layers: &'a [Digest],
    /// When it was last of use.
    pub(super) used: Timestamp,
    /// A container runs in it, or is about to.
    pub(super) is_held: bool,
}

/// The images to remove so that `need` bytes come free, those that were not used for the longest time first. None that is held,
/// and none that was used after `before`.
pub(super) fn victims(
    candidates: &[Candidate<'_>],
    sizes: &BTreeMap<Digest, u64>,
    before: Timestamp,
    need: u64,
) -> Vec<Digest> {
    let mut users: BTreeMap<&Digest, usize> = BTreeMap::new();
    for candidate in candidates {
        for layer in candidate.layers.iter().collect::<BTreeSet<_>>() {
            *users.entry(layer).or_default() += 1;
        }
    }
    let mut free: Vec<_> = candidates.iter().filter(|it| !it.is_held && it.used <= before).collect();
    free.sort_by_key(|candidate| (candidate.used, candidate.digest));
    let (mut freed, mut victims) = (0_u64, Vec::new());
    for candidate in free {
        if freed >= need {
            break;
        }
        for layer in candidate.layers.iter().collect::<BTreeSet<_>>() {
            let left = users.entry(layer).or_default();
            *left = left.saturating_sub(1);
            if *left == 0 {
                freed = freed.saturating_add(sizes.get(layer).copied().unwrap_or(0));
            }
        }
        victims.push(candidate.digest.clone());
    }
    victims
}

/// So many bytes are to come free on a disk of `size` bytes, `used` of them used, if more than `high` percent are: then until
/// `low` percent are.
pub(super) fn needed(size: u64, used: u64, (high, low): (u64, u64)) -> u64 {
    let percent = |part: u64| size / 100 * part;
    if used > percent(high) { used.saturating_sub(percent(low)) } else { 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(number: u8) -> Digest {
        format!("sha256:{}", format!("{number:02x}").repeat(32)).parse().unwrap()
    }

    fn candidate<'a>(digest: &'a Digest, layers: &'a [Digest], used: u64, is_held: bool) -> Candidate<'a> {
        Candidate { digest, layers, used: Timestamp(used), is_held }
    }

    #[test]
    fn the_least_recently_used_go_first_and_shared_layers_free_nothing() {
        let [a, b, c, base, top] = [1, 2, 3, 4, 5].map(digest);
        let sizes = BTreeMap::from([(base.clone(), 100), (top.clone(), 10)]);
        let (both, one) = ([base.clone(), top.clone()], [base.clone()]);
        let all =
            [candidate(&a, &both, 3, false), candidate(&b, &one, 2, false), candidate(&c, &one, 1, true)];
        let gone = |before, need| victims(&all, &sizes, Timestamp(before), need);
        assert_eq!(gone(9, 0), []);
        assert_eq!(gone(9, 1), [b.clone(), a.clone()], "b frees nothing: others have its layer");
        assert_eq!(gone(2, u64::MAX), [b]);
    }

    #[test]
    fn a_disk_is_emptied_from_high_to_low() {
        assert_eq!(needed(1000, 850, (85, 80)), 0);
        assert_eq!(needed(1000, 860, (85, 80)), 60);
        assert_eq!(needed(0, 0, (85, 80)), 0);
    }

    proptest! {
        #[test]
        fn what_is_held_stays_and_enough_goes(
            images in proptest::collection::vec((proptest::collection::vec(0_u8..6, 0..4), 0_u64..10, any::<bool>()), 0..8),
            need in 0_u64..80, before in 0_u64..10,
        ) {
            let sizes: BTreeMap<_, _> = (0..6).map(|number| (digest(number), 10)).collect();
            let digests: Vec<_> = (100..108).map(digest).collect();
            let layers: Vec<Vec<_>> = images.iter().map(|(layers, ..)| layers.iter().map(|it| digest(*it)).collect()).collect();
            let all: Vec<_> = images.iter().zip(&layers).zip(&digests)
                .map(|(((_, used, held), layers), digest)| candidate(digest, layers, *used, *held)).collect();
            let gone = victims(&all, &sizes, Timestamp(before), need);
            let is_gone = |it: &Candidate<'_>| gone.contains(it.digest);
            prop_assert!(all.iter().filter(|it| is_gone(it)).all(|it| !it.is_held && it.used.0 <= before));
            let left: BTreeSet<_> = all.iter().filter(|it| !is_gone(it)).flat_map(|it| it.layers).collect();
            let had: BTreeSet<_> = all.iter().flat_map(|it| it.layers).collect();
            let freed = 10 * (had.len() - left.len()) as u64;
            let may_go = all.iter().filter(|it| !it.is_held && it.used.0 <= before).count();
            prop_assert!(freed >= need || gone.len() == may_go);
        }
    }
}
