//! The world: virtual time, a queue of what happens next, and all that there is.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::time::Duration;

use divvy_agent::container::ContainerId;
use divvy_agent::supervisor;
use divvy_master::kernel::{self, PersistToken, RegistryChange};
use divvy_proto::task::ExitStatus;
use divvy_proto::time::Timestamp;
use divvy_sdk::driver;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::agent::{AgentNode, DiskWrite};
use crate::framework::{FRAMEWORKS, FrameworkNode, GUEST};
use crate::invariants::Truth;
use crate::ledger::Ledger;
use crate::master::MasterNode;
use crate::operator::Errand;
use crate::orders::Orders;
use crate::promises::Patience;
use crate::script::{self, AGENTS, Nature, Step, TROUBLE};
use crate::wire::{End, Parcel, Wire};

/// A fault that the simulation must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    None,
    /// Frameworks are told that writes are durable some seconds before they are.
    LyingStore,
    /// What agents say about a task's end never arrives.
    LoseTerminalUpdates,
    /// Agents are told that checkpoints are durable some seconds before they are.
    LyingDisk,
    /// An agent that starts again knows nothing of its containers.
    Amnesia,
    /// The shop is updated with other bounds than those that are checked.
    LooseBounds,
    /// The master does not hear of limits of top roles.
    NoLimits,
    /// The master does not hear of guarantees.
    NoGuarantees,
    /// Used task ids are not stored.
    ForgetfulRegistry,
    /// Agents make no directories for volumes.
    NoVolumes,
    /// The last task of a gang is not sent to its agent.
    HalfAGang,
    /// What the master kills because a deadline has passed is not killed.
    NoForce,
    /// Frameworks do not hear that something is no longer wanted back.
    DeafToRescinds,
    /// The master holds what it has gathered for a gang for an hour.
    GreedyGangs,
    /// Agents keep a wrong account for each task.
    NoAllocations,
}

/// Something that is going to happen, unless the life that it belongs to has ended.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)]
pub enum Happening {
    Step(Step),
    Arrive {
        wire: u64,
        at: End,
        parcel: Parcel,
    },
    Notice {
        wire: u64,
        at: End,
    },
    HangUp {
        wire: u64,
    },
    StartMaster {
        life: u32,
    },
    MasterTurn {
        life: u32,
    },
    MasterTick {
        life: u32,
    },
    MasterStored {
        life: u32,
        token: PersistToken,
        changes: Vec<RegistryChange>,
    },
    StartAgent {
        agent: usize,
        life: u32,
    },
    AgentDial {
        agent: usize,
        life: u32,
    },
    AgentTick {
        agent: usize,
        life: u32,
    },
    AgentInput {
        agent: usize,
        life: u32,
        input: supervisor::Input,
    },
    AgentWritten {
        agent: usize,
        life: u32,
        write: DiskWrite,
    },
    ContainerStarts {
        agent: usize,
        life: u32,
        container: ContainerId,
    },
    ContainerExits {
        agent: usize,
        boot: u32,
        container: ContainerId,
        status: ExitStatus,
    },
    ContainerGone {
        agent: usize,
        life: u32,
        container: ContainerId,
    },
    Probe {
        agent: usize,
        life: u32,
        container: ContainerId,
        check: usize,
    },
    StartFramework {
        framework: usize,
        life: u32,
    },
    FrameworkOpens {
        framework: usize,
        life: u32,
    },
    FrameworkTurn {
        framework: usize,
        life: u32,
    },
    FrameworkTick {
        framework: usize,
        life: u32,
    },
    FrameworkWritten {
        framework: usize,
        life: u32,
        writes: Vec<divvy_sdk::Write>,
    },
    FrameworkPersisted {
        framework: usize,
        life: u32,
        token: driver::PersistToken,
    },
    Operator(Errand),
    /// `Operator.Watch` tells the frameworks of an agent that has come.
    Inventory,
    /// Whether what is promised is kept.
    Look,
}

/// What becomes of a line about each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    Nothing,
    /// It counts towards [`World::trace`].
    Traced,
    Printed,
}

pub struct World {
    pub now: Timestamp,
    pub rng: SmallRng,
    pub plant: Plant,
    pub nature: Nature,
    pub telling: Telling,
    pub master: MasterNode,
    pub agents: Vec<AgentNode>,
    /// Every process of a framework that ever was.
    pub frameworks: Vec<FrameworkNode>,
    /// The latest process of each framework.
    pub current: [usize; FRAMEWORKS],
    pub wires: BTreeMap<u64, Wire>,
    pub truth: Truth,
    /// Apps that were ever given a version that does not work.
    pub given_bad: BTreeSet<String>,
    /// What the operator is still after.
    pub errands: usize,
    pub orders: Orders,
    pub ledger: Ledger,
    pub patience: Patience,
    queue: BTreeMap<(Timestamp, u64), Happening>,
    made: u64,
    trace: DefaultHasher,
}

/// So long nothing fails before everybody comes to rest.
const QUIET: Duration = Duration::from_secs(210);

/// So long the healed cluster may take to come to rest.
const HEALING: Duration = Duration::from_secs(3600);

impl World {
    pub fn new(seed: u64, plant: Plant, telling: Telling) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let nature = script::nature(&mut rng);
        let frameworks = (0..FRAMEWORKS).map(|kind| FrameworkNode::new(kind, nature.present[kind])).collect();
        let agents = (0..AGENTS).map(|agent| AgentNode::new(agent, &nature)).collect();
        Self {
            now: Timestamp(1_800_000_000_000),
            rng,
            plant,
            nature,
            telling,
            master: MasterNode::default(),
            agents,
            frameworks,
            current: std::array::from_fn(|kind| kind),
            wires: BTreeMap::new(),
            truth: Truth::default(),
            given_bad: BTreeSet::new(),
            errands: 0,
            orders: Orders::default(),
            ledger: Ledger::default(),
            patience: Patience::default(),
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

    pub fn live_through_trouble(&mut self) -> Result<(), String> {
        let steps = script::script(&self.nature.clone(), &mut self.rng());
        self.start_master()?;
        (0..AGENTS).try_for_each(|agent| self.start_agent(agent))?;
        (0..FRAMEWORKS).try_for_each(|framework| self.start_framework(framework))?;
        let start = self.now;
        self.at(start, Happening::Look);
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
        // Everybody still wants what they want: now promises are kept.
        self.run_until(self.now + QUIET)?;
        if !self.frameworks[self.current[GUEST]].dismissed {
            self.step(Step::DismissGuest)?;
        }
        self.put_to_rest()?;
        let end = self.now + HEALING;
        let mut last = Ok(());
        while self.now < end {
            let next = self.now + Duration::from_secs(20);
            self.run_until(next)?;
            self.bury_unknown_agents();
            self.tell_all_inventory()?;
            if self.errands == 0 {
                self.undo_orders();
            }
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
        if self.telling == Telling::Nothing {
            return; // most of a history's time went into these lines
        }
        let line = format!("{} {happening:?}", self.now.0);
        line.hash(&mut self.trace);
        if self.telling == Telling::Printed {
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
            H::Operator(errand) => self.operator_asks(errand),
            H::Inventory => self.tell_all_inventory(),
            H::Look => self.look(),
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
            | H::FrameworkTick { framework, life } => *life == self.frameworks[*framework].life,
            H::FrameworkWritten { framework, life, .. } | H::FrameworkPersisted { framework, life, .. } => {
                let node = &self.frameworks[*framework];
                *life == node.life && !node.fenced
            }
            H::Step(_)
            | H::Arrive { .. }
            | H::Notice { .. }
            | H::HangUp { .. }
            | H::Operator(_)
            | H::Inventory
            | H::Look
            | H::ContainerExits { .. } => true,
        }
    }

    pub fn at(&mut self, time: Timestamp, happening: Happening) {
        let number = self.next_number();
        self.queue.insert((time, number), happening);
    }

    /// Never the same twice.
    pub fn next_number(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    /// What is going to happen of a certain kind, in order; now it is not.
    pub fn take_from_queue(&mut self, is_one: impl Fn(&Happening) -> bool) -> Vec<Happening> {
        let found = self.queue.iter().filter(|(_, happening)| is_one(happening));
        let keys: Vec<_> = found.map(|(key, _)| *key).collect();
        keys.iter().filter_map(|key| self.queue.remove(key)).collect()
    }

    pub fn delay(&mut self, millis: Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(millis))
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.rng.random_bool(probability)
    }

    /// Whether something fails that rarely does, and never while all is calm.
    pub fn mishap(&mut self, probability: f64) -> bool {
        self.chance(probability) && !self.nature.calm
    }
}
