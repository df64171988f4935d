//! How often a principal may call: a token bucket each, in whole milliseconds. A bucket holds the calls of one second, so that
//! a burst of so many is fine after a pause.
//!
//! Not here: which calls count, and what is said to those that are refused (see `calls`).

use std::collections::BTreeMap;
use std::time::Duration;

use divvy_proto::ids::Principal;
use divvy_proto::scheduler::FrameworkInfo;
use divvy_proto::time::Timestamp;

use super::Config;

/// One call, in the units in which a bucket fills: a limit of n calls a second adds n units a millisecond.
const CALL: u64 = 1000;

/// Beyond so many buckets those that are full are forgotten: they are as good as new.
const BUCKETS_KEPT: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bucket {
    units: u64,
    at: Timestamp,
}

impl Bucket {
    /// As full as it is by now.
    fn filled(self, now: Timestamp, limit: u64) -> Self {
        let passed = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        let units = passed.saturating_mul(limit).saturating_add(self.units).min(limit.saturating_mul(CALL));
        Self { units, at: now.max(self.at) }
    }
}

/// The buckets of all principals that call.
#[derive(Debug, Clone, Default)]
pub(super) struct Rates {
    buckets: BTreeMap<String, Bucket>,
}

impl Rates {
    /// Takes one call from the caller's bucket.
    ///
    /// # Errors
    /// There is none in it; when there will be.
    pub(super) fn take(
        &mut self,
        now: Timestamp,
        config: &Config,
        caller: &FrameworkInfo,
    ) -> Result<(), Duration> {
        // Without authentication a framework is taken for whom it says it is.
        let name = caller.principal.as_ref().map_or(caller.name.as_str(), Principal::as_str);
        let named = config.rate_limits.iter().find(|(principal, _)| principal.as_str() == name);
        let Some(limit) = named.map(|(_, limit)| *limit).or(config.default_rate_limit) else { return Ok(()) };
        // A limit of nothing would keep a framework from ending itself.
        let limit = u64::from(limit.max(1));
        let full = Bucket { units: limit * CALL, at: now };
        if self.buckets.len() >= BUCKETS_KEPT {
            let longest = Duration::from_secs(1);
            self.buckets.retain(|_, bucket| now.since(bucket.at) < longest);
        }
        let bucket = self.buckets.entry(name.to_owned()).or_insert(full);
        *bucket = bucket.filled(now, limit);
        match bucket.units.checked_sub(CALL) {
            Some(rest) => {
                bucket.units = rest;
                Ok(())
            }
            None => Err(Duration::from_millis((CALL - bucket.units).div_ceil(limit))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::framework_info;

    #[test]
    fn a_burst_of_a_second_is_fine_and_what_is_beyond_it_waits() {
        let config = Config {
            rate_limits: BTreeMap::from([("busy".parse().unwrap(), 4)]),
            default_rate_limit: None,
            ..Config::default()
        };
        let mut rates = Rates::default();
        let (busy, other) = (framework_info("busy", &["*"]), framework_info("other", &["*"]));
        let mut calls = |now, caller| rates.take(Timestamp(now), &config, caller);
        let start = 1_000_000;
        assert_eq!((0..4).map(|_| calls(start, &busy)).collect::<Vec<_>>(), vec![Ok(()); 4]);
        assert_eq!(calls(start, &busy), Err(Duration::from_millis(250)));
        assert_eq!(calls(start + 249, &busy), Err(Duration::from_millis(1)));
        assert_eq!(calls(start + 250, &busy), Ok(()));
        // A clock that is set back takes nothing away and gives nothing.
        assert_eq!(calls(start - 900, &busy), Err(Duration::from_millis(250)));
        assert_eq!((0..9).map(|_| calls(start, &other)).collect::<Vec<_>>(), vec![Ok(()); 9]);
    }
}
