//! Files that users write: the `[task]` table that all frameworks share, and how a file becomes a value or an error that
//! its writer can mend.
//!
//! Not here: what a framework adds around the table (instances, retries).

use std::fmt;
use std::path::Path;

use divvy_proto::Invalid;
use serde::de::DeserializeOwned;

mod container;
mod table;
#[cfg(test)]
mod tests;

pub use container::{CapabilityTable, DeviceTable, MountTable, RlimitValue, SecretTable};
pub use table::{
    ArtifactTable, ConstraintTable, GrpcTable, HealthTable, HttpTable, PortTable, TaskTable, TcpTable,
};

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// TOML.
    Toml,
    /// JSON.
    Json,
}

impl Format {
    /// By the path's extension: `.json` is JSON, everything else TOML.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        match path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
            true => Self::Json,
            false => Self::Toml,
        }
    }
}

/// A file that is not what was expected: where, which field, and what would have been right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The text does not have the schema: not TOML or JSON, an unknown field, a value of the wrong type.
    #[error("line {line}, column {column}: {}{message}", prefix(.field))]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// Its path, outermost first: `task.health[0].interval`; empty for the whole.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// The text has the schema, and a value makes no sense.
    #[error(transparent)]
    Value(#[from] Invalid),
}

fn prefix(field: &str) -> String {
    if field.is_empty() { String::new() } else { format!("{field}: ") }
}

/// Reads a file's text. Have `T` derive `Deserialize` with `deny_unknown_fields`.
///
/// # Errors
/// The text is not what `T` expects; the error names the place and the field.
pub fn parse<T: DeserializeOwned>(text: &str, format: Format) -> Result<T, SpecError> {
    match format {
        Format::Toml => parse_toml(text),
        Format::Json => parse_json(text),
    }
}

fn parse_toml<T: DeserializeOwned>(text: &str) -> Result<T, SpecError> {
    let syntax = |field: String, error: &toml::de::Error| {
        let (line, column) = position(text, error.span().map_or(0, |span| span.start));
        SpecError::Syntax { line, column, field, message: error.message().to_owned() }
    };
    let document = toml::Deserializer::parse(text).map_err(|error| syntax(String::new(), &error))?;
    serde_path_to_error::deserialize(document).map_err(|error| syntax(field_of(error.path()), error.inner()))
}

fn parse_json<T: DeserializeOwned>(text: &str) -> Result<T, SpecError> {
    let syntax = |field: String, error: &serde_json::Error| {
        let shown = error.to_string();
        let message = shown.split(" at line ").next().unwrap_or_default().to_owned();
        SpecError::Syntax { line: error.line(), column: error.column(), field, message }
    };
    let mut document = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut document)
        .map_err(|error| syntax(field_of(error.path()), error.inner()))?;
    document.end().map_err(|error| syntax(String::new(), &error))?;
    Ok(value)
}

fn field_of(path: &serde_path_to_error::Path) -> String {
    let shown = path.to_string();
    if shown == "." { String::new() } else { shown }
}

/// Line and column of a byte, from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |tail| tail.chars().count()) + 1;
    (line, column)
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Toml => "TOML",
            Self::Json => "JSON",
        })
    }
}
