//! Whether one unit can be given to a client on an agent, and if not, why: the one place that says so.
//!
//! A unit of a classic client is all that it can have of the agent, cut to limits and headroom; a unit of a demand is one
//! shape. Both take what is reserved for the client's role or above first, then what is unreserved. What is revocable is a
//! unit by itself.

use std::cell::Cell;
use std::cmp::Reverse;

use divvy_proto::amounts::PORTS;
use divvy_proto::demand::DemandShape;
use divvy_proto::ranges::RangeSet;
use divvy_proto::reservation::Reserved;
use divvy_proto::resources::Resources;
use divvy_proto::role::RolePath;
use divvy_proto::time::Timestamp;

use super::charge::common;
use super::most::Most;
use super::roles::NodeIx;
use super::size::Size;
use super::slots::Slot;
use super::walk::Stage;
use super::wishes::ShapeNeed;
use super::{AgentIx, Allocator, Charge, ClientIx};

/// Why an agent gives a client nothing, or not this shape. The first that applies, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kernel) enum Obstacle {
    /// Its resources may not be offered: it is not there, or drained.
    Inactive,
    /// The constraint does not hold.
    Constraint,
    /// There is too little of this dimension for the client now. How much is missing, in its smallest unit.
    Short {
        /// Which.
        dimension: String,
        /// How much.
        missing: i128,
        /// Nor would there be enough if nobody held any of it.
        ever: bool,
    },
    /// What is free is not worth an offer.
    Scraps,
    /// It is kept for this client's demand, which has waited longer.
    Kept(ClientIx),
    /// The role, or one above it, is at its limit.
    Limit {
        /// Whose limit.
        role: RolePath,
        /// In which dimension.
        dimension: String,
    },
    /// It is kept for this role's guarantee.
    Headroom(RolePath),
    /// The client has refused it.
    Filtered(Timestamp),
}

/// The same without words: most of the time nobody wants to read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blocked {
    Inactive,
    Short,
    Scraps,
    Kept(ClientIx),
    Limit,
    /// The shape of this node's guarantee, or a sum.
    Headroom(Option<NodeIx>),
    /// It is not what a guarantee is for.
    NotOwed,
    Filtered,
}

/// What applies to a client on every agent. It holds until something is given to somebody.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) now: Timestamp,
    pub(super) client: ClientIx,
    role: RolePath,
    /// The client's nodes, for headroom in shapes; empty where nobody keeps any.
    path: Vec<NodeIx>,
    /// What its limits leave.
    limit: Most,
    /// What headroom leaves.
    spare: Most,
    stage: Stage,
    /// In the first stage: what the guarantees on its path lack.
    owed: Vec<Most>,
    /// Since when its demand waits, for what is kept for others of its role.
    since: Option<Timestamp>,
    pub(super) is_revocable: bool,
    /// A limit was in the way of something.
    pub(super) met_limit: Cell<bool>,
    /// Headroom was in the way of something.
    pub(super) met_headroom: Cell<bool>,
    /// It was headroom in shapes.
    pub(super) met_shape: Cell<bool>,
}

impl Terms {
    /// Whether it could be given so much of the unreserved on some agent.
    pub(super) fn allow(&self, resources: &Resources, ports: usize) -> Result<(), Blocked> {
        let within = |most: &Most| most.holds_with_ports(resources, ports);
        if !within(&self.limit) {
            self.met_limit.set(true);
            return Err(Blocked::Limit);
        }
        if !within(&self.spare) {
            self.met_headroom.set(true);
            return Err(Blocked::Headroom(None));
        }
        Ok(())
    }

    /// Whether there is anything unreserved that would be worth an offer.
    pub(super) fn allow_anything(&self) -> bool {
        let worth = |most: &Most| {
            most.at_most("cpus") >= super::LEAST_CPUS || most.at_most("mem") >= super::LEAST_MEM
        };
        if !worth(&self.limit) {
            self.met_limit.set(true);
        }
        if !worth(&self.spare) {
            self.met_headroom.set(true);
        }
        worth(&self.limit) && worth(&self.spare)
    }

    fn owns(&self, piece: &Reserved) -> bool {
        piece.owner().is_some_and(|owner| owner.contains(&self.role))
    }
}

#[allow(clippy::indexing_slicing, reason = "an index is made by this allocator only")]
impl Allocator {
    /// What one unit of what a client wants would be on an agent: of this shape, or, without one, all that it can have there.
    ///
    /// # Errors
    /// Why it cannot have any.
    pub(in crate::kernel) fn obstacle(
        &self,
        now: Timestamp,
        client: ClientIx,
        shape: Option<&DemandShape>,
        agent: AgentIx,
    ) -> Result<Charge, Obstacle> {
        let need = shape.map(ShapeNeed::of);
        self.obstacle_to(&self.terms(now, client, Stage::Fair), shape.zip(need.as_ref()), agent)
    }

    /// The same for many agents.
    pub(super) fn obstacle_to(
        &self,
        terms: &Terms,
        wanted: Option<(&DemandShape, &ShapeNeed)>,
        agent: AgentIx,
    ) -> Result<Charge, Obstacle> {
        let slot = &self.slots[agent.0];
        let constraint = wanted.and_then(|(shape, _)| shape.constraint.as_ref());
        if slot.active && constraint.is_some_and(|constraint| !constraint.holds(&slot.as_facts())) {
            return Err(Obstacle::Constraint);
        }
        self.obstacle_beyond(terms, wanted.map(|(_, need)| need), agent)
    }

    /// The same, where the constraint is known to hold.
    pub(super) fn obstacle_beyond(
        &self,
        terms: &Terms,
        need: Option<&ShapeNeed>,
        agent: AgentIx,
    ) -> Result<Charge, Obstacle> {
        let unit = match need {
            Some(need) => self.shape_unit(terms, need, agent),
            None => self.classic_unit(terms, agent),
        };
        let revocable = || self.revocable_unit(terms, need, agent).ok();
        unit.or_else(|blocked| revocable().ok_or_else(|| self.put_in_words(terms, need, agent, blocked)))
    }

    pub(super) fn terms(&self, now: Timestamp, client: ClientIx, stage: Stage) -> Terms {
        let this = &self.clients[client.0];
        let (mut limit, mut spare, mut owed, mut path) = (Most::new(), Most::new(), Vec::new(), Vec::new());
        if self.tree.promises > 0 {
            let promised =
                || self.tree.path(this.node).filter_map(|(_, node)| Some((node, node.promise.as_ref()?)));
            for (node, promise) in promised().filter(|(_, promise)| !promise.limit.is_open()) {
                let mut gone = node.consumed();
                gone.add(&this.own_offers);
                limit.and(&promise.limit.less(&gone));
            }
            spare = self.tree.spare(this.node, &self.free_sum);
            if stage == Stage::Guaranteed {
                owed = promised().filter_map(|(node, _)| node.unmet_bounds()).collect();
            }
            if !self.tree.fits.is_empty() {
                path = self.tree.path(this.node).map(|(at, _)| at).collect();
            }
        }
        Terms {
            now,
            client,
            role: this.role.clone(),
            path,
            limit,
            spare,
            stage,
            owed,
            since: this.want.waiting_since(),
            is_revocable: this.revocable,
            met_limit: Cell::new(false),
            met_headroom: Cell::new(false),
            met_shape: Cell::new(false),
        }
    }

    /// All that a client can have of what an agent has, revocable resources apart.
    pub(super) fn classic_unit(&self, terms: &Terms, agent: AgentIx) -> Result<Charge, Blocked> {
        let slot = &self.slots[agent.0];
        if !slot.active {
            return Err(Blocked::Inactive);
        }
        let reserved: Vec<Reserved> =
            slot.available.reserved.iter().filter(|p| terms.owns(p)).cloned().collect();
        let with = |unreserved: &Resources| Charge {
            unreserved: unreserved.clone(),
            reserved: reserved.clone(),
            revocable: Resources::new(),
        };
        let is_worth = |unreserved: &Resources| match reserved.is_empty() {
            true => super::is_worth_an_offer(unreserved),
            false => super::is_worth_an_offer(&with(unreserved).total()),
        };
        let all = &slot.available.unreserved;
        if !is_worth(all) {
            return Err(Blocked::Scraps);
        }
        let given = match self.kept_from(terms, agent) {
            Some(_) => Resources::new(),
            None => self.cut(terms, all),
        };
        if !is_worth(&given) {
            let kept = self.kept_from(terms, agent).map(Blocked::Kept);
            let limited = || (!is_worth(&terms.limit.cut(all))).then_some(Blocked::Limit);
            return Err(kept.or_else(limited).unwrap_or(Blocked::Headroom(self.headroom_of(terms, all))));
        }
        if terms.stage == Stage::Guaranteed && !terms.owed.iter().any(|owed| owed.has_use_for(&given)) {
            return Err(Blocked::NotOwed);
        }
        self.unless_refused(terms, agent, with(&given))
    }

    /// As much of an agent's unreserved resources as limits and headroom allow.
    fn cut(&self, terms: &Terms, all: &Resources) -> Resources {
        let mut most = terms.limit.clone();
        if !terms.limit.holds(all) {
            terms.met_limit.set(true);
        }
        if !terms.spare.holds(all) {
            terms.met_headroom.set(true);
            most.and(&terms.spare);
        }
        let given = most.cut(all);
        if terms.path.is_empty() || self.tree.fits.blocked(&terms.path, all, &given).is_none() {
            return given;
        }
        terms.met_shape.set(true);
        let has = Size::of(all);
        for (need, times) in self.tree.fits.kept(&terms.path, all) {
            need.many(times).for_each(|(name, kept)| most.lower(name, has.get(name) - kept));
        }
        most.cut(all)
    }

    /// Whose shape is in the way of giving all of it.
    fn headroom_of(&self, terms: &Terms, all: &Resources) -> Option<NodeIx> {
        match terms.spare.holds(all) {
            true => self.tree.fits.blocked(&terms.path, all, all),
            false => None,
        }
    }

    /// One of a shape, revocable resources apart. The constraint is for the caller to ask.
    pub(super) fn shape_unit(
        &self,
        terms: &Terms,
        need: &ShapeNeed,
        agent: AgentIx,
    ) -> Result<Charge, Blocked> {
        let slot = &self.slots[agent.0];
        if !slot.active {
            return Err(Blocked::Inactive);
        }
        let charge = take(slot, terms, need).ok_or(Blocked::Short)?;
        if !charge.unreserved.is_empty() {
            if let Some(keeper) = self.kept_from(terms, agent) {
                return Err(Blocked::Kept(keeper));
            }
            terms.allow(&charge.unreserved, 0)?;
            if !terms.path.is_empty()
                && let Some(node) =
                    self.tree.fits.blocked(&terms.path, &slot.available.unreserved, &charge.unreserved)
            {
                terms.met_shape.set(true);
                return Err(Blocked::Headroom(Some(node)));
            }
        }
        if terms.stage == Stage::Guaranteed {
            // What is reserved is not owed, but who is owed something takes it first.
            let all = charge.total();
            let is_for = |owed: &Most| owed.holds(&charge.unreserved) && owed.has_use_for(&all);
            if !terms.owed.iter().any(is_for) {
                return Err(Blocked::NotOwed);
            }
        }
        self.unless_refused(terms, agent, charge)
    }

    /// Of what may be taken back: one of a shape, or all there is.
    pub(super) fn revocable_unit(
        &self,
        terms: &Terms,
        need: Option<&ShapeNeed>,
        agent: AgentIx,
    ) -> Result<Charge, Blocked> {
        let slot = &self.slots[agent.0];
        if !slot.active || !terms.is_revocable || terms.stage == Stage::Guaranteed {
            return Err(Blocked::Inactive);
        }
        let free = &slot.available.revocable;
        let charge = match need {
            Some(need) => with_ports(free, need).map(Charge::revocable).ok_or(Blocked::Short)?,
            None if super::is_worth_an_offer(free) => Charge::revocable(free.clone()),
            None => return Err(Blocked::Scraps),
        };
        self.unless_refused(terms, agent, charge)
    }

    fn unless_refused(&self, terms: &Terms, agent: AgentIx, charge: Charge) -> Result<Charge, Blocked> {
        let is_refused = match charge.reserved.is_empty() && charge.revocable.is_empty() {
            true => self.is_refused(terms.client, agent, &charge.unreserved, terms.now),
            false => self.is_refused(terms.client, agent, &charge.total(), terms.now),
        };
        if is_refused { Err(Blocked::Filtered) } else { Ok(charge) }
    }

    pub(super) fn is_refused(
        &self,
        client: ClientIx,
        agent: AgentIx,
        unit: &Resources,
        now: Timestamp,
    ) -> bool {
        match unit.ports().is_empty() {
            true => self.filters.block(client, agent, unit, now),
            false => self.filters.block(client, agent, &by_count(unit), now),
        }
    }

    /// For whom of its own role, and longer waiting, the agent is kept.
    fn kept_from(&self, terms: &Terms, agent: AgentIx) -> Option<ClientIx> {
        if let Some(client) = self.holds.room_on(agent)
            && client != terms.client
        {
            return Some(client);
        }
        let keeper = self.holds.on(agent)?;
        let theirs = &self.clients[keeper.0];
        let is_older = match (theirs.want.waiting_since(), terms.since) {
            (Some(theirs), Some(mine)) => (theirs, keeper) < (mine, terms.client),
            (Some(_), None) => true,
            (None, _) => false,
        };
        (keeper != terms.client && theirs.role == terms.role && is_older).then_some(keeper)
    }

    fn put_in_words(
        &self,
        terms: &Terms,
        need: Option<&ShapeNeed>,
        agent: AgentIx,
        blocked: Blocked,
    ) -> Obstacle {
        let slot = &self.slots[agent.0];
        match blocked {
            Blocked::Inactive | Blocked::NotOwed => Obstacle::Inactive,
            Blocked::Short => need.map_or(Obstacle::Scraps, |need| short(slot, terms, need)),
            Blocked::Scraps => Obstacle::Scraps,
            Blocked::Kept(keeper) => Obstacle::Kept(keeper),
            Blocked::Limit => self.limit_in_the_way(terms, need, slot),
            Blocked::Headroom(node) => {
                let wanted =
                    need.map_or_else(|| slot.available.unreserved.clone(), |need| need.scalars.clone());
                let dimension = terms.spare.exceeded(&wanted).unwrap_or(PORTS);
                let owed = || self.tree.owed_in(dimension).first().map(|(_, node)| *node);
                let role = node.or_else(owed).and_then(|node| self.tree.name_of(node));
                Obstacle::Headroom(role.unwrap_or_default())
            }
            Blocked::Filtered => {
                let unit = match need {
                    Some(need) => take(slot, terms, need).map(|charge| charge.total()),
                    None => None,
                };
                let unit = unit.unwrap_or_default();
                let until = self.filters.until(terms.client, agent, &by_count(&unit), terms.now);
                Obstacle::Filtered(until.unwrap_or(terms.now))
            }
        }
    }

    /// The outermost limit of which too little is left.
    fn limit_in_the_way(&self, terms: &Terms, need: Option<&ShapeNeed>, slot: &Slot) -> Obstacle {
        let this = &self.clients[terms.client.0];
        let wanted = need.map_or_else(|| Size::of(&slot.available.unreserved), |need| need.size.clone());
        for role in this.role.lineage() {
            let Some(node) = self.tree.node_of(&role) else { continue };
            let Some(promise) = &node.promise else { continue };
            let mut gone = node.consumed();
            gone.add(&this.own_offers);
            let left = promise.limit.less(&gone);
            let mut over = left.iter().filter(|(name, left)| wanted.get(name) > i128::from(*left));
            if let Some((dimension, _)) = over.next() {
                let dimension = dimension.to_owned();
                return Obstacle::Limit { role, dimension };
            }
        }
        Obstacle::Limit { role: this.role.clone(), dimension: "cpus".to_owned() }
    }
}

/// The same with the first ports there are, as many as there are in it: what was refused is refused with whichever ports.
pub(super) fn by_count(resources: &Resources) -> Resources {
    let last = u32::try_from(resources.ports().count()).unwrap_or(u32::MAX);
    resources.clone().with_ports(RangeSet::range(1, last))
}

/// What is there of a shape's needs, with the lowest ports, if it is all there.
fn with_ports(free: &Resources, need: &ShapeNeed) -> Option<Resources> {
    if !free.contains(&need.scalars) {
        return None;
    }
    match need.ports {
        0 => Some(need.scalars.clone()),
        ports => Some(need.scalars.clone().with_ports(free.ports().take_lowest(ports)?)),
    }
}

/// One of a shape out of what a client can have of what is free, if it is all there: from reserved pieces first, those of the
/// innermost role first, then in order.
fn take(slot: &Slot, terms: &Terms, need: &ShapeNeed) -> Option<Charge> {
    let free = &slot.available;
    if free.reserved.is_empty() {
        return with_ports(&free.unreserved, need).map(Charge::unreserved);
    }
    let mut pieces: Vec<&Reserved> = free.reserved.iter().filter(|piece| terms.owns(piece)).collect();
    pieces.sort_by_key(|piece| Reverse(piece.owner().map_or(0, |role| role.parts().count())));
    let (mut rest, mut ports, mut taken) = (need.scalars.clone(), need.ports, Vec::new());
    for piece in pieces {
        let part = common(&piece.resources, &rest);
        rest = rest.saturating_sub(&part);
        let there = usize::try_from(piece.resources.ports().count()).unwrap_or(usize::MAX).min(ports);
        let part = part.with_ports(piece.resources.ports().take_lowest(there)?);
        ports -= there;
        taken.push(Reserved { stack: piece.stack.clone(), resources: part });
    }
    let unreserved = match free.unreserved.contains(&rest) {
        true => rest.with_ports(free.unreserved.ports().take_lowest(ports)?),
        false => return None,
    };
    Charge::unreserved(unreserved).with_reserved(taken)
}

/// Which dimension is too small for a shape, and by how much.
fn short(slot: &Slot, terms: &Terms, need: &ShapeNeed) -> Obstacle {
    let of = |charge: &Charge| {
        let mut size = Size::of(&charge.unreserved);
        let own = charge.reserved.iter().filter(|piece| terms.owns(piece));
        own.for_each(|piece| size.add_resources(&piece.resources));
        size
    };
    let lacks = |has: &Size| {
        let missing = need.size.zip(has, |wanted, has| (wanted - has).max(0));
        missing.iter().next().map(|(name, missing)| (name.to_owned(), missing))
    };
    let (total, free) = (of(&slot.total), of(&slot.available));
    let (found, ever) = match lacks(&total) {
        Some(found) => (Some(found), true),
        None => (lacks(&free), false),
    };
    let (dimension, missing) = found.unwrap_or_else(|| ("cpus".to_owned(), 0));
    Obstacle::Short { dimension, missing, ever }
}
