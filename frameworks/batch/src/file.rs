//! Jobs as users write them: TOML or JSON, one schema.

use std::ops::RangeInclusive;
use std::time::Duration;

use divvy_proto::Invalid;
use divvy_proto::role::RolePath;
use divvy_sdk::TaskSpec;
use divvy_sdk::spec::{Format, SpecError, TaskTable, parse};
use serde::{Deserialize, Serialize};

use crate::planner::{BACKOFF, GANG_HOLD, JobSpec, MAX_COUNT, MAX_GANG, MAX_RETRIES};

/// Longest time that a job may state for anything: a year.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long the master may keep what it gathers for a gang.
const HOLD: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// A job. Anything that is left out takes the default in its comment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobFile {
    /// Its name: letters, digits, `-`, `_` and `.`.
    pub id: String,
    /// How many tasks, 1 to 100,000: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// How often an index is tried again after a failure of its own, at most 100: 0. Tries that the cluster lost do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// Wait before the first retry, doubled for each further one up to 6 min: 10 s.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Duration>,
    /// Longest time that one try may run; then it is killed, which is a failure: no limit.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Most tasks that run at a time: as many as there is room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<u32>,
    /// Whether the first index that fails for good ends the job and kills what runs: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_fast: Option<bool>,
    /// Whose resources its tasks use: the first of the framework's roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RolePath>,
    /// Whether all tasks are launched together or not at all: false. At most 1,000 then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gang: bool,
    /// How long the cluster holds what it has gathered for a gang while it waits for the rest, 1 s to an hour: 30 s.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub gang_hold: Option<Duration>,
    /// What to run.
    pub task: TaskTable,
}

impl JobFile {
    /// Reads a file's text.
    ///
    /// # Errors
    /// It is not a job; the error names the place and the field.
    pub fn parse(text: &str, format: Format) -> Result<JobSpec, SpecError> {
        Ok(parse::<Self>(text, format)?.into_spec()?)
    }

    /// The job, checked.
    ///
    /// # Errors
    /// A value makes no sense; the error names the field.
    pub fn into_spec(self) -> Result<JobSpec, Invalid> {
        let count = within("count", self.count.unwrap_or(1), 1, MAX_COUNT)?;
        let parallelism = self.parallelism.map(|most| within("parallelism", most, 1, MAX_COUNT));
        let gang = gang(self.gang, self.gang_hold, count, self.parallelism)?;
        let task = self.task.into_spec(&self.id).map_err(|invalid| invalid.within("task"))?;
        let task = TaskSpec { role: self.role, ..task };
        Ok(JobSpec {
            id: self.id.parse()?,
            count,
            retries: within("retries", self.retries.unwrap_or(0), 0, MAX_RETRIES)?,
            backoff: duration("backoff", self.backoff.unwrap_or(BACKOFF))?,
            timeout: self.timeout.map(|timeout| duration("timeout", timeout)).transpose()?,
            parallelism: parallelism.transpose()?,
            fail_fast: self.fail_fast.unwrap_or(true),
            gang,
            task,
        })
    }
}

fn gang(
    gang: bool,
    hold: Option<Duration>,
    count: u32,
    parallelism: Option<u32>,
) -> Result<Option<Duration>, Invalid> {
    match (gang, hold, parallelism) {
        (false, None, _) => Ok(None),
        (false, Some(hold), _) => {
            Err(Invalid::new("gang_hold", humantime::format_duration(hold), "`gang = true` beside it"))
        }
        (true, _, Some(most)) if most < count => {
            Err(Invalid::new("parallelism", most, "none, as all tasks of a gang run together"))
        }
        (true, hold, _) => {
            within("count", count, 1, MAX_GANG)?;
            let hold = hold.unwrap_or(GANG_HOLD);
            match HOLD.contains(&hold) {
                true => Ok(Some(hold)),
                false => {
                    let expected = "1s to 1h, as the master takes it";
                    Err(Invalid::new("gang_hold", humantime::format_duration(hold), expected))
                }
            }
        }
    }
}

fn within(field: &str, value: u32, least: u32, most: u32) -> Result<u32, Invalid> {
    if !(least..=most).contains(&value) {
        return Err(Invalid::new(field, value, format!("a whole number from {least} to {most}")));
    }
    Ok(value)
}

fn duration(field: &str, value: Duration) -> Result<Duration, Invalid> {
    if value.is_zero() || value > LONGEST {
        let expected = "more than 0 and at most a year, such as \"90s\" or \"5m\"";
        return Err(Invalid::new(field, humantime::format_duration(value), expected));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        JobFile::parse(text, Format::Toml).unwrap_err().to_string()
    }

    #[test]
    fn the_example_is_a_job() {
        let text = include_str!("../examples/wordcount.toml");
        let job = JobFile::parse(text, Format::Toml).unwrap();
        let seen = (job.id.as_str(), job.count, job.retries, job.timeout, job.backoff, job.fail_fast);
        assert_eq!(seen, ("wordcount", 20, 2, Some(Duration::from_secs(300)), BACKOFF, true));
    }

    #[test]
    fn json_and_toml_are_one_schema() {
        let toml = "id = \"a\"\ncount = 3\n[task]\nshell = \"true\"\n";
        let json = r#"{"id": "a", "count": 3, "task": {"shell": "true"}}"#;
        assert_eq!(JobFile::parse(toml, Format::Toml).unwrap(), JobFile::parse(json, Format::Json).unwrap());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let task = "[task]\nshell = \"true\"\n";
        let cases = [
            (format!("id = \"a\"\ncuont = 3\n{task}"), "cuont"),
            (format!("id = \"a\"\ncuont = 3\n{task}"), "line 2"),
            (
                format!("id = \"a\"\ncount = 0\n{task}"),
                "count: \"0\" is not valid: expected a whole number from 1 to 100000",
            ),
            (format!("id = \"a\"\ncount = 1000000\n{task}"), "count"),
            (format!("id = \"a\"\ncount = -1\n{task}"), "count"),
            (format!("id = \"a/b\"\n{task}"), "id: \"a/b\""),
            (format!("id = \"a\"\nretries = 101\n{task}"), "retries"),
            (format!("id = \"a\"\ntimeout = \"0s\"\n{task}"), "timeout"),
            (
                format!("id = \"a\"\ngang = true\ngang_hold = \"999ms\"\n{task}"),
                "gang_hold: \"999ms\" is not valid: expected 1s to 1h",
            ),
            (format!("id = \"a\"\ngang = true\ngang_hold = \"61m\"\n{task}"), "gang_hold"),
            (format!("id = \"a\"\nparallelism = 0\n{task}"), "parallelism"),
            ("id = \"a\"\n[task]\nshell = \"true\"\ncpus = -1\n".to_owned(), "cpus"),
            ("id = \"a\"\n[task]\ncpus = 1\n".to_owned(), "task.command"),
        ];
        for (text, expected) in cases {
            let shown = refusal(&text);
            assert!(shown.contains(expected), "{text}: {shown}");
        }
    }
}
