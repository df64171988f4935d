//! The latest changes, for watches that begin a little in the past. In memory: a restart forgets them.

use std::collections::VecDeque;

use crate::key::Prefix;
use crate::store::Revision;
use crate::watch::{Change, WATCH_BUFFER, Watch, WatchEnd, WatchEvent, WatchSender};

/// So many batches are kept. All of them fit into the buffer of a watch that begins with the oldest.
const KEPT: usize = WATCH_BUFFER - 1;
/// So many bytes of values are kept.
const KEPT_BYTES: usize = 16 << 20;

/// What happened lately, and who wants to know what happens next.
pub(super) struct History {
    events: VecDeque<WatchEvent>,
    bytes: usize,
    /// Nothing up to here is kept.
    oldest: Revision,
    watches: Vec<Listener>,
}

struct Listener {
    prefix: Prefix,
    /// May lie in the future.
    after: Revision,
    sender: WatchSender,
}

impl History {
    /// Begins after a revision.
    pub(super) fn new(revision: Revision) -> Self {
        Self { events: VecDeque::new(), bytes: 0, oldest: revision, watches: Vec::new() }
    }

    /// Begins a watch with what is kept of what it asks for.
    pub(super) fn watch(&mut self, prefix: Prefix, after: Revision) -> Watch {
        let (sender, watch) = Watch::channel();
        if after < self.oldest {
            sender.end(WatchEnd::Lagged { oldest: self.oldest });
            return watch;
        }
        let listener = Listener { prefix, after, sender };
        if self.events.iter().all(|event| listener.hears(event)) {
            self.watches.retain(|listener| !listener.sender.is_closed());
            self.watches.push(listener);
        }
        watch
    }

    /// Tells of a batch that is done, and keeps it for a while.
    pub(super) fn publish(&mut self, event: WatchEvent) {
        self.watches.retain(|listener| listener.hears(&event));
        self.bytes += size(&event);
        self.events.push_back(event);
        while self.events.len() > KEPT || self.bytes > KEPT_BYTES {
            let Some(event) = self.events.pop_front() else { break };
            self.bytes -= size(&event);
            self.oldest = event.revision;
        }
    }
}

impl Listener {
    /// Passes on what of an event it asked for; false if it is to be told no more.
    fn hears(&self, event: &WatchEvent) -> bool {
        let changes = event.changes.iter().filter(|change| self.prefix.contains(change.key()));
        let changes: Vec<Change> = changes.cloned().collect();
        match changes.is_empty() || event.revision <= self.after {
            true => !self.sender.is_closed(),
            false => self.sender.send(WatchEvent { revision: event.revision, changes }),
        }
    }
}

fn size(event: &WatchEvent) -> usize {
    let size = |change: &Change| match change {
        Change::Put(entry) => entry.key.as_str().len() + entry.value.len(),
        Change::Delete(key) => key.as_str().len(),
    };
    event.changes.iter().map(size).sum()
}
