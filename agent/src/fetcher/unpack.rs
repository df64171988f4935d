//! What was fetched goes to its place in the sandbox, as a file or unpacked, and never outside of it.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use divvy_proto::task::Artifact;
use flate2::read::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;

use super::{FetchError, failed};

/// An archive holds at most so many bytes and entries: a small one must not fill the disk.
const MAX_UNPACKED: u64 = 64 << 30;
const MAX_ENTRIES: usize = 1_000_000;

/// Moves or unpacks what was fetched to where it belongs.
pub(super) fn place(
    artifact: &Artifact,
    sandbox: &Path,
    target: &Path,
    fetched: tempfile::NamedTempFile,
) -> Result<(), FetchError> {
    let uri = &artifact.uri;
    let failed = |what| failed(uri, what);
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
pub(super) fn make_directories(sandbox: &Path, path: &Path) -> io::Result<PathBuf> {
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

/// Unpacks a tar archive, plain or packed by gzip or zstd: files, directories and links, none of which may lie outside of
/// `directory`.
pub(super) fn unpack(mut archive: File, directory: &Path) -> io::Result<()> {
    let mut magic = Vec::new();
    Read::by_ref(&mut archive).take(6).read_to_end(&mut magic)?;
    io::Seek::rewind(&mut archive)?;
    let is = |wanted: &[u8]| magic.starts_with(wanted);
    let refused = |kind: &str| {
        Err(io::Error::other(format!(
            "it is a {kind} archive; expected tar, plain or packed by gzip or zstd"
        )))
    };
    match () {
        () if is(&[0x1f, 0x8b]) => unpack_tar(MultiGzDecoder::new(archive), directory),
        () if is(&[0x28, 0xb5, 0x2f, 0xfd]) => {
            let decoder = StreamingDecoder::new(BufReader::new(archive)).map_err(io::Error::other)?;
            unpack_tar(decoder, directory)
        }
        () if is(b"PK\x03\x04") => refused("zip"),
        () if is(b"\xfd7zXZ\0") => refused("xz"),
        () if is(b"BZh") => refused("bzip2"),
        () => unpack_tar(archive, directory),
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
