//! A connection to a node's RESP port, as a client has one: commands out, replies in, and nothing
//! sent twice that may have happened.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::Bytes;

/// The longest line of a reply, and the longest bulk.
const LINE_BYTES_MAX: u64 = 64 << 10;
const BULK_BYTES_MAX: u64 = 64 << 20;

/// Elements of one array, and arrays within arrays.
const ELEMENTS_MAX: u64 = 1 << 20;
const DEPTH_MAX: usize = 8;

/// Writes one command as RESP.
pub(super) fn write_command(out: &mut impl Write, argv: &[Bytes]) -> io::Result<()> {
    write!(out, "*{}\r\n", argv.len())?;
    for argument in argv {
        write!(out, "${}\r\n", argument.len())?;
        out.write_all(argument)?;
        out.write_all(b"\r\n")?;
    }
    Ok(())
}

/// An open connection.
pub(super) struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// Connects, and shows the password where there is one. `limit` bounds every wait.
    pub(super) fn open(address: &str, password: Option<&str>, limit: Duration) -> io::Result<Self> {
        let resolved = address.to_socket_addrs()?.next();
        let resolved = resolved.ok_or_else(|| io::Error::other("the name has no address"))?;
        let stream = TcpStream::connect_timeout(&resolved, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        stream.set_nodelay(true)?;
        let mut connection = Self { reader: BufReader::new(stream) };
        if let Some(password) = password {
            let auth = vec!["AUTH".into(), Bytes::copy_from_slice(password.as_bytes())];
            if let Some(error) = connection.send(&[auth])? {
                return Err(io::Error::other(error));
            }
        }
        Ok(connection)
    }

    /// Sends commands in one go and reads their replies. Returns the first error in them: in a
    /// transaction it is the reason for those that follow.
    pub(super) fn send(&mut self, commands: &[Vec<Bytes>]) -> io::Result<Option<String>> {
        let mut bytes = Vec::new();
        for argv in commands {
            write_command(&mut bytes, argv)?;
        }
        self.reader.get_mut().write_all(&bytes)?;
        let mut first = None;
        for _ in commands {
            let error = read_reply(&mut self.reader, 0)?;
            first = first.or(error);
        }
        Ok(first)
    }
}

/// Reads one reply; returns the error that it is, or the first that it holds.
fn read_reply(reader: &mut impl BufRead, depth: usize) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    let text = match line.strip_suffix(b"\r\n") {
        Some(text) if !text.is_empty() => String::from_utf8_lossy(text).into_owned(),
        Some(_) | None => return Err(io::ErrorKind::UnexpectedEof.into()),
    };
    let (kind, rest) = text.split_at(1);
    match kind {
        "+" | ":" | "_" | "#" | "," => Ok(None),
        "-" => Ok(Some(rest.to_owned())),
        "$" => {
            if let Some(length) = length(rest, BULK_BYTES_MAX)? {
                let skipped = io::copy(&mut reader.take(length + 2), &mut io::sink())?;
                if skipped != length + 2 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Ok(None)
        }
        "*" if depth < DEPTH_MAX => {
            let mut first = None;
            for _ in 0..length(rest, ELEMENTS_MAX)?.unwrap_or(0) {
                let error = read_reply(reader, depth + 1)?;
                first = first.or(error);
            }
            Ok(first)
        }
        _ => Err(malformed(&text)),
    }
}

/// A length, or `None` for the null of RESP2.
fn length(text: &str, max: u64) -> io::Result<Option<u64>> {
    if text == "-1" {
        return Ok(None);
    }
    let length = text.parse().ok().filter(|length| *length <= max);
    length.map(Some).ok_or_else(|| malformed(text))
}

fn malformed(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a reply: {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &str) -> io::Result<Option<String>> {
        read_reply(&mut bytes.as_bytes(), 0)
    }

    #[test]
    fn errors_are_found_at_any_depth_and_everything_else_is_success() {
        for reply in ["+OK\r\n", ":3\r\n", "$-1\r\n", "$3\r\na\r\n\r\n", "*2\r\n+OK\r\n*-1\r\n"] {
            assert_eq!(read(reply).expect("a reply"), None, "{reply:?}");
        }
        let moved = "MOVED 1 127.0.0.1:7401".to_owned();
        assert_eq!(read("-MOVED 1 127.0.0.1:7401\r\n").expect("a reply"), Some(moved));
        let inner = read("*3\r\n+OK\r\n-ERR a\r\n-ERR b\r\n").expect("a reply");
        assert_eq!(inner, Some("ERR a".to_owned()));
    }

    #[test]
    fn what_ends_early_or_is_no_reply_is_an_error() {
        for bytes in ["", "+OK", "$5\r\nab\r\n", "*2\r\n+OK\r\n", "hello\r\n", "$99999999999\r\n"] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
        let deep = "*1\r\n".repeat(DEPTH_MAX + 1) + ":1\r\n";
        assert!(read(&deep).is_err());
    }

    #[test]
    fn commands_are_written_as_arrays_of_bulks() {
        let mut out = Vec::new();
        write_command(&mut out, &["SET".into(), "k".into(), Bytes::new()]).expect("memory");
        assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n");
    }
}
