//! What must hold after every step, and what must hold once the cluster has healed.
//!
//! | property | where | planted fault that it finds |
//! |---|---|---|
//! | per agent `total = available + offered + used`, nothing offered twice, every task has an owner | `Kernel::check_invariants`, after each of its steps | (the kernel's own tests) |
//! | containers that really run never need more than their agent has, and share no port | [`World::check_truth`], after each step | `Amnesia` |
//! | no container starts before its launch is on disk | `World::container_starts` | `LyingDisk` |
//! | an index whose success was acknowledged is never launched again | [`Truth::may_launch`], at each Accept | `LyingStore` |
//! | a framework's process stops only if it was taken over or torn down | `World::framework_stops` | |
//! | while nothing fails, an update keeps its bounds, and no published instance has been told to stop | [`World::check_bounds`], after each step | `LooseBounds` |
//! | no terminal update is lost, every container has an owner, a framework that was torn down leaves nothing, who was taken over has ended, tasks stand where they may, the healed cluster converges | [`World::check_healed`] | `LoseTerminalUpdates` |

use std::collections::{BTreeMap, BTreeSet};

use divvy_agent::container::ContainerSpec;
use divvy_batch::planner::JobState;
use divvy_proto::ids::{TaskId, UpdateId};
use divvy_proto::task::{TaskState, TaskStatus};
use divvy_sdk::Constraint;
use divvy_sdk::driver::Driver;
use divvy_service::api_types::{AppState, AppStatus};
use divvy_service::planner::Planner;

use crate::bounds::Bounds;
use crate::framework::{AnyDriver, BATCH, SERVICE};
use crate::world::World;

/// What the simulation knows for certain, whatever the parts believe.
#[derive(Debug, Default)]
pub struct Truth {
    /// Updates that say FINISHED, by their id.
    finished_updates: BTreeMap<UpdateId, TaskId>,
    /// `job-run.index` of each success that its framework has acknowledged.
    succeeded: BTreeSet<String>,
    pub bounds: Bounds,
    /// Something has changed that has to be looked at.
    pub stale: bool,
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
    /// What must hold at any time.
    pub fn check_truth(&mut self) -> Result<(), String> {
        if !std::mem::take(&mut self.truth.stale) {
            return Ok(());
        }
        self.containers_fit()?;
        if self.nature.calm && !self.nature.meddled { self.check_bounds() } else { Ok(()) }
    }

    /// Containers that run fit their agent, unless they were there before it became smaller.
    fn containers_fit(&self) -> Result<(), String> {
        for (index, node) in self.agents.iter().enumerate() {
            let is_revocable = |spec: &&ContainerSpec| {
                spec.env.get("DIVVY_TASK_ID").is_some_and(|task| self.ledger.revocable.contains(task))
            };
            let lasting = || node.running().filter(|spec| !is_revocable(spec));
            let cpus: i64 = lasting().map(|spec| spec.cpus.millis()).sum();
            let mem: i64 = lasting().map(|spec| spec.memory.bytes()).sum();
            let ports: Vec<&String> = node.running().filter_map(|spec| spec.env.get("PORT0")).collect();
            let distinct: BTreeSet<&&String> = ports.iter().collect();
            let fits = cpus <= node.total.cpus().millis() && mem <= node.total.mem().bytes();
            let started_some = lasting().any(|spec| node.started(spec));
            if (!fits && started_some) || distinct.len() != ports.len() {
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
        if self.errands > 0 {
            return Err(format!("the operator waits for {} things", self.errands));
        }
        for index in self.current {
            let Some(driver) = &self.frameworks[index].driver else {
                if self.frameworks[index].dismissed {
                    continue;
                }
                return Err(format!("framework {index} is down"));
            };
            wanted.extend(
                driver.view().tasks().filter(|task| task.is_live()).map(|task| task.id().to_string()),
            );
        }
        if let Some(index) = self.frameworks.iter().position(|node| node.fenced && node.driver.is_some()) {
            return Err(format!("framework {index} was taken over, and lives on"));
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
        let Some(AnyDriver::Batch(driver)) = &self.frameworks[self.current[BATCH]].driver else {
            return Ok(());
        };
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
        let Some(AnyDriver::Batch(driver)) = &self.frameworks[self.current[BATCH]].driver else {
            return Ok(());
        };
        let jobs = driver.scheduler().list(driver.view());
        let torn = jobs.iter().find(|job| {
            (job.state == JobState::Succeeded) != (job.counts.failed + job.counts.cancelled == 0)
        });
        torn.map_or(Ok(()), |job| Err(format!("job {} is {:?} with {:?}", job.id, job.state, job.counts)))
    }

    /// An app runs, or its deployment has failed and says why. One that was ever given a bad version may have gone back to just
    /// that one, and one with constraints may have lost the agents that it needs: then it says why it waits.
    fn apps_are_settled(&self) -> Result<(), String> {
        let Some(AnyDriver::Service(driver)) = &self.frameworks[self.current[SERVICE]].driver else {
            return Ok(());
        };
        for app in driver.scheduler().list(driver.view()) {
            let settled = match app.state {
                AppState::Running => app.healthy == app.instances && self.is_placed_rightly(driver, &app),
                AppState::Failed => app.deployment.reason.is_some(),
                AppState::Degraded => app.waiting.is_some() && self.may_lack_instances(driver, &app),
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

    /// Not all agents are what they were, or not every version works.
    fn may_lack_instances(&self, driver: &Driver<Planner>, app: &AppStatus) -> bool {
        self.given_bad.contains(&app.id) || !constraints(driver, app).is_empty()
    }

    /// An app's tasks stand where its constraints allow it.
    fn is_placed_rightly(&self, driver: &Driver<Planner>, app: &AppStatus) -> bool {
        let rack = |hostname: &str| {
            let agent = driver.view().agents().find(|agent| agent.hostname.as_str() == hostname);
            agent.and_then(|agent| agent.attributes.get("rack")).map(ToString::to_string)
        };
        let live = || app.tasks.iter().filter(|task| task.healthy);
        constraints(driver, app).iter().all(|constraint| match constraint {
            Constraint::Unique { .. } => {
                let hostnames: BTreeSet<_> = live().map(|task| &task.hostname).collect();
                hostnames.len() == live().count()
            }
            Constraint::Like { .. } => {
                live().all(|task| rack(task.hostname.as_str()).as_deref() == Some("r1"))
            }
            Constraint::Spread { .. } => true, // held at each launch; what ends later leaves it uneven
        })
    }
}

fn constraints<'a>(driver: &'a Driver<Planner>, app: &AppStatus) -> &'a [Constraint] {
    let id = app.id.parse().ok();
    let spec = id.and_then(|id| driver.scheduler().spec(&id).ok());
    spec.map_or(&[], |(spec, _)| &spec.task.constraints)
}
