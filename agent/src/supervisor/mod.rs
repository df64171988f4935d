//! The supervisor: what becomes of each task on this machine, decided without clock, files, processes or sockets.
//!
//! ```text
//!      shell (agent.rs and its neighbours)            supervisor (this module)
//!   ──────────────────────────────────────  input  ──────────────────────────────
//!   the master said something               ─────►   handle(now, input, effects)
//!   a checkpoint is on disk                 ─────►      changes itself,
//!   a container did something               ─────►      pushes effects
//!   next_deadline() has come                ─────►
//!   carries effects out                     ◄─────
//!
//!   a task:  Admitted ─► Preparing ─► Launching ─► Running ─► Ended ─► Destroying ─► Done ─► forgotten
//!            (launch is   (sandbox,    (container)             (terminal  (container   (terminal update
//!             written)     artifacts)                           state is   removed)     is sent until
//!                                                               written)                acknowledged)
//! ```
//!
//! A task of a group waits between Preparing and Launching, in Prepared, for the others: see [`group`].
//!
//! Two rules hold everywhere. What must survive a crash is on disk before the act that it describes: the launch before the
//! start, the kill before SIGTERM, each update before it is sent. And a terminal update is sent only after nothing is left of
//! the container, so that whoever hears it can count on the resources.
//!
//! Not here: how a container is made, how a file is written, how a probe asks.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod effect;
mod environment;
mod group;
mod health;
mod input;
mod link;
mod outcome;
mod record;
mod task;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use divvy_proto::agent::{AgentInfo, AgentMessage, MasterMessage};
use divvy_proto::ids::{AgentId, FrameworkId, UpdateId, VolumeId};
use divvy_proto::reservation::Allocation;
use divvy_proto::resources::Resources;
use divvy_proto::scheduler::StreamError;
use divvy_proto::task::{ContainerStatus, Reason, Source, TaskInfo, TaskState, TaskStatus};
use divvy_proto::time::Timestamp;

pub use effect::{Effect, Record};
pub use input::{Config, Input, LinkId, LiveTask, Recovered, TaskKey, Token};
pub use record::{AgentRecord, Kill, KillCause, TaskRecord};

use crate::container::ContainerId;
use group::GroupKey;
use link::Link;
use task::{Admission, Task};

/// All that runs on this machine, and the conversation with the master about it.
#[derive(Debug)]
pub struct Supervisor {
    config: Config,
    agent_id: Option<AgentId>,
    link: Link,
    ids: Ids,
    tasks: BTreeMap<TaskKey, Task>,
    by_container: BTreeMap<ContainerId, TaskKey>,
    by_token: BTreeMap<Token, TaskKey>,
    groups: BTreeMap<GroupKey, BTreeSet<TaskKey>>,
    /// Groups of which a task has changed since they were looked at.
    touched: BTreeSet<GroupKey>,
    /// The persistent volumes that are there.
    volumes: BTreeSet<VolumeId>,
    /// Set by `KillAll`: the agent takes no more tasks.
    draining: bool,
}

/// What a task needs to know and to have while it handles one input.
struct Turn<'a> {
    now: Timestamp,
    config: &'a Config,
    agent_id: Option<&'a AgentId>,
    /// The stream on which the agent is registered, if it is.
    link: Option<LinkId>,
    ids: &'a mut Ids,
    effects: &'a mut Vec<Effect>,
}

/// Makes names that no other process ever makes: they begin with the incarnation.
#[derive(Debug, Default)]
struct Ids {
    updates: u64,
    containers: u64,
    tokens: u64,
}

impl Ids {
    fn update(&mut self, config: &Config) -> Option<UpdateId> {
        self.updates += 1;
        UpdateId::new(format!("{}-{}", config.incarnation, self.updates)).ok()
    }

    fn container(&mut self, config: &Config) -> Option<ContainerId> {
        self.containers += 1;
        ContainerId::new(format!("{}-{}", config.incarnation, self.containers)).ok()
    }

    fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }
}

impl Supervisor {
    /// A supervisor that knows of nothing yet: its first input is [`Input::Recovered`].
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            agent_id: None,
            link: Link::default(),
            ids: Ids::default(),
            tasks: BTreeMap::new(),
            by_container: BTreeMap::new(),
            by_token: BTreeMap::new(),
            groups: BTreeMap::new(),
            touched: BTreeSet::new(),
            volumes: BTreeSet::new(),
            draining: false,
        }
    }

    /// Takes one input and pushes what is to be done about it.
    pub fn handle(&mut self, now: Timestamp, input: Input, effects: &mut Vec<Effect>) {
        self.take(now, input, effects);
        self.settle_groups(now, effects);
    }

    fn take(&mut self, now: Timestamp, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Recovered(recovered) => self.recover(now, recovered, effects),
            Input::Connected(link) => self.connected(now, link, effects),
            Input::Disconnected(link) => self.disconnected(link),
            Input::Master { link, message } => self.hear(now, link, message, effects),
            Input::Checkpointed(token) => self.checkpointed(now, token, effects),
            Input::Prepared { container, image } => {
                self.on_container(now, &container, effects, |task, turn| task.prepared(turn, image));
            }
            Input::PrepareFailed { container, reason, message } => {
                self.on_container(now, &container, effects, |task, turn| {
                    task.not_started(turn, reason, message)
                });
            }
            Input::Launched { container, pid, addresses } => {
                self.on_container(now, &container, effects, |task, turn| task.launched(turn, pid, addresses));
            }
            Input::LaunchFailed { container, message } => {
                let reason = Reason::LaunchFailed;
                self.on_container(now, &container, effects, |task, turn| {
                    task.not_started(turn, reason, message)
                });
            }
            Input::Exited { container, exited } => {
                self.on_container(now, &container, effects, |task, turn| task.exited(turn, &exited));
            }
            Input::Destroyed(container) => {
                self.on_container(now, &container, effects, Task::destroyed);
                self.admit_waiting(now, effects);
            }
            Input::Health { container, check, result } => {
                self.on_container(now, &container, effects, |task, turn| task.probed(turn, check, result));
            }
            Input::DiskLimit { container, limit, used } => {
                self.on_container(now, &container, effects, |task, turn| {
                    task.wrote_too_much(turn, limit, used)
                });
            }
            Input::KillAll { grace } => {
                self.draining = true;
                self.each_task(now, effects, |task, turn| {
                    let own = task.record().info.kill_grace.unwrap_or(turn.config.kill_grace);
                    task.kill(turn, KillCause::Requested, Some(own.min(grace)));
                });
            }
            Input::Tick => self.tick(now, effects),
        }
    }

    /// When to feed the next [`Input::Tick`], if nothing else happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.tasks.values().filter_map(Task::deadline).chain(self.link.deadline()).min()
    }

    /// The tasks that have, or will soon have, a container.
    #[must_use]
    pub fn live_tasks(&self) -> BTreeMap<TaskKey, LiveTask> {
        let live = self.tasks.iter().filter(|(_, task)| task.has_container());
        live.map(|(key, task)| (key.clone(), task.to_live_task())).collect()
    }

    /// Every task that is not forgotten.
    pub fn known_tasks(&self) -> impl Iterator<Item = &TaskKey> {
        self.tasks.keys()
    }

    /// Whose container this is.
    #[must_use]
    pub fn task_of(&self, container: &ContainerId) -> Option<&TaskKey> {
        self.by_container.get(container)
    }

    /// Who the agent is, once a master has said so.
    #[must_use]
    pub const fn agent_id(&self) -> Option<&AgentId> {
        self.agent_id.as_ref()
    }

    /// Whether a master has accepted the agent and still talks to it.
    #[must_use]
    pub const fn is_registered(&self) -> bool {
        self.link.registered().is_some()
    }

    fn recover(&mut self, now: Timestamp, recovered: Recovered, effects: &mut Vec<Effect>) {
        self.agent_id = recovered.agent.map(|agent| agent.agent_id);
        self.volumes = recovered.volumes;
        for (record, state) in recovered.tasks {
            let (key, container) = (record.key(), record.container.clone());
            let task = Task::recovered(&mut self.turn(now, effects), record, state);
            self.by_container.insert(container, key.clone());
            self.keep(key, task, effects);
        }
        let orphans = recovered.containers.into_iter().filter(|id| !self.by_container.contains_key(id));
        effects.extend(orphans.map(Effect::Destroy));
    }

    fn connected(&mut self, now: Timestamp, link: LinkId, effects: &mut Vec<Effect>) {
        self.lose_link();
        self.link.open(now, link, self.config.registration_timeout);
        let agent = AgentInfo { id: self.agent_id.clone(), ..self.config.agent.clone() };
        let tasks = self.tasks.values().filter(|task| !task.record().is_gone());
        let tasks = tasks.map(Task::to_agent_task).collect();
        effects.push(Effect::Send { link, message: AgentMessage::Register { agent, tasks } });
    }

    fn disconnected(&mut self, link: LinkId) {
        if self.link.is(link) {
            self.lose_link();
        }
    }

    fn lose_link(&mut self) {
        self.link.close();
        self.tasks.values_mut().for_each(Task::link_lost);
    }

    fn hear(&mut self, now: Timestamp, link: LinkId, message: MasterMessage, effects: &mut Vec<Effect>) {
        if !self.link.is(link) {
            return; // what an earlier stream brought is void
        }
        self.link.heard(now, self.config.missed_pings);
        match message {
            MasterMessage::Registered { agent_id, epoch, ping_interval } => {
                match self.link.registered_as(now, epoch, ping_interval, self.config.missed_pings) {
                    Ok(()) => self.registered(now, agent_id, effects),
                    Err(reason) => self.hang_up(link, reason, effects),
                }
            }
            MasterMessage::Error(error) => {
                if error == StreamError::Gone {
                    self.begin_anew(now, effects);
                }
                self.hang_up(link, error.to_string(), effects);
            }
            MasterMessage::Ping => effects.push(Effect::Send { link, message: AgentMessage::Pong }),
            message if self.is_registered() => self.obey(now, message, effects),
            _ => self.hang_up(link, "the master gave orders before the registration".to_owned(), effects),
        }
    }

    fn hang_up(&mut self, link: LinkId, reason: String, effects: &mut Vec<Effect>) {
        self.lose_link();
        effects.push(Effect::Disconnect { link, reason });
    }

    /// An operator has said that this agent will not come back, and its frameworks have replaced its tasks: all of them end
    /// here, and from the next stream on it is a new agent. Until that has its id, a crash begins this again.
    fn begin_anew(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(id) = self.agent_id.take() else { return };
        tracing::warn!(agent = %id, "the agent was declared gone: its tasks are killed, and it registers as a new agent");
        self.each_task(now, effects, |task, turn| task.kill(turn, KillCause::AgentGone, None));
        if !std::mem::take(&mut self.volumes).is_empty() {
            effects.push(Effect::SetVolumesAside(id));
        }
    }

    fn registered(&mut self, now: Timestamp, agent_id: AgentId, effects: &mut Vec<Effect>) {
        if self.agent_id.as_ref() != Some(&agent_id) {
            // Checkpoints become durable in order, so no launch is ever on disk without the id under which it came.
            let record = Record::Agent(AgentRecord { agent_id: agent_id.clone() });
            effects.push(Effect::Checkpoint { token: self.ids.token(), record });
            self.agent_id = Some(agent_id);
        }
        self.each_task(now, effects, |task, turn| {
            task.send_first(turn);
            // It may have ended since the stream began, and what was told then with it.
            task.tell_ended(turn);
        });
    }

    /// What only a master that has registered the agent may say.
    fn obey(&mut self, now: Timestamp, message: MasterMessage, effects: &mut Vec<Effect>) {
        match message {
            MasterMessage::Launch { framework_id, framework_name, task, allocation } => {
                self.launch(now, (framework_id, framework_name), (task, allocation), effects);
            }
            MasterMessage::Volumes(volumes) => {
                self.volumes = volumes.into_iter().map(|volume| volume.id).collect();
                effects.push(Effect::Volumes(self.volumes.clone()));
            }
            MasterMessage::Kill { framework_id, task_id, grace } => {
                let key = TaskKey { framework_id, task_id };
                let kill =
                    |task: &mut Task, turn: &mut Turn<'_>| task.kill(turn, KillCause::Requested, grace);
                if !self.on_task(now, &key, effects, kill) {
                    self.deny_knowledge(now, key, effects);
                }
            }
            MasterMessage::Acknowledge { framework_id, task_id, update_id } => {
                let key = TaskKey { framework_id, task_id };
                self.on_task(now, &key, effects, |task, turn| task.acknowledged(turn, &update_id));
            }
            MasterMessage::ShutdownFramework { framework_id } => {
                self.each_task(now, effects, |task, turn| {
                    if task.record().framework_id == framework_id {
                        task.kill(turn, KillCause::FrameworkRemoved, None);
                    }
                });
            }
            MasterMessage::Registered { .. } | MasterMessage::Ping | MasterMessage::Error(_) => {}
        }
    }

    fn launch(
        &mut self,
        now: Timestamp,
        (framework_id, framework_name): (FrameworkId, String),
        (info, allocation): (TaskInfo, Allocation),
        effects: &mut Vec<Effect>,
    ) {
        let key = TaskKey { framework_id: framework_id.clone(), task_id: info.id.clone() };
        if self.on_task(now, &key, effects, Task::repeat) {
            return; // the master repeats itself, or has lost our answer
        }
        let admission = self.admission(&info, allocation.revocable);
        let mut turn = self.turn(now, effects);
        let Some(container) = turn.ids.container(turn.config) else {
            return; // an incarnation is always a valid id
        };
        let record =
            TaskRecord::new(&mut turn, (framework_id, framework_name), (info, allocation), container.clone());
        let task = Task::admitted(&mut turn, record, admission);
        self.by_container.insert(container, key.clone());
        self.keep(key, task, effects);
    }

    /// Whether a task may start. The master has checked all this; its mistakes must not oversell the machine. It may count as
    /// free, however, what a task that is to end still holds: then the new one waits until that is gone.
    fn admission(&self, info: &TaskInfo, revocable: bool) -> Admission {
        if self.draining {
            let message = "the agent shuts down and takes no more tasks".to_owned();
            return Admission::Refused((TaskState::Dropped, Reason::AgentDisconnected, message));
        }
        let invalid = |message: String| Admission::Refused((TaskState::Error, Reason::TaskInvalid, message));
        if let Err(error) = environment::check(info) {
            return invalid(error.to_string());
        }
        if let Some(missing) = info.volumes.iter().find(|mount| !self.volumes.contains(&mount.id)) {
            let message = format!("volume {} is not on this agent", missing.id);
            return Admission::Refused((TaskState::Failed, Reason::LaunchFailed, message));
        }
        let room = self.without(revocable, Task::owns_resources);
        if !room.contains(&info.resources) {
            return invalid(format!("asks for {} where {} is free", info.resources, shown(&room)));
        }
        match self.without(revocable, Task::holds_resources).contains(&info.resources) {
            true => Admission::Now,
            false => Admission::Later,
        }
    }

    /// All that the agent has, of what is revocable or of what is not, without what some of its tasks have.
    fn without(&self, revocable: bool, which: impl Fn(&Task) -> bool) -> Resources {
        let agent = &self.config.agent;
        let all = if revocable { &agent.revocable } else { &agent.resources };
        let alike = |task: &&Task| task.record().allocation.revocable == revocable;
        let tasks = self.tasks.values().filter(alike).filter(|task| which(task));
        tasks.fold(all.clone(), |rest, task| rest.saturating_sub(&task.record().info.resources))
    }

    /// Starts the tasks that waited for what has just become free.
    fn admit_waiting(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let waiting = self.tasks.iter().filter(|(_, task)| task.waits()).map(|(key, _)| key.clone());
        for key in waiting.collect::<Vec<_>>() {
            let fits = |task: &Task| {
                let record = task.record();
                let room = self.without(record.allocation.revocable, Task::holds_resources);
                room.contains(&record.info.resources)
            };
            if self.tasks.get(&key).is_some_and(fits) {
                self.on_task(now, &key, effects, Task::admit);
            }
        }
    }

    /// The answer to a kill of a task that is not here, so that nobody waits for ever. Either the task has ended and all
    /// was acknowledged, and the master knows that already; or its launch never came, and DROPPED is what it is. Nobody
    /// need acknowledge this: a kill that still waits is repeated.
    fn deny_knowledge(&self, now: Timestamp, key: TaskKey, effects: &mut Vec<Effect>) {
        let Some(link) = self.link.registered() else { return };
        let status = TaskStatus {
            task_id: key.task_id,
            agent_id: self.agent_id.clone(),
            state: TaskState::Dropped,
            reason: Reason::Reconciliation,
            source: Source::Agent,
            message: "the agent does not know this task".to_owned(),
            time: now,
            update_id: None,
            healthy: None,
            container: ContainerStatus::default(),
        };
        let message = AgentMessage::Update { framework_id: key.framework_id, status };
        effects.push(Effect::Send { link, message });
    }

    fn checkpointed(&mut self, now: Timestamp, token: Token, effects: &mut Vec<Effect>) {
        if let Some(key) = self.by_token.remove(&token) {
            self.on_task(now, &key, effects, |task, turn| task.checkpointed(turn, token));
        }
    }

    fn tick(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if let Some(link) = self.link.silent(now) {
            self.hang_up(link, "the master has fallen silent".to_owned(), effects);
        }
        self.each_task(now, effects, Task::tick);
    }

    fn on_container(
        &mut self,
        now: Timestamp,
        container: &ContainerId,
        effects: &mut Vec<Effect>,
        act: impl FnOnce(&mut Task, &mut Turn<'_>),
    ) {
        if let Some(key) = self.by_container.get(container).cloned() {
            self.on_task(now, &key, effects, act);
        }
    }

    fn each_task(
        &mut self,
        now: Timestamp,
        effects: &mut Vec<Effect>,
        mut act: impl FnMut(&mut Task, &mut Turn<'_>),
    ) {
        let keys: Vec<TaskKey> = self.tasks.keys().cloned().collect();
        for key in keys {
            self.on_task(now, &key, effects, &mut act);
        }
    }

    /// Whether there is such a task.
    fn on_task(
        &mut self,
        now: Timestamp,
        key: &TaskKey,
        effects: &mut Vec<Effect>,
        act: impl FnOnce(&mut Task, &mut Turn<'_>),
    ) -> bool {
        let Some((key, mut task)) = self.tasks.remove_entry(key) else { return false };
        act(&mut task, &mut self.turn(now, effects));
        self.keep(key, task, effects);
        true
    }

    /// Puts a task back after it has handled an input, unless it is over.
    fn keep(&mut self, key: TaskKey, task: Task, effects: &mut Vec<Effect>) {
        let group = group::key_of(&task);
        self.touched.extend(group.clone());
        if task.is_forgotten() {
            self.leave(group, &key);
            self.by_container.remove(&task.record().container);
            effects.push(Effect::Forget(task.record().container.clone()));
            return;
        }
        if let Some(token) = task.unwritten() {
            self.by_token.insert(token, key.clone());
        }
        if let Some(group) = group {
            self.groups.entry(group).or_default().insert(key.clone());
        }
        self.tasks.insert(key, task);
    }

    fn leave(&mut self, group: Option<GroupKey>, task: &TaskKey) {
        let Some(group) = group else { return };
        if let Some(members) = self.groups.get_mut(&group) {
            members.remove(task);
            if members.is_empty() {
                self.groups.remove(&group);
            }
        }
    }

    fn turn<'a>(&'a mut self, now: Timestamp, effects: &'a mut Vec<Effect>) -> Turn<'a> {
        Turn {
            now,
            config: &self.config,
            agent_id: self.agent_id.as_ref(),
            link: self.link.registered(),
            ids: &mut self.ids,
            effects,
        }
    }
}

fn shown(resources: &Resources) -> String {
    match resources.to_string() {
        text if text.is_empty() => "nothing".to_owned(),
        text => text,
    }
}
