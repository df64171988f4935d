//! Atomic compare-and-write: a batch is done as a whole if all of its conditions hold, or not at all.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::error::StoreError;
use crate::key::Key;
use crate::store::{Fence, Revision};

/// Most writes of a batch, and most conditions (etcd: 128 operations a transaction).
pub const MAX_OPERATIONS: usize = 128;

/// Most bytes of a batch: all its keys and values together (etcd: 1.5 MiB a request, of which the encoding needs a part).
pub const MAX_BATCH_BYTES: usize = 1400 << 10;

/// What has to be so for a batch to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The key has no value.
    Absent(Key),
    /// The key has a value.
    Exists(Key),
    /// The key's value was last written at this revision.
    RevisionIs(Key, Revision),
    /// The leadership stands.
    Fence(Fence),
}

/// One change of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Give the key this value.
    Put(Key, Bytes),
    /// Take the key's value away, if it has one.
    Delete(Key),
}

impl Write {
    /// Which key it changes.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Put(key, value) => key.as_str().len() + value.len(),
            Self::Delete(key) => key.as_str().len(),
        }
    }
}

/// Conditions, and what to write if they hold. No key is written twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// All have to hold, as things stand before the batch.
    pub conditions: Vec<Condition>,
    /// Are done together.
    pub writes: Vec<Write>,
}

impl Batch {
    /// Does nothing, on no condition.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only if this holds.
    #[must_use]
    pub fn when(mut self, condition: Condition) -> Self {
        self.conditions.push(condition);
        self
    }

    /// Give a key a value.
    #[must_use]
    pub fn put(mut self, key: Key, value: impl Into<Bytes>) -> Self {
        self.writes.push(Write::Put(key, value.into()));
        self
    }

    /// Take a key's value away.
    #[must_use]
    pub fn delete(mut self, key: Key) -> Self {
        self.writes.push(Write::Delete(key));
        self
    }

    /// Checks the limits, which every engine does before anything else.
    ///
    /// # Errors
    /// There are too many operations or bytes, or a key is written twice.
    pub fn check(&self) -> Result<(), StoreError> {
        for (count, what) in [(self.conditions.len(), "conditions"), (self.writes.len(), "writes")] {
            if count > MAX_OPERATIONS {
                return Err(StoreError::TooLarge {
                    what: format!("it has {count} {what}"),
                    limit: format!("{MAX_OPERATIONS} {what}"),
                });
            }
        }
        check_bytes(self.writes.iter().map(Write::size).sum())?;
        let mut seen = BTreeSet::new();
        match self.writes.iter().map(Write::key).find(|key| !seen.insert(*key)) {
            Some(key) => Err(StoreError::WrittenTwice { key: key.clone() }),
            None => Ok(()),
        }
    }
}

/// Refuses what is larger than a batch may be.
pub(crate) fn check_bytes(bytes: usize) -> Result<(), StoreError> {
    match bytes > MAX_BATCH_BYTES {
        true => Err(StoreError::TooLarge {
            what: format!("it has {bytes} bytes"),
            limit: format!("{MAX_BATCH_BYTES} bytes of keys and values"),
        }),
        false => Ok(()),
    }
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a batch may not have been done"]
pub enum Commit {
    /// It was done, and survives a crash.
    Done {
        /// The store's revision after it; its writes have this revision.
        revision: Revision,
    },
    /// This condition, the first such, did not hold. Nothing was written.
    Conflict(Condition),
}

impl Commit {
    /// The revision, if the batch was done.
    #[must_use]
    pub const fn done(&self) -> Option<Revision> {
        match self {
            Self::Done { revision } => Some(*revision),
            Self::Conflict(_) => None,
        }
    }
}
