//! Reads, conditions, writes, limits.

use bytes::Bytes;

use super::{Fresh, done, everything, key, pairs, put, value};
use crate::{Batch, Commit, Condition, Entry, Key, MAX_BATCH_BYTES, MAX_OPERATIONS, Revision, StoreError};

/// A value is there, with the revision of its batch, once its commit is answered.
pub async fn a_value_is_read_back(store: Fresh) {
    assert_eq!(store.get(&key("agents/a1")).await.unwrap(), None);
    let revision = put(&store, &[("agents/a1", "host-1")]).await;
    let entry = Entry { key: key("agents/a1"), value: Bytes::from_static(b"host-1"), revision };
    assert_eq!(store.get(&key("agents/a1")).await.unwrap(), Some(entry));
}

/// Writing one key leaves others and their revisions alone.
pub async fn a_value_survives_others(store: Fresh) {
    let first = put(&store, &[("a", "1")]).await;
    let second = put(&store, &[("b", "2"), ("c", "")]).await;
    assert!(second > first);
    assert_eq!(store.get(&key("a")).await.unwrap().map(|entry| entry.revision), Some(first));
    assert_eq!(everything(&store).await, pairs(&[("a", "1"), ("b", "2"), ("c", "")]));
}

/// A group is what lies below its key, ascending: neither the key itself nor its namesakes.
pub async fn a_group_is_listed_in_order(store: Fresh) {
    put(&store, &[("ab/2", "x"), ("a/9", "9"), ("a", "x"), ("a-b", "x"), ("a0", "x"), ("a/10/x", "10")])
        .await;
    let revision = put(&store, &[("b/1", "x")]).await;
    let listing = store.range(&key("a").below()).await.unwrap();
    let names: Vec<String> = listing.entries.iter().map(|entry| entry.key.to_string()).collect();
    assert_eq!((names, listing.revision), (vec!["a/10/x".to_owned(), "a/9".to_owned()], revision));
}

/// Each kind of condition holds when it should and not otherwise.
pub async fn conditions_guard_writes(store: Fresh) {
    let old = put(&store, &[("a", "1")]).await;
    let new = put(&store, &[("a", "2")]).await;
    let cases = [
        (Condition::Absent(key("a")), false),
        (Condition::Absent(key("b")), true),
        (Condition::Exists(key("a")), true),
        (Condition::Exists(key("b")), false),
        (Condition::RevisionIs(key("a"), new), true),
        (Condition::RevisionIs(key("a"), old), false),
        (Condition::RevisionIs(key("b"), Revision(0)), false),
    ];
    for (condition, holds) in cases {
        let outcome = store.commit(Batch::new().when(condition.clone())).await.unwrap();
        assert_eq!(outcome.done().is_some(), holds, "{condition:?}");
    }
}

/// If one condition does not hold, nothing of the batch is done, and the first such condition is named.
pub async fn a_conflict_writes_nothing(store: Fresh) {
    let before = put(&store, &[("a", "1")]).await;
    let failing = Condition::Absent(key("a"));
    let batch = Batch::new()
        .when(Condition::Exists(key("a")))
        .when(failing.clone())
        .when(Condition::Exists(key("nowhere")))
        .put(key("b"), "2")
        .delete(key("a"));
    assert_eq!(store.commit(batch).await.unwrap(), Commit::Conflict(failing));
    assert_eq!(everything(&store).await, pairs(&[("a", "1")]));
    assert_eq!(store.range(&key("a").below()).await.unwrap().revision, before);
}

/// Batches that are under way together are done one after the other.
pub async fn a_batch_sees_the_ones_before_it(store: Fresh) {
    let claim = |who: &'static str| Batch::new().when(Condition::Absent(key("a"))).put(key("a"), who);
    let (x, y, z) =
        tokio::join!(store.commit(claim("x")), store.commit(claim("y")), store.commit(claim("z")));
    let won = [x, y, z].into_iter().filter(|outcome| outcome.as_ref().unwrap().done().is_some()).count();
    assert_eq!(won, 1);
}

/// A batch that changes nothing makes no revision.
pub async fn deleting_nothing_changes_nothing(store: Fresh) {
    let before = put(&store, &[("a", "1")]).await;
    assert_eq!(done(&store, Batch::new().delete(key("b"))).await, before);
    assert_eq!(done(&store, Batch::new()).await, before);
    assert!(done(&store, Batch::new().delete(key("a"))).await > before);
    assert_eq!(value(&store, "a").await, None);
}

/// The largest batch is done; what is larger is refused before anything is written.
pub async fn limits_are_refused(store: Fresh) {
    let writes = |count: usize| (0..count).fold(Batch::new(), |batch, i| batch.put(numbered(i), "x"));
    done(&store, writes(MAX_OPERATIONS)).await;
    let before = everything(&store).await;
    assert_eq!(before.len(), MAX_OPERATIONS);

    let absent =
        |count: usize| (0..count).fold(Batch::new(), |batch, i| batch.when(Condition::Absent(numbered(i))));
    let large = |bytes: usize| Batch::new().put(key("large"), vec![0; bytes - "large".len()]);
    for batch in [writes(MAX_OPERATIONS + 1), absent(MAX_OPERATIONS + 1), large(MAX_BATCH_BYTES + 1)] {
        assert!(matches!(store.commit(batch).await, Err(StoreError::TooLarge { .. })));
    }
    let twice = Batch::new().put(key("a"), "1").delete(key("a"));
    assert!(
        matches!(store.commit(twice).await, Err(StoreError::WrittenTwice { key }) if key.as_str() == "a")
    );
    assert_eq!(everything(&store).await, before);

    done(&store, large(MAX_BATCH_BYTES)).await;
}

fn numbered(i: usize) -> Key {
    key(&format!("n/{i}"))
}

/// Many read, compare and write at once, and no increment is lost.
pub async fn increments_are_not_lost(store: Fresh) {
    const TASKS: usize = 8;
    const EACH: usize = 25;
    put(&store, &[("count", "0")]).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..TASKS {
        let store = store.clone();
        tasks.spawn(async move {
            for _ in 0..EACH {
                while !increment(&store).await {}
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(value(&store, "count").await, Some((TASKS * EACH).to_string()));
}

async fn increment(store: &Fresh) -> bool {
    let entry = store.get(&key("count")).await.unwrap().unwrap();
    let count: usize = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
    let unchanged = Condition::RevisionIs(key("count"), entry.revision);
    let batch = Batch::new().when(unchanged).put(key("count"), (count + 1).to_string());
    store.commit(batch).await.unwrap().done().is_some()
}
