//! How a task's log lies in its sandbox: the file that is written to, `stdout`, and those before it, each with the offset of its
//! first byte in its name, `stdout.000000010485760`. A log's offsets count from the first byte that the task ever wrote, so they
//! mean the same however often the log was rotated.
//!
//! Beside each file lie its *marks*, `.stdout.times`: from which byte on something came at which time, noted once a second at
//! most while the task writes. So a time can be looked up to the second, and a log costs 16 bytes more for each of its seconds.
//!
//! Not here: who writes, and who reads.

use std::fs::File;
use std::io;

use serde::{Deserialize, Serialize};

/// How much of each of a task's two logs is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// Most bytes in one file.
    pub max_size: u64,
    /// Most files, with the one that is written to; at least 2.
    pub max_files: u32,
}

impl Default for LogLimits {
    /// 50 MiB in five files.
    fn default() -> Self {
        Self { max_size: 10 << 20, max_files: 5 }
    }
}

/// The time between two marks, in milliseconds.
pub(crate) const MARK_INTERVAL: u64 = 1000;

/// From this byte on a log was written at this time or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// In milliseconds since the epoch.
    pub(crate) time: u64,
    pub(crate) offset: u64,
}

impl Mark {
    const SIZE: usize = 16;

    pub(crate) fn encode(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let (time, offset) = bytes.split_at_mut(8);
        time.copy_from_slice(&self.time.to_le_bytes());
        offset.copy_from_slice(&self.offset.to_le_bytes());
        bytes
    }

    /// All marks of a file; half a mark at its end, of a machine that lost power, is none.
    pub(crate) fn decode(bytes: &[u8]) -> impl Iterator<Item = Self> {
        bytes.chunks_exact(Self::SIZE).filter_map(|mark| {
            let (time, offset) = mark.split_first_chunk::<8>()?;
            let offset = offset.first_chunk::<8>()?;
            Some(Self { time: u64::from_le_bytes(*time), offset: u64::from_le_bytes(*offset) })
        })
    }
}

/// The name of the file that begins at `offset` and is written to no more.
pub(crate) fn rotated(name: &str, offset: u64) -> String {
    format!("{name}.{offset:015}")
}

/// The name of the marks of a file.
pub(crate) fn marks(file: &str) -> String {
    format!(".{file}.times")
}

/// Where the rotated files of a log in `directory` begin, in order.
pub(crate) fn bases(directory: &File, name: &str) -> io::Result<Vec<u64>> {
    let mut bases = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let Ok(file) = entry.file_name().to_str() else { continue };
        let base = file.strip_prefix(name).and_then(|rest| rest.strip_prefix('.'));
        let base =
            base.filter(|digits| digits.len() >= 15 && digits.bytes().all(|byte| byte.is_ascii_digit()));
        bases.extend(base.and_then(|digits| digits.parse::<u64>().ok()));
    }
    bases.sort_unstable();
    Ok(bases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_files_are_found_by_their_names_in_order() {
        let directory = tempfile::tempdir().unwrap();
        for name in
            ["stdout", &rotated("stdout", 1 << 20), &rotated("stdout", 0), "stdout.1", "stdout.txt", "stderr"]
        {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        let handle = File::open(directory.path()).unwrap();
        assert_eq!(bases(&handle, "stdout").unwrap(), [0, 1 << 20]);
        assert_eq!(bases(&handle, "stderr").unwrap(), Vec::<u64>::new());
    }

    #[test]
    fn marks_survive_their_file_and_half_a_mark_is_none() {
        let all = [Mark { time: 7, offset: 0 }, Mark { time: u64::MAX, offset: 9 }];
        let bytes: Vec<u8> = all.iter().flat_map(|mark| mark.encode()).collect();
        assert_eq!(Mark::decode(&bytes).collect::<Vec<_>>(), all);
        assert_eq!(Mark::decode(&bytes[..20]).collect::<Vec<_>>(), all[..1]);
    }
}
