//! What is promised over time. While nothing fails, nobody waits longer than a bound for what is due: a guarantee that can be
//! met, a demand that fits somewhere, a gang for which there is room, an agent to be emptied, an inverse offer to be resolved.
//!
//! Where it is hard to say whether something is due, it is taken not to be: what is found here is surely wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use divvy_master::kernel::{Kernel, RegistryChange};
use divvy_proto::amounts::{Amounts, PORTS};
use divvy_proto::api::{Agent, AgentState, DemandView};
use divvy_proto::demand::DemandShape;
use divvy_proto::ids::VolumeId;
use divvy_proto::predicate::AgentFacts;
use divvy_proto::quota::Quota;
use divvy_proto::resources::Resources;
use divvy_proto::role::RolePath;
use divvy_proto::task::TaskState;
use divvy_proto::time::Timestamp;

use crate::ledger::{Launched, Sums, add};
use crate::world::{Happening, World};

/// From one look to the next.
pub const LOOK: Duration = Duration::from_secs(5);

/// After a deadline: the longest way from the kill to the news of the end.
const KILLED: Duration = Duration::from_secs(30);
/// Longer than any filter, offer, hold and round of the crowd.
const SERVED: Duration = Duration::from_secs(120);
/// The same, with a preemption before it.
const GUARANTEED: Duration = Duration::from_secs(180);
/// From the store to the agent's disk, or through one Accept.
const TOLD: Duration = Duration::from_secs(25);

/// Since when something is not as it should be, by what it is about.
#[derive(Debug, Default)]
pub struct Patience {
    since: BTreeMap<String, Timestamp>,
    /// The counters of progress at the last look.
    progress: BTreeMap<String, u64>,
}

/// Something that should not last.
struct Wrong {
    about: String,
    what: String,
    at_most: Duration,
}

impl World {
    pub fn look(&mut self) -> Result<(), String> {
        self.at(self.now + LOOK, Happening::Look);
        let mut wrong = Vec::new();
        if self.is_quiet() {
            self.overdue(&mut wrong);
            self.not_emptied(&mut wrong);
            self.wrong_volumes(&mut wrong);
            self.half_gangs(&mut wrong);
            if std::env::var_os("DIVVY_SIM_ALL").is_some() {
                self.wrong_charges(&mut wrong);
                self.unserved(&mut wrong);
                self.gangs_that_fit(&mut wrong);
                self.unmet_guarantees(&mut wrong);
            }
        }
        let since: BTreeMap<String, Timestamp> = wrong
            .iter()
            .map(|one| (one.about.clone(), self.patience.since.get(&one.about).copied().unwrap_or(self.now)))
            .collect();
        self.patience.since = since;
        match wrong.into_iter().find(|one| self.patience.since[&one.about] + one.at_most < self.now) {
            Some(Wrong { what, at_most, .. }) => Err(format!("for {} s now: {what}", at_most.as_secs())),
            None => Ok(()),
        }
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

    fn kernel(&self) -> &Kernel {
        self.master.kernel.as_ref().expect("it is quiet")
    }

    fn overdue(&self, wrong: &mut Vec<Wrong>) {
        let now = self.master.shown(self.now);
        for inverse in self.kernel().inverse_offers() {
            let offer = inverse.offer;
            if offer.deadline.is_some_and(|deadline| deadline <= now) {
                let what = format!("inverse offer {} to {} is overdue: {:?}", offer.id, inverse.framework, offer.tasks);
                wrong.push(Wrong { about: format!("inverse {}", offer.id), what, at_most: KILLED });
            }
        }
    }

    fn not_emptied(&self, wrong: &mut Vec<Wrong>) {
        let now = self.master.shown(self.now);
        for (index, node) in self.agents.iter().enumerate() {
            let Some(shown) = node.id().and_then(|id| self.kernel().agent(id)) else { continue };
            let due = |drain: &divvy_proto::api::Drain| drain.deadline.unwrap_or(drain.since) <= now;
            let runs = node.running().count();
            if shown.drain.as_ref().is_some_and(due) && (shown.tasks > 0 || runs > 0) {
                let what = format!("agent {index} is to be empty: {} tasks are known, {runs} run", shown.tasks);
                wrong.push(Wrong { about: format!("drain {index}"), what, at_most: KILLED });
            }
        }
    }

    fn wrong_volumes(&self, wrong: &mut Vec<Wrong>) {
        for (index, node) in self.agents.iter().enumerate() {
            let Some(id) = node.id() else { continue };
            let stored: BTreeSet<VolumeId> = match self.master.reserved(id) {
                Some(RegistryChange::PutReservations { volumes, .. }) => volumes.iter().map(|v| v.id.clone()).collect(),
                _ => BTreeSet::new(),
            };
            if stored != node.volumes {
                let what = format!("agent {index} has the volumes {:?}; stored are {stored:?}", node.volumes);
                wrong.push(Wrong { about: format!("volumes {index}"), what, at_most: TOLD });
            }
        }
    }

    /// What the kernel charges to roles is what its agents were told, whichever master told them.
    fn wrong_charges(&self, wrong: &mut Vec<Wrong>) {
        for role in self.kernel().roles() {
            let truth = self.consumed(&role.path);
            let believed: Sums = role.consumed.iter().map(|(name, amount)| (name.to_owned(), amount)).collect();
            let differ = |name: &&String| {
                truth.get(*name).copied().unwrap_or_default() != believed.get(*name).copied().unwrap_or_default()
            };
            if truth.keys().chain(believed.keys()).find(differ).is_some() {
                let what = format!("role {} is charged with {believed:?}, and uses {truth:?}", role.path);
                wrong.push(Wrong { about: format!("charge {}", role.path), what, at_most: TOLD });
            }
        }
    }

    /// A task of a gang was lost before it ran: then the others end.
    fn half_gangs(&self, wrong: &mut Vec<Wrong>) {
        for gang in self.ledger.gangs.iter().filter(|gang| gang.master_life == self.master.life) {
            let state = |(framework, task): &(_, _)| self.kernel().task(framework, task).map(|task| task.state);
            let started = |task: &str| self.ledger.started.contains(task);
            let lost = gang
                .tasks
                .iter()
                .find(|key| state(key) == Some(TaskState::Dropped) && !started(key.1.as_str()));
            let live = gang.tasks.iter().find(|key| state(key).is_some_and(|state| !state.is_terminal()));
            if let (Some(lost), Some(live)) = (lost, live) {
                let what = format!("of a gang {} never ran, and {} lives on", lost.1, live.1);
                wrong.push(Wrong { about: format!("gang {}", lost.1), what, at_most: KILLED });
            }
        }
    }
}

/// What is surely free.
impl World {
    /// Whether a role may use so much more, for all that its limits say.
    fn is_within_limits(&self, role: &RolePath, more: &Sums) -> bool {
        let known = role.lineage().iter().all(|above| !self.orders.is_open(above));
        known
            && self.orders.quotas_over(role).all(|(above, quota)| {
                let consumed = self.consumed(above);
                quota.limit.iter().all(|(name, limit)| {
                    let of = |sums: &Sums| sums.get(name).copied().unwrap_or_default();
                    of(&consumed) + of(more) <= limit
                })
            })
    }

    /// What a role lacks of its own guarantee, by dimension.
    fn unmet(&self, role: &RolePath, quota: &Quota) -> Sums {
        let mut has = self.consumed(role);
        for offer in self.kernel().offers().iter().filter(|offer| role.contains(&offer.role)) {
            add(&mut has, &offer.resources);
        }
        let lacks = |(name, promised): (&str, i64)| {
            let missing = promised - has.get(name).copied().unwrap_or_default();
            (missing > 0).then(|| (name.to_owned(), missing))
        };
        quota.guarantee.iter().filter_map(lacks).collect()
    }

    /// Roles that lack something of their guarantee; nothing if some are not known.
    fn roles_below_guarantee(&self) -> Option<Vec<(RolePath, Sums)>> {
        if self.orders.is_any_open() {
            return None;
        }
        let all = self.orders.quotas.iter().map(|(role, quota)| (role.clone(), self.unmet(role, quota)));
        Some(all.filter(|(_, unmet)| !unmet.is_empty()).collect())
    }

    fn unserved(&mut self, wrong: &mut Vec<Wrong>) {
        let Some(below) = self.roles_below_guarantee() else { return };
        if !below.is_empty() {
            return; // headroom is kept for them
        }
        let demands = self.kernel().demands();
        for view in demands.iter().filter(|view| view.demand.gang.is_none()) {
            // An agent may be kept for each of those that wait in the same role.
            let kept = demands.iter().filter(|other| other.role == view.role).count();
            for shape in view.demand.shapes.iter().filter(|shape| shape.count > 0) {
                let fits = |agent: &Agent| shape_fits(shape, &free_for(agent, &view.role)) && is_offered(agent);
                let agents = self.kernel().agents();
                let fitting = agents.iter().filter(|agent| is_right(shape, agent) && fits(agent)).count();
                let is_due = fitting > kept && self.is_within_limits(&view.role, &sums_of(shape, 1));
                if is_due && !self.has_progressed(view, &shape.name) {
                    let what = format!(
                        "{} of {} in {} waits, and fits {fitting} agents",
                        shape.name, view.framework, view.role
                    );
                    let about = format!("demand {} {} {}", view.framework_id, view.role, shape.name);
                    wrong.push(Wrong { about, what, at_most: SERVED });
                }
            }
        }
    }

    /// Whether the framework was offered or launched something in the role since the last look.
    fn has_progressed(&mut self, view: &DemandView, shape: &str) -> bool {
        let about = format!("{} {} {shape}", view.framework_id, view.role);
        let key = (view.framework_id.clone(), view.role.clone());
        let launches = self.ledger.launches.get(&key).copied().unwrap_or_default();
        let before = self.patience.progress.insert(about, launches);
        before != Some(launches) || view.offered.get(shape).is_some_and(|count| *count > 0)
    }

    /// A gang that waits although there is room for all of it. What is kept for gangs is no obstacle for long.
    fn gangs_that_fit(&mut self, wrong: &mut Vec<Wrong>) {
        let Some(below) = self.roles_below_guarantee() else { return };
        if !below.is_empty() {
            return;
        }
        for view in self.kernel().demands().into_iter().filter(|view| view.demand.gang.is_some()) {
            let [shape] = view.demand.shapes.as_slice() else { continue };
            if shape.count == 0 || self.has_progressed(&view, &shape.name) {
                continue;
            }
            let agents = self.kernel().agents();
            let right = agents.iter().filter(|agent| is_offered(agent) && is_right(shape, agent));
            let room: u32 = right.map(|agent| times(shape, &self.free_or_kept(agent, &view.role))).sum();
            if room >= shape.count && self.is_within_limits(&view.role, &sums_of(shape, shape.count)) {
                let what = format!("a gang of {} {} waits, and there is room for {room}", shape.count, view.framework);
                let about = format!("gang {} {}", view.framework_id, view.role);
                wrong.push(Wrong { about, what, at_most: SERVED });
            }
        }
    }

    /// What is free, and what is kept while nobody has been offered it.
    fn free_or_kept(&self, agent: &Agent, role: &RolePath) -> Resources {
        let offers = self.kernel().offers();
        let mine = offers.iter().filter(|offer| offer.agent_id == agent.id);
        let kept = mine.fold(agent.resources.offered.clone(), |rest, offer| rest.saturating_sub(&offer.resources));
        let free = free_for(agent, role);
        free.checked_add(&kept).unwrap_or(free)
    }

    /// A role that could have more of what it was promised: there is work of it that would fit if others gave back what they use
    /// beyond any promise.
    fn unmet_guarantees(&mut self, wrong: &mut Vec<Wrong>) {
        let Some(below) = self.roles_below_guarantee() else { return };
        let [(role, unmet)] = below.as_slice() else { return }; // several may stand in each other's way
        let demands = self.kernel().demands();
        let mine = demands.iter().filter(|view| role.contains(&view.role) && view.demand.gang.is_none());
        for view in mine {
            for shape in view.demand.shapes.iter().filter(|shape| shape.count > 0) {
                let needs = sums_of(shape, 1);
                let is_promised = unmet.iter().all(|(name, lacking)| needs.get(name).is_none_or(|need| need <= lacking));
                let names_some = unmet.keys().any(|name| needs.contains_key(name));
                let agents = self.kernel().agents();
                let could = |agent: &Agent| shape_fits(shape, &self.free_if_preempted(agent, role));
                let could = agents.iter().any(|agent| is_offered(agent) && is_right(shape, agent) && could(agent));
                if is_promised
                    && names_some
                    && could
                    && self.is_within_limits(&view.role, &needs)
                    && !self.has_progressed(view, &shape.name)
                {
                    let what = format!(
                        "role {role} lacks {unmet:?} of its guarantee, and {} of {} could be placed",
                        shape.name, view.framework
                    );
                    let about = format!("guarantee {role} {} {}", view.framework_id, shape.name);
                    wrong.push(Wrong { about, what, at_most: GUARANTEED });
                }
            }
        }
    }

    /// What of an agent is not reserved and not used by tasks that may go on in any case.
    fn free_if_preempted(&self, agent: &Agent, role: &RolePath) -> Resources {
        let reserved = agent.reserved.iter();
        let all = reserved.fold(agent.resources.total.clone(), |rest, piece| rest.saturating_sub(&piece.resources));
        let tasks = self.kernel().tasks().into_iter();
        let here = tasks.filter(|task| task.agent_id == agent.id && !task.state.is_terminal());
        let entries = here.filter_map(|task| self.ledger.tasks.get(&(task.framework_id, task.id)));
        let stays = |entry: &&Launched| role.contains(entry.role()) || !self.has_nothing_promised(entry.role());
        entries.filter(stays).fold(all, |rest, entry| rest.saturating_sub(&entry.unreserved()))
    }

    fn has_nothing_promised(&self, role: &RolePath) -> bool {
        let above = role.lineage();
        let mut quotas = self.orders.quotas.iter().filter(|(path, _)| above.contains(path));
        quotas.all(|(_, quota)| quota.preemptible && quota.guarantee.is_empty())
    }
}

fn is_offered(agent: &Agent) -> bool {
    agent.state == AgentState::Active && !agent.deactivated && agent.drain.is_none()
}

/// What of an agent's free resources is not reserved for others, at the least.
fn free_for(agent: &Agent, role: &RolePath) -> Resources {
    let above = role.lineage();
    let others = agent.reserved.iter().filter(|piece| !piece.owner().is_some_and(|owner| above.contains(owner)));
    others.fold(agent.resources.available.clone(), |rest, piece| rest.saturating_sub(&piece.resources))
}

fn is_right(shape: &DemandShape, agent: &Agent) -> bool {
    let facts = AgentFacts { id: &agent.id, hostname: &agent.hostname, attributes: &agent.attributes };
    shape.constraint.as_ref().is_none_or(|constraint| constraint.holds(&facts))
}

fn shape_fits(shape: &DemandShape, free: &Resources) -> bool {
    times(shape, free) > 0
}

fn sums_of(shape: &DemandShape, count: u32) -> Sums {
    shape.amounts().iter().map(|(name, amount)| (name.to_owned(), amount * i64::from(count))).collect()
}

/// How often it fits.
fn times(shape: &DemandShape, free: &Resources) -> u32 {
    let free = Amounts::from(free);
    let each = shape.amounts();
    let fit = each.iter().map(|(name, amount)| free.get(name).unwrap_or_default() / amount.max(1));
    debug_assert!(shape.resources.ports().is_empty(), "no shape here names {PORTS}");
    u32::try_from(fit.min().unwrap_or_default()).unwrap_or(u32::MAX)
}
