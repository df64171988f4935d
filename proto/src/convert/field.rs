//! Checks that many fields share. Each takes the field's name and answers a value or [`Invalid`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use super::limits;
use crate::error::Invalid;
use crate::ids::{AgentId, TaskId};
use crate::pb;
use crate::quantity::Bytes;
use crate::time::{Timestamp, millis};

/// A value that has to be there.
pub(super) fn required<T>(field: &str, value: Option<T>) -> Result<T, Invalid> {
    value.ok_or_else(|| Invalid::missing(field, "a value"))
}

/// A message that has to be there.
pub(super) fn message<P, D: TryFrom<P, Error = Invalid>>(
    field: &str,
    value: Option<P>,
) -> Result<D, Invalid> {
    inner(field, required(field, value)?)
}

/// A message that is there.
pub(super) fn inner<P, D: TryFrom<P, Error = Invalid>>(field: &str, value: P) -> Result<D, Invalid> {
    D::try_from(value).map_err(|e| e.within(field))
}

/// Refuses a list that is too long.
pub(super) fn at_most(field: &str, found: usize, limit: usize) -> Result<(), Invalid> {
    match found > limit {
        true => Err(Invalid::new(field, format!("{found} entries"), format!("at most {limit} entries"))),
        false => Ok(()),
    }
}

/// Refuses an empty list.
pub(super) fn at_least_one(field: &str, found: usize) -> Result<(), Invalid> {
    match found {
        0 => Err(Invalid::missing(field, "at least one entry")),
        _ => Ok(()),
    }
}

/// A list of messages.
pub(super) fn list<P, D: TryFrom<P, Error = Invalid>>(
    field: &str,
    values: Vec<P>,
    limit: usize,
) -> Result<Vec<D>, Invalid> {
    at_most(field, values.len(), limit)?;
    let item = |(i, value)| D::try_from(value).map_err(|e: Invalid| e.within(format_args!("{field}[{i}]")));
    values.into_iter().enumerate().map(item).collect()
}

/// A list of messages as the wire has them.
pub(super) fn to_list<D, P: From<D>>(values: Vec<D>) -> Vec<P> {
    values.into_iter().map(P::from).collect()
}

/// An id or path. It is named as the field it came in.
pub(super) fn parsed<D: FromStr<Err = Invalid>>(field: impl Display, text: &str) -> Result<D, Invalid> {
    text.parse().map_err(|e| Invalid { field: field.to_string(), ..e })
}

/// An id or path that may be left out.
pub(super) fn parsed_opt<D: FromStr<Err = Invalid>>(
    field: &str,
    text: Option<&String>,
) -> Result<Option<D>, Invalid> {
    text.map(|text| parsed(field, text)).transpose()
}

/// A list of ids or paths, each once.
pub(super) fn parsed_list<D: FromStr<Err = Invalid> + Ord + Clone + Display>(
    field: &str,
    texts: &[String],
    limit: usize,
) -> Result<Vec<D>, Invalid> {
    at_most(field, texts.len(), limit)?;
    let item = |(i, text): (usize, &String)| parsed(format_args!("{field}[{i}]"), text);
    let values = texts.iter().enumerate().map(item).collect::<Result<Vec<D>, _>>()?;
    each_once(field, &values)?;
    Ok(values)
}

/// Refuses a list in which a value stands twice.
pub(super) fn each_once<T: Ord + Display>(field: &str, values: &[T]) -> Result<(), Invalid> {
    let mut seen = BTreeSet::new();
    match values.iter().enumerate().find(|(_, value)| !seen.insert(*value)) {
        Some((i, again)) => Err(Invalid::new(format!("{field}[{i}]"), again, "each value once")),
        None => Ok(()),
    }
}

/// Text of at most so many bytes.
pub(super) fn text(field: &str, text: String, limit: usize) -> Result<String, Invalid> {
    match text.len() > limit {
        true => Err(Invalid::new(field, text, format!("at most {limit} bytes of text"))),
        false => Ok(text),
    }
}

/// Text of at most so many bytes that may be left out.
pub(super) fn text_opt(field: &str, value: Option<String>, limit: usize) -> Result<Option<String>, Invalid> {
    value.map(|value| filled(field, value, limit)).transpose()
}

/// Text of one to so many bytes, without control characters.
pub(super) fn filled(field: &str, value: String, limit: usize) -> Result<String, Invalid> {
    if value.is_empty() || value.chars().any(char::is_control) {
        return Err(Invalid::new(field, value, "text that is not empty, without control characters"));
    }
    text(field, value, limit)
}

/// Text for people, cut to what receivers take.
pub(super) fn cut(mut text: String) -> String {
    let fits = |at: &usize| text.is_char_boundary(*at);
    text.truncate((0..=limits::TEXT.min(text.len())).rev().find(fits).unwrap_or_default());
    text
}

/// Free text by name.
pub(super) type Labels = BTreeMap<String, String>;

/// Labels: free text under names that are not empty.
pub(super) fn labels(labels: Labels) -> Result<Labels, Invalid> {
    at_most("labels", labels.len(), limits::LABELS)?;
    if labels.contains_key("") {
        return Err(Invalid::missing("labels", "names that are not empty"));
    }
    let bytes: usize = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
    match bytes > limits::LABEL_BYTES {
        true => Err(Invalid::new(
            "labels",
            format!("{bytes} bytes"),
            format!("at most {} bytes together", limits::LABEL_BYTES),
        )),
        false => Ok(labels),
    }
}

/// A duration in milliseconds.
pub(super) fn duration(field: &str, ms: u64) -> Result<Duration, Invalid> {
    let duration = Duration::from_millis(ms);
    match duration > limits::DURATION {
        true => Err(Invalid::new(field, format!("{ms} ms"), "a duration of at most ten years")),
        false => Ok(duration),
    }
}

/// A duration that may be left out.
pub(super) fn duration_opt(field: &str, ms: Option<u64>) -> Result<Option<Duration>, Invalid> {
    ms.map(|ms| duration(field, ms)).transpose()
}

/// A duration that is not zero.
pub(super) fn some_time(field: &str, ms: u64) -> Result<Duration, Invalid> {
    match ms {
        0 => Err(Invalid::new(field, "0 ms", "a duration above zero")),
        ms => duration(field, ms),
    }
}

/// A duration as the wire has it: rounded up, so that what is not zero stays so.
pub(super) fn ms(duration: Duration) -> u64 {
    let duration = duration.min(limits::DURATION);
    millis(duration) + u64::from(!duration.subsec_nanos().is_multiple_of(1_000_000))
}

/// A point in time.
pub(super) fn time(field: &str, ms: u64) -> Result<Timestamp, Invalid> {
    match ms > limits::TIME_MS {
        true => Err(Invalid::new(field, ms, "milliseconds since 1970, before the year 10000")),
        false => Ok(Timestamp(ms)),
    }
}

/// A point in time that may be left out.
pub(super) fn time_opt(field: &str, ms: Option<u64>) -> Result<Option<Timestamp>, Invalid> {
    ms.map(|ms| time(field, ms)).transpose()
}

/// A point in time as the wire has it.
pub(super) fn time_ms(time: Timestamp) -> u64 {
    time.0.min(limits::TIME_MS)
}

/// A size.
pub(super) fn bytes(field: &str, bytes: i64) -> Result<Bytes, Invalid> {
    Bytes::from_bytes(bytes).map_err(|e| Invalid { field: field.to_owned(), ..e })
}

/// A count of objects.
pub(super) fn count(field: &str, count: u64) -> Result<usize, Invalid> {
    usize::try_from(count).map_err(|_| Invalid::new(field, count, "a count that fits into memory"))
}

/// A share, which may exceed 1 for a moment but is a number.
pub(super) fn share(field: &str, share: f64) -> Result<f64, Invalid> {
    match share.is_finite() && share >= 0.0 {
        true => Ok(share),
        false => Err(Invalid::new(field, share, "a number from 0 up")),
    }
}

/// The number of a port.
pub(super) fn port(field: &str, number: u32) -> Result<u16, Invalid> {
    match u16::try_from(number) {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(Invalid::new(field, number, "a port from 1 to 65535")),
    }
}

/// An enumeration's value: one that this version knows, and not the unspecified one.
pub(super) fn known<P: TryFrom<i32>, D: TryFrom<P, Error = Invalid>>(
    field: &str,
    number: i32,
) -> Result<D, Invalid> {
    let unknown = || Invalid::new(field, number, "a value that this version knows");
    P::try_from(number).ok().and_then(|value| D::try_from(value).ok()).ok_or_else(unknown)
}

/// Bytes to or from the agent of a task.
pub(super) fn task_message(wire: pb::TaskMessage) -> Result<(AgentId, TaskId, Vec<u8>), Invalid> {
    if wire.data.len() > limits::DATA {
        let found = format!("{} bytes", wire.data.len());
        return Err(Invalid::new("data", found, format!("at most {} bytes", limits::DATA)));
    }
    Ok((parsed("agent_id", &wire.agent_id)?, parsed("task_id", &wire.task_id)?, wire.data))
}

/// Conversions of an enumeration whose variants have the same names on both sides.
macro_rules! same_names {
    ($domain:path, $wire:path, [$($name:ident),+ $(,)?]) => {
        impl From<$domain> for $wire {
            fn from(value: $domain) -> Self {
                use $domain as Domain;
                match value {
                    $(Domain::$name => Self::$name,)+
                }
            }
        }

        impl TryFrom<$wire> for $domain {
            type Error = Invalid;
            fn try_from(value: $wire) -> Result<Self, Invalid> {
                use $wire as Wire;
                match value {
                    Wire::Unspecified => Err(Invalid::missing("", "a specified value")),
                    $(Wire::$name => Ok(Self::$name),)+
                }
            }
        }
    };
}
pub(super) use same_names;
