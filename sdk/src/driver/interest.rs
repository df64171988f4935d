//! What is wanted, and what the master has been told: classic offers or none, or a demand for each role.

use std::collections::BTreeMap;
use std::time::Duration;

use divvy_proto::demand::Demand;
use divvy_proto::role::RolePath;
use divvy_proto::scheduler::CallBody;
use divvy_proto::time::Timestamp;
use tracing::error;

use super::Config;
use crate::Actions;

/// What the scheduler wants and what the master believes.
#[derive(Debug)]
pub(super) struct Interest {
    wanted: bool,
    told: bool,
    roles: Vec<RolePath>,
    /// What is wanted by role, once that was said; `wanted` then means nothing.
    demand: Option<BTreeMap<RolePath, Demand>>,
    /// What the master believes is wanted. A role that is not in it has to be told.
    believed: BTreeMap<RolePath, Demand>,
    /// The scheduler wants filters dropped, and it is not yet time.
    revive_at: Option<Timestamp>,
    last_revive: Option<Timestamp>,
    floor: Duration,
}

impl Interest {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            wanted: true,
            told: true,
            roles: config.framework.roles.clone(),
            demand: None,
            believed: BTreeMap::new(),
            revive_at: None,
            last_revive: None,
            floor: config.revive_floor,
        }
    }

    /// A subscription says it all: in which roles nothing is wanted for now; and it has no filters. Demands follow it.
    pub(super) fn subscribe(&mut self) -> Vec<RolePath> {
        let quiet = self.demand.is_some() || !self.wanted;
        (self.told, self.revive_at) = (!quiet, None);
        self.believed.clear();
        if !quiet {
            return Vec::new();
        }
        self.believed = self.roles.iter().map(|role| (role.clone(), Demand::default())).collect();
        self.roles.clone()
    }

    /// What to tell the master after these actions.
    pub(super) fn change(&mut self, now: Timestamp, actions: &Actions, subscribed: bool) -> Vec<CallBody> {
        self.wanted = actions.needs_offers.unwrap_or(self.wanted);
        if let Some(demand) = &actions.demand {
            self.state(demand);
        }
        if !subscribed {
            return Vec::new();
        }
        if self.demand.is_some() {
            if actions.revive && self.revive_at.is_none() {
                self.revive_at = Some(self.not_before(now));
                self.forget_if_due(now);
            }
            return self.demands();
        }
        match (self.told, self.wanted) {
            (true, false) => {
                (self.told, self.revive_at) = (false, None);
                vec![CallBody::Suppress { roles: Vec::new() }]
            }
            (false, true) => vec![self.revive(now)],
            (true, true) if actions.revive && self.revive_at.is_none() => {
                self.revive_at = Some(self.not_before(now));
                self.due(now)
            }
            _ => Vec::new(),
        }
    }

    /// So many tasks are launched on an offer that was made for this shape: the master counts them off.
    pub(super) fn launched(&mut self, role: &RolePath, shape: &str, count: u32) {
        let demand = self.believed.get_mut(role);
        let shape = demand.and_then(|demand| demand.shapes.iter_mut().find(|known| known.name == shape));
        if let Some(shape) = shape {
            shape.count = shape.count.saturating_sub(count);
        }
    }

    /// The master may believe something else: a launch that was to be counted off was refused. It is told again.
    pub(super) fn doubt(&mut self) {
        self.believed.clear();
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        self.revive_at
    }

    /// A revive whose time has come.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<CallBody> {
        match (self.revive_at.is_some_and(|time| time <= now), &self.demand) {
            (false, _) => Vec::new(),
            (true, None) => vec![self.revive(now)],
            (true, Some(_)) => {
                self.forget_if_due(now);
                self.demands()
            }
        }
    }

    fn not_before(&self, now: Timestamp) -> Timestamp {
        self.last_revive.map_or(now, |last| now.max(last + self.floor))
    }

    fn revive(&mut self, now: Timestamp) -> CallBody {
        (self.told, self.revive_at, self.last_revive) = (true, None, Some(now));
        CallBody::Revive { roles: Vec::new() }
    }

    /// A demand that is stated again has no filters.
    fn forget_if_due(&mut self, now: Timestamp) {
        if self.revive_at.is_some_and(|time| time <= now) {
            (self.revive_at, self.last_revive) = (None, Some(now));
            self.believed.retain(|_, demand| wants(demand) == Demand::default());
        }
    }

    fn state(&mut self, demand: &BTreeMap<RolePath, Demand>) {
        if let Some(role) = demand.keys().find(|role| !self.roles.contains(role)) {
            error!(%role, "a demand in a role that is not the framework's is left out");
        }
        self.demand = Some(demand.iter().map(|(role, demand)| (role.clone(), wants(demand))).collect());
    }

    /// What the master has not been told.
    fn demands(&mut self) -> Vec<CallBody> {
        let Some(wanted) = &self.demand else { return Vec::new() };
        let mut calls = Vec::new();
        for role in &self.roles {
            let demand = wanted.get(role).cloned().unwrap_or_default();
            if self.believed.get(role).map(wants).as_ref() != Some(&demand) {
                self.believed.insert(role.clone(), demand.clone());
                calls.push(CallBody::Demand { role: role.clone(), demand });
            }
        }
        calls
    }
}

/// A demand without what counts nothing.
fn wants(demand: &Demand) -> Demand {
    let shapes: Vec<_> = demand.shapes.iter().filter(|shape| shape.count > 0).cloned().collect();
    let gang = demand.gang.clone().filter(|_| !shapes.is_empty());
    Demand { shapes, gang }
}
