//! Processes of the binary under test: servers with their logs, and commands with a deadline.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::{SOON, kept, wait_for, wait_until};

/// No command of a story takes longer.
const COMMAND: Duration = Duration::from_secs(120);

/// So much of a log is shown when a test fails.
const TAIL: usize = 40;

/// A server that writes its log to a file. Killed when dropped.
pub struct Process {
    child: Child,
    pub log: PathBuf,
    /// Where the log of this start begins.
    from: u64,
}

impl Process {
    /// Starts the binary under test.
    pub fn start(arguments: &[&str], log: &Path) -> Self {
        Self::start_program(Path::new(env!("CARGO_BIN_EXE_divvy")), arguments, &[], log)
    }

    /// Starts any program.
    pub fn start_program(
        program: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
        log: &Path,
    ) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(log).expect("a log");
        let from = file.metadata().expect("a log's size").len();
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        command.stdout(file.try_clone().expect("a second handle")).stderr(file);
        clean_environment(&mut command);
        command.envs(environment.iter().copied());
        let child =
            command.spawn().unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        Self { child, log: log.to_owned(), from }
    }

    /// Waits until it has printed a line that says `ready`.
    pub fn wait_until_ready(&mut self) {
        wait_until(&format!("{} says ready", self.log.display()), SOON, || {
            assert!(self.is_running(), "it has ended: {}", self.output());
            self.output().lines().any(|line| line == "ready")
        });
    }

    /// What it has written since this start.
    pub fn output(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let from = usize::try_from(self.from).unwrap_or_default();
        String::from_utf8_lossy(text.get(from..).unwrap_or_default()).into_owned()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child's state").is_none()
    }

    pub fn kill9(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end, and waits for that.
    pub fn terminate(&mut self, within: Duration) -> ExitStatus {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        nix::sys::signal::kill(pid, Signal::SIGTERM).expect("a process that can be signalled");
        wait_for("the end of a process after SIGTERM", within, || {
            self.child.try_wait().expect("a child's state")
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// A user's settings have no business in a test.
fn clean_environment(command: &mut Command) {
    let names = std::env::vars_os().map(|(name, _)| name);
    for ours in names.filter(|name| name.to_string_lossy().starts_with("DIVVY_")) {
        command.env_remove(ours);
    }
    command.env_remove("RUST_LOG");
}

/// How a command ended, and what it printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// The exit code; -1 where a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Standard output of a command that must have succeeded.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self}");
        self.stdout
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {}\nstdout: {}\nstderr: {}", self.code, self.stdout, self.stderr)
    }
}

/// Runs a program to its end. `scratch` is where its output goes meanwhile.
pub fn run(program: &Path, arguments: &[&str], scratch: &Path) -> Ran {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let paths = ["out", "err"].map(|end| scratch.with_extension(format!("{number}.{end}")));
    let [out, err] = paths.each_ref().map(|path| File::create(path).expect("a file for output"));
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(out).stderr(err);
    clean_environment(&mut command);
    let mut child =
        command.spawn().unwrap_or_else(|error| panic!("cannot run {}: {error}", program.display()));
    let end = std::time::Instant::now() + COMMAND;
    let status = loop {
        match child.try_wait().expect("a child's state") {
            Some(status) => break Some(status),
            None if std::time::Instant::now() > end => break None,
            None => std::thread::sleep(super::LOOK),
        }
    };
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let [stdout, stderr] =
        paths.map(|path| String::from_utf8_lossy(&fs::read(path).expect("the output")).into_owned());
    let ran = Ran { code: status.and_then(|status| status.code()).unwrap_or(-1), stdout, stderr };
    assert!(status.is_some(), "{arguments:?} takes longer than {COMMAND:?}: {ran}");
    ran
}

/// If the test has failed, shows the end of a log and keeps all of it.
pub fn show_log_of_failure(test: &str, part: &str, log: &Path) {
    if !std::thread::panicking() {
        return;
    }
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default().join("\n");
    let copy = kept(test).join(format!("{part}.log"));
    let copied = fs::create_dir_all(kept(test)).and_then(|()| fs::copy(log, &copy));
    let whole = copied.map_or_else(|error| error.to_string(), |_| copy.display().to_string());
    eprintln!("---- {test}: {part} (whole: {whole}) ----\n{tail}");
}
