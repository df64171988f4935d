//! What must outlive the master: which facts are persisted, what waits for them, and the way back from the store.

use std::collections::{BTreeMap, BTreeSet};

use divvy_proto::agent::AgentInfo;
use divvy_proto::api::{AgentState, MaintenanceWindow};
use divvy_proto::ids::{AgentId, CallId, FrameworkId};
use divvy_proto::reservation::Volume;
use divvy_proto::scheduler::{FrameworkInfo, Outcome};
use divvy_proto::task::AgentTask;
use divvy_proto::time::Timestamp;

use super::calls::accept::Pending;
use super::frameworks::{Connection, Framework};
use super::maintenance::Orders;
use super::task_ids::NewlyUsed;
use super::{
    Absence, Config, Effect, Effects, Kernel, LinkId, PersistToken, RegistryChange, RequestId, Timer,
};

/// What is said and done once a fact is durable.
#[derive(Debug, Clone)]
pub(super) enum Awaited {
    /// An agent's admission or return.
    Agent(Box<Joining>),
    /// An agent's mark as unreachable.
    Unreachable(AgentId),
    /// An agent's mark as gone.
    Gone(AgentId),
    /// What an operator has ordered of an agent.
    Ordered(AgentId, Orders, Option<RequestId>),
    /// A quota or a weight.
    Policy(Box<RegistryChange>, RequestId),
    /// The schedule of maintenance.
    Scheduled(Vec<MaintenanceWindow>, RequestId),
    /// A change of an agent's reservations or volumes that an operator asked for, and its volumes from then on.
    Owned { agent: AgentId, volumes: Vec<Volume>, request: RequestId },
    /// A call that changes an agent's reservations or volumes.
    Accept(Box<Pending>),
    /// Ids of tasks that have ended.
    TaskIds(NewlyUsed),
    /// A framework's subscription.
    Subscribed(FrameworkId, LinkId),
    /// What a framework now says of itself.
    Updated(FrameworkId, CallId),
    /// A framework's end, and who asked for it.
    Retired(FrameworkId, Option<Asker>),
}

/// Who waits for an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asker {
    /// The framework itself.
    Framework(CallId),
    /// An operator.
    Operator(RequestId),
}

/// An agent between its Register and its Registered.
#[derive(Debug, Clone)]
pub(super) struct Joining {
    pub(super) id: AgentId,
    pub(super) link: LinkId,
    pub(super) info: AgentInfo,
    pub(super) tasks: Vec<AgentTask>,
}

impl Kernel {
    /// The cluster as the registry has it, after a restart of the master: its agents may come back until
    /// `config.reregister_timeout` has passed, its frameworks until their failover timeout has.
    #[must_use]
    pub fn recover(
        config: Config,
        records: impl IntoIterator<Item = RegistryChange>,
        now: Timestamp,
    ) -> Self {
        let mut kernel = Self::new(config);
        kernel.started = Some(now);
        let mut were_connected = BTreeSet::new();
        let (mut owned, mut used_ids) = (BTreeMap::new(), BTreeMap::new());
        let (mut orders, mut schedule) = (BTreeMap::new(), Vec::new());
        for record in records {
            match record {
                RegistryChange::PutAgent { id, info, absence } => {
                    kernel.recover_agent(id, info, absence, now);
                }
                RegistryChange::PutFramework { id, info, disconnected, retired } => {
                    match disconnected.is_none() && !retired {
                        true => were_connected.insert(id.clone()),
                        false => were_connected.remove(&id),
                    };
                    kernel.recover_framework(id, info, disconnected, retired, now);
                }
                RegistryChange::PutDrain { agent, deactivated, drain } => {
                    orders.insert(agent, Orders { deactivated, drain });
                }
                RegistryChange::PutMaintenance { windows } => schedule = windows,
                RegistryChange::PutQuota { role, quota } => kernel.recover_quota(role, quota),
                RegistryChange::PutWeight { role, weight } => kernel.recover_weight(role, weight),
                RegistryChange::PutReservations { agent, reserved, volumes } => {
                    owned.insert(agent, (reserved, volumes));
                }
                RegistryChange::PutTaskIds { framework, bucket, ids } => {
                    used_ids.insert((framework, bucket), ids);
                }
                RegistryChange::RemoveAgent { id } => kernel.forget_agent(&id),
                RegistryChange::RemoveFramework { id } => kernel.forget_framework(&id),
            }
        }
        // The time of those that were connected when the last master ended runs from here; and if this master ends as well,
        // not from anew.
        let mut unsaid = Vec::new();
        were_connected.iter().for_each(|id| kernel.persist_framework(id, None, &mut unsaid));
        owned.into_iter().for_each(|(id, (reserved, volumes))| kernel.recover_owned(&id, reserved, volumes));
        used_ids.into_iter().for_each(|((id, bucket), ids)| kernel.recover_ids(&id, bucket, ids));
        orders.into_iter().for_each(|(agent, orders)| kernel.recover_orders(&agent, orders));
        kernel.plan_maintenance(now, schedule, &mut unsaid);
        kernel.unsaid = unsaid;
        kernel
    }

    fn recover_agent(&mut self, id: AgentId, info: AgentInfo, absence: Option<Absence>, now: Timestamp) {
        let (standing, since) = match absence {
            None => (AgentState::Recovering, now),
            Some(Absence::Unreachable(since)) => (AgentState::Unreachable, since),
            Some(Absence::Gone(since)) => (AgentState::Gone, since),
        };
        if standing == AgentState::Recovering {
            self.timers.set(Timer::Agent(id.clone()), now + self.config.reregister_timeout);
        }
        self.add_agent(id, info, standing, since);
    }

    fn recover_framework(
        &mut self,
        id: FrameworkId,
        info: FrameworkInfo,
        disconnected: Option<Timestamp>,
        retired: bool,
        now: Timestamp,
    ) {
        let since = disconnected.unwrap_or(now);
        let mut framework = Framework::new(info, Connection::Disconnected, since);
        framework.was_told_its_id = true;
        framework.retired = retired;
        if !retired {
            self.timers.set(Timer::Failover(id.clone()), since + framework.info.failover_timeout);
        }
        self.changes.framework(&id);
        self.frameworks.insert(id.clone(), framework);
    }

    pub(super) fn persist(
        &mut self,
        change: RegistryChange,
        then: Option<Awaited>,
        out: &mut Effects,
    ) -> PersistToken {
        self.persist_all(vec![change], then, out)
    }

    /// Makes these durable together.
    pub(super) fn persist_all(
        &mut self,
        changes: Vec<RegistryChange>,
        then: Option<Awaited>,
        out: &mut Effects,
    ) -> PersistToken {
        self.made.tokens += 1;
        let token = PersistToken(self.made.tokens);
        if let Some(then) = then {
            self.awaited.insert(token, then);
        }
        out.push(Effect::Persist { token, changes });
        token
    }

    /// Makes durable what a joining agent says of itself, and that it is there.
    pub(super) fn persist_joining(&mut self, joining: Joining, out: &mut Effects) -> PersistToken {
        let (id, info) = (joining.id.clone(), joining.info.clone());
        let change = RegistryChange::PutAgent { id, info, absence: None };
        self.persist(change, Some(Awaited::Agent(Box::new(joining))), out)
    }

    pub(super) fn persist_absence(
        &mut self,
        id: &AgentId,
        absence: Absence,
        then: Option<Awaited>,
        out: &mut Effects,
    ) {
        if let Some(agent) = self.agents.get(id) {
            let (id, info) = (id.clone(), agent.info.clone());
            self.persist(RegistryChange::PutAgent { id, info, absence: Some(absence) }, then, out);
        }
    }

    /// Makes durable where a framework stands now.
    pub(super) fn persist_framework(&mut self, id: &FrameworkId, then: Option<Awaited>, out: &mut Effects) {
        if let Some(framework) = self.frameworks.get(id) {
            let change = framework.record(id);
            self.persist(change, then, out);
        }
    }

    pub(super) fn persisted(&mut self, now: Timestamp, token: PersistToken, out: &mut Effects) {
        match self.awaited.remove(&token) {
            None => {}
            Some(Awaited::Agent(joining)) => self.admit(now, token, *joining, out),
            Some(Awaited::Unreachable(id)) => self.unreachable(now, &id, out),
            Some(Awaited::Gone(id)) => self.gone(now, &id, out),
            Some(Awaited::Ordered(id, orders, request)) => self.ordered(now, &id, orders, request, out),
            Some(Awaited::Policy(change, request)) => self.policy_stands(*change, request, out),
            Some(Awaited::Scheduled(windows, request)) => self.scheduled(now, windows, request, out),
            Some(Awaited::Owned { agent, volumes, request }) => {
                self.owned_is_stored(token, &agent, volumes, request, out);
            }
            Some(Awaited::Accept(pending)) => self.accept_is_stored(now, *pending, out),
            Some(Awaited::TaskIds(newly)) => self.ends_are_known(newly, out),
            Some(Awaited::Subscribed(id, link)) => self.subscription_stands(now, &id, link, out),
            Some(Awaited::Updated(id, call)) => self.answer_later(&id, call, Outcome::Accepted, out),
            Some(Awaited::Retired(id, asker)) => self.retired(now, &id, asker, out),
        }
    }
}
