//! What operators order while everything goes wrong: quotas, weights, reservations, volumes, drains, maintenance. They ask again
//! until they are answered, and take a refusal for an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use divvy_master::kernel::{Input, OperatorRequest, RequestId};
use divvy_proto::amounts::Amounts;
use divvy_proto::api::{AgentState, MaintenanceWindow, Window};
use divvy_proto::ids::{AgentId, VolumeId};
use divvy_proto::quantity::Bytes;
use divvy_proto::quota::{Quota, Weight};
use divvy_proto::reservation::Reservation;
use divvy_proto::role::RolePath;
use rand::Rng;
use rand::rngs::SmallRng;

use crate::operator::Errand;
use crate::script::{AGENTS, role};
use crate::world::{Plant, World};

/// Something that an operator orders.
#[derive(Debug, Clone)]
pub enum Order {
    Quota(RolePath, Option<Quota>, bool),
    Weight(RolePath, Option<Weight>),
    Reserve(usize, String, RolePath),
    /// All of what no task holds of one of the agent's reservations.
    Unreserve(usize),
    CreateVolume(usize, RolePath),
    DestroyVolume(usize),
    ResizeVolume(usize, Bytes),
    Drain {
        agent: usize,
        within: Option<Duration>,
        then_gone: bool,
    },
    Deactivate(usize),
    Reactivate(usize),
    /// Windows of agents that begin after this long, and last so long.
    Maintain(Vec<(usize, Duration, Duration)>),
}

/// Roles that have a policy.
const ROLES: [&str; 6] = ["prod", "prod/web", "dev", "dev/x", "lab", "lab/burst"];

pub fn draw(rng: &mut SmallRng) -> Order {
    let agent = rng.random_range(0..AGENTS);
    let seconds = |rng: &mut SmallRng, most| Duration::from_secs(rng.random_range(0..most));
    let some_role = |rng: &mut SmallRng| role(ROLES[rng.random_range(0..ROLES.len())]);
    match rng.random_range(0..20) {
        0..6 => Order::Quota(some_role(rng), rng.random_bool(0.8).then(|| quota(rng)), rng.random_bool(0.6)),
        6 => {
            let weight = Weight::from_thousandths(rng.random_range(100..5000)).expect("a weight");
            Order::Weight(some_role(rng), rng.random_bool(0.8).then_some(weight))
        }
        7..9 => {
            let (tenths, mib) = (rng.random_range(1..10), rng.random_range(16..256));
            Order::Reserve(agent, format!("cpus=0.{tenths};mem={mib}MiB;disk=256MiB"), some_role(rng))
        }
        9 => Order::Unreserve(agent),
        10 => Order::CreateVolume(agent, some_role(rng)),
        11 => Order::DestroyVolume(agent),
        12 => Order::ResizeVolume(agent, Bytes::mib(rng.random_range(1..200))),
        13..16 => {
            let within = rng.random_bool(0.7).then(|| seconds(rng, 90));
            Order::Drain { agent, within, then_gone: rng.random_bool(0.2) }
        }
        16 => Order::Deactivate(agent),
        17..19 => Order::Reactivate(agent),
        _ => {
            let windows = (0..rng.random_range(0..3)).map(|nth| {
                ((agent + nth) % AGENTS, seconds(rng, 200), Duration::from_secs(rng.random_range(1..120)))
            });
            Order::Maintain(windows.collect())
        }
    }
}

fn quota(rng: &mut SmallRng) -> Quota {
    let cpus = rng.random_range(1..6);
    let guarantee = match rng.random_range(0..5) {
        0 | 1 => String::new(),
        2 => format!("cpus={cpus};mem={}MiB", 128 * cpus),
        _ => format!("cpus={cpus}"),
    };
    let limit = match rng.random_range(0..4) {
        0 => String::new(),
        1 => format!("cpus={};mem={}MiB;ports=40", cpus + rng.random_range(0..4), 128 * cpus + 256),
        _ => format!("cpus={}", cpus + rng.random_range(0..4)),
    };
    let amounts = |text: String| text.parse::<Amounts>().expect("amounts");
    Quota {
        guarantee: amounts(guarantee),
        limit: amounts(limit),
        shape: rng.random_bool(0.3).then(|| "cpus=0.5;mem=64MiB".parse().expect("a shape")),
        preemptible: rng.random_bool(0.8),
    }
}

/// What was asked and has not been answered, and what stands.
#[derive(Debug, Default)]
pub struct Orders {
    asked: BTreeMap<RequestId, Order>,
    /// Roles whose quota was asked for of a master that ended: it may stand or not.
    doubtful: BTreeSet<RolePath>,
    /// Quotas that were answered: what operators count on.
    pub quotas: BTreeMap<RolePath, Quota>,
}

impl Orders {
    /// Whether nobody knows what a role's quota is just now.
    pub fn is_open(&self, wanted: &RolePath) -> bool {
        let is_about = |order: &Order| matches!(order, Order::Quota(role, ..) if role == wanted);
        self.doubtful.contains(wanted) || self.asked.values().any(is_about)
    }

    pub fn is_any_open(&self) -> bool {
        !self.doubtful.is_empty() || self.asked.values().any(|order| matches!(order, Order::Quota(..)))
    }

    /// A role's limits, with those above it, that are known for certain.
    pub fn quotas_over<'a>(&'a self, role: &RolePath) -> impl Iterator<Item = (&'a RolePath, &'a Quota)> {
        let lineage = role.lineage();
        self.quotas.iter().filter(move |(above, _)| lineage.contains(above) && !self.is_open(above))
    }
}

impl World {
    /// Whether the order is on its way; `None` if nobody is there to be asked.
    pub fn order(&mut self, order: &Order) -> Option<bool> {
        let wanted = self.order_request(order)?;
        let request = RequestId(self.next_number());
        let Some(body) = wanted else { return Some(false) };
        self.orders.asked.insert(request, order.clone());
        let body = self.falsify(body);
        // Whatever goes wrong in it comes up at the end of the turn.
        self.master_input(Input::Operator { request, body }).ok()?;
        Some(true)
    }

    /// As a master would be asked that had this fault.
    fn falsify(&self, body: OperatorRequest) -> OperatorRequest {
        match (self.plant, body) {
            (Plant::NoLimits, OperatorRequest::SetQuota { role, quota, force })
                if role.parent().is_none() =>
            {
                let quota = quota.map(|quota| Quota { limit: Amounts::new(), ..quota });
                OperatorRequest::SetQuota { role, quota, force }
            }
            (Plant::NoGuarantees, OperatorRequest::SetQuota { role, quota, force }) => {
                let quota = quota.map(|quota| Quota { guarantee: Amounts::new(), ..quota });
                OperatorRequest::SetQuota { role, quota, force }
            }
            (_, body) => body,
        }
    }

    pub fn operator_hears(&mut self, request: RequestId, is_done: bool) {
        let Some(order) = self.orders.asked.remove(&request) else { return };
        self.errands -= 1;
        if let (true, Order::Quota(role, quota, _)) = (is_done, order) {
            self.orders.doubtful.remove(&role);
            match quota {
                Some(quota) => drop(self.orders.quotas.insert(role, quota)),
                None => drop(self.orders.quotas.remove(&role)),
            }
        }
    }

    /// Nobody will answer what the master that ended was asked: it is asked again.
    pub fn orders_are_lost(&mut self) {
        for (_, order) in std::mem::take(&mut self.orders.asked) {
            self.errands -= 1;
            if let Order::Quota(role, ..) = &order {
                self.orders.doubtful.insert(role.clone());
            }
            self.send_operator(self.now, Errand::Order(order));
        }
    }

    /// What the master is to be asked: nothing if there is nothing to be asked for.
    #[allow(clippy::option_option, reason = "nobody to ask, nothing to ask, something to ask")]
    fn order_request(&mut self, order: &Order) -> Option<Option<OperatorRequest>> {
        let kernel = self.master.kernel.as_ref()?;
        let id = |agent: usize| self.agents[agent].id().filter(|id| kernel.agent(id).is_some()).cloned();
        let reservation = |role: &RolePath| Reservation {
            role: role.clone(),
            principal: None,
            labels: BTreeMap::new(),
            fixed: false,
        };
        Some(match order.clone() {
            Order::Quota(role, quota, force) => Some(OperatorRequest::SetQuota { role, quota, force }),
            Order::Weight(role, weight) => Some(OperatorRequest::SetWeight { role, weight }),
            Order::Reserve(agent, resources, role) => id(agent).map(|agent_id| OperatorRequest::Reserve {
                agent_id,
                resources: resources.parse().expect("resources"),
                reservation: reservation(&role),
            }),
            Order::Unreserve(agent) => {
                let id = id(agent);
                let mine = kernel.reservations().into_iter().find(|one| {
                    let own = one.reserved.stack.last().is_some_and(|innermost| !innermost.fixed);
                    Some(&one.agent_id) == id.as_ref() && own && one.used.is_empty()
                });
                mine.map(|one| OperatorRequest::Unreserve {
                    agent_id: one.agent_id,
                    resources: one.reserved.resources,
                    reservation: one.reserved.stack.last().cloned().unwrap_or_else(|| reservation(&one.role)),
                })
            }
            Order::CreateVolume(agent, role) => id(agent).map(|agent_id| OperatorRequest::CreateVolume {
                agent_id,
                volume_id: VolumeId::new(format!("op-{}", self.rng.random_range(0..4))).expect("an id"),
                size: Bytes::mib(64),
                reservation: reservation(&role),
            }),
            Order::DestroyVolume(agent) => self
                .a_volume(id(agent))
                .map(|(agent_id, volume_id)| OperatorRequest::DestroyVolume { agent_id, volume_id }),
            Order::ResizeVolume(agent, size) => self
                .a_volume(id(agent))
                .map(|(agent_id, volume_id)| OperatorRequest::ResizeVolume { agent_id, volume_id, size }),
            Order::Drain { agent, within, then_gone } => {
                id(agent).map(|agent_id| OperatorRequest::Drain { agent_id, within, then_gone })
            }
            Order::Deactivate(agent) => id(agent).map(OperatorRequest::Deactivate),
            Order::Reactivate(agent) => id(agent).map(OperatorRequest::Reactivate),
            Order::Maintain(windows) => {
                let now = self.master.shown(self.now);
                let window = |(agent, after, duration): (usize, Duration, Duration)| {
                    let window = Window { start: now + after, duration, reason: String::new() };
                    id(agent).map(|id| MaintenanceWindow { agents: vec![id], window })
                };
                Some(OperatorRequest::SetMaintenance(windows.into_iter().filter_map(window).collect()))
            }
        })
    }

    fn a_volume(&self, agent: Option<AgentId>) -> Option<(AgentId, VolumeId)> {
        let volumes = self.master.kernel.as_ref()?.volumes();
        let mine = volumes.into_iter().find(|volume| Some(&volume.agent_id) == agent.as_ref())?;
        Some((mine.agent_id, mine.volume.volume.id))
    }

    /// Everything that operators have ordered is undone, as far as it stands; whether anything was left to undo.
    pub fn undo_orders(&mut self) -> bool {
        let Some(kernel) = &self.master.kernel else { return true };
        let mut undone: Vec<Order> =
            kernel.quotas().into_iter().map(|one| Order::Quota(one.role, None, true)).collect();
        if !kernel.maintenance().is_empty() {
            undone.push(Order::Maintain(Vec::new()));
        }
        for (agent, node) in self.agents.iter().enumerate() {
            let Some(shown) = node.id().and_then(|id| kernel.agent(id)) else { continue };
            let is_ordered = shown.deactivated || (shown.drain.is_some() && shown.maintenance.is_none());
            if is_ordered && shown.state != AgentState::Gone {
                undone.push(Order::Reactivate(agent));
            }
            let own = |one: &&divvy_proto::reservation::Reserved| {
                one.stack.last().is_some_and(|inner| !inner.fixed)
            };
            if shown.reserved.iter().filter(own).count() > 0 && shown.tasks == 0 {
                undone.push(Order::Unreserve(agent));
            }
        }
        let any = !undone.is_empty();
        undone.into_iter().for_each(|order| self.send_operator(self.now, Errand::Order(order)));
        any
    }
}
