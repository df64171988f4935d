//! What may be done with an offer besides launching tasks on it: reservations and persistent volumes.
//!
//! They are done in the order in which they are asked for, before the launches of the same Accept, and count at once: what was
//! reserved can be made a volume of, and a volume that was made can be mounted, in the same breath.
//!
//! ```
//! use divvy_sdk::{Accept, Bytes, Offer, TaskSpec};
//! use divvy_sdk::proto::resources::{Resources, Shortage};
//! use divvy_sdk::proto::ids::VolumeId;
//!
//! /// Reserves disk, makes a volume of it, and launches a task that keeps its data there.
//! fn database(mut offer: Offer, data: VolumeId, spec: TaskSpec) -> Result<Accept, Shortage> {
//!     let size = Bytes::mib(64);
//!     let stack = offer.reserve(&Resources::new().with_disk(size))?;
//!     offer.create(data.clone(), size, &stack)?;
//!     Ok(offer.launch(&spec.volume(data, "data")))
//! }
//! ```

use std::collections::BTreeMap;

use divvy_proto::ids::{OperationId, VolumeId};
use divvy_proto::quantity::Bytes;
use divvy_proto::reservation::{Reservation, Reserved, Volume};
use divvy_proto::resources::{Resources, Shortage};
use divvy_proto::scheduler::Operation;

use crate::Offer;
use crate::offer::shortage;

impl Offer {
    /// Sets resources of it that are not reserved aside for its role. Answers the stack under which they then are.
    ///
    /// # Errors
    /// So much is not there, and of what; nothing was done.
    pub fn reserve(&mut self, resources: &Resources) -> Result<Vec<Reservation>, Shortage> {
        self.reserve_with(resources, &[], BTreeMap::new())
    }

    /// As [`Offer::reserve`], with labels, or refining resources that are reserved for a role above.
    ///
    /// # Errors
    /// So much is not there under these reservations, and of what; nothing was done.
    pub fn reserve_with(
        &mut self,
        resources: &Resources,
        refines: &[Reservation],
        labels: BTreeMap<String, String>,
    ) -> Result<Vec<Reservation>, Shortage> {
        match refines {
            [] => enough(&self.unreserved(), resources)?,
            _ => self.take_reserved(refines, resources)?,
        }
        let (role, principal) = (self.role().clone(), self.principal.clone());
        let own = Reservation { role, principal, labels: labels.clone(), fixed: false };
        let stack: Vec<Reservation> = refines.iter().cloned().chain([own]).collect();
        self.add_reserved(&stack, resources);
        let refines = refines.to_vec();
        self.operations.push(Operation::Reserve { id: None, resources: resources.clone(), refines, labels });
        Ok(stack)
    }

    /// Undoes the innermost reservation of resources under this stack.
    ///
    /// # Errors
    /// So much is not there under these reservations, and of what; nothing was done.
    pub fn unreserve(&mut self, resources: &Resources, stack: &[Reservation]) -> Result<(), Shortage> {
        self.take_reserved(stack, resources)?;
        if let [outer @ .., _] = stack
            && !outer.is_empty()
        {
            self.add_reserved(outer, resources);
        }
        let (resources, stack) = (resources.clone(), stack.to_vec());
        self.operations.push(Operation::Unreserve { id: None, resources, stack });
        Ok(())
    }

    /// Makes a persistent volume of disk under this stack. It can be mounted at once.
    ///
    /// # Errors
    /// So much disk is not there under these reservations, or a volume of this name is; nothing was done.
    pub fn create(&mut self, id: VolumeId, size: Bytes, stack: &[Reservation]) -> Result<(), Shortage> {
        if self.volumes().iter().any(|volume| volume.id == id) {
            return Err(shortage("volume", format!("a new one, {id}"), "one of this name"));
        }
        self.spend_disk(stack, size)?;
        let (principal, stack) = (self.principal.clone(), stack.to_vec());
        self.operations.push(Operation::Create {
            id: None,
            volume_id: id.clone(),
            size,
            stack: stack.clone(),
        });
        let created = divvy_proto::Timestamp(0);
        self.info.volumes.push(Volume { id, size, stack, principal, created });
        Ok(())
    }

    /// Removes a persistent volume and all that is in it. Its disk is reserved as it was before.
    ///
    /// # Errors
    /// There is no such volume in the offer, or a task that was taken uses it.
    pub fn destroy(&mut self, id: &VolumeId) -> Result<(), Shortage> {
        let volume = self.unused_volume(id)?;
        self.info.volumes.retain(|other| other.id != *id);
        self.regain_disk(&volume.stack, volume.size);
        self.operations.push(Operation::Destroy { id: None, volume_id: id.clone() });
        Ok(())
    }

    /// Makes a persistent volume larger, from disk under the volume's own reservations.
    ///
    /// # Errors
    /// There is no such volume in the offer, or not so much disk.
    pub fn grow(&mut self, id: &VolumeId, by: Bytes) -> Result<(), Shortage> {
        let volume = self.unused_volume(id)?;
        self.spend_disk(&volume.stack, by)?;
        self.resize(id, volume.size.bytes() + by.bytes());
        self.operations.push(Operation::Grow { id: None, volume_id: id.clone(), by });
        Ok(())
    }

    /// Makes a persistent volume smaller.
    ///
    /// # Errors
    /// There is no such volume in the offer, it is not larger than that, or a task that was taken uses it.
    pub fn shrink(&mut self, id: &VolumeId, by: Bytes) -> Result<(), Shortage> {
        let volume = self.unused_volume(id)?;
        if volume.size <= by {
            return Err(shortage("size", format!("more than {by}"), volume.size));
        }
        self.resize(id, volume.size.bytes() - by.bytes());
        self.regain_disk(&volume.stack, by);
        self.operations.push(Operation::Shrink { id: None, volume_id: id.clone(), by });
        Ok(())
    }

    /// Has the latest operation carry an id: what becomes of it is then seen by [`crate::View::operation`].
    pub fn tracked(&mut self, operation: OperationId) {
        use Operation::{Create, Destroy, Grow, Launch, LaunchGroup, LaunchOn, Reserve, Shrink, Unreserve};
        match self.operations.last_mut() {
            Some(
                Reserve { id, .. }
                | Unreserve { id, .. }
                | Create { id, .. }
                | Destroy { id, .. }
                | Grow { id, .. }
                | Shrink { id, .. },
            ) => *id = Some(operation),
            Some(Launch(_) | LaunchOn { .. } | LaunchGroup(_)) | None => {}
        }
    }

    /// What is not reserved, tasks that were taken not counted: they come after the operations.
    fn unreserved(&self) -> Resources {
        let reserved = self.info.reserved.iter();
        reserved.fold(self.info.resources.clone(), |rest, reserved| rest.saturating_sub(&reserved.resources))
    }

    fn take_reserved(&mut self, stack: &[Reservation], resources: &Resources) -> Result<(), Shortage> {
        let nothing = Resources::new();
        let found = self.info.reserved.iter_mut().find(|reserved| reserved.stack == stack);
        enough(found.as_ref().map_or(&nothing, |reserved| &reserved.resources), resources)?;
        if let Some(reserved) = found {
            reserved.resources = reserved.resources.saturating_sub(resources);
        }
        self.info.reserved.retain(|reserved| !reserved.resources.is_empty());
        Ok(())
    }

    fn add_reserved(&mut self, stack: &[Reservation], resources: &Resources) {
        match self.info.reserved.iter_mut().find(|reserved| reserved.stack == stack) {
            Some(reserved) => {
                if let Some(sum) = reserved.resources.checked_add(resources) {
                    reserved.resources = sum;
                }
            }
            None => self.info.reserved.push(Reserved { stack: stack.to_vec(), resources: resources.clone() }),
        }
    }

    /// Disk becomes part of a volume.
    fn spend_disk(&mut self, stack: &[Reservation], size: Bytes) -> Result<(), Shortage> {
        let disk = Resources::new().with_disk(size);
        enough(&self.rest, &disk)?;
        self.take_reserved(stack, &disk)?;
        self.rest = self.rest.saturating_sub(&disk);
        self.info.resources = self.info.resources.saturating_sub(&disk);
        Ok(())
    }

    fn regain_disk(&mut self, stack: &[Reservation], size: Bytes) {
        let disk = Resources::new().with_disk(size);
        self.add_reserved(stack, &disk);
        for all in [&mut self.rest, &mut self.info.resources] {
            if let Some(sum) = all.checked_add(&disk) {
                *all = sum;
            }
        }
    }

    fn resize(&mut self, id: &VolumeId, size: i64) {
        let volume = self.info.volumes.iter_mut().find(|volume| volume.id == *id);
        if let (Some(volume), Ok(size)) = (volume, Bytes::from_bytes(size)) {
            volume.size = size;
        }
    }

    fn unused_volume(&self, id: &VolumeId) -> Result<Volume, Shortage> {
        let found = self.volumes().iter().find(|volume| volume.id == *id);
        let volume = found.ok_or_else(|| shortage("volume", id, self.show_volumes()))?;
        match self.mounted().any(|mounted| mounted == id) {
            true => Err(shortage("volume", format!("{id}, unused"), "one that a task uses")),
            false => Ok(volume.clone()),
        }
    }
}

fn enough(available: &Resources, wanted: &Resources) -> Result<(), Shortage> {
    match available.shortage(wanted) {
        Some(shortage) => Err(shortage),
        None if available.contains(wanted) => Ok(()),
        None => Err(shortage("resources", wanted, available)),
    }
}

#[cfg(test)]
mod tests {
    use divvy_proto::ids::{AgentId, Hostname, OfferId};
    use divvy_proto::scheduler::OfferInfo;

    use super::*;
    use crate::TaskSpec;

    fn offer(resources: &str) -> Offer {
        Offer::new(OfferInfo {
            id: OfferId(7),
            agent_id: AgentId::new("a1").unwrap(),
            hostname: Hostname::new("host-1").unwrap(),
            attributes: divvy_proto::Attributes::default(),
            role: "eng/ads".parse().unwrap(),
            resources: resources.parse().unwrap(),
            reserved: Vec::new(),
            volumes: Vec::new(),
            revocable: false,
            unavailable: None,
            demand: None,
        })
    }

    fn data() -> VolumeId {
        VolumeId::new("data").unwrap()
    }

    fn resources(text: &str) -> Resources {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_reserved_becomes_a_volume_and_a_task_mounts_it_in_one_accept() {
        let mut offer = offer("cpus=1;mem=1GiB;disk=1GiB");
        let stack = offer.reserve(&resources("disk=512MiB")).unwrap();
        offer.tracked(OperationId::new("reserve-1").unwrap());
        offer.create(data(), Bytes::mib(256), &stack).unwrap();
        assert_eq!(*offer.remaining(), resources("cpus=1;mem=1GiB;disk=768MiB"));
        assert_eq!(
            offer.reserved(),
            [Reserved { stack: stack.clone(), resources: resources("disk=256MiB") }]
        );
        let accept = offer.launch(&TaskSpec::shell("true").volume(data(), "db"));
        assert_eq!(accept.launches().count(), 1);
        let id = |operation: &Operation| operation.id().map(ToString::to_string);
        assert_eq!(accept.operations().map(id).collect::<Vec<_>>(), [Some("reserve-1".to_owned()), None]);
    }

    #[test]
    fn nothing_is_spent_twice() {
        let mut offer = offer("cpus=2;mem=1GiB;disk=1GiB");
        let stack = offer.reserve(&resources("cpus=1;disk=512MiB")).unwrap();
        let told = |result: Result<(), Shortage>| result.unwrap_err().to_string();
        assert_eq!(told(offer.reserve(&resources("cpus=2")).map(drop)), "needs cpus=2, has 1");
        assert_eq!(told(offer.create(data(), Bytes::mib(600), &stack)), "needs disk=600MiB, has 512MiB");
        offer.create(data(), Bytes::mib(512), &stack).unwrap();
        assert!(told(offer.create(data(), Bytes::mib(1), &stack)).contains("a new one, data"));
        assert_eq!(told(offer.unreserve(&resources("disk=1MiB"), &stack)), "needs disk=1MiB, has 0B");
        let spec = TaskSpec::shell("true").volume(data(), "db");
        offer.take("t1".parse().unwrap(), &spec).unwrap();
        assert!(told(offer.destroy(&data())).contains("unused"));
        assert_eq!(
            offer.take("t2".parse().unwrap(), &spec).unwrap_err().to_string(),
            "needs volume=data, has none that is free"
        );
    }

    #[test]
    fn a_volume_changes_its_size_and_goes_and_its_disk_is_where_it_came_from() {
        let mut offer = offer("disk=1GiB");
        let stack = offer.reserve(&resources("disk=512MiB")).unwrap();
        offer.create(data(), Bytes::mib(128), &stack).unwrap();
        offer.grow(&data(), Bytes::mib(128)).unwrap();
        offer.shrink(&data(), Bytes::mib(192)).unwrap();
        assert_eq!(offer.volumes()[0].size, Bytes::mib(64));
        assert!(offer.shrink(&data(), Bytes::mib(64)).is_err());
        offer.destroy(&data()).unwrap();
        offer.unreserve(&resources("disk=512MiB"), &stack).unwrap();
        assert_eq!((offer.reserved(), offer.remaining()), (&[][..], &resources("disk=1GiB")));
    }

    #[test]
    fn a_refinement_is_of_what_is_reserved_above() {
        let mut offer = offer("cpus=4");
        let outer = Reservation {
            role: "eng".parse().unwrap(),
            principal: None,
            labels: BTreeMap::new(),
            fixed: true,
        };
        let outer = vec![outer];
        offer.info.reserved = vec![Reserved { stack: outer.clone(), resources: resources("cpus=2") }];
        let stack = offer.reserve_with(&resources("cpus=1"), &outer, BTreeMap::new()).unwrap();
        assert_eq!(stack.len(), 2);
        offer.unreserve(&resources("cpus=1"), &stack).unwrap();
        assert_eq!(offer.reserved(), [Reserved { stack: outer, resources: resources("cpus=2") }]);
    }
}
