//! The planner: from the apps that are wanted, the tasks that there are and the time, to the next actions.
//!
//! It looks at what is, not at what happened: after any crash it goes on from its records and the tasks in the view. Not here:
//! REST, files, clocks (`api`, `serve`).
//!
//! Rules that the parts below keep together:
//! - an endpoint is withdrawn first, and its task told to stop only after the app's `drain` time;
//! - a task on an agent that does not answer is replaced after `replace_unreachable_after`. If it returns, there is one too
//!   many, and the least worthy goes: the replacement while it is not yet healthy, and then the one that was away;
//! - an instance whose resources are wanted back is replaced elsewhere first, and stops when the replacement is healthy or its
//!   deadline is near; that is nobody's failure;
//! - a failed deployment stops; what works of the new version is kept, and the stable version fills up to `instances`.
//!   Without a stable version it is tried on, with back-off.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod app;
mod backoff;
mod census;
mod commands;
mod diff;
mod launch;
mod roll;
pub mod spec;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use divvy_sdk::proto::ids::TaskId;
use divvy_sdk::proto::task::{Reason, TaskState};
use divvy_sdk::proto::time::Timestamp;
use divvy_sdk::{Actions, Offer, Scheduler, Task, View};

use self::app::App;
use self::census::{APP, Leaving, Member, Memory, Standing, census, label, last_call, waited_for};
use self::launch::Want;
use self::roll::{Bounds, decide};
use self::spec::AppId;
use crate::api_types::{DeploymentKind, DeploymentState, Termination};

pub use self::commands::Refusal;

/// Key of the counter from which task ids are made.
const COUNTER: &str = "launched";
/// Keys of apps begin with this.
const APPS: &str = "apps/";

/// Keeps apps running. The scheduler of the service framework.
#[derive(Debug, Default)]
pub struct Planner {
    apps: BTreeMap<AppId, App>,
    memory: BTreeMap<AppId, Memory>,
    /// So many tasks were ever launched; durable, as it makes task ids unique for life.
    launched: u64,
    /// Ended tasks that are accounted for, in case the view still shows them.
    accounted: BTreeSet<TaskId>,
    /// What was missing after the last look: version and number by app.
    missing: BTreeMap<AppId, (u32, u32)>,
}

/// A record in the store that is not one of a planner.
#[derive(Debug, thiserror::Error)]
#[error("restore {key}: {source}")]
pub struct RestoreError {
    /// Where it was found.
    pub key: String,
    /// What is wrong.
    pub source: serde_json::Error,
}

impl Planner {
    /// A planner with no apps.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A planner as its records have it. Keys of others are passed over.
    ///
    /// # Errors
    /// A record is damaged, or of a later version of the planner.
    pub fn restore<'a>(records: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Self, RestoreError> {
        let mut planner = Self::new();
        for (key, value) in records {
            let damaged = |source| RestoreError { key: key.to_owned(), source };
            if key == COUNTER {
                planner.launched = serde_json::from_slice(value).map_err(damaged)?;
            } else if key.starts_with(APPS) {
                let app: App = serde_json::from_slice(value).map_err(damaged)?;
                planner.memory.insert(app.id().clone(), Memory::default());
                planner.apps.insert(app.id().clone(), app);
            }
        }
        Ok(planner)
    }

    /// The apps there are.
    pub fn apps(&self) -> impl Iterator<Item = &AppId> {
        self.apps.keys()
    }
}

impl Scheduler for Planner {
    fn reconcile(&mut self, view: &View, offers: Vec<Offer>) -> Actions {
        let mut actions = Actions::none();
        let tasks = by_app(view);
        self.accounted.retain(|id| view.task(id).is_some());
        self.end_orphans(&tasks, &mut actions);
        let ended = view.tasks().filter(|task| task.is_companion() && !task.is_live());
        ended.for_each(|task| actions.forget(task.id().clone()));
        let ids: Vec<AppId> = self.apps.keys().cloned().collect();
        let mut wants = Vec::new();
        for id in &ids {
            let own = tasks.get(id.as_str()).map_or(&[][..], Vec::as_slice);
            wants.extend(self.step(id, own, view, &mut actions));
        }
        let missing = self.launch(wants, view, offers, &mut actions);
        let news = missing.iter().any(|(id, wanted)| {
            self.missing.get(id).is_none_or(|before| before.0 != wanted.0 || before.1 < wanted.1)
        });
        actions.revive = news;
        view.inverse_offers().for_each(|offer| actions.accept_inverse(offer.id));
        self.missing = missing;
        actions
    }
}

/// The framework's tasks by the app that their label names.
fn by_app(view: &View) -> BTreeMap<&str, Vec<&Task>> {
    let mut tasks: BTreeMap<&str, Vec<&Task>> = BTreeMap::new();
    for task in view.tasks() {
        if let Some(app) = task.info.labels.get(APP) {
            tasks.entry(app).or_default().push(task);
        }
    }
    tasks
}

impl Planner {
    /// Tasks of apps that are no more, such as those that were out of reach when their app was removed.
    fn end_orphans(&mut self, tasks: &BTreeMap<&str, Vec<&Task>>, actions: &mut Actions) {
        let orphans = tasks.iter().filter(|(app, _)| !self.apps.contains_key(**app));
        for task in orphans.flat_map(|(_, tasks)| tasks) {
            if !task.is_live() {
                if self.accounted.insert(task.id().clone()) {
                    actions.forget(task.id().clone());
                }
            } else if !task.killing && task.state() != TaskState::Unreachable {
                actions.kill(task.id().clone());
            }
        }
    }

    /// Looks at one app: accounts for what ended, moves its deployment on, stops what is to be stopped, and says what is missing.
    fn step<'a>(
        &mut self,
        id: &AppId,
        tasks: &[&'a Task],
        view: &View,
        actions: &mut Actions,
    ) -> Option<Want<'a>> {
        let app = self.apps.get_mut(id)?;
        let memory = self.memory.entry(id.clone()).or_default();
        let mut dirty = false;
        for task in tasks.iter().filter(|task| !task.is_live()) {
            if self.accounted.insert(task.id().clone()) {
                dirty |= account(app, memory, task, view.now());
                actions.forget(task.id().clone());
            }
        }
        watch_health(memory, tasks, view.now());
        let mut members = census(app, tasks, memory, view);
        if advance(app, &members, view) {
            dirty = true;
            members = census(app, tasks, memory, view);
        }
        let decision = decide(&members, bounds(app));
        if view.connected() {
            withdraw(app, memory, &members, &decision.stop, view.now());
        }
        stop_due(memory, tasks, view.now(), actions);
        set_alarms(app, memory, &members, view.now(), actions);
        if app.removing() && members.iter().all(|member| member.standing == Standing::Lost) {
            self.apps.remove(id);
            self.memory.remove(id);
            actions.delete(format!("{APPS}{id}"));
            return None;
        }
        dirty |= app.prune(|version| members.iter().any(|member| member.version == version));
        if dirty {
            save(app, actions);
        }
        Want::of(app, &members, decision.launch, view.now())
    }
}

/// What the app wants now, in numbers.
fn bounds(app: &App) -> Bounds {
    let instances = if app.removing() { 0 } else { app.spec.instances };
    Bounds {
        instances,
        min_healthy: app.policy().min_healthy(instances),
        max_total: app.policy().max_total(instances),
        stable: app.stable,
    }
}

/// Remembers how a task ended. Says whether the app changed by it.
fn account(app: &mut App, memory: &mut Memory, task: &Task, now: Timestamp) -> bool {
    let chosen = memory.stopping.remove(task.id()).is_some();
    let status = &task.status;
    // One that was dropped never began, and is simply launched again.
    let asked_for = status.state == TaskState::Killed && status.reason == Reason::KillRequested;
    if chosen || asked_for || status.state == TaskState::Dropped {
        return false;
    }
    let end = Termination {
        task: task.id().clone(),
        instance: label(task, census::INSTANCE),
        version: label(task, census::VERSION),
        hostname: task.hostname.clone(),
        state: status.state,
        reason: status.reason,
        message: status.message.clone(),
        exit: status.container.exit,
        at: status.time,
    };
    app.ended(task, end, is_own_fault(task), now);
    true
}

/// Whether a task that ended would likely do so again. One that ended well counts too: a service is not meant to end. So does one
/// that ended with its companion.
fn is_own_fault(task: &Task) -> bool {
    use Reason::{
        AgentDrained, AgentGone, AgentRestarted, FrameworkRemoved, GangBroken, KillRequested, Preempted,
        Revoked, StatusLost,
    };
    let others = matches!(
        task.status.reason,
        AgentDrained
            | AgentGone
            | AgentRestarted
            | FrameworkRemoved
            | GangBroken
            | KillRequested
            | Preempted
            | Revoked
            | StatusLost
    );
    let state = task.state();
    let by_companion = task.status.reason == Reason::GroupEnded;
    by_companion || matches!(state, TaskState::Failed | TaskState::Finished | TaskState::Error) && !others
}

fn watch_health(memory: &mut Memory, tasks: &[&Task], now: Timestamp) {
    let healthy: BTreeSet<&TaskId> = tasks.iter().filter(|t| t.is_healthy()).map(|t| t.id()).collect();
    memory.healthy_since.retain(|id, _| healthy.contains(id));
    for id in healthy {
        memory.healthy_since.entry(id.clone()).or_insert(now);
    }
    let live: BTreeSet<&TaskId> = tasks.iter().filter(|t| t.is_live()).map(|t| t.id()).collect();
    memory.stopping.retain(|id, _| live.contains(id));
}

/// Moves the app's deployment on. Says whether it changed.
fn advance(app: &mut App, members: &[Member<'_>], view: &View) -> bool {
    let reachable = members.iter().filter(|member| member.standing != Standing::Lost);
    let good = |member: &&Member<'_>| member.standing == Standing::Keep && member.available;
    let (all, available) = (reachable.clone().count(), reachable.filter(good).count());
    let complete = all == available && available == app.spec.instances as usize;
    let available = u32::try_from(available).unwrap_or(u32::MAX);
    let waiting = || launch::waiting(app, members, view);
    let waiting = if app.past_deadline(view.now()) { waiting() } else { None };
    app.advance(available, complete, view.connected(), waiting, view.now())
}

/// Takes instances off the endpoints. Those that were not on them can be told to stop at once.
fn withdraw(app: &App, memory: &mut Memory, members: &[Member<'_>], stop: &[TaskId], now: Timestamp) {
    for member in members.iter().filter(|member| stop.contains(member.task.id())) {
        let published = member.healthy && !member.task.info.ports.is_empty();
        let at = if published { now + app.policy().drain } else { now };
        memory.stopping.insert(member.task.id().clone(), at);
    }
}

/// Tells those to stop whose time has come.
fn stop_due(memory: &Memory, tasks: &[&Task], now: Timestamp, actions: &mut Actions) {
    for task in tasks.iter().filter(|task| task.is_live() && !task.killing) {
        match memory.stopping.get(task.id()) {
            Some(at) if *at <= now => actions.kill(task.id().clone()),
            Some(at) => actions.wake_at(*at),
            None => {}
        }
    }
}

/// Asks to be called when time alone changes something.
fn set_alarms(app: &App, memory: &Memory, members: &[Member<'_>], now: Timestamp, actions: &mut Actions) {
    let running = app.rollout.state == DeploymentState::Running && app.rollout.kind != DeploymentKind::Remove;
    if running && app.deadline() > now {
        actions.wake_at(app.deadline());
    }
    if let Some(until) = app.backoff_until(app.growing(), now) {
        actions.wake_at(until);
    }
    let moving =
        app.rollout.state != DeploymentState::Succeeded || members.iter().any(|m| m.leaving.is_some());
    for member in members {
        let unproven = member.healthy && !member.available && moving;
        if let Some(since) = memory.healthy_since.get(member.task.id()).filter(|_| unproven) {
            actions.wake_at(*since + app.policy().min_healthy_time);
        }
        if let Some(Leaving { deadline: Some(deadline), due: false }) = member.leaving {
            let left = deadline.since(now).saturating_sub(last_call(app));
            actions.wake_at(now + left);
        }
        if member.unreachable()
            && let Some(left) = waited_for(app, member.task, now)
        {
            actions.wake_at(now + left);
        }
    }
}

/// Makes an app durable.
fn save(app: &App, actions: &mut Actions) {
    match serde_json::to_vec(app) {
        Ok(record) => actions.put(format!("{APPS}{}", app.id()), record),
        Err(error) => tracing::error!(app = %app.id(), %error, "an app cannot be written as JSON"),
    }
}
