//! Constraints over agents as full boolean predicates: `rack == "r1" && (ssd >= 2 || !exists(slow)) && version(kernel) >= "6.1"`.
//!
//! A clause is `name == value`, `name != value`, `name in [value, …]`, `name not in [value, …]`, `name like "glob"`,
//! `name contains N`, `name < N` (and `<=`, `>`, `>=`), `exists(name)`, `version(name) >= "6.1"` (and the others), `true` or
//! `false`. Clauses are joined by `&&`, `||`, `!` and parentheses; `!` binds closest, then `&&`. A name is letters, digits, `_`,
//! `-`, `.` and `/`, or any text in quotes; a value is a number, or text in double quotes with `\"` and `\\`.
//!
//! Not here: which agents are asked, and in what order.

mod text;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::str::Chars;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::attributes::{AttributeValue, Attributes};
use crate::ids::{AgentId, Hostname};
use crate::quantity;
use crate::ranges::RangeSet;

/// What is known of an agent when a predicate is asked. `hostname` and `agent` are names like those of attributes; `region` and
/// `zone` are ordinary attributes.
#[derive(Debug, Clone, Copy)]
pub struct AgentFacts<'a> {
    /// Its id: `agent`.
    pub id: &'a AgentId,
    /// Its machine: `hostname`.
    pub hostname: &'a Hostname,
    /// What else it says of itself.
    pub attributes: &'a Attributes,
}

/// A condition on an agent. Its text form is its JSON form, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Predicate {
    /// All of these hold.
    All(Vec<Predicate>),
    /// One of these holds.
    Any(Vec<Predicate>),
    /// This does not hold.
    Not(Box<Predicate>),
    /// One attribute is so.
    Test(Test),
}

/// One clause: `rack in ["r1", "r2"]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// The attribute's name.
    pub attribute: String,
    /// What it is compared with.
    pub comparison: Comparison,
}

/// How an attribute is compared. An agent without the attribute fails every comparison but `!=` and `not in`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// `exists(name)`.
    Exists,
    /// `name == "text"` or `name == 4`: as text, or as a number where both are numbers.
    Equals(String),
    /// `name != "text"`.
    NotEquals(String),
    /// `name in ["a", "b"]`.
    In(Vec<String>),
    /// `name not in ["a", "b"]`.
    NotIn(Vec<String>),
    /// `name like "web-*"`: `*` is any text, `?` any character.
    Like(String),
    /// `name contains 5`: ranges that hold the number.
    Contains(u32),
    /// `name < 4`, in thousandths.
    Number(Order, i64),
    /// `version(name) >= "6.1.2"`: parts between dots and dashes compared as numbers where both are numbers; text lies between
    /// zero, which a missing part is, and one.
    Version(Order, String),
}

/// `<`, `<=`, `>`, `>=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    More,
    /// `>=`
    AtLeast,
}

/// Longest text of a predicate, in bytes, as it was written and as it is shown.
pub const MAX_TEXT: usize = 4 << 10;
/// Deepest nesting of parentheses and `!`.
pub const MAX_DEPTH: usize = 64;
/// Most clauses.
pub const MAX_CLAUSES: usize = 256;

impl Predicate {
    /// Whether the agent is so.
    #[must_use]
    pub fn holds(&self, agent: &AgentFacts<'_>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(agent)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(agent)),
            Self::Not(part) => !part.holds(agent),
            Self::Test(test) => test.holds(agent),
        }
    }

    /// The text of the first clause, in reading order, without which the agent would come further; `None` if the agent is so.
    /// Alternatives and negations are one clause.
    #[must_use]
    pub fn first_failing(&self, agent: &AgentFacts<'_>) -> Option<String> {
        self.failing_clause(agent).map(ToString::to_string)
    }

    /// The same, as a part of this predicate: for whoever counts over many agents and writes the text once.
    #[must_use]
    pub fn failing_clause(&self, agent: &AgentFacts<'_>) -> Option<&Self> {
        match self {
            Self::All(parts) if !parts.is_empty() => parts.iter().find_map(|part| part.failing_clause(agent)),
            _ => (!self.holds(agent)).then_some(self),
        }
    }

    /// The machines on which it can hold, sorted, if it names all of them; `None` where any machine is thinkable. It need not
    /// hold on each of these.
    #[must_use]
    pub fn hostnames(&self) -> Option<Vec<&str>> {
        let named: BTreeSet<&str> = self.named_hosts()?;
        Some(named.into_iter().collect())
    }

    fn named_hosts(&self) -> Option<BTreeSet<&str>> {
        match self {
            Self::All(parts) => parts.iter().filter_map(Self::named_hosts).reduce(|one, other| &one & &other),
            Self::Any(parts) => {
                let each: Option<Vec<_>> = parts.iter().map(Self::named_hosts).collect();
                Some(each?.into_iter().flatten().collect())
            }
            Self::Not(_) => None,
            Self::Test(Test { attribute, comparison }) if attribute == "hostname" => match comparison {
                Comparison::Equals(name) => Some(BTreeSet::from([name.as_str()])),
                Comparison::In(names) => Some(names.iter().map(String::as_str).collect()),
                _ => None,
            },
            Self::Test(_) => None,
        }
    }
}

impl Test {
    fn holds(&self, agent: &AgentFacts<'_>) -> bool {
        use Comparison::{Contains, Equals, Exists, In, Like, NotEquals, NotIn, Number, Version};
        let Some(value) = Value::of(&self.attribute, agent) else {
            return matches!(self.comparison, NotEquals(_) | NotIn(_));
        };
        match &self.comparison {
            Exists => true,
            Equals(text) => value.equals(text),
            NotEquals(text) => !value.equals(text),
            In(texts) => texts.iter().any(|text| value.equals(text)),
            NotIn(texts) => !texts.iter().any(|text| value.equals(text)),
            Like(glob) => matches_glob(glob, &value.text()),
            Contains(number) => {
                value.ranges().is_some_and(|r| r.contains(&RangeSet::range(*number, *number)))
            }
            Number(order, limit) => value.number().is_some_and(|number| order.allows(number.cmp(limit))),
            Version(order, limit) => order.allows(compare_versions(&value.text(), limit)),
        }
    }
}

impl Order {
    fn allows(self, found: Ordering) -> bool {
        match self {
            Self::Less => found.is_lt(),
            Self::AtMost => found.is_le(),
            Self::More => found.is_gt(),
            Self::AtLeast => found.is_ge(),
        }
    }
}

/// What an agent has under a name.
#[derive(Clone, Copy)]
enum Value<'a> {
    Name(&'a str),
    Attribute(&'a AttributeValue),
}

impl<'a> Value<'a> {
    fn of(name: &str, agent: &AgentFacts<'a>) -> Option<Self> {
        match name {
            "hostname" => Some(Self::Name(agent.hostname.as_str())),
            "agent" => Some(Self::Name(agent.id.as_str())),
            _ => agent.attributes.get(name).map(Self::Attribute),
        }
    }

    fn text(self) -> Cow<'a, str> {
        match self {
            Self::Name(text) => text.into(),
            Self::Attribute(AttributeValue::Text(text)) => text.into(),
            Self::Attribute(other) => other.to_string().into(),
        }
    }

    fn number(self) -> Option<i64> {
        match self {
            Self::Attribute(AttributeValue::Scalar(number)) => Some(number.millis()),
            _ => None,
        }
    }

    fn ranges(self) -> Option<&'a RangeSet> {
        match self {
            Self::Attribute(AttributeValue::Ranges(ranges)) => Some(&ranges.0),
            _ => None,
        }
    }

    fn equals(self, text: &str) -> bool {
        match (self.number(), as_number(text)) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => self.text() == text,
        }
    }
}

/// Text that could stand without quotes, in thousandths.
fn as_number(text: &str) -> Option<i64> {
    let fine = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-'));
    fine.then(|| quantity::parse_thousandths("number", text).ok()).flatten()
}

/// `*` is any text, `?` any character. Goes back to the latest `*` only, so the time is at most the product of the lengths.
fn matches_glob(glob: &str, text: &str) -> bool {
    let (mut glob, mut text) = (glob.chars(), text.chars());
    let mut retry: Option<(Chars<'_>, Chars<'_>)> = None;
    loop {
        let before = text.clone();
        match (glob.next(), text.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                text = before;
                retry = Some((glob.clone(), text.clone()));
                continue;
            }
            (Some('?'), Some(_)) => continue,
            (Some(wanted), Some(found)) if wanted == found => continue,
            _ => {}
        }
        let Some((after_star, mut from)) = retry.take() else { return false };
        if from.next().is_none() {
            return false;
        }
        (glob, text) = (after_star.clone(), from.clone());
        retry = Some((after_star, from));
    }
}

/// A part of a version, so that 6.1 = 6.1.0 < 6.1-amd64 < 6.1.1. A number's digits have no leading zeroes: the longer is the
/// larger.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Part<'a> {
    Zero,
    Text(&'a str),
    Number(usize, &'a str),
}

/// Part by part; what one of them lacks is zero.
fn compare_versions(one: &str, other: &str) -> Ordering {
    let part = |text| match text {
        Some(text) if !str::is_empty(text) && text.bytes().all(|b: u8| b.is_ascii_digit()) => {
            match text.trim_start_matches('0') {
                "" => Part::Zero,
                digits => Part::Number(digits.len(), digits),
            }
        }
        Some(text) => Part::Text(text),
        None => Part::Zero,
    };
    let (mut one, mut other) = (one.split(['.', '-']), other.split(['.', '-']));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return Ordering::Equal,
            (mine, theirs) => match part(mine).cmp(&part(theirs)) {
                Ordering::Equal => {}
                different => return different,
            },
        }
    }
}

impl Serialize for Predicate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Predicate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
