//! What runs of one app, and in which standing each task is.

use std::collections::BTreeMap;
use std::time::Duration;

use divvy_sdk::proto::ids::TaskId;
use divvy_sdk::proto::task::TaskState;
use divvy_sdk::proto::time::Timestamp;
use divvy_sdk::{Task, View};

use super::app::App;
use super::launch::mark_misplaced;

/// What the planner remembers of tasks between two looks. Not durable: after a restart it is built up again, and until then
/// fewer instances count as healthy than may be, which errs on the safe side.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Since when a task is seen to be healthy without a break.
    pub(super) healthy_since: BTreeMap<TaskId, Timestamp>,
    /// Tasks chosen to be stopped, and when they are told so.
    pub(super) stopping: BTreeMap<TaskId, Timestamp>,
}

/// What is to become of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// One of the instances that are wanted.
    Keep,
    /// To be replaced by an instance of another version.
    Replace,
    /// Told to stop, or soon to be.
    Stopping,
    /// On an agent that does not answer, and no longer waited for.
    Lost,
}

/// A task that has not ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member<'a> {
    pub(super) task: &'a Task,
    pub(super) version: u32,
    pub(super) instance: u32,
    pub(super) standing: Standing,
    pub(super) healthy: bool,
    /// Counts as healthy: of the new version, only after a while.
    pub(super) available: bool,
    /// Stands where its constraints do not allow it.
    pub(super) misplaced: bool,
    /// What it holds is wanted back, and it is to be replaced for no other reason.
    pub(super) leaving: Option<Leaving>,
}

/// A task whose agent is drained, or whose resources others are promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leaving {
    /// When it is killed, if it is.
    pub(super) deadline: Option<Timestamp>,
    /// That is so soon that it stops now, whether or not another has taken its place.
    pub(super) due: bool,
}

impl Member<'_> {
    pub(super) fn unreachable(&self) -> bool {
        self.task.state() == TaskState::Unreachable
    }

    /// The order in which instances are given up (Marathon: unreachable, unhealthy, staging, the rest; the youngest first).
    pub(super) fn worth(&self) -> u8 {
        match self.task.state() {
            TaskState::Unreachable => 0,
            TaskState::Running if !self.healthy => 1,
            TaskState::Running if self.available => 4,
            TaskState::Running => 3,
            _ => 2,
        }
    }
}

/// The label that names a task's app.
pub(super) const APP: &str = "divvy.app";
/// The label that names its version.
pub(super) const VERSION: &str = "divvy.version";
/// The label that says which of the instances it is.
pub(super) const INSTANCE: &str = "divvy.instance";

/// A number from a task's labels.
pub(super) fn label(task: &Task, name: &str) -> u32 {
    task.info.labels.get(name).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Looks at an app's tasks that have not ended.
pub(super) fn census<'a>(app: &App, tasks: &[&'a Task], memory: &Memory, view: &View) -> Vec<Member<'a>> {
    let live = tasks.iter().filter(|task| task.is_live());
    let mut members: Vec<Member<'a>> = live.map(|task| member(app, task, memory, view)).collect();
    mark_misplaced(app, &mut members, view);
    members
}

fn member<'a>(app: &App, task: &'a Task, memory: &Memory, view: &View) -> Member<'a> {
    let now = view.now();
    let version = label(task, VERSION);
    let stopping =
        task.killing || task.state() == TaskState::Killing || memory.stopping.contains_key(task.id());
    let healthy = task.is_healthy() && !stopping;
    let current = app.same(version, app.version);
    let since = memory.healthy_since.get(task.id());
    let proven = since.is_some_and(|since| now.since(*since) >= app.policy().min_healthy_time);
    // While a failed deployment is mended with the stable version, whatever works is kept.
    let keep = !app.removing() && if app.fallback().is_some() { healthy || !current } else { current };
    let leaving = if keep { leaving(app, task, view) } else { None };
    let standing = match task.state() {
        TaskState::Unreachable if stopping || !keep || waited_for(app, task, now).is_none() => Standing::Lost,
        _ if stopping => Standing::Stopping,
        _ if leaving.is_some() => Standing::Replace,
        _ if keep => Standing::Keep,
        _ => Standing::Replace,
    };
    let available = healthy && (proven || !current);
    let instance = label(task, INSTANCE);
    Member { task, version, instance, standing, healthy, available, misplaced: false, leaving }
}

/// Before the deadline by so much, and the time in which an endpoint is withdrawn, a task stops in any case.
const LAST_CALL: Duration = Duration::from_secs(2);

/// Whether others want back what the task holds.
fn leaving(app: &App, task: &Task, view: &View) -> Option<Leaving> {
    let deadline = view.wanted_back(task.id())?.deadline;
    let due = deadline.is_some_and(|deadline| view.now() + last_call(app) >= deadline);
    Some(Leaving { deadline, due })
}

/// So long before the deadline of its inverse offer a task of the app stops.
pub(super) fn last_call(app: &App) -> Duration {
    app.policy().drain + LAST_CALL
}

/// How long the return of a task on an agent that does not answer is still waited for.
pub(super) fn waited_for(app: &App, task: &Task, now: Timestamp) -> Option<Duration> {
    let gone = now.since(task.status.time);
    app.spec.replace_unreachable_after.checked_sub(gone).filter(|left| !left.is_zero())
}
