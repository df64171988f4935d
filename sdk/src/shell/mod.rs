//! The driver's shell: one task owns the driver, drains what has queued up, lets it decide, and carries out what it says.
//!
//! Not here: any decision.

mod inventory;
mod journal;
pub(crate) mod storage;
mod stream;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use divvy_proto::Invalid;
use divvy_proto::time::Timestamp;
use divvy_store::{Key, Store, StoreError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::transport::Endpoint;
use tracing::debug;

use crate::driver::{Config, Driver, Effect, Input, PersistToken, Restored};
use crate::framework::Error;
use crate::{Scheduler, Write};
use storage::Writer;
use stream::Connection;

/// So much may queue up; who brings more waits.
const QUEUE: usize = 1024;

/// Answers the caller of [`crate::Handle::update`].
type Answer = Box<dyn FnOnce() + Send>;
/// A change of the scheduler from outside.
pub(crate) type Update<S> =
    Box<dyn FnOnce(&mut Driver<S>, Timestamp, &mut Vec<Effect>) -> (Option<PersistToken>, Answer) + Send>;
/// A look at the scheduler from outside.
pub(crate) type Read<S> = Box<dyn FnOnce(&Driver<S>) + Send>;

/// What reaches the task that owns the driver.
pub(crate) enum Message<S> {
    /// From the stream that was opened as the n-th; of no interest if there is a later one.
    Stream(u64, Input),
    /// From anywhere else.
    Input(Input),
    /// The store failed.
    Failed(StoreError),
    Update(Update<S>),
    Read(Read<S>),
    Shutdown,
    Teardown,
}

/// A clock that never runs backwards.
struct Clock {
    wall: Timestamp,
    start: Instant,
}

impl Clock {
    fn now(&self) -> Timestamp {
        self.wall + self.start.elapsed()
    }

    /// When the clock will show this time.
    fn instant(&self, time: Timestamp) -> Instant {
        // Far enough for a deadline, and no addition overflows.
        const FAR: Duration = Duration::from_secs(24 * 3600);
        self.start + time.since(self.wall).min(self.start.elapsed() + FAR)
    }
}

/// The master's address as one that can be connected to.
pub(crate) fn endpoint(master: &str) -> Result<Endpoint, Invalid> {
    let invalid = || Invalid::new("master", master, "an address such as 127.0.0.1:5050");
    let url = if master.contains("://") { master.to_owned() } else { format!("http://{master}") };
    let endpoint = Endpoint::from_shared(url).map_err(|_| invalid())?;
    if endpoint.uri().authority().is_none() {
        return Err(invalid());
    }
    Ok(endpoint.connect_timeout(Duration::from_secs(5)).tcp_nodelay(true))
}

/// Runs a driver in a task of its own.
pub(crate) fn spawn<S: Scheduler>(
    config: Config,
    scheduler: S,
    restored: Restored,
    master: Endpoint,
    store: Option<(Arc<dyn Store>, Key)>,
) -> (mpsc::Sender<Message<S>>, JoinHandle<Result<(), Error>>) {
    let (messages, queue) = mpsc::channel(QUEUE);
    let shell = Shell {
        name: config.framework.name.clone(),
        prefix: store.as_ref().map(|(_, prefix)| prefix.clone()),
        driver: Driver::new(config, scheduler, restored),
        clock: Clock { wall: Timestamp::wall_clock(), start: Instant::now() },
        writer: store.map(|(store, prefix)| Writer::spawn(store, prefix, messages.clone())),
        messages: messages.clone(),
        connection: None,
        connections: 0,
        waiting: BTreeMap::new(),
        master,
    };
    (messages, tokio::spawn(shell.run(queue)))
}

/// What the task owns.
struct Shell<S> {
    name: String,
    prefix: Option<Key>,
    driver: Driver<S>,
    clock: Clock,
    writer: Option<Writer>,
    messages: mpsc::Sender<Message<S>>,
    connection: Option<Connection>,
    connections: u64,
    /// Who waits for what to be durable.
    waiting: BTreeMap<PersistToken, Vec<Answer>>,
    master: Endpoint,
}

/// Why the loop ends.
enum End {
    Shutdown,
    Error(Error),
}

impl<S: Scheduler> Shell<S> {
    async fn run(mut self, mut queue: mpsc::Receiver<Message<S>>) -> Result<(), Error> {
        let inventory = inventory::spawn(self.master.clone(), self.messages.clone());
        let end = loop {
            if let Err(end) = self.turn(&mut queue).await {
                break end;
            }
        };
        // Nobody waits to be heard by a shell that listens no more.
        drop((inventory, queue));
        self.connection = None;
        if let Some(writer) = self.writer.take() {
            writer.finish().await.map_err(|source| Error::Store { name: self.name.clone(), source })?;
        }
        match end {
            End::Shutdown => Ok(()),
            End::Error(error) => Err(error),
        }
    }

    /// Waits for something to happen, takes in all that has, and carries out what follows.
    async fn turn(&mut self, queue: &mut mpsc::Receiver<Message<S>>) -> Result<(), End> {
        let deadline = self.driver.next_deadline().map(|time| self.clock.instant(time));
        let first = tokio::select! {
            message = queue.recv() => Some(message.ok_or(End::Shutdown)?),
            () = sleep_until(deadline) => None,
        };
        let mut effects = Vec::new();
        let taken = self.take_all(first, queue, &mut effects);
        if taken.is_ok() {
            let now = self.clock.now();
            if self.driver.next_deadline().is_some_and(|deadline| deadline <= now) {
                self.driver.handle(now, Input::Tick, &mut effects);
            }
            self.driver.end_turn(now, &mut effects);
        }
        // Also at the end: what was promised before is kept.
        effects.into_iter().try_for_each(|effect| self.carry_out(effect)).and(taken)
    }

    /// Takes in what has queued up, but not for ever.
    fn take_all(
        &mut self,
        first: Option<Message<S>>,
        queue: &mut mpsc::Receiver<Message<S>>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), End> {
        let Some(first) = first else { return Ok(()) };
        self.take(first, effects)?;
        for _ in 0..QUEUE {
            let Ok(message) = queue.try_recv() else { break };
            self.take(message, effects)?;
        }
        Ok(())
    }

    fn take(&mut self, message: Message<S>, effects: &mut Vec<Effect>) -> Result<(), End> {
        let now = self.clock.now();
        match message {
            Message::Stream(number, input) if number == self.connections => {
                self.driver.handle(now, input, effects)
            }
            Message::Stream(..) => debug!("an event of an earlier stream is dropped"),
            Message::Input(Input::Persisted(token)) => {
                self.waiting.remove(&token).into_iter().flatten().for_each(|answer| answer());
                self.driver.handle(now, Input::Persisted(token), effects);
            }
            Message::Input(input) => self.driver.handle(now, input, effects),
            Message::Failed(source) => {
                return Err(End::Error(Error::Store { name: self.name.clone(), source }));
            }
            Message::Update(update) => match update(&mut self.driver, now, effects) {
                (Some(token), answer) => self.waiting.entry(token).or_default().push(answer),
                (None, answer) => answer(),
            },
            Message::Read(read) => read(&self.driver),
            Message::Teardown => self.driver.handle(now, Input::Teardown, effects),
            Message::Shutdown => return Err(End::Shutdown),
        }
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), End> {
        match effect {
            Effect::Connect => {
                self.connections += 1;
                let number = self.connections;
                let messages = self.messages.clone();
                self.connection = Some(Connection::open(number, self.master.clone(), messages));
            }
            Effect::Disconnect => self.hang_up(),
            Effect::Send(call) => {
                if let Some(connection) = &self.connection {
                    connection.send(call);
                }
            }
            Effect::Persist { token, writes } => self.persist(token, writes),
            Effect::Stop(error) => {
                let (name, prefix) = (self.name.clone(), self.prefix.clone());
                return Err(End::Error(Error::Ended { name, prefix, error }));
            }
        }
        Ok(())
    }

    fn hang_up(&mut self) {
        self.connection = None;
        self.connections += 1;
    }

    fn persist(&mut self, token: PersistToken, writes: Vec<Write>) {
        // A framework without a store is never asked to persist: its driver is told that nothing is durable.
        if let Some(writer) = &self.writer {
            writer.write(token, writes);
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// A number that no other process has.
pub(crate) fn seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}
