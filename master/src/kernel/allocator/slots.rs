//! What each agent has: `total = available + offered + used`, pool by pool; and the sums over all that count.

use std::sync::Arc;

use divvy_proto::attributes::Attributes;
use divvy_proto::ids::{AgentId, Hostname};
use divvy_proto::predicate::AgentFacts;
use divvy_proto::quantity::Bytes;
use divvy_proto::resources::Resources;
use divvy_proto::role::RolePath;

use super::ClientIx;
use super::charge::Charge;
use super::classes::ClassIx;
use super::share::Quantities;

/// What is known of an agent when a constraint is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kernel) struct Facts {
    pub(in crate::kernel) hostname: Hostname,
    pub(in crate::kernel) attributes: Arc<Attributes>,
}

/// What one agent has.
#[derive(Debug, Clone)]
pub(in crate::kernel) struct Slot {
    pub(in crate::kernel) id: AgentId,
    pub(in crate::kernel) facts: Facts,
    /// What tasks can be given. A volume's disk is not in it.
    pub(in crate::kernel) total: Charge,
    pub(in crate::kernel) used: Charge,
    pub(in crate::kernel) offered: Charge,
    /// What is left. Where tasks hold more than there is (the agent came back smaller), there is none of it, and the agent
    /// counts as having what they hold until they end.
    pub(in crate::kernel) available: Charge,
    /// Disk that is spent on volumes, and the roles that own them.
    pub(in crate::kernel) volumes: Vec<(RolePath, Bytes)>,
    /// Its resources may be offered.
    pub(super) active: bool,
    /// It is part of what shares are shares of.
    pub(super) counted: bool,
    /// Agents with the same attributes.
    pub(super) class: ClassIx,
    /// Who has something there: how many tasks, classic offers, and offered units of demand.
    pub(super) holders: Vec<(ClientIx, u32)>,
}

impl Slot {
    pub(super) fn new(id: AgentId, facts: Facts) -> Self {
        Self {
            class: ClassIx::default(),
            holders: Vec::new(),
            id,
            facts,
            total: Charge::new(),
            used: Charge::new(),
            offered: Charge::new(),
            available: Charge::new(),
            volumes: Vec::new(),
            active: false,
            counted: false,
        }
    }

    pub(in crate::kernel) fn as_facts(&self) -> AgentFacts<'_> {
        AgentFacts { id: &self.id, hostname: &self.facts.hostname, attributes: &self.facts.attributes }
    }

    /// Its resources may be offered.
    pub(in crate::kernel) fn is_active(&self) -> bool {
        self.active
    }

    /// A client has so many things more there.
    pub(super) fn note_held(&mut self, client: ClientIx, more: u32) {
        match self.holders.iter_mut().find(|(holder, _)| *holder == client) {
            Some((_, count)) => *count += more,
            None => self.holders.push((client, more)),
        }
    }

    pub(super) fn note_released(&mut self, client: ClientIx, less: u32) {
        if let Some(at) = self.holders.iter().position(|(holder, _)| *holder == client)
            && let Some((_, count)) = self.holders.get_mut(at)
        {
            *count = count.saturating_sub(less);
            if *count == 0 {
                self.holders.swap_remove(at);
            }
        }
    }

    /// The disk of its volumes.
    fn volumes(&self) -> impl Iterator<Item = Resources> + '_ {
        self.volumes.iter().map(|(_, size)| Resources::new().with_disk(*size))
    }

    /// What is set aside on it, and for whom, volumes included.
    pub(super) fn owned(&self) -> Vec<(RolePath, Resources)> {
        let reserved = self.total.reserved.iter();
        let reserved = reserved.filter_map(|piece| Some((piece.owner()?.clone(), piece.resources.clone())));
        let owners = self.volumes.iter().map(|(role, _)| role.clone());
        reserved.chain(owners.zip(self.volumes())).collect()
    }

    pub(super) fn settle(&mut self) {
        self.available = self.total.saturating_sub(&self.used).saturating_sub(&self.offered);
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let taken = sum(&self.used, &self.offered);
        if self.available != self.total.saturating_sub(&self.used).saturating_sub(&self.offered) {
            return Err(format!("{}: available is not what is left", self.id));
        }
        if self.total.checked_sub(&taken).is_some() && sum(&self.available, &taken) != self.total {
            return Err(format!("{}: total is not available + offered + used", self.id));
        }
        Ok(())
    }
}

/// Both together. The kernel admits nothing whose resources could not be added, so the second branch is not reached; it keeps
/// what is taken from shrinking if it ever were, and the invariants would tell.
pub(super) fn sum(left: &Charge, right: &Charge) -> Charge {
    left.checked_add(right).unwrap_or_else(|| left.clone())
}

/// Sums over all agents that count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::kernel) struct Sums {
    pub(super) declared: Quantities,
    pub(in crate::kernel) used: Quantities,
    pub(in crate::kernel) offered: Quantities,
    pub(in crate::kernel) available: Quantities,
}

impl Sums {
    pub(super) fn add(&mut self, slot: &Slot) {
        slot.total.pools().for_each(|pool| self.declared.add(pool));
        slot.volumes().for_each(|volume| self.declared.add(&volume));
        slot.used.pools().for_each(|pool| self.used.add(pool));
        slot.offered.pools().for_each(|pool| self.offered.add(pool));
        slot.available.pools().for_each(|pool| self.available.add(pool));
    }

    pub(super) fn sub(&mut self, slot: &Slot) {
        slot.total.pools().for_each(|pool| self.declared.sub(pool));
        slot.volumes().for_each(|volume| self.declared.sub(&volume));
        slot.used.pools().for_each(|pool| self.used.sub(pool));
        slot.offered.pools().for_each(|pool| self.offered.sub(pool));
        slot.available.pools().for_each(|pool| self.available.sub(pool));
    }
}
