//! Constraints over agents as full boolean predicates: `rack == "r1" && (ssd >= 2 || !exists(slow)) && version(kernel) >= "6.1"`.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::str::{Chars, FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::attributes::{AttributeValue, Attributes};
use crate::error::Invalid;
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

/// The canonical text. It parses back to the same, but for conjunctions of one, which vanish.
impl fmt::Display for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(parts) => joined(f, parts, " && ", "true"),
            Self::Any(parts) => joined(f, parts, " || ", "false"),
            Self::Not(part) => match part.single() {
                Self::Test(Test { comparison, .. }) if *comparison != Comparison::Exists => {
                    write!(f, "!({part})")
                }
                part => {
                    f.write_str("!")?;
                    part.grouped(f, 2)
                }
            },
            Self::Test(test) => test.fmt(f),
        }
    }
}

fn joined(f: &mut fmt::Formatter<'_>, parts: &[Predicate], with: &str, none: &str) -> fmt::Result {
    let binding = if with == " || " { 1 } else { 2 };
    match parts {
        [] => f.write_str(none),
        [only] => write!(f, "{only}"),
        [first, rest @ ..] => {
            first.grouped(f, binding)?;
            rest.iter().try_for_each(|part| {
                f.write_str(with)?;
                part.grouped(f, binding)
            })
        }
    }
}

impl Predicate {
    /// Without conjunctions of one.
    fn single(&self) -> &Self {
        match self {
            Self::All(parts) | Self::Any(parts) => match parts.as_slice() {
                [only] => only.single(),
                _ => self,
            },
            _ => self,
        }
    }

    /// Within parentheses where it binds less than that: `||` 0, `&&` 1, all else 2.
    fn grouped(&self, f: &mut fmt::Formatter<'_>, binding: u8) -> fmt::Result {
        let own = match self.single() {
            Self::Any(parts) if !parts.is_empty() => 0,
            Self::All(parts) if !parts.is_empty() => 1,
            _ => 2,
        };
        match own < binding {
            true => write!(f, "({self})"),
            false => write!(f, "{self}"),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Comparison::{Contains, Equals, Exists, In, Like, NotEquals, NotIn, Number, Version};
        let name = Name(&self.attribute);
        match &self.comparison {
            Exists => write!(f, "exists({name})"),
            Equals(text) => write!(f, "{name} == {}", Literal(text)),
            NotEquals(text) => write!(f, "{name} != {}", Literal(text)),
            In(texts) => write!(f, "{name} in [{}]", list(texts)),
            NotIn(texts) => write!(f, "{name} not in [{}]", list(texts)),
            Like(glob) => write!(f, "{name} like {}", Quoted(glob)),
            Contains(number) => write!(f, "{name} contains {number}"),
            Number(order, limit) => write!(f, "{name} {order} {}", quantity::show_thousandths(*limit)),
            Version(order, limit) => write!(f, "version({name}) {order} {}", Quoted(limit)),
        }
    }
}

fn list(texts: &[String]) -> String {
    texts.iter().map(|text| Literal(text).to_string()).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::More => ">",
            Self::AtLeast => ">=",
        })
    }
}

/// A name, in quotes where it has what names do not have.
struct Name<'a>(&'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match !self.0.is_empty() && self.0.chars().all(in_name) {
            true => f.write_str(self.0),
            false => Quoted(self.0).fmt(f),
        }
    }
}

/// A value: without quotes if it is a number.
struct Literal<'a>(&'a str);

impl fmt::Display for Literal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match as_number(self.0) {
            Some(_) => f.write_str(self.0),
            None => Quoted(self.0).fmt(f),
        }
    }
}

struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

fn in_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/')
}

impl FromStr for Predicate {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let too_long = || Invalid::new(FIELD, text, format!("at most {MAX_TEXT} bytes of text"));
        if text.len() > MAX_TEXT {
            return Err(too_long());
        }
        let mut parser = Parser { text, at: 0, clause: 0, clauses: 0, depth: 0 };
        let predicate = parser.any()?;
        parser.start_clause();
        if !parser.rest().is_empty() {
            return Err(parser.invalid("`&&` or `||` between clauses"));
        }
        // Whoever is sent the canonical text has to be able to read it.
        match predicate.to_string().len() > MAX_TEXT {
            true => Err(too_long()),
            false => Ok(predicate),
        }
    }
}

const FIELD: &str = "constraint";

struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// Where the clause began that is read now.
    clause: usize,
    clauses: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn any(&mut self) -> Result<Predicate, Invalid> {
        let first = self.all()?;
        let mut parts = vec![first];
        while self.eat("||") {
            parts.push(self.all()?);
        }
        Ok(one_or(parts, Predicate::Any))
    }

    fn all(&mut self) -> Result<Predicate, Invalid> {
        let first = self.unary()?;
        let mut parts = vec![first];
        while self.eat("&&") {
            parts.push(self.unary()?);
        }
        Ok(one_or(parts, Predicate::All))
    }

    fn unary(&mut self) -> Result<Predicate, Invalid> {
        self.start_clause();
        if self.eat("!") {
            self.start_clause();
            // The canonical text has parentheses around a single clause.
            let levels = if self.rest().starts_with(['(', '!']) { 1 } else { 2 };
            return self.nested(levels, Self::unary).map(|part| Predicate::Not(Box::new(part)));
        }
        if !self.eat("(") {
            return self.test();
        }
        let inner = self.nested(1, Self::any)?;
        match self.eat(")") {
            true => Ok(inner),
            false => Err(self.invalid("`)` at its end")),
        }
    }

    fn nested(
        &mut self,
        levels: usize,
        inner: impl FnOnce(&mut Self) -> Result<Predicate, Invalid>,
    ) -> Result<Predicate, Invalid> {
        self.depth += levels;
        if self.depth > MAX_DEPTH {
            return Err(self.invalid("less nesting"));
        }
        let inner = inner(self)?;
        self.depth -= levels;
        Ok(inner)
    }

    fn test(&mut self) -> Result<Predicate, Invalid> {
        self.clauses += 1;
        if self.clauses > MAX_CLAUSES {
            return Err(self.invalid(format!("at most {MAX_CLAUSES} clauses")));
        }
        let quoted = self.rest().starts_with('"');
        let word = self.name()?;
        if !quoted && matches!(word.as_str(), "exists" | "version") && self.eat("(") {
            let attribute = self.name()?;
            if !self.eat(")") {
                return Err(self.invalid(format!("`)` after {word}({attribute}")));
            }
            let comparison = if word == "exists" { Comparison::Exists } else { self.version()? };
            return Ok(Predicate::Test(Test { attribute, comparison }));
        }
        match (self.comparison()?, word.as_str()) {
            (Some(comparison), _) => Ok(Predicate::Test(Test { attribute: word, comparison })),
            (None, "true") if !quoted => Ok(Predicate::All(Vec::new())),
            (None, "false") if !quoted => Ok(Predicate::Any(Vec::new())),
            (None, _) => Err(self.invalid(r#"a comparison such as rack == "r1""#)),
        }
    }

    fn version(&mut self) -> Result<Comparison, Invalid> {
        let order = self.order().ok_or_else(|| self.invalid("`<`, `<=`, `>` or `>=` after version(…)"))?;
        Ok(Comparison::Version(order, self.value()?))
    }

    fn comparison(&mut self) -> Result<Option<Comparison>, Invalid> {
        Ok(Some(if self.eat("==") {
            Comparison::Equals(self.value()?)
        } else if self.eat("!=") {
            Comparison::NotEquals(self.value()?)
        } else if let Some(order) = self.order() {
            let limit = self.value()?;
            let number =
                as_number(&limit).ok_or_else(|| self.invalid(format!("a number after `{order}`")))?;
            Comparison::Number(order, number)
        } else if self.keyword("in") {
            Comparison::In(self.values()?)
        } else if self.keyword("not") {
            match self.keyword("in") {
                true => Comparison::NotIn(self.values()?),
                false => return Err(self.invalid("`in` after `not`")),
            }
        } else if self.keyword("like") {
            Comparison::Like(self.quoted()?)
        } else if self.keyword("contains") {
            let number = self.value()?;
            let number = number.parse().map_err(|_| self.invalid("a whole number after `contains`"))?;
            Comparison::Contains(number)
        } else {
            return Ok(None);
        }))
    }

    fn order(&mut self) -> Option<Order> {
        let orders = [("<=", Order::AtMost), (">=", Order::AtLeast), ("<", Order::Less), (">", Order::More)];
        orders.into_iter().find_map(|(sign, order)| self.eat(sign).then_some(order))
    }

    fn values(&mut self) -> Result<Vec<String>, Invalid> {
        if !self.eat("[") {
            return Err(self.invalid(r#"a list such as ["r1", "r2"]"#));
        }
        let mut values = Vec::new();
        while !self.eat("]") {
            if !values.is_empty() && !self.eat(",") {
                return Err(self.invalid("`,` or `]` after a value of a list"));
            }
            values.push(self.value()?);
        }
        Ok(values)
    }

    /// Text in quotes, or a number.
    fn value(&mut self) -> Result<String, Invalid> {
        self.space();
        if self.rest().starts_with('"') {
            return self.quoted();
        }
        let word = self.word();
        match as_number(word) {
            Some(_) => Ok(word.to_owned()),
            None => Err(self.invalid(r#"a number, or text in double quotes such as "r1""#)),
        }
    }

    fn name(&mut self) -> Result<String, Invalid> {
        self.space();
        if self.rest().starts_with('"') {
            return self.quoted();
        }
        match self.word() {
            "" => Err(self.invalid(r#"a comparison such as rack == "r1""#)),
            word => Ok(word.to_owned()),
        }
    }

    fn quoted(&mut self) -> Result<String, Invalid> {
        if !self.eat("\"") {
            return Err(self.invalid(r#"text in double quotes such as "r1""#));
        }
        let mut text = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += at + 1;
                    return Ok(text);
                }
                '\\' => match chars.next() {
                    Some((_, c @ ('"' | '\\'))) => text.push(c),
                    _ => return Err(self.invalid(r#"`\"` or `\\`, not a single `\`"#)),
                },
                c => text.push(c),
            }
        }
        Err(self.invalid("a closing double quote"))
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn start_clause(&mut self) {
        self.space();
        self.clause = self.at;
    }

    fn eat(&mut self, sign: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(sign);
        self.at += if found { sign.len() } else { 0 };
        found
    }

    fn keyword(&mut self, word: &str) -> bool {
        self.space();
        let after = self.rest().strip_prefix(word);
        let found = after.is_some_and(|after| !after.starts_with(in_name));
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let word = rest.split(|c| !in_name(c)).next().unwrap_or_default();
        self.at += word.len();
        word
    }

    /// The clause that is wrong, up to where the next one begins.
    fn invalid(&self, expected: impl Into<Cow<'static, str>>) -> Invalid {
        let from = self.text.get(self.clause..).unwrap_or_default();
        let end = [from.find("&&"), from.find("||")].into_iter().flatten().filter(|at| *at > 0).min();
        let clause = from.get(..end.unwrap_or(from.len())).unwrap_or_default();
        Invalid::new(FIELD, clause.trim_end(), expected)
    }
}

fn one_or(mut parts: Vec<Predicate>, several: fn(Vec<Predicate>) -> Predicate) -> Predicate {
    match (parts.pop(), parts.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            parts.extend(last);
            several(parts)
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
