//! What can go wrong with a store. A condition that does not hold is no error: see [`crate::Commit`].

use std::path::PathBuf;
use std::sync::Arc;

/// A store that cannot be opened, or an operation that was not done or whose outcome is not known.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The text is not a key.
    #[error(
        "store key {text:?} is not valid: expected parts joined by single slashes, without control characters, \
         at most {} bytes",
        crate::key::MAX_KEY
    )]
    Key {
        /// The text, cut to a length that can be shown.
        text: String,
    },
    /// The batch breaks a limit. Nothing was written.
    #[error("batch refused: {what}; a batch has at most {limit}")]
    TooLarge {
        /// What was found.
        what: String,
        /// What would have been right.
        limit: String,
    },
    /// The batch writes a key more than once. Nothing was written.
    #[error("batch refused: it writes {key} more than once")]
    WrittenTwice {
        /// The key.
        key: crate::Key,
    },
    /// Another process has the store open.
    #[error(
        "the store {} is in use by another process; stop that one first, or use another work directory",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a store, or a damaged one.
    #[error(
        "the store {} cannot be read: {why}; restore it from a backup, or move it away to begin with an empty one",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file was written by a version of Divvy that this one does not know.
    #[error("the store {} has format {found}, and this version reads format {known}; use the version that wrote it",
        path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format's number in the file.
        found: u64,
        /// The format's number that is known here.
        known: u64,
    },
    /// The file cannot be opened.
    #[error("opening the store {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// Reading or writing failed. A commit that fails so may or may not have been done: read before repeating it. After a
    /// failed write the store takes no more of them, and all leaderships are lost.
    #[error("store: {operation}: {source}")]
    Failed {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The store was closed, or broke earlier and has said so to whoever was waiting.
    #[error("store: {operation}: the store is closed")]
    Closed {
        /// What was tried.
        operation: &'static str,
    },
}

impl StoreError {
    /// A failure of the engine in the course of an operation.
    pub(crate) fn failed(operation: &'static str) -> impl FnOnce(redb::Error) -> StoreError {
        move |source| StoreError::Failed { operation, source: Arc::new(source) }
    }
}
