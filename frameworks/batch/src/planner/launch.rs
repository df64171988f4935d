//! Which try goes into which offer.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use divvy_sdk::{Accept, Actions, Offer, TaskSpec, View, placement};

use super::Planner;
use super::job::Job;
use super::spec::{JobId, TryId};

/// Most tasks of one Accept, which is one message: thousands of small ones would be too long for it.
const MAX_TASKS_PER_ACCEPT: usize = 500;

/// One turn of launching. The offers stay together until its end, as placement counts what was taken from all of them.
struct Round<'a> {
    view: &'a View,
    offers: Vec<Offer>,
    /// Where to look first for a place that any offer could give, so that a job is laid over all of them.
    turn: usize,
    /// An offer can take no more in one message.
    full: bool,
}

impl Planner {
    /// Fills the offers. The job with the fewest running tasks gets the next place, the older first; one whose next task fits
    /// nowhere is out for this turn.
    pub(super) fn launch(&mut self, view: &View, mut offers: Vec<Offer>, actions: &mut Actions) {
        for job in self.jobs.values_mut().filter(|job| job.spec.gang.is_some() && job.wants_offers()) {
            launch_gang(job, view, &mut offers, actions);
        }
        let waiting = self.jobs.values().filter(|job| job.spec.gang.is_none() && job.wants_offers());
        let mut queue: BTreeSet<(u32, u64, JobId)> =
            waiting.map(|job| (job.running(), job.run, job.spec.id.clone())).collect();
        let mut round = Round { view, offers, turn: 0, full: false };
        while let Some((_, run, id)) = queue.pop_first() {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            if round.offers.is_empty() || round.full {
                break;
            }
            if round.launch_one(job, actions) && job.wants_offers() {
                queue.insert((job.running(), run, id));
            }
        }
        if round.full {
            actions.refuse = Some(Duration::ZERO);
        }
        let used = round.offers.into_iter().filter(|offer| !offer.taken().is_empty());
        actions.accepts.extend(used.map(Offer::accept));
    }
}

/// Launches all tasks of the job that wait, if the offers have room for all: those that were made for them together, or else
/// classic ones.
fn launch_gang(job: &mut Job, view: &View, offers: &mut Vec<Offer>, actions: &mut Actions) {
    let name = job.spec.id.as_str();
    let gangs = offers.iter().filter_map(|offer| offer.demand().filter(|demand| demand.shape == name)?.gang);
    let gang = gangs.max();
    let is_its = |offer: &Offer| match offer.demand() {
        Some(demand) => demand.shape == name && demand.gang == gang,
        None => gang.is_none(),
    };
    let mut upcoming: VecDeque<TryId> = job.upcoming().collect();
    let wanted = u32::try_from(upcoming.len()).unwrap_or(u32::MAX);
    let room =
        offers.iter().filter(|offer| is_its(offer)).map(|offer| offer.room_for(&job.spec.task, wanted));
    if wanted == 0 || room.fold(0, u32::saturating_add) < wanted {
        return; // what is not used is declined
    }
    let all = upcoming.clone();
    let mut accepts = Vec::new();
    for mut offer in offers.extract_if(.., |offer| is_its(offer)) {
        while let Some(id) = upcoming.pop_front() {
            let spec = spec_of(&id, &job.spec.task, job.spec.count);
            if !id.task_id().is_ok_and(|task_id| offer.take(task_id, &spec).is_ok()) {
                upcoming.push_front(id);
                break;
            }
        }
        if !offer.taken().is_empty() {
            accepts.push(offer.accept());
        }
    }
    if upcoming.is_empty() {
        all.iter().for_each(|id| job.launched(id, view.now(), actions));
        actions.accept(Accept::together(accepts));
    }
}

impl Round<'_> {
    /// Whether a try of the job was launched.
    fn launch_one(&mut self, job: &mut Job, actions: &mut Actions) -> bool {
        let (Some(id), Some(chosen)) = (job.next(), self.place(job)) else { return false };
        let spec = spec_of(&id, &job.spec.task, job.spec.count);
        let (Some(offer), Ok(task_id)) = (self.offers.get_mut(chosen), id.task_id()) else { return false };
        if offer.take(task_id, &spec).is_err() {
            return false;
        }
        self.full |= offer.taken().len() >= MAX_TASKS_PER_ACCEPT;
        self.turn = chosen + 1;
        job.launched(&id, self.view.now(), actions);
        true
    }

    /// Constraints are the SDK's business. Without them all places are alike, and going round costs the same for the
    /// ten-thousandth task as for the first.
    fn place(&self, job: &Job) -> Option<usize> {
        let spec = &job.spec.task;
        if !spec.constraints.is_empty() {
            return placement::place(spec, &job.peers(self.view), self.view, &self.offers);
        }
        let count = self.offers.len();
        let around = (self.turn..self.turn + count).map(|at| at % count);
        let fits = |at: &usize| self.offers.get(*at).is_some_and(|offer| offer.fits(spec));
        around.into_iter().find(fits)
    }
}

/// The job's task as this try is told of itself.
fn spec_of(id: &TryId, task: &TaskSpec, count: u32) -> TaskSpec {
    task.clone()
        .env("DIVVY_JOB_ID", id.job.as_str())
        .env("DIVVY_TASK_INDEX", id.index.to_string())
        .env("DIVVY_TASK_COUNT", count.to_string())
        .env("DIVVY_ATTEMPT", id.attempt.to_string())
}
