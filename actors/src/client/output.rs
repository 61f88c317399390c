//! Replies on their way to a client that may read slowly, or not at all.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::Interest;
use tokio::net::tcp::WriteHalf;

/// How long a client whose output is at its limit may take nothing before it is cut.
const STALL_MAX: Duration = Duration::from_secs(5);

/// Above this, a buffer is given back once it is empty.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// The write side of a connection: replies are appended, and leave in as few calls as possible.
pub(super) struct Output<'a> {
    socket: WriteHalf<'a>,
    buffer: BytesMut,
    bytes_max: usize,
    /// Bytes that the socket took since the connection began.
    sent: u64,
}

impl<'a> Output<'a> {
    /// At most about `bytes_max` bytes wait for the client.
    pub(super) fn new(socket: WriteHalf<'a>, bytes_max: usize) -> Self {
        Self { socket, buffer: BytesMut::new(), bytes_max, sent: 0 }
    }

    /// Where replies are appended.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes that were ever appended.
    pub(super) fn taken(&self) -> u64 {
        self.sent + self.buffer.len() as u64
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Hands over what the socket takes now.
    ///
    /// # Errors
    /// The connection is gone.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.buffer.is_empty() {
            match self.socket.try_write(&self.buffer) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.buffer.advance(count);
                    self.sent += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.buffer.capacity() > KEPT_BYTES_MAX {
            self.buffer = BytesMut::new();
        }
        Ok(())
    }

    /// Waits until the socket takes more, and hands it over. May be dropped at any time.
    ///
    /// # Errors
    /// The connection is gone.
    pub(super) async fn writable(&mut self) -> io::Result<()> {
        self.socket.ready(Interest::WRITABLE).await?;
        self.flush()
    }

    /// Returns once less than the limit waits.
    ///
    /// # Errors
    /// The connection is gone, or its client takes nothing although the limit is reached.
    pub(super) async fn make_room(&mut self) -> io::Result<()> {
        while self.buffer.len() >= self.bytes_max {
            tokio::time::timeout(STALL_MAX, self.writable())
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        }
        Ok(())
    }
}
