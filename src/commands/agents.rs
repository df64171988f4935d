//! `divvy reserve|unreserve|reservations|volumes|drain|deactivate|reactivate|maintenance|inverse-offers`.

use std::collections::BTreeMap;
use std::time::Duration;

use divvy_proto::api::{self, AgentState, MaintenanceWindow, Window};
use divvy_proto::ids::AgentId;
use divvy_proto::reservation::Reservation;
use divvy_proto::role::RolePath;
use divvy_sdk::cli::{CliError, Context, read_spec, table, wait_within};
use divvy_sdk::spec::Format;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::cluster::{size, word};
use super::done;
use crate::cli::{Drain, MaintenanceAction, Marks, Reserve, VolumeAction};

/// An agent that is drained is looked at so often.
const LOOK: Duration = Duration::from_millis(500);

/// The agent of this id, or of this hostname and not gone.
pub(super) async fn find(context: &Context, named: &str) -> Result<api::Agent, CliError> {
    let mut agents: Vec<api::Agent> = context.get("/api/v1/agents").await?;
    if let Some(at) = agents.iter().position(|agent| agent.id.as_str() == named) {
        return Ok(agents.swap_remove(at));
    }
    agents.retain(|agent| agent.hostname.as_str() == named && agent.state != AgentState::Gone);
    match (agents.pop(), agents.pop()) {
        (Some(agent), None) => Ok(agent),
        (None, _) => {
            Err(CliError::Usage(format!("no agent has the id or the hostname {named}; see `divvy agents`")))
        }
        (Some(one), Some(other)) => {
            Err(CliError::Usage(format!("{named} could be {} or {}: give the id of one", other.id, one.id)))
        }
    }
}

async fn post(context: &Context, agent: &AgentId, action: &str, body: &Value) -> Result<(), CliError> {
    let request = context.request(Method::POST, &format!("/api/v1/agents/{agent}/{action}"));
    context.send(request.json(body)).await?;
    Ok(())
}

/// What is now true of an agent, for programs.
fn about(agent: &api::Agent, name: &str, value: &Value) -> Value {
    json!({ "agent_id": agent.id, "hostname": agent.hostname, name: value })
}

/// What a reservation is for, with its labels and who makes it.
fn marked(role: &RolePath, marks: Marks) -> Map<String, Value> {
    let labels: BTreeMap<String, String> = marks.labels.into_iter().collect();
    let pairs = [("role", json!(role)), ("labels", json!(labels)), ("principal", json!(marks.principal))];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

pub(super) async fn reserve(context: &Context, options: Reserve) -> Result<(), CliError> {
    let Reserve { agent, role, resources, marks } = options;
    let agent = find(context, &agent).await?;
    let mut body = marked(&role, marks);
    body.insert("resources".to_owned(), json!(resources));
    let body = body.into();
    post(context, &agent.id, "reserve", &body).await?;
    let said = format!("{resources} of {} ({}) is reserved for {role}", agent.hostname, agent.id);
    done(context, &about(&agent, "reserved", &body), said)
}

pub(super) async fn unreserve(context: &Context, options: Reserve) -> Result<(), CliError> {
    let Reserve { agent, role, resources, marks } = options;
    let agent = find(context, &agent).await?;
    let mut body = marked(&role, marks);
    body.insert("resources".to_owned(), json!(resources));
    let body = body.into();
    post(context, &agent.id, "unreserve", &body).await?;
    let said = format!("{resources} of {} ({}) is no longer reserved for {role}", agent.hostname, agent.id);
    done(context, &about(&agent, "unreserved", &body), said)
}

pub(super) async fn reservations(context: &Context) -> Result<(), CliError> {
    let reservations: Vec<api::ReservationView> = context.get("/api/v1/reservations").await?;
    context.print(&reservations, |reservations| {
        table(
            ["AGENT", "HOSTNAME", "ROLE", "RESERVED", "USED", "BY", "LABELS", "NOTE"],
            reservations.iter().map(|found| {
                let innermost = found.reserved.stack.last();
                [
                    found.agent_id.to_string(),
                    found.hostname.to_string(),
                    path_of(&found.reserved.stack),
                    found.reserved.resources.to_string(),
                    found.used.to_string(),
                    innermost.and_then(|r| r.principal.as_ref()).map(ToString::to_string).unwrap_or_default(),
                    labels(innermost),
                    note(found.orphan, innermost.is_some_and(|r| r.fixed)),
                ]
            }),
        )
    })
}

/// `eng > eng/ads`: a reservation of the first that was refined for the second.
fn path_of(stack: &[Reservation]) -> String {
    let roles: Vec<&str> = stack.iter().map(|reservation| reservation.role.as_str()).collect();
    roles.join(" > ")
}

fn labels(reservation: Option<&Reservation>) -> String {
    let labels = reservation.into_iter().flat_map(|reservation| &reservation.labels);
    labels.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

fn note(orphan: bool, fixed: bool) -> String {
    match (orphan, fixed) {
        (true, _) => "nobody is left to use it".to_owned(),
        (false, true) => "fixed by the agent".to_owned(),
        (false, false) => String::new(),
    }
}

pub(super) async fn volumes(context: &Context, action: Option<VolumeAction>) -> Result<(), CliError> {
    match action {
        None | Some(VolumeAction::Ls) => list_volumes(context).await,
        Some(VolumeAction::Create { agent, role, id, size, marks }) => {
            let agent = find(context, &agent).await?;
            let mut body = marked(&role, marks);
            body.extend([("id".to_owned(), json!(id)), ("size".to_owned(), json!(size))]);
            let body = body.into();
            post(context, &agent.id, "volumes", &body).await?;
            let said = format!("{} ({}) has a volume {id} of {size} for {role}", agent.hostname, agent.id);
            done(context, &about(&agent, "volume", &body), said)
        }
        Some(VolumeAction::Rm { agent, id }) => {
            let agent = find(context, &agent).await?;
            let path = format!("/api/v1/agents/{}/volumes/{}", agent.id, super::escaped(id.as_str(), b""));
            context.send(context.request(Method::DELETE, &path)).await?;
            let said = format!("{id} is removed from {} ({})", agent.hostname, agent.id);
            done(context, &about(&agent, "removed", &json!(id)), said)
        }
        Some(VolumeAction::Grow { agent, id, by }) => {
            let agent = find(context, &agent).await?;
            let action = format!("volumes/{}/grow", super::escaped(id.as_str(), b""));
            post(context, &agent.id, &action, &json!({ "by": by })).await?;
            let changed = json!({ "id": id, "larger": by });
            done(context, &about(&agent, "volume", &changed), format_args!("{id} is {by} larger"))
        }
        Some(VolumeAction::Shrink { agent, id, by }) => {
            let agent = find(context, &agent).await?;
            let action = format!("volumes/{}/shrink", super::escaped(id.as_str(), b""));
            post(context, &agent.id, &action, &json!({ "by": by })).await?;
            let changed = json!({ "id": id, "smaller": by });
            done(context, &about(&agent, "volume", &changed), format_args!("{id} is {by} smaller"))
        }
    }
}

async fn list_volumes(context: &Context) -> Result<(), CliError> {
    let volumes: Vec<api::AgentVolume> = context.get("/api/v1/volumes").await?;
    context.print(&volumes, |volumes| {
        table(
            ["ID", "AGENT", "HOSTNAME", "ROLE", "SIZE", "USED BY", "CREATED", "NOTE"],
            volumes.iter().map(|found| {
                let volume = &found.volume.volume;
                [
                    volume.id.to_string(),
                    found.agent_id.to_string(),
                    found.hostname.to_string(),
                    found.role.to_string(),
                    size(volume.size),
                    found.volume.used_by.join(","),
                    volume.created.to_string(),
                    note(found.orphan, false),
                ]
            }),
        )
    })
}

pub(super) async fn drain(context: &Context, options: Drain) -> Result<(), CliError> {
    let Drain { agent, deadline, gone, wait, timeout } = options;
    let agent = find(context, &agent).await?;
    let within = deadline.map(|deadline| humantime::format_duration(deadline).to_string());
    let body = json!({ "deadline": within, "then_gone": gone });
    post(context, &agent.id, "drain", &body).await?;
    let name = format!("{} ({})", agent.hostname, agent.id);
    let killed = deadline
        .map_or_else(|| "killed".to_owned(), |d| format!("killed after {}", humantime::format_duration(d)));
    let said = format!("{name} is being drained; what does not leave by itself is {killed}");
    if !wait {
        return done(context, &about(&agent, "drain", &body), said);
    }
    context.progress(said);
    let late = |limit| format!("{name} was not empty within {limit}; the drain goes on, see `divvy agents`");
    wait_within(Some(timeout), watch_drain(context, &agent, &name), late).await
}

async fn watch_drain(context: &Context, agent: &api::Agent, name: &str) -> Result<(), CliError> {
    let mut last = None;
    loop {
        let agent: api::Agent = context.get(&format!("/api/v1/agents/{}", agent.id)).await?;
        let state = |gone: bool| about(&agent, "drain", &json!({ "drained": true, "gone": gone }));
        match &agent.drain {
            _ if agent.state == AgentState::Gone => {
                return done(context, &state(true), format_args!("{name} is drained, and gone"));
            }
            Some(drain) if drain.drained && !drain.then_gone => {
                return done(context, &state(false), format_args!("{name} is drained"));
            }
            Some(drain) if agent.state == AgentState::Unreachable && (drain.then_gone || agent.tasks > 0) => {
                return Err(CliError::Failed(format!(
                    "{name} does not answer, so that nobody can say when it is empty: the drain goes on if it comes back; if it \
                     does not, `divvy agents gone {}` ends what ran there",
                    agent.id
                )));
            }
            Some(_) => {}
            None => {
                return Err(CliError::Failed(format!(
                    "{name} is not being drained any more: somebody reactivated it"
                )));
            }
        }
        if last.replace(agent.tasks) != Some(agent.tasks) {
            let tasks = if agent.tasks == 1 { "1 task".to_owned() } else { format!("{} tasks", agent.tasks) };
            context.progress(format_args!("{name}: {tasks} left"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

pub(super) async fn deactivate(context: &Context, agent: &str) -> Result<(), CliError> {
    let agent = find(context, agent).await?;
    post(context, &agent.id, "deactivate", &json!({})).await?;
    let said = format!("{} ({}) is not offered any more; its tasks run on", agent.hostname, agent.id);
    done(context, &about(&agent, "deactivated", &json!(true)), said)
}

pub(super) async fn reactivate(context: &Context, agent: &str) -> Result<(), CliError> {
    let agent = find(context, agent).await?;
    post(context, &agent.id, "reactivate", &json!({})).await?;
    let said = format!("{} ({}) is offered again", agent.hostname, agent.id);
    done(context, &about(&agent, "deactivated", &json!(false)), said)
}

/// The schedule as a TOML file has it, which cannot be a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Schedule {
    #[serde(default)]
    windows: Vec<Planned>,
}

/// A window as people write it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Planned {
    /// Ids or hostnames.
    agents: Vec<String>,
    window: Window,
}

impl Planned {
    /// With the ids of its agents.
    async fn resolve(self, context: &Context) -> Result<MaintenanceWindow, CliError> {
        let mut agents = Vec::new();
        for named in &self.agents {
            agents.push(find(context, named).await?.id);
        }
        Ok(MaintenanceWindow { agents, window: self.window })
    }
}

pub(super) async fn maintenance(
    context: &Context,
    action: Option<MaintenanceAction>,
) -> Result<(), CliError> {
    const PATH: &str = "/api/v1/maintenance";
    let planned: Vec<Planned> = match action {
        None | Some(MaintenanceAction::Get) => {
            let windows: Vec<MaintenanceWindow> = context.get(PATH).await?;
            return context.print(&windows, |windows| show_schedule(windows));
        }
        Some(MaintenanceAction::Rm) => Vec::new(),
        Some(MaintenanceAction::Set { file }) => {
            let (text, format) = read_spec(&file)?;
            let wrong =
                |error: &dyn std::fmt::Display| CliError::Usage(format!("{}: {error}", file.display()));
            match format {
                Format::Json => serde_json::from_str(&text).map_err(|error| wrong(&error))?,
                Format::Toml => toml::from_str::<Schedule>(&text).map_err(|error| wrong(&error))?.windows,
            }
        }
    };
    let mut windows = Vec::new();
    for window in planned {
        windows.push(window.resolve(context).await?);
    }
    context.send(context.request(Method::PUT, PATH).json(&windows)).await?;
    let said = match windows.len() {
        0 => "nothing is planned".to_owned(),
        1 => "1 window is planned".to_owned(),
        count => format!("{count} windows are planned"),
    };
    done(context, &json!({ "windows": windows }), said)
}

fn show_schedule(windows: &[MaintenanceWindow]) -> String {
    table(
        ["AGENTS", "START", "DURATION", "REASON"],
        windows.iter().map(|MaintenanceWindow { agents, window }| {
            [
                agents.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
                window.start.to_string(),
                humantime::format_duration(window.duration).to_string(),
                window.reason.clone(),
            ]
        }),
    )
}

pub(super) async fn inverse_offers(context: &Context) -> Result<(), CliError> {
    let offers: Vec<api::InverseOfferView> = context.get("/api/v1/inverse-offers").await?;
    context.print(&offers, |offers| {
        table(
            ["ID", "FRAMEWORK", "HOSTNAME", "TASKS", "RESOURCES", "REASON", "DEADLINE", "ANSWER"],
            offers.iter().map(|found| {
                [
                    found.offer.id.to_string(),
                    found.framework.clone(),
                    found.offer.hostname.to_string(),
                    found.offer.tasks.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
                    found.offer.resources.to_string(),
                    reason(&found.offer.reason),
                    found.offer.deadline.map(|at| at.to_string()).unwrap_or_default(),
                    word(&found.answer),
                ]
            }),
        )
    })
}

fn reason(reason: &divvy_proto::scheduler::InverseReason) -> String {
    use divvy_proto::scheduler::InverseReason;
    match reason {
        InverseReason::Maintenance => "maintenance".to_owned(),
        InverseReason::Preemption(role) => format!("preemption for {role}"),
        InverseReason::Revocation => "revocation".to_owned(),
    }
}
