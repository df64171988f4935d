//! What a job is, once everything about it has been checked.
//!
//! Not here: how users write it down; that is `crate::file`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use divvy_proto::Invalid;
use divvy_proto::ids::TaskId;
use divvy_sdk::TaskSpec;
use serde::{Deserialize, Serialize};

/// Most tasks of one job (Slurm's MaxArraySize is 1,001 by default; what bounds it here is the size of one status).
pub const MAX_COUNT: u32 = 100_000;
/// Most retries of one index.
pub const MAX_RETRIES: u32 = 100;
/// Most tasks of a gang: they are launched by one message.
pub const MAX_GANG: u32 = 1_000;
/// How long the kernel holds what it has gathered for a gang, unless a job says otherwise.
pub const GANG_HOLD: Duration = Duration::from_secs(30);
/// Wait before the first retry (Kubernetes: 10 s); doubled for each further one.
pub const BACKOFF: Duration = Duration::from_secs(10);
/// Longest wait before a retry, unless a job asks for more at once (Kubernetes: 6 min).
pub const BACKOFF_MAX: Duration = Duration::from_secs(360);

/// Longest name of a job, so that every task id made from it is a valid one.
const MAX_JOB_ID: usize = 100;

/// The name of a job: letters, digits, `-`, `_` and `.`, the first a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(String);

impl JobId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for JobId {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let begins = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
        if !begins || text.len() > MAX_JOB_ID || !text.chars().all(allowed) {
            let expected = "1 to 100 letters, digits, `-`, `_` and `.`, the first a letter or digit";
            return Err(Invalid::new("id", text, expected));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for JobId {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> String {
        id.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A job: `count` tasks of one description, each knowing its index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Its name.
    pub id: JobId,
    /// How many tasks; at least 1.
    pub count: u32,
    /// How often an index is tried again after a failure of its own.
    pub retries: u32,
    /// Wait before the first retry; doubled for each further one up to [`BACKOFF_MAX`].
    pub backoff: Duration,
    /// Longest time that one try may be RUNNING.
    pub timeout: Option<Duration>,
    /// Most indexes that run at a time; as many as there is room for otherwise.
    pub parallelism: Option<u32>,
    /// Whether one index that failed for good ends the whole job, killing what runs (as a Kubernetes Job does). Otherwise
    /// the other indexes are run to their end first.
    pub fail_fast: bool,
    /// All tasks that wait are launched together or not at all; the kernel holds what it has gathered for at most this long.
    #[serde(default, with = "humantime_serde")]
    pub gang: Option<Duration>,
    /// What to run.
    pub task: TaskSpec,
}

impl JobSpec {
    /// How long an index waits after its `failures`-th failure (1 is the first).
    #[must_use]
    pub fn delay(&self, failures: u32) -> Duration {
        doubled(self.backoff, failures, BACKOFF_MAX.max(self.backoff))
    }
}

/// `first`, doubled for each further one, at most `longest`.
pub(super) fn doubled(first: Duration, nth: u32, longest: Duration) -> Duration {
    let factor = 2_u32.saturating_pow(nth.saturating_sub(1));
    first.saturating_mul(factor).min(longest)
}

/// Which try of which index of which run a task is. As a task id: `<job>-<run>.<index>.<attempt>`.
///
/// Runs are numbered over all jobs for the life of the framework, so that no id is ever used twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TryId {
    pub(super) job: JobId,
    pub(super) run: u64,
    pub(super) index: u32,
    pub(super) attempt: u32,
}

impl TryId {
    pub(super) fn task_id(&self) -> Result<TaskId, Invalid> {
        TaskId::new(format!("{}-{}.{}.{}", self.job, self.run, self.index, self.attempt))
    }

    /// Read from the right, as a job's name may have dots and dashes. `None` for what was never made here.
    pub(super) fn parse(id: &TaskId) -> Option<Self> {
        let (rest, attempt) = id.as_str().rsplit_once('.')?;
        let (rest, index) = rest.rsplit_once('.')?;
        let (job, run) = rest.rsplit_once('-')?;
        Some(Self {
            job: job.parse().ok()?,
            run: run.parse().ok()?,
            index: index.parse().ok()?,
            attempt: attempt.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_id_names_its_try_whatever_the_job_is_called() {
        for job in ["a", "a-1.2", "nightly-2026.11.21", "x_-_.-"] {
            let id = TryId { job: job.parse().unwrap(), run: 7, index: 99_999, attempt: 12 };
            assert_eq!(TryId::parse(&id.task_id().unwrap()), Some(id));
        }
    }

    #[test]
    fn names_that_could_not_be_part_of_a_path_or_address_are_refused() {
        for bad in ["", "-a", ".", "a/b", "a b", "ä", &"a".repeat(101)] {
            assert!(bad.parse::<JobId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn waits_double_up_to_six_minutes() {
        let waits: Vec<u64> =
            [1, 2, 3, 6, 7, 1000].map(|n| doubled(BACKOFF, n, BACKOFF_MAX).as_secs()).to_vec();
        assert_eq!(waits, [10, 20, 40, 320, 360, 360]);
    }
}
