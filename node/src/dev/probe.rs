//! Finds out whether a write succeeds at a node.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The longest wait for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Deletes a key that nobody uses: a write like any other, replicated and acknowledged by policy,
/// that leaves nothing behind. Only the primary answers with a count.
const PROBE: &[u8] = b"*2\r\n$3\r\nDEL\r\n$17\r\nquorate:dev:probe\r\n";

/// Whether this node is primary and acknowledges writes.
pub(super) fn write_succeeds(client: SocketAddr) -> bool {
    let ask = || -> std::io::Result<u8> {
        let mut stream = TcpStream::connect_timeout(&client, ANSWER_LIMIT)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        stream.write_all(PROBE)?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        Ok(first[0])
    };
    matches!(ask(), Ok(b':'))
}
