//! Places in a root file system that is not to be trusted: an image and a sandbox may hold symbolic links, and before the root
//! has changed these would lead to the host's files. The kernel resolves each path below the root, and what it found is used by
//! its descriptor.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, SYSFS_MAGIC, fstatfs};
use nix::unistd::{Gid, Uid, fchownat};

/// What becomes of symbolic links on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// They are refused.
    Refused,
    /// They lead to where they would in the container.
    Inside,
}

/// What is to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

impl Kind {
    /// What somebody's file is, if it can be mounted at all.
    pub(super) fn of(file: impl AsFd) -> Result<Self, String> {
        let stat = fstat(file).map_err(|errno| errno.desc().to_owned())?;
        match kind(&stat) {
            SFlag::S_IFDIR => Ok(Self::Directory),
            SFlag::S_IFREG | SFlag::S_IFSOCK => Ok(Self::File),
            _ => Err("it is neither a directory nor a file nor a socket".to_owned()),
        }
    }
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// A directory below which paths are looked for.
#[derive(Debug)]
pub(super) struct Ground {
    root: OwnedFd,
    links: Links,
    /// Who gets what is made; root if absent.
    owner: Option<(u32, u32)>,
}

/// What is said where there is nothing.
pub(super) const MISSING: &str = "there is no such file";

/// Something that was found, for as long as this lives.
#[derive(Debug)]
pub(super) struct Found(OwnedFd);

impl Found {
    /// A path that leads to it, and to nothing else.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

impl AsFd for Found {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Ground {
    pub(super) fn open(root: &Path, links: Links) -> std::io::Result<Self> {
        Ok(Self { root: File::open(root)?.into(), links, owner: None })
    }

    /// What is made here is this user's.
    pub(super) fn owned_by(self, (uid, gid): (u32, u32)) -> Self {
        Self { owner: Some((uid, gid)), ..self }
    }

    /// Finds what there is, whatever it is.
    ///
    /// # Errors
    /// Why not, for people.
    pub(super) fn find_any(&self, path: &Path) -> Result<Found, String> {
        self.look(&plain(path)?).map_err(|errno| self.why(errno))
    }

    /// Finds what there is.
    ///
    /// # Errors
    /// Why not, for people.
    pub(super) fn find(&self, path: &Path, kind: Kind) -> Result<Found, String> {
        let found = self.look(&plain(path)?).map_err(|errno| self.why(errno))?;
        suits(&found, kind)?;
        Ok(found)
    }

    /// Finds what there is, or makes it, with the directories above it.
    ///
    /// # Errors
    /// Why not, for people.
    pub(super) fn find_or_make(&self, path: &Path, kind: Kind) -> Result<Found, String> {
        let path = plain(path)?;
        match self.look(&path) {
            Err(Errno::ENOENT) => {}
            Ok(found) => return suits(&found, kind).map(|()| found),
            Err(errno) => return Err(self.why(errno)),
        }
        let mut at = self.look(Path::new("")).map_err(|errno| self.why(errno))?;
        let parts: Vec<_> = path.iter().collect();
        let mut way = PathBuf::new();
        for (index, part) in parts.iter().enumerate() {
            way.push(part);
            let kind = if index + 1 == parts.len() { kind } else { Kind::Directory };
            at = match self.look(&way) {
                Err(Errno::ENOENT) => {
                    self.make(&at, Path::new(part), kind).map_err(|errno| self.why(errno))?
                }
                other => other.map_err(|errno| self.why(errno))?,
            };
        }
        suits(&at, kind)?;
        Ok(at)
    }

    fn look(&self, path: &Path) -> Result<Found, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = match self.links {
            Links::Refused => ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS,
            Links::Inside => ResolveFlag::RESOLVE_IN_ROOT,
        };
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(resolve | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.root, path, how).map(Found)
    }

    fn make(&self, parent: &Found, name: &Path, kind: Kind) -> Result<Found, Errno> {
        match kind {
            Kind::Directory => mkdirat(parent, name, Mode::from_bits_truncate(0o755))?,
            Kind::File => {
                let new = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
                drop(openat(parent, name, new, Mode::from_bits_truncate(0o644))?);
            }
        }
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        let made = openat2(parent, name, how)?;
        if let Some((uid, gid)) = self.owner {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            fchownat(&made, "", uid, gid, AtFlags::AT_EMPTY_PATH)?;
        }
        Ok(Found(made))
    }

    fn why(&self, errno: Errno) -> String {
        match errno {
            Errno::ELOOP if self.links == Links::Refused => {
                "a part of the path is a symbolic link".to_owned()
            }
            Errno::EEXIST => "a part of the path is a symbolic link that leads nowhere".to_owned(),
            Errno::ENOTDIR => "a part of the path is not a directory".to_owned(),
            Errno::ENOENT => MISSING.to_owned(),
            errno => errno.desc().to_owned(),
        }
    }
}

/// The path below the ground.
fn plain(path: &Path) -> Result<PathBuf, String> {
    let parts = path.components().filter(|part| !matches!(part, Component::RootDir));
    let names = parts.map(|part| match part {
        Component::Normal(name) => Ok(name),
        _ => Err("the path is not plain".to_owned()),
    });
    names.collect()
}

fn suits(found: &Found, wanted: Kind) -> Result<(), String> {
    let stat = fstat(found).map_err(|errno| errno.desc().to_owned())?;
    match (kind(&stat), wanted) {
        (SFlag::S_IFDIR, Kind::Directory) => {}
        (SFlag::S_IFDIR, Kind::File) => return Err("there is a directory".to_owned()),
        (_, Kind::Directory) => return Err("a part of the path is not a directory".to_owned()),
        (_, Kind::File) => {}
    }
    // What is mounted over a part of these could pretend to be what the kernel says (CVE-2019-16884).
    match fstatfs(found).map(|file_system| file_system.filesystem_type()) {
        Ok(PROC_SUPER_MAGIC | SYSFS_MAGIC) => Err("it is below /proc or /sys".to_owned()),
        Ok(_) => Ok(()),
        Err(errno) => Err(errno.desc().to_owned()),
    }
}
