//! The floor: a server of the same library, in a process of its own, that answers every message on a stream with another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use divvy_proto::pb;
use divvy_proto::pb::agent_client::AgentClient;
use divvy_proto::pb::agent_server::{Agent, AgentServer};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::counters::Counter;

/// The first argument of the process that serves.
pub const ARGUMENT: &str = "--echo";

struct Echo;

#[tonic::async_trait]
impl Agent for Echo {
    type ConnectStream =
        std::pin::Pin<Box<dyn futures::Stream<Item = Result<pb::MasterMessage, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<pb::AgentMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let ping = || pb::MasterMessage { message: Some(pb::master_message::Message::Ping(pb::Ping {})) };
        Ok(Response::new(Box::pin(request.into_inner().map(move |message| message.map(|_| ping())))))
    }
}

/// Serves until killed.
pub async fn serve() -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("echo http://{}\nready", listener.local_addr()?);
    let connections = TcpListenerStream::new(listener)
        .map(|connection| connection.and_then(|stream| stream.set_nodelay(true).map(|()| stream)));
    Ok(Server::builder().add_service(AgentServer::new(Echo)).serve_with_incoming(connections).await?)
}

/// One stream on a connection of its own.
pub struct Peer {
    up: UnboundedSender<pb::AgentMessage>,
    down: Streaming<pb::MasterMessage>,
}

impl Peer {
    pub async fn connect(url: &str) -> Result<Self> {
        let channel = Endpoint::from_shared(url.to_owned())?.tcp_nodelay(true).connect().await?;
        let (up, outgoing) = unbounded_channel();
        let down =
            AgentClient::new(channel).connect(UnboundedReceiverStream::new(outgoing)).await?.into_inner();
        Ok(Self { up, down })
    }

    /// There and back.
    pub async fn round_trip(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        self.up.send(pb::AgentMessage { message: Some(pb::agent_message::Message::Pong(pb::Pong {})) })?;
        self.down.message().await?.context("the echo has ended")?;
        Ok(begun.elapsed())
    }
}

/// All peers at once, one message in flight each: how many messages, both ways, in about so long.
pub async fn all_at_once(peers: &mut Vec<Peer>, time: Duration) -> Result<(u64, Duration)> {
    let (messages, stop) = (Arc::new(Counter::default()), Arc::new(AtomicBool::new(false)));
    let mut running = tokio::task::JoinSet::new();
    let begun = Instant::now();
    for mut peer in peers.drain(..) {
        let (messages, stop) = (messages.clone(), stop.clone());
        running.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                peer.round_trip().await?;
                messages.add(2);
            }
            Ok::<_, anyhow::Error>(peer)
        });
    }
    tokio::time::sleep(time).await;
    let (count, elapsed) = (messages.get(), begun.elapsed());
    stop.store(true, Ordering::Relaxed);
    while let Some(peer) = running.join_next().await {
        peers.push(peer??);
    }
    Ok((count, elapsed))
}
