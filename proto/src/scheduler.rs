//! What frameworks and the master say to each other: Mesos v1's scheduler API, with the differences of the design.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::attributes::Attributes;
use crate::ids::{
    AgentId, CallId, Epoch, FrameworkId, Hostname, OfferId, OperationId, Principal, TaskId, UpdateId,
};
use crate::resources::{Resources, Shortage};
use crate::role::RolePath;
use crate::task::{TaskInfo, TaskStatus};

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
    /// How much.
    pub resources: Resources,
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
    /// Run tasks that share a fate. Not supported yet.
    LaunchGroup(Vec<TaskInfo>),
    /// Reserve resources for the role. Not supported yet.
    Reserve {
        /// For the feedback.
        id: Option<OperationId>,
        /// What.
        resources: Resources,
    },
    /// Undo a reservation. Not supported yet.
    Unreserve {
        /// For the feedback.
        id: Option<OperationId>,
        /// What.
        resources: Resources,
    },
    /// Make a persistent volume. Not supported yet.
    Create {
        /// For the feedback.
        id: Option<OperationId>,
        /// Its size.
        resources: Resources,
        /// Its name, unique per role and agent.
        volume_id: String,
    },
    /// Remove a persistent volume. Not supported yet.
    Destroy {
        /// For the feedback.
        id: Option<OperationId>,
        /// Its name.
        volume_id: String,
    },
}

/// One shape that a framework wants, how often. Not supported yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemandShape {
    /// How large.
    pub resources: Resources,
    /// How many.
    pub count: u32,
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
    /// Use offers of one agent; what is left over returns, with the filter.
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
    /// Not supported yet.
    AcceptInverse {
        /// Which.
        offers: Vec<OfferId>,
    },
    /// Not supported yet.
    DeclineInverse {
        /// Which.
        offers: Vec<OfferId>,
    },
    /// Not supported yet.
    Demand {
        /// In which role.
        role: RolePath,
        /// What.
        shapes: Vec<DemandShape>,
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
    /// Change name, roles, URL, labels or failover timeout.
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
    /// The offers are of several agents.
    #[error("the offers are of several agents; an Accept takes offers of one")]
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
    /// Resources are wanted back. Not sent yet.
    InverseOffers(Vec<OfferInfo>),
    /// A task changed.
    Update(TaskStatus),
    /// A reservation or volume changed. Not sent yet.
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
}
