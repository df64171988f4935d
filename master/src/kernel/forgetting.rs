//! Frameworks that were torn down and agents that are gone are kept for people to look at, so many of each; beyond that the
//! longest ended are forgotten, in the registry too.
//!
//! Kept in any case: an agent of which something is reserved, or a volume, until an operator has removed that; and all frameworks
//! as long as some agent is away that may still run tasks of theirs, for they would be taken for those of a framework that lives.

use divvy_proto::api::AgentState;
use divvy_proto::ids::{AgentId, FrameworkId};
use divvy_proto::time::Timestamp;

use super::agents::Agent;
use super::frameworks::Framework;
use super::{Effects, Kernel, RegistryChange, Timer};

impl Kernel {
    /// Forgets what is beyond those that are kept.
    pub(super) fn forget_surplus(&mut self, out: &mut Effects) {
        let forgotten =
            self.surplus_frameworks().into_iter().map(|id| RegistryChange::RemoveFramework { id });
        let mut changes: Vec<_> = forgotten.collect();
        changes.extend(self.surplus_agents().into_iter().map(|id| RegistryChange::RemoveAgent { id }));
        for change in &changes {
            match change {
                RegistryChange::RemoveFramework { id } => self.forget_framework(id),
                RegistryChange::RemoveAgent { id } => self.forget_agent(id),
                _ => {}
            }
        }
        if !changes.is_empty() {
            self.persist_all(changes, None, out);
        }
    }

    fn surplus_frameworks(&self) -> Vec<FrameworkId> {
        let is_away = |agent: &Agent| !matches!(agent.standing, AgentState::Active | AgentState::Gone);
        let is_over = |f: &Framework| f.retired && f.tasks.is_empty() && f.offers.is_empty();
        let retired = self.frameworks.iter().filter(|(_, framework)| is_over(framework));
        let surplus = longest_ended(retired.map(|(id, f)| (f.since, id.clone())), self.config.retired_kept);
        let is_needed = !surplus.is_empty()
            && (self.pending_accepts().next().is_some() || self.agents.values().any(is_away));
        if is_needed { Vec::new() } else { surplus }
    }

    fn surplus_agents(&self) -> Vec<AgentId> {
        let is_over = |agent: &Agent| {
            agent.standing == AgentState::Gone
                && agent.owned.is_empty()
                && agent.tasks.is_empty()
                && agent.offers.is_empty()
        };
        let gone = self.agents.iter().filter(|(_, agent)| is_over(agent));
        let surplus =
            longest_ended(gone.map(|(id, agent)| (agent.since, id.clone())), self.config.retired_kept);
        let is_pending = |id: &AgentId| self.pending_accepts().any(|pending| pending.agent == *id);
        surplus.into_iter().filter(|id| !is_pending(id)).collect()
    }

    /// Takes a framework out of all tables. It holds nothing.
    pub(super) fn forget_framework(&mut self, id: &FrameworkId) {
        let Some(framework) = self.frameworks.remove(id) else { return };
        self.timers.cancel(&Timer::Failover(id.clone()));
        self.timers.cancel(&Timer::Heartbeat(id.clone()));
        self.allocator.remove_framework(id);
        for (task_id, task) in &framework.ended {
            self.tally.task(Some(task.status.state), None);
            self.changes.task(&(id.clone(), task_id.clone()));
        }
        self.changes.framework(id);
    }

    /// Takes an agent out of all tables. It holds nothing.
    pub(super) fn forget_agent(&mut self, id: &AgentId) {
        let Some(agent) = self.agents.remove(id) else { return };
        self.timers.cancel(&Timer::Agent(id.clone()));
        self.tally.agent(Some(agent.standing), None);
        self.tally.hold_back(agent.held_back, false);
        self.silences.shift(agent.silence, None);
        self.too_small.remove(id);
        self.allocator.remove_agent(agent.slot);
        self.changes.agent(id);
    }
}

/// Those beyond so many, of ids with the time of their end.
fn longest_ended<Id: Ord>(all: impl Iterator<Item = (Timestamp, Id)>, kept: usize) -> Vec<Id> {
    let mut all: Vec<(Timestamp, Id)> = all.collect();
    let surplus = all.len().saturating_sub(kept);
    if surplus == 0 {
        return Vec::new();
    }
    all.sort();
    all.into_iter().take(surplus).map(|(_, id)| id).collect()
}
