//! The registry on the store: what cannot be rebuilt from agents, one JSON value for each agent and framework.
//!
//! Every write carries this master's fencing token in its condition. A refused condition means that another master leads:
//! this one writes nothing more and steps down. Whatever waits while a write is under way goes into the next write together.
//! Not here: what the records mean.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use divvy_proto::ids::Epoch;
use divvy_store::{Batch, Commit as Written, Condition, Key, Leadership, Store, StoreError};
use tokio::sync::mpsc;

use super::metrics::Metrics;
use crate::kernel::{PersistToken, RegistryChange};

/// What masters campaign for.
const OFFICE: &str = "master";

const AGENTS: &str = "registry/agents";
const FRAMEWORKS: &str = "registry/frameworks";

/// Largest record, in bytes. Whoever introduces itself with more is refused before the kernel hears of it.
pub(super) const LARGEST_RECORD: usize = 256 * 1024;

/// A write grows to so many records and so many bytes, well within what a store takes (etcd: 128 operations, 1.5 MiB).
const LARGEST_WRITE: (usize, usize) = (100, 1024 * 1024);

/// So many changes are taken from the queue at once.
const LARGEST_GROUP: usize = 1000;

/// Why a master cannot begin to lead.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The store did not let it campaign.
    #[error("cannot campaign to be the master: {0}")]
    Campaign(#[source] StoreError),
    /// The store was led more often than an epoch can count.
    #[error("the store's fencing token {0} is too large for an epoch")]
    Epoch(u64),
    /// The store did not answer.
    #[error("cannot read the registry below {group}: {source}")]
    Read {
        /// Which part.
        group: &'static str,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// A record is not what this version writes.
    #[error(
        "the registry's record {key} cannot be read: it was written by a newer version, or is damaged: {source}"
    )]
    Record {
        /// Which.
        key: Key,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// Why the registry cannot be written any more.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Another master leads.
    #[error("another master leads now: fencing token {0} is no longer valid")]
    Deposed(u64),
    /// The store failed, and nobody knows whether it wrote.
    #[error("the registry cannot be written: {0}")]
    Store(#[source] StoreError),
    /// A record could not be written as JSON.
    #[error("the registry's record {key} cannot be written as JSON: {source}")]
    Encode {
        /// Which.
        key: Key,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The task that writes has gone.
    #[error("the registry's writer has stopped")]
    Stopped,
}

/// What the kernel wants to be durable.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Commit {
    pub(super) token: PersistToken,
    pub(super) changes: Vec<RegistryChange>,
}

/// The right to write the registry.
pub(super) struct Registry {
    store: Arc<dyn Store>,
    leadership: Leadership,
    epoch: Epoch,
}

impl Registry {
    /// Waits for leadership, then reads what earlier masters have written.
    pub(super) async fn lead(
        store: Arc<dyn Store>,
        candidate: &str,
    ) -> Result<(Self, Vec<RegistryChange>), RegistryError> {
        let office = Key::new(OFFICE).map_err(RegistryError::Campaign)?;
        let value = Bytes::copy_from_slice(candidate.as_bytes());
        let leadership = store.campaign(&office, value).await.map_err(RegistryError::Campaign)?;
        let token = leadership.fence().token;
        let epoch = Epoch(u32::try_from(token).map_err(|_| RegistryError::Epoch(token))?);
        let mut records = Vec::new();
        for group in [AGENTS, FRAMEWORKS] {
            let read = |source| RegistryError::Read { group, source };
            let below = Key::new(group).map_err(read)?.below();
            for entry in store.range(&below).await.map_err(read)?.entries {
                let record = serde_json::from_slice(&entry.value)
                    .map_err(|source| RegistryError::Record { key: entry.key.clone(), source })?;
                records.push(record);
            }
        }
        Ok((Self { store, leadership, epoch }, records))
    }

    /// The number of this master's reign: the fencing token.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Writes what comes until nobody can send any more, or until it may not or cannot write. Then it resigns.
    pub(super) async fn write(
        mut self,
        mut commits: mpsc::UnboundedReceiver<Commit>,
        report: mpsc::UnboundedSender<Result<Vec<Commit>, CommitError>>,
        metrics: Metrics,
    ) {
        let mut group = Vec::new();
        loop {
            let taken = tokio::select! {
                biased;
                taken = commits.recv_many(&mut group, LARGEST_GROUP) => taken,
                () = self.leadership.lost() => {
                    let _ = report.send(Err(CommitError::Deposed(self.leadership.fence().token)));
                    return;
                }
            };
            if taken == 0 {
                return self.leadership.resign().await;
            }
            let started = Instant::now();
            let written = self.write_group(&group).await;
            metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
            let failed = written.is_err();
            // Nobody listens any more when the master stops; what was written stays.
            let _ = report.send(written.map(|()| std::mem::take(&mut group)));
            if failed {
                return;
            }
        }
    }

    async fn write_group(&self, group: &[Commit]) -> Result<(), CommitError> {
        for records in writes(group)? {
            let fence = self.leadership.fence().clone();
            let mut batch = Batch::new().when(Condition::Fence(fence));
            for (key, value) in records {
                batch = batch.put(key, value);
            }
            match self.store.commit(batch).await.map_err(CommitError::Store)? {
                Written::Done { .. } => {}
                Written::Conflict(_) => return Err(CommitError::Deposed(self.leadership.fence().token)),
            }
        }
        Ok(())
    }
}

type Records = BTreeMap<Key, Bytes>;

/// The writes that make a group of commits durable: no commit is torn, and of several records under a key the last one counts.
fn writes(group: &[Commit]) -> Result<Vec<Records>, CommitError> {
    let mut writes = Vec::new();
    let (mut current, mut bytes) = (Records::new(), 0);
    for commit in group {
        let records = commit.changes.iter().map(record).collect::<Result<Vec<_>, _>>()?;
        let added: usize = records.iter().map(|(key, value)| key.as_str().len() + value.len()).sum();
        let full = current.len() + records.len() > LARGEST_WRITE.0 || bytes + added > LARGEST_WRITE.1;
        if full && !current.is_empty() {
            writes.push(std::mem::take(&mut current));
            bytes = 0;
        }
        current.extend(records);
        bytes += added;
    }
    if !current.is_empty() {
        writes.push(current);
    }
    Ok(writes)
}

fn record(change: &RegistryChange) -> Result<(Key, Bytes), CommitError> {
    let key = match change {
        RegistryChange::PutAgent { id, .. } => format!("{AGENTS}/{id}"),
        RegistryChange::PutFramework { id, .. } => format!("{FRAMEWORKS}/{id}"),
    };
    let key = Key::new(key).map_err(CommitError::Store)?;
    match serde_json::to_vec(change) {
        Ok(value) => Ok((key, value.into())),
        Err(source) => Err(CommitError::Encode { key, source }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use divvy_proto::ids::FrameworkId;
    use divvy_proto::role::RolePath;
    use divvy_proto::scheduler::FrameworkInfo;

    use super::*;

    fn commit(token: u64, names: &[(&str, usize)]) -> Commit {
        let changes = names.iter().map(|(id, size)| RegistryChange::PutFramework {
            id: FrameworkId::new(id).unwrap(),
            info: FrameworkInfo {
                id: None,
                name: "x".repeat(*size),
                user: None,
                roles: vec!["*".parse::<RolePath>().unwrap()],
                principal: None,
                failover_timeout: Duration::from_secs(1),
                url: None,
                labels: BTreeMap::new(),
                capabilities: Default::default(),
            },
            disconnected: None,
            retired: false,
        });
        Commit { token: PersistToken(token), changes: changes.collect() }
    }

    fn keys(group: &[Commit]) -> Vec<Vec<String>> {
        let names = |records: &Records| records.keys().map(ToString::to_string).collect();
        writes(group).unwrap().iter().map(names).collect()
    }

    #[test]
    fn a_group_is_one_write_and_the_last_record_counts() {
        let group = [commit(1, &[("a", 1), ("b", 1)]), commit(2, &[("a", 2)])];
        assert_eq!(keys(&group), [["registry/frameworks/a", "registry/frameworks/b"]]);
        let written = writes(&group).unwrap();
        let a = &written[0][&Key::new("registry/frameworks/a").unwrap()];
        assert_eq!(serde_json::from_slice::<RegistryChange>(a).unwrap(), group[1].changes[0]);
    }

    #[test]
    fn a_group_that_is_too_large_is_cut_between_commits() {
        let large = LARGEST_WRITE.1 / 2;
        let group =
            [commit(1, &[("a", large)]), commit(2, &[("b", large), ("c", 1)]), commit(3, &[("d", 1)])];
        let expected: [&[&str]; 2] = [
            &["registry/frameworks/a"],
            &["registry/frameworks/b", "registry/frameworks/c", "registry/frameworks/d"],
        ];
        assert_eq!(keys(&group), expected);
        let many: Vec<Commit> = (0..250).map(|n| commit(n, &[(&format!("f{n}"), 1)])).collect();
        assert_eq!(keys(&many).iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50]);
    }
}
