//! What peers say, on its way to the quorum actor.
//!
//! Each peer has two lanes, so that entries never delay what is small: control and log. Both are
//! bounded in bytes: where the quorum actor is behind, its side of the stream is not read
//! further, and QUIC's flow control holds the peer. However many events wait, the actor is woken
//! once; it then takes all of them.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use quorate_protocol::core::message::Message;
use quorate_protocol::entry::Entry;
use quorate_protocol::types::{ClusterId, Generation, Incarnation, NodeId, Seq};
use quorate_protocol::wire::{Formation, Hello};
use tokio::sync::Notify;

/// Bytes of control frames that may wait for each peer: thousands of acknowledgements.
const CONTROL_LANE_BYTES_MAX: usize = 256 * 1024;

/// Bytes of entries that may wait for each peer. A frame is admitted while less than this waits,
/// so one frame of any legal size always gets through.
const LOG_LANE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What an event costs beside the bytes of its frame; keeps the count of tiny events bounded.
const EVENT_OVERHEAD_BYTES: usize = 128;

/// One connection with a peer, from its handshake to its end. Never reused within a process, so
/// that what belongs to an earlier connection is recognised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(pub u64);

/// Something that a peer said, or that happened to the connection with it.
#[derive(Clone, Debug)]
pub enum PeerEvent {
    /// A session is up: the peer's certificate and greeting were accepted. Comes before every
    /// other event of the session, once.
    Connected {
        /// The peer, as its certificate says.
        peer: NodeId,
        /// The new session; an earlier one of this peer is over.
        session: Session,
        /// What the peer says about itself.
        hello: Box<Hello>,
    },
    /// Something in the peer's greeting changed, such as its cluster once that was formed.
    Greeted {
        /// The peer.
        peer: NodeId,
        /// The session over which it came.
        session: Session,
        /// What the peer says about itself now.
        hello: Box<Hello>,
    },
    /// The session is over; no event of it follows.
    Disconnected {
        /// The peer.
        peer: NodeId,
        /// The session that ended.
        session: Session,
    },
    /// A connection failed because of who the other side is. The latest one for each peer.
    Refused {
        /// The peer.
        peer: NodeId,
        /// Why.
        reason: Refusal,
    },
    /// A core message.
    Message {
        /// The peer.
        peer: NodeId,
        /// The session over which it came.
        session: Session,
        /// The message.
        message: Message,
        /// For an append: its entries, in the order of its metadata, their checksums verified.
        entries: Vec<Entry>,
    },
    /// A message of the first boot.
    Formation {
        /// The peer.
        peer: NodeId,
        /// The session over which it came.
        session: Session,
        /// The message.
        message: Formation,
    },
    /// Answers `SendEntries`: everything through `through` was given to the connection.
    Sent {
        /// The peer.
        peer: NodeId,
        /// The session.
        session: Session,
        /// The last entry sent; the one before `first` where there was nothing to send.
        through: Seq,
        /// Record bytes sent.
        bytes: u64,
    },
    /// Answers `SendEntries`: the entries can't be had here any more (trimmed or unreadable).
    Unavailable {
        /// The peer.
        peer: NodeId,
        /// The session.
        session: Session,
        /// The position that was asked for.
        first: Seq,
    },
}

impl PeerEvent {
    fn is_of(&self, ended: Session) -> bool {
        match self {
            Self::Connected { session, .. }
            | Self::Greeted { session, .. }
            | Self::Disconnected { session, .. }
            | Self::Message { session, .. }
            | Self::Formation { session, .. }
            | Self::Sent { session, .. }
            | Self::Unavailable { session, .. } => *session == ended,
            Self::Refused { .. } => false,
        }
    }
}

/// Why a peer that could be reached is not talked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its frames are of another format.
    #[error("its wire version is {theirs}, ours {ours}")]
    WireVersion {
        /// In its greeting.
        theirs: u8,
        /// This binary's.
        ours: u8,
    },
    /// It is configured for another cluster.
    #[error("it belongs to the cluster named {theirs:?}")]
    ClusterName {
        /// In its greeting.
        theirs: String,
    },
    /// Its log belongs to another cluster.
    #[error("its log belongs to cluster {theirs}, ours to {ours}")]
    Cluster {
        /// In its greeting.
        theirs: ClusterId,
        /// This node's.
        ours: ClusterId,
    },
    /// One of the two didn't take part in a lossy recovery (S12).
    #[error("its generation is {theirs}, ours {ours}")]
    Generation {
        /// In its greeting.
        theirs: Generation,
        /// This node's.
        ours: Generation,
    },
    /// It claims an id that its certificate doesn't give it.
    #[error("it claims to be node {claimed}")]
    Claim {
        /// In its greeting.
        claimed: NodeId,
    },
    /// A later life of the same node was seen.
    #[error("its incarnation is {theirs}, but {known} was seen")]
    Incarnation {
        /// In its greeting.
        theirs: Incarnation,
        /// The highest seen.
        known: Incarnation,
    },
    /// It isn't one of the configured or agreed members.
    #[error("it isn't known here")]
    Unknown,
    /// It was removed from the cluster, and its id is never used again.
    #[error("it was removed from the cluster")]
    Removed,
    /// The cluster knows its id with another disk (S6).
    #[error("the cluster knows it with another disk")]
    OtherDisk,
    /// It has no log and is not a member.
    #[error("it is not a member yet")]
    Candidate,
    /// The peer says that this node was removed.
    #[error("this node was removed from the cluster: its id is never used again")]
    RemovedByPeer,
    /// The peer knows this node's id with another disk.
    #[error(
        "the cluster knows this node's id with another disk, and a disk that is lost or wiped \
         doesn't come back under its old id: `quorate members remove` that id on a member, and \
         join with a new id (`quorate join`, or cluster.join and `quorate members add`)"
    )]
    OtherDiskByPeer,
    /// The peer has noted this node, and waits for an operator.
    #[error("this node is not a member yet: run `quorate members add` on a member")]
    CandidateByPeer,
    /// The peer refused this node.
    #[error("it refused this node: {0}")]
    ByPeer(String),
    /// Certificates don't fit: another authority, another node or cluster, expired.
    #[error("the TLS handshake failed: {0}")]
    Tls(String),
}

/// The queue between the transport and the quorum actor.
pub struct PeerEvents {
    peers: Mutex<BTreeMap<NodeId, PeerQueue>>,
    woken: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// The peer's current session is over or was replaced: whoever reads for it must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session is over")]
pub(super) struct SessionOver;

/// Which lane a message takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Control,
    Log,
}

impl PeerEvents {
    /// `wake` is called once when events arrive, then not again until the next drain. It must
    /// return at once; typically it casts one message to the quorum actor.
    #[must_use]
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            peers: Mutex::default(),
            woken: AtomicBool::new(false),
            wake: Box::new(wake),
        })
    }

    /// Takes everything that waits: first what is small, of every peer, then entries. Events of
    /// one session are in order within each of the two.
    pub fn drain(&self, events: &mut Vec<PeerEvent>) {
        self.woken.store(false, Ordering::SeqCst);
        let mut peers = self.peers.lock();
        for queue in peers.values_mut() {
            queue.control.take(events);
        }
        for queue in peers.values_mut() {
            queue.log.take(events);
        }
    }

    /// Takes what is small and leaves entries where they are: for a quorum actor whose journal
    /// has no room. Nothing wakes it for entries already waiting; it drains once there is room.
    pub fn drain_control(&self, events: &mut Vec<PeerEvent>) {
        self.woken.store(false, Ordering::SeqCst);
        for queue in self.peers.lock().values_mut() {
            queue.control.take(events);
        }
    }

    /// The session begins; an older one of the peer is over.
    pub(super) fn connected(&self, peer: NodeId, session: Session, hello: Hello) {
        {
            let mut peers = self.peers.lock();
            let queue = peers.entry(peer).or_default();
            if let Some(older) = queue.session.filter(|older| *older != session) {
                queue.end(peer, older);
            }
            queue.session = Some(session);
            let hello = Box::new(hello);
            let event = PeerEvent::Connected { peer, session, hello };
            queue.control.push(event, 0);
        }
        self.wake_once();
    }

    /// The session is over. Nothing happens where another one has replaced it.
    pub(super) fn disconnected(&self, peer: NodeId, session: Session) {
        {
            let mut peers = self.peers.lock();
            let queue = peers.entry(peer).or_default();
            if queue.session != Some(session) {
                return;
            }
            queue.end(peer, session);
        }
        self.wake_once();
    }

    /// A connection failed because of who the other side is.
    pub(super) fn refused(&self, peer: NodeId, reason: Refusal) {
        {
            let mut peers = self.peers.lock();
            let queue = peers.entry(peer).or_default();
            let earlier = |event: &PeerEvent| matches!(event, PeerEvent::Refused { .. });
            queue.control.remove(earlier);
            queue.control.push(PeerEvent::Refused { peer, reason }, 0);
        }
        self.wake_once();
    }

    /// Answers a request of the quorum actor: at most one is outstanding, so it always has room.
    pub(super) fn answer(&self, peer: NodeId, session: Session, event: PeerEvent) {
        {
            let mut peers = self.peers.lock();
            let queue = peers.entry(peer).or_default();
            if queue.session != Some(session) {
                return;
            }
            queue.control.push(event, 0);
        }
        self.wake_once();
    }

    /// Queues what a peer said, once there is room. Cancel-safe: nothing is queued unless this
    /// returns.
    pub(super) async fn received(
        &self,
        peer: NodeId,
        session: Session,
        lane: Lane,
        event: PeerEvent,
        bytes: usize,
    ) -> Result<(), SessionOver> {
        let mut event = Some(event);
        loop {
            let room = {
                let mut peers = self.peers.lock();
                let queue = peers.entry(peer).or_default();
                if queue.session != Some(session) {
                    return Err(SessionOver);
                }
                let (queue, limit) = match lane {
                    Lane::Control => (&mut queue.control, CONTROL_LANE_BYTES_MAX),
                    Lane::Log => (&mut queue.log, LOG_LANE_BYTES_MAX),
                };
                if queue.bytes < limit {
                    if let Some(event) = event.take() {
                        queue.push(event, bytes + EVENT_OVERHEAD_BYTES);
                    }
                    None
                } else {
                    // Taken under the lock: a drain that comes next is sure to be noticed.
                    Some(Arc::clone(&queue.room).notified_owned())
                }
            };
            match room {
                None => break,
                Some(room) => room.await,
            }
        }
        self.wake_once();
        Ok(())
    }

    fn wake_once(&self) {
        if !self.woken.swap(true, Ordering::SeqCst) {
            (self.wake)();
        }
    }
}

impl fmt::Debug for PeerEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerEvents").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct PeerQueue {
    session: Option<Session>,
    control: Queue,
    log: Queue,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<(PeerEvent, usize)>,
    /// Sum over `events`.
    bytes: usize,
    room: Arc<Notify>,
}

impl PeerQueue {
    /// Drops what waits of the session. Where the quorum actor never heard of it, it needn't
    /// hear of its end either; so reconnects can't fill the queue.
    fn end(&mut self, peer: NodeId, session: Session) {
        self.session = None;
        let unheard = self.control.events.iter().any(|(event, _)| {
            matches!(event, PeerEvent::Connected { session: begun, .. } if *begun == session)
        });
        self.control.remove(|event| event.is_of(session));
        self.log.remove(|event| event.is_of(session));
        if !unheard {
            self.control.push(PeerEvent::Disconnected { peer, session }, 0);
        }
    }
}

impl Queue {
    fn push(&mut self, event: PeerEvent, bytes: usize) {
        self.bytes += bytes;
        self.events.push_back((event, bytes));
    }

    fn take(&mut self, events: &mut Vec<PeerEvent>) {
        events.extend(self.events.drain(..).map(|(event, _)| event));
        self.bytes = 0;
        self.room.notify_waiters();
    }

    fn remove(&mut self, unwanted: impl Fn(&PeerEvent) -> bool) {
        self.events.retain(|(event, _)| !unwanted(event));
        self.bytes = self.events.iter().map(|(_, bytes)| bytes).sum();
        self.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use quorate_protocol::types::Epoch;

    use super::*;

    const PEER: NodeId = NodeId(2);

    fn queue() -> (Arc<PeerEvents>, Arc<AtomicUsize>) {
        let wakes = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&wakes);
        let events = PeerEvents::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        (events, wakes)
    }

    fn sent(session: Session, through: u64) -> PeerEvent {
        PeerEvent::Sent { peer: PEER, session, through: Seq(through), bytes: 0 }
    }

    fn message(session: Session, epoch: u64) -> PeerEvent {
        let message = Message::TimeoutNow(quorate_protocol::core::message::TimeoutNow {
            epoch: Epoch(epoch),
            last: quorate_protocol::types::EntryId::ZERO,
        });
        PeerEvent::Message { peer: PEER, session, message, entries: Vec::new() }
    }

    fn drained(events: &PeerEvents) -> Vec<String> {
        let mut taken = Vec::new();
        events.drain(&mut taken);
        taken.iter().map(name).collect()
    }

    fn name(event: &PeerEvent) -> String {
        match event {
            PeerEvent::Connected { session, .. } => format!("connected {}", session.0),
            PeerEvent::Greeted { session, .. } => format!("greeted {}", session.0),
            PeerEvent::Disconnected { session, .. } => format!("disconnected {}", session.0),
            PeerEvent::Refused { reason, .. } => format!("refused {reason}"),
            PeerEvent::Message { session, message: Message::TimeoutNow(m), .. } => {
                format!("message {} {}", session.0, m.epoch)
            }
            PeerEvent::Message { session, .. } => format!("message {}", session.0),
            PeerEvent::Formation { session, .. } => format!("formation {}", session.0),
            PeerEvent::Sent { through, .. } => format!("sent {through}"),
            PeerEvent::Unavailable { first, .. } => format!("unavailable {first}"),
        }
    }

    #[tokio::test]
    async fn one_wake_per_drain_and_control_before_log() {
        let (events, wakes) = queue();
        let session = Session(1);
        events.connected(PEER, session, Hello::default());
        events
            .received(PEER, session, Lane::Log, message(session, 1), 10)
            .await
            .expect("the session is up");
        events
            .received(PEER, session, Lane::Control, message(session, 2), 10)
            .await
            .expect("the session is up");
        assert_eq!(wakes.load(Ordering::SeqCst), 1);
        assert_eq!(drained(&events), ["connected 1", "message 1 2", "message 1 1"]);
        events.answer(PEER, session, sent(session, 5));
        assert_eq!(wakes.load(Ordering::SeqCst), 2);
        assert_eq!(drained(&events), ["sent 5"]);
    }

    #[tokio::test]
    async fn a_full_lane_holds_its_reader_and_no_other() {
        let (events, _) = queue();
        let session = Session(1);
        events.connected(PEER, session, Hello::default());
        let fill = |lane, number, bytes| {
            events.received(PEER, session, lane, message(session, number), bytes)
        };
        fill(Lane::Log, 1, LOG_LANE_BYTES_MAX).await.expect("the session is up");
        let mut held = Box::pin(fill(Lane::Log, 2, 1));
        let waiting = tokio::time::timeout(Duration::from_millis(1), &mut held).await;
        assert!(waiting.is_err(), "the lane is full");
        fill(Lane::Control, 3, 1).await.expect("the other lane has room");
        assert_eq!(drained(&events), ["connected 1", "message 1 3", "message 1 1"]);
        held.await.expect("there is room now");
        assert_eq!(drained(&events), ["message 1 2"]);
    }

    #[tokio::test]
    async fn entries_can_be_left_waiting() {
        let (events, _) = queue();
        let session = Session(1);
        events.connected(PEER, session, Hello::default());
        events
            .received(PEER, session, Lane::Log, message(session, 1), 10)
            .await
            .expect("the session is up");
        let mut taken = Vec::new();
        events.drain_control(&mut taken);
        assert_eq!(taken.len(), 1);
        assert_eq!(drained(&events), ["message 1 1"]);
    }

    #[tokio::test]
    async fn nothing_of_an_ended_session_is_delivered() {
        let (events, _) = queue();
        let (old, new) = (Session(1), Session(2));
        events.connected(PEER, old, Hello::default());
        assert_eq!(drained(&events), ["connected 1"]);
        events
            .received(PEER, old, Lane::Log, message(old, 1), 10)
            .await
            .expect("the session is up");
        events.connected(PEER, new, Hello::default());
        let late = events.received(PEER, old, Lane::Log, message(old, 2), 10).await;
        assert_eq!(late, Err(SessionOver));
        events.answer(PEER, old, sent(old, 5));
        events.disconnected(PEER, old);
        assert_eq!(drained(&events), ["disconnected 1", "connected 2"]);
    }

    #[tokio::test]
    async fn a_reader_held_by_a_full_lane_learns_that_its_session_is_over() {
        let (events, _) = queue();
        let session = Session(1);
        events.connected(PEER, session, Hello::default());
        let fill = |bytes| events.received(PEER, session, Lane::Log, message(session, 1), bytes);
        fill(LOG_LANE_BYTES_MAX).await.expect("the session is up");
        let held = fill(1);
        let end = async { events.disconnected(PEER, session) };
        let (held, ()) = tokio::join!(held, end);
        assert_eq!(held, Err(SessionOver));
    }

    #[tokio::test]
    async fn reconnects_that_nobody_looked_at_leave_one_event() {
        let (events, _) = queue();
        for number in 1..1000 {
            events.connected(PEER, Session(number), Hello::default());
            events.disconnected(PEER, Session(number));
            events.refused(PEER, Refusal::ByPeer("no".to_owned()));
        }
        events.connected(PEER, Session(1000), Hello::default());
        assert_eq!(drained(&events), ["refused it refused this node: no", "connected 1000"]);
    }
}
