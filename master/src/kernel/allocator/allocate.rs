//! One allocation: each agent with something free and untried goes, whole, to the first in fair order who has not refused it.

use divvy_proto::demand::OfferedDemand;
use divvy_proto::time::Timestamp;

use super::{AgentIx, Allocator, Charge, ClientIx, Untried, slots};

/// What is given to a framework in one role on one agent: it becomes an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kernel) struct Grant {
    pub(in crate::kernel) agent: AgentIx,
    pub(in crate::kernel) client: ClientIx,
    pub(in crate::kernel) charge: Charge,
    /// For what it is given; absent if the client takes anything.
    pub(in crate::kernel) demand: Option<OfferedDemand>,
}

/// What a turn has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::kernel) struct Allocated {
    /// In the order in which they were decided.
    pub(in crate::kernel) grants: Vec<Grant>,
    /// What else was decided, and why.
    pub(in crate::kernel) notes: Vec<Note>,
}

/// Something worth remembering that is not an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kernel) enum Note {
    /// An agent is kept for a demand that has waited long.
    Held {
        /// Whose demand.
        client: ClientIx,
        /// Which agent.
        agent: AgentIx,
        /// The shape's name.
        shape: String,
        /// Since when it waits.
        since: Timestamp,
    },
    /// A gang's pieces are kept from here on until it is complete.
    GangGathering {
        /// Whose gang.
        client: ClientIx,
        /// How many pieces are kept.
        kept: u32,
        /// How many are still missing.
        missing: u32,
    },
    /// A gang was not complete in time; what was kept is free again.
    GangReleased {
        /// Whose gang.
        client: ClientIx,
        /// How many pieces were kept.
        kept: u32,
        /// How many were missing.
        missing: u32,
    },
    /// A gang is complete, and offered.
    GangComplete {
        /// Whose gang.
        client: ClientIx,
        /// The number that its offers carry.
        gang: u64,
    },
}

impl Allocator {
    /// Gives away what can be given. Afterwards every free agent is refused by everybody who wants offers.
    pub(in crate::kernel) fn allocate(&mut self, now: Timestamp) -> Allocated {
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
        Allocated { grants, notes: Vec::new() }
    }

    fn taker(&self, agent: AgentIx, untried: &Untried, now: Timestamp) -> Option<ClientIx> {
        let available = &self.slot(agent).available.total();
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
        let charge = self.slot(agent).available.clone();
        self.tree.grant(self.client_of(client).node, &charge);
        self.change(agent, |slot| slot.offered = slots::sum(&slot.offered, &charge));
        Grant { agent, client, charge, demand: None }
    }

    /// The oracle: everybody is sorted afresh for every agent, whatever has been tried.
    #[cfg(test)]
    pub(in crate::kernel) fn allocate_by_full_scan(&mut self, now: Timestamp) -> Allocated {
        self.tree.set_total(&self.sums.declared);
        let mut grants = Vec::new();
        for agent in (0..self.slots.len()).map(AgentIx) {
            let slot = self.slot(agent);
            if !slot.active || !super::is_worth_an_offer(&slot.available.total()) {
                continue;
            }
            let takes = |client: &ClientIx| !self.filters.block(*client, agent, &slot.available.total(), now);
            if let Some(client) = self.tree.naive_order().into_iter().find(takes) {
                grants.push(self.grant(agent, client));
            }
        }
        Allocated { grants, notes: Vec::new() }
    }
}
