//! The floor: the least that an allocation by share could cost on this machine at this moment. A bare ordered set of
//! frameworks, from which the first is taken, its share raised, and put back; and an offer pushed to a vector. No agents,
//! no roles, no filters, no ids.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::figures::Spent;

#[derive(Debug, Clone, Copy)]
struct BareOffer {
    _agent: u64,
    _framework: u32,
    _resources: [i64; 4],
}

/// Processor time of so many bare offers.
pub fn offers(count: u64, frameworks: usize) -> Duration {
    let framework = |at: usize| u32::try_from(at).unwrap_or_default();
    let mut order: BTreeSet<(u64, u64, u32)> =
        (0..frameworks.max(1)).map(|at| (0, 0, framework(at))).collect();
    let mut made = Vec::new();
    let begun = Spent::begin();
    for agent in 0..count {
        if let Some((share, grants, framework)) = order.pop_first() {
            made.push(BareOffer {
                _agent: agent,
                _framework: framework,
                _resources: [24_000, 4 << 30, 4 << 30, 0],
            });
            order.insert((share + (1 << 30), grants + 1, framework));
        }
    }
    let spent = begun.end();
    std::hint::black_box(&made);
    spent.cpu
}
