//! Agents by what they have free, so that what is wanted finds an agent without a scan: the lowest that has room, or the
//! fullest.
//!
//! Not here: who may have it. Whoever searches says which of the agents with room it accepts.

mod pack;

use divvy_proto::resources::{Dimension, Resources};

use super::AgentIx;
use pack::Pack;

const DIMENSIONS: usize = 5;

/// An amount of each well-known scalar, in its smallest unit, and a number of ports. Custom scalars and which ports these are
/// is for `accept` to look at: they are rare.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::kernel) struct Room([i64; DIMENSIONS]);

impl Room {
    /// Less than any need, even none.
    const ABSENT: Self = Self([-1; DIMENSIONS]);

    /// With so many ports more.
    pub(in crate::kernel) fn and_ports(self, more: i64) -> Self {
        let [cpus, mem, disk, gpus, ports] = self.0;
        Self([cpus, mem, disk, gpus, ports.saturating_add(more)])
    }

    pub(in crate::kernel) fn contains(&self, need: &Self) -> bool {
        // Without a branch per dimension: most are looked at anyway.
        self.0.iter().zip(&need.0).fold(true, |fits, (have, need)| fits & (have >= need))
    }

    fn most(&self, other: &Self) -> Self {
        let mut most = *self;
        most.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| *mine = (*mine).max(*theirs));
        most
    }

    /// The largest fraction of any dimension of `total`, in fixed point: two of them compare as the fractions do, down to
    /// 2^-32.
    pub(super) fn dominant_of(&self, total: &Self) -> u64 {
        let wide = |amount: i64| u128::try_from(amount).unwrap_or_default();
        let parts = self.0.iter().zip(&total.0).map(|(part, whole)| (wide(*part), wide(*whole)));
        let fractions = parts.filter(|(_, whole)| *whole > 0).map(|(part, whole)| (part << 32) / whole);
        u64::try_from(fractions.max().unwrap_or_default()).unwrap_or(u64::MAX)
    }
}

impl From<&Resources> for Room {
    fn from(resources: &Resources) -> Self {
        let [cpus, mem, disk, gpus] = Dimension::ALL.map(|dimension| resources.scalar(dimension));
        Self([cpus, mem, disk, gpus, i64::try_from(resources.ports().count()).unwrap_or(i64::MAX)])
    }
}

/// A tournament over the agents: each inner node knows the most that any agent below it has of each dimension, so that
/// whole subtrees without room are passed over. A change costs the logarithm of the number of agents, and allocates only
/// when there are more agents than ever.
#[derive(Debug, Clone, Default)]
pub(in crate::kernel) struct Index {
    /// Two children below each node: those of `n` are `2n` and `2n + 1`; the root is 1, the leaves are the second half.
    nodes: Vec<Room>,
    totals: Vec<Room>,
    /// Made when somebody first asks for the fullest; a cluster in which nobody packs pays nothing for it.
    pack: Option<Pack>,
}

#[allow(clippy::indexing_slicing, reason = "a node is below twice the number of leaves, by construction")]
impl Index {
    /// How many agents there is place for: a power of two, or none.
    fn leaves(&self) -> usize {
        self.nodes.len() / 2
    }

    /// What the agent has in all, which its free fraction is a fraction of.
    pub(in crate::kernel) fn set_total(&mut self, agent: AgentIx, total: &Room) {
        self.reserve(agent);
        self.totals[agent.0] = *total;
        let free = self.nodes[self.leaves() + agent.0];
        self.repack(agent, &free);
    }

    /// What the agent has free, from now on.
    pub(in crate::kernel) fn set(&mut self, agent: AgentIx, free: &Room) {
        self.reserve(agent);
        self.set_leaf(agent, *free);
    }

    /// Whatever is asked for, this agent does not have it. Its total is forgotten, too.
    pub(in crate::kernel) fn remove(&mut self, agent: AgentIx) {
        if agent.0 < self.leaves() {
            self.set_leaf(agent, Room::ABSENT);
            self.totals[agent.0] = Room::default();
        }
    }

    /// How much of what the agent has is free: the largest fraction of any dimension, in fixed point.
    pub(in crate::kernel) fn free_part(&self, agent: AgentIx) -> u64 {
        let free = self.nodes.get(self.leaves() + agent.0);
        free.zip(self.totals.get(agent.0)).map_or(0, |(free, total)| free.dominant_of(total))
    }

    fn set_leaf(&mut self, agent: AgentIx, free: Room) {
        let mut at = self.leaves() + agent.0;
        if self.nodes[at] == free {
            return;
        }
        self.nodes[at] = free;
        while at > 1 {
            let most = self.nodes[at & !1].most(&self.nodes[at | 1]);
            at /= 2;
            if self.nodes[at] == most {
                break;
            }
            self.nodes[at] = most;
        }
        self.repack(agent, &free);
    }

    fn repack(&mut self, agent: AgentIx, free: &Room) {
        if let Some(pack) = &mut self.pack {
            pack.remove(agent.0);
            if *free != Room::ABSENT {
                pack.insert(agent.0, free.dominant_of(&self.totals[agent.0]), *free);
            }
        }
    }

    fn reserve(&mut self, agent: AgentIx) {
        let (old, new) = (self.leaves(), (agent.0 + 1).next_power_of_two());
        if new <= old {
            return;
        }
        let mut nodes = vec![Room::ABSENT; new];
        nodes.extend_from_slice(&self.nodes[old..]);
        nodes.resize(2 * new, Room::ABSENT);
        for at in (1..new).rev() {
            nodes[at] = nodes[2 * at].most(&nodes[2 * at + 1]);
        }
        self.nodes = nodes;
        self.totals.resize(new, Room::default());
        if let Some(pack) = &mut self.pack {
            pack.reserve(new);
        }
    }

    /// The lowest agent, of those not below `from`, that has room and is accepted.
    pub(in crate::kernel) fn first_fit(
        &self,
        need: &Room,
        from: AgentIx,
        accept: impl FnMut(AgentIx) -> bool,
    ) -> Option<AgentIx> {
        if self.nodes.is_empty() {
            return None;
        }
        FirstFit { nodes: &self.nodes, need, from: from.0, accept }.below(1, 0, self.leaves()).map(AgentIx)
    }

    /// The agent with the smallest dominant free fraction of its total (of equals the lowest) that has room and is accepted.
    pub(in crate::kernel) fn least_free(
        &mut self,
        need: &Room,
        mut accept: impl FnMut(AgentIx) -> bool,
    ) -> Option<AgentIx> {
        if self.pack.is_none() {
            self.pack = Some(self.pack_all());
        }
        self.pack.as_ref()?.first(need, &mut |at| accept(AgentIx(at))).map(AgentIx)
    }

    fn pack_all(&self) -> Pack {
        let mut pack = Pack::default();
        pack.reserve(self.leaves());
        let free = self.nodes.iter().skip(self.leaves()).enumerate();
        for (at, free) in free.filter(|(_, free)| **free != Room::ABSENT) {
            pack.insert(at, free.dominant_of(&self.totals[at]), *free);
        }
        pack
    }

    /// Checks that every maximum is that of what is below it, and that both orders know the same agents.
    pub(in crate::kernel) fn check(&self) -> Result<(), String> {
        let leaves = self.leaves();
        for at in 1..leaves {
            if self.nodes[at] != self.nodes[2 * at].most(&self.nodes[2 * at + 1]) {
                return Err(format!("index: node {at} does not know the most of what is below it"));
            }
        }
        let Some(pack) = &self.pack else { return Ok(()) };
        pack.check()?;
        let there = self.nodes.iter().skip(leaves).filter(|free| **free != Room::ABSENT).count();
        if pack.len() == there { Ok(()) } else { Err("index: an agent is missing in the order".to_owned()) }
    }
}

struct FirstFit<'a, F> {
    nodes: &'a [Room],
    need: &'a Room,
    from: usize,
    accept: F,
}

impl<F: FnMut(AgentIx) -> bool> FirstFit<'_, F> {
    /// Below the node `at`, which stands for `width` agents from `first` on.
    fn below(&mut self, at: usize, first: usize, width: usize) -> Option<usize> {
        if first + width <= self.from || !self.nodes.get(at)?.contains(self.need) {
            return None;
        }
        if width == 1 {
            return (self.accept)(AgentIx(first)).then_some(first);
        }
        let half = width / 2;
        self.below(2 * at, first, half).or_else(|| self.below(2 * at + 1, first + half, half))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Set(usize, Room),
        SetTotal(usize, Room),
        Remove(usize),
        /// Of what fits, all but each n-th agent is accepted.
        FirstFit(Room, usize, usize),
        LeastFree(Room, usize),
    }

    fn room() -> impl Strategy<Value = Room> {
        let dimension = || prop_oneof![Just(0_i64), 0_i64..8];
        [dimension().boxed(), dimension().boxed(), dimension().boxed(), Just(0).boxed(), Just(0).boxed()]
            .prop_map(Room)
    }

    fn step() -> impl Strategy<Value = Step> {
        let agent = || 0_usize..40;
        prop_oneof![
            5 => (agent(), room()).prop_map(|(agent, room)| Step::Set(agent, room)),
            2 => (agent(), room()).prop_map(|(agent, room)| Step::SetTotal(agent, room)),
            1 => agent().prop_map(Step::Remove),
            3 => (room(), agent(), 1_usize..5).prop_map(|(need, from, nth)| Step::FirstFit(need, from, nth)),
            3 => (room(), 1_usize..5).prop_map(|(need, nth)| Step::LeastFree(need, nth)),
        ]
    }

    /// What a scan of all agents says.
    #[derive(Default)]
    struct Scan {
        free: std::collections::BTreeMap<usize, Room>,
        totals: std::collections::BTreeMap<usize, Room>,
    }

    impl Scan {
        fn fitting(&self, need: Room, nth: usize) -> impl Iterator<Item = usize> + '_ {
            let fits = self.free.iter().filter(move |(_, free)| free.contains(&need));
            fits.map(|(at, _)| *at).filter(move |at| at % nth != nth - 1 || nth == 1)
        }

        fn fullest(&self, need: Room, nth: usize) -> Option<usize> {
            let key = |at: &usize| {
                let total = self.totals.get(at).copied().unwrap_or_default();
                (self.free.get(at).copied().unwrap_or_default().dominant_of(&total), *at)
            };
            self.fitting(need, nth).min_by_key(key)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn a_search_finds_what_a_scan_finds(steps in prop::collection::vec(step(), 0..200)) {
            let (mut index, mut scan) = (Index::default(), Scan::default());
            for step in steps {
                let accept = |nth: usize| move |at: AgentIx| at.0 % nth != nth - 1 || nth == 1;
                match step {
                    Step::Set(agent, room) => {
                        index.set(AgentIx(agent), &room);
                        scan.free.insert(agent, room);
                    }
                    Step::SetTotal(agent, room) => {
                        index.set_total(AgentIx(agent), &room);
                        scan.totals.insert(agent, room);
                    }
                    Step::Remove(agent) => {
                        index.remove(AgentIx(agent));
                        scan.free.remove(&agent);
                        scan.totals.remove(&agent);
                    }
                    Step::FirstFit(need, from, nth) => {
                        let found = index.first_fit(&need, AgentIx(from), accept(nth));
                        prop_assert_eq!(found.map(|at| at.0), scan.fitting(need, nth).find(|at| *at >= from));
                    }
                    Step::LeastFree(need, nth) => {
                        let found = index.least_free(&need, accept(nth));
                        prop_assert_eq!(found.map(|at| at.0), scan.fullest(need, nth));
                    }
                }
                prop_assert_eq!(index.check(), Ok(()));
            }
        }
    }

    #[test]
    fn a_search_in_a_full_cluster_looks_at_the_agents_with_room_only() {
        let mut index = Index::default();
        let free = |cpus: i64| Room([cpus, 64, 0, 0, 0]);
        for at in 0..100_000 {
            index.set_total(AgentIx(at), &free(8));
            index.set(AgentIx(at), &free(if at == 77_777 { 2 } else { 1 }));
        }
        let mut looked_at = Vec::new();
        let mut look = |at: AgentIx| {
            looked_at.push(at.0);
            false
        };
        assert_eq!(index.first_fit(&free(2), AgentIx(0), &mut look), None);
        assert_eq!(index.least_free(&free(2), &mut look), None);
        assert_eq!(looked_at, [77_777, 77_777]);
    }
}
