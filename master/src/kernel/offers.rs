//! Outstanding offers: how they come to be and how they end. Each is in exactly one framework's hands, for a limited time.

use std::collections::{BTreeMap, VecDeque};

use divvy_proto::ids::{AgentId, FrameworkId, OfferId};
use divvy_proto::resources::Resources;
use divvy_proto::role::RolePath;
use divvy_proto::scheduler::{DEFAULT_REFUSE, Event, Filters, OfferInfo};
use divvy_proto::time::Timestamp;
use smallvec::SmallVec;

use super::allocator::{AgentIx, ClientIx, Grant};
use super::{Effects, Kernel};

/// Longest that a filter lasts (Mesos: 365 days).
const LONGEST_REFUSAL: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 3600);

#[derive(Debug, Clone)]
pub(super) struct Offer {
    pub(super) framework: FrameworkId,
    pub(super) role: RolePath,
    pub(super) agent: AgentId,
    /// What it is made of.
    pub(super) grant: Grant,
    pub(super) since: Timestamp,
    pub(super) expires: Timestamp,
}

/// When offers expire. All are held equally long, so they expire in the order in which they were made: a queue will do, in
/// which those that were answered are passed over.
#[derive(Debug, Clone, Default)]
pub(super) struct Expiries(VecDeque<(Timestamp, OfferId)>);

impl Expiries {
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.0.front().map(|(at, _)| *at)
    }

    /// Takes out one offer whose time has come.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<OfferId> {
        let (at, id) = *self.0.front()?;
        if at > now {
            return None;
        }
        self.0.pop_front();
        Some(id)
    }

    /// An offer has ended. The first in the queue is always outstanding, and at least about half of all are.
    fn ended(&mut self, id: OfferId, outstanding: &BTreeMap<OfferId, Box<Offer>>) {
        if self.0.front().is_some_and(|(_, first)| *first == id) {
            while self.0.front().is_some_and(|(_, first)| !outstanding.contains_key(first)) {
                self.0.pop_front();
            }
        }
        if self.0.len() > 2 * outstanding.len() + 64 {
            self.0.retain(|(_, id)| outstanding.contains_key(id));
        }
    }
}

/// The outstanding offers of one agent: hardly ever more than a few.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OfferSet(SmallVec<[OfferId; 2]>);

impl OfferSet {
    /// In the order in which they were made.
    pub(super) fn iter(&self) -> impl Iterator<Item = &OfferId> {
        self.0.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn insert(&mut self, id: OfferId) {
        let at = self.0.partition_point(|other| *other < id);
        self.0.insert(at, id);
    }

    fn remove(&mut self, id: OfferId) {
        self.0.retain(|other| *other != id);
    }
}

impl Kernel {
    /// Allocates, and sends each framework what is new for it in one event.
    pub(super) fn send_offers(&mut self, now: Timestamp, out: &mut Effects) {
        let mut by_framework: BTreeMap<FrameworkId, Vec<OfferInfo>> = BTreeMap::new();
        let allocated = self.allocator.allocate(now);
        allocated.notes.iter().for_each(|note| self.note(now, note));
        for grant in allocated.grants {
            if let Some((framework, offer)) = self.make_offer(now, grant) {
                by_framework.entry(framework).or_default().push(offer);
            }
        }
        for (framework, offers) in by_framework {
            self.tell(&framework, Event::Offers(offers), out);
        }
    }

    fn make_offer(&mut self, now: Timestamp, grant: Grant) -> Option<(FrameworkId, OfferInfo)> {
        let client = self.allocator.client_of(grant.client);
        let (framework, role) = (client.framework.clone(), client.role.clone());
        let agent_id = self.allocator.slot(grant.agent).id.clone();
        self.made.offers = self.made.offers.wrapping_add(1);
        let id = OfferId(u64::from(self.config.epoch.0) << 32 | u64::from(self.made.offers));
        let expires = now + self.config.offer_timeout;
        self.remember_grant(now, &framework, &role, &agent_id, &grant);

        self.frameworks.get_mut(&framework)?.offers.insert(id);
        let agent = self.agents.get_mut(&agent_id)?;
        agent.offers.insert(id);
        let has_volumes = agent.owned.has_volumes();
        let mut info = OfferInfo {
            id,
            agent_id: agent_id.clone(),
            hostname: agent.info.hostname.clone(),
            attributes: agent.info.attributes.clone(),
            role: role.clone(),
            resources: grant.charge.total(),
            reserved: grant.charge.reserved.clone(),
            volumes: Vec::new(),
            revocable: grant.charge.is_revocable(),
            unavailable: agent.upkeep.unavailable(),
            demand: grant.demand.clone(),
        };
        if has_volumes {
            info.volumes = self.volumes_for(&agent_id, &role);
        }
        self.changes.agent(&agent_id);
        self.changes.holder(&framework);
        self.expiries.0.push_back((expires, id));
        let offer = Offer { framework: framework.clone(), role, agent: agent_id, grant, since: now, expires };
        self.offers.insert(id, Box::new(offer));
        Some((framework, info))
    }

    /// Takes an offer out of the tables: all of it is free. Of what was demanded, so many are about to be launched.
    pub(super) fn take_offer(&mut self, id: OfferId, launched: u32) -> Option<Box<Offer>> {
        let offer = self.offers.remove(&id)?;
        self.expiries.ended(id, &self.offers);
        if let Some(framework) = self.frameworks.get_mut(&offer.framework) {
            framework.offers.remove(&id);
        }
        self.changes.holder(&offer.framework);
        if let Some(agent) = self.agents.get_mut(&offer.agent) {
            agent.offers.remove(id);
            self.allocator.end_offer(&offer.grant, launched);
        }
        self.changes.agent(&offer.agent);
        Some(offer)
    }

    /// Returns an offer, not to be seen again for a while.
    pub(super) fn decline_offer(&mut self, now: Timestamp, id: OfferId, filters: Filters) {
        if let Some(offer) = self.take_offer(id, 0) {
            let Grant { agent, client, charge, .. } = offer.grant;
            self.refuse_on(now, agent, client, charge.total(), filters);
        }
    }

    pub(super) fn refuse(
        &mut self,
        now: Timestamp,
        agent: &AgentId,
        client: ClientIx,
        refused: Resources,
        filters: Filters,
    ) {
        if let Some(agent) = self.agents.get(agent).map(|agent| agent.slot) {
            self.refuse_on(now, agent, client, refused, filters);
        }
    }

    fn refuse_on(
        &mut self,
        now: Timestamp,
        agent: AgentIx,
        client: ClientIx,
        refused: Resources,
        filters: Filters,
    ) {
        if !filters.refuse.is_zero() {
            let until = now + filters.refuse.min(LONGEST_REFUSAL);
            self.allocator.refuse(agent, client, refused, until);
        }
    }

    /// Takes an offer back, and says so. The others of its gang go with it: the gang is wanted whole again.
    pub(super) fn rescind_offer(&mut self, id: OfferId, out: &mut Effects) {
        let others = self.others_of_gang(id);
        for id in std::iter::once(id).chain(others) {
            if let Some(offer) = self.take_offer(id, 0) {
                self.tell(&offer.framework, Event::Rescind(id), out);
            }
        }
    }

    /// The other outstanding offers of an offer's gang.
    fn others_of_gang(&self, id: OfferId) -> Vec<OfferId> {
        let gang_of = |id: &OfferId| self.offers.get(id)?.grant.demand.as_ref()?.gang;
        let owner = self.offers.get(&id).and_then(|offer| self.frameworks.get(&offer.framework));
        let (Some(gang), Some(owner)) = (gang_of(&id), owner) else { return Vec::new() };
        owner.offers.iter().filter(|other| **other != id && gang_of(other) == Some(gang)).copied().collect()
    }

    /// An offer that nobody answered is taken back, and counts as declined for the default time: else its holder, who is
    /// the furthest below its share, would be given it again at once, and again in vain.
    pub(super) fn expire_offer(&mut self, now: Timestamp, id: OfferId, out: &mut Effects) {
        if let Some(offer) = self.offers.get(&id) {
            let framework = offer.framework.clone();
            self.decline_offer(now, id, Filters { refuse: DEFAULT_REFUSE });
            self.tell(&framework, Event::Rescind(id), out);
        }
    }

    /// Takes back all offers of an agent.
    pub(super) fn rescind_agent(&mut self, agent: &AgentId, out: &mut Effects) {
        let offers = self.agents.get(agent).map(|agent| agent.offers.clone()).unwrap_or_default();
        offers.iter().for_each(|id| self.rescind_offer(*id, out));
    }
}
