//! One allocation: each agent with something free and untried goes, whole, to the first in fair order who has not refused it.

use divvy_proto::resources::Resources;
use divvy_proto::time::Timestamp;

use super::{AgentIx, Allocator, ClientIx, Untried};

/// All that an agent had free, given to a framework in one role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kernel) struct Grant {
    pub(in crate::kernel) agent: AgentIx,
    pub(in crate::kernel) client: ClientIx,
    pub(in crate::kernel) resources: Resources,
}

impl Allocator {
    /// Gives away what can be given. Afterwards every free agent is refused by everybody who wants offers.
    pub(in crate::kernel) fn allocate(&mut self, now: Timestamp) -> Vec<Grant> {
        for (client, agent) in self.filters.expire(now) {
            self.retry_on(client, agent);
        }
        if std::mem::take(&mut self.total_changed) {
            self.tree.set_total(&self.sums.declared);
        }
        let mut grants = Vec::new();
        while let Some((agent, untried)) = self.untried.pop_first() {
            if let Some(client) = self.taker(agent, &untried, now) {
                grants.push(self.grant(agent, client));
            }
        }
        grants
    }

    fn taker(&self, agent: AgentIx, untried: &Untried, now: Timestamp) -> Option<ClientIx> {
        let available = &self.slot(agent).available;
        let takes = |client| !self.filters.block(client, agent, available, now);
        match untried {
            Untried::Everyone => self.tree.first(&mut |client| takes(client)),
            Untried::Only(clients) if clients.len() == 1 => {
                let wants = |client: &ClientIx| self.tree.wants(self.client_of(*client).node);
                clients.first().copied().filter(|client| wants(client) && takes(*client))
            }
            Untried::Only(clients) => {
                self.tree.first(&mut |client| clients.contains(&client) && takes(client))
            }
        }
    }

    fn grant(&mut self, agent: AgentIx, client: ClientIx) -> Grant {
        let resources = self.slot(agent).available.clone();
        self.tree.grant(self.client_of(client).node, &resources);
        self.change(agent, |slot| slot.offered = super::sum(&slot.offered, &resources));
        Grant { agent, client, resources }
    }

    /// The oracle: everybody is sorted afresh for every agent, whatever has been tried.
    #[cfg(test)]
    pub(in crate::kernel) fn allocate_by_full_scan(&mut self, now: Timestamp) -> Vec<Grant> {
        self.tree.set_total(&self.sums.declared);
        let mut grants = Vec::new();
        for agent in (0..self.slots.len()).map(AgentIx) {
            let slot = self.slot(agent);
            if !slot.active || !super::is_worth_an_offer(&slot.available) {
                continue;
            }
            let takes = |client: &ClientIx| !self.filters.block(*client, agent, &slot.available, now);
            if let Some(client) = self.tree.naive_order().into_iter().find(takes) {
                grants.push(self.grant(agent, client));
            }
        }
        grants
    }
}
