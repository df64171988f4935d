//! A directory that is filled by strangers: each name in a path is opened below the directory of the one before, and no link
//! is ever followed, so that nothing outside can be reached, whatever the paths and links say.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};

/// Linux's limit of a path; an archive may say anything.
const LONGEST: usize = 4096;

/// A path as its names. A leading slash means the top, as it does for every tool that unpacks images.
///
/// # Errors
/// It climbs, or no file can have it; the text says so.
pub(super) fn parts(path: &[u8]) -> Result<Vec<&OsStr>, &'static str> {
    if path.len() > LONGEST {
        return Err("its path is longer than 4096 bytes");
    }
    if path.contains(&0) {
        return Err("its path has a zero byte");
    }
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    let parts: Vec<_> = names.map(OsStr::from_bytes).collect();
    match parts.iter().any(|name| *name == "..") {
        true => Err("its path climbs out of a directory"),
        false => Ok(parts),
    }
}

/// Opens directories below its own.
pub(super) struct Tree {
    top: OwnedFd,
    /// The one that was asked for last: entries of one directory follow each other.
    last: Option<(Vec<Box<OsStr>>, OwnedFd)>,
}

impl Tree {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let top = rustix::fs::openat(CWD, path, directory(), Mode::empty())?;
        Ok(Self { top, last: None })
    }

    pub(super) fn top(&self) -> BorrowedFd<'_> {
        self.top.as_fd()
    }

    /// The directory at `path`; with `make`, what is missing of it is made.
    ///
    /// # Errors
    /// Something on the way is missing, or is a link or another thing that is no directory (ENOTDIR, ELOOP).
    pub(super) fn directory(&mut self, path: &[&OsStr], make: bool) -> io::Result<BorrowedFd<'_>> {
        let is_last =
            |(last, _): &(Vec<Box<OsStr>>, OwnedFd)| last.iter().map(|name| &**name).eq(path.iter().copied());
        if !self.last.as_ref().is_some_and(is_last) {
            let mut at = self.top.try_clone()?;
            for name in path {
                at = match rustix::fs::openat(&at, *name, directory(), Mode::empty()) {
                    Err(rustix::io::Errno::NOENT) if make => {
                        rustix::fs::mkdirat(&at, *name, Mode::from_raw_mode(0o700))?;
                        let made = rustix::fs::openat(&at, *name, directory(), Mode::empty())?;
                        rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
                        made
                    }
                    opened => opened?,
                };
            }
            self.last = Some((path.iter().map(|name| Box::from(*name)).collect(), at));
        }
        Ok(self.last.as_ref().map_or(self.top.as_fd(), |(_, at)| at.as_fd()))
    }

    /// A directory is about to be removed: it is not remembered any more.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }
}

/// No link is followed, so that ENOTDIR says that there is one.
fn directory() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// What stands at a name, if anything.
pub(super) fn found(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<rustix::fs::Stat>> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn kind(stat: &rustix::fs::Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}
