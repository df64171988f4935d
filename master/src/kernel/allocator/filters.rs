//! What frameworks have refused, and until when. Every filter ends by itself, at its time, not at the next round.

use std::collections::{BTreeMap, BTreeSet};

use divvy_proto::resources::Resources;
use divvy_proto::time::Timestamp;

use super::{AgentIx, ClientIx};

/// Of filters that do not cover each other, so many are kept for one client on one agent; then the oldest is forgotten, which
/// costs its owner no more than an offer that it has to decline again.
const MOST_PER_PAIR: usize = 16;

#[derive(Debug, Clone)]
struct Filter {
    refused: Resources,
    until: Timestamp,
}

/// Filters by who refused (a framework in one role) and what (an agent).
#[derive(Debug, Clone, Default)]
pub(super) struct Filters {
    by_pair: BTreeMap<(ClientIx, AgentIx), Vec<Filter>>,
    by_agent: BTreeSet<(AgentIx, ClientIx)>,
    by_end: BTreeSet<(Timestamp, ClientIx, AgentIx)>,
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
        let filters = self.by_pair.get(&(client, agent)).into_iter().flatten();
        filters.into_iter().any(|filter| filter.until > now && filter.refused.contains(available))
    }

    pub(super) fn add(&mut self, client: ClientIx, agent: AgentIx, refused: Resources, until: Timestamp) {
        let filters = self.by_pair.entry((client, agent)).or_default();
        let ends: Vec<Timestamp> = filters.iter().map(|filter| filter.until).collect();
        // Dropping one that is covered keeps the list short.
        filters.retain(|old| old.until > until || !refused.contains(&old.refused));
        if filters.len() >= MOST_PER_PAIR {
            filters.remove(0);
        }
        // Two filters that end together share an entry in `by_end`.
        for end in ends.into_iter().filter(|end| filters.iter().all(|filter| filter.until != *end)) {
            self.by_end.remove(&(end, client, agent));
        }
        filters.push(Filter { refused, until });
        self.by_agent.insert((agent, client));
        self.by_end.insert((until, client, agent));
    }

    /// When the next filter ends.
    pub(super) fn next_end(&self) -> Option<Timestamp> {
        self.by_end.first().map(|(until, _, _)| *until)
    }

    /// Takes out the filters that have ended, and says whose they were.
    pub(super) fn expire(&mut self, now: Timestamp) -> Vec<(ClientIx, AgentIx)> {
        let mut ended = Vec::new();
        while let Some(&(until, client, agent)) = self.by_end.first()
            && until <= now
        {
            self.by_end.pop_first();
            if let Some(filters) = self.by_pair.get_mut(&(client, agent)) {
                filters.retain(|filter| filter.until > now);
                if filters.is_empty() {
                    self.by_pair.remove(&(client, agent));
                    self.by_agent.remove(&(agent, client));
                }
            }
            ended.push((client, agent));
        }
        ended
    }

    pub(super) fn clear_client(&mut self, client: ClientIx) {
        let all = (client, AgentIx::MIN)..=(client, AgentIx::MAX);
        let pairs: Vec<_> = self.by_pair.range(all).map(|(pair, _)| *pair).collect();
        pairs.into_iter().for_each(|(client, agent)| self.clear(client, agent));
    }

    pub(super) fn clear_agent(&mut self, agent: AgentIx) {
        let all = (agent, ClientIx::MIN)..=(agent, ClientIx::MAX);
        let pairs: Vec<_> = self.by_agent.range(all).copied().collect();
        pairs.into_iter().for_each(|(agent, client)| self.clear(client, agent));
    }

    fn clear(&mut self, client: ClientIx, agent: AgentIx) {
        for filter in self.by_pair.remove(&(client, agent)).unwrap_or_default() {
            self.by_end.remove(&(filter.until, client, agent));
        }
        self.by_agent.remove(&(agent, client));
    }

    /// Checks that the indexes agree: each filter has an end, and nothing else has.
    pub(super) fn check(&self) -> Result<(), String> {
        let pairs = self.by_pair.keys().map(|(client, agent)| (*agent, *client)).collect::<BTreeSet<_>>();
        let ends = self.by_pair.iter().flat_map(|((client, agent), filters)| {
            filters.iter().map(move |filter| (filter.until, *client, *agent))
        });
        let agree = pairs == self.by_agent && ends.collect::<BTreeSet<_>>() == self.by_end;
        if agree { Ok(()) } else { Err("filters: the indexes disagree".to_owned()) }
    }
}
