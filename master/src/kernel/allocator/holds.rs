//! Agents that are kept for demands which have waited long: nobody of the same role whose demand is younger is given anything
//! unreserved there. And agents on which others end for a demand: nobody else is given anything unreserved there until they have.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use divvy_proto::time::Timestamp;

use super::allocate::Note;
use super::size::Size;
use super::walk::Stage;
use super::wishes::{ShapeNeed, WantedShape};
use super::{AgentIx, Allocator, ClientIx};

/// So long a demand waits before an agent is kept for it, unless somebody says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// At most one agent for each client, and one client for each agent.
#[derive(Debug, Clone)]
pub(super) struct Holds {
    by_agent: BTreeMap<AgentIx, ClientIx>,
    by_client: BTreeMap<ClientIx, AgentIx>,
    /// Where room is being made for a client.
    rooms: BTreeMap<AgentIx, ClientIx>,
    /// When those who wait will have waited long.
    due: BTreeSet<(Timestamp, ClientIx)>,
    patience: Duration,
}

impl Holds {
    /// When the next of those who wait will have waited long.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _)| *due)
    }

    /// For whom an agent is kept.
    pub(super) fn on(&self, agent: AgentIx) -> Option<ClientIx> {
        match self.by_agent.is_empty() {
            true => None,
            false => self.by_agent.get(&agent).copied(),
        }
    }

    /// For whom room is being made on an agent.
    pub(super) fn room_on(&self, agent: AgentIx) -> Option<ClientIx> {
        match self.rooms.is_empty() {
            true => None,
            false => self.rooms.get(&agent).copied(),
        }
    }

    /// What is kept for a client.
    pub(super) fn of(&self, client: ClientIx) -> Option<AgentIx> {
        self.by_client.get(&client).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ClientIx, AgentIx)> + '_ {
        self.by_client.iter().map(|(client, agent)| (*client, *agent))
    }

    pub(super) fn keep(&mut self, client: ClientIx, agent: AgentIx) {
        self.by_agent.insert(agent, client);
        self.by_client.insert(client, agent);
    }

    /// Nothing is kept for the client any more. Says what was.
    pub(super) fn end(&mut self, client: ClientIx) -> Option<AgentIx> {
        let agent = self.by_client.remove(&client)?;
        self.by_agent.remove(&agent);
        Some(agent)
    }
}

impl Default for Holds {
    fn default() -> Self {
        let (by_agent, by_client, due) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { by_agent, by_client, rooms: BTreeMap::new(), due, patience: PATIENCE }
    }
}

#[allow(clippy::indexing_slicing, reason = "an index is made by this allocator only")]
impl Allocator {
    /// How long a demand waits before an agent is kept for it.
    pub(in crate::kernel) fn set_patience(&mut self, patience: Duration) {
        self.holds.patience = patience;
    }

    /// Others end on this agent for the client's sake: what they leave is for nobody else.
    pub(in crate::kernel) fn make_room(&mut self, agent: AgentIx, client: ClientIx) {
        let before = self.holds.rooms.insert(agent, client);
        if before.is_some_and(|before| before != client) && self.free.contains(agent) {
            self.fresh.insert(agent);
        }
    }

    /// No room is made on the agent any more. Says whether something is free there that was kept from others.
    pub(in crate::kernel) fn end_room(&mut self, agent: AgentIx) -> bool {
        let was_kept = self.holds.rooms.remove(&agent).is_some() && self.free.contains(agent);
        if was_kept {
            self.fresh.insert(agent);
            self.epoch += 1;
        }
        was_kept
    }

    /// The client is not there any more.
    pub(super) fn end_rooms_of(&mut self, client: ClientIx) {
        let rooms = self.holds.rooms.iter().filter(|(_, whose)| **whose == client);
        let rooms: Vec<AgentIx> = rooms.map(|(agent, _)| *agent).collect();
        rooms.into_iter().for_each(|agent| {
            self.end_room(agent);
        });
    }

    /// Nothing is kept for the client any more: what was is there for everyone.
    pub(super) fn end_hold(&mut self, client: ClientIx) {
        if let Some(agent) = self.holds.end(client) {
            if self.free.contains(agent) {
                self.fresh.insert(agent);
            }
            self.epoch += 1;
            self.note_age(client);
        }
    }

    /// When a client will have waited long may be another time than before.
    pub(super) fn note_age(&mut self, client: ClientIx) {
        let this = &self.clients[client.0];
        let ages = this.want.demand().is_some_and(|wanted| wanted.gang.is_none());
        let since = this.want.waiting_since().filter(|_| ages && self.holds.of(client).is_none());
        // One for whom nothing was found is not looked at again at once.
        let due = since.map(|since| (since + self.holds.patience).max(this.keep_at.unwrap_or_default()));
        self.set_due(client, due);
    }

    fn set_due(&mut self, client: ClientIx, due: Option<Timestamp>) {
        let before = std::mem::replace(&mut self.clients[client.0].keep_at, due);
        if before != due {
            if let Some(before) = before {
                self.holds.due.remove(&(before, client));
            }
            self.holds.due.extend(due.map(|due| (due, client)));
        }
    }

    /// Ends what is kept without need: the agent or the demand is gone, or the client is no longer the first of its role.
    pub(super) fn review_holds(&mut self) {
        let vain: Vec<ClientIx> = self
            .holds
            .iter()
            .filter(|(client, agent)| !self.may_keep(*client, *agent))
            .map(|(c, _)| c)
            .collect();
        vain.into_iter().for_each(|client| self.end_hold(client));
    }

    fn may_keep(&self, client: ClientIx, agent: AgentIx) -> bool {
        let this = &self.clients[client.0];
        self.slots[agent.0].active && this.want.is_wanting() && self.tree.is_least(this.node)
    }

    /// Keeps an agent for each demand that has waited long, if it is the first of its role and there is a fitting agent which
    /// only lacks what others hold.
    pub(super) fn keep_for_the_old(&mut self, now: Timestamp, notes: &mut Vec<Note>) {
        while let Some(&(due, client)) = self.holds.due.first()
            && due <= now
        {
            // If nothing is found, it is looked for again after as long.
            self.set_due(client, Some(now + self.holds.patience.max(Duration::from_millis(1))));
            let Some((shape, since, agent)) = self.agent_to_keep(now, client) else { continue };
            self.holds.keep(client, agent);
            self.set_due(client, None);
            notes.push(Note::Held { client, agent, shape, since });
        }
    }

    fn agent_to_keep(&self, now: Timestamp, client: ClientIx) -> Option<(String, Timestamp, AgentIx)> {
        let this = &self.clients[client.0];
        if !self.tree.is_least(this.node) {
            return None;
        }
        let waiting = this.want.shapes().iter().filter(|shape| shape.wanting() > 0);
        let oldest = waiting.min_by_key(|shape| shape.since)?;
        let terms = self.terms(now, client, Stage::Fair);
        terms.allow(&oldest.need.scalars, oldest.need.ports).ok()?;
        let agents = (0..self.slots.len()).map(AgentIx);
        let fitting = agents.filter_map(|agent| Some((self.lack_of(client, oldest, agent)?, agent)));
        let (_, agent) = fitting.min()?;
        Some((oldest.shape.name.clone(), oldest.since, agent))
    }

    /// What an agent lacks for a shape, in millionths of what is wanted, if it lacks anything but would have it.
    fn lack_of(&self, client: ClientIx, wanted: &WantedShape, agent: AgentIx) -> Option<u128> {
        let slot = &self.slots[agent.0];
        if !slot.active || self.holds.on(agent).is_some() {
            return None;
        }
        let role = &self.clients[client.0].role;
        let of = |charge: &super::Charge| {
            let mut size = Size::of(&charge.unreserved);
            let own = charge.reserved.iter().filter(|piece| piece.owner().is_some_and(|o| o.contains(role)));
            own.for_each(|piece| size.add_resources(&piece.resources));
            size
        };
        let need: &ShapeNeed = &wanted.need;
        let lacks = |has: &Size| {
            let parts = need.size.iter().map(|(name, wanted)| {
                let missing = (wanted - has.get(name)).max(0).unsigned_abs();
                missing.saturating_mul(1_000_000) / wanted.unsigned_abs().max(1)
            });
            parts.fold(0, u128::saturating_add)
        };
        let lack = lacks(&of(&slot.available));
        let constraint = wanted.shape.constraint.as_ref();
        let could = lacks(&of(&slot.total)) == 0 && constraint.is_none_or(|c| c.holds(&slot.as_facts()));
        (lack > 0 && could).then_some(lack)
    }
}
