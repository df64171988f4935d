//! What a client wants: nothing, anything, or so many of certain shapes.

use std::collections::BTreeMap;
use std::sync::Arc;

use divvy_proto::amounts::{Amounts, PORTS};
use divvy_proto::demand::{Demand, DemandShape, Gang, Preference};
use divvy_proto::ranges::RangeSet;
use divvy_proto::resources::Resources;
use divvy_proto::time::Timestamp;

use super::classes::{Verdicts, names_agents};
use super::index::Room;
use super::place::Search;
use super::size::Size;

/// What a framework wants in a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kernel) enum Wish {
    /// No offers.
    Nothing,
    /// Whatever there is: classic offers.
    Anything,
    /// So many of these shapes.
    Demand(Demand),
}

/// How a demand stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kernel) struct DemandState {
    /// What is wanted and not on offer. Shapes of which all is on offer have count 0.
    pub(in crate::kernel) demand: Demand,
    /// How many of each shape are on offer, by the shape's name.
    pub(in crate::kernel) offered: BTreeMap<String, u32>,
    /// Since when the oldest of it waits.
    pub(in crate::kernel) waiting_since: Option<Timestamp>,
}

/// A wish as the allocator keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Want {
    Nothing,
    Anything,
    Demand(Box<Wanted>),
}

/// A demand as the allocator keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) shapes: Vec<WantedShape>,
    pub(super) gang: Option<Gang>,
    /// A gang's place among those that wait to be gathered: when it was stated, or was last released.
    pub(super) queued: Timestamp,
    /// It is not gathered before.
    pub(super) not_before: Timestamp,
    /// It could not be complete with as many agents as there were then.
    pub(super) hopeless: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WantedShape {
    pub(super) shape: Arc<DemandShape>,
    pub(super) need: Arc<ShapeNeed>,
    /// How many beyond what was accepted, outstanding offers included.
    pub(super) count: u32,
    /// How many are on offer.
    pub(super) offered: u32,
    /// Since when it waits, and has not been offered any.
    pub(super) since: Timestamp,
    pub(super) verdicts: Verdicts,
    pub(super) search: Search,
}

/// What one of a shape needs, prepared for many questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShapeNeed {
    /// All but ports.
    pub(super) scalars: Resources,
    /// How many ports, whichever.
    pub(super) ports: usize,
    pub(super) size: Size,
    pub(super) room: Room,
    /// Its constraint asks the same of all agents with the same attributes.
    pub(super) by_class: bool,
    /// The machines that its constraint names, if it can hold on no others.
    pub(super) hosts: Option<Vec<String>>,
}

impl ShapeNeed {
    pub(super) fn of(shape: &DemandShape) -> Self {
        let amounts: Amounts = shape.amounts();
        let ports = amounts.get(PORTS).unwrap_or_default();
        let scalars = shape.resources.clone().with_ports(RangeSet::new());
        let hosts = shape.constraint.as_ref().and_then(|constraint| constraint.hostnames());
        Self {
            room: Room::from(&scalars).and_ports(ports),
            scalars,
            ports: usize::try_from(ports).unwrap_or(usize::MAX),
            size: Size::of_amounts(&amounts),
            by_class: !shape.constraint.as_ref().is_some_and(names_agents),
            hosts: hosts.map(|hosts| hosts.into_iter().map(str::to_owned).collect()),
        }
    }
}

impl WantedShape {
    /// How many are wanted and not on offer.
    pub(super) fn wanting(&self) -> u32 {
        self.count.saturating_sub(self.offered)
    }
}

impl Want {
    pub(super) fn new(now: Timestamp, wish: Wish, offered: &BTreeMap<String, u32>) -> Self {
        let demand = match wish {
            Wish::Nothing => return Self::Nothing,
            Wish::Anything => return Self::Anything,
            Wish::Demand(demand) => demand,
        };
        let wanted = |shape: DemandShape| WantedShape {
            count: shape.count,
            offered: offered.get(&shape.name).copied().unwrap_or_default(),
            since: now,
            need: Arc::new(ShapeNeed::of(&shape)),
            shape: Arc::new(shape),
            verdicts: Verdicts::default(),
            search: Search::default(),
        };
        let shapes = demand.shapes.into_iter().map(wanted).collect();
        Self::Demand(Box::new(Wanted {
            shapes,
            gang: demand.gang,
            queued: now,
            not_before: now,
            hopeless: None,
        }))
    }

    /// What is stated again has waited since it was first stated, and keeps its place in the queue of gangs.
    pub(super) fn goes_on_from(&mut self, before: &Self) {
        let (Self::Demand(wanted), Self::Demand(before)) = (self, before) else { return };
        let like = |shape: &WantedShape| {
            let mut same = before.shapes.iter().filter(|old| old.wanting() > 0);
            same.find(|old| DemandShape { count: shape.shape.count, ..(*old.shape).clone() } == *shape.shape)
        };
        let known: Vec<Option<Timestamp>> =
            wanted.shapes.iter().map(|shape| like(shape).map(|old| old.since)).collect();
        if wanted.gang.is_some() && wanted.gang == before.gang && known.iter().all(Option::is_some) {
            (wanted.queued, wanted.not_before) = (before.queued, before.not_before);
        }
        for (shape, since) in wanted.shapes.iter_mut().zip(known) {
            shape.since = since.unwrap_or(shape.since);
        }
    }

    /// Whether it takes something if that is offered.
    pub(super) fn is_wanting(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Anything => true,
            Self::Demand(wanted) => wanted.shapes.iter().any(|shape| shape.wanting() > 0),
        }
    }

    pub(super) fn demand(&self) -> Option<&Wanted> {
        match self {
            Self::Demand(wanted) => Some(wanted),
            _ => None,
        }
    }

    pub(super) fn demand_mut(&mut self) -> Option<&mut Wanted> {
        match self {
            Self::Demand(wanted) => Some(wanted),
            _ => None,
        }
    }

    /// The shapes, in the order of the demand.
    pub(super) fn shapes(&self) -> &[WantedShape] {
        self.demand().map(|wanted| wanted.shapes.as_slice()).unwrap_or_default()
    }

    pub(super) fn shape_mut(&mut self, name: &str) -> Option<&mut WantedShape> {
        self.demand_mut()?.shapes.iter_mut().find(|wanted| wanted.shape.name == name)
    }

    /// The attributes over which it spreads, each once.
    pub(super) fn spreads(&self) -> Vec<String> {
        let attribute = |wanted: &WantedShape| match &wanted.shape.preference {
            Preference::Spread(attribute) => Some(attribute.clone()),
            _ => None,
        };
        let mut all: Vec<String> = self.shapes().iter().filter_map(attribute).collect();
        all.sort();
        all.dedup();
        all
    }

    /// Since when the oldest of what is wanted waits.
    pub(super) fn waiting_since(&self) -> Option<Timestamp> {
        self.shapes().iter().filter(|shape| shape.wanting() > 0).map(|shape| shape.since).min()
    }

    pub(super) fn state(&self, offered: &BTreeMap<String, u32>) -> Option<DemandState> {
        let wanted = self.demand()?;
        let rest = |wanted: &WantedShape| DemandShape { count: wanted.wanting(), ..(*wanted.shape).clone() };
        Some(DemandState {
            waiting_since: self.waiting_since(),
            demand: Demand { shapes: wanted.shapes.iter().map(rest).collect(), gang: wanted.gang.clone() },
            offered: offered.clone(),
        })
    }
}
