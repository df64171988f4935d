//! A task's description as a shape of demand: what the kernel looks for. What it cannot know stays with the scheduler.

use divvy_proto::demand::{DemandShape, Preference};
use divvy_proto::predicate::{Comparison, MAX_CLAUSES, MAX_TEXT, Predicate, Test};
use divvy_proto::ranges::RangeSet;
use divvy_proto::resources::Resources;

use crate::{Constraint, TaskSpec};

/// So many of it are wanted, wherever its constraints allow.
pub(crate) fn of(spec: &TaskSpec, name: String, count: u32) -> DemandShape {
    with(spec, name, count, Vec::new())
}

/// As [`of`], where further clauses hold, too.
pub(crate) fn with(spec: &TaskSpec, name: String, count: u32, further: Vec<Predicate>) -> DemandShape {
    let spec = &*spec.whole();
    let fixed = spec.ports.iter().filter_map(|port| port.number).map(|number| (number.into(), number.into()));
    let any = spec.ports.iter().filter(|port| port.number.is_none()).count();
    let resources = Resources::new().with_cpus(spec.cpus).with_mem(spec.mem).with_disk(spec.disk);
    DemandShape {
        name,
        resources: resources.with_ports(RangeSet::from_ranges(fixed)),
        ports: u16::try_from(any).unwrap_or(u16::MAX),
        count,
        constraint: constraint(spec, further),
        preference: preference(spec),
    }
}

fn preference(spec: &TaskSpec) -> Preference {
    let attribute = spec.constraints.iter().find_map(|constraint| match constraint {
        Constraint::Unique { attribute } | Constraint::Spread { attribute } => Some(attribute.clone()),
        Constraint::Like { .. } => None,
    });
    attribute.map_or(Preference::None, Preference::Spread)
}

/// What must hold of an agent, as far as a predicate can say it. One that would be too long says less: the scheduler still has
/// the last word.
fn constraint(spec: &TaskSpec, further: Vec<Predicate>) -> Option<Predicate> {
    let own = spec.constraint.clone();
    let sayable = spec.constraints.iter().filter_map(clause);
    let short = |parts: &[Predicate]| {
        let all = Predicate::All(parts.to_vec());
        parts.len() <= MAX_CLAUSES && all.to_string().len() <= MAX_TEXT
    };
    let mut parts: Vec<Predicate> = Vec::new();
    for part in own.into_iter().chain(sayable).chain(further) {
        parts.push(part);
        if !short(&parts) {
            parts.pop();
        }
    }
    match parts.len() {
        0 => None,
        1 => parts.pop(),
        _ => Some(Predicate::All(parts)),
    }
}

fn clause(constraint: &Constraint) -> Option<Predicate> {
    let test =
        |attribute: &String, comparison| Predicate::Test(Test { attribute: attribute.clone(), comparison });
    match constraint {
        // In a predicate's pattern `?` is any character; here it is itself.
        Constraint::Like { pattern, .. } if pattern.contains('?') => None,
        Constraint::Like { attribute, pattern } => Some(test(attribute, Comparison::Like(pattern.clone()))),
        Constraint::Unique { attribute } | Constraint::Spread { attribute } if attribute != "hostname" => {
            Some(test(attribute, Comparison::Exists))
        }
        Constraint::Unique { .. } | Constraint::Spread { .. } => None,
    }
}

/// No agent with one of these values.
pub(crate) fn none_of(attribute: &str, values: Vec<String>) -> Predicate {
    Predicate::Test(Test { attribute: attribute.to_owned(), comparison: Comparison::NotIn(values) })
}

/// Only agents with one of these values.
pub(crate) fn one_of(attribute: &str, values: impl Iterator<Item = String>) -> Predicate {
    Predicate::Test(Test { attribute: attribute.to_owned(), comparison: Comparison::In(values.collect()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_says_what_the_kernel_can_check() {
        let mut spec = TaskSpec::shell("true").port("http").port("admin");
        spec.ports[1].number = Some(9000);
        spec.constraint = Some("ssd >= 2 || zone == \"a\"".parse().unwrap());
        spec.constraints = vec![
            Constraint::Like { attribute: "rack".into(), pattern: "r*".into() },
            Constraint::Like { attribute: "os".into(), pattern: "a?".into() },
            Constraint::Spread { attribute: "zone".into() },
        ];
        let shape = spec.shape("web", 3);
        assert_eq!((shape.ports, shape.count), (1, 3));
        assert_eq!(shape.resources, "cpus=0.1;mem=32MiB;ports=[9000]".parse().unwrap());
        assert_eq!(shape.preference, Preference::Spread("zone".into()));
        let expected = r#"(ssd >= 2 || zone == "a") && rack like "r*" && exists(zone)"#;
        assert_eq!(shape.constraint.unwrap().to_string(), expected);
    }

    #[test]
    fn a_constraint_that_would_be_too_long_says_less() {
        let many = (0..2000).map(|number| format!("host-{number}")).collect();
        let spec = TaskSpec::shell("true").constraint("zone == \"a\"".parse().unwrap());
        let shape = with(&spec, "web".into(), 1, vec![none_of("hostname", many)]);
        assert_eq!(shape.constraint.unwrap().to_string(), "zone == \"a\"");
    }
}
