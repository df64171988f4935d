//! A stream of changes that never skips one: it ends with a reason instead.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tokio_stream::Stream;

use crate::key::Key;
use crate::store::{Entry, Revision};

/// So many batches wait for a slow reader before it is cut off.
pub const WATCH_BUFFER: usize = 1024;

/// One change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It has a new value.
    Put(Entry),
    /// It has none any more.
    Delete(Key),
}

impl Change {
    /// Which key.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete(key) => key,
        }
    }
}

/// All changes that one batch made in the group that is watched; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchEvent {
    /// The batch's revision, above those of all earlier events.
    pub revision: Revision,
    /// In the order of the batch.
    pub changes: Vec<Change>,
}

/// Why there are no more changes. It is the last item of a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchEnd {
    /// Changes have been forgotten that were asked for: list again, and watch from there.
    #[error("changes up to revision {oldest} are no longer kept: list again, and watch from there")]
    Lagged {
        /// Nothing up to here is kept.
        oldest: Revision,
    },
    /// The reader let too many changes wait: list again, and watch from there.
    #[error("more than {WATCH_BUFFER} changes were waiting to be read: list again, and watch from there")]
    TooSlow,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// Changes as they happen. See [`crate::Store::watch`].
#[derive(Debug)]
pub struct Watch {
    events: mpsc::Receiver<WatchEvent>,
    end: Arc<OnceLock<WatchEnd>>,
    ended: bool,
}

impl Watch {
    /// For engines: both ends of a watch.
    #[must_use]
    pub fn channel() -> (WatchSender, Watch) {
        let (sender, events) = mpsc::channel(WATCH_BUFFER);
        let end = Arc::new(OnceLock::new());
        (WatchSender { sender, end: end.clone() }, Watch { events, end, ended: false })
    }

    /// The next item; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<WatchEvent, WatchEnd>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for Watch {
    type Item = Result<WatchEvent, WatchEnd>;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.events.poll_recv(context).map(|event| match event {
            Some(event) => Some(Ok(event)),
            None => {
                self.ended = true;
                Some(Err(self.end.get().cloned().unwrap_or(WatchEnd::Closed)))
            }
        })
    }
}

/// An engine's end of a [`Watch`]. Dropping it ends the stream as closed.
#[derive(Debug)]
pub struct WatchSender {
    sender: mpsc::Sender<WatchEvent>,
    end: Arc<OnceLock<WatchEnd>>,
}

impl WatchSender {
    /// Passes an event on without waiting; false if the reader is gone or was cut off just now.
    #[must_use]
    pub fn send(&self, event: WatchEvent) -> bool {
        match self.sender.try_send(event) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.end.get_or_init(|| WatchEnd::TooSlow);
                false
            }
        }
    }

    /// Ends the stream for a reason.
    pub fn end(self, why: WatchEnd) {
        self.end.get_or_init(|| why);
    }

    /// Whether nobody listens any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}
