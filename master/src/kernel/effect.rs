//! All that the kernel wants done.

use divvy_proto::agent::{AgentInfo, MasterMessage};
use divvy_proto::api::{Change, Drain, MaintenanceWindow};
use divvy_proto::ids::{AgentId, FrameworkId};
use divvy_proto::quota::{Quota, Weight};
use divvy_proto::reservation::{Reserved, Volume};
use divvy_proto::role::RolePath;
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
    /// A role's quota.
    PutQuota {
        /// Whose.
        role: RolePath,
        /// What; none takes it away.
        quota: Option<Quota>,
    },
    /// A role's weight.
    PutWeight {
        /// Whose.
        role: RolePath,
        /// How much; none for the default.
        weight: Option<Weight>,
    },
    /// What is reserved of an agent beside what its command line says, and its volumes; nothing of both takes the record away.
    PutReservations {
        /// Whose.
        agent: AgentId,
        /// What is reserved.
        reserved: Vec<Reserved>,
        /// The volumes.
        volumes: Vec<Volume>,
    },
    /// Whether an agent is offered, and whether it is being emptied; neither takes the record away.
    PutDrain {
        /// Which.
        agent: AgentId,
        /// Nothing of it is offered.
        deactivated: bool,
        /// It is being emptied.
        drain: Option<Drain>,
    },
    /// The schedule of maintenance, whole.
    PutMaintenance {
        /// What is planned.
        windows: Vec<MaintenanceWindow>,
    },
    /// Some of the task ids that a framework has used and that no agent remembers any more.
    PutTaskIds {
        /// Whose.
        framework: FrameworkId,
        /// Which part of them.
        bucket: TaskIdBucket,
        /// All of that part.
        ids: UsedTaskIds,
    },
    /// An agent that is gone is forgotten.
    RemoveAgent {
        /// Which.
        id: AgentId,
    },
    /// A framework that was torn down is forgotten, with its task ids.
    RemoveFramework {
        /// Which.
        id: FrameworkId,
    },
}

/// Names a part of a framework's used task ids, so that a change writes little.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskIdBucket {
    /// Ids that are this text and a decimal number.
    Numbered(String),
    /// All others, by the first bits of their hash.
    Hashed(u16),
}

/// Used task ids of one bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsedTaskIds {
    /// The numbers behind the prefix, as inclusive ranges, ascending and coalesced.
    Numbers(Vec<(u64, u64)>),
    /// Hashes of the whole ids, ascending.
    Hashes(Vec<u64>),
}

/// Why an agent is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Absence {
    /// It stopped answering.
    Unreachable(Timestamp),
    /// An operator said that it will not come back.
    Gone(Timestamp),
}
