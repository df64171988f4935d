//! From the task's stdout and stderr to the files in its sandbox, which are rotated by size and count.
//!
//! The bytes go from the pipe to the file inside the kernel (`splice`), so a flood costs the shim no memory and little time. What
//! cannot be written, because the disk is full or the task has put something in the way, is dropped: a task never waits for its log.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::SystemTime;

use divvy_proto::time::millis;
use rustix::fs::{
    AtFlags, Mode, OFlags, ResolveFlags, fchown, fcntl_setfl, openat, openat2, renameat, unlinkat,
};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::container::{LogPipes, Plan};
use crate::log::{self, LogLimits, MARK_INTERVAL, Mark};

/// What fits into a pipe: so much may a task be ahead of its log.
const PIPE: usize = 256 << 10;

/// So many pieces are taken from one pipe before others are looked after.
const ROUNDS: usize = 16;

/// Both logs of a container.
pub(super) struct Logs {
    directory: File,
    streams: [Stream; 2],
}

impl Logs {
    /// Makes the pipes, whose other ends are for the container, and opens the files. The sandbox may have been a task's before, so no
    /// link is followed.
    pub(super) fn open(plan: &Plan) -> io::Result<(Self, LogPipes)> {
        let directory = File::open(&plan.spec.sandbox)?;
        let (stdout, to_stdout) = Stream::open(&directory, "stdout", plan)?;
        let (stderr, to_stderr) = Stream::open(&directory, "stderr", plan)?;
        let pipes = LogPipes { stdout: to_stdout, stderr: to_stderr };
        Ok((Self { directory, streams: [stdout, stderr] }, pipes))
    }

    /// What to poll for something to read.
    pub(super) fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.streams.iter().filter_map(|stream| stream.pipe.as_ref()).map(AsFd::as_fd)
    }

    /// Moves what there is; true if there may be more.
    pub(super) fn pump(&mut self) -> bool {
        let Self { directory, streams } = self;
        // All of them, not only up to the first that has more.
        let more: Vec<bool> = streams.iter_mut().map(|stream| stream.pump(directory)).collect();
        more.contains(&true)
    }
}

/// One log.
struct Stream {
    name: &'static str,
    /// Until nobody can write to it any more.
    pipe: Option<File>,
    /// Nothing if it cannot be written to.
    file: Option<File>,
    marks: Option<File>,
    /// Where the file begins in the log.
    base: u64,
    /// How much is in it.
    size: u64,
    /// The time of the last mark.
    marked: u64,
    limits: LogLimits,
}

impl Stream {
    fn open(directory: &File, name: &'static str, plan: &Plan) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        fcntl_setfl(&ours, OFlags::NONBLOCK)?;
        // Root may have so many; less is well, too.
        let _ = fcntl_setpipe_size(&ours, PIPE);
        // So that the task may open /dev/stdout.
        let (uid, gid) = (plan.identity.uid, plan.identity.gid);
        fchown(&theirs, Some(rustix::fs::Uid::from_raw(uid)), Some(rustix::fs::Gid::from_raw(gid)))?;
        let last = log::bases(directory, name)?.last().copied();
        let base = match last {
            Some(base) => base + size_of(directory, &log::rotated(name, base)),
            None => 0,
        };
        let file = open_file(directory, name)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other(format!("{name} in the sandbox is not a file")));
        }
        let size = file.metadata()?.len();
        let marks = open_marks(directory, name);
        let pipe = Some(File::from(ours));
        Ok((Self { name, pipe, file: Some(file), marks, base, size, marked: 0, limits: plan.logs }, theirs))
    }

    fn pump(&mut self, directory: &File) -> bool {
        for _ in 0..ROUNDS {
            let Some(pipe) = &self.pipe else { return false };
            let room = self.limits.max_size.saturating_sub(self.size);
            if room == 0 {
                self.rotate(directory);
                continue;
            }
            let room = usize::try_from(room).unwrap_or(usize::MAX).min(PIPE);
            match move_bytes(pipe, &mut self.file, self.size, room) {
                Ok(0) => self.pipe = None,
                Ok(count) => {
                    self.mark();
                    self.size += u64::try_from(count).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => self.pipe = None,
            }
        }
        true
    }

    /// Notes when what came now has come.
    fn mark(&mut self) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = millis(now);
        // Also if the clock was set back.
        if now.abs_diff(self.marked) >= MARK_INTERVAL || self.size == 0 {
            self.marked = now;
            let mark = Mark { time: now, offset: self.base + self.size };
            if let Some(marks) = &mut self.marks {
                let _ = io::Write::write_all(marks, &mark.encode());
            }
        }
    }

    /// Puts the file away under the name of its first byte, and begins the next. What a task has put in the way of that goes.
    fn rotate(&mut self, directory: &File) {
        let old = log::rotated(self.name, self.base);
        let away = [(self.name.to_owned(), old.clone()), (log::marks(self.name), log::marks(&old))];
        for (from, to) in away {
            if renameat(directory, &from, directory, &to).is_err() {
                let _ = unlinkat(directory, &from, AtFlags::empty());
            }
        }
        self.base += self.size;
        self.size = 0;
        self.file = open_file(directory, self.name).ok();
        self.marks = open_marks(directory, self.name);
        let kept = usize::try_from(self.limits.max_files).unwrap_or(usize::MAX).saturating_sub(1).max(1);
        let bases = log::bases(directory, self.name).unwrap_or_default();
        let surplus = bases.len().saturating_sub(kept);
        for base in bases.into_iter().take(surplus) {
            let name = log::rotated(self.name, base);
            let _ = unlinkat(directory, log::marks(&name), AtFlags::empty());
            let _ = unlinkat(directory, &name, AtFlags::empty());
        }
    }
}

/// From a pipe to a file, or to nowhere where the file takes nothing.
fn move_bytes(mut pipe: &File, file: &mut Option<File>, at: u64, room: usize) -> io::Result<usize> {
    if let Some(file) = file {
        let mut at = at;
        match splice(pipe, None, file, Some(&mut at), room, SpliceFlags::NONBLOCK | SpliceFlags::MOVE) {
            Err(Errno::AGAIN) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(Errno::INTR) => return Err(io::ErrorKind::Interrupted.into()),
            Ok(count) => return Ok(count),
            Err(_) => {}
        }
    }
    // Without splice, which not every file system has; or the disk is full.
    let mut buffer = [0; 16 << 10];
    let room = room.min(buffer.len());
    let count = pipe.read(buffer.get_mut(..room).unwrap_or_default())?;
    if let Some(file) = file {
        let _ = std::os::unix::fs::FileExt::write_all_at(file, buffer.get(..count).unwrap_or_default(), at);
    }
    Ok(count)
}

/// The logs are root's: a task reads them, and cannot change what it has said.
fn open_file(directory: &File, name: &str) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = File::from(openat2(directory, name, flags, Mode::from_raw_mode(0o644), how)?);
    fchown(&file, Some(rustix::fs::Uid::ROOT), Some(rustix::fs::Gid::ROOT))?;
    Ok(file)
}

/// Without marks a log cannot be looked up by time, which is no reason not to write it.
fn open_marks(directory: &File, name: &str) -> Option<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file =
        openat(directory, log::marks(name), flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o644)).ok()?;
    Some(File::from(file)).filter(|file| file.metadata().is_ok_and(|metadata| metadata.is_file()))
}

fn size_of(directory: &File, name: &str) -> u64 {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or_default())
}
