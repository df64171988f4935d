//! Simulated agents: they speak the protocol and run nothing. As with a real one, an update is sent when the one before it
//! was acknowledged.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use divvy_proto::pb;
use divvy_proto::pb::agent_client::AgentClient;
use divvy_proto::pb::agent_message::Message as Up;
use divvy_proto::pb::master_message::Message as Down;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Endpoint;

use crate::common::amount;
use crate::counters::Counters;

/// What each agent has: thousandths of cores, and MiB.
pub const CPUS: i64 = 10_000;
pub const MEM: i64 = 10_240;

/// So many connect at a time; the rest wait as they would in the queue of the socket, which is shorter than 1,000.
const CONNECTING: usize = 64;

/// Starts agents; each lives until its stream ends, which is then an error.
pub fn start(master: &str, count: usize, counters: &Arc<Counters>) -> tokio::task::JoinSet<Result<()>> {
    let gate = Arc::new(Semaphore::new(CONNECTING));
    let mut agents = tokio::task::JoinSet::new();
    for number in 0..count {
        agents.spawn(run(number, master.to_owned(), gate.clone(), counters.clone()));
    }
    agents
}

async fn run(number: usize, master: String, gate: Arc<Semaphore>, counters: Arc<Counters>) -> Result<()> {
    let turn = gate.acquire().await?;
    let channel = Endpoint::from_shared(master)?.tcp_nodelay(true).connect().await?;
    drop(turn);
    let (up, outgoing) = unbounded_channel();
    let mut agent = Agent { number, id: String::new(), up, counters };
    agent.send(Up::Register(pb::Register { agent: Some(info(number)), tasks: Vec::new() }))?;
    let mut down =
        AgentClient::new(channel).connect(UnboundedReceiverStream::new(outgoing)).await?.into_inner();
    while let Some(message) = down.message().await? {
        agent.counters.messages.add(1);
        agent.answer(message.message.context("a message without content")?)?;
    }
    bail!("the master has closed the stream of agent {number}")
}

struct Agent {
    number: usize,
    id: String,
    up: UnboundedSender<pb::AgentMessage>,
    counters: Arc<Counters>,
}

impl Agent {
    fn send(&self, message: Up) -> Result<()> {
        self.counters.messages.add(1);
        Ok(self.up.send(pb::AgentMessage { message: Some(message) })?)
    }

    fn answer(&mut self, message: Down) -> Result<()> {
        match message {
            Down::Registered(registered) => {
                self.id = registered.agent_id;
                self.counters.registered.add(1);
                Ok(())
            }
            Down::Ping(_) => self.send(Up::Pong(pb::Pong {})),
            Down::Launch(launch) => {
                let task = launch.task.context("a launch without a task")?.id;
                self.update(launch.framework_id, task, pb::TaskState::Running)
            }
            Down::Acknowledge(done) if done.update_id.starts_with('r') => {
                self.counters.freed(self.number);
                self.update(done.framework_id, done.task_id, pb::TaskState::Finished)
            }
            Down::Acknowledge(_) => {
                self.counters.lives.add(1);
                Ok(())
            }
            Down::Kill(_) | Down::ShutdownFramework(_) | Down::Volumes(_) => Ok(()),
            Down::Error(error) => bail!("the master refuses agent {}: {error:?}", self.number),
        }
    }

    fn update(&self, framework_id: String, task_id: String, state: pb::TaskState) -> Result<()> {
        let prefix = if state == pb::TaskState::Running { 'r' } else { 'f' };
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let status = pb::TaskStatus {
            update_id: Some(format!("{prefix}-{task_id}")),
            task_id,
            agent_id: Some(self.id.clone()),
            state: state.into(),
            reason: pb::Reason::CommandExited.into(),
            source: pb::Source::Agent.into(),
            time_ms: u64::try_from(since_epoch.as_millis())?,
            container: Some(pb::ContainerStatus::default()),
            ..Default::default()
        };
        self.send(Up::Update(pb::AgentUpdate { framework_id, status: Some(status) }))
    }
}

fn info(number: usize) -> pb::AgentInfo {
    pb::AgentInfo {
        id: None,
        hostname: format!("sim-{number}"),
        url: "http://127.0.0.1:1".to_owned(),
        address: "127.0.0.1".to_owned(),
        resources: Some(amount(CPUS, MEM)),
        version: "0.0.0".to_owned(),
        ..Default::default()
    }
}
