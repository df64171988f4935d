//! Clocks: a process reads the wall clock once, when it starts, and counts on from there. Wall clocks err, each in its own way.

use std::time::Duration;

use divvy_proto::time::{Timestamp, millis};
use rand::Rng;

use crate::world::World;

/// By how many milliseconds what a process reads differs from true time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock(i64);

/// A clock is wrong by at most so much.
const ERROR: Duration = Duration::from_secs(600);

impl Clock {
    pub fn reads(self, now: Timestamp) -> Timestamp {
        Timestamp(now.0.saturating_add_signed(self.0))
    }

    /// When the clock will show this.
    pub fn when(self, shown: Timestamp) -> Timestamp {
        Timestamp(shown.0.saturating_add_signed(-self.0))
    }
}

impl World {
    /// The clock of a process that starts now.
    pub fn new_clock(&mut self) -> Clock {
        if !self.nature.clocks_err {
            return Clock::default();
        }
        let most = i64::try_from(millis(ERROR)).expect("a few minutes");
        Clock(self.rng.random_range(-most..=most))
    }
}
