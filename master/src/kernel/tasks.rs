//! Tasks: what is known of each, what its resources cost whom, and how its end is kept.

use std::collections::{BTreeMap, BTreeSet};

use divvy_proto::agent::MasterMessage;
use divvy_proto::container::GroupMember;
use divvy_proto::ids::{AgentId, FrameworkId};
use divvy_proto::scheduler::Event;
use divvy_proto::task::{AgentTask, Reason, Source, TaskInfo, TaskState, TaskStatus};
use divvy_proto::time::Timestamp;

use super::allocator::{Charge, ClientIx};
use super::inverse::with_true_reason;
use super::{Effects, Kernel, TaskKey};

#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) info: TaskInfo,
    pub(super) agent: AgentId,
    /// Who is charged for it.
    pub(super) client: ClientIx,
    /// Out of which of its agent's resources it has what it needs.
    pub(super) charge: Charge,
    /// These are charged.
    pub(super) holds: bool,
    /// The latest that is known.
    pub(super) status: TaskStatus,
    /// Whether `status` waits for the framework's acknowledgement.
    pub(super) unacknowledged: bool,
    /// It waits for the store, and its agent does not know of it.
    pub(super) unsent: bool,
    /// Its end was asked for, with this grace.
    pub(super) kill: Option<Option<std::time::Duration>>,
    /// Its agent has said that nothing of it is left, while `status` is of before its end: its framework hears of that in order.
    pub(super) over: bool,
    /// The kernel has ended it by force, and why.
    pub(super) ended_for: Option<Reason>,
    pub(super) started_at: Option<Timestamp>,
}

impl Task {
    /// One that holds nothing yet.
    pub(super) fn new(
        info: TaskInfo,
        agent: AgentId,
        (client, charge): (ClientIx, Charge),
        status: TaskStatus,
    ) -> Self {
        let unacknowledged = status.update_id.is_some();
        let (holds, unsent, over) = (false, false, false);
        let (kill, ended_for, started_at) = (None, None, None);
        Self {
            info,
            agent,
            client,
            charge,
            holds,
            status,
            unacknowledged,
            unsent,
            kill,
            over,
            ended_for,
            started_at,
        }
    }

    /// Whether it has not ended as far as its framework knows.
    pub(super) fn is_live(&self) -> bool {
        !self.status.state.is_terminal()
    }

    /// Whether it may have something on its agent.
    pub(super) fn still_runs(&self) -> bool {
        self.is_live() && !self.over
    }

    /// Its place in its task group, if it is of one.
    pub(super) fn group(&self) -> Option<&GroupMember> {
        self.info.container.as_deref()?.group.as_ref()
    }
}

/// What the master itself says of a task; nothing to acknowledge.
pub(super) fn master_status(
    now: Timestamp,
    key: &TaskKey,
    agent: Option<&AgentId>,
    state: TaskState,
    reason: Reason,
    message: impl Into<String>,
) -> TaskStatus {
    TaskStatus {
        task_id: key.1.clone(),
        agent_id: agent.cloned(),
        state,
        reason,
        source: Source::Master,
        message: message.into(),
        time: now,
        update_id: None,
        healthy: None,
        container: Default::default(),
    }
}

impl Kernel {
    pub(super) fn task_mut(&mut self, key: &TaskKey) -> Option<&mut Task> {
        self.frameworks.get_mut(&key.0)?.tasks.get_mut(&key.1)
    }

    pub(super) fn task_ref(&self, key: &TaskKey) -> Option<&Task> {
        self.frameworks.get(&key.0)?.tasks.get(&key.1)
    }

    /// Whether there was a task of this id that has ended, as far as anybody remembers.
    pub(super) fn has_ended_task(&self, key: &TaskKey) -> bool {
        self.frameworks.get(&key.0).is_some_and(|framework| match framework.tasks.get(&key.1) {
            Some(task) => !task.is_live(),
            None => framework.ended.contains_key(&key.1) || framework.used_ids.contains(&key.1),
        })
    }

    pub(super) fn live_tasks_of(&self, agent: &AgentId) -> Vec<TaskKey> {
        let tasks = self.agents.get(agent).into_iter().flat_map(|agent| &agent.tasks);
        tasks.filter(|key| self.task_ref(key).is_some_and(Task::is_live)).cloned().collect()
    }

    /// Those of which something may be left on the agent.
    pub(super) fn running_tasks_of(&self, agent: &AgentId) -> Vec<TaskKey> {
        let mut tasks = self.live_tasks_of(agent);
        tasks.retain(|key| self.task_ref(key).is_some_and(Task::still_runs));
        tasks
    }

    pub(super) fn insert_task(&mut self, framework: &FrameworkId, task: Task) {
        let key = (framework.clone(), task.info.id.clone());
        if let Some(agent) = self.agents.get_mut(&task.agent) {
            agent.tasks.insert(key.clone());
        }
        self.changes.agent(&task.agent);
        self.changes.task(&key);
        self.tally.task(None, Some(task.status.state));
        if let Some(framework) = self.frameworks.get_mut(framework) {
            framework.live += usize::from(task.is_live());
            framework.tasks.insert(task.info.id.clone(), task);
        }
    }

    /// Charges or frees what a task's state says it holds. UNREACHABLE holds nothing: its agent is out of the sums.
    pub(super) fn settle_task(&mut self, key: &TaskKey) {
        let Some(task) = self.frameworks.get_mut(&key.0).and_then(|f| f.tasks.get_mut(&key.1)) else {
            return;
        };
        let should_hold = task.still_runs() && task.status.state != TaskState::Unreachable;
        let Some(agent) = self.agents.get(&task.agent) else { return };
        match (task.holds, should_hold) {
            (false, true) => self.allocator.hold(agent.slot, task.client, &task.charge),
            (true, false) => self.allocator.release(agent.slot, task.client, &task.charge),
            _ => return,
        }
        task.holds = should_hold;
        let agent = task.agent.clone();
        self.changes.agent(&agent);
    }

    /// Takes over a new status, whoever said it.
    fn set_status(&mut self, key: &TaskKey, status: TaskStatus) {
        let Some(framework) = self.frameworks.get_mut(&key.0) else { return };
        let Some(task) = framework.tasks.get_mut(&key.1) else { return };
        self.tally.task(Some(task.status.state), Some(status.state));
        let ends = (task.is_live() && status.state.is_terminal()).then(|| task.agent.clone());
        if ends.is_some() {
            framework.live = framework.live.saturating_sub(1);
        }
        if status.state == TaskState::Running {
            task.started_at.get_or_insert(status.time);
        }
        let is_known = status.update_id.is_some() && status.update_id == task.status.update_id;
        task.unacknowledged = status.update_id.is_some() && (task.unacknowledged || !is_known);
        let is_final = status.state.is_terminal() && !task.unacknowledged;
        let is_told_to_end = status.state == TaskState::Killing && !task.over;
        task.status = status;
        if is_told_to_end {
            self.ends_soon(key);
        }
        if let Some(agent) = ends {
            self.task_has_ended(key, &agent);
        }
        self.settle_task(key);
        self.changes.task(key);
        if is_final {
            self.end_task(key);
        }
    }

    /// The master says something of a task, and tells its framework.
    pub(super) fn say_of_task(
        &mut self,
        now: Timestamp,
        key: &TaskKey,
        state: TaskState,
        reason: Reason,
        message: impl Into<String>,
        out: &mut Effects,
    ) {
        let Some(task) = self.task_ref(key) else { return };
        let mut status = master_status(now, key, Some(&task.agent), state, reason, message);
        // The master does not see into containers: what the agent last said of it still stands.
        status.container = task.status.container.clone();
        self.set_status(key, status.clone());
        self.tell(&key.0, Event::Update(status.clone()), out);
        self.gang_of_hears(key, &status, out);
    }

    /// An agent says something of a task. It repeats itself until the framework has acknowledged.
    pub(super) fn update_from_agent(
        &mut self,
        agent: &AgentId,
        framework: FrameworkId,
        status: TaskStatus,
        out: &mut Effects,
    ) {
        let Some(owner) = self.frameworks.get(&framework) else {
            tracing::warn!(%agent, %framework, "an update for a framework that is not known is ignored");
            return;
        };
        if owner.retired {
            let message = MasterMessage::ShutdownFramework { framework_id: framework };
            self.tell_agent(agent, message, out);
            return;
        }
        if matches!(status.state, TaskState::Unreachable | TaskState::Unknown) {
            tracing::warn!(%agent, state = %status.state, "an update that no agent can make is ignored");
            return;
        }
        let status = TaskStatus { agent_id: Some(agent.clone()), ..status };
        let key = (framework, status.task_id.clone());
        let known = owner.tasks.get(&key.1).or_else(|| owner.ended.get(&key.1));
        if self.is_stray(agent, &key) {
            return self.stray_says(agent, key, status, out);
        }
        let status = with_true_reason(known, status);
        match known {
            Some(task) if task.agent != *agent => {
                tracing::warn!(%agent, task = %key.1, owner = %task.agent, "an update for another agent's task is ignored");
                return;
            }
            // Said before, or of a task that has ended: the framework has to acknowledge, and nothing else changes.
            Some(task) if !task.is_live() || is_repetition(task, &status) => {}
            Some(_) => self.set_status(&key, status.clone()),
            // Of a task that is no longer known; its framework decides what it means.
            None => {}
        }
        self.tell(&key.0, Event::Update(status.clone()), out);
        self.gang_of_hears(&key, &status, out);
    }

    /// An agent says that nothing is left of a task whose end cannot be said yet: an earlier update waits for a framework that may
    /// be away for long (Mesos: `latest_state`). It is free from here on; what its framework hears of it comes in order.
    pub(super) fn task_holds_nothing(&mut self, agent: &AgentId, key: &TaskKey) {
        if self.is_stray(agent, key) {
            return self.stray_has_ended(agent, key);
        }
        let Some(task) = self.task_mut(key).filter(|task| task.agent == *agent && task.still_runs()) else {
            return;
        };
        task.over = true;
        self.task_has_ended(key, agent);
        self.settle_task(key);
        self.changes.task(key);
        self.changes.agent(agent);
    }

    /// Ends the copy of a task that was launched again elsewhere before its agent was back. What it holds until then.
    fn end_stray(&self, agent: &AgentId, key: &TaskKey, copy: &AgentTask, out: &mut Effects) -> Charge {
        if copy.status.state.is_terminal() {
            return Charge::new();
        }
        tracing::warn!(%agent, task = %key.1, "a task that was launched again elsewhere is killed");
        self.kill_on_agent(agent, key, None, out);
        self.charge_there(agent, copy)
    }

    /// The copy of a task that lives elsewhere is nothing to its framework: the master takes note of it.
    fn stray_says(&mut self, agent: &AgentId, key: TaskKey, status: TaskStatus, out: &mut Effects) {
        if status.state.is_terminal() {
            self.stray_has_ended(agent, &key);
        }
        if let Some(update_id) = status.update_id {
            let (framework_id, task_id) = key;
            self.tell_agent(agent, MasterMessage::Acknowledge { framework_id, task_id, update_id }, out);
        }
    }

    /// A framework has taken care of an update.
    pub(super) fn acknowledged(&mut self, key: &TaskKey, update: &divvy_proto::UpdateId) {
        let Some(task) = self.task_mut(key) else { return };
        if task.status.update_id.as_ref() == Some(update) {
            task.unacknowledged = false;
            if !task.is_live() {
                self.end_task(key);
            }
        }
    }

    /// The task has ended and everyone who must know does: it is only listed from here on.
    pub(super) fn end_task(&mut self, key: &TaskKey) {
        let kept = self.config.ended_tasks_kept;
        let Some(framework) = self.frameworks.get_mut(&key.0) else { return };
        let Some(task) = framework.tasks.remove(&key.1) else { return };
        if let Some(agent) = self.agents.get_mut(&task.agent) {
            agent.tasks.remove(key);
        }
        self.changes.agent(&task.agent);
        self.changes.task(key);
        self.note_used(key);
        let Some(framework) = self.frameworks.get_mut(&key.0) else { return };
        for dropped in framework.keep_ended(task, kept) {
            self.tally.task(Some(dropped.status.state), None);
            self.changes.task(&(key.0.clone(), dropped.info.id));
        }
    }

    /// Compares what a returning agent runs with what we believe it runs.
    pub(super) fn compare_tasks(
        &mut self,
        now: Timestamp,
        agent: &AgentId,
        reported: Vec<AgentTask>,
        was_unreachable: bool,
        out: &mut Effects,
    ) {
        let key_of = |task: &AgentTask| (task.framework_id.clone(), task.info.id.clone());
        let there: BTreeSet<TaskKey> = reported.iter().map(key_of).collect();
        // First, as what is new may have what these had.
        for key in self.live_tasks_of(agent).into_iter().filter(|key| !there.contains(key)) {
            self.lost_on_return(now, &key, out);
        }
        let (mut retired, mut strays) = (BTreeSet::new(), BTreeMap::new());
        for task in reported {
            let key = key_of(&task);
            match self.frameworks.get(&key.0) {
                Some(framework) if framework.retired => drop(retired.insert(key.0)),
                Some(framework) if framework.lives_elsewhere(&key.1, agent) => {
                    strays.insert(key.clone(), self.end_stray(agent, &key, &task, out));
                }
                _ => self.compare_task(now, agent, key, task, was_unreachable, out),
            }
        }
        self.set_strays(agent, strays);
        for framework_id in retired {
            self.tell_agent(agent, MasterMessage::ShutdownFramework { framework_id }, out);
        }
        self.resend_kills(agent, out);
    }

    fn compare_task(
        &mut self,
        now: Timestamp,
        agent: &AgentId,
        key: TaskKey,
        reported: AgentTask,
        was_unreachable: bool,
        out: &mut Effects,
    ) {
        self.know_framework(now, &key.0, out);
        let Some(framework) = self.frameworks.get(&key.0) else { return };
        let is_live = !reported.status.state.is_terminal();
        match framework.tasks.get(&key.1) {
            // What we have declared ended stays so: its framework may have replaced it.
            None if framework.ended.contains_key(&key.1)
                || (is_live && framework.used_ids.contains(&key.1)) =>
            {
                if is_live {
                    self.kill_on_agent(agent, &key, None, out);
                }
            }
            None => self.adopt(agent, &key, reported),
            Some(known) if !known.is_live() => {}
            Some(known) => {
                let status = TaskStatus { agent_id: Some(agent.clone()), ..reported.status };
                let status = with_true_reason(Some(known), status);
                self.set_status(&key, status.clone());
                self.gang_of_hears(&key, &status, out);
                // The end of a task comes as the agent's own update, which it repeats until it is acknowledged.
                if was_unreachable && is_live {
                    let event = Event::Update(returned(now, agent, status));
                    self.tell(&key.0, event, out);
                }
            }
        }
    }

    /// A task that an earlier master launched. It is charged as that one did; to the framework's first role, if its agent
    /// does not know to which.
    fn adopt(&mut self, agent: &AgentId, key: &TaskKey, reported: AgentTask) {
        let first = || self.frameworks.get(&key.0).and_then(|f| f.info.roles.first().cloned());
        let role = reported.allocation.role.clone().or_else(first).unwrap_or_default();
        let client = self.allocator.client(&key.0, &role);
        let charge = self.charge_there(agent, &reported);
        let status = TaskStatus { agent_id: Some(agent.clone()), ..reported.status };
        let task = Task::new(reported.info, agent.clone(), (client, charge), status.clone());
        self.insert_task(&key.0, task);
        self.set_status(key, status);
    }

    /// Out of which pools a returning task has what it needs: as it was given, if they still hold it; else unreserved.
    fn charge_there(&self, agent: &AgentId, reported: &AgentTask) -> Charge {
        let needs = &reported.info.resources;
        let charge = Charge::from_allocation(&reported.allocation, needs);
        let Some(agent) = self.agents.get(agent) else { return charge };
        let slot = self.allocator.slot(agent.slot);
        let reserved = Charge { reserved: charge.reserved.clone(), ..Charge::new() };
        match slot.total.saturating_sub(&slot.used).checked_sub(&reserved) {
            Some(_) => charge,
            None => Charge::unreserved(needs.clone()),
        }
    }

    /// A task that its agent has come back without.
    fn lost_on_return(&mut self, now: Timestamp, key: &TaskKey, out: &mut Effects) {
        let Some(task) = self.task_ref(key) else { return };
        let (state, message) = match task.status.state {
            TaskState::Staging => (TaskState::Dropped, "the agent came back without having seen the launch"),
            _ => (TaskState::Failed, "the agent came back without the task"),
        };
        self.say_of_task(now, key, state, Reason::AgentRestarted, message, out);
    }

    fn resend_kills(&mut self, agent: &AgentId, out: &mut Effects) {
        for key in self.running_tasks_of(agent) {
            if let Some(grace) = self.task_ref(&key).and_then(|task| task.kill) {
                self.kill_on_agent(agent, &key, grace, out);
            }
        }
    }

    pub(super) fn kill_on_agent(
        &self,
        agent: &AgentId,
        key: &TaskKey,
        grace: Option<std::time::Duration>,
        out: &mut Effects,
    ) {
        let (framework_id, task_id) = key.clone();
        self.tell_agent(agent, MasterMessage::Kill { framework_id, task_id, grace }, out);
    }

    /// Asks for a task's end; remembered until it has ended, and asked again when its agent comes back.
    pub(super) fn kill_task(
        &mut self,
        key: &TaskKey,
        grace: Option<std::time::Duration>,
        out: &mut Effects,
    ) -> bool {
        let Some(task) = self.task_mut(key) else { return false };
        if task.still_runs() {
            task.kill = Some(grace);
            let (agent, unsent) = (task.agent.clone(), task.unsent);
            self.ends_soon(key);
            if !unsent {
                self.kill_on_agent(&agent, key, grace, out);
            }
        }
        true
    }
}

fn is_repetition(task: &Task, status: &TaskStatus) -> bool {
    status.update_id.is_some() && task.status.update_id == status.update_id
}

/// What the master says of a task that is back with its agent.
fn returned(now: Timestamp, agent: &AgentId, status: TaskStatus) -> TaskStatus {
    TaskStatus {
        reason: Reason::AgentReturned,
        source: Source::Master,
        message: format!("agent {agent} is back, and the task with it"),
        time: now,
        update_id: None,
        ..status
    }
}
