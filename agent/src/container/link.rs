//! The agent's end of the shim's socket, and the words that go over it.
//!
//! On every connection the shim first says [`Greeting`], one JSON line, once the program has been executed; at the end of the
//! first process it says [`Exited`], one JSON line, and is gone. In between it takes lines `signal N`, and answers each with
//! an empty line.

use std::io::{self, ErrorKind};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::error::LaunchError;
use super::plan::Record;
use super::spec::Exited;

/// What the shim says first on a connection.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Greeting {
    /// The first process as the host sees it.
    pub(crate) pid: u32,
}

/// What the shim tells whoever started it, on its standard output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The program has been executed.
    Started(Greeting),
    /// It has not, and nothing runs.
    Failed(LaunchError),
}

/// What the helper that runs a command in a container is told, on its standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecRequest {
    /// The container's first process as the host sees it.
    pub(crate) pid: u32,
    /// The command.
    pub(crate) argv: Vec<String>,
}

/// What the helper that runs somebody's command in a container is told first, on its standard input: its length in four bytes,
/// the highest first, and this. What follows are the frames of [`divvy_proto::exec`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AttachRequest {
    /// The container's first process as the host sees it.
    pub(crate) pid: u32,
    /// The command.
    pub(crate) start: divvy_proto::exec::ExecStart,
}

/// What came of it, on the helper's standard error.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExecReport {
    /// The command ended like this.
    Ended(divvy_proto::task::ExitStatus),
    /// It was not executed.
    Failed(LaunchError),
}

/// A connection to a shim that has executed its program.
#[derive(Debug)]
pub(super) struct Link {
    stream: BufReader<UnixStream>,
    /// The container's first process.
    pub(super) pid: u32,
}

impl Link {
    /// Connects, and waits until the program has been executed if that is still under way. `None` if there is no shim, or it
    /// ended first.
    pub(super) async fn connect(record: &Record) -> io::Result<Option<Self>> {
        let (_directory, path) = match record.socket() {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut stream = match UnixStream::connect(&path).await {
            Err(error) if gone(&error) => return Ok(None),
            other => BufReader::new(other?),
        };
        match line(&mut stream).await? {
            Some(text) => {
                let greeting: Greeting = serde_json::from_str(&text)?;
                Ok(Some(Self { stream, pid: greeting.pid }))
            }
            None => Ok(None),
        }
    }

    /// Asks for a signal to the first process. `Some` if that has ended.
    pub(super) async fn signal(&mut self, signal: i32) -> io::Result<Option<Exited>> {
        match self.stream.write_all(format!("signal {signal}\n").as_bytes()).await {
            Err(error) if gone(&error) => {}
            other => other?,
        }
        match line(&mut self.stream).await? {
            Some(text) if !text.is_empty() => Ok(Some(serde_json::from_str(&text)?)),
            _ => Ok(None),
        }
    }

    /// Waits for the end of the first process. `None` if the shim ended without a word.
    pub(super) async fn exited(&mut self) -> io::Result<Option<Exited>> {
        loop {
            match line(&mut self.stream).await? {
                Some(text) if text.is_empty() => {}
                Some(text) => return Ok(Some(serde_json::from_str(&text)?)),
                None => return Ok(None),
            }
        }
    }
}

/// The longest line that a shim says.
const LINE: u64 = 65_536;

/// Whether an error says that there is no shim, or none any more.
fn gone(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound};
    matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | NotFound)
}

/// A line without its end; `None` if the other side is gone.
async fn line(stream: &mut BufReader<UnixStream>) -> io::Result<Option<String>> {
    let mut text = Vec::new();
    match stream.take(LINE).read_until(b'\n', &mut text).await {
        Ok(0) => return Ok(None),
        Err(error) if gone(&error) => return Ok(None),
        other => other?,
    };
    if text.pop() != Some(b'\n') {
        // Half a line is what a shim leaves that was killed.
        let too_long = u64::try_from(text.len()).is_ok_and(|length| length + 1 >= LINE);
        return if too_long { Err(ErrorKind::InvalidData.into()) } else { Ok(None) };
    }
    String::from_utf8(text).map(Some).map_err(|_| ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use divvy_proto::Timestamp;
    use divvy_proto::task::ExitStatus;
    use proptest::prelude::*;
    use tokio::net::UnixListener;

    use super::*;

    /// What an agent makes of a shim that says `words` and hangs up.
    fn heard(words: &[u8]) -> io::Result<Option<(u32, Option<Exited>)>> {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio");
        let directory = tempfile::tempdir().expect("a directory");
        let record = Record::at(directory.path().to_owned());
        let heard = async {
            let (_directory, path) = record.socket()?;
            let listener = UnixListener::bind(path)?;
            let shim = async {
                let (mut stream, _) = listener.accept().await?;
                stream.write_all(words).await.or_else(|error| if gone(&error) { Ok(()) } else { Err(error) })
            };
            let agent = async {
                let Some(mut link) = Link::connect(&record).await? else { return Ok(None) };
                Ok(Some((link.pid, link.exited().await?)))
            };
            let (told, heard) = tokio::join!(shim, agent);
            told.and(heard)
        };
        tokio.block_on(async { tokio::time::timeout(Duration::from_secs(20), heard).await.expect("an end") })
    }

    const EXITED: Exited = Exited { status: Some(ExitStatus::Code(3)), oom: None, at: Timestamp(5) };

    fn words() -> String {
        format!("{}\n\n{}\n", r#"{"pid":7}"#, serde_json::to_string(&EXITED).expect("JSON"))
    }

    #[test]
    fn a_line_without_an_end_is_refused_before_it_fills_the_memory() {
        assert_eq!(heard(&[b' '; 100_000]).map_err(|error| error.kind()), Err(ErrorKind::InvalidData));
        assert_eq!(heard(words().as_bytes()).ok(), Some(Some((7, Some(EXITED)))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn half_a_word_is_none(cut in 0_usize..1000) {
            let words = words();
            let cut = cut % words.len();
            let greeted = cut >= r#"{"pid":7}\n"#.len() - 1;
            prop_assert_eq!(heard(&words.as_bytes()[..cut]).ok(), Some(greeted.then_some((7, None))));
        }

        #[test]
        fn nonsense_is_an_error_or_nothing(bytes: Vec<u8>, greeted: bool) {
            let greeting: &[u8] = if greeted { b"{\"pid\":7}\n" } else { b"" };
            let heard = heard(&[greeting, &bytes].concat());
            prop_assert!(matches!(heard, Err(_) | Ok(None | Some((7, None)))), "{:?}", heard);
        }
    }
}
