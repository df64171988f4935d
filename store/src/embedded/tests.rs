//! The suite in memory and in a file, and what only a file can be asked.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use tempfile::TempDir;

use super::*;
use crate::suite::{Fresh, done, everything, key, pairs, put};
use crate::{Condition, WatchEnd};

/// Keeps the directory of a store in a file for as long as the store.
struct InDirectory(Embedded, #[allow(dead_code, reason = "dropped after the store")] TempDir);

#[async_trait]
impl Store for InDirectory {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.0.get(key).await
    }
    async fn range(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
        self.0.range(prefix).await
    }
    async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
        self.0.commit(batch).await
    }
    async fn watch(&self, prefix: &Prefix, after: Revision) -> Result<Watch, StoreError> {
        self.0.watch(prefix, after).await
    }
    async fn campaign(&self, name: &Key, value: Bytes) -> Result<Leadership, StoreError> {
        self.0.campaign(name, value).await
    }
    async fn leader(&self, name: &Key) -> Result<Option<Leader>, StoreError> {
        self.0.leader(name).await
    }
}

mod in_memory {
    use super::*;
    crate::conformance!(Arc::new(Embedded::in_memory().unwrap()) as Fresh);
}

mod in_a_file {
    use super::*;

    fn fresh() -> Fresh {
        let directory = TempDir::new().unwrap();
        Arc::new(InDirectory(Embedded::open(directory.path().join("store")).unwrap(), directory))
    }

    crate::conformance!(fresh());
}

/// A place for a file.
fn place() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("new/store");
    (directory, path)
}

fn open(path: &Path) -> Fresh {
    Arc::new(Embedded::open(path).unwrap())
}

#[tokio::test]
async fn everything_survives_a_restart_but_leadership() {
    let (_directory, path) = place();
    let store = open(&path);
    let revision = put(&store, &[("a", "1"), ("b", "2")]).await;
    let mut leadership = store.campaign(&key("masters"), "first".into()).await.unwrap();
    let old = leadership.fence().clone();
    drop(store);
    leadership.lost().await;

    let store = open(&path);
    assert_eq!(everything(&store).await, pairs(&[("a", "1"), ("b", "2")]));
    assert_eq!(store.range(&Prefix::all()).await.unwrap().revision, revision);
    assert_eq!(store.leader(&old.name).await.unwrap(), None);
    let fenced = Batch::new().when(Condition::Fence(old.clone())).put(key("a"), "late");
    assert!(store.commit(fenced).await.unwrap().done().is_none());
    assert!(store.campaign(&old.name, "second".into()).await.unwrap().fence().token > old.token);
    assert!(put(&store, &[("a", "3")]).await > revision);
}

#[tokio::test]
async fn what_is_forgotten_has_to_be_listed_again() {
    let (_directory, path) = place();
    let store = open(&path);
    let first = put(&store, &[("a", "1")]).await;
    let second = put(&store, &[("a", "2")]).await;
    drop(store);

    let store = open(&path);
    let mut watch = store.watch(&Prefix::all(), first).await.unwrap();
    assert_eq!(watch.next().await, Some(Err(WatchEnd::Lagged { oldest: second })));
    assert_eq!(watch.next().await, None);
    let mut watch = store.watch(&Prefix::all(), second).await.unwrap();
    let third = put(&store, &[("a", "3")]).await;
    assert_eq!(watch.next().await.unwrap().unwrap().revision, third);
}

#[tokio::test]
async fn the_history_is_bounded() {
    let store: Fresh = Arc::new(Embedded::in_memory().unwrap());
    let start = put(&store, &[("a", "1")]).await;
    for _ in 0..20 {
        done(&store, Batch::new().put(key("large"), vec![0; 1 << 20])).await;
    }
    let mut watch = store.watch(&Prefix::all(), start).await.unwrap();
    assert!(matches!(watch.next().await, Some(Err(WatchEnd::Lagged { .. }))));
}

#[tokio::test]
async fn a_file_is_for_one_store_at_a_time() {
    let (_directory, path) = place();
    let first = Embedded::open(&path).unwrap();
    let error = Embedded::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error:?}");
    let expected = format!(
        "the store {} is in use by another process; stop that one first, or use another work directory",
        path.display()
    );
    assert_eq!(error.to_string(), expected);
    drop(first);
    Embedded::open(&path).unwrap();
}

#[tokio::test]
async fn a_closed_store_ends_watches() {
    let store: Fresh = Arc::new(Embedded::in_memory().unwrap());
    let mut watch = store.watch(&Prefix::all(), Revision(0)).await.unwrap();
    drop(store);
    assert_eq!((watch.next().await, watch.next().await), (Some(Err(WatchEnd::Closed)), None));
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let (_directory, path) = place();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let text = "just some text that somebody wrote\n".repeat(1000);
    std::fs::write(&path, &text).unwrap();
    let error = Embedded::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn a_damaged_file_is_refused_or_read_without_panic() {
    let (_directory, path) = place();
    let store = open(&path);
    for i in 0..200 {
        put(&store, &[(&format!("k/{i}"), &"v".repeat(100))]).await;
    }
    drop(store);
    let sound = std::fs::read(&path).unwrap();
    for at in (0..sound.len()).step_by(sound.len() / 40) {
        let mut damaged = sound.clone();
        damaged.iter_mut().skip(at).take(64).for_each(|byte| *byte ^= 0x5a);
        std::fs::write(&path, &damaged).unwrap();
        // Damage to pages that are not in use goes unseen; to any other it is an error, here or when reading.
        if let Ok(store) = Embedded::open(&path) {
            let _noticed = store.range(&Prefix::all()).await;
        }
    }
    for cut in [1, 100, 4096, sound.len() / 2] {
        std::fs::write(&path, &sound[..cut]).unwrap();
        assert!(matches!(Embedded::open(&path), Err(StoreError::Corrupt { .. })), "cut at {cut}");
    }
}

#[test]
fn a_file_that_cannot_be_made_says_so() {
    let error = Embedded::open("/proc/nowhere/store").unwrap_err();
    assert!(error.to_string().starts_with("opening the store /proc/nowhere/store: "), "{error}");
}

/// A disk that can be made to fail.
#[derive(Debug)]
struct Disk {
    memory: InMemoryBackend,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn room(&self) -> io::Result<()> {
        match self.full.load(Ordering::SeqCst) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.memory.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.room().and_then(|()| self.memory.set_len(len))
    }
    fn sync_data(&self) -> io::Result<()> {
        self.room().and_then(|()| self.memory.sync_data())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room().and_then(|()| self.memory.write(offset, data))
    }
}

#[tokio::test]
async fn a_store_that_cannot_write_says_so_and_nobody_leads() {
    let full = Arc::new(AtomicBool::new(false));
    let disk = Disk { memory: InMemoryBackend::new(), full: full.clone() };
    let database = redb::Builder::new().create_with_backend(disk).unwrap();
    let store: Fresh = Arc::new(Embedded::start(database, Path::new("a disk")).unwrap());
    let mut leadership = store.campaign(&key("masters"), "first".into()).await.unwrap();
    let before = put(&store, &[("a", "1")]).await;
    let mut watch = store.watch(&Prefix::all(), before).await.unwrap();

    full.store(true, Ordering::SeqCst);
    let write = || Batch::new().put(key("a"), "2");
    let (one, other) = tokio::join!(store.commit(write()), store.commit(write()));
    for outcome in [one, other] {
        assert!(matches!(outcome, Err(StoreError::Failed { .. } | StoreError::Closed { .. })), "{outcome:?}");
    }
    leadership.lost().await;
    assert_eq!(watch.next().await, Some(Err(WatchEnd::Closed)));
    assert!(matches!(store.commit(write()).await, Err(StoreError::Closed { operation: "commit" })));
}
