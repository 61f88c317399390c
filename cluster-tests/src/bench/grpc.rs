//! Closed-loop `Put` load on etcd: the few bytes of gRPC and protobuf that it takes, straight
//! over HTTP/2, so that the client costs less than etcd's own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::Request;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::histogram::{Latencies, LoadResult};

/// Keys are drawn from this many.
const KEYS: u64 = 100_000;
/// The longest wait for one reply.
const REPLY_LIMIT: Duration = Duration::from_secs(20);

/// Why a measurement failed.
#[derive(Debug, Error)]
pub enum EtcdLoadError {
    /// The connection failed or broke.
    #[error("etcd: {0}")]
    Io(#[from] std::io::Error),
    /// HTTP/2 failed.
    #[error("etcd: {0}")]
    Http2(#[from] h2::Error),
    /// No reply in time.
    #[error("etcd: no reply within {REPLY_LIMIT:?}")]
    Timeout,
    /// The call failed.
    #[error("etcd: grpc-status {0}")]
    Status(String),
}

/// Puts from `connections` connections, one at a time on each.
///
/// # Errors
///
/// See [`EtcdLoadError`].
///
/// # Panics
///
/// If a connection's task panics.
pub fn run_etcd_puts(
    address: SocketAddr,
    connections: usize,
    value_bytes: usize,
    warm_up: Duration,
    duration: Duration,
) -> Result<LoadResult, EtcdLoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let latencies = Arc::new(Mutex::new(Latencies::default()));
        let counted_from = Instant::now() + warm_up;
        let end = counted_from + duration;
        let mut clients = JoinSet::new();
        for index in 0..connections {
            let latencies = Arc::clone(&latencies);
            clients.spawn(async move {
                let mut sender = connect(address).await?;
                let mut random = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                loop {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let message = put_request(random % KEYS, value_bytes);
                    let began = Instant::now();
                    let call =
                        tokio::time::timeout(REPLY_LIMIT, put(&mut sender, address, message));
                    call.await.map_err(|_| EtcdLoadError::Timeout)??;
                    let now = Instant::now();
                    if now >= end {
                        return Ok::<(), EtcdLoadError>(());
                    }
                    if now >= counted_from {
                        latencies.lock().expect("no panic while held").record(now - began, 1);
                    }
                }
            });
        }
        while let Some(client) = clients.join_next().await {
            client.expect("no client panics")?;
        }
        let latencies = latencies.lock().expect("no panic while held");
        Ok(LoadResult::new(&latencies, 0, duration))
    })
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Bytes>, EtcdLoadError> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = h2::client::handshake(stream).await?;
    // It ends with the sender; an error reaches the call that is under way.
    tokio::spawn(connection);
    Ok(sender)
}

async fn put(
    sender: &mut SendRequest<Bytes>,
    address: SocketAddr,
    message: Bytes,
) -> Result<(), EtcdLoadError> {
    let request = Request::post(format!("http://{address}/etcdserverpb.KV/Put"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("constant parts");
    std::future::poll_fn(|context| sender.poll_ready(context)).await?;
    let (response, mut body) = sender.send_request(request, false)?;
    body.send_data(message, true)?;
    let mut body = response.await?.into_body();
    while let Some(chunk) = body.data().await {
        let length = chunk?.len();
        body.flow_control().release_capacity(length)?;
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    match trailers.get("grpc-status").and_then(|status| status.to_str().ok()) {
        Some("0") => Ok(()),
        other => Err(EtcdLoadError::Status(other.unwrap_or("missing").to_owned())),
    }
}

/// A gRPC frame with `PutRequest { key: 1, value: 2 }`.
fn put_request(key: u64, value_bytes: usize) -> Bytes {
    let key = format!("key:{key:012}");
    let mut message = BytesMut::with_capacity(key.len() + value_bytes + 16);
    message.put_u8(0x0a);
    put_varint(&mut message, key.len());
    message.put_slice(key.as_bytes());
    message.put_u8(0x12);
    put_varint(&mut message, value_bytes);
    message.put_bytes(b'v', value_bytes);
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(&message);
    frame.freeze()
}

fn put_varint(buffer: &mut BytesMut, mut number: usize) {
    while number >= 0x80 {
        buffer.put_u8((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    buffer.put_u8(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_is_framed() {
        let frame = put_request(7, 200);
        assert_eq!(&frame[..7], &[0, 0, 0, 0, 221, 0x0a, 16]);
        assert_eq!(&frame[7..23], b"key:000000000007");
        assert_eq!(&frame[23..26], &[0x12, 0xc8, 0x01]);
        assert_eq!(frame.len(), 5 + 221);
    }
}
