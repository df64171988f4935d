//! Inverse offers: tasks that are asked back from their frameworks, what those say to it, and the end of the tasks at the
//! deadline.
//!
//! ```text
//! ask_back ──► InverseOffers ──► the framework ends its tasks ──► RescindInverse
//!                  │ withdraw ──► RescindInverse
//!                  └ deadline ──► Kill, with each task's own grace ──► the tasks end ──► RescindInverse
//! ```
//!
//! Not durable: what caused them (a drain, a guarantee that is not met) makes them again after a failover.
//! Not here: why something is asked back (`maintenance`, `preempt`, `revocable`).

use std::collections::{BTreeMap, BTreeSet};

use divvy_proto::api::{DecisionKind, InverseAnswer, InverseOfferView};
use divvy_proto::ids::{AgentId, FrameworkId, InverseOfferId, TaskId};
use divvy_proto::resources::Resources;
use divvy_proto::scheduler::{Event, InverseOffer, InverseReason, Refusal};
use divvy_proto::task::{Reason, TaskStatus};
use divvy_proto::time::Timestamp;

use super::allocator::sum;
use super::decisions::Decided;
use super::tasks::Task;
use super::{Effects, Kernel, TaskKey, Timer};

/// Tasks of one framework on one agent that are asked back together.
#[derive(Debug, Clone)]
pub(super) struct Inverse {
    pub(super) framework: FrameworkId,
    pub(super) agent: AgentId,
    /// Those that have not ended; never none.
    pub(super) tasks: BTreeSet<TaskId>,
    /// When they are killed.
    pub(super) deadline: Timestamp,
    pub(super) reason: InverseReason,
    answer: InverseAnswer,
    since: Timestamp,
}

/// All that is asked back.
#[derive(Debug, Clone, Default)]
pub(super) struct InverseOffers {
    offers: BTreeMap<InverseOfferId, Inverse>,
    /// A task is asked back at most once at a time.
    of_task: BTreeMap<TaskKey, InverseOfferId>,
    /// Made in this turn, and still to be said.
    unsent: BTreeSet<InverseOfferId>,
    /// Ended in this turn, and still to be said.
    ended: Vec<(FrameworkId, InverseOfferId)>,
    made: u32,
}

impl InverseOffers {
    /// The tasks' inverse offer, if it is asked back.
    pub(super) fn of(&self, task: &TaskKey) -> Option<(InverseOfferId, &Inverse)> {
        let id = self.of_task.get(task)?;
        Some((*id, self.offers.get(id)?))
    }

    pub(super) fn get(&self, id: InverseOfferId) -> Option<&Inverse> {
        self.offers.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (InverseOfferId, &Inverse)> {
        self.offers.iter().map(|(id, inverse)| (*id, inverse))
    }

    /// Takes a task out; its inverse offer ends with its last one. Says which has ended.
    fn remove(&mut self, task: &TaskKey) -> Option<InverseOfferId> {
        let id = self.of_task.remove(task)?;
        let inverse = self.offers.get_mut(&id)?;
        inverse.tasks.remove(&task.1);
        if !inverse.tasks.is_empty() {
            return None;
        }
        let inverse = self.offers.remove(&id)?;
        if !self.unsent.remove(&id) {
            self.ended.push((inverse.framework, id));
        }
        Some(id)
    }
}

/// The reason of the end of a task that was not given back in time.
fn reason_of(reason: &InverseReason) -> Reason {
    match reason {
        InverseReason::Maintenance => Reason::AgentDrained,
        InverseReason::Preemption(_) => Reason::Preempted,
        InverseReason::Revocation => Reason::Revoked,
    }
}

impl Kernel {
    /// Asks for tasks of one agent, each framework for all of its own together. A task that has been asked for already stays
    /// with the earlier deadline of the two.
    pub(super) fn ask_back(
        &mut self,
        now: Timestamp,
        agent: &AgentId,
        tasks: impl IntoIterator<Item = TaskKey>,
        deadline: Timestamp,
        reason: &InverseReason,
    ) -> Vec<InverseOfferId> {
        let mut by_framework: BTreeMap<FrameworkId, BTreeSet<TaskId>> = BTreeMap::new();
        for key in tasks {
            if self.inverse.of(&key).is_some_and(|(_, known)| known.deadline <= deadline) {
                continue;
            }
            self.give_up(&key);
            by_framework.entry(key.0).or_default().insert(key.1);
        }
        let mut made = Vec::new();
        for (framework, tasks) in by_framework {
            self.inverse.made = self.inverse.made.wrapping_add(1);
            let id = InverseOfferId(u64::from(self.config.epoch.0) << 32 | u64::from(self.inverse.made));
            for task in &tasks {
                self.inverse.of_task.insert((framework.clone(), task.clone()), id);
            }
            let (agent, reason, answer) = (agent.clone(), reason.clone(), InverseAnswer::Pending);
            let inverse = Inverse { framework, agent, tasks, deadline, reason, answer, since: now };
            self.inverse.offers.insert(id, inverse);
            self.inverse.unsent.insert(id);
            self.timers.set(Timer::Inverse(id), deadline);
            made.push(id);
        }
        made
    }

    /// A task is not asked back any more: it has ended, or is not needed.
    fn give_up(&mut self, key: &TaskKey) {
        if let Some(id) = self.inverse.remove(key) {
            self.timers.cancel(&Timer::Inverse(id));
        }
    }

    /// Takes an inverse offer back.
    pub(super) fn withdraw(&mut self, id: InverseOfferId) {
        let Some(inverse) = self.inverse.offers.get(&id) else { return };
        let (framework, agent) = (inverse.framework.clone(), inverse.agent.clone());
        for task in inverse.tasks.clone() {
            self.give_up(&(framework.clone(), task));
        }
        // Somebody else may want them back too.
        self.upkeep_due(&agent);
    }

    /// Takes back what is asked of an agent for this reason.
    pub(super) fn withdraw_all(&mut self, agent: &AgentId, reason: &InverseReason) {
        let tasks = self.agents.get(agent).into_iter().flat_map(|agent| &agent.tasks);
        let ids: BTreeSet<InverseOfferId> = tasks
            .filter_map(|key| self.inverse.of(key))
            .filter(|(_, inverse)| inverse.reason == *reason)
            .map(|(id, _)| id)
            .collect();
        ids.into_iter().for_each(|id| self.withdraw(id));
    }

    /// A task has ended, whatever ended it.
    pub(super) fn task_has_ended(&mut self, key: &TaskKey, agent: &AgentId) {
        self.ends_no_more(key);
        self.give_up(key);
        if self.agents.get(agent).is_some_and(|agent| agent.upkeep.is_emptied()) {
            self.upkeep_due(agent);
        }
    }

    /// The deadline has passed: what has not ended is killed. The inverse offer stands until it has.
    pub(super) fn inverse_due(&mut self, now: Timestamp, id: InverseOfferId, out: &mut Effects) {
        let Some(inverse) = self.inverse.get(id).cloned() else { return };
        let reason = reason_of(&inverse.reason);
        for task in &inverse.tasks {
            self.end_by_force(&(inverse.framework.clone(), task.clone()), reason, out);
        }
        let why = format!(
            "inverse offer {id} ({}) was {}, and its deadline has passed: {} of its tasks had not ended, and are killed",
            show_reason(&inverse.reason),
            match inverse.answer {
                InverseAnswer::Pending => "not answered",
                InverseAnswer::Accepted => "accepted",
                InverseAnswer::Declined => "declined",
            },
            inverse.tasks.len(),
        );
        let resources = self.resources_of(&inverse);
        let decided = Decided {
            framework_id: Some(inverse.framework),
            agent_id: Some(inverse.agent),
            tasks: inverse.tasks.into_iter().collect(),
            resources,
            ..Decided::new(DecisionKind::Killed, why)
        };
        self.decide(now, decided);
    }

    /// Kills a task with its own grace; its end will carry this reason.
    pub(super) fn end_by_force(&mut self, key: &TaskKey, reason: Reason, out: &mut Effects) {
        let Some(task) = self.task_mut(key) else { return };
        if task.still_runs() && task.ended_for.is_none() {
            task.ended_for = Some(reason);
            self.kill_task(key, None, out);
        }
    }

    /// What a framework says to inverse offers. Nothing is noted if one of them is not its own.
    pub(super) fn answer_inverse(
        &mut self,
        id: &FrameworkId,
        offers: &[InverseOfferId],
        answer: InverseAnswer,
    ) -> Result<(), Refusal> {
        let is_its_own =
            |offer: &&InverseOfferId| self.inverse.get(**offer).is_some_and(|o| o.framework == *id);
        if let Some(unknown) = offers.iter().find(|offer| !is_its_own(offer)) {
            return Err(Refusal::UnknownInverseOffer(*unknown));
        }
        for offer in offers {
            if let Some(inverse) = self.inverse.offers.get_mut(offer) {
                inverse.answer = answer;
            }
        }
        Ok(())
    }

    /// A framework that is back hears what is asked of it.
    pub(super) fn repeat_inverse_offers(&mut self, framework: &FrameworkId, out: &mut Effects) {
        let own = self.inverse.iter().filter(|(_, inverse)| inverse.framework == *framework);
        let offers: Vec<InverseOffer> = own.filter_map(|(id, inverse)| self.show(id, inverse)).collect();
        for offer in &offers {
            self.inverse.unsent.remove(&offer.id);
        }
        if !offers.is_empty() {
            self.tell(framework, Event::InverseOffers(offers), out);
        }
    }

    /// Tells each framework what is asked of it since the last turn, in one event, and what is no longer.
    pub(super) fn tell_inverse_offers(&mut self, out: &mut Effects) {
        for (framework, id) in std::mem::take(&mut self.inverse.ended) {
            self.tell(&framework, Event::RescindInverse(id), out);
        }
        let mut by_framework: BTreeMap<FrameworkId, Vec<InverseOffer>> = BTreeMap::new();
        for id in std::mem::take(&mut self.inverse.unsent) {
            if let Some(inverse) = self.inverse.get(id)
                && let Some(offer) = self.show(id, inverse)
            {
                by_framework.entry(inverse.framework.clone()).or_default().push(offer);
            }
        }
        for (framework, offers) in by_framework {
            self.tell(&framework, Event::InverseOffers(offers), out);
        }
    }

    /// All that is asked back.
    #[must_use]
    pub fn inverse_offers(&self) -> Vec<InverseOfferView> {
        let show = |(id, inverse): (InverseOfferId, &Inverse)| {
            Some(InverseOfferView {
                offer: self.show(id, inverse)?,
                framework_id: inverse.framework.clone(),
                framework: self.frameworks.get(&inverse.framework)?.info.name.clone(),
                answer: inverse.answer,
                since: inverse.since,
            })
        };
        self.inverse.iter().filter_map(show).collect()
    }

    fn show(&self, id: InverseOfferId, inverse: &Inverse) -> Option<InverseOffer> {
        Some(InverseOffer {
            id,
            agent_id: inverse.agent.clone(),
            hostname: self.agents.get(&inverse.agent)?.info.hostname.clone(),
            tasks: inverse.tasks.iter().cloned().collect(),
            resources: self.resources_of(inverse),
            deadline: Some(inverse.deadline),
            reason: inverse.reason.clone(),
        })
    }

    fn resources_of(&self, inverse: &Inverse) -> Resources {
        let tasks = self.frameworks.get(&inverse.framework).map(|framework| &framework.tasks);
        let tasks = inverse.tasks.iter().filter_map(|id| tasks?.get(id));
        tasks.fold(Resources::new(), |all, task| sum(&all, &task.info.resources))
    }

    /// Checks that what is asked back is there, on its agent, and asked back once.
    pub(super) fn check_inverse(&self) -> Result<(), String> {
        let mut count = 0;
        for (id, inverse) in self.inverse.iter() {
            let owner = self.frameworks.get(&inverse.framework);
            let owner = owner.ok_or_else(|| format!("inverse offer {id} is of nobody"))?;
            for task in &inverse.tasks {
                count += 1;
                let known =
                    owner.tasks.get(task).filter(|task| task.still_runs() && task.agent == inverse.agent);
                known.ok_or_else(|| format!("inverse offer {id} is for task {task}, which is not there"))?;
                if self.inverse.of_task.get(&(inverse.framework.clone(), task.clone())) != Some(&id) {
                    return Err(format!("task {task} of {} is asked back twice", inverse.framework));
                }
            }
            if inverse.tasks.is_empty() {
                return Err(format!("inverse offer {id} is for nothing"));
            }
        }
        match count == self.inverse.of_task.len() {
            true => self.check_ending(),
            false => Err("a task is asked back by an inverse offer that does not exist".to_owned()),
        }
    }
}

pub(super) fn show_reason(reason: &InverseReason) -> String {
    match reason {
        InverseReason::Maintenance => "maintenance".to_owned(),
        InverseReason::Preemption(role) => format!("preemption for role {role}"),
        InverseReason::Revocation => "revocation".to_owned(),
    }
}

/// The end of a task as its framework is told it: where the kernel has killed it, the agent knows only that it was asked to.
pub(super) fn with_true_reason(task: Option<&Task>, status: TaskStatus) -> TaskStatus {
    match (task.and_then(|task| task.ended_for), status.reason) {
        (Some(reason), Reason::KillRequested | Reason::KilledDuringLaunch) => TaskStatus { reason, ..status },
        _ => status,
    }
}
