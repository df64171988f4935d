//! Calls wait here until what they depend on is durable. First in, first out, so that a kill never overtakes a launch.

use std::collections::VecDeque;

use divvy_proto::scheduler::CallBody;
use divvy_proto::time::Timestamp;

use super::PersistToken;
use crate::Write;

/// Writes, and the calls that may leave after them.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) writes: Vec<Write>,
    pub(super) calls: Vec<CallBody>,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Calls that the master wants to be asked again later, and when. All others wait behind them.
    deferred: Vec<CallBody>,
    until: Option<Timestamp>,
    waiting: VecDeque<(Option<PersistToken>, Vec<CallBody>)>,
    tokens: u64,
}

impl Outbox {
    /// A name for what is to be persisted next.
    pub(super) fn token(&mut self) -> PersistToken {
        self.tokens += 1;
        PersistToken(self.tokens)
    }

    /// Queues calls that may leave when `token` is durable and all that was queued before has left.
    pub(super) fn push(&mut self, token: Option<PersistToken>, calls: Vec<CallBody>) {
        self.waiting.push_back((token, calls));
    }

    pub(super) fn persisted(&mut self, done: PersistToken) {
        for (token, _) in &mut self.waiting {
            if *token == Some(done) {
                *token = None;
            }
        }
    }

    /// The master wants to be asked again at `time`, and not before.
    pub(super) fn defer(&mut self, time: Timestamp, call: CallBody) {
        self.deferred.push(call);
        self.until = self.until.max(Some(time));
    }

    /// When what was put off may leave.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.until
    }

    /// The calls that may leave now.
    pub(super) fn take_ready(&mut self, now: Timestamp) -> Vec<CallBody> {
        if self.until.is_some_and(|time| time > now) {
            return Vec::new();
        }
        self.until = None;
        let mut ready = std::mem::take(&mut self.deferred);
        while let Some((None, _)) = self.waiting.front() {
            ready.extend(self.waiting.pop_front().into_iter().flat_map(|(_, calls)| calls));
        }
        ready
    }

    /// The calls that will not leave, as their stream has ended. What is to become durable still holds back later calls.
    pub(super) fn clear_calls(&mut self) -> Vec<CallBody> {
        self.until = None;
        let deferred = std::mem::take(&mut self.deferred);
        let waiting = self.waiting.iter_mut().flat_map(|(_, calls)| std::mem::take(calls));
        deferred.into_iter().chain(waiting).collect()
    }
}
