//! Agents that are emptied: drained or deactivated by an operator, or maintained by plan.
//!
//! ```text
//! drain, or a window's lead time begins ──► no offers; tasks are asked back ──► deadline, or the window begins: killed
//!        ──► empty: drained (and gone, if asked) ──► reactivate, or the window ends ──► offered again
//! ```
//!
//! What an operator orders is durable before it is done and answered, and goes on after a failover: an agent that is away at
//! the moment is emptied when it is back. Not here: how tasks are asked back (`inverse`), what gone means (`operator`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use divvy_proto::api::{AgentState, DecisionKind, Drain, MaintenanceWindow, Window};
use divvy_proto::ids::AgentId;
use divvy_proto::scheduler::InverseReason;
use divvy_proto::task::Reason;
use divvy_proto::time::Timestamp;

use super::agents::Agent;
use super::decisions::Decided;
use super::registry::Awaited;
use super::{Effect, Effects, Kernel, RegistryChange, RequestId, TaskKey, Timer};

/// What an operator has ordered of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Orders {
    pub(super) deactivated: bool,
    pub(super) drain: Option<Drain>,
}

/// Why an agent is not offered although it is there, and when it is to be empty.
#[derive(Debug, Clone, Default)]
pub(super) struct Upkeep {
    /// What is durable, and holds.
    pub(super) orders: Orders,
    /// What was last given to the store; the next order builds on it.
    pub(super) given: Orders,
    /// The windows that name it and have not ended, the next first.
    windows: Vec<Window>,
    /// The first of them has begun, with its lead time.
    maintained: bool,
}

impl Upkeep {
    /// Whether it may be offered.
    pub(super) fn is_offered(&self) -> bool {
        !self.orders.deactivated && !self.is_emptied()
    }

    /// Whether its tasks are to end.
    pub(super) fn is_emptied(&self) -> bool {
        self.orders.drain.is_some() || self.maintained
    }

    /// When its tasks are killed, if they are to end.
    fn deadline(&self) -> Option<Timestamp> {
        let drain = self.orders.drain.as_ref().map(|drain| drain.deadline.unwrap_or(drain.since));
        let window = self.windows.first().filter(|_| self.maintained).map(|window| window.start);
        drain.into_iter().chain(window).min()
    }

    /// From when on it is to be maintained, if that is planned.
    pub(super) fn unavailable(&self) -> Option<Timestamp> {
        self.windows.first().map(|window| window.start)
    }

    /// Its present or next window.
    pub(super) fn window(&self) -> Option<&Window> {
        self.windows.first()
    }
}

/// The plan, and which agents something has to be done about.
#[derive(Debug, Clone, Default)]
pub(super) struct Maintenance {
    schedule: Vec<MaintenanceWindow>,
    /// Agents whose tasks are to end and may have changed in this turn.
    due: BTreeSet<AgentId>,
}

fn end(window: &Window) -> Timestamp {
    window.start + window.duration
}

/// When the lead time of a window begins.
fn lead(window: &Window, lead: Duration) -> Timestamp {
    Timestamp(window.start.0.saturating_sub(divvy_proto::time::millis(lead)))
}

/// What operators order.
impl Kernel {
    pub(super) fn drain(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        (within, then_gone): (Option<Duration>, bool),
        request: RequestId,
        out: &mut Effects,
    ) -> Result<(), String> {
        let agent = self.agent_that_stays(id)?;
        let since = agent.upkeep.given.drain.as_ref().map_or(now, |drain| drain.since);
        let drain = Drain { since, deadline: within.map(|within| now + within), then_gone, drained: false };
        let orders = Orders { drain: Some(drain), ..agent.upkeep.given.clone() };
        self.order(id, orders, Some(request), out);
        Ok(())
    }

    pub(super) fn deactivate(
        &mut self,
        id: &AgentId,
        request: RequestId,
        out: &mut Effects,
    ) -> Result<(), String> {
        let agent = self.agent_that_stays(id)?;
        if agent.upkeep.given.deactivated {
            return Err(format!("agent {id} is deactivated already"));
        }
        let orders = Orders { deactivated: true, ..agent.upkeep.given.clone() };
        self.order(id, orders, Some(request), out);
        Ok(())
    }

    pub(super) fn reactivate(
        &mut self,
        id: &AgentId,
        request: RequestId,
        out: &mut Effects,
    ) -> Result<(), String> {
        let upkeep = &self.agent_that_stays(id)?.upkeep;
        if upkeep.given == Orders::default() {
            return Err(match upkeep.windows.first().filter(|_| upkeep.maintained) {
                Some(window) => format!(
                    "agent {id} is neither deactivated nor drained by order; it is under maintenance from {} to {}: change the \
                     schedule to end that",
                    window.start,
                    end(window)
                ),
                None => format!("agent {id} is neither deactivated nor drained"),
            });
        }
        self.order(id, Orders::default(), Some(request), out);
        Ok(())
    }

    fn agent_that_stays(&self, id: &AgentId) -> Result<&Agent, String> {
        let agent = self.agents.get(id).ok_or_else(|| format!("agent {id} is not known"))?;
        match agent.standing == AgentState::Gone || agent.condemned {
            true => Err(format!("agent {id} was declared gone")),
            false => Ok(agent),
        }
    }

    fn order(&mut self, id: &AgentId, orders: Orders, request: Option<RequestId>, out: &mut Effects) {
        let Some(agent) = self.agents.get_mut(id) else { return };
        agent.upkeep.given = orders.clone();
        let (deactivated, drain) = (orders.deactivated, orders.drain.clone());
        let change = RegistryChange::PutDrain { agent: id.clone(), deactivated, drain };
        self.persist(change, Some(Awaited::Ordered(id.clone(), orders, request)), out);
    }

    /// The store has the order.
    pub(super) fn ordered(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        orders: Orders,
        request: Option<RequestId>,
        out: &mut Effects,
    ) {
        let result = match self.agent_that_stays(id) {
            Ok(_) => Ok(()),
            Err(why) => Err(format!("{why} meanwhile")),
        };
        if result.is_ok() {
            self.obey(now, id, orders, out);
        }
        out.extend(request.map(|request| Effect::Answer { request, result }));
    }

    fn obey(&mut self, now: Timestamp, id: &AgentId, orders: Orders, out: &mut Effects) {
        let Some(agent) = self.agents.get_mut(id) else { return };
        let before = std::mem::replace(&mut agent.upkeep.orders, orders.clone());
        self.changes.agent(id);
        self.upkeep_changed(now, id, out);
        let Some(drain) = orders.drain else { return };
        let (was_drained, was_asked) = match &before.drain {
            Some(before) => (before.drained, before.deadline == drain.deadline),
            None => (false, false),
        };
        if drain.drained && !was_drained {
            let then = if drain.then_gone { ", and it is declared gone, as was asked" } else { "" };
            self.decide_on_agent(
                now,
                id,
                DecisionKind::Drained,
                format!("nothing runs on it any more{then}"),
            );
            if drain.then_gone {
                self.condemn_drained(now, id, out);
            }
        } else if !drain.drained && !was_asked {
            let tasks = self.running_tasks_of(id).len();
            let how = match drain.deadline {
                Some(deadline) => format!("asked back; they are killed at {deadline}"),
                None => "killed at once".to_owned(),
            };
            let why =
                format!("an operator drains it: it is not offered, and its tasks ({tasks} known) are {how}");
            self.decide_on_agent(now, id, DecisionKind::Draining, why);
        }
    }

    fn decide_on_agent(&mut self, now: Timestamp, id: &AgentId, what: DecisionKind, why: String) {
        let tasks = self.running_tasks_of(id).into_iter().map(|(_, task)| task).collect();
        let decided = Decided { agent_id: Some(id.clone()), tasks, ..Decided::new(what, why) };
        self.decide(now, decided);
    }

    /// Takes over an agent's record. Its tasks are looked at when it is back.
    pub(super) fn recover_orders(&mut self, id: &AgentId, orders: Orders) {
        if let Some(agent) = self.agents.get_mut(id).filter(|agent| agent.standing != AgentState::Gone) {
            agent.upkeep.orders = orders.clone();
            agent.upkeep.given = orders;
        }
    }
}

/// What follows from it.
impl Kernel {
    /// The agent is, or is no longer, to be offered or emptied, or by another time.
    fn upkeep_changed(&mut self, now: Timestamp, id: &AgentId, out: &mut Effects) {
        let Some(agent) = self.agents.get(id) else { return };
        let (standing, deadline, is_offered) =
            (agent.standing, agent.upkeep.deadline(), agent.upkeep.is_offered());
        self.set_standing(now, id, standing);
        if !is_offered {
            self.rescind_agent(id, out);
        }
        let tasks = self.agents.get(id).into_iter().flat_map(|agent| &agent.tasks);
        let is_stale = |key: &TaskKey| {
            let inverse = self.inverse.of(key).map(|(_, inverse)| inverse);
            inverse.is_some_and(|i| i.reason == InverseReason::Maintenance && Some(i.deadline) != deadline)
        };
        if tasks.into_iter().any(is_stale) {
            self.withdraw_all(id, &InverseReason::Maintenance);
        }
        self.upkeep_due(id);
    }

    /// Something may have to be done about an agent's tasks at the end of this turn.
    pub(super) fn upkeep_due(&mut self, id: &AgentId) {
        if self.agents.get(id).is_some_and(|agent| agent.upkeep.is_emptied()) {
            self.maintenance.due.insert(id.clone());
        }
    }

    /// Asks back or ends the tasks of agents that are to be empty, and notes those that are.
    pub(super) fn empty_agents(&mut self, now: Timestamp, out: &mut Effects) {
        for id in std::mem::take(&mut self.maintenance.due) {
            self.empty_agent(now, &id, out);
        }
    }

    fn empty_agent(&mut self, now: Timestamp, id: &AgentId, out: &mut Effects) {
        let Some(deadline) = self.agents.get(id).and_then(|agent| agent.upkeep.deadline()) else { return };
        let tasks = self.running_tasks_of(id);
        if tasks.is_empty() {
            self.note_drained(id, out);
        } else if deadline <= now {
            tasks.iter().for_each(|key| self.end_by_force(key, Reason::AgentDrained, out));
        } else {
            self.ask_back(now, id, tasks, deadline, &InverseReason::Maintenance);
        }
    }

    /// Nothing is known to run on an agent. That says something only while its registration stands.
    fn note_drained(&mut self, id: &AgentId, out: &mut Effects) {
        let Some(agent) = self.agents.get(id) else { return };
        let is_known = matches!(agent.standing, AgentState::Active | AgentState::Suspected);
        let given = agent.upkeep.given.clone();
        if is_known
            && !agent.condemned
            && given == agent.upkeep.orders
            && let Some(drain) = given.drain.filter(|drain| !drain.drained)
        {
            let drain = Some(Drain { drained: true, ..drain });
            self.order(id, Orders { drain, ..given }, None, out);
        }
    }

    /// How an agent is being emptied, for those who look: by order, or else by plan.
    pub(super) fn show_drain(&self, id: &AgentId) -> Option<Drain> {
        let agent = self.agents.get(id)?;
        let is_empty = || self.running_tasks_of(id).is_empty();
        if let Some(drain) = agent.upkeep.orders.drain.clone() {
            return Some(Drain { drained: drain.drained && is_empty(), ..drain });
        }
        let window = agent.upkeep.windows.first().filter(|_| agent.upkeep.maintained)?;
        let is_known = matches!(agent.standing, AgentState::Active | AgentState::Suspected);
        Some(Drain {
            since: lead(window, self.config.maintenance_lead),
            deadline: Some(window.start),
            then_gone: false,
            drained: is_known && is_empty(),
        })
    }
}

/// The schedule.
impl Kernel {
    /// What is planned: all windows that have not ended.
    #[must_use]
    pub fn maintenance(&self) -> Vec<MaintenanceWindow> {
        self.maintenance.schedule.clone()
    }

    pub(super) fn set_maintenance(
        &mut self,
        now: Timestamp,
        windows: Vec<MaintenanceWindow>,
        request: RequestId,
        out: &mut Effects,
    ) -> Result<(), String> {
        self.check_schedule(now, &windows)?;
        let then = Awaited::Scheduled(windows.clone(), request);
        self.persist(RegistryChange::PutMaintenance { windows }, Some(then), out);
        Ok(())
    }

    fn check_schedule(&self, now: Timestamp, windows: &[MaintenanceWindow]) -> Result<(), String> {
        let mut by_agent: BTreeMap<&AgentId, Vec<&Window>> = BTreeMap::new();
        for (at, planned) in windows.iter().enumerate() {
            let window = &planned.window;
            if planned.agents.is_empty() {
                return Err(format!("windows[{at}].agents is empty; expected at least one agent"));
            }
            if window.duration.is_zero() {
                return Err(format!("windows[{at}].window.duration is 0; expected some time"));
            }
            if end(window) <= now {
                let end = end(window);
                return Err(format!("windows[{at}].window ends at {end}; expected an end after now, {now}"));
            }
            for id in &planned.agents {
                self.agent_that_stays(id).map_err(|why| format!("windows[{at}].agents: {why}"))?;
                by_agent.entry(id).or_default().push(window);
            }
        }
        for (id, mut windows) in by_agent {
            windows.sort_by_key(|window| window.start);
            let overlap =
                windows.iter().zip(windows.iter().skip(1)).find(|(one, next)| next.start < end(one));
            if let Some((one, next)) = overlap {
                return Err(format!(
                    "agent {id} has a window that begins at {} before the one from {} ends at {}; expected windows that do not \
                     overlap",
                    next.start,
                    one.start,
                    end(one)
                ));
            }
        }
        Ok(())
    }

    /// The store has the schedule.
    pub(super) fn scheduled(
        &mut self,
        now: Timestamp,
        windows: Vec<MaintenanceWindow>,
        request: RequestId,
        out: &mut Effects,
    ) {
        self.plan_maintenance(now, windows, out);
        out.push(Effect::Answer { request, result: Ok(()) });
    }

    /// This is the schedule from here on.
    pub(super) fn plan_maintenance(
        &mut self,
        now: Timestamp,
        windows: Vec<MaintenanceWindow>,
        out: &mut Effects,
    ) {
        let before = std::mem::replace(&mut self.maintenance.schedule, windows);
        self.follow_schedule(now, before, out);
    }

    /// A window, or the time before it, begins or ends.
    pub(super) fn maintenance_due(&mut self, now: Timestamp, out: &mut Effects) {
        let before = self.maintenance.schedule.clone();
        self.follow_schedule(now, before, out);
    }

    fn follow_schedule(&mut self, now: Timestamp, before: Vec<MaintenanceWindow>, out: &mut Effects) {
        self.maintenance.schedule.retain(|planned| end(&planned.window) > now);
        let mut planned: BTreeMap<AgentId, Vec<Window>> =
            before.into_iter().flat_map(|planned| planned.agents).map(|id| (id, Vec::new())).collect();
        for window in &self.maintenance.schedule {
            for id in &window.agents {
                planned.entry(id.clone()).or_default().push(window.window.clone());
            }
        }
        for (id, mut windows) in planned {
            windows.sort_by_key(|window| window.start);
            self.set_windows(now, &id, windows, out);
        }
        let lead_time = self.config.maintenance_lead;
        let windows = self.maintenance.schedule.iter().map(|planned| &planned.window);
        let edges = windows.flat_map(|window| [lead(window, lead_time), end(window)]);
        match edges.filter(|edge| *edge > now).min() {
            Some(next) => self.timers.set(Timer::Maintenance, next),
            None => self.timers.cancel(&Timer::Maintenance),
        }
    }

    fn set_windows(&mut self, now: Timestamp, id: &AgentId, windows: Vec<Window>, out: &mut Effects) {
        let lead_time = self.config.maintenance_lead;
        let maintained = windows.first().is_some_and(|window| lead(window, lead_time) <= now);
        let Some(agent) = self.agents.get_mut(id).filter(|agent| agent.standing != AgentState::Gone) else {
            return;
        };
        if (agent.upkeep.maintained, &agent.upkeep.windows) == (maintained, &windows) {
            return;
        }
        let begins = maintained && !agent.upkeep.maintained;
        let is_other = agent.upkeep.windows.first() != windows.first();
        agent.upkeep.maintained = maintained;
        agent.upkeep.windows = windows;
        self.changes.agent(id);
        if is_other {
            // What is out says nothing, or something else, of the time from which on the agent is not there.
            self.rescind_agent(id, out);
        }
        self.upkeep_changed(now, id, out);
        let window = self.agents.get(id).and_then(|agent| agent.upkeep.windows.first());
        if let Some(window) = window.filter(|_| begins) {
            let why = format!(
                "its maintenance from {} to {} is near: it is not offered, and its tasks are asked back and killed when that \
                 begins",
                window.start,
                end(window)
            );
            self.decide_on_agent(now, id, DecisionKind::Draining, why);
        }
    }
}
