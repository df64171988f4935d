//! Stories of a driver, each comparing all effects, and properties over random interleavings.

mod connection;
mod demand;
mod launching;
mod ownership;
mod property;
mod reconciliation;
mod updates;

use std::collections::VecDeque;
use std::time::Duration;

use divvy_proto::attributes::Attributes;
use divvy_proto::ids::*;
use divvy_proto::role::RolePath;
use divvy_proto::scheduler::{Call, CallBody, Event, Filters, FrameworkInfo, OfferInfo, Operation, Outcome};
use divvy_proto::task::{ContainerStatus, Reason, Source, TaskState, TaskStatus};
use divvy_proto::time::Timestamp;

use super::*;
use crate::{Offer, Task, TaskSpec, Write};

type Step = Box<dyn FnOnce(&View, Vec<Offer>) -> Actions + Send>;

/// A scheduler that does what it is told, once, and nothing otherwise.
#[derive(Default)]
pub(super) struct Scripted {
    steps: VecDeque<Step>,
    /// How often it was called.
    called: usize,
}

impl Scheduler for Scripted {
    fn reconcile(&mut self, view: &View, offers: Vec<Offer>) -> Actions {
        self.called += 1;
        self.steps.pop_front().map(|step| step(view, offers)).unwrap_or_default()
    }
}

/// A driver at a time.
pub(super) struct World {
    pub(super) driver: Driver<Scripted>,
    pub(super) now: Timestamp,
}

pub(super) fn info() -> FrameworkInfo {
    FrameworkInfo {
        id: None,
        name: "web".into(),
        user: None,
        roles: vec![RolePath::default()],
        principal: None,
        failover_timeout: Duration::from_secs(60),
        url: None,
        labels: BTreeMap::new(),
        capabilities: Default::default(),
    }
}

pub(super) fn config(durable: bool) -> Config {
    Config { durable, ..Config::new(info(), 7) }
}

pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn task_id(text: &str) -> TaskId {
    TaskId::new(text).unwrap()
}

pub(super) fn agent_id() -> AgentId {
    AgentId::new("a1").unwrap()
}

impl World {
    pub(super) fn new(config: Config, restored: Restored) -> Self {
        Self { driver: Driver::new(config, Scripted::default(), restored), now: Timestamp(1_000_000) }
    }

    /// Subscribed, without a store, the effects of that done.
    pub(super) fn subscribed() -> Self {
        Self::up(config(false), Restored::default())
    }

    /// Subscribed as `f1`, with a store, the effects of that done.
    pub(super) fn durable() -> Self {
        Self::up(config(true), Restored { framework_id: FrameworkId::new("f1").ok(), tasks: Vec::new() })
    }

    pub(super) fn up(config: Config, restored: Restored) -> Self {
        let mut world = Self::new(config, restored);
        world.tick();
        world.feed(Input::Connected);
        world.event(subscription());
        world
    }

    /// What the scheduler does when it is called next.
    pub(super) fn then(&mut self, step: impl FnOnce(&View, Vec<Offer>) -> Actions + Send + 'static) {
        self.driver.scheduler.steps.push_back(Box::new(step));
    }

    /// One input, one turn.
    pub(super) fn feed(&mut self, input: Input) -> Vec<Effect> {
        self.feed_all([input])
    }

    /// Many inputs, one turn.
    pub(super) fn feed_all(&mut self, inputs: impl IntoIterator<Item = Input>) -> Vec<Effect> {
        let mut effects = Vec::new();
        for input in inputs {
            self.driver.handle(self.now, input, &mut effects);
        }
        self.driver.end_turn(self.now, &mut effects);
        effects
    }

    pub(super) fn event(&mut self, event: Event) -> Vec<Effect> {
        self.feed(Input::Event(event))
    }

    pub(super) fn tick(&mut self) -> Vec<Effect> {
        self.feed(Input::Tick)
    }

    /// Time goes by.
    pub(super) fn after(&mut self, time: Duration) -> Vec<Effect> {
        self.now = self.now + time;
        self.tick()
    }

    /// To the next deadline, and how far that was.
    pub(super) fn skip_to_deadline(&mut self) -> (Duration, Vec<Effect>) {
        let deadline = self.driver.next_deadline().unwrap();
        let wait = deadline.since(self.now);
        (wait, self.after(wait))
    }

    pub(super) fn persisted(&mut self, token: u64) -> Vec<Effect> {
        self.feed(Input::Persisted(PersistToken(token)))
    }

    /// Launches `t1` on an offer and lets it be RUNNING, all effects done, tokens 1 and 2 where durable.
    pub(super) fn running() -> Self {
        let mut world = Self::durable();
        world.then(|_, mut offers| launch(&mut offers, "t1"));
        world.event(Event::Offers(vec![offer(1)]));
        world.persisted(1);
        world.event(Event::Update(status("t1", TaskState::Running, Some("u1"))));
        world.persisted(2);
        world
    }

    pub(super) fn task(&self, id: &str) -> &Task {
        self.driver.view().task(&task_id(id)).unwrap()
    }

    pub(super) fn state(&self, id: &str) -> TaskState {
        self.task(id).state()
    }

    /// The record of a task as it stands.
    pub(super) fn record(&self, id: &str) -> Write {
        record::put_task(self.task(id)).unwrap()
    }
}

pub(super) fn subscription() -> Event {
    Event::Subscribed { framework_id: FrameworkId::new("f1").unwrap(), epoch: Epoch(1), heartbeat: HEARTBEAT }
}

pub(super) fn offer(id: u64) -> OfferInfo {
    OfferInfo {
        id: OfferId(id),
        agent_id: agent_id(),
        hostname: Hostname::new("host-1").unwrap(),
        attributes: Attributes::default(),
        role: RolePath::default(),
        resources: "cpus=4;mem=4GiB;ports=[31000-31009]".parse().unwrap(),
        reserved: Vec::new(),
        volumes: Vec::new(),
        revocable: false,
        unavailable: None,
        demand: None,
    }
}

/// Takes a task from the first offer and leaves the others.
pub(super) fn launch(offers: &mut Vec<Offer>, id: &str) -> Actions {
    let mut offer = offers.remove(0);
    offer.take(task_id(id), &TaskSpec::shell("sleep 30")).unwrap();
    Actions::from_iter([offer.accept()])
}

pub(super) fn status(id: &str, state: TaskState, update: Option<&str>) -> TaskStatus {
    TaskStatus {
        task_id: task_id(id),
        agent_id: Some(agent_id()),
        state,
        reason: Reason::CommandExited,
        source: Source::Agent,
        message: String::new(),
        time: Timestamp(1_000_000),
        update_id: update.map(|text| UpdateId::new(text).unwrap()),
        healthy: None,
        container: ContainerStatus::default(),
    }
}

/// The master's answer to a question.
pub(super) fn answer(id: &str, state: TaskState) -> TaskStatus {
    TaskStatus { reason: Reason::Reconciliation, source: Source::Master, ..status(id, state, None) }
}

pub(super) fn send(number: u64, body: CallBody) -> Effect {
    Effect::Send(Call { id: call_id(number), body })
}

pub(super) fn call_id(number: u64) -> CallId {
    CallId::new(format!("7-{number}")).unwrap()
}

pub(super) fn accepted(number: u64) -> Event {
    Event::Reply { call_id: call_id(number), outcome: Outcome::Accepted }
}

pub(super) fn persist(token: u64, writes: impl IntoIterator<Item = Write>) -> Effect {
    Effect::Persist { token: PersistToken(token), writes: writes.into_iter().collect() }
}

pub(super) fn accept(offer: u64, tasks: &[&Task]) -> CallBody {
    CallBody::Accept {
        offers: vec![OfferId(offer)],
        operations: vec![Operation::Launch(tasks.iter().map(|task| task.info.clone()).collect())],
        filters: Filters::default(),
    }
}

pub(super) fn decline(offers: impl IntoIterator<Item = u64>) -> CallBody {
    CallBody::Decline { offers: offers.into_iter().map(OfferId).collect(), filters: Filters::default() }
}

pub(super) fn acknowledge(id: &str, update: &str) -> CallBody {
    CallBody::Acknowledge {
        agent_id: agent_id(),
        task_id: task_id(id),
        update_id: UpdateId::new(update).unwrap(),
    }
}

pub(super) fn kill(id: &str) -> CallBody {
    CallBody::Kill { task_id: task_id(id), grace: None }
}

pub(super) fn ask(ids: &[&str]) -> CallBody {
    CallBody::Reconcile { tasks: ids.iter().map(|id| (task_id(id), Some(agent_id()))).collect() }
}
