//! The time that the kernel is told: the wall clock as it stood at the start, moved on by the monotonic clock. A step of
//! the wall clock (NTP, a suspended laptop, an operator) therefore never reaches the kernel, and time never runs backwards.

use std::time::{Duration, Instant};

use divvy_proto::time::Timestamp;

/// Reads the time for one kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    wall: Timestamp,
    monotonic: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { wall: Timestamp::wall_clock(), monotonic: Instant::now() }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.wall + self.monotonic.elapsed()
    }

    /// How long to sleep so that `now()` is at least `deadline`. Never zero: a deadline that stays due must not become a
    /// busy loop.
    pub(super) fn until(&self, deadline: Timestamp) -> Duration {
        deadline.since(self.now()).max(Duration::from_millis(1))
    }
}
