//! The JSON of the operator API under `/api/v1`, and of `-o json`. What stands here is a contract with scripts and with the
//! dashboard: fields are added, never renamed. cpus are numbers of cores, mem and disk bytes, times RFC 3339.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::attributes::Attributes;
use crate::ids::{AgentId, FrameworkId, Hostname, OfferId, TaskId};
use crate::ranges::RangeSet;
use crate::resources::Resources;
use crate::role::RolePath;
use crate::task::{Reason, TaskPort, TaskState};
use crate::time::Timestamp;

/// Where an agent stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    /// Connected; its resources are offered.
    Active,
    /// Known from before a failover and not yet back.
    Recovering,
    /// Its connection broke or it misses pings.
    Suspected,
    /// It is taken to be partitioned or dead; its tasks are UNREACHABLE.
    Unreachable,
    /// An operator said it will not come back.
    Gone,
}

/// Where a framework stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrameworkState {
    /// Connected.
    Active,
    /// Not connected; its failover timeout runs.
    Disconnected,
    /// Torn down.
    Completed,
}

/// How an agent's or a cluster's resources are divided: `total = available + offered + used`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceUse {
    /// All there is.
    pub total: Resources,
    /// Held by tasks.
    pub used: Resources,
    /// Held by outstanding offers.
    pub offered: Resources,
    /// Held by nobody.
    pub available: Resources,
}

/// `GET /api/v1/agents` answers a list of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// The name of its machine.
    pub hostname: Hostname,
    /// Where it stands.
    pub state: AgentState,
    /// What it has and who holds it.
    pub resources: ResourceUse,
    /// What else it says of itself, with `hostname`.
    pub attributes: Attributes,
    /// How many tasks it holds that have not ended.
    pub tasks: usize,
    /// The address at which its tasks' ports are reached.
    pub address: String,
    /// Base address of its own HTTP API.
    pub url: String,
    /// Its version.
    pub version: String,
    /// Since when it is in this state.
    pub since: Timestamp,
}

/// `GET /api/v1/frameworks` answers a list of these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Framework {
    /// Its id.
    pub id: FrameworkId,
    /// Its name.
    pub name: String,
    /// The roles it wants offers in.
    pub roles: Vec<RolePath>,
    /// Where it stands.
    pub state: FrameworkState,
    /// How many tasks it has that have not ended.
    pub tasks: usize,
    /// How many offers it holds.
    pub offers: usize,
    /// Its largest share of any resource, used and offered, from 0 to 1. For people: nothing is decided by this number.
    pub dominant_share: f64,
    /// What its tasks and offers hold.
    pub resources: Resources,
    /// Base address of its own REST API.
    pub url: Option<String>,
    /// Since when it is in this state.
    pub since: Timestamp,
}

/// `GET /api/v1/tasks` answers a list of these: all that have not ended, and the latest that have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its id, unique within its framework.
    pub id: TaskId,
    /// Its name.
    pub name: String,
    /// Its framework's name.
    pub framework: String,
    /// Its framework.
    pub framework_id: FrameworkId,
    /// Its agent.
    pub agent_id: AgentId,
    /// Its agent's machine.
    pub hostname: Hostname,
    /// Where it stands.
    pub state: TaskState,
    /// Whether its health checks pass; null without checks, or before the first result.
    pub healthy: Option<bool>,
    /// Its ports.
    pub ports: RangeSet,
    /// Its ports by name, in the order of its spec.
    pub named_ports: Vec<TaskPort>,
    /// What it is charged with.
    pub resources: Resources,
    /// The container's first process as the host sees it.
    pub pid: Option<u32>,
    /// When it was first RUNNING.
    pub started_at: Option<Timestamp>,
    /// When it came into this state.
    pub updated_at: Timestamp,
    /// Why it is in this state.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
    /// The sandbox on its agent's disk.
    pub sandbox: Option<String>,
}

/// `GET /api/v1/offers` answers a list of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Its id, as shown.
    pub id: String,
    /// Its id, as a number.
    pub number: OfferId,
    /// Who holds it.
    pub framework_id: FrameworkId,
    /// The holder's name.
    pub framework: String,
    /// In which role.
    pub role: RolePath,
    /// Whose resources.
    pub agent_id: AgentId,
    /// The agent's machine.
    pub hostname: Hostname,
    /// How much.
    pub resources: Resources,
    /// Since when.
    pub since: Timestamp,
    /// Until when, if nobody answers.
    pub expires: Timestamp,
}

/// `GET /api/v1/roles` answers a list of these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Role {
    /// Its path.
    pub path: RolePath,
    /// Its weight among its siblings, in thousandths.
    pub weight: u32,
    /// Its largest share of any resource, from 0 to 1.
    pub dominant_share: f64,
    /// How many frameworks are subscribed to it.
    pub frameworks: usize,
    /// What it and all below it hold.
    pub resources: Resources,
}

/// `GET /api/v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Address of the leading master.
    pub leader: String,
    /// Its version.
    pub version: String,
    /// Its incarnation.
    pub epoch: u32,
    /// Seconds since it started to lead.
    pub uptime: u64,
    /// How many agents, by state.
    pub agents: BTreeMap<AgentState, usize>,
    /// How many frameworks, by state.
    pub frameworks: BTreeMap<FrameworkState, usize>,
    /// How many tasks, by state.
    pub tasks: BTreeMap<TaskState, usize>,
    /// All agents' resources that count now, together.
    pub resources: ResourceUse,
    /// What an operator should know now: a held-back breaker, a store that does not answer.
    pub warnings: Vec<String>,
}

/// One change, as `GET /api/v1/events` streams them (server-sent events; the SSE event name is `kind`). The first event on a
/// stream is a `snapshot`; every later one carries the whole new value of one object, so that a reader replaces by id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "data", rename_all = "snake_case")]
pub enum Change {
    /// Everything, once.
    Snapshot(Box<Snapshot>),
    /// An agent is new or different.
    Agent(Agent),
    /// A framework is new or different.
    Framework(Framework),
    /// A task is new or different.
    Task(Task),
    /// A task is no longer listed.
    TaskRemoved {
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        id: TaskId,
    },
    /// The cluster's totals. At most once a turn.
    Status(Box<Status>),
}

/// What a reader of changes starts from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Totals.
    pub status: Status,
    /// All agents.
    pub agents: Vec<Agent>,
    /// All frameworks.
    pub frameworks: Vec<Framework>,
    /// All tasks that are listed.
    pub tasks: Vec<Task>,
}

/// Live use of a task's container: `GET /api/v1/tasks/{framework_id}/{task_id}/usage`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time used, in microseconds.
    pub cpu_usec: u64,
    /// Memory used, in bytes.
    pub memory: u64,
    /// Most memory used, in bytes.
    pub memory_peak: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong, for people: names the field, the value and what was expected, or what to do next.
    pub error: String,
}
