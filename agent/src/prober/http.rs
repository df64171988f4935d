//! One question in HTTP/1.1, and the first line of the answer: all that a check needs.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Within this much of the answer its status must be.
const LONGEST_STATUS: usize = 1024;
/// Some servers log a client that hangs up early, so a little more of the answer is read, for at most this long.
const KINDNESS: (u64, Duration) = (64 * 1024, Duration::from_millis(100));

/// Asks for a path. Good are the statuses from 200 to 399, which is Mesos's rule.
pub(super) async fn get(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
    path: &str,
) -> Result<(), String> {
    let broken = |error: std::io::Error| format!("the connection broke: {error}");
    stream.write_all(request(host, path).as_bytes()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') && answer.len() < LONGEST_STATUS {
        if stream.read_buf(&mut answer).await.map_err(broken)? == 0 {
            break;
        }
    }
    match status(&answer) {
        Some(status) if (200..400).contains(&status) => {
            let (most, longest) = KINDNESS;
            let rest = async { tokio::io::copy(&mut stream.take(most), &mut tokio::io::sink()).await };
            let _ = tokio::time::timeout(longest, rest).await;
            Ok(())
        }
        Some(status) => Err(format!("the answer was {status}")),
        None if answer.is_empty() => Err("the connection was closed without an answer".to_owned()),
        None => Err("the answer is not HTTP".to_owned()),
    }
}

fn request(host: &str, path: &str) -> String {
    let slash = if path.starts_with('/') { "" } else { "/" };
    // What cannot stand in the first line of a request is written as its octets.
    let plain = |byte: u8| match byte {
        b'!'..=b'~' if byte != b'#' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    let path: String = path.bytes().map(plain).collect();
    format!(
        "GET {slash}{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: divvy\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
}

fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    words.next()?.strip_prefix("HTTP/1.")?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_say_more_than_a_path() {
        let first = |path| request("h:1", path).lines().next().unwrap().to_owned();
        assert_eq!(first("health?deep=1&x=%20"), "GET /health?deep=1&x=%20 HTTP/1.1");
        assert_eq!(first("/a b\r\nX: y#z\u{e9}"), "GET /a%20b%0D%0AX:%20y%23z%C3%A9 HTTP/1.1");
    }

    #[tokio::test]
    async fn the_first_line_decides() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n", Ok(())),
            ("HTTP/1.0 302 Found\r\nLocation: /\r\n", Ok(())),
            ("HTTP/1.1 503 Service Unavailable\r\n", Err("the answer was 503".to_owned())),
            ("SSH-2.0-OpenSSH_9.2\r\n", Err("the answer is not HTTP".to_owned())),
            ("", Err("the connection was closed without an answer".to_owned())),
        ] {
            let (ours, mut theirs) = tokio::io::duplex(4096);
            theirs.write_all(answer.as_bytes()).await.unwrap();
            theirs.shutdown().await.unwrap();
            assert_eq!(get(ours, "h:1", "/").await, expected, "{answer:?}");
        }
    }
}
