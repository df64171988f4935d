//! Removes directories in which somebody may have made as deep a tree as he could: the standard library holds a descriptor for
//! each level, and gives up when there are no more.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::LONG;

/// Removes a directory with all that is in it. Links are removed, not followed. Nobody may make anything in it meanwhile.
///
/// # Errors
/// It is not there, or something resists.
pub(crate) fn remove_all(directory: &Path) -> io::Result<()> {
    let root: Rc<OwnedFd> = Rc::new(File::open(directory)?.into());
    let mut steps = vec![Step::Empty(At { base: root, below: PathBuf::from(".") })];
    while let Some(step) = steps.pop() {
        match step {
            Step::Empty(at) => empty(at, &mut steps)?,
            Step::Remove(at) => match unlinkat(&at.base, &at.below, UnlinkatFlags::RemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno.into()),
            },
        }
    }
    fs::remove_dir(directory)
}

struct At {
    base: Rc<OwnedFd>,
    below: PathBuf,
}

/// The last of them comes next.
enum Step {
    /// Remove what is in a directory.
    Empty(At),
    /// Remove a directory that is empty by then.
    Remove(At),
}

fn empty(at: At, steps: &mut Vec<Step>) -> io::Result<()> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let opened = match openat2(&at.base, &at.below, how) {
        // Somebody else removes it, too.
        Err(Errno::ENOENT) => return Ok(()),
        other => other?,
    };
    let (base, below) = match at.below.as_os_str().len() > LONG {
        true => (Rc::new(opened.try_clone()?), PathBuf::new()),
        false => (at.base, at.below),
    };
    let mut directory = Dir::from_fd(opened)?;
    let names: Vec<_> =
        directory.iter().map(|entry| entry.map(|entry| entry.file_name().to_owned())).collect();
    for name in names {
        let name = name?;
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match unlinkat(directory.as_fd(), name.as_c_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            // What unlink says of a directory, here and on other systems.
            Err(Errno::EISDIR | Errno::EPERM) => {
                let below = below.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
                steps.push(Step::Remove(At { base: base.clone(), below: below.clone() }));
                steps.push(Step::Empty(At { base: base.clone(), below }));
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::sys::stat::{Mode, mkdirat};

    use super::*;

    #[test]
    fn the_deepest_tree_goes_and_what_links_lead_to_stays() {
        let work = tempfile::tempdir().unwrap();
        let (root, kept) = (work.path().join("root"), work.path().join("kept"));
        for directory in [&root, &kept] {
            fs::create_dir_all(directory.join("sub")).unwrap();
            fs::write(directory.join("sub/file"), "").unwrap();
        }
        symlink(&kept, root.join("way")).unwrap();
        symlink("/no/such", root.join("nowhere")).unwrap();
        // Deeper than the kernel takes a path.
        let mut at: OwnedFd = File::open(&root).unwrap().into();
        for _ in 0..3_000 {
            mkdirat(&at, "d", Mode::S_IRWXU).unwrap();
            at = openat2(&at, "d", OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY)).unwrap();
        }
        remove_all(&root).unwrap();
        assert!(!root.exists() && kept.join("sub/file").exists());
        assert_eq!(remove_all(&root).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
