//! A cluster for tests of the kernel: agents that answer pings and remember their tasks, frameworks that do nothing of
//! themselves, a store that answers at once unless it is told not to, and a clock that moves when a test says so.
//!
//! Every verb ends with a finished turn. [`Cluster::story`] is everything that the kernel did since it was last asked, one
//! line an effect. Changes for watchers, pings and heartbeats are left out unless asked for: they have tests of their own.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use divvy_proto::agent::{AgentInfo, AgentMessage};
use divvy_proto::api::Change;
use divvy_proto::ids::{AgentId, CallId, FrameworkId, OfferId, TaskId, UpdateId};
use divvy_proto::resources::Resources;
use divvy_proto::scheduler::{Call, CallBody, Filters, FrameworkInfo, OfferInfo, Operation};
use divvy_proto::task::{AgentTask, TaskState, TaskStatus};
use divvy_proto::time::Timestamp;

use super::*;

mod checks;
mod owning;
mod peers;
mod show;

pub(super) use owning::*;
pub(super) use peers::{TestAgent, TestFramework, framework_info, status, task};

pub(super) const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// When every cluster begins.
pub(super) const START: Timestamp = Timestamp(1_000_000_000_000);

pub(super) const NO_FILTER: Filters = Filters { refuse: Duration::ZERO };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AgentHandle(usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameworkHandle(pub(super) usize);

pub(super) struct Cluster {
    pub(super) kernel: Kernel,
    pub(super) now: Timestamp,
    pub(super) agents: Vec<TestAgent>,
    pub(super) frameworks: Vec<TestFramework>,
    /// What the store holds.
    pub(super) registry: Vec<RegistryChange>,
    /// The store answers only when `store_answers` is called.
    pub(super) store_is_slow: bool,
    unanswered: Vec<(PersistToken, Vec<RegistryChange>)>,
    /// Pings and heartbeats are part of the story.
    pub(super) with_heartbeats: bool,
    pub(super) changes: Vec<Change>,
    /// At the end of every turn the allocator must do what a full scan would.
    pub(super) with_oracle: bool,
    /// The last state of every task that was ever listed by this master.
    states: BTreeMap<(FrameworkId, TaskId), TaskState>,
    links: u64,
    calls: u64,
    updates: u64,
    story: Vec<String>,
}

impl Cluster {
    pub(super) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(super) fn with(config: Config) -> Self {
        Self {
            kernel: Kernel::new(config),
            now: START,
            agents: Vec::new(),
            frameworks: Vec::new(),
            registry: Vec::new(),
            store_is_slow: false,
            unanswered: Vec::new(),
            with_heartbeats: false,
            changes: Vec::new(),
            with_oracle: false,
            states: BTreeMap::new(),
            links: 0,
            calls: 0,
            updates: 0,
            story: Vec::new(),
        }
    }

    // What tests say.

    /// A new agent with these resources.
    pub(super) fn agent(&mut self, resources: &str) -> AgentHandle {
        self.agent_that(resources, |_| {})
    }

    /// A new agent that is special in some way.
    pub(super) fn agent_that(&mut self, resources: &str, is: impl FnOnce(&mut AgentInfo)) -> AgentHandle {
        let handle = AgentHandle(self.agents.len());
        let hostname = format!("host-{}", handle.0).parse().unwrap();
        let mut info = AgentInfo {
            id: None,
            hostname,
            url: format!("http://host-{}:5051", handle.0),
            address: "127.0.0.1".to_owned(),
            resources: resources.parse().unwrap(),
            attributes: Default::default(),
            version: "0".to_owned(),
            reserved: Vec::new(),
            revocable: Default::default(),
        };
        is(&mut info);
        self.agents.push(TestAgent {
            info,
            link: None,
            silent: false,
            tasks: BTreeMap::new(),
            volumes: Vec::new(),
        });
        self.connect(handle);
        handle
    }

    /// New agents that are admitted in one turn.
    pub(super) fn agents_together(&mut self, resources: Vec<Resources>) -> Vec<AgentHandle> {
        self.store_is_slow = true;
        let agents = resources.iter().map(|resources| self.agent(&resources.to_string())).collect();
        self.store_is_slow = false;
        let stored: Vec<_> = self.unanswered.drain(..).collect();
        let mut inputs = Vec::new();
        for (token, changes) in stored {
            self.registry.extend(changes);
            inputs.push(Input::Persisted(token));
        }
        self.feed_together(inputs);
        agents
    }

    /// The agent opens a stream and registers with all that it runs.
    pub(super) fn connect(&mut self, agent: AgentHandle) {
        let link = self.next_link();
        let this = &mut self.agents[agent.0];
        this.silent = false;
        this.link = Some(link);
        let message = AgentMessage::Register {
            agent: this.info.clone(),
            tasks: this.tasks.values().cloned().collect(),
        };
        self.feed(Input::Agent { link, message });
    }

    /// The agent's stream ends.
    pub(super) fn disconnect(&mut self, agent: AgentHandle) {
        if let Some(link) = self.agents[agent.0].link.take() {
            self.feed(Input::AgentClosed { link });
        }
    }

    /// The agent stops to answer, and nobody can tell why.
    pub(super) fn silence(&mut self, agent: AgentHandle) {
        self.agents[agent.0].silent = true;
    }

    pub(super) fn agent_id(&self, agent: AgentHandle) -> AgentId {
        self.agents[agent.0].info.id.clone().unwrap()
    }

    /// The agent says that a task of its is in this state, and waits for the acknowledgement.
    pub(super) fn report(&mut self, agent: AgentHandle, task: &str, state: TaskState) -> UpdateId {
        self.updates += 1;
        let update_id: UpdateId = format!("u{}", self.updates).parse().unwrap();
        let this = &mut self.agents[agent.0];
        let id = this.info.id.clone();
        let task = this.tasks.values_mut().find(|known| known.info.id.as_str() == task).unwrap();
        task.status =
            TaskStatus { update_id: Some(update_id.clone()), ..status(&task.info.id, id, state, self.now) };
        let (framework_id, status) = (task.framework_id.clone(), task.status.clone());
        self.agent_says(agent, AgentMessage::Update { framework_id, status });
        update_id
    }

    /// A task that was told to end has ended, and its framework takes note of it.
    pub(super) fn killed(&mut self, agent: AgentHandle, framework: FrameworkHandle, task: &str) {
        self.updates += 1;
        let update_id: UpdateId = format!("u{}", self.updates).parse().unwrap();
        let this = &mut self.agents[agent.0];
        let id = this.info.id.clone();
        let known = this.tasks.values_mut().find(|known| known.info.id.as_str() == task).unwrap();
        let (reason, state) = (divvy_proto::task::Reason::KillRequested, TaskState::Killed);
        let status = status(&known.info.id, id, state, self.now);
        known.status = TaskStatus { update_id: Some(update_id.clone()), reason, ..status };
        let (framework_id, status) = (known.framework_id.clone(), known.status.clone());
        self.agent_says(agent, AgentMessage::Update { framework_id, status });
        self.acknowledge(framework, agent, task, &update_id);
    }

    pub(super) fn agent_says(&mut self, agent: AgentHandle, message: AgentMessage) {
        if let Some(link) = self.agents[agent.0].link {
            self.feed(Input::Agent { link, message });
        }
    }

    /// A framework in the default role.
    pub(super) fn framework(&mut self, name: &str) -> FrameworkHandle {
        self.framework_in(name, &["*"])
    }

    pub(super) fn framework_in(&mut self, name: &str, roles: &[&str]) -> FrameworkHandle {
        self.framework_that(name, roles, |_| {})
    }

    /// A framework that is special in some way.
    pub(super) fn framework_that(
        &mut self,
        name: &str,
        roles: &[&str],
        is: impl FnOnce(&mut FrameworkInfo),
    ) -> FrameworkHandle {
        let handle = FrameworkHandle(self.frameworks.len());
        let mut info = framework_info(name, roles);
        is(&mut info);
        self.frameworks.push(TestFramework {
            info,
            link: None,
            offers: BTreeMap::new(),
            updates: Vec::new(),
        });
        self.subscribe(handle);
        handle
    }

    /// The framework opens a stream and subscribes.
    pub(super) fn subscribe(&mut self, framework: FrameworkHandle) {
        let link = self.next_link();
        let this = &mut self.frameworks[framework.0];
        this.link = Some(link);
        this.offers.clear();
        let framework = this.info.clone();
        self.call_on(link, CallBody::Subscribe { framework, suppressed: Vec::new() });
    }

    pub(super) fn unsubscribe(&mut self, framework: FrameworkHandle) {
        if let Some(link) = self.frameworks[framework.0].link.take() {
            self.frameworks[framework.0].offers.clear();
            self.feed(Input::FrameworkClosed { link });
        }
    }

    pub(super) fn framework_id(&self, framework: FrameworkHandle) -> FrameworkId {
        self.frameworks[framework.0].info.id.clone().unwrap()
    }

    pub(super) fn call(&mut self, framework: FrameworkHandle, body: CallBody) {
        if let Some(link) = self.frameworks[framework.0].link {
            self.call_on(link, body);
        }
    }

    pub(super) fn call_on(&mut self, link: LinkId, body: CallBody) {
        self.calls += 1;
        let id = format!("c{}", self.calls).parse().unwrap();
        self.feed(Input::Framework { link, call: Call { id, body } });
    }

    /// The same call once more.
    pub(super) fn call_again(&mut self, framework: FrameworkHandle, id: &str, body: CallBody) {
        let link = self.frameworks[framework.0].link.unwrap();
        let id: CallId = id.parse().unwrap();
        self.feed(Input::Framework { link, call: Call { id, body } });
    }

    /// Launches tasks from everything that the framework was offered on one agent. What is left comes back at once.
    pub(super) fn launch(&mut self, framework: FrameworkHandle, tasks: &[(&str, &str)]) {
        let offers = self.held(framework);
        self.accept(framework, offers, tasks, NO_FILTER);
    }

    pub(super) fn accept(
        &mut self,
        framework: FrameworkHandle,
        offers: Vec<OfferId>,
        tasks: &[(&str, &str)],
        filters: Filters,
    ) {
        let tasks = tasks.iter().map(|(id, resources)| task(id, resources)).collect();
        let this = &mut self.frameworks[framework.0];
        this.offers.retain(|id, _| !offers.contains(id));
        self.call(
            framework,
            CallBody::Accept { offers, operations: vec![Operation::Launch(tasks)], filters },
        );
    }

    /// Declines everything that the framework holds.
    pub(super) fn decline(&mut self, framework: FrameworkHandle, refuse: Duration) {
        let offers = self.held(framework);
        self.frameworks[framework.0].offers.clear();
        self.call(framework, CallBody::Decline { offers, filters: Filters { refuse } });
    }

    pub(super) fn kill(&mut self, framework: FrameworkHandle, task: &str) {
        self.call(framework, CallBody::Kill { task_id: task.parse().unwrap(), grace: None });
    }

    pub(super) fn acknowledge(
        &mut self,
        framework: FrameworkHandle,
        agent: AgentHandle,
        task: &str,
        update: &UpdateId,
    ) {
        let (agent_id, task_id) = (self.agent_id(agent), task.parse().unwrap());
        let update_id = update.clone();
        self.call(framework, CallBody::Acknowledge { agent_id, task_id, update_id });
    }

    pub(super) fn operator(&mut self, body: OperatorRequest) {
        self.feed(Input::Operator { request: RequestId(1), body });
    }

    pub(super) fn drain(&mut self, agent: AgentHandle, within: Option<Duration>, then_gone: bool) {
        let agent_id = self.agent_id(agent);
        self.operator(OperatorRequest::Drain { agent_id, within, then_gone });
    }

    /// What an operator sees of an agent.
    pub(super) fn shown(&self, agent: AgentHandle) -> divvy_proto::api::Agent {
        self.kernel.agent(&self.agent_id(agent)).unwrap()
    }

    pub(super) fn held(&self, framework: FrameworkHandle) -> Vec<OfferId> {
        self.frameworks[framework.0].offers.keys().copied().collect()
    }

    /// What the framework holds, as it believes.
    pub(super) fn offers_of(&self, framework: FrameworkHandle) -> Vec<OfferInfo> {
        self.frameworks[framework.0].offers.values().cloned().collect()
    }

    /// The agent's id, if it was ever told it.
    pub(super) fn agents_id(&self, agent: AgentHandle) -> Option<AgentId> {
        self.agents[agent.0].info.id.clone()
    }

    pub(super) fn agents_tasks(&self, agent: AgentHandle) -> Vec<AgentTask> {
        self.agents[agent.0].tasks.values().cloned().collect()
    }

    pub(super) fn resize(&mut self, agent: AgentHandle, resources: &str) {
        self.agents[agent.0].info.resources = resources.parse().unwrap();
    }

    /// The agent comes back as another.
    pub(super) fn change(&mut self, agent: AgentHandle, change: impl FnOnce(&mut AgentInfo)) {
        self.disconnect(agent);
        change(&mut self.agents[agent.0].info);
        self.connect(agent);
    }

    pub(super) fn lose_tasks(&mut self, agent: AgentHandle) {
        self.agents[agent.0].tasks.clear();
    }

    /// The updates that a framework has received since it was last asked.
    pub(super) fn take_updates(&mut self, framework: FrameworkHandle) -> Vec<TaskStatus> {
        std::mem::take(&mut self.frameworks[framework.0].updates)
    }

    pub(super) fn state(&self, agent: AgentHandle) -> divvy_proto::api::AgentState {
        self.kernel.agent(&self.agent_id(agent)).unwrap().state
    }

    /// Time passes; everything that falls due happens at its time.
    pub(super) fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.kernel.next_deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.feed(Input::Tick);
            let is_done = self.kernel.next_deadline().is_none_or(|due| due > self.now);
            assert!(is_done, "a deadline is due and nothing happens");
        }
        self.now = end;
    }

    /// The store has everything that it was given.
    pub(super) fn store_answers(&mut self) {
        let tokens: Vec<_> = self.unanswered.drain(..).collect();
        for (token, changes) in tokens {
            self.registry.extend(changes);
            self.feed(Input::Persisted(token));
        }
    }

    /// The store has everything, and is quick again.
    pub(super) fn settle_store(&mut self) {
        // What follows from an answer is written behind what was asked for before.
        self.store_is_slow = true;
        while !self.unanswered.is_empty() {
            self.store_answers();
        }
        self.store_is_slow = false;
    }

    /// The master ends, and the next one reads the registry. All streams are gone.
    pub(super) fn fail_over(&mut self) {
        let config = Config { epoch: self.kernel.config.epoch, ..self.kernel.config.clone() };
        let config = Config { epoch: divvy_proto::Epoch(config.epoch.0 + 1), ..config };
        self.unanswered.clear();
        self.states.clear();
        self.agents.iter_mut().for_each(|agent| agent.link = None);
        self.frameworks.iter_mut().for_each(|framework| {
            framework.link = None;
            framework.offers.clear();
        });
        self.kernel = Kernel::recover(config, self.registry.clone(), self.now);
    }

    /// What the kernel did since it was last asked.
    pub(super) fn story(&mut self) -> Vec<String> {
        std::mem::take(&mut self.story)
    }

    pub(super) fn forget(&mut self) {
        self.story.clear();
        self.changes.clear();
    }

    // How it works.

    pub(super) fn next_link(&mut self) -> LinkId {
        self.links += 1;
        LinkId(self.links)
    }

    pub(super) fn feed(&mut self, input: Input) {
        self.feed_together(vec![input]);
    }

    /// All of these in one turn.
    pub(super) fn feed_together(&mut self, mut inputs: Vec<Input>) {
        while !inputs.is_empty() {
            let mut effects = Vec::new();
            for input in inputs.drain(..) {
                self.kernel.handle(self.now, input, &mut effects);
                assert_eq!(self.kernel.check_invariants(), Ok(()));
            }
            self.end_turn(&mut effects);
            assert_eq!(self.kernel.check_invariants(), Ok(()));
            for effect in effects {
                self.tell_story(&effect);
                inputs.extend(self.carry_out(effect));
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::ToAgent { link, message } => {
                let agent = self.agents.iter_mut().find(|agent| agent.link == Some(link) && !agent.silent)?;
                agent.hears(message, self.now).map(|message| Input::Agent { link, message })
            }
            Effect::ToFramework { link, event } => {
                let framework = self.frameworks.iter_mut().find(|framework| framework.link == Some(link));
                framework.into_iter().for_each(|framework| framework.hears(event.clone()));
                None
            }
            Effect::Close { link, .. } => {
                self.agents.iter_mut().filter(|a| a.link == Some(link)).for_each(|a| a.link = None);
                self.frameworks.iter_mut().filter(|f| f.link == Some(link)).for_each(|f| f.link = None);
                None
            }
            Effect::Persist { token, changes } if self.store_is_slow => {
                self.unanswered.push((token, changes));
                None
            }
            Effect::Persist { token, changes } => {
                self.registry.extend(changes);
                Some(Input::Persisted(token))
            }
            Effect::Changed(change) => {
                self.changes.push(change);
                None
            }
            Effect::Answer { .. } => None,
        }
    }
}

/// Compares a story line by line, so that a difference shows as text.
#[track_caller]
pub(super) fn assert_story(cluster: &mut Cluster, expected: &[&dyn Display]) {
    let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
    assert_eq!(cluster.story().join("\n"), expected.join("\n"));
}

/// Everything that happened, as one expectation.
#[macro_export]
#[doc(hidden)]
macro_rules! story {
    ($cluster:expr, $($line:expr),* $(,)?) => {
        $crate::kernel::testing::assert_story(&mut $cluster, &[$(&$line),*])
    };
}
