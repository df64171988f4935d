//! `divvy stats [TASK]`: what tasks use, beside their limits. Each agent is asked once for all its tasks, by way of the master.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use divvy_proto::Bytes;
use divvy_proto::api::{self, AgentState, TaskUsage};
use divvy_proto::ids::{FrameworkId, TaskId};
use divvy_sdk::cli::{CliError, Context, Output, print_line, table};
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

use super::cluster::size;
use super::find_task;
use crate::cli::Stats;

/// So many agents are asked at once.
const AT_ONCE: usize = 16;

/// The least time over which the use of processors says something.
const FIRST: Duration = Duration::from_secs(1);

/// A task between two looks.
#[derive(Debug, Serialize)]
struct Line {
    /// Cores that it used, on average; absent at the first look.
    cpu: Option<f64>,
    #[serde(flatten)]
    now: TaskUsage,
}

pub(super) async fn run(context: &Context, options: Stats) -> Result<(), CliError> {
    let task = match &options.task {
        Some(wanted) => Some(find_task(context, wanted).await?),
        None => None,
    };
    let mut before = look(context, task.as_ref()).await?;
    let mut pause = FIRST.min(options.interval);
    loop {
        tokio::time::sleep(pause).await;
        let now = look(context, task.as_ref()).await?;
        let lines: Vec<Line> =
            now.iter().map(|usage| Line { cpu: cores(&before, usage), now: usage.clone() }).collect();
        if options.once {
            return context.print(&lines, |lines| shown(lines));
        }
        show(context, &lines)?;
        (before, pause) = (now, options.interval);
    }
}

async fn look(context: &Context, task: Option<&api::Task>) -> Result<Vec<TaskUsage>, CliError> {
    if let Some(task) = task {
        let path = format!("/api/v1/tasks/{}/{}/usage", task.framework_id, task.id);
        return Ok(vec![context.get(&path).await?]);
    }
    let agents: Vec<api::Agent> = context.get("/api/v1/agents").await?;
    let active = agents.into_iter().filter(|agent| agent.state == AgentState::Active);
    let ask = |agent: api::Agent| async move {
        let usage: Result<Vec<TaskUsage>, CliError> =
            context.get(&format!("/api/v1/agents/{}/usage", agent.id)).await;
        match usage {
            // One that does not answer hides nobody else's tasks.
            Err(CliError::Unreachable(why)) => {
                context.progress(why);
                Ok(Vec::new())
            }
            usage => usage,
        }
    };
    let usage: Vec<Vec<TaskUsage>> =
        futures::stream::iter(active).map(ask).buffer_unordered(AT_ONCE).try_collect().await?;
    let mut usage: Vec<TaskUsage> = usage.into_iter().flatten().collect();
    usage.sort_by(|a, b| (&a.task_id, &a.framework_id).cmp(&(&b.task_id, &b.framework_id)));
    Ok(usage)
}

/// Cores used since the look before, by the agent's own clock.
fn cores(before: &[TaskUsage], now: &TaskUsage) -> Option<f64> {
    let by_key: BTreeMap<(&FrameworkId, &TaskId), &TaskUsage> =
        before.iter().map(|usage| ((&usage.framework_id, &usage.task_id), usage)).collect();
    let before = by_key.get(&(&now.framework_id, &now.task_id))?;
    let elapsed = now.at.since(before.at).as_secs_f64();
    let used = Duration::from_micros(now.usage.cpu_usec.checked_sub(before.usage.cpu_usec)?).as_secs_f64();
    (elapsed > 0.0).then(|| (used / elapsed * 1000.0).round() / 1000.0)
}

fn show(context: &Context, lines: &[Line]) -> Result<(), CliError> {
    match context.output {
        Output::Json => print_line(&serde_json::to_string(lines).map_err(CliError::failed)?),
        Output::Table if std::io::stdout().is_terminal() => {
            // From the top, and nothing of what stood there before.
            print_line(&format!("\x1b[H\x1b[2J{}", shown(lines)));
        }
        Output::Table => print_line(&format!("{}\n", shown(lines))),
    }
    Ok(())
}

fn shown(lines: &[Line]) -> String {
    let bytes = |count: u64| {
        size(i64::try_from(count).ok().and_then(|n| Bytes::from_bytes(n).ok()).unwrap_or_default())
    };
    let io = |count: Option<u64>| count.map(bytes).unwrap_or_default();
    let rows = lines.iter().map(|Line { cpu, now }| {
        let TaskUsage { usage, cpus, cpu_limit, memory_limit, pids_limit, .. } = now;
        let share = usage.memory.saturating_mul(100) / (*memory_limit).max(1);
        let limit = cpu_limit.map(|limit| format!(" (at most {limit})")).unwrap_or_default();
        [
            now.task_id.to_string(),
            now.hostname.to_string(),
            cpu.map(|cpu| format!("{cpu:.2}")).unwrap_or_default(),
            format!("{cpus}{limit}"),
            format!("{} / {}", bytes(usage.memory), bytes(*memory_limit)),
            format!("{share}%"),
            bytes(usage.memory_peak),
            format!("{} / {pids_limit}", usage.pids),
            io(usage.io_read),
            io(usage.io_written),
        ]
    });
    table(["ID", "HOSTNAME", "CPU", "OF", "MEM", "MEM %", "PEAK", "PIDS", "READ", "WRITTEN"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use divvy_proto::Timestamp;

    #[test]
    fn processors_are_counted_between_two_looks() {
        let usage = |task: &str, at, cpu_usec| TaskUsage {
            framework_id: "f1-0".parse().unwrap(),
            task_id: task.parse().unwrap(),
            hostname: "agent-1".parse().unwrap(),
            at: Timestamp(at),
            cpus: "0.1".parse().unwrap(),
            cpu_limit: None,
            memory_limit: 64 << 20,
            pids_limit: 9,
            usage: api::Usage { cpu_usec, ..api::Usage::default() },
        };
        let before = [usage("a", 1000, 5_000_000)];
        let now = [usage("a", 3000, 6_000_000), usage("a", 1000, 6_000_000), usage("b", 3000, 1)];
        assert_eq!(now.map(|now| cores(&before, &now)), [Some(0.5), None, None]);
    }
}
