//! Changes as they happen.

use super::{Fresh, done, key, put};
use crate::{Batch, Change, Prefix, Revision, WATCH_BUFFER, Watch, WatchEnd, WatchEvent};

async fn next(watch: &mut Watch) -> WatchEvent {
    watch.next().await.expect("the watch goes on").expect("the watch goes on")
}

/// Shows an event: `a=1 b=2 -c`.
fn show(event: &WatchEvent) -> String {
    let show = |change: &Change| match change {
        Change::Put(entry) => format!("{}={}", entry.key, String::from_utf8_lossy(&entry.value)),
        Change::Delete(key) => format!("-{key}"),
    };
    event.changes.iter().map(show).collect::<Vec<_>>().join(" ")
}

/// A listing and a watch from its revision miss nothing and repeat nothing.
pub async fn a_watch_follows_a_listing(store: Fresh) {
    put(&store, &[("a", "1")]).await;
    let listing = store.range(&Prefix::all()).await.unwrap();
    let second = put(&store, &[("a", "2")]).await;
    let mut watch = store.watch(&Prefix::all(), listing.revision).await.unwrap();
    let third = done(&store, Batch::new().delete(key("a"))).await;

    let (update, removal) = (next(&mut watch).await, next(&mut watch).await);
    assert_eq!((update.revision, show(&update)), (second, "a=2".to_owned()));
    assert_eq!((removal.revision, show(&removal)), (third, "-a".to_owned()));
}

/// What one batch changes comes together, and what it does not change does not come.
pub async fn a_batch_is_one_event(store: Fresh) {
    let start = put(&store, &[("c", "x")]).await;
    let mut watch = store.watch(&Prefix::all(), start).await.unwrap();
    done(&store, Batch::new().delete(key("nowhere"))).await;
    done(&store, Batch::new().put(key("a"), "1").delete(key("c")).delete(key("nowhere")).put(key("b"), "2"))
        .await;
    let mut changes = next(&mut watch).await.changes;
    changes.sort_by(|one, other| one.key().cmp(other.key()));
    assert_eq!(changes.iter().map(|change| change.key().to_string()).collect::<Vec<_>>(), ["a", "b", "c"]);
}

/// Changes outside the group make no events.
pub async fn a_watch_tells_only_of_its_group(store: Fresh) {
    let start = put(&store, &[("x", "x")]).await;
    let mut watch = store.watch(&key("a").below(), start).await.unwrap();
    put(&store, &[("a", "x"), ("ab/1", "x")]).await;
    put(&store, &[("b", "x"), ("a/1", "1")]).await;
    assert_eq!(show(&next(&mut watch).await), "a/1=1");
}

/// A watch may begin a little in the past, or where nothing has happened yet.
pub async fn a_watch_catches_up(store: Fresh) {
    let start = put(&store, &[("a", "0")]).await;
    for i in 1..=20 {
        put(&store, &[("a", &i.to_string())]).await;
    }
    let mut watch = store.watch(&Prefix::all(), start).await.unwrap();
    for i in 1..=20 {
        assert_eq!(show(&next(&mut watch).await), format!("a={i}"));
    }
    let now = store.range(&Prefix::all()).await.unwrap().revision;
    let mut later = store.watch(&Prefix::all(), Revision(now.0 + 1)).await.unwrap();
    put(&store, &[("a", "not asked for")]).await;
    put(&store, &[("a", "asked for")]).await;
    assert_eq!(show(&next(&mut later).await), "a=asked for");
}

/// Who does not read is cut off, and is told after what was kept for it.
pub async fn a_slow_reader_is_cut_off(store: Fresh) {
    let start = put(&store, &[("a", "x")]).await;
    let mut watch = store.watch(&Prefix::all(), start).await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for i in 0..WATCH_BUFFER + 100 {
        let store = store.clone();
        writers.spawn(async move { put(&store, &[("a", &i.to_string())]).await });
    }
    writers.join_all().await;

    let mut last = start;
    let end = loop {
        match watch.next().await.expect("a watch ends with a reason") {
            Ok(event) => {
                assert!(event.revision > last, "in order");
                last = event.revision;
            }
            Err(end) => break end,
        }
    };
    assert_eq!((end, watch.next().await), (WatchEnd::TooSlow, None));
}
