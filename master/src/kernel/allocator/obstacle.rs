//! Whether one unit can be given to a client on an agent, and if not, why: the one place that says so.

use divvy_proto::demand::DemandShape;
use divvy_proto::role::RolePath;
use divvy_proto::time::Timestamp;

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
        _shape: Option<&DemandShape>,
        agent: AgentIx,
    ) -> Result<Charge, Obstacle> {
        let slot = &self.slots[agent.0];
        if !slot.active {
            return Err(Obstacle::Inactive);
        }
        let total = slot.available.total();
        if !super::is_worth_an_offer(&total) {
            return Err(Obstacle::Scraps);
        }
        match self.filters.block(client, agent, &total, now) {
            true => Err(Obstacle::Filtered(now)),
            false => Ok(slot.available.clone()),
        }
    }
}
