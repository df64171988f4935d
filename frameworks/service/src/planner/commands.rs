//! What users ask for. Each command is refused whole, or changes an app and says what to write down; the next
//! [`reconcile`](divvy_sdk::Scheduler::reconcile) does the rest.

use divvy_sdk::Actions;
use divvy_sdk::proto::Invalid;
use divvy_sdk::proto::time::Timestamp;

use super::app::{App, Definition, Rollout};
use super::diff::differences;
use super::spec::{AppId, AppSpec, MAX_INSTANCES};
use super::{Planner, save};
use crate::api_types::{Change, ChangeKind, DeploymentKind, DeploymentState};

/// A command that was not carried out; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no app of this name.
    #[error("there is no app {0:?}; `divvy service ls` shows those that there are")]
    NotFound(String),
    /// The app is on its way out.
    #[error("app {0:?} is being removed; try again when it is gone")]
    Removing(String),
    /// The caller knew another version.
    #[error("app {id:?} is at version {actual}, not {expected}; look at it again before changing it")]
    VersionMismatch {
        /// The app.
        id: String,
        /// What the caller expected; 0: no app at all.
        expected: u32,
        /// What it is; 0: no app at all.
        actual: u32,
    },
    /// What is asked for makes no sense.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

impl Planner {
    /// Makes an app as `spec` says, or says what that would do. `expected`: only if the app is at this version (0: does not exist).
    ///
    /// # Errors
    /// The spec is not valid, the app is another than expected, or is being removed.
    pub fn apply(
        &mut self,
        spec: AppSpec,
        expected: Option<u32>,
        dry_run: bool,
        now: Timestamp,
    ) -> Result<(Change, Actions), Refusal> {
        spec.check()?;
        let id = spec.id.clone();
        let before = self.apps.get(&id);
        let actual = before.map_or(0, |app| app.version);
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            return Err(Refusal::VersionMismatch { id: id.to_string(), expected, actual });
        }
        if before.is_some_and(App::removing) {
            return Err(Refusal::Removing(id.to_string()));
        }
        let (after, kind) = applied(before, spec, now);
        let change = Change {
            id: id.to_string(),
            version: after.version,
            change: kind,
            differences: before.map(|app| differences(&app.spec, &after.spec)).unwrap_or_default(),
            peak: after.policy().max_total(after.spec.instances),
            dry_run,
        };
        let mut actions = Actions::none();
        if !dry_run && kind != ChangeKind::Unchanged {
            self.set(after, &mut actions);
        }
        Ok((change, actions))
    }

    /// Wants another number of instances.
    ///
    /// # Errors
    /// There is no such app, it is being removed, or could not be updated with so many.
    pub fn scale(&mut self, id: &AppId, instances: u32, now: Timestamp) -> Result<Actions, Refusal> {
        let app = self.changeable(id)?;
        if instances > MAX_INSTANCES {
            return Err(Invalid::new("instances", instances, format!("at most {MAX_INSTANCES}")).into());
        }
        AppSpec { instances, ..app.spec.clone() }.check()?;
        let mut after = app.clone();
        rescale(&mut after, instances, now);
        let mut actions = Actions::none();
        self.set(after, &mut actions);
        Ok(actions)
    }

    /// Wants all instances replaced by new ones, within the bounds of an update.
    ///
    /// # Errors
    /// There is no such app, or it is being removed.
    pub fn restart(&mut self, id: &AppId, now: Timestamp) -> Result<Actions, Refusal> {
        let mut after = self.changeable(id)?.clone();
        let last = after.versions.values().map(|version| version.definition.restarts).max();
        let definition = Definition {
            task: after.spec.task.clone(),
            restarts: last.unwrap_or_default().saturating_add(1),
        };
        after.begin_version(definition, DeploymentKind::Restart, now);
        let mut actions = Actions::none();
        self.set(after, &mut actions);
        Ok(actions)
    }

    /// Wants the app gone. Asking twice is fine.
    ///
    /// # Errors
    /// There is no such app.
    pub fn remove(&mut self, id: &AppId, now: Timestamp) -> Result<Actions, Refusal> {
        let app = self.apps.get(id).ok_or_else(|| Refusal::NotFound(id.to_string()))?;
        let mut actions = Actions::none();
        if !app.removing() {
            let mut after = app.clone();
            after.rollout = Rollout::begin(DeploymentKind::Remove, now);
            self.set(after, &mut actions);
        }
        Ok(actions)
    }

    /// What was applied last, as it stands now.
    ///
    /// # Errors
    /// There is no such app.
    pub fn spec(&self, id: &AppId) -> Result<(&AppSpec, u32), Refusal> {
        let app = self.apps.get(id).ok_or_else(|| Refusal::NotFound(id.to_string()))?;
        Ok((&app.spec, app.version))
    }

    fn changeable(&self, id: &AppId) -> Result<&App, Refusal> {
        let app = self.apps.get(id).ok_or_else(|| Refusal::NotFound(id.to_string()))?;
        if app.removing() { Err(Refusal::Removing(id.to_string())) } else { Ok(app) }
    }

    fn set(&mut self, app: App, actions: &mut Actions) {
        save(&app, actions);
        self.memory.entry(app.id().clone()).or_default();
        self.apps.insert(app.id().clone(), app);
    }
}

/// The app as it is after `spec` was applied to it.
fn applied(before: Option<&App>, spec: AppSpec, now: Timestamp) -> (App, ChangeKind) {
    let Some(before) = before else { return (App::new(spec, now), ChangeKind::Created) };
    let mut after = before.clone();
    let (task, instances) = (spec.task.clone(), spec.instances);
    after.spec = AppSpec { task: before.spec.task.clone(), instances: before.spec.instances, ..spec };
    let kind = if task != before.spec.task {
        let restarts = restarts_of(before, &task);
        after.begin_version(Definition { task, restarts }, DeploymentKind::Update, now);
        after.spec.instances = instances;
        ChangeKind::Updated
    } else if before.rollout.state == DeploymentState::Failed {
        after.spec.instances = instances;
        retry(&mut after, now);
        ChangeKind::Retried
    } else if instances != before.spec.instances {
        rescale(&mut after, instances, now);
        ChangeKind::Scaled
    } else if after.spec != before.spec {
        ChangeKind::Scaled
    } else {
        ChangeKind::Unchanged
    };
    (after, kind)
}

/// Going back to a task that still runs, or ran last when all was well, means those very tasks.
fn restarts_of(app: &App, task: &divvy_sdk::TaskSpec) -> u32 {
    let same = |version: &&super::app::Version| version.definition.task == *task;
    app.versions.values().rev().find(same).map_or(0, |version| version.definition.restarts)
}

fn retry(app: &mut App, now: Timestamp) {
    app.rollout = Rollout::begin(DeploymentKind::Update, now);
    if let Some(version) = app.versions.get_mut(&app.version) {
        version.backoff = super::backoff::Backoff::default();
    }
}

/// Another number of instances. A deployment that is under way goes on, with that number; one that failed stays failed.
fn rescale(app: &mut App, instances: u32, now: Timestamp) {
    let changed = app.spec.instances != instances;
    app.spec.instances = instances;
    match app.rollout.state {
        DeploymentState::Succeeded if changed => app.rollout = Rollout::begin(DeploymentKind::Scale, now),
        DeploymentState::Running => app.rollout.progress_at = now,
        DeploymentState::Succeeded | DeploymentState::Failed => {}
    }
}
