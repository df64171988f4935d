//! What a client wants: nothing, anything, or so many of certain shapes.

use std::collections::BTreeMap;
use std::sync::Arc;

use divvy_proto::demand::{Demand, DemandShape, Gang};
use divvy_proto::time::Timestamp;

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
    /// When it was stated.
    pub(super) stated: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WantedShape {
    pub(super) shape: Arc<DemandShape>,
    /// How many beyond what was accepted, outstanding offers included.
    pub(super) count: u32,
    /// How many are on offer.
    pub(super) offered: u32,
    /// Since when it waits for more than is on offer.
    pub(super) since: Timestamp,
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
            shape: Arc::new(shape),
        };
        let shapes = demand.shapes.into_iter().map(wanted).collect();
        Self::Demand(Box::new(Wanted { shapes, gang: demand.gang, stated: now }))
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

    pub(super) fn shape_mut(&mut self, name: &str) -> Option<&mut WantedShape> {
        self.demand_mut()?.shapes.iter_mut().find(|wanted| wanted.shape.name == name)
    }

    pub(super) fn state(&self, offered: &BTreeMap<String, u32>) -> Option<DemandState> {
        let wanted = self.demand()?;
        let rest = |wanted: &WantedShape| DemandShape { count: wanted.wanting(), ..(*wanted.shape).clone() };
        let waiting = wanted.shapes.iter().filter(|shape| shape.wanting() > 0);
        Some(DemandState {
            waiting_since: waiting.map(|shape| shape.since).min(),
            demand: Demand { shapes: wanted.shapes.iter().map(rest).collect(), gang: wanted.gang.clone() },
            offered: offered.clone(),
        })
    }
}
