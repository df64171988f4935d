//! A user namespace: the container's ids, root's included, are ids of the host that belong to nobody there.
//!
//! It is entered last, so the container's other namespaces and its mounts do not belong to it: its root may not even change its own
//! host name. Files come in three kinds. What is the container's for its life (sandbox, upper layer, `/tmp`) is given to the host's ids.
//! What others see, too (an image's layers, volumes), is mounted with its ids mapped, so that on disk they are as they would be without
//! a user namespace. The rest of the host's files belongs to nobody as far as the container can tell.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};

use super::security::Identity;
use super::{step, step_on};
use crate::container::plan::Record;
use crate::container::spec::{ContainerSpec, Root};
use crate::container::{LaunchError, SubIds, sys};

/// A container's user namespace.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct UserNamespace {
    /// The container's root on the host; the other ids follow.
    first: u32,
    /// Directories that are mounted with their ids mapped.
    mapped: Vec<PathBuf>,
    /// What the shim hands to the container's first process, or found one in.
    #[serde(skip)]
    open: Option<OwnedFd>,
}

impl UserNamespace {
    /// Sets ids aside for a container, until [`give_back`].
    pub(super) fn prepare(
        spec: &ContainerSpec,
        subids: SubIds,
        record: &Record,
    ) -> Result<Self, LaunchError> {
        let layers = match &spec.root {
            Root::Host => &[][..],
            Root::Image { layers } => layers,
        };
        let volumes = spec.volumes.iter().map(|volume| &volume.source);
        let mut mapped: Vec<_> = layers.iter().chain(volumes).cloned().collect();
        mapped.sort();
        mapped.dedup();
        Ok(Self { first: claim(Path::new(CLAIMS), subids, record.path())?, mapped, open: None })
    }

    /// Who a user of the container is on the host.
    pub(super) fn outside(&self, inside: &Identity) -> Result<Identity, LaunchError> {
        let all = [inside.uid, inside.gid].into_iter().chain(inside.groups.iter().copied());
        if let Some(beyond) = all.into_iter().find(|id| *id >= SubIds::EACH) {
            return Err(LaunchError::Spec {
                field: "user_namespace".to_owned(),
                value: format!("with id {beyond}"),
                why: format!("it has the ids from 0 to {}", SubIds::EACH - 1),
            });
        }
        let shifted = |id: u32| id + self.first;
        Ok(Identity {
            uid: shifted(inside.uid),
            gid: shifted(inside.gid),
            groups: inside.groups.iter().copied().map(shifted).collect(),
        })
    }

    /// The reverse.
    pub(super) fn inside(&self, outside: &Identity) -> Identity {
        let shifted = |id: u32| id.saturating_sub(self.first);
        Identity {
            uid: shifted(outside.uid),
            gid: shifted(outside.gid),
            groups: outside.groups.iter().copied().map(shifted).collect(),
        }
    }

    /// The host's id of the container's root.
    pub(super) fn root(&self) -> u32 {
        self.first
    }

    /// In the shim: makes the namespace, for the first process to enter.
    pub(crate) fn make(&mut self) -> Result<(), LaunchError> {
        let made = sys::user_namespace(self.first, SubIds::EACH);
        self.open = Some(made.map_err(step("make a user namespace"))?);
        Ok(())
    }

    /// In the shim of a command: finds the namespace that the container's first process is in.
    pub(crate) fn find(&mut self, pid: u32) -> Result<(), LaunchError> {
        let found = File::open(format!("/proc/{pid}/ns/user"));
        self.open = Some(found.map_err(step("find the container's user namespace"))?.into());
        Ok(())
    }

    fn open(&self) -> Result<&OwnedFd, LaunchError> {
        self.open.as_ref().ok_or_else(|| step("enter the user namespace")("the shim has not made it"))
    }

    /// Covers the directories that are to be mapped, by themselves with their ids mapped. Before anything is mounted from them, and
    /// where the host does not see it.
    pub(super) fn map(&self) -> Result<(), LaunchError> {
        self.mapped.iter().try_for_each(|directory| {
            sys::map_mount(directory, self.open()?.as_fd()).map_err(|error| match error.raw_os_error() {
                Some(libc::EINVAL | libc::ENOSYS | libc::EPERM) => step_on("map the ids of", directory)(
                    "a user namespace with volumes or an image needs a kernel and a file system with idmapped mounts (Linux 5.12, \
                     for images 5.19)",
                ),
                _ => step_on("map the ids of", directory)(error),
            })
        })
    }

    /// Moves the calling process into the namespace, in which it then has all rights.
    pub(super) fn enter(&self) -> Result<(), LaunchError> {
        setns(self.open()?, CloneFlags::CLONE_NEWUSER).map_err(step("enter the user namespace"))
    }
}

/// Which ids are in use, by all agents of this machine: a link for each container, named after its first id, that leads to the
/// container's record. Where that is gone, so is the container.
const CLAIMS: &str = "/run/divvy/subids";

fn claim(claims: &Path, subids: SubIds, owner: &Path) -> Result<u32, LaunchError> {
    let failed = || step("set ids aside in /run/divvy/subids");
    DirBuilder::new().recursive(true).mode(0o700).create(claims).map_err(failed())?;
    let _lock = lock(claims).map_err(failed())?;
    let held = held(claims).map_err(failed())?;
    let mut firsts = (0..subids.count / SubIds::EACH).map(|number| subids.first + number * SubIds::EACH);
    let apart = |first: u32| held.iter().all(|other| first.abs_diff(*other) >= SubIds::EACH);
    let first = firsts.find(|first| apart(*first)).ok_or_else(|| {
        let why = format!("all of {subids} are in use; give the agent more with --subuid-range");
        failed()(std::io::Error::other(why))
    })?;
    symlink(owner, claims.join(first.to_string())).map_err(failed())?;
    Ok(first)
}

/// Two agents choose one after the other.
fn lock(claims: &Path) -> io::Result<File> {
    let directory = File::open(claims)?;
    directory.lock()?;
    Ok(directory)
}

/// The ids in use. Forgets those whose owners are gone.
fn held(claims: &Path) -> io::Result<Vec<u32>> {
    let mut held = Vec::new();
    for entry in fs::read_dir(claims)? {
        let path = entry?.path();
        let Some(first) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else { continue };
        if path.exists() { held.push(first) } else { fs::remove_file(&path)? }
    }
    Ok(held)
}

/// Gives back what was set aside for a container, if anything was.
pub(super) fn give_back(record: &Record) -> io::Result<()> {
    let claims = Path::new(CLAIMS);
    let entries = match fs::read_dir(claims) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut paths = entries.flatten().map(|entry| entry.path());
    match paths.find(|path| fs::read_link(path).is_ok_and(|owner| owner == record.path())) {
        Some(path) => fs::remove_file(path),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_containers_have_an_id_in_common_and_those_of_the_gone_are_used_again() {
        let work = tempfile::tempdir().unwrap();
        let claims = work.path().join("claims");
        let owners = ["a", "b", "c"].map(|name| work.path().join(name));
        let range = SubIds { first: 100_000, count: 2 * SubIds::EACH };
        let claim = |owner: &PathBuf| claim(&claims, range, owner);
        owners.iter().for_each(|owner| fs::create_dir(owner).unwrap());
        let [a, b, c] = &owners;
        assert_eq!((claim(a), claim(b)), (Ok(100_000), Ok(165_536)));
        let error = claim(c).unwrap_err().to_string();
        assert!(error.contains("all of 100000:131072 are in use"), "{error}");
        fs::remove_dir(a).unwrap();
        assert_eq!(claim(c), Ok(100_000));
    }

    #[test]
    fn another_agents_range_is_kept_clear_of_even_where_it_begins_elsewhere() {
        let work = tempfile::tempdir().unwrap();
        let claim = |first| claim(work.path(), SubIds { first, count: 3 * SubIds::EACH }, work.path());
        assert_eq!((claim(100_000), claim(130_000)), (Ok(100_000), Ok(130_000 + SubIds::EACH)));
    }
}
