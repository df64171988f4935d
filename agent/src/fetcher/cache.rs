//! Downloads that were made before: a directory of bounded size that all tasks of the agent share.
//!
//! An entry is named by its address and its checksum, and whoever takes it checks it again. While it is taken it is not removed;
//! otherwise the one that was not used for the longest makes room. Not here: what is never cached, which is what lies on this
//! machine anyway.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use divvy_proto::Bytes;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::sync::OwnedMutexGuard;

use super::hexadecimal;

/// What an entry is called: a file's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(String);

impl Key {
    pub(super) fn new(uri: &str, sha256: &str) -> Self {
        let mut digest = Sha256::new();
        digest.update(uri);
        digest.update([0]);
        digest.update(sha256);
        Self(hexadecimal(digest))
    }

    fn of_file(name: &str) -> Option<Self> {
        let is_digest = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_digest.then(|| Self(name.to_owned()))
    }
}

/// The cache. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    directory: PathBuf,
    limit: u64,
    shelf: Arc<Mutex<Shelf>>,
}

#[derive(Debug, Default)]
struct Shelf {
    entries: BTreeMap<Key, Entry>,
    /// What entries and downloads under way take.
    used: u64,
    /// The number of the latest use.
    uses: u64,
    /// Who is getting what, so that the others wait for it.
    coming: BTreeMap<Key, Weak<tokio::sync::Mutex<()>>>,
}

#[derive(Debug)]
struct Entry {
    size: u64,
    used_at: u64,
    taken: Arc<()>,
}

/// An entry in use: it stays for as long as this does.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) file: File,
    mark: Arc<()>,
}

/// Room for a download, given back when this is dropped.
#[derive(Debug)]
pub(super) struct Room {
    size: u64,
    shelf: Arc<Mutex<Shelf>>,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut shelf = lock(&self.shelf);
        shelf.used = shelf.used.saturating_sub(self.size);
    }
}

impl Cache {
    /// A cache in this directory, with what an earlier agent left there. What is not an entry is removed.
    pub(super) fn open(directory: PathBuf, limit: Bytes) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        let mut found = Vec::new();
        for file in fs::read_dir(&directory)? {
            let file = file?;
            let metadata = file.metadata()?;
            match file.file_name().to_str().and_then(Key::of_file).filter(|_| metadata.is_file()) {
                Some(key) => found.push((metadata.modified()?, key, metadata.len())),
                None => drop(fs::remove_file(file.path())),
            }
        }
        found.sort();
        let mut shelf = Shelf::default();
        for (_, key, size) in found {
            shelf.add(key, size);
        }
        let limit = limit.bytes().unsigned_abs();
        shelf.make_room(&directory, 0, limit);
        Ok(Self { directory, limit, shelf: Arc::new(Mutex::new(shelf)) })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Waits until nobody else gets this entry, and keeps others from getting it until the answer is dropped.
    pub(super) async fn claim(&self, key: &Key) -> OwnedMutexGuard<()> {
        let turn = {
            let coming = &mut lock(&self.shelf).coming;
            coming.retain(|_, turn| turn.strong_count() > 0);
            let known = coming.get(key).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let turn = Arc::default();
                coming.insert(key.clone(), Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }

    /// Takes an entry if it is there.
    pub(super) fn take(&self, key: &Key) -> Option<Taken> {
        let mark = lock(&self.shelf).take(key)?;
        let Ok(file) = File::open(self.directory.join(&key.0)) else {
            self.remove(key, &mark);
            return None;
        };
        // The order of use outlives the agent in the files' times; an error makes it only less exact.
        drop(file.set_modified(SystemTime::now()));
        Some(Taken { file, mark })
    }

    /// Room for so many bytes, for which entries that are not in use go; nothing goes if that is not enough.
    pub(super) fn room(&self, size: u64) -> Option<Room> {
        let mut shelf = lock(&self.shelf);
        if !shelf.make_room(&self.directory, size, self.limit) {
            return None;
        }
        shelf.used += size;
        Some(Room { size, shelf: self.shelf.clone() })
    }

    /// Adds a file of the cache's directory as an entry, and takes it.
    pub(super) fn put(&self, key: Key, file: NamedTempFile, room: Room) -> io::Result<Taken> {
        let path = self.directory.join(&key.0);
        file.persist(&path).map_err(|error| error.error)?;
        let size = room.size;
        drop(room);
        let mut shelf = lock(&self.shelf);
        shelf.add(key.clone(), size);
        let mark = shelf.take(&key).unwrap_or_default();
        drop(shelf);
        Ok(Taken { file: File::open(path)?, mark })
    }

    /// Removes an entry that is not what it was.
    pub(super) fn discard(&self, key: &Key, taken: &Taken) {
        self.remove(key, &taken.mark);
    }

    /// Unless another has taken its place already.
    fn remove(&self, key: &Key, mark: &Arc<()>) {
        let mut shelf = lock(&self.shelf);
        if shelf.entries.get(key).is_some_and(|entry| Arc::ptr_eq(&entry.taken, mark)) {
            shelf.remove(&self.directory, key);
        }
    }
}

impl Shelf {
    fn add(&mut self, key: Key, size: u64) {
        self.uses += 1;
        self.used += size;
        self.entries.insert(key, Entry { size, used_at: self.uses, taken: Arc::default() });
    }

    fn take(&mut self, key: &Key) -> Option<Arc<()>> {
        self.uses += 1;
        let entry = self.entries.get_mut(key)?;
        entry.used_at = self.uses;
        Some(entry.taken.clone())
    }

    fn remove(&mut self, directory: &Path, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.used = self.used.saturating_sub(entry.size);
            drop(fs::remove_file(directory.join(&key.0)));
        }
    }

    /// Whether there is now room for so many bytes.
    fn make_room(&mut self, directory: &Path, size: u64, limit: u64) -> bool {
        let idle = |entry: &Entry| Arc::strong_count(&entry.taken) == 1;
        let held: u64 = self.entries.values().filter(|entry| idle(entry)).map(|entry| entry.size).sum();
        if size > limit || self.used.saturating_sub(held).saturating_add(size) > limit {
            return false;
        }
        while self.used.saturating_add(size) > limit {
            let idle = self.entries.iter().filter(|(_, entry)| idle(entry));
            let Some(oldest) = idle.min_by_key(|(_, entry)| entry.used_at).map(|(key, _)| key.clone()) else {
                return false;
            };
            self.remove(directory, &oldest);
        }
        true
    }
}

/// A panic elsewhere leaves nothing of the shelf half done.
fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}
