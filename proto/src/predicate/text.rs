//! Predicates as text: written, and read by recursive descent.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use super::{Comparison, MAX_CLAUSES, MAX_DEPTH, MAX_TEXT, Order, Predicate, Test, as_number};
use crate::error::Invalid;
use crate::quantity;

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
