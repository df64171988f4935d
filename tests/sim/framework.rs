//! The frameworks of the simulation: the drivers and planners of this tree, and a store that becomes durable a little later.

use std::collections::BTreeMap;
use std::time::Duration;

use divvy_batch::planner::Planner as BatchPlanner;
use divvy_proto::api::Agent;
use divvy_proto::scheduler::{CallBody, Capability, FrameworkInfo, Operation, StreamError};
use divvy_proto::time::Timestamp;
use divvy_sdk::driver::{Config, Driver, Effect, Input, PersistToken, Restored};
use divvy_sdk::{View, Write};
use divvy_service::planner::Planner as ServicePlanner;
use divvy_service::planner::spec::{Amount, AppSpec, Floor, UpdatePolicy};

use crate::clock::Clock;
use crate::crowd::Crowd;
use crate::script::{BEHAVIOUR, FINE, Nature, SHOP, Step};
use crate::wire::{End, Parcel, Peer};
use crate::world::{Happening, Plant, World};

pub const SERVICE: usize = 0;
pub const BATCH: usize = 1;

pub const GUEST: usize = 2;
/// The crowd (see `crowd`); not all of it is there in each history.
pub const PICKY: usize = 3;
pub const CREW: usize = 4;
pub const RIVAL: usize = 5;
pub const BURST: usize = 6;
pub const MISER: usize = 7;
pub const KEEPER: usize = 8;
pub const FORGER: usize = 9;

/// What the frameworks are called.
pub const NAMES: [&str; 10] =
    ["service", "batch", "guest", "picky", "crew", "rival", "burst", "miser", "keeper", "forger"];

/// How many kinds there are.
pub const FRAMEWORKS: usize = NAMES.len();

/// A driver with one of the planners.
#[allow(clippy::large_enum_variant)]
pub enum AnyDriver {
    Service(Driver<ServicePlanner>),
    Batch(Driver<BatchPlanner>),
    Crowd(Driver<Crowd>),
}

macro_rules! each {
    ($any:expr, $driver:ident => $body:expr) => {
        match $any {
            AnyDriver::Service($driver) => $body,
            AnyDriver::Batch($driver) => $body,
            AnyDriver::Crowd($driver) => $body,
        }
    };
}

impl AnyDriver {
    fn handle(&mut self, now: Timestamp, input: Input, effects: &mut Vec<Effect>) {
        each!(self, driver => driver.handle(now, input, effects));
    }

    fn end_turn(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        each!(self, driver => driver.end_turn(now, effects));
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        each!(self, driver => driver.next_deadline())
    }

    pub fn view(&self) -> &View {
        each!(self, driver => driver.view())
    }
}

/// A process of a framework.
#[derive(Default)]
pub struct FrameworkNode {
    /// Which framework: [`SERVICE`], [`BATCH`], [`GUEST`] or one of the crowd.
    pub kind: usize,
    /// Another process has the store now: nothing that this one writes becomes durable.
    pub fenced: bool,
    /// It is not there in this history, or the operator wants it gone: it is not started again.
    pub dismissed: bool,
    /// It wants nothing any more.
    resting: bool,
    clock: Clock,
    pub life: u32,
    pub driver: Option<AnyDriver>,
    store: BTreeMap<String, Vec<u8>>,
    pub wire: Option<u64>,
    turn_due: bool,
    tick_at: Option<Timestamp>,
    pub stored_until: Timestamp,
}

impl FrameworkNode {
    pub fn new(kind: usize, present: bool) -> Self {
        Self { kind, dismissed: !present, ..Self::default() }
    }

    /// A second process with the same store.
    fn heir(&self) -> Self {
        let (kind, store) = (self.kind, self.store.clone());
        Self { kind, store, dismissed: self.dismissed, resting: self.resting, ..Self::default() }
    }

    fn write(&mut self, writes: Vec<Write>) {
        for write in writes {
            match write {
                Write::Put { key, value } => self.store.insert(key, value),
                Write::Delete { key } => self.store.remove(&key),
            };
        }
    }
}

/// `seed`: another for each process.
fn config(nature: &Nature, kind: usize, seed: u64) -> Config {
    let revocable = kind == BURST && nature.bursts_on_revocable;
    let framework = FrameworkInfo {
        id: None,
        name: NAMES[kind].to_owned(),
        user: None,
        roles: nature.roles[kind].clone(),
        principal: None,
        failover_timeout: Duration::from_secs(7 * 24 * 3600),
        url: None,
        labels: BTreeMap::new(),
        capabilities: revocable.then_some(Capability::Revocable).into_iter().collect(),
    };
    Config { durable: true, ..Config::new(framework, seed) }
}

impl World {
    pub fn start_framework(&mut self, index: usize) -> Result<(), String> {
        if self.frameworks[index].dismissed {
            return Ok(());
        }
        let (clock, seed) = (self.new_clock(), self.next_number());
        let node = &mut self.frameworks[index];
        node.life += 1;
        node.clock = clock;
        let records = || node.store.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        let restored =
            Restored::from_records(records()).map_err(|error| format!("framework {index}: {error}"))?;
        let config = config(&self.nature, node.kind, seed);
        let owned = records().map(|(key, value)| (key.to_owned(), value.to_vec()));
        node.driver = Some(match node.kind {
            SERVICE => {
                let planner = ServicePlanner::restore(records()).map_err(|error| error.to_string())?;
                AnyDriver::Service(Driver::new(config, planner, restored))
            }
            BATCH => {
                let planner = BatchPlanner::restore(owned).map_err(|error| error.to_string())?;
                AnyDriver::Batch(Driver::new(config, planner, restored))
            }
            kind => {
                let crowd = Crowd::new(kind, self.nature.tastes[kind], node.resting);
                AnyDriver::Crowd(Driver::new(config, crowd, restored))
            }
        });
        node.tick_at = None;
        node.turn_due = false;
        node.stored_until = self.now;
        self.framework_input(index, Input::Tick)
    }

    /// A second process of a framework starts while the first lives on, and has its store from now on. The first hears of it
    /// from the master, or ends as soon as it misses its store.
    pub fn take_over(&mut self, kind: usize) -> Result<(), String> {
        let first = self.current[kind];
        if self.frameworks[first].driver.is_none() {
            return Ok(());
        }
        let heir = self.frameworks[first].heir();
        self.frameworks[first].fenced = true;
        let is_ours =
            |h: &Happening| matches!(h, Happening::FrameworkWritten { framework, .. } if *framework == first);
        let writes_fail = !self.take_from_queue(is_ours).is_empty();
        if writes_fail || self.frameworks[first].wire.is_none() {
            self.crash_framework(first);
        }
        self.frameworks.push(heir);
        self.current[kind] = self.frameworks.len() - 1;
        self.start_framework(self.current[kind])
    }

    pub fn crash_framework(&mut self, index: usize) {
        let (life, fenced) = (self.frameworks[index].life, self.frameworks[index].fenced);
        let is_ours = |h: &Happening| matches!(h, Happening::FrameworkWritten { framework, life: of, .. } if *framework == index && *of == life);
        for written in self.writes_cut_short(is_ours) {
            if let (Happening::FrameworkWritten { writes, .. }, false) = (written, fenced) {
                self.frameworks[index].write(writes);
            }
        }
        let node = &mut self.frameworks[index];
        node.driver = None;
        node.life += 1;
        if let Some(wire) = node.wire.take() {
            self.cut(wire);
        }
    }

    pub fn framework_opens(&mut self, index: usize) -> Result<(), String> {
        if self.master.kernel.is_none() {
            return self.framework_input(index, Input::Disconnected);
        }
        let wire = self.connect(Peer::Framework(index), self.frameworks[index].life);
        self.frameworks[index].wire = Some(wire);
        self.framework_input(index, Input::Connected)?;
        self.tell_inventory(index)
    }

    /// What `Operator.Watch` would bring.
    pub fn tell_inventory(&mut self, index: usize) -> Result<(), String> {
        let agents: Vec<Agent> =
            self.master.kernel.as_ref().map(|kernel| kernel.agents()).unwrap_or_default();
        self.framework_input(index, Input::Agents(agents))
    }

    pub fn tell_all_inventory(&mut self) -> Result<(), String> {
        self.current.into_iter().try_for_each(|framework| self.tell_inventory(framework))
    }

    pub fn framework_lost_wire(&mut self, index: usize, wire: u64) -> Result<(), String> {
        if self.frameworks[index].wire != Some(wire) {
            return Ok(());
        }
        self.frameworks[index].wire = None;
        if self.frameworks[index].fenced {
            return Ok(self.crash_framework(index));
        }
        self.framework_input(index, Input::Disconnected)
    }

    pub fn is_current_wire(&self, index: usize, wire: u64) -> bool {
        self.frameworks[index].wire == Some(wire)
    }

    pub fn framework_input(&mut self, index: usize, input: Input) -> Result<(), String> {
        let node = &mut self.frameworks[index];
        let Some(driver) = &mut node.driver else { return Ok(()) };
        let mut effects = Vec::new();
        driver.handle(node.clock.reads(self.now), input, &mut effects);
        self.turn_soon(index);
        self.framework_effects(index, effects)
    }

    /// A user's wish: REST in the real thing.
    pub fn wish(&mut self, mut step: Step) -> Result<(), String> {
        let kind = if matches!(step, Step::Submit(_) | Step::Cancel(_)) { BATCH } else { SERVICE };
        let index = self.current[kind];
        let now = self.frameworks[index].clock.reads(self.now);
        let mut effects = Vec::new();
        if let Step::Apply(spec) = &mut step {
            self.note_wish(spec);
        }
        match self.frameworks[index].driver.as_mut() {
            // Nobody answers; the user tries again another day.
            None | Some(AnyDriver::Crowd(_)) => return Ok(()),
            Some(AnyDriver::Service(driver)) => {
                let change = |planner: &mut ServicePlanner, _: &View| {
                    let actions = match step {
                        Step::Apply(spec) => {
                            planner.apply(spec, None, false, now).map(|(_, actions)| actions)
                        }
                        Step::Scale(id, instances) => planner.scale(&id, instances, now),
                        Step::Restart(id) => planner.restart(&id, now),
                        Step::Remove(id) => planner.remove(&id, now),
                        _ => return ((), divvy_sdk::Actions::none()),
                    };
                    ((), actions.unwrap_or_default()) // refusals are answers too
                };
                driver.apply(now, change, &mut effects);
            }
            Some(AnyDriver::Batch(driver)) => {
                let change = |planner: &mut BatchPlanner, _: &View| match step {
                    Step::Submit(spec) => {
                        ((), planner.submit(spec, now).map(|(_, actions)| actions).unwrap_or_default())
                    }
                    Step::Cancel(id) => ((), planner.cancel(&id).unwrap_or_default()),
                    _ => ((), divvy_sdk::Actions::none()),
                };
                driver.apply(now, change, &mut effects);
            }
        }
        self.turn_soon(index);
        self.framework_effects(index, effects)
    }

    /// From here on the crowd wants nothing.
    pub fn put_to_rest(&mut self) -> Result<(), String> {
        for index in self.current {
            let node = &mut self.frameworks[index];
            node.resting = true;
            let Some(AnyDriver::Crowd(driver)) = &mut node.driver else { continue };
            let mut effects = Vec::new();
            let rest = |crowd: &mut Crowd, _: &View| {
                crowd.resting = true;
                ((), divvy_sdk::Actions::none())
            };
            driver.apply(node.clock.reads(self.now), rest, &mut effects);
            self.turn_soon(index);
            self.framework_effects(index, effects)?;
        }
        Ok(())
    }

    fn note_wish(&mut self, spec: &mut AppSpec) {
        if spec.task.env.get(BEHAVIOUR).is_some_and(|behaviour| behaviour != FINE) {
            self.given_bad.insert(spec.id.to_string());
        }
        if self.plant == Plant::LooseBounds && spec.id.as_str() == SHOP {
            spec.update =
                UpdatePolicy { floor: Some(Floor::MinHealthy(Amount::Count(0))), ..spec.update.clone() };
        }
    }

    fn turn_soon(&mut self, index: usize) {
        let life = self.frameworks[index].life;
        if !std::mem::replace(&mut self.frameworks[index].turn_due, true) {
            self.at(self.now, Happening::FrameworkTurn { framework: index, life });
        }
    }

    pub fn framework_turn(&mut self, index: usize) -> Result<(), String> {
        self.frameworks[index].turn_due = false;
        let node = &mut self.frameworks[index];
        let Some(driver) = &mut node.driver else { return Ok(()) };
        let mut effects = Vec::new();
        driver.end_turn(node.clock.reads(self.now), &mut effects);
        self.framework_effects(index, effects)
    }

    fn framework_effects(&mut self, index: usize, effects: Vec<Effect>) -> Result<(), String> {
        for effect in effects {
            match effect {
                Effect::Connect if self.frameworks[index].fenced => self.crash_framework(index),
                Effect::Connect => {
                    self.framework_hangs_up(index);
                    let at = self.now + self.delay(1..500);
                    let life = self.frameworks[index].life;
                    self.at(at, Happening::FrameworkOpens { framework: index, life });
                }
                Effect::Disconnect => self.framework_hangs_up(index),
                Effect::Send(call) => {
                    if let CallBody::Accept { operations, .. } = &call.body {
                        self.check_launches(index, operations)?;
                    }
                    if let Some(wire) = self.frameworks[index].wire {
                        self.send(wire, End::Master, Parcel::FromFramework(call));
                    }
                }
                Effect::Persist { token, writes } => self.framework_stores(index, token, writes),
                Effect::Stop(error) => self.framework_stops(index, &error)?,
            }
        }
        let node = &mut self.frameworks[index];
        self.truth.stale |= node.kind == SERVICE;
        let due = node.driver.as_ref().and_then(AnyDriver::next_deadline);
        let due = due.map(|shown| node.clock.when(shown));
        if let Some(at) = due.filter(|at| node.tick_at.is_none_or(|set| *at < set || set <= self.now)) {
            node.tick_at = Some(at);
            let life = node.life;
            self.at(at.max(self.now), Happening::FrameworkTick { framework: index, life });
        }
        Ok(())
    }

    /// Only who was taken over or torn down stops.
    fn framework_stops(&mut self, index: usize, error: &StreamError) -> Result<(), String> {
        let (kind, fenced) = (self.frameworks[index].kind, self.frameworks[index].fenced);
        let rival =
            self.frameworks.iter().any(|node| node.fenced && node.kind == kind && node.driver.is_some());
        match error {
            StreamError::TakenOver if fenced => self.crash_framework(index),
            // The first process came later than the second: it had just begun to subscribe.
            StreamError::TakenOver if rival => self.crash_and_restart_framework(index),
            StreamError::TornDown if self.frameworks[self.current[kind]].dismissed => {
                self.crash_framework(index)
            }
            _ => return Err(format!("framework {index} was stopped: {error}")),
        }
        Ok(())
    }

    fn check_launches(&self, index: usize, operations: &[Operation]) -> Result<(), String> {
        let launched = operations.iter().filter_map(|operation| match operation {
            Operation::Launch(tasks) => Some(tasks),
            _ => None,
        });
        for task in launched.flatten().filter(|_| self.frameworks[index].kind == BATCH) {
            self.truth.may_launch(&task.id)?;
        }
        Ok(())
    }

    fn framework_hangs_up(&mut self, index: usize) {
        if let Some(wire) = self.frameworks[index].wire.take() {
            self.hang_up(wire);
        }
    }

    fn framework_stores(&mut self, index: usize, token: PersistToken, writes: Vec<Write>) {
        if self.frameworks[index].fenced {
            return self.crash_framework(index);
        }
        let at = (self.now + self.delay(1..20)).max(self.frameworks[index].stored_until);
        self.frameworks[index].stored_until = at;
        let life = self.frameworks[index].life;
        // A lying store says "durable" at once, and means it some seconds later.
        let (said, meant) = match self.plant {
            Plant::LyingStore => (at, at + Duration::from_secs(20)),
            _ => (at, at),
        };
        self.at(meant, Happening::FrameworkWritten { framework: index, life, writes });
        self.at(said, Happening::FrameworkPersisted { framework: index, life, token });
    }

    pub fn framework_written(&mut self, index: usize, writes: Vec<Write>) {
        self.frameworks[index].write(writes);
    }
}
