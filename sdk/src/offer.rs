//! Offers: what may be used, once.
//!
//! ```compile_fail
//! fn spend_twice(offer: divvy_sdk::Offer, spec: &divvy_sdk::TaskSpec) {
//!     let first = offer.launch(spec);
//!     let second = offer.launch(spec); // the offer has been moved
//! }
//! ```

use divvy_proto::attributes::Attributes;
use divvy_proto::container::ContainerInfo;
use divvy_proto::demand::OfferedDemand;
use divvy_proto::ids::{AgentId, Hostname, OfferId, Principal, TaskId, VolumeId};
use divvy_proto::predicate::AgentFacts;
use divvy_proto::ranges::RangeSet;
use divvy_proto::reservation::{Reserved, Volume};
use divvy_proto::resources::{Resources, Shortage};
use divvy_proto::role::RolePath;
use divvy_proto::scheduler::{OfferInfo, Operation};
use divvy_proto::task::{HealthCheck, Probe, TaskInfo, TaskPort};
use divvy_proto::time::Timestamp;

use crate::accept::{Accept, Part};
use crate::group::TaskGroup;
use crate::task_spec::{HealthSpec, PortRequest, ProbeSpec, TaskSpec};

/// Resources of one agent that may be used now. Not `Clone`: what is taken from it is gone, and what is left when it is dropped
/// is declined.
#[derive(Debug, PartialEq)]
pub struct Offer {
    /// What is in it, as the operations have left it.
    pub(crate) info: OfferInfo,
    /// Whose reservations are made.
    pub(crate) principal: Option<Principal>,
    pub(crate) operations: Vec<Operation>,
    pub(crate) rest: Resources,
    pub(crate) taken: Vec<TaskInfo>,
}

impl Offer {
    /// An offer as the master sent it.
    #[must_use]
    pub fn new(info: OfferInfo) -> Self {
        let (operations, taken) = (Vec::new(), Vec::new());
        Self { rest: info.resources.clone(), info, principal: None, operations, taken }
    }

    /// With the framework's principal, in whose name reservations are made.
    pub(crate) fn by(self, principal: Option<Principal>) -> Self {
        Self { principal, ..self }
    }

    /// Names it.
    #[must_use]
    pub fn id(&self) -> OfferId {
        self.info.id
    }

    /// Whose resources.
    #[must_use]
    pub fn agent_id(&self) -> &AgentId {
        &self.info.agent_id
    }

    /// The agent's machine.
    #[must_use]
    pub fn hostname(&self) -> &Hostname {
        &self.info.hostname
    }

    /// The agent's attributes, without `hostname`.
    #[must_use]
    pub fn attributes(&self) -> &Attributes {
        &self.info.attributes
    }

    /// In which role.
    #[must_use]
    pub fn role(&self) -> &RolePath {
        &self.info.role
    }

    /// What has not been taken yet.
    #[must_use]
    pub fn remaining(&self) -> &Resources {
        &self.rest
    }

    /// Tasks that were taken from it so far.
    #[must_use]
    pub fn taken(&self) -> &[TaskInfo] {
        &self.taken
    }

    /// How much of it is reserved, and under what. Tasks take from the reserved first.
    #[must_use]
    pub fn reserved(&self) -> &[Reserved] {
        &self.info.reserved
    }

    /// Persistent volumes of its role on its agent that no task used when it was made.
    #[must_use]
    pub fn volumes(&self) -> &[Volume] {
        &self.info.volumes
    }

    /// For which demand it was made, and how many of its shape it holds; `None` for a classic offer.
    #[must_use]
    pub fn demand(&self) -> Option<&OfferedDemand> {
        self.info.demand.as_ref()
    }

    /// Whether all of it may be taken back at any time.
    #[must_use]
    pub fn is_revocable(&self) -> bool {
        self.info.revocable
    }

    /// From when on its agent is to be maintained, if that is planned.
    #[must_use]
    pub fn unavailable(&self) -> Option<Timestamp> {
        self.info.unavailable
    }

    /// Volumes that tasks which were taken use.
    pub(crate) fn mounted(&self) -> impl Iterator<Item = &VolumeId> {
        self.taken.iter().flat_map(|task| &task.volumes).map(|mount| &mount.id)
    }

    pub(crate) fn show_volumes(&self) -> String {
        let free = self.volumes().iter().filter(|volume| !self.mounted().any(|id| *id == volume.id));
        let free: Vec<&str> = free.map(|volume| volume.id.as_str()).collect();
        if free.is_empty() { "none that is free".to_owned() } else { free.join(", ") }
    }

    /// Whether the task can be taken from what remains.
    #[must_use]
    pub fn fits(&self, spec: &TaskSpec) -> bool {
        self.assign(spec).is_ok()
    }

    /// How often the task can be taken from what remains, up to `most`.
    #[must_use]
    pub fn room_for(&self, spec: &TaskSpec, most: u32) -> u32 {
        let Ok((mut one, _)) = self.assign(spec) else { return 0 };
        let (mut rest, mut room) = (self.rest.clone(), 0);
        while room < most {
            let Some(less) = rest.checked_sub(&one) else { break };
            (rest, room) = (less, room + 1);
            match assign(&rest, spec) {
                Ok((next, _)) if spec.volumes.is_empty() => one = next,
                _ => break,
            }
        }
        room
    }

    /// Takes a task's resources, ports assigned, under an id of the framework's own; with it go those of its companions.
    ///
    /// # Errors
    /// What remains is too little, and of what; nothing was taken.
    pub fn take(&mut self, id: TaskId, spec: &TaskSpec) -> Result<&TaskInfo, Shortage> {
        let at = self.taken.len();
        match spec.companions.is_empty() {
            true => self.take_one(id, spec)?,
            false => self.take_group(&TaskGroup::of(id, spec)?)?,
        }
        self.taken.get(at).ok_or_else(|| shortage("tasks", "1", "0"))
    }

    pub(crate) fn take_one(&mut self, id: TaskId, spec: &TaskSpec) -> Result<(), Shortage> {
        let (resources, ports) = self.assign(spec)?;
        let rest = self.rest.checked_sub(&resources);
        self.rest = rest.ok_or_else(|| shortage("resources", &resources, &self.rest))?;
        self.taken.push(task_info(id, spec, resources, ports));
        Ok(())
    }

    /// Launches one task under an id that is made from the offer's, and declines the rest. If it does not fit, all is declined.
    #[must_use]
    pub fn launch(mut self, spec: &TaskSpec) -> Accept {
        let _ = self.take_next(spec);
        self.accept()
    }

    /// As [`Offer::take`], under an id that is made from the offer's.
    ///
    /// # Errors
    /// What remains is too little, and of what; nothing was taken.
    pub fn take_next(&mut self, spec: &TaskSpec) -> Result<&TaskInfo, Shortage> {
        let name: String =
            spec.name.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')).collect();
        let id = format!("{}.{}.{}", name, self.id(), self.taken.len());
        let id = TaskId::new(id).map_err(|invalid| shortage("name", invalid.expected, &spec.name))?;
        self.take(id, spec)
    }

    /// Launches what was taken, and declines the rest.
    #[must_use]
    pub fn accept(self) -> Accept {
        let OfferInfo { id: offer, agent_id, hostname, .. } = self.info;
        Accept {
            parts: vec![Part { offer, agent_id, hostname, operations: self.operations, tasks: self.taken }],
        }
    }

    fn assign(&self, spec: &TaskSpec) -> Result<(Resources, Vec<TaskPort>), Shortage> {
        let facts =
            AgentFacts { id: self.agent_id(), hostname: self.hostname(), attributes: self.attributes() };
        if let Some(clause) = spec.constraint.as_ref().and_then(|constraint| constraint.first_failing(&facts))
        {
            return Err(shortage("constraint", clause, self.hostname()));
        }
        let group =
            |container: &Option<Box<ContainerInfo>>| Some(container.as_ref()?.group.as_ref()?.id.clone());
        let own = group(&spec.container);
        let others = self.taken.iter().filter(|task| own.is_none() || group(&task.container) != own);
        let mounted: Vec<_> = others.flat_map(|task| &task.volumes).map(|mount| &mount.id).collect();
        let free =
            |id: &VolumeId| self.volumes().iter().any(|volume| volume.id == *id) && !mounted.contains(&id);
        if let Some(role) = spec.role.as_ref().filter(|role| *role != self.role()) {
            return Err(shortage("role", role, self.role()));
        }
        if let Some(missing) = spec.whole().volumes.iter().find(|mount| !free(&mount.id)) {
            return Err(shortage("volume", &missing.id, self.show_volumes()));
        }
        assign(&self.rest, spec)
    }
}

/// What the task would be charged with here, with its ports in the order of the spec.
pub(crate) fn assign(rest: &Resources, spec: &TaskSpec) -> Result<(Resources, Vec<TaskPort>), Shortage> {
    let spec = &*spec.whole();
    let scalars = Resources::new().with_cpus(spec.cpus).with_mem(spec.mem).with_disk(spec.disk);
    if let Some(shortage) = rest.shortage(&scalars) {
        return Err(shortage);
    }
    let fixed = spec.ports.iter().filter_map(|port| port.number).map(|number| (number.into(), number.into()));
    let fixed = RangeSet::from_ranges(fixed);
    if !rest.ports().contains(&fixed) {
        return Err(shortage("ports", &fixed, rest.ports()));
    }
    let free = rest.ports().difference(&fixed);
    let dynamic = spec.ports.iter().filter(|port| port.number.is_none()).count();
    let chosen = free.take_lowest(dynamic).ok_or_else(|| shortage("ports", dynamic, free.count()))?;
    let mut numbers = chosen.iter().filter_map(|number| u16::try_from(number).ok());
    let numbered = |port: &PortRequest| {
        let number = port.number.or_else(|| numbers.next())?;
        Some(TaskPort { name: port.name.clone(), number, container: port.container })
    };
    let ports = spec.ports.iter().filter_map(numbered).collect();
    Ok((scalars.with_ports(fixed.union(&chosen)), ports))
}

pub(crate) fn shortage(dimension: &str, wanted: impl ToString, available: impl ToString) -> Shortage {
    Shortage { dimension: dimension.to_owned(), wanted: wanted.to_string(), available: available.to_string() }
}

fn task_info(id: TaskId, spec: &TaskSpec, resources: Resources, ports: Vec<TaskPort>) -> TaskInfo {
    let health = spec.health.iter().filter_map(|check| health_check(check, &ports)).collect();
    TaskInfo {
        id,
        name: spec.name.clone(),
        command: spec.command.clone(),
        resources,
        cpu_limit: spec.cpu_limit,
        pids_limit: spec.pids_limit,
        ports,
        env: spec.env.clone(),
        user: spec.user.clone(),
        artifacts: spec.artifacts.clone(),
        health,
        kill_grace: spec.kill_grace,
        labels: spec.labels.clone(),
        priority: spec.priority,
        volumes: spec.volumes.clone(),
        container: spec.container.clone(),
    }
}

/// A check whose port is not among the task's cannot be made; [`TaskSpec`]s read from files never have one.
fn health_check(check: &HealthSpec, ports: &[TaskPort]) -> Option<HealthCheck> {
    let number = |name: &str| ports.iter().find(|port| port.name == name).map(|port| port.number);
    let probe = match &check.probe {
        ProbeSpec::Http { port, path } => Probe::Http { port: number(port)?, path: path.clone() },
        ProbeSpec::Https { port, path } => Probe::Https { port: number(port)?, path: path.clone() },
        ProbeSpec::Grpc { port, service } => Probe::Grpc { port: number(port)?, service: service.clone() },
        ProbeSpec::Tcp { port } => Probe::Tcp { port: number(port)? },
        ProbeSpec::Command(command) => Probe::Command(command.clone()),
    };
    let HealthSpec { interval, timeout, grace, failures, .. } = *check;
    Some(HealthCheck { probe, interval, timeout, grace, failures })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use divvy_proto::{Bytes, Cpus};
    use proptest::prelude::*;

    use super::*;

    fn offer(resources: &str) -> Offer {
        Offer::new(OfferInfo {
            id: OfferId(7),
            agent_id: AgentId::new("a1").unwrap(),
            hostname: Hostname::new("host-1").unwrap(),
            attributes: Attributes::default(),
            role: RolePath::default(),
            resources: resources.parse().unwrap(),
            reserved: Vec::new(),
            volumes: Vec::new(),
            revocable: false,
            unavailable: None,
            demand: None,
        })
    }

    fn id(number: usize) -> TaskId {
        TaskId::new(format!("t{number}")).unwrap()
    }

    #[test]
    fn what_is_taken_is_charged_and_gone() {
        let mut offer = offer("cpus=1;mem=64MiB;ports=[31000-31002]");
        let spec = TaskSpec::shell("true").port("http").port("admin");
        let task = offer.take(id(1), &spec).unwrap();
        assert_eq!(task.resources, "cpus=0.1;mem=32MiB;ports=[31000-31001]".parse().unwrap());
        let ports = [("http", 31_000), ("admin", 31_001)];
        assert_eq!(
            task.ports,
            ports.map(|(name, number)| TaskPort { name: name.into(), number, container: None })
        );
        assert_eq!(*offer.remaining(), "cpus=0.9;mem=32MiB;ports=[31002]".parse().unwrap());

        let shortage = offer.take(id(2), &spec).unwrap_err();
        assert_eq!(shortage.to_string(), "needs ports=2, has 1");
        assert_eq!(*offer.remaining(), "cpus=0.9;mem=32MiB;ports=[31002]".parse().unwrap());
        assert_eq!(offer.accept().launches().count(), 1);
    }

    #[test]
    fn room_is_how_often_a_task_can_be_taken() {
        let spec = TaskSpec::shell("true").port("http");
        for (resources, most, expected) in [
            ("cpus=1;mem=1GiB;ports=[31000-31002]", 9, 3),
            ("cpus=1;mem=1GiB;ports=[31000-31009]", 2, 2),
            ("cpus=0.25;mem=1GiB;ports=[31000-31009]", 9, 2),
            ("cpus=1;mem=1GiB", 9, 0),
        ] {
            let mut offer = offer(resources);
            let room = offer.room_for(&spec, most);
            let taken = (0..most).filter(|number| offer.take(id(*number as usize), &spec).is_ok()).count();
            assert_eq!((room, taken), (expected, expected as usize), "{resources}");
        }
    }

    #[test]
    fn a_fixed_port_is_that_port_or_none() {
        let spec = |number| {
            let mut spec = TaskSpec::shell("true").port("http").port("fixed");
            spec.ports[1].number = Some(number);
            spec
        };
        let mut offer = offer("cpus=1;mem=1GiB;ports=[8000-8001,9000]");
        let task = offer.take(id(1), &spec(8000)).unwrap();
        assert_eq!(task.ports.iter().map(|port| port.number).collect::<Vec<_>>(), [8001, 8000]);
        assert_eq!(offer.take(id(2), &spec(8000)).unwrap_err().to_string(), "needs ports=[8000], has [9000]");
    }

    #[test]
    fn a_check_asks_the_port_that_was_assigned() {
        let check = HealthSpec {
            probe: ProbeSpec::Tcp { port: "http".into() },
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            grace: Duration::ZERO,
            failures: 1,
        };
        let spec = TaskSpec { health: vec![check], ..TaskSpec::shell("true").port("http") };
        let mut offer = offer("cpus=1;mem=1GiB;ports=[31005]");
        assert_eq!(offer.take(id(1), &spec).unwrap().health[0].probe, Probe::Tcp { port: 31_005 });
    }

    #[test]
    fn launch_makes_an_id_that_no_other_launch_has() {
        let accept = offer("cpus=1;mem=1GiB").launch(&TaskSpec::shell("true").named("my web/1"));
        assert_eq!(accept.launches().next().unwrap().task.id.as_str(), "myweb1.o0-7.0");
        assert_eq!(offer("cpus=0.05;mem=1GiB").launch(&TaskSpec::shell("true")).launches().count(), 0);
    }

    /// What an offer is, said in the simplest way: counters and a set of ports.
    #[derive(Debug)]
    struct Naive {
        cpus: i64,
        mem: u32,
        ports: BTreeSet<u32>,
    }

    impl Naive {
        fn take(&mut self, cpus: i64, mem: u32, dynamic: usize, fixed: Option<u16>) -> bool {
            let mut ports = self.ports.clone();
            let has_fixed = fixed.is_none_or(|port| ports.remove(&port.into()));
            if cpus > self.cpus || mem > self.mem || !has_fixed || ports.len() < dynamic {
                return false;
            }
            let ports: BTreeSet<u32> = ports.into_iter().skip(dynamic).collect();
            (self.cpus, self.mem, self.ports) = (self.cpus - cpus, self.mem - mem, ports);
            true
        }
    }

    proptest! {
        #[test]
        fn arithmetic_is_that_of_counters_and_sets(
            wants in prop::collection::vec((0..900_i64, 0..40_u32, 0..3_usize, prop::option::of(31_000..31_012_u16)), 1..20),
        ) {
            let mut offer = offer("cpus=2;mem=128MiB;ports=[31000-31009]");
            let mut naive = Naive { cpus: 2000, mem: 128, ports: (31_000..=31_009).collect() };
            for (number, (cpus, mem, dynamic, fixed)) in wants.into_iter().enumerate() {
                let mut spec = TaskSpec::shell("true").cpus(Cpus::from_millis(cpus).unwrap()).mem(Bytes::mib(mem));
                spec = (0..dynamic).fold(spec, |spec, port| spec.port(format!("p{port}")));
                spec.ports.extend(fixed.map(|number| PortRequest { name: "fixed".into(), number: Some(number), container: None }));
                let fits = offer.fits(&spec);
                prop_assert_eq!(fits, naive.take(cpus, mem, dynamic, fixed));
                prop_assert_eq!(offer.take(id(number), &spec).is_ok(), fits);
                let ports: BTreeSet<u32> = offer.remaining().ports().iter().collect();
                prop_assert_eq!((offer.remaining().cpus().millis(), offer.remaining().mem()), (naive.cpus, Bytes::mib(naive.mem)));
                prop_assert_eq!(&ports, &naive.ports);
            }
            // Together the tasks have what the offer had, each port once.
            let taken = offer.taken().iter().try_fold(offer.remaining().clone(), |sum, task| sum.checked_add(&task.resources));
            prop_assert_eq!(taken, "cpus=2;mem=128MiB;ports=[31000-31009]".parse().ok());
        }
    }
}
