//! The entries of a tar archive: ustar, with the extensions of POSIX (pax) and GNU for long names and large numbers.
//!
//! The `tar` crate reads the fields of a header. It is not asked for entries, for it would take names of any length into memory.
//! Not here: what becomes of an entry; see [`super::unpack`].

use std::io::{self, Read};

use super::error::LayerError;

const BLOCK: usize = 512;
/// An extended header (pax) has at most so many bytes; attributes of files are at most 64 KiB each.
const MAX_EXTENSION: u64 = 1 << 20;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    Fifo,
    Device,
    Other,
}

/// An entry without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) path: Vec<u8>,
    /// Where a link leads to.
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub(super) modified: (i64, u32),
    pub(super) size: u64,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// The path for people.
    pub(super) fn name(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}

/// What extended headers say of the entry behind them.
#[derive(Debug, Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    uid: Option<u64>,
    gid: Option<u64>,
    size: Option<u64>,
    modified: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads one entry after another. Reading from it gives the content of the latest.
pub(super) struct Entries<R> {
    source: R,
    /// Of the latest entry's content.
    left: u64,
    /// Behind it.
    padding: u64,
}

impl<R: Read> Entries<R> {
    pub(super) const fn new(source: R) -> Self {
        Self { source, left: 0, padding: 0 }
    }

    /// The source, at whatever place it is.
    pub(super) fn into_inner(self) -> R {
        self.source
    }

    /// The next entry; what was not read of the latest is skipped.
    ///
    /// # Errors
    /// The archive ends too early, or is none.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, LayerError> {
        let mut extension = Extension::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header.entry_size().map_err(broken)?;
            match header.entry_type().as_byte() {
                b'x' => {
                    let records = self.extension(size)?;
                    extension.read_pax(&records)?;
                }
                b'g' => self.stand_before(size),
                b'L' => extension.path = Some(self.long_name(size)?),
                b'K' => extension.link = Some(self.long_name(size)?),
                _ => {
                    let entry = entry(&header, extension, size)?;
                    // What is no file has no content, whatever its header says (POSIX, pax: "size").
                    self.stand_before(if entry.kind == Kind::File { entry.size } else { 0 });
                    return Ok(Some(entry));
                }
            }
        }
    }

    fn stand_before(&mut self, size: u64) {
        let over = size % BLOCK as u64;
        (self.left, self.padding) = (size, if over == 0 { 0 } else { BLOCK as u64 - over });
    }

    fn skip(&mut self) -> Result<(), LayerError> {
        let rest = self.left.saturating_add(self.padding);
        let skipped =
            io::copy(&mut (&mut self.source).take(rest), &mut io::sink()).map_err(LayerError::Read)?;
        (self.left, self.padding) = (0, 0);
        if skipped == rest { Ok(()) } else { Err(truncated()) }
    }

    /// None at the end: a block of zeros, or no block at all.
    fn header(&mut self) -> Result<Option<tar::Header>, LayerError> {
        let mut header = tar::Header::new_old();
        let mut filled = 0;
        while let Some(rest) = header.as_mut_bytes().get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.source.read(rest) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(truncated()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LayerError::Read(error)),
            }
        }
        let bytes = header.as_bytes();
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The checksum counts its own field (148 to 155) as spaces.
        let summed = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) };
        match header.cksum().is_ok_and(|said| said == bytes.iter().enumerate().map(summed).sum::<u32>()) {
            true => Ok(Some(header)),
            false => Err(LayerError::Archive("the checksum of a header is wrong".to_owned())),
        }
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, LayerError> {
        if size > MAX_EXTENSION {
            return Err(LayerError::TooLarge(format!("an extended header of {size} bytes")));
        }
        self.stand_before(size);
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(LayerError::Read)?;
        if self.left == 0 { Ok(bytes) } else { Err(truncated()) }
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, LayerError> {
        let mut name = self.extension(size)?;
        name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
        Ok(name)
    }
}

impl<R: Read> Read for Entries<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (&mut self.source).take(self.left).read(buffer)?;
        self.left -= u64::try_from(count).unwrap_or(self.left);
        if count == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(count)
    }
}

impl Extension {
    /// Records of the form `<length> <key>=<value>\n`.
    fn read_pax(&mut self, mut records: &[u8]) -> Result<(), LayerError> {
        while let Some((key, value, rest)) = pax_record(records)? {
            self.set(key, value)?;
            records = rest;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), LayerError> {
        let bad = || LayerError::Archive(format!("{}: not a number", String::from_utf8_lossy(key)));
        let number = || std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or_else(bad);
        match key {
            b"path" => self.path = Some(value.to_owned()),
            b"linkpath" => self.link = Some(value.to_owned()),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"size" => self.size = Some(number()?),
            b"mtime" => self.modified = Some(time(value).ok_or_else(bad)?),
            key if key.starts_with(b"GNU.sparse.") => {
                return Err(LayerError::Archive("it has sparse files, which layers do not have".to_owned()));
            }
            key => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_owned(), value.to_owned()));
                }
            }
        }
        Ok(())
    }
}

type Record<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// The first record's key and value, and what is behind it.
fn pax_record(records: &[u8]) -> Result<Option<Record<'_>>, LayerError> {
    if records.is_empty() {
        return Ok(None);
    }
    let read = || {
        let space = records.iter().take(20).position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(records.get(..space)?).ok()?.parse().ok()?;
        let (record, rest) = (records.get(space + 1..length)?, records.get(length..)?);
        let record = record.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        Some((record.get(..equals)?, record.get(equals + 1..)?, rest))
    };
    let read = read();
    read.map(Some).ok_or_else(|| LayerError::Archive("an extended header is not one".to_owned()))
}

/// Seconds, which may have a fraction and may be negative.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    Some((seconds.parse().ok()?, nanos))
}

fn entry(header: &tar::Header, extension: Extension, size: u64) -> Result<Entry, LayerError> {
    let path = extension.path.unwrap_or_else(|| header.path_bytes().into_owned());
    let kind = match header.entry_type().as_byte() {
        // The old format marks a directory by the slash behind its name.
        0 | b'0' if path.ends_with(b"/") => Kind::Directory,
        0 | b'0' | b'7' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' | b'4' => Kind::Device,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        _ => Kind::Other,
    };
    let link = extension.link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
    let owner = |said: Option<u64>, field: io::Result<u64>| {
        let id = said.map_or(field, Ok).map_err(broken)?;
        // The highest means "leave it" to the kernel.
        let id = u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        id.ok_or_else(|| LayerError::Archive("a user or group has a number that no user can have".to_owned()))
    };
    let seconds = i64::try_from(header.mtime().map_err(broken)?).unwrap_or(0);
    Ok(Entry {
        kind,
        link: link.unwrap_or_default(),
        mode: header.mode().map_err(broken)? & 0o7777,
        uid: owner(extension.uid, header.uid())?,
        gid: owner(extension.gid, header.gid())?,
        modified: extension.modified.unwrap_or((seconds, 0)),
        size: extension.size.unwrap_or(size),
        xattrs: extension.xattrs,
        path,
    })
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn broken(error: io::Error) -> LayerError {
    LayerError::Archive(error.to_string())
}

fn truncated() -> LayerError {
    LayerError::Archive("it ends too early".to_owned())
}
