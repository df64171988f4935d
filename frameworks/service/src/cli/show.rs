//! Apps as tables for people.

use crate::api_types::{AppStatus, Instance, Termination};
use divvy_sdk::cli::table;

/// One app a row.
pub(super) fn list(apps: &[AppStatus]) -> String {
    let header = ["ID", "VERSION", "STATE", "HEALTHY", "REASON"];
    table(
        header,
        apps.iter().map(|app| {
            [
                app.id.clone(),
                app.version.to_string(),
                app.state.name().to_owned(),
                format!("{}/{}", app.healthy, app.instances),
                app.reason.clone().unwrap_or_default(),
            ]
        }),
    )
}

/// One app: where it stands, its tasks, what ended last.
pub(super) fn status(app: &AppStatus) -> String {
    status_with(app, "")
}

/// As [`status`], with what the kernel says of what waits.
pub(super) fn status_with(app: &AppStatus, kernel: &str) -> String {
    let mut text = format!(
        "{}: {}, version {}, {} of {} instances healthy, {} running\n",
        app.id,
        app.state.name(),
        app.version,
        app.healthy,
        app.instances,
        app.running
    );
    if let Some(reason) = &app.reason {
        text.push_str(&format!("why: {reason}\n"));
    }
    if let Some(waiting) = app.waiting.as_ref().filter(|waiting| app.reason.as_ref() != Some(waiting)) {
        text.push_str(&format!("waiting: {waiting}\n"));
    }
    if !kernel.is_empty() {
        text.push_str(kernel.trim_start());
        text.push('\n');
    }
    text.push('\n');
    text.push_str(&tasks(app));
    if !app.history.is_empty() {
        text.push_str("\n\nended without being asked to, the latest first:\n");
        text.push_str(&history(&app.history));
    }
    text
}

fn tasks(app: &AppStatus) -> String {
    let header = ["TASK", "STATE", "HEALTHY", "AGENT", "ENDPOINT", "PID"];
    let endpoint = |task: &Instance| {
        let found = app.endpoints.iter().find(|endpoint| endpoint.task == task.id);
        found.map(|endpoint| endpoint.address.clone()).unwrap_or_default()
    };
    let healthy = |task: &Instance| match (task.stopping, task.healthy) {
        (true, _) => "stopping",
        (false, true) => "yes",
        (false, false) => "no",
    };
    table(
        header,
        app.tasks.iter().map(|task| {
            [
                task.id.to_string(),
                task.state.to_string(),
                healthy(task).to_owned(),
                task.hostname.to_string(),
                endpoint(task),
                task.pid.map(|pid| pid.to_string()).unwrap_or_default(),
            ]
        }),
    )
}

fn history(ends: &[Termination]) -> String {
    let rows = ends
        .iter()
        .take(5)
        .map(|end| [end.at.to_string(), end.task.to_string(), end.hostname.to_string(), end.message.clone()]);
    table(["AT", "TASK", "AGENT", "WHY"], rows)
}
