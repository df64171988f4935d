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
    match <[Vec<_>; 1]>::try_from(chunks(writes.clone())) {
        Ok([only]) => commit_batch(store, only).await,
        Err(_) => {
            stage(store, prefix, &writes).await?;
            commit_all(store, writes).await?;
            clear(store, prefix).await
        }
    }
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
