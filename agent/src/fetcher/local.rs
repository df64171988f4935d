//! Files of this machine, read with no more rights than the task's user has.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{FetchError, blocking, failed, hexadecimal};
use crate::container::UserName;

/// Copies a file of this machine, read with the rights of `user`, and returns its SHA-256.
pub(super) async fn copy(uri: String, path: PathBuf, user: UserName, to: File) -> Result<String, FetchError> {
    let named = uri.clone();
    blocking(&named, move || {
        let from = open_as(&path, &user).map_err(failed(&uri, "read it as the task's user"))?;
        pour(&uri, from, to)
    })
    .await
}

/// Copies a file, and returns its SHA-256.
pub(super) fn pour(uri: &str, mut from: File, mut to: File) -> Result<String, FetchError> {
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        let count = from.read(&mut buffer).map_err(failed(uri, "read it"))?;
        let Some(chunk) = buffer.get(..count).filter(|chunk| !chunk.is_empty()) else { break };
        digest.update(chunk);
        to.write_all(chunk).map_err(failed(uri, "write into the sandbox"))?;
    }
    Ok(hexadecimal(digest))
}

/// Opens a regular file with another user's rights: on a thread of its own, whose credentials are changed and which then ends.
fn open_as(path: &Path, user: &UserName) -> io::Result<File> {
    let account = nix::unistd::User::from_name(user.as_str())?;
    let account =
        account.ok_or_else(|| io::Error::other(format!("user {user} does not exist on this host")))?;
    let path = path.to_owned();
    let open = move || {
        if !nix::unistd::getuid().is_root() {
            return open_regular(&path);
        }
        become_on_this_thread(account.uid.as_raw(), account.gid.as_raw())?;
        open_regular(&path)
    };
    let thread = std::thread::Builder::new().name("fetcher".to_owned()).spawn(open)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that opens files has died")))
}

/// Never blocks, whatever the file is.
fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    // In /proc this thread is the agent, and is shown what the task's user would not be.
    let is_agents_own = rustix::fs::fstatfs(&file)?.f_type == rustix::fs::PROC_SUPER_MAGIC;
    match file.metadata()?.is_file() && !is_agents_own {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

/// The raw system calls act on the calling thread alone; glibc's wrappers would change the whole process.
fn become_on_this_thread(uid: u32, gid: u32) -> io::Result<()> {
    let done = |result: libc::c_long| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: no groups are passed, so no memory is read.
    done(unsafe { libc::syscall(libc::SYS_setgroups, 0_usize, std::ptr::null::<libc::gid_t>()) })?;
    // SAFETY: plain numbers; no memory is involved.
    done(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: plain numbers; no memory is involved.
    done(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })
}
