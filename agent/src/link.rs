//! The stream to the master as bytes: connects, converts, and connects anew with a growing pause.
//!
//! Not here: what is said. Streams are named to the main loop, which owns the supervisor.

use std::time::{Duration, Instant};

use divvy_proto::agent::{AgentMessage, MasterMessage};
use divvy_proto::convert::limits::MESSAGE_BYTES;
use divvy_proto::pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tracing::{debug, info, warn};

use crate::causes::causes;
use crate::config::MasterAddress;
use crate::supervisor::LinkId;

/// So many messages may wait for the master; if it does not take them, the stream is closed and everything is said anew.
const QUEUE: usize = 4096;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Mesos goes up to 1 min; a master that comes back finds its agents sooner here.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// A stream that lived so long was a good one: after it the pauses begin anew. A master that refuses at once is not hurried.
const STABLE: Duration = Duration::from_secs(10);

/// What a stream does.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "events are moved once, through a queue")]
pub(crate) enum LinkEvent {
    /// It is open; what goes into the sender reaches the master.
    Open(LinkId, Outgoing),
    /// It brought a message.
    Heard(LinkId, MasterMessage),
    /// It has ended.
    Closed(LinkId),
}

/// The agent's end of a stream.
#[derive(Debug)]
pub(crate) struct Outgoing {
    messages: mpsc::Sender<pb::AgentMessage>,
    end: CancellationToken,
}

impl Outgoing {
    /// Queues a message; whether there was room.
    pub(crate) fn send(&self, message: AgentMessage) -> bool {
        self.messages.try_send(message.into()).is_ok()
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// Keeps one stream open, one after another, for as long as somebody listens to the events.
pub(crate) async fn keep_open(master: MasterAddress, events: mpsc::Sender<LinkEvent>) {
    let mut pause = FIRST_PAUSE;
    for id in (1..).map(LinkId) {
        let began = Instant::now();
        if let Err(error) = open(&master, id, &events).await {
            let error = causes(&*error);
            // The first failures are normal where everything starts at once.
            if pause >= Duration::from_secs(1) {
                warn!("master {master}: {error}; trying again within {}", humantime::format_duration(pause));
            } else {
                debug!("master {master}: {error}");
            }
        }
        if began.elapsed() >= STABLE {
            pause = FIRST_PAUSE;
        }
        if events.is_closed() {
            return;
        }
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Between half of the pause and all of it, so that agents that lost a master together do not return as one.
fn jittered(pause: Duration) -> Duration {
    let [byte, ..] = uuid::Uuid::new_v4().into_bytes();
    pause.mul_f64(0.5 + f64::from(byte) / 512.0)
}

/// One stream from its beginning to its end.
async fn open(
    master: &MasterAddress,
    id: LinkId,
    events: &mpsc::Sender<LinkEvent>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let endpoint = Endpoint::from_shared(master.as_str().to_owned())?.connect_timeout(CONNECT_TIMEOUT);
    let channel = endpoint.tcp_nodelay(true).connect().await?;
    let mut client = pb::agent_client::AgentClient::new(channel).max_decoding_message_size(MESSAGE_BYTES);
    client = client.max_encoding_message_size(MESSAGE_BYTES);
    let (messages, queue) = mpsc::channel(QUEUE);
    let end = CancellationToken::new();
    // The registration goes into the queue first: a master may wait for it before it answers at all.
    let opened = LinkEvent::Open(id, Outgoing { messages, end: end.clone() });
    if events.send(opened).await.is_err() {
        return Ok(());
    }
    let mut heard = false;
    let conversation = async {
        let mut answers = client.connect(ReceiverStream::new(queue)).await?.into_inner();
        while let Some(message) = answers.message().await? {
            let message = MasterMessage::try_from(message)?;
            if !heard {
                info!("connected to master {master}");
            }
            heard = true;
            if events.send(LinkEvent::Heard(id, message)).await.is_err() {
                break;
            }
        }
        Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
    };
    let result = tokio::select! {
        result = conversation => result,
        () = end.cancelled() => Ok(()),
    };
    drop(events.send(LinkEvent::Closed(id)).await);
    if heard && let Err(error) = &result {
        warn!("lost master {master}: {}", causes(&**error));
    }
    result
}
