//! The one error of this crate: something a peer or a user wrote is not what was expected.

use std::borrow::Cow;

/// A value from outside that does not become a domain type. It names the field, the value and what was expected,
/// so that whoever wrote the value can mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value:?} is not valid: expected {expected}")]
pub struct Invalid {
    /// Path of the field, outermost first: `accept.tasks[2].resources`.
    pub field: String,
    /// What was found, cut to a length that can be shown.
    pub value: String,
    /// What would have been right.
    pub expected: Cow<'static, str>,
}

/// Longest part of a bad value that is repeated back.
const SHOWN: usize = 80;

impl Invalid {
    /// A refusal of `value` in `field`.
    pub fn new(
        field: impl Into<String>,
        value: impl ToString,
        expected: impl Into<Cow<'static, str>>,
    ) -> Self {
        let value = value.to_string();
        let value = match value.char_indices().nth(SHOWN) {
            Some((cut, _)) => format!("{}…", value.get(..cut).unwrap_or_default()),
            None => value,
        };
        Self { field: field.into(), value, expected: expected.into() }
    }

    /// A required field that is not there.
    pub fn missing(field: impl Into<String>, expected: impl Into<Cow<'static, str>>) -> Self {
        Self::new(field, "", expected)
    }

    /// The same refusal seen from one level further out: `within("task")` turns `cpus` into `task.cpus`.
    #[must_use]
    pub fn within(mut self, outer: impl std::fmt::Display) -> Self {
        self.field = if self.field.starts_with('[') {
            format!("{outer}{}", self.field)
        } else if self.field.is_empty() {
            outer.to_string()
        } else {
            format!("{outer}.{}", self.field)
        };
        self
    }
}
