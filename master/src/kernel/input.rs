//! All that can happen to the kernel.

use std::collections::BTreeMap;
use std::time::Duration;

use divvy_proto::agent::AgentMessage;
use divvy_proto::api::MaintenanceWindow;
use divvy_proto::ids::{AgentId, Epoch, FrameworkId, Principal, TaskId, VolumeId};
use divvy_proto::quantity::Bytes;
use divvy_proto::quota::{Quota, Weight};
use divvy_proto::reservation::Reservation;
use divvy_proto::resources::Resources;
use divvy_proto::role::RolePath;
use divvy_proto::scheduler::Call;

use super::effect::{LinkId, PersistToken, RequestId};

/// What the operator sets and the kernel obeys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The master's incarnation: one more than that of any earlier leader. Part of every id that the kernel makes.
    pub epoch: Epoch,
    /// How long an offer may be held (design: 30 s).
    pub offer_timeout: Duration,
    /// From one ping of an agent to the next (Mesos: 15 s).
    pub ping_interval: Duration,
    /// So many missed pings and an agent is suspected, then unreachable (Mesos: 5).
    pub missed_pings: u32,
    /// How long the agents of the registry may take to come back after a failover (Mesos: 10 min).
    pub reregister_timeout: Duration,
    /// More than this part of all agents (in percent) falling silent within one ping window trips the breaker: they stay
    /// suspected and nobody is marked unreachable. 0 switches the breaker off. Below three silent agents it never trips.
    pub breaker_percent: u32,
    /// A heartbeat goes to each framework at least so often (Mesos: 15 s).
    pub heartbeat: Duration,
    /// So many ended tasks are listed per framework (Mesos: 1000).
    pub ended_tasks_kept: usize,
    /// Weights of roles among their siblings, in thousandths; 1000 for a role that is not named. What the registry says of a
    /// role stands above this.
    pub weights: BTreeMap<RolePath, u32>,
    /// How long a demand waits before an agent is kept for it.
    pub patience: Duration,
    /// From one preemption to the next at least.
    pub preemption_interval: Duration,
    /// How long those from whom resources are asked back have to end their tasks themselves.
    pub revocation_grace: Duration,
    /// So long before a planned maintenance its agents are drained.
    pub maintenance_lead: Duration,
    /// So many calls a second each principal may make; no limit for those that are not named, unless `default_rate_limit`
    /// says one.
    pub rate_limits: BTreeMap<Principal, u32>,
    /// So many calls a second for every principal that is not named.
    pub default_rate_limit: Option<u32>,
    /// So many decisions are kept.
    pub decisions_kept: usize,
    /// So many frameworks that were torn down, and agents that are gone, are kept.
    pub retired_kept: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            epoch: Epoch(1),
            offer_timeout: Duration::from_secs(30),
            ping_interval: Duration::from_secs(15),
            missed_pings: 5,
            reregister_timeout: Duration::from_secs(600),
            breaker_percent: 50,
            heartbeat: Duration::from_secs(15),
            ended_tasks_kept: 1000,
            weights: BTreeMap::new(),
            patience: Duration::from_secs(30),
            preemption_interval: Duration::from_secs(1),
            revocation_grace: Duration::from_secs(30),
            maintenance_lead: Duration::from_secs(600),
            rate_limits: BTreeMap::new(),
            default_rate_limit: None,
            decisions_kept: 4096,
            retired_kept: 50,
        }
    }
}

/// Something happened. A link is one open stream, named by the shell and never reused.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// An agent's stream brought a message; the first is `Register`.
    Agent {
        /// The stream.
        link: LinkId,
        /// What it says.
        message: AgentMessage,
    },
    /// An agent's stream ended.
    AgentClosed {
        /// The stream.
        link: LinkId,
    },
    /// A framework's stream brought a call; the first is `Subscribe`.
    Framework {
        /// The stream.
        link: LinkId,
        /// What it asks.
        call: Call,
    },
    /// A framework's stream ended.
    FrameworkClosed {
        /// The stream.
        link: LinkId,
    },
    /// An operator asks for something. Answered by `Effect::Answer`.
    Operator {
        /// Names the question.
        request: RequestId,
        /// What is asked.
        body: OperatorRequest,
    },
    /// The store has made an `Effect::Persist` durable.
    Persisted(PersistToken),
    /// Time has passed; due deadlines fire.
    Tick,
}

/// What an operator may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperatorRequest {
    /// End a task, as its framework's Kill would.
    KillTask {
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        task_id: TaskId,
    },
    /// End a framework for good.
    Teardown(FrameworkId),
    /// Declare that an agent will not come back: its tasks are GONE, and it is refused if it does.
    MarkGone(AgentId),
    /// Promise and limit a role.
    SetQuota {
        /// Whose.
        role: RolePath,
        /// What; none takes it away.
        quota: Option<Quota>,
        /// Also where the cluster does not have it, or more is in use.
        force: bool,
    },
    /// Weigh a role.
    SetWeight {
        /// Whose.
        role: RolePath,
        /// How much; none for the default.
        weight: Option<Weight>,
    },
    /// Set unreserved resources of an agent aside for a role.
    Reserve {
        /// Whose.
        agent_id: AgentId,
        /// How much.
        resources: Resources,
        /// For whom; never fixed.
        reservation: Reservation,
    },
    /// Undo the reservations for a role, of these labels, as far as no task and no volume needs them.
    Unreserve {
        /// Where.
        agent_id: AgentId,
        /// How much.
        resources: Resources,
        /// Whose, with which labels. The principal is not compared.
        reservation: Reservation,
    },
    /// Make a persistent volume of disk that is reserved for a role, with these labels.
    CreateVolume {
        /// Where.
        agent_id: AgentId,
        /// Its name.
        volume_id: VolumeId,
        /// How large.
        size: Bytes,
        /// Of disk under this reservation. The principal is not compared.
        reservation: Reservation,
    },
    /// Remove a persistent volume, and what is in it.
    DestroyVolume {
        /// Where.
        agent_id: AgentId,
        /// Its name.
        volume_id: VolumeId,
    },
    /// Make a persistent volume larger, from disk under its own reservations, or smaller.
    ResizeVolume {
        /// Where.
        agent_id: AgentId,
        /// Its name.
        volume_id: VolumeId,
        /// Its new size.
        size: Bytes,
    },
    /// Empty an agent: no new tasks, and those that run are asked back, and killed at the deadline.
    Drain {
        /// Which.
        agent_id: AgentId,
        /// From now to the deadline; at once if absent.
        within: Option<Duration>,
        /// Declare it gone once it is empty.
        then_gone: bool,
    },
    /// Offer nothing of an agent.
    Deactivate(AgentId),
    /// Offer an agent again; ends a drain.
    Reactivate(AgentId),
    /// The schedule of maintenance, whole.
    SetMaintenance(Vec<MaintenanceWindow>),
}
