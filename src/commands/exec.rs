//! `divvy exec TASK -- COMMAND`: a command inside a task's container, by way of the master's address.
//!
//! The line is one request whose body and answer are open at once: see [`divvy_proto::exec`]. Nothing is kept: what the terminal
//! does not take is not read from the line, and what the command does not take is not read from the terminal.

use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;

use divvy_proto::api;
use divvy_proto::exec::{
    CHUNK, CONTENT_TYPE, ExecEnd, ExecStart, Frames, FromCommand, ToCommand, WINDOW, WindowSize,
};
use divvy_sdk::cli::{CliError, Context};
use futures::StreamExt;
use reqwest::Method;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::find_task;
use crate::cli::Exec;

/// What went wrong is not the command's doing, as `docker exec` has it.
const OURS: u8 = 125;

/// The exit code is that of the command.
pub(super) async fn run(context: &Context, options: Exec) -> ExitCode {
    match attend(context, options).await {
        Ok(end) => {
            if let ExecEnd::NotFound(why) | ExecEnd::NotExecutable(why) | ExecEnd::Failed(why) = &end {
                eprintln!("divvy: {why}");
            }
            ExitCode::from(end.code())
        }
        Err(error) => {
            eprintln!("divvy: {error}");
            ExitCode::from(OURS)
        }
    }
}

async fn attend(context: &Context, options: Exec) -> Result<ExecEnd, CliError> {
    let task = find_task(context, &options.task).await?;
    let terminal = options.tty.then(Terminal::of_this_process).transpose()?;
    let start = start(&options, terminal.as_ref());
    // So few words may wait: the window of stdin bounds what else there is.
    let (words, outgoing) = mpsc::channel::<ToCommand>(4);
    let _ = words.try_send(ToCommand::Start(start));
    let response = connect(context, &task, outgoing).await?;
    let raw = terminal.map(Terminal::raw).transpose()?;
    let ended = converse(response, words, options.interactive, options.tty).await;
    drop(raw);
    ended
}

fn start(options: &Exec, terminal: Option<&Terminal>) -> ExecStart {
    let mut env: std::collections::BTreeMap<_, _> = options.env.iter().cloned().collect();
    if terminal.is_some() {
        let name = std::env::var("TERM").ok().filter(|name| !name.is_empty());
        env.entry("TERM".to_owned()).or_insert_with(|| name.unwrap_or_else(|| "xterm".to_owned()));
    }
    let tty = terminal.map(|terminal| terminal.size);
    ExecStart { argv: options.command.clone(), env, stdin: options.interactive, tty }
}

async fn connect(
    context: &Context,
    task: &api::Task,
    words: mpsc::Receiver<ToCommand>,
) -> Result<reqwest::Response, CliError> {
    let path = format!("/api/v1/tasks/{}/{}/exec?agent={}", task.framework_id, task.id, task.agent_id);
    let frames = futures::stream::unfold(words, |mut words| async move {
        let word = words.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(word.encode()), words))
    });
    let request = context
        .request(Method::POST, &path)
        .header("content-type", CONTENT_TYPE)
        .body(reqwest::Body::wrap_stream(frames));
    context.send(request).await
}

/// Until the command ends, or the line does.
async fn converse(
    response: reqwest::Response,
    words: mpsc::Sender<ToCommand>,
    interactive: bool,
    tty: bool,
) -> Result<ExecEnd, CliError> {
    let mut stdin = Stdin::new(interactive);
    let mut signals = Signals::new(tty).map_err(CliError::failed)?;
    let mut body = response.bytes_stream();
    let mut frames = Frames::default();
    loop {
        tokio::select! {
            piece = body.next() => {
                let piece = piece.transpose().map_err(broken_off)?;
                frames.push(&piece.ok_or_else(|| broken_off("it ended early"))?);
                while let Some(frame) = frames.take().map_err(broken_off)? {
                    match FromCommand::decode(&frame).map_err(broken_off)? {
                        FromCommand::Stdout(bytes) => print(std::io::stdout(), &bytes)?,
                        FromCommand::Stderr(bytes) => print(std::io::stderr(), &bytes)?,
                        FromCommand::Taken(count) => stdin.give_back(count),
                        FromCommand::End(end) => return Ok(end),
                    }
                }
            }
            word = stdin.next() => {
                let _ = words.send(word).await;
            }
            word = signals.next() => {
                let Some(word) = word else { return Err(CliError::failed("interrupted")) };
                let _ = words.send(word).await;
            }
        }
    }
}

fn broken_off(why: impl std::fmt::Display) -> CliError {
    CliError::Unreachable(format!("the line to the command broke off: {why}"))
}

fn print(mut to: impl Write, bytes: &[u8]) -> Result<(), CliError> {
    let written = to.write_all(bytes).and_then(|()| to.flush());
    written.map_err(|error| CliError::Failed(format!("cannot write what the command prints: {error}")))
}

/// Standard input, read by a thread that nobody waits for: a read from a terminal cannot be called off.
struct Stdin {
    pieces: mpsc::Receiver<Vec<u8>>,
    /// So many bytes may still be sent.
    window: usize,
    /// Read, and waiting for the window.
    rest: Vec<u8>,
    ended: bool,
}

impl Stdin {
    fn new(wanted: bool) -> Self {
        let (sender, pieces) = mpsc::channel(1);
        if wanted {
            std::thread::spawn(move || {
                let (mut stdin, mut buffer) = (std::io::stdin().lock(), vec![0; CHUNK]);
                while let Ok(count @ 1..) = stdin.read(&mut buffer) {
                    let piece = buffer.get(..count).unwrap_or_default().to_vec();
                    if sender.blocking_send(piece).is_err() {
                        break;
                    }
                }
            });
        }
        Self { pieces, window: WINDOW, rest: Vec::new(), ended: !wanted }
    }

    fn give_back(&mut self, count: u32) {
        self.window = self.window.saturating_add(usize::try_from(count).unwrap_or(usize::MAX)).min(WINDOW);
    }

    /// The next of it, or its end; waits while the window is closed. Can be cancelled.
    async fn next(&mut self) -> ToCommand {
        if self.rest.is_empty() && !self.ended {
            match self.pieces.recv().await {
                Some(piece) => self.rest = piece,
                None => {
                    self.ended = true;
                    return ToCommand::StdinEnd;
                }
            }
        }
        if self.rest.is_empty() || self.window == 0 {
            return std::future::pending().await;
        }
        let count = self.rest.len().min(self.window);
        self.window -= count;
        ToCommand::Stdin(self.rest.drain(..count).collect())
    }
}

/// What this process is told by signals, for the command to hear of it.
struct Signals {
    window: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    others: [(tokio::signal::unix::Signal, i32); 3],
    tty: bool,
    interrupted: bool,
}

impl Signals {
    fn new(tty: bool) -> std::io::Result<Self> {
        let other = |kind: SignalKind| Ok::<_, std::io::Error>((signal(kind)?, kind.as_raw_value()));
        Ok(Self {
            window: signal(SignalKind::window_change())?,
            interrupt: signal(SignalKind::interrupt())?,
            others: [
                other(SignalKind::terminate())?,
                other(SignalKind::hangup())?,
                other(SignalKind::quit())?,
            ],
            tty,
            interrupted: false,
        })
    }

    /// `None` when the user insists on the end: by a second interrupt, if the command does not care for the first.
    async fn next(&mut self) -> Option<ToCommand> {
        let [(terminate, term), (hangup, hup), (quit, quit_number)] = &mut self.others;
        loop {
            let number = tokio::select! {
                _ = self.window.recv() => {
                    if let Some(size) = window_size().filter(|_| self.tty) {
                        return Some(ToCommand::Resize(size));
                    }
                    continue;
                }
                _ = self.interrupt.recv() => {
                    if std::mem::replace(&mut self.interrupted, true) {
                        return None;
                    }
                    SignalKind::interrupt().as_raw_value()
                }
                // The terminal of this process is gone, and with it whoever sat there.
                _ = hangup.recv() => {
                    if self.tty {
                        return None;
                    }
                    *hup
                }
                _ = terminate.recv() => *term,
                _ = quit.recv() => *quit_number,
            };
            return Some(ToCommand::Signal(number));
        }
    }
}

fn window_size() -> Option<WindowSize> {
    let size = tcgetwinsize(std::io::stdout()).or_else(|_| tcgetwinsize(std::io::stdin())).ok()?;
    Some(WindowSize { rows: size.ws_row, cols: size.ws_col })
}

/// The terminal that this process was started on.
struct Terminal {
    size: WindowSize,
    before: Option<Termios>,
}

impl Terminal {
    fn of_this_process() -> Result<Self, CliError> {
        let refusal = || {
            CliError::Usage(
                "-t needs a terminal, and standard input is none: leave it out, or use `script`".to_owned(),
            )
        };
        let stdin = std::io::stdin();
        let before = match stdin.is_terminal() {
            true => Some(tcgetattr(&stdin).map_err(CliError::failed)?),
            false => return Err(refusal()),
        };
        Ok(Self { size: window_size().unwrap_or(WindowSize { rows: 24, cols: 80 }), before })
    }

    /// What is typed goes to the command as it is, control-C and all, until the returned value is dropped: that is, on every way
    /// out but SIGKILL.
    fn raw(self) -> Result<Raw, CliError> {
        let Some(before) = self.before else { return Ok(Raw(None)) };
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Drain, &raw).map_err(CliError::failed)?;
        Ok(Raw(Some(before)))
    }
}

struct Raw(Option<Termios>);

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = self.0.take() {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
        }
    }
}
