//! gRPC: one bidirectional stream for each framework and each agent, and the operator service.
//!
//! A stream has two halves that know nothing of each other. What the peer says is turned into domain types and fed to the
//! kernel, one message at a time, waiting while the kernel's queue is full. What the kernel says waits in the stream's own
//! bounded queue. Not here: any decision about what is said.

mod agent;
mod operator;
mod scheduler;

use divvy_proto::Invalid;
use divvy_proto::convert::limits::MESSAGE_BYTES;
use divvy_proto::pb::agent_server::AgentServer;
use divvy_proto::pb::operator_server::OperatorServer;
use divvy_proto::pb::scheduler_server::SchedulerServer;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Status, Streaming};

use super::api::{Api, NotDone};
use super::handle::Stopped;
use super::registry::LARGEST_RECORD;

/// All gRPC services as routes. A message above [`MESSAGE_BYTES`] ends its stream.
pub(super) fn routes(api: &Api, link_queue: usize) -> axum::Router {
    let streams = Streams { api: api.clone(), link_queue };
    let scheduler = SchedulerServer::new(streams.clone()).max_decoding_message_size(MESSAGE_BYTES);
    let agent = AgentServer::new(streams).max_decoding_message_size(MESSAGE_BYTES);
    let operator = OperatorServer::new(operator::Service { api: api.clone() });
    Routes::from(axum::Router::new())
        .add_service(scheduler)
        .add_service(agent)
        .add_service(operator)
        .prepare()
        .into_axum_router()
}

/// Opens streams of frameworks and agents.
#[derive(Clone)]
struct Streams {
    api: Api,
    /// So many messages may wait on one stream.
    link_queue: usize,
}

impl From<Stopped> for Status {
    fn from(stopped: Stopped) -> Self {
        Self::unavailable(stopped.to_string())
    }
}

impl From<NotDone> for Status {
    fn from(not_done: NotDone) -> Self {
        match not_done {
            NotDone::Unknown(what) => Self::not_found(format!("{what} is not known here")),
            NotDone::Refused(why) => Self::failed_precondition(why),
            NotDone::Stopped(stopped) => stopped.into(),
        }
    }
}

/// What the reading half of a stream comes upon.
enum Said<T> {
    /// A message.
    Message(T),
    /// The peer has ended its half, or the connection broke, or this master ended the stream.
    Ended,
    /// Bytes that are no message of this stream's type, or too many of them.
    Garbage(Status),
}

/// The next message, unless the stream ends first.
async fn next<T>(incoming: &mut Streaming<T>, ended: &CancellationToken) -> Said<T> {
    let message = tokio::select! {
        biased;
        () = ended.cancelled() => return Said::Ended,
        message = incoming.message() => message,
    };
    match message {
        Ok(Some(message)) => Said::Message(message),
        Ok(None) => Said::Ended,
        Err(status) if is_garbage(&status) => Said::Garbage(status),
        Err(_) => Said::Ended,
    }
}

/// Tonic reports a message that cannot be decoded, or is too large, with these codes; a broken connection with others.
fn is_garbage(status: &Status) -> bool {
    matches!(status.code(), tonic::Code::Internal | tonic::Code::OutOfRange | tonic::Code::ResourceExhausted)
}

/// Refuses an introduction that the registry could not hold.
fn fits_registry(field: &'static str, info: &impl serde::Serialize) -> Result<(), Invalid> {
    let size = serde_json::to_vec(info).map_or(usize::MAX, |json| json.len());
    if size <= LARGEST_RECORD {
        return Ok(());
    }
    let expected =
        format!("at most {LARGEST_RECORD} bytes as JSON, names, roles, labels and attributes together");
    Err(Invalid::new(field, format!("{size} bytes"), expected))
}
