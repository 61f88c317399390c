//! Every limit of the transport, each with its reason.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

/// Kernel buffers of the UDP socket. The default (208 KiB) overflows when the consensus thread
/// isn't scheduled for a millisecond under load; more than this the kernel rarely allows.
pub(super) const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// How long a dead peer goes unnoticed by the transport itself. The core notices earlier, by its
/// heartbeats; this bounds how long a session of a machine that vanished counts as connected.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_millis(2500);

/// The same for connections that carry bulk: what was received is kept, but finding a source anew
/// costs more than a late packet.
const BULK_IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Two replicas have nothing to say to each other: three of these fit into the idle timeout.
const KEEP_ALIVE: Duration = Duration::from_millis(800);

/// From the first packet to an accepted greeting. Includes the other side's scheduling delays.
pub(super) const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(2);

/// One attempt to dial. Short, since a peer that was down is best found by dialling anew.
pub(super) const DIAL_DEADLINE: Duration = Duration::from_secs(1);

/// Redial delays: doubled from the first to the second, with jitter.
pub(super) const BACKOFF_MIN: Duration = Duration::from_millis(20);
/// Longest redial delay.
pub(super) const BACKOFF_MAX: Duration = Duration::from_millis(200);

/// How much longer the node with the higher id waits before it dials: several attempts of the other
/// one, which mostly knows where to find it.
pub(super) const HIGHER_ID_DELAY: Duration = Duration::from_secs(1);

/// Between two attempts where a peer has said that this node is no member: until an operator acts.
pub(super) const DISMISSED_DELAY: Duration = Duration::from_secs(2);

/// Handshakes that may be under way at once; each costs a signature and some KiB.
pub(super) const HANDSHAKES_MAX: usize = 32;

/// From this many on a stranger must first prove its address (a retry packet costs nothing).
pub(super) const HANDSHAKES_WITHOUT_RETRY: usize = 8;

/// Handshakes that wait for the accept loop, and bytes kept for each and for all of them.
pub(super) const INCOMING_MAX: usize = 64;
/// Bytes kept for one of them.
pub(super) const INCOMING_BYTES: u64 = 64 * 1024;
/// Bytes kept for all of them.
pub(super) const INCOMING_BYTES_TOTAL: u64 = 1024 * 1024;

/// What a peer may send on one stream before this node has read it: bounds memory for each peer
/// while its lane is full. Several milliseconds of a fast link.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// All streams of a connection together: a full log stream leaves the control stream its share.
const CONNECTION_WINDOW_BYTES: u32 = 2 * STREAM_WINDOW_BYTES;

/// What may be sent and not yet acknowledged. Above what a peer that doesn't read accepts on the
/// log stream, so that control frames always find room.
const SEND_WINDOW_BYTES: u64 = 2 * STREAM_WINDOW_BYTES as u64;

/// Bytes of control frames that wait to be sent in one session; above, new ones are dropped,
/// which is harmless: every control message may be lost.
pub(super) const CONTROL_OUTBOX_BYTES_MAX: usize = 256 * 1024;

/// Memory taken at once for the rest of a large entry; the rest grows as it arrives.
pub(super) const RESERVE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Most record bytes of one append (one entry may be larger): what a receiver takes at a time.
pub(super) const APPEND_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bulk is written in pieces of this size with a yield between them, so that everything else on
/// the consensus thread gets its turn.
pub(super) const BULK_PIECE_BYTES: usize = 64 * 1024;

/// Largest UDP payload that is accepted; senders find out what the path carries. quinn's receive
/// buffer is a multiple of it, of which only what is used becomes resident.
pub(super) const UDP_PAYLOAD_BYTES_MAX: u16 = 9000;

/// Largest UDP payload sent over a network: Ethernet's.
const NETWORK_UDP_PAYLOAD_BYTES: u16 = 1452;

/// Largest UDP payload sent over loopback, whose MTU is 64 KiB: fewer, larger packets halve what
/// bulk costs. A batch that quinn hands to the kernel must stay below 64 KiB; above, the kernel
/// refuses it, every packet of it counts as lost, and throughput falls to a twentieth.
const LOOPBACK_UDP_PAYLOAD_BYTES: u16 = 6400;

const _: () = {
    let quinn_batch = 10;
    assert!(LOOPBACK_UDP_PAYLOAD_BYTES as usize * quinn_batch < 65_000, "see there");
};

/// Limits of a connection with a node at `remote`.
pub(super) fn transport(remote: SocketAddr) -> Arc<TransportConfig> {
    Arc::new(base(remote))
}

/// Limits of a connection for bulk: one request at a time, and more patience with a busy disk.
pub(super) fn bulk_transport(remote: SocketAddr) -> Arc<TransportConfig> {
    let mut config = base(remote);
    let idle = u32::try_from(BULK_IDLE_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    config.max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle))));
    Arc::new(config)
}

fn base(remote: SocketAddr) -> TransportConfig {
    let mut config = TransportConfig::default();
    // The dialler opens two: control and log. Nothing else exists.
    config.max_concurrent_bidi_streams(VarInt::from_u32(2));
    config.max_concurrent_uni_streams(VarInt::from_u32(0));
    config.datagram_receive_buffer_size(None);
    config.stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES));
    config.receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES));
    config.send_window(SEND_WINDOW_BYTES);
    // One stream of each priority: there is nothing to be fair between.
    config.send_fairness(false);
    let idle = u32::try_from(IDLE_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    config.max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle))));
    config.keep_alive_interval(Some(KEEP_ALIVE));
    // Decides when a lost first packet is sent again. The default of a third of a second is made
    // for the internet.
    config.initial_rtt(Duration::from_millis(10));
    config.allow_spin(false);
    // A probe after a lost last packet waits for the peer's delay of acknowledgements on top of
    // the round trip; by default 25 ms, as much as half a heartbeat.
    let mut acks = AckFrequencyConfig::default();
    acks.max_ack_delay(Some(Duration::from_millis(5)));
    acks.ack_eliciting_threshold(VarInt::from_u32(8));
    config.ack_frequency_config(Some(acks));
    // Between nodes of a cluster this is one burst, not a flood; after a reconnect the first
    // appends needn't wait for a slow start.
    let mut congestion = CubicConfig::default();
    congestion.initial_window(256 * 1024);
    config.congestion_controller_factory(Arc::new(congestion));
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(udp_payload_bytes(remote));
    config.mtu_discovery_config(Some(mtu));
    config
}

fn udp_payload_bytes(remote: SocketAddr) -> u16 {
    if remote.ip().to_canonical().is_loopback() {
        LOOPBACK_UDP_PAYLOAD_BYTES
    } else {
        NETWORK_UDP_PAYLOAD_BYTES
    }
}
