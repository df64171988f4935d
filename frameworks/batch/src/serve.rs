//! Runs the planner against a master, and the REST API beside it.

use std::net::SocketAddr;
use std::sync::Arc;

use divvy_sdk::proto::role::RolePath;
use divvy_sdk::{Actions, Framework, Handle, Offer, Scheduler, View};
use divvy_store::Store;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{Api, router};
use crate::planner::{Planner, RestoreError};

/// The framework's name, unless it is given another: the master answers its REST API under `/frameworks/batch/`.
pub const NAME: &str = "batch";

/// How the batch framework is run.
#[derive(Clone)]
pub struct BatchConfig {
    /// Address of the master: `127.0.0.1:5050`.
    pub master: String,
    /// Where the REST API listens.
    pub listen: SocketAddr,
    /// The base address at which the master reaches the REST API; that of `listen` by default.
    pub url: Option<String>,
    /// Where jobs are kept.
    pub store: Arc<dyn Store>,
    /// Keys in the store begin with this.
    pub prefix: String,
    /// The role whose resources are used.
    pub role: RolePath,
    /// The framework's name.
    pub name: String,
}

impl BatchConfig {
    /// Against this master, with state in this store; the REST API on any free port of the loopback address.
    #[must_use]
    pub fn new(master: impl Into<String>, store: Arc<dyn Store>) -> Self {
        Self {
            master: master.into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            url: None,
            store,
            prefix: NAME.to_owned(),
            role: RolePath::default(),
            name: NAME.to_owned(),
        }
    }
}

/// Why the batch framework ended, or did not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address of the REST API cannot be had.
    #[error("listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// What is in the store is not a planner's.
    #[error("restore jobs: {0}")]
    Restore(#[from] RestoreError),
    /// The framework could not be run.
    #[error("run the batch framework: {0}")]
    Framework(#[from] divvy_sdk::Error),
}

/// The planner as a scheduler, and a number that rises whenever it has looked: what waits for changes looks again then.
pub(crate) struct Watched {
    pub(crate) planner: Planner,
    revision: watch::Sender<u64>,
}

impl Scheduler for Watched {
    fn reconcile(&mut self, view: &View, offers: Vec<Offer>) -> Actions {
        let actions = self.planner.reconcile(view, offers);
        self.revision.send_modify(|revision| *revision += 1);
        actions
    }
}

/// A batch framework that runs.
pub struct Running {
    addr: SocketAddr,
    framework: divvy_sdk::Running<Watched>,
    server: JoinHandle<()>,
    stop: CancellationToken,
}

/// Starts the batch framework.
///
/// # Errors
/// The address is taken, the store cannot be read, or the framework cannot start. That the master is not there yet is no error.
pub async fn serve(config: BatchConfig) -> Result<Running, Error> {
    let listen = |source| Error::Listen { addr: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
    let addr = listener.local_addr().map_err(listen)?;
    let planner = Planner::restore(divvy_sdk::load(config.store.as_ref(), &config.prefix).await?)?;
    let (revision, changes) = watch::channel(0);
    let framework = Framework::new(config.name, Watched { planner, revision })
        .master(config.master)
        .role(config.role)
        .store(config.store, config.prefix)
        .url(config.url.unwrap_or_else(|| format!("http://{addr}")))
        .start()
        .await?;
    let stop = CancellationToken::new();
    let server = serve_http(listener, framework.handle(), changes, stop.clone());
    Ok(Running { addr, framework, server, stop })
}

fn serve_http(
    listener: TcpListener,
    handle: Handle<Watched>,
    changes: watch::Receiver<u64>,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let app = router(Api::new(handle, changes, stop.clone()));
    tokio::spawn(async move {
        let served = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "the REST API has ended");
        }
    })
}

impl Running {
    /// Where the REST API listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits until the framework has ended by itself.
    ///
    /// # Errors
    /// Why it ended.
    pub async fn done(&mut self) -> Result<(), Error> {
        Ok(self.framework.done().await?)
    }

    /// Stops. The tasks run on, and are taken up again by the next start with the same store.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.framework.shutdown().await;
        let _ = self.server.await;
    }
}
