//! The world: virtual time, a queue of what happens next, and all that there is.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::time::Duration;

use divvy_agent::container::ContainerId;
use divvy_agent::supervisor;
use divvy_master::kernel::{self, LinkId, PersistToken, RegistryChange};
use divvy_proto::agent::MasterMessage;
use divvy_proto::task::ExitStatus;
use divvy_proto::time::Timestamp;
use divvy_sdk::driver;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::agent::{AgentNode, DiskWrite};
use crate::framework::FrameworkNode;
use crate::invariants::Truth;
use crate::master::MasterNode;
use crate::script::{AGENTS, Step, TROUBLE};
use crate::wire::{End, Parcel, Peer, Wire};

/// A fault that the simulation must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    None,
    /// Frameworks are told that writes are durable some seconds before they are.
    LyingStore,
    /// What agents say about a task's end never arrives.
    LoseTerminalUpdates,
}

/// Something that is going to happen, unless the life that it belongs to has ended.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)]
pub enum Happening {
    Step(Step),
    Arrive { wire: u64, at: End, parcel: Parcel },
    Notice { wire: u64, at: End },
    HangUp { wire: u64 },
    StartMaster { life: u32 },
    MasterTurn { life: u32 },
    MasterTick { life: u32 },
    MasterStored { life: u32, token: PersistToken, changes: Vec<RegistryChange> },
    StartAgent { agent: usize, life: u32 },
    AgentDial { agent: usize, life: u32 },
    AgentTick { agent: usize, life: u32 },
    AgentInput { agent: usize, life: u32, input: supervisor::Input },
    AgentWritten { agent: usize, life: u32, write: DiskWrite },
    ContainerStarts { agent: usize, life: u32, container: ContainerId },
    ContainerExits { agent: usize, boot: u32, container: ContainerId, status: ExitStatus },
    ContainerGone { agent: usize, life: u32, container: ContainerId },
    Probe { agent: usize, life: u32, container: ContainerId, check: usize },
    StartFramework { framework: usize, life: u32 },
    FrameworkOpens { framework: usize, life: u32 },
    FrameworkTurn { framework: usize, life: u32 },
    FrameworkTick { framework: usize, life: u32 },
    FrameworkWritten { framework: usize, life: u32, writes: Vec<divvy_sdk::Write> },
    FrameworkPersisted { framework: usize, life: u32, token: driver::PersistToken },
}

pub struct World {
    pub now: Timestamp,
    pub rng: SmallRng,
    pub plant: Plant,
    /// Print every step.
    pub tell: bool,
    pub master: MasterNode,
    pub agents: Vec<AgentNode>,
    pub frameworks: Vec<FrameworkNode>,
    pub wires: BTreeMap<u64, Wire>,
    pub truth: Truth,
    /// Apps that were ever given a version that does not work.
    pub given_bad: BTreeSet<String>,
    queue: BTreeMap<(Timestamp, u64), Happening>,
    made: u64,
    trace: DefaultHasher,
}

/// So long the healed cluster may take to come to rest.
const HEALING: Duration = Duration::from_secs(3600);

impl World {
    pub fn new(seed: u64, plant: Plant) -> Self {
        Self {
            now: Timestamp(1_800_000_000_000),
            rng: SmallRng::seed_from_u64(seed),
            plant,
            tell: false,
            master: MasterNode::default(),
            agents: (0..AGENTS).map(|_| AgentNode::new()).collect(),
            frameworks: (0..2).map(|_| FrameworkNode::default()).collect(),
            wires: BTreeMap::new(),
            truth: Truth::default(),
            given_bad: BTreeSet::new(),
            queue: BTreeMap::new(),
            made: 0,
            trace: DefaultHasher::new(),
        }
    }

    /// A generator of its own, so that a script with one step more does not change all delays.
    pub fn rng(&mut self) -> SmallRng {
        SmallRng::seed_from_u64(self.rng.random())
    }

    /// What happened, as a number.
    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }

    pub fn live_through(&mut self, steps: Vec<(Duration, Step)>) -> Result<(), String> {
        self.start_master()?;
        (0..AGENTS).try_for_each(|agent| self.start_agent(agent))?;
        (0..2).try_for_each(|framework| self.start_framework(framework))?;
        let start = self.now;
        for (at, step) in steps {
            self.at(start + at, Happening::Step(step));
        }
        self.run_until(start + TROUBLE)
    }

    /// Faults stop, everything that is down comes up, and the cluster has to come to rest.
    pub fn heal(&mut self) -> Result<(), String> {
        self.queue.retain(|_, happening| !matches!(happening, Happening::Step(_)));
        for node in &mut self.agents {
            node.partitioned_until = Timestamp(0);
        }
        let end = self.now + HEALING;
        let mut last = Ok(());
        while self.now < end {
            let next = self.now + Duration::from_secs(20);
            self.run_until(next)?;
            (0..2).try_for_each(|framework| self.tell_inventory(framework))?;
            last = self.check_healed();
            if last.is_ok() {
                return Ok(());
            }
        }
        last.map_err(|wrong| format!("not healed after {} s: {wrong}", HEALING.as_secs()))
    }

    fn run_until(&mut self, end: Timestamp) -> Result<(), String> {
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((at, _), happening) = entry.remove_entry();
            self.now = self.now.max(at);
            self.record(&happening);
            self.happen(happening)
                .and_then(|()| self.check_truth())
                .map_err(|broken| format!("at {}: {broken}", self.now))?;
        }
        self.now = self.now.max(end);
        Ok(())
    }

    fn record(&mut self, happening: &Happening) {
        let line = format!("{} {happening:?}", self.now.0);
        line.hash(&mut self.trace);
        if self.tell {
            println!("{line}");
        }
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        use Happening as H;
        if !self.is_alive(&happening) {
            return Ok(());
        }
        match happening {
            H::Step(step) => self.step(step),
            H::Arrive { wire, at, parcel } => self.arrive(wire, at, parcel),
            H::Notice { wire, at } => self.notice(wire, at),
            H::HangUp { wire } => Ok(self.hang_up(wire)),
            H::StartMaster { .. } => self.start_master(),
            H::MasterTurn { .. } => self.master_turn(),
            H::MasterTick { .. } => self.master_input(kernel::Input::Tick),
            H::MasterStored { token, changes, .. } => self.master_stored(token, changes),
            H::StartAgent { agent, .. } => self.start_agent(agent),
            H::AgentDial { agent, .. } => self.agent_dials(agent),
            H::AgentTick { agent, .. } => self.agent_input(agent, supervisor::Input::Tick),
            H::AgentInput { agent, input, .. } => self.agent_input(agent, input),
            H::AgentWritten { agent, write, .. } => self.agent_written(agent, write),
            H::ContainerStarts { agent, container, .. } => self.container_starts(agent, container),
            H::ContainerExits { agent, boot, container, status } => {
                self.container_exits(agent, boot, &container, status)
            }
            H::ContainerGone { agent, container, .. } => self.container_gone(agent, container),
            H::Probe { agent, container, check, .. } => self.probe(agent, container, check),
            H::StartFramework { framework, .. } => self.start_framework(framework),
            H::FrameworkOpens { framework, .. } => self.framework_opens(framework),
            H::FrameworkTurn { framework, .. } => self.framework_turn(framework),
            H::FrameworkTick { framework, .. } => self.framework_input(framework, driver::Input::Tick),
            H::FrameworkWritten { framework, writes, .. } => Ok(self.framework_written(framework, writes)),
            H::FrameworkPersisted { framework, token, .. } => {
                self.framework_input(framework, driver::Input::Persisted(token))
            }
        }
    }

    /// Whether the process that something belongs to still lives.
    fn is_alive(&self, happening: &Happening) -> bool {
        use Happening as H;
        match happening {
            H::StartMaster { life }
            | H::MasterTurn { life }
            | H::MasterTick { life }
            | H::MasterStored { life, .. } => *life == self.master.life,
            H::StartAgent { agent, life }
            | H::AgentDial { agent, life }
            | H::AgentTick { agent, life }
            | H::AgentInput { agent, life, .. }
            | H::AgentWritten { agent, life, .. }
            | H::ContainerStarts { agent, life, .. }
            | H::ContainerGone { agent, life, .. }
            | H::Probe { agent, life, .. } => *life == self.agents[*agent].life,
            H::StartFramework { framework, life }
            | H::FrameworkOpens { framework, life }
            | H::FrameworkTurn { framework, life }
            | H::FrameworkTick { framework, life }
            | H::FrameworkWritten { framework, life, .. }
            | H::FrameworkPersisted { framework, life, .. } => *life == self.frameworks[*framework].life,
            H::Step(_)
            | H::Arrive { .. }
            | H::Notice { .. }
            | H::HangUp { .. }
            | H::ContainerExits { .. } => true,
        }
    }

    fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::CrashMaster => {
                self.crash_master();
                let (at, life) = (self.now + self.delay(100..30_000), self.master.life);
                self.at(at, Happening::StartMaster { life });
            }
            Step::CrashAgent(agent) | Step::RebootAgent(agent) => {
                match step {
                    Step::RebootAgent(_) => self.reboot_agent(agent),
                    _ => self.crash_agent(agent),
                }
                let (at, life) = (self.now + self.delay(100..120_000), self.agents[agent].life);
                self.at(at, Happening::StartAgent { agent, life });
            }
            Step::PartitionAgent(agent, time) => {
                self.agents[agent].partitioned_until = self.now + time;
                if let Some(wire) = self.agents[agent].wire {
                    self.cut(wire);
                }
            }
            Step::CrashFramework(framework) => {
                self.crash_framework(framework);
                let (at, life) = (self.now + self.delay(100..60_000), self.frameworks[framework].life);
                self.at(at, Happening::StartFramework { framework, life });
            }
            Step::CutWire => {
                let up = self.wires_up(|_| true);
                if !up.is_empty() {
                    let chosen = up[self.rng.random_range(0..up.len())];
                    self.cut(chosen);
                }
            }
            wish => return self.wish(wish),
        }
        Ok(())
    }

    pub fn at(&mut self, time: Timestamp, happening: Happening) {
        self.made += 1;
        self.queue.insert((time, self.made), happening);
    }

    pub fn delay(&mut self, millis: Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(millis))
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.rng.random_bool(probability)
    }

    pub fn connect(&mut self, peer: Peer, peer_life: u32) -> u64 {
        self.made += 1;
        let (master_life, now) = (self.master.life, self.now);
        self.wires
            .insert(self.made, Wire { peer, peer_life, master_life, up: true, to_master: now, to_peer: now });
        self.made
    }

    pub fn wires_up(&self, which: impl Fn(&Wire) -> bool) -> Vec<u64> {
        self.wires.iter().filter(|(_, wire)| wire.up && which(wire)).map(|(id, _)| *id).collect()
    }

    pub fn send(&mut self, id: u64, to: End, parcel: Parcel) {
        let delay = self.delay(1..40);
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.up) else { return };
        let latest = if to == End::Master { &mut wire.to_master } else { &mut wire.to_peer };
        let at = (self.now + delay).max(*latest);
        *latest = at;
        self.at(at, Happening::Arrive { wire: id, at: to, parcel });
    }

    /// Everything under way is lost; each end notices in its own time.
    pub fn cut(&mut self, id: u64) {
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.up) else { return };
        wire.up = false;
        for end in [End::Master, End::Peer] {
            // Mostly a reset that is seen at once; sometimes silence that only time-outs end.
            let longest = if self.chance(0.8) { 500 } else { 40_000 };
            let at = self.now + self.delay(1..longest);
            self.at(at, Happening::Notice { wire: id, at: end });
        }
    }

    /// The peer closes: the master hears of it after what was sent before.
    pub fn hang_up(&mut self, id: u64) {
        self.cut(id);
    }

    /// The master closes, after its last words have arrived.
    pub fn hang_up_after_delivery(&mut self, id: u64) {
        if let Some(wire) = self.wires.get(&id) {
            let at = wire.to_peer;
            self.at(at, Happening::HangUp { wire: id });
        }
    }

    fn ends_alive(&self, wire: &Wire) -> (bool, bool) {
        let peer = match wire.peer {
            Peer::Agent(agent) => self.agents[agent].life,
            Peer::Framework(framework) => self.frameworks[framework].life,
        };
        (wire.master_life == self.master.life, wire.peer_life == peer)
    }

    fn notice(&mut self, id: u64, at: End) -> Result<(), String> {
        let Some(wire) = self.wires.get(&id) else { return Ok(()) };
        let (peer, (master_alive, peer_alive)) = (wire.peer, self.ends_alive(wire));
        match (at, peer) {
            (End::Master, _) if !master_alive => Ok(()),
            (End::Peer, _) if !peer_alive => Ok(()),
            (End::Master, Peer::Agent(_)) => {
                self.master_input(kernel::Input::AgentClosed { link: LinkId(id) })
            }
            (End::Master, Peer::Framework(_)) => {
                self.master_input(kernel::Input::FrameworkClosed { link: LinkId(id) })
            }
            (End::Peer, Peer::Agent(agent)) => self.agent_lost_wire(agent, id),
            (End::Peer, Peer::Framework(framework)) => self.framework_lost_wire(framework, id),
        }
    }

    fn arrive(&mut self, id: u64, at: End, parcel: Parcel) -> Result<(), String> {
        let Some(wire) = self.wires.get(&id).filter(|wire| wire.up) else { return Ok(()) };
        let (master_alive, peer_alive) = self.ends_alive(wire);
        let (peer, link) = (wire.peer, LinkId(id));
        if (at == End::Master && !master_alive) || (at == End::Peer && !peer_alive) {
            return Ok(());
        }
        match (parcel, peer) {
            (Parcel::FromAgent(message), _) => {
                if let divvy_proto::agent::AgentMessage::Update { status, .. } = &message {
                    self.truth.says(status);
                }
                self.master_input(kernel::Input::Agent { link, message })
            }
            (Parcel::FromFramework(call), _) => self.master_input(kernel::Input::Framework { link, call }),
            (Parcel::ToAgent(message), Peer::Agent(agent)) => {
                if let MasterMessage::Acknowledge { update_id, .. } = &message {
                    self.truth.acknowledged(update_id);
                }
                self.agent_input(agent, supervisor::Input::Master { link: supervisor::LinkId(id), message })
            }
            (Parcel::ToFramework(event), Peer::Framework(framework))
                if self.is_current_wire(framework, id) =>
            {
                self.framework_input(framework, driver::Input::Event(event))
            }
            _ => Ok(()),
        }
    }
}
