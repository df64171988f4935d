//! What roles use and what is surely free, worked out from the ledger and from what the kernel shows, without asking its
//! allocator.

use divvy_master::kernel::Kernel;
use divvy_proto::amounts::{Amounts, PORTS};
use divvy_proto::api::{Agent, AgentState, DemandView, Offer};
use divvy_proto::demand::DemandShape;
use divvy_proto::ids::AgentId;
use divvy_proto::predicate::AgentFacts;
use divvy_proto::quota::Quota;
use divvy_proto::resources::Resources;
use divvy_proto::role::RolePath;

use crate::ledger::{Launched, Ledger, Sums, add};
use crate::orders::Orders;

/// The cluster at one moment.
pub struct Census<'a> {
    orders: &'a Orders,
    pub agents: Vec<Agent>,
    pub demands: Vec<DemandView>,
    offers: Vec<Offer>,
    /// Tasks that have not ended, by the ledger, and their agents.
    live: Vec<(&'a Launched, AgentId)>,
}

impl<'a> Census<'a> {
    pub fn of(kernel: &Kernel, ledger: &'a Ledger, orders: &'a Orders) -> Self {
        let live = kernel.tasks().into_iter().filter(|task| !task.state.is_terminal());
        let known = live.filter_map(|task| {
            let key = (task.framework_id, task.id);
            let launched = ledger.tasks.get(&key).filter(|_| !ledger.vanished.contains(&key))?;
            Some((launched, task.agent_id))
        });
        Self {
            orders,
            agents: kernel.agents(),
            demands: kernel.demands(),
            offers: kernel.offers(),
            live: known.collect(),
        }
    }

    fn active(&self) -> impl Iterator<Item = &Agent> {
        self.agents.iter().filter(|agent| agent.state == AgentState::Active)
    }

    /// What a role and all below it use of what is unreserved, with what is reserved for them, on agents that are there.
    pub fn consumed(&self, role: &RolePath) -> Sums {
        let mut sums = Sums::new();
        for (entry, agent) in self.live.iter().filter(|(entry, _)| role.contains(entry.role())) {
            if self.active().any(|active| active.id == *agent) {
                add(&mut sums, &entry.unreserved());
            }
        }
        let mine = |owner: Option<&RolePath>| owner.is_some_and(|owner| role.contains(owner));
        for agent in self.active() {
            let reserved = agent.reserved.iter().filter(|piece| mine(piece.owner()));
            reserved.for_each(|piece| add(&mut sums, &piece.resources));
            let volumes = agent.volumes.iter().map(|view| &view.volume).filter(|volume| mine(volume.owner()));
            volumes.for_each(|volume| add(&mut sums, &Resources::new().with_disk(volume.size)));
        }
        sums
    }

    /// Whether a role may use so much more, for all that its limits say. No, if they are not known.
    pub fn is_within_limits(&self, role: &RolePath, more: &Sums) -> bool {
        let known = role.lineage().iter().all(|above| !self.orders.is_open(above));
        known
            && self.orders.quotas_over(role).all(|(above, quota)| {
                let consumed = self.consumed(above);
                quota.limit.iter().all(|(name, limit)| amount(&consumed, name) + amount(more, name) <= limit)
            })
    }

    /// Roles that lack something of their guarantee, and what, with what they are offered counted as theirs; nothing if not all
    /// quotas are known.
    pub fn roles_below_guarantee(&self) -> Option<Vec<(&'a RolePath, Sums)>> {
        if self.orders.is_any_open() {
            return None;
        }
        let all = self.orders.quotas.iter().map(|(role, quota)| (role, self.unmet(role, quota)));
        Some(all.filter(|(_, unmet)| !unmet.is_empty()).collect())
    }

    fn unmet(&self, role: &RolePath, quota: &Quota) -> Sums {
        let mut has = self.consumed(role);
        for offer in self.offers.iter().filter(|offer| role.contains(&offer.role)) {
            add(&mut has, &offer.resources);
        }
        let lacks = |(name, promised): (&str, i64)| {
            let missing = promised - amount(&has, name);
            (missing > 0).then(|| (name.to_owned(), missing))
        };
        quota.guarantee.iter().filter_map(lacks).collect()
    }

    /// Agents that may be offered to whoever wants this shape.
    pub fn agents_for(&self, shape: &DemandShape) -> impl Iterator<Item = &Agent> {
        let is_right = |agent: &&Agent| {
            let facts =
                AgentFacts { id: &agent.id, hostname: &agent.hostname, attributes: &agent.attributes };
            shape.constraint.as_ref().is_none_or(|constraint| constraint.holds(&facts))
        };
        self.active().filter(|agent| !agent.deactivated && agent.drain.is_none()).filter(is_right)
    }

    /// What is free for a role, and what is kept while nobody has been offered it.
    pub fn free_or_kept(&self, agent: &Agent, role: &RolePath) -> Resources {
        let mine = self.offers.iter().filter(|offer| offer.agent_id == agent.id);
        let kept =
            mine.fold(agent.resources.offered.clone(), |rest, offer| rest.saturating_sub(&offer.resources));
        let free = free_for(agent, role);
        free.checked_add(&kept).unwrap_or(free)
    }

    /// What of an agent is not reserved, and not used by tasks that may go on even if this role lacks what it was promised.
    pub fn free_if_preempted(&self, agent: &Agent, role: &RolePath) -> Resources {
        let reserved = agent.reserved.iter();
        let all =
            reserved.fold(agent.resources.total.clone(), |rest, piece| rest.saturating_sub(&piece.resources));
        let here = self.live.iter().filter(|(_, on)| *on == agent.id).map(|(entry, _)| entry);
        let stays =
            |entry: &&&Launched| role.contains(entry.role()) || !self.has_nothing_promised(entry.role());
        here.filter(stays).fold(all, |rest, entry| rest.saturating_sub(&entry.unreserved()))
    }

    fn has_nothing_promised(&self, role: &RolePath) -> bool {
        let above = role.lineage();
        let mut quotas = self.orders.quotas.iter().filter(|(path, _)| above.contains(path));
        quotas.all(|(_, quota)| quota.preemptible && quota.guarantee.is_empty())
    }
}

pub fn amount(sums: &Sums, name: &str) -> i64 {
    sums.get(name).copied().unwrap_or_default()
}

/// What of an agent's free resources is not reserved for others, at the least.
pub fn free_for(agent: &Agent, role: &RolePath) -> Resources {
    let above = role.lineage();
    let others =
        agent.reserved.iter().filter(|piece| !piece.owner().is_some_and(|owner| above.contains(owner)));
    others.fold(agent.resources.available.clone(), |rest, piece| rest.saturating_sub(&piece.resources))
}

pub fn sums_of(shape: &DemandShape, count: u32) -> Sums {
    shape.amounts().iter().map(|(name, amount)| (name.to_owned(), amount * i64::from(count))).collect()
}

/// How often it fits.
pub fn times(shape: &DemandShape, free: &Resources) -> u32 {
    let free = Amounts::from(free);
    let each = shape.amounts();
    let fit = each.iter().map(|(name, amount)| free.get(name).unwrap_or_default() / amount.max(1));
    debug_assert!(shape.resources.ports().is_empty(), "no shape here names {PORTS}");
    u32::try_from(fit.min().unwrap_or_default()).unwrap_or(u32::MAX)
}
