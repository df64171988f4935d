//! A directory beside another, in which what is to go waits for its removal: to throw something away is one rename, whoever
//! does it does not wait for the disk, and what the death of the process leaves there is removed by the next.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;

use tracing::warn;
use uuid::Uuid;

use super::remove_all;

/// What is thrown in is removed in the background, in this order.
#[derive(Debug)]
pub(crate) struct Bin {
    directory: PathBuf,
    /// None while it is dropped.
    orders: Option<mpsc::Sender<PathBuf>>,
    thread: Option<JoinHandle<()>>,
}

impl Bin {
    /// The bin of a directory, on its file system: `DIR.removed`. What lies in it is removed. Only the agent may enter it, as what
    /// is thrown away may have been closed to others by where it was.
    ///
    /// # Errors
    /// It cannot be made or read.
    pub(crate) fn beside(directory: &Path) -> io::Result<Self> {
        let mut name = directory.as_os_str().to_owned();
        name.push(".removed");
        let directory = PathBuf::from(name);
        fs::create_dir_all(&directory)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        // Not bounded: each order is for something that took longer to make.
        let (orders, queue) = mpsc::channel::<PathBuf>();
        for left in fs::read_dir(&directory)? {
            // The queue is read as long as there is a sender.
            let _ = orders.send(left?.path());
        }
        let thread = std::thread::Builder::new().name("removals".to_owned()).spawn(move || {
            for path in queue {
                if let Err(error) = remove(&path) {
                    warn!("{} stays until the next start: {error}", path.display());
                }
            }
        })?;
        Ok(Self { directory, orders: Some(orders), thread: Some(thread) })
    }

    /// Throws a file or a directory away; it has gone from its place when this returns, or was not there.
    ///
    /// # Errors
    /// It cannot be moved.
    pub(crate) fn throw(&self, path: &Path) -> io::Result<()> {
        let gone = self.directory.join(Uuid::new_v4().to_string());
        match fs::rename(path, &gone) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        }
        // Without the thread it is removed at the next start.
        let _ = self.orders.as_ref().map(|orders| orders.send(gone));
        Ok(())
    }
}

/// Waits until all is gone.
impl Drop for Bin {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => remove_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_thrown_away_is_gone_at_once_and_removed_now_or_at_the_next_start() {
        let work = tempfile::tempdir().unwrap();
        let (directory, removed) = (work.path().join("kept"), work.path().join("kept.removed"));
        fs::create_dir_all(directory.join("a/deep")).unwrap();
        fs::write(directory.join("b"), "").unwrap();
        // What an earlier process has left.
        fs::create_dir_all(removed.join("x/deep")).unwrap();
        fs::write(removed.join("y"), "").unwrap();
        let names = |directory: &Path| fs::read_dir(directory).unwrap().count();

        let bin = Bin::beside(&directory).unwrap();
        bin.throw(&directory.join("a")).unwrap();
        bin.throw(&directory.join("b")).unwrap();
        bin.throw(&directory.join("never")).unwrap();
        assert_eq!(names(&directory), 0);
        let mode = fs::metadata(&removed).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "checkpoints have secrets, and are files that everybody might read");
        drop(bin);
        assert_eq!(names(&removed), 0);
    }
}
