//! What must hold after every step, and what must hold once the cluster has healed.
//!
//! | property | where |
//! |---|---|
//! | per agent `total = available + offered + used`, nothing offered twice, every task has an owner | `Kernel::check_invariants`, after each of its steps |
//! | containers that really run never need more than their agent has, and share no port | [`World::check_truth`], after each step |
//! | no container starts before its launch is on disk | `World::container_starts` |
//! | an index whose success was acknowledged is never launched again | [`Truth::may_launch`], at each Accept |
//! | no terminal update is lost, every container has an owner, the healed cluster converges | [`World::check_healed`] |

use std::collections::{BTreeMap, BTreeSet};

use divvy_batch::planner::JobState;
use divvy_proto::ids::{TaskId, UpdateId};
use divvy_proto::task::{TaskState, TaskStatus};
use divvy_service::api_types::AppState;

use crate::framework::{AnyDriver, BATCH, SERVICE};
use crate::world::World;

/// What the simulation knows for certain, whatever the parts believe.
#[derive(Debug, Default)]
pub struct Truth {
    /// Updates that say FINISHED, by their id.
    finished_updates: BTreeMap<UpdateId, TaskId>,
    /// `job-run.index` of each success that its framework has acknowledged.
    succeeded: BTreeSet<String>,
}

/// `job-run.index` of a task id `job-run.index.attempt`.
fn index_of(task: &TaskId) -> Option<String> {
    task.as_str().rsplit_once('.').map(|(index, _)| index.to_owned())
}

impl Truth {
    pub fn says(&mut self, status: &TaskStatus) {
        if let (TaskState::Finished, Some(id)) = (status.state, &status.update_id) {
            self.finished_updates.insert(id.clone(), status.task_id.clone());
        }
    }

    pub fn acknowledged(&mut self, update: &UpdateId) {
        self.succeeded.extend(self.finished_updates.get(update).and_then(index_of));
    }

    pub fn may_launch(&self, task: &TaskId) -> Result<(), String> {
        match index_of(task).filter(|index| self.succeeded.contains(index)) {
            Some(index) => Err(format!("{task}: {index} has succeeded, and runs again")),
            None => Ok(()),
        }
    }
}

impl World {
    /// Containers that run fit their agent.
    pub fn check_truth(&self) -> Result<(), String> {
        for (index, node) in self.agents.iter().enumerate() {
            let cpus: i64 = node.running().map(|spec| spec.cpus.millis()).sum();
            let mem: i64 = node.running().map(|spec| spec.memory.bytes()).sum();
            let ports: Vec<&String> = node.running().filter_map(|spec| spec.env.get("PORT0")).collect();
            let distinct: BTreeSet<&&String> = ports.iter().collect();
            let fits = cpus <= node.total.cpus().millis() && mem <= node.total.mem().bytes();
            if !fits || distinct.len() != ports.len() {
                return Err(format!(
                    "agent {index} runs more than it has: {cpus} millicpus, {mem} bytes, ports {ports:?}"
                ));
            }
        }
        Ok(())
    }

    /// What is still wrong, if anything, once faults have stopped.
    pub fn check_healed(&self) -> Result<(), String> {
        let running: BTreeSet<String> = self
            .agents
            .iter()
            .flat_map(|node| node.running().filter_map(|spec| spec.env.get("DIVVY_TASK_ID").cloned()))
            .collect();
        let mut wanted: BTreeSet<String> = BTreeSet::new();
        for node in &self.frameworks {
            let Some(driver) = &node.driver else { return Err("a framework is down".to_owned()) };
            wanted.extend(
                driver.view().tasks().filter(|task| task.is_live()).map(|task| task.id().to_string()),
            );
        }
        if running != wanted {
            let (lost, stray): (Vec<_>, Vec<_>) =
                (wanted.difference(&running).collect(), running.difference(&wanted).collect());
            return Err(format!("frameworks wait for {lost:?}, which do not run; {stray:?} run for nobody"));
        }
        let unsettled: Vec<_> = self
            .agents
            .iter()
            .flat_map(|node| node.disk.values())
            .filter(|r| r.latest.state.is_terminal())
            .collect();
        if let Some(record) = unsettled.first() {
            return Err(format!(
                "{} terminal updates are not acknowledged, {} among them",
                unsettled.len(),
                record.info.id
            ));
        }
        self.kernel_agrees(&running)?;
        self.jobs_have_ended()?;
        self.apps_are_settled()
    }

    fn kernel_agrees(&self, running: &BTreeSet<String>) -> Result<(), String> {
        let Some(kernel) = &self.master.kernel else { return Err("the master is down".to_owned()) };
        let known: BTreeSet<String> = kernel
            .tasks()
            .into_iter()
            .filter(|task| !task.state.is_terminal())
            .map(|task| task.id.to_string())
            .collect();
        if &known != running {
            return Err(format!("the master believes in {known:?}; what runs is {running:?}"));
        }
        Ok(())
    }

    fn jobs_have_ended(&self) -> Result<(), String> {
        let Some(AnyDriver::Batch(driver)) = &self.frameworks[BATCH].driver else { return Ok(()) };
        let waiting: Vec<_> =
            driver.scheduler().list(driver.view()).into_iter().filter(|job| !job.state.has_ended()).collect();
        match waiting.first() {
            Some(job) => {
                Err(format!("job {} is {:?}: {:?} {:?}", job.id, job.state, job.counts, job.waiting))
            }
            None => self.results_are_whole(),
        }
    }

    /// A job that succeeded has succeeded in every index.
    fn results_are_whole(&self) -> Result<(), String> {
        let Some(AnyDriver::Batch(driver)) = &self.frameworks[BATCH].driver else { return Ok(()) };
        let jobs = driver.scheduler().list(driver.view());
        let torn = jobs.iter().find(|job| {
            (job.state == JobState::Succeeded) != (job.counts.failed + job.counts.cancelled == 0)
        });
        torn.map_or(Ok(()), |job| Err(format!("job {} is {:?} with {:?}", job.id, job.state, job.counts)))
    }

    /// An app runs, or its deployment has failed and says why. One that was ever given a bad version may have gone back to just
    /// that one: then it says why it waits.
    fn apps_are_settled(&self) -> Result<(), String> {
        let Some(AnyDriver::Service(driver)) = &self.frameworks[SERVICE].driver else { return Ok(()) };
        for app in driver.scheduler().list(driver.view()) {
            let settled = match app.state {
                AppState::Running => app.healthy == app.instances,
                AppState::Failed => app.deployment.reason.is_some(),
                AppState::Degraded => self.given_bad.contains(&app.id) && app.waiting.is_some(),
                AppState::Deploying => false,
            };
            if !settled {
                return Err(format!(
                    "app {} is {:?}: {:?}, {} of {} healthy, {:?}",
                    app.id, app.state, app.deployment, app.healthy, app.instances, app.waiting
                ));
            }
        }
        Ok(())
    }
}
