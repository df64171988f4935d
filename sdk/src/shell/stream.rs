//! One connection of a framework: calls out, events in.

use std::time::Duration;

use divvy_proto::convert::limits::MESSAGE_BYTES;
use divvy_proto::pb;
use divvy_proto::pb::scheduler_client::SchedulerClient;
use divvy_proto::scheduler::{Call, Event};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Endpoint;
use tracing::info;

use super::Message;
use crate::driver::Input;

/// A stream that is being opened or is open; closed when dropped.
pub(super) struct Connection {
    calls: mpsc::UnboundedSender<pb::Call>,
    _task: AbortOnDropHandle<()>,
}

impl Connection {
    pub(super) fn open<S: Send + 'static>(
        number: u64,
        master: Endpoint,
        messages: mpsc::Sender<Message<S>>,
    ) -> Self {
        // Unbounded, but not without bound: what the driver says follows from what it was told.
        let (calls, outgoing) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            if let Err(error) = run(number, &master, outgoing, &messages).await {
                info!(master = %master.uri(), error, "no connection to the master");
            }
            // A shell that has ended no longer cares.
            let _ = messages.send(Message::Stream(number, Input::Disconnected)).await;
        });
        Self { calls, _task: AbortOnDropHandle::new(task) }
    }

    /// Queues a call. If the stream has ended, the shell is about to hear of it.
    pub(super) fn send(&self, call: Call) {
        let _ = self.calls.send(call.into());
    }
}

async fn run<S>(
    number: u64,
    master: &Endpoint,
    outgoing: mpsc::UnboundedReceiver<pb::Call>,
    messages: &mpsc::Sender<Message<S>>,
) -> Result<(), String> {
    let master = master.clone().http2_keep_alive_interval(Duration::from_secs(20));
    let channel = master.connect().await.map_err(|error| cause(&error))?;
    let connected = messages.send(Message::Stream(number, Input::Connected)).await;
    if connected.is_err() {
        return Ok(());
    }
    let mut client = SchedulerClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let events = client.subscribe(UnboundedReceiverStream::new(outgoing)).await;
    let mut events = events.map_err(|status| status.message().to_owned())?.into_inner();
    loop {
        let event = events.message().await.map_err(|status| status.message().to_owned())?;
        let Some(event) = event else { return Ok(()) };
        // The rest of the stream may depend on what was not understood: begin again.
        let unknown = |invalid| format!("the master sent what this version does not know: {invalid}");
        let input = Input::Event(Event::try_from(event).map_err(unknown)?);
        if messages.send(Message::Stream(number, input)).await.is_err() {
            return Ok(());
        }
    }
}

/// The innermost reason, which is the one that a person can act on.
pub(super) fn cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
