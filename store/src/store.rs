//! The one trait, and what its methods answer.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use crate::batch::{Batch, Commit};
use crate::error::StoreError;
use crate::key::{Key, Prefix};
use crate::leadership::Leadership;
use crate::watch::Watch;

/// A point in a store's history. Every batch that changes something makes a new one, above all earlier ones; there may be gaps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key that has a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub key: Key,
    /// Its value.
    pub value: Bytes,
    /// The batch that wrote it last.
    pub revision: Revision,
}

/// Entries as they were together at one point in the store's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Ascending by key.
    pub entries: Vec<Entry>,
    /// The store's revision then; to be watched from.
    pub revision: Revision,
}

/// Proof of leadership, to be a condition of every write that only a leader may do. Each campaign that is won has a higher
/// token than all before, also across restarts, so a deposed leader's writes are refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence {
    /// What is led.
    pub name: Key,
    /// Rises with each leader of this name.
    pub token: u64,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// What it said of itself in its campaign.
    pub value: Bytes,
    /// Its token.
    pub fence: Fence,
}

/// Durable state, small enough to be listed: what has to survive a crash and nothing else.
///
/// Every read sees every batch that was answered before it. Dropping a future leaves the outcome of its commit unknown.
#[async_trait]
pub trait Store: Send + Sync {
    /// The entry under a key, if there is one.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError>;

    /// All entries of a group, as they are together at one moment.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn range(&self, prefix: &Prefix) -> Result<Listing, StoreError>;

    /// Does a batch if its conditions hold. When this answers `Done`, the batch survives a crash.
    ///
    /// # Errors
    /// The batch breaks a limit, or the store cannot be written; then the outcome is unknown.
    async fn commit(&self, batch: Batch) -> Result<Commit, StoreError>;

    /// All changes of a group that come after a revision, in order and without gaps, until the stream says why not.
    ///
    /// # Errors
    /// The store is closed.
    async fn watch(&self, prefix: &Prefix, after: Revision) -> Result<Watch, StoreError>;

    /// Waits until nobody else leads under this name, then leads. `value` is what others see: an address, say.
    /// Dropping the future gives up.
    ///
    /// # Errors
    /// The store is closed or cannot be written, or the value is larger than a batch may be.
    async fn campaign(&self, name: &Key, value: Bytes) -> Result<Leadership, StoreError>;

    /// Who leads under this name.
    ///
    /// # Errors
    /// The store is closed.
    async fn leader(&self, name: &Key) -> Result<Option<Leader>, StoreError>;
}
