//! What frameworks and the master say to each other: Mesos v1's scheduler API, with the differences of the design.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::attributes::Attributes;
use crate::demand::{Demand, OfferedDemand};
use crate::ids::{
    AgentId, CallId, Epoch, FrameworkId, Hostname, InverseOfferId, OfferId, OperationId, Principal, TaskId,
    UpdateId, VolumeId,
};
use crate::quantity::Bytes;
use crate::reservation::{Reservation, Reserved, Volume};
use crate::resources::{Resources, Shortage};
use crate::role::RolePath;
use crate::task::{TaskInfo, TaskStatus};
use crate::time::Timestamp;

/// A framework as it introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameworkInfo {
    /// Its id; absent the very first time.
    pub id: Option<FrameworkId>,
    /// Its name, for people.
    pub name: String,
    /// The user its tasks run as unless they say otherwise; the agent's default if absent.
    pub user: Option<String>,
    /// The roles it wants offers in; at least one, no duplicates.
    pub roles: Vec<RolePath>,
    /// Who it is, where authentication is on.
    pub principal: Option<Principal>,
    /// How long its tasks outlive its connection. A week by default.
    #[serde(with = "humantime_serde")]
    pub failover_timeout: Duration,
    /// Base address of its own REST API, if it has one: `http://127.0.0.1:5060`.
    pub url: Option<String>,
    /// Free for people.
    pub labels: BTreeMap<String, String>,
    /// What it can deal with beyond the usual.
    #[serde(default)]
    pub capabilities: BTreeSet<Capability>,
}

/// What a framework can deal with; without it, it does not see such things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Offers of revocable resources: what runs on them may be ended at any time.
    Revocable,
}

/// The failover timeout of a framework that states none.
pub const DEFAULT_FAILOVER_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long a refusal lasts if nothing is said (Mesos: 5 s).
pub const DEFAULT_REFUSE: Duration = Duration::from_secs(5);

/// What is offered: resources of one agent, to one framework, in one role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferInfo {
    /// Names it.
    pub id: OfferId,
    /// Whose resources.
    pub agent_id: AgentId,
    /// The agent's machine.
    pub hostname: Hostname,
    /// The agent's attributes, without `hostname`.
    pub attributes: Attributes,
    /// In which role of the framework.
    pub role: RolePath,
    /// How much, what is reserved included. Volumes are not in it: their disk is spent.
    pub resources: Resources,
    /// How much of it is reserved, and under what. A task takes from the reserved first.
    #[serde(default)]
    pub reserved: Vec<Reserved>,
    /// Volumes of the role on this agent that no task uses.
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// All of it may be taken back at any time.
    #[serde(default)]
    pub revocable: bool,
    /// From when on the agent is to be maintained, if that is planned.
    #[serde(default)]
    pub unavailable: Option<Timestamp>,
    /// For which demand it was made; absent in a classic offer.
    #[serde(default)]
    pub demand: Option<OfferedDemand>,
}

/// Resources that are wanted back. What the framework does about it is its own affair; at the deadline the tasks are killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InverseOffer {
    /// Names it.
    pub id: InverseOfferId,
    /// On which agent.
    pub agent_id: AgentId,
    /// The agent's machine.
    pub hostname: Hostname,
    /// The tasks that have to end.
    pub tasks: Vec<TaskId>,
    /// What they hold.
    pub resources: Resources,
    /// When they are killed; absent if they are not.
    pub deadline: Option<Timestamp>,
    /// Why.
    pub reason: InverseReason,
}

/// Why resources are wanted back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InverseReason {
    /// The agent is drained, or its maintenance is near.
    Maintenance,
    /// This role is below its guarantee.
    Preemption(RolePath),
    /// The agent has fewer revocable resources than it had.
    Revocation,
}

/// What a framework does not want to see again, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filters {
    /// How long; zero for not at all. At most a year.
    #[serde(with = "humantime_serde")]
    pub refuse: Duration,
}

impl Default for Filters {
    fn default() -> Self {
        Self { refuse: DEFAULT_REFUSE }
    }
}

/// What an Accept does with what it takes, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Run tasks.
    Launch(Vec<TaskInfo>),
    /// Run tasks on one of several agents that the call's offers are of. All tasks of the call run, or none.
    LaunchOn {
        /// Where.
        agent_id: AgentId,
        /// What.
        tasks: Vec<TaskInfo>,
    },
    /// Run the tasks of one task group, which all name it: as `Launch`, which may also have tasks of groups, but only that.
    LaunchGroup(Vec<TaskInfo>),
    /// Reserve resources for the role of the offers.
    Reserve {
        /// For the feedback.
        id: Option<OperationId>,
        /// What.
        resources: Resources,
        /// The reservations that this one refines; none if it takes what is unreserved.
        refines: Vec<Reservation>,
        /// Free for the framework.
        labels: BTreeMap<String, String>,
    },
    /// Undo the innermost reservation.
    Unreserve {
        /// For the feedback.
        id: Option<OperationId>,
        /// How much.
        resources: Resources,
        /// Under these reservations.
        stack: Vec<Reservation>,
    },
    /// Make a persistent volume of reserved disk.
    Create {
        /// For the feedback.
        id: Option<OperationId>,
        /// Its name, unique on its agent.
        volume_id: VolumeId,
        /// How large.
        size: Bytes,
        /// Of disk under these reservations.
        stack: Vec<Reservation>,
    },
    /// Remove a persistent volume, and what is in it. No task may use it.
    Destroy {
        /// For the feedback.
        id: Option<OperationId>,
        /// Its name.
        volume_id: VolumeId,
    },
    /// Make a persistent volume larger, from disk under the volume's own reservations.
    Grow {
        /// For the feedback.
        id: Option<OperationId>,
        /// Its name.
        volume_id: VolumeId,
        /// By how much.
        by: Bytes,
    },
    /// Make a persistent volume smaller. No task may use it.
    Shrink {
        /// For the feedback.
        id: Option<OperationId>,
        /// Its name.
        volume_id: VolumeId,
        /// By how much; less than its size.
        by: Bytes,
    },
}

impl Operation {
    /// What its feedback carries, if it wants any.
    #[must_use]
    pub fn id(&self) -> Option<&OperationId> {
        match self {
            Self::Launch(_) | Self::LaunchOn { .. } | Self::LaunchGroup(_) => None,
            Self::Reserve { id, .. }
            | Self::Unreserve { id, .. }
            | Self::Create { id, .. }
            | Self::Destroy { id, .. }
            | Self::Grow { id, .. }
            | Self::Shrink { id, .. } => id.as_ref(),
        }
    }
}

/// A call with its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Matches the reply.
    pub id: CallId,
    /// What is asked.
    pub body: CallBody,
}

/// What a framework may ask of the master. The first call on a stream is `Subscribe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallBody {
    /// Begin, or take over from an earlier connection with the same id.
    Subscribe {
        /// Who.
        framework: FrameworkInfo,
        /// Roles in which no offers are wanted for now.
        suppressed: Vec<RolePath>,
    },
    /// Use offers, all in one role; what is left over returns, with the filter. Offers of several agents only with `LaunchOn`:
    /// then all launches happen, or none.
    Accept {
        /// Which offers; at least one.
        offers: Vec<OfferId>,
        /// To do what, in order.
        operations: Vec<Operation>,
        /// For what is left.
        filters: Filters,
    },
    /// Return offers unused.
    Decline {
        /// Which.
        offers: Vec<OfferId>,
        /// Until when not to see the like again.
        filters: Filters,
    },
    /// The framework will end these tasks itself before the deadline. Noted for operators.
    AcceptInverse {
        /// Which.
        offers: Vec<InverseOfferId>,
    },
    /// The framework will not. Noted for operators; the deadline stands.
    DeclineInverse {
        /// Which.
        offers: Vec<InverseOfferId>,
    },
    /// State what is wanted in a role from here on, instead of what was wanted before. Implies `Revive` in the role. An empty
    /// demand wants nothing; classic offers come again with `Revive`.
    Demand {
        /// In which role.
        role: RolePath,
        /// What.
        demand: Demand,
    },
    /// Drop filters and want offers again; all roles if none is named.
    Revive {
        /// Which.
        roles: Vec<RolePath>,
    },
    /// Want no offers; all roles if none is named.
    Suppress {
        /// Which.
        roles: Vec<RolePath>,
    },
    /// End a task.
    Kill {
        /// Which.
        task_id: TaskId,
        /// From SIGTERM to SIGKILL; the task's own grace otherwise.
        grace: Option<Duration>,
    },
    /// An update has been taken care of.
    Acknowledge {
        /// The agent that sent it.
        agent_id: AgentId,
        /// The task that it is about.
        task_id: TaskId,
        /// Which.
        update_id: UpdateId,
    },
    /// Ask for the state of tasks; of all that are known if none is named.
    Reconcile {
        /// Which, and where the framework believes them to be.
        tasks: Vec<(TaskId, Option<AgentId>)>,
    },
    /// Bytes for the agent of a task. Not supported yet.
    Message {
        /// To which agent.
        agent_id: AgentId,
        /// About which task.
        task_id: TaskId,
        /// What.
        data: Vec<u8>,
    },
    /// Change name, roles, URL, labels, capabilities or failover timeout.
    UpdateFramework {
        /// To this.
        framework: FrameworkInfo,
        /// Roles in which no offers are wanted for now.
        suppressed: Vec<RolePath>,
    },
    /// End for good: kill all tasks and retire the id.
    Teardown,
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Accepted,
    /// It was not, and nothing changed.
    Refused(Refusal),
}

/// Why a call was not done. A value for programs, with text for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A field is wrong.
    #[error(transparent)]
    Invalid(#[from] crate::Invalid),
    /// One of the offers is no longer there; the call's tasks are dropped.
    #[error("offer {0} is no longer outstanding")]
    OfferGone(OfferId),
    /// The offers are of several agents, and an operation does not say on which it is to be done.
    #[error(
        "the offers are of several agents; only LaunchOn, which names the agent, takes offers of several"
    )]
    SeveralAgents,
    /// The task wants more than the offers have.
    #[error("task {task_id}: {shortage}")]
    NotEnough {
        /// Which.
        task_id: TaskId,
        /// Of what.
        shortage: Shortage,
    },
    /// A task of this id exists or has existed.
    #[error("task id {0} has been used before")]
    DuplicateTask(TaskId),
    /// No such task of this framework.
    #[error("task {0} is not known")]
    UnknownTask(TaskId),
    /// The role is not among the framework's.
    #[error("role {0} is not subscribed")]
    UnknownRole(RolePath),
    /// The framework's id was retired or never given out.
    #[error("framework {0} is not known here: it was torn down, or its failover timeout has passed")]
    UnknownFramework(FrameworkId),
    /// The stream has not subscribed.
    #[error("the first call on a stream is Subscribe")]
    NotSubscribed,
    /// An operation wants more than the offers have, or have under these reservations.
    #[error("operation {operation}: {shortage}")]
    OperationShort {
        /// Its place in the call, from 0.
        operation: u32,
        /// Of what.
        shortage: Shortage,
    },
    /// The role, or one above it, would use more than its limit.
    #[error("role {role} would exceed its limit: {shortage}")]
    OverLimit {
        /// Whose limit.
        role: RolePath,
        /// What is wanted and what is left of the limit.
        shortage: Shortage,
    },
    /// The volume is not on this agent, or not the role's.
    #[error("volume {0} is not in the offers")]
    UnknownVolume(VolumeId),
    /// A volume of this name exists on the agent.
    #[error("a volume {0} exists on this agent already")]
    DuplicateVolume(VolumeId),
    /// A task uses the volume.
    #[error("volume {0} is in use")]
    VolumeInUse(VolumeId),
    /// No such inverse offer of this framework.
    #[error("inverse offer {0} is not outstanding")]
    UnknownInverseOffer(InverseOfferId),
    /// The principal calls more often than it may; nothing was done.
    #[error("too many calls: try again in {} ms", retry_after.as_millis())]
    Later {
        /// When it may call again.
        retry_after: Duration,
    },
    /// Part of the interface, and still to come.
    #[error("{0} is not supported yet")]
    NotSupported(&'static str),
}

/// What the master tells a framework.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The subscription stands. The first event on a stream.
    Subscribed {
        /// To be stored before anything is launched.
        framework_id: FrameworkId,
        /// The master's incarnation.
        epoch: Epoch,
        /// A heartbeat comes at least so often.
        heartbeat: Duration,
    },
    /// What became of a call.
    Reply {
        /// Which.
        call_id: CallId,
        /// What.
        outcome: Outcome,
    },
    /// New offers.
    Offers(Vec<OfferInfo>),
    /// An offer is no longer there; using it is harmless and in vain.
    Rescind(OfferId),
    /// Resources are wanted back.
    InverseOffers(Vec<InverseOffer>),
    /// An inverse offer is no longer there: its tasks have ended, or it was withdrawn.
    RescindInverse(InverseOfferId),
    /// A task changed.
    Update(TaskStatus),
    /// What became of an operation that carried an id. Sent once the change is durable.
    OperationUpdate {
        /// Which.
        operation_id: OperationId,
        /// What became of it.
        outcome: Outcome,
    },
    /// Bytes from a task's agent. Not sent yet.
    Message {
        /// From which agent.
        agent_id: AgentId,
        /// About which task.
        task_id: TaskId,
        /// What.
        data: Vec<u8>,
    },
    /// An agent was lost. A hint; its tasks are updated one by one.
    Failure {
        /// Which.
        agent_id: AgentId,
    },
    /// The stream ends here, and why.
    Error(StreamError),
    /// Still there.
    Heartbeat,
}

/// Why the master ends a framework's or an agent's stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// Another connection subscribed with the same id.
    #[error("another connection has subscribed with the same id")]
    TakenOver,
    /// The subscription was refused; trying the same again is in vain.
    #[error("refused: {0}")]
    Refused(String),
    /// It did not read what it was sent.
    #[error("the stream was not drained: {0} messages were waiting")]
    TooSlow(usize),
    /// The id was retired.
    #[error("the framework was torn down")]
    TornDown,
    /// An operator has declared that the agent will not come back, and its tasks are taken to be gone: it has to kill what it
    /// runs, forget its id, and register as a new agent. Only said to agents.
    #[error("the agent was declared gone")]
    Gone,
}
