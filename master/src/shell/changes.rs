//! Who watches the cluster: every reader gets a snapshot and then each change once, in order, with its index. The latest
//! changes are kept, so that a reader that was away may go on from the index that it saw last.
//!
//! The kernel's task publishes without waiting; readers share one ring. A reader that falls further behind than the ring is
//! long is cut off, and told from where it may go on. Not here: what a change is ([`divvy_proto::api::Change`]), and how it
//! goes over the wire.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use divvy_proto::Invalid;
use divvy_proto::api::Change;
use divvy_proto::ids::Epoch;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// So many changes are kept for readers that come back.
const KEPT: usize = 8192;

/// The epoch stands this many bits up in an index, so that no index of one master means anything to another. Indices are
/// exact as JSON numbers of 53 bits up to epoch 8191.
const EPOCH_SHIFT: u32 = 40;

/// A change with its index. Indices increase by one within a master's life.
#[derive(Debug)]
pub(super) struct Numbered {
    pub(super) index: u64,
    pub(super) change: Change,
    data: OnceLock<String>,
}

impl Numbered {
    pub(super) fn new(index: u64, change: Change) -> Self {
        Self { index, change, data: OnceLock::new() }
    }

    /// What the change carries, as JSON; written once, however many read it.
    pub(super) fn data(&self) -> &str {
        // The types of `api` have text keys and finite numbers only, so this cannot fail.
        self.data.get_or_init(|| data(&self.change).unwrap_or_else(|_| "null".to_owned()))
    }

    /// What it is about.
    pub(super) fn kind(&self) -> Kind {
        match self.change {
            Change::Snapshot(_) => Kind::Snapshot,
            Change::Agent(_) => Kind::Agent,
            Change::Framework(_) => Kind::Framework,
            Change::Task(_) => Kind::Task,
            Change::TaskRemoved { .. } => Kind::TaskRemoved,
            Change::Status(_) => Kind::Status,
            Change::Role(_) => Kind::Role,
            Change::Decision(_) => Kind::Decision,
        }
    }
}

/// What changes are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Snapshot,
    Agent,
    Framework,
    Task,
    TaskRemoved,
    Status,
    Role,
    Decision,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Snapshot,
        Self::Agent,
        Self::Framework,
        Self::Task,
        Self::TaskRemoved,
        Self::Status,
        Self::Role,
        Self::Decision,
    ];

    /// The name of the event: the `kind` of its JSON.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Agent => "agent",
            Self::Framework => "framework",
            Self::Task => "task",
            Self::TaskRemoved => "task_removed",
            Self::Status => "status",
            Self::Role => "role",
            Self::Decision => "decision",
        }
    }
}

/// The kinds of change that a reader wants; all if it names none.
#[derive(Debug, Clone, Default)]
pub(super) struct Kinds(Vec<Kind>);

impl Kinds {
    /// From names joined by commas.
    pub(super) fn parse(text: Option<&str>) -> Result<Self, Invalid> {
        let named = text.into_iter().flat_map(|text| text.split(',')).map(str::trim);
        let kind = |name: &str| {
            let known = Kind::ALL.into_iter().find(|kind| kind.name() == name);
            known.ok_or_else(|| {
                Invalid::new("kind", name, format!("some of {}", Kind::ALL.map(Kind::name).join(",")))
            })
        };
        named.map(kind).collect::<Result<_, _>>().map(Self)
    }

    /// Whoever asks for tasks hears of those that go, too.
    pub(super) fn want(&self, kind: Kind) -> bool {
        let also = if kind == Kind::TaskRemoved { Kind::Task } else { kind };
        self.0.is_empty() || self.0.contains(&kind) || self.0.contains(&also)
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

/// Why a reader cannot go on from an index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CannotResume {
    /// Another master gave it out.
    #[error(
        "index {since} was given out by the master of epoch {}, and this one is of epoch {epoch}: start over without \
         `since`, with a snapshot",
        since >> EPOCH_SHIFT
    )]
    OtherMaster {
        /// The index.
        since: u64,
        /// This master's epoch.
        epoch: u64,
    },
    /// What followed it is forgotten.
    #[error(
        "changes after index {since} are no longer kept, only those after {oldest}: start over without `since`, with a \
         snapshot"
    )]
    Forgotten {
        /// The index.
        since: u64,
        /// The first index from which a reader may go on.
        oldest: u64,
    },
    /// No change had it yet.
    #[error(
        "index {since} was not given out yet, the last is {last}: start over without `since`, with a snapshot"
    )]
    NotYet {
        /// The index.
        since: u64,
        /// The last index that there is.
        last: u64,
    },
}

/// Where the kernel's task publishes.
pub(super) struct Changes {
    sender: broadcast::Sender<Arc<Numbered>>,
    recent: VecDeque<Arc<Numbered>>,
    /// By kind, the index of the latest change that is no longer kept: whoever wants rare kinds only may have been away longer.
    forgotten: [u64; Kind::ALL.len()],
    last: u64,
}

impl Changes {
    /// A queue for `capacity` changes for each reader.
    pub(super) fn new(epoch: Epoch, capacity: usize) -> Self {
        let last = u64::from(epoch.0) << EPOCH_SHIFT;
        let sender = broadcast::Sender::new(capacity.max(1));
        Self { sender, recent: VecDeque::new(), forgotten: [last; Kind::ALL.len()], last }
    }

    pub(super) fn publish(&mut self, change: Change) {
        self.last += 1;
        let numbered = Arc::new(Numbered::new(self.last, change));
        if self.recent.len() >= KEPT
            && let Some(oldest) = self.recent.pop_front()
            && let Some(forgotten) = self.forgotten.get_mut(oldest.kind() as usize)
        {
            *forgotten = oldest.index;
        }
        self.recent.push_back(Arc::clone(&numbered));
        // Nobody watching is no error.
        let _ = self.sender.send(numbered);
    }

    /// From now on.
    pub(super) fn subscribe(&self) -> Subscription {
        Subscription { last: self.last, earlier: VecDeque::new(), later: Some(self.sender.subscribe()) }
    }

    /// All of these kinds that followed the change with this index; more may come along.
    pub(super) fn resume(&self, since: u64, kinds: &Kinds) -> Result<Subscription, CannotResume> {
        let forgotten = Kind::ALL.into_iter().zip(self.forgotten).filter(|(kind, _)| kinds.want(*kind));
        let oldest = forgotten.map(|(_, index)| index).max().unwrap_or_default();
        if since >> EPOCH_SHIFT != self.last >> EPOCH_SHIFT {
            return Err(CannotResume::OtherMaster { since, epoch: self.last >> EPOCH_SHIFT });
        }
        if since > self.last {
            return Err(CannotResume::NotYet { since, last: self.last });
        }
        if since < oldest {
            return Err(CannotResume::Forgotten { since, oldest });
        }
        let earlier = self.recent.iter().rev().take_while(|numbered| numbered.index > since);
        let mut earlier: VecDeque<_> = earlier.cloned().collect();
        earlier.make_contiguous().reverse();
        Ok(Subscription { last: since, earlier, later: Some(self.sender.subscribe()) })
    }

    pub(super) fn readers(&self) -> usize {
        self.sender.receiver_count()
    }
}

/// What one reader has still to read.
pub(super) struct Subscription {
    last: u64,
    earlier: VecDeque<Arc<Numbered>>,
    later: Option<broadcast::Receiver<Arc<Numbered>>>,
}

/// A reader was too slow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this reader fell behind and {missed} changes went by; go on with since={last} while the master still keeps what \
     followed, or start over with a snapshot"
)]
pub(super) struct FellBehind {
    /// So many changes it missed.
    pub(super) missed: u64,
    /// The index of the last one that it got.
    pub(super) last: u64,
}

impl Subscription {
    /// The index of the last change that was read, or that was there before the first.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// The next change. Ends when the master does, and after an error.
    pub(super) async fn next(&mut self) -> Option<Result<Arc<Numbered>, FellBehind>> {
        let next = match self.earlier.pop_front() {
            Some(numbered) => Ok(numbered),
            None => self.later.as_mut()?.recv().await,
        };
        match next {
            Ok(numbered) => {
                self.last = numbered.index;
                Some(Ok(numbered))
            }
            Err(RecvError::Closed) => None,
            Err(RecvError::Lagged(missed)) => {
                self.later = None;
                Some(Err(FellBehind { missed, last: self.last }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use divvy_proto::api;
    use divvy_proto::ids::{FrameworkId, TaskId};

    use super::*;

    const FIRST: u64 = 3 << EPOCH_SHIFT;

    fn change(number: usize) -> Change {
        let id = TaskId::new(format!("t{number}")).unwrap();
        Change::TaskRemoved { framework_id: FrameworkId::new("f1-0").unwrap(), id }
    }

    fn published(capacity: usize, count: usize) -> Changes {
        let mut changes = Changes::new(Epoch(3), capacity);
        (0..count).for_each(|number| changes.publish(change(number)));
        changes
    }

    /// Everything up to what was published last.
    async fn read(subscription: &mut Subscription, count: usize) -> Vec<(u64, Change)> {
        let mut seen = Vec::new();
        while seen.len() < count {
            let numbered = subscription.next().await.unwrap().unwrap();
            seen.push((numbered.index, numbered.change.clone()));
        }
        seen
    }

    #[tokio::test]
    async fn a_reader_that_comes_back_sees_exactly_what_one_that_stayed_saw() {
        let mut changes = Changes::new(Epoch(3), 64);
        let mut live = changes.subscribe();
        (0..20).for_each(|number| changes.publish(change(number)));
        let mut back: Vec<Subscription> =
            (0..=20).map(|since| changes.resume(FIRST + since, &Kinds::default()).unwrap()).collect();
        (20..30).for_each(|number| changes.publish(change(number)));
        let all = read(&mut live, 30).await;
        assert_eq!(all.first().unwrap().0, FIRST + 1);
        for (since, subscription) in back.iter_mut().enumerate() {
            assert_eq!(read(subscription, 30 - since).await, all[since..]);
        }
    }

    #[test]
    fn an_index_that_means_nothing_here_is_refused_with_what_to_do() {
        let changes = published(8, KEPT + 10);
        let last = FIRST + KEPT as u64 + 10;
        let refused = |since| changes.resume(since, &Kinds::default()).err();
        assert_eq!(refused(last), None);
        assert_eq!(refused(FIRST + 10), None);
        assert_eq!(
            refused(FIRST + 9),
            Some(CannotResume::Forgotten { since: FIRST + 9, oldest: FIRST + 10 })
        );
        assert_eq!(refused(last + 1), Some(CannotResume::NotYet { since: last + 1, last }));
        let other = (2 << EPOCH_SHIFT) + 5;
        assert_eq!(refused(other), Some(CannotResume::OtherMaster { since: other, epoch: 3 }));
        assert_eq!(
            refused(other).unwrap().to_string(),
            "index 2199023255557 was given out by the master of epoch 2, and this one is of epoch 3: start over without \
             `since`, with a snapshot"
        );
    }

    #[tokio::test]
    async fn a_reader_that_was_cut_off_may_go_on_where_it_was() {
        let mut changes = Changes::new(Epoch(3), 8);
        let mut slow = changes.subscribe();
        changes.publish(change(0));
        let first = read(&mut slow, 1).await;
        (1..20).for_each(|number| changes.publish(change(number)));
        let cut_off = slow.next().await.unwrap().unwrap_err();
        assert_eq!((cut_off.last, slow.next().await.is_none()), (first[0].0, true));
        let mut back = changes.resume(cut_off.last, &Kinds::default()).unwrap();
        let seen: Vec<u64> = read(&mut back, 19).await.into_iter().map(|(index, _)| index).collect();
        assert_eq!(seen, (FIRST + 2..=FIRST + 20).collect::<Vec<_>>());
    }

    fn decision() -> Change {
        Change::Decision(api::Decision {
            index: 1,
            time: divvy_proto::time::Timestamp(0),
            what: api::DecisionKind::Held,
            framework_id: None,
            role: None,
            agent_id: None,
            tasks: Vec::new(),
            resources: divvy_proto::Resources::new(),
            why: "because".to_owned(),
        })
    }

    #[tokio::test]
    async fn whoever_wants_a_rare_kind_may_have_been_away_for_longer_than_all_is_kept() {
        let mut changes = published(8, 5);
        changes.publish(decision());
        (0..KEPT).for_each(|number| changes.publish(change(number)));
        changes.publish(decision());
        let decisions = Kinds::parse(Some("decision")).unwrap();
        let refused = changes.resume(FIRST + 5, &decisions).err();
        assert_eq!(refused, Some(CannotResume::Forgotten { since: FIRST + 5, oldest: FIRST + 6 }));
        assert!(changes.resume(FIRST + 6, &Kinds::default()).is_err());
        let mut back = changes.resume(FIRST + 6, &decisions).unwrap();
        let seen = read(&mut back, KEPT).await;
        assert_eq!(seen.last().unwrap(), &(FIRST + 7 + KEPT as u64, decision()));
    }

    #[test]
    fn every_kind_is_the_one_in_its_json() {
        for change in [change(1), decision()] {
            let numbered = Numbered::new(1, change.clone());
            let whole = serde_json::to_value(&change).unwrap();
            assert_eq!(whole["kind"], numbered.kind().name());
            assert_eq!(whole["data"], serde_json::from_str::<serde_json::Value>(numbered.data()).unwrap());
        }
    }
}
