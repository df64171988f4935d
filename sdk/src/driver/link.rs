//! The connection's state: when to try, when to give up, when it is dead.

use std::time::Duration;

use divvy_proto::time::{Timestamp, millis};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Config;

/// Waits that double from the shortest to the longest.
pub(super) fn doubled((shortest, longest): (Duration, Duration), times: u32) -> Duration {
    shortest.saturating_mul(2_u32.saturating_pow(times.min(31))).min(longest)
}

/// The connection, with the back-off between two of them.
#[derive(Debug)]
pub(super) struct Link {
    state: State,
    failures: u32,
    random: SmallRng,
}

/// Where the connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// There is none.
    Down { retry_at: Timestamp },
    /// It is being opened, or Subscribe has been sent.
    Opening { until: Timestamp },
    /// The subscription stands; without a word by then, it is dead.
    Subscribed { patience: Duration, until: Timestamp },
}

impl Link {
    pub(super) fn new(config: &Config) -> Self {
        let random = SmallRng::seed_from_u64(config.seed);
        Self { state: State::Down { retry_at: Timestamp(0) }, failures: 0, random }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(self.state, State::Down { .. })
    }

    pub(super) fn is_subscribed(&self) -> bool {
        matches!(self.state, State::Subscribed { .. })
    }

    pub(super) fn is_opening(&self) -> bool {
        matches!(self.state, State::Opening { .. })
    }

    /// When something has to be done if nothing happens.
    pub(super) fn deadline(&self) -> Timestamp {
        match self.state {
            State::Down { retry_at } => retry_at,
            State::Opening { until } | State::Subscribed { until, .. } => until,
        }
    }

    pub(super) fn open(&mut self, now: Timestamp, config: &Config) {
        self.state = State::Opening { until: now + config.subscribe_timeout };
    }

    pub(super) fn subscribed(&mut self, now: Timestamp, heartbeat: Duration, config: &Config) {
        let patience = heartbeat.saturating_mul(config.missed_heartbeats.max(1));
        self.failures = 0;
        self.state = State::Subscribed { patience, until: now + patience };
    }

    /// The master said something.
    pub(super) fn heard(&mut self, now: Timestamp) {
        if let State::Subscribed { patience, until } = &mut self.state {
            *until = now + *patience;
        }
    }

    /// There is no connection any more. Tried again after a while: half of it certain, half random, so that the frameworks of a
    /// master that comes back do not all come at once.
    pub(super) fn go_down(&mut self, now: Timestamp, config: &Config) {
        if self.is_down() {
            return;
        }
        let wait = millis(doubled(config.reconnect, self.failures));
        let wait = wait / 2 + self.random.random_range(0..=wait / 2);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Down { retry_at: now + Duration::from_millis(wait) };
    }
}
