//! Demand: what a framework wants in a role. It lives as long as the framework's connection: whoever connects again states it
//! again, as it knows best what it still wants (the SDK's driver does). To get no classic offers before that, a framework
//! subscribes with the role suppressed.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use divvy_proto::Invalid;
use divvy_proto::demand::{Demand, Gang, LEAST_CPUS, LEAST_MEM};
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
/// Most of one shape, and of all shapes together: what is wanted beyond that can be stated later, and no turn has more to do.
const MOST_OF_A_SHAPE: u32 = 100_000;
const MOST_OF_ALL: u64 = 1_000_000;
/// How long a gang's pieces may be kept.
const HOLD: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

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
        if shape.resources.cpus() < LEAST_CPUS && shape.resources.mem() < LEAST_MEM {
            let expected = "at least 0.01 cpus or 32 MiB of mem, as an offer is worth making";
            return Err(Invalid::new(field("resources"), &shape.resources, expected));
        }
        if shape.count > MOST_OF_A_SHAPE {
            return Err(Invalid::new(field("count"), shape.count, format!("at most {MOST_OF_A_SHAPE}")));
        }
    }
    let pieces: u64 = demand.shapes.iter().map(|shape| u64::from(shape.count)).sum();
    if pieces > MOST_OF_ALL {
        return Err(Invalid::new("shapes", pieces, format!("at most {MOST_OF_ALL} in all")));
    }
    demand.gang.as_ref().map_or(Ok(()), |gang| check_gang(gang, pieces))
}

fn check_gang(gang: &Gang, pieces: u64) -> Result<(), Invalid> {
    if pieces > MOST_OF_A_GANG {
        return Err(Invalid::new("gang", pieces, format!("at most {MOST_OF_A_GANG} pieces in all")));
    }
    match HOLD.contains(&gang.hold) {
        true => Ok(()),
        false => Err(Invalid::new("gang.hold", format!("{} ms", gang.hold.as_millis()), "1 s to an hour")),
    }
}
