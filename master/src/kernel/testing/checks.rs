//! What must hold in every test, whatever it is about.

use std::collections::BTreeMap;

use divvy_proto::api::AgentState;
use divvy_proto::ids::OfferId;
use divvy_proto::time::Timestamp;

use super::Cluster;
use crate::kernel::agents::Agent;
use crate::kernel::{Effect, Kernel, RegistryChange, allocator};

impl Cluster {
    /// Checks that a master that restarted now would find what this one knows.
    pub(in crate::kernel) fn check_registry(&self) -> Result<(), String> {
        let next = Kernel::recover(self.kernel.config.clone(), self.registry.clone(), self.now);
        for (id, agent) in &self.kernel.agents {
            let absence = |standing| match standing {
                AgentState::Unreachable | AgentState::Gone => Some(standing),
                _ => None,
            };
            let known = next.agents.get(id).map(|agent| (absence(agent.standing), &agent.info));
            let orders = |agent: &Agent| (absence(agent.standing).is_none(), agent.upkeep.given.clone());
            let known_orders = next.agents.get(id).map(orders).filter(|(is_there, _)| *is_there);
            if known_orders.is_some_and(|known| known != orders(agent)) {
                return Err(format!("{id}: the registry has other orders than {:?}", agent.upkeep.given));
            }
            let holdings = |agent: &Agent| agent.owned.holdings.clone();
            if next.agents.get(id).map(holdings) != Some(holdings(agent)) {
                return Err(format!("{id}: the registry has other reservations or volumes"));
            }
            if known != Some((absence(agent.standing), &agent.info)) {
                return Err(format!("{id}: the registry has {known:?}, but it is {:?}", agent.standing));
            }
        }
        for (id, framework) in &self.kernel.frameworks {
            let known = next.frameworks.get(id).map(|framework| framework.record(id));
            let record = framework.record(id);
            let is_same = match (&known, &record) {
                (Some(known), RegistryChange::PutFramework { disconnected: None, .. }) => {
                    // One that is connected is recovered as one that has disconnected now.
                    *known == with_disconnected(record.clone(), self.now)
                }
                (Some(known), _) => *known == record,
                (None, _) => false,
            };
            if !is_same {
                return Err(format!("{id}: the registry has {known:?}, but it is {record:?}"));
            }
            if next.frameworks.get(id).is_some_and(|known| known.used_ids != framework.used_ids) {
                return Err(format!("{id}: the registry has other used task ids"));
            }
        }
        Ok(())
    }

    pub(super) fn end_turn(&mut self, effects: &mut Vec<Effect>) {
        let by_full_scan =
            self.with_oracle.then(|| self.kernel.allocator.clone().allocate_by_full_scan(self.now).grants);
        let sent = self.kernel.made.offers;
        self.kernel.end_turn(self.now, effects);
        self.kernel.tell_changes(self.now, effects);
        let show = |(nth, grant): (usize, allocator::Grant)| {
            let id =
                OfferId(u64::from(self.kernel.config.epoch.0) << 32 | (u64::from(sent) + nth as u64 + 1));
            let client = self.kernel.allocator.client_of(grant.client);
            let agent = self.kernel.allocator.slot(grant.agent).id.clone();
            (id, client.framework.clone(), client.role.clone(), agent, grant.charge, grant.demand)
        };
        let made = self.kernel.offers.iter().filter(|(id, _)| id.0 & 0xffff_ffff > u64::from(sent));
        let made = made.map(|(id, o)| {
            (
                *id,
                o.framework.clone(),
                o.role.clone(),
                o.agent.clone(),
                o.grant.charge.clone(),
                o.grant.demand.clone(),
            )
        });
        let Some(grants) = by_full_scan else { return };
        let expected: Vec<_> = grants.into_iter().enumerate().map(show).collect();
        assert_eq!(made.collect::<Vec<_>>(), expected);
        self.check_tasks();
    }

    /// No task is ever forgotten (as long as fewer have ended than are kept), and none that has ended is anything else later.
    fn check_tasks(&mut self) {
        let listed = self.kernel.tasks().into_iter();
        let states: BTreeMap<_, _> = listed.map(|task| ((task.framework_id, task.id), task.state)).collect();
        for (key, before) in &self.states {
            let after = states.get(key);
            let is_fine = after.is_some() && (!before.is_terminal() || after == Some(before));
            assert!(is_fine, "{key:?} was {before}, and is {after:?}");
        }
        self.states = states;
    }
}

fn with_disconnected(record: RegistryChange, at: Timestamp) -> RegistryChange {
    match record {
        RegistryChange::PutFramework { id, info, retired, .. } => {
            RegistryChange::PutFramework { id, info, disconnected: Some(at), retired }
        }
        other => other,
    }
}
