//! The master of the simulation: the kernel, and a registry that becomes durable a little later.

use std::collections::BTreeMap;
use std::time::Duration;

use divvy_master::kernel::{Config, Effect, Input, Kernel, LinkId, PersistToken, RegistryChange};
use divvy_proto::agent::MasterMessage;
use divvy_proto::ids::{AgentId, Epoch};
use divvy_proto::scheduler::Event;
use divvy_proto::time::Timestamp;

use crate::clock::Clock;
use crate::wire::{End, Parcel, Peer};
use crate::world::{Happening, Plant, World};

#[derive(Debug, Default)]
pub struct MasterNode {
    pub life: u32,
    pub kernel: Option<Kernel>,
    /// What is durable, by a key that is one record's.
    registry: BTreeMap<String, RegistryChange>,
    epoch: u32,
    turn_due: bool,
    tick_at: Option<Timestamp>,
    pub stored_until: Timestamp,
    clock: Clock,
}

impl MasterNode {
    /// What is stored of an agent's reservations and volumes.
    pub fn reserved(&self, agent: &AgentId) -> Option<&RegistryChange> {
        self.registry.get(&format!("4 reservations/{agent}"))
    }

    /// What its clock shows.
    pub fn shown(&self, now: Timestamp) -> Timestamp {
        self.clock.reads(now)
    }
}

fn config(epoch: u32) -> Config {
    Config {
        epoch: Epoch(epoch),
        ping_interval: Duration::from_secs(5),
        missed_pings: 3,
        reregister_timeout: Duration::from_secs(60),
        // Agents fail one by one here; that the breaker holds is a test of the kernel's own.
        breaker_percent: 0,
        ended_tasks_kept: 30,
        patience: Duration::from_secs(10),
        revocation_grace: Duration::from_secs(20),
        maintenance_lead: Duration::from_secs(60),
        ..Config::default()
    }
}

fn key(change: &RegistryChange) -> String {
    // The digit is the group's place in the order in which a master reads them.
    match change {
        RegistryChange::PutAgent { id, .. } | RegistryChange::RemoveAgent { id } => format!("0 agents/{id}"),
        RegistryChange::PutFramework { id, .. } | RegistryChange::RemoveFramework { id } => {
            format!("1 frameworks/{id}")
        }
        RegistryChange::PutQuota { role, .. } => format!("2 quotas/{role}"),
        RegistryChange::PutWeight { role, .. } => format!("3 weights/{role}"),
        RegistryChange::PutReservations { agent, .. } => format!("4 reservations/{agent}"),
        RegistryChange::PutDrain { agent, .. } => format!("5 drains/{agent}"),
        RegistryChange::PutMaintenance { .. } => "6 maintenance".to_owned(),
        RegistryChange::PutTaskIds { framework, bucket, .. } => format!("7 task-ids/{framework}/{bucket:?}"),
    }
}

impl World {
    pub fn start_master(&mut self) -> Result<(), String> {
        self.master.life += 1;
        self.master.epoch += 1;
        self.master.clock = self.new_clock();
        let records = self.master.registry.values().cloned();
        let now = self.master.clock.reads(self.now);
        self.master.kernel = Some(Kernel::recover(config(self.master.epoch), records, now));
        self.master.tick_at = None;
        self.master.turn_due = false;
        self.master.stored_until = self.now;
        self.master_input(Input::Tick)
    }

    pub fn crash_master(&mut self) {
        let life = self.master.life;
        let is_ours = |h: &Happening| matches!(h, Happening::MasterStored { life: of, .. } if *of == life);
        for written in self.writes_cut_short(is_ours) {
            if let Happening::MasterStored { changes, .. } = written {
                self.master_writes(changes);
            }
        }
        self.master.kernel = None;
        self.master.life += 1;
        self.orders_are_lost();
        for wire in self.wires_up(|_| true) {
            self.cut(wire);
        }
    }

    pub fn master_input(&mut self, input: Input) -> Result<(), String> {
        if self.master.kernel.is_none() {
            return Ok(());
        }
        let effects = self.watched(input)?;
        // What comes within the same millisecond is one batch, as in the shell. At its end the invariants are checked.
        if !std::mem::replace(&mut self.master.turn_due, true) {
            let life = self.master.life;
            self.at(self.now, Happening::MasterTurn { life });
        }
        self.master_effects(effects);
        Ok(())
    }

    pub fn master_turn(&mut self) -> Result<(), String> {
        let Some(kernel) = &mut self.master.kernel else { return Ok(()) };
        self.master.turn_due = false;
        let mut effects = Vec::new();
        kernel.end_turn(self.master.clock.reads(self.now), &mut effects);
        if !cfg!(debug_assertions) {
            // In debug builds the kernel has just done so itself.
            kernel.check_invariants().map_err(|broken| format!("kernel: {broken}"))?;
        }
        self.master_effects(effects);
        Ok(())
    }

    fn master_effects(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::ToAgent { link, message } => self.send(link.0, End::Peer, Parcel::ToAgent(message)),
                Effect::ToFramework { event: Event::RescindInverse(_), .. }
                    if self.plant == Plant::DeafToRescinds => {}
                Effect::ToFramework { link, event } => {
                    self.send(link.0, End::Peer, Parcel::ToFramework(event))
                }
                Effect::Close { link, error } => self.close(link, error),
                Effect::Persist { token, changes } => self.persist(token, changes),
                Effect::Answer { request, result } => self.operator_hears(request, result.is_ok()),
                Effect::Changed(_) => {}
            }
        }
        if let Some(kernel) = &self.master.kernel {
            let due = kernel.next_deadline().map(|shown| self.master.clock.when(shown));
            if let Some(at) =
                due.filter(|at| self.master.tick_at.is_none_or(|set| *at < set || set <= self.now))
            {
                self.master.tick_at = Some(at);
                let life = self.master.life;
                self.at(at.max(self.now), Happening::MasterTick { life });
            }
        }
    }

    fn close(&mut self, link: LinkId, error: divvy_proto::scheduler::StreamError) {
        let parcel = match self.wires.get(&link.0).map(|wire| wire.peer) {
            Some(Peer::Agent(_)) => Parcel::ToAgent(MasterMessage::Error(error)),
            Some(Peer::Framework(_)) => Parcel::ToFramework(Event::Error(error)),
            None => return,
        };
        self.send(link.0, End::Peer, parcel);
        self.hang_up_after_delivery(link.0);
    }

    fn persist(&mut self, token: PersistToken, changes: Vec<RegistryChange>) {
        let at = (self.now + self.delay(1..20)).max(self.master.stored_until);
        self.master.stored_until = at;
        let life = self.master.life;
        self.at(at, Happening::MasterStored { life, token, changes });
    }

    pub fn master_stored(&mut self, token: PersistToken, changes: Vec<RegistryChange>) -> Result<(), String> {
        self.master_writes(changes);
        self.master_input(Input::Persisted(token))
    }

    fn master_writes(&mut self, changes: Vec<RegistryChange>) {
        for change in changes {
            match &change {
                RegistryChange::PutTaskIds { .. } if self.plant == Plant::ForgetfulRegistry => continue,
                RegistryChange::RemoveAgent { id } => {
                    let of_agent = [format!("4 reservations/{id}"), format!("5 drains/{id}")];
                    of_agent.iter().for_each(|key| drop(self.master.registry.remove(key)));
                    self.master.registry.remove(&key(&change));
                }
                RegistryChange::RemoveFramework { id } => {
                    let ids = format!("7 task-ids/{id}/");
                    self.master.registry.retain(|key, _| !key.starts_with(&ids));
                    self.master.registry.remove(&key(&change));
                }
                _ => drop(self.master.registry.insert(key(&change), change)),
            }
        }
    }
}
