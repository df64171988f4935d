//! `divvy events`: what changes, one line a change.

use divvy_proto::Resources;
use divvy_proto::api::{Change, Problem};
use divvy_sdk::cli::{CliError, Context, Output, print_line};
use futures::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};

use super::cluster::word;
use super::explain::show_decision;
use crate::cli::Events;

pub(super) async fn run(context: &Context, options: Events) -> Result<(), CliError> {
    let mut query: Vec<String> = options.since.map(|since| format!("since={since}")).into_iter().collect();
    let kinds = if options.decisions { vec!["decision".to_owned()] } else { options.kinds };
    if !kinds.is_empty() {
        query.push(format!("kind={}", super::escaped(&kinds.join(","), b",")));
    }
    let path = format!("/api/v1/events?{}", query.join("&"));
    let response = context.send(context.request(Method::GET, &path)).await?;
    let mut body = response.bytes_stream();
    let mut lines = Lines::default();
    while let Some(chunk) = body.next().await {
        let chunk = chunk
            .map_err(|error| CliError::Unreachable(format!("the stream of events broke off: {error}")))?;
        for event in lines.push(&chunk) {
            tell(context, &event)?;
        }
    }
    Err(CliError::Unreachable("the master has ended the stream of events".to_owned()))
}

/// One event as it comes over the wire.
#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    id: String,
    kind: String,
    data: String,
}

/// Puts together what arrives in pieces (server-sent events, HTML standard 9.2).
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
    event: Event,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.rest.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\n', '\r']);
            match line.split_once(':').map(|(name, value)| (name, value.strip_prefix(' ').unwrap_or(value))) {
                None if line.is_empty() && !self.event.kind.is_empty() => {
                    events.push(std::mem::take(&mut self.event));
                }
                Some(("id", value)) => value.clone_into(&mut self.event.id),
                Some(("event", value)) => value.clone_into(&mut self.event.kind),
                Some(("data", value)) => self.event.data.push_str(value),
                _ => {}
            }
        }
        events
    }
}

fn tell(context: &Context, event: &Event) -> Result<(), CliError> {
    let unknown = |error: serde_json::Error| {
        CliError::Failed(format!("the master tells of a change that this version does not know: {error}"))
    };
    let data: Value = serde_json::from_str(&event.data).map_err(unknown)?;
    if event.kind == "error" {
        let problem: Problem = serde_json::from_value(data).map_err(unknown)?;
        return Err(CliError::Failed(problem.error));
    }
    let index: u64 = event.id.parse().unwrap_or_default();
    match context.output {
        Output::Json => {
            print_line(&json!({ "index": index, "kind": event.kind, "data": data }).to_string());
        }
        Output::Table => {
            let change =
                serde_json::from_value(json!({ "kind": event.kind, "data": data })).map_err(unknown)?;
            print_line(&format!("{index}  {}", show(&change)));
        }
    }
    Ok(())
}

fn show(change: &Change) -> String {
    match change {
        Change::Snapshot(snapshot) => format!(
            "snapshot   {} agents, {} frameworks, {} tasks",
            snapshot.agents.len(),
            snapshot.frameworks.len(),
            snapshot.tasks.len()
        ),
        Change::Agent(agent) => format!(
            "agent      {} {} {}: {} used, {} offered, {} free",
            agent.id,
            agent.hostname,
            word(&agent.state),
            amount(&agent.resources.used),
            amount(&agent.resources.offered),
            amount(&agent.resources.available)
        ),
        Change::Framework(framework) => format!(
            "framework  {} {} {}: {} tasks, {} offers",
            framework.id,
            framework.name,
            word(&framework.state),
            framework.tasks,
            framework.offers
        ),
        Change::Task(task) => {
            format!("task       {} of {} is {}: {}", task.id, task.framework, task.state, task.reason)
        }
        Change::TaskRemoved { framework_id, id } => {
            format!("task       {id} of {framework_id} is no longer listed")
        }
        Change::Status(status) => {
            let tasks: usize = status.tasks.values().sum();
            format!(
                "status     {tasks} tasks, {} used of {}",
                amount(&status.resources.used),
                status.resources.total
            )
        }
        Change::Role(role) => {
            let quota = role.quota.as_ref().map_or_else(
                || "no quota".to_owned(),
                |quota| format!("guarantee [{}], limit [{}]", quota.guarantee, quota.limit),
            );
            format!("role       {}: weight {}, {quota}", role.path, super::cluster::weight(role.weight))
        }
        Change::Decision(decision) => format!("decision   {}", show_decision(decision)),
    }
}

fn amount(resources: &Resources) -> String {
    let text = resources.to_string();
    if text.is_empty() { "nothing".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_arrive_in_pieces_are_put_together() {
        let mut lines = Lines::default();
        let pieces = [
            ": keep-alive\n\nevent: ta",
            "sk\nid: 7\ndata: {\"a\":",
            "1}\n\nevent: status\ndata: {}\n",
            "\n",
        ];
        let events: Vec<Event> = pieces.iter().flat_map(|piece| lines.push(piece.as_bytes())).collect();
        let event = |id: &str, kind: &str, data: &str| Event {
            id: id.to_owned(),
            kind: kind.to_owned(),
            data: data.to_owned(),
        };
        assert_eq!(events, [event("7", "task", "{\"a\":1}"), event("", "status", "{}")]);
    }
}
