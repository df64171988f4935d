//! From the allocator's count to the funnel that people see: names instead of numbers, and who holds what is missing.

use std::collections::BTreeMap;

use divvy_proto::amounts::Amounts;
use divvy_proto::api::{AgentState, Exclusion, Funnel, Nearest, Stage};
use divvy_proto::ids::{AgentId, FrameworkId};
use divvy_proto::resources::Shortage;
use divvy_proto::role::RolePath;
use divvy_proto::time::Timestamp;

use super::words;
use crate::kernel::Kernel;
use crate::kernel::allocator::{AgentIx, Away, Cause, ClientIx, Counted, Waiting};

/// So many holders are named.
const HOLDERS: usize = 3;

impl Kernel {
    /// Asks every agent.
    pub(super) fn funnel(&self, now: Timestamp, waiting: &Waiting) -> Funnel {
        let scan = self.allocator.scan(now, waiting, |id| self.away(id));
        let client = self.allocator.client_of(waiting.client);
        let nearest = scan.nearest().map(|(agent, stage)| self.nearest(now, waiting, agent, stage));
        let fitting = scan.fitting.and_then(|agent| self.describe(agent, Vec::new(), None));
        let mut funnel = Funnel {
            framework_id: client.framework.clone(),
            framework: self.name_of(&client.framework),
            role: client.role.clone(),
            shape: waiting.shape.as_ref().map(|shape| shape.name.clone()),
            wants: waiting.shape.as_ref().map(|shape| shape.amounts()).unwrap_or_default(),
            count: waiting.count,
            waiting_since: waiting.since,
            agents: scan.agents,
            stages: scan
                .stages
                .iter()
                .map(|stage| Stage { reason: self.exclusion(now, stage), agents: stage.agents })
                .collect(),
            fits: scan.fits,
            nearest: fitting.or(nearest.flatten()),
            hint: String::new(),
        };
        funnel.hint = self.hint(now, waiting, &funnel);
        funnel
    }

    fn away(&self, id: &AgentId) -> Away {
        match self.agents.get(id).map(|agent| agent.standing) {
            None | Some(AgentState::Gone) => Away::Gone,
            Some(AgentState::Active) => Away::Draining,
            Some(_) => Away::NotActive,
        }
    }

    fn name_of(&self, framework: &FrameworkId) -> String {
        self.frameworks.get(framework).map(|f| f.info.name.clone()).unwrap_or_default()
    }

    fn exclusion(&self, now: Timestamp, stage: &Counted<'_>) -> Exclusion {
        let missing = |dimension: &str| words::amount(dimension, stage.missing.unwrap_or_default());
        match &stage.cause {
            Cause::NotActive => Exclusion::NotActive,
            Cause::Draining => Exclusion::Draining,
            Cause::Clause(clause) => Exclusion::Constraint { clause: clause.to_string() },
            Cause::Filter => Exclusion::Filter { until: stage.until.unwrap_or(now) },
            Cause::Reservation => Exclusion::Reservation { roles: most_first(&stage.roles) },
            Cause::TooSmall(dimension) => {
                Exclusion::TooSmall { dimension: dimension.clone(), missing: missing(dimension) }
            }
            Cause::Held(dimension) => Exclusion::HeldByOthers {
                dimension: dimension.clone(),
                missing: missing(dimension),
                holders: self.largest_holders(dimension, stage),
            },
            Cause::Kept(client) => Exclusion::HeldForWaiting { framework: self.name_of_client(*client) },
            Cause::Limit(role, dimension) => {
                Exclusion::Limit { role: role.clone(), dimension: dimension.clone() }
            }
            Cause::Headroom => Exclusion::Headroom { roles: most_first(&stage.roles) },
        }
    }

    fn name_of_client(&self, client: ClientIx) -> String {
        self.name_of(&self.allocator.client_of(client).framework)
    }

    /// Who holds the most of a dimension on the agents that come nearest, the largest first.
    fn largest_holders(&self, dimension: &str, stage: &Counted<'_>) -> Vec<String> {
        let mut held: BTreeMap<&FrameworkId, i64> = BTreeMap::new();
        for (_, agent) in &stage.closest {
            let Some(agent) = self.agents.get(&self.allocator.slot(*agent).id) else { continue };
            let tasks = agent.tasks.iter().filter_map(|key| Some((&key.0, self.task_ref(key)?)));
            for (framework, task) in tasks.filter(|(_, task)| task.still_runs()) {
                *held.entry(framework).or_default() += amount_of(dimension, &task.info.resources);
            }
            for offer in agent.offers.iter().filter_map(|id| self.offers.get(id)) {
                *held.entry(&offer.framework).or_default() +=
                    amount_of(dimension, &offer.grant.charge.total());
            }
        }
        let is_near = |agent| stage.closest.iter().any(|(_, near)| *near == agent);
        for (_, client, charge) in self.allocator.gathered().filter(|(agent, ..)| is_near(*agent)) {
            let framework = &self.allocator.client_of(client).framework;
            *held.entry(framework).or_default() += amount_of(dimension, &charge.total());
        }
        let mut held: Vec<(i64, &FrameworkId)> =
            held.into_iter().filter(|(_, amount)| *amount > 0).map(|(id, amount)| (amount, id)).collect();
        held.sort_by(|left, right| right.0.cmp(&left.0).then(left.1.cmp(right.1)));
        held.into_iter().take(HOLDERS).map(|(_, id)| self.name_of(id)).collect()
    }

    fn nearest(
        &self,
        now: Timestamp,
        waiting: &Waiting,
        agent: AgentIx,
        stage: &Counted<'_>,
    ) -> Option<Nearest> {
        let shape = waiting.shape.as_deref();
        let ever = matches!(stage.cause, Cause::TooSmall(_));
        let lacks = shape.map(|shape| self.allocator.lacks(waiting.client, shape, agent, ever));
        let lacks = lacks.unwrap_or_default();
        let missing = lacks.into_iter().map(|(dimension, wanted, available)| Shortage {
            wanted: words::amount(&dimension, wanted),
            available: words::amount(&dimension, available),
            dimension,
        });
        self.describe(agent, missing.collect(), Some(self.exclusion(now, stage)))
    }

    fn describe(&self, agent: AgentIx, missing: Vec<Shortage>, reason: Option<Exclusion>) -> Option<Nearest> {
        let agent_id = self.allocator.slot(agent).id.clone();
        let hostname = self.agents.get(&agent_id)?.info.hostname.clone();
        Some(Nearest { agent_id, hostname, missing, reason })
    }
}

fn amount_of(dimension: &str, resources: &divvy_proto::Resources) -> i64 {
    Amounts::from(resources).get(dimension).unwrap_or_default()
}

fn most_first(roles: &BTreeMap<RolePath, usize>) -> Vec<RolePath> {
    let mut roles: Vec<(&RolePath, &usize)> = roles.iter().collect();
    roles.sort_by(|left, right| right.1.cmp(left.1).then(left.0.cmp(right.0)));
    roles.into_iter().map(|(role, _)| role.clone()).collect()
}
