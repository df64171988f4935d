//! Decline, Revive and Suppress: what a framework does not want, and wants again.

use divvy_proto::ids::{FrameworkId, OfferId};
use divvy_proto::role::RolePath;
use divvy_proto::scheduler::{Filters, Refusal};
use divvy_proto::time::Timestamp;

use crate::kernel::Kernel;

impl Kernel {
    /// Returns offers. Those that are gone already, or are not this framework's, are passed over (Mesos).
    pub(super) fn decline(
        &mut self,
        now: Timestamp,
        id: &FrameworkId,
        offers: &[OfferId],
        filters: Filters,
    ) -> Result<(), Refusal> {
        for offer in offers {
            if self.offers.get(offer).is_some_and(|offer| offer.framework == *id) {
                self.decline_offer(now, *offer, filters);
            }
        }
        Ok(())
    }

    pub(super) fn revive(
        &mut self,
        now: Timestamp,
        id: &FrameworkId,
        roles: &[RolePath],
    ) -> Result<(), Refusal> {
        for role in self.named_roles(id, roles)? {
            let client = self.allocator.client(id, &role);
            self.allocator.clear_client_filters(client);
            if let Some(framework) = self.frameworks.get_mut(id) {
                framework.suppressed.remove(&role);
                framework.demanding.remove(&role);
            }
        }
        self.sync_wishes(now, id);
        Ok(())
    }

    /// What is already offered stays offered (Mesos).
    pub(super) fn suppress(
        &mut self,
        now: Timestamp,
        id: &FrameworkId,
        roles: &[RolePath],
    ) -> Result<(), Refusal> {
        let roles = self.named_roles(id, roles)?;
        if let Some(framework) = self.frameworks.get_mut(id) {
            framework.suppressed.extend(roles);
        }
        self.sync_wishes(now, id);
        Ok(())
    }

    /// The roles that a call names: all if none.
    fn named_roles(&self, id: &FrameworkId, roles: &[RolePath]) -> Result<Vec<RolePath>, Refusal> {
        let Some(framework) = self.frameworks.get(id) else { return Ok(Vec::new()) };
        let subscribed = &framework.info.roles;
        if let Some(stranger) = roles.iter().find(|role| !subscribed.contains(role)) {
            return Err(Refusal::UnknownRole(stranger.clone()));
        }
        Ok(if roles.is_empty() { subscribed.clone() } else { roles.to_vec() })
    }
}
