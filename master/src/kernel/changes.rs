//! What changed in this turn, so that those who watch are told once per object and turn.

use std::collections::BTreeSet;

use divvy_proto::api::Change;
use divvy_proto::ids::{AgentId, FrameworkId};
use divvy_proto::role::RolePath;
use divvy_proto::time::Timestamp;

use super::{Effect, Effects, Kernel, TaskKey};

#[derive(Debug, Clone, Default)]
pub(super) struct Changes {
    agents: BTreeSet<AgentId>,
    frameworks: BTreeSet<FrameworkId>,
    tasks: BTreeSet<TaskKey>,
    /// Those whose policy is different.
    roles: BTreeSet<RolePath>,
    /// Something that only the totals show.
    status: bool,
}

impl Changes {
    pub(super) fn agent(&mut self, id: &AgentId) {
        if !self.agents.contains(id) {
            self.agents.insert(id.clone());
        }
    }

    pub(super) fn framework(&mut self, id: &FrameworkId) {
        if !self.frameworks.contains(id) {
            self.frameworks.insert(id.clone());
        }
    }

    /// A task, and with it what its framework holds.
    pub(super) fn task(&mut self, key: &TaskKey) {
        self.tasks.insert(key.clone());
        self.framework(&key.0);
    }

    pub(super) fn role(&mut self, role: &RolePath) {
        self.roles.insert(role.clone());
    }

    pub(super) fn status(&mut self) {
        self.status = true;
    }

    fn is_empty(&self) -> bool {
        self.agents.is_empty()
            && self.frameworks.is_empty()
            && self.tasks.is_empty()
            && self.roles.is_empty()
            && !self.status
    }
}

impl Kernel {
    pub(super) fn tell_changes(&mut self, now: Timestamp, out: &mut Effects) {
        let changes = std::mem::take(&mut self.changes);
        if changes.is_empty() {
            return;
        }
        let agents =
            changes.agents.iter().filter_map(|id| self.agent(id)).map(|agent| Change::Agent(Box::new(agent)));
        let frameworks = changes.frameworks.iter().filter_map(|id| self.framework(id)).map(Change::Framework);
        let tasks = changes.tasks.iter().map(|(framework_id, id)| match self.task(framework_id, id) {
            Some(task) => Change::Task(task),
            None => Change::TaskRemoved { framework_id: framework_id.clone(), id: id.clone() },
        });
        let roles = changes.roles.iter().map(|role| Change::Role(self.role(role)));
        let status = std::iter::once_with(|| Change::Status(Box::new(self.status(now))));
        out.extend(agents.chain(frameworks).chain(tasks).chain(roles).chain(status).map(Effect::Changed));
    }
}
