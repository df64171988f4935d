//! Task groups: tasks that run on one agent and share its network, ipc and fate.
//!
//! ```
//! use divvy_sdk::{Accept, Offer, TaskGroup, TaskSpec};
//! use divvy_sdk::proto::resources::Shortage;
//!
//! /// A server and what forwards its logs: they start together, and the forwarder may end without the server.
//! fn place(mut offer: Offer, server: TaskSpec, forwarder: TaskSpec) -> Result<Accept, Shortage> {
//!     let id = |text: String| text.parse().expect("a valid id");
//!     let name = format!("web.{}", offer.id());
//!     let group = TaskGroup::new(name.parse().expect("a valid id"), id(name.clone()), server)
//!         .with_helper(id(format!("{name}.logs")), forwarder);
//!     offer.take_group(&group)?;
//!     Ok(offer.accept())
//! }
//! ```

use std::collections::BTreeMap;

use divvy_proto::Invalid;
use divvy_proto::container::{ContainerInfo, GroupMember, Network};
use divvy_proto::ids::{TaskGroupId, TaskId};
use divvy_proto::resources::Shortage;

use crate::Offer;
use crate::offer::shortage;
use crate::task_spec::TaskSpec;

/// The label of a companion: the id of the task beside which it runs.
pub(crate) const COMPANION: &str = "divvy.companion";

/// A task group before it is known where it will run. All are on the network of its main task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskGroup {
    id: TaskGroupId,
    members: Vec<Member>,
}

#[derive(Debug, Clone, PartialEq)]
struct Member {
    id: TaskId,
    spec: TaskSpec,
    ends_alone: bool,
}

impl TaskGroup {
    /// A group with its main task. Its id is unique for the life of the framework, as the tasks' are.
    #[must_use]
    pub fn new(id: TaskGroupId, main: TaskId, spec: TaskSpec) -> Self {
        Self { id, members: vec![Member { id: main, spec, ends_alone: false }] }
    }

    /// A task with its companions.
    pub(crate) fn of(id: TaskId, spec: &TaskSpec) -> Result<Self, Shortage> {
        let invalid = |invalid: Invalid| shortage("id", invalid.expected, invalid.value);
        let mut group = Self::new(TaskGroupId::new(id.as_str()).map_err(invalid)?, id.clone(), spec.clone());
        for (name, companion) in &spec.companions {
            let mut companion = companion.clone();
            companion.labels.retain(|label, _| !label.starts_with("divvy."));
            companion.labels.insert(COMPANION.to_owned(), id.to_string());
            group = group.with(TaskId::new(format!("{id}.{name}")).map_err(invalid)?, companion);
        }
        Ok(group)
    }

    /// With another task: when one ends, all do.
    #[must_use]
    pub fn with(mut self, id: TaskId, spec: TaskSpec) -> Self {
        self.members.push(Member { id, spec, ends_alone: false });
        self
    }

    /// With a task that may end alone, and be launched again under another id by [`Offer::take_helper`].
    #[must_use]
    pub fn with_helper(mut self, id: TaskId, spec: TaskSpec) -> Self {
        self.members.push(Member { id, spec, ends_alone: true });
        self
    }

    /// Which group.
    #[must_use]
    pub const fn id(&self) -> &TaskGroupId {
        &self.id
    }

    fn spec(&self, spec: &TaskSpec, ends_alone: bool) -> TaskSpec {
        let size = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        let group = Some(GroupMember { id: self.id.clone(), size, ends_alone });
        let own = spec.container.as_deref().cloned().unwrap_or_default();
        let container = ContainerInfo { network: self.network(), group, ..own };
        TaskSpec { container: Some(Box::new(container)), companions: BTreeMap::new(), ..spec.clone() }
    }

    fn network(&self) -> Network {
        let main = self.members.first().and_then(|main| main.spec.container.as_ref());
        main.map(|container| container.network.clone()).unwrap_or_default()
    }
}

impl Offer {
    /// Takes the resources of all tasks of a group. They may use the same volumes.
    ///
    /// # Errors
    /// What remains is too little for all, and of what; nothing was taken.
    pub fn take_group(&mut self, group: &TaskGroup) -> Result<(), Shortage> {
        let (rest, taken) = (self.rest.clone(), self.taken.len());
        for Member { id, spec, ends_alone } in &group.members {
            if let Err(shortage) = self.take_one(id.clone(), &group.spec(spec, *ends_alone)) {
                self.rest = rest;
                self.taken.truncate(taken);
                return Err(shortage);
            }
        }
        Ok(())
    }

    /// Takes the resources of a task that ended alone, to be launched again, under a new id, while its group runs on the offer's
    /// agent.
    ///
    /// # Errors
    /// What remains is too little, and of what, or no task of the group had this id and may end alone; nothing was taken.
    pub fn take_helper(&mut self, group: &TaskGroup, before: &TaskId, id: TaskId) -> Result<(), Shortage> {
        let member = group.members.iter().find(|member| member.id == *before && member.ends_alone);
        let member = member.ok_or_else(|| shortage("helper", before, "none of this id"))?;
        self.take_one(id, &group.spec(&member.spec, true))
    }
}

#[cfg(test)]
mod tests {
    use divvy_proto::attributes::Attributes;
    use divvy_proto::ids::{AgentId, Hostname, OfferId};
    use divvy_proto::role::RolePath;
    use divvy_proto::scheduler::OfferInfo;

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

    fn id(text: &str) -> TaskId {
        text.parse().unwrap()
    }

    fn group() -> TaskGroup {
        let container = ContainerInfo { network: "bridge".parse().unwrap(), ..ContainerInfo::default() };
        let main = TaskSpec { container: Some(Box::new(container)), ..TaskSpec::shell("serve") };
        TaskGroup::new("g".parse().unwrap(), id("main"), main)
            .with_helper(id("helper"), TaskSpec::shell("help"))
    }

    /// The tasks that were taken: id, network, size of the group, and whether it ends alone.
    fn taken(offer: &Offer) -> Vec<(&str, String, u32, bool)> {
        let shown = offer.taken().iter().filter_map(|task| {
            let container = task.container.as_ref()?;
            let group = container.group.as_ref()?;
            Some((task.id.as_str(), container.network.to_string(), group.size, group.ends_alone))
        });
        shown.collect()
    }

    #[test]
    fn a_group_is_taken_as_a_whole_or_not_at_all() {
        let mut enough = offer("cpus=1;mem=128MiB");
        enough.take_group(&group()).unwrap();
        let bridge = || "bridge".to_owned();
        assert_eq!(taken(&enough), [("main", bridge(), 2, false), ("helper", bridge(), 2, true)]);
        assert_eq!(*enough.remaining(), "cpus=0.8;mem=64MiB".parse().unwrap());

        let mut little = offer("cpus=1;mem=32MiB");
        little.take_group(&group()).unwrap_err();
        assert_eq!((taken(&little), little.remaining()), (vec![], &"cpus=1;mem=32MiB".parse().unwrap()));
    }

    #[test]
    fn a_task_is_taken_with_its_companions() {
        let mut spec = TaskSpec::shell("serve").port("http");
        spec.companions = [("logs".to_owned(), TaskSpec::shell("forward").port("admin"))].into();
        let mut offer = offer("cpus=1;mem=128MiB;ports=[31000-31001]");
        assert_eq!((offer.fits(&spec), offer.room_for(&spec, 5)), (true, 1));
        assert_eq!(offer.take(id("web"), &spec).unwrap().id, id("web"));
        let host = || "host".to_owned();
        assert_eq!(taken(&offer), [("web", host(), 2, false), ("web.logs", host(), 2, false)]);
        assert_eq!(offer.taken()[1].labels, [(COMPANION.to_owned(), "web".to_owned())].into());
        assert_eq!(*offer.remaining(), "cpus=0.8;mem=64MiB".parse().unwrap());
        assert!(!offer.fits(&spec), "there are no ports left");
    }

    #[test]
    fn a_helper_comes_again_and_nobody_else_does() {
        let mut offer = offer("cpus=1;mem=128MiB");
        offer.take_helper(&group(), &id("main"), id("main-2")).unwrap_err();
        offer.take_helper(&group(), &id("helper"), id("helper-2")).unwrap();
        assert_eq!(taken(&offer), [("helper-2", "bridge".to_owned(), 2, true)]);
    }
}
