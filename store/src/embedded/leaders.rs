//! Who leads under which name, and who waits to. In memory: whoever led before a restart does not after it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use super::writer::Command;
use crate::error::StoreError;
use crate::key::Key;
use crate::leadership::Leadership;
use crate::store::{Fence, Leader};

/// Where a campaign is answered.
pub(super) type Answer = oneshot::Sender<Result<Leadership, StoreError>>;

/// All names.
pub(super) struct Leaders {
    commands: mpsc::Sender<Command>,
    names: BTreeMap<Key, Name>,
}

#[derive(Default)]
struct Name {
    leader: Option<Leading>,
    waiting: VecDeque<(Bytes, Answer)>,
}

struct Leading {
    leader: Leader,
    /// Dropped when the leadership is over, which the leader's receiver notices.
    _standing: watch::Sender<bool>,
}

impl Leaders {
    /// Nobody leads. Resignations go to `commands`.
    pub(super) fn new(commands: mpsc::Sender<Command>) -> Self {
        Self { commands, names: BTreeMap::new() }
    }

    /// Queues a candidate up.
    pub(super) fn campaign(&mut self, name: Key, value: Bytes, answer: Answer) {
        let waiting = &mut self.names.entry(name).or_default().waiting;
        waiting.retain(|(_, answer)| !answer.is_closed());
        waiting.push_back((value, answer));
    }

    /// The next candidate for a name that nobody leads under; those who gave up are passed over.
    pub(super) fn next_candidate(&mut self, name: &Key) -> Option<(Bytes, Answer)> {
        let contested = self.names.get_mut(name).filter(|contested| contested.leader.is_none())?;
        contested.waiting.retain(|(_, answer)| !answer.is_closed());
        let candidate = contested.waiting.pop_front();
        if candidate.is_none() {
            self.names.remove(name);
        }
        candidate
    }

    /// Makes a candidate the leader.
    pub(super) fn elect(&mut self, fence: Fence, value: Bytes, answer: Answer) {
        let (standing, lost) = watch::channel(false);
        let leader = Leader { value, fence: fence.clone() };
        self.names.entry(fence.name.clone()).or_default().leader =
            Some(Leading { leader, _standing: standing });
        let (commands, resigned) = (self.commands.clone(), fence.clone());
        let release = Box::new(move || {
            let (reply, done) = oneshot::channel();
            let _closed = commands.send(Command::Resign { fence: resigned, reply });
            done
        });
        // A candidate who gave up just now drops the leadership, which resigns it.
        let _gave_up = answer.send(Ok(Leadership::new(fence, lost, release)));
    }

    /// Ends a leadership, if it still stands.
    pub(super) fn resign(&mut self, fence: &Fence) {
        if let Some(name) = self.names.get_mut(&fence.name).filter(|name| name.stands(fence)) {
            name.leader = None;
        }
    }

    /// Whether a leadership stands.
    pub(super) fn stands(&self, fence: &Fence) -> bool {
        self.names.get(&fence.name).is_some_and(|name| name.stands(fence))
    }

    /// Who leads.
    pub(super) fn leader(&self, name: &Key) -> Option<Leader> {
        self.names.get(name)?.leader.as_ref().map(|leading| leading.leader.clone())
    }
}

impl Name {
    fn stands(&self, fence: &Fence) -> bool {
        self.leader.as_ref().is_some_and(|leading| leading.leader.fence == *fence)
    }
}
