//! What is due when. Each timer is set at most once; setting it again moves it.

use std::collections::{BTreeMap, BTreeSet};

use divvy_proto::ids::{AgentId, FrameworkId, InverseOfferId};
use divvy_proto::time::Timestamp;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// An agent is to be pinged, or judged.
    Agent(AgentId),
    /// A disconnected framework is given up.
    Failover(FrameworkId),
    /// A connected framework hears from us.
    Heartbeat(FrameworkId),
    /// Tasks that were asked back are killed.
    Inverse(InverseOfferId),
    /// A planned maintenance, or the time before it, begins or ends.
    Maintenance,
    /// Victims may be looked for again.
    Preemption,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Timers {
    due: BTreeMap<Timer, Timestamp>,
    in_order: BTreeSet<(Timestamp, Timer)>,
}

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, at: Timestamp) {
        self.cancel(&timer);
        self.due.insert(timer.clone(), at);
        self.in_order.insert((at, timer));
    }

    pub(super) fn cancel(&mut self, timer: &Timer) {
        if let Some(at) = self.due.remove(timer) {
            self.in_order.remove(&(at, timer.clone()));
        }
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        self.in_order.first().map(|(at, _)| *at)
    }

    /// Takes out one timer whose time has come.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<Timer> {
        if self.next().is_none_or(|at| at > now) {
            return None;
        }
        let (_, timer) = self.in_order.pop_first()?;
        self.due.remove(&timer);
        Some(timer)
    }
}
