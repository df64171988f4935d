//! Where a task may and should run, over the full inventory of agents, so that every framework places alike and can explain
//! itself.
//!
//! Not here: which task comes first, and when to launch it.

use std::collections::{BTreeMap, BTreeSet};

use divvy_proto::api::{Agent, AgentState};
use divvy_proto::attributes::Attributes;
use divvy_proto::demand::DemandShape;
use divvy_proto::ids::{AgentId, Hostname, VolumeId};
use divvy_proto::predicate::AgentFacts;
use divvy_proto::resources::Shortage;
use serde::{Deserialize, Serialize};

use crate::offer::assign;
use crate::shape;
use crate::{Constraint, Offer, Task, TaskSpec, View};

/// Where a task of the same group runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAt<'a> {
    /// Its machine.
    pub hostname: &'a Hostname,
    /// The attributes of its agent.
    pub attributes: &'a Attributes,
}

impl PeerAt<'_> {
    fn value(&self, attribute: &str) -> Option<String> {
        value(self.hostname, self.attributes, attribute)
    }
}

/// An attribute's value as constraints compare it. `hostname` is one that every agent has.
fn value(hostname: &Hostname, attributes: &Attributes, attribute: &str) -> Option<String> {
    match attribute {
        "hostname" => Some(hostname.to_string()),
        _ => attributes.get(attribute).map(ToString::to_string),
    }
}

/// Whether a task with these constraints may run on such an agent beside its peers. `Spread` is not judged here, as it needs
/// the inventory: see [`Placement`].
///
/// # Errors
/// The constraint that stands in the way, for people.
pub fn allows(
    constraints: &[Constraint],
    hostname: &Hostname,
    attributes: &Attributes,
    peers: &[PeerAt<'_>],
) -> Result<(), String> {
    constraints.iter().try_for_each(|constraint| allows_one(constraint, hostname, attributes, peers))
}

fn allows_one(
    constraint: &Constraint,
    hostname: &Hostname,
    attributes: &Attributes,
    peers: &[PeerAt<'_>],
) -> Result<(), String> {
    let (Constraint::Unique { attribute }
    | Constraint::Like { attribute, .. }
    | Constraint::Spread { attribute }) = constraint;
    let Some(here) = value(hostname, attributes, attribute) else {
        return Err(format!("{constraint}: no such attribute"));
    };
    match constraint {
        Constraint::Unique { .. }
            if peers.iter().any(|peer| peer.value(attribute).as_ref() == Some(&here)) =>
        {
            Err(format!("{constraint}: taken"))
        }
        Constraint::Like { pattern, .. } if !matches(pattern, &here) => {
            Err(format!("{constraint}: no match"))
        }
        _ => Ok(()),
    }
}

/// Whether text matches a pattern in which `*` stands for any run of characters.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut rest) = text.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = tail.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        // The first place is as good as any: what follows may begin anywhere after it.
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

/// Why a task waits: every agent is counted once, under the first reason that stands in its way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// How many agents there are.
    pub agents: usize,
    /// How many are not active.
    pub not_active: usize,
    /// How many each constraint excludes.
    pub constraint: BTreeMap<String, usize>,
    /// How many could never take it, by the scarce dimension.
    pub too_small: BTreeMap<String, usize>,
    /// How many have too little left now, by the scarce dimension.
    pub busy: BTreeMap<String, usize>,
    /// All that in one sentence, for people.
    pub summary: String,
}

impl Waiting {
    /// How many agents could take it now.
    #[must_use]
    pub fn could(&self) -> usize {
        let counted: usize =
            [&self.constraint, &self.too_small, &self.busy].into_iter().flat_map(BTreeMap::values).sum();
        self.agents.saturating_sub(self.not_active + counted)
    }
}

/// What stands in an agent's way.
enum Obstacle {
    NotActive,
    Constraint(String),
    TooSmall(Shortage),
    Busy(Shortage),
}

/// One task's prospects: the constraints of its spec against the inventory and the group's live tasks.
#[derive(Debug)]
pub struct Placement<'a> {
    spec: &'a TaskSpec,
    view: &'a View,
    /// How many peers each machine has.
    machines: BTreeMap<&'a Hostname, usize>,
    /// For each attribute that a constraint counts, how many peers each value has.
    values: BTreeMap<&'a str, BTreeMap<String, usize>>,
    /// For each `Spread`, by attribute, the values that could take one more now.
    open: BTreeMap<&'a str, BTreeSet<String>>,
}

impl<'a> Placement<'a> {
    /// `peers` are the group's live tasks. Tasks of the same name that were taken from one of `offers` count too, so that several
    /// can be placed in one turn: keep the offers together until all is placed.
    pub fn new(spec: &'a TaskSpec, peers: &[&'a Task], view: &'a View, offers: &'a [Offer]) -> Self {
        let taken = offers.iter().flat_map(|offer| {
            let same = offer.taken().iter().filter(|task| task.name == spec.name);
            same.map(|_| PeerAt { hostname: offer.hostname(), attributes: offer.attributes() })
        });
        let peers = peers.iter().map(|task| PeerAt {
            hostname: &task.hostname,
            attributes: view.agent(&task.agent_id).map_or(&NO_ATTRIBUTES, |agent| &agent.attributes),
        });
        let (machines, values, open) = Default::default();
        let mut placement = Self { spec, view, machines, values, open };
        placement.count(peers.chain(taken));
        placement.open = placement.open();
        placement
    }

    fn count(&mut self, peers: impl Iterator<Item = PeerAt<'a>>) {
        for peer in peers {
            *self.machines.entry(peer.hostname).or_default() += 1;
            for constraint in &self.spec.constraints {
                if let Constraint::Unique { attribute } | Constraint::Spread { attribute } = constraint
                    && let Some(value) = peer.value(attribute)
                {
                    *self.values.entry(attribute).or_default().entry(value).or_default() += 1;
                }
            }
        }
    }

    /// Of all agents that could take the task but for its spreads, the values of the attributes that are spread over.
    fn open(&self) -> BTreeMap<&'a str, BTreeSet<String>> {
        let mut open = BTreeMap::new();
        for constraint in &self.spec.constraints {
            let Constraint::Spread { attribute } = constraint else { continue };
            let agents = self.view.agents().filter(|agent| self.obstacle(agent).is_none());
            let values = agents.filter_map(|agent| value(&agent.hostname, &agent.attributes, attribute));
            open.insert(attribute.as_str(), values.collect());
        }
        open
    }

    fn peers_with(&self, attribute: &str, value: &str) -> usize {
        self.values.get(attribute).and_then(|values| values.get(value)).copied().unwrap_or(0)
    }

    /// What the kernel is to look for when so many more of the task are wanted: its shape, without the agents that `unique`
    /// constraints exclude already.
    #[must_use]
    pub fn shape(&self, name: impl Into<String>, count: u32) -> DemandShape {
        let taken = self.spec.constraints.iter().filter_map(|constraint| match constraint {
            Constraint::Unique { attribute } => {
                let taken: Vec<String> = self.values.get(attribute.as_str())?.keys().cloned().collect();
                (!taken.is_empty()).then(|| shape::none_of(attribute, taken))
            }
            _ => None,
        });
        let volumes = (!self.spec.volumes.is_empty()).then(|| {
            let has_them = |agent: &&Agent| missing_volume(self.spec, agent).is_none();
            shape::one_of("agent", self.view.agents().filter(has_them).map(|agent| agent.id.to_string()))
        });
        shape::with(self.spec, name.into(), count, taken.chain(volumes).collect())
    }

    /// Whether the constraints let the task run on such an agent.
    ///
    /// # Errors
    /// The constraint that stands in the way, for people.
    pub fn allows(&self, id: &AgentId, hostname: &Hostname, attributes: &Attributes) -> Result<(), String> {
        if let Some(constraint) = &self.spec.constraint
            && let Some(clause) = constraint.first_failing(&AgentFacts { id, hostname, attributes })
        {
            return Err(clause);
        }
        self.spec.constraints.iter().try_for_each(|constraint| {
            allows_one(constraint, hostname, attributes, &[])?;
            let here = |attribute| value(hostname, attributes, attribute).unwrap_or_default();
            match constraint {
                Constraint::Unique { attribute } if self.peers_with(attribute, &here(attribute)) > 0 => {
                    Err(format!("{constraint}: taken"))
                }
                Constraint::Spread { attribute } if self.is_ahead(attribute, &here(attribute)) => {
                    Err(format!("{constraint}: ahead of others"))
                }
                _ => Ok(()),
            }
        })
    }

    /// Whether another value has fewer peers and could take one.
    fn is_ahead(&self, attribute: &str, value: &str) -> bool {
        let open = self.open.get(attribute).into_iter().flatten();
        let least = open.map(|open| self.peers_with(attribute, open)).min();
        least.is_some_and(|least| self.peers_with(attribute, value) > least)
    }

    /// The best of the offers that fit and satisfy the constraints: where the fewest peers are, then where the least would be left.
    #[must_use]
    pub fn best(&self, offers: &[Offer]) -> Option<usize> {
        let fits = |offer: &Offer| {
            offer.fits(self.spec)
                && self.allows(offer.agent_id(), offer.hostname(), offer.attributes()).is_ok()
        };
        let rank = |offer: &Offer| {
            let peers = self.machines.get(offer.hostname()).copied().unwrap_or(0);
            (peers, offer.remaining().cpus(), offer.remaining().mem(), offer.id())
        };
        let fitting = offers.iter().enumerate().filter(|(_, offer)| fits(offer));
        fitting.min_by_key(|(_, offer)| rank(offer)).map(|(at, _)| at)
    }

    /// Why the task waits.
    #[must_use]
    pub fn explain(&self) -> Waiting {
        let mut waiting = Waiting::default();
        let mut shortages = Vec::new();
        for agent in self.view.agents() {
            waiting.agents += 1;
            match self.obstacle(agent) {
                None => {}
                Some(Obstacle::NotActive) => waiting.not_active += 1,
                Some(Obstacle::Constraint(text)) => *waiting.constraint.entry(text).or_default() += 1,
                Some(Obstacle::TooSmall(shortage)) => {
                    *waiting.too_small.entry(shortage.dimension.clone()).or_default() += 1;
                    shortages.push((agent, shortage));
                }
                Some(Obstacle::Busy(shortage)) => {
                    *waiting.busy.entry(shortage.dimension.clone()).or_default() += 1;
                }
            }
        }
        waiting.summary = summary(&waiting, &shortages);
        waiting
    }

    /// The first thing that stands in the way, hardest first.
    fn obstacle(&self, agent: &Agent) -> Option<Obstacle> {
        if agent.state != AgentState::Active {
            return Some(Obstacle::NotActive);
        }
        if let Err(shortage) = assign(&agent.resources.total, self.spec) {
            return Some(Obstacle::TooSmall(shortage));
        }
        if let Err(text) = self.allows(&agent.id, &agent.hostname, &agent.attributes) {
            return Some(Obstacle::Constraint(text));
        }
        if let Some(volume) = missing_volume(self.spec, agent) {
            return Some(Obstacle::Constraint(format!("volume {volume}: not there")));
        }
        let free = agent.resources.total.saturating_sub(&agent.resources.used);
        assign(&free, self.spec).err().map(Obstacle::Busy)
    }
}

fn missing_volume<'a>(spec: &'a TaskSpec, agent: &Agent) -> Option<&'a VolumeId> {
    let there = |id: &VolumeId| agent.volumes.iter().any(|there| there.volume.id == *id);
    spec.volumes.iter().map(|mount| &mount.id).find(|id| !there(id))
}

static NO_ATTRIBUTES: Attributes = Attributes::new();

/// The best of the offers that fit the task and satisfy its constraints: see [`Placement::new`] and [`Placement::best`].
#[must_use]
pub fn place(spec: &TaskSpec, peers: &[&Task], view: &View, offers: &[Offer]) -> Option<usize> {
    Placement::new(spec, peers, view, offers).best(offers)
}

/// Why the task waits: see [`Waiting`].
#[must_use]
pub fn explain(spec: &TaskSpec, peers: &[&Task], view: &View) -> Waiting {
    Placement::new(spec, peers, view, &[]).explain()
}

fn summary(waiting: &Waiting, too_small: &[(&Agent, Shortage)]) -> String {
    let agents = waiting.agents;
    let of_all = if agents == 1 { "the only agent".to_owned() } else { format!("all {agents} agents") };
    if agents == 0 {
        return "waiting for the inventory: no agent is known".to_owned();
    }
    if waiting.could() > 0 {
        return format!("waiting for offers: {} of {agents} agents could take it", waiting.could());
    }
    if waiting.not_active == agents {
        return format!("{of_all} {} not active", if agents == 1 { "is" } else { "are" });
    }
    if let Some((agent, shortage)) = too_small.first()
        && too_small.len() + waiting.not_active == agents
    {
        return largest(agents, too_small, agent, shortage);
    }
    let mut reasons = Vec::new();
    let count =
        |count: usize| if count == agents { of_all.clone() } else { format!("{count} of {agents} agents") };
    for (text, number) in &waiting.constraint {
        reasons.push(format!("constraint {text} on {}", count(*number)));
    }
    for (dimension, number) in &waiting.busy {
        reasons.push(format!("too little {dimension} left on {}", count(*number)));
    }
    for (dimension, number) in &waiting.too_small {
        reasons.push(format!("needs more {dimension} than {} have", count(*number)));
    }
    if waiting.not_active > 0 {
        reasons.push(format!("{} not active", count(waiting.not_active)));
    }
    reasons.join("; ")
}

/// `needs cpus=64: the largest of 3 agents has 2`.
fn largest(agents: usize, too_small: &[(&Agent, Shortage)], first: &Agent, shortage: &Shortage) -> String {
    let amount = |agent: &Agent| {
        let scalars: BTreeMap<&str, i64> = agent.resources.total.scalars().collect();
        scalars.get(shortage.dimension.as_str()).copied().unwrap_or(0)
    };
    let same = too_small.iter().filter(|(_, other)| other.dimension == shortage.dimension);
    let most = same.max_by_key(|(agent, _)| amount(agent));
    let available = most.map_or(&shortage.available, |(_, shortage)| &shortage.available);
    let Shortage { dimension, wanted, .. } = shortage;
    match agents {
        1 => format!("needs {dimension}={wanted}: the only agent, {}, has {available}", first.hostname),
        _ => format!("needs {dimension}={wanted}: the largest of {agents} agents has {available}"),
    }
}

#[cfg(test)]
mod tests {
    use divvy_proto::api::ResourceUse;
    use divvy_proto::ids::{AgentId, OfferId, TaskId};
    use divvy_proto::scheduler::OfferInfo;
    use divvy_proto::{Bytes, Cpus, Timestamp};

    use super::*;

    /// `a1` of rack `r1`, with so many cpus of which so many are used.
    fn agent(number: u32, rack: &str, total: u32, used: u32) -> Agent {
        let cpus = |count: u32| format!("cpus={count};mem=8GiB;ports=[31000-31009]").parse().unwrap();
        let attributes: Attributes = format!("rack={rack}").parse().unwrap();
        let hostname = Hostname::new(format!("host-{number}")).unwrap();
        let attributes = attributes.with("hostname", divvy_proto::AttributeValue::Text(hostname.to_string()));
        let used = format!("cpus={used}").parse().unwrap();
        Agent {
            id: AgentId::new(format!("a{number}")).unwrap(),
            hostname,
            state: AgentState::Active,
            resources: ResourceUse { total: cpus(total), used, ..ResourceUse::default() },
            attributes,
            tasks: 0,
            address: "127.0.0.1".into(),
            url: String::new(),
            version: String::new(),
            since: Timestamp(0),
            deactivated: false,
            drain: None,
            maintenance: None,
            reserved: Vec::new(),
            volumes: Vec::new(),
            revocable: Default::default(),
        }
    }

    /// All that the agent has left.
    fn offer(agent: &Agent) -> Offer {
        let number = agent.id.as_str().trim_start_matches('a').parse().unwrap();
        Offer::new(OfferInfo {
            id: OfferId(number),
            agent_id: agent.id.clone(),
            hostname: agent.hostname.clone(),
            attributes: agent.attributes.clone(),
            role: divvy_proto::RolePath::default(),
            resources: agent.resources.total.saturating_sub(&agent.resources.used),
            reserved: Vec::new(),
            volumes: Vec::new(),
            revocable: false,
            unavailable: None,
            demand: None,
        })
    }

    fn view(agents: impl IntoIterator<Item = Agent>) -> View {
        View::of(Timestamp(0), [], agents)
    }

    fn web(constraints: impl IntoIterator<Item = Constraint>) -> TaskSpec {
        let spec =
            TaskSpec::shell("true").named("web").cpus(Cpus::from_millis(1000).unwrap()).mem(Bytes::mib(64));
        TaskSpec { constraints: constraints.into_iter().collect(), ..spec }
    }

    fn unique(attribute: &str) -> Constraint {
        Constraint::Unique { attribute: attribute.into() }
    }

    fn like(attribute: &str, pattern: &str) -> Constraint {
        Constraint::Like { attribute: attribute.into(), pattern: pattern.into() }
    }

    fn spread(attribute: &str) -> Constraint {
        Constraint::Spread { attribute: attribute.into() }
    }

    /// Places tasks one after the other in one turn, and says on which agents.
    fn place_all(count: usize, spec: &TaskSpec, agents: &[Agent]) -> Vec<String> {
        let view = view(agents.iter().cloned());
        let mut offers: Vec<Offer> = agents.iter().map(offer).collect();
        let mut placed = Vec::new();
        for number in 0..count {
            let Some(at) = place(spec, &[], &view, &offers) else { break };
            offers[at].take(TaskId::new(format!("t{number}")).unwrap(), spec).unwrap();
            placed.push(offers[at].agent_id().to_string());
        }
        placed
    }

    #[test]
    fn patterns_match_with_stars() {
        let rows = [
            ("r1", "r1", true),
            ("r1", "r12", false),
            ("r*", "r12", true),
            ("*", "", true),
            ("*-eu-*", "web-eu-1", true),
            ("*-eu-*", "web-us-1", false),
            ("a*a", "a", false),
            ("a*b*c", "abbc", true),
            ("a*b*c", "acb", false),
        ];
        for (pattern, text, expected) in rows {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn without_constraints_a_group_spreads_over_agents_and_then_packs() {
        let agents = [agent(1, "r1", 4, 0), agent(2, "r1", 4, 2), agent(3, "r2", 4, 0)];
        assert_eq!(place_all(5, &web([]), &agents), ["a2", "a1", "a3", "a2", "a1"]);
    }

    #[test]
    fn unique_takes_each_value_once() {
        let agents = [agent(1, "r1", 4, 0), agent(2, "r1", 4, 0), agent(3, "r2", 4, 0)];
        assert_eq!(place_all(9, &web([unique("hostname")]), &agents), ["a1", "a2", "a3"]);
        assert_eq!(place_all(9, &web([unique("rack")]), &agents), ["a1", "a3"]);
    }

    #[test]
    fn like_takes_what_matches() {
        let agents = [agent(1, "r1", 2, 0), agent(2, "x1", 2, 0)];
        assert_eq!(place_all(9, &web([like("rack", "r*")]), &agents), ["a1", "a1"]);
        assert_eq!(place_all(9, &web([like("zone", "*")]), &agents), [""; 0]);
    }

    #[test]
    fn spread_counts_values_not_agents() {
        let agents = [agent(1, "r1", 4, 0), agent(2, "r1", 4, 0), agent(3, "r2", 4, 0)];
        assert_eq!(place_all(6, &web([spread("rack")]), &agents), ["a1", "a3", "a2", "a3", "a1", "a3"]);
    }

    #[test]
    fn spread_does_not_wait_for_values_that_are_full() {
        let agents = [agent(1, "r1", 8, 0), agent(2, "r2", 8, 8)];
        assert_eq!(place_all(3, &web([spread("rack")]), &agents), ["a1", "a1", "a1"]);
    }

    #[test]
    fn the_reason_is_one_sentence() {
        let three = || [agent(1, "r1", 2, 0), agent(2, "r1", 2, 0), agent(3, "r2", 2, 2)];
        let gone = || three().map(|agent| Agent { state: AgentState::Unreachable, ..agent });
        let cpus = |count: i64| web([]).cpus(Cpus::from_millis(count * 1000).unwrap());
        let rows = [
            (cpus(1), vec![], "waiting for the inventory: no agent is known"),
            (cpus(64), three().to_vec(), "needs cpus=64: the largest of 3 agents has 2"),
            (cpus(64), vec![agent(1, "r1", 2, 0)], "needs cpus=64: the only agent, host-1, has 2"),
            (cpus(1), three().to_vec(), "waiting for offers: 2 of 3 agents could take it"),
            (cpus(1), vec![agent(3, "r2", 2, 2)], "too little cpus left on the only agent"),
            (cpus(1), gone().to_vec(), "all 3 agents are not active"),
            (
                web([like("rack", "r2")]),
                three().to_vec(),
                "constraint rack like \"r2\": no match on 2 of 3 agents; too little cpus left on 1 of 3 agents",
            ),
        ];
        for (spec, agents, expected) in rows {
            assert_eq!(explain(&spec, &[], &view(agents)).summary, expected);
        }
    }

    #[test]
    fn a_constraint_that_is_used_up_is_explained() {
        let agents = [agent(1, "r1", 2, 0), agent(2, "r2", 2, 0)];
        let view = view(agents.clone());
        let spec = web([unique("hostname")]);
        let mut offers: Vec<Offer> = agents.iter().map(offer).collect();
        for (number, offer) in offers.iter_mut().enumerate() {
            offer.take(TaskId::new(format!("t{number}")).unwrap(), &spec).unwrap();
        }
        let waiting = Placement::new(&spec, &[], &view, &offers).explain();
        let expected = Waiting {
            agents: 2,
            constraint: [("hostname unique: taken".to_owned(), 2)].into(),
            summary: "constraint hostname unique: taken on all 2 agents".into(),
            ..Waiting::default()
        };
        assert_eq!(waiting, expected);
    }
}
