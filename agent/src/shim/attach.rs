//! `shim attach`: runs a command inside a container that there is, for somebody who types and reads along, and ends it when they
//! go. It speaks the frames of [`divvy_proto::exec`] on its standard input and output.
//!
//! One thread, one loop, and no more in memory than a window of stdin and a chunk of output: whoever reads slowly slows the
//! command, and nothing else.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use divvy_proto::exec::{CHUNK, ExecEnd, ExecStart, Frames, FromCommand, ToCommand, WINDOW, WindowSize};
use divvy_proto::task::ExitStatus;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::fs::{Mode, OFlags, ResolveFlags, fchown, fcntl_setfl, openat2};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::child::{self, Child};
use super::exec::{failed, go_inside};
use crate::container::{AttachRequest, LaunchError, Plan, Record, ended_within};

/// How long what is told to hang up may take before it is killed.
const HANG_UP: Duration = Duration::from_secs(1);

/// A terminal's end of input: control-D.
const END_OF_TRANSMISSION: u8 = 4;

pub(super) fn attach(record: &Record) -> i32 {
    match start(record) {
        Ok(mut session) => {
            // An error means that nobody is there any more.
            if session.run().is_err() && session.end.is_none() {
                session.hang_up();
            }
        }
        Err(error) => {
            let end = match error {
                LaunchError::Program { missing: true, .. } => ExecEnd::NotFound(error.to_string()),
                LaunchError::Program { .. } => ExecEnd::NotExecutable(error.to_string()),
                error => ExecEnd::Failed(error.to_string()),
            };
            let mut out = io::stdout();
            let _ = out.write_all(&FromCommand::End(end).encode()).and_then(|()| out.flush());
        }
    }
    0
}

fn start(record: &Record) -> Result<Session, LaunchError> {
    let mut client = own(io::stdin().as_fd())?;
    let AttachRequest { pid, start } = request(&mut client).map_err(failed("read the command"))?;
    let mut plan = super::plan(record)?;
    plan.spec.env.extend(start.env.clone());
    let container = child::first_process(pid)?;
    plan.userns.as_mut().map_or(Ok(()), |users| users.find(pid))?;
    let (inner, outer) = streams(&start, &plan, pid)?;
    // A pid namespace is entered by children only.
    setns(container.as_fd(), CloneFlags::CLONE_NEWPID)
        .map_err(failed("enter the container's pid namespace"))?;
    let child = child::spawn(&plan, 0, &start.argv, || go_inside(&plan, &container, || inner.redirect()))?;
    drop(inner);
    let answers = own(io::stdout().as_fd())?;
    for end in [client.as_fd(), answers.as_fd()] {
        fcntl_setfl(end, OFlags::NONBLOCK).map_err(failed("prepare the line"))?;
    }
    Ok(Session {
        child,
        end: None,
        client,
        answers,
        outer,
        frames: Frames::default(),
        input: Vec::new(),
        ending: false,
        pending: Vec::new(),
    })
}

fn own(fd: BorrowedFd<'_>) -> Result<File, LaunchError> {
    fd.try_clone_to_owned().map(File::from).map_err(failed("take the line"))
}

fn request(client: &mut File) -> io::Result<AttachRequest> {
    let mut length = [0; 4];
    client.read_exact(&mut length)?;
    let mut words = Vec::new();
    client.take(u32::from_be_bytes(length).into()).read_to_end(&mut words)?;
    Ok(serde_json::from_slice(&words)?)
}

/// The command's ends of its streams.
struct Inner {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    /// They are a terminal.
    tty: bool,
}

impl Inner {
    fn redirect(&self) -> Result<(), LaunchError> {
        if self.tty {
            rustix::process::ioctl_tiocsctty(&self.stdin)
                .map_err(failed("make the terminal the session's"))?;
        }
        dup2_stdin(&self.stdin)
            .and_then(|()| dup2_stdout(&self.stdout))
            .and_then(|()| dup2_stderr(&self.stderr))
            .map_err(failed("redirect stdin, stdout and stderr"))
    }
}

/// Our ends of them.
struct Outer {
    stdin: Option<File>,
    stdout: Option<File>,
    stderr: Option<File>,
    tty: bool,
}

fn streams(start: &ExecStart, plan: &Plan, pid: u32) -> Result<(Inner, Outer), LaunchError> {
    match start.tty {
        Some(size) => terminal(plan, pid, size).map_err(failed("open a terminal in the container")),
        None => pipes(start.stdin, plan).map_err(failed("make pipes for the command")),
    }
}

/// Each is the user's, so that the command may open `/dev/stdout`.
fn pipes(with_stdin: bool, plan: &Plan) -> io::Result<(Inner, Outer)> {
    let pipe = |ours: fn(&(OwnedFd, OwnedFd)) -> &OwnedFd| -> io::Result<(OwnedFd, OwnedFd)> {
        let ends = pipe_with(PipeFlags::CLOEXEC)?;
        fcntl_setfl(ours(&ends), OFlags::NONBLOCK)?;
        give(&ends.0, plan)?;
        Ok(ends)
    };
    let (stdin, to_stdin) = match with_stdin {
        true => pipe(|ends| &ends.1).map(|(reader, writer)| (reader, Some(File::from(writer))))?,
        false => (File::open("/dev/null")?.into(), None),
    };
    let ((from_stdout, stdout), (from_stderr, stderr)) = (pipe(|ends| &ends.0)?, pipe(|ends| &ends.0)?);
    let outer = Outer {
        stdin: to_stdin,
        stdout: Some(from_stdout.into()),
        stderr: Some(from_stderr.into()),
        tty: false,
    };
    Ok((Inner { stdin, stdout, stderr, tty: false }, outer))
}

fn give(fd: &OwnedFd, plan: &Plan) -> io::Result<()> {
    let uid = rustix::fs::Uid::from_raw(plan.identity.uid);
    Ok(fchown(fd, Some(uid), None)?)
}

/// A terminal of the container's own, so that inside it has a name. Its place is found without following a link that the container
/// may have made.
fn terminal(plan: &Plan, pid: u32, size: WindowSize) -> io::Result<(Inner, Outer)> {
    let root = File::open(format!("/proc/{pid}/root"))?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let ours = openat2(&root, "dev/pts/ptmx", flags, Mode::empty(), how)?;
    unlockpt(&ours)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let theirs = ioctl_tiocgptpeer(&ours, flags)?;
    tcsetwinsize(&theirs, winsize(size))?;
    give(&theirs, plan)?;
    fcntl_setfl(&ours, OFlags::NONBLOCK)?;
    let inner = Inner { stdout: theirs.try_clone()?, stderr: theirs.try_clone()?, stdin: theirs, tty: true };
    let stdin = File::from(ours.try_clone()?);
    Ok((inner, Outer { stdin: Some(stdin), stdout: Some(ours.into()), stderr: None, tty: true }))
}

fn winsize(size: WindowSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 }
}

struct Session {
    child: Child,
    /// How it ended.
    end: Option<ExitStatus>,
    client: File,
    answers: File,
    outer: Outer,
    frames: Frames,
    /// For the command's stdin; at most [`WINDOW`].
    input: Vec<u8>,
    /// Nothing more comes for it.
    ending: bool,
    /// For the client; little more than two chunks.
    pending: Vec<u8>,
}

impl Session {
    /// To the end of the command and of all that it wrote; or an error when the client is gone.
    fn run(&mut self) -> io::Result<()> {
        loop {
            self.wait()?;
            // Asked before reading: what was written before the end is then certainly read.
            if self.end.is_none() && self.has_ended()? {
                self.end = Some(child::wait(self.child.pid)?);
            }
            self.hear()?;
            self.feed()?;
            self.collect();
            self.flush()?;
            if let (Some(status), true) = (self.end, self.drained()) {
                return self.finish(status);
            }
        }
    }

    fn drained(&self) -> bool {
        self.outer.stdout.is_none() && self.outer.stderr.is_none()
    }

    fn has_ended(&self) -> io::Result<bool> {
        ended_within(&self.child.pidfd, Duration::ZERO)
    }

    /// Until something can be done.
    fn wait(&self) -> io::Result<()> {
        let mut watched = vec![PollFd::new(self.client.as_fd(), PollFlags::POLLIN)];
        if self.end.is_none() {
            watched.push(PollFd::new(self.child.pidfd.as_fd(), PollFlags::POLLIN));
        }
        if !self.pending.is_empty() {
            watched.push(PollFd::new(self.answers.as_fd(), PollFlags::POLLOUT));
        }
        if let (Some(stdin), false) = (&self.outer.stdin, self.input.is_empty()) {
            watched.push(PollFd::new(stdin.as_fd(), PollFlags::POLLOUT));
        }
        if self.pending.len() < CHUNK {
            let outputs = [&self.outer.stdout, &self.outer.stderr].into_iter().flatten();
            watched.extend(outputs.map(|output| PollFd::new(output.as_fd(), PollFlags::POLLIN)));
        }
        // After the end, what is there is all.
        let draining = self.end.is_some() && self.pending.len() < CHUNK && !self.drained();
        let patience = if draining { PollTimeout::ZERO } else { PollTimeout::NONE };
        match poll(&mut watched, patience) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes what the client says; an error if it is gone or talks nonsense.
    fn hear(&mut self) -> io::Result<()> {
        let mut buffer = [0; CHUNK];
        match self.client.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => self.frames.push(buffer.get(..count).unwrap_or_default()),
            Err(error) if later(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
        while let Some(frame) = self.frames.take().map_err(io::Error::other)? {
            self.obey(ToCommand::decode(&frame).map_err(io::Error::other)?)?;
        }
        Ok(())
    }

    fn obey(&mut self, word: ToCommand) -> io::Result<()> {
        match word {
            ToCommand::Stdin(bytes) if self.outer.stdin.is_some() => {
                self.input.extend(bytes);
                if self.input.len() > WINDOW {
                    return Err(io::Error::other("more of stdin is under way than may be"));
                }
            }
            ToCommand::Stdin(bytes) => self.taken(bytes.len()),
            ToCommand::StdinEnd if self.outer.tty => self.input.push(END_OF_TRANSMISSION),
            ToCommand::StdinEnd if self.input.is_empty() => self.outer.stdin = None,
            // It is closed when the rest has been taken.
            ToCommand::StdinEnd => self.ending = true,
            ToCommand::Resize(size) => {
                if let (Some(terminal), true) = (&self.outer.stdin, self.outer.tty) {
                    tcsetwinsize(terminal, winsize(size))?;
                }
            }
            ToCommand::Signal(signal) => {
                if let Ok(signal) = Signal::try_from(signal) {
                    let _ = killpg(self.leader(), signal);
                }
            }
            ToCommand::Start(_) => return Err(ErrorKind::InvalidData.into()),
        }
        Ok(())
    }

    fn leader(&self) -> Pid {
        Pid::from_raw(self.child.pid.cast_signed())
    }

    fn taken(&mut self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.pending.extend(FromCommand::Taken(count).encode());
    }

    /// Gives the command what it takes of its stdin.
    fn feed(&mut self) -> io::Result<()> {
        let Some(stdin) = &mut self.outer.stdin else { return Ok(()) };
        if !self.input.is_empty() {
            match stdin.write(&self.input) {
                Ok(count) => {
                    self.input.drain(..count);
                    self.taken(count);
                }
                Err(error) if later(&error) => {}
                // Nobody reads it any more.
                Err(_) => {
                    let lost = std::mem::take(&mut self.input).len();
                    self.outer.stdin = None;
                    self.taken(lost);
                }
            }
        }
        if self.ending && self.input.is_empty() {
            self.outer.stdin = None;
        }
        Ok(())
    }

    /// Takes what the command writes, as far as the client keeps up. After the command's end, what is there is all: whoever it left
    /// behind may hold its streams open.
    fn collect(&mut self) {
        let ended = self.end.is_some();
        type Word = fn(Vec<u8>) -> FromCommand;
        let streams = [
            (&mut self.outer.stdout, FromCommand::Stdout as Word),
            (&mut self.outer.stderr, FromCommand::Stderr as Word),
        ];
        for (stream, word) in streams {
            let Some(output) = stream else { continue };
            if self.pending.len() >= CHUNK {
                return;
            }
            let mut bytes = vec![0; CHUNK];
            match output.read(&mut bytes) {
                Ok(count) if count > 0 => {
                    bytes.truncate(count);
                    self.pending.extend(word(bytes).encode());
                }
                Err(error) if later(&error) && !ended => {}
                // A terminal that nobody holds any more says EIO.
                _ => *stream = None,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            match self.answers.write(&self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(error) if later(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn finish(&mut self, status: ExitStatus) -> io::Result<()> {
        self.pending.extend(FromCommand::End(ExecEnd::Ended(status)).encode());
        loop {
            self.flush()?;
            if self.pending.is_empty() {
                return Ok(());
            }
            self.wait()?;
            self.hear()?;
        }
    }

    /// Ends whatever is left of the session: the terminal hangs up, and what does not go is killed.
    fn hang_up(&mut self) {
        self.outer.stdin = None;
        self.outer.stdout = None;
        self.outer.stderr = None;
        let members = || session(self.child.pid).into_iter();
        members().for_each(|pid| {
            let _ = kill(pid, Signal::SIGHUP);
            let _ = kill(pid, Signal::SIGCONT);
        });
        let _ = ended_within(&self.child.pidfd, HANG_UP);
        members().for_each(|pid| {
            let _ = kill(pid, Signal::SIGKILL);
        });
    }
}

fn later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// The processes of the session whose leader this is or was.
fn session(leader: u32) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let member = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The program's name is in brackets and may contain anything.
        let session =
            stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(3)?.parse().ok());
        session == Some(leader)
    };
    pids.filter(member).map(Pid::from_raw).collect()
}
