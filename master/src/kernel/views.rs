//! What the operator API shows of the kernel, as `divvy_proto::api` types. Nothing here changes anything.

use divvy_proto::api;
use divvy_proto::attributes::{AttributeValue, Attributes};
use divvy_proto::ids::{AgentId, FrameworkId, OfferId, TaskId};
use divvy_proto::resources::Resources;
use divvy_proto::time::Timestamp;

use super::Kernel;
use super::agents::Agent;
use super::allocator::{Charge, ClientIx, sum};
use super::frameworks::Framework;
use super::offers::Offer;
use super::tasks::Task;

impl Kernel {
    /// The cluster's totals. `leader` is empty: the kernel does not know its own address.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> api::Status {
        api::Status {
            leader: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: self.config.epoch.0,
            uptime: self.started.map_or(0, |started| now.since(started).as_secs()),
            agents: self.tally.agents.clone(),
            frameworks: self.tally.frameworks.clone(),
            tasks: self.tally.tasks.clone(),
            resources: self.cluster_use(),
            warnings: self.breaker_warning().into_iter().chain(self.reservation_warnings()).collect(),
        }
    }

    /// Without ports, which mean nothing beyond their agent.
    pub(super) fn cluster_use(&self) -> api::ResourceUse {
        let sums = self.allocator.sums();
        let (used, offered) = (sums.used.to_resources(), sums.offered.to_resources());
        let available = sums.available.to_resources();
        api::ResourceUse { total: total(&available, &offered, &used), used, offered, available }
    }

    /// All agents, by id.
    #[must_use]
    pub fn agents(&self) -> Vec<api::Agent> {
        self.agents.iter().map(|(id, agent)| self.show_agent(id, agent)).collect()
    }

    /// One agent.
    #[must_use]
    pub fn agent(&self, id: &AgentId) -> Option<api::Agent> {
        self.agents.get(id).map(|agent| self.show_agent(id, agent))
    }

    fn show_agent(&self, id: &AgentId, agent: &Agent) -> api::Agent {
        let slot = self.allocator.slot(agent.slot);
        let tasks = agent.tasks.iter().filter_map(|key| self.task_ref(key));
        let resources = api::ResourceUse {
            total: total(&lasting(&slot.available), &lasting(&slot.offered), &lasting(&slot.used)),
            used: lasting(&slot.used),
            offered: lasting(&slot.offered),
            available: lasting(&slot.available),
        };
        let revocable = api::ResourceUse {
            total: total(&slot.available.revocable, &slot.offered.revocable, &slot.used.revocable),
            used: slot.used.revocable.clone(),
            offered: slot.offered.revocable.clone(),
            available: slot.available.revocable.clone(),
        };
        api::Agent {
            id: id.clone(),
            hostname: agent.info.hostname.clone(),
            state: agent.standing,
            resources,
            attributes: with_hostname(agent),
            tasks: tasks.filter(|task| task.is_live()).count(),
            address: agent.info.address.clone(),
            url: agent.info.url.clone(),
            version: agent.info.version.clone(),
            since: agent.since,
            deactivated: agent.upkeep.orders.deactivated,
            drain: self.show_drain(id),
            maintenance: agent.upkeep.window().cloned(),
            reserved: self.reserved_of(agent),
            volumes: self.volumes_of(agent),
            revocable,
        }
    }

    /// All frameworks, by id, with those that were torn down.
    #[must_use]
    pub fn frameworks(&self) -> Vec<api::Framework> {
        self.frameworks.iter().map(|(id, framework)| self.show_framework(id, framework)).collect()
    }

    /// One framework.
    #[must_use]
    pub fn framework(&self, id: &FrameworkId) -> Option<api::Framework> {
        self.frameworks.get(id).map(|framework| self.show_framework(id, framework))
    }

    fn show_framework(&self, id: &FrameworkId, framework: &Framework) -> api::Framework {
        let held = self.allocator.held_by_framework(id);
        api::Framework {
            id: id.clone(),
            name: framework.info.name.clone(),
            roles: framework.info.roles.clone(),
            state: framework.state(),
            tasks: framework.live,
            offers: framework.offers.len(),
            dominant_share: self.allocator.share(&held).as_f64(),
            resources: held.to_resources(),
            url: framework.info.url.clone(),
            since: framework.since,
        }
    }

    /// All tasks that have not ended, and the latest that have.
    #[must_use]
    pub fn tasks(&self) -> Vec<api::Task> {
        let frameworks = self.frameworks.iter();
        let tasks =
            frameworks.flat_map(|(id, f)| f.tasks.values().chain(f.ended.values()).map(move |t| (id, t)));
        tasks.filter_map(|(id, task)| self.show_task(id, task)).collect()
    }

    /// One task, ended or not.
    #[must_use]
    pub fn task(&self, framework: &FrameworkId, task: &TaskId) -> Option<api::Task> {
        self.show_task(framework, self.any_task(framework, task)?)
    }

    fn any_task(&self, framework: &FrameworkId, task: &TaskId) -> Option<&Task> {
        let owner = self.frameworks.get(framework)?;
        owner.tasks.get(task).or_else(|| owner.ended.get(task))
    }

    fn show_task(&self, framework_id: &FrameworkId, task: &Task) -> Option<api::Task> {
        let status = &task.status;
        Some(api::Task {
            id: task.info.id.clone(),
            name: task.info.name.clone(),
            framework: self.frameworks.get(framework_id)?.info.name.clone(),
            framework_id: framework_id.clone(),
            agent_id: task.agent.clone(),
            hostname: self.agents.get(&task.agent)?.info.hostname.clone(),
            state: status.state,
            healthy: status.healthy,
            ports: task.info.resources.ports().clone(),
            named_ports: task.info.ports.clone(),
            resources: task.info.resources.clone(),
            pid: status.container.pid,
            started_at: task.started_at,
            updated_at: status.time,
            reason: status.reason,
            message: status.message.clone(),
            sandbox: status.container.sandbox.clone(),
        })
    }

    /// Where a task runs or ran: its agent, and the base address of that agent's HTTP API.
    #[must_use]
    pub fn task_location(&self, framework: &FrameworkId, task: &TaskId) -> Option<(AgentId, String)> {
        let agent = &self.any_task(framework, task)?.agent;
        Some((agent.clone(), self.agents.get(agent)?.info.url.clone()))
    }

    /// All outstanding offers.
    #[must_use]
    pub fn offers(&self) -> Vec<api::Offer> {
        self.offers.iter().filter_map(|(id, offer)| self.show_offer(*id, offer)).collect()
    }

    fn show_offer(&self, number: OfferId, offer: &Offer) -> Option<api::Offer> {
        Some(api::Offer {
            id: number.to_string(),
            number,
            framework_id: offer.framework.clone(),
            framework: self.frameworks.get(&offer.framework)?.info.name.clone(),
            role: offer.role.clone(),
            agent_id: offer.agent.clone(),
            hostname: self.agents.get(&offer.agent)?.info.hostname.clone(),
            resources: offer.grant.charge.total(),
            since: offer.since,
            expires: offer.expires,
        })
    }

    /// What frameworks want, role by role; those that take any offer, or none, are left out.
    #[must_use]
    pub fn demands(&self) -> Vec<api::DemandView> {
        let clients = self.frameworks.keys().flat_map(|id| self.allocator.clients_of(id));
        let show = |client: &ClientIx| {
            let state = self.allocator.wish_view(*client)?;
            let client = self.allocator.client_of(*client);
            Some(api::DemandView {
                framework_id: client.framework.clone(),
                framework: self.framework_name(&client.framework)?.to_owned(),
                role: client.role.clone(),
                demand: state.demand,
                offered: state.offered,
                waiting_since: state.waiting_since,
            })
        };
        clients.filter_map(show).collect()
    }

    /// What a reader of changes starts from.
    #[must_use]
    pub fn snapshot(&self, now: Timestamp) -> api::Snapshot {
        api::Snapshot {
            status: self.status(now),
            agents: self.agents(),
            frameworks: self.frameworks(),
            tasks: self.tasks(),
        }
    }
}

/// What cannot be taken back.
fn lasting(charge: &Charge) -> Resources {
    match charge.revocable.is_empty() {
        true => charge.total(),
        false => Charge { revocable: Resources::new(), ..charge.clone() }.total(),
    }
}

/// An agent whose tasks hold more than it declares counts as having what they hold.
fn total(available: &Resources, offered: &Resources, used: &Resources) -> Resources {
    sum(&sum(available, offered), used)
}

fn with_hostname(agent: &Agent) -> Attributes {
    let hostname = AttributeValue::Text(agent.info.hostname.to_string());
    agent.info.attributes.clone().with("hostname", hostname)
}
