//! Which record of the store a change of the registry writes or removes, and how changes are put together into writes.
//!
//! ```text
//! registry/agents/a1-3                 registry/reservations/a1-3
//! registry/frameworks/f1-2             registry/drains/a1-3
//! registry/quotas/eng/ads              registry/maintenance/schedule
//! registry/weights/eng                 registry/task-ids/f1-2/n-web.   (ids that are `web.` and a number)
//!                                      registry/task-ids/f1-2/h-17     (hashes of all others)
//! ```
//!
//! A record that would say nothing is removed. Not here: the store.

use std::collections::BTreeMap;

use bytes::Bytes;
use divvy_store::{Key, Prefix};

use super::{Commit, CommitError};
use crate::kernel::{RegistryChange, TaskIdBucket, UsedTaskIds};

pub(super) const AGENTS: &str = "registry/agents";
pub(super) const FRAMEWORKS: &str = "registry/frameworks";
pub(super) const QUOTAS: &str = "registry/quotas";
pub(super) const WEIGHTS: &str = "registry/weights";
pub(super) const RESERVATIONS: &str = "registry/reservations";
pub(super) const DRAINS: &str = "registry/drains";
pub(super) const MAINTENANCE: &str = "registry/maintenance";
pub(super) const TASK_IDS: &str = "registry/task-ids";

/// All groups of records, in the order in which the kernel recovers them: nothing before what it is about.
pub(super) const GROUPS: [&str; 8] =
    [AGENTS, FRAMEWORKS, QUOTAS, WEIGHTS, RESERVATIONS, DRAINS, MAINTENANCE, TASK_IDS];

/// A write grows to so many records and so many bytes, well within what a store takes (etcd: 128 operations, 1.5 MiB).
pub(super) const LARGEST_WRITE: (usize, usize) = (100, 1024 * 1024);

/// What is written at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Write {
    /// The new value of each record; none removes it.
    pub(super) records: BTreeMap<Key, Option<Bytes>>,
    /// All records below these are removed first. What is lost of that in a crash is about frameworks that have ended.
    pub(super) emptied: Vec<Prefix>,
}

impl Write {
    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.emptied.is_empty()
    }

    fn bytes(&self) -> usize {
        self.records.iter().map(size).sum()
    }

    /// Whether both together are more than one write may be.
    fn is_full_with(&self, other: &Self) -> bool {
        let records = self.records.len() + other.records.len();
        records > LARGEST_WRITE.0 || self.bytes() + other.bytes() > LARGEST_WRITE.1
    }

    /// Itself, or pieces of it that are no larger than a write may be.
    fn pieces(self) -> Vec<Self> {
        let mut pieces = vec![Self { emptied: self.emptied, ..Self::default() }];
        for record in self.records {
            let record = Self { records: [record].into(), ..Self::default() };
            match pieces.last_mut() {
                Some(last) if last.records.is_empty() || !last.is_full_with(&record) => {
                    last.records.extend(record.records);
                }
                _ => pieces.push(record),
            }
        }
        pieces
    }
}

fn size((key, value): (&Key, &Option<Bytes>)) -> usize {
    key.as_str().len() + value.as_ref().map_or(0, Bytes::len)
}

/// The writes that make a group of commits durable; of several changes of a record the last one counts. A commit is torn only
/// if it is larger than a write may be.
pub(super) fn writes(group: &[Commit]) -> Result<Vec<Write>, CommitError> {
    let mut writes = Vec::new();
    let mut current = Write::default();
    for commit in group {
        for next in write_of(&commit.changes)?.pieces() {
            // What is emptied may be in the write before.
            if !current.is_empty() && (current.is_full_with(&next) || !next.emptied.is_empty()) {
                writes.push(std::mem::take(&mut current));
            }
            current.records.extend(next.records);
            current.emptied.extend(next.emptied);
        }
    }
    if !current.is_empty() {
        writes.push(current);
    }
    Ok(writes)
}

fn write_of(changes: &[RegistryChange]) -> Result<Write, CommitError> {
    let mut write = Write::default();
    for change in changes {
        let record = key(&record_of(change))?;
        let value = (!is_removal(change)).then(|| encode(&record, change)).transpose()?;
        write.records.insert(record, value);
        match change {
            RegistryChange::RemoveAgent { id } => {
                for group in [RESERVATIONS, DRAINS] {
                    write.records.insert(key(&format!("{group}/{id}"))?, None);
                }
            }
            RegistryChange::RemoveFramework { id } => {
                let ids = key(&format!("{TASK_IDS}/{id}"))?.below();
                write.records.retain(|record, _| !ids.contains(record));
                write.emptied.push(ids);
            }
            _ => {}
        }
    }
    Ok(write)
}

fn record_of(change: &RegistryChange) -> String {
    match change {
        RegistryChange::PutAgent { id, .. } | RegistryChange::RemoveAgent { id } => format!("{AGENTS}/{id}"),
        RegistryChange::PutFramework { id, .. } | RegistryChange::RemoveFramework { id } => {
            format!("{FRAMEWORKS}/{id}")
        }
        RegistryChange::PutQuota { role, .. } => format!("{QUOTAS}/{role}"),
        RegistryChange::PutWeight { role, .. } => format!("{WEIGHTS}/{role}"),
        RegistryChange::PutReservations { agent, .. } => format!("{RESERVATIONS}/{agent}"),
        RegistryChange::PutDrain { agent, .. } => format!("{DRAINS}/{agent}"),
        RegistryChange::PutMaintenance { .. } => format!("{MAINTENANCE}/schedule"),
        RegistryChange::PutTaskIds { framework, bucket: TaskIdBucket::Numbered(prefix), .. } => {
            format!("{TASK_IDS}/{framework}/n-{prefix}")
        }
        RegistryChange::PutTaskIds { framework, bucket: TaskIdBucket::Hashed(bucket), .. } => {
            format!("{TASK_IDS}/{framework}/h-{bucket}")
        }
    }
}

/// Whether nothing is left to remember.
fn is_removal(change: &RegistryChange) -> bool {
    match change {
        RegistryChange::PutAgent { .. } | RegistryChange::PutFramework { .. } => false,
        RegistryChange::PutQuota { quota, .. } => quota.is_none(),
        RegistryChange::PutWeight { weight, .. } => weight.is_none(),
        RegistryChange::PutReservations { reserved, volumes, .. } => {
            reserved.is_empty() && volumes.is_empty()
        }
        RegistryChange::PutDrain { deactivated, drain, .. } => !deactivated && drain.is_none(),
        RegistryChange::PutMaintenance { windows } => windows.is_empty(),
        RegistryChange::PutTaskIds { ids: UsedTaskIds::Numbers(ranges), .. } => ranges.is_empty(),
        RegistryChange::PutTaskIds { ids: UsedTaskIds::Hashes(hashes), .. } => hashes.is_empty(),
        RegistryChange::RemoveAgent { .. } | RegistryChange::RemoveFramework { .. } => true,
    }
}

fn key(text: &str) -> Result<Key, CommitError> {
    Key::new(text).map_err(CommitError::Store)
}

fn encode(key: &Key, change: &RegistryChange) -> Result<Bytes, CommitError> {
    let encoded = serde_json::to_vec(change);
    encoded.map(Bytes::from).map_err(|source| CommitError::Encode { key: key.clone(), source })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use divvy_proto::ids::FrameworkId;
    use divvy_proto::role::RolePath;
    use divvy_proto::scheduler::FrameworkInfo;

    use super::*;
    use crate::kernel::PersistToken;

    fn commit(token: u64, changes: impl IntoIterator<Item = RegistryChange>) -> Commit {
        Commit { token: PersistToken(token), changes: changes.into_iter().collect() }
    }

    fn framework(id: &str, size: usize) -> RegistryChange {
        RegistryChange::PutFramework {
            id: FrameworkId::new(id).unwrap(),
            info: FrameworkInfo {
                id: None,
                name: "x".repeat(size),
                user: None,
                roles: vec![RolePath::default()],
                principal: None,
                failover_timeout: Duration::from_secs(1),
                url: None,
                labels: BTreeMap::new(),
                capabilities: Default::default(),
            },
            disconnected: None,
            retired: false,
        }
    }

    fn task_ids(framework: &str, bucket: TaskIdBucket, ids: UsedTaskIds) -> RegistryChange {
        RegistryChange::PutTaskIds { framework: framework.parse().unwrap(), bucket, ids }
    }

    fn keys(group: &[Commit]) -> Vec<Vec<String>> {
        let names = |write: &Write| write.records.keys().map(ToString::to_string).collect();
        writes(group).unwrap().iter().map(names).collect()
    }

    #[test]
    fn a_group_is_one_write_and_the_last_change_counts() {
        let group = [commit(1, [framework("a", 1), framework("b", 1)]), commit(2, [framework("a", 2)])];
        assert_eq!(keys(&group), [["registry/frameworks/a", "registry/frameworks/b"]]);
        let written = writes(&group).unwrap();
        let a = written[0].records[&Key::new("registry/frameworks/a").unwrap()].clone().unwrap();
        assert_eq!(serde_json::from_slice::<RegistryChange>(&a).unwrap(), group[1].changes[0]);
    }

    #[test]
    fn a_group_that_is_too_large_is_cut_between_commits() {
        let large = LARGEST_WRITE.1 / 2;
        let group = [
            commit(1, [framework("a", large)]),
            commit(2, [framework("b", large), framework("c", 1)]),
            commit(3, [framework("d", 1)]),
        ];
        let expected: [&[&str]; 2] = [
            &["registry/frameworks/a"],
            &["registry/frameworks/b", "registry/frameworks/c", "registry/frameworks/d"],
        ];
        assert_eq!(keys(&group), expected);
        let many: Vec<Commit> = (0..250).map(|n| commit(n, [framework(&format!("f{n}"), 1)])).collect();
        assert_eq!(keys(&many).iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50]);
        let one = commit(1, (0..250).map(|n| framework(&format!("f{n:03}"), 1)));
        assert_eq!(keys(&[one]).iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50]);
    }

    #[test]
    fn each_change_has_its_record_and_one_that_says_nothing_removes_it() {
        let (agent, role): (divvy_proto::AgentId, RolePath) =
            ("a1-3".parse().unwrap(), "eng/ads".parse().unwrap());
        let numbered = || TaskIdBucket::Numbered("web.".to_owned());
        let changes = [
            RegistryChange::PutQuota { role: "*".parse().unwrap(), quota: Some(Default::default()) },
            RegistryChange::PutQuota { role: role.clone(), quota: None },
            RegistryChange::PutWeight { role: role.clone(), weight: Some(Default::default()) },
            RegistryChange::PutReservations { agent: agent.clone(), reserved: vec![], volumes: vec![] },
            RegistryChange::PutDrain { agent, deactivated: true, drain: None },
            RegistryChange::PutMaintenance { windows: vec![] },
            task_ids("f1-2", numbered(), UsedTaskIds::Numbers(vec![(1, 9)])),
            task_ids("f1-2", TaskIdBucket::Hashed(17), UsedTaskIds::Hashes(vec![])),
        ];
        let written = writes(&[commit(1, changes)]).unwrap();
        let records: Vec<_> =
            written[0].records.iter().map(|(key, value)| (key.as_str(), value.is_some())).collect();
        let expected = [
            ("registry/drains/a1-3", true),
            ("registry/maintenance/schedule", false),
            ("registry/quotas/*", true),
            ("registry/quotas/eng/ads", false),
            ("registry/reservations/a1-3", false),
            ("registry/task-ids/f1-2/h-17", false),
            ("registry/task-ids/f1-2/n-web.", true),
            ("registry/weights/eng/ads", true),
        ];
        assert_eq!(records, expected);
    }

    #[test]
    fn with_an_agent_or_a_framework_all_goes_that_is_about_it() {
        let ids = task_ids("f1", TaskIdBucket::Hashed(1), UsedTaskIds::Hashes(vec![7]));
        let others = task_ids("f10", TaskIdBucket::Hashed(1), UsedTaskIds::Hashes(vec![7]));
        let group = [
            commit(1, [ids.clone(), others]),
            commit(2, [ids, RegistryChange::RemoveFramework { id: "f1".parse().unwrap() }]),
            commit(3, [RegistryChange::RemoveAgent { id: "a1".parse().unwrap() }]),
        ];
        let expected: [&[&str]; 2] = [
            &["registry/task-ids/f1/h-1", "registry/task-ids/f10/h-1"],
            &[
                "registry/agents/a1",
                "registry/drains/a1",
                "registry/frameworks/f1",
                "registry/reservations/a1",
            ],
        ];
        assert_eq!(keys(&group), expected);
        let emptied: Vec<_> = writes(&group).unwrap().into_iter().flat_map(|write| write.emptied).collect();
        assert_eq!(emptied, [Key::new("registry/task-ids/f1").unwrap().below()]);
    }
}
