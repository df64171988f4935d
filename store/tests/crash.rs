//! A process that commits as fast as it can is killed (-9) again and again. What it was told is durable has to be there
//! afterwards, and no batch may be there by half.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use divvy_store::{Batch, Embedded, Key, Prefix, Store};

/// Names the file in the environment of the process that is to be killed.
const FILE: &str = "DIVVY_STORE_CRASH_FILE";
const ROUNDS: usize = 5;
const WRITERS: usize = 16;

/// By writer, the highest round of its batches.
type Counts = BTreeMap<usize, u64>;

#[test]
fn no_acknowledged_batch_is_lost_and_none_is_halved() {
    if let Some(file) = std::env::var_os(FILE) {
        commit_until_killed(Path::new(&file));
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("store");
    let mut acknowledged = Counts::new();
    for round in 1..=ROUNDS {
        let child = spawn(&file);
        acknowledged.append(&mut kill_after(child, 400 * round));
        let stored = stored(&file);
        for (writer, count) in acknowledged {
            let found = stored.get(&writer).copied().unwrap_or_default();
            // One more may have become durable whose answer the kill cut off.
            assert!(
                (count..=count + 1).contains(&found),
                "writer {writer}: {count} acknowledged, {found} stored"
            );
        }
        acknowledged = stored;
    }
}

fn spawn(file: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["no_acknowledged_batch_is_lost_and_none_is_halved", "--exact", "--nocapture"])
        .env(FILE, file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Kills the process once so many batches were acknowledged, and answers all that were.
fn kill_after(mut child: Child, batches: usize) -> Counts {
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let (mut counts, mut seen, mut line) = (Counts::new(), 0, String::new());
    while output.read_line(&mut line).unwrap() > 0 {
        // The harness writes lines of its own, and the kill may cut the last line short.
        if let Some((writer, count)) =
            line.strip_suffix('\n').and_then(|line| line.strip_prefix("ack ")?.split_once(' '))
        {
            counts.insert(writer.parse().unwrap(), count.parse().unwrap());
            seen += 1;
            if seen == batches {
                child.kill().unwrap();
            }
        }
        line.clear();
    }
    child.wait().unwrap();
    assert!(seen >= batches, "the child ended by itself after {seen} batches");
    counts
}

/// What is in the file: for each writer the two halves of its latest batch, which have to be the same.
fn stored(file: &Path) -> Counts {
    let store = Embedded::open(file).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let listing = runtime.block_on(store.range(&Prefix::all())).unwrap();
    let mut halves: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for entry in listing.entries {
        let writer = entry.key.as_str().split('/').nth(1).unwrap().parse().unwrap();
        let count = std::str::from_utf8(&entry.value).unwrap().trim_end().parse().unwrap();
        halves.entry(writer).or_default().push(count);
    }
    let whole = |(writer, halves): (usize, Vec<u64>)| {
        assert!(halves.len() == 2 && halves[0] == halves[1], "writer {writer} has {halves:?}");
        (writer, halves[0])
    };
    halves.into_iter().map(whole).collect()
}

fn commit_until_killed(file: &Path) {
    let store = std::sync::Arc::new(Embedded::open(file).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            writers.spawn(write(store.clone(), writer));
        }
        writers.join_all().await;
    });
}

async fn write(store: std::sync::Arc<Embedded>, writer: usize) {
    let half = |name: &str| Key::new(format!("writers/{writer}/{name}")).unwrap();
    let before = store.get(&half("one")).await.unwrap();
    let before =
        before.map_or(0, |entry| std::str::from_utf8(&entry.value).unwrap().trim_end().parse().unwrap());
    for count in before + 1.. {
        // Wide enough to need several pages.
        let value = format!("{count:<3000}");
        let batch = Batch::new().put(half("one"), value.clone()).put(half("other"), value);
        assert!(store.commit(batch).await.unwrap().done().is_some());
        println!("ack {writer} {count}");
    }
}
