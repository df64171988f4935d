//! Task ids that have been used and that no agent remembers any more: an id is never free again for its framework. Made
//! durable before the acknowledgement of a task's end is passed to its agent, which forgets the task with it.
//!
//! ```text
//! Acknowledge of an end ──► note_used ──► end of the turn: one Persist for all ──► Persisted ──► the agent forgets
//! ```
//!
//! Ids that are a text and a number are kept as ranges of numbers, so that a framework that counts costs next to nothing
//! however long it lives; all others as 64-bit hashes. A false "used" is as likely as a collision of 64 bits.
//!
//! Not here: ids of tasks that live, or are still listed. Those are their tasks' own.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};

use divvy_proto::agent::MasterMessage;
use divvy_proto::ids::{AgentId, FrameworkId, TaskId, UpdateId};

use super::registry::Awaited;
use super::{Effects, Kernel, RegistryChange, TaskIdBucket, TaskKey, UsedTaskIds};

/// So many different texts before numbers are told apart; ids with others are hashed. Random ids end in digits, too: each
/// would be a bucket of its own.
const PREFIXES_KEPT: usize = 256;
/// The longest text before a number, in bytes: it becomes part of a key in the store.
const LONGEST_PREFIX: usize = 64;
/// So many gaps between the numbers of one text; ids that would make more are hashed. It bounds what one more id writes.
const MOST_RANGES: usize = 1024;
/// The digits of an id's end that count as its number: what always fits into 64 bits.
const MOST_DIGITS: usize = 18;
/// Hashes are kept in 4096 parts, so that one more writes little.
const HASH_BUCKET_BITS: u32 = 12;

/// The used ids of one framework.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct UsedIds {
    numbered: BTreeMap<String, Numbers>,
    hashed: BTreeMap<u16, BTreeSet<u64>>,
}

/// Numbers as inclusive ranges, first to last, that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Numbers(BTreeMap<u64, u64>);

impl Numbers {
    fn contains(&self, number: u64) -> bool {
        self.0.range(..=number).next_back().is_some_and(|(_, last)| *last >= number)
    }

    /// Whether a number can be added without making the ranges too many.
    fn has_room_for(&self, number: u64) -> bool {
        let touches = |other: Option<u64>| other.is_some_and(|other| self.contains(other));
        self.0.len() < MOST_RANGES
            || self.contains(number)
            || touches(number.checked_add(1))
            || touches(number.checked_sub(1))
    }

    fn insert(&mut self, number: u64) {
        if self.contains(number) {
            return;
        }
        let last = number.checked_add(1).and_then(|next| self.0.remove(&next)).unwrap_or(number);
        let before = self.0.range_mut(..number).next_back();
        match before.filter(|(_, end)| end.checked_add(1) == Some(number)) {
            Some((_, end)) => *end = last,
            None => drop(self.0.insert(number, last)),
        }
    }
}

impl UsedIds {
    pub(super) fn contains(&self, id: &TaskId) -> bool {
        let (prefix, number) = split(id.as_str());
        let is_numbered = || Some(self.numbered.get(prefix)?.contains(number?));
        let hash = hash_of(id.as_str());
        let is_hashed = || Some(self.hashed.get(&bucket_of(hash))?.contains(&hash));
        is_numbered() == Some(true) || is_hashed() == Some(true)
    }

    /// Adds an id, and says which part of the set has it now.
    pub(super) fn insert(&mut self, id: &TaskId) -> TaskIdBucket {
        let (prefix, number) = split(id.as_str());
        let hash = hash_of(id.as_str());
        let bucket = bucket_of(hash);
        let is_hashed = self.hashed.get(&bucket).is_some_and(|hashes| hashes.contains(&hash));
        let has_room = |number: &u64| match self.numbered.get(prefix) {
            Some(numbers) => numbers.has_room_for(*number),
            None => self.numbered.len() < PREFIXES_KEPT && prefix.len() <= LONGEST_PREFIX,
        };
        match number.filter(|number| !is_hashed && has_room(number)) {
            Some(number) => {
                self.numbered.entry(prefix.to_owned()).or_default().insert(number);
                TaskIdBucket::Numbered(prefix.to_owned())
            }
            None => {
                self.hashed.entry(bucket).or_default().insert(hash);
                TaskIdBucket::Hashed(bucket)
            }
        }
    }

    /// All of one part, as the registry holds it.
    pub(super) fn part(&self, bucket: &TaskIdBucket) -> UsedTaskIds {
        match bucket {
            TaskIdBucket::Numbered(prefix) => {
                let ranges = self.numbered.get(prefix).into_iter().flat_map(|numbers| &numbers.0);
                UsedTaskIds::Numbers(ranges.map(|(first, last)| (*first, *last)).collect())
            }
            TaskIdBucket::Hashed(bucket) => {
                let hashes = self.hashed.get(bucket).into_iter().flatten();
                UsedTaskIds::Hashes(hashes.copied().collect())
            }
        }
    }

    /// Takes over one part from the registry.
    pub(super) fn recover(&mut self, bucket: TaskIdBucket, ids: UsedTaskIds) {
        match (bucket, ids) {
            (TaskIdBucket::Numbered(prefix), UsedTaskIds::Numbers(ranges)) => {
                self.numbered.insert(prefix, Numbers(ranges.into_iter().collect()));
            }
            (TaskIdBucket::Hashed(bucket), UsedTaskIds::Hashes(hashes)) => {
                self.hashed.insert(bucket, hashes.into_iter().collect());
            }
            (bucket, _) => tracing::warn!(?bucket, "a record of task ids is not of its bucket's kind"),
        }
    }
}

/// An id as a text and the number behind it; both together are the id again. The number has no leading zeros.
fn split(id: &str) -> (&str, Option<u64>) {
    let digits = id.bytes().rev().take(MOST_DIGITS).take_while(u8::is_ascii_digit).count();
    let tail = id.get(id.len() - digits..).unwrap_or_default();
    let zeros = tail.bytes().take_while(|byte| *byte == b'0').count().min(digits.saturating_sub(1));
    let at = id.len() - digits + zeros;
    let number = id.get(at..).and_then(|number| number.parse().ok());
    (id.get(..at).unwrap_or(id), number)
}

/// FNV-1a, then the finalizer of splitmix64, as the first bits choose the bucket. Stored: it stays as it is.
fn hash_of(id: &str) -> u64 {
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

fn bucket_of(hash: u64) -> u16 {
    u16::try_from(hash >> (u64::BITS - HASH_BUCKET_BITS)).unwrap_or_default()
}

/// An acknowledgement of a task's end that its agent is to have once the task's id is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EndAck {
    pub(super) agent: AgentId,
    pub(super) key: TaskKey,
    pub(super) update: UpdateId,
}

/// Ids on the way to the store, and who is told when they are there.
#[derive(Debug, Clone, Default)]
pub(super) struct NewlyUsed {
    keys: BTreeSet<TaskKey>,
    acks: Vec<EndAck>,
}

impl NewlyUsed {
    fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.acks.is_empty()
    }
}

impl Kernel {
    /// The task has ended, and soon nobody but the registry knows its id. A framework that was torn down needs no ids.
    pub(super) fn note_used(&mut self, key: &TaskKey) {
        let Some(framework) = self.frameworks.get_mut(&key.0) else { return };
        let is_over = framework.retiring || framework.retired;
        if !is_over && !framework.used_ids.contains(&key.1) {
            framework.used_ids.insert(&key.1);
            self.newly_used.keys.insert(key.clone());
        }
    }

    /// The registry's word on some of a framework's ids.
    pub(super) fn recover_ids(&mut self, id: &FrameworkId, bucket: TaskIdBucket, ids: UsedTaskIds) {
        if let Some(framework) = self.frameworks.get_mut(id).filter(|framework| !framework.retired) {
            framework.used_ids.recover(bucket, ids);
        }
    }

    /// Passes on the acknowledgement of a task's end once the task's id is durable. Said again meanwhile, it waits again.
    pub(super) fn acknowledge_when_used(&mut self, ack: EndAck) {
        self.note_used(&ack.key);
        if self.ids_on_the_way.contains_key(&ack.key) {
            self.newly_used.keys.insert(ack.key.clone());
        }
        self.newly_used.acks.push(ack);
    }

    /// Ends the turn: all ids that were used up in it become durable together.
    pub(super) fn persist_task_ids(&mut self, out: &mut Effects) {
        if self.newly_used.is_empty() {
            return;
        }
        let newly = std::mem::take(&mut self.newly_used);
        let mut parts: BTreeMap<&FrameworkId, BTreeSet<TaskIdBucket>> = BTreeMap::new();
        for (id, task) in &newly.keys {
            if let Some(framework) = self.frameworks.get_mut(id) {
                parts.entry(id).or_default().insert(framework.used_ids.insert(task));
            }
        }
        let mut changes = Vec::new();
        for (id, buckets) in parts {
            let Some(framework) = self.frameworks.get(id) else { continue };
            changes.extend(buckets.into_iter().map(|bucket| RegistryChange::PutTaskIds {
                framework: id.clone(),
                ids: framework.used_ids.part(&bucket),
                bucket,
            }));
        }
        match changes.is_empty() {
            true => self.ends_are_known(newly, out),
            false => {
                newly.keys.iter().for_each(|key| *self.ids_on_the_way.entry(key.clone()).or_default() += 1);
                self.persist_all(changes, Some(Awaited::TaskIds(newly)), out);
            }
        }
    }

    /// The store has the ids: the agents may forget the tasks. One that is away repeats the update when it is back, and its
    /// framework acknowledges again.
    pub(super) fn ends_are_known(&mut self, newly: NewlyUsed, out: &mut Effects) {
        for key in newly.keys {
            if let Entry::Occupied(mut writes) = self.ids_on_the_way.entry(key) {
                *writes.get_mut() -= 1;
                if *writes.get() == 0 {
                    writes.remove();
                }
            }
        }
        for EndAck { agent, key, update } in newly.acks {
            let message = MasterMessage::Acknowledge {
                framework_id: key.0.clone(),
                task_id: key.1.clone(),
                update_id: update.clone(),
            };
            self.tell_agent(&agent, message, out);
            self.acknowledged(&key, &update);
        }
    }
}
