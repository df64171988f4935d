//! Agents: how they are admitted, come back, are taken over and leave. Their silence is judged in `pings`.

use std::collections::BTreeSet;

use divvy_proto::Invalid;
use divvy_proto::agent::{AgentInfo, AgentMessage, MasterMessage};
use divvy_proto::api::AgentState;
use divvy_proto::ids::{AgentId, FrameworkId};
use divvy_proto::resources::Resources;
use divvy_proto::scheduler::StreamError;
use divvy_proto::task::{AgentTask, TaskState};
use divvy_proto::time::Timestamp;

use super::allocator::{AgentIx, Facts};
use super::holdings::check_fixed;
use super::maintenance::Upkeep;
use super::offers::OfferSet;
use super::registry::{Awaited, Joining};
use super::reservations::Owned;
use super::{Absence, Effect, Effects, Kernel, LinkId, Peer, PersistToken, RequestId, TaskKey, Timer};

#[derive(Debug, Clone)]
pub(super) struct Agent {
    pub(super) info: AgentInfo,
    pub(super) slot: AgentIx,
    pub(super) standing: AgentState,
    /// Since when it stands so.
    pub(super) since: Timestamp,
    /// Its stream, once it is registered on it.
    pub(super) link: Option<LinkId>,
    /// The stream on which it is coming back.
    pub(super) joining: Option<LinkId>,
    /// When the first unanswered ping was sent, or the stream ended.
    pub(super) silent_since: Option<Timestamp>,
    /// As what its silence is counted.
    pub(super) silence: Option<u64>,
    /// Its mark as unreachable is on the way to the store.
    pub(super) marking: bool,
    /// Its mark as gone is on the way to the store.
    pub(super) condemned: bool,
    /// Who waits for that.
    pub(super) condemned_by: Vec<RequestId>,
    /// Whether it is offered, or to be emptied.
    pub(super) upkeep: Upkeep,
    /// It would be marked, were it not silent together with so many others.
    pub(super) held_back: bool,
    /// Tasks that have not ended, or whose end has not been acknowledged.
    pub(super) tasks: BTreeSet<TaskKey>,
    pub(super) offers: OfferSet,
    /// What of it is reserved, and its volumes.
    pub(super) owned: Owned,
}

impl Agent {
    pub(super) fn new(info: AgentInfo, slot: AgentIx, standing: AgentState, since: Timestamp) -> Self {
        Self {
            info,
            slot,
            standing,
            since,
            link: None,
            joining: None,
            silent_since: None,
            silence: None,
            marking: false,
            condemned: false,
            condemned_by: Vec::new(),
            upkeep: Upkeep::default(),
            held_back: false,
            tasks: BTreeSet::new(),
            offers: OfferSet::default(),
            owned: Owned::default(),
        }
    }

    /// Whether the registry must hear that the agent is there, or what it is.
    fn must_be_persisted(&self, info: &AgentInfo) -> bool {
        self.info != *info || self.marking || self.standing == AgentState::Unreachable
    }
}

impl Kernel {
    pub(super) fn agent_says(
        &mut self,
        now: Timestamp,
        link: LinkId,
        message: AgentMessage,
        out: &mut Effects,
    ) {
        match (self.links.get(&link).cloned(), message) {
            (None, AgentMessage::Register { agent, tasks }) => self.register(now, link, agent, tasks, out),
            (None, _) => self.refuse_link(now, link, "the first message of an agent is Register", out),
            (Some(_), AgentMessage::Register { .. }) => {
                self.refuse_link(now, link, "this stream is already registered", out);
            }
            (Some(Peer::Agent(id)), AgentMessage::Pong) => self.heard_from(now, &id),
            (Some(Peer::Agent(id)), AgentMessage::Update { framework_id, status }) => {
                self.heard_from(now, &id);
                self.update_from_agent(&id, framework_id, status, out);
            }
            (Some(Peer::Agent(id)), AgentMessage::Ended { framework_id, task_id }) => {
                self.heard_from(now, &id);
                self.task_holds_nothing(&id, &(framework_id, task_id));
            }
            // It cannot know its id yet; what it has to say it repeats.
            (Some(Peer::JoiningAgent(_)), _) => {}
            (Some(Peer::Framework(_)), _) => {
                self.refuse_link(now, link, "a framework does not speak as an agent", out);
            }
        }
    }

    fn register(
        &mut self,
        now: Timestamp,
        link: LinkId,
        info: AgentInfo,
        tasks: Vec<AgentTask>,
        out: &mut Effects,
    ) {
        if let Err(invalid) = check_fixed(&info).and_then(|()| self.check_report(info.id.as_ref(), &tasks)) {
            return self.refuse_link(now, link, invalid, out);
        }
        let Some(id) = info.id.clone() else {
            let id = self.next_agent_id();
            let info = AgentInfo { id: Some(id.clone()), ..info };
            return self.join(Joining { id, link, info, tasks }, out);
        };
        match self.agents.get(&id) {
            None => {
                let why = format!("agent id {id} was not given out by this master's registry");
                self.refuse_link(now, link, why, out);
            }
            Some(agent) if agent.standing == AgentState::Gone => {
                out.push(Effect::Close { link, error: StreamError::Gone });
            }
            // Not durable yet, and the agent would kill everything: it tries again.
            Some(agent) if agent.condemned => {
                self.refuse_link(now, link, format!("agent {id} is being declared gone"), out);
            }
            Some(agent) => {
                let must_be_persisted = agent.must_be_persisted(&info);
                self.take_over_agent(now, &id, out);
                let joining = Joining { id, link, info, tasks };
                match must_be_persisted {
                    true => self.join(joining, out),
                    false => self.registered(now, joining, out),
                }
            }
        }
    }

    /// No id is made twice, also where the registry knows ids of this very epoch.
    fn next_agent_id(&mut self) -> AgentId {
        loop {
            let text = format!("a{}-{}", self.config.epoch, self.made.agents);
            self.made.agents += 1;
            if let Ok(id) = AgentId::new(text)
                && !self.agents.contains_key(&id)
            {
                return id;
            }
        }
    }

    fn join(&mut self, joining: Joining, out: &mut Effects) {
        let (id, link, info) = (joining.id.clone(), joining.link, joining.info.clone());
        let token = self.persist_joining(joining, out);
        self.links.insert(link, Peer::JoiningAgent(token));
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.joining = Some(link);
            // From here on every record of it says so too. What it has counts once it is back.
            agent.info = info;
            self.allocator.set_facts(agent.slot, facts(&agent.info));
        }
    }

    /// The later stream of an agent is the true one.
    fn take_over_agent(&mut self, now: Timestamp, id: &AgentId, out: &mut Effects) {
        let Some(agent) = self.agents.get_mut(id) else { return };
        for link in [agent.link.take(), agent.joining.take()].into_iter().flatten() {
            self.links.remove(&link);
            out.push(Effect::Close { link, error: StreamError::TakenOver });
        }
        self.suspect(now, id, out);
    }

    /// The store has the agent.
    pub(super) fn admit(&mut self, now: Timestamp, token: PersistToken, joining: Joining, out: &mut Effects) {
        let is_there = self.links.get(&joining.link) == Some(&Peer::JoiningAgent(token));
        let is_new = !self.agents.contains_key(&joining.id);
        if is_new {
            self.add_agent(joining.id.clone(), joining.info.clone(), AgentState::Recovering, now);
        }
        let Some(agent) = self.agents.get_mut(&joining.id) else { return };
        if is_there {
            agent.joining = None;
            self.registered(now, joining, out);
        } else if is_new {
            // Its stream has ended meanwhile. It will never learn this id; it is shown, and given up in time.
            self.set_standing(now, &joining.id, AgentState::Suspected);
            self.suspect(now, &joining.id, out);
        } else {
            // It left again before it was back, but the store now says that it is there.
            let absence = Absence::Unreachable(agent.since);
            if agent.standing == AgentState::Unreachable && agent.joining.is_none() && !agent.condemned {
                self.persist_absence(&joining.id, absence, None, out);
            }
        }
    }

    pub(super) fn add_agent(&mut self, id: AgentId, info: AgentInfo, standing: AgentState, since: Timestamp) {
        let slot = self.allocator.add_agent(id.clone(), facts(&info));
        let replaced = self.agents.insert(id.clone(), Agent::new(info, slot, standing, since));
        self.sync_total(&id);
        self.silences.shift(replaced.as_ref().and_then(|agent| agent.silence), None);
        self.note_silence(&id);
        self.tally.agent(replaced.map(|agent| agent.standing), Some(standing));
        self.changes.agent(&id);
    }

    /// The registration stands: the agent is told, its tasks are compared with ours, its resources exist.
    fn registered(&mut self, now: Timestamp, joining: Joining, out: &mut Effects) {
        let Joining { id, link, info, tasks } = joining;
        let Some(agent) = self.agents.get_mut(&id) else { return };
        let was_unreachable = agent.standing == AgentState::Unreachable;
        agent.info = info;
        agent.link = Some(link);
        agent.silent_since = None;
        agent.marking = false;
        self.tally.hold_back(std::mem::take(&mut agent.held_back), false);
        self.links.insert(link, Peer::Agent(id.clone()));
        let (epoch, ping_interval) = (self.config.epoch, self.config.ping_interval);
        let message = MasterMessage::Registered { agent_id: id.clone(), epoch, ping_interval };
        out.push(Effect::ToAgent { link, message });
        self.tell_volumes(&id, out);
        self.timers.set(Timer::Agent(id.clone()), now + ping_interval);

        self.sync_total(&id);
        self.set_standing(now, &id, AgentState::Active);
        self.compare_tasks(now, &id, tasks, was_unreachable, out);
        self.upkeep_due(&id);
        self.revoke(now, &id);
    }

    /// Its stream has ended.
    pub(super) fn agent_left(&mut self, now: Timestamp, id: &AgentId, out: &mut Effects) {
        if let Some(agent) = self.agents.get_mut(id) {
            agent.link = None;
            self.suspect(now, id, out);
        }
    }

    /// The stream of an agent that was coming back has ended.
    pub(super) fn joining_left(&mut self, token: PersistToken, link: LinkId) {
        let Some(Awaited::Agent(joining)) = self.awaited.get(&token) else { return };
        if let Some(agent) = self.agents.get_mut(&joining.id)
            && agent.joining == Some(link)
        {
            agent.joining = None;
        }
    }

    /// The one place in which an agent's standing changes.
    pub(super) fn set_standing(&mut self, now: Timestamp, id: &AgentId, standing: AgentState) {
        let Some(agent) = self.agents.get_mut(id) else { return };
        let is_counted = matches!(standing, AgentState::Active | AgentState::Suspected);
        let is_offered = standing == AgentState::Active && agent.upkeep.is_offered();
        self.allocator.set_standing(agent.slot, is_offered, is_counted);
        if agent.standing != standing {
            self.tally.agent(Some(agent.standing), Some(standing));
            agent.standing = standing;
            agent.since = now;
            self.changes.agent(id);
        }
        self.note_silence(id);
    }

    /// Tells an agent, if it is connected.
    pub(super) fn tell_agent(&self, id: &AgentId, message: MasterMessage, out: &mut Effects) -> bool {
        let link = self.agents.get(id).and_then(|agent| agent.link);
        out.extend(link.map(|link| Effect::ToAgent { link, message }));
        link.is_some()
    }

    /// Whether an agent can run what it says it runs: each task once, in a state that an agent can see, and all of their
    /// resources together. What has ended for this master is left out, as its resources may be somebody else's by now.
    fn check_report(&self, agent: Option<&AgentId>, tasks: &[AgentTask]) -> Result<(), Invalid> {
        let mut seen: BTreeSet<(&FrameworkId, _)> = BTreeSet::new();
        let mut used = Resources::new();
        for (at, task) in tasks.iter().enumerate() {
            let field = |name: &str| format!("register.tasks[{at}].{name}");
            if !seen.insert((&task.framework_id, &task.info.id)) {
                return Err(Invalid::new(field("info.id"), &task.info.id, "each task once"));
            }
            if task.status.task_id != task.info.id {
                return Err(Invalid::new(field("status.task_id"), &task.status.task_id, "the task's own id"));
            }
            if matches!(task.status.state, TaskState::Unreachable | TaskState::Unknown) {
                let expected = "a state that an agent can see";
                return Err(Invalid::new(field("status.state"), task.status.state, expected));
            }
            if !task.status.state.is_terminal() && !self.has_ended(task) {
                used = self.beside(agent, used, task).map_err(|invalid| invalid.within(field("info")))?;
            }
        }
        Ok(())
    }

    /// Whether a task that an agent reports has ended for this master.
    fn has_ended(&self, task: &AgentTask) -> bool {
        let id = &task.info.id;
        self.frameworks.get(&task.framework_id).is_some_and(|framework| {
            framework.retired
                || framework.ended.contains_key(id)
                || framework.used_ids.contains(id)
                || framework.tasks.get(id).is_some_and(|known| !known.still_runs())
        })
    }

    /// What is used with one more task, which may not be another than was launched there. One of the same name that was
    /// launched elsewhere says nothing about it.
    fn beside(
        &self,
        agent: Option<&AgentId>,
        used: Resources,
        task: &AgentTask,
    ) -> Result<Resources, Invalid> {
        let found = &task.info.resources;
        let known = self.task_ref(&(task.framework_id.clone(), task.info.id.clone()));
        let known = known.filter(|known| Some(&known.agent) == agent);
        if let Some(known) = known.filter(|known| known.info.resources != *found) {
            let expected = format!("{}, as it was launched", known.info.resources);
            return Err(Invalid::new("resources", found, expected));
        }
        let expected = "what tasks can hold side by side on one agent";
        used.checked_add(found).ok_or_else(|| Invalid::new("resources", found, expected))
    }
}

/// What constraints are asked about.
fn facts(info: &AgentInfo) -> Facts {
    Facts { hostname: info.hostname.clone(), attributes: info.attributes.clone().into() }
}
