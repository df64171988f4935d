//! Revocable resources that are no longer there: an agent comes back with fewer than its tasks hold, and the least important
//! of them are asked back until the rest fits.
//!
//! Not here: who is offered revocable resources (the allocator), how tasks are asked back (`inverse`).

use std::cmp::Reverse;
use std::collections::BTreeSet;

use divvy_proto::api::DecisionKind;
use divvy_proto::ids::{AgentId, InverseOfferId};
use divvy_proto::resources::Resources;
use divvy_proto::scheduler::InverseReason;
use divvy_proto::time::Timestamp;

use super::allocator::sum;
use super::decisions::Decided;
use super::preempt::is_ending;
use super::{Kernel, TaskKey};

impl Kernel {
    /// Asks back what an agent's tasks hold beyond what it has, and no more; called when it has said what it has.
    pub(super) fn revoke(&mut self, now: Timestamp, id: &AgentId) {
        let Some(agent) = self.agents.get(id) else { return };
        let has = agent.info.revocable.clone();
        let chosen = self.too_many(id, &has);
        let asked: BTreeSet<TaskKey> = self.asked_for_revocation(id);
        if chosen == asked {
            return;
        }
        // Asked for anew where fewer are needed; the deadline of those that still are stands.
        let deadlines =
            asked.iter().filter_map(|key| self.inverse.of(key)).map(|(_, inverse)| inverse.deadline);
        let fresh = now + self.config.revocation_grace;
        let deadline = deadlines.min().filter(|_| chosen.is_subset(&asked)).unwrap_or(fresh);
        if !asked.is_subset(&chosen) {
            self.withdraw_all(id, &InverseReason::Revocation);
        }
        if chosen.is_empty() {
            return;
        }
        let why = format!(
            "the agent has {} revocable, and its tasks hold {}: the least important and youngest of them are asked back until \
             the rest fits, and killed at {deadline}",
            show(&has),
            show(&self.revocable_held(id)),
        );
        let tasks = chosen.iter().map(|(_, task)| task.clone()).collect();
        let decided =
            Decided { agent_id: Some(id.clone()), tasks, ..Decided::new(DecisionKind::Revoked, why) };
        self.decide(now, decided);
        self.ask_back(now, id, chosen, deadline, &InverseReason::Revocation);
    }

    /// The tasks that have to end for the others to fit in what there is: lowest priority first, then the youngest.
    fn too_many(&self, id: &AgentId, has: &Resources) -> BTreeSet<TaskKey> {
        let tasks = self.running_tasks_of(id).into_iter().filter_map(|key| {
            let task =
                self.task_ref(&key).filter(|task| !task.charge.revocable.is_empty() && !is_ending(task))?;
            let started = task.started_at.unwrap_or(task.status.time);
            Some((Reverse(task.info.priority), started, key, &task.charge.revocable))
        });
        let mut tasks: Vec<_> = tasks.collect();
        tasks.sort_by(|left, right| (&left.0, left.1, &left.2).cmp(&(&right.0, right.1, &right.2)));
        // The most important keep what they have, as far as it goes.
        let (mut left, mut chosen) = (has.clone(), BTreeSet::new());
        for (_, _, key, held) in tasks {
            match left.checked_sub(held) {
                Some(rest) => left = rest,
                None => drop(chosen.insert(key)),
            }
        }
        chosen
    }

    fn asked_for_revocation(&self, id: &AgentId) -> BTreeSet<TaskKey> {
        let is_asked = |key: &TaskKey| {
            let asked: Option<(InverseOfferId, _)> = self.inverse.of(key);
            asked.is_some_and(|(_, inverse)| inverse.reason == InverseReason::Revocation)
        };
        self.running_tasks_of(id).into_iter().filter(is_asked).collect()
    }

    fn revocable_held(&self, id: &AgentId) -> Resources {
        let tasks = self.running_tasks_of(id);
        let held = tasks.iter().filter_map(|key| self.task_ref(key)).map(|task| &task.charge.revocable);
        held.fold(Resources::new(), |all, held| sum(&all, held))
    }
}

fn show(resources: &Resources) -> String {
    match resources.is_empty() {
        true => "nothing".to_owned(),
        false => resources.to_string(),
    }
}
