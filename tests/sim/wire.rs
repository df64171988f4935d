//! Connections: first in, first out, with delays; cut at any moment, and noticed by each end in its own time.

use divvy_agent::supervisor;
use divvy_master::kernel::{self, LinkId};
use divvy_proto::agent::{AgentMessage, MasterMessage};
use divvy_proto::scheduler::{Call, Event};
use divvy_proto::time::Timestamp;
use divvy_sdk::driver;

use crate::world::{Happening, World};

/// Who is at the other end of a connection to the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Agent(usize),
    Framework(usize),
}

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Master,
    Peer,
}

/// What travels.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)]
pub enum Parcel {
    FromAgent(AgentMessage),
    ToAgent(MasterMessage),
    FromFramework(Call),
    ToFramework(Event),
}

/// A connection. Lives tell an end that is still the same process from one that was started again.
#[derive(Debug)]
pub struct Wire {
    pub peer: Peer,
    pub peer_life: u32,
    pub master_life: u32,
    pub up: bool,
    /// When the latest parcel to each end arrives: later ones do not overtake it.
    pub to_master: Timestamp,
    pub to_peer: Timestamp,
}

impl World {
    pub fn connect(&mut self, peer: Peer, peer_life: u32) -> u64 {
        let (id, master_life, now) = (self.next_number(), self.master.life, self.now);
        self.wires.insert(id, Wire { peer, peer_life, master_life, up: true, to_master: now, to_peer: now });
        id
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

    pub fn notice(&mut self, id: u64, at: End) -> Result<(), String> {
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

    pub fn arrive(&mut self, id: u64, at: End, parcel: Parcel) -> Result<(), String> {
        let Some(wire) = self.wires.get(&id).filter(|wire| wire.up) else { return Ok(()) };
        let (master_alive, peer_alive) = self.ends_alive(wire);
        let (peer, link) = (wire.peer, LinkId(id));
        if (at == End::Master && !master_alive) || (at == End::Peer && !peer_alive) {
            return Ok(());
        }
        match (parcel, peer) {
            (Parcel::FromAgent(message), _) => {
                if let AgentMessage::Update { framework_id, status } = &message {
                    self.truth.says(status);
                    self.ledger.says(framework_id, status);
                }
                self.master_input(kernel::Input::Agent { link, message })
            }
            (Parcel::FromFramework(call), _) => self.master_input(kernel::Input::Framework { link, call }),
            (Parcel::ToAgent(message), Peer::Agent(agent)) => {
                match &message {
                    MasterMessage::Acknowledge { update_id, .. } => {
                        self.truth.acknowledged(update_id);
                        self.ledger.acknowledged(update_id);
                    }
                    MasterMessage::Registered { .. } => {
                        let at = self.now + self.delay(1..100);
                        self.at(at, Happening::Inventory);
                    }
                    _ => {}
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
