//! All that the kernel wants done.

use divvy_proto::agent::{AgentInfo, MasterMessage};
use divvy_proto::api::Change;
use divvy_proto::ids::{AgentId, FrameworkId};
use divvy_proto::scheduler::{Event, FrameworkInfo, StreamError};
use divvy_proto::time::Timestamp;
use serde::{Deserialize, Serialize};

/// One open stream, as the shell names it. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Names what is to be made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistToken(pub u64);

/// Names an operator's question, as the shell does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Something to be done, in this order.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "effects are moved once, out of the vector they were pushed to")]
pub enum Effect {
    /// Tell an agent.
    ToAgent {
        /// On this stream.
        link: LinkId,
        /// This.
        message: MasterMessage,
    },
    /// Tell a framework.
    ToFramework {
        /// On this stream.
        link: LinkId,
        /// This.
        event: Event,
    },
    /// End a stream, and say why as its last message.
    Close {
        /// The stream.
        link: LinkId,
        /// Why.
        error: StreamError,
    },
    /// Make this durable, all of it or nothing, then feed `Input::Persisted`.
    Persist {
        /// Names it.
        token: PersistToken,
        /// What.
        changes: Vec<RegistryChange>,
    },
    /// Answer an operator: what was done, or why not.
    Answer {
        /// The question.
        request: RequestId,
        /// The answer.
        result: Result<(), String>,
    },
    /// Tell those who watch. Never a `Snapshot`.
    Changed(Change),
}

/// What the registry holds: only what cannot be rebuilt from agents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegistryChange {
    /// An agent is admitted, or what it says of itself changed.
    PutAgent {
        /// Its id.
        id: AgentId,
        /// What it says of itself.
        info: AgentInfo,
        /// Since when it is unreachable or gone, if it is.
        absence: Option<Absence>,
    },
    /// A framework is admitted, changed, connected, disconnected or retired.
    PutFramework {
        /// Its id.
        id: FrameworkId,
        /// What it says of itself.
        info: FrameworkInfo,
        /// When it was last seen to disconnect; absent while connected. Its failover timeout runs from here, through
        /// failovers of the master too.
        disconnected: Option<Timestamp>,
        /// It was torn down, and the id is never used again.
        retired: bool,
    },
}

/// Why an agent is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Absence {
    /// It stopped answering.
    Unreachable(Timestamp),
    /// An operator said that it will not come back.
    Gone(Timestamp),
}
