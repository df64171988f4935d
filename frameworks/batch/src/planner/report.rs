//! What people and programs are shown. Field names are a contract: added to, never renamed.

use std::fmt;
use std::ops::Add;

use divvy_proto::ids::{AgentId, Hostname, TaskId};
use divvy_proto::task::{ExitStatus, TaskState};
use divvy_proto::time::Timestamp;
use divvy_sdk::{Task, View, placement};
use serde::{Deserialize, Serialize};

use super::job::Job;
use super::outcome::Outcome;
use super::record::{Index, Standing, Try};
use super::spec::TryId;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Nothing was launched yet.
    Pending,
    /// A try was launched.
    Running,
    /// Every index ended well.
    Succeeded,
    /// An index failed for good.
    Failed,
    /// Somebody asked for its end.
    Cancelled,
}

impl JobState {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// Whether nothing can follow.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        })
    }
}

/// How many indexes stand where; together they are the job's `count`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// To be tried, now or later.
    pub pending: u32,
    /// With a task that was launched and has not ended.
    pub running: u32,
    /// Done.
    pub succeeded: u32,
    /// Not tried again.
    pub failed: u32,
    /// Given up because the job ended before they were done.
    pub cancelled: u32,
}

impl Add for Counts {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            pending: self.pending.saturating_add(other.pending),
            running: self.running.saturating_add(other.running),
            succeeded: self.succeeded.saturating_add(other.succeeded),
            failed: self.failed.saturating_add(other.failed),
            cancelled: self.cancelled.saturating_add(other.cancelled),
        }
    }
}

/// A job without its tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSummary {
    /// Its name.
    pub id: String,
    /// Number of this run; part of its task ids.
    pub run: u64,
    /// Where it stands.
    pub state: JobState,
    /// How many indexes stand where.
    pub counts: Counts,
    /// Why it failed or is being ended.
    pub reason: Option<String>,
    /// Why something waits, each cause a sentence.
    pub waiting: Vec<String>,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// When a try was first launched.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// A job with its tasks: the body of `GET /v1/jobs/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// All but its tasks.
    #[serde(flatten)]
    pub summary: JobSummary,
    /// The latest try of each index that was tried at all, by index.
    pub tasks: Vec<IndexStatus>,
    /// Earlier runs under the same name, oldest first.
    pub history: Vec<RunSummary>,
}

/// The latest try of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexStatus {
    /// Which index, from 0.
    pub index: u32,
    /// Which try, from 1.
    pub attempt: u32,
    /// Its task.
    pub task_id: TaskId,
    /// Where the task stands.
    pub state: TaskState,
    /// Where it runs or ran.
    pub agent_id: AgentId,
    /// On which machine.
    pub hostname: Hostname,
    /// How its process ended: `{"code": 1}` or `{"signal": 9}`.
    pub exit: Option<ExitStatus>,
    /// Why it is in this state; once it has ended, what that meant for its index.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// When it was first RUNNING.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// When the index is tried again.
    pub retry_at: Option<Timestamp>,
    /// Its sandbox on the agent's disk.
    pub sandbox: Option<String>,
    /// The latest tries that have ended, oldest first.
    pub tries: Vec<Try>,
}

/// An earlier run of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Its number.
    pub run: u64,
    /// How it ended.
    pub state: JobState,
    /// How many indexes ended how.
    pub counts: Counts,
    /// Why it failed.
    pub reason: Option<String>,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
}

impl Job {
    /// The job without its tasks.
    #[must_use]
    pub(super) fn summary(&self, view: &View) -> JobSummary {
        let end = self.end.as_ref();
        JobSummary {
            id: self.spec.id.to_string(),
            run: self.run,
            state: self.state(),
            counts: self.counts(),
            reason: end
                .map(|end| end.reason.clone())
                .or_else(|| self.ending_because())
                .filter(|r| !r.is_empty()),
            waiting: self.waiting(view),
            submitted_at: self.submitted_at,
            started_at: self.started_at,
            ended_at: end.map(|end| end.at),
        }
    }

    /// Why indexes that are not done do not run, most pressing first.
    #[must_use]
    pub(super) fn waiting(&self, view: &View) -> Vec<String> {
        let mut causes = Vec::new();
        if self.end.is_some() {
            return causes;
        }
        if !view.connected() {
            causes.push("the master cannot be reached".to_owned());
        }
        causes.extend(waiting_for_room(self, view));
        causes.extend(waiting_for_retry(self, view));
        causes.extend(waiting_for_agent(self, view));
        causes
    }

    /// The job with its tasks.
    #[must_use]
    pub(super) fn status(&self, view: &View) -> JobStatus {
        let tasks = self.indexes.iter().filter_map(|(number, index)| self.index_status(*number, index, view));
        JobStatus { summary: self.summary(view), tasks: tasks.collect(), history: self.history.clone() }
    }

    fn index_status(&self, number: u32, index: &Index, view: &View) -> Option<IndexStatus> {
        let id = TryId { job: self.spec.id.clone(), run: self.run, index: number, attempt: index.launched };
        let task = id.task_id().ok().and_then(|id| view.task(&id));
        let shown = match task.filter(|_| index.standing != Standing::Succeeded) {
            Some(task) => live_status(&id, task),
            None => ended_status(number, index.shown()?),
        };
        let retry_at = index.retry_at.filter(|at| *at > view.now());
        Some(IndexStatus { retry_at, tries: index.tries.clone(), ..shown })
    }
}

impl Index {
    /// The try that decided, where one did; the latest otherwise.
    fn shown(&self) -> Option<&Try> {
        let success = self.tries.iter().find(|ended| ended.outcome == Outcome::Succeeded);
        success.or_else(|| self.tries.iter().max_by_key(|ended| ended.attempt))
    }
}

fn live_status(id: &TryId, task: &Task) -> IndexStatus {
    IndexStatus {
        index: id.index,
        attempt: id.attempt,
        task_id: task.id().clone(),
        state: task.state(),
        agent_id: task.agent_id.clone(),
        hostname: task.hostname.clone(),
        exit: task.status.container.exit,
        reason: task.status.reason.to_string(),
        message: task.status.message.clone(),
        started_at: task.running_since,
        ended_at: task.state().is_terminal().then_some(task.status.time),
        retry_at: None,
        sandbox: task.status.container.sandbox.clone(),
        tries: Vec::new(),
    }
}

fn ended_status(index: u32, ended: &Try) -> IndexStatus {
    let reason = match ended.outcome {
        Outcome::TimedOut => "timeout".to_owned(),
        _ => ended.reason.to_string(),
    };
    IndexStatus {
        index,
        attempt: ended.attempt,
        task_id: ended.task_id.clone(),
        state: ended.state,
        agent_id: ended.agent_id.clone(),
        hostname: ended.hostname.clone(),
        exit: ended.exit,
        reason,
        message: ended.message.clone(),
        started_at: ended.started_at,
        ended_at: Some(ended.ended_at),
        retry_at: None,
        sandbox: ended.sandbox.clone(),
        tries: Vec::new(),
    }
}

fn waiting_for_room(job: &Job, view: &View) -> Option<String> {
    if job.ready.is_empty() || job.is_ending() {
        return None;
    }
    let waiting = match job.ready.len() {
        1 => "1 index waits".to_owned(),
        many => format!("{many} indexes wait"),
    };
    if job.slots() == 0 {
        return Some(format!("{waiting}: parallelism = {} is reached", job.running()));
    }
    let peers = job.peers(view);
    Some(format!("{waiting}: {}", placement::explain(&job.spec.task, &peers, view).summary))
}

fn waiting_for_retry(job: &Job, view: &View) -> Option<String> {
    let (at, number) = job.backing_off.first().filter(|_| !job.is_ending())?;
    let cause = job.indexes.get(number).map_or("", |index| index.cause.as_str());
    let seconds = at.since(view.now()).as_millis().div_ceil(1000);
    let others = match job.backing_off.len() {
        1 => String::new(),
        many => format!(" (and {} more later)", many - 1),
    };
    Some(format!("index {number} tries again in {seconds} s after {cause}{others}"))
}

fn waiting_for_agent(job: &Job, view: &View) -> Option<String> {
    let mut lost = job.live.iter().filter_map(|(id, live)| Some((id, live.unreachable_since?)));
    let ((number, attempt), since) = lost.next()?;
    let id = TryId { job: job.spec.id.clone(), run: job.run, index: *number, attempt: *attempt };
    let task = id.task_id().ok().and_then(|id| view.task(&id))?;
    let seconds = (since + super::UNREACHABLE_AFTER).since(view.now()).as_secs();
    let more = job.indexes.get(number).is_some_and(|index| index.may_be_tried(&job.spec));
    let next = match seconds {
        _ if job.is_ending() => "it is killed if it returns".to_owned(),
        _ if !more => "no more tries are left, so its return is waited for".to_owned(),
        0 => "another try starts as soon as there is room".to_owned(),
        seconds => format!("another try may start in {seconds} s"),
    };
    let others = match lost.count() {
        0 => String::new(),
        many => format!(" ({many} more tries are on agents that do not answer)"),
    };
    Some(format!("index {number}: agent {} does not answer; {next}{others}", task.hostname))
}
