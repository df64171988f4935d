//! Jobs as tables for people.

use divvy_sdk::cli::table;
use divvy_sdk::proto::{TaskState, Timestamp};

use crate::api::DryRun;
use crate::planner::{Counts, IndexStatus, JobStatus, JobSummary};

/// One job a row.
pub(super) fn list(jobs: &[JobSummary]) -> String {
    let header = ["ID", "RUN", "STATE", "SUCCEEDED", "RUNNING", "PENDING", "FAILED", "TOOK", "REASON"];
    let row = |job: &JobSummary| {
        let Counts { pending, running, succeeded, failed, cancelled } = job.counts;
        [
            job.id.clone(),
            job.run.to_string(),
            job.state.to_string(),
            format!("{succeeded}/{}", pending + running + succeeded + failed + cancelled),
            running.to_string(),
            pending.to_string(),
            failed.to_string(),
            took(job.started_at, job.ended_at),
            job.reason.clone().or_else(|| job.waiting.first().cloned()).unwrap_or_default(),
        ]
    };
    table(header, jobs.iter().map(row))
}

/// Where a job stands in one line, and why.
pub(super) fn progress(job: &JobSummary) -> String {
    let mut line = counts(job);
    for why in job.reason.iter().chain(&job.waiting) {
        line.push_str("; ");
        line.push_str(why);
    }
    line
}

/// Where a job stands: `wordcount: running, 3 succeeded, 17 running`.
pub(super) fn counts(job: &JobSummary) -> String {
    let Counts { pending, running, succeeded, failed, cancelled } = job.counts;
    let counts = [
        (succeeded, "succeeded"),
        (running, "running"),
        (pending, "pending"),
        (failed, "failed"),
        (cancelled, "not done"),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts.map(|(count, what)| format!("{count} {what}")).collect();
    format!("{}: {}, {}", job.id, job.state, counts.join(", "))
}

/// `1 task`, `20 tasks`.
pub(super) fn tasks(count: u32) -> String {
    if count == 1 { "1 task".to_owned() } else { format!("{count} tasks") }
}

/// One job: where it stands, its tasks.
pub(super) fn status(job: &JobStatus) -> String {
    status_with(job, "")
}

/// As [`status`], with what the kernel says of what waits.
pub(super) fn status_with(job: &JobStatus, kernel: &str) -> String {
    let JobStatus { summary, tasks, history } = job;
    let mut text = counts(summary);
    if let Some(why) = &summary.reason {
        text.push_str(&format!("\nwhy: {why}"));
    }
    for why in &summary.waiting {
        text.push_str(&format!("\nwaiting: {why}"));
    }
    text.push_str(kernel);
    text.push_str("\n\n");
    let header = ["INDEX", "ATTEMPT", "TASK", "STATE", "AGENT", "EXIT", "TOOK", "WHY"];
    text.push_str(&table(header, tasks.iter().map(row)));
    if !history.is_empty() {
        text.push_str("\n\nearlier runs:\n");
        let rows = history.iter().map(|run| {
            let reason = run.reason.clone().unwrap_or_default();
            [run.run.to_string(), run.state.to_string(), run.ended_at.to_string(), reason]
        });
        text.push_str(&table(["RUN", "STATE", "ENDED", "WHY"], rows));
    }
    text
}

fn row(task: &IndexStatus) -> [String; 8] {
    let ended_well = task.exit.is_some_and(|exit| exit.success());
    let why = match (task.message.is_empty(), ended_well) {
        (_, true) => String::new(),
        (true, _) if task.state == TaskState::Running => String::new(),
        (true, _) => task.reason.clone(),
        (false, _) => task.message.clone(),
    };
    [
        task.index.to_string(),
        task.attempt.to_string(),
        task.task_id.to_string(),
        task.state.to_string(),
        task.hostname.to_string(),
        task.exit.map(|exit| exit.to_string()).unwrap_or_default(),
        took(task.started_at, task.ended_at),
        why,
    ]
}

/// From start to end, where both are known.
fn took(start: Option<Timestamp>, end: Option<Timestamp>) -> String {
    let took = start.zip(end).map(|(start, end)| end.since(start));
    took.map(|took| humantime::format_duration(took).to_string()).unwrap_or_default()
}

/// What a dry run found.
pub(super) fn dry_run(found: &DryRun) -> String {
    let DryRun { job, placement } = found;
    let time = |time| humantime::format_duration(time).to_string();
    let timeout = job.timeout.map_or("no timeout".to_owned(), |timeout| format!("timeout {}", time(timeout)));
    format!(
        "{}: {} of cpus={}, mem={}; {} retries, the first after {}; {timeout}\n{placement}\nnothing was submitted",
        job.id,
        tasks(job.count),
        job.task.cpus,
        job.task.mem,
        job.retries,
        time(job.backoff),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it was answered by a cluster, but for what does not matter here.
    const ANSWER: &str = r#"{
        "id": "wc", "run": 7, "state": "running", "reason": null,
        "counts": {"pending": 17, "running": 1, "succeeded": 1, "failed": 1, "cancelled": 0},
        "waiting": ["17 indexes wait: too little cpus left on all 3 agents"],
        "submitted_at": "2026-11-21T15:00:00Z", "started_at": "2026-11-21T15:00:01Z", "ended_at": null,
        "tasks": [
            {"index": 0, "attempt": 1, "task_id": "wc-7.0.1", "state": "FINISHED", "agent_id": "a1-0",
             "hostname": "agent-1", "exit": {"code": 0}, "reason": "command_exited", "message": "exit code 0",
             "started_at": "2026-11-21T15:00:01Z", "ended_at": "2026-11-21T15:00:03.500Z", "retry_at": null,
             "sandbox": null, "tries": []},
            {"index": 1, "attempt": 2, "task_id": "wc-7.1.2", "state": "KILLED", "agent_id": "a1-1",
             "hostname": "agent-2", "exit": {"signal": 15}, "reason": "timeout", "message": "timeout after 5m",
             "started_at": null, "ended_at": null, "retry_at": null, "sandbox": null, "tries": []},
            {"index": 2, "attempt": 1, "task_id": "wc-7.2.1", "state": "RUNNING", "agent_id": "a1-1",
             "hostname": "agent-2", "exit": null, "reason": "command_exited", "message": "",
             "started_at": "2026-11-21T15:00:01Z", "ended_at": null, "retry_at": null, "sandbox": null, "tries": []}
        ],
        "history": [{"run": 3, "state": "succeeded", "reason": null,
            "counts": {"pending": 0, "running": 0, "succeeded": 20, "failed": 0, "cancelled": 0},
            "submitted_at": "2026-11-20T15:00:00Z", "ended_at": "2026-11-20T15:04:00Z"}]
    }"#;

    #[test]
    fn a_status_says_where_each_task_stands_and_why() {
        let job: JobStatus = serde_json::from_str(ANSWER).unwrap();
        insta::assert_snapshot!(status(&job));
    }

    #[test]
    fn a_list_has_a_row_for_each_job() {
        let job: JobStatus = serde_json::from_str(ANSWER).unwrap();
        insta::assert_snapshot!(list(&[job.summary]));
    }
}
