//! The engine in a file: one process, one writer thread, reads beside it on snapshots.
//!
//! The file is redb's. Commits queue up to the writer, which makes as many of them durable together as are waiting.
//!
//! Not here: another process that takes over. The file is locked; who wants that uses etcd.

mod file;
mod history;
mod leaders;
mod writer;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use redb::Database;
use tokio::sync::{Semaphore, oneshot};

use self::writer::{Command, Writer};
use crate::batch::{Batch, Commit, check_bytes};
use crate::error::StoreError;
use crate::key::{Key, Prefix};
use crate::leadership::Leadership;
use crate::store::{Entry, Leader, Listing, Revision, Store};
use crate::watch::Watch;

/// So many commits wait for the writer before the next callers wait for room.
const QUEUE: usize = 1024;

/// A store in a file, or in memory. Dropping it finishes what was asked of it, closes the file, ends watches and leaderships.
pub struct Embedded {
    database: Arc<Database>,
    commands: mpsc::Sender<Command>,
    room: Arc<Semaphore>,
    writer: Option<JoinHandle<()>>,
}

impl Embedded {
    /// Opens the store in a file; makes an empty one if there is none. Blocks for as long as a repair after a crash takes
    /// (a fraction of a second for a million values).
    ///
    /// # Errors
    /// The file is in use by another process, damaged, of another format, or cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::start(file::open(path.as_ref())?, path.as_ref())
    }

    /// An empty store that is gone when it is dropped.
    ///
    /// # Errors
    /// There is no memory or no thread to be had.
    pub fn in_memory() -> Result<Self, StoreError> {
        Self::start(file::in_memory()?, Path::new("in memory"))
    }

    /// Starts the writer on an open database.
    fn start(database: Database, path: &Path) -> Result<Self, StoreError> {
        let database = Arc::new(database);
        let revision = file::prepare(&database, path)?;
        let (commands, queue) = mpsc::channel();
        let writer = Writer::new(database.clone(), commands.clone(), revision);
        let thread = std::thread::Builder::new().name("divvy-store".into()).spawn(move || writer.run(&queue));
        let writer = thread.map_err(|e| StoreError::Open { path: path.to_owned(), source: Arc::new(e) })?;
        Ok(Self { database, commands, room: Arc::new(Semaphore::new(QUEUE)), writer: Some(writer) })
    }

    /// Sends a command to the writer and waits for what it answers.
    async fn ask<T>(
        &self,
        operation: &'static str,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).map_err(|_| StoreError::Closed { operation })?;
        answer.await.map_err(|_| StoreError::Closed { operation })
    }

    /// Reads on a snapshot, where blocking on the disk is fine.
    async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        read: impl FnOnce(&Database) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = self.database.clone();
        match tokio::task::spawn_blocking(move || read(&database)).await {
            Ok(answer) => answer.map_err(StoreError::failed(operation)),
            Err(_) => Err(StoreError::Closed { operation }),
        }
    }
}

#[async_trait]
impl Store for Embedded {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let key = key.clone();
        self.read("get", move |database| file::get(database, &key)).await
    }

    async fn range(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
        let prefix = prefix.clone();
        self.read("range", move |database| file::range(database, &prefix)).await
    }

    async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
        batch.check()?;
        let operation = "commit";
        let room = self.room.clone().acquire_owned().await.map_err(|_| StoreError::Closed { operation })?;
        self.ask(operation, |reply| Command::Commit { batch, reply, room }).await?
    }

    async fn watch(&self, prefix: &Prefix, after: Revision) -> Result<Watch, StoreError> {
        let prefix = prefix.clone();
        self.ask("watch", |reply| Command::Watch { prefix, after, reply }).await
    }

    async fn campaign(&self, name: &Key, value: Bytes) -> Result<Leadership, StoreError> {
        check_bytes(name.as_str().len() + value.len())?;
        let name = name.clone();
        self.ask("campaign", |reply| Command::Campaign { name, value, reply }).await?
    }

    async fn leader(&self, name: &Key) -> Result<Option<Leader>, StoreError> {
        let name = name.clone();
        self.ask("leader", |reply| Command::Leader { name, reply }).await
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        let _broken = self.commands.send(Command::Close);
        if let Some(writer) = self.writer.take() {
            let _panicked = writer.join();
        }
    }
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").finish_non_exhaustive()
    }
}
