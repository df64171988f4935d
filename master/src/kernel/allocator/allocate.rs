//! A turn. The policy is a sequence: *the first client in fair order that can take something from some agent is given one unit
//! of it, and so on until nobody can.* Guarantees come first.
//!
//! What makes it cheap is that at the end of a turn nobody can take anything. So in the next one only those are asked who
//! have a new reason to hope: everybody of agents that have become freer (`fresh`), clients whose wish or bounds have changed
//! of all agents (`hot`), and clients of agents on which their filter has ended (`paired`). Within a turn there is only less
//! and less, so that whoever found nothing is not asked again.

use std::collections::BTreeMap;

use divvy_proto::demand::OfferedDemand;
use divvy_proto::time::Timestamp;

use super::obstacle::Terms;
use super::roles::Hands;
use super::walk::Stage;
use super::wishes::Want;
use super::{AgentIx, Allocator, Charge, ClientIx, Key, slots};

/// What is given to a framework in one role on one agent: it becomes an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kernel) struct Grant {
    pub(in crate::kernel) agent: AgentIx,
    pub(in crate::kernel) client: ClientIx,
    pub(in crate::kernel) charge: Charge,
    /// For what it is given; absent if the client takes anything.
    pub(in crate::kernel) demand: Option<OfferedDemand>,
    pub(in crate::kernel) why: Why,
}

/// Why it is given to this client and not to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kernel) struct Why {
    /// In which stage of the turn.
    pub(in crate::kernel) stage: Stage,
    /// The client's share before.
    pub(in crate::kernel) share: Key,
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

/// One unit: of all that a classic client can have on an agent, or one of a demand's shapes, by its place in the demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) client: ClientIx,
    pub(super) agent: AgentIx,
    pub(super) charge: Charge,
    pub(super) shape: Option<usize>,
    pub(super) why: Why,
}

/// The grants of a turn: units of one client, agent and shape are one.
#[derive(Debug, Default)]
pub(super) struct Grants {
    pub(super) grants: Vec<Grant>,
    places: BTreeMap<(ClientIx, AgentIx, usize, bool), usize>,
    pub(super) notes: Vec<Note>,
}

impl Grants {
    pub(super) fn put(&mut self, unit: Unit, name: Option<&str>, gang: Option<u64>) {
        let Unit { client, agent, charge, shape, why } = unit;
        let Some((shape, name)) = shape.zip(name) else {
            self.grants.push(Grant { agent, client, charge, demand: None, why });
            return;
        };
        let key = (client, agent, shape, charge.is_revocable());
        let known = self.places.get(&key).and_then(|at| self.grants.get_mut(*at));
        let merged = known.and_then(|grant| {
            grant.charge = grant.charge.checked_add(&charge)?;
            grant.demand.as_mut().map(|demand| demand.count += 1)
        });
        if merged.is_none() {
            self.places.insert(key, self.grants.len());
            let demand = Some(OfferedDemand { shape: name.to_owned(), count: 1, gang });
            self.grants.push(Grant { agent, client, charge, demand, why });
        }
    }
}

/// How far a classic client has come in a stage of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    epoch: u64,
    /// Nothing for it on any agent below.
    from: AgentIx,
    /// Nothing for it on any agent at all.
    failed: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self { epoch: 0, from: AgentIx::MIN, failed: false }
    }
}

/// So many clients are compared with each other; among more the order is walked.
const FEW: usize = 8;

#[allow(clippy::indexing_slicing, reason = "an index is made by this allocator only")]
impl Allocator {
    /// Gives away what can be given. Afterwards nobody can take anything from any agent.
    pub(in crate::kernel) fn allocate(&mut self, now: Timestamp) -> Allocated {
        let mut grants = Grants::default();
        self.begin_turn(now, &mut grants.notes);
        while self.give_next(now, &mut grants) {}
        self.end_turn(now, &mut grants.notes);
        Allocated { grants: grants.grants, notes: grants.notes }
    }

    pub(super) fn begin_turn(&mut self, now: Timestamp, notes: &mut Vec<Note>) {
        self.now = now;
        for (client, agent) in self.filters.expire(now) {
            self.paired.entry(client).or_default().insert(agent);
        }
        if std::mem::take(&mut self.total_changed) {
            self.tree.set_total(&self.sums.declared);
        }
        self.count_fits();
        self.epoch += 1;
        self.review_holds();
        self.begin_gangs(now, notes);
        self.hope_again();
    }

    /// Those whom a bound stopped that is now looser are asked again of all agents.
    fn hope_again(&mut self) {
        let loosened = std::mem::take(&mut self.tree.loosened);
        if !loosened.is_empty() {
            let is_below = |client: &ClientIx| {
                self.tree.path(self.clients[client.0].node).any(|(node, _)| loosened.contains(&node))
            };
            let again: Vec<ClientIx> = self.limited.iter().copied().filter(is_below).collect();
            self.limited.retain(|client| !again.contains(client));
            self.hot.extend(again);
        }
        let moved = [&mut self.tree.owed_moved, &mut self.tree.fits.moved, &mut self.free_grew];
        if moved.into_iter().fold(false, |any, moved| std::mem::take(moved) | any) {
            self.hot.append(&mut self.kept_back);
            self.kept_back_by_shape.clear();
        }
        self.tree.fits.fell.clear();
    }

    fn end_turn(&mut self, now: Timestamp, notes: &mut Vec<Note>) {
        self.keep_for_the_old(now, notes);
        self.fresh.clear();
        self.hot.clear();
        self.paired.clear();
        // What this turn itself has moved has been answered in it.
        self.tree.owed_moved = false;
        self.tree.fits.moved = false;
        self.tree.fits.fell.clear();
        self.free_grew = false;
    }

    /// Gives the first client in fair order that can take something one unit of it. False if there is none.
    fn give_next(&mut self, now: Timestamp, grants: &mut Grants) -> bool {
        (self.tree.promises > 0 && self.give_in(now, Stage::Guaranteed, grants))
            || self.give_in(now, Stage::Fair, grants)
    }

    fn give_in(&mut self, now: Timestamp, stage: Stage, grants: &mut Grants) -> bool {
        loop {
            if self.fresh.is_empty() && self.hot.is_empty() && self.paired.is_empty() {
                return false;
            }
            let are_few = self.fresh.is_empty() && self.hot.len() + self.paired.len() <= FEW;
            let client = match are_few {
                true => self.first_of_few(stage),
                false => self.tree.next(stage, self.epoch),
            };
            let Some(client) = client else { return false };
            if self.try_client(now, client, stage, grants) {
                return true;
            }
            self.progress(client, stage).failed = true;
            if !are_few {
                self.tree.pass(self.clients[client.0].node, stage, self.epoch);
            }
            if stage == Stage::Fair {
                self.hot.remove(&client);
                self.paired.remove(&client);
            }
        }
    }

    fn first_of_few(&mut self, stage: Stage) -> Option<ClientIx> {
        let hopeful: Vec<ClientIx> = self.hot.iter().chain(self.paired.keys()).copied().collect();
        let may = |client: &ClientIx| {
            let this = &self.clients[client.0];
            let progress = &this.progress[stage as usize];
            let has_failed = progress.epoch == self.epoch && progress.failed;
            let is_in_stage = stage == Stage::Fair || self.tree.is_owed(this.node);
            self.tree.wants(this.node) && !has_failed && is_in_stage
        };
        let mut may = hopeful.into_iter().filter(may);
        let first = may.next()?;
        let rest: Vec<ClientIx> = may.filter(|client| *client != first).collect();
        match rest.is_empty() {
            true => Some(first),
            false => rest.into_iter().chain([first]).min_by_key(|c| self.tree.place(self.clients[c.0].node)),
        }
    }

    fn progress(&mut self, client: ClientIx, stage: Stage) -> &mut Progress {
        let progress = &mut self.clients[client.0].progress[stage as usize];
        if progress.epoch != self.epoch {
            *progress = Progress { epoch: self.epoch, ..Progress::default() };
        }
        progress
    }

    /// Gives a client one unit, if it can take any.
    fn try_client(&mut self, now: Timestamp, client: ClientIx, stage: Stage, grants: &mut Grants) -> bool {
        let has_hope =
            !self.fresh.is_empty() || self.hot.contains(&client) || self.paired.contains_key(&client);
        if self.progress(client, stage).failed || !has_hope {
            return false;
        }
        let terms = self.terms(now, client, stage);
        let unit = match &self.clients[client.0].want {
            Want::Nothing => None,
            Want::Anything => self.try_classic(&terms, stage),
            Want::Demand(wanted) if wanted.gang.is_some() => {
                return self.try_gang(now, client, stage, grants);
            }
            Want::Demand(_) => self.try_demand(&terms, stage),
        };
        self.note_bounds(&terms);
        let Some(unit) = unit else { return false };
        self.give(now, unit, grants);
        true
    }

    /// Remembers what stopped a client, so that it is asked again when that is looser.
    pub(super) fn note_bounds(&mut self, terms: &Terms) {
        if terms.met_limit.get() {
            self.limited.insert(terms.client);
        }
        if terms.met_headroom.get() || terms.met_shape.get() {
            self.kept_back.insert(terms.client);
        }
        if terms.met_shape.get() {
            self.kept_back_by_shape.insert(terms.client);
        }
    }

    fn try_classic(&mut self, terms: &Terms, stage: Stage) -> Option<Unit> {
        let client = terms.client;
        let is_hot = self.hot.contains(&client);
        let may_have_unreserved = terms.allow_anything();
        if !may_have_unreserved && self.with_reserved == 0 && !terms.is_revocable {
            return None;
        }
        let mut from = self.progress(client, stage).from;
        while let Some(agent) = self.next_candidate(client, is_hot, from) {
            let unit = self.classic_unit(terms, agent);
            if let Ok(charge) = unit.or_else(|_| self.revocable_unit(terms, None, agent)) {
                self.progress(client, stage).from = agent;
                return Some(Unit { client, agent, charge, shape: None, why: self.why(client, stage) });
            }
            from = AgentIx(agent.0 + 1);
        }
        None
    }

    /// The lowest agent, of those not below `from`, on which a client has reason to hope.
    fn next_candidate(&self, client: ClientIx, is_hot: bool, from: AgentIx) -> Option<AgentIx> {
        if is_hot {
            return self.free.next(from);
        }
        let paired = self.paired.get(&client).and_then(|agents| agents.range(from..).next().copied());
        [self.fresh.next(from), paired].into_iter().flatten().min()
    }

    pub(super) fn why(&self, client: ClientIx, stage: Stage) -> Why {
        Why { stage, share: self.tree.share_of(self.clients[client.0].node) }
    }

    /// A unit changes hands.
    pub(super) fn give(&mut self, now: Timestamp, unit: Unit, grants: &mut Grants) {
        self.charge_unit(now, &unit);
        let shapes = self.clients[unit.client.0].want.shapes();
        let shape = unit.shape.and_then(|at| shapes.get(at)).map(|wanted| wanted.shape.clone());
        grants.put(unit, shape.as_ref().map(|shape| shape.name.as_str()), None);
    }

    /// Counts a unit as offered, for good.
    pub(super) fn charge_unit(&mut self, now: Timestamp, unit: &Unit) {
        self.tree.fits.fell.clear();
        let before = if self.tree.fits.is_empty() { Vec::new() } else { self.tree.fits.all() };
        self.charge_for_now(now, unit);
        self.note_slack(unit.agent, &before);
    }

    /// Counts a unit as offered; nobody is asked again for it.
    pub(super) fn charge_for_now(&mut self, now: Timestamp, unit: &Unit) {
        let (client, agent) = (unit.client, unit.agent);
        self.tree.grant(self.clients[client.0].node, &unit.charge);
        self.count_held(agent, client, 1);
        self.change(agent, |slot| slot.offered = slots::sum(&slot.offered, &unit.charge));
        let this = &mut self.clients[client.0];
        this.own_offers.add_resources(&unit.charge.unreserved);
        if let Some(shape) = unit.shape {
            self.charge_shape(now, client, shape);
        }
    }

    fn charge_shape(&mut self, now: Timestamp, client: ClientIx, shape: usize) {
        let this = &mut self.clients[client.0];
        let wanted = this.want.demand_mut().and_then(|wanted| wanted.shapes.get_mut(shape));
        let Some(wanted) = wanted else { return };
        wanted.offered += 1;
        wanted.since = now;
        match this.offered.get_mut(&wanted.shape.name) {
            Some(count) => *count += 1,
            None => {
                this.offered.insert(wanted.shape.name.clone(), 1);
            }
        }
        self.settle_want(client);
        if self.holds.of(client).is_some() {
            self.end_hold(client);
        }
    }

    /// Headroom in shapes is the one bound that can become looser by giving: where a shape now fits more often beyond what has
    /// to than before, and on an agent where it no longer fits at all. Those whom it stopped are asked again.
    fn note_slack(&mut self, agent: AgentIx, before: &[u64]) {
        let fell = std::mem::take(&mut self.tree.fits.fell);
        if self.kept_back_by_shape.is_empty() {
            return;
        }
        let now = self.tree.fits.all();
        let lost: Vec<u64> =
            before.iter().zip(&now).map(|(before, now)| before.saturating_sub(*now)).collect();
        let is_looser = fell.iter().any(|(fit, fell)| lost.get(fit.at()).is_none_or(|lost| fell > lost));
        if is_looser {
            self.hot.append(&mut self.kept_back_by_shape);
            self.epoch += 1;
        } else if lost.iter().any(|lost| *lost > 0) {
            for client in &self.kept_back_by_shape {
                self.paired.entry(*client).or_default().insert(agent);
            }
            self.epoch += 1;
        }
    }

    /// An offer is no more: all of it is free. Of what was demanded, so many have been launched.
    pub(in crate::kernel) fn end_offer(&mut self, grant: &Grant, launched: u32) {
        let (client, agent) = (grant.client, grant.agent);
        self.tree.release(self.clients[client.0].node, &grant.charge, Hands::Offered);
        self.change(agent, |slot| slot.offered = slot.offered.saturating_sub(&grant.charge));
        self.count_released(agent, client, grant.demand.as_ref().map_or(1, |demand| demand.count));
        let this = &mut self.clients[client.0];
        this.own_offers.sub_resources(&grant.charge.unreserved);
        if self.limited.contains(&client) {
            self.limited.remove(&client);
            self.hot.insert(client);
        }
        if let Some(offered) = &grant.demand {
            self.end_demanded(client, offered, launched);
        }
    }

    fn end_demanded(&mut self, client: ClientIx, offered: &OfferedDemand, launched: u32) {
        let now = self.now;
        let this = &mut self.clients[client.0];
        if let Some(count) = this.offered.get_mut(&offered.shape) {
            *count = count.saturating_sub(offered.count);
            if *count == 0 {
                this.offered.remove(&offered.shape);
            }
        }
        let Some(wanted) = this.want.shape_mut(&offered.shape) else { return };
        let before = (wanted.count, wanted.wanting());
        if wanted.wanting() == 0 {
            wanted.since = now;
        }
        wanted.offered = wanted.offered.saturating_sub(offered.count);
        wanted.count = wanted.count.saturating_sub(launched.min(offered.count));
        let (is_met, wants_more) = (before.0 > 0 && wanted.count == 0, wanted.wanting() > before.1);
        let (node, need) = (this.node, wanted.need.clone());
        if is_met {
            self.tree.demanded(node, &need.size, false);
        }
        self.settle_want(client);
        if wants_more {
            self.hot.insert(client);
        }
    }
}
