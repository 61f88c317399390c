//! Closed-loop RESP load from one thread: an epoll loop that does little more than copy bytes,
//! so that it takes as little as possible from the servers beside it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::histogram::{Latencies, LoadResult};

/// Keys are drawn from this many.
const KEYS: u64 = 100_000;
/// Without any reply for so long, the server is taken to be dead.
const SILENCE_LIMIT: Duration = Duration::from_secs(20);

/// What each request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// `SET` of a random key.
    Set,
    /// `SET`s, and one `WAIT 1 0` after those that are sent at once.
    SetThenWait,
    /// `GET` of a random key.
    Get,
}

/// One measurement's load.
#[derive(Clone, Copy, Debug)]
pub struct RespLoad {
    /// What is asked.
    pub request: Request,
    /// Connections.
    pub connections: usize,
    /// Requests that each connection sends at once.
    pub pipeline: usize,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// How long replies are counted.
    pub duration: Duration,
    /// How long the load runs before that.
    pub warm_up: Duration,
}

struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
    replies_left: usize,
    errors: u64,
    began: Instant,
}

/// Runs the load against one server.
///
/// # Errors
///
/// The connection failed or broke, or the server fell silent.
///
/// # Panics
///
/// If a reply is no RESP.
pub fn run_resp(address: SocketAddr, load: &RespLoad) -> io::Result<LoadResult> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut generator = Generator::new(load);
    let mut connections = Vec::with_capacity(load.connections);
    for index in 0..load.connections {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll.add(stream.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
        let mut connection = Connection {
            stream,
            request: Vec::new(),
            sent: 0,
            received: Vec::new(),
            replies_left: 0,
            errors: 0,
            began: Instant::now(),
        };
        generator.send_next(&mut connection)?;
        connections.push(connection);
    }
    let counted_from = Instant::now() + load.warm_up;
    let end = counted_from + load.duration;
    let mut latencies = Latencies::default();
    let mut errors = 0;
    let mut events = [EpollEvent::empty(); 256];
    let timeout = EpollTimeout::try_from(SILENCE_LIMIT).expect("within bounds");
    loop {
        let ready = epoll.wait(&mut events, timeout)?;
        if ready == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        for event in &events[..ready] {
            let connection = &mut connections[event.data() as usize];
            if !connection.on_readable()? {
                continue;
            }
            let now = Instant::now();
            if now >= end {
                return Ok(LoadResult::new(&latencies, errors, load.duration));
            }
            if now >= counted_from {
                let done = (load.pipeline as u64).saturating_sub(connection.errors);
                latencies.record(now - connection.began, done);
                errors += connection.errors;
            }
            generator.send_next(connection)?;
        }
    }
}

impl Connection {
    /// Reads what is there; true once all replies of the exchange have come.
    fn on_readable(&mut self) -> io::Result<bool> {
        self.flush()?;
        let mut chunk = [0; 16 << 10];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.received.extend_from_slice(&chunk[..count]);
                    if count < chunk.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let mut used = 0;
        while self.replies_left > 0 {
            let Some(length) = reply_length(&self.received[used..]) else { break };
            // A `WAIT` that reached no replica is as good as an error.
            let reply = &self.received[used..used + length];
            self.errors += u64::from(reply[0] == b'-' || reply == b":0\r\n");
            used += length;
            self.replies_left -= 1;
        }
        self.received.drain(..used);
        Ok(self.replies_left == 0)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.request.len() {
            match self.stream.write(&self.request[self.sent..]) {
                Ok(count) => self.sent += count,
                // The rest follows when replies come: a server that reads nothing answers nothing.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Bytes of the reply at the start, if it is complete: the kinds that the requests here get.
fn reply_length(input: &[u8]) -> Option<usize> {
    let end = input.windows(2).position(|pair| pair == b"\r\n")? + 2;
    if input[0] != b'$' {
        assert!(b"+-:_".contains(&input[0]), "unexpected reply {:?}", input[..end].escape_ascii());
        return Some(end);
    }
    let digits = std::str::from_utf8(&input[1..end - 2]).expect("a length");
    let length: i64 = digits.parse().expect("a length");
    let total = usize::try_from(length).map_or(end, |length| end + length + 2);
    (input.len() >= total).then_some(total)
}

struct Generator {
    load: RespLoad,
    value: Vec<u8>,
    random: u64,
}

impl Generator {
    fn new(load: &RespLoad) -> Self {
        Self { load: *load, value: vec![b'v'; load.value_bytes], random: 0x9e37_79b9_7f4a_7c15 }
    }

    fn send_next(&mut self, connection: &mut Connection) -> io::Result<()> {
        let request = &mut connection.request;
        request.clear();
        for _ in 0..self.load.pipeline {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let key = self.random % KEYS;
            match self.load.request {
                Request::Set | Request::SetThenWait => {
                    write!(request, "*3\r\n$3\r\nSET\r\n$16\r\nkey:{key:012}\r\n")?;
                    write!(request, "${}\r\n", self.value.len())?;
                    request.extend_from_slice(&self.value);
                    request.extend_from_slice(b"\r\n");
                }
                Request::Get => write!(request, "*2\r\n$3\r\nGET\r\n$16\r\nkey:{key:012}\r\n")?,
            }
        }
        connection.replies_left = self.load.pipeline;
        if self.load.request == Request::SetThenWait {
            request.extend_from_slice(b"*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$1\r\n0\r\n");
            connection.replies_left += 1;
        }
        connection.sent = 0;
        connection.errors = 0;
        connection.began = Instant::now();
        connection.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_measured() {
        assert_eq!(reply_length(b"+OK\r\n+OK\r\n"), Some(5));
        assert_eq!(reply_length(b":1\r\n"), Some(4));
        assert_eq!(reply_length(b"$3\r\nabc\r\n"), Some(9));
        assert_eq!(reply_length(b"$-1\r\n"), Some(5));
        assert_eq!(reply_length(b"$3\r\nabc\r"), None);
        assert_eq!(reply_length(b"-ERR"), None);
    }
}
