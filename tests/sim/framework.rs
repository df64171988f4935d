//! The frameworks of the simulation: the drivers and planners of this tree, and a store that becomes durable a little later.

use std::collections::BTreeMap;
use std::time::Duration;

use divvy_batch::planner::Planner as BatchPlanner;
use divvy_proto::api::Agent;
use divvy_proto::role::RolePath;
use divvy_proto::scheduler::{CallBody, FrameworkInfo, Operation};
use divvy_proto::time::Timestamp;
use divvy_sdk::driver::{Config, Driver, Effect, Input, PersistToken, Restored};
use divvy_sdk::{View, Write};
use divvy_service::planner::Planner as ServicePlanner;

use crate::script::{BEHAVIOUR, FINE, Step};
use crate::wire::{End, Parcel, Peer};
use crate::world::{Happening, Plant, World};

pub const SERVICE: usize = 0;
pub const BATCH: usize = 1;

/// A driver with one of the two planners.
#[allow(clippy::large_enum_variant)]
pub enum AnyDriver {
    Service(Driver<ServicePlanner>),
    Batch(Driver<BatchPlanner>),
}

macro_rules! each {
    ($any:expr, $driver:ident => $body:expr) => {
        match $any {
            AnyDriver::Service($driver) => $body,
            AnyDriver::Batch($driver) => $body,
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

#[derive(Default)]
pub struct FrameworkNode {
    pub life: u32,
    pub driver: Option<AnyDriver>,
    store: BTreeMap<String, Vec<u8>>,
    wire: Option<u64>,
    turn_due: bool,
    tick_at: Option<Timestamp>,
    stored_until: Timestamp,
}

fn config(index: usize, life: u32) -> Config {
    let framework = FrameworkInfo {
        id: None,
        name: ["service", "batch"][index].to_owned(),
        user: None,
        roles: vec![RolePath::default()],
        principal: None,
        failover_timeout: Duration::from_secs(7 * 24 * 3600),
        url: None,
        labels: BTreeMap::new(),
    };
    Config { durable: true, ..Config::new(framework, u64::from(life) * 2 + index as u64) }
}

impl World {
    pub fn start_framework(&mut self, index: usize) -> Result<(), String> {
        let node = &mut self.frameworks[index];
        node.life += 1;
        let records = || node.store.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        let restored =
            Restored::from_records(records()).map_err(|error| format!("framework {index}: {error}"))?;
        let config = config(index, node.life);
        let owned = records().map(|(key, value)| (key.to_owned(), value.to_vec()));
        node.driver = Some(match index {
            SERVICE => {
                let planner = ServicePlanner::restore(records()).map_err(|error| error.to_string())?;
                AnyDriver::Service(Driver::new(config, planner, restored))
            }
            _ => {
                let planner = BatchPlanner::restore(owned).map_err(|error| error.to_string())?;
                AnyDriver::Batch(Driver::new(config, planner, restored))
            }
        });
        node.tick_at = None;
        node.turn_due = false;
        node.stored_until = self.now;
        self.framework_input(index, Input::Tick)
    }

    pub fn crash_framework(&mut self, index: usize) {
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

    pub fn framework_lost_wire(&mut self, index: usize, wire: u64) -> Result<(), String> {
        if self.frameworks[index].wire != Some(wire) {
            return Ok(());
        }
        self.frameworks[index].wire = None;
        self.framework_input(index, Input::Disconnected)
    }

    pub fn is_current_wire(&self, index: usize, wire: u64) -> bool {
        self.frameworks[index].wire == Some(wire)
    }

    pub fn framework_input(&mut self, index: usize, input: Input) -> Result<(), String> {
        let Some(driver) = &mut self.frameworks[index].driver else { return Ok(()) };
        let mut effects = Vec::new();
        driver.handle(self.now, input, &mut effects);
        self.turn_soon(index);
        self.framework_effects(index, effects)
    }

    /// A user's wish: REST in the real thing.
    pub fn wish(&mut self, step: Step) -> Result<(), String> {
        let (index, now) =
            (if matches!(step, Step::Submit(_) | Step::Cancel(_)) { BATCH } else { SERVICE }, self.now);
        let mut effects = Vec::new();
        if let Step::Apply(spec) = &step
            && spec.task.env.get(BEHAVIOUR).is_some_and(|behaviour| behaviour != FINE)
        {
            self.given_bad.insert(spec.id.to_string());
        }
        match self.frameworks[index].driver.as_mut() {
            None => return Ok(()), // nobody answers; the user tries again another day
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
                    Step::Submit(spec) => ((), planner.submit(spec, now).1),
                    Step::Cancel(id) => ((), planner.cancel(&id).1),
                    _ => ((), divvy_sdk::Actions::none()),
                };
                driver.apply(now, change, &mut effects);
            }
        }
        self.turn_soon(index);
        self.framework_effects(index, effects)
    }

    fn turn_soon(&mut self, index: usize) {
        let life = self.frameworks[index].life;
        if !std::mem::replace(&mut self.frameworks[index].turn_due, true) {
            self.at(self.now, Happening::FrameworkTurn { framework: index, life });
        }
    }

    pub fn framework_turn(&mut self, index: usize) -> Result<(), String> {
        self.frameworks[index].turn_due = false;
        let Some(driver) = &mut self.frameworks[index].driver else { return Ok(()) };
        let mut effects = Vec::new();
        driver.end_turn(self.now, &mut effects);
        self.framework_effects(index, effects)
    }

    fn framework_effects(&mut self, index: usize, effects: Vec<Effect>) -> Result<(), String> {
        for effect in effects {
            match effect {
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
                Effect::Stop(error) => return Err(format!("framework {index} was stopped: {error}")),
            }
        }
        let node = &mut self.frameworks[index];
        let due = node.driver.as_ref().and_then(AnyDriver::next_deadline);
        if let Some(at) = due.filter(|at| node.tick_at.is_none_or(|set| *at < set || set <= self.now)) {
            node.tick_at = Some(at);
            let life = node.life;
            self.at(at.max(self.now), Happening::FrameworkTick { framework: index, life });
        }
        Ok(())
    }

    fn check_launches(&self, index: usize, operations: &[Operation]) -> Result<(), String> {
        let launched = operations.iter().filter_map(|operation| match operation {
            Operation::Launch(tasks) => Some(tasks),
            _ => None,
        });
        for task in launched.flatten().filter(|_| index == BATCH) {
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
        for write in writes {
            match write {
                Write::Put { key, value } => self.frameworks[index].store.insert(key, value),
                Write::Delete { key } => self.frameworks[index].store.remove(&key),
            };
        }
    }
}
