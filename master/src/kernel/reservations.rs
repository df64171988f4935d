//! Reservations and volumes as the kernel keeps them: what operators ask of them, what is durable of them, what agents are told
//! of them, and how they are shown. What frameworks ask of them comes with an Accept (see `calls`).
//!
//! ```text
//! asked ──► is it free? (offers in the way are rescinded) ──► taken at once ──► Persist ──► given, told to the agent, answered
//! ```
//!
//! What a change takes, nobody is given from the moment it is asked for; what it gives, nobody has before it is durable.

use std::collections::BTreeMap;

use divvy_proto::agent::MasterMessage;
use divvy_proto::api::{self, AgentState};
use divvy_proto::ids::{AgentId, OfferId, VolumeId};
use divvy_proto::quantity::Bytes;
use divvy_proto::reservation::{Reservation, Reserved, Volume};
use divvy_proto::resources::Resources;
use divvy_proto::role::RolePath;
use divvy_proto::time::Timestamp;

use super::agents::Agent;
use super::allocator::{Charge, sum};
use super::holdings::{Change, Holdings, check_role, is_alike, reservation, shortage, show_owner};
use super::registry::Awaited;
use super::{Effect, Effects, Kernel, OperatorRequest, PersistToken, RegistryChange, RequestId, TaskKey};

/// So many agents that came back smaller are named in the status.
const WARNINGS_SHOWN: usize = 10;

/// Who owns what of an agent.
#[derive(Debug, Clone, Default)]
pub(super) struct Owned {
    /// As it will be once all that is on the way to the store is there.
    pub(super) holdings: Holdings,
    /// What is given by changes that are on the way to the store.
    limbo: BTreeMap<PersistToken, Charge>,
    /// The volumes that the store has.
    volumes: Vec<Volume>,
    /// What the agent no longer has of all this.
    missing: Vec<Reserved>,
}

impl Owned {
    pub(super) fn has_volumes(&self) -> bool {
        !self.volumes.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.holdings.is_empty() && self.volumes.is_empty() && self.limbo.is_empty()
    }

    /// A volume that the store has, and that is not about to end.
    pub(super) fn volume(&self, id: &VolumeId) -> Option<&Volume> {
        let is_stored = self.volumes.iter().any(|volume| volume.id == *id);
        self.holdings.volumes.get(id).filter(|_| is_stored)
    }

    fn in_limbo(&self) -> Charge {
        let all = self.limbo.values();
        all.fold(Charge::new(), |all, more| all.checked_add(more).unwrap_or(all))
    }
}

impl Kernel {
    /// What an operator asks of an agent's reservations and volumes. Answered once it is durable.
    ///
    /// # Errors
    /// Why it is not done.
    pub(super) fn change_owned(
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
        if self.known_agent(agent)?.standing == AgentState::Gone {
            return Err(format!("agent {agent} is gone"));
        }
        check_role(&wanted.role).map_err(|invalid| invalid.to_string())?;
        check_some(&resources)?;
        let over = self.allocator.check_role_limit(&wanted.role, &resources);
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
            return Err(format!("what is {owner} on agent {id} is so by the agent's command line, and ends only there"));
        }
        let wanted = changes.iter().fold(rest, |all, change| sum(&all, &change.takes.total()));
        let lacking = all.shortage(&wanted).map_or_else(String::new, |shortage| format!(": {shortage}"));
        let pieces = self.pieces_of(agent, unwanted);
        let pools: Vec<Reserved> = pieces.map(|piece| Reserved { resources: wanted.clone(), ..piece.clone() }).collect();
        let holders = self.holders(agent, &Charge { reserved: pools, ..Charge::new() });
        Err(format!("agent {id} does not have that much {owner} that no task and no volume needs{lacking}{holders}"))
    }

    fn asked_to_create(
        &self,
        now: Timestamp,
        id: &AgentId,
        volume: VolumeId,
        size: Bytes,
        under: &Reservation,
    ) -> Result<Change, String> {
        let agent = self.known_agent(id)?;
        if size.bytes() == 0 {
            return Err("the size of a volume is more than nothing".to_owned());
        }
        if agent.owned.holdings.volumes.contains_key(&volume) {
            return Err(format!("a volume {volume} exists on agent {id} already"));
        }
        let free = self.free_of(agent);
        let has_room = |piece: &&Reserved| free.under(&piece.stack).is_some_and(|free| free.disk() >= size);
        let Some(piece) = self.pieces_of(agent, under).find(has_room) else {
            let most = self.pieces_of(agent, under).filter_map(|piece| free.under(&piece.stack)).map(Resources::disk);
            let most = most.max().unwrap_or_default();
            let owner = show_owner(std::slice::from_ref(under));
            return Err(format!("agent {id} has no {size} of disk {owner} that no task holds: the most is {most}"));
        };
        let (stack, principal) = (piece.stack.clone(), under.principal.clone());
        Ok(Change::create(Volume { id: volume, size, stack, principal, created: now }))
    }

    fn asked_to_resize(&self, agent: &AgentId, volume: &VolumeId, size: Bytes) -> Result<Change, String> {
        if size.bytes() == 0 {
            return Err("the size of a volume is more than nothing; `rm` removes it".to_owned());
        }
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
        let limbo = agent.owned.in_limbo();
        let total = Charge { reserved: Vec::new(), ..slot.total.clone() };
        let fixed = slot.total.reserved.iter().filter(|piece| is_fixed(piece));
        let ours = agent.owned.holdings.reserved.iter();
        let total = total.clone().with_reserved(ours.chain(fixed).cloned()).unwrap_or(total);
        let by_record = Charge { reserved: total.reserved.clone(), ..Charge::new() }.saturating_sub(&limbo);
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
            return Err(format!("agent {id} does not have that much {owner} that no task holds: {lacking}{holders}"));
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
            self.task_ref(key).is_some_and(|task| task.holds && wanted.saturating_sub(&task.charge) != *wanted)
        };
        let keys: Vec<TaskKey> = agent.tasks.iter().filter(holds).cloned().collect();
        if keys.is_empty() { String::new() } else { format!("; held by {}", show_tasks(&keys)) }
    }

    /// Makes durable who owns what of an agent.
    pub(super) fn persist_owned(
        &mut self,
        id: &AgentId,
        then: impl FnOnce(Vec<Volume>) -> Awaited,
        out: &mut Effects,
    ) -> Option<PersistToken> {
        let holdings = &self.agents.get(id)?.owned.holdings;
        let volumes: Vec<Volume> = holdings.volumes.values().cloned().collect();
        let reserved = holdings.reserved.clone();
        let change = RegistryChange::PutReservations { agent: id.clone(), reserved, volumes: volumes.clone() };
        Some(self.persist(change, Some(then(volumes)), out))
    }

    /// The store has a change that an operator asked for.
    pub(super) fn owned_is_stored(
        &mut self,
        token: PersistToken,
        id: &AgentId,
        volumes: Vec<Volume>,
        request: RequestId,
        out: &mut Effects,
    ) {
        if let Some(agent) = self.agents.get_mut(id) {
            agent.owned.limbo.remove(&token);
        }
        self.sync_total(id);
        self.volumes_are_stored(id, volumes, out);
        out.push(Effect::Answer { request, result: Ok(()) });
        self.forget_surplus(out);
    }

    /// The agent is to have these volumes from here on.
    pub(super) fn volumes_are_stored(&mut self, id: &AgentId, volumes: Vec<Volume>, out: &mut Effects) {
        let Some(agent) = self.agents.get_mut(id) else { return };
        if agent.owned.volumes != volumes {
            agent.owned.volumes = volumes;
            self.tell_volumes(id, out);
        }
    }

    /// Tells an agent, if it is connected, which volumes it is to have.
    pub(super) fn tell_volumes(&self, id: &AgentId, out: &mut Effects) {
        if let Some(agent) = self.agents.get(id) {
            self.tell_agent(id, MasterMessage::Volumes(agent.owned.volumes.clone()), out);
        }
    }

    /// Makes the allocator believe how an agent is divided now, and charges its tasks for what there is.
    pub(super) fn sync_total(&mut self, id: &AgentId) {
        let Some(agent) = self.agents.get_mut(id) else { return };
        let division = agent.owned.holdings.divide(&agent.info);
        let total = division.total.saturating_sub(&agent.owned.in_limbo());
        agent.owned.missing = division.missing;
        match agent.owned.missing.is_empty() {
            true => drop(self.too_small.remove(id)),
            false => drop(self.too_small.insert(id.clone())),
        }
        let volumes = agent.owned.holdings.volumes.values();
        let volumes = volumes.filter_map(|volume| Some((volume.owner()?.clone(), volume.size))).collect();
        let (slot, id) = (agent.slot, id.clone());
        self.allocator.set_total(slot, total);
        self.allocator.set_volumes(slot, volumes);
        self.recharge(&id);
        self.changes.agent(&id);
    }

    /// Tasks that hold what is no longer reserved (it ended on the agent's command line) hold what is unreserved.
    fn recharge(&mut self, id: &AgentId) {
        let Some(agent) = self.agents.get(id) else { return };
        let (slot, total) = (agent.slot, &self.allocator.slot(agent.slot).total);
        let is_gone = |charge: &Charge| charge.reserved.iter().any(|piece| total.under(&piece.stack).is_none());
        let keys = agent.tasks.iter();
        let stray = keys.filter(|key| self.task_ref(key).is_some_and(|task| is_gone(&task.charge)));
        for key in stray.cloned().collect::<Vec<_>>() {
            let Some(task) = self.frameworks.get_mut(&key.0).and_then(|f| f.tasks.get_mut(&key.1)) else { continue };
            let unreserved = Charge::unreserved(task.info.resources.clone());
            let before = std::mem::replace(&mut task.charge, unreserved);
            // One that is out of reach holds nothing.
            if task.holds {
                self.allocator.release(slot, task.client, &before);
                self.allocator.hold(slot, task.client, &task.charge);
            }
        }
    }

    /// The registry's word on an agent, before the agent is back.
    pub(super) fn recover_owned(&mut self, id: &AgentId, reserved: Vec<Reserved>, volumes: Vec<Volume>) {
        let Some(agent) = self.agents.get_mut(id) else { return };
        agent.owned.holdings = Holdings::from_record(reserved, volumes);
        agent.owned.volumes = agent.owned.holdings.volumes.values().cloned().collect();
        self.sync_total(id);
    }

    /// The tasks that use a volume.
    pub(super) fn users_of(&self, id: &AgentId, volume: &VolumeId) -> Vec<TaskKey> {
        let mounts = |key: &&TaskKey| {
            let task = self.task_ref(key).filter(|task| task.is_live());
            task.is_some_and(|task| task.info.volumes.iter().any(|mount| mount.id == *volume))
        };
        let tasks = self.agents.get(id).into_iter().flat_map(|agent| &agent.tasks);
        tasks.filter(mounts).cloned().collect()
    }

    /// Checks that volumes and reservations add up: what an agent has is what can be given, what is on the way to the store, what
    /// its volumes take, and what it no longer has.
    pub(super) fn check_owned(&self) -> Result<(), String> {
        for (id, agent) in &self.agents {
            let slot = self.allocator.slot(agent.slot);
            // What one that is coming back says of itself counts once it is back.
            let division = agent.owned.holdings.divide(&agent.info);
            if agent.link.is_some() && slot.total != division.total.saturating_sub(&agent.owned.in_limbo()) {
                return Err(format!("{id}: what can be given is not what the reservations leave"));
            }
            if self.too_small.contains(id) == agent.owned.missing.is_empty() {
                return Err(format!("{id}: it is not known that it has too little, or it has enough"));
            }
            if let Some(token) = agent.owned.limbo.keys().find(|token| !self.awaited.contains_key(token)) {
                return Err(format!("{id}: what {token:?} gives is kept for ever"));
            }
            for volume in agent.owned.holdings.volumes.keys() {
                if self.users_of(id, volume).len() > 1 {
                    return Err(format!("{id}: several tasks use volume {volume}"));
                }
            }
        }
        Ok(())
    }

    /// Volumes of the role, or one above it, that no task uses.
    pub(super) fn volumes_for(&self, id: &AgentId, role: &RolePath) -> Vec<Volume> {
        let Some(agent) = self.agents.get(id) else { return Vec::new() };
        let volumes = agent.owned.volumes.iter().filter_map(|volume| agent.owned.volume(&volume.id));
        let is_theirs = |volume: &&Volume| volume.owner().is_some_and(|owner| owner.contains(role));
        let is_free = |volume: &&Volume| self.users_of(id, &volume.id).is_empty();
        volumes.filter(is_theirs).filter(is_free).cloned().collect()
    }

    /// What operators should know of agents that came back smaller.
    pub(super) fn reservation_warnings(&self) -> Vec<String> {
        let is_there = |agent: &&Agent| agent.standing != AgentState::Gone;
        let known = |id| Some((id, self.agents.get(id).filter(is_there)?));
        let agents: Vec<(&AgentId, &Agent)> = self.too_small.iter().filter_map(known).collect();
        let show = |piece: &Reserved| format!("{} {}", piece.resources, show_owner(&piece.stack));
        let warning = |(id, agent): &(&AgentId, &Agent)| {
            let missing: Vec<String> = agent.owned.missing.iter().map(show).collect();
            format!("agent {id} no longer has {}", missing.join(" and "))
        };
        let more = agents.len().saturating_sub(WARNINGS_SHOWN);
        let rest = (more > 0).then(|| format!("{more} more agents no longer have all that is reserved of them"));
        agents.iter().take(WARNINGS_SHOWN).map(warning).chain(rest).collect()
    }
}

fn is_fixed(piece: &Reserved) -> bool {
    piece.stack.last().is_some_and(|innermost| innermost.fixed)
}

fn check_some(resources: &Resources) -> Result<(), String> {
    match resources.is_empty() {
        true => Err("some resources are needed, such as cpus=2;mem=4GiB".to_owned()),
        false => Ok(()),
    }
}

fn show_tasks(keys: &[TaskKey]) -> String {
    let shown: Vec<String> = keys.iter().take(5).map(|(framework, task)| format!("{framework}/{task}")).collect();
    match keys.len().saturating_sub(shown.len()) {
        0 => shown.join(", "),
        more => format!("{} and {more} more tasks", shown.join(", ")),
    }
}

/// How they are shown.
impl Kernel {
    /// All that is reserved, agent by agent.
    #[must_use]
    pub fn reservations(&self) -> Vec<api::ReservationView> {
        let of_agent = |(id, agent): (&AgentId, &Agent)| {
            self.reserved_of(agent).into_iter().filter_map(|piece| self.show_reserved(id, agent, piece)).collect()
        };
        self.agents.iter().flat_map(|pair| -> Vec<_> { of_agent(pair) }).collect()
    }

    /// All persistent volumes, agent by agent.
    #[must_use]
    pub fn volumes(&self) -> Vec<api::AgentVolume> {
        let of_agent = |(id, agent): (&AgentId, &Agent)| {
            let volumes = agent.owned.holdings.volumes.values();
            volumes.filter_map(|volume| self.show_agent_volume(id, agent, volume)).collect()
        };
        self.agents.iter().flat_map(|pair| -> Vec<_> { of_agent(pair) }).collect()
    }

    /// What of an agent is reserved, by the agent's command line and otherwise, volumes apart.
    pub(super) fn reserved_of(&self, agent: &Agent) -> Vec<Reserved> {
        let fixed = self.allocator.slot(agent.slot).total.reserved.iter().filter(|piece| is_fixed(piece));
        let all = Charge::new().with_reserved(agent.owned.holdings.reserved.iter().chain(fixed).cloned());
        all.unwrap_or_default().reserved
    }

    /// The volumes of an agent, and who uses them.
    pub(super) fn volumes_of(&self, id: &AgentId, agent: &Agent) -> Vec<api::VolumeView> {
        agent.owned.holdings.volumes.values().map(|volume| self.show_volume(id, volume)).collect()
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

    fn show_agent_volume(&self, id: &AgentId, agent: &Agent, volume: &Volume) -> Option<api::AgentVolume> {
        let role = volume.owner()?.clone();
        Some(api::AgentVolume {
            agent_id: id.clone(),
            hostname: agent.info.hostname.clone(),
            agent_state: agent.standing,
            orphan: self.is_orphan(agent, &role),
            role,
            volume: self.show_volume(id, volume),
        })
    }

    fn show_volume(&self, id: &AgentId, volume: &Volume) -> api::VolumeView {
        let users = self.users_of(id, &volume.id);
        let used_by = users.iter().map(|(framework, task)| format!("{framework}/{task}")).collect();
        api::VolumeView { volume: volume.clone(), used_by }
    }

    /// Nobody is left to use what the role owns there.
    fn is_orphan(&self, agent: &Agent, role: &RolePath) -> bool {
        let mut present = self.frameworks.values().filter(|framework| !framework.retired);
        agent.standing == AgentState::Gone
            || !present.any(|framework| framework.info.roles.iter().any(|mine| role.contains(mine)))
    }
}
