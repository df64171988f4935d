//! Tasks that were launched by one call on several agents: all run, or none. Once each of them has run there is nothing left to
//! keep together.
//!
//! That is so as long as one master lives: a call is taken whole or refused whole, and all launches leave in one turn. Nothing of
//! a gang is durable. A master that ends between its launches may leave half of it, and the next one knows of no gang: the
//! framework sees which of its tasks run, and decides.

use std::collections::{BTreeMap, BTreeSet};

use divvy_proto::task::{Reason, Source, TaskState, TaskStatus};

use super::{Effects, Kernel, TaskKey};

/// Names a gang within this master's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GangId(u64);

#[derive(Debug, Clone, Default)]
struct Gang {
    /// Those that have not ended.
    members: BTreeSet<TaskKey>,
    /// Those of them that have not run yet.
    starting: BTreeSet<TaskKey>,
}

/// All gangs that are still starting.
#[derive(Debug, Clone, Default)]
pub(super) struct Gangs {
    gangs: BTreeMap<GangId, Gang>,
    of_task: BTreeMap<TaskKey, GangId>,
    made: u64,
}

impl Gangs {
    pub(super) fn next(&mut self) -> GangId {
        self.made += 1;
        GangId(self.made)
    }

    pub(super) fn join(&mut self, gang: GangId, task: &TaskKey) {
        let members = self.gangs.entry(gang).or_default();
        members.members.insert(task.clone());
        members.starting.insert(task.clone());
        self.of_task.insert(task.clone(), gang);
    }

    fn has_run(&mut self, task: &TaskKey) {
        let Some(id) = self.of_task.get(task) else { return };
        let Some(gang) = self.gangs.get_mut(id) else { return };
        gang.starting.remove(task);
        if gang.starting.is_empty() {
            let id = *id;
            self.disband(id);
        }
    }

    fn has_ended(&mut self, task: &TaskKey) {
        let gang = self.of_task.get(task).and_then(|id| self.gangs.get_mut(id));
        if let Some(gang) = gang {
            gang.members.remove(task);
        }
        self.has_run(task);
        self.of_task.remove(task);
    }

    fn disband(&mut self, id: GangId) -> BTreeSet<TaskKey> {
        let members = self.gangs.remove(&id).map(|gang| gang.members).unwrap_or_default();
        for task in &members {
            self.of_task.remove(task);
        }
        members
    }
}

impl Kernel {
    /// A task has this status now. If it ended without ever having run, and neither by itself nor because it was told to, its
    /// gang ends with it.
    pub(super) fn gang_of_hears(&mut self, key: &TaskKey, status: &TaskStatus, out: &mut Effects) {
        let Some(id) = self.gangs.of_task.get(key).copied() else { return };
        let was_lost = status.state == TaskState::Dropped
            || (status.source == Source::Master
                && matches!(status.state, TaskState::Failed | TaskState::Gone));
        let was_starting = self.gangs.gangs.get(&id).is_some_and(|gang| gang.starting.contains(key));
        if was_lost && was_starting {
            let mut others = self.gangs.disband(id);
            others.remove(key);
            for other in others {
                self.end_by_force(&other, Reason::GangBroken, out);
            }
        } else if status.state.is_terminal() {
            self.gangs.has_ended(key);
        } else if status.state == TaskState::Running {
            self.gangs.has_run(key);
        }
    }

    /// Checks that gangs are of tasks that have not ended.
    pub(super) fn check_gangs(&self) -> Result<(), String> {
        for (key, id) in &self.gangs.of_task {
            let is_member = self.gangs.gangs.get(id).is_some_and(|gang| gang.members.contains(key));
            if !is_member || self.task_ref(key).is_none_or(|task| !task.is_live()) {
                return Err(format!("{}/{} is of a gang of which it is not", key.0, key.1));
            }
        }
        match self.gangs.gangs.values().any(|gang| gang.starting.is_empty()) {
            true => Err("a gang has nothing to wait for".to_owned()),
            false => Ok(()),
        }
    }
}
