//! What is said of an app to whoever asks.

use divvy_sdk::proto::task::TaskState;
use divvy_sdk::rest::Waiting;
use divvy_sdk::{Task, View};

use super::app::{App, cause};
use super::census::{APP, Member, Memory, Standing, census};
use super::launch::waiting;
use super::spec::AppId;
use super::{Planner, bounds};
use crate::api_types::{AppState, AppStatus, Deployment, DeploymentState, Endpoint, Instance};

impl Planner {
    /// Where all apps stand, without their histories.
    #[must_use]
    pub fn list(&self, view: &View) -> Vec<AppStatus> {
        let mut tasks = super::by_app(view);
        let statuses = self.apps.values().map(|app| {
            let own = tasks.remove(app.id().as_str()).unwrap_or_default();
            AppStatus { history: Vec::new(), ..self.status_of(app, &own, view) }
        });
        statuses.collect()
    }

    /// The apps that wait for something.
    #[must_use]
    pub fn waiting(&self, view: &View) -> Vec<Waiting> {
        let (mut tasks, nothing) = (super::by_app(view), Memory::default());
        let why = self.apps.values().filter_map(|app| {
            let own = tasks.remove(app.id().as_str()).unwrap_or_default();
            let memory = self.memory.get(app.id()).unwrap_or(&nothing);
            let why = waiting(app, &census(app, &own, memory, view), view)?;
            Some(Waiting { id: app.id().to_string(), waiting: vec![why] })
        });
        why.collect()
    }

    /// Where an app stands, if there is one of this name.
    #[must_use]
    pub fn status(&self, id: &AppId, view: &View) -> Option<AppStatus> {
        let app = self.apps.get(id)?;
        Some(self.status_of(app, &tasks_of(id, view), view))
    }

    /// Where an app can be reached, if there is one of this name. Tasks on agents that are not in the view's inventory are left
    /// out: after a start, wait for the inventory before telling others.
    #[must_use]
    pub fn endpoints(&self, id: &AppId, view: &View) -> Option<Vec<Endpoint>> {
        let app = self.apps.get(id)?;
        let members = census(app, &tasks_of(id, view), self.memory.get(id)?, view);
        Some(endpoints(&members, view))
    }

    fn status_of(&self, app: &App, tasks: &[&Task], view: &View) -> AppStatus {
        let nothing = Memory::default();
        let memory = self.memory.get(app.id()).unwrap_or(&nothing);
        let members = census(app, tasks, memory, view);
        let healthy = count(&members, |member| member.healthy);
        let waiting = waiting(app, &members, view);
        let state = state(app, healthy);
        AppStatus {
            id: app.id().to_string(),
            version: app.version,
            state,
            reason: reason(app, state, healthy, waiting.as_ref()),
            instances: bounds(app).instances,
            running: count(&members, |member| member.task.state() == TaskState::Running),
            healthy,
            deployment: deployment(app, &members),
            endpoints: endpoints(&members, view),
            tasks: members.iter().map(instance).collect(),
            waiting,
            last_failure: app.history.front().cloned(),
            history: app.history.iter().cloned().collect(),
        }
    }
}

fn tasks_of<'a>(id: &AppId, view: &'a View) -> Vec<&'a Task> {
    view.tasks().filter(|task| task.info.labels.get(APP).is_some_and(|app| app == id.as_str())).collect()
}

fn count(members: &[Member<'_>], is: impl Fn(&Member<'_>) -> bool) -> u32 {
    u32::try_from(members.iter().filter(|member| is(member)).count()).unwrap_or(u32::MAX)
}

fn state(app: &App, healthy: u32) -> AppState {
    match app.rollout.state {
        DeploymentState::Running => AppState::Deploying,
        DeploymentState::Failed => AppState::Failed,
        DeploymentState::Succeeded if healthy >= app.spec.instances => AppState::Running,
        DeploymentState::Succeeded => AppState::Degraded,
    }
}

fn reason(app: &App, state: AppState, healthy: u32, waiting: Option<&String>) -> Option<String> {
    let short = || {
        let last = app.history.front().map(|end| format!("; {} ended: {}", end.task, cause(end)));
        format!("{healthy} of {} healthy{}", app.spec.instances, last.unwrap_or_default())
    };
    match state {
        AppState::Running => None,
        AppState::Failed => app.rollout.reason.clone(),
        AppState::Deploying if app.removing() => Some("being removed".to_owned()),
        AppState::Deploying => waiting.cloned(),
        AppState::Degraded => Some(waiting.cloned().unwrap_or_else(short)),
    }
}

fn deployment(app: &App, members: &[Member<'_>]) -> Deployment {
    let current = |member: &Member<'_>| app.same(member.version, app.version);
    let there = |member: &Member<'_>| member.standing != Standing::Lost;
    Deployment {
        kind: app.rollout.kind,
        version: app.version,
        state: app.rollout.state,
        reason: app.rollout.reason.clone(),
        updated: count(members, |member| current(member) && member.available),
        outdated: count(members, |member| !current(member) && there(member)),
        started_at: app.rollout.started_at,
        ended_at: app.rollout.ended_at,
    }
}

fn endpoints(members: &[Member<'_>], view: &View) -> Vec<Endpoint> {
    members.iter().filter(|member| member.healthy).filter_map(|member| endpoint(member.task, view)).collect()
}

/// The endpoint of a task with ports. An agent without an address is reached by its name.
fn endpoint(task: &Task, view: &View) -> Option<Endpoint> {
    let first = task.info.ports.first()?.number;
    let address = &view.agent(&task.agent_id)?.address;
    let host = if address.is_empty() { task.hostname.to_string() } else { address.clone() };
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    Some(Endpoint {
        task: task.id().clone(),
        hostname: task.hostname.clone(),
        address: format!("{bracketed}:{first}"),
        host,
        ports: task.info.ports.iter().map(|port| (port.name.clone(), port.number)).collect(),
        port: first,
    })
}

fn instance(member: &Member<'_>) -> Instance {
    let task = member.task;
    Instance {
        id: task.id().clone(),
        instance: member.instance,
        version: member.version,
        state: task.state(),
        healthy: member.healthy,
        stopping: member.standing == Standing::Stopping,
        agent_id: task.agent_id.clone(),
        hostname: task.hostname.clone(),
        ports: task.info.ports.clone(),
        pid: task.status.container.pid,
        started_at: task.running_since,
        message: task.status.message.clone(),
    }
}
