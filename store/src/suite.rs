//! What every engine has to do, as tests. An engine runs them all with [`conformance!`], each on a fresh, empty store.
//!
//! Not here: what only one engine can be asked, such as what happens to a file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod leading;
mod model;
mod watching;
mod writing;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::{Batch, Commit, Entry, Key, Revision, Store};

pub use leading::*;
pub use model::behaves_like_a_map;
pub use watching::*;
pub use writing::*;

/// A fresh, empty store.
pub type Fresh = Arc<dyn Store>;

/// Makes a test of each part of the suite. `$fresh` is an expression for a fresh, empty store (a [`Fresh`]).
#[macro_export]
macro_rules! conformance {
    ($fresh:expr) => {
        $crate::conformance!($fresh;
            a_value_is_read_back, a_value_survives_others, a_group_is_listed_in_order, conditions_guard_writes,
            a_conflict_writes_nothing, a_batch_sees_the_ones_before_it, deleting_nothing_changes_nothing,
            limits_are_refused, increments_are_not_lost,
            a_watch_follows_a_listing, a_batch_is_one_event, a_watch_tells_only_of_its_group,
            a_watch_catches_up, a_slow_reader_is_cut_off,
            one_leads_at_a_time, tokens_rise, a_deposed_leader_cannot_write, a_dropped_leadership_passes_on,
            who_gives_up_is_passed_over, a_long_campaign_is_refused, names_are_led_apart
        );

        #[test]
        fn behaves_like_a_map() {
            $crate::suite::behaves_like_a_map(|| $fresh);
        }
    };
    ($fresh:expr; $($name:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::suite::within_time($crate::suite::$name($fresh)).await;
            }
        )+
    };
}

/// A test that hangs fails.
pub async fn within_time(test: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test ends within a minute");
}

/// A key.
pub(crate) fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

/// Gives keys values, in one batch.
pub(crate) async fn put(store: &Fresh, pairs: &[(&str, &str)]) -> Revision {
    let put =
        |batch: Batch, (name, value): &(&str, &str)| batch.put(key(name), Bytes::from(value.to_string()));
    done(store, pairs.iter().fold(Batch::new(), put)).await
}

/// Does a batch that has no reason not to be done.
pub(crate) async fn done(store: &Fresh, batch: Batch) -> Revision {
    match store.commit(batch).await.unwrap() {
        Commit::Done { revision } => revision,
        Commit::Conflict(condition) => panic!("{condition:?} should hold"),
    }
}

/// The value under a key, as text.
pub(crate) async fn value(store: &Fresh, name: &str) -> Option<String> {
    store.get(&key(name)).await.unwrap().map(|entry| text(&entry))
}

/// All keys and values, as text.
pub(crate) async fn everything(store: &Fresh) -> Vec<(String, String)> {
    let listing = store.range(&crate::Prefix::all()).await.unwrap();
    listing.entries.iter().map(|entry| (entry.key.to_string(), text(entry))).collect()
}

fn text(entry: &Entry) -> String {
    String::from_utf8(entry.value.to_vec()).unwrap()
}

/// Pairs of text, to compare with.
pub(crate) fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
