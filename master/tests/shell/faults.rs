//! Faults of the network and of the store, and configurations that would be dangerous.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use divvy_master::{Master, MasterConfig, MasterError, StartError};
use divvy_proto::api::{self, FrameworkState};
use divvy_store::{Batch, Commit, Condition, Embedded, Entry, Key, Leader, Leadership, Listing};
use divvy_store::{Prefix, Revision, Store, StoreError, Watch};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::harness::{Cluster, Framework, framework_info, within};

/// A relay to `to` that keeps its connections open but passes nothing on once it is cut.
async fn relay(to: std::net::SocketAddr, cut: CancellationToken) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(to).await.unwrap();
        tokio::select! {
            _ = copy_bidirectional(&mut near, &mut far) => {}
            () = cut.cancelled() => std::future::pending().await,
        }
    });
    url
}

#[tokio::test]
async fn a_peer_behind_a_dead_network_is_noticed() {
    let cluster = Cluster::with(|config| config.keep_alive = Duration::from_millis(100)).await;
    let cut = CancellationToken::new();
    let url = relay(cluster.master.addr(), cut.clone()).await;
    let framework = Framework::subscribe_at(&url, framework_info("test")).await;
    let path = format!("/api/v1/frameworks/{}", framework.id);
    let before: api::Framework = cluster.get(&path).await;
    assert_eq!(before.state, FrameworkState::Active);
    cut.cancel();
    let gone = |framework: &api::Framework| framework.state == FrameworkState::Disconnected;
    cluster.until(&path, gone).await;
}

/// A store whose leader can be deposed.
struct Deposable {
    store: Embedded,
    deposed: AtomicBool,
}

#[async_trait]
impl Store for Deposable {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.store.get(key).await
    }
    async fn range(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
        self.store.range(prefix).await
    }
    async fn commit(&self, mut batch: Batch) -> Result<Commit, StoreError> {
        if self.deposed.load(Ordering::Relaxed) {
            let fence = batch.conditions.iter_mut().find_map(|condition| match condition {
                Condition::Fence(fence) => Some(fence),
                _ => None,
            });
            fence.expect("every write of a master is fenced").token -= 1;
        }
        self.store.commit(batch).await
    }
    async fn watch(&self, prefix: &Prefix, after: Revision) -> Result<Watch, StoreError> {
        self.store.watch(prefix, after).await
    }
    async fn campaign(&self, name: &Key, value: Bytes) -> Result<Leadership, StoreError> {
        self.store.campaign(name, value).await
    }
    async fn leader(&self, name: &Key) -> Result<Option<Leader>, StoreError> {
        self.store.leader(name).await
    }
}

#[tokio::test]
async fn a_deposed_master_steps_down_and_says_so() {
    let store = Embedded::in_memory().unwrap();
    let store = Arc::new(Deposable { store, deposed: AtomicBool::new(false) });
    let config = MasterConfig::new("127.0.0.1:0".parse().unwrap(), store.clone());
    let mut master = within("leadership", Master::start(config)).await.unwrap();
    let address = master.address().to_owned();
    let _admitted = Framework::subscribe_at(&address, framework_info("before")).await;

    store.deposed.store(true, Ordering::Relaxed);
    let newcomer =
        tokio::spawn(async move { Framework::subscribe_at(&address, framework_info("after")).await });
    let error = within("the end", master.done()).await.unwrap_err();
    assert!(matches!(error, MasterError::SteppedDown(_)));
    assert_eq!(
        error.to_string(),
        "the master steps down: another master leads now: fencing token 1 is no longer valid"
    );
    assert!(newcomer.await.is_err(), "nobody is admitted without a durable record");
}

#[tokio::test]
async fn a_master_stays_on_loopback_unless_it_is_told_otherwise() {
    let start = async |insecure| {
        let store = Arc::new(Embedded::in_memory().unwrap());
        let config = MasterConfig { insecure, ..MasterConfig::new("0.0.0.0:0".parse().unwrap(), store) };
        Master::start(config).await
    };
    let refused = start(false).await.unwrap_err();
    assert!(matches!(refused, StartError::NotLoopback(_)));
    assert!(refused.to_string().contains("--insecure"), "{refused}");
    assert!(start(true).await.is_ok());
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let cluster = Cluster::start().await;
    let store = Arc::new(Embedded::in_memory().unwrap());
    let refused = Master::start(MasterConfig::new(cluster.master.addr(), store)).await.unwrap_err();
    let expected = format!("cannot listen on {}: Address already in use", cluster.master.addr());
    assert!(refused.to_string().starts_with(&expected), "{refused}");
}
