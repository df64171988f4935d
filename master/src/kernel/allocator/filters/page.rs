//! The filters of one client on 1,024 neighbouring agents.

use divvy_proto::time::Timestamp;

use super::AgentIx;
use super::refused::Refused;

const PER_GROUP: usize = 64;
const PER_PAGE: usize = 1024;

/// Of filters that do not cover each other, so many are kept for one client on one agent; then the one that ends first is
/// forgotten, which costs its owner no more than an offer that it has to decline again.
pub(super) const MOST_PER_PAIR: usize = 16;

/// Where an agent stands on its page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    row: u8,
    bit: u64,
}

impl Spot {
    /// The number of the agent's page, and its spot there.
    pub(super) fn of(agent: AgentIx) -> (u32, Self) {
        let row = u8::try_from(agent.0 % PER_PAGE / PER_GROUP).unwrap_or_default();
        let place = u32::try_from(agent.0 / PER_PAGE).unwrap_or(u32::MAX);
        (place, Self { row, bit: 1 << (agent.0 % PER_GROUP) })
    }
}

/// Filters on agents of one row that are alike in what was refused and when they end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    pub(super) until: Timestamp,
    agents: u64,
    pub(super) refused: u32,
    row: u8,
}

impl Group {
    fn key(&self) -> (u8, u32, Timestamp) {
        (self.row, self.refused, self.until)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Page {
    /// When the first of its filters ends.
    pub(super) next: Timestamp,
    /// By row, then by what was refused, then by end.
    groups: Vec<Group>,
    /// Which agents: the first is 1,024 times this.
    pub(super) place: u32,
}

impl Page {
    pub(super) fn new(place: u32) -> Self {
        Self { next: Timestamp(u64::MAX), groups: Vec::new(), place }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter()
    }

    /// The filters on one agent.
    pub(super) fn at(&self, spot: Spot) -> impl Iterator<Item = &Group> {
        let row = self.row(spot);
        let groups = self.groups.get(row).into_iter().flatten();
        groups.filter(move |group| group.agents & spot.bit != 0)
    }

    fn row(&self, spot: Spot) -> std::ops::Range<usize> {
        let start = self.groups.partition_point(|group| group.row < spot.row);
        let rest = self.groups.get(start..).unwrap_or_default();
        start..start + rest.partition_point(|group| group.row == spot.row)
    }

    /// Adds a filter, and says how many it made superfluous.
    pub(super) fn add(&mut self, spot: Spot, refused: u32, until: Timestamp, table: &mut Refused) -> u32 {
        // First: what is dropped below may be the last that had this amount.
        table.add_use(refused);
        let covered: Vec<(u32, Timestamp)> = self
            .at(spot)
            .filter(|old| old.until <= until && table.get(refused).contains(table.get(old.refused)))
            .map(|old| (old.refused, old.until))
            .collect();
        let mut dropped = self.clear_those(spot, table, |old| covered.contains(&(old.refused, old.until)));
        if self.at(spot).count() >= MOST_PER_PAIR
            && let Some((end, what)) = self.at(spot).map(|group| (group.until, group.refused)).min()
        {
            dropped += self.clear_those(spot, table, |old| (old.until, old.refused) == (end, what));
        }
        let new = Group { until, agents: spot.bit, refused, row: spot.row };
        match self.groups.binary_search_by_key(&new.key(), Group::key) {
            Ok(at) => {
                self.groups.get_mut(at).into_iter().for_each(|group| group.agents |= spot.bit);
                table.drop_use(refused);
            }
            Err(at) => push_at(&mut self.groups, at, new),
        }
        self.next = self.next.min(until);
        dropped
    }

    /// Takes out all filters on one agent, and says how many they were.
    pub(super) fn clear(&mut self, spot: Spot, table: &mut Refused) -> u32 {
        self.clear_those(spot, table, |_| true)
    }

    fn clear_those(&mut self, spot: Spot, table: &mut Refused, goes: impl Fn(&Group) -> bool) -> u32 {
        let (mut cleared, mut is_first, mut at) = (0, false, self.row(spot).start);
        while let Some(group) = self.groups.get_mut(at).filter(|group| group.row == spot.row) {
            if group.agents & spot.bit != 0 && goes(group) {
                cleared += 1;
                is_first |= group.until == self.next;
                group.agents &= !spot.bit;
                if group.agents == 0 {
                    table.drop_use(group.refused);
                    self.groups.remove(at);
                    continue;
                }
            }
            at += 1;
        }
        if is_first {
            self.find_next();
        }
        cleared
    }

    /// Takes out what has ended, and says on which agents.
    pub(super) fn expire(&mut self, now: Timestamp, table: &mut Refused, mut ended: impl FnMut(AgentIx)) {
        let place = self.place;
        self.groups.retain(|group| {
            let stays = group.until > now;
            if !stays {
                agents(place, group).for_each(&mut ended);
                table.drop_use(group.refused);
            }
            stays
        });
        self.find_next();
    }

    /// Takes out the last group, and says which agents it was on.
    pub(super) fn pop_group(&mut self, table: &mut Refused) -> impl Iterator<Item = AgentIx> + use<> {
        let (place, group) = (self.place, self.groups.pop());
        group.iter().for_each(|group| table.drop_use(group.refused));
        group.into_iter().flat_map(move |group| agents(place, &group))
    }

    pub(super) fn agents_of(&self, group: &Group) -> impl Iterator<Item = AgentIx> + use<> {
        agents(self.place, group)
    }

    fn find_next(&mut self) {
        self.next = self.groups.iter().map(|group| group.until).min().unwrap_or(Timestamp(u64::MAX));
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let is_sorted = self.groups.is_sorted_by(|one, other| one.key() < other.key());
        let ends_right = self.groups.iter().all(|group| group.until >= self.next);
        if is_sorted && ends_right && self.groups.iter().all(|group| group.agents != 0) {
            return Ok(());
        }
        Err(format!("filters: page {} is out of order", self.place))
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.groups.capacity() * size_of::<Group>()
    }
}

fn agents(place: u32, group: &Group) -> impl Iterator<Item = AgentIx> + use<> {
    let first = place as usize * PER_PAGE + usize::from(group.row) * PER_GROUP;
    let mut left = group.agents;
    std::iter::from_fn(move || {
        let bit = (left != 0).then(|| left.trailing_zeros())?;
        left &= left - 1;
        Some(AgentIx(first + bit as usize))
    })
}

/// Inserts, growing by an eighth where a vector would double: filters are many, and stand for long.
pub(super) fn push_at<T>(all: &mut Vec<T>, at: usize, new: T) {
    if all.len() == all.capacity() {
        all.reserve_exact((all.len() / 8).max(2));
    }
    all.insert(at, new);
}
