//! A framework on the raw stream of calls and events, as thin as it can be, so that the master is measured and not the SDK.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use divvy_proto::convert::limits::MESSAGE_BYTES;
use divvy_proto::pb;
use divvy_proto::pb::call::Body;
use divvy_proto::pb::scheduler_client::SchedulerClient;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

/// Nothing takes longer, or something is wrong.
const DEADLINE: Duration = Duration::from_secs(30);

/// A framework's connection.
pub struct Stream {
    calls: UnboundedSender<pb::Call>,
    events: Streaming<pb::Event>,
    made: u64,
}

impl Stream {
    /// Subscribes in one role.
    pub async fn subscribe(master: &str, name: &str, role: &str) -> Result<Self> {
        let channel = Endpoint::from_shared(master.to_owned())?.tcp_nodelay(true).connect().await?;
        let mut client = SchedulerClient::new(channel).max_decoding_message_size(MESSAGE_BYTES);
        let (calls, outgoing) = unbounded_channel();
        let framework = pb::FrameworkInfo {
            name: name.to_owned(),
            roles: vec![role.to_owned()],
            failover_timeout_ms: Some(0), // nothing of a bench outlives it
            ..Default::default()
        };
        let subscribe = pb::Subscribe { framework: Some(framework), suppressed: Vec::new() };
        calls.send(pb::Call { id: "0".to_owned(), body: Some(Body::Subscribe(subscribe)) })?;
        let events = client.subscribe(UnboundedReceiverStream::new(outgoing)).await?.into_inner();
        let mut stream = Self { calls, events, made: 0 };
        while !matches!(stream.event().await?, pb::event::Event::Subscribed(_)) {}
        Ok(stream)
    }

    /// Queues a call.
    pub fn call(&mut self, body: Body) -> Result<()> {
        self.made += 1;
        Ok(self.calls.send(pb::Call { id: self.made.to_string(), body: Some(body) })?)
    }

    /// The next event. A call that was refused is an error: none should be.
    pub async fn event(&mut self) -> Result<pb::event::Event> {
        use pb::event::Event;
        let event = tokio::time::timeout(DEADLINE, self.events.message()).await;
        let event = event.context("the master is silent")??.and_then(|event| event.event);
        match event.context("the master has closed the stream")? {
            Event::Error(error) => Err(anyhow!("the master ends the stream: {error:?}")),
            Event::Reply(reply) => match reply.outcome.and_then(|outcome| outcome.outcome) {
                Some(pb::outcome::Outcome::Refused(refusal)) => Err(anyhow!("refused: {}", refusal.text)),
                outcome => Ok(Event::Reply(pb::Reply {
                    outcome: Some(pb::Outcome { outcome }),
                    call_id: reply.call_id,
                })),
            },
            event => Ok(event),
        }
    }

    /// Ends the framework: its offers return, its tasks are killed.
    pub async fn tear_down(mut self) -> Result<()> {
        self.call(Body::Teardown(pb::Teardown {}))?;
        let drained = async { while let Ok(Some(_)) = self.events.message().await {} };
        tokio::time::timeout(DEADLINE, drained)
            .await
            .context("a framework that was torn down is still connected")
    }
}

/// An amount of processors and memory.
pub fn amount(cpus_millis: i64, mem_mib: i64) -> pb::Resources {
    pb::Resources { cpus_millis, mem_bytes: mem_mib << 20, ..Default::default() }
}

/// A task that executes a command.
pub fn task(id: String, argv: &[&str], resources: pb::Resources) -> pb::TaskInfo {
    let exec = pb::Exec { argv: argv.iter().map(|&word| word.to_owned()).collect() };
    pb::TaskInfo {
        id,
        name: "bench".to_owned(),
        command: Some(pb::Command { command: Some(pb::command::Command::Exec(exec)) }),
        resources: Some(resources),
        ..Default::default()
    }
}

/// Launches tasks; what is left is welcome again at once.
pub fn accept(offers: Vec<u64>, tasks: Vec<pb::TaskInfo>) -> Body {
    let launch = pb::operation::Operation::Launch(pb::Launch { tasks });
    let operations = vec![pb::Operation { operation: Some(launch) }];
    Body::Accept(pb::Accept { offers, operations, filters: Some(pb::Filters { refuse_ms: Some(0) }) })
}

/// Acknowledges an update; none where nothing is to be acknowledged.
pub fn acknowledge(status: &pb::TaskStatus) -> Option<Body> {
    let (agent_id, update_id) = (status.agent_id.clone()?, status.update_id.clone()?);
    Some(Body::Acknowledge(pb::Acknowledge { agent_id, task_id: status.task_id.clone(), update_id }))
}

/// Whether a task in this state has ended.
pub fn is_terminal(state: pb::TaskState) -> bool {
    use pb::TaskState::{Dropped, Error, Failed, Finished, Gone, Killed};
    matches!(state, Finished | Failed | Killed | Error | Dropped | Gone)
}
