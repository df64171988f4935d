//! A cluster of the mind for the planner's tests: agents, tasks that behave as told, virtual time. After every look of the
//! planner it checks what must hold at all times.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use divvy_sdk::proto::api;
use divvy_sdk::proto::attributes::Attributes;
use divvy_sdk::proto::demand::Demand;
use divvy_sdk::proto::ids::{AgentId, Hostname, InverseOfferId, OfferId, TaskId};
use divvy_sdk::proto::resources::Resources;
use divvy_sdk::proto::role::RolePath;
use divvy_sdk::proto::scheduler::{InverseOffer, InverseReason, OfferInfo};
use divvy_sdk::proto::task::{
    Command, ContainerStatus, ExitStatus, Reason, Source, TaskInfo, TaskState, TaskStatus,
};
use divvy_sdk::proto::time::Timestamp;
use divvy_sdk::{Accept, Actions, HealthSpec, Offer, ProbeSpec, Scheduler, Task, TaskSpec, View, Write};

use crate::api_types::{AppState, AppStatus, ChangeKind, DeploymentState};
use crate::planner::spec::{AppId, AppSpec};
use crate::planner::{Planner, Refusal, bounds, census};

/// How tasks of one definition behave, keyed by the first word of their command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Behaviour {
    /// From launch to RUNNING.
    pub(super) start: u64,
    /// From RUNNING to passing its health checks; never if absent.
    pub(super) healthy: Option<u64>,
    /// From RUNNING to exit 1.
    pub(super) crash: Option<u64>,
}

pub(super) const GOOD: Behaviour = Behaviour { start: 300, healthy: Some(500), crash: None };

pub(super) struct Machine {
    id: AgentId,
    total: Resources,
    up: bool,
    /// Until when it is emptied, if it is.
    drain: Option<Timestamp>,
}

pub(super) struct World {
    pub(super) planner: Planner,
    pub(super) now: Timestamp,
    pub(super) tasks: BTreeMap<TaskId, Task>,
    pub(super) store: BTreeMap<String, Vec<u8>>,
    pub(super) behaviours: BTreeMap<String, Behaviour>,
    pub(super) kills: Vec<TaskId>,
    machines: Vec<Machine>,
    /// What happens to a task by itself, and when.
    due: BTreeMap<(Timestamp, TaskId), TaskState>,
    offers: u64,
    ids: BTreeSet<TaskId>,
    /// When a task was last seen among the endpoints.
    published: BTreeMap<TaskId, Timestamp>,
    wake_at: Option<Timestamp>,
    /// What the planner last asked for.
    pub(super) demand: BTreeMap<RolePath, Demand>,
}

pub(super) fn id(text: &str) -> AppId {
    text.parse().unwrap()
}

/// An app of three instances of the program `program`, with a port and a health check.
pub(super) fn app(program: &str) -> AppSpec {
    let mut task = TaskSpec::shell(program).port("http");
    let probe = ProbeSpec::Tcp { port: "http".to_owned() };
    let second = Duration::from_secs(1);
    let check = HealthSpec { probe, interval: second, timeout: second, grace: second * 10, failures: 3 };
    task.health.push(check);
    AppSpec::new(id("web"), 3, task)
}

impl World {
    /// So many agents of 10 task slots each.
    pub(super) fn new(agents: usize) -> Self {
        let total: Resources = "cpus=1;mem=8GiB;ports=[31000-31999]".parse().unwrap();
        let machine = |n| Machine {
            id: AgentId::new(format!("agent-{n}")).unwrap(),
            total: total.clone(),
            up: true,
            drain: None,
        };
        Self {
            planner: Planner::new(),
            now: Timestamp(1_000_000),
            tasks: BTreeMap::new(),
            store: BTreeMap::new(),
            behaviours: BTreeMap::new(),
            kills: Vec::new(),
            machines: (1..=agents).map(machine).collect(),
            due: BTreeMap::new(),
            offers: 0,
            ids: BTreeSet::new(),
            published: BTreeMap::new(),
            wake_at: None,
            demand: BTreeMap::new(),
        }
    }

    /// One more agent.
    pub(super) fn add_machine(&mut self) {
        let id = AgentId::new(format!("agent-{}", self.machines.len() + 1)).unwrap();
        let total = self.machines[0].total.clone();
        self.machines.push(Machine { id, total, up: true, drain: None });
    }

    pub(super) fn behave(&mut self, program: &str, behaviour: Behaviour) {
        self.behaviours.insert(program.to_owned(), behaviour);
    }

    pub(super) fn view(&self) -> View {
        let agents = self.machines.iter().map(|machine| self.inventory(machine));
        View::of(self.now, self.tasks.values().cloned(), agents).with_inverse_offers(self.wanted_back())
    }

    /// Empties an agent: what runs there is wanted back, and killed at the deadline.
    pub(super) fn drain(&mut self, machine: usize, time: Duration) {
        self.machines[machine].drain = Some(self.now + time);
        let here = self.tasks_on(machine);
        self.due.extend(here.into_iter().map(|task| ((self.now + time, task), TaskState::Killed)));
    }

    fn wanted_back(&self) -> Vec<InverseOffer> {
        let drained = self.machines.iter().enumerate().filter(|(_, machine)| machine.drain.is_some());
        let offers = drained.map(|(at, machine)| InverseOffer {
            id: InverseOfferId(at as u64),
            agent_id: machine.id.clone(),
            hostname: Hostname::new(&machine.id).unwrap(),
            tasks: self.tasks_on(at),
            resources: Resources::new(),
            deadline: machine.drain,
            reason: InverseReason::Maintenance,
        });
        offers.filter(|offer| !offer.tasks.is_empty()).collect()
    }

    pub(super) fn tasks_on(&self, machine: usize) -> Vec<TaskId> {
        let here = |task: &&Task| task.is_live() && task.agent_id == self.machines[machine].id;
        self.tasks.values().filter(here).map(|task| task.id().clone()).collect()
    }

    /// A drain is so near its end that tasks stop whatever that means for their app.
    fn last_call(&self) -> bool {
        let soon = self.now + Duration::from_secs(3);
        self.machines.iter().any(|machine| machine.drain.is_some_and(|deadline| deadline <= soon))
    }

    fn used(&self, machine: &Machine) -> Resources {
        let here = self.tasks.values().filter(|t| t.is_live() && t.agent_id == machine.id);
        here.fold(Resources::new(), |sum, task| sum.checked_add(&task.info.resources).unwrap())
    }

    fn inventory(&self, machine: &Machine) -> api::Agent {
        let used = self.used(machine);
        api::Agent {
            id: machine.id.clone(),
            hostname: Hostname::new(&machine.id).unwrap(),
            state: if machine.up { api::AgentState::Active } else { api::AgentState::Unreachable },
            resources: api::ResourceUse {
                available: machine.total.saturating_sub(&used),
                total: machine.total.clone(),
                used,
                offered: Resources::new(),
            },
            attributes: Attributes::default(),
            tasks: 0,
            address: "127.0.0.1".to_owned(),
            url: String::new(),
            version: String::new(),
            since: Timestamp(0),
            deactivated: false,
            drain: None,
            maintenance: None,
            reserved: Vec::new(),
            volumes: Vec::new(),
            revocable: Default::default(),
        }
    }

    pub(super) fn make_offers(&mut self) -> Vec<Offer> {
        let mut offers = Vec::new();
        for at in 0..self.machines.len() {
            let machine = &self.machines[at];
            let free = machine.total.saturating_sub(&self.used(machine));
            if machine.up && machine.drain.is_none() && !free.is_empty() {
                self.offers += 1;
                offers.push(Offer::new(OfferInfo {
                    id: OfferId(self.offers),
                    agent_id: machine.id.clone(),
                    hostname: Hostname::new(&machine.id).unwrap(),
                    attributes: Attributes::default(),
                    role: RolePath::default(),
                    resources: free,
                    reserved: Vec::new(),
                    volumes: Vec::new(),
                    revocable: false,
                    unavailable: None,
                    demand: None,
                }));
            }
        }
        offers
    }

    /// Commands as the REST API gives them; what they write is kept.
    pub(super) fn apply(&mut self, spec: AppSpec) -> ChangeKind {
        let (change, actions) = self.planner.apply(spec, None, false, self.now).unwrap();
        self.keep(actions);
        change.change
    }

    pub(super) fn command(
        &mut self,
        command: impl FnOnce(&mut Planner, Timestamp) -> Result<Actions, Refusal>,
    ) {
        let actions = command(&mut self.planner, self.now).unwrap();
        self.keep(actions);
    }

    fn keep(&mut self, actions: Actions) {
        for write in actions.writes {
            match write {
                Write::Put { key, value } => drop(self.store.insert(key, value)),
                Write::Delete { key } => drop(self.store.remove(&key)),
            }
        }
    }

    /// One look of the planner, and what follows from it.
    pub(super) fn look(&mut self) {
        let before = self.view();
        let healthy_before = self.serving();
        let offers = self.make_offers();
        let chosen_before = self.chosen();
        let mut actions = self.planner.reconcile(&before, offers);
        if !self.last_call() {
            self.check_stops(&healthy_before, &before);
            self.check_need(&chosen_before);
        }
        self.demand = actions.demand.clone().unwrap_or_default();
        for task in std::mem::take(&mut actions.forget) {
            assert!(!self.tasks.remove(&task).unwrap().is_live(), "{task} is forgotten while it runs");
        }
        let launched = !actions.accepts.is_empty();
        for kill in &actions.kills {
            self.kill(&kill.task_id);
        }
        for accept in std::mem::take(&mut actions.accepts) {
            self.launch(accept);
        }
        if launched {
            self.check_total();
        }
        self.wake_at = actions.wake_at;
        assert!(self.wake_at.is_none_or(|at| at > self.now), "asks to be called in the past");
        self.keep(actions);
        let view = self.view();
        let apps: Vec<AppId> = self.planner.apps().cloned().collect();
        for endpoint in apps.iter().flat_map(|app| self.planner.endpoints(app, &view).unwrap()) {
            self.published.insert(endpoint.task, self.now);
        }
    }

    /// Healthy tasks that will not be stopped, by app, as the planner sees them.
    fn serving(&self) -> BTreeMap<AppId, BTreeSet<TaskId>> {
        let view = self.view();
        let endpoints = |app: &AppId| {
            let endpoints = self.planner.endpoints(app, &view).unwrap();
            (app.clone(), endpoints.into_iter().map(|endpoint| endpoint.task).collect())
        };
        self.planner.apps().map(endpoints).collect()
    }

    /// The planner's own decisions never take the healthy count below the minimum.
    fn check_stops(&self, before: &BTreeMap<AppId, BTreeSet<TaskId>>, view: &View) {
        let after = self.serving();
        for (id, app) in self.planner.apps.iter().filter(|(_, app)| !app.removing()) {
            let (was, is) = (&before[id], &after[id]);
            let withdrawn: Vec<&TaskId> = was.difference(is).collect();
            let minimum = bounds(app).min_healthy as usize;
            assert!(
                withdrawn.is_empty() || is.len() >= minimum,
                "{withdrawn:?} withdrawn at {}: {} healthy are left, {minimum} are the minimum",
                view.now(),
                is.len()
            );
        }
    }

    /// Tasks that were chosen to be stopped.
    fn chosen(&self) -> BTreeSet<TaskId> {
        self.planner.memory.values().flat_map(|memory| memory.stopping.keys().cloned()).collect()
    }

    /// An instance of the wanted version is stopped only if there are too many, if it is wanted back, or if a failed deployment
    /// gives it up.
    fn check_need(&self, before: &BTreeSet<TaskId>) {
        let after = self.chosen();
        for (id, app) in
            self.planner.apps.iter().filter(|(_, app)| !app.removing() && app.fallback().is_none())
        {
            let wanted = |task: &&Task| {
                let own = task.info.labels[census::APP] == id.as_str();
                let current = app.same(census::label(task, census::VERSION), app.version);
                let back = self.wanted_back().iter().any(|offer| offer.tasks.contains(task.id()));
                own && current && !back && task.is_live() && !task.killing && !before.contains(task.id())
            };
            let wanted: Vec<&TaskId> = self.tasks.values().filter(wanted).map(Task::id).collect();
            let stopped = wanted.iter().filter(|task| after.contains(**task)).count();
            let excess = wanted.len().saturating_sub(app.spec.instances as usize);
            assert!(stopped <= excess, "{stopped} of {wanted:?} are stopped, {excess} are too many");
        }
    }

    /// The planner's own launches never take the number of tasks above the maximum.
    fn check_total(&self) {
        for (id, app) in &self.planner.apps {
            let own = self.tasks.values().filter(|task| task.info.labels[census::APP] == id.as_str());
            let running = own.filter(|t| t.is_live() && t.state() != TaskState::Unreachable).count();
            let most = bounds(app).max_total as usize;
            assert!(running <= most, "{id}: {running} tasks run, {most} are the most");
        }
    }

    fn launch(&mut self, accept: Accept) {
        for launch in accept.launches() {
            let info = launch.task.clone();
            assert!(self.ids.insert(info.id.clone()), "{} is launched twice", info.id);
            let at = self.now + Duration::from_millis(self.behaviour(&info).start);
            self.due.insert((at, info.id.clone()), TaskState::Running);
            let status = self.status(&info.id, TaskState::Staging, Reason::CommandExited, "");
            let task = Task {
                agent_id: launch.agent_id.clone(),
                hostname: launch.hostname.clone(),
                status,
                launched_at: self.now,
                running_since: None,
                killing: false,
                info,
            };
            self.tasks.insert(task.id().clone(), task);
        }
    }

    fn behaviour(&self, info: &TaskInfo) -> Behaviour {
        let Command::Shell(line) = &info.command else { return GOOD };
        self.behaviours.get(line).copied().unwrap_or(GOOD)
    }

    fn status(&self, id: &TaskId, state: TaskState, reason: Reason, message: &str) -> TaskStatus {
        TaskStatus {
            task_id: id.clone(),
            agent_id: None,
            state,
            reason,
            source: Source::Agent,
            message: message.to_owned(),
            time: self.now,
            update_id: None,
            healthy: None,
            container: ContainerStatus::default(),
        }
    }

    /// A task is told to stop only when its endpoint has been withdrawn for the drain time.
    fn kill(&mut self, id: &TaskId) {
        let seen = self.published.get(id).map(|at| self.now.since(*at));
        let task = self.tasks.get_mut(id).unwrap();
        if let Some(seen) = seen.filter(|_| task.is_healthy()) {
            let drain = Duration::from_secs(1);
            assert!(seen >= drain, "{id} is killed {seen:?} after it was an endpoint");
        }
        assert!(!task.killing, "{id} is killed twice");
        task.killing = true;
        self.kills.push(id.clone());
        self.due.insert((self.now + Duration::from_millis(700), id.clone()), TaskState::Killed);
    }

    /// Ends a task with an exit code, from outside.
    pub(super) fn crash(&mut self, id: &TaskId, reason: Reason) {
        let mut status = self.status(id, TaskState::Failed, reason, "exit code 1");
        status.container.exit = Some(ExitStatus::Code(1));
        self.tasks.get_mut(id).unwrap().status = status;
    }

    /// Cuts an agent off, or brings it back with what it runs.
    pub(super) fn reach(&mut self, machine: usize, up: bool) {
        self.machines[machine].up = up;
        let agent = self.machines[machine].id.clone();
        let now = self.now;
        for task in self.tasks.values_mut().filter(|t| t.is_live() && t.agent_id == agent) {
            let (state, reason) = match up {
                true => (TaskState::Running, Reason::AgentReturned),
                false => (TaskState::Unreachable, Reason::AgentUnreachable),
            };
            if up != (task.state() == TaskState::Unreachable) {
                continue;
            }
            task.status = TaskStatus { state, reason, time: now, ..task.status.clone() };
            // What was due while it could not be seen comes to light later.
            self.due.insert((now + Duration::from_millis(50), task.id().clone()), TaskState::Running);
        }
    }

    /// The planner crashes and starts again from its records.
    pub(super) fn restart_planner(&mut self) {
        let records = self.store.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        self.planner = Planner::restore(records).unwrap();
    }

    /// Lets what is due happen, until the time comes or nothing is left to happen.
    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            self.look();
            let next = self.due.keys().next().map(|(at, _)| *at);
            let next = [next, self.wake_at].into_iter().flatten().min().filter(|at| *at <= end);
            let Some(next) = next else { break };
            self.now = next.max(self.now);
            while let Some(((at, id), state)) = self.due.pop_first() {
                if at > self.now {
                    self.due.insert((at, id), state);
                    break;
                }
                self.happen(&id, state);
            }
        }
        self.now = end;
        self.look();
    }

    fn happen(&mut self, id: &TaskId, state: TaskState) {
        let Some(task) = self.tasks.get(id).filter(|t| t.is_live()).cloned() else { return };
        if task.state() == TaskState::Unreachable {
            let later = self.now + Duration::from_millis(500);
            self.due.insert((later, id.clone()), state);
            return;
        }
        let behaviour = self.behaviour(&task.info);
        let after = |millis| self.now + Duration::from_millis(millis);
        let mut status = task.status.clone();
        match state {
            TaskState::Killed => status = self.status(id, state, Reason::KillRequested, "killed"),
            TaskState::Failed => return self.crash(id, Reason::CommandExited),
            // The second RUNNING of a task says that it is healthy now.
            _ if task.running_since.is_some() => status.healthy = Some(true),
            _ => {
                self.due.extend(behaviour.healthy.map(|ms| ((after(ms), id.clone()), TaskState::Running)));
                self.due.extend(behaviour.crash.map(|ms| ((after(ms), id.clone()), TaskState::Failed)));
                status.state = TaskState::Running;
            }
        }
        status.time = self.now;
        let running_since = Some(task.running_since.unwrap_or(self.now));
        self.tasks.insert(id.clone(), Task { status, running_since, ..task });
    }

    pub(super) fn status_of(&self, app: &str) -> Option<AppStatus> {
        self.planner.status(&id(app), &self.view())
    }

    /// State, deployment state, running and healthy of the app `web`, and the tasks by version.
    pub(super) fn summary(&self) -> (AppState, DeploymentState, u32, u32, BTreeMap<u32, usize>) {
        let status = self.status_of("web").unwrap();
        let mut versions = BTreeMap::new();
        for task in status.tasks.iter().filter(|task| !task.stopping) {
            *versions.entry(task.version).or_default() += 1;
        }
        (status.state, status.deployment.state, status.running, status.healthy, versions)
    }
}
