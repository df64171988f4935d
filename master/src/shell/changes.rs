//! Who watches the cluster: every reader gets a snapshot and then each change once, in order, numbered.
//!
//! The kernel's task publishes without waiting; readers share one ring. A reader that falls further behind than the ring
//! is long has lost changes, is told so, and must start over with a new snapshot. Not here: what a change is
//! ([`divvy_proto::api::Change`]), and how it goes over the wire.

use std::sync::{Arc, OnceLock};

use divvy_proto::api::Change;
use tokio::sync::broadcast;

/// A change with its number. Numbers increase by one within a master's life.
#[derive(Debug)]
pub(super) struct Numbered {
    pub(super) number: u64,
    pub(super) change: Change,
    data: OnceLock<String>,
}

impl Numbered {
    pub(super) fn new(number: u64, change: Change) -> Self {
        Self { number, change, data: OnceLock::new() }
    }

    /// What the change carries, as JSON; written once, however many read it.
    pub(super) fn data(&self) -> &str {
        // The types of `api` have text keys and finite numbers only, so this cannot fail.
        self.data.get_or_init(|| data(&self.change).unwrap_or_else(|_| "null".to_owned()))
    }

    /// The name of the event: the `kind` of its JSON.
    pub(super) fn kind(&self) -> &'static str {
        match self.change {
            Change::Snapshot(_) => "snapshot",
            Change::Agent(_) => "agent",
            Change::Framework(_) => "framework",
            Change::Task(_) => "task",
            Change::TaskRemoved { .. } => "task_removed",
            Change::Status(_) => "status",
            Change::Role(_) => "role",
            Change::Decision(_) => "decision",
        }
    }
}

fn data(change: &Change) -> serde_json::Result<String> {
    match change {
        Change::Snapshot(snapshot) => serde_json::to_string(snapshot),
        Change::Agent(agent) => serde_json::to_string(agent),
        Change::Framework(framework) => serde_json::to_string(framework),
        Change::Task(task) => serde_json::to_string(task),
        Change::TaskRemoved { framework_id, id } => {
            serde_json::to_string(&serde_json::json!({ "framework_id": framework_id, "id": id }))
        }
        Change::Status(status) => serde_json::to_string(status),
        Change::Role(role) => serde_json::to_string(role),
        Change::Decision(decision) => serde_json::to_string(decision),
    }
}

/// Where the kernel's task publishes.
pub(super) struct Changes {
    sender: broadcast::Sender<Arc<Numbered>>,
    last: u64,
}

/// Where a reader begins: the number of the last change that its snapshot contains, and all that follow.
pub(super) struct Subscription {
    pub(super) since: u64,
    pub(super) later: broadcast::Receiver<Arc<Numbered>>,
}

impl Changes {
    /// A ring for `capacity` changes.
    pub(super) fn new(capacity: usize) -> Self {
        Self { sender: broadcast::Sender::new(capacity.max(1)), last: 0 }
    }

    pub(super) fn publish(&mut self, change: Change) {
        self.last += 1;
        // Nobody watching is no error.
        let _ = self.sender.send(Arc::new(Numbered::new(self.last, change)));
    }

    pub(super) fn subscribe(&self) -> Subscription {
        Subscription { since: self.last, later: self.sender.subscribe() }
    }

    pub(super) fn readers(&self) -> usize {
        self.sender.receiver_count()
    }
}
