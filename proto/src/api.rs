//! The JSON of the operator API under `/api/v1`, and of `-o json`. What stands here is a contract with scripts and with the
//! dashboard: fields are added, never renamed. cpus are numbers of cores, mem and disk bytes, times RFC 3339.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::amounts::Amounts;
use crate::attributes::Attributes;
use crate::demand::Demand;
use crate::ids::{AgentId, FrameworkId, Hostname, OfferId, TaskId};
use crate::quantity::Cpus;
use crate::quota::{Quota, Weight};
use crate::ranges::RangeSet;
use crate::reservation::{Reserved, Volume};
use crate::resources::{Resources, Shortage};
use crate::role::RolePath;
use crate::scheduler::InverseOffer;
use crate::task::{Reason, TaskPort, TaskState};
use crate::time::Timestamp;

mod images;

pub use images::{AgentImage, ImageCollection, ImageOrder, PullEvent, PullStep, RemovedImages};

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
    /// An operator has switched its offers off.
    #[serde(default)]
    pub deactivated: bool,
    /// It is being emptied, or is empty.
    #[serde(default)]
    pub drain: Option<Drain>,
    /// When its next or present maintenance begins and ends.
    #[serde(default)]
    pub maintenance: Option<Window>,
    /// What of it is reserved.
    #[serde(default)]
    pub reserved: Vec<Reserved>,
    /// Its persistent volumes.
    #[serde(default)]
    pub volumes: Vec<VolumeView>,
    /// Revocable resources: all, and who holds them.
    #[serde(default)]
    pub revocable: ResourceUse,
}

/// An agent that is being emptied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Since when.
    pub since: Timestamp,
    /// When what still runs is killed; at once if absent.
    pub deadline: Option<Timestamp>,
    /// The agent is declared gone once it is empty.
    pub then_gone: bool,
    /// Nothing runs there any more.
    pub drained: bool,
}

/// A time in which agents are maintained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// From when. From the lead time before it the agents get no new tasks, and what runs there is asked back; at the start it is
    /// killed.
    pub start: Timestamp,
    /// How long. Afterwards the agents are offered again.
    #[serde(with = "humantime_serde")]
    pub duration: std::time::Duration,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
}

/// `GET|PUT /api/v1/maintenance`: the schedule, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaintenanceWindow {
    /// Which agents.
    pub agents: Vec<AgentId>,
    /// When.
    pub window: Window,
}

/// A persistent volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeView {
    /// What it is.
    #[serde(flatten)]
    pub volume: Volume,
    /// The tasks that use it, as `framework/task`.
    pub used_by: Vec<String>,
}

/// `GET /api/v1/reservations` answers a list of these, `GET /api/v1/volumes` one of those with a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationView {
    /// On which agent.
    pub agent_id: AgentId,
    /// The agent's machine.
    pub hostname: Hostname,
    /// Where the agent stands.
    pub agent_state: AgentState,
    /// The owner.
    pub role: RolePath,
    /// How much, under what.
    pub reserved: Reserved,
    /// How much of it tasks hold.
    pub used: Resources,
    /// Nobody is left to use it: no framework that is not torn down has the role or one below it.
    pub orphan: bool,
}

/// `GET /api/v1/volumes` answers a list of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentVolume {
    /// On which agent.
    pub agent_id: AgentId,
    /// The agent's machine.
    pub hostname: Hostname,
    /// Where the agent stands.
    pub agent_state: AgentState,
    /// The owner.
    pub role: RolePath,
    /// What it is.
    #[serde(flatten)]
    pub volume: VolumeView,
    /// Nobody is left to use it.
    pub orphan: bool,
}

/// `GET /api/v1/inverse-offers` answers a list of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InverseOfferView {
    /// What is wanted back.
    #[serde(flatten)]
    pub offer: InverseOffer,
    /// From whom.
    pub framework_id: FrameworkId,
    /// The framework's name.
    pub framework: String,
    /// What it said to it.
    pub answer: InverseAnswer,
    /// Since when.
    pub since: Timestamp,
}

/// What a framework said to an inverse offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InverseAnswer {
    /// Nothing yet.
    Pending,
    /// It will end the tasks itself.
    Accepted,
    /// It will not.
    Declined,
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
    /// Its quota, if it has one of its own.
    #[serde(default)]
    pub quota: Option<Quota>,
    /// What counts towards its limit and guarantee: what tasks of it and all below it use of what is unreserved and not
    /// revocable, and all that is reserved for them.
    #[serde(default)]
    pub consumed: Amounts,
    /// What is reserved for it and all below it.
    #[serde(default)]
    pub reserved: Resources,
    /// How much of its guarantee it does not have; nothing where it has it all.
    #[serde(default)]
    pub unmet: Amounts,
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
    Agent(Box<Agent>),
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
    /// Policy is different: a weight, a quota, the maintenance schedule.
    Role(Role),
    /// The kernel has decided something that somebody may want explained: a preemption, a gang, a hold, a drain.
    Decision(Decision),
}

/// One decision of the kernel, kept for a while: `GET /api/v1/decisions` answers a list of these, the latest last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Its number; they increase by one within a master's life.
    pub index: u64,
    /// When.
    pub time: Timestamp,
    /// What kind: `offered`, `preempted`, `gang_gathering`, `gang_complete`, `gang_released`, `held`, `drained`, ....
    pub what: DecisionKind,
    /// About which framework, if about one.
    pub framework_id: Option<FrameworkId>,
    /// In which role.
    pub role: Option<RolePath>,
    /// On which agent.
    pub agent_id: Option<AgentId>,
    /// About which tasks.
    #[serde(default)]
    pub tasks: Vec<TaskId>,
    /// How much.
    pub resources: Resources,
    /// Why, for people, with the numbers that decided.
    pub why: String,
}

/// Kinds of decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecisionKind {
    /// An offer was made.
    Offered,
    /// An agent is kept for a demand that has waited long.
    Held,
    /// A gang began to be gathered.
    GangGathering,
    /// A gang was complete, and offered.
    GangComplete,
    /// A gang was not complete in time; what was held is free again.
    GangReleased,
    /// Resources were asked back for a role below its guarantee.
    Preempted,
    /// Tasks were killed because a deadline had passed.
    Killed,
    /// An agent is being emptied.
    Draining,
    /// An agent is empty.
    Drained,
    /// Revocable resources were asked back.
    Revoked,
}

/// What is to be explained: `GET /api/v1/explain?role=…|framework=…[&demand=…]|framework=…&task=…`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// All demands of all frameworks in a role and below it.
    Role(RolePath),
    /// All demands of a framework, by id.
    Framework(FrameworkId),
    /// One shape of a framework's demand.
    Demand {
        /// Whose.
        framework_id: FrameworkId,
        /// In which role.
        role: RolePath,
        /// Its name.
        shape: String,
    },
    /// Why a task is where it is, or is not.
    Task {
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        task_id: TaskId,
    },
}

/// The answer to a [`Question`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// One sentence that says it all.
    pub summary: String,
    /// Where the role stands: share, guarantee, limit, and those before it in fair order.
    #[serde(default)]
    pub roles: Vec<RoleStanding>,
    /// One for each thing that waits.
    #[serde(default)]
    pub funnels: Vec<Funnel>,
    /// What the kernel decided about it, the latest last.
    #[serde(default)]
    pub decisions: Vec<Decision>,
}

/// Where a role stands in the fair order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoleStanding {
    /// The role, with its quota, weight and what it holds.
    #[serde(flatten)]
    pub role: Role,
    /// Its place among its siblings that want something, from 1; absent if it wants nothing.
    pub place: Option<usize>,
    /// How many siblings want something.
    pub siblings: usize,
}

/// Why something waits: all agents, and by what each is excluded. Each agent is counted once, at the first stage that excludes
/// it; the stages stand in the order in which the allocator asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Funnel {
    /// Whose.
    pub framework_id: FrameworkId,
    /// The framework's name.
    pub framework: String,
    /// In which role.
    pub role: RolePath,
    /// The demand's shape; absent for a framework that takes classic offers.
    pub shape: Option<String>,
    /// What one of it needs.
    pub wants: Amounts,
    /// How many are wanted and not yet offered.
    pub count: u32,
    /// Since when it waits.
    pub waiting_since: Option<Timestamp>,
    /// All agents that are known and not gone.
    pub agents: usize,
    /// What excludes how many.
    pub stages: Vec<Stage>,
    /// How many agents are left: on these it fits now. After a turn of the allocator there are none while something waits, but
    /// where a gang waits for the rest of it.
    pub fits: usize,
    /// The agent that comes nearest, and what it lacks.
    pub nearest: Option<Nearest>,
    /// What somebody could do about it.
    pub hint: String,
}

/// So many agents are excluded by this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// By what.
    #[serde(flatten)]
    pub reason: Exclusion,
    /// How many.
    pub agents: usize,
}

/// What excludes an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Exclusion {
    /// It is not connected: recovering, suspected or unreachable.
    NotActive,
    /// It is being drained, maintained, or was deactivated.
    Draining,
    /// It does not satisfy this clause of the constraint.
    Constraint {
        /// The first clause that fails.
        clause: String,
    },
    /// The framework has refused what it has, or more.
    Filter {
        /// When the first of these filters ends.
        until: Timestamp,
    },
    /// It is too small even when nobody uses it, or what would be needed is reserved for others.
    Reservation {
        /// For whom.
        roles: Vec<RolePath>,
    },
    /// It never has enough of this.
    TooSmall {
        /// Which dimension.
        dimension: String,
        /// What the best of these agents lacks, as text with its unit.
        missing: String,
    },
    /// Others hold too much of this: tasks or offers.
    HeldByOthers {
        /// Which dimension.
        dimension: String,
        /// What the best of these agents lacks now, as text with its unit.
        missing: String,
        /// Who holds the most of it, the largest first: framework names.
        holders: Vec<String>,
    },
    /// It is kept for a demand of the same role that has waited longer, or for a gang.
    HeldForWaiting {
        /// For whom: a framework's name.
        framework: String,
    },
    /// The role, or one above it, is at its limit.
    Limit {
        /// Whose.
        role: RolePath,
        /// Of which dimension.
        dimension: String,
    },
    /// It is kept for guarantees that are not met.
    Headroom {
        /// Whose, the largest first.
        roles: Vec<RolePath>,
    },
}

/// The agent that comes nearest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Nearest {
    /// Which.
    pub agent_id: AgentId,
    /// Its machine.
    pub hostname: Hostname,
    /// What it lacks, by dimension, as text with its unit; empty if what excludes it is not a lack of resources.
    pub missing: Vec<Shortage>,
    /// What excludes it.
    pub reason: Option<Exclusion>,
}

/// What a framework wants in a role: `GET /api/v1/demands` answers a list of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemandView {
    /// Whose.
    pub framework_id: FrameworkId,
    /// The framework's name.
    pub framework: String,
    /// In which role.
    pub role: RolePath,
    /// What. The counts are what is still wanted and not on offer.
    pub demand: Demand,
    /// How many of each shape are on offer now, by the shape's name.
    pub offered: BTreeMap<String, u32>,
    /// Since when the oldest of it waits.
    pub waiting_since: Option<Timestamp>,
}

/// `GET|PUT|DELETE /api/v1/quotas/{role…}`, and `GET /api/v1/quotas` answers a list of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleQuota {
    /// Whose.
    pub role: RolePath,
    /// What.
    #[serde(flatten)]
    pub quota: Quota,
    /// What counts towards it.
    #[serde(default)]
    pub consumed: Amounts,
}

/// `GET|PUT|DELETE /api/v1/weights/{role…}`, and `GET /api/v1/weights` answers a list of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetWeight {
    /// How much.
    pub weight: Weight,
}

/// A role's weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleWeight {
    /// Whose.
    pub role: RolePath,
    /// How much.
    pub weight: Weight,
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
    /// Bytes read from block devices, where the kernel counts them for containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_read: Option<u64>,
    /// Bytes written to block devices, where the kernel counts them for containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_written: Option<u64>,
    /// How long it was held up; cgroup v2 with PSI only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
}

/// For how long since its start something of a container waited for what others use, in microseconds (Linux: PSI, `some`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    /// For processor time.
    pub cpu_usec: u64,
    /// For memory.
    pub memory_usec: u64,
    /// For disks.
    pub io_usec: u64,
}

/// Live use of a task's container beside what it may use. `GET /api/v1/agents/{id}/usage` lists those of all tasks of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskUsage {
    /// Whose it is.
    pub framework_id: FrameworkId,
    /// Which task.
    pub task_id: TaskId,
    /// The machine.
    pub hostname: Hostname,
    /// When this was so, by the agent's clock.
    pub at: Timestamp,
    /// Processor time that it gets when everyone wants some.
    pub cpus: Cpus,
    /// Processor time that it never exceeds, if there is such a limit.
    pub cpu_limit: Option<Cpus>,
    /// Memory that it never exceeds, in bytes.
    pub memory_limit: u64,
    /// Processes and threads that it never exceeds.
    pub pids_limit: u64,
    /// What it uses.
    #[serde(flatten)]
    pub usage: Usage,
}

/// One entry of a directory in a sandbox: `GET /api/v1/tasks/{framework_id}/{task_id}/files?path=…`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name.
    pub name: String,
    /// `file`, `directory`, `link` or `other`.
    pub kind: String,
    /// In bytes.
    pub size: u64,
    /// When it was last changed.
    pub modified: Timestamp,
    /// The permission bits as `ls` shows them in octal: `0644`.
    pub mode: String,
}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong, for people: names the field, the value and what was expected, or what to do next.
    pub error: String,
}
