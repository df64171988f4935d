//! Puts the parts together, and takes them down again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use divvy_proto::time::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::server::{Server, TcpIncoming};

use super::api::Api;
use super::changes::Changes;
use super::clock::Clock;
use super::config::MasterConfig;
use super::grpc;
use super::handle::{KernelHandle, Request};
use super::http::{self, Guard};
use super::metrics::Metrics;
use super::registry::{CommitError, Registry, RegistryError};
use super::turns::{Links, Operators, Turns};
use crate::kernel::{self, Kernel, RegistryChange};

/// So many requests may wait for the kernel; then whoever brings more waits too.
const KERNEL_QUEUE: usize = 4096;

/// So many streams one connection may have open: far more than any peer needs, few enough that none can pile them up.
const MOST_STREAMS: u32 = 1000;

/// How long connections have to end when the master stops.
const FAREWELL: Duration = Duration::from_secs(3);

/// Why a master does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It would be reachable by others, and nothing is authenticated yet.
    #[error(
        "will not listen on {0}: whoever reaches that address could run anything as root on every agent. Listen on \
         127.0.0.1 (and reach it through an SSH tunnel), or set --insecure if the network itself is trusted"
    )]
    NotLoopback(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The registry cannot be read, or leadership cannot be had.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The client for agents' and frameworks' HTTP APIs cannot be made.
    #[error("cannot make an HTTP client: {0}")]
    Client(#[source] reqwest::Error),
}

/// Why a master stopped without being told to.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// Its registry cannot be written any more, most likely because another master leads.
    #[error("the master steps down: {0}")]
    SteppedDown(#[source] CommitError),
    /// One of its tasks panicked.
    #[error("the master's {task} failed, which is a bug: {source}")]
    Bug {
        /// Which.
        task: &'static str,
        /// How.
        #[source]
        source: JoinError,
    },
    /// Its listener failed.
    #[error("the master's listener failed: {0}")]
    Serve(#[source] tonic::transport::Error),
}

/// A cluster's master: the kernel, its registry, and everything that speaks to them.
#[derive(Debug)]
pub struct Master;

impl Master {
    /// Waits until it leads, recovers the registry, and serves. What it logs goes to whatever `tracing` subscriber there is.
    ///
    /// # Errors
    /// It cannot listen, or its registry cannot be read. Nothing is left running.
    pub async fn start(config: MasterConfig) -> Result<Running, StartError> {
        let (listener, addr) = listen(&config).await?;
        let address = config.advertise.clone().unwrap_or_else(|| format!("http://{addr}"));
        let proxy = http::client().map_err(StartError::Client)?;
        let (registry, records) = Registry::lead(Arc::clone(&config.store), &address).await?;
        tracing::info!(%addr, epoch = %registry.epoch(), "the master leads");

        let stop = CancellationToken::new();
        let metrics = Metrics::new();
        let (kernel, requests) = KernelHandle::new(KERNEL_QUEUE);
        let api = Api { kernel, metrics, proxy, stop: stop.clone(), address: address.as_str().into() };
        let (turns, writer) = govern(&config, &api, registry, records, requests);
        let guard = Guard::new(addr.ip(), config.advertise.as_deref());
        let routes = http::router(api.clone(), grpc::routes(&api, config.link_queue), guard);
        let server = tokio::spawn(serve(listener, routes, config.keep_alive, stop.clone()));
        let supervisor = tokio::spawn(supervise(turns, writer, server, stop.clone()));
        Ok(Running { addr, address, stop, supervisor: Some(supervisor) })
    }
}

async fn listen(config: &MasterConfig) -> Result<(TcpListener, SocketAddr), StartError> {
    if !config.listen.ip().is_loopback() && !config.insecure {
        return Err(StartError::NotLoopback(config.listen));
    }
    let failed = |source| StartError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    Ok((listener, addr))
}

/// Starts the kernel's task, and the one that writes its registry.
fn govern(
    config: &MasterConfig,
    api: &Api,
    registry: Registry,
    records: Vec<RegistryChange>,
    requests: mpsc::Receiver<Request>,
) -> (JoinHandle<Result<(), CommitError>>, JoinHandle<()>) {
    let clock = Clock::start();
    let epoch = registry.epoch();
    let kernel_config = kernel::Config { epoch, ..config.kernel.clone() };
    let (commits, to_commit) = mpsc::unbounded_channel();
    let (report, committed) = mpsc::unbounded_channel();
    let turns = Turns {
        kernel: Kernel::recover(kernel_config, records, clock.now()),
        clock,
        requests,
        changes: Changes::new(epoch, config.watch_queue),
        told: Timestamp::default(),
        metrics: api.metrics.clone(),
        address: Arc::clone(&api.address),
        commits,
        committed,
        stop: api.stop.clone(),
        links: Links::new(),
        operators: Operators::default(),
    };
    let writer = registry.write(to_commit, report, api.metrics.clone());
    (tokio::spawn(turns.run()), tokio::spawn(writer))
}

/// A master that runs. Dropping this tells it to stop, without waiting.
#[derive(Debug)]
pub struct Running {
    addr: SocketAddr,
    address: String,
    stop: CancellationToken,
    supervisor: Option<JoinHandle<Result<(), MasterError>>>,
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address to tell others: `http://127.0.0.1:5050`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Tells it to stop. Streams end; agents, their tasks and frameworks live on and look for the next master.
    pub fn shutdown(&self) {
        self.stop.cancel();
    }

    /// Waits until it has stopped and its store is closed. May be dropped and called again.
    ///
    /// # Errors
    /// It stopped by itself: its registry cannot be written any more, or it has a bug. Told once.
    pub async fn done(&mut self) -> Result<(), MasterError> {
        let Some(supervisor) = &mut self.supervisor else { return Ok(()) };
        let ended = supervisor.await;
        self.supervisor = None;
        ended.unwrap_or_else(|source| Err(MasterError::Bug { task: "supervisor", source }))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(
    listener: TcpListener,
    routes: axum::Router,
    keep_alive: Duration,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder()
        .accept_http1(true)
        .max_concurrent_streams(MOST_STREAMS)
        .http2_keepalive_interval(Some(keep_alive))
        .http2_keepalive_timeout(Some(keep_alive))
        .add_routes(Routes::from(routes))
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await
}

/// Waits for the first part to end, then ends the others. The kernel goes first, so that streams end by their queues.
async fn supervise(
    mut turns: JoinHandle<Result<(), CommitError>>,
    writer: JoinHandle<()>,
    mut server: JoinHandle<Result<(), tonic::transport::Error>>,
    stop: CancellationToken,
) -> Result<(), MasterError> {
    let result = tokio::select! {
        ended = &mut turns => ended_turns(ended),
        ended = &mut server => {
            stop.cancel();
            let served = ended_server(ended);
            ended_turns(turns.await).and(served)
        }
    };
    stop.cancel();
    // The writer ends when the kernel's task has dropped its queue: what was asked to be durable is.
    let _ = writer.await;
    if !server.is_finished() {
        // Connections that do not end by themselves end with the process, or when their peer goes away.
        let _ = tokio::time::timeout(FAREWELL, &mut server).await;
        server.abort();
    }
    result
}

fn ended_turns(ended: Result<Result<(), CommitError>, JoinError>) -> Result<(), MasterError> {
    ended.map_err(|source| MasterError::Bug { task: "kernel", source })?.map_err(MasterError::SteppedDown)
}

fn ended_server(ended: Result<Result<(), tonic::transport::Error>, JoinError>) -> Result<(), MasterError> {
    ended.map_err(|source| MasterError::Bug { task: "listener", source })?.map_err(MasterError::Serve)
}
