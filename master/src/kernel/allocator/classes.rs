//! What constraints and preferences ask of agents, kept so that it is asked once: agents with the same attributes are one
//! class, machines are found by name, and the values of an attribute over which somebody spreads are numbered.

use std::collections::BTreeMap;

use divvy_proto::attributes::Attributes;
use divvy_proto::predicate::{Predicate, Test};

use super::AgentIx;
use super::slots::Slot;

/// Agents with the same attributes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClassIx(u32);

/// Which value of an attribute; agents without the attribute have one of their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ValueIx(u32);

impl ValueIx {
    pub(super) const fn at(self) -> usize {
        self.0 as usize
    }
}

/// The name under which every agent has its machine.
const HOSTNAME: &str = "hostname";

#[derive(Debug, Clone, Default)]
pub(super) struct Classes {
    numbers: BTreeMap<Attributes, (ClassIx, usize)>,
    /// One more whenever a number means another class than before.
    version: u64,
    made: u32,
    vacant: Vec<ClassIx>,
    hosts: BTreeMap<String, Vec<AgentIx>>,
    spreads: BTreeMap<String, Values>,
}

/// The values of one attribute.
#[derive(Debug, Clone, Default)]
struct Values {
    numbers: BTreeMap<Option<String>, ValueIx>,
    /// By agent.
    of: Vec<ValueIx>,
    /// So many clients spread over it.
    users: usize,
}

impl Values {
    fn note(&mut self, agent: AgentIx, value: Option<String>) {
        let next = ValueIx(u32::try_from(self.numbers.len()).unwrap_or(u32::MAX));
        let value = *self.numbers.entry(value).or_insert(next);
        if self.of.len() <= agent.0 {
            self.of.resize(agent.0 + 1, ValueIx(0));
        }
        self.of.get_mut(agent.0).into_iter().for_each(|place| *place = value);
    }
}

/// The text by which the agents of an attribute are told apart.
pub(super) fn value_of(slot: &Slot, attribute: &str) -> Option<String> {
    match attribute {
        HOSTNAME => Some(slot.facts.hostname.to_string()),
        _ => slot.facts.attributes.get(attribute).map(ToString::to_string),
    }
}

impl Classes {
    /// An agent is as its slot says.
    pub(super) fn add(&mut self, agent: AgentIx, slot: &Slot) -> ClassIx {
        self.hosts.entry(slot.facts.hostname.to_string()).or_default().push(agent);
        for (attribute, values) in &mut self.spreads {
            values.note(agent, value_of(slot, attribute));
        }
        if let Some((class, members)) = self.numbers.get_mut(&*slot.facts.attributes) {
            *members += 1;
            return *class;
        }
        let class = match self.vacant.pop() {
            Some(class) => {
                self.version += 1;
                class
            }
            None => {
                self.made += 1;
                ClassIx(self.made - 1)
            }
        };
        self.numbers.insert((*slot.facts.attributes).clone(), (class, 1));
        class
    }

    /// An agent is no longer as its slot says.
    pub(super) fn remove(&mut self, agent: AgentIx, slot: &Slot) {
        let host = slot.facts.hostname.as_str();
        if let Some(agents) = self.hosts.get_mut(host) {
            agents.retain(|other| *other != agent);
            if agents.is_empty() {
                self.hosts.remove(host);
            }
        }
        if let Some((class, members)) = self.numbers.get_mut(&*slot.facts.attributes) {
            *members -= 1;
            if *members == 0 {
                self.vacant.push(*class);
                self.numbers.remove(&*slot.facts.attributes);
            }
        }
    }

    /// The agents on machines of this name, the lowest first.
    pub(super) fn on_host(&self, host: &str) -> Vec<AgentIx> {
        let mut agents = self.hosts.get(host).cloned().unwrap_or_default();
        agents.sort_unstable();
        agents
    }

    /// A client spreads over this attribute. The first time that anybody does, all agents are looked at.
    pub(super) fn spread(&mut self, attribute: &str, slots: &[Slot]) {
        if !self.spreads.contains_key(attribute) {
            let mut values = Values::default();
            for (at, slot) in slots.iter().enumerate() {
                values.note(AgentIx(at), value_of(slot, attribute));
            }
            self.spreads.insert(attribute.to_owned(), values);
        }
        self.spreads.get_mut(attribute).into_iter().for_each(|values| values.users += 1);
    }

    /// A client no longer does.
    pub(super) fn unspread(&mut self, attribute: &str) {
        if let Some(values) = self.spreads.get_mut(attribute) {
            values.users -= 1;
            if values.users == 0 {
                self.spreads.remove(attribute);
            }
        }
    }

    /// An agent's value of an attribute over which somebody spreads.
    pub(super) fn value(&self, attribute: &str, agent: AgentIx) -> ValueIx {
        self.spreads.get(attribute).and_then(|values| values.of.get(agent.0)).copied().unwrap_or(ValueIx(0))
    }

    /// The values of all agents, for whoever asks for many.
    pub(super) fn values(&self, attribute: &str) -> &[ValueIx] {
        self.spreads.get(attribute).map(|values| values.of.as_slice()).unwrap_or_default()
    }
}

/// What has been found out about a constraint, class by class.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Verdicts {
    version: u64,
    by_class: Vec<Verdict>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Verdict {
    #[default]
    Unknown,
    Holds,
    Fails,
}

impl Verdicts {
    /// Whether the constraint holds on an agent, asked at most once for each class; always, if it names machines.
    pub(super) fn holds(
        &mut self,
        classes: &Classes,
        constraint: &Predicate,
        by_class: bool,
        slot: &Slot,
    ) -> bool {
        if !by_class {
            return constraint.holds(&slot.as_facts());
        }
        if self.version != classes.version {
            (self.version, self.by_class) = (classes.version, Vec::new());
        }
        let at = slot.class.0 as usize;
        if self.by_class.len() <= at {
            self.by_class.resize(at + 1, Verdict::Unknown);
        }
        let Some(verdict) = self.by_class.get_mut(at) else { return false };
        if *verdict == Verdict::Unknown {
            *verdict = if constraint.holds(&slot.as_facts()) { Verdict::Holds } else { Verdict::Fails };
        }
        *verdict == Verdict::Holds
    }
}

/// Whether agents with the same attributes can differ in a constraint: it asks for names of machines or ids of agents.
pub(super) fn names_agents(constraint: &Predicate) -> bool {
    match constraint {
        Predicate::All(parts) | Predicate::Any(parts) => parts.iter().any(names_agents),
        Predicate::Not(part) => names_agents(part),
        Predicate::Test(Test { attribute, .. }) => matches!(attribute.as_str(), HOSTNAME | "agent"),
    }
}
