//! What frameworks have refused, and until when. Every filter ends by itself, at its time, not at the next round.
//!
//! ```text
//! client ─ page (1,024 agents, next end) ─ group (64 agents as bits, what they were refused with, until when)
//!                                            └ refused.rs: each amount once, however many refuse it
//! ends: a heap of the pages' next ends
//! ```
//!
//! A filter that has nothing in common with its neighbours is a group of its own, 24 bytes; a framework that refuses many
//! agents alike pays 3 bits for each.

mod page;
mod refused;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use divvy_proto::resources::Resources;
use divvy_proto::time::Timestamp;

use super::{AgentIx, ClientIx};
use page::{Page, Spot};
use refused::Refused;

/// After the filters of a client were cleared, so many groups of them are given back with each further step: a client that
/// revives does not wait until a hundred thousand filters are counted off.
const GROUPS_PER_STEP: usize = 16;

/// Filters by who refused (a framework in one role) and what (an agent).
#[derive(Debug, Clone, Default)]
pub(super) struct Filters {
    /// By client, each by place.
    clients: Vec<Vec<Page>>,
    refused: Refused,
    /// The next end of each page, and some that are no longer true; the first one is.
    ends: BinaryHeap<Reverse<(Timestamp, ClientIx, u32)>>,
    /// How many pages there are.
    pages: usize,
    /// What is still to be counted off.
    cleared: Vec<Vec<Page>>,
    /// How many filters stand on each agent, the cleared ones included.
    on_agent: Vec<u32>,
}

impl Filters {
    /// Whether this client has refused all that the agent has.
    pub(super) fn block(
        &self,
        client: ClientIx,
        agent: AgentIx,
        available: &Resources,
        now: Timestamp,
    ) -> bool {
        let (place, spot) = Spot::of(agent);
        self.page(client, place).is_some_and(|page| {
            page.at(spot)
                .any(|group| group.until > now && self.refused.get(group.refused).contains(available))
        })
    }

    /// Until when it has.
    pub(super) fn until(
        &self,
        client: ClientIx,
        agent: AgentIx,
        available: &Resources,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let (place, spot) = Spot::of(agent);
        let page = self.page(client, place)?;
        let blocks = page
            .at(spot)
            .filter(|group| group.until > now && self.refused.get(group.refused).contains(available));
        blocks.map(|group| group.until).max()
    }

    pub(super) fn add(&mut self, client: ClientIx, agent: AgentIx, refused: Resources, until: Timestamp) {
        let (place, spot) = Spot::of(agent);
        if self.clients.len() <= client.0 {
            self.clients.resize(client.0 + 1, Vec::new());
        }
        if self.on_agent.len() <= agent.0 {
            self.on_agent.resize(agent.0 + 1, 0);
        }
        let refused = self.refused.number_of(refused);
        let Some(pages) = self.clients.get_mut(client.0) else { return };
        let at = find(pages, place).unwrap_or_else(|at| {
            self.pages += 1;
            page::push_at(pages, at, Page::new(place));
            at
        });
        let Some(page) = pages.get_mut(at) else { return };
        let before = page.next;
        let dropped = page.add(spot, refused, until, &mut self.refused);
        if page.next != before {
            self.ends.push(Reverse((page.next, client, place)));
        }
        self.count(agent, 1, dropped);
        self.give_back(GROUPS_PER_STEP);
        self.settle_ends();
    }

    /// When the next filter ends.
    pub(super) fn next_end(&self) -> Option<Timestamp> {
        self.ends.peek().map(|Reverse((until, _, _))| *until)
    }

    /// Takes out the filters that have ended, and says whose they were.
    pub(super) fn expire(&mut self, now: Timestamp) -> Vec<(ClientIx, AgentIx)> {
        let mut ended = Vec::new();
        while let Some(&Reverse((until, client, place))) = self.ends.peek()
            && until <= now
        {
            self.ends.pop();
            self.expire_page(client, place, until, now, &mut ended);
        }
        self.give_back(GROUPS_PER_STEP);
        self.settle_ends();
        ended
    }

    fn expire_page(
        &mut self,
        client: ClientIx,
        place: u32,
        until: Timestamp,
        now: Timestamp,
        ended: &mut Vec<(ClientIx, AgentIx)>,
    ) {
        let Some(pages) = self.clients.get_mut(client.0) else { return };
        let Ok(at) = find(pages, place) else { return };
        let Some(page) = pages.get_mut(at).filter(|page| page.next == until) else { return };
        let first = ended.len();
        page.expire(now, &mut self.refused, |agent| ended.push((client, agent)));
        for (_, agent) in ended.iter().skip(first) {
            self.on_agent.get_mut(agent.0).into_iter().for_each(|count| *count -= 1);
        }
        self.page_changed(client, at);
    }

    /// A page's next end may be another, or there may be nothing left on it.
    fn page_changed(&mut self, client: ClientIx, at: usize) {
        let Some(pages) = self.clients.get_mut(client.0) else { return };
        match pages.get(at) {
            Some(page) if page.is_empty() => {
                pages.remove(at);
                self.pages -= 1;
            }
            Some(page) => self.ends.push(Reverse((page.next, client, page.place))),
            None => {}
        }
    }

    /// Costs nothing that grows with what the client has refused.
    pub(super) fn clear_client(&mut self, client: ClientIx) {
        let Some(pages) = self.clients.get_mut(client.0).filter(|pages| !pages.is_empty()) else { return };
        self.pages -= pages.len();
        self.cleared.push(std::mem::take(pages));
        self.settle_ends();
    }

    /// Asks every client, unless nobody has refused the agent: this is for agents that come back other than they were.
    pub(super) fn clear_agent(&mut self, agent: AgentIx) {
        if self.on_agent.get(agent.0).is_none_or(|count| *count == 0) {
            return;
        }
        let (place, spot) = Spot::of(agent);
        for client in (0..self.clients.len()).map(ClientIx) {
            let Some(pages) = self.clients.get_mut(client.0) else { continue };
            let Ok(at) = find(pages, place) else { continue };
            let Some(page) = pages.get_mut(at) else { continue };
            let dropped = page.clear(spot, &mut self.refused);
            if dropped > 0 {
                self.count(agent, 0, dropped);
                self.page_changed(client, at);
            }
        }
        self.settle_ends();
    }

    fn page(&self, client: ClientIx, place: u32) -> Option<&Page> {
        let pages = self.clients.get(client.0)?;
        pages.get(find(pages, place).ok()?)
    }

    fn count(&mut self, agent: AgentIx, more: u32, fewer: u32) {
        self.on_agent.get_mut(agent.0).into_iter().for_each(|count| *count = *count + more - fewer);
    }

    /// Counts off some of what was cleared.
    fn give_back(&mut self, groups: usize) {
        for _ in 0..groups {
            let Some(pages) = self.cleared.last_mut() else { return };
            match pages.last_mut() {
                None => drop(self.cleared.pop()),
                Some(page) if page.is_empty() => drop(pages.pop()),
                Some(page) => {
                    for agent in page.pop_group(&mut self.refused) {
                        self.on_agent.get_mut(agent.0).into_iter().for_each(|count| *count -= 1);
                    }
                }
            }
        }
    }

    /// Makes the first end a true one, and forgets those that are not once they are the most.
    fn settle_ends(&mut self) {
        while let Some(&Reverse((until, client, place))) = self.ends.peek()
            && self.page(client, place).is_none_or(|page| page.next != until)
        {
            self.ends.pop();
        }
        if self.ends.len() > 2 * self.pages + 64 {
            let ends = self.clients.iter().enumerate().flat_map(|(client, pages)| {
                pages.iter().map(move |page| Reverse((page.next, ClientIx(client), page.place)))
            });
            self.ends = ends.collect();
        }
    }

    /// Checks that what is counted and looked up agrees with the filters.
    pub(super) fn check(&self) -> Result<(), String> {
        let (mut uses, mut on_agent) = (BTreeMap::<u32, u32>::new(), vec![0_u32; self.on_agent.len()]);
        for page in self.clients.iter().flatten().chain(self.cleared.iter().flatten()) {
            page.check()?;
            for group in page.groups() {
                *uses.entry(group.refused).or_default() += 1;
                let agents = page.agents_of(group);
                agents.for_each(|agent| on_agent.get_mut(agent.0).into_iter().for_each(|count| *count += 1));
            }
        }
        if on_agent != self.on_agent || self.clients.iter().map(Vec::len).sum::<usize>() != self.pages {
            return Err("filters: a count is wrong".to_owned());
        }
        let ends: std::collections::BTreeSet<_> = self.ends.iter().map(|Reverse(end)| *end).collect();
        for (client, pages) in self.clients.iter().enumerate() {
            if !pages.is_sorted_by_key(|page| page.place)
                || pages.iter().any(|page| !ends.contains(&(page.next, ClientIx(client), page.place)))
            {
                return Err("filters: a page is out of order, or its end is not known".to_owned());
            }
        }
        if self.next_end() != self.clients.iter().flatten().map(|page| page.next).min() {
            return Err("filters: the next end is not the first".to_owned());
        }
        self.refused.check(&uses)
    }

    /// What all of it takes, in bytes, unused capacity included.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        let pages = self.clients.iter().chain(&self.cleared);
        let pages = pages
            .map(|pages| pages.capacity() * size_of::<Page>() + pages.iter().map(Page::bytes).sum::<usize>());
        pages.sum::<usize>()
            + (self.clients.capacity() + self.cleared.capacity()) * size_of::<Vec<Page>>()
            + self.ends.capacity() * size_of::<(Timestamp, ClientIx, u32)>()
            + self.on_agent.capacity() * size_of::<u32>()
            + self.refused.bytes()
    }
}

/// Where the page of this place is among those of one client, or where it would be.
fn find(pages: &[Page], place: u32) -> Result<usize, usize> {
    // One who has refused agents everywhere has all pages.
    match pages.get(place as usize) {
        Some(page) if page.place == place => Ok(place as usize),
        _ => pages.binary_search_by_key(&place, |page| page.place),
    }
}

#[cfg(test)]
mod tests;
