//! All that can happen to the kernel.

use std::collections::BTreeMap;
use std::time::Duration;

use divvy_proto::agent::AgentMessage;
use divvy_proto::ids::{AgentId, Epoch, FrameworkId, TaskId};
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
    /// Weights of roles among their siblings, in thousandths; 1000 for a role that is not named.
    pub weights: BTreeMap<RolePath, u32>,
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
}
