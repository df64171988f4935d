//! The bounds of an update, at every moment of a calm history: enough instances are published, none of them has been told to stop, and
//! never too many run.

use std::collections::BTreeSet;

use divvy_agent::container::ContainerId;
use divvy_service::planner::spec::AppId;

use crate::framework::{AnyDriver, SERVICE};
use crate::script::SHOP;
use crate::world::World;

/// What is remembered for these checks.
#[derive(Debug, Default)]
pub struct Bounds {
    /// All instances were there once; from then on the bounds hold.
    complete: bool,
    /// Tasks whose agent was told to stop them.
    told_to_stop: BTreeSet<String>,
}

impl World {
    pub fn told_to_stop(&mut self, agent: usize, container: &ContainerId) {
        let known = self.agents[agent].containers.get(container);
        let task = known.and_then(|container| container.spec.env.get("DIVVY_TASK_ID"));
        self.truth.bounds.told_to_stop.extend(task.cloned());
        self.truth.stale = true;
    }

    pub fn check_bounds(&mut self) -> Result<(), String> {
        let Some(AnyDriver::Service(driver)) = &self.frameworks[self.current[SERVICE]].driver else {
            return Ok(());
        };
        let shop: AppId = SHOP.parse().expect("an app's name");
        let Some(published) = driver.scheduler().endpoints(&shop, driver.view()) else { return Ok(()) };
        let (instances, policy) = &self.nature.shop;
        let bounds = &mut self.truth.bounds;
        bounds.complete |= published.len() >= *instances as usize;
        if bounds.complete && published.len() < policy.min_healthy(*instances) as usize {
            return Err(format!("{} of the shop's {instances} are published; {policy:?}", published.len()));
        }
        if let Some(dying) = published.iter().find(|at| bounds.told_to_stop.contains(at.task.as_str())) {
            return Err(format!("{} is published, and was told to stop", dying.task));
        }
        let all = self.agents.iter().flat_map(|node| node.running());
        let running = all.filter(|spec| spec.env.get("APP").is_some_and(|app| app == SHOP)).count();
        if running > policy.max_total(*instances) as usize {
            return Err(format!("{running} tasks of the shop's {instances} run; {policy:?}"));
        }
        Ok(())
    }
}
