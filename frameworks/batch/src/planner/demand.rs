//! What the kernel is asked for: for each role the shapes of the jobs that wait, or one gang.

use std::collections::BTreeMap;
use std::time::Duration;

use divvy_proto::demand::{DemandShape, Preference};
use divvy_proto::role::RolePath;
use divvy_proto::time::millis;
use divvy_sdk::placement::Placement;
use divvy_sdk::{Actions, View};

use super::Planner;
use super::job::Job;

/// A gang is asked for during its hold and this much longer, before it is the turn of what waits beside it.
const SLACK: Duration = Duration::from_secs(5);

impl Planner {
    /// States what is wanted now.
    pub(super) fn state_demand(&self, view: &View, actions: &mut Actions) {
        actions.want_nothing();
        let mut waiting: BTreeMap<&RolePath, Vec<&Job>> = BTreeMap::new();
        for job in self.jobs.values().filter(|job| job.wants_offers()) {
            let role = job.spec.task.role.as_ref().unwrap_or(view.role());
            waiting.entry(role).or_default().push(job);
        }
        for (role, jobs) in waiting {
            let (gangs, mut others): (Vec<&Job>, Vec<&Job>) =
                jobs.into_iter().partition(|job| job.spec.gang.is_some());
            // The kernel serves shapes in their order: the job with the fewest running tasks first.
            others.sort_by_key(|job| (job.running(), job.run));
            match whose_turn(&gangs, !others.is_empty(), view, actions) {
                Some((gang, hold)) => actions.want_together(role, [shape(gang, view)], hold),
                None => others.iter().for_each(|job| actions.want(role, shape(job, view))),
            }
        }
    }
}

/// A demand is a gang's, or it is not. Where a role has several gangs, or a gang and other jobs, they take turns.
fn whose_turn<'a>(
    gangs: &[&'a Job],
    others: bool,
    view: &View,
    actions: &mut Actions,
) -> Option<(&'a Job, Duration)> {
    let holds = gangs.iter().filter_map(|job| Some((*job, job.spec.gang?)));
    let slice = millis(holds.clone().map(|(_, hold)| hold).max()? + SLACK).max(1);
    let parties = gangs.len() as u64 + u64::from(others);
    let turn = view.now().0 / slice;
    if parties > 1 {
        let rest = slice - view.now().0 % slice;
        actions.wake_at(view.now() + Duration::from_millis(rest));
    }
    holds.into_iter().nth(usize::try_from(turn % parties).unwrap_or_default())
}

/// What one of the job's tasks needs. They are packed: a batch has no reason to keep many agents busy.
fn shape(job: &Job, view: &View) -> DemandShape {
    let (spec, name) = (&job.spec.task, job.spec.id.as_str());
    let mut shape = match spec.constraints.is_empty() && spec.volumes.is_empty() {
        true => spec.shape(name, job.wanted()),
        false => Placement::new(spec, &job.peers(view), view, &[]).shape(name, job.wanted()),
    };
    if shape.preference == Preference::None {
        shape.preference = Preference::Pack;
    }
    shape
}
