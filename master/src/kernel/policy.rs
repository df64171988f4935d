//! Policy: what roles are promised, what they may not exceed, and how much they weigh. An operator sets it; it is made durable,
//! then applied, then answered.
//!
//! Not here: what follows from it, which is the allocator's; whether promises go together, which is `tree`'s.

use std::collections::{BTreeMap, BTreeSet};

use divvy_proto::amounts::{Amounts, PORTS};
use divvy_proto::api::{self, AgentState};
use divvy_proto::ids::OfferId;
use divvy_proto::quota::{Quota, Weight};
use divvy_proto::reservation::{Reserved, Volume};
use divvy_proto::resources::Resources;
use divvy_proto::role::RolePath;

use super::registry::Awaited;
use super::{Effect, Effects, Kernel, RegistryChange, RequestId};

mod tree;

use tree::Quotas;

/// What operators have said. What stands on the command line is in the configuration, and counts where nothing is said here.
#[derive(Debug, Clone, Default)]
pub(super) struct Policy {
    quotas: Quotas,
    weights: BTreeMap<RolePath, Weight>,
    /// The quotas as they will be once all that is on its way to the store is durable: what the next one has to go with.
    asked: Quotas,
}

/// Why a quota is not set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Inconsistent(#[from] tree::Inconsistent),
    #[error(
        "{role} has {consumed} in use or reserved, more than the limit of {limit} that is asked for: force it to stop new \
         launches until enough has ended (nothing is killed)"
    )]
    BelowUse { role: RolePath, consumed: String, limit: String },
}

impl Kernel {
    /// Quotas in force, by role.
    #[must_use]
    pub fn quotas(&self) -> Vec<api::RoleQuota> {
        let show = |(role, quota): (&RolePath, &Quota)| self.show_quota(role, quota);
        self.policy.quotas.iter().map(show).collect()
    }

    /// A role's own quota.
    #[must_use]
    pub fn quota(&self, role: &RolePath) -> Option<api::RoleQuota> {
        self.policy.quotas.get(role).map(|quota| self.show_quota(role, quota))
    }

    fn show_quota(&self, role: &RolePath, quota: &Quota) -> api::RoleQuota {
        api::RoleQuota { role: role.clone(), quota: quota.clone(), consumed: self.allocator.consumed(role) }
    }

    /// Weights that somebody has set, by role: an operator, or else the command line.
    #[must_use]
    pub fn weights(&self) -> Vec<api::RoleWeight> {
        let roles: BTreeSet<&RolePath> =
            self.config.weights.keys().chain(self.policy.weights.keys()).collect();
        let show = |role: &RolePath| api::RoleWeight { role: role.clone(), weight: self.weight(role) };
        roles.into_iter().map(show).collect()
    }

    /// How much a role weighs among its siblings.
    #[must_use]
    pub fn weight(&self, role: &RolePath) -> Weight {
        let configured = || self.config.weights.get(role).and_then(|w| Weight::from_thousandths(*w).ok());
        self.policy.weights.get(role).copied().or_else(configured).unwrap_or_default()
    }

    /// All roles that are subscribed, have a policy of their own, or hold something, with those above them.
    #[must_use]
    pub fn roles(&self) -> Vec<api::Role> {
        let subscribed = self.subscriptions();
        let mut paths: BTreeSet<RolePath> = self.config.weights.keys().cloned().collect();
        let policy = self.policy.weights.keys().chain(self.policy.quotas.keys());
        paths.extend(policy.flat_map(RolePath::lineage));
        paths.extend(subscribed.keys().flat_map(|role| role.lineage()));
        paths.extend(self.allocator.roles_that_hold().flat_map(RolePath::lineage));
        paths.extend(self.owners().into_iter().flat_map(RolePath::lineage));
        paths
            .iter()
            .map(|path| self.show_role(path, subscribed.get(path).copied().unwrap_or_default()))
            .collect()
    }

    /// The roles that something is reserved for.
    fn owners(&self) -> BTreeSet<&RolePath> {
        let mut owners = BTreeSet::new();
        for agent in self.agents.values() {
            let holdings = &agent.owned.holdings;
            let fixed = self.allocator.slot(agent.slot).total.reserved.iter();
            owners.extend(holdings.reserved.iter().chain(fixed).filter_map(Reserved::owner));
            owners.extend(holdings.volumes.values().filter_map(Volume::owner));
        }
        owners
    }

    /// One role, whether or not anybody has to do with it.
    #[must_use]
    pub fn role(&self, path: &RolePath) -> api::Role {
        self.show_role(path, self.subscriptions().get(path).copied().unwrap_or_default())
    }

    /// How many frameworks are subscribed to each role.
    fn subscriptions(&self) -> BTreeMap<&RolePath, usize> {
        let present = self.frameworks.values().filter(|framework| !framework.retired);
        let mut subscribed = BTreeMap::new();
        present.flat_map(|f| &f.info.roles).for_each(|role| *subscribed.entry(role).or_default() += 1);
        subscribed
    }

    fn show_role(&self, path: &RolePath, frameworks: usize) -> api::Role {
        let held = self.allocator.held_by_role(path);
        api::Role {
            path: path.clone(),
            weight: self.weight(path).thousandths(),
            dominant_share: self.allocator.share(&held).as_f64(),
            frameworks,
            resources: held.to_resources(),
            quota: self.policy.quotas.get(path).cloned(),
            consumed: self.allocator.consumed(path),
            reserved: without_ports(&self.allocator.reserved_for(path)),
            unmet: self.allocator.unmet(path),
        }
    }

    pub(super) fn recover_quota(&mut self, role: RolePath, quota: Option<Quota>) {
        self.set_quota(&role, quota.clone());
        put(&mut self.policy.asked, role, quota);
    }

    pub(super) fn recover_weight(&mut self, role: RolePath, weight: Option<Weight>) {
        self.set_weight(role, weight);
    }

    /// An operator wants a role's quota to be this.
    ///
    /// # Errors
    /// It does not go with the quotas of other roles; or, unless forced, with what the cluster has or the role uses.
    pub(super) fn ask_quota(
        &mut self,
        role: RolePath,
        quota: Option<Quota>,
        force: bool,
        request: RequestId,
        out: &mut Effects,
    ) -> Result<(), String> {
        let mut with = self.policy.asked.clone();
        put(&mut with, role.clone(), quota.clone());
        self.check_quota(&with, &role, force).map_err(|refused| refused.to_string())?;
        self.policy.asked = with;
        let change = RegistryChange::PutQuota { role, quota };
        self.persist(change.clone(), Some(Awaited::Policy(Box::new(change), request)), out);
        Ok(())
    }

    fn check_quota(&self, with: &Quotas, role: &RolePath, force: bool) -> Result<(), Refused> {
        tree::check(with, role)?;
        if force {
            return Ok(());
        }
        tree::check_cluster(with, &self.policy.asked, &self.declared())?;
        let consumed = self.allocator.consumed(role);
        let limits = with.get(role).into_iter().flat_map(|quota| quota.limit.iter());
        for (dimension, limit) in limits {
            let used = consumed.get(dimension).unwrap_or_default();
            let was = self.policy.asked.get(role).and_then(|quota| quota.limit.get(dimension));
            if used > limit && was.is_none_or(|was| limit < was) {
                let show = |amount| Amounts::show(dimension, amount);
                let consumed = format!("{dimension}={}", show(used));
                return Err(Refused::BelowUse { role: role.clone(), consumed, limit: show(limit) });
            }
        }
        Ok(())
    }

    /// What all agents that are there or may come back by themselves have together.
    fn declared(&self) -> Amounts {
        let is_there = |standing| !matches!(standing, AgentState::Unreachable | AgentState::Gone);
        let there = self.agents.values().filter(|agent| is_there(agent.standing));
        let mut sums: BTreeMap<String, i64> = BTreeMap::new();
        for agent in there {
            for (dimension, amount) in Amounts::from(&agent.info.resources).iter() {
                let sum = sums.entry(dimension.to_owned()).or_default();
                *sum = sum.saturating_add(amount);
            }
        }
        let add =
            |all: Amounts, (dimension, sum): (String, i64)| all.clone().with(&dimension, sum).unwrap_or(all);
        sums.into_iter().fold(Amounts::new(), add)
    }

    /// An operator wants a role to weigh this.
    pub(super) fn ask_weight(
        &mut self,
        role: RolePath,
        weight: Option<Weight>,
        request: RequestId,
        out: &mut Effects,
    ) {
        let change = RegistryChange::PutWeight { role, weight };
        self.persist(change.clone(), Some(Awaited::Policy(Box::new(change), request)), out);
    }

    /// The store has it.
    pub(super) fn policy_stands(&mut self, change: RegistryChange, request: RequestId, out: &mut Effects) {
        match change {
            RegistryChange::PutQuota { role, quota } => {
                self.set_quota(&role, quota);
                self.rescind_for(&role, out);
            }
            RegistryChange::PutWeight { role, weight } => self.set_weight(role, weight),
            _ => {}
        }
        out.push(Effect::Answer { request, result: Ok(()) });
    }

    fn set_quota(&mut self, role: &RolePath, quota: Option<Quota>) {
        self.allocator.set_quota(role, quota.clone());
        put(&mut self.policy.quotas, role.clone(), quota);
        self.changes.role(role);
    }

    fn set_weight(&mut self, role: RolePath, weight: Option<Weight>) {
        put(&mut self.policy.weights, role.clone(), weight);
        self.allocator.set_weight(&role, self.weight(&role));
        self.changes.role(&role);
    }

    /// Takes back what would stand in the way of a quota that is new, the latest offers first (Mesos does so at UPDATE_QUOTA):
    /// offers of the role that are more than its limit leaves, and as many of others as its guarantee lacks.
    fn rescind_for(&mut self, role: &RolePath, out: &mut Effects) {
        for id in self.offers_beyond_limit(role) {
            self.rescind_offer(id, out);
        }
        for id in self.offers_for_guarantee(role) {
            self.rescind_offer(id, out);
        }
    }

    fn offers_beyond_limit(&self, role: &RolePath) -> Vec<OfferId> {
        let Some(quota) = self.policy.quotas.get(role) else { return Vec::new() };
        let consumed = self.allocator.consumed(role);
        let left = |(dimension, limit): (&str, i64)| limit - consumed.get(dimension).unwrap_or_default();
        let left: Vec<(&str, i64)> = quota.limit.iter().map(|named| (named.0, left(named).max(0))).collect();
        let mut beyond = Vec::new();
        for (id, offer) in self.offers.iter().filter(|(_, offer)| role.contains(&offer.role)) {
            let amounts = Amounts::from(&offer.grant.charge.unreserved);
            if left.iter().any(|(dimension, left)| amounts.get(dimension).unwrap_or_default() > *left) {
                beyond.push(*id);
            }
        }
        beyond
    }

    fn offers_for_guarantee(&self, role: &RolePath) -> Vec<OfferId> {
        let free = Amounts::from(&self.cluster_use().available);
        let lacks = |(dimension, unmet): (&str, i64)| {
            let missing = unmet - free.get(dimension).unwrap_or_default();
            (missing > 0).then(|| (dimension.to_owned(), missing))
        };
        let mut lacking: BTreeMap<String, i64> =
            self.allocator.unmet(role).iter().filter_map(lacks).collect();
        let mut taken = Vec::new();
        for (id, offer) in self.offers.iter().rev() {
            if lacking.is_empty() {
                break;
            }
            if role.contains(&offer.role) || self.is_guaranteed(&offer.role) {
                continue;
            }
            let amounts = Amounts::from(&offer.grant.charge.unreserved);
            if lacking.keys().all(|dimension| amounts.get(dimension).is_none()) {
                continue;
            }
            taken.push(*id);
            lacking.retain(|dimension, missing| {
                *missing -= amounts.get(dimension).unwrap_or_default();
                *missing > 0
            });
        }
        taken
    }

    /// Whether an offer to this role may be what the role, or one above it, is promised.
    fn is_guaranteed(&self, role: &RolePath) -> bool {
        role.lineage().iter().any(|above| {
            let Some(quota) = self.policy.quotas.get(above) else { return false };
            let consumed = self.allocator.consumed(above);
            quota.guarantee.iter().any(|(name, promised)| consumed.get(name).unwrap_or_default() < promised)
        })
    }
}

/// Ports mean nothing beyond their agent.
fn without_ports(amounts: &Amounts) -> Resources {
    let scalars = amounts.iter().filter(|(dimension, _)| *dimension != PORTS);
    scalars.fold(Resources::new(), |all, (dimension, amount)| {
        all.clone().with_scalar(dimension, amount).unwrap_or(all)
    })
}

fn put<V>(all: &mut BTreeMap<RolePath, V>, role: RolePath, value: Option<V>) {
    match value {
        Some(value) => drop(all.insert(role, value)),
        None => drop(all.remove(&role)),
    }
}
