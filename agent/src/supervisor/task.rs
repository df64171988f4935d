//! One task from its launch until it is forgotten: which step it is at, and what each event makes of it.

mod birth;
mod company;

use core::net::IpAddr;
use std::time::Duration;

use divvy_proto::Bytes;
use divvy_proto::agent::AgentMessage;
use divvy_proto::ids::UpdateId;
use divvy_proto::task::{AgentTask, ExitStatus, Reason, TaskState, TaskStatus};
use divvy_proto::time::Timestamp;

use super::health::{Health, Verdict};
use super::input::{LiveTask, TaskKey, Token};
use super::outcome::{self, Outcome};
use super::record::{Kill, KillCause, TaskRecord};
use super::{Effect, Record, Turn, environment, group};
use crate::container::Exited;
use crate::image::Image;

/// What SIGKILL is called in an exit status.
const SIGKILL: i32 = 9;

#[derive(Debug)]
pub(super) struct Task {
    record: TaskRecord,
    phase: Phase,
    /// It may start once another task's container is gone, whose resources the master counts as free already.
    waits: bool,
    /// The latest checkpoint of the record, while it is not yet on disk. Whatever depends on the record waits for it.
    unwritten: Option<Token>,
    /// When the first unacknowledged update is to be sent again, if it was sent on this stream.
    in_flight: Option<Retry>,
    /// Set once SIGTERM was asked for: when patience ends.
    kill_at: Option<Timestamp>,
    health: Health,
    /// What its container will be made of, from the preparation to the launch.
    image: Option<Image>,
    /// Until when the other tasks of its group have to be here, if some are not.
    company_by: Option<Timestamp>,
    /// Its container stays until those of its group that use its network are gone.
    held: bool,
}

/// See the picture in the module above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Admitted,
    Preparing,
    /// Of a group only: it waits for the others.
    Prepared,
    Launching,
    Running,
    Ended,
    Destroying,
    Done,
    Forgotten,
}

#[derive(Debug, Clone, Copy)]
struct Retry {
    at: Timestamp,
    pause: Duration,
}

/// Whether a task that was launched may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Admission {
    Now,
    /// When there is room.
    Later,
    Refused(Outcome),
}

impl TaskRecord {
    fn abandoned(&self) -> bool {
        self.kill.as_ref().is_some_and(|kill| kill.cause.abandons())
    }

    /// Whether the master takes it to be gone with the agent that this one was.
    pub(super) fn is_gone(&self) -> bool {
        self.kill.as_ref().is_some_and(|kill| kill.cause == KillCause::AgentGone)
    }
}

/// What can be asked of a task.
impl Task {
    pub(super) const fn record(&self) -> &TaskRecord {
        &self.record
    }

    /// Whether the task has, or will soon have, a container.
    pub(super) fn has_container(&self) -> bool {
        !matches!(self.phase, Phase::Done | Phase::Forgotten)
    }

    /// Whether the task's resources are, or may be, in use.
    pub(super) fn holds_resources(&self) -> bool {
        self.has_container() && !self.waits
    }

    /// Whether the task has a right to its resources: the master may count those of a task that is to end as free.
    pub(super) fn owns_resources(&self) -> bool {
        self.has_container() && self.record.kill.is_none()
    }

    pub(super) const fn waits(&self) -> bool {
        self.waits
    }

    /// The task as the master is told of it at registration. An end is not told before the container is gone: a master that
    /// heard of it would count its resources as free.
    pub(super) fn to_agent_task(&self) -> AgentTask {
        let mut status = self.record.latest.clone();
        if status.state.is_terminal() && self.has_container() {
            // Not RUNNING, whoever ended it: a framework would count on it and give up what has taken its place.
            status.state = match self.record.running_since {
                Some(_) => TaskState::Killing,
                None => TaskState::Starting,
            };
            status.message = "its container is being removed".to_owned();
            status.update_id = None;
        }
        AgentTask {
            framework_id: self.record.framework_id.clone(),
            info: self.record.info.clone(),
            allocation: self.record.allocation.clone(),
            status,
        }
    }

    pub(super) fn is_forgotten(&self) -> bool {
        self.phase == Phase::Forgotten
    }

    /// The checkpoint that the task waits for.
    pub(super) const fn unwritten(&self) -> Option<Token> {
        self.unwritten
    }

    pub(super) fn to_live_task(&self) -> LiveTask {
        LiveTask { container: self.record.container.clone(), running_since: self.record.running_since }
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let kill_at = self.kill_at.filter(|_| self.phase == Phase::Running);
        let company_by = self.company_by.filter(|_| self.phase < Phase::Launching);
        let kill_at = kill_at.or(company_by);
        kill_at.into_iter().chain(self.in_flight.map(|retry| retry.at)).min()
    }
}

/// What its container does.
impl Task {
    pub(super) fn prepared(&mut self, turn: &mut Turn<'_>, image: Option<Image>) {
        if self.phase == Phase::Preparing {
            self.phase = Phase::Prepared;
            self.record.latest.container.image = image.as_ref().map(|image| image.digest.clone());
            self.record.stop_signal = environment::stop_signal(&self.record.info, image.as_ref());
            self.image = image;
            if !self.is_of_group() {
                self.start(turn, None, Vec::new());
            }
        }
    }

    /// The sandbox, an artifact or the container could not be made.
    pub(super) fn not_started(&mut self, turn: &mut Turn<'_>, reason: Reason, message: String) {
        match self.phase {
            Phase::Preparing | Phase::Launching if self.record.kill.is_some() => self.end_unstarted(turn),
            Phase::Preparing | Phase::Launching => self.end(turn, (TaskState::Failed, reason, message)),
            _ => {}
        }
    }

    pub(super) fn launched(&mut self, turn: &mut Turn<'_>, pid: u32, addresses: Vec<IpAddr>) {
        if self.phase != Phase::Launching {
            return;
        }
        self.record.latest.container.pid = Some(pid);
        self.record.latest.container.addresses = addresses;
        if self.record.kill.is_some() {
            self.end_unstarted(turn);
            return;
        }
        self.phase = Phase::Running;
        self.record.running_since = Some(turn.now);
        let message = format!("the process runs as {pid}");
        self.say(turn, (TaskState::Running, Reason::CommandExited, message));
        self.save(turn);
        turn.effects.push(Effect::Watch(self.record.container.clone()));
        self.start_health(turn);
    }

    pub(super) fn exited(&mut self, turn: &mut Turn<'_>, exited: &Exited) {
        if self.phase != Phase::Running {
            return; // its end has been written down already
        }
        let container = &mut self.record.latest.container;
        container.exit = exited.status;
        container.memory_limit = exited.oom.map(|oom| oom.limit);
        container.memory_peak = exited.oom.map(|oom| oom.peak);
        let outcome = outcome::of_exit(self.record.kill.as_ref(), exited);
        self.end_at(turn, exited.at.min(turn.now), outcome);
    }

    pub(super) fn destroyed(&mut self, turn: &mut Turn<'_>) {
        if self.phase != Phase::Destroying {
            return;
        }
        self.phase = Phase::Done;
        if self.record.abandoned() {
            // Once, so that a master that listens frees the resources; one that does not learns it at the registration.
            if !self.record.is_gone() {
                self.send(turn, self.record.latest.clone());
            }
            self.phase = Phase::Forgotten;
        }
        self.send_first(turn);
        self.tell_ended(turn);
    }

    /// There is no grace: in it, it would write on.
    pub(super) fn wrote_too_much(&mut self, turn: &mut Turn<'_>, limit: Bytes, used: Bytes) {
        if self.phase == Phase::Running {
            self.record.latest.container.disk_limit = Some(limit);
            self.kill(turn, KillCause::DiskLimit { limit, used }, Some(Duration::ZERO));
        }
    }

    pub(super) fn probed(&mut self, turn: &mut Turn<'_>, index: usize, result: Result<(), String>) {
        let (Some(since), Some(check)) = (self.record.running_since, self.record.info.health.get(index))
        else {
            return;
        };
        if self.phase != Phase::Running || self.record.kill.is_some() {
            return;
        }
        match self.health.judge(turn.now, since, (index, check), result.clone()) {
            Verdict::Healthy(healthy) if self.record.latest.healthy != Some(healthy) => {
                self.record.latest.healthy = Some(healthy);
                let message = match result {
                    Ok(()) => "all health checks pass".to_owned(),
                    Err(how) => format!("a health check fails: {how}"),
                };
                self.say(turn, (TaskState::Running, Reason::HealthChanged, message));
                self.save(turn);
            }
            Verdict::Dead(how) => {
                self.record.latest.healthy = Some(false);
                self.kill(turn, KillCause::Unhealthy(how), None);
            }
            Verdict::Healthy(_) | Verdict::Unknown => {}
        }
    }
}

/// What the master and time do to it.
impl Task {
    /// SIGTERM, then after the grace SIGKILL to all of the container; or no start at all, if it is not too late for that.
    pub(super) fn kill(&mut self, turn: &mut Turn<'_>, cause: KillCause, grace: Option<Duration>) {
        let grace = grace.or(self.record.info.kill_grace).unwrap_or(turn.config.kill_grace);
        match self.phase {
            Phase::Forgotten => {}
            Phase::Done if cause.abandons() => self.phase = Phase::Forgotten,
            _ if self.record.kill.is_some() => self.kill_again(turn, cause, grace),
            Phase::Ended | Phase::Destroying | Phase::Done => {
                if cause.abandons() {
                    self.order(cause, grace);
                }
            }
            Phase::Admitted | Phase::Preparing | Phase::Prepared => {
                if self.phase == Phase::Preparing {
                    turn.effects.push(Effect::CancelPrepare(self.record.container.clone()));
                }
                self.order(cause, grace);
                self.end_unstarted(turn);
            }
            Phase::Launching => {
                self.order(cause, grace);
                self.save(turn);
            }
            Phase::Running => {
                self.stop_health(turn);
                let (reason, message) = outcome::of_order(&cause, grace);
                self.order(cause, grace);
                self.say(turn, (TaskState::Killing, reason, message));
                self.save(turn);
            }
        }
    }

    /// From here on the task is to end. Where its framework is no more, what nobody has acknowledged is void.
    fn order(&mut self, cause: KillCause, grace: Duration) {
        self.record.kill = Some(Kill { cause, grace });
        if self.record.abandoned() {
            self.record.unacknowledged.clear();
            self.in_flight = None;
        }
    }

    /// A second kill can only be less patient, or tell that nobody waits for updates any more.
    fn kill_again(&mut self, turn: &mut Turn<'_>, cause: KillCause, grace: Duration) {
        let Some(before) = self.record.kill.clone() else { return };
        let grace = grace.min(before.grace);
        self.order(if cause.abandons() { cause } else { before.cause.clone() }, grace);
        self.kill_at = self.kill_at.map(|at| at.min(turn.now + grace));
        if self.record.kill.as_ref() != Some(&before) && self.phase < Phase::Ended {
            self.save(turn);
        }
    }

    /// Only the update in flight can be acknowledged; anything else is an echo.
    pub(super) fn acknowledged(&mut self, turn: &mut Turn<'_>, update_id: &UpdateId) {
        let first = self.record.unacknowledged.front();
        let Some(terminal) = first
            .filter(|first| first.update_id.as_ref() == Some(update_id))
            .map(|first| first.state.is_terminal())
        else {
            return;
        };
        if terminal && self.phase != Phase::Done {
            return; // it was sent by an earlier process; the container may still be there, so it is sent again
        }
        self.record.unacknowledged.pop_front();
        self.in_flight = None;
        if self.record.latest.update_id.as_ref() == Some(update_id) {
            self.record.latest.update_id = None;
        }
        if terminal {
            self.phase = Phase::Forgotten;
        } else if !self.record.unacknowledged.is_empty() {
            // Written before the next is sent: after a crash the two must not come in the wrong order. Where there is no next,
            // a crash only repeats the latest, and that is harmless.
            self.save(turn);
        }
    }

    /// The task was launched again: say how it is.
    pub(super) fn repeat(&mut self, turn: &mut Turn<'_>) {
        match self.record.unacknowledged.front().cloned() {
            Some(first) if self.in_flight.is_some() => self.send(turn, first),
            Some(_) => self.send_first(turn),
            None => self.send(turn, self.record.latest.clone()),
        }
    }

    pub(super) fn checkpointed(&mut self, turn: &mut Turn<'_>, token: Token) {
        if self.unwritten == Some(token) {
            self.unwritten = None;
            self.proceed(turn);
        }
    }

    /// There is room for it now.
    pub(super) fn admit(&mut self, turn: &mut Turn<'_>) {
        self.waits = false;
        if self.unwritten.is_none() {
            self.proceed(turn);
        }
    }

    pub(super) fn link_lost(&mut self) {
        self.in_flight = None;
    }

    pub(super) fn tick(&mut self, turn: &mut Turn<'_>) {
        if self.phase == Phase::Running
            && let Some(kill) = self.record.kill.clone()
            && self.kill_at.is_some_and(|at| at <= turn.now)
        {
            // Whatever its first process does by then: SIGKILL to the whole container is what comes.
            self.record.latest.container.exit = Some(ExitStatus::Signal(SIGKILL));
            self.end(turn, outcome::of_force(&kill));
        }
        if self.phase < Phase::Launching && self.company_by.is_some_and(|at| at <= turn.now) {
            let waited = humantime::format_duration(group::PATIENCE);
            let why = format!("the other tasks of its group did not come within {waited}");
            self.kill(turn, KillCause::GroupEnded(why), None);
        }
        if let (Some(retry), Some(first)) = (self.in_flight, self.record.unacknowledged.front())
            && retry.at <= turn.now
        {
            self.send(turn, first.clone());
            let pause = retry.pause.saturating_mul(2).min(turn.config.retry_longest);
            self.in_flight = Some(Retry { at: turn.now + pause, pause });
        }
    }

    /// Sends the first unacknowledged update if that is not in flight, is on disk, and is due.
    pub(super) fn send_first(&mut self, turn: &mut Turn<'_>) {
        let Some(first) = self.record.unacknowledged.front() else { return };
        let due = !first.state.is_terminal() || self.phase == Phase::Done;
        if turn.link.is_some() && self.unwritten.is_none() && self.in_flight.is_none() && due {
            self.send(turn, first.clone());
            let pause = turn.config.retry_first;
            self.in_flight = Some(Retry { at: turn.now + pause, pause });
        }
    }
}

impl Task {
    /// Says that the task holds nothing any more, if updates from before its end wait for an acknowledgement: its framework may
    /// be away for long. Once for each stream is enough.
    pub(super) fn tell_ended(&self, turn: &mut Turn<'_>) {
        let waits = self.record.unacknowledged.front().is_some_and(|first| !first.state.is_terminal());
        if let Some(link) = turn.link
            && self.phase == Phase::Done
            && waits
        {
            let TaskKey { framework_id, task_id } = self.record.key();
            turn.effects.push(Effect::Send { link, message: AgentMessage::Ended { framework_id, task_id } });
        }
    }

    /// Does what the record, now on disk, allows.
    fn proceed(&mut self, turn: &mut Turn<'_>) {
        let container = self.record.container.clone();
        match self.phase {
            Phase::Admitted if self.waits => {}
            Phase::Admitted => {
                self.phase = Phase::Preparing;
                let artifacts = self.record.info.artifacts.clone();
                let (task, user) = (self.record.key(), environment::user(turn, &self.record));
                let image = self.record.info.container.as_ref().and_then(|container| container.image.clone());
                turn.effects.push(Effect::Prepare { container, task, user, artifacts, image });
            }
            Phase::Running => {
                if let (Some(kill), None) = (&self.record.kill, self.kill_at) {
                    self.kill_at = Some(turn.now + kill.grace);
                    turn.effects.push(Effect::Terminate { container, signal: self.record.stop_signal });
                }
            }
            Phase::Ended if self.held => {}
            Phase::Ended => {
                self.phase = Phase::Destroying;
                turn.effects.push(Effect::Destroy(container));
            }
            Phase::Preparing
            | Phase::Prepared
            | Phase::Launching
            | Phase::Destroying
            | Phase::Done
            | Phase::Forgotten => {}
        }
        self.send_first(turn);
    }

    fn end_unstarted(&mut self, turn: &mut Turn<'_>) {
        let outcome = outcome::of_unstarted(self.record.kill.as_ref());
        self.end(turn, outcome);
    }

    /// Writes down how the task ended. Once that is on disk the container is destroyed, and then the world is told.
    fn end_at(&mut self, turn: &mut Turn<'_>, at: Timestamp, outcome: Outcome) {
        if self.phase == Phase::Running && self.record.kill.is_none() {
            self.stop_health(turn);
        }
        self.phase = Phase::Ended;
        self.kill_at = None;
        self.say_at(turn, at, outcome);
        self.save(turn);
    }

    fn end(&mut self, turn: &mut Turn<'_>, outcome: Outcome) {
        self.end_at(turn, turn.now, outcome);
    }

    fn say(&mut self, turn: &mut Turn<'_>, outcome: Outcome) {
        self.say_at(turn, turn.now, outcome);
    }

    /// Adds a status to what is to be sent.
    fn say_at(&mut self, turn: &mut Turn<'_>, time: Timestamp, (state, reason, message): Outcome) {
        let update_id = turn.ids.update(turn.config);
        let latest = &mut self.record.latest;
        *latest = TaskStatus {
            agent_id: turn.agent_id.cloned(),
            state,
            reason,
            message,
            time,
            update_id,
            ..latest.clone()
        };
        let latest = latest.clone();
        if self.record.abandoned() {
            return;
        }
        let queue = &mut self.record.unacknowledged;
        let superseded = |last: &TaskStatus| last.state == TaskState::Running && state == TaskState::Running;
        if queue.len() > 1 && queue.back().is_some_and(superseded) {
            queue.pop_back(); // health that changes and changes back while nobody listens must not pile up
        }
        queue.push_back(latest);
    }

    fn save(&mut self, turn: &mut Turn<'_>) {
        let token = turn.ids.token();
        self.unwritten = Some(token);
        turn.effects.push(Effect::Checkpoint { token, record: Record::Task(self.record.clone()) });
    }

    fn send(&self, turn: &mut Turn<'_>, status: TaskStatus) {
        if let Some(link) = turn.link {
            let framework_id = self.record.framework_id.clone();
            turn.effects.push(Effect::Send { link, message: AgentMessage::Update { framework_id, status } });
        }
    }

    fn start_health(&self, turn: &mut Turn<'_>) {
        if !self.record.info.health.is_empty() {
            let (container, checks) = (self.record.container.clone(), environment::checks(&self.record.info));
            turn.effects.push(Effect::StartHealth { container, checks });
        }
    }

    fn stop_health(&self, turn: &mut Turn<'_>) {
        if !self.record.info.health.is_empty() {
            turn.effects.push(Effect::StopHealth(self.record.container.clone()));
        }
    }
}
