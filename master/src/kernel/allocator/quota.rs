//! Promises and limits: what counts towards them, what is still owed, and what is left.

use divvy_proto::amounts::Amounts;
use divvy_proto::demand::DemandShape;
use divvy_proto::quota::Quota;
use divvy_proto::resources::{Resources, Shortage};
use divvy_proto::role::RolePath;

use super::owed::Promise;
use super::roles::Node;
use super::size::Size;
use super::wishes::WantedShape;
use super::{AgentIx, Allocator, ClientIx};

/// A role would use more than its limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kernel) struct OverLimit {
    /// Whose limit.
    pub(in crate::kernel) role: RolePath,
    /// What is wanted, and what is left of the limit.
    pub(in crate::kernel) shortage: Shortage,
}

/// A demand that waits although its role's guarantee is not met: for whom work of others may have to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kernel) struct Starving {
    pub(in crate::kernel) client: ClientIx,
    /// What it waits for; its count is how many are wanted and not on offer.
    pub(in crate::kernel) shape: DemandShape,
    /// Whose guarantee is not met: the client's role, or one above it.
    pub(in crate::kernel) role: RolePath,
}

/// The first dimension in which `more` beyond what is consumed exceeds a limit.
fn excess(node: &Node, more: &Size) -> Option<Shortage> {
    let left = node.promise.as_ref()?.limit.less(&node.consumed());
    let (name, left) = left.iter().find(|(name, left)| more.get(name) > i128::from(*left))?;
    Some(Shortage {
        dimension: name.to_owned(),
        wanted: show(name, more.get(name)),
        available: show(name, i128::from(left)),
    })
}

fn show(name: &str, amount: i128) -> String {
    Amounts::show(name, i64::try_from(amount).unwrap_or(i64::MAX))
}

#[allow(clippy::indexing_slicing, reason = "an index is made by this allocator only")]
impl Allocator {
    /// What a role and all below it are promised, and what they may not exceed.
    pub(in crate::kernel) fn set_quota(&mut self, role: &RolePath, quota: Option<Quota>) {
        let below = self.tree.clients_below(role).into_iter().map(|client| &self.clients[client.0]);
        let shapes = below.flat_map(|client| client.want.shapes()).filter(|shape| shape.count > 0);
        let shapes: Vec<Size> = shapes.map(|shape| shape.need.size.clone()).collect();
        self.tree.set_promise(role, quota.map(Promise::new), &shapes);
    }

    /// A role's quota, if it has one.
    pub(in crate::kernel) fn quota(&self, role: &RolePath) -> Option<&Quota> {
        self.tree.promise_of(role).map(|promise| &promise.quota)
    }

    /// Whether a role may use this much unreserved besides what is used already, or have it reserved.
    ///
    /// # Errors
    /// Which limit it would exceed.
    pub(in crate::kernel) fn check_role_limit(
        &self,
        role: &RolePath,
        more: &Resources,
    ) -> Result<(), OverLimit> {
        self.check_role_size(role, None, &Size::of(more))
    }

    /// The same for an amount over any number of agents. Where it is part of what is reserved for `refined` already, a role
    /// above, only the limits below that one are asked.
    ///
    /// # Errors
    /// Which limit it would exceed.
    pub(in crate::kernel) fn check_role_size(
        &self,
        role: &RolePath,
        refined: Option<&RolePath>,
        more: &Size,
    ) -> Result<(), OverLimit> {
        let is_asked = |above: &RolePath| refined.is_none_or(|refined| !above.contains(refined));
        for above in role.lineage().into_iter().filter(is_asked) {
            let shortage = self.tree.node_of(&above).and_then(|node| excess(node, more));
            if let Some(shortage) = shortage {
                return Err(OverLimit { role: above, shortage });
            }
        }
        Ok(())
    }

    /// What counts towards a role's quota: what its tasks use of the unreserved, and all that is reserved for it or below.
    pub(in crate::kernel) fn consumed(&self, role: &RolePath) -> Amounts {
        self.consumed_by(role).to_amounts()
    }

    fn consumed_by(&self, role: &RolePath) -> Size {
        self.tree.node_of(role).map(Node::consumed).unwrap_or_default()
    }

    /// What is reserved for a role or below it, held or not, volumes included, on all agents that count.
    pub(in crate::kernel) fn reserved_for(&self, role: &RolePath) -> Amounts {
        self.tree.node_of(role).map(|node| node.reserved.to_amounts()).unwrap_or_default()
    }

    /// What a role's guarantee still lacks, also of what is on offer. Only dimensions of which something is lacking are named.
    pub(in crate::kernel) fn unmet(&self, role: &RolePath) -> Amounts {
        self.tree.node_of(role).map(|node| node.unmet().to_amounts()).unwrap_or_default()
    }

    /// What a role uses beyond its guarantee; all of it, where there is none.
    pub(in crate::kernel) fn surplus(&self, role: &RolePath) -> Amounts {
        let promised = self.tree.promise_of(role).map(|p| Size::of_amounts(&p.quota.guarantee));
        let consumed = self.consumed_by(role);
        consumed.zip(&promised.unwrap_or_default(), |used, promised| (used - promised).max(0)).to_amounts()
    }

    /// Whether any guarantee is not met. As long as none is, nobody starves.
    pub(in crate::kernel) fn owes_anything(&self) -> bool {
        self.tree.required().is_some()
    }

    /// In fair order, the demands that fit what their role's guarantee lacks and found no agent in the last turn.
    pub(in crate::kernel) fn starving(&self) -> Vec<Starving> {
        let [wanted, _] = &self.least_wanted;
        if self.tree.promises == 0 || wanted.is_empty() {
            return Vec::new();
        }
        let hungry = self.tree.hungry();
        hungry.into_iter().flat_map(|client| self.starving_of(client)).collect()
    }

    fn starving_of(&self, client: ClientIx) -> Vec<Starving> {
        let this = &self.clients[client.0];
        let is_waiting = |wanted: &&WantedShape| wanted.wanting() > 0;
        let starving = |wanted: &WantedShape| {
            let shape = DemandShape { count: wanted.wanting(), ..(*wanted.shape).clone() };
            let owed = self.tree.path(this.node).find(|(_, node)| {
                let bounds = node.unmet_bounds();
                bounds.is_some_and(|bounds| {
                    bounds.has_use_for(&shape.resources)
                        && bounds.holds_with_ports(&wanted.need.scalars, wanted.need.ports)
                })
            });
            Some(Starving { client, role: self.tree.name_of(owed?.0)?, shape })
        };
        match this.want.demand() {
            Some(wanted) if wanted.gang.is_none() => {
                wanted.shapes.iter().filter(is_waiting).filter_map(starving).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether a shape would fit on an agent for a client if `extra` were free there besides. Only resources are asked about.
    pub(in crate::kernel) fn fits_with(
        &self,
        client: ClientIx,
        shape: &DemandShape,
        agent: AgentIx,
        extra: &Resources,
    ) -> bool {
        let (available, role) = (&self.slots[agent.0].available, &self.clients[client.0].role);
        let own = available.reserved.iter().filter(|piece| piece.owner().is_some_and(|o| o.contains(role)));
        let (mut free, wanted) = (Size::of(&available.unreserved), Size::of_amounts(&shape.amounts()));
        own.map(|piece| &piece.resources).chain([extra]).for_each(|more| free.add_resources(more));
        wanted.iter().all(|(name, amount)| free.get(name) >= amount)
    }

    /// Whether work of a role may be ended for others: no role on its path says no.
    pub(in crate::kernel) fn is_preemptible(&self, role: &RolePath) -> bool {
        let quotas = role.lineage();
        quotas.iter().filter_map(|role| self.quota(role)).all(|quota| quota.preemptible)
    }
}
