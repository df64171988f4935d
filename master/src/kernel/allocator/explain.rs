//! What stands in the way of one unit of something, on all agents: [`Allocator::obstacle`] asked of each, and counted.
//!
//! One pass over the agents, and no text made for any of them. Not here: names and sentences (`kernel::explain`).

use std::collections::BTreeMap;
use std::sync::Arc;

use divvy_proto::demand::{DemandShape, Gang};
use divvy_proto::ids::{AgentId, FrameworkId};
use divvy_proto::predicate::Predicate;
use divvy_proto::role::RolePath;
use divvy_proto::time::Timestamp;

use super::charge::Charge;
use super::classes::ClassIx;
use super::obstacle::Obstacle;
use super::size::Size;
use super::slots::Slot;
use super::walk::Stage;
use super::wishes::{ShapeNeed, Want};
use super::{AgentIx, Allocator, ClientIx};

/// So many of the agents that come nearest are remembered for each cause.
const CLOSEST: usize = 8;

/// Something that a client wants and is not offered.
#[derive(Debug, Clone)]
pub(in crate::kernel) struct Waiting {
    pub(in crate::kernel) client: ClientIx,
    /// Absent for a client that takes anything.
    pub(in crate::kernel) shape: Option<Arc<DemandShape>>,
    /// How many are wanted and not on offer.
    pub(in crate::kernel) count: u32,
    pub(in crate::kernel) since: Option<Timestamp>,
    /// All of the demand or nothing.
    pub(in crate::kernel) gang: Option<Gang>,
    need: Option<Arc<ShapeNeed>>,
}

/// Which clause of a constraint an agent fails, asked once for all agents that are alike.
#[derive(Debug, Default)]
struct Clauses<'a>(BTreeMap<ClassIx, Option<&'a Predicate>>);

impl<'a> Clauses<'a> {
    fn failing(&mut self, waiting: &'a Waiting, slot: &Slot) -> Option<&'a Predicate> {
        let constraint = waiting.shape.as_ref()?.constraint.as_ref()?;
        let ask = || constraint.failing_clause(&slot.as_facts());
        match waiting.need.as_ref().is_some_and(|need| need.by_class) {
            true => *self.0.entry(slot.class).or_insert_with(ask),
            false => ask(),
        }
    }
}

/// Why nothing of an agent is offered to anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kernel) enum Away {
    /// It is not connected.
    NotActive,
    /// It is being drained, maintained, or was deactivated.
    Draining,
    /// It is not counted at all.
    Gone,
}

/// What excludes an agent.
#[derive(Debug, Clone)]
pub(in crate::kernel) enum Cause<'a> {
    NotActive,
    Draining,
    Clause(&'a Predicate),
    /// What would be needed is reserved for others.
    Reservation,
    TooSmall(String),
    Held(String),
    Kept(ClientIx),
    Limit(RolePath, String),
    Headroom,
    Filter,
}

impl Cause<'_> {
    /// The order in which the allocator asks.
    fn rank(&self) -> usize {
        match self {
            Self::NotActive => 0,
            Self::Draining => 1,
            Self::Clause(_) => 2,
            Self::TooSmall(_) => 3,
            Self::Reservation => 4,
            Self::Held(_) => 5,
            Self::Kept(_) => 6,
            Self::Limit(..) => 7,
            Self::Headroom => 8,
            Self::Filter => 9,
        }
    }

    /// How far an agent that this excludes is from being offered: what passes by itself comes first.
    fn distance(&self) -> usize {
        match self {
            Self::Filter => 0,
            Self::Kept(_) => 1,
            Self::Headroom => 2,
            Self::Limit(..) => 3,
            Self::Held(_) => 4,
            Self::Reservation => 5,
            Self::Clause(_) => 6,
            Self::TooSmall(_) => 7,
            Self::Draining => 8,
            Self::NotActive => 9,
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Clause(mine), Self::Clause(theirs)) => std::ptr::eq(*mine, *theirs),
            (Self::TooSmall(mine), Self::TooSmall(theirs)) | (Self::Held(mine), Self::Held(theirs)) => {
                mine == theirs
            }
            (Self::Kept(mine), Self::Kept(theirs)) => mine == theirs,
            (Self::Limit(role, mine), Self::Limit(other, theirs)) => (role, mine) == (other, theirs),
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

/// All agents that one cause excludes.
#[derive(Debug, Clone)]
pub(in crate::kernel) struct Counted<'a> {
    pub(in crate::kernel) cause: Cause<'a>,
    pub(in crate::kernel) agents: usize,
    /// The least that any of them lacks of the cause's dimension.
    pub(in crate::kernel) missing: Option<i128>,
    /// When the first of their filters ends.
    pub(in crate::kernel) until: Option<Timestamp>,
    /// For whom they are reserved, or whose guarantee they are kept for, and how many.
    pub(in crate::kernel) roles: BTreeMap<RolePath, usize>,
    /// Those that lack the least, the nearest first; by how much, in millionths of what is wanted.
    pub(in crate::kernel) closest: Vec<(u64, AgentIx)>,
}

/// The answer: every agent that is not gone, once.
#[derive(Debug, Clone, Default)]
pub(in crate::kernel) struct Scan<'a> {
    pub(in crate::kernel) agents: usize,
    pub(in crate::kernel) fits: usize,
    /// An agent on which it fits.
    pub(in crate::kernel) fitting: Option<AgentIx>,
    /// In the order in which the allocator asks.
    pub(in crate::kernel) stages: Vec<Counted<'a>>,
}

impl Scan<'_> {
    /// The agent that comes nearest, and its stage.
    pub(in crate::kernel) fn nearest(&self) -> Option<(AgentIx, &Counted<'_>)> {
        let all = self.stages.iter().filter_map(|stage| Some((stage, *stage.closest.first()?)));
        let nearest = all.min_by_key(|(stage, closest)| (stage.cause.distance(), *closest));
        nearest.map(|(stage, (_, agent))| (agent, stage))
    }
}

impl<'a> Scan<'a> {
    fn put(&mut self, agent: AgentIx, found: Found<'a>) {
        let Found { cause, missing, until, roles, lack } = found;
        let at =
            self.stages.iter().position(|stage| stage.cause.is_same(&cause)).unwrap_or(self.stages.len());
        if at == self.stages.len() {
            self.stages.push(Counted {
                cause,
                agents: 0,
                missing: None,
                until: None,
                roles: BTreeMap::new(),
                closest: Vec::new(),
            });
        }
        let Some(stage) = self.stages.get_mut(at) else { return };
        stage.agents += 1;
        stage.missing = [stage.missing, missing].into_iter().flatten().min();
        stage.until = [stage.until, until].into_iter().flatten().min();
        roles.into_iter().for_each(|role| *stage.roles.entry(role).or_default() += 1);
        stage.near(lack, agent);
    }
}

/// What excludes one agent.
struct Found<'a> {
    cause: Cause<'a>,
    /// How much it lacks of the cause's dimension.
    missing: Option<i128>,
    until: Option<Timestamp>,
    roles: Vec<RolePath>,
    /// How much it lacks of everything.
    lack: u64,
}

impl<'a> Found<'a> {
    fn of(cause: Cause<'a>) -> Self {
        Self { cause, missing: None, until: None, roles: Vec::new(), lack: 0 }
    }
}

impl Counted<'_> {
    fn near(&mut self, lack: u64, agent: AgentIx) {
        if self.closest.len() < CLOSEST || self.closest.last().is_some_and(|last| (lack, agent) < *last) {
            let at = self.closest.partition_point(|known| *known < (lack, agent));
            self.closest.insert(at, (lack, agent));
            self.closest.truncate(CLOSEST);
        }
    }
}

#[allow(clippy::indexing_slicing, reason = "an index is made by this allocator only")]
impl Allocator {
    /// All clients of a framework: one for each role that it was ever seen in.
    pub(in crate::kernel) fn clients_of(&self, framework: &FrameworkId) -> &[ClientIx] {
        self.clients_of.get(framework).map(Vec::as_slice).unwrap_or_default()
    }

    /// What a client wants and is not offered, in the order of its demand.
    pub(in crate::kernel) fn waiting(&self, client: ClientIx) -> Vec<Waiting> {
        match &self.clients[client.0].want {
            Want::Nothing => Vec::new(),
            Want::Anything => {
                vec![Waiting { client, shape: None, count: 1, since: None, gang: None, need: None }]
            }
            Want::Demand(wanted) => {
                let waits = wanted.shapes.iter().filter(|shape| shape.wanting() > 0);
                let waiting = waits.map(|shape| Waiting {
                    client,
                    shape: Some(Arc::clone(&shape.shape)),
                    count: shape.wanting(),
                    since: Some(shape.since),
                    gang: wanted.gang.clone(),
                    need: Some(Arc::clone(&shape.need)),
                });
                waiting.collect()
            }
        }
    }

    /// Asks every agent. `away` says why one is not offered to anybody.
    pub(in crate::kernel) fn scan<'a>(
        &self,
        now: Timestamp,
        waiting: &'a Waiting,
        away: impl Fn(&AgentId) -> Away,
    ) -> Scan<'a> {
        let (mut scan, mut clauses) = (Scan::default(), Clauses::default());
        let terms = self.terms(now, waiting.client, Stage::Fair);
        for (at, slot) in self.slots.iter().enumerate() {
            let agent = AgentIx(at);
            let found = match slot.is_active() {
                false => match away(&slot.id) {
                    Away::Gone => continue,
                    Away::Draining => Some(Found::of(Cause::Draining)),
                    Away::NotActive => Some(Found::of(Cause::NotActive)),
                },
                true => match clauses.failing(waiting, slot) {
                    Some(clause) => {
                        Some(Found { lack: self.lack(waiting, slot), ..Found::of(Cause::Clause(clause)) })
                    }
                    None => {
                        let obstacle = self.obstacle_beyond(&terms, waiting.need.as_deref(), agent).err();
                        obstacle.map(|obstacle| self.found(waiting, slot, obstacle))
                    }
                },
            };
            scan.agents += 1;
            match found {
                Some(found) => scan.put(agent, found),
                None => {
                    scan.fits += 1;
                    scan.fitting.get_or_insert(agent);
                }
            }
        }
        scan.stages.sort_by_key(|stage| stage.cause.rank());
        scan
    }

    fn found<'a>(&self, waiting: &Waiting, slot: &Slot, obstacle: Obstacle) -> Found<'a> {
        let role = &self.clients[waiting.client.0].role;
        match obstacle {
            // Whoever asks has seen to these two.
            Obstacle::Inactive | Obstacle::Constraint => Found::of(Cause::Draining),
            Obstacle::Short { dimension, missing, ever } => {
                let wants = waiting.need.as_ref().map(|need| &need.size);
                let is_there = || wants.is_some_and(|wants| lack_of(wants, &everything(slot)).is_zero());
                let (cause, roles) = match ever {
                    true if is_there() => (Cause::Reservation, others(slot, role)),
                    true => (Cause::TooSmall(dimension), Vec::new()),
                    false => (Cause::Held(dimension), Vec::new()),
                };
                Found { missing: Some(missing), roles, lack: self.lack(waiting, slot), ..Found::of(cause) }
            }
            Obstacle::Scraps => {
                let (cause, missing, roles) = scraps(slot, role);
                Found { missing: Some(missing), roles, ..Found::of(cause) }
            }
            Obstacle::Kept(client) => Found::of(Cause::Kept(client)),
            Obstacle::Limit { role, dimension } => Found::of(Cause::Limit(role, dimension)),
            Obstacle::Headroom(role) => Found { roles: vec![role], ..Found::of(Cause::Headroom) },
            Obstacle::Filtered(until) => Found { until: Some(until), ..Found::of(Cause::Filter) },
        }
    }

    /// How much is missing now, in millionths of what is wanted, over all dimensions.
    fn lack(&self, waiting: &Waiting, slot: &Slot) -> u64 {
        let Some(need) = &waiting.need else { return 0 };
        let has = free(slot, &self.clients[waiting.client.0].role);
        let parts = need.size.zip(&has, |wants, has| match wants > has {
            true => (wants - has).saturating_mul(1_000_000) / wants,
            false => 0,
        });
        let all = parts.iter().map(|(_, part)| part).fold(0, i128::saturating_add);
        u64::try_from(all).unwrap_or(u64::MAX)
    }

    /// What an agent lacks for a shape in what the client could have there, now or `ever`: dimension, wanted, there.
    pub(in crate::kernel) fn lacks(
        &self,
        client: ClientIx,
        shape: &DemandShape,
        agent: AgentIx,
        ever: bool,
    ) -> Vec<(String, i128, i128)> {
        let (wants, slot) = (ShapeNeed::of(shape).size, &self.slots[agent.0]);
        let from = if ever { &slot.total } else { &slot.available };
        let there = of_role(from, &self.clients[client.0].role);
        let lacks = lack_of(&wants, &there);
        lacks.iter().map(|(name, _)| (name.to_owned(), wants.get(name), there.get(name))).collect()
    }

    /// A role's siblings and itself, those that want something, in fair order.
    pub(in crate::kernel) fn fair_order(&self, role: &RolePath) -> Vec<RolePath> {
        self.tree.fair_order(role)
    }
}

/// What is free and unreserved, or reserved for the role or one above it.
fn free(slot: &Slot, role: &RolePath) -> Size {
    of_role(&slot.available, role)
}

fn of_role(charge: &Charge, role: &RolePath) -> Size {
    let mut size = Size::of(&charge.unreserved);
    let own = charge.reserved.iter().filter(|piece| piece.owner().is_some_and(|owner| owner.contains(role)));
    own.for_each(|piece| size.add_resources(&piece.resources));
    size
}

/// All that the agent has, whoever owns it, with the disk of volumes.
fn everything(slot: &Slot) -> Size {
    let mut all = Size::of(&slot.total.unreserved);
    slot.total.reserved.iter().for_each(|piece| all.add_resources(&piece.resources));
    let volumes: i64 = slot.volumes.iter().map(|(_, size)| size.bytes()).fold(0, i64::saturating_add);
    all.set("disk", all.get("disk") + i128::from(volumes));
    all
}

/// The owners of what is reserved for others, and of volumes.
fn others(slot: &Slot, role: &RolePath) -> Vec<RolePath> {
    let owners = slot.total.reserved.iter().filter_map(|piece| piece.owner());
    let owners = owners.filter(|owner| !owner.contains(role));
    let mut owners: Vec<RolePath> =
        owners.chain(slot.volumes.iter().map(|(owner, _)| owner)).cloned().collect();
    owners.sort();
    owners.dedup();
    owners
}

/// Why there is nothing worth an offer, and how much is missing of it.
fn scraps(slot: &Slot, role: &RolePath) -> (Cause<'static>, i128, Vec<RolePath>) {
    let total = of_role(&slot.total, role);
    let (dimension, least) = match total.get("cpus") > 0 || total.get("mem") == 0 {
        true => ("cpus", i128::from(super::LEAST_CPUS)),
        false => ("mem", i128::from(super::LEAST_MEM)),
    };
    let missing = least - free(slot, role).get(dimension);
    let is_worth = |size: &Size| {
        size.get("cpus") >= i128::from(super::LEAST_CPUS) || size.get("mem") >= i128::from(super::LEAST_MEM)
    };
    match (is_worth(&total), is_worth(&everything(slot))) {
        (true, _) => (Cause::Held(dimension.to_owned()), missing, Vec::new()),
        (false, true) => (Cause::Reservation, missing, others(slot, role)),
        (false, false) => (Cause::TooSmall(dimension.to_owned()), missing, Vec::new()),
    }
}

fn lack_of(wants: &Size, has: &Size) -> Size {
    wants.zip(has, |wants, has| (wants - has).max(0))
}
