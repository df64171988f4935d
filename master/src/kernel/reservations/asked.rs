//! What operators ask of reservations and volumes: whether it can be done, in words that say what is missing and who has it.
//!
//! Not here: what a change is (`holdings`), and what happens once it is durable (the module above).

use divvy_proto::api::AgentState;
use divvy_proto::ids::{AgentId, OfferId, VolumeId};
use divvy_proto::quantity::Bytes;
use divvy_proto::reservation::{Reservation, Reserved, Volume};
use divvy_proto::resources::Resources;
use divvy_proto::time::Timestamp;

use super::is_fixed;
use crate::kernel::agents::Agent;
use crate::kernel::allocator::{Charge, Size, sum};
use crate::kernel::holdings::{Change, check_role, is_alike, reservation, shortage, show_owner};
use crate::kernel::registry::Awaited;
use crate::kernel::{Effects, Kernel, OperatorRequest, RequestId, TaskKey};

impl Kernel {
    /// What an operator asks of an agent's reservations and volumes. Answered once it is durable.
    ///
    /// # Errors
    /// Why it is not done.
    pub(in crate::kernel) fn change_owned(
        &mut self,
        now: Timestamp,
        request: RequestId,
        body: OperatorRequest,
        out: &mut Effects,
    ) -> Result<(), String> {
        let (agent, changes) = match body {
            OperatorRequest::Reserve { agent_id, resources, reservation } => {
                let changes = self.asked_to_reserve(&agent_id, resources, reservation)?;
                (agent_id, changes)
            }
            OperatorRequest::Unreserve { agent_id, resources, reservation } => {
                let changes = self.asked_to_unreserve(&agent_id, resources, &reservation)?;
                (agent_id, changes)
            }
            OperatorRequest::CreateVolume { agent_id, volume_id, size, reservation } => {
                let change = self.asked_to_create(now, &agent_id, volume_id, size, &reservation)?;
                (agent_id, vec![change])
            }
            OperatorRequest::DestroyVolume { agent_id, volume_id } => {
                let change = Change::destroy(self.unused_volume(&agent_id, &volume_id)?);
                (agent_id, vec![change])
            }
            OperatorRequest::ResizeVolume { agent_id, volume_id, size } => {
                let change = self.asked_to_resize(&agent_id, &volume_id, size)?;
                (agent_id, vec![change])
            }
            other => return Err(format!("{other:?} is not about reservations")),
        };
        self.begin_changes(&agent, changes, request, out)
    }

    fn asked_to_reserve(
        &self,
        agent: &AgentId,
        resources: Resources,
        wanted: Reservation,
    ) -> Result<Vec<Change>, String> {
        self.agent_to_stay(agent)?;
        check_role(&wanted.role).map_err(|invalid| invalid.to_string())?;
        check_some(&resources)?;
        let over = self.allocator.check_role_limit(&wanted.role, &resources);
        let over = over.and_then(|()| self.check_beside_reserving(&wanted.role, None, &Size::of(&resources)));
        over.map_err(|over| format!("role {} would exceed its limit: {}", over.role, over.shortage))?;
        let reservation = reservation(&wanted.role, wanted.principal.as_ref(), wanted.labels);
        Ok(vec![Change::reserve(&[], reservation, resources)])
    }

    /// Takes from each reservation of that role and these labels in turn, whoever made it and whatever it refines.
    fn asked_to_unreserve(
        &self,
        id: &AgentId,
        resources: Resources,
        unwanted: &Reservation,
    ) -> Result<Vec<Change>, String> {
        let agent = self.known_agent(id)?;
        check_some(&resources)?;
        let (free, mut rest, mut all) = (self.free_of(agent), resources, Resources::new());
        let mut changes = Vec::new();
        for piece in self.pieces_of(agent, unwanted).filter(|piece| !is_fixed(piece)) {
            let Some(there) = free.under(&piece.stack) else { continue };
            let part = rest.saturating_sub(&rest.saturating_sub(there));
            all = sum(&all, there);
            rest = rest.saturating_sub(&part);
            if !part.is_empty() {
                changes.push(Change::unreserve(&piece.stack, part));
            }
        }
        if rest.is_empty() {
            return Ok(changes);
        }
        let owner = show_owner(std::slice::from_ref(unwanted));
        if self.pieces_of(agent, unwanted).any(is_fixed) {
            return Err(format!(
                "what is {owner} on agent {id} is so by the agent's command line, and ends only there"
            ));
        }
        let wanted = changes.iter().fold(rest, |all, change| sum(&all, &change.takes.total()));
        let lacking = all.shortage(&wanted).map_or_else(String::new, |shortage| format!(": {shortage}"));
        let pieces = self.pieces_of(agent, unwanted);
        let pools: Vec<Reserved> =
            pieces.map(|piece| Reserved { resources: wanted.clone(), ..piece.clone() }).collect();
        let holders = self.holders(agent, &Charge { reserved: pools, ..Charge::new() });
        Err(format!(
            "agent {id} does not have that much {owner} that no task and no volume needs{lacking}{holders}"
        ))
    }

    fn asked_to_create(
        &self,
        now: Timestamp,
        id: &AgentId,
        volume: VolumeId,
        size: Bytes,
        under: &Reservation,
    ) -> Result<Change, String> {
        let agent = self.agent_to_stay(id)?;
        if size.bytes() == 0 {
            return Err("the size of a volume is more than nothing".to_owned());
        }
        if agent.owned.holdings.volumes.contains_key(&volume) {
            return Err(format!("a volume {volume} exists on agent {id} already"));
        }
        let free = self.free_of(agent);
        let has_room = |piece: &&Reserved| free.under(&piece.stack).is_some_and(|free| free.disk() >= size);
        let Some(piece) = self.pieces_of(agent, under).find(has_room) else {
            let most = self
                .pieces_of(agent, under)
                .filter_map(|piece| free.under(&piece.stack))
                .map(Resources::disk);
            let most = most.max().unwrap_or_default();
            let owner = show_owner(std::slice::from_ref(under));
            return Err(format!(
                "agent {id} has no {size} of disk {owner} that no task holds: the most is {most}"
            ));
        };
        let (stack, principal) = (piece.stack.clone(), under.principal.clone());
        Ok(Change::create(Volume { id: volume, size, stack, principal, created: now }))
    }

    fn asked_to_resize(&self, agent: &AgentId, volume: &VolumeId, size: Bytes) -> Result<Change, String> {
        if size.bytes() == 0 {
            return Err("the size of a volume is more than nothing; `rm` removes it".to_owned());
        }
        self.agent_to_stay(agent)?;
        let known = self.known_volume(agent, volume)?;
        match size < known.size {
            true => Ok(Change::resize(self.unused_volume(agent, volume)?, size)),
            false => Ok(Change::resize(known, size)),
        }
    }

    /// An agent of which it is known what its tasks hold.
    fn known_agent(&self, id: &AgentId) -> Result<&Agent, String> {
        let agent = self.agents.get(id).ok_or_else(|| format!("agent {id} is not known"))?;
        match agent.standing {
            AgentState::Active | AgentState::Suspected | AgentState::Gone => Ok(agent),
            AgentState::Recovering | AgentState::Unreachable => Err(format!(
                "agent {id} does not answer, so nobody knows what its tasks hold: wait until it is back, or declare it gone"
            )),
        }
    }

    /// An agent on which something new may be promised. What a gone one still has can only be removed.
    fn agent_to_stay(&self, id: &AgentId) -> Result<&Agent, String> {
        let agent = self.known_agent(id)?;
        match agent.standing {
            AgentState::Gone => Err(format!("agent {id} is gone")),
            _ => Ok(agent),
        }
    }

    fn known_volume(&self, agent: &AgentId, volume: &VolumeId) -> Result<&Volume, String> {
        let known = self.known_agent(agent)?.owned.holdings.volumes.get(volume);
        known.ok_or_else(|| format!("agent {agent} has no volume {volume}"))
    }

    fn unused_volume(&self, agent: &AgentId, volume: &VolumeId) -> Result<&Volume, String> {
        let known = self.known_volume(agent, volume)?;
        let users = self.users_of(agent, volume);
        match users.is_empty() {
            true => Ok(known),
            false => Err(format!("volume {volume} is in use by {}", show_tasks(&users))),
        }
    }

    /// All that is reserved for that role with these labels, the agent's command line included.
    fn pieces_of<'a>(&self, agent: &'a Agent, like: &'a Reservation) -> impl Iterator<Item = &'a Reserved> {
        let all = agent.owned.holdings.reserved.iter().chain(&agent.info.reserved);
        all.filter(|piece| piece.stack.last().is_some_and(|innermost| is_alike(innermost, like)))
    }

    /// What of an agent no task holds and no change on the way takes. What is on offer counts as free; so does what is reserved
    /// and what the agent no longer has.
    fn free_of(&self, agent: &Agent) -> Charge {
        let slot = self.allocator.slot(agent.slot);
        let withheld = agent.owned.withheld();
        let total = Charge { reserved: Vec::new(), ..slot.total.clone() };
        let fixed = slot.total.reserved.iter().filter(|piece| is_fixed(piece));
        let ours = agent.owned.holdings.reserved.iter();
        let total = total.clone().with_reserved(ours.chain(fixed).cloned()).unwrap_or(total);
        let by_record =
            Charge { reserved: total.reserved.clone(), ..Charge::new() }.saturating_sub(&withheld);
        Charge { reserved: by_record.reserved, ..total }.saturating_sub(&slot.used)
    }

    /// Makes changes that can be made: takes what they take, and makes them durable.
    fn begin_changes(
        &mut self,
        id: &AgentId,
        changes: Vec<Change>,
        request: RequestId,
        out: &mut Effects,
    ) -> Result<(), String> {
        let all = |of: fn(&Change) -> &Charge| {
            changes.iter().fold(Charge::new(), |all, change| all.checked_add(of(change)).unwrap_or(all))
        };
        let (takes, gives) = (all(|change| &change.takes), all(|change| &change.gives));
        self.free_up(id, &takes, out)?;
        changes.iter().filter_map(Change::ends).for_each(|volume| self.rescind_offers_with(id, volume, out));
        let Some(agent) = self.agents.get_mut(id) else { return Ok(()) };
        let mut holdings = agent.owned.holdings.clone();
        for change in &changes {
            holdings = holdings.changed(change).map_err(|invalid| invalid.to_string())?;
        }
        agent.owned.holdings = holdings;
        let then = |volumes| Awaited::Owned { agent: id.clone(), volumes, request };
        if let Some(token) = self.persist_owned(id, then, out)
            && let Some(agent) = self.agents.get_mut(id)
        {
            if !gives.reserved.is_empty() {
                self.reserving.insert(token, gives.reserved.clone());
            }
            agent.owned.limbo.insert(token, gives);
        }
        self.sync_total(id);
        Ok(())
    }

    /// Makes sure that nobody holds what is wanted: tasks refuse it, and offers are rescinded, no more of them than needed
    /// (Mesos: best effort, all offers of the agent).
    fn free_up(&mut self, id: &AgentId, wanted: &Charge, out: &mut Effects) -> Result<(), String> {
        let Some(agent) = self.agents.get(id) else { return Err(format!("agent {id} is not known")) };
        if let Some((stack, lacking)) = shortage(&self.free_of(agent), wanted) {
            let holders = self.holders(agent, wanted);
            let owner = show_owner(stack);
            return Err(format!(
                "agent {id} does not have that much {owner} that no task holds: {lacking}{holders}"
            ));
        }
        // What is reserved and not there any more is in nobody's offers.
        let slot = self.allocator.slot(agent.slot);
        let there = slot.total.saturating_sub(&slot.used);
        let target = wanted.saturating_sub(&wanted.saturating_sub(&there));
        let offers: Vec<_> = agent.offers.iter().filter_map(|id| Some((*id, self.offers.get(id)?))).collect();
        let mut lacking = target.saturating_sub(&slot.available);
        let mut in_the_way = Vec::new();
        for (offer_id, offer) in offers {
            let rest = lacking.saturating_sub(&offer.grant.charge);
            if rest != lacking {
                in_the_way.push(offer_id);
                lacking = rest;
            }
        }
        if !lacking.is_empty() {
            return Err(format!("agent {id} is kept for a gang that is being gathered: try again"));
        }
        in_the_way.into_iter().for_each(|offer| self.rescind_offer(offer, out));
        Ok(())
    }

    /// Takes back the offers that speak of a volume.
    fn rescind_offers_with(&mut self, id: &AgentId, volume: &VolumeId, out: &mut Effects) {
        let Some(agent) = self.agents.get(id) else { return };
        let owner = agent.owned.holdings.volumes.get(volume).and_then(Volume::owner);
        let speaks_of_it = |offer: &&OfferId| {
            self.offers.get(offer).is_some_and(|offer| owner.is_some_and(|owner| owner.contains(&offer.role)))
        };
        let offers: Vec<OfferId> = agent.offers.iter().filter(speaks_of_it).copied().collect();
        offers.into_iter().for_each(|offer| self.rescind_offer(offer, out));
    }

    /// Whose tasks hold some of it: ends an error.
    fn holders(&self, agent: &Agent, wanted: &Charge) -> String {
        let holds = |key: &&TaskKey| {
            self.task_ref(key)
                .is_some_and(|task| task.holds && wanted.saturating_sub(&task.charge) != *wanted)
        };
        let keys: Vec<TaskKey> = agent.tasks.iter().filter(holds).cloned().collect();
        if keys.is_empty() { String::new() } else { format!("; held by {}", show_tasks(&keys)) }
    }
}

fn check_some(resources: &Resources) -> Result<(), String> {
    match resources.is_empty() {
        true => Err("some resources are needed, such as cpus=2;mem=4GiB".to_owned()),
        false => Ok(()),
    }
}

fn show_tasks(keys: &[TaskKey]) -> String {
    let shown: Vec<String> =
        keys.iter().take(5).map(|(framework, task)| format!("{framework}/{task}")).collect();
    match keys.len().saturating_sub(shown.len()) {
        0 => shown.join(", "),
        more => format!("{} and {more} more tasks", shown.join(", ")),
    }
}
