//! The agents of the simulation: a supervisor each, a disk, and containers that outlive both.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use divvy_agent::container::{ContainerId, ContainerSpec, ContainerState, Exited, UserName};
use divvy_agent::supervisor::{
    AgentRecord, Config, Effect, Input, LinkId, Record, Recovered, Supervisor, TaskRecord,
};
use divvy_proto::agent::{AgentInfo, AgentMessage};
use divvy_proto::ids::{AgentId, Hostname, VolumeId};
use divvy_proto::resources::Resources;
use divvy_proto::task::{ExitStatus, Reason};
use divvy_proto::time::Timestamp;

use crate::clock::Clock;
use crate::script::{AgentNature, BEHAVIOUR, Nature, role};
use crate::wire::{End, Parcel, Peer};
use crate::world::{Happening, Plant, World};

pub struct AgentNode {
    pub life: u32,
    pub supervisor: Option<Supervisor>,
    pub total: Resources,
    pub partitioned_until: Timestamp,
    boot: u32,
    links: u64,
    disk_agent: Option<AgentRecord>,
    pub disk: BTreeMap<ContainerId, TaskRecord>,
    pub containers: BTreeMap<ContainerId, Container>,
    launching: BTreeMap<ContainerId, ContainerSpec>,
    watched: BTreeSet<ContainerId>,
    probed: BTreeSet<ContainerId>,
    pub wire: Option<u64>,
    tick_at: Option<Timestamp>,
    pub written_until: Timestamp,
    clock: Clock,
    nature: AgentNature,
    /// The directories of persistent volumes.
    pub volumes: BTreeSet<VolumeId>,
    /// Containers from before the agent's size changed: these may be too many for it.
    inherited: BTreeSet<ContainerId>,
}

/// The sizes that an agent may have.
pub const SIZES: [&str; 3] = [
    "cpus=4;mem=2GiB;disk=8GiB;ports=[31000-31019]",
    "cpus=2;mem=1GiB;disk=8GiB;ports=[31000-31009]",
    "cpus=1;mem=256MiB;disk=2GiB;ports=[31005-31008]",
];

/// A container that has started, whether or not anybody watches it.
pub struct Container {
    pub spec: ContainerSpec,
    pub exited: Option<Exited>,
}

/// A change of an agent's disk, durable a little after it was asked for.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)]
pub enum DiskWrite {
    Record(divvy_agent::supervisor::Token, Record),
    Forget(ContainerId),
}

impl AgentNode {
    pub fn new(index: usize, nature: &Nature) -> Self {
        Self {
            life: 0,
            supervisor: None,
            total: SIZES[0].parse().expect("resources"),
            partitioned_until: Timestamp(0),
            boot: 0,
            links: 0,
            disk_agent: None,
            disk: BTreeMap::new(),
            containers: BTreeMap::new(),
            launching: BTreeMap::new(),
            watched: BTreeSet::new(),
            probed: BTreeSet::new(),
            wire: None,
            tick_at: None,
            written_until: Timestamp(0),
            clock: Clock::default(),
            nature: nature.agents[index].clone(),
            volumes: BTreeSet::new(),
            inherited: BTreeSet::new(),
        }
    }

    pub fn id(&self) -> Option<&AgentId> {
        self.disk_agent.as_ref().map(|agent| &agent.agent_id)
    }

    fn write(&mut self, plant: Plant, write: &DiskWrite) {
        match write.clone() {
            DiskWrite::Record(_, Record::Task(mut task)) if plant == Plant::NoAllocations => {
                task.allocation.role = Some(role("lost"));
                self.disk.insert(task.container.clone(), task);
            }
            DiskWrite::Record(_, Record::Agent(agent)) => self.disk_agent = Some(agent),
            DiskWrite::Record(_, Record::Task(task)) => {
                self.disk.insert(task.container.clone(), task);
            }
            DiskWrite::Forget(container) => {
                self.disk.remove(&container);
            }
        }
    }

    pub fn resize(&mut self, size: &str) {
        self.total = size.parse().expect("resources");
        self.inherited = self.containers.keys().cloned().collect();
    }

    /// Whether it was an agent of this size that started a container.
    pub fn started(&self, spec: &ContainerSpec) -> bool {
        !self.inherited.contains(&spec.id)
    }

    pub fn running(&self) -> impl Iterator<Item = &ContainerSpec> {
        self.containers
            .values()
            .filter(|container| container.exited.is_none())
            .map(|container| &container.spec)
    }

    fn config(&self, index: usize) -> Config {
        let hostname = Hostname::new(format!("agent-{}", index + 1)).expect("a hostname");
        let agent = AgentInfo {
            id: None,
            hostname,
            url: format!("http://10.0.0.{index}:5051"),
            address: format!("10.0.0.{index}"),
            resources: self.total.clone(),
            attributes: self.nature.attributes.clone(),
            version: "sim".to_owned(),
            reserved: self.nature.reserved.clone(),
            revocable: self.nature.revocable.clone(),
        };
        Config {
            incarnation: format!("i{index}-{}", self.life),
            boot_id: self.boot.to_string(),
            agent,
            sandboxes: PathBuf::from("/sandboxes"),
            volumes: PathBuf::from("/volumes"),
            default_user: UserName::new("nobody").expect("a user"),
            kill_grace: Duration::from_secs(3),
            pids_limit: 100,
            retry_first: Duration::from_secs(10),
            retry_longest: Duration::from_secs(600),
            missed_pings: 5,
            registration_timeout: Duration::from_secs(15),
        }
    }

    fn recovered(&self, plant: Plant) -> Recovered {
        if plant == Plant::Amnesia {
            return Recovered { agent: self.disk_agent.clone(), ..Recovered::default() };
        }
        let state = |id: &ContainerId| match self.containers.get(id) {
            Some(Container { exited: Some(exited), .. }) => ContainerState::Exited(*exited),
            Some(_) => ContainerState::Running { pid: 4711, addresses: Vec::new() },
            None => ContainerState::Absent,
        };
        Recovered {
            agent: self.disk_agent.clone(),
            tasks: self.disk.values().map(|record| (record.clone(), state(&record.container))).collect(),
            containers: self.containers.keys().cloned().collect(),
            volumes: self.volumes.clone(),
        }
    }
}

impl World {
    pub fn start_agent(&mut self, index: usize) -> Result<(), String> {
        let clock = self.new_clock();
        let node = &mut self.agents[index];
        node.life += 1;
        node.clock = clock;
        node.supervisor = Some(Supervisor::new(node.config(index)));
        node.tick_at = None;
        node.written_until = self.now;
        let recovered = node.recovered(self.plant);
        self.agent_input(index, Input::Recovered(recovered))?;
        self.dial_agent(index);
        Ok(())
    }

    /// The process dies; its containers do not, but a launch that was under way goes either way.
    pub fn crash_agent(&mut self, index: usize) {
        let life = self.agents[index].life;
        let is_ours = |h: &Happening| matches!(h, Happening::AgentWritten { agent, life: of, .. } if *agent == index && *of == life);
        for written in self.writes_cut_short(is_ours) {
            if let Happening::AgentWritten { write, .. } = written {
                self.agents[index].write(self.plant, &write);
            }
        }
        let node = &mut self.agents[index];
        node.supervisor = None;
        node.life += 1;
        node.watched.clear();
        node.probed.clear();
        if let Some(wire) = node.wire.take() {
            self.cut(wire);
        }
        for (id, spec) in std::mem::take(&mut self.agents[index].launching) {
            if self.chance(0.5) {
                self.container_runs(index, id, spec);
            }
        }
    }

    /// The machine goes down: containers too.
    pub fn reboot_agent(&mut self, index: usize) {
        self.agents[index].launching.clear();
        self.crash_agent(index);
        self.agents[index].containers.clear();
        self.agents[index].boot += 1;
    }

    /// The machine is lost with all that was on it, and another takes its place. The id that nobody has any more.
    pub fn replace_machine(&mut self, index: usize) -> Option<AgentId> {
        self.reboot_agent(index);
        let node = &mut self.agents[index];
        node.disk.clear();
        node.volumes.clear();
        node.disk_agent.take().map(|agent| agent.agent_id)
    }

    fn dial_agent(&mut self, index: usize) {
        let at = self.now + self.delay(50..2000);
        let life = self.agents[index].life;
        self.at(at, Happening::AgentDial { agent: index, life });
    }

    pub fn agent_dials(&mut self, index: usize) -> Result<(), String> {
        let away = self.agents[index].partitioned_until > self.now;
        if away || self.master.kernel.is_none() {
            self.dial_agent(index);
            return Ok(());
        }
        let wire = self.connect(Peer::Agent(index), self.agents[index].life);
        self.agents[index].wire = Some(wire);
        self.agents[index].links = wire;
        self.agent_input(index, Input::Connected(LinkId(wire)))
    }

    pub fn agent_lost_wire(&mut self, index: usize, wire: u64) -> Result<(), String> {
        if self.agents[index].wire == Some(wire) {
            self.agents[index].wire = None;
            self.dial_agent(index);
        }
        self.agent_input(index, Input::Disconnected(LinkId(wire)))
    }

    pub fn agent_input(&mut self, index: usize, input: Input) -> Result<(), String> {
        let node = &mut self.agents[index];
        let Some(supervisor) = &mut node.supervisor else { return Ok(()) };
        let mut effects = Vec::new();
        supervisor.handle(node.clock.reads(self.now), input, &mut effects);
        for effect in effects {
            self.agent_effect(index, effect);
        }
        let node = &mut self.agents[index];
        let due =
            node.supervisor.as_ref().and_then(Supervisor::next_deadline).map(|shown| node.clock.when(shown));
        if let Some(at) = due.filter(|at| node.tick_at.is_none_or(|set| *at < set || set <= self.now)) {
            node.tick_at = Some(at);
            let life = node.life;
            self.at(at.max(self.now), Happening::AgentTick { agent: index, life });
        }
        Ok(())
    }

    fn agent_effect(&mut self, index: usize, effect: Effect) {
        match effect {
            Effect::Send { link, message } => self.agent_sends(link, message),
            Effect::Disconnect { link, .. } => {
                self.hang_up(link.0);
                if self.agents[index].wire == Some(link.0) {
                    self.agents[index].wire = None;
                    self.dial_agent(index);
                }
            }
            Effect::Checkpoint { token, record } => {
                self.agent_writes(index, DiskWrite::Record(token, record))
            }
            Effect::Forget(container) => self.agent_writes(index, DiskWrite::Forget(container)),
            Effect::Prepare { container, .. } => {
                let input = if self.mishap(0.02) {
                    let message = "the artifact's server answers 500".to_owned();
                    Input::PrepareFailed { container, reason: Reason::FetchFailed, message }
                } else {
                    Input::Prepared { container, image: None }
                };
                self.agent_hears(index, 1..500, input);
            }
            Effect::CancelPrepare(_) => {}
            Effect::Volumes(_) if self.plant == Plant::NoVolumes => {}
            Effect::Volumes(volumes) => self.agents[index].volumes = volumes,
            Effect::SetVolumesAside(_) => self.agents[index].volumes.clear(),
            Effect::Launch(spec) => {
                let id = spec.id.clone();
                self.agents[index].launching.insert(id.clone(), spec);
                let at = self.now + self.delay(5..300);
                let life = self.agents[index].life;
                self.at(at, Happening::ContainerStarts { agent: index, life, container: id });
            }
            Effect::Watch(container) => self.watch(index, container),
            Effect::Terminate { container, .. } => {
                self.told_to_stop(index, &container);
                if self.chance(0.9) {
                    self.container_ends(index, container, 1..1000, ExitStatus::Signal(15));
                }
            }
            Effect::Destroy(container) => {
                self.told_to_stop(index, &container);
                let at = self.now + self.delay(1..200);
                let life = self.agents[index].life;
                self.at(at, Happening::ContainerGone { agent: index, life, container });
            }
            Effect::StartHealth { container, checks } => {
                self.agents[index].probed.insert(container.clone());
                for check in 0..checks.len() {
                    self.probe_soon(index, container.clone(), check);
                }
            }
            Effect::StopHealth(container) => {
                self.agents[index].probed.remove(&container);
            }
        }
    }

    fn agent_sends(&mut self, link: LinkId, message: AgentMessage) {
        let lost = matches!(&message, AgentMessage::Update { status, .. } if status.state.is_terminal());
        if lost && self.plant == Plant::LoseTerminalUpdates {
            return;
        }
        self.send(link.0, End::Master, Parcel::FromAgent(message));
    }

    fn agent_hears(&mut self, index: usize, delay: std::ops::Range<u64>, input: Input) {
        let at = self.now + self.delay(delay);
        let life = self.agents[index].life;
        self.at(at, Happening::AgentInput { agent: index, life, input });
    }

    fn agent_writes(&mut self, index: usize, write: DiskWrite) {
        let at = (self.now + self.delay(1..10)).max(self.agents[index].written_until);
        self.agents[index].written_until = at;
        let life = self.agents[index].life;
        if let (Plant::LyingDisk, DiskWrite::Record(token, _)) = (self.plant, &write) {
            self.agent_hears(index, 1..10, Input::Checkpointed(*token));
            return self
                .at(at + Duration::from_secs(20), Happening::AgentWritten { agent: index, life, write });
        }
        self.at(at, Happening::AgentWritten { agent: index, life, write });
    }

    pub fn agent_written(&mut self, index: usize, write: DiskWrite) -> Result<(), String> {
        self.agents[index].write(self.plant, &write);
        match write {
            DiskWrite::Record(token, _) if self.plant != Plant::LyingDisk => {
                self.agent_input(index, Input::Checkpointed(token))
            }
            _ => Ok(()),
        }
    }

    pub fn container_starts(&mut self, index: usize, container: ContainerId) -> Result<(), String> {
        let Some(spec) = self.agents[index].launching.remove(&container) else { return Ok(()) };
        if self.mishap(0.02) {
            let message = "no such file: /bin/serve".to_owned();
            return self.agent_input(index, Input::LaunchFailed { container, message });
        }
        if !self.agents[index].disk.contains_key(&container) {
            return Err(format!("container {container} starts before its launch is on disk"));
        }
        self.container_runs(index, container.clone(), spec);
        self.agent_input(index, Input::Launched { container, pid: 4711, addresses: Vec::new() })
    }

    /// What a task does by itself: jobs end, services run on, and some are bad.
    fn container_runs(&mut self, index: usize, id: ContainerId, spec: ContainerSpec) {
        let (after, status) =
            match (spec.env.get(BEHAVIOUR).map(String::as_str), spec.env.contains_key("DIVVY_TASK_INDEX")) {
                (_, true) if self.chance(0.05) => (200_000..200_001, ExitStatus::Code(0)), // longer than its timeout
                (_, true) => (500..60_000, ExitStatus::Code(i32::from(self.chance(0.15)))),
                (Some("ends"), _) => (500..60_000, ExitStatus::Code(0)),
                (Some("dies"), _) => (100..5000, ExitStatus::Code(1)),
                _ if self.mishap(0.1) => (1000..600_000, ExitStatus::Code(1)),
                _ => (u64::MAX - 1..u64::MAX, ExitStatus::Code(0)),
            };
        self.ledger.started.extend(spec.env.get("DIVVY_TASK_ID").cloned());
        self.agents[index].containers.insert(id.clone(), Container { spec, exited: None });
        self.truth.stale = true;
        if after.start < 1_000_000 {
            self.container_ends(index, id, after, status);
        }
    }

    fn container_ends(
        &mut self,
        index: usize,
        container: ContainerId,
        after: std::ops::Range<u64>,
        status: ExitStatus,
    ) {
        let at = self.now + self.delay(after);
        let boot = self.agents[index].boot;
        self.at(at, Happening::ContainerExits { agent: index, boot, container, status });
    }

    pub fn container_exits(
        &mut self,
        index: usize,
        boot: u32,
        id: &ContainerId,
        status: ExitStatus,
    ) -> Result<(), String> {
        let node = &mut self.agents[index];
        let Some(container) = node.containers.get_mut(id).filter(|_| node.boot == boot) else {
            return Ok(());
        };
        if container.exited.is_some() {
            return Ok(());
        }
        let exited = Exited { status: Some(status), oom: None, at: node.clock.reads(self.now) };
        self.truth.stale = true;
        container.exited = Some(exited);
        if node.watched.contains(id) {
            return self.agent_input(index, Input::Exited { container: id.clone(), exited });
        }
        Ok(())
    }

    fn watch(&mut self, index: usize, container: ContainerId) {
        self.agents[index].watched.insert(container.clone());
        let exited = match self.agents[index].containers.get(&container) {
            Some(known) => known.exited,
            None => Some(Exited { status: None, oom: None, at: self.agents[index].clock.reads(self.now) }),
        };
        if let Some(exited) = exited {
            self.agent_hears(index, 0..1, Input::Exited { container, exited });
        }
    }

    pub fn container_gone(&mut self, index: usize, container: ContainerId) -> Result<(), String> {
        let node = &mut self.agents[index];
        node.containers.remove(&container);
        node.launching.remove(&container);
        node.watched.remove(&container);
        self.agent_input(index, Input::Destroyed(container))
    }

    fn probe_soon(&mut self, index: usize, container: ContainerId, check: usize) {
        let at = self.now + self.delay(1000..3000);
        let life = self.agents[index].life;
        self.at(at, Happening::Probe { agent: index, life, container, check });
    }

    pub fn probe(&mut self, index: usize, container: ContainerId, check: usize) -> Result<(), String> {
        let node = &self.agents[index];
        let running = node.containers.get(&container).filter(|known| known.exited.is_none());
        let (Some(known), true) = (running, node.probed.contains(&container)) else { return Ok(()) };
        let sick = known.spec.env.get(BEHAVIOUR).is_some_and(|behaviour| behaviour == "sick");
        let failed = sick || self.mishap(0.02);
        let result = if failed { Err("answered 500".to_owned()) } else { Ok(()) };
        self.probe_soon(index, container.clone(), check);
        self.agent_input(index, Input::Health { container, check, result })
    }
}
