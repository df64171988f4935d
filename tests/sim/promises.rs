//! What is promised over time. While nothing fails, nobody waits longer than a bound for what is due: a guarantee that can be
//! met, a demand that fits somewhere, a gang for which there is room, an agent to be emptied, an inverse offer to be resolved.
//!
//! Where it is hard to say whether something is due, it is taken not to be: what is found here is surely wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use divvy_master::kernel::{Kernel, RegistryChange};
use divvy_proto::api::{AgentState, DemandView, Drain};
use divvy_proto::demand::DemandShape;
use divvy_proto::ids::{FrameworkId, VolumeId};
use divvy_proto::role::RolePath;
use divvy_proto::task::TaskState;
use divvy_proto::time::Timestamp;

use crate::ledger::Sums;
use crate::room::{Census, amount, free_for, sums_of, times};
use crate::world::{Happening, World};

/// From one look to the next.
const LOOK: Duration = Duration::from_secs(5);

/// After a deadline: the longest way from the kill to the news of the end.
const KILLED: Duration = Duration::from_secs(30);
/// Longer than any filter, offer, hold and round of the crowd.
const SERVED: Duration = Duration::from_secs(120);
/// The same, with a preemption before it.
const GUARANTEED: Duration = Duration::from_secs(90);
/// From the store to the agent's disk, or through one Accept.
const TOLD: Duration = Duration::from_secs(25);

/// Since when something is not as it should be, by what it is about.
#[derive(Debug, Default)]
pub struct Patience {
    since: BTreeMap<String, Timestamp>,
    /// How much those who wait had launched at the last look.
    launches: BTreeMap<String, u64>,
}

/// Something that should not last.
struct Wrong {
    about: String,
    what: String,
    at_most: Duration,
    /// Who waits, if it is somebody who may be served meanwhile, and whether something is on offer to it.
    who: Option<(FrameworkId, RolePath, bool)>,
}

impl Wrong {
    fn new(about: String, what: String, at_most: Duration) -> Self {
        Self { about, what, at_most, who: None }
    }

    fn waits(kind: &str, view: &DemandView, shape: &DemandShape, what: String, at_most: Duration) -> Self {
        let about = format!("{kind} {} {} {}", view.framework_id, view.role, shape.name);
        let is_offered = view.offered.get(&shape.name).is_some_and(|count| *count > 0);
        Self { about, what, at_most, who: Some((view.framework_id.clone(), view.role.clone(), is_offered)) }
    }
}

impl World {
    pub fn look(&mut self) -> Result<(), String> {
        self.at(self.now + LOOK, Happening::Look);
        let mut wrong = if self.is_quiet() { self.all_that_is_wrong() } else { Vec::new() };
        wrong.retain(|one| !self.is_being_served(one));
        let since = |one: &Wrong| self.patience.since.get(&one.about).copied().unwrap_or(self.now);
        self.patience.since = wrong.iter().map(|one| (one.about.clone(), since(one))).collect();
        match wrong.into_iter().find(|one| self.patience.since[&one.about] + one.at_most < self.now) {
            Some(Wrong { what, at_most, .. }) => Err(format!("for {} s now: {what}", at_most.as_secs())),
            None => Ok(()),
        }
    }

    fn all_that_is_wrong(&self) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        let Some(kernel) = &self.master.kernel else { return wrong };
        let census = Census::of(kernel, &self.ledger, &self.orders);
        self.overdue(kernel, &mut wrong);
        self.not_emptied(kernel, &mut wrong);
        self.wrong_volumes(&mut wrong);
        self.half_gangs(kernel, &mut wrong);
        self.stale_inverse_offers(kernel, &mut wrong);
        // An agent that came back smaller has not all that is reserved of it; how much is the kernel's to say.
        if kernel.status(self.master.shown(self.now)).warnings.is_empty() {
            wrong_charges(kernel, &census, &mut wrong);
        }
        match census.roles_below_guarantee().as_deref() {
            // With headroom to be kept it is hard to say what is free.
            Some([]) => {
                unserved(&census, &mut wrong);
                gangs_that_fit(&census, &mut wrong);
            }
            // Several may stand in each other's way.
            Some([(role, unmet)]) => unmet_guarantee(&census, role, unmet, &mut wrong),
            _ => {}
        }
        wrong
    }

    /// Whether who waits has launched something since the last look, or has something on offer.
    fn is_being_served(&mut self, wrong: &Wrong) -> bool {
        let Some((framework, role, is_offered)) = &wrong.who else { return false };
        let launches =
            self.ledger.launches.get(&(framework.clone(), role.clone())).copied().unwrap_or_default();
        let before = self.patience.launches.insert(wrong.about.clone(), launches);
        *is_offered || before != Some(launches)
    }

    /// Everybody is there and talks to each other, and stores answer.
    fn is_quiet(&self) -> bool {
        let Some(kernel) = &self.master.kernel else { return false };
        let soon = self.now + Duration::from_secs(1);
        let agents = self.agents.iter().all(|node| {
            let shown = node.id().and_then(|id| kernel.agent(id));
            node.written_until <= soon
                && node.wire.is_some()
                && shown.is_some_and(|shown| shown.state == AgentState::Active)
        });
        let mut frameworks = self.current.iter().map(|index| &self.frameworks[*index]);
        agents
            && self.master.stored_until <= soon
            && self.frameworks.iter().all(|node| !node.fenced || node.driver.is_none())
            && frameworks.all(|node| {
                let connected = node.driver.as_ref().is_some_and(|driver| driver.view().connected());
                node.stored_until <= soon && (connected || (node.dismissed && node.driver.is_none()))
            })
    }

    fn overdue(&self, kernel: &Kernel, wrong: &mut Vec<Wrong>) {
        let now = self.master.shown(self.now);
        for inverse in kernel.inverse_offers() {
            let offer = inverse.offer;
            // A machine that is lost for good keeps what was asked of it, until an operator says so.
            let answers =
                kernel.agent(&offer.agent_id).is_some_and(|shown| shown.state == AgentState::Active);
            if !answers {
                continue;
            }
            if offer.deadline.is_some_and(|deadline| deadline <= now) {
                let of = inverse.framework;
                let what = format!("inverse offer {} to {of} is overdue: {:?}", offer.id, offer.tasks);
                wrong.push(Wrong::new(format!("inverse {}", offer.id), what, KILLED));
            }
        }
    }

    fn not_emptied(&self, kernel: &Kernel, wrong: &mut Vec<Wrong>) {
        let now = self.master.shown(self.now);
        for (index, node) in self.agents.iter().enumerate() {
            let Some(shown) = node.id().and_then(|id| kernel.agent(id)) else { continue };
            let due = |drain: &Drain| drain.deadline.unwrap_or(drain.since) <= now;
            let runs = node.running().count();
            if shown.drain.as_ref().is_some_and(due) && (shown.tasks > 0 || runs > 0) {
                let known = shown.tasks;
                let what = format!("agent {index} is to be empty: {known} tasks are known, {runs} run");
                wrong.push(Wrong::new(format!("drain {index}"), what, KILLED));
            }
        }
    }

    fn wrong_volumes(&self, wrong: &mut Vec<Wrong>) {
        for (index, node) in self.agents.iter().enumerate() {
            let record = node.id().and_then(|id| self.master.reserved(id));
            let stored: BTreeSet<VolumeId> = match record {
                Some(RegistryChange::PutReservations { volumes, .. }) => {
                    volumes.iter().map(|volume| volume.id.clone()).collect()
                }
                _ => BTreeSet::new(),
            };
            if stored != node.volumes {
                let what = format!("agent {index} has the volumes {:?}; stored are {stored:?}", node.volumes);
                wrong.push(Wrong::new(format!("volumes {index}"), what, TOLD));
            }
        }
    }

    /// A framework believes that something is wanted back that is not.
    fn stale_inverse_offers(&self, kernel: &Kernel, wrong: &mut Vec<Wrong>) {
        let wanted: BTreeSet<_> =
            kernel.inverse_offers().into_iter().map(|inverse| inverse.offer.id).collect();
        for driver in self.current.iter().filter_map(|index| self.frameworks[*index].driver.as_ref()) {
            for stale in driver.view().inverse_offers().filter(|offer| !wanted.contains(&offer.id)) {
                let what = format!("inverse offer {} is gone, and its framework believes in it", stale.id);
                wrong.push(Wrong::new(format!("stale {}", stale.id), what, TOLD));
            }
        }
    }

    /// A task of a gang was lost before it ran: then the others end.
    fn half_gangs(&self, kernel: &Kernel, wrong: &mut Vec<Wrong>) {
        for gang in self.ledger.gangs.iter().filter(|gang| gang.master_life == self.master.life) {
            let state = |(framework, task): &(_, _)| kernel.task(framework, task).map(|task| task.state);
            let never_ran = |key: &&(_, divvy_sdk::TaskId)| {
                state(key) == Some(TaskState::Dropped) && !self.ledger.started.contains(key.1.as_str())
            };
            let lost = gang.tasks.iter().find(never_ran);
            let live = gang.tasks.iter().find(|key| state(key).is_some_and(|state| !state.is_terminal()));
            if let (Some((_, lost)), Some((_, live))) = (lost, live) {
                let what = format!("of a gang {lost} never ran, and {live} lives on");
                wrong.push(Wrong::new(format!("gang {lost}"), what, KILLED));
            }
        }
    }
}

/// What the kernel charges to roles is what agents were told, whichever master told them.
fn wrong_charges(kernel: &Kernel, census: &Census<'_>, wrong: &mut Vec<Wrong>) {
    for role in kernel.roles() {
        let truth = census.consumed(&role.path);
        let believed: Sums = role.consumed.iter().map(|(name, amount)| (name.to_owned(), amount)).collect();
        let mut names = truth.keys().chain(believed.keys());
        if names.any(|name| amount(&truth, name) != amount(&believed, name)) {
            let what = format!("role {} is charged with {believed:?}, and uses {truth:?}", role.path);
            wrong.push(Wrong::new(format!("charge {}", role.path), what, TOLD));
        }
    }
}

/// What waits although it fits somewhere.
fn unserved(census: &Census<'_>, wrong: &mut Vec<Wrong>) {
    for view in census.demands.iter().filter(|view| view.demand.gang.is_none()) {
        // An agent may be kept for each of those that wait in the same role.
        let kept = census.demands.iter().filter(|other| other.role == view.role).count();
        for shape in view.demand.shapes.iter().filter(|shape| shape.count > 0) {
            let fits = |agent: &&divvy_proto::api::Agent| times(shape, &free_for(agent, &view.role)) > 0;
            let fitting = census.agents_for(shape).filter(fits).count();
            if fitting > kept && census.is_within_limits(&view.role, &sums_of(shape, 1)) {
                let (name, framework, role) = (&shape.name, &view.framework, &view.role);
                let what = format!("{name} of {framework} in {role} waits, and fits {fitting} agents");
                wrong.push(Wrong::waits("demand", view, shape, what, SERVED));
            }
        }
    }
}

/// A gang that waits although there is room for all of it. What is kept for gangs is no obstacle for long.
fn gangs_that_fit(census: &Census<'_>, wrong: &mut Vec<Wrong>) {
    for view in census.demands.iter().filter(|view| view.demand.gang.is_some()) {
        let [shape] = view.demand.shapes.as_slice() else { continue };
        let on_each =
            census.agents_for(shape).map(|agent| times(shape, &census.free_or_kept(agent, &view.role)));
        let room: u32 = on_each.sum();
        let fits = shape.count > 0 && room >= shape.count;
        if fits && census.is_within_limits(&view.role, &sums_of(shape, shape.count)) {
            let what =
                format!("a gang of {} {} waits; there is room for {room}", shape.count, view.framework);
            wrong.push(Wrong::waits("gang", view, shape, what, SERVED));
        }
    }
}

/// A role that could have more of what it was promised: there is work of it that would fit if others gave back what they use
/// beyond any promise.
fn unmet_guarantee(census: &Census<'_>, role: &RolePath, unmet: &Sums, wrong: &mut Vec<Wrong>) {
    let mine = census.demands.iter().filter(|view| role.contains(&view.role) && view.demand.gang.is_none());
    for view in mine {
        for shape in view.demand.shapes.iter().filter(|shape| shape.count > 0) {
            let needs = sums_of(shape, 1);
            let is_promised = unmet.iter().all(|(name, lacking)| amount(&needs, name) <= *lacking)
                && unmet.keys().any(|name| needs.contains_key(name));
            let could = census
                .agents_for(shape)
                .any(|agent| times(shape, &census.free_if_preempted(agent, role)) > 0);
            if is_promised && could && census.is_within_limits(&view.role, &needs) {
                let (name, framework) = (&shape.name, &view.framework);
                let what = format!(
                    "role {role} lacks {unmet:?} of its guarantee; {name} of {framework} could be placed"
                );
                wrong.push(Wrong::waits("guarantee", view, shape, what, GUARANTEED));
            }
        }
    }
}
