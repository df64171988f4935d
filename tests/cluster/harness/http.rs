//! A client for HTTP as small as can be: HTTP/1.0, so that an answer ends when the connection does and comes in one piece.
//! Any program could be a client of Divvy with as little.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// No answer takes longer to begin, and no stream is silent for longer (servers send a comment every 10 s).
const PATIENCE: Duration = Duration::from_secs(30);

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// GET.
pub fn get(address: &str, path: &str) -> io::Result<Answer> {
    let (status, mut reader) = begin(address, &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n"))?;
    let mut body = Vec::new();
    reader.read_to_end(&mut body)?;
    Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
}

/// Server-sent events, as they come.
pub fn events(address: &str, path: &str) -> io::Result<Events> {
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: text/event-stream\r\n\r\n");
    match begin(address, &request)? {
        (200, reader) => Ok(Events(reader)),
        (status, _) => Err(io::Error::other(format!("{path} answers {status}"))),
    }
}

/// Sends a request and reads the head of the answer.
fn begin(address: &str, request: &str) -> io::Result<(u16, BufReader<TcpStream>)> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "not an answer in HTTP");
    let socket = address.to_socket_addrs()?.next().ok_or_else(malformed)?;
    let mut stream = TcpStream::connect_timeout(&socket, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(malformed)?;
    while line.trim_end() != "" {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(malformed());
        }
    }
    Ok((status, reader))
}

/// A stream of events: name and data. Ends when the connection does.
pub struct Events(BufReader<TcpStream>);

impl Iterator for Events {
    type Item = (String, String);

    fn next(&mut self) -> Option<Self::Item> {
        let (mut name, mut data) = (String::new(), String::new());
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end().split_once(": ") {
                Some(("event", value)) => name = value.to_owned(),
                Some(("data", value)) => data.push_str(value),
                _ if line.trim_end().is_empty() && !data.is_empty() => return Some((name, data)),
                _ => {}
            }
        }
    }
}
