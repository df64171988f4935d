//! Clients: frameworks, each in one of its roles. What they want, and what that means for the order and for agents.

use std::collections::{BTreeMap, BTreeSet};

use divvy_proto::ids::FrameworkId;
use divvy_proto::role::RolePath;
use divvy_proto::scheduler::Capability;
use divvy_proto::time::Timestamp;

use super::allocate::Progress;
use super::roles::NodeIx;
use super::share::Quantities;
use super::size::Size;
use super::wishes::{DemandState, Want, Wish};
use super::{AgentIx, Allocator, ClientIx};

#[derive(Debug, Clone)]
pub(in crate::kernel) struct Client {
    pub(in crate::kernel) framework: FrameworkId,
    pub(in crate::kernel) role: RolePath,
    pub(super) node: NodeIx,
    pub(super) want: Want,
    /// How many of each shape are on offer, by the shape's name; also of shapes that are no longer wanted.
    pub(super) offered: BTreeMap<String, u32>,
    /// What of the unreserved is on offer to it.
    pub(super) own_offers: Size,
    /// It may be offered what can be taken back.
    pub(super) revocable: bool,
    /// By stage.
    pub(super) progress: [Progress; 2],
    /// How many tasks and offered units it has by value of each attribute over which it spreads.
    pub(super) spreads: Vec<(String, Vec<u32>)>,
    /// The least processor time and memory of what it wants, while it has a demand.
    least: Option<[i64; 2]>,
    /// It wants anything.
    wants_anything: bool,
    /// When an agent is to be kept for it, if it still waits then.
    pub(super) keep_at: Option<Timestamp>,
}

#[allow(clippy::indexing_slicing, reason = "an index is made by this allocator only")]
impl Allocator {
    /// A framework in a role, made at the first question. It wants nothing at first.
    pub(in crate::kernel) fn client(&mut self, framework: &FrameworkId, role: &RolePath) -> ClientIx {
        let known = self.clients_of.get(framework).into_iter().flatten();
        if let Some(client) = known.copied().find(|client| self.clients[client.0].role == *role) {
            return client;
        }
        let client = self.vacant_clients.pop_first().unwrap_or(ClientIx(self.clients.len()));
        let this = Client {
            framework: framework.clone(),
            role: role.clone(),
            node: self.tree.add_client(role, framework.as_str(), client),
            want: Want::Nothing,
            offered: BTreeMap::new(),
            own_offers: Size::new(),
            revocable: self.revocable_frameworks.contains(framework),
            progress: [Progress::default(); 2],
            spreads: Vec::new(),
            least: None,
            wants_anything: false,
            keep_at: None,
        };
        match self.clients.get_mut(client.0) {
            Some(place) => *place = this,
            None => self.clients.push(this),
        }
        self.clients_of.entry(framework.clone()).or_default().push(client);
        client
    }

    pub(in crate::kernel) fn client_of(&self, client: ClientIx) -> &Client {
        &self.clients[client.0]
    }

    /// The framework will not come back, and holds nothing. The places of its clients are given to others.
    pub(in crate::kernel) fn remove_framework(&mut self, framework: &FrameworkId) {
        self.revocable_frameworks.remove(framework);
        for client in self.clients_of.remove(framework).unwrap_or_default() {
            self.set_wish(self.now, client, Wish::Nothing);
            self.end_rooms_of(client);
            self.filters.clear_client(client);
            self.tree.remove_client(self.clients[client.0].node);
            self.hot.remove(&client);
            self.paired.remove(&client);
            self.limited.remove(&client);
            self.kept_back.remove(&client);
            self.kept_back_by_shape.remove(&client);
            self.vacant_clients.insert(client);
        }
    }

    /// What a framework can deal with.
    pub(in crate::kernel) fn set_capabilities(
        &mut self,
        framework: &FrameworkId,
        all: &BTreeSet<Capability>,
    ) {
        let revocable = all.contains(&Capability::Revocable);
        match revocable {
            true => self.revocable_frameworks.insert(framework.clone()),
            false => self.revocable_frameworks.remove(framework),
        };
        for client in self.clients_of.get(framework).cloned().unwrap_or_default() {
            if self.clients[client.0].revocable != revocable {
                self.clients[client.0].revocable = revocable;
                self.hot.insert(client);
            }
        }
    }

    /// What the client wants from here on. What is on offer stays so, and counts towards a demand.
    pub(in crate::kernel) fn set_wish(&mut self, now: Timestamp, client: ClientIx, wish: Wish) {
        self.now = now;
        if self.gangs.gatherer.as_ref().is_some_and(|gatherer| gatherer.client == client) {
            self.release_gathered();
        }
        let this = &mut self.clients[client.0];
        if matches!((&this.want, &wish), (Want::Anything, Wish::Anything) | (Want::Nothing, Wish::Nothing)) {
            return;
        }
        let is_demand = matches!(wish, Wish::Demand(_));
        let mut want = Want::new(now, wish, &this.offered);
        want.goes_on_from(&this.want);
        let before = std::mem::replace(&mut this.want, want);
        if is_demand {
            self.filters.clear_client(client);
        }
        self.demanded_anew(client, &before);
        self.spread_anew(client, &before);
        self.end_hold(client);
        self.settle_want(client);
        self.hot.insert(client);
    }

    /// Tells the roles above which shapes are wanted now.
    fn demanded_anew(&mut self, client: ClientIx, before: &Want) {
        let node = self.clients[client.0].node;
        let wanted = |want: &Want| {
            let shapes = want.shapes().iter().filter(|shape| shape.count > 0);
            shapes.map(|shape| shape.need.size.clone()).collect::<Vec<_>>()
        };
        for shape in wanted(&self.clients[client.0].want) {
            self.tree.demanded(node, &shape, true);
        }
        for shape in wanted(before) {
            self.tree.demanded(node, &shape, false);
        }
    }

    /// Counts what a client has by value of each attribute over which it spreads now.
    fn spread_anew(&mut self, client: ClientIx, before: &Want) {
        let attributes = self.clients[client.0].want.spreads();
        attributes.iter().for_each(|attribute| self.classes.spread(attribute, &self.slots));
        before.spreads().iter().for_each(|attribute| self.classes.unspread(attribute));
        self.clients[client.0].spreads = attributes.into_iter().map(|name| (name, Vec::new())).collect();
        if self.clients[client.0].spreads.is_empty() {
            return;
        }
        for at in 0..self.slots.len() {
            let held = self.slots[at].holders.iter().find(|(holder, _)| *holder == client);
            if let Some((_, count)) = held.copied() {
                self.spread_more(AgentIx(at), client, count);
            }
        }
    }

    pub(super) fn spread_more(&mut self, agent: AgentIx, client: ClientIx, more: u32) {
        for (attribute, counts) in &mut self.clients[client.0].spreads {
            let value = self.classes.value(attribute, agent).at();
            if counts.len() <= value {
                counts.resize(value + 1, 0);
            }
            counts[value] += more;
        }
    }

    pub(super) fn spread_less(&mut self, agent: AgentIx, client: ClientIx, less: u32) {
        for (attribute, counts) in &mut self.clients[client.0].spreads {
            let value = self.classes.value(attribute, agent).at();
            if let Some(count) = counts.get_mut(value) {
                *count = count.saturating_sub(less);
            }
        }
    }

    /// A client has so many things more on an agent.
    pub(super) fn count_held(&mut self, agent: AgentIx, client: ClientIx, more: u32) {
        self.slots[agent.0].note_held(client, more);
        self.spread_more(agent, client, more);
    }

    pub(super) fn count_released(&mut self, agent: AgentIx, client: ClientIx, less: u32) {
        self.slots[agent.0].note_released(client, less);
        self.spread_less(agent, client, less);
    }

    /// How the client's demand stands, if it has one.
    pub(in crate::kernel) fn wish_view(&self, client: ClientIx) -> Option<DemandState> {
        let client = &self.clients[client.0];
        client.want.state(&client.offered)
    }

    /// Makes the order, and what agents are looked at for, agree with what a client wants.
    pub(super) fn settle_want(&mut self, client: ClientIx) {
        let this = &mut self.clients[client.0];
        let wants_anything = this.want == Want::Anything;
        let wanting = this.want.shapes().iter().filter(|shape| shape.wanting() > 0);
        let least =
            wanting.map(|shape| [shape.need.scalars.cpus().millis(), shape.need.scalars.mem().bytes()]);
        let least =
            least.reduce(|[cpus, mem], [other_cpus, other_mem]| [cpus.min(other_cpus), mem.min(other_mem)]);
        let before = std::mem::replace(&mut this.least, least);
        self.wants_anything += usize::from(wants_anything);
        self.wants_anything -= usize::from(std::mem::replace(&mut this.wants_anything, wants_anything));
        if before != least {
            for (at, counts) in self.least_wanted.iter_mut().enumerate() {
                if let Some(least) = least {
                    *counts.entry(least[at]).or_default() += 1;
                }
                if let Some(before) = before {
                    let count = counts.entry(before[at]).or_default();
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        counts.remove(&before[at]);
                    }
                }
            }
        }
        let (node, wants) = (this.node, wants_anything || least.is_some());
        if self.tree.wants(node) != wants {
            self.tree.set_wants(node, wants);
        }
        self.note_gang(client);
        self.note_age(client);
    }

    /// What a framework holds in all its roles.
    pub(in crate::kernel) fn held_by_framework(&self, framework: &FrameworkId) -> Quantities {
        let mut held = Quantities::default();
        for client in self.clients_of.get(framework).into_iter().flatten() {
            held.merge(self.tree.held(self.clients[client.0].node));
        }
        held
    }

    pub(super) fn all_clients(&self) -> impl Iterator<Item = (ClientIx, &Client)> + '_ {
        let all = self.clients.iter().enumerate().map(|(at, client)| (ClientIx(at), client));
        all.filter(|(at, _)| !self.vacant_clients.contains(at))
    }

    pub(in crate::kernel) fn roles_that_hold(&self) -> impl Iterator<Item = &RolePath> {
        let nothing = Quantities::default();
        let holds = move |client: &Client| *self.tree.held(client.node) != nothing;
        self.all_clients().filter(move |(_, client)| holds(client)).map(|(_, client)| &client.role)
    }

    /// Checks that clients hold what a recount says, and all others nothing.
    pub(in crate::kernel) fn check_clients(
        &self,
        held: &BTreeMap<ClientIx, Quantities>,
    ) -> Result<(), String> {
        let nothing = Quantities::default();
        for (at, client) in self.all_clients() {
            if self.tree.held(client.node) != held.get(&at).unwrap_or(&nothing) {
                return Err(format!("{} does not hold in {} what it does", client.framework, client.role));
            }
        }
        Ok(())
    }

    /// Checks that those stand in order who want something, and that what they want least is known.
    pub(super) fn check_wants(&self) -> Result<(), String> {
        let (mut anything, mut least_wanted) = (0, [BTreeMap::new(), BTreeMap::new()]);
        for (_, client) in self.all_clients() {
            if self.tree.wants(client.node) != client.want.is_wanting() {
                return Err(format!("{} in {}: whether it wants is wrong", client.framework, client.role));
            }
            anything += usize::from(client.want == Want::Anything);
            for (counts, least) in least_wanted.iter_mut().zip(client.least.into_iter().flatten()) {
                *counts.entry(least).or_insert(0_u32) += 1;
            }
            let offered = client.want.shapes().iter().all(|shape| {
                shape.offered == client.offered.get(&shape.shape.name).copied().unwrap_or_default()
            });
            if !offered || client.own_offers.is_negative() {
                return Err(format!(
                    "{} in {}: what is on offer is miscounted",
                    client.framework, client.role
                ));
            }
        }
        match (anything, &least_wanted) == (self.wants_anything, &self.least_wanted) {
            true => Ok(()),
            false => Err("what is wanted least is miscounted".to_owned()),
        }
    }
}
