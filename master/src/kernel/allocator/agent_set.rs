//! A set of agents as bits, with a summary above them: adding, removing and finding the next are a few instructions.

use super::AgentIx;

const BITS: usize = 64;

/// A set of agents.
#[derive(Debug, Clone, Default)]
pub(super) struct AgentSet {
    words: Vec<u64>,
    /// One bit for each word that is not zero.
    summary: Vec<u64>,
    len: usize,
}

fn bit(at: usize) -> u64 {
    1 << (at % BITS)
}

/// The lowest bit that is set, of those not below `from`.
fn next_bit(word: u64, from: usize) -> Option<usize> {
    let rest = word & u64::MAX.checked_shl(u32::try_from(from).ok()?)?;
    (rest != 0).then(|| rest.trailing_zeros() as usize)
}

#[allow(clippy::indexing_slicing, reason = "the set grows before it is written")]
impl AgentSet {
    pub(super) fn insert(&mut self, agent: AgentIx) {
        let word = agent.0 / BITS;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
            self.summary.resize(word / BITS + 1, 0);
        }
        if self.words[word] & bit(agent.0) == 0 {
            self.words[word] |= bit(agent.0);
            self.summary[word / BITS] |= bit(word);
            self.len += 1;
        }
    }

    pub(super) fn remove(&mut self, agent: AgentIx) {
        let word = agent.0 / BITS;
        if self.contains(agent) {
            self.words[word] &= !bit(agent.0);
            self.len -= 1;
            if self.words[word] == 0 {
                self.summary[word / BITS] &= !bit(word);
            }
        }
    }

    pub(super) fn contains(&self, agent: AgentIx) -> bool {
        self.words.get(agent.0 / BITS).is_some_and(|word| word & bit(agent.0) != 0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The lowest agent in the set, of those not below `from`.
    pub(super) fn next(&self, from: AgentIx) -> Option<AgentIx> {
        let word = from.0 / BITS;
        if let Some(at) = next_bit(*self.words.get(word)?, from.0 % BITS) {
            return Some(AgentIx(word * BITS + at));
        }
        let word = self.next_word(word + 1)?;
        next_bit(self.words[word], 0).map(|at| AgentIx(word * BITS + at))
    }

    /// The lowest word that is not zero, of those not below `from`.
    fn next_word(&self, from: usize) -> Option<usize> {
        let mut start = from % BITS;
        for (at, bits) in self.summary.iter().enumerate().skip(from / BITS) {
            if let Some(found) = next_bit(*bits, start) {
                return Some(at * BITS + found);
            }
            start = 0;
        }
        None
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = AgentIx> + '_ {
        let mut from = AgentIx::MIN;
        std::iter::from_fn(move || {
            let found = self.next(from)?;
            from = AgentIx(found.0 + 1);
            Some(found)
        })
    }

    /// Nobody is in it any more. Costs what is in it, not what could be.
    pub(super) fn clear(&mut self) {
        while self.len > 0
            && let Some(word) = self.next_word(0)
        {
            self.len -= self.words[word].count_ones() as usize;
            self.words[word] = 0;
            self.summary[word / BITS] &= !bit(word);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((0..3_u8, 0_usize..10_000), 0..200)) {
            let (mut bits, mut tree) = (AgentSet::default(), BTreeSet::new());
            for (what, at) in steps {
                match what {
                    0 => {
                        bits.insert(AgentIx(at));
                        tree.insert(AgentIx(at));
                    }
                    1 => {
                        bits.remove(AgentIx(at));
                        tree.remove(&AgentIx(at));
                    }
                    _ => prop_assert_eq!(bits.next(AgentIx(at)), tree.range(AgentIx(at)..).next().copied()),
                }
                prop_assert_eq!(bits.len(), tree.len());
            }
            prop_assert!(bits.iter().eq(tree.iter().copied()));
            bits.clear();
            prop_assert_eq!((bits.next(AgentIx(0)), bits.is_empty()), (None, true));
        }
    }
}
