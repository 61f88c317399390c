//! HTTP requests to a node's admin port: one connection each, every wait with a deadline.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use thiserror::Error;

/// Largest response that is read, in bytes.
const RESPONSE_BYTES_MAX: usize = 16 << 20;

/// What a node answered.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Why there is no response.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The connection failed, broke or took too long.
    #[error("http: {0}")]
    Io(#[from] io::Error),
    /// The answer is not HTTP.
    #[error("http: malformed response: {0}")]
    Malformed(String),
}

/// `GET path`.
///
/// # Errors
///
/// See [`HttpError`]; any status code is a response.
pub fn get(address: SocketAddr, path: &str, timeout: Duration) -> Result<Response, HttpError> {
    ask(address, &format!("GET {path} HTTP/1.1\r\n"), "", timeout)
}

/// `POST path` with a JSON body.
///
/// # Errors
///
/// See [`HttpError`]; any status code is a response.
pub fn post(
    address: SocketAddr,
    path: &str,
    json: &str,
    timeout: Duration,
) -> Result<Response, HttpError> {
    let length = json.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n"
    );
    ask(address, &head, json, timeout)
}

fn ask(
    address: SocketAddr,
    head: &str,
    body: &str,
    timeout: Duration,
) -> Result<Response, HttpError> {
    let deadline = Instant::now() + timeout;
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_write_timeout(Some(timeout))?;
    let request = format!("{head}Host: {address}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes())?;
    let mut received = Vec::new();
    let mut chunk = [0; 16 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk)? {
            0 => break,
            count if received.len() + count > RESPONSE_BYTES_MAX => {
                return Err(HttpError::Malformed("too long".into()));
            }
            count => received.extend_from_slice(&chunk[..count]),
        }
    }
    parse(&String::from_utf8_lossy(&received))
}

fn parse(text: &str) -> Result<Response, HttpError> {
    let malformed = || HttpError::Malformed(text.chars().take(80).collect());
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(malformed)?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunk(body).ok_or_else(malformed)? } else { body.to_owned() };
    Ok(Response { status, body })
}

fn unchunk(mut rest: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(after.get(..size)?);
        rest = after.get(size..)?.strip_prefix("\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_chunked_bodies_are_read() {
        let plain = parse("HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\nno").expect("plain");
        assert_eq!((plain.status, plain.body.as_str()), (503, "no"));
        let chunked = parse(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        )
        .expect("chunked");
        assert_eq!(chunked.body, "abcde");
        assert!(parse("nonsense").is_err());
    }
}
