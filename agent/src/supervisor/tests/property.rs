//! Random histories against a machine, a disk and a master that are models, with crashes anywhere. After every step: no
//! container starts before its launch is on disk, or twice; no two updates of a task are in flight; none is sent before it is
//! on disk, out of order, or, where it is the last, before its container is gone; no group goes on without a task that does not
//! end alone, and its network lasts as long as those who use it. And whatever happened, once all goes well again every task
//! ends, is acknowledged and is forgotten.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::super::TaskKey;
use super::super::task::Task;
use super::*;
use crate::container::ContainerState;

/// One thing that happens, and a number that says to what.
type Step = (u8, u8);

#[allow(clippy::large_enum_variant, reason = "few of them wait at a time")]
enum Write {
    Record(Token, Record),
    Removal(ContainerId),
}

struct World {
    core: Supervisor,
    incarnation: u32,
    now: Timestamp,
    links: u64,
    link: Option<LinkId>,
    disk: BTreeMap<ContainerId, TaskRecord>,
    agent_on_disk: Option<super::super::AgentRecord>,
    writing: VecDeque<Write>,
    preparing: BTreeSet<ContainerId>,
    launching: BTreeSet<ContainerId>,
    containers: BTreeMap<ContainerId, ContainerState>,
    watched: BTreeSet<ContainerId>,
    destroying: BTreeSet<ContainerId>,
    started: BTreeSet<ContainerId>,
    /// Whose network a container uses.
    joined: BTreeMap<ContainerId, ContainerId>,
    /// Updates that were sent on this stream and not acknowledged.
    in_flight: BTreeMap<TaskKey, UpdateId>,
    /// All updates that the master ever heard, each once, in order.
    heard: BTreeMap<TaskKey, Vec<TaskStatus>>,
    launched: BTreeSet<String>,
    on_disk_once: BTreeSet<TaskKey>,
    shut_down: BTreeSet<TaskKey>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            core: Supervisor::new(config()),
            incarnation: 0,
            now: Timestamp(0),
            links: 0,
            link: None,
            disk: BTreeMap::new(),
            agent_on_disk: None,
            writing: VecDeque::new(),
            preparing: BTreeSet::new(),
            launching: BTreeSet::new(),
            containers: BTreeMap::new(),
            watched: BTreeSet::new(),
            destroying: BTreeSet::new(),
            started: BTreeSet::new(),
            joined: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            heard: BTreeMap::new(),
            launched: BTreeSet::new(),
            on_disk_once: BTreeSet::new(),
            shut_down: BTreeSet::new(),
        };
        world.restart(0);
        world
    }

    /// What is not on disk is lost, a launch under way has happened or not, and a new process looks around.
    fn restart(&mut self, choice: u8) {
        self.incarnation += 1;
        self.core = Supervisor::new(Config { incarnation: format!("i{}", self.incarnation), ..config() });
        self.link = None;
        self.in_flight.clear();
        self.writing.clear();
        self.preparing.clear();
        self.watched.clear();
        self.destroying.clear();
        for container in std::mem::take(&mut self.launching) {
            if choice.is_multiple_of(2) {
                self.started.insert(container.clone());
                self.containers.insert(container, ContainerState::Running { pid: 1, addresses: Vec::new() });
            }
        }
        let state = |id: &ContainerId| self.containers.get(id).cloned().unwrap_or(ContainerState::Absent);
        let tasks = self.disk.values().map(|record| (record.clone(), state(&record.container))).collect();
        let containers = self.containers.keys().cloned().collect();
        self.feed(Input::Recovered(Recovered {
            agent: self.agent_on_disk.clone(),
            tasks,
            containers,
            ..Recovered::default()
        }));
    }

    fn feed(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.core.handle(self.now, input, &mut effects);
        for effect in effects {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Send { link, message: AgentMessage::Update { framework_id, status } } => {
                assert_eq!(Some(link), self.link);
                self.hear(TaskKey { framework_id, task_id: status.task_id.clone() }, status);
            }
            Effect::Send { .. }
            | Effect::StartHealth { .. }
            | Effect::StopHealth(_)
            | Effect::Volumes(_)
            | Effect::SetVolumesAside(_)
            | Effect::Terminate { .. } => {}
            Effect::Disconnect { .. } => self.disconnect(),
            Effect::Checkpoint { token, record } => self.writing.push_back(Write::Record(token, record)),
            Effect::Forget(container) => self.writing.push_back(Write::Removal(container)),
            Effect::Prepare { container, .. } => assert!(self.preparing.insert(container)),
            Effect::CancelPrepare(container) => assert!(self.preparing.remove(&container)),
            Effect::Launch(spec) => {
                assert!(self.disk.contains_key(&spec.id), "started before its launch is on disk");
                assert!(!self.started.contains(&spec.id), "started twice");
                if let Some(lead) = spec.joins {
                    assert!(self.containers.contains_key(&lead), "joins what is not there");
                    self.joined.insert(spec.id.clone(), lead);
                }
                assert!(self.launching.insert(spec.id));
            }
            Effect::Watch(container) => assert!(self.watched.insert(container)),
            Effect::Destroy(container) => {
                assert!(!self.launching.contains(&container), "destroyed while it is launched");
                for (other, lead) in &self.joined {
                    let there = self.containers.contains_key(other) || self.launching.contains(other);
                    assert!(*lead != container || !there, "the network goes before those who use it");
                }
                self.destroying.insert(container);
            }
        }
    }

    fn hear(&mut self, key: TaskKey, status: TaskStatus) {
        let Some(id) = status.update_id.clone() else { return };
        if self.shut_down.contains(&key) {
            self.in_flight.insert(key, id); // a crash has made it forget; a master would say it again, or acknowledge
            return;
        }
        let record = self.disk.values().find(|record| record.key() == key).expect("sent and not on disk");
        let first = record.unacknowledged.front().map(|first| &first.update_id);
        assert_eq!(first, Some(&Some(id.clone())), "sent before it is the first on disk");
        if status.state.is_terminal() {
            assert!(!self.containers.contains_key(&record.container), "ended, and the container is there");
        }
        let flying = self.in_flight.insert(key.clone(), id);
        assert!(flying.is_none() || flying == status.update_id, "two updates in flight");
        let heard = self.heard.entry(key).or_default();
        match heard.iter().position(|known| known.update_id == status.update_id) {
            Some(at) => assert_eq!(at, heard.len() - 1, "an older update again"),
            None => heard.push(status),
        }
    }

    fn disconnect(&mut self) {
        if let Some(link) = self.link.take() {
            self.in_flight.clear();
            self.feed(Input::Disconnected(link));
        }
    }

    fn connect(&mut self) {
        self.disconnect();
        self.links += 1;
        let link = LinkId(self.links);
        self.link = Some(link);
        self.feed(Input::Connected(link));
        let (agent_id, ping_interval) = (AgentId::new("a").unwrap(), secs(15));
        self.hear_master(MasterMessage::Registered { agent_id, epoch: Epoch(1), ping_interval });
    }

    fn hear_master(&mut self, message: MasterMessage) {
        if let Some(link) = self.link {
            self.feed(Input::Master { link, message });
        }
    }

    fn write_next(&mut self) {
        match self.writing.pop_front() {
            Some(Write::Record(token, record)) => {
                match record {
                    Record::Agent(record) => self.agent_on_disk = Some(record),
                    Record::Task(record) => {
                        self.on_disk_once.insert(record.key());
                        self.disk.insert(record.container.clone(), record);
                    }
                }
                self.feed(Input::Checkpointed(token));
            }
            Some(Write::Removal(container)) => drop(self.disk.remove(&container)),
            None => {}
        }
    }

    fn acknowledge(&mut self, choice: u8) {
        let Some((key, id)) = pick(self.in_flight.iter(), choice).map(|(key, id)| (key.clone(), id.clone()))
        else {
            return;
        };
        self.in_flight.remove(&key);
        self.hear_master(MasterMessage::Acknowledge {
            framework_id: key.framework_id,
            task_id: key.task_id,
            update_id: id,
        });
    }

    /// Every second task is of a group of two, and mostly the two come together.
    fn launch(&mut self, choice: u8) {
        let ids = match choice % 8 {
            at @ (4 | 6) if choice < 192 => vec![at, at + 1],
            at => vec![at],
        };
        for at in ids {
            let id = format!("t{at}");
            let again = self.core.known_tasks().any(|key| key.task_id.as_str() == id);
            if self.link.is_some() && (self.launched.insert(id.clone()) || again) {
                let resources = "cpus=0.5;mem=64MiB".parse().unwrap();
                self.hear_master(launch(TaskInfo { resources, health: vec![check()], ..task_at(at) }));
            }
        }
    }

    /// Who does not end alone takes the others of the group along.
    fn check_groups(&self) {
        let ends_alone = |task: &Task| {
            let container = task.record().info.container.as_deref();
            container.and_then(|container| container.group.as_ref()).is_none_or(|group| group.ends_alone)
        };
        for members in self.core.groups.values() {
            let members: Vec<&Task> = members.iter().filter_map(|key| self.core.tasks.get(key)).collect();
            let over = members.iter().any(|task| task.is_ending() && !ends_alone(task));
            assert!(!over || members.iter().all(|task| task.is_ending()), "half a group goes on");
        }
    }

    fn prepared(&mut self, choice: u8) {
        if let Some(container) = pick(self.preparing.iter(), choice).cloned() {
            self.preparing.remove(&container);
            let (reason, message) = (divvy_proto::task::Reason::FetchFailed, String::new());
            self.feed(match choice {
                0..240 => Input::Prepared { container, image: None },
                _ => Input::PrepareFailed { container, reason, message },
            });
        }
    }

    fn started(&mut self, choice: u8) {
        if let Some(container) = pick(self.launching.iter(), choice).cloned() {
            self.launching.remove(&container);
            if choice < 240 {
                self.started.insert(container.clone());
                self.containers
                    .insert(container.clone(), ContainerState::Running { pid: 1, addresses: Vec::new() });
                self.feed(Input::Launched { container, pid: 1, addresses: Vec::new() });
            } else {
                self.feed(Input::LaunchFailed { container, message: String::new() });
            }
        }
    }

    fn exit(&mut self, choice: u8) {
        if let Some(container) = pick(self.containers.keys(), choice).cloned() {
            let exited = exited(ExitStatus::Code(i32::from(choice % 2)));
            self.containers.insert(container.clone(), ContainerState::Exited(exited));
            if self.watched.remove(&container) {
                self.feed(Input::Exited { container, exited });
            }
        }
    }

    fn destroyed(&mut self, choice: u8) {
        if let Some(container) = pick(self.destroying.iter(), choice).cloned() {
            self.destroying.remove(&container);
            self.watched.remove(&container);
            self.containers.remove(&container);
            self.feed(Input::Destroyed(container));
        }
    }

    fn probe(&mut self, choice: u8) {
        if let Some(container) = pick(self.containers.keys(), choice).cloned() {
            let result = if choice.is_multiple_of(3) { Ok(()) } else { Err(String::new()) };
            self.feed(Input::Health { container, check: 0, result });
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.feed(Input::Tick);
        let next = self.core.next_deadline();
        assert!(next.is_none_or(|next| next > self.now), "it would be woken without end");
    }

    /// A framework that is shut down hears of its tasks at most once more.
    fn shut_down(&mut self) {
        if self.link.is_some() {
            self.shut_down.extend(self.core.known_tasks().cloned());
            self.in_flight.clear();
            self.hear_master(MasterMessage::ShutdownFramework { framework_id: framework("f") });
        }
    }

    fn step(&mut self, (what, choice): Step) {
        match what % 16 {
            0 | 1 => self.launch(choice),
            2..=4 => self.write_next(),
            5 => self.prepared(choice),
            6 => self.started(choice),
            7 => self.exit(choice),
            8 => self.destroyed(choice),
            9 | 10 => self.acknowledge(choice),
            11 => self.hear_master(kill(&format!("t{}", choice % 8), None)),
            12 => self.probe(choice),
            13 if choice == 7 => self.shut_down(),
            13 => self.pass(secs(u64::from(choice % 16))),
            14 if choice.is_multiple_of(4) => self.disconnect(),
            14 => self.connect(),
            _ if choice < 64 => self.restart(choice),
            _ => self.connect(),
        }
    }

    /// All goes well from here on.
    fn settle(&mut self) {
        self.connect();
        for _ in 0..2_000 {
            self.write_next();
            self.prepared(0);
            self.started(0);
            self.exit(0);
            self.destroyed(0);
            self.acknowledge(0);
            self.hear_master(MasterMessage::Ping);
            self.pass(secs(1));
        }
    }
}

/// t4 and t5 end together; t7 ends alone, t6 not without it.
fn task_at(at: u8) -> TaskInfo {
    let id = format!("t{at}");
    let mut info = match at {
        4..=6 => groups::member(&id, 2),
        7 => groups::helper(&id, 2),
        _ => task(&id),
    };
    if let Some(group) = info.container.as_mut().and_then(|container| container.group.as_mut()) {
        group.id = format!("g{}", at / 2).parse().unwrap();
    }
    info
}

fn check() -> divvy_proto::task::HealthCheck {
    let probe = divvy_proto::task::Probe::Tcp { port: 31000 };
    divvy_proto::task::HealthCheck { probe, interval: secs(1), timeout: secs(1), grace: secs(2), failures: 3 }
}

fn pick<T>(items: impl ExactSizeIterator<Item = T>, choice: u8) -> Option<T> {
    let count = items.len().max(1);
    let mut items = items;
    items.nth(usize::from(choice) % count)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_end_is_lost(steps in proptest::collection::vec(any::<Step>(), 1..250)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            world.check_groups();
        }
        world.settle();
        prop_assert_eq!(world.core.known_tasks().collect::<Vec<_>>(), Vec::<&TaskKey>::new());
        prop_assert!(world.containers.is_empty() && world.disk.is_empty());
        for key in world.on_disk_once.difference(&world.shut_down) {
            let last = world.heard.get(key).and_then(|heard| heard.last());
            prop_assert!(last.is_some_and(|last| last.state.is_terminal()), "{:?}: {:?}", key, last);
        }
    }
}
