//! Gangs: demands that are met whole or not at all.
//!
//! A gang that can be placed whole when its turn comes is. Of those that cannot, the one that has waited longest may be the
//! *gatherer*: what it is given in its fair turns is kept, in nobody's hands, until nothing is missing or its time is up; then
//! all of it is free again, and it goes to the back of the queue. There is one gatherer at most, so that no two gangs can hold
//! what the other lacks.

use std::time::Duration;

use divvy_proto::time::Timestamp;

use super::allocate::{Grants, Note, Unit};
use super::walk::Stage;
use super::wishes::{Wanted, WantedShape};
use super::{AgentIx, Allocator, Charge, ClientIx};

/// From the release of one gang to the choice of the next.
const REST: Duration = Duration::from_secs(1);

/// The gang that is being gathered.
#[derive(Debug, Clone)]
pub(super) struct Gatherer {
    pub(super) client: ClientIx,
    hold: Duration,
    chosen: Timestamp,
    /// When the first piece was kept.
    since: Option<Timestamp>,
    /// What is kept.
    kept: Vec<Unit>,
}

/// All about gangs that outlives a turn.
#[derive(Debug, Clone, Default)]
pub(super) struct Gangs {
    pub(super) gatherer: Option<Gatherer>,
    /// Clients whose demand is a gang of which something is wanted.
    pub(super) waiting: std::collections::BTreeSet<ClientIx>,
    /// Until then nobody gathers, so that what one gang gave back is there for all before the next keeps it.
    rests_until: Option<Timestamp>,
    /// How many gangs were complete.
    made: u64,
    /// One more whenever there may be agents on which a gang fits that did not.
    pub(super) capacity: u64,
}

impl Gangs {
    /// When the gatherer's time is up. One that has kept nothing yet is in nobody's way but that of other gangs.
    fn deadline(&self) -> Option<Timestamp> {
        let gatherer = self.gatherer.as_ref()?;
        let others_wait = self.waiting.iter().any(|client| *client != gatherer.client);
        let since = gatherer.since.or_else(|| others_wait.then_some(gatherer.chosen))?;
        Some(since + gatherer.hold)
    }
}

/// What a tentative unit changes that giving it back would not restore.
struct Before {
    was_fresh: bool,
    shape: Option<WantedShape>,
}

#[allow(clippy::indexing_slicing, reason = "an index is made by this allocator only")]
impl Allocator {
    /// What is kept for the gang that is being gathered: it counts as offered, and is in no framework's hands.
    pub(in crate::kernel) fn gathered(&self) -> impl Iterator<Item = (AgentIx, ClientIx, &Charge)> + '_ {
        let kept = self.gangs.gatherer.iter().flat_map(|gatherer| &gatherer.kept);
        kept.map(|unit| (unit.agent, unit.client, &unit.charge))
    }

    fn is_gang(&self, client: ClientIx) -> bool {
        self.clients[client.0].want.demand().is_some_and(|wanted| wanted.gang.is_some())
    }

    /// Whether a client's demand is a gang that still lacks something is known to all.
    pub(super) fn note_gang(&mut self, client: ClientIx) {
        match self.is_gang(client) && self.clients[client.0].want.is_wanting() {
            true => self.gangs.waiting.insert(client),
            false => self.gangs.waiting.remove(&client),
        };
    }

    /// Frees what has been gathered for too long, and chooses who gathers next.
    pub(super) fn begin_gangs(&mut self, now: Timestamp, notes: &mut Vec<Note>) {
        if let Some(gatherer) = &self.gangs.gatherer
            && self.gangs.deadline().is_some_and(|deadline| deadline <= now)
        {
            let (client, hold, kept) = (gatherer.client, gatherer.hold, gatherer.kept.len());
            self.release_gathered();
            let missing = self.missing(client);
            if let Some(wanted) = self.clients[client.0].want.demand_mut() {
                (wanted.queued, wanted.not_before) = (now, now + hold);
            }
            let kept = u32::try_from(kept).unwrap_or(u32::MAX);
            if kept > 0 {
                self.gangs.rests_until = Some(now + REST);
                notes.push(Note::GangReleased { client, kept, missing: missing.saturating_sub(kept) });
            }
        }
        self.choose_gatherer(now);
        // A gang is placed whole from all that is free, not only from what has just become so.
        let news = |client: &&ClientIx| !self.fresh.is_empty() || self.paired.contains_key(client);
        let again: Vec<ClientIx> = self.gangs.waiting.iter().filter(news).copied().collect();
        self.hot.extend(again);
    }

    /// How many units a client's demand lacks.
    fn missing(&self, client: ClientIx) -> u32 {
        self.clients[client.0].want.shapes().iter().map(WantedShape::wanting).fold(0, u32::saturating_add)
    }

    /// The gang that has waited longest gathers, if it could ever be complete.
    fn choose_gatherer(&mut self, now: Timestamp) {
        let rests = self.gangs.rests_until.is_some_and(|until| until > now);
        if rests || self.gangs.gatherer.is_some() || self.gangs.waiting.is_empty() {
            return;
        }
        let may =
            |client: &ClientIx| self.clients[client.0].want.demand().is_some_and(|w| w.not_before <= now);
        let mut queue: Vec<ClientIx> = self.gangs.waiting.iter().copied().filter(may).collect();
        queue.sort_by_key(|client| {
            (self.clients[client.0].want.demand().map(|wanted| wanted.queued), *client)
        });
        let Some(client) = queue.into_iter().find(|client| self.could_be_complete(*client)) else { return };
        let gang = self.clients[client.0].want.demand().and_then(|wanted| wanted.gang.as_ref());
        let hold = gang.map(|gang| gang.hold).unwrap_or_default();
        let kept = Vec::new();
        self.gangs.gatherer = Some(Gatherer { client, hold, chosen: now, since: None, kept });
        self.hot.insert(client);
        self.epoch += 1;
    }

    /// Whether each shape of a gang would fit often enough if nobody held anything.
    fn could_be_complete(&mut self, client: ClientIx) -> bool {
        let capacity = self.gangs.capacity;
        let Some(wanted) = self.clients[client.0].want.demand() else { return false };
        if wanted.hopeless == Some(capacity) {
            return false;
        }
        let could = wanted.shapes.iter().filter(|shape| shape.wanting() > 0).all(|shape| {
            let need = super::fits::Need::of_size(&shape.need.size);
            let fits = self
                .slots
                .iter()
                .filter(|slot| slot.active)
                .filter(|slot| shape.shape.constraint.as_ref().is_none_or(|c| c.holds(&slot.as_facts())));
            let nothing = divvy_proto::Resources::new();
            let times = fits.map(|slot| need.times_in(&slot.total.total(), &nothing));
            times.fold(0, u64::saturating_add) >= u64::from(shape.wanting())
        });
        if !could && let Some(wanted) = self.clients[client.0].want.demand_mut() {
            wanted.hopeless = Some(capacity);
        }
        could
    }

    /// What was kept is free again, and nobody gathers.
    pub(super) fn release_gathered(&mut self) {
        let Some(gatherer) = self.gangs.gatherer.take() else { return };
        for unit in gatherer.kept {
            self.end_kept(unit);
        }
    }

    /// The agent is not there any more: what was kept on it is not, either.
    pub(super) fn lose_gathered(&mut self, agent: AgentIx) {
        let Some(gatherer) = &mut self.gangs.gatherer else { return };
        let (lost, kept) =
            std::mem::take(&mut gatherer.kept).into_iter().partition(|unit| unit.agent == agent);
        gatherer.kept = kept;
        let lost: Vec<Unit> = lost;
        lost.into_iter().for_each(|unit| self.end_kept(unit));
    }

    fn end_kept(&mut self, unit: Unit) {
        let name = unit.shape.and_then(|at| {
            self.clients[unit.client.0].want.shapes().get(at).map(|shape| shape.shape.name.clone())
        });
        let mut grants = Grants::default();
        let client = unit.client;
        grants.put(unit, name.as_deref(), None);
        grants.grants.iter().for_each(|grant| self.end_offer(grant, 0));
        self.note_gang(client);
    }

    /// When a gatherer's time is up, or a gang may gather again.
    pub(super) fn next_gang_deadline(&self) -> Option<Timestamp> {
        match &self.gangs.gatherer {
            Some(_) => self.gangs.deadline(),
            None => {
                let waiting = self.gangs.waiting.iter();
                let wanted = waiting.filter_map(|client| self.clients[client.0].want.demand());
                let may = |wanted: &Wanted| Some(wanted.not_before).max(self.gangs.rests_until);
                wanted.filter_map(may).filter(|time| *time > self.now).min()
            }
        }
    }

    /// Gives a gang all that it lacks; or, if it gathers, one piece of it. Whether anything was given.
    pub(super) fn try_gang(
        &mut self,
        now: Timestamp,
        client: ClientIx,
        stage: Stage,
        grants: &mut Grants,
    ) -> bool {
        if let Some(units) = self.place_whole(now, client, stage) {
            self.complete_gang(now, client, units, grants);
            return true;
        }
        if self.gangs.gatherer.as_ref().is_none_or(|gatherer| gatherer.client != client) {
            return false;
        }
        let terms = self.terms(now, client, stage);
        let unit = self.try_demand(&terms, stage);
        self.note_bounds(&terms);
        let Some(unit) = unit else { return false };
        self.gather(now, unit, grants);
        true
    }

    /// A piece of the gathered gang is kept.
    pub(super) fn gather(&mut self, now: Timestamp, unit: Unit, grants: &mut Grants) {
        self.charge_unit(now, &unit);
        let client = unit.client;
        let missing = self.missing(client);
        let Some(gatherer) = &mut self.gangs.gatherer else { return };
        let is_first = gatherer.since.is_none();
        gatherer.since.get_or_insert(now);
        gatherer.kept.push(unit);
        if missing == 0 {
            self.complete_gang(now, client, Vec::new(), grants);
        } else if is_first {
            grants.notes.push(Note::GangGathering { client, kept: 1, missing });
        }
    }

    /// Nothing is missing: all of it is offered, what was kept as well, under one number.
    pub(super) fn complete_gang(
        &mut self,
        now: Timestamp,
        client: ClientIx,
        units: Vec<Unit>,
        grants: &mut Grants,
    ) {
        let kept = match self.gangs.gatherer.take_if(|gatherer| gatherer.client == client) {
            Some(gatherer) => gatherer.kept,
            None => Vec::new(),
        };
        self.gangs.made += 1;
        let gang = self.gangs.made;
        let names: Vec<String> =
            self.clients[client.0].want.shapes().iter().map(|shape| shape.shape.name.clone()).collect();
        for unit in kept.into_iter().chain(units) {
            let name = unit.shape.and_then(|at| names.get(at)).cloned();
            grants.put(unit, name.as_deref(), Some(gang));
        }
        grants.notes.push(Note::GangComplete { client, gang });
        self.note_gang(client);
        self.choose_gatherer(now);
    }

    /// Places all that a gang lacks, unit by unit; nothing of it, if something finds no place. What is placed is charged.
    fn place_whole(&mut self, now: Timestamp, client: ClientIx, stage: Stage) -> Option<Vec<Unit>> {
        if !self.could_be_whole(client) {
            return None;
        }
        let moved = (self.free_grew, self.tree.owed_moved, self.tree.fits.moved);
        let mut placed: Vec<(Unit, Before)> = Vec::new();
        while self.missing(client) > 0 {
            let terms = self.terms(now, client, stage);
            let unit = self.try_demand(&terms, stage);
            self.note_bounds(&terms);
            let Some(unit) = unit else {
                placed.into_iter().rev().for_each(|(unit, before)| self.take_back(unit, before));
                (self.free_grew, self.tree.owed_moved, self.tree.fits.moved) = moved;
                self.clients[client.0].want.forget_search();
                return None;
            };
            let shape = unit.shape.and_then(|at| self.clients[client.0].want.shapes().get(at)).cloned();
            let before = Before { was_fresh: self.fresh.contains(unit.agent), shape };
            self.charge_for_now(now, &unit);
            if !self.tree.fits.is_empty() {
                // Giving loosens headroom in shapes: an agent that was passed may do now.
                self.clients[client.0].want.forget_search();
            }
            placed.push((unit, before));
        }
        // Others hear of that only now: a gang that comes to nothing would wake all whom headroom stops, and they it, for ever.
        if !self.kept_back_by_shape.is_empty() {
            self.hot.append(&mut self.kept_back_by_shape);
            self.epoch += 1;
        }
        Some(placed.into_iter().map(|(unit, _)| unit).collect())
    }

    /// Whether there is enough of everything in the whole cluster; a quick question before the long one.
    fn could_be_whole(&self, client: ClientIx) -> bool {
        if self.with_reserved > 0 || self.clients[client.0].revocable {
            return true;
        }
        let mut wanted = super::Size::new();
        for shape in self.clients[client.0].want.shapes() {
            wanted.add(&shape.need.size.times(shape.wanting()));
        }
        wanted.iter().all(|(name, amount)| self.free_sum.get(name) >= amount)
    }

    /// Undoes `charge_unit`.
    fn take_back(&mut self, unit: Unit, before: Before) {
        let Unit { client, agent, charge, shape, .. } = unit;
        self.tree.ungrant(self.clients[client.0].node, &charge);
        self.change(agent, |slot| slot.offered = slot.offered.saturating_sub(&charge));
        if !before.was_fresh {
            self.fresh.remove(agent);
        } else if self.free.contains(agent) {
            self.fresh.insert(agent);
        }
        self.count_released(agent, client, 1);
        let this = &mut self.clients[client.0];
        this.own_offers.sub_resources(&charge.unreserved);
        let wanted = shape.and_then(|at| this.want.demand_mut().and_then(|w| w.shapes.get_mut(at)));
        if let (Some(wanted), Some(before)) = (wanted, before.shape) {
            if before.offered == 0 {
                this.offered.remove(&before.shape.name);
            } else {
                this.offered.insert(before.shape.name.clone(), before.offered);
            }
            *wanted = before;
        }
        self.settle_want(client);
    }
}

impl Wanted {
    /// A gang's pieces are looked for anew.
    fn forget_search(&mut self) {
        self.shapes.iter_mut().for_each(|shape| shape.search = Default::default());
    }
}

impl super::wishes::Want {
    fn forget_search(&mut self) {
        self.demand_mut().into_iter().for_each(Wanted::forget_search);
    }
}
