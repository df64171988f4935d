//! What waits to be sent on one stream: bounded, filled by the kernel's task without ever waiting, drained by the stream.
//!
//! A peer that does not read fills its queue; then the queue is thrown away, the peer's stream ends with
//! [`StreamError::TooSlow`], and nobody else notices. Not here: bytes; a message is encoded when the stream takes it, in the
//! connection's own task.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use divvy_proto::agent::MasterMessage;
use divvy_proto::scheduler::{Event, StreamError};
use futures::Stream;
use tokio_util::sync::CancellationToken;

/// What a stream can carry: it can say why it ends.
pub(super) trait Message: Send + 'static {
    /// The last message of a stream.
    fn closing(error: StreamError) -> Self;
}

impl Message for Event {
    fn closing(error: StreamError) -> Self {
        Self::Error(error)
    }
}

impl Message for MasterMessage {
    fn closing(error: StreamError) -> Self {
        Self::Error(error)
    }
}

/// Whether the peer keeps up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Pushed {
    /// The message waits, or the stream has ended and it is dropped.
    Done,
    /// The queue was full: the stream has been ended.
    CutOff,
}

/// The end that the kernel's task holds. Dropping it lets the stream end once it is drained.
pub(super) struct Outgoing<T: Message> {
    shared: Arc<Shared<T>>,
    capacity: usize,
}

/// The end that the connection holds: a stream of what was pushed.
pub(super) struct Drain<T: Message> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    ended: CancellationToken,
}

struct State<T> {
    waiting: VecDeque<T>,
    ended: bool,
    reader: Option<Waker>,
}

/// A queue for `capacity` messages, and a token that is cancelled once nothing can be pushed any more: then the other
/// direction of the stream has no purpose either.
pub(super) fn queue<T: Message>(capacity: usize) -> (Outgoing<T>, Drain<T>, CancellationToken) {
    let ended = CancellationToken::new();
    let state = State { waiting: VecDeque::new(), ended: false, reader: None };
    let shared = Arc::new(Shared { state: Mutex::new(state), ended: ended.clone() });
    (Outgoing { shared: Arc::clone(&shared), capacity: capacity.max(1) }, Drain { shared }, ended)
}

impl<T: Message> Outgoing<T> {
    /// Queues a message. Never waits.
    pub(super) fn push(&self, message: T) -> Pushed {
        let mut state = self.shared.lock();
        if state.ended {
            return Pushed::Done;
        }
        let waiting = state.waiting.len();
        if waiting < self.capacity {
            state.waiting.push_back(message);
            state.wake();
            return Pushed::Done;
        }
        state.waiting = VecDeque::from([T::closing(StreamError::TooSlow(waiting))]);
        self.shared.end(state);
        Pushed::CutOff
    }

    /// Ends the stream after what already waits, with the reason as the last message.
    pub(super) fn end(&self, error: StreamError) {
        let mut state = self.shared.lock();
        if !state.ended {
            state.waiting.push_back(T::closing(error));
            self.shared.end(state);
        }
    }
}

impl<T: Message> Drop for Outgoing<T> {
    fn drop(&mut self) {
        self.shared.end(self.shared.lock());
    }
}

impl<T: Message> Stream for Drain<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.shared.lock();
        match state.waiting.pop_front() {
            Some(message) => Poll::Ready(Some(message)),
            None if state.ended => Poll::Ready(None),
            None => {
                state.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T: Message> Drop for Drain<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.waiting = VecDeque::new();
        self.shared.end(state);
    }
}

impl<T> Shared<T> {
    /// No holder of the lock can panic halfway through a change, so a poisoned state is still a sound one.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, mut state: MutexGuard<'_, State<T>>) {
        state.ended = true;
        state.wake();
        drop(state);
        self.ended.cancel();
    }
}

impl<T> State<T> {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn messages_come_out_in_order_and_the_reason_last() {
        let (outgoing, drain, ended) = queue::<Event>(2);
        assert_eq!(outgoing.push(Event::Heartbeat), Pushed::Done);
        assert!(!ended.is_cancelled());
        outgoing.end(StreamError::TakenOver);
        assert_eq!(outgoing.push(Event::Heartbeat), Pushed::Done, "after the end nothing is queued");
        assert!(ended.is_cancelled());
        let got: Vec<Event> = drain.collect().await;
        assert_eq!(got, [Event::Heartbeat, Event::Error(StreamError::TakenOver)]);
    }

    #[tokio::test]
    async fn a_full_queue_is_thrown_away_and_says_why() {
        let (outgoing, drain, ended) = queue::<Event>(2);
        let pushed = [(); 4].map(|()| outgoing.push(Event::Heartbeat));
        assert_eq!(pushed, [Pushed::Done, Pushed::Done, Pushed::CutOff, Pushed::Done]);
        assert!(ended.is_cancelled());
        let got: Vec<Event> = drain.collect().await;
        assert_eq!(got, [Event::Error(StreamError::TooSlow(2))]);
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken_by_a_message_and_by_the_end() {
        let (outgoing, mut drain, _) = queue::<Event>(2);
        let reader = tokio::spawn(async move { (drain.next().await, drain.next().await) });
        tokio::task::yield_now().await;
        assert_eq!(outgoing.push(Event::Heartbeat), Pushed::Done);
        tokio::task::yield_now().await;
        drop(outgoing);
        assert_eq!(reader.await.unwrap(), (Some(Event::Heartbeat), None));
    }

    #[test]
    fn a_vanished_reader_ends_the_queue() {
        let (outgoing, drain, ended) = queue::<Event>(1);
        drop(drain);
        assert!(ended.is_cancelled());
        assert_eq!([(); 3].map(|()| outgoing.push(Event::Heartbeat)), [Pushed::Done; 3]);
    }
}
