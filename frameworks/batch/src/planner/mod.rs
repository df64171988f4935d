//! Decides what a batch framework does: which index of which job is tried where and when, and what the end of a try means.
//!
//! Not here: sockets, files, clocks; how users write jobs down.
//!
//! The promises, each held by a test:
//!
//! - An index that has succeeded is never tried again, whatever restarts in between.
//! - A try is accounted for exactly once: its record is written in the commit in which its task is forgotten.
//! - An index is tried at most `1 + retries` times for failures of its own, and at most [`MAX_LOST`] times more for what the
//!   cluster did to it.
//! - Two tries of one index overlap in one case only: its agent does not answer for [`UNREACHABLE_AFTER`] after it was
//!   declared unreachable. Then another is started. Whichever succeeds first counts; the older is killed if it returns still
//!   running. So work is *at least once*, and `DIVVY_TASK_INDEX` with `DIVVY_ATTEMPT` is the key to make it idempotent with.
//! - What is taken back for others, be it for a drain or a guarantee, is tried again at once, and counts for nothing.
//! - The tasks of a gang that wait are launched together or not at all.
//! - Among jobs, the one with the fewest running tasks gets the next place, the older first: nobody starves.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod demand;
mod job;
mod launch;
mod outcome;
mod record;
mod report;
mod spec;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use divvy_proto::TaskState;
use divvy_proto::time::Timestamp;
use divvy_sdk::rest::Waiting;
use divvy_sdk::{Actions, Offer, Scheduler, Task, View};

use self::job::Job;
use self::record::{Index, JobRecord, Key, put};
use self::spec::TryId;

pub use self::outcome::{MAX_LOST, Outcome};
pub use self::record::{RestoreError, Try};
pub use self::report::{Counts, IndexStatus, JobState, JobStatus, JobSummary, RunSummary};
pub use self::spec::{BACKOFF, BACKOFF_MAX, GANG_HOLD, JobId, JobSpec, MAX_COUNT, MAX_GANG, MAX_RETRIES};

/// How long after its agent was declared unreachable another try of an index may start. The master has by then missed the
/// agent for some time already.
pub const UNREACHABLE_AFTER: Duration = Duration::from_secs(60);
/// How many jobs are kept. The oldest that has ended makes room for a new one.
pub const MAX_JOBS: usize = 1_000;
/// How many earlier runs of a job are kept.
const MAX_HISTORY: usize = 10;

/// Why a request was not done; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such job.
    #[error("there is no job {0}; `divvy batch ls` lists those there are")]
    NoJob(String),
    /// A job of this name has not ended.
    #[error(
        "job {0} has not ended: wait for it, cancel it with `divvy batch cancel {0}`, or choose another id"
    )]
    NotEnded(JobId),
    /// The job has ended, so there is nothing to cancel.
    #[error("job {0} has already {1}")]
    Ended(JobId, JobState),
    /// What is asked for makes no sense here.
    #[error(transparent)]
    Invalid(#[from] divvy_proto::Invalid),
    /// No more jobs can be kept.
    #[error("{MAX_JOBS} jobs have not ended; wait for some, or cancel them")]
    Full,
}

/// Jobs and what is known of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Planner {
    jobs: BTreeMap<JobId, Job>,
    /// Number of the next run.
    next_run: u64,
}

impl Planner {
    /// Without jobs.
    #[must_use]
    pub fn new() -> Self {
        Self { jobs: BTreeMap::new(), next_run: 1 }
    }

    /// As it was, from what its writes have stored: keys below the framework's prefix, in any order. Keys that are not the
    /// planner's are passed over.
    ///
    /// # Errors
    /// A record cannot be read. Nothing is guessed: to lose a record is to run finished work again.
    pub fn restore(stored: impl IntoIterator<Item = (String, Vec<u8>)>) -> Result<Self, RestoreError> {
        let mut planner = Self::new();
        let mut jobs: Vec<JobRecord> = Vec::new();
        let mut indexes: BTreeMap<(JobId, u64), BTreeMap<u32, Index>> = BTreeMap::new();
        for (key, bytes) in stored {
            let unreadable = |error: serde_json::Error| RestoreError::new(&key, error);
            match Key::parse(&key) {
                Some(Key::NextRun) => {
                    planner.next_run = serde_json::from_slice(&bytes).map_err(unreadable)?
                }
                Some(Key::Job(_)) => jobs.push(serde_json::from_slice(&bytes).map_err(unreadable)?),
                Some(Key::Index { job, run, index }) => {
                    let known = serde_json::from_slice(&bytes).map_err(unreadable)?;
                    indexes.entry((job, run)).or_default().insert(index, known);
                }
                None => {}
            }
        }
        for record in jobs {
            let known = indexes.remove(&(record.spec.id.clone(), record.run)).unwrap_or_default();
            planner.next_run = planner.next_run.max(record.run + 1);
            planner.jobs.insert(record.spec.id.clone(), Job::restore(record, known));
        }
        Ok(planner)
    }

    /// A new job, or a new run of one that has ended. Answers the run's number.
    ///
    /// # Errors
    /// A job of this name has not ended, or there are too many.
    pub fn submit(&mut self, spec: JobSpec, now: Timestamp) -> Result<(u64, Actions), Refusal> {
        self.may_submit(&spec.id)?;
        let mut actions = Actions::none();
        let history = self.jobs.get(&spec.id).map(Job::history_with_itself).unwrap_or_default();
        self.drop_job(&spec.id, &mut actions);
        if self.jobs.len() >= MAX_JOBS
            && let Some(oldest) = self.oldest_ended()
        {
            self.drop_job(&oldest, &mut actions);
        }
        let run = self.next_run;
        self.next_run += 1;
        put(&mut actions, &Key::NextRun, &self.next_run);
        let job = Job::new(spec, run, now, history);
        job.keep(&mut actions);
        self.jobs.insert(job.spec.id.clone(), job);
        Ok((run, actions))
    }

    /// Whether a job of this name would be taken.
    ///
    /// # Errors
    /// It would not, and why.
    pub fn may_submit(&self, id: &JobId) -> Result<(), Refusal> {
        match self.jobs.get(id) {
            Some(job) if job.end.is_none() => Err(Refusal::NotEnded(id.clone())),
            None if self.jobs.len() >= MAX_JOBS && self.oldest_ended().is_none() => Err(Refusal::Full),
            _ => Ok(()),
        }
    }

    /// Starts nothing more of a job and kills what runs. Asking again changes nothing.
    ///
    /// # Errors
    /// There is no such job, or it has ended.
    pub fn cancel(&mut self, id: &JobId) -> Result<Actions, Refusal> {
        let job = self.jobs.get_mut(id).ok_or_else(|| Refusal::NoJob(id.to_string()))?;
        if let Some(end) = &job.end {
            return Err(Refusal::Ended(id.clone(), end.state));
        }
        let mut actions = Actions::none();
        if !job.cancelling {
            job.cancelling = true;
            job.keep(&mut actions);
        }
        Ok(actions)
    }

    /// Forgets a job that has ended, with its history. Sandboxes stay on the agents for as long as those keep them.
    ///
    /// # Errors
    /// There is no such job, or it has not ended.
    pub fn remove(&mut self, id: &JobId) -> Result<Actions, Refusal> {
        let job = self.jobs.get(id).ok_or_else(|| Refusal::NoJob(id.to_string()))?;
        if job.end.is_none() {
            return Err(Refusal::NotEnded(id.clone()));
        }
        let mut actions = Actions::none();
        self.drop_job(id, &mut actions);
        Ok(actions)
    }

    /// All jobs, the newest first.
    #[must_use]
    pub fn list(&self, view: &View) -> Vec<JobSummary> {
        self.newest_first().map(|job| job.summary(view)).collect()
    }

    /// The jobs that wait for something, the newest first.
    #[must_use]
    pub fn waiting(&self, view: &View) -> Vec<Waiting> {
        let all = self
            .newest_first()
            .map(|job| Waiting { id: job.spec.id.to_string(), waiting: job.waiting(view) });
        all.filter(|job| !job.waiting.is_empty()).collect()
    }

    fn newest_first(&self) -> impl Iterator<Item = &Job> {
        let mut jobs: Vec<&Job> = self.jobs.values().collect();
        jobs.sort_by_key(|job| std::cmp::Reverse(job.run));
        jobs.into_iter()
    }

    /// One job without its tasks.
    #[must_use]
    pub fn summary(&self, id: &JobId, view: &View) -> Option<JobSummary> {
        self.jobs.get(id).map(|job| job.summary(view))
    }

    /// One job with its tasks.
    #[must_use]
    pub fn status(&self, id: &JobId, view: &View) -> Option<JobStatus> {
        self.jobs.get(id).map(|job| job.status(view))
    }

    /// How many jobs are in each state, and how many of their indexes stand where.
    #[must_use]
    pub fn totals(&self) -> (BTreeMap<JobState, usize>, Counts) {
        let mut jobs: BTreeMap<JobState, usize> = JobState::ALL.map(|state| (state, 0)).into();
        let mut total = Counts::default();
        for job in self.jobs.values() {
            *jobs.entry(job.state()).or_default() += 1;
            total = total + job.counts();
        }
        (jobs, total)
    }

    fn oldest_ended(&self) -> Option<JobId> {
        let ended = self.jobs.values().filter(|job| job.end.is_some());
        ended.min_by_key(|job| job.run).map(|job| job.spec.id.clone())
    }

    fn drop_job(&mut self, id: &JobId, actions: &mut Actions) {
        let Some(job) = self.jobs.remove(id) else { return };
        for index in job.indexes.keys() {
            actions.delete(job.index_key(*index).text());
        }
        actions.delete(Key::Job(id.clone()).text());
    }

    /// The run that a try belongs to. `None`: the job was removed, or has a newer run.
    fn owner(&mut self, id: &TryId) -> Option<&mut Job> {
        self.jobs.get_mut(&id.job).filter(|job| job.run == id.run && id.index < job.spec.count)
    }

    /// Takes in what is. Attempts first, so that each try is judged knowing whether a later one exists; successes before
    /// failures, so that an index whose tries end together has succeeded.
    fn observe(&mut self, view: &View, actions: &mut Actions) {
        let before: Vec<BTreeMap<_, _>> =
            self.jobs.values_mut().map(|job| std::mem::take(&mut job.live)).collect();
        let tasks = self.own_tasks(view, actions);
        let (live, mut ended): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|(_, task)| task.is_live());
        for (id, task) in live {
            if let Some(job) = self.owner(&id) {
                job.lives(&id, task);
            }
        }
        ended.sort_by_key(|(_, task)| task.state() != TaskState::Finished);
        for (id, task) in ended {
            if let Some(job) = self.owner(&id) {
                job.account(&id, task, view.now(), actions);
            }
        }
        for (job, before) in self.jobs.values_mut().zip(before) {
            job.observed(&before, view.now());
        }
    }

    /// The tasks of runs that are known. Those of others are killed and forgotten.
    fn own_tasks<'a>(&mut self, view: &'a View, actions: &mut Actions) -> Vec<(TryId, &'a Task)> {
        let mut own = Vec::new();
        for task in view.tasks() {
            if task.is_companion() {
                if !task.is_live() {
                    actions.forget(task.id().clone());
                }
                continue;
            }
            let id = TryId::parse(task.id());
            if let Some(id) = id
                && let Some(job) = self.owner(&id)
            {
                job.saw(&id);
                own.push((id, task));
                continue;
            }
            match task.state() {
                state if state.is_terminal() => actions.forget(task.id().clone()),
                TaskState::Unreachable => {}
                _ if task.killing => {}
                _ => actions.kill(task.id().clone()),
            }
        }
        own
    }
}

impl Scheduler for Planner {
    fn reconcile(&mut self, view: &View, offers: Vec<Offer>) -> Actions {
        let mut actions = Actions::none();
        self.observe(view, &mut actions);
        for job in self.jobs.values_mut() {
            job.advance(view, &mut actions);
        }
        self.launch(view, offers, &mut actions);
        self.state_demand(view, &mut actions);
        view.inverse_offers().for_each(|offer| actions.accept_inverse(offer.id));
        actions
    }
}
