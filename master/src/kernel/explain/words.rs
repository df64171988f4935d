//! The sentences of an explanation. They are for a tired operator: who, what, how long, and what is in the way, in numbers.

use std::time::Duration;

use divvy_proto::amounts::Amounts;
use divvy_proto::api::{Exclusion, Funnel, RoleStanding, Stage};
use divvy_proto::role::RolePath;
use divvy_proto::time::Timestamp;

/// An amount with its unit, as people write it.
pub(super) fn amount(dimension: &str, amount: i128) -> String {
    Amounts::show(dimension, i64::try_from(amount).unwrap_or(i64::MAX))
}

/// `<4 cpus, 8GiB mem, 2 ports>`.
pub(super) fn shape(wants: &Amounts) -> String {
    let parts: Vec<String> =
        wants.iter().map(|(name, amount)| format!("{} {name}", Amounts::show(name, amount))).collect();
    format!("<{}>", parts.join(", "))
}

/// Whole seconds of time that has passed: `1m 5s`.
pub(super) fn since(now: Timestamp, then: Timestamp) -> String {
    duration(now.since(then))
}

/// Whole seconds until then, at least one.
pub(super) fn until(now: Timestamp, then: Timestamp) -> String {
    duration(then.since(now).max(Duration::from_secs(1)))
}

pub(super) fn duration(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn list<T: ToString>(items: &[T]) -> String {
    match items {
        [] => String::new(),
        [only] => only.to_string(),
        [before @ .., last] => {
            let before: Vec<String> = before.iter().map(ToString::to_string).collect();
            format!("{} and {}", before.join(", "), last.to_string())
        }
    }
}

pub(super) fn met(offered: u32) -> String {
    match offered {
        0 => "it wants no more of it".to_owned(),
        1 => "one is on offer to it, and not answered yet".to_owned(),
        offered => format!("{offered} are on offer to it, and not answered yet"),
    }
}

/// The whole funnel in one sentence.
pub(super) fn funnel(now: Timestamp, funnel: &Funnel, is_gang: bool) -> String {
    let Funnel { framework, role, count, agents, .. } = funnel;
    let what = match &funnel.shape {
        Some(name) => {
            let together = if is_gang { " together" } else { "" };
            format!("wants {count} more of {name} {}{together}", shape(&funnel.wants))
        }
        None => "takes any offer".to_owned(),
    };
    let waiting = funnel.waiting_since.map(|then| now.since(then)).filter(|time| time.as_secs() > 0);
    let waiting = waiting.map(|time| format!(", and has waited {}", duration(time))).unwrap_or_default();
    let mut parts: Vec<String> =
        funnel.stages.iter().map(|stage| self::stage(now, stage, funnel.shape.is_none())).collect();
    if funnel.fits > 0 {
        let rest = if is_gang { ", but not together with the rest" } else { "" };
        parts.push(format!("{} {rest}", on_some(funnel.fits)).trim_end().replace(" ,", ","));
    }
    let agents = match agents {
        0 => "there are no agents".to_owned(),
        1 => format!("of 1 agent, {}", list(&parts)),
        agents => format!("of {agents} agents, {}", list(&parts)),
    };
    format!("{framework} in {role} {what}{waiting}: {agents}.")
}

fn on_some(agents: usize) -> String {
    format!("{agents} could have it now")
}

/// `is` or `are`, and the like.
fn by(count: usize, one: &'static str, several: &'static str) -> &'static str {
    if count == 1 { one } else { several }
}

fn stage(now: Timestamp, stage: &Stage, is_classic: bool) -> String {
    let n = stage.agents;
    let is = by(n, "is", "are");
    match &stage.reason {
        Exclusion::NotActive => format!("{n} {is} not connected"),
        Exclusion::Draining => format!("{n} {is} drained or deactivated"),
        Exclusion::Constraint { clause } => format!("{n} {} `{clause}`", by(n, "fails", "fail")),
        Exclusion::Filter { until } => {
            let first = by(n, "asked again", "the first asked again");
            format!("{n} it has refused itself ({first} in {})", self::until(now, *until))
        }
        Exclusion::Reservation { roles } => {
            format!("{n} {} what it takes reserved for {}", by(n, "has", "have"), owners(roles))
        }
        Exclusion::TooSmall { dimension, missing } => {
            let best = by(n, "lacks", "the largest lacks");
            format!("{n} {is} too small in {dimension} ({best} {missing})")
        }
        Exclusion::HeldByOthers { dimension, missing, holders } => {
            let holders = match holders.as_slice() {
                [] => String::new(),
                [first, ..] => format!("held mostly by {first}"),
            };
            match (is_classic, holders.is_empty()) {
                (true, true) => format!("{n} {} nothing left worth an offer", by(n, "has", "have")),
                (true, false) => format!("{n} {} nothing left ({holders})", by(n, "has", "have")),
                (false, is_unknown) => {
                    let best = by(n, "lacks", "the best lacks");
                    let holders = if is_unknown { holders } else { format!("; {holders}") };
                    format!(
                        "{n} {} too little free {dimension} ({best} {missing}{holders})",
                        by(n, "has", "have")
                    )
                }
            }
        }
        Exclusion::HeldForWaiting { framework } => {
            format!("{n} {is} kept for {framework}, which has waited longer or is owed it")
        }
        Exclusion::Limit { role, dimension } => {
            format!("{n} would do, but {role} is at its limit of {dimension}")
        }
        Exclusion::Headroom { roles } => {
            format!("{n} {is} kept for what {} {} promised", owners(roles), by(roles.len(), "is", "are"))
        }
    }
}

fn owners(roles: &[RolePath]) -> String {
    match roles {
        [] => "others".to_owned(),
        [one, two, three, _, ..] => format!("{one}, {two}, {three} and others"),
        few => list(few),
    }
}

/// Where a role stands, in a few words.
pub(super) fn standing(standing: &RoleStanding) -> String {
    let RoleStanding { role, place, siblings } = standing;
    let place = match place {
        Some(place) => format!("is number {place} of {siblings} in fair order"),
        None => "wants nothing".to_owned(),
    };
    let unmet = match role.unmet.is_empty() {
        true => String::new(),
        false => format!(", and lacks {} of its guarantee", role.unmet),
    };
    let share = role.dominant_share * 100.0;
    format!("{} {place} with a share of {share:.1}%{unmet}.", role.path)
}
