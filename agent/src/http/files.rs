//! What lies in a sandbox. Paths come from outside, and links were made by tasks: the kernel itself keeps every step below
//! the sandbox (`RESOLVE_BENEATH`).

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path as FsPath;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use divvy_proto::api::FileEntry;
use divvy_proto::time::{Timestamp, millis};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::{Api, Refusal, task_key};

/// Most entries of one directory that are listed.
const MOST: usize = 10_000;

#[derive(Debug, Deserialize)]
pub(super) struct FilesQuery {
    /// Relative to the sandbox; the sandbox itself by default.
    #[serde(default)]
    pub(super) path: String,
}

pub(super) async fn list(
    State(api): State<Api>,
    Path(task): Path<(String, String)>,
    Query(query): Query<FilesQuery>,
) -> Result<Json<Vec<FileEntry>>, Refusal> {
    let sandbox = api.sandboxes.path(&task_key(task)?);
    let shown = query.path.clone();
    let entries = blocking(move || entries(&open_below(&sandbox, &query.path, ResolveFlags::empty())?)).await;
    entries.map(Json).map_err(|error| refusal(&shown, &error))
}

pub(super) async fn content(
    State(api): State<Api>,
    Path(task): Path<(String, String)>,
    Query(query): Query<FilesQuery>,
) -> Result<Response, Refusal> {
    let sandbox = api.sandboxes.path(&task_key(task)?);
    let shown = query.path.clone();
    let file = blocking(move || open_file(&sandbox, &query.path, ResolveFlags::empty())).await;
    let file = file.map_err(|error| refusal(&shown, &error))?;
    let size = file.metadata().map_err(|error| refusal(&shown, &error))?.len();
    // The file may grow meanwhile; what was promised is what is sent.
    let body = ReaderStream::new(tokio::fs::File::from_std(file).take(size));
    // A sandbox holds whatever a task wrote: never let a browser take it for a page of ours.
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

pub(super) fn refusal(path: &str, error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::NotFound => {
            Refusal::not_found(format!("{path:?} is not in the sandbox of such a task"))
        }
        _ => Refusal(axum::http::StatusCode::BAD_REQUEST, format!("{path:?}: {error}")),
    }
}

/// A regular file below `sandbox`, opened so that nothing it may be can block.
pub(super) fn open_file(sandbox: &FsPath, path: &str, how: ResolveFlags) -> io::Result<File> {
    let file = open_below(sandbox, path, how)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

/// A directory below `sandbox`.
pub(super) fn open_directory(sandbox: &FsPath, path: &str) -> io::Result<File> {
    let directory = open_below(sandbox, path, ResolveFlags::empty())?;
    match directory.metadata()?.is_dir() {
        true => Ok(directory),
        false => Err(io::Error::other("it is not a directory")),
    }
}

fn open_below(sandbox: &FsPath, path: &str, how: ResolveFlags) -> io::Result<File> {
    let root = File::open(sandbox)?;
    let path = match path.trim_start_matches('/') {
        "" => ".",
        path => path,
    };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | how;
    match openat2(root.as_fd(), path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Ok(found) => reopen(&found),
        Err(Errno::XDEV) => Err(io::Error::other("it leads out of the sandbox")),
        Err(error) => Err(error.into()),
    }
}

/// What was found, to be read, whatever its path leads to by now. Only files and directories are opened: a task that is root can make
/// devices, and to open some of them does something.
pub(super) fn reopen(found: &OwnedFd) -> io::Result<File> {
    match FileType::from_raw_mode(fstat(found)?.st_mode) {
        FileType::RegularFile | FileType::Directory => {
            let path = format!("/proc/self/fd/{}", found.as_raw_fd());
            let mut how = File::options();
            how.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
        }
        _ => Err(io::Error::other("it is neither a file nor a directory")),
    }
}

fn entries(directory: &File) -> io::Result<Vec<FileEntry>> {
    // The directory that was opened, whatever its path may lead to by now.
    let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)?.take(MOST) {
        let entry = entry?;
        let Ok(metadata) = entry.metadata() else { continue }; // it is gone again
        let kind = match metadata.file_type() {
            kind if kind.is_file() => "file",
            kind if kind.is_dir() => "directory",
            kind if kind.is_symlink() => "link",
            _ => "other",
        };
        let since = std::time::Duration::new(metadata.mtime().try_into().unwrap_or_default(), 0);
        entries.push(FileEntry {
            name: entry.file_name().to_string_lossy().into_owned(),
            kind: kind.to_owned(),
            size: metadata.len(),
            modified: Timestamp(millis(since)),
            mode: format!("{:04o}", metadata.permissions().mode() & 0o7777),
        });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
