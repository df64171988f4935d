//! Verbs about demand, reservations and volumes, for frameworks and for operators.

use std::collections::BTreeMap;

use divvy_proto::agent::AgentInfo;
use divvy_proto::demand::{Demand, DemandShape, Gang};
use divvy_proto::ids::{OfferId, OperationId};
use divvy_proto::reservation::{Reservation, VolumeMount};
use divvy_proto::role::RolePath;
use divvy_proto::scheduler::{CallBody, Filters, Operation};
use divvy_proto::task::TaskInfo;

use super::{AgentHandle, Cluster, FrameworkHandle, NO_FILTER, secs, task};
use crate::kernel::OperatorRequest;

/// A reservation that anybody made.
pub(in crate::kernel) fn reserved_for(role: &str) -> Reservation {
    Reservation { role: RolePath::new(role).unwrap(), principal: None, labels: BTreeMap::new(), fixed: false }
}

pub(in crate::kernel) fn fixed_for(role: &str) -> Reservation {
    Reservation { fixed: true, ..reserved_for(role) }
}

/// Reservations, the outermost first.
pub(in crate::kernel) fn stack(roles: &[&str]) -> Vec<Reservation> {
    roles.iter().map(|role| reserved_for(role)).collect()
}

fn operation_id(id: &str) -> Option<OperationId> {
    (!id.is_empty()).then(|| id.parse().unwrap())
}

pub(in crate::kernel) fn reserve(id: &str, resources: &str, refines: &[&str]) -> Operation {
    let (id, resources, refines) = (operation_id(id), resources.parse().unwrap(), stack(refines));
    Operation::Reserve { id, resources, refines, labels: BTreeMap::new() }
}

pub(in crate::kernel) fn unreserve(id: &str, resources: &str, under: &[&str]) -> Operation {
    Operation::Unreserve { id: operation_id(id), resources: resources.parse().unwrap(), stack: stack(under) }
}

pub(in crate::kernel) fn create(id: &str, volume: &str, size: &str, under: &[&str]) -> Operation {
    let (volume_id, size) = (volume.parse().unwrap(), size.parse().unwrap());
    Operation::Create { id: operation_id(id), volume_id, size, stack: stack(under) }
}

pub(in crate::kernel) fn destroy(id: &str, volume: &str) -> Operation {
    Operation::Destroy { id: operation_id(id), volume_id: volume.parse().unwrap() }
}

pub(in crate::kernel) fn grow(id: &str, volume: &str, by: &str) -> Operation {
    let (volume_id, by) = (volume.parse().unwrap(), by.parse().unwrap());
    Operation::Grow { id: operation_id(id), volume_id, by }
}

pub(in crate::kernel) fn shrink(id: &str, volume: &str, by: &str) -> Operation {
    let (volume_id, by) = (volume.parse().unwrap(), by.parse().unwrap());
    Operation::Shrink { id: operation_id(id), volume_id, by }
}

pub(in crate::kernel) fn launch(tasks: &[(&str, &str)]) -> Operation {
    Operation::Launch(tasks.iter().map(|(id, resources)| task(id, resources)).collect())
}

/// A task that sees a volume.
pub(in crate::kernel) fn task_with(id: &str, resources: &str, volume: &str) -> TaskInfo {
    let mount = VolumeMount { id: volume.parse().unwrap(), path: "data".to_owned(), read_only: false };
    TaskInfo { volumes: vec![mount], ..task(id, resources) }
}

/// So many of one shape, by its name, with these resources.
pub(in crate::kernel) fn shape(name: &str, resources: &str, count: u32) -> DemandShape {
    DemandShape {
        name: name.to_owned(),
        resources: resources.parse().unwrap(),
        ports: 0,
        count,
        constraint: None,
        preference: Default::default(),
    }
}

impl Cluster {
    /// Accepts everything that the framework holds, with these operations. What is left comes back at once.
    pub(in crate::kernel) fn accept_with(&mut self, framework: FrameworkHandle, operations: Vec<Operation>) {
        let offers = self.held(framework);
        self.frameworks[framework.0].offers.clear();
        self.call(framework, CallBody::Accept { offers, operations, filters: NO_FILTER });
    }

    /// The same, and what is left does not come back.
    pub(in crate::kernel) fn accept_and_refuse(
        &mut self,
        framework: FrameworkHandle,
        operations: Vec<Operation>,
    ) {
        let offers = self.held(framework);
        self.frameworks[framework.0].offers.clear();
        let filters = Filters { refuse: secs(1_000_000) };
        self.call(framework, CallBody::Accept { offers, operations, filters });
    }

    /// Accepts these offers with these operations.
    pub(in crate::kernel) fn accept_these(
        &mut self,
        framework: FrameworkHandle,
        offers: Vec<OfferId>,
        operations: Vec<Operation>,
    ) {
        self.frameworks[framework.0].offers.retain(|id, _| !offers.contains(id));
        self.call(framework, CallBody::Accept { offers, operations, filters: NO_FILTER });
    }

    /// What the agent will say of itself.
    pub(in crate::kernel) fn info_of(&mut self, agent: AgentHandle) -> &mut AgentInfo {
        &mut self.agents[agent.0].info
    }

    /// Launches on several agents: on each these tasks.
    pub(in crate::kernel) fn launch_gang(
        &mut self,
        framework: FrameworkHandle,
        tasks: &[(AgentHandle, &str, &str)],
    ) {
        let on = |(agent, id, resources): &(AgentHandle, &str, &str)| Operation::LaunchOn {
            agent_id: self.agent_id(*agent),
            tasks: vec![task(id, resources)],
        };
        let operations = tasks.iter().map(on).collect();
        self.accept_with(framework, operations);
    }

    pub(in crate::kernel) fn demand(
        &mut self,
        framework: FrameworkHandle,
        role: &str,
        shapes: Vec<DemandShape>,
    ) {
        let demand = Demand { shapes, gang: None };
        self.call(framework, CallBody::Demand { role: role.parse().unwrap(), demand });
    }

    pub(in crate::kernel) fn demand_gang(
        &mut self,
        framework: FrameworkHandle,
        role: &str,
        shapes: Vec<DemandShape>,
        hold: u64,
    ) {
        let demand = Demand { shapes, gang: Some(Gang { hold: secs(hold) }) };
        self.call(framework, CallBody::Demand { role: role.parse().unwrap(), demand });
    }

    /// An operator reserves for a role.
    pub(in crate::kernel) fn reserve(&mut self, agent: AgentHandle, role: &str, resources: &str) {
        let (agent_id, resources) = (self.agent_id(agent), resources.parse().unwrap());
        self.operator(OperatorRequest::Reserve { agent_id, resources, reservation: reserved_for(role) });
    }

    pub(in crate::kernel) fn unreserve(&mut self, agent: AgentHandle, role: &str, resources: &str) {
        let (agent_id, resources) = (self.agent_id(agent), resources.parse().unwrap());
        self.operator(OperatorRequest::Unreserve { agent_id, resources, reservation: reserved_for(role) });
    }

    pub(in crate::kernel) fn create_volume(&mut self, agent: AgentHandle, role: &str, id: &str, size: &str) {
        let (agent_id, volume_id, size) = (self.agent_id(agent), id.parse().unwrap(), size.parse().unwrap());
        let reservation = reserved_for(role);
        self.operator(OperatorRequest::CreateVolume { agent_id, volume_id, size, reservation });
    }

    pub(in crate::kernel) fn destroy_volume(&mut self, agent: AgentHandle, id: &str) {
        let (agent_id, volume_id) = (self.agent_id(agent), id.parse().unwrap());
        self.operator(OperatorRequest::DestroyVolume { agent_id, volume_id });
    }

    pub(in crate::kernel) fn resize_volume(&mut self, agent: AgentHandle, id: &str, size: &str) {
        let (agent_id, volume_id, size) = (self.agent_id(agent), id.parse().unwrap(), size.parse().unwrap());
        self.operator(OperatorRequest::ResizeVolume { agent_id, volume_id, size });
    }

    /// The master ends, and everybody finds the next one.
    pub(in crate::kernel) fn fail_over_and_return(&mut self) {
        self.fail_over();
        (0..self.agents.len()).for_each(|agent| self.connect(AgentHandle(agent)));
        (0..self.frameworks.len()).for_each(|framework| self.subscribe(FrameworkHandle(framework)));
    }

    /// Where a task's resources come from, as its agent was told: `eng: cpus=1`, `unreserved` where all does.
    pub(in crate::kernel) fn allocation(&self, agent: AgentHandle, task: &str) -> String {
        let known = self.agents[agent.0].tasks.values().find(|known| known.info.id.as_str() == task).unwrap();
        let pieces: Vec<String> = known.allocation.reserved.iter().map(super::show::show_reserved).collect();
        if pieces.is_empty() { "unreserved".to_owned() } else { pieces.join(", ") }
    }

    /// All that is reserved, and how much of it tasks hold, one line a reservation.
    pub(in crate::kernel) fn reservations(&self) -> Vec<String> {
        let show = |view: divvy_proto::api::ReservationView| {
            let orphan = if view.orphan { ", an orphan" } else { "" };
            let used = if view.used.is_empty() { String::new() } else { format!(", {} used", view.used) };
            format!("{} of {}{used}{orphan}", super::show::show_reserved(&view.reserved), view.agent_id)
        };
        self.kernel.reservations().into_iter().map(show).collect()
    }

    pub(in crate::kernel) fn volumes(&self) -> Vec<String> {
        let show = |view: divvy_proto::api::AgentVolume| {
            let orphan = if view.orphan { ", an orphan" } else { "" };
            let used: String = view.volume.used_by.iter().map(|by| format!(", used by {by}")).collect();
            let volume = super::show::show_volume(&view.volume.volume);
            format!("{volume} of {} for {}{used}{orphan}", view.agent_id, view.role)
        };
        self.kernel.volumes().into_iter().map(show).collect()
    }
}
