//! How the rest of the shell reaches the kernel: messages into the queue of the one task that owns it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use divvy_proto::Invalid;
use divvy_proto::agent::MasterMessage;
use divvy_proto::ids::CallId;
use divvy_proto::scheduler::Event;
use divvy_proto::time::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::changes::{CannotResume, Changes, Kinds, Subscription};
use super::queue::Outgoing;
use crate::kernel::{Input, Kernel, LinkId, OperatorRequest};

/// A question to the kernel, asked between two turns.
pub(super) type Query = Box<dyn FnOnce(&Kernel, &Changes, Timestamp) + Send>;

/// The sending half of a stream.
pub(super) enum Outbox {
    Agent(Outgoing<MasterMessage>),
    Framework(Outgoing<Event>),
}

/// What the kernel's task is told.
pub(super) enum Request {
    /// A stream has opened. Comes before any input of that stream.
    Open(LinkId, Outbox),
    /// Something happened.
    Input(Input),
    /// A framework's call did not become a domain type; answered in its turn, so that replies keep the order of the calls.
    Refuse(LinkId, CallId, Invalid),
    /// A stream's peer does not speak the protocol: end it.
    Reject(LinkId, String),
    /// An operator's question; answered when the kernel has carried it out or refused it.
    Operate(OperatorRequest, oneshot::Sender<Result<(), String>>),
    /// Answer from what is.
    Query(Query),
}

/// The master is shutting down, or has stepped down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this master is stopping; try again, or ask the one that leads now")]
pub(super) struct Stopped;

/// Cheap to clone. Every method waits while the kernel's queue is full: that is what slows a flood down at its source.
#[derive(Clone)]
pub(super) struct KernelHandle {
    requests: mpsc::Sender<Request>,
    next_link: Arc<AtomicU64>,
}

impl KernelHandle {
    /// A queue for `capacity` requests.
    pub(super) fn new(capacity: usize) -> (Self, mpsc::Receiver<Request>) {
        let (requests, receiver) = mpsc::channel(capacity);
        (Self { requests, next_link: Arc::new(AtomicU64::new(1)) }, receiver)
    }

    /// Announces a new stream, and names it.
    pub(super) async fn open(&self, outbox: Outbox) -> Result<LinkId, Stopped> {
        let link = LinkId(self.next_link.fetch_add(1, Ordering::Relaxed));
        self.send(Request::Open(link, outbox)).await?;
        Ok(link)
    }

    pub(super) async fn send(&self, request: Request) -> Result<(), Stopped> {
        self.requests.send(request).await.map_err(|_| Stopped)
    }

    /// Asks the kernel. The closure runs in the kernel's task: it copies what it needs and leaves.
    pub(super) async fn query<R, F>(&self, question: F) -> Result<R, Stopped>
    where
        R: Send + 'static,
        F: FnOnce(&Kernel, Timestamp) -> R + Send + 'static,
    {
        self.ask(move |kernel, _, now| question(kernel, now)).await
    }

    /// Answers a question together with all changes that follow the answer, none lost and none twice.
    pub(super) async fn watch<R, F>(&self, question: F) -> Result<(R, Subscription), Stopped>
    where
        R: Send + 'static,
        F: FnOnce(&Kernel, Timestamp) -> R + Send + 'static,
    {
        self.ask(move |kernel, changes, now| (question(kernel, now), changes.subscribe())).await
    }

    /// All changes of these kinds that follow the one with this index; more may come along.
    pub(super) async fn resume(
        &self,
        since: u64,
        kinds: &Kinds,
    ) -> Result<Result<Subscription, CannotResume>, Stopped> {
        let kinds = kinds.clone();
        self.ask(move |_, changes, _| changes.resume(since, &kinds)).await
    }

    /// Asks for something to be done. The inner error is the kernel's refusal, for people.
    pub(super) async fn operate(&self, request: OperatorRequest) -> Result<Result<(), String>, Stopped> {
        let (answer, answered) = oneshot::channel();
        self.send(Request::Operate(request, answer)).await?;
        answered.await.map_err(|_| Stopped)
    }

    /// How many requests wait.
    pub(super) fn depth(&self) -> usize {
        self.requests.max_capacity() - self.requests.capacity()
    }

    async fn ask<R, F>(&self, question: F) -> Result<R, Stopped>
    where
        R: Send + 'static,
        F: FnOnce(&Kernel, &Changes, Timestamp) -> R + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let query: Query = Box::new(move |kernel, changes, now| {
            // Whoever asked may have gone away meanwhile.
            let _ = answer.send(question(kernel, changes, now));
        });
        self.send(Request::Query(query)).await?;
        answered.await.map_err(|_| Stopped)
    }
}
