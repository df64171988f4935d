//! Why something waits, or is where it is: for operators, and cheap enough to be asked every second.
//!
//! ```text
//! mod.rs     what the question is about: a role, a framework, a shape, a task
//! funnel.rs  all agents, and what excludes each, from the allocator's own rules (`allocator::explain`)
//! hint.rs    what somebody could do about it
//! words.rs   the sentences
//! task.rs    why a task is where it is
//! ```
//!
//! Nothing here changes anything, and nothing here knows a rule of allocation.

mod funnel;
mod hint;
mod task;
mod words;

use divvy_proto::api::{self, Explanation, FrameworkState, Question, RoleStanding};
use divvy_proto::ids::{FrameworkId, TaskId};
use divvy_proto::role::RolePath;
use divvy_proto::time::Timestamp;

use super::allocator::{ClientIx, Waiting};
use super::frameworks::Framework;
use super::{DecisionFilter, Kernel};

/// So many funnels are made for one question at most.
const MOST_FUNNELS: usize = 20;
/// All funnels of one question look at so many agents together at most, but for the first, which looks at all: so that a
/// question about a thousand frameworks on a hundred thousand agents does not stop the kernel.
const MOST_AGENTS: usize = 200_000;
/// So many decisions are shown with an explanation.
const DECISIONS: usize = 10;
/// So many siblings that are before a role are shown.
const BEFORE: usize = 10;

/// There is no such thing: its kind and its id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnknownObject(String);

impl Kernel {
    /// Why something waits.
    ///
    /// # Errors
    /// What is asked about is not known.
    pub fn explain(&self, now: Timestamp, question: &Question) -> Result<Explanation, UnknownObject> {
        match question {
            Question::Role(role) => self.explain_role(now, role),
            Question::Framework(id) => self.explain_framework(now, id),
            Question::Demand { framework_id, role, shape } => {
                self.explain_demand(now, framework_id, role, shape)
            }
            Question::Task { framework_id, task_id } => self.explain_task(now, framework_id, task_id),
        }
    }

    fn explain_role(&self, now: Timestamp, role: &RolePath) -> Result<Explanation, UnknownObject> {
        let roles = self.standings(std::slice::from_ref(role));
        if roles.iter().all(|known| known.role.path != *role) {
            return Err(UnknownObject(format!("role {role}")));
        }
        let clients = self.frameworks.keys().flat_map(|id| self.allocator.clients_of(id));
        let below = clients.copied().filter(|client| role.contains(&self.allocator.client_of(*client).role));
        let funnels = self.funnels(now, below.collect());
        let filter =
            DecisionFilter { role: Some(role.clone()), limit: Some(DECISIONS), ..Default::default() };
        let standing = roles.last().map(words::standing).unwrap_or_default();
        let summary = match funnels.shown.is_empty() {
            true => format!("nothing waits in {role}; {standing}"),
            false => format!("{} {standing}", funnels.summary()),
        };
        Ok(Explanation { summary, roles, funnels: funnels.shown, decisions: self.decisions(&filter) })
    }

    fn explain_framework(&self, now: Timestamp, id: &FrameworkId) -> Result<Explanation, UnknownObject> {
        let framework = self.known_framework(id)?;
        let funnels = self.funnels(now, self.allocator.clients_of(id).to_vec());
        let summary = match funnels.shown.is_empty() {
            true => self.wants_nothing(now, id, framework),
            false => funnels.summary(),
        };
        Ok(self.about(id, framework.info.roles.clone(), summary, funnels.shown))
    }

    fn explain_demand(
        &self,
        now: Timestamp,
        id: &FrameworkId,
        role: &RolePath,
        shape: &str,
    ) -> Result<Explanation, UnknownObject> {
        let framework = self.known_framework(id)?;
        let mut clients = self.allocator.clients_of(id).iter().copied();
        let client = clients.find(|client| self.allocator.client_of(*client).role == *role);
        let name = &framework.info.name;
        let unknown = || UnknownObject(format!("shape {shape} in the demand of framework {name} in {role}"));
        let client = client.ok_or_else(unknown)?;
        let state = self.allocator.wish_view(client).ok_or_else(unknown)?;
        if state.demand.shapes.iter().all(|known| known.name != shape) {
            return Err(unknown());
        }
        let is_it = |waiting: &Waiting| waiting.shape.as_ref().is_some_and(|known| known.name == shape);
        let waiting = self.allocator.waiting(client).into_iter().find(is_it);
        let funnels: Vec<api::Funnel> = waiting.iter().map(|waiting| self.funnel(now, waiting)).collect();
        let summary = match waiting.as_ref().zip(funnels.first()) {
            Some((waiting, funnel)) => self.summary(now, waiting, funnel),
            None => {
                let offered = state.offered.get(shape).copied().unwrap_or_default();
                format!("{name} waits for no more {shape} in {role}: {}.", words::met(offered))
            }
        };
        Ok(self.about(id, vec![role.clone()], summary, funnels))
    }

    fn about(
        &self,
        id: &FrameworkId,
        roles: Vec<RolePath>,
        summary: String,
        funnels: Vec<api::Funnel>,
    ) -> Explanation {
        let filter =
            DecisionFilter { framework: Some(id.clone()), limit: Some(DECISIONS), ..Default::default() };
        Explanation { summary, roles: self.standings(&roles), funnels, decisions: self.decisions(&filter) }
    }

    fn known_framework(&self, id: &FrameworkId) -> Result<&Framework, UnknownObject> {
        self.frameworks.get(id).ok_or_else(|| UnknownObject(format!("framework {id}")))
    }

    /// Why a framework waits for nothing.
    fn wants_nothing(&self, now: Timestamp, id: &FrameworkId, framework: &Framework) -> String {
        let name = &framework.info.name;
        match framework.state() {
            FrameworkState::Completed => {
                format!("{name} was torn down {} ago.", words::since(now, framework.since))
            }
            FrameworkState::Disconnected => format!(
                "{name} is not connected since {}: nothing is offered to it until it is back.",
                words::since(now, framework.since)
            ),
            FrameworkState::Active => {
                let held = framework.offers.len();
                let states =
                    self.allocator.clients_of(id).iter().map(|client| self.allocator.wish_view(*client));
                match states.flatten().any(|state| !state.demand.shapes.is_empty()) {
                    true => {
                        let offers = if held == 1 { "offer" } else { "offers" };
                        format!(
                            "{name} waits for nothing: all that it demands is on offer ({held} {offers})."
                        )
                    }
                    false => format!("{name} wants no offers: it has suppressed them, or demands nothing."),
                }
            }
        }
    }

    /// For each role: those above it, those before it among its siblings, and itself; each once. Nothing for a role that nobody
    /// knows.
    fn standings(&self, roles: &[RolePath]) -> Vec<RoleStanding> {
        let all = self.roles();
        let mut standings: Vec<RoleStanding> = Vec::new();
        for role in roles {
            let order = self.allocator.fair_order(role);
            let place = order.iter().position(|sibling| sibling == role).unwrap_or_default();
            let before = order.iter().take(place).skip(place.saturating_sub(BEFORE));
            let mut wanted = role.lineage();
            wanted.pop();
            wanted.extend(before.cloned());
            wanted.push(role.clone());
            for path in wanted {
                if standings.iter().any(|known| known.role.path == path) {
                    continue;
                }
                let order = self.allocator.fair_order(&path);
                let place = order.iter().position(|sibling| *sibling == path).map(|at| at + 1);
                let found = all.iter().find(|known| known.path == path).cloned();
                standings.extend(found.map(|role| RoleStanding { role, place, siblings: order.len() }));
            }
        }
        standings
    }

    fn funnels(&self, now: Timestamp, clients: Vec<ClientIx>) -> Funnels {
        let waiting = clients.into_iter().flat_map(|client| self.allocator.waiting(client));
        let mut waiting: Vec<Waiting> = waiting.collect();
        // What waits for nothing in particular comes last.
        waiting.sort_by_key(|waiting| (waiting.since.is_none(), waiting.since));
        let most = (MOST_AGENTS / self.agents.len().max(1)).clamp(1, MOST_FUNNELS);
        let more = waiting.len().saturating_sub(most);
        let shown: Vec<api::Funnel> =
            waiting.iter().take(most).map(|waiting| self.funnel(now, waiting)).collect();
        let first = waiting.first().zip(shown.first());
        let first = first.map(|(waiting, funnel)| self.summary(now, waiting, funnel)).unwrap_or_default();
        Funnels { shown, more, first }
    }

    /// A framework's name.
    #[must_use]
    pub fn framework_name(&self, id: &FrameworkId) -> Option<&str> {
        self.frameworks.get(id).map(|framework| framework.info.name.as_str())
    }

    /// The frameworks of this name.
    #[must_use]
    pub fn frameworks_named(&self, name: &str) -> Vec<(FrameworkId, FrameworkState)> {
        let named = self.frameworks.iter().filter(|(_, framework)| framework.info.name == name);
        named.map(|(id, framework)| (id.clone(), framework.state())).collect()
    }

    /// The task with this id, of every framework that has one; else those whose ids begin so.
    #[must_use]
    pub fn tasks_that_begin(&self, owner: Option<&FrameworkId>, start: &str) -> Vec<(FrameworkId, TaskId)> {
        let owners = self.frameworks.iter().filter(|(id, _)| owner.is_none_or(|owner| owner == *id));
        let found = owners.flat_map(|(id, framework)| {
            let known = framework.tasks.keys().chain(framework.ended.keys());
            known.filter(|task| task.as_str().starts_with(start)).map(move |task| (id.clone(), task.clone()))
        });
        let (whole, begun): (Vec<_>, Vec<_>) = found.partition(|(_, task)| task.as_str() == start);
        if whole.is_empty() { begun } else { whole }
    }
}

/// Funnels of one question, the one that has waited longest first.
struct Funnels {
    shown: Vec<api::Funnel>,
    /// So many more wait.
    more: usize,
    /// The first in words.
    first: String,
}

impl Funnels {
    fn summary(&self) -> String {
        let first = &self.first;
        match (self.more + self.shown.len()).saturating_sub(1) {
            0 => first.clone(),
            1 => format!("{first} One more thing waits."),
            more => format!("{first} {more} more things wait."),
        }
    }
}
