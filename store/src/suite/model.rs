//! Any sequence of batches, against a map in memory.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::Fresh;
use crate::{Batch, Change, Commit, Condition, Key, Prefix, Revision, Write};

/// A key of few, so that batches meet.
fn some_key() -> impl Strategy<Value = Key> {
    prop::sample::select(vec!["a", "a/1", "a/2", "a/2/x", "ab", "b/1"]).prop_map(super::key)
}

/// A condition; the revision is counted back from the newest.
#[derive(Debug, Clone)]
enum Wanted {
    Absent(Key),
    Exists(Key),
    Back(Key, u64),
}

#[derive(Debug, Clone)]
struct Step {
    wanted: Vec<Wanted>,
    writes: Vec<(Key, Option<u8>)>,
}

fn step() -> impl Strategy<Value = Step> {
    let wanted = prop_oneof![
        some_key().prop_map(Wanted::Absent),
        some_key().prop_map(Wanted::Exists),
        (some_key(), 0..3_u64).prop_map(|(key, back)| Wanted::Back(key, back)),
    ];
    let writes = prop::collection::btree_map(some_key(), any::<Option<u8>>(), 0..4);
    (prop::collection::vec(wanted, 0..2), writes)
        .prop_map(|(wanted, writes)| Step { wanted, writes: writes.into_iter().collect() })
}

type Map = BTreeMap<Key, (Bytes, Revision)>;

fn batch(step: &Step, newest: Revision) -> Batch {
    let condition = |wanted: &Wanted| match wanted.clone() {
        Wanted::Absent(key) => Condition::Absent(key),
        Wanted::Exists(key) => Condition::Exists(key),
        Wanted::Back(key, back) => Condition::RevisionIs(key, Revision(newest.0.saturating_sub(back))),
    };
    let write = |(key, value): &(Key, Option<u8>)| match value {
        Some(value) => Write::Put(key.clone(), vec![*value].into()),
        None => Write::Delete(key.clone()),
    };
    Batch {
        conditions: step.wanted.iter().map(condition).collect(),
        writes: step.writes.iter().map(write).collect(),
    }
}

/// What the model makes of a batch: the condition that fails, or whether anything changes.
fn expected(map: &Map, batch: &Batch) -> Result<bool, Condition> {
    let holds = |condition: &&Condition| match condition {
        Condition::Absent(key) => !map.contains_key(key),
        Condition::Exists(key) => map.contains_key(key),
        Condition::RevisionIs(key, revision) => map.get(key).is_some_and(|(_, at)| at == revision),
        Condition::Fence(_) => false,
    };
    match batch.conditions.iter().find(|condition| !holds(condition)) {
        Some(failing) => Err(failing.clone()),
        None => Ok(batch.writes.iter().any(|write| match write {
            Write::Put(..) => true,
            Write::Delete(key) => map.contains_key(key),
        })),
    }
}

fn apply(map: &mut Map, batch: Batch, revision: Revision) {
    for write in batch.writes {
        match write {
            Write::Put(key, value) => drop(map.insert(key, (value, revision))),
            Write::Delete(key) => drop(map.remove(&key)),
        }
    }
}

async fn follow(store: Fresh, steps: Vec<Step>) {
    let start = store.range(&Prefix::all()).await.unwrap();
    let mut watch = store.watch(&Prefix::all(), start.revision).await.unwrap();
    let (mut map, mut watched) = (Map::new(), Map::new());
    let mut newest = start.revision;
    for step in steps {
        let batch = batch(&step, newest);
        match (expected(&map, &batch), store.commit(batch.clone()).await.unwrap()) {
            (Ok(changes), Commit::Done { revision }) => {
                assert_eq!(revision > newest, changes, "{batch:?} at {newest} makes {revision}");
                newest = revision;
                apply(&mut map, batch, revision);
                if changes {
                    let event = watch.next().await.unwrap().unwrap();
                    assert_eq!(event.revision, revision);
                    event.changes.into_iter().for_each(|change| replay(&mut watched, change));
                }
            }
            (Err(failing), Commit::Conflict(condition)) => assert_eq!(condition, failing),
            (expected, outcome) => panic!("{batch:?}: expected {expected:?}, found {outcome:?}"),
        }
        assert_eq!(listing(&store, &Prefix::all()).await, map);
        assert_eq!(watched, map);
    }
    let group = super::key("a").below();
    map.retain(|key, _| group.contains(key));
    assert_eq!(listing(&store, &group).await, map);
}

fn replay(map: &mut Map, change: Change) {
    match change {
        Change::Put(entry) => drop(map.insert(entry.key, (entry.value, entry.revision))),
        Change::Delete(key) => drop(map.remove(&key)),
    }
}

async fn listing(store: &Fresh, prefix: &Prefix) -> Map {
    let entries = store.range(prefix).await.unwrap().entries;
    entries.into_iter().map(|entry| (entry.key, (entry.value, entry.revision))).collect()
}

/// Any batches do to the store what they do to a map, and a watch tells of just that.
pub fn behaves_like_a_map(fresh: impl Fn() -> Fresh) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&prop::collection::vec(step(), 1..30), |steps| {
        runtime.block_on(follow(fresh(), steps));
        Ok(())
    });
    outcome.unwrap();
}
