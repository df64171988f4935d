//! How many agents and tasks are in which state, kept as they change, so that the totals cost nothing to show.

use std::collections::BTreeMap;

use divvy_proto::api::{AgentState, FrameworkState};
use divvy_proto::ids::FrameworkId;
use divvy_proto::task::TaskState;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) agents: BTreeMap<AgentState, usize>,
    /// With the ended ones that are still listed.
    pub(super) tasks: BTreeMap<TaskState, usize>,
    pub(super) frameworks: BTreeMap<FrameworkState, usize>,
    /// As what each framework is counted.
    counted: BTreeMap<FrameworkId, FrameworkState>,
    /// Agents that the breaker keeps from being marked.
    pub(super) held_back: usize,
}

impl Tally {
    pub(super) fn agent(&mut self, from: Option<AgentState>, to: Option<AgentState>) {
        shift(&mut self.agents, from, to);
    }

    /// A framework is in this state from now on, or no more.
    pub(super) fn framework(&mut self, id: &FrameworkId, to: Option<FrameworkState>) {
        let from = match to {
            Some(to) => self.counted.insert(id.clone(), to),
            None => self.counted.remove(id),
        };
        shift(&mut self.frameworks, from, to);
    }

    pub(super) fn hold_back(&mut self, was: bool, is: bool) {
        self.held_back = self.held_back + usize::from(is) - usize::from(was);
    }

    pub(super) fn task(&mut self, from: Option<TaskState>, to: Option<TaskState>) {
        shift(&mut self.tasks, from, to);
    }
}

fn shift<T: Ord + Copy>(counts: &mut BTreeMap<T, usize>, from: Option<T>, to: Option<T>) {
    if let Some(to) = to {
        *counts.entry(to).or_default() += 1;
    }
    if let Some(from) = from
        && let Some(count) = counts.get_mut(&from)
    {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(&from);
        }
    }
}
