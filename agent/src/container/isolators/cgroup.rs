//! Limits on processor time, memory and processes: one cgroup per container, which is all that it sees of cgroups.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::{Host, Isolator, step, step_on};
use crate::container::cgroup::{Group, Limits, Unsupported};
use crate::container::plan::{Plan, Record};
use crate::container::spec::{ContainerId, ContainerSpec};
use crate::container::{LaunchError, RuntimeError};

pub(super) struct Cgroup;

impl Isolator for Cgroup {
    fn check(&self, host: &Host, spec: &ContainerSpec) -> Result<(), LaunchError> {
        host.cgroups.check(&Limits::of(spec)).map_err(refused)
    }

    fn prepare(&self, host: &Host, _record: &Record, plan: &mut Plan) -> Result<(), LaunchError> {
        let created = host.cgroups.create(&plan.group, &Limits::of(&plan.spec));
        created.map_err(step(format!("limit container {}", plan.spec.id)))?;
        plan.entrance = host.cgroups.entrance(&plan.group);
        Ok(())
    }

    fn isolate(&self, plan: &Plan) -> Result<(), LaunchError> {
        plan.entrance.join().map_err(step("join the container's cgroup"))?;
        // The namespace has its root where its maker stands, so it is made inside.
        unshare(CloneFlags::CLONE_NEWCGROUP).map_err(step("make a cgroup namespace"))?;
        for (own, tree) in &plan.entrance.views {
            let bound = mount(Some(own), tree, None::<&str>, MsFlags::MS_BIND, None::<&str>);
            bound.map_err(step_on("show only its own cgroup in", tree))?;
        }
        Ok(())
    }

    fn update(&self, host: &Host, spec: &ContainerSpec) -> Result<(), RuntimeError> {
        let group = Group::new(&host.config.cgroup_parent, spec.id.as_str());
        let updated = host.cgroups.update(&group, &Limits::of(spec));
        updated.map_err(|error| RuntimeError::Cgroup { id: spec.id.clone(), why: error.to_string() })
    }

    fn cleanup(&self, host: &Host, _record: &Record, id: &ContainerId) -> Result<(), RuntimeError> {
        let group = Group::new(&host.config.cgroup_parent, id.as_str());
        let removed = host.cgroups.remove(&group);
        removed.map_err(|error| RuntimeError::Cgroup { id: id.clone(), why: error.to_string() })
    }
}

fn refused(Unsupported { field, value, why }: Unsupported) -> LaunchError {
    LaunchError::Spec { field: field.to_owned(), value, why }
}
