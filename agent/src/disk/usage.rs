//! How much of the disk directories take, whoever fills them meanwhile and however deep.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use divvy_proto::Bytes;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{SFlag, fstatat};

use super::LONG;

/// A block of `st_blocks`, whatever the file system's own are.
const BLOCK: u64 = 512;

/// What directories take with all that is in them, in whole blocks. Links are not followed, and a file with several names counts
/// once. One of them that is not there takes nothing.
pub(super) fn used(directories: &[PathBuf]) -> io::Result<Bytes> {
    let mut count = Count::default();
    for directory in directories {
        match File::open(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => count.all_below(opened?.into())?,
        }
    }
    Ok(Bytes::from_bytes(i64::try_from(count.blocks.saturating_mul(BLOCK)).unwrap_or(i64::MAX))
        .unwrap_or(Bytes::ZERO))
}

#[derive(Default)]
struct Count {
    blocks: u64,
    /// The files that have several names, by device and inode.
    seen: BTreeSet<(u64, u64)>,
}

/// A directory that is still to be read.
struct Pending {
    base: Rc<OwnedFd>,
    below: PathBuf,
}

impl Count {
    fn all_below(&mut self, root: OwnedFd) -> io::Result<()> {
        let mut pending = vec![Pending { base: Rc::new(root), below: PathBuf::from(".") }];
        while let Some(next) = pending.pop() {
            match open(&next) {
                Ok(directory) => self.entries(&next, directory, &mut pending)?,
                // It is gone by now, or something else has taken its place.
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn entries(&mut self, at: &Pending, directory: OwnedFd, pending: &mut Vec<Pending>) -> io::Result<()> {
        let (base, below) = match at.below.as_os_str().len() > LONG {
            true => (Rc::new(directory.try_clone()?), Path::new("")),
            false => (at.base.clone(), at.below.as_path()),
        };
        let mut directory = Dir::from_fd(directory)?;
        let names: Vec<_> =
            directory.iter().map(|entry| entry.map(|entry| entry.file_name().to_owned())).collect();
        for name in names {
            let name = name?;
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match fstatat(directory.as_fd(), name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Err(Errno::ENOENT) => continue,
                other => other?,
            };
            if stat.st_nlink < 2 || self.seen.insert((stat.st_dev, stat.st_ino)) {
                self.blocks = self.blocks.saturating_add(u64::try_from(stat.st_blocks).unwrap_or_default());
            }
            if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
                let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name.to_bytes());
                pending.push(Pending { base: base.clone(), below: below.join(name) });
            }
        }
        Ok(())
    }
}

fn open(pending: &Pending) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC).resolve(
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV,
    );
    openat2(&pending.base, &pending.below, how)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A file takes whole blocks, and directories may take some, too: as much as twice.
    fn about(kib: u64, used: Bytes) -> bool {
        (kib..=2 * kib + 256).contains(&(used.as_u64() / 1024))
    }

    #[test]
    fn files_count_once_and_links_lead_nowhere() {
        let work = tempfile::tempdir().unwrap();
        let (one, two, other) = (work.path().join("one"), work.path().join("two"), work.path().join("other"));
        for directory in [&one, &two, &other] {
            fs::create_dir(directory).unwrap();
        }
        fs::write(one.join("file"), vec![1; 512 << 10]).unwrap();
        fs::hard_link(one.join("file"), two.join("again")).unwrap();
        fs::write(other.join("large"), vec![1; 8 << 20]).unwrap();
        symlink(&other, one.join("way")).unwrap();
        symlink(other.join("large"), one.join("large")).unwrap();
        let measured = used(&[one, two, work.path().join("no-such")]).unwrap();
        assert!(about(512, measured), "{measured}");
    }

    #[test]
    fn what_lies_deeper_than_any_path_counts_too() {
        let work = tempfile::tempdir().unwrap();
        let name = "d".repeat(200);
        let mut at: OwnedFd = File::open(work.path()).unwrap().into();
        for _ in 0..100 {
            nix::sys::stat::mkdirat(&at, name.as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
            let how = OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY);
            at = openat2(&at, name.as_str(), how).unwrap();
        }
        let how = OpenHow::new().flags(OFlag::O_CREAT | OFlag::O_WRONLY).mode(nix::sys::stat::Mode::S_IRWXU);
        let file = File::from(openat2(&at, "file", how).unwrap());
        std::io::Write::write_all(&mut &file, &vec![1; 1 << 20]).unwrap();
        let measured = used(&[work.path().to_owned()]).unwrap();
        assert!(about(1024, measured), "{measured}");
    }
}
