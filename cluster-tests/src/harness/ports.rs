//! Free ports that stay free while a node is down.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the kernel's ephemeral range: no outgoing connection can take a killed node's port.
const FIRST: u16 = 12_000;
/// One past the last port.
const END: u16 = 30_000;

/// The ports of one node on loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// RESP as a cluster node.
    pub client: SocketAddr,
    /// RESP as a standalone server.
    pub plain: SocketAddr,
    /// QUIC.
    pub peer: SocketAddr,
    /// HTTP.
    pub admin: SocketAddr,
}

impl Ports {
    /// Four ports that nothing listens on.
    #[must_use]
    pub fn free() -> Self {
        Self { client: free_port(), plain: free_port(), peer: free_port(), admin: free_port() }
    }
}

/// A port that is free for TCP and UDP, and that no other call in this process has returned.
///
/// # Panics
///
/// If all are taken.
pub(crate) fn free_port() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = END - FIRST;
    let start = u16::try_from(std::process::id() % u32::from(span)).expect("below the span");
    for _ in 0..span {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST
            + u16::try_from((u32::from(start) + u32::from(step)) % u32::from(span))
                .expect("in range");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port between {FIRST} and {END}")
}
