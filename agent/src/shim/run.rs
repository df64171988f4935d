//! A shim of the nursery: makes one container and keeps it to its end.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use divvy_proto::Timestamp;
use divvy_proto::task::ExitStatus;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{chdir, dup2_stdout, setsid};

use super::child::{self, Child};
use super::log::Logs;
use crate::container::{
    CLONE_FLAGS, Exited, Greeting, LaunchError, Plan, Record, Report, Running, UserNamespace, boot_id,
    cgroups, isolate, pidfd_signal, start_time,
};
use crate::crash;

/// So many agents may talk to a shim at once: there is one, and perhaps its predecessor.
const CLIENTS: usize = 16;

/// The longest thing that an agent says: `signal 64`.
const WORDS: usize = 64;

pub(super) fn run(record: &Record) -> i32 {
    match start(record) {
        Err(error) => {
            super::tell(io::stdout(), &Report::Failed(error));
            1
        }
        Ok(mut shim) => {
            crash::point(format_args!("shim: start noted"));
            super::tell(io::stdout(), &Report::Started(Greeting { pid: shim.child.pid }));
            hang_up();
            shim.keep();
            0
        }
    }
}

/// Lets the agent know that nothing more will come on standard output.
fn hang_up() {
    if let Ok(null) = fs::OpenOptions::new().write(true).open("/dev/null") {
        let _ = dup2_stdout(null.as_fd());
    }
}

fn start(record: &Record) -> Result<Shim<'_>, LaunchError> {
    // Away from the agent's terminal and directory; and the last to be killed when memory is short.
    let _ = setsid();
    let _ = chdir("/");
    let _ = fs::write("/proc/self/oom_score_adj", "-900");
    let mut plan = super::plan(record)?;
    let step = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| LaunchError::Step { what, why: error.to_string() }
    };
    // The handle is kept: a connection is made through the directory.
    let (directory, path) = record.socket().map_err(step("open the container's directory"))?;
    let listener = UnixListener::bind(path).map_err(step("make the shim's socket"))?;
    listener.set_nonblocking(true).map_err(step("make the shim's socket"))?;
    crash::point(format_args!("shim: socket made"));
    let (logs, pipes) = Logs::open(&plan).map_err(step("open the logs in the sandbox"))?;
    plan.pipes = Some(pipes);
    plan.network.enter()?;
    plan.userns.as_mut().map_or(Ok(()), UserNamespace::make)?;
    let child =
        child::spawn(&plan, plan.network.clone_flags(CLONE_FLAGS), &plan.spec.argv, || isolate(&plan))?;
    // Only the container holds the other ends now.
    plan.pipes = None;
    crash::point(format_args!("shim: program executed"));
    let noted = note(child.pid).and_then(|running| record.write_running(&running));
    noted.map_err(step("write down that the container runs")).inspect_err(|_| abandon(&child))?;
    Ok(Shim {
        record,
        plan,
        child,
        logs,
        listener,
        _directory: directory,
        clients: Vec::new(),
        carried_out: None,
    })
}

fn note(pid: u32) -> io::Result<Running> {
    let shim = std::process::id();
    Ok(Running { pid, shim, shim_start: start_time(shim)?, boot: boot_id()? })
}

fn abandon(child: &Child) {
    let _ = pidfd_signal(child.pidfd.as_fd(), libc::SIGKILL);
    let _ = child::wait(child.pid);
}

struct Shim<'a> {
    record: &'a Record,
    plan: Plan,
    child: Child,
    logs: Logs,
    listener: UnixListener,
    _directory: File,
    clients: Vec<Client>,
    /// The signal that SIGKILL was sent in place of.
    carried_out: Option<i32>,
}

struct Client {
    stream: UnixStream,
    words: Vec<u8>,
}

impl Client {
    /// The signals that it asks for now; an error if it is gone or talks nonsense.
    fn signals(&mut self) -> io::Result<Vec<i32>> {
        let mut buffer = [0; WORDS];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => self.words.extend(buffer.iter().take(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
        let mut signals = Vec::new();
        while let Some(end) = self.words.iter().position(|byte| *byte == b'\n') {
            let line: Vec<_> = self.words.drain(..=end).collect();
            signals.push(signal_in(&line).ok_or(io::ErrorKind::InvalidData)?);
        }
        if self.words.len() > WORDS { Err(io::ErrorKind::InvalidData.into()) } else { Ok(signals) }
    }
}

/// `signal N`, where N is a signal that Linux has.
fn signal_in(line: &[u8]) -> Option<i32> {
    let number = std::str::from_utf8(line).ok()?.trim().strip_prefix("signal ")?.parse().ok()?;
    (1..=64).contains(&number).then_some(number)
}

impl Shim<'_> {
    /// Serves agents until the container's first process has ended, and then says how.
    fn keep(&mut self) {
        while !self.ended() {
            self.logs.pump();
            self.accept();
            let mut clients = std::mem::take(&mut self.clients);
            clients.retain_mut(|client| self.serve(client).is_ok());
            self.clients.append(&mut clients);
        }
        // With the first process all have ended that could write: what is there is all.
        while self.logs.pump() {}
        crash::point(format_args!("shim: program ended"));
        let status = child::wait(self.child.pid).ok();
        let exited = self.exited(status);
        // Without the file, the agents that listen now are still told.
        let _ = self.record.write_exited(&exited);
        crash::point(format_args!("shim: end noted"));
        for client in &mut self.clients {
            super::tell(&client.stream, &exited);
            let _ = client.stream.write_all(b"\n");
        }
    }

    /// Waits for whatever comes next; true if that is the end.
    fn ended(&self) -> bool {
        fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
            PollFd::new(fd, PollFlags::POLLIN)
        }
        let mut watched = vec![readable(self.child.pidfd.as_fd())];
        watched.extend(self.logs.watched().map(readable));
        watched.extend(self.clients.iter().map(|client| readable(client.stream.as_fd())));
        if self.clients.len() < CLIENTS {
            watched.push(readable(self.listener.as_fd()));
        }
        match poll(&mut watched, PollTimeout::NONE) {
            Err(Errno::EINTR) => false,
            // Without poll there is still wait.
            Err(_) => true,
            Ok(_) => watched.first().is_some_and(|child| child.any() == Some(true)),
        }
    }

    fn accept(&mut self) {
        while self.clients.len() < CLIENTS {
            let Ok((mut stream, _)) = self.listener.accept() else { return };
            super::tell(&stream, &Greeting { pid: self.child.pid });
            if stream.write_all(b"\n").and_then(|()| stream.set_nonblocking(true)).is_ok() {
                self.clients.push(Client { stream, words: Vec::new() });
            }
        }
    }

    /// Carries out what a client asks for; an error if it is gone or talks nonsense.
    fn serve(&mut self, client: &mut Client) -> io::Result<()> {
        for signal in client.signals()? {
            self.signal(signal)?;
            client.stream.write_all(b"\n")?;
        }
        Ok(())
    }

    /// See [`crate::container::Runtime::signal`].
    fn signal(&mut self, signal: i32) -> io::Result<()> {
        if ends_by_default(signal) && !minds(self.child.pid, signal)? {
            self.carried_out = Some(signal);
            return pidfd_signal(self.child.pidfd.as_fd(), libc::SIGKILL);
        }
        pidfd_signal(self.child.pidfd.as_fd(), signal)
    }

    fn exited(&self, status: Option<ExitStatus>) -> Exited {
        let status = match (status, self.carried_out) {
            (Some(ExitStatus::Signal(libc::SIGKILL)), Some(signal)) => Some(ExitStatus::Signal(signal)),
            (status, _) => status,
        };
        let success = status.is_some_and(ExitStatus::success);
        let oom = || cgroups().ok()?.oom(&self.plan.group).ok()?;
        Exited { status, oom: if success { None } else { oom() }, at: Timestamp::wall_clock() }
    }
}

/// Whether a signal ends a process that does nothing about it (signal(7)).
fn ends_by_default(signal: i32) -> bool {
    use libc::{SIGCHLD, SIGCONT, SIGKILL, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH};
    ![SIGCHLD, SIGCONT, SIGKILL, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH].contains(&signal)
}

/// Whether a process catches, ignores or blocks a signal. The kernel delivers what a pid 1 catches or blocks.
fn minds(pid: u32, signal: i32) -> io::Result<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(mask_of(&status, "SigCgt:", signal)
        || mask_of(&status, "SigIgn:", signal)
        || mask_of(&status, "SigBlk:", signal))
}

fn mask_of(status: &str, field: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix(field));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    u32::try_from(signal - 1).is_ok_and(|bit| bit < 64 && mask >> bit & 1 == 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All that a client says before it hangs up, read to the first error.
    fn asked(words: &[u8]) -> Vec<i32> {
        let (mut agent, stream) = UnixStream::pair().expect("a pair of sockets");
        agent.write_all(words).expect("room in the socket");
        drop(agent);
        let mut client = Client { stream, words: Vec::new() };
        std::iter::from_fn(|| client.signals().ok()).flatten().collect()
    }

    #[test]
    fn only_signals_that_there_are_can_be_asked_for() {
        assert_eq!(asked(b"signal 15\nsignal 64\nsig"), [15, 64]);
        for nonsense in ["signal 0\n", "signal -2147483648\n", "signal 65\n", "signal\n", "\n", "kill 9\n"] {
            assert_eq!(asked(nonsense.as_bytes()), [0; 0], "{nonsense}");
        }
    }

    proptest! {
        #[test]
        fn nonsense_asks_for_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(asked(&bytes), Vec::<i32>::new());
        }

        #[test]
        fn words_may_come_in_any_pieces(signals in proptest::collection::vec(1..=64, 0..20)) {
            let words: String = signals.iter().map(|signal| format!("signal {signal}\n")).collect();
            prop_assert_eq!(asked(words.as_bytes()), signals);
        }
    }

    #[test]
    fn masks_are_read_by_the_bit() {
        let status =
            "Name:\tsleep\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000001\nSigCgt:\t0000000000004000\n";
        let seen = [
            ("SigIgn:", 1),
            ("SigIgn:", 15),
            ("SigCgt:", 15),
            ("SigCgt:", 14),
            ("SigBlk:", 15),
            ("SigCgt:", 0),
        ];
        let seen = seen.map(|(field, signal)| mask_of(status, field, signal));
        assert_eq!(seen, [true, false, true, false, false, false]);
    }
}
