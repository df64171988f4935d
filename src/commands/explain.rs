//! `divvy explain|demand|decisions`: why something waits, as a funnel from all agents down to those that are left.

use std::io::IsTerminal;
use std::time::Duration;

use divvy_proto::Timestamp;
use divvy_proto::api::{self, Exclusion, Funnel, Stage};
use divvy_sdk::cli::{CliError, Context, Output, table};

use super::cluster::word;
use super::escaped;
use crate::cli::{About, Decisions, Explain};

/// From one question to the next.
const PAUSE: Duration = Duration::from_secs(1);

/// A funnel's longest bar, in characters.
const BAR: usize = 24;

pub(super) async fn explain(context: &Context, options: Explain) -> Result<(), CliError> {
    let path = question(&options.about);
    loop {
        let answer: api::Explanation = context.get(&path).await?;
        if options.watch && context.output == Output::Table && std::io::stdout().is_terminal() {
            // Home, and clear to the end: the screen does not flicker.
            print!("\x1b[H\x1b[J");
        }
        context.print(&answer, |answer| show(answer, Timestamp::wall_clock()))?;
        if !options.watch {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn question(about: &About) -> String {
    let text = |text: &str| escaped(text, b"/");
    let query = match about {
        About::Role { role } => format!("role={}", text(role.as_str())),
        About::Framework { framework } => format!("framework={}", text(framework)),
        About::Demand { framework, shape, role } => {
            let role = role.as_ref().map(|role| format!("&role={}", text(role.as_str()))).unwrap_or_default();
            format!("framework={}&demand={}{role}", text(framework), text(shape))
        }
        About::Task { task, framework } => {
            let owner = framework.as_ref().map(|f| format!("&framework={}", text(f))).unwrap_or_default();
            format!("task={}{owner}", text(task))
        }
    };
    format!("/api/v1/explain?{query}")
}

fn show(answer: &api::Explanation, now: Timestamp) -> String {
    let mut parts = vec![answer.summary.clone()];
    if !answer.roles.is_empty() {
        parts.push(show_roles(&answer.roles));
    }
    parts.extend(answer.funnels.iter().map(|funnel| show_funnel(funnel, now)));
    if !answer.decisions.is_empty() {
        let lines: Vec<String> = answer.decisions.iter().map(show_decision).collect();
        parts.push(format!("decisions\n  {}", lines.join("\n  ")));
    }
    parts.join("\n\n")
}

fn show_roles(roles: &[api::RoleStanding]) -> String {
    table(
        ["ROLE", "PLACE", "WEIGHT", "SHARE", "GUARANTEE", "UNMET", "LIMIT", "CONSUMED"],
        roles.iter().map(|standing| {
            let role = &standing.role;
            let quota = role.quota.as_ref();
            [
                role.path.to_string(),
                standing.place.map(|place| format!("{place} of {}", standing.siblings)).unwrap_or_default(),
                super::cluster::weight(role.weight),
                format!("{:.1}%", role.dominant_share * 100.0),
                quota.map(|quota| quota.guarantee.to_string()).unwrap_or_default(),
                role.unmet.to_string(),
                quota.map(|quota| quota.limit.to_string()).unwrap_or_default(),
                role.consumed.to_string(),
            ]
        }),
    )
}

/// ```text
/// web of app in eng: 3 wanted, each cpus=2, for 2m
///     5  ████████████████████████  agents
///     4  ███████████████████       1 is not connected
///     0                            4 too small: the best lacks cpus 0.5
///   nearest  agent-1 (a1-0): …
///   hint     …
/// ```
fn show_funnel(funnel: &Funnel, now: Timestamp) -> String {
    let waits = funnel.waiting_since.map(|since| {
        let waited = Duration::from_secs(now.since(since).as_secs());
        format!(", waiting for {}", humantime::format_duration(waited))
    });
    let what = match &funnel.shape {
        Some(shape) => format!("{shape} of {}", funnel.framework),
        None => funnel.framework.clone(),
    };
    let wants = match (funnel.shape.is_some(), funnel.wants.is_empty()) {
        (true, _) => format!("{} wanted, each {}", funnel.count, funnel.wants),
        (false, true) => "takes whatever is offered".to_owned(),
        (false, false) => format!("takes whatever has {}", funnel.wants),
    };
    let mut lines = vec![format!("{what} in {}: {wants}{}", funnel.role, waits.unwrap_or_default())];
    let width = funnel.agents.to_string().len().max(5);
    let mut left = funnel.agents;
    let line = |left: usize, text: &str| {
        format!("{left:>width$}  {:<BAR$}  {text}", bar(left, funnel.agents)).trim_end().to_owned()
    };
    lines.push(line(left, if left == 1 { "agent" } else { "agents" }));
    for stage in &funnel.stages {
        left = left.saturating_sub(stage.agents);
        lines.push(line(left, &show_stage(stage)));
    }
    if funnel.fits > 0 {
        lines.push(line(funnel.fits, "fit now"));
    }
    if let Some(nearest) = &funnel.nearest {
        lines.push(format!("  nearest  {}", show_nearest(nearest)));
    }
    if !funnel.hint.is_empty() {
        lines.push(format!("  hint     {}", funnel.hint));
    }
    lines.join("\n")
}

/// In proportion, but never nothing where there is something.
fn bar(part: usize, all: usize) -> String {
    let length = (part * BAR).checked_div(all).unwrap_or_default();
    "█".repeat(length.max(usize::from(part > 0)).min(BAR))
}

fn show_stage(stage: &Stage) -> String {
    format!("−{} {}", stage.agents, show_exclusion(&stage.reason))
}

fn show_exclusion(reason: &Exclusion) -> String {
    let list = |roles: &[divvy_proto::RolePath]| {
        roles.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    match reason {
        Exclusion::NotActive => "not connected".to_owned(),
        Exclusion::Draining => "draining, maintained or deactivated".to_owned(),
        Exclusion::Constraint { clause } => format!("not what the constraint wants: {clause}"),
        Exclusion::Filter { until } => format!("refused by the framework, the first until {until}"),
        Exclusion::Reservation { roles } => format!("reserved for others: {}", list(roles)),
        Exclusion::TooSmall { dimension, missing } => {
            format!("too small in {dimension}: the best lacks {missing}")
        }
        Exclusion::HeldByOthers { dimension, missing, holders } => {
            let by = if holders.is_empty() {
                String::new()
            } else {
                format!(", held most by {}", holders.join(", "))
            };
            format!("too little {dimension} free: the best lacks {missing}{by}")
        }
        Exclusion::HeldForWaiting { framework } => format!("kept for {framework}, which has waited longer"),
        Exclusion::Limit { role, dimension } => format!("beyond {role}'s limit of {dimension}"),
        Exclusion::Headroom { roles } => format!("kept free for the guarantees of {}", list(roles)),
    }
}

fn show_nearest(nearest: &api::Nearest) -> String {
    let lacks = |missing: &divvy_proto::Shortage| {
        format!("{} {} of the {} wanted", missing.dimension, missing.available, missing.wanted)
    };
    let missing: Vec<String> = nearest.missing.iter().map(lacks).collect();
    let why = match (missing.is_empty(), &nearest.reason) {
        (false, _) => format!(": has {}", missing.join(", ")),
        (true, Some(reason)) => format!(": {}", show_exclusion(reason)),
        (true, None) => String::new(),
    };
    format!("{} ({}){why}", nearest.hostname, nearest.agent_id)
}

pub(super) fn show_decision(decision: &api::Decision) -> String {
    let time = decision.time.to_string();
    let time = time.split('.').next().unwrap_or_default();
    let about = [
        decision.role.as_ref().map(ToString::to_string),
        decision.framework_id.as_ref().map(ToString::to_string),
        decision.agent_id.as_ref().map(ToString::to_string),
    ];
    let about: Vec<String> = about.into_iter().flatten().collect();
    format!("{time}  {:<14}  {}: {}", word(&decision.what), about.join(" "), decision.why)
}

pub(super) async fn demand(context: &Context) -> Result<(), CliError> {
    let demands: Vec<api::DemandView> = context.get("/api/v1/demands").await?;
    context.print(&demands, |demands| {
        let now = Timestamp::wall_clock();
        let shapes =
            demands.iter().flat_map(|view| view.demand.shapes.iter().map(move |shape| (view, shape)));
        table(
            ["FRAMEWORK", "ROLE", "SHAPE", "EACH", "WANTED", "OFFERED", "WHERE", "WAITS"],
            shapes.map(|(view, shape)| {
                let offered = view.offered.get(&shape.name).copied().unwrap_or_default();
                let waits = view.waiting_since.map(|since| Duration::from_secs(now.since(since).as_secs()));
                let gang = view.demand.gang.is_some().then(|| "all at once".to_owned());
                let clause = shape.constraint.as_ref().map(ToString::to_string);
                [
                    view.framework.clone(),
                    view.role.to_string(),
                    shape.name.clone(),
                    shape.amounts().to_string(),
                    shape.count.to_string(),
                    offered.to_string(),
                    clause.into_iter().chain(gang).collect::<Vec<_>>().join("; "),
                    waits.map(|waits| humantime::format_duration(waits).to_string()).unwrap_or_default(),
                ]
            }),
        )
    })
}

pub(super) async fn decisions(context: &Context, options: Decisions) -> Result<(), CliError> {
    let mut query = vec![format!("limit={}", options.limit), format!("offers={}", options.offers)];
    query.extend(options.role.map(|role| format!("role={}", escaped(role.as_str(), b"/"))));
    query.extend(options.framework.map(|framework| format!("framework={}", escaped(&framework, b""))));
    let decisions: Vec<api::Decision> =
        context.get(&format!("/api/v1/decisions?{}", query.join("&"))).await?;
    context.print(&decisions, |decisions| match decisions.is_empty() {
        true => "none".to_owned(),
        false => decisions.iter().map(show_decision).collect::<Vec<_>>().join("\n"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_funnel_narrows_from_all_agents_to_those_that_are_left() {
        let funnel: Funnel = serde_json::from_value(json!({
            "framework_id": "f1-0", "framework": "app", "role": "eng", "shape": "web",
            "wants": { "cpus": 2, "mem": 1 << 30 }, "count": 3, "waiting_since": "2026-01-01T00:00:00Z",
            "agents": 120,
            "stages": [
                { "reason": "not_active", "agents": 10 },
                { "reason": "constraint", "clause": "rack == \"r1\"", "agents": 90 },
                { "reason": "held_by_others", "dimension": "cpus", "missing": "0.5", "holders": ["batch"], "agents": 19 },
                { "reason": "headroom", "roles": ["ads", "db"], "agents": 1 },
            ],
            "fits": 0,
            "nearest": {
                "agent_id": "a1-7", "hostname": "host-7", "reason": null,
                "missing": [{ "dimension": "cpus", "wanted": "2", "available": "1.5" }],
            },
            "hint": "batch holds most",
        }))
        .unwrap();
        let expected = "\
web of app in eng: 3 wanted, each cpus=2;mem=1GiB, waiting for 2m 3s
  120  ████████████████████████  agents
  110  ██████████████████████    −10 not connected
   20  ████                      −90 not what the constraint wants: rack == \"r1\"
    1  █                         −19 too little cpus free: the best lacks 0.5, held most by batch
    0                            −1 kept free for the guarantees of ads, db
  nearest  host-7 (a1-7): has cpus 1.5 of the 2 wanted
  hint     batch holds most";
        let now = funnel.waiting_since.unwrap() + Duration::from_secs(123);
        assert_eq!(show_funnel(&funnel, now), expected);
    }

    #[test]
    fn names_become_parts_of_a_query() {
        let demand = About::Demand {
            framework: "a&b".to_owned(),
            shape: "x y".to_owned(),
            role: Some("eng/ads".parse().unwrap()),
        };
        assert_eq!(question(&demand), "/api/v1/explain?framework=a%26b&demand=x%20y&role=eng/ads");
    }
}
