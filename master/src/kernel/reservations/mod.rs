//! Reservations and volumes as the kernel keeps them: what is durable of them, what agents are told of them, and what they leave
//! for tasks. What operators ask of them is in `asked`, how they are shown in `shown`; what frameworks ask of them comes with an
//! Accept (see `calls`).
//!
//! ```text
//! asked ──► is it free? (offers in the way are rescinded) ──► taken at once ──► Persist ──► given, told to the agent, answered
//! ```
//!
//! What a change takes, nobody is given from the moment it is asked for; what it gives, nobody has before it is durable.

mod asked;
mod shown;

use std::collections::{BTreeMap, BTreeSet};

use divvy_proto::agent::MasterMessage;
use divvy_proto::ids::{AgentId, VolumeId};
use divvy_proto::reservation::{Reserved, Volume};
use divvy_proto::role::RolePath;

use super::agents::Agent;
use super::allocator::{Charge, OverLimit, Size};
use super::holdings::Holdings;
use super::registry::Awaited;
use super::{Effect, Effects, Kernel, PersistToken, RegistryChange, RequestId, TaskKey};

/// Who owns what of an agent.
#[derive(Debug, Clone, Default)]
pub(super) struct Owned {
    /// As it will be once all that is on the way to the store is there.
    pub(super) holdings: Holdings,
    /// What is given by changes that are on the way to the store.
    limbo: BTreeMap<PersistToken, Charge>,
    /// Copies of tasks that live elsewhere, with which the agent came back, and what they hold until they have ended.
    strays: BTreeMap<TaskKey, Charge>,
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

    /// What nobody can be given for now.
    fn withheld(&self) -> Charge {
        let all = self.limbo.values().chain(self.strays.values());
        all.fold(Charge::new(), |all, more| all.checked_add(more).unwrap_or(all))
    }
}

impl Kernel {
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
        let change =
            RegistryChange::PutReservations { agent: id.clone(), reserved, volumes: volumes.clone() };
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
        self.reserving.remove(&token);
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
        let total = division.total.saturating_sub(&agent.owned.withheld());
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

    /// Whether a role may use or reserve so much more, and all roles above it; where it is part of what is reserved for
    /// `refined` already, only those below that one. What is on the way to the store counts as reserved.
    ///
    /// # Errors
    /// Which limit it would exceed.
    pub(super) fn check_limits(
        &self,
        role: &RolePath,
        refined: Option<&RolePath>,
        more: &Size,
    ) -> Result<(), OverLimit> {
        self.allocator.check_role_size(role, refined, more)?;
        self.check_beside_reserving(role, refined, more)
    }

    /// The same, beside what is on the way to the store.
    fn check_beside_reserving(
        &self,
        role: &RolePath,
        refined: Option<&RolePath>,
        more: &Size,
    ) -> Result<(), OverLimit> {
        if self.reserving.is_empty() {
            return Ok(());
        }
        let is_asked = |above: &RolePath| refined.is_none_or(|refined| !above.contains(refined));
        role.lineage().iter().filter(|above| is_asked(above)).try_for_each(|above| {
            let reserving = self.being_reserved(above);
            let mut all = more.clone();
            more.iter().for_each(|(name, amount)| all.set(name, amount + reserving.get(name)));
            self.allocator.check_role_size(above, above.parent().as_ref(), &all)
        })
    }

    /// What is on the way to the store, to be reserved for a role or below it.
    fn being_reserved(&self, role: &RolePath) -> Size {
        let is_below = |piece: &&Reserved| piece.owner().is_some_and(|owner| role.contains(owner));
        let mut all = Size::new();
        let pieces = self.reserving.values().flatten().filter(is_below);
        pieces.for_each(|piece| all.add_resources(&piece.resources));
        all
    }

    /// The agent came back with these copies of tasks, and was told to kill them: what they hold is given to nobody.
    pub(super) fn set_strays(&mut self, id: &AgentId, strays: BTreeMap<TaskKey, Charge>) {
        if let Some(agent) = self.agents.get_mut(id)
            && agent.owned.strays != strays
        {
            agent.owned.strays = strays;
            self.sync_total(id);
        }
    }

    /// Such a copy has ended. It is still known, as its agent repeats itself.
    pub(super) fn stray_has_ended(&mut self, id: &AgentId, key: &TaskKey) {
        if let Some(held) = self.agents.get_mut(id).and_then(|agent| agent.owned.strays.get_mut(key)) {
            *held = Charge::new();
            self.sync_total(id);
        }
    }

    pub(super) fn is_stray(&self, id: &AgentId, key: &TaskKey) -> bool {
        self.agents.get(id).is_some_and(|agent| agent.owned.strays.contains_key(key))
    }

    /// Tasks that hold what is no longer reserved (it ended on the agent's command line) hold what is unreserved.
    fn recharge(&mut self, id: &AgentId) {
        let Some(agent) = self.agents.get(id) else { return };
        let (slot, total) = (agent.slot, &self.allocator.slot(agent.slot).total);
        let is_gone =
            |charge: &Charge| charge.reserved.iter().any(|piece| total.under(&piece.stack).is_none());
        let keys = agent.tasks.iter();
        let stray = keys.filter(|key| self.task_ref(key).is_some_and(|task| is_gone(&task.charge)));
        for key in stray.cloned().collect::<Vec<_>>() {
            let Some(task) = self.frameworks.get_mut(&key.0).and_then(|f| f.tasks.get_mut(&key.1)) else {
                continue;
            };
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

    /// The tasks that use the agent's volumes.
    fn users_by_volume<'a>(&'a self, agent: &'a Agent) -> BTreeMap<&'a VolumeId, Vec<&'a TaskKey>> {
        let mut users: BTreeMap<&VolumeId, Vec<&TaskKey>> = BTreeMap::new();
        if agent.owned.holdings.volumes.is_empty() {
            return users;
        }
        for key in &agent.tasks {
            let task = self.task_ref(key).filter(|task| task.still_runs());
            let mounts = task.into_iter().flat_map(|task| &task.info.volumes);
            mounts.for_each(|mount| users.entry(&mount.id).or_default().push(key));
        }
        users
    }

    /// A volume is one task's, or that of the tasks of one group.
    fn may_share(&self, users: &[&TaskKey]) -> bool {
        let groups = users.iter().map(|key| Some((&key.0, &self.task_ref(key)?.group()?.id)));
        let groups: BTreeSet<_> = groups.collect();
        users.len() < 2 || groups.len() == 1 && !groups.contains(&None)
    }

    /// The tasks that use a volume.
    pub(super) fn users_of(&self, id: &AgentId, volume: &VolumeId) -> Vec<TaskKey> {
        let users = self.agents.get(id).map(|agent| self.users_by_volume(agent)).unwrap_or_default();
        users.get(volume).into_iter().flatten().copied().cloned().collect()
    }

    /// Checks that volumes and reservations add up: what an agent has is what can be given, what is on the way to the store, what
    /// its volumes take, and what it no longer has.
    pub(super) fn check_owned(&self) -> Result<(), String> {
        for (id, agent) in &self.agents {
            let slot = self.allocator.slot(agent.slot);
            // What one that is coming back says of itself counts once it is back.
            let division = agent.owned.holdings.divide(&agent.info);
            if agent.link.is_some() && slot.total != division.total.saturating_sub(&agent.owned.withheld()) {
                return Err(format!("{id}: what can be given is not what the reservations leave"));
            }
            if self.too_small.contains(id) == agent.owned.missing.is_empty() {
                return Err(format!("{id}: it is not known that it has too little, or it has enough"));
            }
            if let Some(token) = agent.owned.limbo.keys().find(|token| !self.awaited.contains_key(token)) {
                return Err(format!("{id}: what {token:?} gives is kept for ever"));
            }
            let users = self.users_by_volume(agent);
            if let Some((volume, _)) = users.iter().find(|(_, users)| !self.may_share(users)) {
                return Err(format!("{id}: several tasks use volume {volume}"));
            }
        }
        Ok(())
    }

    /// Volumes of the role, or one above it, that no task uses.
    pub(super) fn volumes_for(&self, id: &AgentId, role: &RolePath) -> Vec<Volume> {
        let Some(agent) = self.agents.get(id) else { return Vec::new() };
        let volumes = agent.owned.volumes.iter().filter_map(|volume| agent.owned.volume(&volume.id));
        let is_theirs = |volume: &&Volume| volume.owner().is_some_and(|owner| owner.contains(role));
        let users = self.users_by_volume(agent);
        volumes.filter(is_theirs).filter(|volume| !users.contains_key(&volume.id)).cloned().collect()
    }
}

fn is_fixed(piece: &Reserved) -> bool {
    piece.stack.last().is_some_and(|innermost| innermost.fixed)
}
