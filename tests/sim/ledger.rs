//! What was launched, on whose account, as the master itself told its agents: kept here through all failovers, and held against
//! what the kernel believes later.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use divvy_master::kernel::{Effect, Input};
use divvy_proto::agent::{AgentMessage, MasterMessage};
use divvy_proto::amounts::Amounts;
use divvy_proto::demand::Demand;
use divvy_proto::ids::{FrameworkId, TaskId, UpdateId};
use divvy_proto::reservation::Allocation;
use divvy_proto::resources::Resources;
use divvy_proto::role::RolePath;
use divvy_proto::scheduler::{CallBody, Operation};
use divvy_proto::task::TaskStatus;

use crate::room::{Census, amount};
use crate::world::{Plant, World};

pub type TaskKey = (FrameworkId, TaskId);

/// Amounts by dimension, in its smallest unit.
pub type Sums = BTreeMap<String, i64>;

/// A task as it was launched.
#[derive(Debug)]
pub struct Launched {
    pub resources: Resources,
    pub allocation: Allocation,
}

impl Launched {
    pub fn role(&self) -> &RolePath {
        self.allocation.role.as_ref().expect("a launch says who is charged")
    }

    /// What of it is neither reserved nor revocable.
    pub fn unreserved(&self) -> Resources {
        if self.allocation.revocable {
            return Resources::new();
        }
        let reserved = self.allocation.reserved.iter();
        reserved.fold(self.resources.clone(), |rest, piece| rest.saturating_sub(&piece.resources))
    }
}

/// Tasks that were launched together, and by which master.
#[derive(Debug)]
pub struct Together {
    pub master_life: u32,
    pub tasks: BTreeSet<TaskKey>,
}

#[derive(Debug, Default)]
pub struct Ledger {
    pub tasks: BTreeMap<TaskKey, Launched>,
    pub gangs: Vec<Together>,
    /// Tasks on revocable resources.
    pub revocable: BTreeSet<String>,
    /// Tasks that ever ran.
    pub started: BTreeSet<String>,
    /// How many launches there were.
    pub launches: BTreeMap<(FrameworkId, RolePath), u64>,
    /// Updates that say that a task has ended.
    ends: BTreeMap<UpdateId, TaskKey>,
    /// Tasks whose end was acknowledged: their ids are used up.
    used: BTreeSet<TaskKey>,
    /// Tasks of which nothing is left, as their agents said, whether or not the update about it has come.
    pub vanished: BTreeSet<TaskKey>,
}

impl Ledger {
    pub fn says(&mut self, framework: &FrameworkId, status: &TaskStatus) {
        if let (true, Some(update)) = (status.state.is_terminal(), &status.update_id) {
            self.ends.insert(update.clone(), (framework.clone(), status.task_id.clone()));
        }
    }

    pub fn acknowledged(&mut self, update: &UpdateId) {
        self.used.extend(self.ends.get(update).cloned());
    }
}

pub fn add(sums: &mut Sums, more: &Resources) {
    for (name, amount) in Amounts::from(more).iter() {
        *sums.entry(name.to_owned()).or_default() += amount;
    }
}

/// The tasks that an Accept wants launched together, or by itself.
fn wanted(input: &Input) -> Option<(bool, BTreeSet<TaskId>)> {
    let Input::Framework { call, .. } = input else { return None };
    let CallBody::Accept { operations, .. } = &call.body else { return None };
    let mut together = false;
    let mut tasks = BTreeSet::new();
    for operation in operations {
        match operation {
            Operation::LaunchOn { tasks: some, .. } => {
                together = true;
                tasks.extend(some.iter().map(|task| task.id.clone()));
            }
            Operation::Launch(some) => tasks.extend(some.iter().map(|task| task.id.clone())),
            _ => {}
        }
    }
    Some((together, tasks))
}

impl World {
    /// Feeds the kernel, and looks at what it launches.
    pub fn watched(&mut self, input: Input) -> Result<Vec<Effect>, String> {
        let shown = self.master.shown(self.now);
        let Some(kernel) = &mut self.master.kernel else { return Ok(Vec::new()) };
        if let Input::Agent { message: AgentMessage::Ended { framework_id, task_id }, .. } = &input {
            self.ledger.vanished.insert((framework_id.clone(), task_id.clone()));
        }
        let (wanted, is_tick) = (wanted(&input), input == Input::Tick);
        let mut effects = Vec::new();
        kernel.handle(shown, falsified(self.plant, input), &mut effects);
        match (self.plant, &wanted) {
            (Plant::HalfAGang, Some((true, _))) => {
                let last = effects.iter().rposition(|effect| launch(effect).is_some());
                last.map(|at| effects.remove(at));
            }
            (Plant::NoForce, _) if is_tick => {
                let is_kill = |effect: &Effect| {
                    matches!(effect, Effect::ToAgent { message: MasterMessage::Kill { .. }, .. })
                };
                effects.retain(|effect| !is_kill(effect));
            }
            _ => {}
        }
        self.check_launches_of(wanted, &effects)?;
        Ok(effects)
    }

    fn check_launches_of(
        &mut self,
        wanted: Option<(bool, BTreeSet<TaskId>)>,
        effects: &[Effect],
    ) -> Result<(), String> {
        let mut launched = BTreeSet::new();
        for effect in effects {
            let Some((key, entry)) = launch(effect) else { continue };
            if self.ledger.used.contains(&key) {
                return Err(format!("task id {} of {} is used up, and accepted again", key.1, key.0));
            }
            if wanted.is_some() {
                self.check_is_offered(&key)?;
            }
            *self.ledger.launches.entry((key.0.clone(), entry.role().clone())).or_default() += 1;
            if entry.allocation.revocable {
                self.ledger.revocable.insert(key.1.to_string());
            }
            self.ledger.tasks.insert(key.clone(), entry);
            launched.insert(key);
        }
        if launched.is_empty() {
            return Ok(());
        }
        let Some((together, wanted)) = wanted else { return Ok(()) };
        if together {
            let told: BTreeSet<TaskId> = launched.iter().map(|(_, task)| task.clone()).collect();
            if told != wanted {
                return Err(format!("of a gang of {wanted:?} only {told:?} are launched"));
            }
            let master_life = self.master.life;
            self.ledger.gangs.push(Together { master_life, tasks: launched.clone() });
        }
        self.check_limits(&launched)
    }

    fn check_is_offered(&self, (framework, task): &TaskKey) -> Result<(), String> {
        let Some(kernel) = &self.master.kernel else { return Ok(()) };
        let agent = kernel.task(framework, task).and_then(|task| kernel.agent(&task.agent_id));
        match agent.filter(|agent| agent.deactivated || agent.drain.is_some()) {
            Some(agent) => {
                Err(format!("task {task} is launched on agent {}, which is not offered", agent.id))
            }
            None => Ok(()),
        }
    }

    /// After a launch no role above it uses more than it may, in what the launch uses.
    fn check_limits(&self, launched: &BTreeSet<TaskKey>) -> Result<(), String> {
        let entries = || launched.iter().filter_map(|key| self.ledger.tasks.get(key));
        let is_limited =
            |entry: &Launched| self.orders.quotas_over(entry.role()).any(|(_, q)| !q.limit.is_empty());
        let Some(kernel) = self.master.kernel.as_ref().filter(|_| entries().any(is_limited)) else {
            return Ok(());
        };
        let census = Census::of(kernel, &self.ledger, &self.orders);
        for entry in entries() {
            let fresh = Amounts::from(&entry.unreserved());
            for (above, quota) in self.orders.quotas_over(entry.role()) {
                if quota.limit.is_empty() {
                    continue;
                }
                let consumed = census.consumed(above);
                for (name, limit) in quota.limit.iter().filter(|(name, _)| fresh.get(name).is_some()) {
                    let uses = amount(&consumed, name);
                    let is_known = kernel.status(self.master.shown(self.now)).warnings.is_empty();
                    if uses > limit && is_known {
                        let show = |amount| Amounts::show(name, amount);
                        return Err(format!(
                            "role {above} uses {name}={} after a launch of {}, more than its limit of {}",
                            show(uses),
                            entry.role(),
                            show(limit)
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

/// As a kernel with this fault would understand it.
fn falsified(plant: Plant, mut input: Input) -> Input {
    if let Input::Framework { call, .. } = &mut input
        && let CallBody::Demand { demand: Demand { gang: Some(gang), .. }, .. } = &mut call.body
        && plant == Plant::GreedyGangs
    {
        gang.hold = Duration::from_secs(3600);
    }
    input
}

fn launch(effect: &Effect) -> Option<(TaskKey, Launched)> {
    let Effect::ToAgent { message: MasterMessage::Launch { framework_id, task, allocation, .. }, .. } =
        effect
    else {
        return None;
    };
    let entry = Launched { resources: task.resources.clone(), allocation: allocation.clone() };
    Some(((framework_id.clone(), task.id.clone()), entry))
}
