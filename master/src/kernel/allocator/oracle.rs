//! The policy by the book: everybody is asked of every agent, again after every unit. No index, no order that is kept, nothing
//! remembered.

use std::cmp::Reverse;

use divvy_proto::amounts::PORTS;
use divvy_proto::demand::{DemandShape, Preference};
use divvy_proto::reservation::Reserved;
use divvy_proto::resources::Resources;
use divvy_proto::time::Timestamp;

use super::allocate::{Grants, Unit};
use super::classes::value_of;
use super::roles::{NodeIx, ROOT};
use super::size::Size;
use super::walk::Stage;
use super::wishes::Want;
use super::{AgentIx, Allocated, Allocator, Charge, ClientIx, room_of};

impl Allocator {
    /// What `allocate` has to come to.
    pub(in crate::kernel) fn allocate_by_full_scan(&mut self, now: Timestamp) -> Allocated {
        let mut grants = Grants::default();
        self.begin_turn(now, &mut grants.notes);
        self.tree.set_total(&self.sums.declared);
        while self.naive_step(now, &mut grants) {}
        self.keep_for_the_old(now, &mut grants.notes);
        Allocated { grants: grants.grants, notes: grants.notes }
    }

    fn naive_step(&mut self, now: Timestamp, grants: &mut Grants) -> bool {
        let order = self.tree.naive_order();
        for stage in [Stage::Guaranteed, Stage::Fair] {
            for client in &order {
                let is_gang =
                    self.clients[client.0].want.demand().is_some_and(|wanted| wanted.gang.is_some());
                if is_gang && self.naive_gang(now, *client, stage, grants) {
                    return true;
                }
                if let Some(unit) = self.naive_unit(now, *client, stage).filter(|_| !is_gang) {
                    self.give(now, unit, grants);
                    return true;
                }
            }
        }
        false
    }

    /// All that a gang lacks; or one piece, if it gathers.
    fn naive_gang(&mut self, now: Timestamp, client: ClientIx, stage: Stage, grants: &mut Grants) -> bool {
        let mut trial = self.clone();
        let mut units = Vec::new();
        while let Some(unit) = trial.naive_unit(now, client, stage) {
            trial.charge_unit(now, &unit);
            units.push(unit);
        }
        if !units.is_empty() && !trial.clients[client.0].want.is_wanting() {
            units.iter().for_each(|unit| self.charge_unit(now, unit));
            self.complete_gang(now, client, units, grants);
            return true;
        }
        let gathers = self.gangs.gatherer.as_ref().is_some_and(|gatherer| gatherer.client == client);
        let first = units.into_iter().next().filter(|_| gathers);
        first.map(|unit| self.gather(now, unit, grants)).is_some()
    }

    fn naive_unit(&self, now: Timestamp, client: ClientIx, stage: Stage) -> Option<Unit> {
        let agents = || (0..self.slots.len()).map(AgentIx).filter(|agent| self.slots[agent.0].active);
        match &self.clients[client.0].want {
            Want::Nothing => None,
            Want::Anything => agents().find_map(|agent| {
                let usual = self.naive_classic(now, client, stage, agent);
                let charge = usual.or_else(|| self.naive_revocable(now, client, stage, agent, None))?;
                Some(Unit { client, agent, charge, shape: None, why: self.why(client, stage) })
            }),
            Want::Demand(wanted) => wanted.shapes.iter().enumerate().find_map(|(at, shape)| {
                if shape.wanting() == 0 {
                    return None;
                }
                let shape = &shape.shape;
                let fit = |agent: AgentIx| {
                    let slot = &self.slots[agent.0];
                    shape.constraint.as_ref().is_none_or(|constraint| constraint.holds(&slot.as_facts()))
                };
                let usual = agents()
                    .filter(|agent| fit(*agent))
                    .filter_map(|agent| Some((agent, self.naive_shape(now, client, stage, agent, shape)?)));
                let revocable = agents().filter(|agent| fit(*agent)).filter_map(|agent| {
                    Some((agent, self.naive_revocable(now, client, stage, agent, Some(shape))?))
                });
                let best = self.naive_best(client, shape, usual.collect());
                let (agent, charge) = best.or_else(|| self.naive_best(client, shape, revocable.collect()))?;
                Some(Unit { client, agent, charge, shape: Some(at), why: self.why(client, stage) })
            }),
        }
    }

    fn naive_best(
        &self,
        client: ClientIx,
        shape: &DemandShape,
        all: Vec<(AgentIx, Charge)>,
    ) -> Option<(AgentIx, Charge)> {
        all.into_iter().min_by_key(|(agent, charge)| {
            let slot = &self.slots[agent.0];
            let rank = match &shape.preference {
                Preference::None => 0,
                Preference::Pack if charge.is_revocable() => {
                    super::Room::from(&slot.available.revocable).dominant_of(&(&slot.total.revocable).into())
                }
                Preference::Pack => room_of(&slot.available).dominant_of(&room_of(&slot.total)),
                Preference::Spread(attribute) => {
                    let value = value_of(slot, attribute);
                    let alike = self.slots.iter().filter(|other| value_of(other, attribute) == value);
                    let held = alike.flat_map(|slot| &slot.holders).filter(|(holder, _)| *holder == client);
                    held.map(|(_, count)| u64::from(*count)).sum()
                }
            };
            (rank, *agent)
        })
    }

    /// The roles that a client is in or below, outermost first.
    fn naive_lineage(&self, client: ClientIx) -> Vec<NodeIx> {
        let lineage = self.clients[client.0].role.lineage();
        lineage.iter().filter_map(|role| self.tree.find(role)).collect()
    }

    fn naive_limit(&self, client: ClientIx, name: &str) -> i128 {
        let left = self.naive_lineage(client).into_iter().filter_map(|node| {
            let node = &self.tree.nodes[node.at()];
            let limit = node.promise.as_ref()?.quota.limit.get(name)?;
            let gone =
                node.used.get(name) + node.reserved.get(name) + self.clients[client.0].own_offers.get(name);
            Some((i128::from(limit) - gone).max(0))
        });
        left.min().unwrap_or(i128::MAX)
    }

    fn naive_unmet(&self, node: NodeIx, name: &str) -> i128 {
        let node = &self.tree.nodes[node.at()];
        let promised = node.promise.as_ref().and_then(|promise| promise.quota.guarantee.get(name));
        let had = node.used.get(name) + node.reserved.get(name) + node.offered.get(name);
        promised.map_or(0, |promised| (i128::from(promised) - had).max(0))
    }

    /// What is required below and at a node, if those on the path had been given `more`.
    fn naive_required(&self, node: NodeIx, name: &str, path: &[NodeIx], more: i128) -> i128 {
        let below = self.tree.children(node).map(|child| self.naive_required(child, name, path, more));
        let given = if path.contains(&node) { more } else { 0 };
        let own = (self.naive_unmet(node, name) - given).max(0);
        own.max(below.sum())
    }

    fn naive_free(&self, name: &str) -> i128 {
        let active = self.slots.iter().filter(|slot| slot.active);
        active.map(|slot| Size::of(&slot.available.unreserved).get(name)).sum()
    }

    /// Whether what is lacking for others does not grow when a client is given so much.
    fn naive_has_headroom(&self, client: ClientIx, name: &str, given: i128) -> bool {
        let path = self.naive_lineage(client);
        let top = |more: i128| -> i128 {
            if self.tree.promises == 0 {
                return 0;
            }
            self.tree.children(ROOT).map(|node| self.naive_required(node, name, &path, more)).sum()
        };
        let free = self.naive_free(name);
        (top(given) - (free - given)).max(0) <= (top(0) - free).max(0)
    }

    /// The most of a dimension that headroom leaves for a client, up to `most`.
    fn naive_spare(&self, client: ClientIx, name: &str, most: i128) -> i128 {
        let (mut low, mut high) = (0, most);
        if self.naive_has_headroom(client, name, most) {
            return most;
        }
        while low < high {
            let middle = (low + high + 1) / 2;
            match self.naive_has_headroom(client, name, middle) {
                true => low = middle,
                false => high = middle - 1,
            }
        }
        low
    }

    fn naive_times(&self, need: &Size, free: &Size) -> i128 {
        need.iter().map(|(name, need)| free.get(name).max(0) / need).min().unwrap_or_default()
    }

    /// For each guarantee beside the client's own path that keeps headroom in a shape: the shape, and how many more times it
    /// fits than it has to.
    fn naive_shapes(&self, client: ClientIx) -> Vec<(Size, i128)> {
        let path = self.naive_lineage(client);
        let mut found = Vec::new();
        if self.tree.promises == 0 {
            return found;
        }
        let mut open: Vec<NodeIx> = self.tree.children(ROOT).collect();
        while let Some(at) = open.pop() {
            open.extend(self.tree.children(at));
            let node = &self.tree.nodes[at.at()];
            let Some(promise) = node.promise.as_ref().filter(|_| !path.contains(&at)) else { continue };
            if promise.quota.guarantee.is_empty() {
                continue;
            }
            let shape = promise.quota.shape.as_ref().map(Size::of).or_else(|| self.naive_largest(at));
            let Some(need) = shape.filter(|shape| !shape.is_zero()) else { continue };
            let times = |name: &str, need: i128| (self.naive_unmet(at, name) + need - 1) / need;
            let needed = need.iter().map(|(name, need)| times(name, need)).max().unwrap_or_default();
            let active = self.slots.iter().filter(|slot| slot.active);
            let fits: i128 =
                active.map(|slot| self.naive_times(&need, &Size::of(&slot.available.unreserved))).sum();
            if needed > 0 {
                found.push((need, fits - needed));
            }
        }
        found
    }

    /// The largest shape that anybody at or below a node wants.
    fn naive_largest(&self, at: NodeIx) -> Option<Size> {
        let promise = self.tree.nodes[at.at()].promise.as_ref()?;
        let below =
            |client: &ClientIx| self.tree.path(self.clients[client.0].node).any(|(node, _)| node == at);
        let clients = self.all_clients().map(|(client, _)| client).filter(below);
        let shapes = clients.flat_map(|client| self.clients[client.0].want.shapes());
        let wanted =
            shapes.filter(|shape| shape.count > 0).map(|shape| Size::of_amounts(&shape.shape.amounts()));
        wanted.max_by_key(|shape| (promise.part_of(shape), shape.clone()))
    }

    fn naive_owned<'a>(&self, client: ClientIx, free: &'a Charge) -> Vec<&'a Reserved> {
        let role = &self.clients[client.0].role;
        let mut own: Vec<&Reserved> =
            free.reserved.iter().filter(|piece| piece.owner().unwrap().contains(role)).collect();
        own.sort_by_key(|piece| Reverse(piece.owner().unwrap().parts().count()));
        own
    }

    fn naive_is_kept(&self, client: ClientIx, agent: AgentIx) -> bool {
        if self.holds.room_on(agent).is_some_and(|whose| whose != client) {
            return true;
        }
        let Some(keeper) = self.holds.on(agent).filter(|keeper| *keeper != client) else { return false };
        let (theirs, mine) = (&self.clients[keeper.0], &self.clients[client.0]);
        let since = |want: &Want| want.shapes().iter().filter(|s| s.wanting() > 0).map(|s| s.since).min();
        let Some(theirs_since) = since(&theirs.want) else { return false };
        theirs.role == mine.role
            && since(&mine.want).is_none_or(|mine| (theirs_since, keeper) < (mine, client))
    }

    /// Whether a guarantee on the client's path is there for this: it is within what that lacks (or, for a classic client,
    /// there is anything that it lacks).
    fn naive_is_owed(&self, client: ClientIx, given: &Size, all: &Size, is_classic: bool) -> bool {
        self.naive_lineage(client).into_iter().any(|at| {
            let Some(promise) = &self.tree.nodes[at.at()].promise else { return false };
            let named = || promise.quota.guarantee.iter().map(|(name, _)| name);
            let is_within = named().all(|name| given.get(name) <= self.naive_unmet(at, name));
            let is_of_use = named().any(|name| all.get(name) > 0 && self.naive_unmet(at, name) > 0);
            is_of_use && (is_classic || is_within)
        })
    }

    fn naive_classic(
        &self,
        now: Timestamp,
        client: ClientIx,
        stage: Stage,
        agent: AgentIx,
    ) -> Option<Charge> {
        let free = &self.slots[agent.0].available;
        let reserved: Vec<Reserved> = self.naive_owned(client, free).into_iter().cloned().collect();
        let whole = Charge::unreserved(free.unreserved.clone()).with_reserved(reserved.clone())?.total();
        if !super::is_worth_an_offer(&whole) {
            return None;
        }
        let all = Size::of(&free.unreserved);
        let mut given = free.unreserved.clone();
        for (name, amount) in all.iter() {
            let most = amount.min(self.naive_limit(client, name));
            given = cut(&given, name, self.naive_spare(client, name, most));
        }
        for (need, spare) in self.naive_shapes(client) {
            let here = self.naive_times(&need, &all);
            let mut after = all.clone();
            after.sub(&Size::of(&given));
            if here - self.naive_times(&need, &after) > spare.max(0) {
                // So many have to stay.
                for (name, need) in need.iter() {
                    given = cut(&given, name, all.get(name) - (here - spare.max(0)) * need);
                }
            }
        }
        if self.naive_is_kept(client, agent) {
            given = Resources::new();
        }
        if stage == Stage::Guaranteed
            && !self.naive_is_owed(client, &Size::of(&given), &Size::of(&given), true)
        {
            return None;
        }
        let charge = Charge::unreserved(given).with_reserved(reserved)?;
        let total = charge.total();
        let is_fine = super::is_worth_an_offer(&total) && !self.is_refused(client, agent, &total, now);
        is_fine.then_some(charge)
    }

    fn naive_shape(
        &self,
        now: Timestamp,
        client: ClientIx,
        stage: Stage,
        agent: AgentIx,
        shape: &DemandShape,
    ) -> Option<Charge> {
        let free = &self.slots[agent.0].available;
        let mut rest = Size::of_amounts(&shape.amounts());
        let mut reserved = Vec::new();
        for piece in self.naive_owned(client, free) {
            let (taken, left) = take_from(&piece.resources, &rest);
            rest = left;
            reserved.push(Reserved { stack: piece.stack.clone(), resources: taken });
        }
        let (unreserved, rest) = take_from(&free.unreserved, &rest);
        if !rest.is_zero() {
            return None;
        }
        let given = Size::of(&unreserved);
        let is_within = given.iter().all(|(name, amount)| {
            amount <= self.naive_limit(client, name) && self.naive_has_headroom(client, name, amount)
        });
        let mut after = Size::of(&free.unreserved);
        after.sub(&given);
        let takes_no_shape = self.naive_shapes(client).into_iter().all(|(need, spare)| {
            let before = self.naive_times(&need, &Size::of(&free.unreserved));
            before - self.naive_times(&need, &after) <= spare.max(0)
        });
        let is_kept = !given.is_zero() && self.naive_is_kept(client, agent);
        let is_owed = stage == Stage::Fair
            || self.naive_is_owed(client, &given, &Size::of_amounts(&shape.amounts()), false);
        let charge = Charge::unreserved(unreserved).with_reserved(reserved)?;
        let refused = self.is_refused(client, agent, &charge.total(), now);
        (is_within && takes_no_shape && !is_kept && is_owed && !refused).then_some(charge)
    }

    fn naive_revocable(
        &self,
        now: Timestamp,
        client: ClientIx,
        stage: Stage,
        agent: AgentIx,
        shape: Option<&DemandShape>,
    ) -> Option<Charge> {
        let free = &self.slots[agent.0].available.revocable;
        if stage == Stage::Guaranteed || !self.clients[client.0].revocable {
            return None;
        }
        let taken = match shape {
            None => free.clone(),
            Some(shape) => {
                let (taken, rest) = take_from(free, &Size::of_amounts(&shape.amounts()));
                rest.is_zero().then_some(taken)?
            }
        };
        let is_worth = shape.is_some() || super::is_worth_an_offer(&taken);
        (is_worth && !self.is_refused(client, agent, &taken, now)).then(|| Charge::revocable(taken))
    }
}

/// As much of what is wanted as there is, with the lowest ports, and what is still wanted.
fn take_from(free: &Resources, wanted: &Size) -> (Resources, Size) {
    let (mut taken, mut rest) = (Resources::new(), wanted.clone());
    for (name, wanted) in wanted.iter() {
        let part = wanted.min(Size::of(free).get(name));
        rest.set(name, wanted - part);
        taken = match name {
            PORTS => taken.with_ports(free.ports().take_lowest(usize::try_from(part).unwrap()).unwrap()),
            _ => taken.with_scalar(name, part.try_into().unwrap()).unwrap(),
        };
    }
    (taken, rest)
}

fn cut(resources: &Resources, name: &str, most: i128) -> Resources {
    let amount = Size::of(resources).get(name).min(most).max(0);
    match name {
        PORTS => resources
            .clone()
            .with_ports(resources.ports().take_lowest(usize::try_from(amount).unwrap()).unwrap()),
        _ => resources.clone().with_scalar(name, amount.try_into().unwrap()).unwrap(),
    }
}
