//! What changed since those who watch were last told, so that they are told once per object.
//!
//! Noting a change must cost next to nothing, as every offer is two of them. What an object looks like is told apart from the
//! turn that changed it: nobody waits for an offer because somebody watches.

use std::collections::BTreeSet;

use divvy_proto::api::Change;
use divvy_proto::ids::{AgentId, FrameworkId};
use divvy_proto::role::RolePath;
use divvy_proto::time::Timestamp;

use super::frameworks::Framework;
use super::tally::Tally;
use super::{Effect, Effects, Kernel, TaskKey};

/// Things that have changed, in any order, some of them several times.
#[derive(Debug, Clone)]
struct Touched<T> {
    all: Vec<T>,
}

impl<T> Default for Touched<T> {
    fn default() -> Self {
        Self { all: Vec::new() }
    }
}

impl<T: Ord + Clone> Touched<T> {
    fn note(&mut self, one: &T) {
        if self.all.last() == Some(one) {
            return;
        }
        // Before there are more than ever, it is seen to that each is there once: nobody has to ask for the changes.
        if self.all.len() == self.all.capacity() {
            self.settle();
            self.all.reserve((self.all.len() + 1).max(64));
        }
        self.all.push(one.clone());
    }

    fn settle(&mut self) {
        self.all.sort_unstable();
        self.all.dedup();
    }

    /// Each once, in order.
    fn take(&mut self) -> Vec<T> {
        self.settle();
        std::mem::take(&mut self.all)
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Changes {
    agents: Touched<AgentId>,
    frameworks: Touched<FrameworkId>,
    /// Those that have changed in this turn.
    uncounted: Touched<FrameworkId>,
    tasks: Touched<TaskKey>,
    /// Those whose policy is different.
    roles: BTreeSet<RolePath>,
    /// Something that only the totals show.
    status: bool,
}

impl Changes {
    pub(super) fn agent(&mut self, id: &AgentId) {
        self.agents.note(id);
    }

    /// What a framework holds.
    pub(super) fn holder(&mut self, id: &FrameworkId) {
        self.frameworks.note(id);
    }

    /// What a framework is.
    pub(super) fn framework(&mut self, id: &FrameworkId) {
        self.frameworks.note(id);
        self.uncounted.note(id);
    }

    /// A task, and with it what its framework holds.
    pub(super) fn task(&mut self, key: &TaskKey) {
        self.tasks.note(key);
        self.holder(&key.0);
    }

    pub(super) fn role(&mut self, role: &RolePath) {
        self.roles.insert(role.clone());
    }

    pub(super) fn status(&mut self) {
        self.status = true;
    }

    fn is_empty(&self) -> bool {
        self.agents.all.is_empty()
            && self.frameworks.all.is_empty()
            && self.tasks.all.is_empty()
            && self.roles.is_empty()
            && !self.status
    }
}

impl Kernel {
    /// Counts the frameworks that have changed in this turn as what they are now.
    pub(super) fn count_frameworks(&mut self) {
        for id in self.changes.uncounted.take() {
            self.tally.framework(&id, self.frameworks.get(&id).map(Framework::state));
        }
    }

    /// The tally as it will be at the end of the turn.
    pub(super) fn settled_tally(&self) -> Tally {
        let mut tally = self.tally.clone();
        for id in &self.changes.uncounted.all {
            tally.framework(id, self.frameworks.get(id).map(Framework::state));
        }
        tally
    }

    /// Whether there is anything to tell those who watch.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Pushes what those who watch should be told: each object that has changed since they were last told, as it is now, and
    /// the totals; nothing if nothing changed. Does not change what the kernel does; whoever has nobody who watches may leave
    /// it out.
    pub fn tell_changes(&mut self, now: Timestamp, out: &mut Effects) {
        if self.changes.is_empty() {
            return;
        }
        let agents = self.changes.agents.take();
        let frameworks = self.changes.frameworks.take();
        let tasks = self.changes.tasks.take();
        let roles = std::mem::take(&mut self.changes.roles);
        self.changes.status = false;
        let agents =
            agents.iter().filter_map(|id| self.agent(id)).map(|agent| Change::Agent(Box::new(agent)));
        let frameworks = frameworks.iter().filter_map(|id| self.framework(id)).map(Change::Framework);
        let tasks = tasks.iter().map(|(framework_id, id)| match self.task(framework_id, id) {
            Some(task) => Change::Task(task),
            None => Change::TaskRemoved { framework_id: framework_id.clone(), id: id.clone() },
        });
        let roles = roles.iter().map(|role| Change::Role(self.role(role)));
        let status = std::iter::once_with(|| Change::Status(Box::new(self.status(now))));
        out.extend(agents.chain(frameworks).chain(tasks).chain(roles).chain(status).map(Effect::Changed));
    }
}
