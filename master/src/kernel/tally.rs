//! How many agents and tasks are in which state, kept as they change, so that the totals cost nothing to show.

use std::collections::BTreeMap;

use divvy_proto::api::AgentState;
use divvy_proto::task::TaskState;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) agents: BTreeMap<AgentState, usize>,
    /// With the ended ones that are still listed.
    pub(super) tasks: BTreeMap<TaskState, usize>,
}

impl Tally {
    pub(super) fn agent(&mut self, from: Option<AgentState>, to: Option<AgentState>) {
        shift(&mut self.agents, from, to);
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
