//! The registry on the store: what cannot be rebuilt from agents, one JSON value a record.
//!
//! Every write carries this master's fencing token in its condition. A refused condition means that another master leads:
//! this one writes nothing more and steps down. Whatever waits while a write is under way goes into the next write together.
//! Not here: which records there are (`records`), and what they mean.

mod records;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use divvy_proto::ids::Epoch;
use divvy_store::{Batch, Commit as Written, Condition, Key, Leadership, Prefix, Store, StoreError};
use tokio::sync::mpsc;

use super::metrics::Metrics;
use crate::kernel::{PersistToken, RegistryChange};
use records::{GROUPS, LARGEST_WRITE, Write, writes};

/// What masters campaign for.
const OFFICE: &str = "master";

/// Largest record, in bytes. Whoever introduces itself with more is refused before the kernel hears of it.
pub(super) const LARGEST_RECORD: usize = 256 * 1024;

/// So many changes are taken from the queue at once.
const LARGEST_GROUP: usize = 1000;

/// Why a master cannot begin to lead.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The store did not let it campaign.
    #[error("cannot campaign to be the master: {0}")]
    Campaign(#[source] StoreError),
    /// The store was led more often than an epoch can count.
    #[error("the store's fencing token {0} is too large for an epoch")]
    Epoch(u64),
    /// The store did not answer.
    #[error("cannot read the registry below {group}: {source}")]
    Read {
        /// Which part.
        group: &'static str,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// A record is not what this version writes.
    #[error(
        "the registry's record {key} cannot be read: it was written by a newer version, or is damaged: {source}"
    )]
    Record {
        /// Which.
        key: Key,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// Why the registry cannot be written any more.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Another master leads.
    #[error("another master leads now: fencing token {0} is no longer valid")]
    Deposed(u64),
    /// The store failed, and nobody knows whether it wrote.
    #[error("the registry cannot be written: {0}")]
    Store(#[source] StoreError),
    /// A record could not be written as JSON.
    #[error("the registry's record {key} cannot be written as JSON: {source}")]
    Encode {
        /// Which.
        key: Key,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The task that writes has gone.
    #[error("the registry's writer has stopped")]
    Stopped,
}

/// What the kernel wants to be durable.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Commit {
    pub(super) token: PersistToken,
    pub(super) changes: Vec<RegistryChange>,
}

/// The right to write the registry.
pub(super) struct Registry {
    store: Arc<dyn Store>,
    leadership: Leadership,
    epoch: Epoch,
}

impl Registry {
    /// Waits for leadership, then reads what earlier masters have written.
    pub(super) async fn lead(
        store: Arc<dyn Store>,
        candidate: &str,
    ) -> Result<(Self, Vec<RegistryChange>), RegistryError> {
        let office = Key::new(OFFICE).map_err(RegistryError::Campaign)?;
        let value = Bytes::copy_from_slice(candidate.as_bytes());
        let leadership = store.campaign(&office, value).await.map_err(RegistryError::Campaign)?;
        let token = leadership.fence().token;
        let epoch = Epoch(u32::try_from(token).map_err(|_| RegistryError::Epoch(token))?);
        let mut records = Vec::new();
        for group in GROUPS {
            let read = |source| RegistryError::Read { group, source };
            let below = Key::new(group).map_err(read)?.below();
            for entry in store.range(&below).await.map_err(read)?.entries {
                let record = serde_json::from_slice(&entry.value)
                    .map_err(|source| RegistryError::Record { key: entry.key.clone(), source })?;
                records.push(record);
            }
        }
        Ok((Self { store, leadership, epoch }, records))
    }

    /// The number of this master's reign: the fencing token.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Writes what comes until nobody can send any more, or until it may not or cannot write. Then it resigns.
    pub(super) async fn write(
        mut self,
        mut commits: mpsc::UnboundedReceiver<Commit>,
        report: mpsc::UnboundedSender<Result<Vec<Commit>, CommitError>>,
        metrics: Metrics,
    ) {
        let mut group = Vec::new();
        loop {
            let taken = tokio::select! {
                biased;
                taken = commits.recv_many(&mut group, LARGEST_GROUP) => taken,
                () = self.leadership.lost() => {
                    let _ = report.send(Err(CommitError::Deposed(self.leadership.fence().token)));
                    return;
                }
            };
            if taken == 0 {
                return self.leadership.resign().await;
            }
            let started = Instant::now();
            let written = self.write_group(&group).await;
            metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
            let failed = written.is_err();
            // Nobody listens any more when the master stops; what was written stays.
            let _ = report.send(written.map(|()| std::mem::take(&mut group)));
            if failed {
                return;
            }
        }
    }

    async fn write_group(&self, group: &[Commit]) -> Result<(), CommitError> {
        for Write { records, emptied } in writes(group)? {
            for below in emptied {
                self.empty(&below).await?;
            }
            let write = records.into_iter().fold(self.batch(), |batch, (key, value)| match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            });
            self.commit(write).await?;
        }
        Ok(())
    }

    /// Removes all records of a group, however many.
    async fn empty(&self, group: &Prefix) -> Result<(), CommitError> {
        let listing = self.store.range(group).await.map_err(CommitError::Store)?;
        for some in listing.entries.chunks(LARGEST_WRITE.0) {
            let keys = some.iter().map(|entry| entry.key.clone());
            self.commit(keys.fold(self.batch(), Batch::delete)).await?;
        }
        Ok(())
    }

    /// Nothing yet, on the condition that this master leads.
    fn batch(&self) -> Batch {
        Batch::new().when(Condition::Fence(self.leadership.fence().clone()))
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        match self.store.commit(batch).await.map_err(CommitError::Store)? {
            Written::Done { .. } => Ok(()),
            Written::Conflict(_) => Err(CommitError::Deposed(self.leadership.fence().token)),
        }
    }
}
