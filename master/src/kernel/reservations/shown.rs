//! Reservations and volumes as the operator API shows them. Nothing here changes anything.

use std::collections::BTreeMap;

use divvy_proto::api::{self, AgentState};
use divvy_proto::ids::{AgentId, VolumeId};
use divvy_proto::reservation::{Reserved, Volume};
use divvy_proto::role::RolePath;

use super::is_fixed;
use crate::kernel::agents::Agent;
use crate::kernel::allocator::Charge;
use crate::kernel::holdings::show_owner;
use crate::kernel::{Kernel, TaskKey};

/// So many agents that came back smaller are named in the status.
const WARNINGS_SHOWN: usize = 10;

impl Kernel {
    /// All that is reserved, agent by agent.
    #[must_use]
    pub fn reservations(&self) -> Vec<api::ReservationView> {
        let of_agent = |(id, agent): (&AgentId, &Agent)| {
            self.reserved_of(agent)
                .into_iter()
                .filter_map(|piece| self.show_reserved(id, agent, piece))
                .collect()
        };
        self.agents.iter().flat_map(|pair| -> Vec<_> { of_agent(pair) }).collect()
    }

    /// All persistent volumes, agent by agent.
    #[must_use]
    pub fn volumes(&self) -> Vec<api::AgentVolume> {
        let of_agent = |(id, agent): (&AgentId, &Agent)| {
            let volumes = self.volumes_of(agent).into_iter();
            volumes.filter_map(|volume| self.show_agent_volume(id, agent, volume)).collect()
        };
        self.agents.iter().flat_map(|pair| -> Vec<_> { of_agent(pair) }).collect()
    }

    /// What of an agent is reserved, by the agent's command line and otherwise, volumes apart.
    pub(in crate::kernel) fn reserved_of(&self, agent: &Agent) -> Vec<Reserved> {
        let fixed = self.allocator.slot(agent.slot).total.reserved.iter().filter(|piece| is_fixed(piece));
        let all = Charge::new().with_reserved(agent.owned.holdings.reserved.iter().chain(fixed).cloned());
        all.unwrap_or_default().reserved
    }

    /// The volumes of an agent, and who uses them.
    pub(in crate::kernel) fn volumes_of(&self, agent: &Agent) -> Vec<api::VolumeView> {
        let users = self.users_by_volume(agent);
        agent.owned.holdings.volumes.values().map(|volume| show_volume(volume, &users)).collect()
    }

    fn show_reserved(&self, id: &AgentId, agent: &Agent, piece: Reserved) -> Option<api::ReservationView> {
        let used = &self.allocator.slot(agent.slot).used;
        let role = piece.owner()?.clone();
        Some(api::ReservationView {
            agent_id: id.clone(),
            hostname: agent.info.hostname.clone(),
            agent_state: agent.standing,
            used: used.under(&piece.stack).cloned().unwrap_or_default(),
            orphan: self.is_orphan(agent, &role),
            role,
            reserved: piece,
        })
    }

    fn show_agent_volume(
        &self,
        id: &AgentId,
        agent: &Agent,
        volume: api::VolumeView,
    ) -> Option<api::AgentVolume> {
        let role = volume.volume.owner()?.clone();
        Some(api::AgentVolume {
            agent_id: id.clone(),
            hostname: agent.info.hostname.clone(),
            agent_state: agent.standing,
            orphan: self.is_orphan(agent, &role),
            role,
            volume,
        })
    }

    /// Nobody is left to use what the role owns there.
    fn is_orphan(&self, agent: &Agent, role: &RolePath) -> bool {
        let mut present = self.frameworks.values().filter(|framework| !framework.retired);
        agent.standing == AgentState::Gone
            || !present.any(|framework| framework.info.roles.iter().any(|mine| role.contains(mine)))
    }

    /// What operators should know of agents that came back smaller.
    pub(in crate::kernel) fn reservation_warnings(&self) -> Vec<String> {
        let is_there = |agent: &&Agent| agent.standing != AgentState::Gone;
        let known = |id| Some((id, self.agents.get(id).filter(is_there)?));
        let agents: Vec<(&AgentId, &Agent)> = self.too_small.iter().filter_map(known).collect();
        let show = |piece: &Reserved| format!("{} {}", piece.resources, show_owner(&piece.stack));
        let warning = |(id, agent): &(&AgentId, &Agent)| {
            let missing: Vec<String> = agent.owned.missing.iter().map(show).collect();
            format!("agent {id} no longer has {}", missing.join(" and "))
        };
        let more = agents.len().saturating_sub(WARNINGS_SHOWN);
        let rest =
            (more > 0).then(|| format!("{more} more agents no longer have all that is reserved of them"));
        agents.iter().take(WARNINGS_SHOWN).map(warning).chain(rest).collect()
    }
}

fn show_volume(volume: &Volume, users: &BTreeMap<&VolumeId, Vec<&TaskKey>>) -> api::VolumeView {
    let users = users.get(&volume.id).into_iter().flatten();
    let used_by = users.map(|(framework, task)| format!("{framework}/{task}")).collect();
    api::VolumeView { volume: volume.clone(), used_by }
}
