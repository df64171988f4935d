//! What goes over the line while somebody runs a command inside a task's container: frames, both ways, over the body of one
//! request and the body of its answer (`POST /api/v1/tasks/{framework_id}/{task_id}/exec`).
//!
//! A frame is a letter, the length of what follows (four bytes, the highest first), and what follows. The first frame is
//! [`ToCommand::Start`], the last one [`FromCommand::End`]. Whoever writes to the command's stdin may have [`WINDOW`] bytes under
//! way, and gets them back as the command takes them: so a command that does not read holds up its stdin and nothing else, and
//! a signal always passes.
//!
//! Not here: who may run what, and how.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::Invalid;
use crate::task::ExitStatus;

/// The kind of the bodies. No page of a browser can send it without being asked first (Fetch, "CORS-safelisted").
pub const CONTENT_TYPE: &str = "application/vnd.divvy.exec";

/// Most bytes of one stream in one frame.
pub const CHUNK: usize = 32 << 10;

/// Most bytes of stdin that are under way.
pub const WINDOW: usize = 64 << 10;

/// Most bytes in one frame: a command line may be as long as Linux lets it be in one argument (`MAX_ARG_STRLEN`), and a little more.
const LARGEST: usize = 192 << 10;

const HEAD: usize = 5;

/// What is to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecStart {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Variables beside the task's own.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Its stdin is what is sent; nothing by default.
    #[serde(default)]
    pub stdin: bool,
    /// It gets a terminal of this size; then its stderr comes with its stdout.
    #[serde(default)]
    pub tty: Option<WindowSize>,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecEnd {
    /// The command ended like this.
    Ended(ExitStatus),
    /// There is no such program in the container.
    NotFound(String),
    /// The program cannot be executed.
    NotExecutable(String),
    /// It did not come to that.
    Failed(String),
}

impl ExecEnd {
    /// The exit code that stands for it, as shells and `docker exec` have it.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Ended(ExitStatus::Code(code)) => u8::try_from(*code).unwrap_or(u8::MAX),
            Self::Ended(ExitStatus::Signal(signal)) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
            Self::Failed(_) => 125,
            Self::NotExecutable(_) => 126,
            Self::NotFound(_) => 127,
        }
    }
}

/// What the user's side says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToCommand {
    /// Run this.
    Start(ExecStart),
    /// For the command's stdin.
    Stdin(Vec<u8>),
    /// There is no more for its stdin.
    StdinEnd,
    /// The terminal has another size now.
    Resize(WindowSize),
    /// A signal for the command and its process group.
    Signal(i32),
}

/// What the container's side says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromCommand {
    /// The command wrote this to stdout.
    Stdout(Vec<u8>),
    /// The command wrote this to stderr.
    Stderr(Vec<u8>),
    /// The command has taken so many bytes of its stdin: as many more may be sent.
    Taken(u32),
    /// The end.
    End(ExecEnd),
}

impl ToCommand {
    /// The frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Start(start) => frame(b'X', &json(start)),
            Self::Stdin(bytes) => frame(b'I', bytes),
            Self::StdinEnd => frame(b'E', &[]),
            Self::Resize(size) => frame(b'W', &json(size)),
            Self::Signal(signal) => frame(b'K', &json(signal)),
        }
    }

    /// What a frame says.
    ///
    /// # Errors
    /// It says nothing that the container's side understands.
    pub fn decode(frame: &Frame) -> Result<Self, Invalid> {
        Ok(match frame.kind {
            b'X' => Self::Start(frame.json()?),
            b'I' => Self::Stdin(frame.payload.clone()),
            b'E' => Self::StdinEnd,
            b'W' => Self::Resize(frame.json()?),
            b'K' => Self::Signal(frame.json()?),
            _ => return Err(frame.unknown()),
        })
    }
}

impl FromCommand {
    /// The frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Stdout(bytes) => frame(b'o', bytes),
            Self::Stderr(bytes) => frame(b'e', bytes),
            Self::Taken(count) => frame(b't', &json(count)),
            Self::End(end) => frame(b'x', &json(end)),
        }
    }

    /// What a frame says.
    ///
    /// # Errors
    /// It says nothing that the user's side understands.
    pub fn decode(frame: &Frame) -> Result<Self, Invalid> {
        Ok(match frame.kind {
            b'o' => Self::Stdout(frame.payload.clone()),
            b'e' => Self::Stderr(frame.payload.clone()),
            b't' => Self::Taken(frame.json()?),
            b'x' => Self::End(frame.json()?),
            _ => return Err(frame.unknown()),
        })
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    [&[kind][..], &length.to_be_bytes(), payload].concat()
}

/// A frame as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    kind: u8,
    payload: Vec<u8>,
}

impl Frame {
    fn json<T: for<'de> Deserialize<'de>>(&self) -> Result<T, Invalid> {
        serde_json::from_slice(&self.payload).map_err(|error| {
            let value = String::from_utf8_lossy(&self.payload).chars().take(100).collect::<String>();
            Invalid::new("frame", value, error.to_string())
        })
    }

    fn unknown(&self) -> Invalid {
        Invalid::new("frame", char::from(self.kind).escape_default(), "a kind of frame that this side knows")
    }
}

/// Takes bytes as they come and gives frames. It never holds more than one frame beyond what was pushed.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    /// More bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// It is longer than any frame may be.
    pub fn take(&mut self) -> Result<Option<Frame>, Invalid> {
        let Some((&[kind, a, b, c, d], rest)) = self.bytes.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > LARGEST {
            return Err(Invalid::new("frame", length, format!("at most {LARGEST} bytes")));
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let frame = Frame { kind, payload: payload.to_vec() };
        self.bytes.drain(..HEAD + length);
        Ok(Some(frame))
    }

    /// What has come and is no whole frame.
    #[must_use]
    pub fn rest(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_as_they_were_sent_however_they_are_cut() {
        let size = WindowSize { rows: 24, cols: 80 };
        let start =
            ExecStart { argv: vec!["sh".into()], stdin: true, tty: Some(size), ..ExecStart::default() };
        let sent = [
            ToCommand::Start(start),
            ToCommand::Stdin(vec![0; CHUNK]),
            ToCommand::Resize(size),
            ToCommand::Signal(2),
            ToCommand::StdinEnd,
        ];
        let bytes: Vec<u8> = sent.iter().flat_map(ToCommand::encode).collect();
        for cut in [1, 7, 4096, bytes.len()] {
            let (mut frames, mut seen) = (Frames::default(), Vec::new());
            for piece in bytes.chunks(cut) {
                frames.push(piece);
                while let Some(frame) = frames.take().unwrap() {
                    seen.push(ToCommand::decode(&frame).unwrap());
                }
            }
            assert_eq!((seen, frames.rest()), (sent.to_vec(), Vec::new()), "cut every {cut}");
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let first = |bytes: &[u8]| {
            let mut frames = Frames::default();
            frames.push(bytes);
            frames.take().and_then(|frame| frame.map(|frame| ToCommand::decode(&frame)).transpose())
        };
        assert!(first(b"I\xff\xff\xff\xff").is_err(), "too long");
        assert!(first(b"?\0\0\0\0").is_err(), "unknown");
        assert!(first(b"X\0\0\0\x02{]").is_err(), "not JSON");
        assert_eq!(first(b"I\0\0\0\x02a"), Ok(None));
    }

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        let ends = [
            ExecEnd::Ended(ExitStatus::Code(3)),
            ExecEnd::Ended(ExitStatus::Signal(9)),
            ExecEnd::Failed(String::new()),
            ExecEnd::NotExecutable(String::new()),
            ExecEnd::NotFound(String::new()),
        ];
        assert_eq!(ends.map(|end| end.code()), [3, 137, 125, 126, 127]);
    }
}
