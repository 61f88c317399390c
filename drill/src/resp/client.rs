//! One connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::value::{MalformedReply, Value, parse};

/// A connection to one server. After any error its state is unknown: drop it.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    timeout: Duration,
}

/// Why no reply came.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No connection was made, so nothing was sent.
    #[error("connect to {address}: {source}")]
    Connect {
        /// Whom it was for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke; what was sent before may have been executed.
    #[error("connection lost: {0}")]
    Lost(#[from] io::Error),
    /// The deadline passed; what was sent before may have been executed.
    #[error("no reply within {0:?}")]
    Timeout(Duration),
    /// The server sent something that is no reply.
    #[error(transparent)]
    Malformed(#[from] MalformedReply),
}

impl Client {
    /// Connects; `timeout` bounds the connect and each later wait for a reply.
    ///
    /// # Errors
    ///
    /// [`ClientError::Connect`].
    pub fn connect(address: SocketAddr, timeout: Duration) -> Result<Self, ClientError> {
        let connect = || {
            let stream = TcpStream::connect_timeout(&address, timeout)?;
            stream.set_nodelay(true)?;
            stream.set_write_timeout(Some(timeout))?;
            Ok(stream)
        };
        let stream = connect().map_err(|source| ClientError::Connect { address, source })?;
        Ok(Self { stream, received: Vec::new(), timeout })
    }

    /// The longest wait for one reply from now on.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Sends one command and waits for its reply.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; an error reply of the server is a value.
    pub fn command<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<Value, ClientError> {
        self.send(arguments)?;
        self.receive()
    }

    /// Sends several commands at once and waits for all replies.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn pipeline<A: AsRef<[u8]>>(
        &mut self,
        commands: &[Vec<A>],
    ) -> Result<Vec<Value>, ClientError> {
        self.send_all(commands)?;
        commands.iter().map(|_| self.receive()).collect()
    }

    /// Sends several commands at once without waiting.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn send_all<A: AsRef<[u8]>>(&mut self, commands: &[Vec<A>]) -> Result<(), ClientError> {
        let mut request = Vec::new();
        for arguments in commands {
            encode(arguments, &mut request);
        }
        self.send_raw(&request)
    }

    /// Sends one command without waiting.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn send<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<(), ClientError> {
        let mut request = Vec::new();
        encode(arguments, &mut request);
        self.send_raw(&request)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.stream.write_all(bytes).map_err(|error| self.classify(error))
    }

    /// Waits for the next reply.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn receive(&mut self) -> Result<Value, ClientError> {
        let deadline = Instant::now() + self.timeout;
        let mut chunk = [0; 16 << 10];
        loop {
            if let Some((value, used)) = parse(&self.received)? {
                self.received.drain(..used);
                return Ok(value);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ClientError::Timeout(self.timeout));
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ClientError::Lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.classify(error)),
            }
        }
    }

    fn classify(&self, error: io::Error) -> ClientError {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                ClientError::Timeout(self.timeout)
            }
            _ => ClientError::Lost(error),
        }
    }
}

fn encode<A: AsRef<[u8]>>(arguments: &[A], request: &mut Vec<u8>) {
    request.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments {
        let bytes = argument.as_ref();
        request.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
        request.extend_from_slice(bytes);
        request.extend_from_slice(b"\r\n");
    }
}
