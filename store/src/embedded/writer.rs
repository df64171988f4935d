//! The one thread that changes anything: it takes commands in order, and makes commits durable in groups.

use std::sync::{Arc, mpsc};

use bytes::Bytes;
use redb::Database;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::file::{self, Tables};
use super::history::History;
use super::leaders::{Answer, Leaders};
use crate::batch::{Batch, Commit, Condition};
use crate::error::StoreError;
use crate::key::{Key, Prefix};
use crate::store::{Fence, Leader, Revision};
use crate::watch::{Watch, WatchEvent};

/// Most batches that become durable together.
const GROUP: usize = 256;

/// What the writer is asked. A reply that nobody waits for is dropped.
pub(super) enum Command {
    /// Do a batch.
    Commit { batch: Batch, reply: oneshot::Sender<Result<Commit, StoreError>>, room: OwnedSemaphorePermit },
    /// Begin a watch.
    Watch { prefix: Prefix, after: Revision, reply: oneshot::Sender<Watch> },
    /// Queue up to lead.
    Campaign { name: Key, value: Bytes, reply: Answer },
    /// End a leadership.
    Resign { fence: Fence, reply: oneshot::Sender<()> },
    /// Tell who leads.
    Leader { name: Key, reply: oneshot::Sender<Option<Leader>> },
    /// Finish.
    Close,
}

/// A batch that waits for its group.
struct Waiting {
    batch: Batch,
    reply: oneshot::Sender<Result<Commit, StoreError>>,
    _room: OwnedSemaphorePermit,
}

/// The writer has to end.
struct Stop;

pub(super) struct Writer {
    database: Arc<Database>,
    revision: Revision,
    history: History,
    leaders: Leaders,
}

impl Writer {
    /// A writer on a database that is at this revision.
    pub(super) fn new(database: Arc<Database>, commands: mpsc::Sender<Command>, revision: Revision) -> Self {
        Self { database, revision, history: History::new(revision), leaders: Leaders::new(commands) }
    }

    /// Takes commands until it is told to stop or cannot write. What is then still asked finds the queue closed.
    pub(super) fn run(mut self, queue: &mpsc::Receiver<Command>) {
        while let Ok(first) = queue.recv() {
            let mut group = Vec::new();
            let others = std::iter::from_fn(|| queue.try_recv().ok());
            for command in std::iter::once(first).chain(others).take(GROUP) {
                match command {
                    Command::Commit { batch, reply, room } => {
                        group.push(Waiting { batch, reply, _room: room })
                    }
                    other => {
                        // In order: what comes after a commit sees it.
                        if self.write(std::mem::take(&mut group)).and_then(|()| self.handle(other)).is_err() {
                            return;
                        }
                    }
                }
            }
            if self.write(group).is_err() {
                return;
            }
        }
    }

    fn handle(&mut self, command: Command) -> Result<(), Stop> {
        match command {
            Command::Watch { prefix, after, reply } => {
                let _gone = reply.send(self.history.watch(prefix, after));
            }
            Command::Campaign { name, value, reply } => {
                self.leaders.campaign(name.clone(), value, reply);
                self.elect(&name)?;
            }
            Command::Resign { fence, reply } => {
                self.leaders.resign(&fence);
                self.elect(&fence.name)?;
                let _gone = reply.send(());
            }
            Command::Leader { name, reply } => {
                let _gone = reply.send(self.leaders.leader(&name));
            }
            Command::Commit { .. } => {} // taken by the group
            Command::Close => return Err(Stop),
        }
        Ok(())
    }

    fn elect(&mut self, name: &Key) -> Result<(), Stop> {
        let Some((value, answer)) = self.leaders.next_candidate(name) else { return Ok(()) };
        match file::next_token(&self.database, name) {
            Ok(token) => {
                self.leaders.elect(Fence { name: name.clone(), token }, value, answer);
                Ok(())
            }
            Err(e) => {
                let _gone = answer.send(Err(broken("campaign", e)));
                Err(Stop)
            }
        }
    }

    /// Does a group of batches in one transaction, then tells.
    fn write(&mut self, group: Vec<Waiting>) -> Result<(), Stop> {
        if group.is_empty() {
            return Ok(());
        }
        let (batches, replies): (Vec<_>, Vec<_>) =
            group.into_iter().map(|waiting| (waiting.batch, (waiting.reply, waiting._room))).unzip();
        match self.transact(batches) {
            Ok((commits, events)) => {
                self.revision = events.last().map_or(self.revision, |event| event.revision);
                for event in events {
                    self.history.publish(event);
                }
                for ((reply, _room), commit) in replies.into_iter().zip(commits) {
                    let _gone = reply.send(Ok(commit));
                }
                Ok(())
            }
            Err(e) => {
                let error = broken("commit", e);
                for (reply, _room) in replies {
                    let _gone = reply.send(Err(error.clone()));
                }
                Err(Stop)
            }
        }
    }

    fn transact(&self, batches: Vec<Batch>) -> Result<(Vec<Commit>, Vec<WatchEvent>), redb::Error> {
        let transaction = self.database.begin_write()?;
        let (mut commits, mut events) = (Vec::with_capacity(batches.len()), Vec::new());
        let mut revision = self.revision;
        {
            let mut tables = Tables::open(&transaction)?;
            for batch in batches {
                let (commit, event) = self.evaluate(&mut tables, batch, revision)?;
                revision = commit.done().unwrap_or(revision);
                commits.push(commit);
                events.extend(event);
            }
        }
        if events.is_empty() {
            transaction.abort()?;
        } else {
            file::set_revision(&transaction, revision)?;
            transaction.commit()?;
        }
        Ok((commits, events))
    }

    /// One batch, as things stand after the ones before it.
    fn evaluate(
        &self,
        tables: &mut Tables<'_>,
        batch: Batch,
        revision: Revision,
    ) -> Result<(Commit, Option<WatchEvent>), redb::Error> {
        for condition in batch.conditions {
            let holds = match &condition {
                Condition::Fence(fence) => self.leaders.stands(fence),
                other => tables.holds(other)?,
            };
            if !holds {
                return Ok((Commit::Conflict(condition), None));
            }
        }
        let next = Revision(revision.0 + 1);
        let mut changes = Vec::with_capacity(batch.writes.len());
        for write in batch.writes {
            changes.extend(tables.write(write, next)?);
        }
        Ok(match changes.is_empty() {
            true => (Commit::Done { revision }, None),
            false => (Commit::Done { revision: next }, Some(WatchEvent { revision: next, changes })),
        })
    }
}

fn broken(operation: &'static str, error: redb::Error) -> StoreError {
    tracing::error!(%error, operation, "the store cannot be written and takes no more writes");
    StoreError::failed(operation)(error)
}
