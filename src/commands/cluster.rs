//! `divvy status|agents|frameworks|roles|tasks|offers`: the cluster as the master sees it.

use divvy_proto::api::{self, AgentState};
use divvy_proto::{Bytes, Resources, Weight};
use divvy_sdk::cli::{CliError, Context, table};
use reqwest::Method;
use serde_json::json;

use super::done;
use crate::cli::{AgentAction, FrameworkAction, TaskAction, Tasks};

pub(super) async fn status(context: &Context) -> Result<(), CliError> {
    let status: api::Status = context.get("/api/v1/status").await?;
    context.print(&status, |status| {
        let mut lines = vec![
            format!("leader      {} (divvy {}, epoch {})", status.leader, status.version, status.epoch),
            format!(
                "uptime      {}",
                humantime::format_duration(std::time::Duration::from_secs(status.uptime))
            ),
            format!("agents      {}", counts(&status.agents)),
            format!("frameworks  {}", counts(&status.frameworks)),
            format!("tasks       {}", counts(&status.tasks)),
            format!("cpus        {}", shares(&status.resources, |r| r.cpus().to_string())),
            format!("mem         {}", shares(&status.resources, |r| size(r.mem()))),
        ];
        lines.extend(status.warnings.iter().map(|warning| format!("warning     {warning}")));
        lines.join("\n")
    })
}

/// `3 active, 1 unreachable`, or `none`.
fn counts<K: serde::Serialize>(counts: &std::collections::BTreeMap<K, usize>) -> String {
    let name = |key: &K| {
        serde_json::to_value(key).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let parts: Vec<String> = counts
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(key, n)| format!("{n} {}", name(key).to_lowercase()))
        .collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

fn shares(resources: &api::ResourceUse, show: impl Fn(&Resources) -> String) -> String {
    let api::ResourceUse { total, used, offered, available } = resources;
    format!("{} used, {} offered, {} free of {}", show(used), show(offered), show(available), show(total))
}

/// Three digits and a unit: for people, who read the exact number with `-o json`.
pub(super) fn size(bytes: Bytes) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut tenths = bytes.bytes().saturating_mul(10);
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if tenths % 10 == 0 {
        format!("{}{name}", tenths / 10)
    } else {
        format!("{}.{}{name}", tenths / 10, tenths % 10)
    }
}

pub(super) async fn agents(context: &Context, action: Option<AgentAction>) -> Result<(), CliError> {
    if let Some(AgentAction::Gone { id }) = action {
        context.send(context.request(Method::POST, &format!("/api/v1/agents/{id}/gone"))).await?;
        return done(context, &json!({ "agent_id": id, "state": "gone" }), format_args!("{id} is gone"));
    }
    let agents: Vec<api::Agent> = context.get("/api/v1/agents").await?;
    context.print(&agents, |agents| {
        let of = |used: String, total: String| format!("{used}/{total}");
        table(
            ["ID", "HOSTNAME", "STATE", "CPUS", "MEM", "PORTS", "TASKS", "ATTRIBUTES"],
            agents.iter().map(|agent| {
                let (used, total) = (&agent.resources.used, &agent.resources.total);
                [
                    agent.id.to_string(),
                    agent.hostname.to_string(),
                    standing(agent),
                    of(used.cpus().to_string(), total.cpus().to_string()),
                    of(size(used.mem()), size(total.mem())),
                    of(used.ports().count().to_string(), total.ports().count().to_string()),
                    agent.tasks.to_string(),
                    agent
                        .attributes
                        .iter()
                        .filter(|(n, _)| *n != "hostname")
                        .map(|(n, v)| format!("{n}={v}"))
                        .collect::<Vec<_>>()
                        .join(";"),
                ]
            }),
        )
    })
}

/// `active`, or what an operator has made of it: `draining`, `drained`, `deactivated`.
fn standing(agent: &api::Agent) -> String {
    let by_operator = match &agent.drain {
        Some(drain) if drain.drained => Some("drained"),
        Some(_) => Some("draining"),
        None => agent.deactivated.then_some("deactivated"),
    };
    match (agent.state, by_operator) {
        (AgentState::Active, Some(by_operator)) => by_operator.to_owned(),
        (AgentState::Gone, _) | (_, None) => word(&agent.state),
        (state, Some(by_operator)) => format!("{}, {by_operator}", word(&state)),
    }
}

pub(super) async fn frameworks(context: &Context, action: Option<FrameworkAction>) -> Result<(), CliError> {
    if let Some(FrameworkAction::Teardown { id }) = action {
        context.send(context.request(Method::POST, &format!("/api/v1/frameworks/{id}/teardown"))).await?;
        let torn_down = json!({ "framework_id": id, "state": "completed" });
        return done(context, &torn_down, format_args!("{id} is torn down"));
    }
    let frameworks: Vec<api::Framework> = context.get("/api/v1/frameworks").await?;
    context.print(&frameworks, |frameworks| {
        table(
            ["ID", "NAME", "ROLES", "STATE", "TASKS", "OFFERS", "SHARE", "CPUS", "MEM"],
            frameworks.iter().map(|framework| {
                [
                    framework.id.to_string(),
                    framework.name.clone(),
                    framework.roles.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
                    word(&framework.state),
                    framework.tasks.to_string(),
                    framework.offers.to_string(),
                    format!("{:.1}%", framework.dominant_share * 100.0),
                    framework.resources.cpus().to_string(),
                    size(framework.resources.mem()),
                ]
            }),
        )
    })
}

pub(super) async fn roles(context: &Context) -> Result<(), CliError> {
    let roles: Vec<api::Role> = context.get("/api/v1/roles").await?;
    context.print(&roles, |roles| {
        table(
            [
                "ROLE",
                "WEIGHT",
                "FRAMEWORKS",
                "SHARE",
                "CPUS",
                "MEM",
                "GUARANTEE",
                "UNMET",
                "LIMIT",
                "CONSUMED",
                "RESERVED",
            ],
            roles.iter().map(|role| {
                let quota = role.quota.as_ref();
                [
                    role.path.to_string(),
                    weight(role.weight),
                    role.frameworks.to_string(),
                    format!("{:.1}%", role.dominant_share * 100.0),
                    role.resources.cpus().to_string(),
                    size(role.resources.mem()),
                    quota.map(|quota| quota.guarantee.to_string()).unwrap_or_default(),
                    role.unmet.to_string(),
                    quota.map(|quota| quota.limit.to_string()).unwrap_or_default(),
                    role.consumed.to_string(),
                    role.reserved.to_string(),
                ]
            }),
        )
    })
}

pub(super) fn weight(thousandths: u32) -> String {
    Weight::from_thousandths(thousandths)
        .map_or_else(|_| thousandths.to_string(), |weight| weight.to_string())
}

pub(super) async fn tasks(context: &Context, options: Tasks) -> Result<(), CliError> {
    let mut tasks: Vec<api::Task> = context.get("/api/v1/tasks").await?;
    if let Some(TaskAction::Kill { task }) = options.action {
        return kill(context, &tasks, task.as_str()).await;
    }
    if let Some(wanted) = &options.framework {
        tasks.retain(|task| task.framework == *wanted || task.framework_id.as_str() == wanted);
    }
    context.print(&tasks, |tasks| {
        let shown = tasks.iter().filter(|task| options.all || !task.state.is_terminal());
        table(
            ["ID", "FRAMEWORK", "HOSTNAME", "STATE", "HEALTHY", "PORTS", "PID", "SINCE", "WHY"],
            shown.map(|task| {
                let ports: Vec<String> =
                    task.named_ports.iter().map(|port| format!("{}={}", port.name, port.number)).collect();
                let healthy = task.healthy.map(|healthy| if healthy { "yes" } else { "no" });
                [
                    task.id.to_string(),
                    task.framework.clone(),
                    task.hostname.to_string(),
                    task.state.to_string(),
                    healthy.unwrap_or_default().to_owned(),
                    ports.join(","),
                    task.pid.map(|pid| pid.to_string()).unwrap_or_default(),
                    task.updated_at.to_string().split('.').next().unwrap_or_default().to_owned(),
                    if task.message.is_empty() { task.reason.to_string() } else { task.message.clone() },
                ]
            }),
        )
    })
}

async fn kill(context: &Context, tasks: &[api::Task], wanted: &str) -> Result<(), CliError> {
    let mut live = tasks.iter().filter(|task| task.id.as_str() == wanted && !task.state.is_terminal());
    let (Some(task), None) = (live.next(), live.next()) else {
        return Err(CliError::Usage(format!(
            "no single running task has the id {wanted}; see `divvy tasks`"
        )));
    };
    let path = format!("/api/v1/tasks/{}/{}/kill", task.framework_id, task.id);
    context.send(context.request(Method::POST, &path)).await?;
    let told = json!({ "framework_id": task.framework_id, "task_id": task.id, "told_to_end": true });
    done(context, &told, format_args!("{wanted} was told to end"))
}

pub(super) async fn offers(context: &Context) -> Result<(), CliError> {
    let offers: Vec<api::Offer> = context.get("/api/v1/offers").await?;
    context.print(&offers, |offers| {
        table(
            ["ID", "FRAMEWORK", "ROLE", "HOSTNAME", "CPUS", "MEM", "SINCE", "EXPIRES"],
            offers.iter().map(|offer| {
                [
                    offer.id.clone(),
                    offer.framework.clone(),
                    offer.role.to_string(),
                    offer.hostname.to_string(),
                    offer.resources.cpus().to_string(),
                    size(offer.resources.mem()),
                    offer.since.to_string(),
                    offer.expires.to_string(),
                ]
            }),
        )
    })
}

pub(super) fn word(state: &impl serde::Serialize) -> String {
    serde_json::to_value(state).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
