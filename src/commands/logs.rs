//! `divvy logs TASK`: what a task writes, by way of the master's address.

use divvy_sdk::cli::{CliError, Context};

use super::find_task;
use crate::cli::Logs;

pub(super) async fn run(context: &Context, options: Logs) -> Result<(), CliError> {
    let task = find_task(context, &options.task).await?;
    context.log(&task.framework_id, &task.id, Some(&task.agent_id), options.which).await?.print("").await
}
