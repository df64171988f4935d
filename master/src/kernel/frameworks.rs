//! Frameworks: how they subscribe, fail over, disconnect and end. What they ask for is in `calls`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use divvy_proto::Invalid;
use divvy_proto::agent::MasterMessage;
use divvy_proto::api::FrameworkState;
use divvy_proto::ids::{AgentId, CallId, FrameworkId, OfferId, TaskId};
use divvy_proto::role::RolePath;
use divvy_proto::scheduler::{DEFAULT_FAILOVER_TIMEOUT, Event, FrameworkInfo, Outcome, Refusal, StreamError};
use divvy_proto::task::{Reason, TaskState};
use divvy_proto::time::Timestamp;

use super::allocator::Wish;
use super::registry::{Asker, Awaited};
use super::task_ids::UsedIds;
use super::tasks::Task;
use super::{Effect, Effects, Kernel, LinkId, Peer, RegistryChange, Timer};

/// So many answers are kept, so that a call which is repeated after a reconnect has no second effect.
const ANSWERS_KEPT: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connection {
    /// The failover timeout runs.
    Disconnected,
    /// The subscription is on the way to the store.
    Subscribing { link: LinkId },
    /// Calls are taken and events are sent.
    Connected { link: LinkId },
}

impl Connection {
    fn link(self) -> Option<LinkId> {
        match self {
            Self::Disconnected => None,
            Self::Subscribing { link } | Self::Connected { link } => Some(link),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Framework {
    pub(super) info: FrameworkInfo,
    pub(super) connection: Connection,
    /// Since when it is connected or not, or has ended.
    pub(super) since: Timestamp,
    pub(super) suppressed: BTreeSet<RolePath>,
    /// Roles of which the allocator has a demand.
    pub(super) demanding: BTreeSet<RolePath>,
    /// One that never heard its id can never come back.
    pub(super) was_told_its_id: bool,
    /// Its end is on the way to the store.
    pub(super) retiring: bool,
    pub(super) retired: bool,
    /// Tasks that have not ended, or whose end has not been acknowledged.
    pub(super) tasks: BTreeMap<TaskId, Task>,
    /// How many of them have not ended.
    pub(super) live: usize,
    /// The latest that have ended. Their ids are still taken.
    pub(super) ended: BTreeMap<TaskId, Task>,
    ended_in_order: VecDeque<TaskId>,
    /// The ids of all tasks that have ended, as the registry has them or will.
    pub(super) used_ids: UsedIds,
    pub(super) offers: BTreeSet<OfferId>,
    /// Calls whose answer waits for the store.
    unanswered: BTreeSet<CallId>,
    answers: BTreeMap<CallId, Outcome>,
    answers_in_order: VecDeque<CallId>,
}

impl Framework {
    pub(super) fn new(info: FrameworkInfo, connection: Connection, since: Timestamp) -> Self {
        Self {
            info,
            connection,
            since,
            suppressed: BTreeSet::new(),
            demanding: BTreeSet::new(),
            was_told_its_id: false,
            retiring: false,
            retired: false,
            tasks: BTreeMap::new(),
            live: 0,
            ended: BTreeMap::new(),
            ended_in_order: VecDeque::new(),
            used_ids: UsedIds::default(),
            offers: BTreeSet::new(),
            unanswered: BTreeSet::new(),
            answers: BTreeMap::new(),
            answers_in_order: VecDeque::new(),
        }
    }

    pub(super) fn state(&self) -> FrameworkState {
        match self.connection {
            _ if self.retired => FrameworkState::Completed,
            Connection::Connected { .. } => FrameworkState::Active,
            _ => FrameworkState::Disconnected,
        }
    }

    pub(super) fn is_on(&self, link: LinkId) -> bool {
        self.connection.link() == Some(link)
    }

    /// The stream on which it is told things.
    pub(super) fn link(&self) -> Option<LinkId> {
        self.is_connected().then(|| self.connection.link()).flatten()
    }

    pub(super) fn is_connected(&self) -> bool {
        matches!(self.connection, Connection::Connected { .. })
    }

    /// The roles in which it wants offers while it is connected.
    pub(super) fn wanted_roles(&self) -> BTreeSet<RolePath> {
        self.info.roles.iter().filter(|role| !self.suppressed.contains(role)).cloned().collect()
    }

    /// What the registry holds of it.
    pub(super) fn record(&self, id: &FrameworkId) -> RegistryChange {
        let retired = self.retired || self.retiring;
        let is_away = retired || self.connection == Connection::Disconnected;
        let disconnected = is_away.then_some(self.since);
        RegistryChange::PutFramework { id: id.clone(), info: self.info.clone(), disconnected, retired }
    }

    /// Lists an ended task, and takes out those that are no longer listed for it.
    pub(super) fn keep_ended(&mut self, task: Task, kept: usize) -> Vec<Task> {
        self.ended_in_order.push_back(task.info.id.clone());
        self.ended.insert(task.info.id.clone(), task);
        let surplus = self.ended_in_order.len().saturating_sub(kept);
        let dropped = self.ended_in_order.drain(..surplus);
        dropped.filter_map(|id| self.ended.remove(&id)).collect()
    }

    /// Whether a task is known, and on another agent than this.
    pub(super) fn lives_elsewhere(&self, task: &TaskId, agent: &AgentId) -> bool {
        let known = self.tasks.get(task).or_else(|| self.ended.get(task));
        known.is_some_and(|task| task.agent != *agent)
    }

    pub(super) fn answer_to(&self, call: &CallId) -> Option<&Outcome> {
        self.answers.get(call)
    }

    /// Whether a call has been taken and its answer waits for the store.
    pub(super) fn is_at_work_on(&self, call: &CallId) -> bool {
        self.unanswered.contains(call)
    }

    pub(super) fn answers_later(&mut self, call: CallId) {
        self.unanswered.insert(call);
    }

    pub(super) fn keep_answer(&mut self, call: CallId, outcome: Outcome) {
        self.unanswered.remove(&call);
        if self.answers.insert(call.clone(), outcome).is_none() {
            self.answers_in_order.push_back(call);
        }
        if self.answers_in_order.len() > ANSWERS_KEPT
            && let Some(oldest) = self.answers_in_order.pop_front()
        {
            self.answers.remove(&oldest);
        }
    }
}

/// Checks what a framework says of itself.
pub(super) fn check_info(info: &FrameworkInfo, suppressed: &[RolePath]) -> Result<(), Invalid> {
    if info.roles.is_empty() {
        return Err(Invalid::missing("framework.roles", "at least one role"));
    }
    let roles: BTreeSet<&RolePath> = info.roles.iter().collect();
    if roles.len() != info.roles.len() {
        let all: Vec<&str> = info.roles.iter().map(RolePath::as_str).collect();
        return Err(Invalid::new("framework.roles", all.join(","), "each role once"));
    }
    match suppressed.iter().find(|role| !roles.contains(role)) {
        Some(role) => Err(Invalid::new("suppressed", role, "one of the framework's roles")),
        None => Ok(()),
    }
}

impl Kernel {
    /// The first call on a stream, or a later one that should not be there.
    pub(super) fn subscribe(
        &mut self,
        now: Timestamp,
        link: LinkId,
        info: FrameworkInfo,
        suppressed: Vec<RolePath>,
        out: &mut Effects,
    ) {
        if let Err(invalid) = check_info(&info, &suppressed) {
            return self.refuse_link(now, link, invalid, out);
        }
        let id = match info.id.clone() {
            None => self.new_framework(now, link, info, out),
            Some(id) => match self.frameworks.get(&id) {
                None => return self.refuse_link(now, link, Refusal::UnknownFramework(id), out),
                Some(framework) if framework.retired || framework.retiring => {
                    out.push(Effect::Close { link, error: StreamError::TornDown });
                    return;
                }
                Some(_) => self.old_framework(now, link, id, info, out),
            },
        };
        if let Some(framework) = self.frameworks.get_mut(&id) {
            framework.suppressed = suppressed.into_iter().collect();
        }
        self.links.insert(link, Peer::Framework(id.clone()));
        self.changes.framework(&id);
        if self.frameworks.get(&id).is_some_and(Framework::is_connected) {
            self.subscribed(now, &id, out);
        }
    }

    fn new_framework(
        &mut self,
        now: Timestamp,
        link: LinkId,
        info: FrameworkInfo,
        out: &mut Effects,
    ) -> FrameworkId {
        let id = self.next_framework_id();
        let info = FrameworkInfo { id: Some(id.clone()), ..info };
        self.frameworks.insert(id.clone(), Framework::new(info, Connection::Subscribing { link }, now));
        self.persist_framework(&id, Some(Awaited::Subscribed(id.clone(), link)), out);
        id
    }

    fn next_framework_id(&mut self) -> FrameworkId {
        loop {
            let text = format!("f{}-{}", self.config.epoch, self.made.frameworks);
            self.made.frameworks += 1;
            if let Ok(id) = FrameworkId::new(text)
                && !self.frameworks.contains_key(&id)
            {
                return id;
            }
        }
    }

    /// Takes over from whoever subscribed with this id before.
    fn old_framework(
        &mut self,
        now: Timestamp,
        link: LinkId,
        id: FrameworkId,
        info: FrameworkInfo,
        out: &mut Effects,
    ) -> FrameworkId {
        let Some(framework) = self.frameworks.get_mut(&id) else { return id };
        let was_connected = framework.is_connected();
        if let Some(old) = framework.connection.link() {
            self.links.remove(&old);
            out.push(Effect::Close { link: old, error: StreamError::TakenOver });
        }
        let must_be_persisted = !was_connected || framework.info != info;
        let leaves = removed_roles(&framework.info.roles, &info.roles);
        framework.info = info;
        framework.connection = match must_be_persisted {
            true => Connection::Subscribing { link },
            false => Connection::Connected { link },
        };
        self.forget_wishes(now, &id, &leaves);
        if must_be_persisted {
            self.persist_framework(&id, Some(Awaited::Subscribed(id.clone(), link)), out);
        }
        id
    }

    /// The store has the subscription.
    pub(super) fn subscription_stands(
        &mut self,
        now: Timestamp,
        id: &FrameworkId,
        link: LinkId,
        out: &mut Effects,
    ) {
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        if framework.connection == (Connection::Subscribing { link }) && !framework.retiring {
            framework.connection = Connection::Connected { link };
            self.subscribed(now, id, out);
        }
    }

    /// The framework is told, and hears at once what it has missed and not acknowledged.
    fn subscribed(&mut self, now: Timestamp, id: &FrameworkId, out: &mut Effects) {
        let (epoch, heartbeat) = (self.config.epoch, self.config.heartbeat);
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        framework.was_told_its_id = true;
        framework.since = now;
        let missed = framework.tasks.values().filter(|task| task.unacknowledged);
        let missed: Vec<_> = missed.map(|task| task.status.clone()).collect();
        self.timers.cancel(&Timer::Failover(id.clone()));
        self.timers.set(Timer::Heartbeat(id.clone()), now + heartbeat);
        self.changes.framework(id);
        self.tell(id, Event::Subscribed { framework_id: id.clone(), epoch, heartbeat }, out);
        missed.into_iter().for_each(|status| self.tell(id, Event::Update(status), out));
        self.repeat_inverse_offers(id, out);
        self.sync_wishes(now, id);
    }

    /// Makes the allocator believe what the framework wants now. What it has stated as demand stands.
    pub(super) fn sync_wishes(&mut self, now: Timestamp, id: &FrameworkId) {
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        let is_there = framework.is_connected() && !framework.retiring;
        framework.demanding.retain(|role| {
            is_there && framework.info.roles.contains(role) && !framework.suppressed.contains(role)
        });
        for role in &framework.info.roles {
            let client = self.allocator.client(id, role);
            if !is_there || framework.suppressed.contains(role) {
                self.allocator.set_wish(now, client, Wish::Nothing);
            } else if !framework.demanding.contains(role) {
                self.allocator.set_wish(now, client, Wish::Anything);
            }
        }
        self.allocator.set_capabilities(id, &framework.info.capabilities);
    }

    /// Takes back what a framework holds as offers, and forgets what it refused: neither outlives its connection.
    fn forget_wishes(&mut self, now: Timestamp, id: &FrameworkId, former_roles: &[RolePath]) {
        let Some(framework) = self.frameworks.get(id) else { return };
        let roles: Vec<RolePath> = framework.info.roles.iter().chain(former_roles).cloned().collect();
        for role in roles {
            let client = self.allocator.client(id, &role);
            self.allocator.set_wish(now, client, Wish::Nothing);
            self.allocator.clear_client_filters(client);
        }
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        framework.demanding.clear();
        framework.offers.clone().into_iter().for_each(|offer| drop(self.take_offer(offer, 0)));
    }

    /// Its stream has ended.
    pub(super) fn framework_left(
        &mut self,
        now: Timestamp,
        id: &FrameworkId,
        link: LinkId,
        out: &mut Effects,
    ) {
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        if framework.connection.link() != Some(link) {
            return;
        }
        framework.connection = Connection::Disconnected;
        if !framework.retiring {
            framework.since = now;
        }
        let (deadline, can_return) = (now + framework.info.failover_timeout, framework.was_told_its_id);
        self.forget_wishes(now, id, &[]);
        self.timers.cancel(&Timer::Heartbeat(id.clone()));
        self.changes.framework(id);
        if self.frameworks.get(id).is_some_and(|framework| framework.retiring) {
            return;
        }
        if can_return {
            self.timers.set(Timer::Failover(id.clone()), deadline);
            self.persist_framework(id, None, out);
        } else {
            self.retire(now, id, None, out);
        }
    }

    pub(super) fn heartbeat(&mut self, now: Timestamp, id: &FrameworkId, out: &mut Effects) {
        if self.frameworks.get(id).is_some_and(Framework::is_connected) {
            self.tell(id, Event::Heartbeat, out);
            self.timers.set(Timer::Heartbeat(id.clone()), now + self.config.heartbeat);
        }
    }

    pub(super) fn failover_timeout(&mut self, now: Timestamp, id: &FrameworkId, out: &mut Effects) {
        let is_away = |f: &Framework| f.connection == Connection::Disconnected && !f.retiring;
        if self.frameworks.get(id).is_some_and(is_away) {
            self.retire(now, id, None, out);
        }
    }

    /// Begins the end of a framework: from here on it is given nothing; it ends once the store has it.
    pub(super) fn retire(
        &mut self,
        now: Timestamp,
        id: &FrameworkId,
        asker: Option<Asker>,
        out: &mut Effects,
    ) {
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        framework.retiring = true;
        framework.since = now;
        self.timers.cancel(&Timer::Failover(id.clone()));
        self.forget_wishes(now, id, &[]);
        self.persist_framework(id, Some(Awaited::Retired(id.clone(), asker)), out);
    }

    /// The store has the end of a framework: its tasks are killed, and its id is never used again.
    pub(super) fn retired(
        &mut self,
        now: Timestamp,
        id: &FrameworkId,
        asker: Option<Asker>,
        out: &mut Effects,
    ) {
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        framework.retired = true;
        framework.used_ids = UsedIds::default();
        let link = framework.connection.link();
        let keys: Vec<_> = framework.tasks.keys().map(|task| (id.clone(), task.clone())).collect();
        if let (Some(Asker::Framework(call)), Some(_)) = (&asker, link) {
            self.answer_later(id, call.clone(), Outcome::Accepted, out);
        }
        if let Some(framework) = self.frameworks.get_mut(id) {
            framework.connection = Connection::Disconnected;
        }
        if let Some(link) = link {
            self.links.remove(&link);
            out.push(Effect::Close { link, error: StreamError::TornDown });
        }
        if let Some(Asker::Operator(request)) = asker {
            out.push(Effect::Answer { request, result: Ok(()) });
        }
        self.timers.cancel(&Timer::Heartbeat(id.clone()));
        self.changes.framework(id);

        let agents: BTreeSet<_> =
            keys.iter().filter_map(|key| self.task_ref(key)).map(|task| task.agent.clone()).collect();
        for agent in agents {
            self.tell_agent(&agent, MasterMessage::ShutdownFramework { framework_id: id.clone() }, out);
        }
        for key in keys {
            self.close_task(now, &key, out);
        }
        self.forget_surplus(out);
    }

    /// A task of a framework that is no more. Nobody is left to acknowledge anything.
    fn close_task(&mut self, now: Timestamp, key: &super::TaskKey, out: &mut Effects) {
        if self.task_ref(key).is_some_and(Task::is_live) {
            let message = "its framework was torn down";
            self.say_of_task(now, key, TaskState::Killed, Reason::FrameworkRemoved, message, out);
        } else {
            self.end_task(key);
        }
    }

    /// A framework that only its tasks speak of: the registry was lost. It may come back under its id until the default
    /// failover timeout has passed.
    pub(super) fn know_framework(&mut self, now: Timestamp, id: &FrameworkId, out: &mut Effects) {
        if self.frameworks.contains_key(id) {
            return;
        }
        let info = FrameworkInfo {
            id: Some(id.clone()),
            name: id.to_string(),
            user: None,
            roles: vec![RolePath::default()],
            principal: None,
            failover_timeout: DEFAULT_FAILOVER_TIMEOUT,
            url: None,
            labels: BTreeMap::new(),
            capabilities: Default::default(),
        };
        self.timers.set(Timer::Failover(id.clone()), now + info.failover_timeout);
        let mut framework = Framework::new(info, Connection::Disconnected, now);
        framework.was_told_its_id = true;
        self.frameworks.insert(id.clone(), framework);
        self.changes.framework(id);
        self.persist_framework(id, None, out);
    }
}

/// The roles that a framework leaves.
pub(super) fn removed_roles(before: &[RolePath], after: &[RolePath]) -> Vec<RolePath> {
    before.iter().filter(|role| !after.contains(role)).cloned().collect()
}
