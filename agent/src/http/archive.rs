//! A directory of a sandbox with all that is in it, as a tar archive that is made while it is read.
//!
//! Links go in as links and are not followed; what is neither file, directory nor link is left out.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path as FsPath, PathBuf};

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2, readlinkat};
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::files::{FilesQuery, blocking, open_directory, refusal, reopen};
use super::{Api, Refusal, task_key};

/// So much is sent at once, and so many of it wait for a slow reader.
const CHUNK: usize = 64 << 10;
const WAITING: usize = 4;

/// Directories in directories, at most.
const DEEPEST: usize = 100;

pub(super) async fn archive(
    State(api): State<Api>,
    Path(task): Path<(String, String)>,
    Query(query): Query<FilesQuery>,
) -> Result<Response, Refusal> {
    let sandbox = api.sandboxes.path(&task_key(task)?);
    let path = query.path.clone();
    let directory = blocking(move || open_directory(&sandbox, &path)).await;
    let directory = directory.map_err(|error| refusal(&query.path, &error))?;
    let (pieces, body) = mpsc::channel(WAITING);
    tokio::task::spawn_blocking(move || {
        let sender = Sender(pieces.clone());
        if let Err(error) = write(BufWriter::with_capacity(CHUNK, sender), &directory) {
            // The answer breaks off, so that nobody takes a part for the whole.
            let _ = pieces.blocking_send(Err(error));
        }
    });
    let headers = [(header::CONTENT_TYPE, "application/x-tar"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    Ok((headers, Body::from_stream(ReceiverStream::new(body))).into_response())
}

/// Waits for whoever reads.
struct Sender(mpsc::Sender<io::Result<Bytes>>);

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(to: impl Write, directory: &File) -> io::Result<()> {
    let mut archive = Builder::new(to);
    add_all(&mut archive, directory, FsPath::new(""), 0)?;
    archive.into_inner()?.flush()
}

fn add_all(archive: &mut Builder<impl Write>, directory: &File, at: &FsPath, depth: usize) -> io::Result<()> {
    if depth > DEEPEST {
        return Err(io::Error::other("its directories are too deep"));
    }
    // The directory that was opened, whatever its path may lead to by now.
    for entry in fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd()))? {
        let name = entry?.file_name();
        let path = at.join(&name);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let Ok(found) = openat2(directory, &name, flags, Mode::empty(), how) else { continue }; // it is gone again
        match FileType::from_raw_mode(fstat(&found)?.st_mode) {
            FileType::Directory => {
                let inner = reopen(&found)?;
                archive.append_data(&mut header(&inner, EntryType::Directory)?, &path, io::empty())?;
                add_all(archive, &inner, &path, depth + 1)?;
            }
            FileType::RegularFile => {
                let file = reopen(&found)?;
                let mut header = header(&file, EntryType::Regular)?;
                // It may grow or shrink meanwhile; what was promised is what is sent.
                let content = (&file).chain(io::repeat(0)).take(header.size()?);
                archive.append_data(&mut header, &path, content)?;
            }
            FileType::Symlink => {
                let target = readlinkat(&found, "", Vec::new())?;
                let target = PathBuf::from(std::ffi::OsString::from(
                    String::from_utf8_lossy(target.as_bytes()).as_ref(),
                ));
                let mut header = Header::new_gnu();
                header.set_entry_type(EntryType::Symlink);
                header.set_size(0);
                archive.append_link(&mut header, &path, &target)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whose it is means nothing elsewhere, and nobody gets more rights by it.
fn header(file: &File, kind: EntryType) -> io::Result<Header> {
    let metadata = file.metadata()?;
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(metadata.permissions().mode() & 0o777);
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or_default());
    header.set_size(if kind == EntryType::Regular { metadata.len() } else { 0 });
    Ok(header)
}
