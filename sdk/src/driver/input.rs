//! All that can happen to the driver.

use std::time::Duration;

use divvy_proto::api::Agent;
use divvy_proto::scheduler::{Event, FrameworkInfo};

use super::effect::PersistToken;

/// Who the framework is, and the rhythm of its driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How it introduces itself. The driver fills in the id.
    pub framework: FrameworkInfo,
    /// Whether there is a store. Without one nothing is persisted, and nothing waits for it.
    pub durable: bool,
    /// For jitter, and to tell this process's calls from those of an earlier one: another each time.
    pub seed: u64,
    /// Shortest and longest wait before connecting again; doubled from one to the other (Mesos: up to about 15 s).
    pub reconnect: (Duration, Duration),
    /// How long a connection may take until it is subscribed.
    pub subscribe_timeout: Duration,
    /// So many missed heartbeats and the connection is dead (Mesos: 5).
    pub missed_heartbeats: u32,
    /// Shortest and longest wait before a kill is repeated (Marathon: 30 s).
    pub kill_retry: (Duration, Duration),
    /// Shortest and longest wait before unanswered tasks are asked for again.
    pub reconcile_retry: (Duration, Duration),
    /// All live tasks are asked for so often even if nothing seems wrong (Mesos: 15 min).
    pub reconcile_every: Duration,
    /// Two revives that the scheduler asks for are at least so far apart (Marathon: 5 s).
    pub revive_floor: Duration,
    /// So many ended tasks that are not forgotten are kept; beyond that the earliest go.
    pub ended_tasks_kept: usize,
}

impl Config {
    /// The usual rhythm, without a store.
    #[must_use]
    pub fn new(framework: FrameworkInfo, seed: u64) -> Self {
        let seconds = Duration::from_secs;
        Self {
            framework,
            durable: false,
            seed,
            reconnect: (Duration::from_millis(250), seconds(15)),
            subscribe_timeout: seconds(15),
            missed_heartbeats: 5,
            kill_retry: (seconds(5), seconds(60)),
            reconcile_retry: (seconds(5), seconds(300)),
            reconcile_every: seconds(15 * 60),
            revive_floor: seconds(1),
            ended_tasks_kept: 1000,
        }
    }
}

/// Something happened.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "inputs are moved once, into the driver")]
pub enum Input {
    /// The stream that was asked for is open.
    Connected,
    /// The stream ended, or could not be opened.
    Disconnected,
    /// The stream brought this.
    Event(Event),
    /// The store has made an `Effect::Persist` durable.
    Persisted(PersistToken),
    /// All agents that the master knows.
    Agents(Vec<Agent>),
    /// One agent is new or different.
    Agent(Agent),
    /// End for good: have all tasks killed and the id retired. `Effect::Stop` follows.
    Teardown,
    /// Time has passed; due deadlines fire.
    Tick,
}
