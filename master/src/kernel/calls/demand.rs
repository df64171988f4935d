//! Demand: what a framework wants in a role. It lives as long as the framework's connection: whoever connects again states it
//! again, as it knows best what it still wants (the SDK's driver does). To get no classic offers before that, a framework
//! subscribes with the role suppressed.

use std::collections::BTreeSet;
use std::time::Duration;

use divvy_proto::Invalid;
use divvy_proto::demand::Demand;
use divvy_proto::ids::FrameworkId;
use divvy_proto::role::RolePath;
use divvy_proto::scheduler::Refusal;
use divvy_proto::time::Timestamp;

use crate::kernel::Kernel;
use crate::kernel::allocator::Wish;

/// Most shapes of one demand.
const MOST_SHAPES: usize = 256;
/// Longest name of a shape, in bytes.
const LONGEST_NAME: usize = 255;
/// Most pieces of a gang: they are kept for it while it is gathered.
const MOST_OF_A_GANG: u64 = 10_000;
/// Longest that a gang's pieces are kept.
const LONGEST_HOLD: Duration = Duration::from_secs(3600);

impl Kernel {
    /// Wants this in the role from here on, and nothing else. What is on offer stays so, and counts towards it.
    pub(super) fn demand(
        &mut self,
        now: Timestamp,
        id: &FrameworkId,
        role: RolePath,
        mut demand: Demand,
    ) -> Result<(), Refusal> {
        let Some(framework) = self.frameworks.get_mut(id) else { return Ok(()) };
        if !framework.info.roles.contains(&role) {
            return Err(Refusal::UnknownRole(role));
        }
        check(&demand).map_err(|invalid| invalid.within("demand"))?;
        demand.shapes.retain(|shape| shape.count > 0);
        framework.suppressed.remove(&role);
        framework.demanding.insert(role.clone());
        let client = self.allocator.client(id, &role);
        self.allocator.set_wish(now, client, Wish::Demand(demand));
        self.look_for_victims();
        self.changes.framework(id);
        Ok(())
    }
}

fn check(demand: &Demand) -> Result<(), Invalid> {
    if demand.shapes.len() > MOST_SHAPES {
        return Err(Invalid::new("shapes", demand.shapes.len(), format!("at most {MOST_SHAPES} shapes")));
    }
    let mut names = BTreeSet::new();
    for (at, shape) in demand.shapes.iter().enumerate() {
        let field = |name: &str| format!("shapes[{at}].{name}");
        if shape.name.is_empty() || shape.name.len() > LONGEST_NAME {
            return Err(Invalid::new(field("name"), &shape.name, "1 to 255 bytes"));
        }
        if !names.insert(&shape.name) {
            return Err(Invalid::new(field("name"), &shape.name, "each name once"));
        }
        if shape.resources.scalars().next().is_none() {
            let expected = "some cpus or mem, as a task needs them";
            return Err(Invalid::new(field("resources"), &shape.resources, expected));
        }
    }
    let Some(gang) = &demand.gang else { return Ok(()) };
    let pieces: u64 = demand.shapes.iter().map(|shape| u64::from(shape.count)).sum();
    if pieces > MOST_OF_A_GANG {
        return Err(Invalid::new("gang", pieces, format!("at most {MOST_OF_A_GANG} pieces in all")));
    }
    match gang.hold > LONGEST_HOLD {
        true => Err(Invalid::new("gang.hold", format!("{} s", gang.hold.as_secs()), "at most an hour")),
        false => Ok(()),
    }
}
