//! Apps as users write them, in TOML or JSON: the schema of the files and of `PUT /v1/apps/{id}`.
//!
//! Not here: the `[task]` table, which all frameworks share ([`divvy_sdk::spec`]).

use std::fmt;
use std::time::Duration;

use divvy_sdk::TaskSpec;
use divvy_sdk::proto::{Invalid, RolePath};
use divvy_sdk::spec::{Format, SpecError, TaskTable, parse};
use serde::{Deserialize, Serialize};

use crate::planner::spec::{Amount, AppId, AppSpec, Floor, MAX_INSTANCES, UpdatePolicy};

/// An app as a file describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppFile {
    /// Its name: lower-case letters, digits and hyphens.
    pub id: AppId,
    /// How many tasks are to run: 1.
    #[serde(default = "one", deserialize_with = "instances")]
    pub instances: u32,
    /// Whose resources they use: the first of the framework's roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RolePath>,
    /// What each of them is.
    pub task: TaskTable,
    /// How they are replaced when the task changes.
    #[serde(default)]
    pub update: UpdateTable,
    /// A task on an agent that does not answer is replaced after so long: at once.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub replace_unreachable_after: Option<Duration>,
}

fn one() -> u32 {
    1
}

fn instances<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = i64::deserialize(deserializer)?;
    let expected = || format!("{number} is not valid: expected a number from 0 to {MAX_INSTANCES}");
    u32::try_from(number).map_err(|_| serde::de::Error::custom(expected()))
}

/// The `[update]` table. Anything that is left out takes the default in its comment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateTable {
    /// So many may be unhealthy meanwhile, or a share, rounded down: 1, and none of a single instance without volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<AmountField>,
    /// So many must stay healthy, or a share, rounded up. Either this or `max_unavailable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_healthy: Option<AmountField>,
    /// So many more than `instances` may run meanwhile, or a share, rounded up: 1, and none where there are volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_surge: Option<AmountField>,
    /// A new instance counts once it has been healthy for so long: 2 s.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub min_healthy_time: Option<Duration>,
    /// An update that gets no further for so long has failed: 10 min.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub progress_deadline: Option<Duration>,
    /// From withdrawing an endpoint to telling its task to stop: 1 s.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub drain: Option<Duration>,
}

/// A number of instances, or a share such as `"25%"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AmountField(pub Amount);

impl Serialize for AmountField {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Amount::Count(count) => serializer.serialize_u32(count),
            Amount::Percent(_) => serializer.collect_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for AmountField {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = AmountField;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of instances from 0 up, or a share such as \"25%\"")
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<AmountField, E> {
                let count = u32::try_from(number);
                let unexpected = || E::invalid_value(serde::de::Unexpected::Unsigned(number), &self);
                count.map(|count| AmountField(Amount::Count(count))).map_err(|_| unexpected())
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<AmountField, E> {
                let unexpected = || E::invalid_value(serde::de::Unexpected::Signed(number), &self);
                u64::try_from(number).map_err(|_| unexpected()).and_then(|number| self.visit_u64(number))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<AmountField, E> {
                let unexpected = |_| E::invalid_value(serde::de::Unexpected::Str(text), &self);
                text.parse().map(AmountField).map_err(unexpected)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl AppFile {
    /// Reads an app's text.
    ///
    /// # Errors
    /// The text does not have the schema; the error names line and field.
    pub fn parse(text: &str, format: Format) -> Result<Self, SpecError> {
        parse(text, format)
    }

    /// The app that the file describes.
    ///
    /// # Errors
    /// A value makes no sense; the error names the field.
    pub fn into_spec(self) -> Result<AppSpec, Invalid> {
        let task = self.task.into_spec(self.id.as_str()).map_err(|invalid| invalid.within("task"))?;
        let task = TaskSpec { role: self.role, ..task };
        let default = match task.volumes.is_empty() {
            true => UpdatePolicy::default(),
            false => UpdatePolicy::one_after_the_other(),
        };
        let spec = AppSpec {
            update: self.update.into_policy(default).map_err(|invalid| invalid.within("update"))?,
            replace_unreachable_after: self.replace_unreachable_after.unwrap_or_default(),
            ..AppSpec::new(self.id, self.instances, task)
        };
        spec.check()?;
        Ok(spec)
    }
}

impl UpdateTable {
    fn into_policy(self, default: UpdatePolicy) -> Result<UpdatePolicy, Invalid> {
        let floor = match (self.max_unavailable, self.min_healthy) {
            (None, None) => default.floor,
            (Some(most), None) => Some(Floor::MaxUnavailable(most.0)),
            (None, Some(least)) => Some(Floor::MinHealthy(least.0)),
            (Some(_), Some(least)) => {
                return Err(Invalid::new("min_healthy", least.0, "either it or `max_unavailable`, not both"));
            }
        };
        let deadline = self.progress_deadline.unwrap_or(default.progress_deadline);
        let proof = self.min_healthy_time.unwrap_or(default.min_healthy_time);
        if deadline <= proof {
            let shown = humantime::format_duration(deadline);
            return Err(Invalid::new("progress_deadline", shown, "more than min_healthy_time"));
        }
        Ok(UpdatePolicy {
            floor,
            max_surge: self.max_surge.map_or(default.max_surge, |surge| surge.0),
            min_healthy_time: proof,
            progress_deadline: deadline,
            drain: within_an_hour("drain", self.drain.unwrap_or(default.drain))?,
        })
    }
}

fn within_an_hour(field: &str, time: Duration) -> Result<Duration, Invalid> {
    if time > Duration::from_secs(3600) {
        return Err(Invalid::new(field, humantime::format_duration(time), "at most an hour"));
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../examples/web.toml");

    fn refusal(text: &str, format: Format) -> String {
        match AppFile::parse(text, format) {
            Err(error) => error.to_string(),
            Ok(file) => file.into_spec().unwrap_err().to_string(),
        }
    }

    #[test]
    fn the_example_is_an_app() {
        let spec = AppFile::parse(EXAMPLE, Format::Toml).unwrap().into_spec().unwrap();
        assert_eq!((spec.id.as_str(), spec.instances, spec.task.ports.len()), ("web", 3, 1));
    }

    #[test]
    fn what_has_a_volume_is_one_and_stops_before_the_next_starts() {
        let file = |head: &str| {
            let volumes = "volumes = [{ id = \"data\", path = \"data\" }]";
            let text = format!("id = \"db\"\n{head}\nrole = \"db\"\n[task]\nshell = \"true\"\n{volumes}\n");
            AppFile::parse(&text, Format::Toml).unwrap().into_spec()
        };
        let spec = file("").unwrap();
        assert_eq!((spec.update.min_healthy(1), spec.update.max_total(1)), (0, 1));
        assert_eq!(spec.task.role.unwrap().as_str(), "db");
        let refused = file("instances = 2").unwrap_err().to_string();
        assert!(refused.contains("used by one task at a time"), "{refused}");
    }

    #[test]
    fn toml_and_json_say_the_same() {
        let toml = AppFile::parse(EXAMPLE, Format::Toml).unwrap();
        let json = serde_json::to_string(&toml).unwrap();
        assert_eq!(AppFile::parse(&json, Format::Json).unwrap(), toml);
    }

    #[test]
    fn bad_input_is_refused_by_field_and_place() {
        let task = "[task]\nshell = \"true\"\n";
        let toml = |text: String| refusal(&text, Format::Toml);
        let refusals = [
            toml(format!("id = \"web\"\ninstnces = 3\n{task}")),
            toml(format!("id = \"Web\"\n{task}")),
            toml(format!("id = \"web\"\ninstances = -1\n{task}")),
            toml(format!("id = \"web\"\ninstances = 60000\n{task}")),
            toml(format!("id = \"web\"\n{task}[update]\nmin_healthy = \"120%\"\n")),
            toml(format!("id = \"web\"\n{task}[update]\nmin_healthy = 1\nmax_unavailable = 1\n")),
            toml(format!("id = \"web\"\n{task}[update]\nmax_unavailable = 0\nmax_surge = 0\n")),
            toml(format!("id = \"web\"\n{task}labels = {{ \"divvy.app\" = \"x\" }}\n")),
            toml("id = \"web\"\n[task]\n".to_owned()),
            refusal(r#"{"id": "web", "task": {"shell": "true", "cpus": -1}}"#, Format::Json),
        ];
        insta::assert_snapshot!(refusals.join("\n"));
    }
}
