//! What a master is started with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use divvy_store::Store;

use crate::kernel;

/// Everything that the operator decides about a master.
#[derive(Clone)]
pub struct MasterConfig {
    /// Where to listen, for gRPC and HTTP alike; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The address that others are told (`http://10.0.0.1:5050`), where it differs from `listen`.
    pub advertise: Option<String>,
    /// Where the registry lives, and who decides who leads.
    pub store: Arc<dyn Store>,
    /// What the kernel obeys. Its `epoch` is not used: the store gives out a new one at each start.
    pub kernel: kernel::Config,
    /// Listen beyond loopback although nothing is authenticated yet.
    pub insecure: bool,
    /// A silent connection of an agent, a framework or an operator is asked for a sign of life so often, and closed if none
    /// comes within the same time again.
    pub keep_alive: Duration,
    /// So many messages may wait on the stream of one agent or framework before it is cut off. The default holds the answer
    /// to the largest Reconcile, which comes in one turn (`divvy_proto::convert::limits::TASKS`).
    pub link_queue: usize,
    /// So many changes may wait for one reader of changes before it is cut off.
    pub watch_queue: usize,
}

impl MasterConfig {
    /// The defaults, on `listen`.
    #[must_use]
    pub fn new(listen: SocketAddr, store: Arc<dyn Store>) -> Self {
        Self {
            listen,
            advertise: None,
            store,
            kernel: kernel::Config::default(),
            insecure: false,
            keep_alive: Duration::from_secs(10),
            link_queue: 128 * 1024,
            watch_queue: 4 * 1024,
        }
    }
}
