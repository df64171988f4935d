//! The stream of an agent: its messages in, the master's out.

use std::pin::Pin;

use divvy_proto::Invalid;
use divvy_proto::agent::{AgentMessage, MasterMessage};
use divvy_proto::pb;
use futures::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{Said, Streams, fits_registry, next};
use crate::kernel::{Input, LinkId};
use crate::shell::api::Api;
use crate::shell::handle::{self, Outbox};
use crate::shell::metrics::names;
use crate::shell::queue::queue;

#[tonic::async_trait]
impl pb::agent_server::Agent for Streams {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<pb::MasterMessage, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<pb::AgentMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (outgoing, drain, ended) = queue::<MasterMessage>(self.link_queue);
        let link = self.api.kernel.open(Outbox::Agent(outgoing)).await?;
        tokio::spawn(read(self.api.clone(), link, request.into_inner(), ended));
        Ok(Response::new(Box::pin(drain.map(|message| Ok(message.into())))))
    }
}

/// Feeds messages until the stream ends, and says so then. An agent is part of the house: a message of it that is not valid
/// means that versions do not fit, so its stream ends with the reason.
async fn read(api: Api, link: LinkId, mut messages: Streaming<pb::AgentMessage>, ended: CancellationToken) {
    loop {
        let request = match next(&mut messages, &ended).await {
            Said::Message(message) => match checked(message) {
                Ok(message) => handle::Request::Input(Input::Agent { link, message }),
                Err(invalid) => reject(&api, link, invalid.to_string()),
            },
            Said::Garbage(status) => {
                // Where the next message begins is anyone's guess: nothing more is read until the reason has left.
                let why = format!("not a message: {}", status.message());
                if api.kernel.send(reject(&api, link, why)).await.is_err() {
                    return;
                }
                ended.cancelled().await;
                break;
            }
            Said::Ended => break,
        };
        if api.kernel.send(request).await.is_err() {
            return;
        }
    }
    // A kernel that has stopped no longer cares.
    let _ = api.kernel.send(handle::Request::Input(Input::AgentClosed { link })).await;
}

fn checked(message: pb::AgentMessage) -> Result<AgentMessage, Invalid> {
    let message = AgentMessage::try_from(message)?;
    if let AgentMessage::Register { agent, .. } = &message {
        fits_registry("register.agent", agent)?;
    }
    Ok(message)
}

fn reject(api: &Api, link: LinkId, why: String) -> handle::Request {
    api.metrics.invalid.get_or_create(&names::invalid("agent")).inc();
    handle::Request::Reject(link, why)
}
