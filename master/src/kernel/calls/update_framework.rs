//! UpdateFramework: what a framework says of itself changes while it is connected.

use divvy_proto::Invalid;
use divvy_proto::ids::{CallId, FrameworkId};
use divvy_proto::role::RolePath;
use divvy_proto::scheduler::{FrameworkInfo, Refusal};
use divvy_proto::time::Timestamp;

use crate::kernel::allocator::Wish;
use crate::kernel::frameworks::{check_info, removed_roles};
use crate::kernel::registry::Awaited;
use crate::kernel::{Effects, Kernel};

impl Kernel {
    /// Changes what a framework says of itself.
    pub(super) fn update_framework(
        &mut self,
        now: Timestamp,
        id: &FrameworkId,
        info: FrameworkInfo,
        suppressed: Vec<RolePath>,
        call: CallId,
        out: &mut Effects,
    ) -> Result<(), Refusal> {
        check_info(&info, &suppressed)?;
        if info.id.as_ref().is_some_and(|other| other != id) {
            let found = info.id.map(|other| other.to_string()).unwrap_or_default();
            return Err(Invalid::new("framework.id", found, format!("{id}, or none")).into());
        }
        let Some(framework) = self.frameworks.get_mut(id) else { return Ok(()) };
        let left = removed_roles(&framework.info.roles, &info.roles);
        let before = framework.wanted_roles();
        framework.info = FrameworkInfo { id: Some(id.clone()), ..info };
        framework.suppressed = suppressed.into_iter().collect();
        let wanted_again: Vec<RolePath> = framework.wanted_roles().difference(&before).cloned().collect();
        self.leave_roles(now, id, &left, out);
        for role in wanted_again {
            let client = self.allocator.client(id, &role);
            self.allocator.clear_client_filters(client);
        }
        self.sync_wishes(now, id);
        self.changes.framework(id);
        self.persist_framework(id, Some(Awaited::Updated(id.clone(), call)), out);
        Ok(())
    }

    fn leave_roles(&mut self, now: Timestamp, id: &FrameworkId, roles: &[RolePath], out: &mut Effects) {
        for role in roles {
            let client = self.allocator.client(id, role);
            self.allocator.set_wish(now, client, Wish::Nothing);
            self.allocator.clear_client_filters(client);
        }
        let offers = self.frameworks.get(id).map(|framework| framework.offers.clone()).unwrap_or_default();
        for offer in offers {
            if self.offers.get(&offer).is_some_and(|offer| roles.contains(&offer.role)) {
                self.rescind_offer(offer, out);
            }
        }
    }
}
