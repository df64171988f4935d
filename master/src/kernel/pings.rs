//! Silence: an agent is seen to be silent at once, judged later, and never judged while so many are silent together that the
//! fault may be ours.
//!
//! ```text
//! ping unanswered for a window, or stream ended ──► suspected   no new offers; outstanding ones rescinded
//! silent for missed_pings windows ──► breaker? ──► Persist(unreachable) ──► tasks UNREACHABLE
//! ```

use std::time::Duration;

use divvy_proto::agent::MasterMessage;
use divvy_proto::api::AgentState;
use divvy_proto::ids::AgentId;
use divvy_proto::scheduler::{Event, StreamError};
use divvy_proto::task::{Reason, TaskState};
use divvy_proto::time::Timestamp;

use super::registry::Awaited;
use super::{Absence, Effect, Effects, Kernel, Timer};

/// Fewer silent agents than this never trip the breaker.
const BREAKER_MINIMUM: usize = 3;

impl Kernel {
    /// How long an agent may be silent.
    fn patience(&self) -> Duration {
        self.config.ping_interval.saturating_mul(self.config.missed_pings.max(1))
    }

    /// It lives.
    pub(super) fn heard_from(&mut self, now: Timestamp, id: &AgentId) {
        if let Some(agent) = self.agents.get_mut(id) {
            agent.silent_since = None;
            if std::mem::take(&mut agent.held_back) {
                self.tally.hold_back(true, false);
                self.changes.status();
            }
            if agent.standing == AgentState::Suspected && agent.link.is_some() {
                self.set_standing(now, id, AgentState::Active);
            }
        }
    }

    /// It may not live: everyone sees it, and nobody is offered anything of it.
    pub(super) fn suspect(&mut self, now: Timestamp, id: &AgentId, out: &mut Effects) {
        let patience = self.patience();
        let Some(agent) = self.agents.get_mut(id) else { return };
        if !matches!(agent.standing, AgentState::Active | AgentState::Suspected) {
            return;
        }
        let silent_since = *agent.silent_since.get_or_insert(now);
        if agent.link.is_none() && !agent.marking {
            self.timers.set(Timer::Agent(id.clone()), (silent_since + patience).max(now));
        }
        self.set_standing(now, id, AgentState::Suspected);
        self.rescind_agent(id, out);
    }

    /// The agent's timer: time to ping it, or to judge it.
    pub(super) fn agent_due(&mut self, now: Timestamp, id: &AgentId, out: &mut Effects) {
        let (interval, patience) = (self.config.ping_interval, self.patience());
        let Some(agent) = self.agents.get_mut(id) else { return };
        if agent.marking {
            return;
        }
        if agent.joining.is_some() {
            // It is coming back; the store is slow.
            self.timers.set(Timer::Agent(id.clone()), now + interval);
            return;
        }
        let silence = agent.silent_since.map(|since| now.since(since));
        match agent.standing {
            AgentState::Gone | AgentState::Unreachable => {}
            AgentState::Recovering => self.judge(now, id, out),
            _ if silence.is_some_and(|silence| silence >= patience) => self.judge(now, id, out),
            _ if agent.link.is_some() => {
                agent.silent_since.get_or_insert(now);
                self.timers.set(Timer::Agent(id.clone()), now + interval);
                if silence.is_some_and(|silence| silence >= interval) {
                    self.suspect(now, id, out);
                }
                self.tell_agent(id, MasterMessage::Ping, out);
            }
            _ => self.suspect(now, id, out),
        }
    }

    /// It has been silent for too long. If too many are, the mark waits another window.
    fn judge(&mut self, now: Timestamp, id: &AgentId, out: &mut Effects) {
        let is_held_back = self.breaker_holds(id);
        let Some(agent) = self.agents.get_mut(id) else { return };
        if agent.held_back != is_held_back {
            self.tally.hold_back(agent.held_back, is_held_back);
            agent.held_back = is_held_back;
            self.changes.status();
        }
        if is_held_back {
            self.timers.set(Timer::Agent(id.clone()), now + self.config.ping_interval);
            self.tell_agent(id, MasterMessage::Ping, out);
            return;
        }
        agent.marking = true;
        if let Some(link) = agent.link.take() {
            // Should it live after all, it comes back as one that returns.
            self.links.remove(&link);
            let why = format!("{} pings were not answered", self.config.missed_pings);
            out.push(Effect::Close { link, error: StreamError::Refused(why) });
        }
        self.suspect(now, id, out);
        self.timers.cancel(&Timer::Agent(id.clone()));
        let then = Awaited::Unreachable(id.clone());
        self.persist_absence(id, Absence::Unreachable(now), Some(then), out);
    }

    /// How many agents are silent together with this one, and how many there are.
    fn silent_with(&self, id: &AgentId) -> (usize, usize) {
        let Some(this) = self.agents.get(id) else { return (0, 0) };
        let window = self.config.ping_interval;
        // One that has not come back after a failover is silent from its beginning.
        let silence_of = |agent: &super::agents::Agent| match agent.standing {
            AgentState::Recovering => Some(agent.since),
            AgentState::Suspected => agent.silent_since,
            _ => None,
        };
        let Some(since) = silence_of(this) else { return (0, 0) };
        let known = |state| !matches!(state, AgentState::Unreachable | AgentState::Gone);
        let present = self.agents.values().filter(|agent| known(agent.standing));
        present.fold((0, 0), |(silent, all), agent| {
            let together = silence_of(agent)
                .is_some_and(|other| other.since(since) <= window && since.since(other) <= window);
            (silent + usize::from(together), all + 1)
        })
    }

    fn breaker_holds(&self, id: &AgentId) -> bool {
        let percent = usize::try_from(self.config.breaker_percent).unwrap_or(usize::MAX);
        let (silent, all) = self.silent_with(id);
        percent > 0 && silent >= BREAKER_MINIMUM && silent * 100 > percent.saturating_mul(all)
    }

    /// The store has the mark.
    pub(super) fn unreachable(&mut self, now: Timestamp, id: &AgentId, out: &mut Effects) {
        let Some(agent) = self.agents.get_mut(id) else { return };
        if !agent.marking || agent.standing == AgentState::Gone {
            return;
        }
        agent.marking = false;
        let message = format!("agent {id} does not answer; the task may still run");
        for key in self.live_tasks_of(id) {
            let state = TaskState::Unreachable;
            self.say_of_task(now, &key, state, Reason::AgentUnreachable, message.clone(), out);
        }
        self.set_standing(now, id, AgentState::Unreachable);
        self.tell_failure(id, out);
    }

    /// A hint to everybody who is connected.
    pub(super) fn tell_failure(&self, id: &AgentId, out: &mut Effects) {
        for framework in self.frameworks.keys() {
            self.tell(framework, Event::Failure { agent_id: id.clone() }, out);
        }
    }

    /// What an operator should know about silence now.
    pub(super) fn breaker_warning(&self) -> Option<String> {
        let count = self.tally.held_back;
        (count > 0).then(|| {
            format!(
                "{count} agents are silent together; the fault may be the master's or the network's, so none of them is \
                 marked unreachable"
            )
        })
    }
}
