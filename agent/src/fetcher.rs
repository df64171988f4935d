//! Artifacts: from a file of this machine or from http(s) into a sandbox, checked, unpacked, made executable.
//!
//! What a task asks for is not trusted: a file is opened with the rights of the task's user, and neither a path nor an archive
//! leads out of the sandbox. Not here: a cache.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use divvy_proto::task::Artifact;
use flate2::read::MultiGzDecoder;
use futures::StreamExt;
use sha2::{Digest, Sha256};

use crate::causes::causes;
use crate::container::UserName;

/// A server that says nothing for so long is given up (Mesos: 1 min).
const STALLED: Duration = Duration::from_secs(60);
/// An artifact takes at most this long in all.
const TOO_LONG: Duration = Duration::from_secs(30 * 60);
/// An archive holds at most so many bytes and entries: a small one must not fill the disk.
const MAX_UNPACKED: u64 = 64 << 30;
const MAX_ENTRIES: usize = 1_000_000;

/// Why an artifact is not in the sandbox.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The URI, the checksum or the path is not one.
    #[error("artifact {uri}: {what}")]
    Invalid { uri: String, what: String },
    /// It is not there, may not be read, or cannot be written.
    #[error("artifact {uri}: cannot {what}: {source}")]
    File { uri: String, what: &'static str, source: io::Error },
    /// A server does not have it or did not deliver it.
    #[error("artifact {uri}: {what}")]
    Download { uri: String, what: String },
    /// It is not what was promised.
    #[error("artifact {uri}: its SHA-256 is {found}, not {expected}")]
    Checksum { uri: String, expected: String, found: String },
}

/// Fetches artifacts; one connection pool for all tasks of an agent. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Fetcher {
    http: reqwest::Client,
}

/// Where an artifact comes from.
enum Origin {
    File(PathBuf),
    Web(reqwest::Url),
}

impl Fetcher {
    pub(crate) fn new() -> Result<Self, reqwest::Error> {
        let http =
            reqwest::Client::builder().connect_timeout(STALLED).read_timeout(STALLED).timeout(TOO_LONG);
        Ok(Self { http: http.build()? })
    }

    /// Puts one artifact into a sandbox in which nothing runs yet.
    pub(crate) async fn fetch(
        &self,
        artifact: &Artifact,
        sandbox: &Path,
        user: &UserName,
    ) -> Result<(), FetchError> {
        let uri = &artifact.uri;
        let failed = |what: &'static str| move |source| FetchError::File { uri: uri.clone(), what, source };
        let origin = origin(artifact)?;
        let target = target(artifact)?;
        let mut temporary =
            tempfile::NamedTempFile::new_in(sandbox).map_err(failed("write into the sandbox"))?;
        let found = match origin {
            Origin::File(path) => {
                copy(uri.clone(), path, user.clone(), temporary.reopen().map_err(failed("write"))?).await?
            }
            Origin::Web(url) => self.download(uri, url, temporary.as_file_mut()).await?,
        };
        if let Some(expected) = artifact.sha256.as_ref().filter(|expected| **expected != found) {
            return Err(FetchError::Checksum { uri: uri.clone(), expected: expected.clone(), found });
        }
        let (artifact, sandbox) = (artifact.clone(), sandbox.to_owned());
        blocking(uri, move || place(&artifact, &sandbox, &target, temporary)).await
    }

    async fn download(&self, uri: &str, url: reqwest::Url, to: &mut File) -> Result<String, FetchError> {
        let failed =
            |error: reqwest::Error| FetchError::Download { uri: uri.to_owned(), what: causes(&error) };
        let response = self.http.get(url).send().await.map_err(failed)?;
        let status = response.status();
        if !status.is_success() {
            return Err(FetchError::Download {
                uri: uri.to_owned(),
                what: format!("the server answers {status}"),
            });
        }
        let (mut digest, mut body) = (Sha256::new(), response.bytes_stream());
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(failed)?;
            digest.update(&chunk);
            // A write to the page cache, of a few KiB: not worth another thread.
            let write =
                |source| FetchError::File { uri: uri.to_owned(), what: "write into the sandbox", source };
            to.write_all(&chunk).map_err(write)?;
        }
        Ok(hexadecimal(digest))
    }
}

fn origin(artifact: &Artifact) -> Result<Origin, FetchError> {
    let invalid = |what: &str| FetchError::Invalid { uri: artifact.uri.clone(), what: what.to_owned() };
    let uri = artifact.uri.as_str();
    if uri.starts_with("http://") || uri.starts_with("https://") {
        if artifact.sha256.is_none() {
            return Err(invalid("what comes from http or https needs a sha256"));
        }
        return reqwest::Url::parse(uri).map(Origin::Web).map_err(|error| invalid(&error.to_string()));
    }
    match uri.strip_prefix("file://").unwrap_or(uri) {
        path if path.starts_with('/') => Ok(Origin::File(PathBuf::from(path))),
        _ => Err(invalid("expected an absolute path, file:///…, http://… or https://…")),
    }
}

/// Where in the sandbox an artifact goes: a file, or with `extract` the directory into which it is unpacked (the sandbox
/// itself by default).
fn target(artifact: &Artifact) -> Result<PathBuf, FetchError> {
    let invalid = |what: String| FetchError::Invalid { uri: artifact.uri.clone(), what };
    let path = match (&artifact.path, artifact.extract) {
        (Some(path), _) => path.as_str(),
        (None, true) => ".",
        (None, false) => {
            let name = artifact.uri.split(['?', '#']).next().and_then(|path| path.rsplit('/').next());
            name.filter(|name| !name.is_empty())
                .ok_or_else(|| invalid("it needs a path: its URI has no name".to_owned()))?
        }
    };
    let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if path.is_empty() || !Path::new(path).components().all(inside) {
        return Err(invalid(format!("the path {path:?} is not one inside the sandbox")));
    }
    Ok(PathBuf::from(path))
}

/// Copies a file of this machine, read with the rights of `user`, and returns its SHA-256.
async fn copy(uri: String, path: PathBuf, user: UserName, mut to: File) -> Result<String, FetchError> {
    let named = uri.clone();
    blocking(&named, move || {
        let failed = |what: &'static str| {
            let uri = uri.clone();
            move |source| FetchError::File { uri, what, source }
        };
        let mut from = open_as(&path, &user).map_err(failed("read it as the task's user"))?;
        let (mut digest, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
        loop {
            let count = from.read(&mut buffer).map_err(failed("read it"))?;
            let Some(chunk) = buffer.get(..count).filter(|chunk| !chunk.is_empty()) else { break };
            digest.update(chunk);
            to.write_all(chunk).map_err(failed("write into the sandbox"))?;
        }
        Ok(hexadecimal(digest))
    })
    .await
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

/// Moves or unpacks what was fetched to where it belongs.
fn place(
    artifact: &Artifact,
    sandbox: &Path,
    target: &Path,
    fetched: tempfile::NamedTempFile,
) -> Result<(), FetchError> {
    let uri = &artifact.uri;
    let failed = |what: &'static str| move |source| FetchError::File { uri: uri.clone(), what, source };
    if artifact.extract {
        let directory =
            make_directories(sandbox, target).map_err(failed("make its directory in the sandbox"))?;
        let archive = fetched.reopen().map_err(failed("read it"))?;
        return unpack(archive, &directory).map_err(failed("unpack it"));
    }
    let parent = target.parent().unwrap_or(Path::new(""));
    let directory = make_directories(sandbox, parent).map_err(failed("make its directory in the sandbox"))?;
    let mode = if artifact.executable { 0o755 } else { 0o644 };
    let permissions = fs::Permissions::from_mode(mode);
    fetched.as_file().set_permissions(permissions).map_err(failed("set its mode"))?;
    let path = directory.join(target.file_name().unwrap_or_default());
    fetched.persist(path).map_err(|error| failed("write into the sandbox")(error.error))?;
    Ok(())
}

/// Makes the directories of `path` below `sandbox`, and follows no link, for an earlier archive may have brought one.
fn make_directories(sandbox: &Path, path: &Path) -> io::Result<PathBuf> {
    let mut directory = sandbox.to_owned();
    for part in path.components().filter(|part| matches!(part, Component::Normal(_))) {
        directory.push(part);
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ if fs::symlink_metadata(&directory)?.is_dir() => {}
            _ => return Err(io::Error::other(format!("{} is not a directory", directory.display()))),
        }
    }
    Ok(directory)
}

/// Unpacks a tar or tar.gz archive: files, directories and links, none of which may lie outside of `directory`.
fn unpack(mut archive: File, directory: &Path) -> io::Result<()> {
    let mut magic = [0; 2];
    let count = archive.read(&mut magic)?;
    io::Seek::rewind(&mut archive)?;
    match count == 2 && magic == [0x1f, 0x8b] {
        true => unpack_tar(MultiGzDecoder::new(archive), directory),
        false => unpack_tar(archive, directory),
    }
}

fn unpack_tar(archive: impl Read, directory: &Path) -> io::Result<()> {
    use tar::EntryType::{Directory, GNUSparse, Link, Regular, Symlink};
    let mut archive = tar::Archive::new(archive.take(MAX_UNPACKED));
    archive.set_overwrite(true);
    for (index, entry) in archive.entries()?.enumerate() {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let refused = |why: &str| Err(io::Error::other(format!("{}: {why}", path.display())));
        if index >= MAX_ENTRIES {
            return refused("the archive has too many entries");
        }
        match entry.header().entry_type() {
            Regular | Directory | Link | Symlink | GNUSparse => {}
            tar::EntryType::XGlobalHeader => continue,
            _ => return refused("it is neither a file, a directory nor a link"),
        }
        if !entry.unpack_in(directory)? {
            return refused("it would lie outside of the sandbox");
        }
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(
    uri: &str,
    work: impl FnOnce() -> Result<T, FetchError> + Send + 'static,
) -> Result<T, FetchError> {
    let died = |_| FetchError::Download { uri: uri.to_owned(), what: "the fetcher was stopped".to_owned() };
    tokio::task::spawn_blocking(work).await.map_err(died)?
}

fn hexadecimal(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
