//! The stream of a framework: calls in, events out.

use std::pin::Pin;

use divvy_proto::Invalid;
use divvy_proto::convert;
use divvy_proto::pb;
use divvy_proto::scheduler::{Call, CallBody, Event};
use futures::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{Said, Streams, fits_registry, next};
use crate::kernel::{Input, LinkId};
use crate::shell::api::Api;
use crate::shell::handle::{self, Outbox, Stopped};
use crate::shell::metrics::names;
use crate::shell::queue::queue;

#[tonic::async_trait]
impl pb::scheduler_server::Scheduler for Streams {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<pb::Event, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<pb::Call>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let (outgoing, drain, ended) = queue::<Event>(self.link_queue);
        let link = self.api.kernel.open(Outbox::Framework(outgoing)).await?;
        tokio::spawn(read(self.api.clone(), link, request.into_inner(), ended));
        Ok(Response::new(Box::pin(drain.map(|event| Ok(event.into())))))
    }
}

/// Feeds calls until the stream ends, and says so then.
async fn read(api: Api, link: LinkId, mut calls: Streaming<pb::Call>, ended: CancellationToken) {
    loop {
        let fed = match next(&mut calls, &ended).await {
            Said::Message(call) => api.kernel.send(request(&api, link, call)).await,
            Said::Garbage(status) => {
                // Where the next message begins is anyone's guess: nothing more is read until the reason has left.
                if reject(&api, link, status.message()).await.is_err() {
                    return;
                }
                ended.cancelled().await;
                break;
            }
            Said::Ended => break,
        };
        if fed.is_err() {
            return;
        }
    }
    // A kernel that has stopped no longer cares.
    let _ = api.kernel.send(handle::Request::Input(Input::FrameworkClosed { link })).await;
}

/// A call that is not valid is refused under its own id; one without an id cannot be answered, and ends the stream.
fn request(api: &Api, link: LinkId, call: pb::Call) -> handle::Request {
    let id = convert::call_id(&call);
    match (checked(call), id) {
        (Ok(call), _) => handle::Request::Input(Input::Framework { link, call }),
        (Err(invalid), Ok(id)) => {
            api.metrics.invalid.get_or_create(&names::invalid("framework")).inc();
            handle::Request::Refuse(link, id, invalid)
        }
        (Err(_), Err(invalid)) => {
            api.metrics.invalid.get_or_create(&names::invalid("framework")).inc();
            handle::Request::Reject(link, invalid.to_string())
        }
    }
}

fn checked(call: pb::Call) -> Result<Call, Invalid> {
    let call = Call::try_from(call)?;
    match &call.body {
        CallBody::Subscribe { framework, .. } => fits_registry("subscribe.framework", framework)?,
        CallBody::UpdateFramework { framework, .. } => {
            fits_registry("update_framework.framework", framework)?
        }
        _ => {}
    }
    Ok(call)
}

async fn reject(api: &Api, link: LinkId, why: &str) -> Result<(), Stopped> {
    api.metrics.invalid.get_or_create(&names::invalid("framework")).inc();
    api.kernel.send(handle::Request::Reject(link, format!("not a call: {why}"))).await
}
