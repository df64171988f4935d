//! `divvy logs TASK`: what a task writes, by way of the master's address.

use std::io::Write;

use divvy_proto::api;
use divvy_sdk::cli::{CliError, Context};
use futures::StreamExt;
use reqwest::Method;

use crate::cli::Logs;

pub(super) async fn run(context: &Context, options: Logs) -> Result<(), CliError> {
    let tasks: Vec<api::Task> = context.get("/api/v1/tasks").await?;
    let task = find(&tasks, options.task.as_str())?;
    let stream = if options.stderr { "stderr" } else { "stdout" };
    let mut query = vec![("stream", stream.to_owned()), ("follow", options.follow.to_string())];
    query.extend(options.tail.map(|bytes| ("tail", bytes.to_string())));
    let query: Vec<String> = query.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let path = format!("/api/v1/tasks/{}/{}/logs?{}", task.framework_id, task.id, query.join("&"));
    let mut body = context.send(context.request(Method::GET, &path)).await?.bytes_stream();
    let mut out = std::io::stdout();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| CliError::Unreachable(format!("the log of {} broke off: {error}", task.id)))?;
        if out.write_all(&chunk).and_then(|()| out.flush()).is_err() {
            return Ok(()); // whoever reads has had enough
        }
    }
    Ok(())
}

/// The task with this id, or the only one whose id begins so.
fn find<'a>(tasks: &'a [api::Task], wanted: &str) -> Result<&'a api::Task, CliError> {
    if let Some(task) = tasks.iter().find(|task| task.id.as_str() == wanted) {
        return Ok(task);
    }
    let mut matching = tasks.iter().filter(|task| task.id.as_str().starts_with(wanted));
    match (matching.next(), matching.next()) {
        (Some(task), None) => Ok(task),
        (None, _) => Err(CliError::Usage(format!("no task's id is {wanted} or begins so; see `divvy tasks --all`"))),
        (Some(one), Some(other)) => {
            Err(CliError::Usage(format!("{wanted} could be {} or {}; give more of the id", one.id, other.id)))
        }
    }
}
