//! Hearing from the shim that keeps a container, and starting those that run a command in a container that there is.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::RuntimeConfig;
use super::error::LaunchError;
use super::link::{AttachRequest, ExecReport, ExecRequest, Report};
use super::plan::Record;
use super::spec::ExecResult;
use crate::crash;

/// How much of a command's output is kept: what fits on a screen.
const TAIL: usize = 4096;

/// How long a helper may take to end once its command is to be killed.
const HELPER_END: Duration = Duration::from_secs(5);

/// What enters [`crate::shim::main`] by one of its verbs. Its command line says which container, and its environment nothing:
/// both can be seen by others.
pub(super) fn command(
    shim: &[OsString],
    verb: &str,
    argument: impl AsRef<OsStr>,
) -> io::Result<std::process::Command> {
    let (program, arguments) =
        shim.split_first().ok_or_else(|| io::Error::other("no command to start it with is configured"))?;
    let mut command = std::process::Command::new(program);
    command.args(arguments).arg(verb).arg(argument).env_clear();
    crash::hand_down(&mut command);
    Ok(command)
}

/// Hears from the shim of a prepared container, and returns with the program's pid when it has been executed.
pub(super) async fn started(report: OwnedFd) -> Result<u32, LaunchError> {
    let lost = |error: io::Error| LaunchError::ShimLost(error.to_string());
    let mut words = Vec::new();
    pipe::Receiver::from_owned_fd(report).map_err(lost)?.read_to_end(&mut words).await.map_err(lost)?;
    match serde_json::from_slice(&words) {
        Ok(Report::Started(greeting)) => {
            crash::point(format_args!("program started"));
            Ok(greeting.pid)
        }
        Ok(Report::Failed(error)) => Err(error),
        Err(_) => Err(LaunchError::ShimLost("it ended before it could say why".to_owned())),
    }
}

/// Why a command in a container has no status.
pub(super) enum ExecFailure {
    Timeout,
    Launch(LaunchError),
    Helper(io::Error),
}

impl From<io::Error> for ExecFailure {
    fn from(error: io::Error) -> Self {
        Self::Helper(error)
    }
}

/// Runs a command in a container. The helper kills it when its standard input ends, so also when this future is dropped.
pub(super) async fn exec(
    config: &RuntimeConfig,
    record: &Record,
    request: &ExecRequest,
    timeout: Duration,
) -> Result<ExecResult, ExecFailure> {
    let mut command = Command::from(command(&config.shim, "exec", record.path())?);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut helper = command.spawn()?;
    let (mut stdin, stdout, stderr) = (helper.stdin.take(), helper.stdout.take(), helper.stderr.take());
    if let Some(stdin) = &mut stdin {
        let mut line = serde_json::to_vec(request).map_err(io::Error::from)?;
        line.push(b'\n');
        stdin.write_all(&line).await?;
    }
    let mut output = Tail { stdout, kept: Vec::new() };
    let mut report = Vec::new();
    let ended = async {
        let Some(mut stderr) = stderr else { return Ok(()) };
        tokio::select! {
            read = stderr.read_to_end(&mut report) => read.map(|_| ()),
            error = output.keep() => Err(error),
        }
    };
    let ended = tokio::time::timeout(timeout, ended).await;
    drop(stdin);
    end(helper).await?;
    match ended {
        Err(_) => Err(ExecFailure::Timeout),
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok(())) => match serde_json::from_slice(&report) {
            Ok(ExecReport::Ended(status)) => Ok(ExecResult { status, output: output.rest().await }),
            Ok(ExecReport::Failed(error)) => Err(ExecFailure::Launch(error)),
            Err(error) => Err(io::Error::from(error).into()),
        },
    }
}

/// A command in a container and both ends of its line, which speaks the frames of [`divvy_proto::exec`]. It is ended when
/// `input` is dropped.
#[derive(Debug)]
pub struct Attached {
    /// What is said to the command's helper.
    pub input: ChildStdin,
    /// What the helper says. It ends with the command.
    pub output: ChildStdout,
}

/// Starts a helper for a command that somebody is attached to.
pub(super) async fn attach(
    config: &RuntimeConfig,
    record: &Record,
    request: &AttachRequest,
) -> io::Result<Attached> {
    let mut command = Command::from(command(&config.shim, "attach", record.path())?);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut helper = command.spawn()?;
    let (Some(mut input), Some(output)) = (helper.stdin.take(), helper.stdout.take()) else {
        return Err(io::Error::other("a helper without pipes"));
    };
    tokio::spawn(async move { helper.wait().await });
    let words = serde_json::to_vec(request).map_err(io::Error::from)?;
    let length = u32::try_from(words.len()).map_err(io::Error::other)?;
    input.write_all(&length.to_be_bytes()).await?;
    input.write_all(&words).await?;
    Ok(Attached { input, output })
}

async fn end(mut helper: Child) -> io::Result<()> {
    match tokio::time::timeout(HELPER_END, helper.wait()).await {
        Ok(status) => status.map(|_| ()),
        Err(_) => helper.kill().await,
    }
}

/// The last of what a command prints.
struct Tail {
    stdout: Option<ChildStdout>,
    kept: Vec<u8>,
}

impl Tail {
    /// Reads on, and returns only with an error: the end of the output is not the end of the command.
    async fn keep(&mut self) -> io::Error {
        loop {
            match self.read().await {
                Ok(0) => self.stdout = None,
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    }

    async fn read(&mut self) -> io::Result<usize> {
        let Some(stdout) = &mut self.stdout else { return std::future::pending().await };
        let count = stdout.read_buf(&mut self.kept).await?;
        let surplus = self.kept.len().saturating_sub(TAIL);
        self.kept.drain(..surplus);
        Ok(count)
    }

    /// What the pipe holds when the command has ended. Whoever the command left behind may hold it open, so only what is
    /// there is read.
    async fn rest(mut self) -> String {
        while self.stdout.is_some() {
            let there = tokio::time::timeout(Duration::ZERO, self.read()).await;
            if !matches!(there, Ok(Ok(1..))) {
                break;
            }
        }
        String::from_utf8_lossy(&self.kept).into_owned()
    }
}
