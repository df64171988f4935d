//! `divvy images ls|pull|rm|gc`: asked of agents by way of the master's address.

use std::collections::BTreeMap;

use divvy_proto::Bytes;
use divvy_proto::api::{self, AgentImage, AgentState, ImageCollection, ImageOrder, PullEvent, RemovedImages};
use divvy_proto::container::Digest;
use divvy_sdk::cli::{CliError, Context, table};
use futures::StreamExt;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::agents::find;
use super::cluster::size;
use crate::cli::{ImageAction, Images};

/// So many digits of a digest tell people which image it is.
const SHORT: usize = 12;
/// A line of an agent's answer is at most so long.
const LONGEST_LINE: usize = 1 << 20;

/// What one agent has or did.
#[derive(Debug, Serialize)]
struct Of<T> {
    agent_id: divvy_proto::AgentId,
    hostname: divvy_proto::Hostname,
    #[serde(flatten)]
    what: T,
}

impl<T> Of<T> {
    fn new(agent: &api::Agent, what: T) -> Self {
        Self { agent_id: agent.id.clone(), hostname: agent.hostname.clone(), what }
    }
}

pub(super) async fn run(context: &Context, options: Images) -> Result<(), CliError> {
    let agents = match &options.agent {
        Some(named) => vec![find(context, named).await?],
        None => {
            let all: Vec<api::Agent> = context.get("/api/v1/agents").await?;
            all.into_iter().filter(|agent| agent.state == AgentState::Active).collect()
        }
    };
    if agents.is_empty() {
        return Err(CliError::Failed("no agent is active; see `divvy agents`".to_owned()));
    }
    match options.action {
        None | Some(ImageAction::Ls) => list(context, &agents).await,
        Some(ImageAction::Pull { image }) => pull(context, &agents, image.to_string()).await,
        Some(ImageAction::Rm { image }) => remove(context, &agents, image).await,
        Some(ImageAction::Gc { unused_for }) => {
            let order = ImageCollection { unused_for: unused_for.as_secs() };
            collect(context, &agents, &order).await
        }
    }
}

fn path(agent: &api::Agent, verb: &str) -> String {
    format!("/api/v1/agents/{}/images{verb}", agent.id)
}

async fn images(context: &Context, agent: &api::Agent) -> Result<Vec<AgentImage>, CliError> {
    context.get(&path(agent, "")).await
}

async fn order<T: DeserializeOwned>(
    context: &Context,
    agent: &api::Agent,
    verb: &str,
    body: &impl Serialize,
) -> Result<T, CliError> {
    context.json(context.request(Method::POST, &path(agent, verb)).json(body)).await
}

/// What one agent does not answer does not hide what others do: the first failure is told at the end.
fn parted<T>(answers: Vec<Result<T, CliError>>) -> (Vec<T>, Result<(), CliError>) {
    let (mut found, mut failed) = (Vec::new(), Ok(()));
    for answer in answers {
        match answer {
            Ok(answer) => found.push(answer),
            Err(error) if failed.is_ok() => failed = Err(error),
            Err(error) => eprintln!("divvy: {error}"),
        }
    }
    (found, failed)
}

async fn list(context: &Context, agents: &[api::Agent]) -> Result<(), CliError> {
    let asked = agents.iter().map(|agent| async move {
        let images = images(context, agent).await?;
        Ok(images.into_iter().map(|image| Of::new(agent, image)).collect::<Vec<_>>())
    });
    let (found, failed) = parted(futures::future::join_all(asked).await);
    let all: Vec<_> = found.into_iter().flatten().collect();
    context.print(&all, |all| {
        table(
            ["AGENT", "IMAGE", "NAMES", "SIZE", "LAYERS", "CONTAINERS", "USED"],
            all.iter().map(|of| {
                [
                    of.hostname.to_string(),
                    short(&of.what.digest),
                    of.what.names.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
                    bytes(of.what.size),
                    of.what.layers.to_string(),
                    of.what.used_by.len().to_string(),
                    of.what.used.to_string(),
                ]
            }),
        )
    })?;
    failed
}

fn bytes(count: u64) -> String {
    i64::try_from(count).ok().and_then(|count| Bytes::from_bytes(count).ok()).map(size).unwrap_or_default()
}

fn short(digest: &Digest) -> String {
    digest.hex().chars().take(SHORT).collect()
}

async fn pull(context: &Context, agents: &[api::Agent], image: String) -> Result<(), CliError> {
    let bars = MultiProgress::new();
    let pulls = agents.iter().map(|agent| {
        let bar = bars.add(ProgressBar::new(0).with_prefix(agent.hostname.to_string()));
        let style = ProgressStyle::with_template("{prefix} {bar:30} {bytes}/{total_bytes} {msg}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        let order = ImageOrder { image: image.clone() };
        async move {
            let pulled = pull_one(context, agent, &order, &bar).await;
            bar.finish_and_clear();
            match pulled {
                Ok(image) => Ok(Of::new(agent, image)),
                Err(error) => Err(about(agent, error)),
            }
        }
    });
    let (pulled, failed) = parted(futures::future::join_all(pulls).await);
    for of in &pulled {
        let size = bytes(of.what.size);
        context.progress(format_args!("{} has {image}: {}, {size}", of.hostname, short(&of.what.digest)));
    }
    if matches!(context.output, divvy_sdk::cli::Output::Json) {
        context.print(&pulled, |_| String::new())?;
    }
    failed
}

fn about(agent: &api::Agent, error: CliError) -> CliError {
    let said = format!("{}: {error}", agent.hostname);
    match error {
        CliError::Failed(_) => CliError::Failed(said),
        CliError::Usage(_) => CliError::Usage(said),
        CliError::Unreachable(_) => CliError::Unreachable(said),
        CliError::TimedOut(_) => CliError::TimedOut(said),
    }
}

/// Follows what the agent says of its pull, to its last word.
async fn pull_one(
    context: &Context,
    agent: &api::Agent,
    order: &ImageOrder,
    bar: &ProgressBar,
) -> Result<AgentImage, CliError> {
    let request = context.request(Method::POST, &path(agent, "/pull")).json(order);
    let mut body = context.send(request).await?.bytes_stream();
    let (mut line, mut layers) = (Vec::new(), BTreeMap::new());
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| CliError::Unreachable(format!("the answer broke off: {error}")))?;
        line.extend_from_slice(&chunk);
        while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            let rest = line.split_off(end + 1);
            let word = serde_json::from_slice(&std::mem::replace(&mut line, rest));
            match word.map_err(CliError::failed)? {
                PullEvent::Layer { layer, have, size, .. } => {
                    layers.insert(layer, (have, size));
                    bar.set_length(layers.values().map(|(_, size)| size).sum());
                    bar.set_position(layers.values().map(|(have, _)| have).sum());
                }
                PullEvent::Done { image } => return Ok(image),
                PullEvent::Failed { error } => return Err(CliError::Failed(error)),
            }
        }
        if line.len() > LONGEST_LINE {
            return Err(CliError::Failed("the agent answers what this version does not know".to_owned()));
        }
    }
    Err(CliError::Unreachable("the answer broke off: the agent has stopped".to_owned()))
}

/// On every agent that has it.
async fn remove(context: &Context, agents: &[api::Agent], image: String) -> Result<(), CliError> {
    let order_body = ImageOrder { image: image.clone() };
    let removals = agents.iter().map(|agent| {
        let (image, body) = (&image, &order_body);
        async move {
            let has = images(context, agent).await?.iter().any(|one| is_meant(one, image));
            match has {
                true => {
                    Ok(Some(Of::new(agent, order::<RemovedImages>(context, agent, "/remove", body).await?)))
                }
                false => Ok(None),
            }
        }
    });
    let (removed, failed) = parted(futures::future::join_all(removals).await);
    let removed: Vec<_> = removed.into_iter().flatten().collect();
    if removed.is_empty() && failed.is_ok() {
        return Err(CliError::Failed(format!("no agent has the image {image}; see `divvy images ls`")));
    }
    told(context, &removed)?;
    failed
}

fn is_meant(image: &AgentImage, wanted: &str) -> bool {
    let digits = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    image.names.iter().any(|name| name.to_string() == wanted) || image.digest.hex().starts_with(digits)
}

async fn collect(context: &Context, agents: &[api::Agent], body: &ImageCollection) -> Result<(), CliError> {
    let asked = agents.iter().map(|agent| async move {
        Ok(Of::new(agent, order::<RemovedImages>(context, agent, "/gc", body).await?))
    });
    let (removed, failed) = parted(futures::future::join_all(asked).await);
    told(context, &removed)?;
    failed
}

fn told(context: &Context, removed: &[Of<RemovedImages>]) -> Result<(), CliError> {
    for of in removed {
        let count = match of.what.removed.len() {
            0 => "no image".to_owned(),
            1 => "1 image".to_owned(),
            count => format!("{count} images"),
        };
        let freed = bytes(of.what.freed);
        context.progress(format_args!("{}: {count} removed, {freed} freed", of.hostname));
    }
    match context.output {
        divvy_sdk::cli::Output::Json => context.print(&removed, |_| String::new()),
        divvy_sdk::cli::Output::Table => Ok(()),
    }
}
