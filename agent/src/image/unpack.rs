//! A layer's archive becomes a directory that the overlay file system takes as a lower one: whiteouts become devices 0/0, and
//! opaque directories have the attribute `trusted.overlay.opaque` (Linux, Documentation/filesystems/overlayfs.rst).
//!
//! The archive is not trusted: see [`super::tree`] for paths. Devices are refused, attributes are chosen, and sizes are limited.

use std::ffi::OsStr;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};

use super::error::LayerError;
use super::layer::{self, Noting};
use super::tar::{Entries, Entry, Kind};
use super::tree::{self, Tree};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What the file systems of old put beside; means nothing.
const META: &[u8] = b".wh..wh.";
const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

/// How much a layer may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Of its files' content, and of its archive.
    pub(crate) bytes: u64,
    /// Files, directories and all else.
    pub(crate) entries: u64,
    /// So many bytes of the file system are left to others.
    pub(crate) spare: u64,
}

impl Default for Limits {
    /// Large enough for any image that people make, small enough that a bomb ends.
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 2_000_000, spare: 256 << 20 }
    }
}

/// What a layer turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unpacked {
    /// Of its file.
    pub(super) digest: String,
    /// Of the archive in it: its diff id.
    pub(super) diff_id: String,
    /// Of the contents of its files.
    pub(super) size: u64,
}

/// Unpacks the layer in `blob`, which has at most `most` bytes, into the empty directory `into`. The caller compares the digests
/// before anybody uses the directory.
///
/// # Errors
/// It is no layer, or not an honest one, or cannot be written. What was written until then stays.
pub(super) fn unpack(
    blob: impl Read,
    most: u64,
    into: &Path,
    limits: Limits,
) -> Result<Unpacked, LayerError> {
    let mut blob = Noting::new(blob, most);
    let (size, diff_id) = {
        let archive =
            layer::archive(BufReader::with_capacity(1 << 16, &mut blob)).map_err(LayerError::Read)?;
        let archive = BufReader::with_capacity(1 << 16, Noting::new(archive, limits.bytes));
        let mut layer = Layer::new(into, limits)?;
        let mut entries = Entries::new(archive);
        while let Some(entry) = entries.next()? {
            layer.put(&entry, &mut entries)?;
        }
        let size = layer.finish()?;
        let mut archive = entries.into_inner();
        io::copy(&mut archive, &mut io::sink()).map_err(LayerError::Read)?;
        (size, archive.into_inner().finish().map_err(LayerError::Read)?.0)
    };
    let (digest, _) = blob.finish().map_err(LayerError::Read)?;
    Ok(Unpacked { digest, diff_id, size })
}

/// A layer while it is written.
struct Layer {
    tree: Tree,
    limits: Limits,
    entries: u64,
    size: u64,
    /// Of `size`, at which the file system was last asked.
    asked: u64,
    /// Directories get their times when nothing is put into them any more.
    times: Vec<(Vec<u8>, (i64, u32))>,
}

/// How often the file system is asked what it has left.
const ASK: u64 = 64 << 20;

impl Layer {
    fn new(into: &Path, limits: Limits) -> Result<Self, LayerError> {
        let tree = Tree::open(into)
            .map_err(|source| LayerError::Write { path: into.display().to_string(), source })?;
        Ok(Self { tree, limits, entries: 0, size: 0, asked: 0, times: Vec::new() })
    }

    fn put(&mut self, entry: &Entry, content: &mut impl Read) -> Result<(), LayerError> {
        self.count(entry)?;
        let refused = |why| LayerError::Refused { path: entry.name(), why };
        let parts = tree::parts(&entry.path).map_err(refused)?;
        let Some((name, parent)) = parts.split_last() else {
            return match entry.kind {
                Kind::Directory => self.top(entry),
                _ => Err(refused("it stands for the whole layer")),
            };
        };
        if parent.iter().any(|name| name.as_bytes().starts_with(WHITEOUT)) {
            return Err(refused("it lies below a whiteout"));
        }
        let written = if name.as_bytes().starts_with(WHITEOUT) {
            self.white_out(parent, name.as_bytes())
        } else {
            match entry.kind {
                Kind::Device => return Err(refused("devices in images are refused")),
                Kind::Other => return Err(refused("it is neither a file, a directory nor a link")),
                Kind::HardLink => self.link(entry, parent, name),
                _ => self.make(entry, parent, name, content),
            }
        };
        written.map_err(|error| error.about(entry))
    }

    fn count(&mut self, entry: &Entry) -> Result<(), LayerError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(LayerError::TooLarge(format!("more than {} files", self.limits.entries)));
        }
        if entry.kind != Kind::File {
            return Ok(());
        }
        self.size = self.size.saturating_add(entry.size);
        if self.size > self.limits.bytes {
            return Err(LayerError::TooLarge(format!(
                "its files have more than {} bytes, {} of them in {:?}",
                self.limits.bytes,
                entry.size,
                entry.name()
            )));
        }
        if self.size - self.asked >= ASK || self.asked == 0 {
            self.asked = self.size;
            let left =
                rustix::fs::fstatvfs(self.tree.top()).map_err(|error| LayerError::Read(error.into()))?;
            let left = left.f_bavail.saturating_mul(left.f_frsize);
            if left < self.limits.spare.saturating_add(entry.size) {
                return Err(LayerError::TooLarge(format!("the disk has only {left} bytes left")));
            }
        }
        Ok(())
    }

    fn top(&mut self, entry: &Entry) -> Result<(), LayerError> {
        let set = set_metadata(self.tree.top(), entry).map_err(Trouble::from);
        self.times.push((Vec::new(), entry.modified));
        set.map_err(|error| error.about(entry))
    }

    fn white_out(&mut self, parent: &[&OsStr], name: &[u8]) -> Result<(), Trouble> {
        let directory = self.tree.directory(parent, true)?;
        if name == OPAQUE {
            return Ok(set_opaque(directory)?);
        }
        if name.starts_with(META) {
            return Ok(());
        }
        let hidden = OsStr::from_bytes(name.strip_prefix(WHITEOUT).unwrap_or_default());
        if hidden.is_empty() || hidden == "." || hidden == ".." {
            return Err(Trouble::Refused("it is a whiteout of nothing"));
        }
        match tree::found(directory, hidden)? {
            // What this layer has itself hides what is below, but the contents of directories are merged.
            Some(stat) if tree::kind(&stat) == FileType::Directory => {
                Ok(set_opaque(open(directory, hidden)?)?)
            }
            Some(_) => Ok(()),
            None => {
                let mode = Mode::empty();
                Ok(rustix::fs::mknodat(directory, hidden, FileType::CharacterDevice, mode, 0)?)
            }
        }
    }

    fn link(&mut self, entry: &Entry, parent: &[&OsStr], name: &OsStr) -> Result<(), Trouble> {
        let target = tree::parts(&entry.link).map_err(Trouble::Refused)?;
        let Some((old, old_parent)) = target.split_last() else {
            return Err(Trouble::Refused("it is a hard link to the whole layer"));
        };
        let not_there = |_| Trouble::Refused("it is a hard link to what is not in this layer");
        let from = self.tree.directory(old_parent, false).map_err(not_there)?.try_clone_to_owned()?;
        match tree::found(from.as_fd(), old)?.map(|stat| tree::kind(&stat)) {
            Some(FileType::RegularFile | FileType::Symlink | FileType::Fifo) => {}
            Some(_) => return Err(Trouble::Refused("it is a hard link to what is not a file")),
            None => return Err(Trouble::Refused("it is a hard link to what is not in this layer")),
        }
        if target.iter().eq(parent.iter().chain([&name])) {
            return Ok(());
        }
        let directory = self.tree.directory(parent, true)?;
        clear(directory, name)?;
        Ok(rustix::fs::linkat(from, *old, directory, name, AtFlags::empty())?)
    }

    fn make(
        &mut self,
        entry: &Entry,
        parent: &[&OsStr],
        name: &OsStr,
        content: &mut impl Read,
    ) -> Result<(), Trouble> {
        if entry.kind == Kind::Directory {
            self.times.push((entry.path.clone(), entry.modified));
            // It may be a link that becomes a directory.
            self.tree.forget();
        }
        let directory = self.tree.directory(parent, true)?;
        match entry.kind {
            Kind::Directory => make_directory(directory, name, entry),
            Kind::Symlink => {
                clear(directory, name)?;
                rustix::fs::symlinkat(OsStr::from_bytes(&entry.link), directory, name)?;
                Ok(set_metadata_at(directory, name, entry)?)
            }
            Kind::Fifo => {
                clear(directory, name)?;
                rustix::fs::mknodat(directory, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
                rustix::fs::chmodat(directory, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
                Ok(set_metadata_at(directory, name, entry)?)
            }
            _ => make_file(directory, name, entry, content),
        }
    }

    /// Gives directories their times, and returns how large the files are.
    fn finish(mut self) -> Result<u64, LayerError> {
        for (path, modified) in std::mem::take(&mut self.times) {
            let parts = tree::parts(&path).unwrap_or_default();
            // What was a directory may have been replaced since.
            if let Ok(directory) = self.tree.directory(&parts, false) {
                let set = rustix::fs::futimens(directory, &times(modified));
                let path = || String::from_utf8_lossy(&path).into_owned();
                set.map_err(|error| LayerError::Write { path: path(), source: error.into() })?;
            }
        }
        Ok(self.size)
    }
}

/// What goes wrong with one entry.
enum Trouble {
    Refused(&'static str),
    Read(io::Error),
    Io(io::Error),
}

impl Trouble {
    fn about(self, entry: &Entry) -> LayerError {
        let path = entry.name();
        match self {
            Self::Refused(why) => LayerError::Refused { path, why },
            Self::Read(error) => LayerError::Read(error),
            Self::Io(source) => LayerError::Write { path, source },
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOTDIR | libc::ELOOP) => {
                Self::Refused("its path leads through what is not a directory")
            }
            _ => Self::Io(error),
        }
    }
}

impl From<rustix::io::Errno> for Trouble {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}

fn open(directory: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<std::os::fd::OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

fn set_opaque(directory: impl AsFd) -> rustix::io::Result<()> {
    rustix::fs::fsetxattr(directory, OPAQUE_XATTR, b"y", XattrFlags::empty())
}

/// An archive may have a path twice: the later one counts.
fn clear(directory: BorrowedFd<'_>, name: &OsStr) -> Result<(), Trouble> {
    match tree::found(directory, name)? {
        None => Ok(()),
        Some(stat) if tree::kind(&stat) == FileType::Directory => {
            let removed = rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR);
            removed.map_err(|_| Trouble::Refused("it stands where a directory is that is not empty"))
        }
        Some(_) => Ok(rustix::fs::unlinkat(directory, name, AtFlags::empty())?),
    }
}

fn make_directory(parent: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> Result<(), Trouble> {
    let before = tree::found(parent, name)?.map(|stat| tree::kind(&stat));
    if before != Some(FileType::Directory) {
        clear(parent, name)?;
        rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))?;
    }
    let directory = open(parent, name)?;
    if before == Some(FileType::CharacterDevice) {
        // There was a whiteout: what lies below in other layers is gone.
        set_opaque(&directory)?;
    }
    Ok(set_metadata(directory.as_fd(), entry)?)
}

fn make_file(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    entry: &Entry,
    content: &mut impl Read,
) -> Result<(), Trouble> {
    clear(directory, name)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))?;
    let mut file = std::fs::File::from(file);
    let mut buffer = vec![0; usize::try_from(entry.size.clamp(1, 1 << 16)).unwrap_or(1 << 16)];
    loop {
        let count = content.read(&mut buffer).map_err(Trouble::Read)?;
        let Some(chunk) = buffer.get(..count).filter(|chunk| !chunk.is_empty()) else { break };
        file.write_all(chunk)?;
    }
    set_metadata(file.as_fd(), entry)?;
    Ok(rustix::fs::futimens(&file, &times(entry.modified))?)
}

/// The owner first: a change of it takes setuid and capabilities away.
fn set_metadata(file: BorrowedFd<'_>, entry: &Entry) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    rustix::fs::fchown(file, Some(uid), Some(gid))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode))?;
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| is_wanted(name)) {
        match rustix::fs::fsetxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty()) {
            // Not every file system has attributes of every kind.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn set_metadata_at(directory: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::utimensat(directory, name, &times(entry.modified), AtFlags::SYMLINK_NOFOLLOW)
}

/// Those of programs and capabilities, and access control lists. Those of the overlay itself would be tricks, and those of
/// security modules mean nothing on another machine.
fn is_wanted(name: &[u8]) -> bool {
    let is_overlays = name.starts_with(b"user.overlay.");
    let known: [&[u8]; 3] = [b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"];
    !name.contains(&0) && ((name.starts_with(b"user.") && !is_overlays) || known.contains(&name))
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let at = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: at, last_modification: at }
}

#[cfg(test)]
mod tests;
