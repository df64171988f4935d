//! Connections: first in, first out, with delays; cut at any moment, and noticed by each end in its own time.

use divvy_proto::agent::{AgentMessage, MasterMessage};
use divvy_proto::scheduler::{Call, Event};
use divvy_proto::time::Timestamp;

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
