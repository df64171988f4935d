//! Exponential back-off of one version of an app: 1 s, doubled by each round of failures, at most 5 min (Marathon: 1 s,
//! factor 1.15, 300 s).

use std::time::Duration;

use divvy_sdk::proto::time::Timestamp;
use serde::{Deserialize, Serialize};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// Without a failure for so long beyond the last delay, the next failure is a first one again.
const QUIET: Duration = Duration::from_secs(60);

/// Counts failures in rounds: tasks that were launched together and fail together are one failure, else an app of 20
/// instances would wait five minutes after one bad second.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Backoff {
    rounds: u32,
    counted_at: Timestamp,
    until: Timestamp,
}

impl Backoff {
    /// A task that was launched at `launched_at` has failed. Says whether that began a new round.
    pub(super) fn failed(&mut self, launched_at: Timestamp, now: Timestamp) -> bool {
        if self.rounds > 0 && now.since(self.counted_at) > self.delay() + QUIET {
            self.rounds = 0;
        }
        if self.rounds > 0 && launched_at <= self.counted_at {
            return false;
        }
        self.rounds = self.rounds.saturating_add(1);
        self.counted_at = now;
        self.until = now + self.delay();
        true
    }

    /// When the next task may be launched, if that is later than now.
    pub(super) fn until(&self, now: Timestamp) -> Option<Timestamp> {
        (self.until > now).then_some(self.until)
    }

    fn delay(&self) -> Duration {
        let doublings = self.rounds.saturating_sub(1).min(16);
        FIRST.saturating_mul(1 << doublings).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails `rounds` times, each time as soon as it may be launched again, and says what the delays were.
    fn delays(backoff: &mut Backoff, start: Timestamp, rounds: usize) -> Vec<u64> {
        let mut now = start;
        let mut delays = Vec::new();
        for _ in 0..rounds {
            assert!(backoff.failed(now, now + Duration::from_millis(1)));
            now = now + Duration::from_millis(1);
            let until = backoff.until(now).unwrap();
            delays.push(until.since(now).as_secs());
            now = until;
        }
        delays
    }

    #[test]
    fn doubles_from_one_second_to_five_minutes() {
        let expected = vec![1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300];
        assert_eq!(delays(&mut Backoff::default(), Timestamp(1000), 11), expected);
    }

    #[test]
    fn tasks_that_fail_together_count_once() {
        let mut backoff = Backoff::default();
        let counted: Vec<bool> = (0..20).map(|i| backoff.failed(Timestamp(5), Timestamp(10 + i))).collect();
        assert_eq!(counted.iter().filter(|counted| **counted).count(), 1);
        assert_eq!(backoff.until(Timestamp(10)), Some(Timestamp(1010)));
    }

    #[test]
    fn begins_anew_after_a_quiet_minute() {
        let mut backoff = Backoff::default();
        delays(&mut backoff, Timestamp(0), 5);
        let later = Timestamp(1_000_000);
        assert_eq!(delays(&mut backoff, later, 2), vec![1, 2]);
    }
}
