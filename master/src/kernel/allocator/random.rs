//! Random histories of the allocator alone: whatever is done to it, a turn comes to what the oracle says, and all that is
//! derived agrees with a recount.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use divvy_proto::demand::{Demand, DemandShape, Gang, Preference};
use divvy_proto::quantity::Bytes;
use divvy_proto::quota::{Quota, Weight};
use divvy_proto::reservation::{Reservation, Reserved};
use divvy_proto::resources::Resources;
use divvy_proto::role::RolePath;
use divvy_proto::scheduler::Capability;
use divvy_proto::time::Timestamp;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::{AgentIx, Allocator, Charge, ClientIx, Facts, Grant, Wish};

const ROLES: [&str; 7] = ["*", "eng", "eng/ads", "eng/web", "ops", "ops/a/b", "ops/a"];

struct World {
    rng: SmallRng,
    allocator: Allocator,
    now: Timestamp,
    agents: Vec<AgentIx>,
    named: usize,
    clients: Vec<ClientIx>,
    offers: Vec<Grant>,
    tasks: Vec<(AgentIx, ClientIx, Charge)>,
    /// What was done, for people, if anybody wants to know.
    log: Option<Vec<String>>,
    with_quotas: bool,
    with_gangs: bool,
    turns: usize,
}

fn role(name: &str) -> RolePath {
    name.parse().unwrap()
}

impl World {
    fn new(seed: u64, is_told: bool) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (with_quotas, with_gangs) = (rng.random_bool(0.7), rng.random_bool(0.3));
        let mut world = Self {
            rng,
            allocator: Allocator::new(),
            now: Timestamp(1_000_000),
            agents: Vec::new(),
            named: 0,
            clients: Vec::new(),
            offers: Vec::new(),
            tasks: Vec::new(),
            log: is_told.then(Vec::new),
            with_quotas,
            with_gangs,
            turns: 0,
        };
        (0..3).for_each(|_| world.add_agent());
        (0..3).for_each(|_| world.add_client());
        world
    }

    fn pick(&mut self, below: usize) -> usize {
        self.rng.random_range(0..below.max(1))
    }

    fn facts(&mut self) -> Facts {
        let host = self.pick(6);
        let attributes = ["rack=r1", "rack=r2;ssd=2", "ssd=1", ""].choose(&mut self.rng).unwrap();
        Facts {
            hostname: format!("host-{host}").parse().unwrap(),
            attributes: Arc::new(attributes.parse().unwrap()),
        }
    }

    fn resources(&mut self, most: i64) -> Resources {
        let cpus = self.rng.random_range(0..=most);
        let mem = self.rng.random_range(0..=most);
        let mut all: Resources = format!("cpus={cpus};mem={mem}GiB").parse().unwrap();
        if self.rng.random_bool(0.2) {
            all = all.with_scalar("licenses", self.rng.random_range(1..4) * 1000).unwrap();
        }
        all
    }

    fn total(&mut self) -> Charge {
        let ports = |first: u32, count: u32| divvy_proto::RangeSet::range(first, first + count - 1);
        let unreserved = self.resources(8);
        let unreserved =
            if self.rng.random_bool(0.5) { unreserved.with_ports(ports(1, 6)) } else { unreserved };
        let mut total = Charge::unreserved(unreserved);
        if self.rng.random_bool(0.3) {
            total.revocable = self.resources(3);
        }
        let mut reserved = Vec::new();
        while self.rng.random_bool(0.3) {
            let name = *ROLES[1..].choose(&mut self.rng).unwrap();
            let reservation = |role: RolePath| Reservation {
                role,
                principal: None,
                labels: Default::default(),
                fixed: false,
            };
            let stack = match self.rng.random_bool(0.5) {
                true => role(name).lineage().into_iter().map(reservation).collect(),
                false => vec![reservation(role(name))],
            };
            let first = 100 + 10 * u32::try_from(reserved.len()).unwrap();
            let resources = self.resources(3);
            let resources =
                if self.rng.random_bool(0.3) { resources.with_ports(ports(first, 2)) } else { resources };
            reserved.push(Reserved { stack, resources });
        }
        total.with_reserved(reserved).unwrap()
    }

    fn add_agent(&mut self) {
        let (facts, total) = (self.facts(), self.total());
        let agent = self.allocator.add_agent(format!("a1-{}", self.named).parse().unwrap(), facts.clone());
        self.named += 1;
        self.note(|| format!("add {agent:?} {facts:?} {total:?}"));
        self.allocator.set_total(agent, total);
        self.allocator.set_standing(agent, true, true);
        self.agents.push(agent);
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(what());
        }
    }

    fn told(&self) -> String {
        self.log.clone().unwrap_or_default().join("\n")
    }

    fn add_client(&mut self) {
        let name = format!("f1-{}", self.pick(6));
        let role_name = *ROLES.choose(&mut self.rng).unwrap();
        let client = self.allocator.client(&name.parse().unwrap(), &role(role_name));
        self.note(|| format!("client {client:?} is {name} in {role_name}"));
        if !self.clients.contains(&client) {
            self.clients.push(client);
        }
    }

    fn shape(&mut self, nth: usize) -> DemandShape {
        let constraints =
            [r#"rack == "r1""#, "ssd >= 2 || !exists(rack)", r#"hostname == "host-1""#, r#"agent != "a1-0""#];
        let constraint = match self.rng.random_bool(0.4) {
            true => Some(constraints.choose(&mut self.rng).unwrap().parse().unwrap()),
            false => None,
        };
        let preference = match self.pick(5) {
            0 => Preference::Pack,
            1 => Preference::Spread("rack".to_owned()),
            2 => Preference::Spread("hostname".to_owned()),
            _ => Preference::None,
        };
        let mut resources = self.resources(3);
        if resources.is_empty() {
            resources = "cpus=0.5".parse().unwrap();
        }
        let ports = if self.rng.random_bool(0.3) { self.rng.random_range(1..4) } else { 0 };
        let count = self.rng.random_range(0..5);
        DemandShape { name: format!("s{nth}"), resources, ports, count, constraint, preference }
    }

    fn wish(&mut self) -> Wish {
        match self.pick(6) {
            0 => Wish::Nothing,
            1 | 2 => Wish::Anything,
            _ => {
                let is_gang = self.with_gangs && self.rng.random_bool(0.3);
                // What of several shapes is placed how depends on the order; with one the whole fits or does not.
                let shapes = if is_gang { 1 } else { 1 + self.pick(3) };
                let shapes = (0..shapes).map(|nth| self.shape(nth)).collect();
                let hold = Duration::from_secs(self.rng.random_range(1..20));
                Wish::Demand(Demand { shapes, gang: is_gang.then_some(Gang { hold }) })
            }
        }
    }

    fn quota(&mut self) -> Option<Quota> {
        if self.rng.random_bool(0.2) {
            return None;
        }
        let mut amounts = |names: &[&str]| {
            let mut parts = Vec::new();
            for name in names {
                let (most, unit) = if *name == "mem" { (12, "GiB") } else { (12, "") };
                if self.rng.random_bool(0.5) {
                    parts.push(format!("{name}={}{unit}", self.rng.random_range(0..most)));
                }
            }
            parts.join(";").parse().unwrap()
        };
        let guarantee = amounts(&["cpus", "mem", "ports", "licenses"]);
        let limit = if self.rng.random_bool(0.5) { self.amounts_of_limit() } else { Default::default() };
        let shape = if self.rng.random_bool(0.3) { Some(self.resources(3)) } else { None };
        Some(Quota { guarantee, limit, shape, preemptible: true })
    }

    fn amounts_of_limit(&mut self) -> divvy_proto::Amounts {
        let (cpus, mem, ports) = (self.pick(14), self.pick(14), self.pick(9));
        format!("cpus={cpus};mem={mem}GiB;ports={ports}").parse().unwrap()
    }

    fn any<T: Clone>(&mut self, from: fn(&Self) -> &Vec<T>) -> Option<(usize, T)> {
        let len = from(self).len();
        if len == 0 {
            return None;
        }
        let at = self.pick(len);
        Some((at, from(self)[at].clone()))
    }

    /// Something happens.
    fn step(&mut self) -> Option<()> {
        match self.pick(if self.with_quotas { 25 } else { 21 }) {
            0 if self.agents.len() < 7 => self.add_agent(),
            1 if self.clients.len() < 8 => self.add_client(),
            2..=4 => {
                let (_, client) = self.any(|world| &world.clients)?;
                let wish = self.wish();
                self.note(|| format!("{client:?} wants {wish:?}"));
                self.allocator.set_wish(self.now, client, wish);
            }
            5..=8 => self.answer()?,
            9..=11 => {
                let (at, (agent, client, charge)) = self.any(|world| &world.tasks)?;
                self.tasks.swap_remove(at);
                self.note(|| format!("ends {agent:?} {client:?} {charge:?}"));
                self.allocator.release(agent, client, &charge);
            }
            12 => {
                let (_, agent) = self.any(|world| &world.agents)?;
                let total = self.total();
                self.note(|| format!("{agent:?} has {total:?}"));
                self.allocator.set_total(agent, total);
            }
            13 => {
                let (_, agent) = self.any(|world| &world.agents)?;
                let (active, counted) = (self.rng.random_bool(0.8), self.rng.random_bool(0.9));
                self.note(|| format!("{agent:?} active {active} counted {counted}"));
                self.allocator.set_standing(agent, active, counted);
            }
            14 => {
                let (_, client) = self.any(|world| &world.clients)?;
                self.note(|| format!("{client:?} revives"));
                self.allocator.clear_client_filters(client);
            }
            15 => {
                let (_, agent) = self.any(|world| &world.agents)?;
                let facts = self.facts();
                self.note(|| format!("{agent:?} is {facts:?}"));
                self.allocator.set_facts(agent, facts);
            }
            16 => {
                let name = format!("f1-{}", self.pick(6)).parse().unwrap();
                let all: BTreeSet<_> =
                    self.rng.random_bool(0.6).then_some(Capability::Revocable).into_iter().collect();
                self.note(|| format!("{name} can {all:?}"));
                self.allocator.set_capabilities(&name, &all);
            }
            17 => {
                let name = *ROLES.choose(&mut self.rng).unwrap();
                let weight = Weight::from_thousandths(self.rng.random_range(1..5000)).unwrap();
                self.note(|| format!("{name} weighs {weight}"));
                self.allocator.set_weight(&role(name), weight);
            }
            18 => self.remove()?,
            19 => {
                let (_, agent) = self.any(|world| &world.agents)?;
                let (_, client) = self.any(|world| &world.clients)?;
                let ends = self.rng.random_bool(0.6);
                self.note(|| format!("room on {agent:?} for {client:?} ends {ends}"));
                if ends {
                    self.allocator.end_room(agent);
                } else {
                    self.allocator.make_room(agent, client);
                }
            }
            20 => {
                let (_, agent) = self.any(|world| &world.agents)?;
                let name = *ROLES[1..].choose(&mut self.rng).unwrap();
                let size = Bytes::from_bytes(self.rng.random_range(0..100)).unwrap();
                self.note(|| format!("{agent:?} volume {name} {size}"));
                self.allocator.set_volumes(agent, vec![(role(name), size)]);
            }
            _ => {
                let name = *ROLES.choose(&mut self.rng).unwrap();
                let quota = self.quota();
                self.note(|| format!("quota {name} {quota:?}"));
                self.allocator.set_quota(&role(name), quota);
            }
        }
        Some(())
    }

    /// An offer is accepted in part or whole, declined, or comes back.
    fn answer(&mut self) -> Option<()> {
        let (at, grant) = self.any(|world| &world.offers)?;
        self.offers.swap_remove(at);
        let mut launched = 0;
        let mut left = grant.charge.clone();
        let mut held = Vec::new();
        if self.rng.random_bool(0.6) {
            let most = grant.demand.as_ref().map_or(2, |demand| demand.count);
            let wanted = self.rng.random_range(0..=most);
            for _ in 0..wanted {
                let part = self.resources(2);
                if let Some(charge) = left.take(&part) {
                    held.push(charge);
                    launched += 1;
                }
            }
        }
        self.note(|| format!("answer {grant:?} {launched}"));
        self.allocator.end_offer(&grant, launched);
        for charge in held {
            self.allocator.hold(grant.agent, grant.client, &charge);
            self.tasks.push((grant.agent, grant.client, charge));
        }
        if !left.is_empty() && self.rng.random_bool(0.7) {
            let until = self.now + Duration::from_secs(self.rng.random_range(0..30));
            self.allocator.refuse(grant.agent, grant.client, left.total(), until);
        }
        Some(())
    }

    fn remove(&mut self) -> Option<()> {
        if self.rng.random_bool(0.5) {
            let (at, agent) = self.any(|world| &world.agents)?;
            let busy = self.offers.iter().any(|offer| offer.agent == agent)
                || self.tasks.iter().any(|(on, _, _)| *on == agent);
            if !busy && self.agents.len() > 2 {
                self.agents.swap_remove(at);
                self.note(|| format!("remove {agent:?}"));
                self.allocator.remove_agent(agent);
            }
        } else {
            let name = format!("f1-{}", self.pick(6)).parse().unwrap();
            let of = |world: &Self, client: ClientIx| world.allocator.client_of(client).framework == name;
            let busy = self.offers.iter().any(|offer| of(self, offer.client))
                || self.tasks.iter().any(|(_, client, _)| of(self, *client));
            if !busy && self.clients.iter().any(|client| of(self, *client)) {
                let clients = self.clients.iter().copied().filter(|client| !of(self, *client)).collect();
                self.clients = clients;
                self.note(|| format!("remove {name}"));
                self.allocator.remove_framework(&name);
            }
        }
        Some(())
    }

    /// A turn ends, which must come to what the oracle says.
    fn turn(&mut self) {
        self.now = self.now + Duration::from_millis(self.rng.random_range(0..8_000));
        let expected = self.allocator.clone().allocate_by_full_scan(self.now);
        let now = self.now;
        self.note(|| format!("turn at {now:?}"));
        let found = self.allocator.allocate(self.now);
        assert_eq!(found, expected, "after:\n{}", self.told());
        if let Err(broken) = self.allocator.check() {
            panic!("{broken}\nafter:\n{}", self.told());
        }
        self.turns += 1;
        if self.turns.is_multiple_of(8) {
            let again = self.allocator.clone().allocate_by_full_scan(self.now);
            assert_eq!(again.grants, Vec::new(), "something was left, after:\n{}", self.told());
        }
        self.note(|| format!("  {found:?}"));
        self.offers.extend(found.grants);
    }
}

/// Sixty turns, with some steps before each. Says how many steps that were, the passing of time included.
fn run(seed: u64, is_told: bool) -> usize {
    let mut world = World::new(seed, is_told);
    let mut steps = 0;
    for _ in 0..60 {
        let some = world.rng.random_range(0..25);
        for _ in 0..some {
            let _ = world.step();
        }
        world.turn();
        steps += some + 1;
    }
    steps
}

/// 100,000 steps, or as many as `DIVVY_RANDOM_STEPS` says, from `DIVVY_RANDOM_SEED` on. Both are read when the test is built,
/// as a core has no environment.
#[test]
fn the_allocator_does_what_a_full_scan_would() {
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<usize>().ok());
    let most = number(option_env!("DIVVY_RANDOM_STEPS")).unwrap_or(100_000);
    let mut seed = number(option_env!("DIVVY_RANDOM_SEED")).unwrap_or(0) as u64;
    let mut steps = 0;
    while steps < most {
        let of_this = std::panic::catch_unwind(|| run(seed, false));
        steps += of_this.unwrap_or_else(|_| {
            eprintln!("seed {seed}, once more with all that happens");
            run(seed, true)
        });
        seed += 1;
    }
}
