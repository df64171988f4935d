//! What is below a framework's prefix: read at the start, written by one task in the order in which the driver says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use divvy_store::{Key, Store, StoreError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Message, journal};
use crate::Write;
use crate::driver::{Input, PersistToken};

/// All entries below the prefix, with keys relative to it. What an earlier process had begun to write is finished or undone
/// first.
pub(crate) async fn load(store: &dyn Store, prefix: &Key) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    journal::recover(store, prefix).await?;
    let below = prefix.below();
    let entries = store.range(&below).await?.entries;
    let relative = |key: &Key| key.as_str().strip_prefix(below.as_str()).map(str::to_owned);
    Ok(entries.iter().filter_map(|entry| Some((relative(&entry.key)?, entry.value.to_vec()))).collect())
}

type Job = (PersistToken, Vec<Write>);

/// The task that writes.
pub(super) struct Writer {
    jobs: mpsc::UnboundedSender<Job>,
    task: JoinHandle<Result<(), StoreError>>,
}

impl Writer {
    pub(super) fn spawn<S: Send + 'static>(
        store: Arc<dyn Store>,
        prefix: Key,
        messages: mpsc::Sender<Message<S>>,
    ) -> Self {
        // Unbounded, but not without bound: calls wait for what is written, and the master for calls.
        let (jobs, queue) = mpsc::unbounded_channel();
        let task = tokio::spawn(run(store, prefix, queue, messages));
        Self { jobs, task }
    }

    /// Queues writes. If the task has failed, the shell is about to hear of it.
    pub(super) fn write(&self, token: PersistToken, writes: Vec<Write>) {
        let _ = self.jobs.send((token, writes));
    }

    /// Waits until all that is queued is durable.
    pub(super) async fn finish(self) -> Result<(), StoreError> {
        drop(self.jobs);
        self.task.await.unwrap_or(Ok(()))
    }
}

async fn run<S>(
    store: Arc<dyn Store>,
    prefix: Key,
    mut queue: mpsc::UnboundedReceiver<Job>,
    messages: mpsc::Sender<Message<S>>,
) -> Result<(), StoreError> {
    let mut jobs = Vec::new();
    while queue.recv_many(&mut jobs, divvy_store::MAX_OPERATIONS).await > 0 {
        let (tokens, writes) = merge(std::mem::take(&mut jobs));
        if let Err(error) = journal::commit(store.as_ref(), &prefix, writes).await {
            // A shell that has ended no longer listens; it asks for the result instead.
            let _ = messages.send(Message::Failed(error.clone())).await;
            return Err(error);
        }
        for token in tokens {
            let _ = messages.send(Message::Input(Input::Persisted(token))).await;
        }
    }
    Ok(())
}

/// Makes one commit of all that has queued up: the last word on each key counts.
fn merge(jobs: Vec<Job>) -> (Vec<PersistToken>, Vec<Write>) {
    let mut tokens = Vec::new();
    let mut writes = BTreeMap::new();
    for (token, job) in jobs {
        tokens.push(token);
        for write in job {
            let (Write::Put { key, .. } | Write::Delete { key }) = &write;
            writes.insert(key.clone(), write);
        }
    }
    (tokens, writes.into_values().collect())
}
