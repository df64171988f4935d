//! A cluster for the planner: it keeps what the driver and the store would keep, and commits each Actions whole or, when
//! the framework dies, not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use divvy_proto::Bytes;
use divvy_proto::api::{Agent, AgentState, ResourceUse};
use divvy_proto::demand::{Demand, DemandShape, OfferedDemand};
use divvy_proto::ids::{AgentId, Hostname, OfferId, TaskId};
use divvy_proto::resources::Resources;
use divvy_proto::role::RolePath;
use divvy_proto::scheduler::{InverseOffer, OfferInfo};
use divvy_proto::task::{ContainerStatus, ExitStatus, Reason, Source, TaskState, TaskStatus};
use divvy_proto::time::Timestamp;
use divvy_sdk::{Actions, Offer, Scheduler, Task, View, Write};

use crate::planner::spec::TryId;
use crate::planner::{JobId, JobSpec, JobStatus, MAX_LOST, Planner, Refusal, UNREACHABLE_AFTER};

/// How a task ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Succeeds,
    Exits(i32),
    OutOfMemory,
    Invalid,
    Dropped,
    AgentRestarts,
    KilledByOperator,
    KilledByKernel(Reason),
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Timestamp,
    pub(super) planner: Planner,
    /// The planner's part of the store.
    pub(super) store: BTreeMap<String, Vec<u8>>,
    /// The driver's table, durable.
    pub(super) tasks: BTreeMap<TaskId, Task>,
    pub(super) agents: BTreeMap<AgentId, Agent>,
    /// What the planner last said.
    pub(super) demand: BTreeMap<RolePath, Demand>,
    /// What the kernel wants back.
    pub(super) wanted_back: Vec<InverseOffer>,
    pub(super) wake_at: Option<Timestamp>,
    pub(super) revived: bool,
    /// Everything that was ever launched, in order.
    pub(super) launched: Vec<TryId>,
    offers_made: u64,
}

pub(super) fn job(text: &str) -> JobSpec {
    let text = format!("{text}\n[task]\nshell = \"true\"\n");
    crate::file::JobFile::parse(&text, divvy_sdk::spec::Format::Toml).unwrap()
}

pub(super) fn id(text: &str) -> JobId {
    text.parse().unwrap()
}

impl World {
    /// With agents `agent-1`… of these resources.
    pub(super) fn new(agents: &[&str]) -> Self {
        let agents = agents.iter().enumerate().map(|(at, total)| agent(at + 1, total.parse().unwrap()));
        Self {
            now: Timestamp(1_000_000),
            planner: Planner::new(),
            store: BTreeMap::new(),
            tasks: BTreeMap::new(),
            agents: agents.map(|agent| (agent.id.clone(), agent)).collect(),
            demand: BTreeMap::new(),
            wanted_back: Vec::new(),
            wake_at: None,
            revived: false,
            launched: Vec::new(),
            offers_made: 0,
        }
    }

    pub(super) fn view(&self) -> View {
        let view = View::of(self.now, self.tasks.values().cloned(), self.agents.values().cloned());
        view.with_inverse_offers(self.wanted_back.clone())
    }

    // -- Users --

    pub(super) fn submit(&mut self, text: &str) -> Result<u64, Refusal> {
        let done = self.planner.submit(job(text), self.now);
        self.change(done)
    }

    pub(super) fn cancel(&mut self, job: &str) -> Result<(), Refusal> {
        let done = self.planner.cancel(&id(job));
        self.change(done.map(|actions| ((), actions)))
    }

    pub(super) fn remove(&mut self, job: &str) -> Result<(), Refusal> {
        let done = self.planner.remove(&id(job));
        self.change(done.map(|actions| ((), actions)))
    }

    /// What is refused changes nothing, but the planner looks all the same.
    fn change<R>(&mut self, done: Result<(R, Actions), Refusal>) -> Result<R, Refusal> {
        let answer = done.map(|(answer, actions)| {
            self.commit(actions);
            answer
        });
        self.turn();
        answer
    }

    pub(super) fn status(&self, job: &str) -> JobStatus {
        self.planner.status(&id(job), &self.view()).unwrap()
    }

    /// State and counts in one line: `running p0 r1 s2 f0 c0`.
    pub(super) fn summary(&self, job: &str) -> String {
        let summary = self.planner.summary(&id(job), &self.view()).unwrap();
        let c = summary.counts;
        let counts = format!("p{} r{} s{} f{} c{}", c.pending, c.running, c.succeeded, c.failed, c.cancelled);
        format!("{} {counts}", summary.state)
    }

    // -- The framework's process --

    /// One reconcile, committed; and another if offers come only now, because something else was wanted before.
    pub(super) fn turn(&mut self) {
        let wanted = self.demand.clone();
        let actions = self.decide();
        self.commit(actions);
        if self.wants_offers() && self.demand != wanted {
            let actions = self.decide();
            self.commit(actions);
        }
    }

    pub(super) fn wants_offers(&self) -> bool {
        self.demand.values().any(|demand| !demand.shapes.is_empty())
    }

    /// Dies in the middle of a turn, before anything of it is durable, and comes back.
    pub(super) fn die_before_commit(&mut self) {
        let lost = self.decide();
        drop(lost);
        self.restart();
    }

    /// Dies and comes back with what is durable.
    pub(super) fn restart(&mut self) {
        self.planner = Planner::restore(self.store.clone()).unwrap();
        self.demand.clear();
    }

    fn decide(&mut self) -> Actions {
        let offers = self.offers();
        let view = self.view();
        self.planner.reconcile(&view, offers)
    }

    pub(super) fn commit(&mut self, actions: Actions) {
        for write in actions.writes {
            match write {
                Write::Put { key, value } => drop(self.store.insert(key, value)),
                Write::Delete { key } => drop(self.store.remove(&key)),
            }
        }
        for id in &actions.forget {
            let task = self.tasks.remove(id).expect("only what is known is forgotten");
            assert!(task.state().is_terminal(), "{id} is forgotten as {}", task.state());
        }
        for accept in actions.accepts {
            for launch in accept.launches() {
                let info = launch.task.clone();
                let try_id = TryId::parse(&info.id).unwrap();
                self.check_launch(&try_id);
                assert_eq!(info.env["DIVVY_TASK_INDEX"], try_id.index.to_string());
                assert_eq!(info.env["DIVVY_ATTEMPT"], try_id.attempt.to_string());
                let status = status(&info.id, launch.agent_id, self.now);
                let task = Task {
                    agent_id: launch.agent_id.clone(),
                    hostname: launch.hostname.clone(),
                    status,
                    launched_at: self.now,
                    running_since: None,
                    killing: false,
                    info,
                };
                self.launched.push(try_id);
                self.tasks.insert(task.info.id.clone(), task);
            }
        }
        for kill in actions.kills {
            self.tasks.get_mut(&kill.task_id).expect("only what is known is killed").killing = true;
        }
        self.demand = actions.demand.unwrap_or_else(|| self.demand.clone());
        assert!(self.demand.values().all(|demand| demand.gang.is_none() || demand.shapes.len() == 1));
        self.wake_at = actions.wake_at;
        self.revived |= actions.revive;
    }

    /// The promises about what may be launched beside what.
    fn check_launch(&self, new: &TryId) {
        assert!(!self.launched.contains(new), "{new:?} is launched twice");
        assert!(new.attempt <= 1 + 100 + MAX_LOST);
        for task in self.tasks.values() {
            let other = TryId::parse(task.id()).unwrap();
            if (&other.job, other.run, other.index) != (&new.job, new.run, new.index) {
                continue;
            }
            assert_ne!(task.state(), TaskState::Finished, "{new:?} is run though {other:?} has finished");
            let since = self.now.since(task.status.time);
            let lost = task.state() == TaskState::Unreachable && since >= UNREACHABLE_AFTER;
            assert!(lost, "{new:?} is run beside {other:?}, {}", task.state());
        }
    }

    // -- The cluster --

    fn free(&self, agent: &Agent) -> Resources {
        let here = self.tasks.values().filter(|task| task.agent_id == agent.id && task.is_live());
        here.fold(agent.resources.total.clone(), |free, task| {
            free.checked_sub(&task.info.resources).expect("no more is used than there is")
        })
    }

    /// All that is free on each agent, if anything is wanted; or offers for a whole gang, if it has room.
    fn offers(&mut self) -> Vec<Offer> {
        let gang = self.demand.values().find(|demand| demand.gang.is_some());
        if let Some(shape) = gang.and_then(|demand| demand.shapes.first()).cloned() {
            return self.gang(&shape);
        }
        if !self.wants_offers() {
            return Vec::new();
        }
        let active = self.agents.values().filter(|agent| agent.state == AgentState::Active);
        let offered: Vec<(Agent, Resources)> =
            active.map(|agent| (agent.clone(), self.free(agent))).collect();
        let offered = offered.into_iter().filter(|(_, free)| !free.is_empty());
        offered.map(|(agent, free)| self.offer(agent, free, None)).collect()
    }

    fn gang(&mut self, shape: &DemandShape) -> Vec<Offer> {
        let mut missing = shape.count;
        let mut offered = Vec::new();
        for agent in self.agents.values().filter(|agent| agent.state == AgentState::Active) {
            let (mut free, mut held, mut count) = (self.free(agent), Resources::new(), 0);
            while let (true, Some(rest)) = (missing > 0, free.checked_sub(&shape.resources)) {
                (free, held) = (rest, held.checked_add(&shape.resources).unwrap());
                (missing, count) = (missing - 1, count + 1);
            }
            if count > 0 {
                let demand = OfferedDemand { shape: shape.name.clone(), count, gang: Some(1) };
                offered.push((agent.clone(), held, demand));
            }
        }
        if missing > 0 {
            return Vec::new();
        }
        offered.into_iter().map(|(agent, held, demand)| self.offer(agent, held, Some(demand))).collect()
    }

    fn offer(&mut self, agent: Agent, resources: Resources, demand: Option<OfferedDemand>) -> Offer {
        self.offers_made += 1;
        let Agent { id: agent_id, hostname, attributes, .. } = agent;
        let id = OfferId(self.offers_made);
        Offer::new(OfferInfo {
            id,
            agent_id,
            hostname,
            attributes,
            role: Default::default(),
            resources,
            reserved: Vec::new(),
            volumes: Vec::new(),
            revocable: false,
            unavailable: None,
            demand,
        })
    }

    fn set(&mut self, id: &TaskId, state: TaskState, reason: Reason, change: impl FnOnce(&mut TaskStatus)) {
        let now = self.now;
        let task = self.tasks.get_mut(id).unwrap();
        assert!(task.is_live(), "{id} has ended");
        task.status.state = state;
        task.status.reason = reason;
        task.status.time = now;
        if state == TaskState::Running && task.running_since.is_none() {
            task.running_since = Some(now);
        }
        change(&mut task.status);
    }

    pub(super) fn runs(&mut self, id: &TaskId) {
        self.set(id, TaskState::Running, Reason::CommandExited, |_| {});
    }

    /// It ends without the planner being told yet.
    pub(super) fn ends(&mut self, id: &TaskId, fate: Fate) {
        let exits =
            |code| move |status: &mut TaskStatus| status.container.exit = Some(ExitStatus::Code(code));
        match fate {
            Fate::Succeeds => self.set(id, TaskState::Finished, Reason::CommandExited, exits(0)),
            Fate::Exits(code) => self.set(id, TaskState::Failed, Reason::CommandExited, exits(code)),
            Fate::OutOfMemory => self.set(id, TaskState::Failed, Reason::OutOfMemory, |status| {
                status.message = "used more than 32MiB of memory".to_owned();
            }),
            Fate::Invalid => self.set(id, TaskState::Error, Reason::TaskInvalid, |status| {
                status.message = "no user nobody-of-that-name".to_owned();
            }),
            Fate::Dropped => self.set(id, TaskState::Dropped, Reason::OfferGone, |_| {}),
            Fate::AgentRestarts => self.set(id, TaskState::Failed, Reason::AgentRestarted, |_| {}),
            Fate::KilledByKernel(reason) => self.set(id, TaskState::Killed, reason, |_| {}),
            Fate::KilledByOperator => self.set(id, TaskState::Killed, Reason::KillRequested, |_| {}),
        }
    }

    /// Tasks that can do something now: alive, and their agent answers.
    pub(super) fn able(&self) -> Vec<TaskId> {
        let able = |task: &&Task| task.is_live() && task.state() != TaskState::Unreachable;
        self.tasks.values().filter(able).map(|task| task.id().clone()).collect()
    }

    /// All tasks that were told to end do.
    pub(super) fn kills_are_done(&mut self) {
        for id in self.able() {
            if self.tasks[&id].killing {
                self.ends(&id, Fate::KilledByOperator);
            }
        }
    }

    pub(super) fn agent_is_lost(&mut self, number: usize) {
        let id = AgentId::new(format!("a1-{number}")).unwrap();
        self.agents.get_mut(&id).unwrap().state = AgentState::Unreachable;
        for task in self.able() {
            if self.tasks[&task].agent_id == id {
                self.set(&task, TaskState::Unreachable, Reason::AgentUnreachable, |_| {});
            }
        }
    }

    pub(super) fn agent_returns(&mut self, number: usize) {
        let id = AgentId::new(format!("a1-{number}")).unwrap();
        self.agents.get_mut(&id).unwrap().state = AgentState::Active;
        let lost = self.tasks.values().filter(|task| task.agent_id == id);
        let lost: Vec<TaskId> = lost
            .filter(|task| task.state() == TaskState::Unreachable)
            .map(|task| task.id().clone())
            .collect();
        for task in lost {
            self.set(&task, TaskState::Running, Reason::AgentReturned, |_| {});
        }
    }

    pub(super) fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        self.turn();
    }

    // -- Short words for tests --

    /// The live task of this index that is the latest.
    pub(super) fn task(&self, job: &str, index: u32) -> TaskId {
        let of = |task: &&Task| {
            let known = TryId::parse(task.id()).unwrap();
            known.job == id(job) && known.index == index
        };
        let latest =
            self.tasks.values().filter(of).max_by_key(|task| TryId::parse(task.id()).unwrap().attempt);
        latest.unwrap_or_else(|| panic!("index {index} of {job} has no task")).id().clone()
    }

    pub(super) fn end(&mut self, job: &str, index: u32, fate: Fate) {
        let task = self.task(job, index);
        self.ends(&task, fate);
        self.turn();
    }

    /// Ids of live tasks.
    pub(super) fn live(&self) -> BTreeSet<String> {
        self.tasks.values().filter(|task| task.is_live()).map(|task| task.id().to_string()).collect()
    }
}

fn agent(number: usize, total: Resources) -> Agent {
    Agent {
        id: AgentId::new(format!("a1-{number}")).unwrap(),
        hostname: Hostname::new(format!("agent-{number}")).unwrap(),
        state: AgentState::Active,
        resources: ResourceUse { total, ..ResourceUse::default() },
        attributes: Default::default(),
        tasks: 0,
        address: "127.0.0.1".to_owned(),
        url: String::new(),
        version: String::new(),
        since: Timestamp::default(),
        deactivated: false,
        drain: None,
        maintenance: None,
        reserved: Vec::new(),
        volumes: Vec::new(),
        revocable: Default::default(),
    }
}

fn status(task_id: &TaskId, agent_id: &AgentId, time: Timestamp) -> TaskStatus {
    TaskStatus {
        task_id: task_id.clone(),
        agent_id: Some(agent_id.clone()),
        state: TaskState::Staging,
        reason: Reason::Reconciliation,
        source: Source::Master,
        message: String::new(),
        time,
        update_id: None,
        healthy: None,
        container: ContainerStatus { memory_peak: Some(Bytes::ZERO), ..ContainerStatus::default() },
    }
}
