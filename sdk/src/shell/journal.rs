//! Commits of any size, all or nothing, on a store whose batches are limited.
//!
//! A commit that fits into a batch is one. A larger one is staged below `framework/journal` and declared by a marker; then it is
//! done; then the marker is removed, and the staging. Whoever finds the marker does it (again); whoever finds staged writes
//! without a marker removes them.

use divvy_store::{Batch, Key, MAX_BATCH_BYTES, MAX_OPERATIONS, Store, StoreError};

use crate::Write;

const PUTS: &str = "framework/journal/put";
const DELETES: &str = "framework/journal/delete";
const MARKER: &str = "framework/journal/committed";

/// Makes writes durable, keys relative to `prefix`, each at most once.
pub(super) async fn commit(store: &dyn Store, prefix: &Key, writes: Vec<Write>) -> Result<(), StoreError> {
    let writes = writes.into_iter().map(|write| absolute(prefix, write)).collect::<Result<Vec<_>, _>>()?;
    if chunks(writes.clone()).len() <= 1 {
        return commit_all(store, writes).await;
    }
    stage(store, prefix, &writes).await?;
    commit_all(store, writes).await?;
    clear(store, prefix).await
}

/// Finishes or undoes what an earlier process had begun.
pub(super) async fn recover(store: &dyn Store, prefix: &Key) -> Result<(), StoreError> {
    if store.get(&prefix.join(MARKER)?).await?.is_some() {
        let mut writes = Vec::new();
        for (staged, delete) in [(PUTS, false), (DELETES, true)] {
            let below = prefix.join(staged)?.below();
            for entry in store.range(&below).await?.entries {
                let Some(key) = entry.key.as_str().strip_prefix(below.as_str()) else { continue };
                let key = prefix.join(key)?;
                writes.push(match delete {
                    true => divvy_store::Write::Delete(key),
                    false => divvy_store::Write::Put(key, entry.value),
                });
            }
        }
        commit_all(store, writes).await?;
    }
    clear(store, prefix).await
}

fn absolute(prefix: &Key, write: Write) -> Result<divvy_store::Write, StoreError> {
    Ok(match write {
        Write::Put { key, value } => divvy_store::Write::Put(prefix.join(key)?, value.into()),
        Write::Delete { key } => divvy_store::Write::Delete(prefix.join(key)?),
    })
}

async fn stage(store: &dyn Store, prefix: &Key, writes: &[divvy_store::Write]) -> Result<(), StoreError> {
    let below = prefix.below();
    let mut staged = Vec::new();
    for write in writes {
        let relative = write.key().as_str().strip_prefix(below.as_str()).unwrap_or_default();
        let (group, value) = match write {
            divvy_store::Write::Put(_, value) => (PUTS, value.clone()),
            divvy_store::Write::Delete(_) => (DELETES, bytes::Bytes::new()),
        };
        staged.push(divvy_store::Write::Put(prefix.join(group)?.join(relative)?, value));
    }
    commit_all(store, staged).await?;
    let marker = divvy_store::Write::Put(prefix.join(MARKER)?, bytes::Bytes::new());
    commit_batch(store, vec![marker]).await
}

async fn clear(store: &dyn Store, prefix: &Key) -> Result<(), StoreError> {
    // The marker goes first: a marker with half of the staging would be taken for a smaller commit.
    let marker = prefix.join(MARKER)?;
    if store.get(&marker).await?.is_some() {
        commit_batch(store, vec![divvy_store::Write::Delete(marker)]).await?;
    }
    let mut staged = Vec::new();
    for group in [PUTS, DELETES] {
        let entries = store.range(&prefix.join(group)?.below()).await?.entries;
        staged.extend(entries.into_iter().map(|entry| divvy_store::Write::Delete(entry.key)));
    }
    commit_all(store, staged).await
}

async fn commit_all(store: &dyn Store, writes: Vec<divvy_store::Write>) -> Result<(), StoreError> {
    for chunk in chunks(writes) {
        commit_batch(store, chunk).await?;
    }
    Ok(())
}

async fn commit_batch(store: &dyn Store, writes: Vec<divvy_store::Write>) -> Result<(), StoreError> {
    // Without conditions there is no conflict.
    let _ = store.commit(Batch { conditions: Vec::new(), writes }).await?;
    Ok(())
}

/// As few batches as the limits allow, in order.
fn chunks(writes: Vec<divvy_store::Write>) -> Vec<Vec<divvy_store::Write>> {
    let mut chunks = Vec::new();
    let (mut chunk, mut bytes) = (Vec::new(), 0);
    for write in writes {
        let size = size(&write);
        if chunk.len() == MAX_OPERATIONS || (bytes + size > MAX_BATCH_BYTES && !chunk.is_empty()) {
            chunks.push(std::mem::take(&mut chunk));
            bytes = 0;
        }
        bytes += size;
        chunk.push(write);
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

fn size(write: &divvy_store::Write) -> usize {
    let value = match write {
        divvy_store::Write::Put(_, value) => value.len(),
        divvy_store::Write::Delete(_) => 0,
    };
    write.key().as_str().len() + value
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicI64, Ordering};

    use async_trait::async_trait;
    use divvy_store::{Commit, Embedded, Entry, Leader, Leadership, Listing, Prefix, Revision, Watch};

    use super::*;
    use crate::shell::storage::load;

    /// A store whose process dies after so many commits.
    struct Mortal {
        inner: Embedded,
        left: AtomicI64,
    }

    #[async_trait]
    impl Store for Mortal {
        async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
            if self.left.fetch_sub(1, Ordering::Relaxed) <= 0 {
                return Err(StoreError::Closed { operation: "commit" });
            }
            self.inner.commit(batch).await
        }
        async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
            self.inner.get(key).await
        }
        async fn range(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
            self.inner.range(prefix).await
        }
        async fn watch(&self, prefix: &Prefix, after: Revision) -> Result<Watch, StoreError> {
            self.inner.watch(prefix, after).await
        }
        async fn campaign(&self, name: &Key, value: bytes::Bytes) -> Result<Leadership, StoreError> {
            self.inner.campaign(name, value).await
        }
        async fn leader(&self, name: &Key) -> Result<Option<Leader>, StoreError> {
            self.inner.leader(name).await
        }
    }

    type Content = BTreeMap<String, Vec<u8>>;

    fn puts(numbers: std::ops::Range<u32>, value: &[u8]) -> impl Iterator<Item = Write> {
        numbers.map(move |number| Write::Put { key: format!("jobs/{number}"), value: value.to_vec() })
    }

    fn content(numbers: std::ops::Range<u32>, value: &[u8]) -> Content {
        numbers.map(|number| (format!("jobs/{number}"), value.to_vec())).collect()
    }

    /// What is found after a commit of 350 writes over 200 old values that died after `commits` commits, and whether it died.
    async fn after_death(commits: i64) -> (Content, bool) {
        let prefix = Key::new("batch").unwrap();
        let store = Mortal { inner: Embedded::in_memory().unwrap(), left: AtomicI64::new(i64::MAX) };
        commit(&store, &prefix, puts(0..200, b"old").collect()).await.unwrap();
        store.left.store(commits, Ordering::Relaxed);
        let deleted = (0..50).map(|number| Write::Delete { key: format!("jobs/{number}") });
        let died = commit(&store, &prefix, deleted.chain(puts(50..350, b"new")).collect()).await.is_err();
        store.left.store(i64::MAX, Ordering::Relaxed);
        (load(&store, &prefix).await.unwrap().into_iter().collect(), died)
    }

    #[tokio::test]
    async fn a_large_commit_is_all_or_nothing_wherever_it_is_cut_off() {
        let (before, after) = (content(0..200, b"old"), content(50..350, b"new"));
        let mut outcomes = Vec::new();
        for commits in 0.. {
            let (found, died) = after_death(commits).await;
            assert!(found == before || found == after, "torn after {commits} commits");
            outcomes.push(found == after);
            if !died {
                break;
            }
        }
        // Staged in three batches; from the marker on it is done.
        assert_eq!(outcomes.iter().position(|done| *done), Some(4));
        assert!(outcomes.len() > 8 && outcomes.is_sorted(), "{outcomes:?}");
    }

    #[tokio::test]
    async fn a_commit_that_fits_is_one_batch() {
        let prefix = Key::new("batch").unwrap();
        let store = Mortal { inner: Embedded::in_memory().unwrap(), left: AtomicI64::new(1) };
        commit(&store, &prefix, puts(0..128, b"new").collect()).await.unwrap();
        assert_eq!(store.left.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn chunks_keep_to_the_limits() {
        let large = vec![0; MAX_BATCH_BYTES / 3];
        let writes = puts(0..7, &large).map(|write| absolute(&Key::new("batch").unwrap(), write).unwrap());
        let sizes: Vec<usize> = chunks(writes.collect()).iter().map(Vec::len).collect();
        assert_eq!(sizes, [2, 2, 2, 1]);
    }
}
