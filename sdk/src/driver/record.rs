//! What the driver keeps below a framework's prefix: `framework/id` is the id, `framework/tasks/<task id>` a [`Task`] in JSON.

use divvy_proto::Invalid;
use divvy_proto::ids::{FrameworkId, TaskId};

use crate::{Task, View, Write};

/// All keys of the driver begin so; a scheduler's own may not.
pub(super) const OWN: &str = "framework/";
const ID: &str = "framework/id";
const TASKS: &str = "framework/tasks/";

/// What an earlier process of the framework has stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Restored {
    /// Its id; absent before the first subscription.
    pub framework_id: Option<FrameworkId>,
    /// Its tasks that are not forgotten.
    pub tasks: Vec<Task>,
}

impl Restored {
    /// From all keys below the framework's prefix, relative to it. Keys of the scheduler's own are skipped.
    ///
    /// # Errors
    /// A record cannot be read; or there are live tasks, but no id that they could belong to: starting with a fresh id would
    /// leave them running for nobody.
    pub fn from_records<'a>(records: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Self, Invalid> {
        let mut restored = Self::default();
        for (key, value) in records {
            if key == ID {
                let text = String::from_utf8_lossy(value);
                let id = FrameworkId::new(text.as_ref()).map_err(|invalid| invalid.within(key))?;
                restored.framework_id = Some(id);
            } else if key.starts_with(TASKS) {
                restored.tasks.push(task(key, value)?);
            }
        }
        if restored.framework_id.is_none() && restored.tasks.iter().any(Task::is_live) {
            return Err(Invalid::missing(ID, "the id under which the stored tasks were launched"));
        }
        Ok(restored)
    }
}

fn task(key: &str, value: &[u8]) -> Result<Task, Invalid> {
    serde_json::from_slice(value).map_err(|error| {
        Invalid::new(key, String::from_utf8_lossy(value), format!("a task's record: {error}"))
    })
}

pub(super) fn put_id(id: &FrameworkId) -> Write {
    Write::Put { key: ID.to_owned(), value: id.as_str().into() }
}

pub(super) fn delete_id() -> Write {
    Write::Delete { key: ID.to_owned() }
}

/// A task is made of text and numbers, so that it can be written as JSON; `None` would mean that it cannot.
pub(super) fn put_task(task: &Task) -> Option<Write> {
    let value = serde_json::to_vec(task).ok()?;
    Some(Write::Put { key: key_of(task.id()), value })
}

pub(super) fn delete_task(id: &TaskId) -> Write {
    Write::Delete { key: key_of(id) }
}

/// Everything of the driver's, once the framework is torn down: the next start begins anew.
pub(super) fn all_deleted(view: &View) -> Vec<Write> {
    let tasks = view.tasks().map(|task| delete_task(task.id()));
    tasks.chain([delete_id()]).collect()
}

fn key_of(id: &TaskId) -> String {
    format!("{TASKS}{id}")
}
