//! Silence: an agent is seen to be silent at once, judged later, and never judged while so many are silent together that the
//! fault may be ours.
//!
//! ```text
//! ping unanswered for a window, or stream ended ──► suspected   no new offers; outstanding ones rescinded
//! silent for missed_pings windows ──► breaker? ──► Persist(unreachable) ──► tasks UNREACHABLE
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use divvy_proto::agent::MasterMessage;
use divvy_proto::api::AgentState;
use divvy_proto::ids::AgentId;
use divvy_proto::scheduler::{Event, StreamError};
use divvy_proto::task::{Reason, TaskState};
use divvy_proto::time::{Timestamp, millis};

use super::agents::Agent;
use super::registry::Awaited;
use super::{Absence, Effect, Effects, Kernel, Timer};

/// Fewer silent agents than this never trip the breaker.
const BREAKER_MINIMUM: usize = 3;

/// Agents are silent together if their silence began at most one window apart. Windows are counted in so many slices, so that
/// one judgement costs the same however many are silent.
const SLICES: u64 = 16;

/// How many agents fell silent in which slice of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Silences(BTreeMap<u64, usize>);

impl Silences {
    pub(super) fn shift(&mut self, from: Option<u64>, to: Option<u64>) {
        if let Some(to) = to {
            *self.0.entry(to).or_default() += 1;
        }
        if let Some(from) = from
            && let Some(count) = self.0.get_mut(&from)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.0.remove(&from);
            }
        }
    }

    /// How many are silent since at most a window before or after.
    fn around(&self, at: u64) -> usize {
        self.0.range(at.saturating_sub(SLICES)..=at.saturating_add(SLICES)).map(|(_, count)| count).sum()
    }
}

impl Agent {
    /// Since when it is silent, as far as that counts. One that has not come back after a failover is so from its beginning.
    fn silent_from(&self) -> Option<Timestamp> {
        match self.standing {
            AgentState::Recovering => Some(self.since),
            AgentState::Suspected => self.silent_since,
            _ => None,
        }
    }
}

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
            self.note_silence(id);
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
                self.note_silence(id);
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
        let Some(at) = self.agents.get(id).and_then(|agent| agent.silence) else { return (0, 0) };
        let gone = [AgentState::Unreachable, AgentState::Gone];
        let gone = gone.iter().filter_map(|state| self.tally.agents.get(state)).sum();
        (self.silences.around(at), self.agents.len().saturating_sub(gone))
    }

    /// Whether, and since when, an agent is silent may have changed.
    pub(super) fn note_silence(&mut self, id: &AgentId) {
        let slice = self.slice();
        let Some(agent) = self.agents.get_mut(id) else { return };
        let silence = agent.silent_from().map(|since| since.0 / slice);
        if agent.silence != silence {
            self.silences.shift(std::mem::replace(&mut agent.silence, silence), silence);
        }
    }

    /// How long a slice of time is, in milliseconds.
    fn slice(&self) -> u64 {
        (millis(self.config.ping_interval) / SLICES).max(1)
    }

    /// Checks that the silences are those of the agents.
    pub(super) fn check_silences(&self) -> Result<(), String> {
        let mut recount = Silences::default();
        for (id, agent) in &self.agents {
            let silence = agent.silent_from().map(|since| since.0 / self.slice());
            recount.shift(None, silence);
            if agent.silence != silence {
                return Err(format!("{id}: since when it is silent is not what is counted"));
            }
        }
        match recount == self.silences {
            true => Ok(()),
            false => Err(format!("the silences are {:?}, a recount {recount:?}", self.silences)),
        }
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
