//! One app: what is wanted of it, and what must be remembered of its past. Everything here is durable, as one record.

use std::collections::{BTreeMap, VecDeque};

use divvy_sdk::proto::time::Timestamp;
use divvy_sdk::{Task, TaskSpec};
use serde::{Deserialize, Serialize};

use super::backoff::Backoff;
use super::spec::{AppId, AppSpec, UpdatePolicy};
use crate::api_types::{DeploymentKind, DeploymentState, Termination};

/// So many ends of tasks are remembered.
const HISTORY: usize = 20;

/// So many rounds of failures on end, with no instance becoming healthy between them, and a deployment has failed.
const FAILED_ROUNDS: u32 = 3;

/// What tasks of one version are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Definition {
    pub(super) task: TaskSpec,
    /// How often new tasks were wished for; the same task restarted is another definition.
    pub(super) restarts: u32,
}

/// One version of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    pub(super) definition: Definition,
    pub(super) backoff: Backoff,
}

/// The latest deployment and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rollout {
    pub(super) kind: DeploymentKind,
    pub(super) state: DeploymentState,
    pub(super) reason: Option<String>,
    pub(super) started_at: Timestamp,
    pub(super) ended_at: Option<Timestamp>,
    /// The most instances of its version that have counted as healthy at once.
    pub(super) reached: u32,
    /// When it last got further.
    pub(super) progress_at: Timestamp,
    /// Rounds of failures since then.
    pub(super) failures: u32,
}

impl Rollout {
    pub(super) fn begin(kind: DeploymentKind, now: Timestamp) -> Self {
        Self {
            kind,
            state: DeploymentState::Running,
            reason: None,
            started_at: now,
            ended_at: None,
            reached: 0,
            progress_at: now,
            failures: 0,
        }
    }

    fn end(&mut self, state: DeploymentState, reason: Option<String>, now: Timestamp) {
        self.state = state;
        self.reason = reason;
        self.ended_at = Some(now);
    }
}

/// An app: the record that is kept under `apps/<id>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct App {
    pub(super) spec: AppSpec,
    /// The version that is wanted.
    pub(super) version: u32,
    /// The version that last had all its instances healthy.
    pub(super) stable: Option<u32>,
    /// The wanted version, the stable one, and all that tasks still run of.
    pub(super) versions: BTreeMap<u32, Version>,
    pub(super) rollout: Rollout,
    pub(super) history: VecDeque<Termination>,
}

impl App {
    /// A new app; its first version is 1.
    pub(super) fn new(spec: AppSpec, now: Timestamp) -> Self {
        let definition = Definition { task: spec.task.clone(), restarts: 0 };
        Self {
            spec,
            version: 1,
            stable: None,
            versions: BTreeMap::from([(1, Version { definition, backoff: Backoff::default() })]),
            rollout: Rollout::begin(DeploymentKind::Update, now),
            history: VecDeque::new(),
        }
    }

    pub(super) fn id(&self) -> &AppId {
        &self.spec.id
    }

    pub(super) fn policy(&self) -> &UpdatePolicy {
        &self.spec.update
    }

    pub(super) fn removing(&self) -> bool {
        self.rollout.kind == DeploymentKind::Remove
    }

    /// Begins a version with this definition; the first is 1, and none is ever used again.
    pub(super) fn begin_version(&mut self, definition: Definition, kind: DeploymentKind, now: Timestamp) {
        self.version = self.version.saturating_add(1);
        self.spec.task = definition.task.clone();
        self.versions.insert(self.version, Version { definition, backoff: Backoff::default() });
        self.rollout = Rollout::begin(kind, now);
    }

    pub(super) fn definition(&self, version: u32) -> Option<&Definition> {
        self.versions.get(&version).map(|version| &version.definition)
    }

    /// Whether tasks of two versions are the same. Going back to an earlier definition keeps its tasks.
    pub(super) fn same(&self, one: u32, other: u32) -> bool {
        one == other || self.definition(one).is_some_and(|one| Some(one) == self.definition(other))
    }

    /// The version that keeps the app alive after a failed deployment, where there is one.
    pub(super) fn fallback(&self) -> Option<u32> {
        let failed = self.rollout.state == DeploymentState::Failed;
        self.stable.filter(|stable| failed && !self.same(*stable, self.version))
    }

    /// The version of which tasks are launched now.
    pub(super) fn growing(&self) -> u32 {
        self.fallback().unwrap_or(self.version)
    }

    pub(super) fn backoff_until(&self, version: u32, now: Timestamp) -> Option<Timestamp> {
        self.versions.get(&version).and_then(|version| version.backoff.until(now))
    }

    /// Accounts for a task that ended without being asked to. `blame`: through its own fault.
    pub(super) fn ended(&mut self, task: &Task, end: Termination, blame: bool, now: Timestamp) {
        let version = end.version;
        self.history.push_front(end);
        self.history.truncate(HISTORY);
        if !blame {
            return;
        }
        let counts = self.same(version, self.version);
        let known = self.versions.get_mut(&version);
        let new_round = known.is_some_and(|known| known.backoff.failed(task.launched_at, now));
        if new_round && counts && self.rollout.state == DeploymentState::Running {
            self.rollout.failures = self.rollout.failures.saturating_add(1);
        }
    }

    /// Moves the deployment on, by how many instances count as healthy now and whether that is all there should be.
    /// Says whether anything changed.
    pub(super) fn advance(
        &mut self,
        available: u32,
        complete: bool,
        connected: bool,
        waiting: Option<String>,
        now: Timestamp,
    ) -> bool {
        if self.removing() || self.rollout.state == DeploymentState::Succeeded || self.fallback().is_some() {
            return false;
        }
        if complete {
            self.rollout.reached = available;
            self.rollout.end(DeploymentState::Succeeded, None, now);
            self.stable = Some(self.version);
            return true;
        }
        if self.rollout.state == DeploymentState::Failed {
            return false;
        }
        if available > self.rollout.reached {
            self.rollout.reached = available;
            self.rollout.progress_at = now;
            self.rollout.failures = 0;
            return true;
        }
        self.give_up(connected, waiting, now)
    }

    /// When the deployment has failed unless it gets further.
    pub(super) fn deadline(&self) -> Timestamp {
        self.rollout.progress_at + self.policy().progress_deadline
    }

    pub(super) fn past_deadline(&self, now: Timestamp) -> bool {
        self.rollout.state == DeploymentState::Running && now >= self.deadline()
    }

    fn give_up(&mut self, connected: bool, waiting: Option<String>, now: Timestamp) -> bool {
        let reason = if self.rollout.failures >= FAILED_ROUNDS {
            let last = self.history.front().map(describe).unwrap_or_default();
            format!("tasks of version {} failed {FAILED_ROUNDS} times on end; the last: {last}", self.version)
        } else if connected && self.past_deadline(now) {
            let deadline = humantime::format_duration(self.policy().progress_deadline);
            let why = waiting.map(|why| format!(": {why}")).unwrap_or_default();
            format!("version {} got no further for {deadline} (progress_deadline){why}", self.version)
        } else {
            return false;
        };
        let reason = match self.stable.filter(|stable| !self.same(*stable, self.version)) {
            Some(stable) => format!("{reason}; version {stable} runs on"),
            None => format!("{reason}; it is tried on"),
        };
        self.rollout.end(DeploymentState::Failed, Some(reason), now);
        true
    }

    /// Forgets versions that nothing needs: neither wanted, nor stable, nor run. Says whether there were any.
    pub(super) fn prune(&mut self, run: impl Fn(u32) -> bool) -> bool {
        let (wanted, stable, before) = (self.version, self.stable, self.versions.len());
        self.versions.retain(|version, _| *version == wanted || Some(*version) == stable || run(*version));
        self.versions.len() != before
    }
}

/// `web.2.0-5 on agent-1: exit code 1`.
pub(super) fn describe(end: &Termination) -> String {
    format!("{} on {}: {}", end.task, end.hostname, cause(end))
}

/// Why a task ended, in a few words.
pub(super) fn cause(end: &Termination) -> String {
    match (&end.exit, end.message.as_str()) {
        (_, message) if !message.is_empty() => message.to_owned(),
        (Some(exit), _) => exit.to_string(),
        (None, _) => end.reason.to_string(),
    }
}
