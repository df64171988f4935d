//! `divvy logs TASK`: what a task writes, by way of the master's address.

use divvy_proto::api;
use divvy_sdk::cli::{CliError, Context};

use crate::cli::Logs;

pub(super) async fn run(context: &Context, options: Logs) -> Result<(), CliError> {
    let tasks: Vec<api::Task> = context.get("/api/v1/tasks").await?;
    let task = find(&tasks, options.task.as_str())?;
    context.log(&task.framework_id, &task.id, Some(&task.agent_id), options.which).await?.print("").await
}

/// The task with this id, or the only one whose id begins so.
fn find<'a>(tasks: &'a [api::Task], wanted: &str) -> Result<&'a api::Task, CliError> {
    if let Some(task) = tasks.iter().find(|task| task.id.as_str() == wanted) {
        return Ok(task);
    }
    let mut matching = tasks.iter().filter(|task| task.id.as_str().starts_with(wanted));
    match (matching.next(), matching.next()) {
        (Some(task), None) => Ok(task),
        (None, _) => {
            Err(CliError::Usage(format!("no task's id is {wanted} or begins so; see `divvy tasks --all`")))
        }
        (Some(one), Some(other)) => {
            Err(CliError::Usage(format!("{wanted} could be {} or {}; give more of the id", one.id, other.id)))
        }
    }
}
