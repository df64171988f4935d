//! Reading a rotated log as one: from an offset, a number of lines, or a time.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use divvy_proto::Timestamp;
use rustix::fs::ResolveFlags;

use super::files::open_file;
use crate::log::{self, MARK_INTERVAL, Mark};

/// So much is read at once.
const CHUNK: usize = 64 << 10;

/// Most files of one log that are read: an agent may have kept more in another life, and a task may make some that look alike.
const MOST: usize = 100;

/// Most bytes of marks of one file: a mark a second for half a year.
const MARKS: u64 = 256 << 20;

/// So often a log may be rotated while it is looked at. A task can make it look as if that never ended.
const LOOKS: usize = 16;

/// A log in a sandbox.
#[derive(Debug, Clone)]
pub(super) struct Log {
    pub(super) sandbox: PathBuf,
    pub(super) name: &'static str,
}

/// One file of it.
#[derive(Debug)]
struct Segment {
    name: String,
    file: File,
    /// Where it begins in the log.
    base: u64,
    /// How long it was when it was opened.
    size: u64,
    /// It is written to.
    current: bool,
}

/// All its files as they were at one time, in order.
#[derive(Debug)]
pub(super) struct Segments(Vec<Segment>);

/// A place in a log.
#[derive(Debug)]
pub(super) struct Position {
    file: File,
    base: u64,
    current: bool,
    pub(super) offset: u64,
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl Log {
    /// A task owns its sandbox and could have put a link in the place of its log: none is followed.
    fn open(&self, name: &str) -> io::Result<File> {
        open_file(&self.sandbox, name, ResolveFlags::NO_SYMLINKS)
    }

    fn open_if_there(&self, name: &str) -> io::Result<Option<File>> {
        match self.open(name) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// # Errors
    /// There is no such log, or it cannot be read.
    pub(super) fn segments(&self) -> io::Result<Segments> {
        for _ in 0..LOOKS {
            let current = self.open_if_there(self.name)?;
            let mut segments = self.rotated()?;
            let Some(file) = current else {
                // In the middle of a rotation; or the task has removed it.
                return match segments.is_empty() {
                    true => Err(ErrorKind::NotFound.into()),
                    false => Ok(Segments(segments)),
                };
            };
            let metadata = file.metadata()?;
            let own = identity(&metadata);
            let is_rotated = segments.iter().any(|s| s.file.metadata().is_ok_and(|m| identity(&m) == own));
            if is_rotated {
                continue; // meanwhile: the next look finds its successor
            }
            let base = segments.last().map_or(0, |last| last.base + last.size);
            let name = self.name.to_owned();
            segments.push(Segment { name, file, base, size: metadata.len(), current: true });
            return Ok(Segments(segments));
        }
        Err(io::Error::other("it changes too fast to be read"))
    }

    fn rotated(&self) -> io::Result<Vec<Segment>> {
        let mut segments = Vec::new();
        let bases = log::bases(&File::open(&self.sandbox)?, self.name)?;
        for base in bases.iter().skip(bases.len().saturating_sub(MOST)) {
            let name = log::rotated(self.name, *base);
            if let Some(file) = self.open_if_there(&name)? {
                let size = file.metadata()?.len();
                segments.push(Segment { name, file, base: *base, size, current: false });
            }
        }
        Ok(segments)
    }

    fn is_current(&self, file: &File) -> io::Result<bool> {
        let current = self.open_if_there(self.name)?;
        let current = current.map(|file| file.metadata()).transpose()?;
        Ok(current.is_some_and(|current| file.metadata().is_ok_and(|m| identity(&m) == identity(&current))))
    }

    fn marks(&self, file: &str) -> io::Result<Vec<Mark>> {
        let mut bytes = Vec::new();
        if let Some(marks) = self.open_if_there(&log::marks(file))? {
            marks.take(MARKS).read_to_end(&mut bytes)?;
        }
        Ok(Mark::decode(&bytes).collect())
    }
}

impl Segments {
    /// How much was ever written.
    pub(super) fn end(&self) -> u64 {
        self.0.last().map_or(0, |last| last.base + last.size)
    }

    /// The place of a byte, or of the first after it that is kept. Behind the end it is the end.
    pub(super) fn position(mut self, offset: u64) -> Position {
        let last = self.0.len() - 1;
        let index = self.0.iter().position(|segment| segment.base + segment.size > offset).unwrap_or(last);
        let end = self.end();
        // There is always one: see `Log::segments`.
        let Segment { file, base, current, .. } = self.0.swap_remove(index);
        Position { file, base, current, offset: offset.clamp(base, end.max(base)) }
    }

    /// Where the last `lines` lines begin.
    pub(super) fn start_of_tail(&self, lines: usize) -> io::Result<u64> {
        if lines == 0 {
            return Ok(self.end());
        }
        let mut buffer = vec![0; CHUNK];
        let (mut found, mut at_end) = (0_usize, true);
        for segment in self.0.iter().rev() {
            let mut end = segment.size;
            while end > 0 {
                let start = end.saturating_sub(CHUNK as u64);
                let block =
                    buffer.get_mut(..usize::try_from(end - start).unwrap_or(CHUNK)).unwrap_or_default();
                segment.file.read_exact_at(block, start)?;
                for (index, byte) in block.iter().enumerate().rev() {
                    if *byte != b'\n' {
                        at_end = false;
                        continue;
                    }
                    // The line end that closes the last line begins no further one.
                    found += usize::from(!std::mem::take(&mut at_end));
                    if found >= lines {
                        return Ok(segment.base + start + index as u64 + 1);
                    }
                }
                end = start;
            }
        }
        Ok(self.0.first().map_or(0, |first| first.base))
    }

    /// Where begins what was written at `time` or later, and perhaps up to a second before. What has no marks counts as old.
    pub(super) fn start_of_time(&self, log: &Log, time: Timestamp) -> io::Result<u64> {
        for segment in &self.0 {
            let marks = log.marks(&segment.name)?;
            // Between two marks lies a second, but for the last one, and that may have been long ago.
            if let Some(mark) = marks.iter().find(|mark| mark.time.saturating_add(MARK_INTERVAL) > time.0) {
                return Ok(mark.offset);
            }
        }
        Ok(self.end())
    }
}

impl Position {
    /// The next bytes, at most `most`; none at the end.
    ///
    /// # Errors
    /// The log cannot be read, or what comes next was removed before it was read.
    pub(super) fn read(&mut self, log: &Log, most: u64) -> io::Result<Vec<u8>> {
        loop {
            let size = usize::try_from(most).unwrap_or(usize::MAX).min(CHUNK);
            let mut buffer = vec![0; size];
            let count = self.file.read_at(&mut buffer, self.offset.saturating_sub(self.base))?;
            if count > 0 || size == 0 {
                buffer.truncate(count);
                self.offset += count as u64;
                return Ok(buffer);
            }
            if self.current {
                if log.is_current(&self.file)? {
                    return Ok(Vec::new());
                }
                // It was put away; what had been written before that is read first.
                self.current = false;
                continue;
            }
            let next = log.segments()?.position(self.offset);
            if next.offset != self.offset {
                return Err(io::Error::other("it was removed before it was read"));
            }
            if !next.current && next.base == self.base {
                return Ok(Vec::new()); // its successor is being made
            }
            *self = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A log of these files, the last of them the one that is written to.
    fn log(files: &[&str]) -> (tempfile::TempDir, Log) {
        let directory = tempfile::tempdir().unwrap();
        let mut base = 0;
        for (index, text) in files.iter().enumerate() {
            let name =
                if index + 1 == files.len() { "stdout".to_owned() } else { log::rotated("stdout", base) };
            fs::write(directory.path().join(name), text).unwrap();
            base += text.len() as u64;
        }
        let log = Log { sandbox: directory.path().to_owned(), name: "stdout" };
        (directory, log)
    }

    fn read_from(log: &Log, offset: u64) -> String {
        let mut at = log.segments().unwrap().position(offset);
        let mut all = Vec::new();
        loop {
            let piece = at.read(log, u64::MAX).unwrap();
            if piece.is_empty() {
                return String::from_utf8(all).unwrap();
            }
            all.extend(piece);
        }
    }

    #[test]
    fn a_log_is_one_however_many_files_it_lies_in() {
        let (_directory, log) = log(&["one\ntw", "o\nthree", "\n", "four\n"]);
        assert_eq!(read_from(&log, 0), "one\ntwo\nthree\nfour\n");
        assert_eq!(read_from(&log, 4), "two\nthree\nfour\n");
        assert_eq!(read_from(&log, 999), "");
    }

    #[test]
    fn a_tail_begins_at_a_line() {
        let tail = |files: &[&str], lines| {
            let (_directory, log) = log(files);
            let start = log.segments().unwrap().start_of_tail(lines).unwrap();
            read_from(&log, start)
        };
        assert_eq!(tail(&["a\nb\nc\n"], 2), "b\nc\n");
        assert_eq!(tail(&["a\nb\nc"], 2), "b\nc");
        assert_eq!(tail(&["a\n\n"], 1), "\n");
        assert_eq!(tail(&["a\nb\n"], 9), "a\nb\n");
        assert_eq!(tail(&["a\nb\n"], 0), "");
        assert_eq!(tail(&["a\nb"], 0), "");
        assert_eq!(tail(&[""], 3), "");
        assert_eq!(tail(&["a\nb", "c\n", "d\n"], 2), "bc\nd\n");
        assert_eq!(tail(&["a\nb\n", ""], 1), "b\n");
        let long = format!("{}\n{}\nend\n", "x".repeat(CHUNK), "y".repeat(CHUNK));
        assert_eq!(tail(&[&long], 2), long[CHUNK + 1..]);
    }

    #[test]
    fn a_reader_goes_on_where_the_log_was_rotated() {
        let (directory, log) = log(&["one\n"]);
        let mut at = log.segments().unwrap().position(0);
        let mut next = || String::from_utf8(at.read(&log, u64::MAX).unwrap()).unwrap();
        assert_eq!([next(), next()], ["one\n", ""]);
        let path = |name: &str| directory.path().join(name);
        fs::write(path("stdout"), "one\nand\n").unwrap();
        fs::rename(path("stdout"), path(&log::rotated("stdout", 0))).unwrap();
        assert_eq!([next(), next()], ["and\n", ""], "its successor is being made");
        fs::write(path("stdout"), "two\n").unwrap();
        assert_eq!([next(), next()], ["two\n", ""]);
    }

    #[test]
    fn who_lags_behind_the_rotation_is_told() {
        let (directory, log) = log(&["one\n", "two\n", "three\n"]);
        let mut at = log.segments().unwrap().position(0);
        assert_eq!(at.read(&log, u64::MAX).unwrap(), b"one\n");
        fs::remove_file(directory.path().join(log::rotated("stdout", 4))).unwrap();
        fs::rename(directory.path().join("stdout"), directory.path().join(log::rotated("stdout", 8)))
            .unwrap();
        assert!(at.read(&log, u64::MAX).is_err());
        assert_eq!(log.segments().unwrap().position(4).offset, 8);
    }

    #[test]
    fn a_time_is_looked_up_to_the_second() {
        let (directory, log) = log(&["aaaa", "bb"]);
        let marks = |file: &str, marks: &[(u64, u64)]| {
            let bytes: Vec<u8> = marks
                .iter()
                .flat_map(|(time, offset)| Mark { time: *time, offset: *offset }.encode())
                .collect();
            fs::write(directory.path().join(log::marks(file)), bytes).unwrap();
        };
        marks(&log::rotated("stdout", 0), &[(10_000, 0), (20_000, 2)]);
        marks("stdout", &[(20_500, 4), (30_000, 5)]);
        let start = |time| log.segments().unwrap().start_of_time(&log, Timestamp(time)).unwrap();
        assert_eq!([0, 10_999, 11_000, 20_999, 21_000, 30_999, 31_000].map(start), [0, 0, 2, 2, 4, 5, 6]);
    }
}
