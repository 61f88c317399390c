//! What the handle, the actors and the sessions of one node share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use quorate_protocol::types::{Incarnation, NodeId};
use quorate_protocol::wire::{ControlFrame, Hello};

use super::entries::EntrySource;
use super::events::{PeerEvents, Refusal, Session};
use super::greeting::{CloseCode, Greeted, SessionError, judge};
use super::roster::{Candidates, Roster};
use super::session::LiveSession;

/// Locks are held for a few instructions and mostly by the consensus thread itself.
pub(super) struct Shared {
    pub(super) events: Arc<PeerEvents>,
    pub(super) source: Arc<dyn EntrySource>,
    hello: ArcSwap<Hello>,
    roster: ArcSwap<(Roster, BTreeSet<NodeId>)>,
    candidates: Arc<Candidates>,
    live: Mutex<BTreeMap<NodeId, Arc<LiveSession>>>,
    totals: Mutex<BTreeMap<NodeId, Totals>>,
    last_session: AtomicU64,
}

/// One peer's connection, for metrics. Counters never go back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStats {
    /// The peer.
    pub peer: NodeId,
    /// The current session's estimate of the round trip; `None` while not connected.
    pub rtt: Option<Duration>,
    /// Largest UDP payload in use; `None` while not connected.
    pub udp_payload_bytes: Option<u16>,
    /// Sessions that ended, for whatever reason.
    pub sessions_ended: u64,
    /// UDP bytes sent.
    pub sent_bytes: u64,
    /// UDP bytes received.
    pub received_bytes: u64,
    /// Packets declared lost (and sent again).
    pub lost_packets: u64,
    /// Control frames dropped because too many waited.
    pub dropped_frames: u64,
}

/// Sums over the ended sessions of a peer.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    sessions_ended: u64,
    sent_bytes: u64,
    received_bytes: u64,
    lost_packets: u64,
    dropped_frames: u64,
    /// Highest life of the peer that a session was had with.
    incarnation: Incarnation,
}

impl Totals {
    fn add(&mut self, live: &LiveSession) {
        let stats = live.connection.stats();
        self.sent_bytes += stats.udp_tx.bytes;
        self.received_bytes += stats.udp_rx.bytes;
        self.lost_packets += stats.path.lost_packets;
        self.dropped_frames += live.dropped();
    }
}

impl Shared {
    pub(super) fn new(
        hello: Hello,
        events: Arc<PeerEvents>,
        source: Arc<dyn EntrySource>,
        candidates: Arc<Candidates>,
    ) -> Arc<Self> {
        Arc::new(Self {
            events,
            source,
            hello: ArcSwap::from_pointee(hello),
            roster: ArcSwap::default(),
            candidates,
            live: Mutex::default(),
            totals: Mutex::default(),
            last_session: AtomicU64::new(0),
        })
    }

    /// This node's greeting.
    pub(super) fn hello(&self) -> Arc<Hello> {
        self.hello.load_full()
    }

    /// Greets all peers anew. A peer that no longer fits is let go.
    pub(super) fn announce(&self, hello: Hello) {
        self.hello.store(Arc::new(hello.clone()));
        let frame = ControlFrame::Hello(Box::new(hello.clone()));
        let sessions: Vec<_> = self.live.lock().values().cloned().collect();
        for live in sessions {
            live.send(&frame);
            if let Err(reason) = judge(&hello, &live.hello(), live.peer) {
                SessionError::Refused(reason.clone()).close(&live.connection);
                self.events.refused(live.peer, reason);
            }
        }
    }

    /// Whether it is one of the peers.
    pub(super) fn is_known(&self, peer: NodeId) -> bool {
        self.roster.load().1.contains(&peer)
    }

    /// Whether a caller with this certificate is heard at all.
    pub(super) fn admits(&self, peer: NodeId) -> Result<(), Refusal> {
        let (roster, known) = &**self.roster.load();
        roster.admits(known, peer)
    }

    /// Whether a session with a node that has greeted so may be.
    pub(super) fn judge(&self, hello: &Hello) -> Result<(), Refusal> {
        let (roster, known) = &**self.roster.load();
        roster.judge(known, &self.candidates, hello)
    }

    /// Whether nodes are let in that aren't among the peers.
    pub(super) fn takes_guests(&self) -> bool {
        self.roster.load().0.takes_guests()
    }

    /// Why a peer is let go that isn't one any more.
    pub(super) fn farewell(&self, peer: NodeId) -> CloseCode {
        if self.roster.load().0.removed.contains(&peer) {
            CloseCode::Removed
        } else {
            CloseCode::Goodbye
        }
    }

    pub(super) fn set_roster(&self, roster: Roster) {
        let known = roster.peers.iter().map(|peer| peer.node).collect();
        self.roster.store(Arc::new((roster, known)));
    }

    /// The peer's session, if it is this one.
    pub(super) fn session(&self, peer: NodeId, session: Session) -> Option<Arc<LiveSession>> {
        let live = self.live.lock();
        live.get(&peer).filter(|live| live.session == session).cloned()
    }

    /// Begins a session. It replaces an older one of the same peer, unless that one is with a
    /// later life of it: a frame of a dead process may arrive late, its connection too.
    pub(super) fn begin(
        &self,
        peer: NodeId,
        greeted: &Greeted,
    ) -> Result<Arc<LiveSession>, Refusal> {
        let theirs = greeted.hello.incarnation;
        {
            let mut totals = self.totals.lock();
            let totals = totals.entry(peer).or_default();
            if theirs < totals.incarnation {
                let known = totals.incarnation;
                return Err(Refusal::Incarnation { theirs, known });
            }
            totals.incarnation = theirs;
        }
        let session = Session(self.last_session.fetch_add(1, Ordering::Relaxed) + 1);
        let live = LiveSession::new(peer, session, greeted);
        let older = self.live.lock().insert(peer, Arc::clone(&live));
        if let Some(older) = older {
            self.count_end(&older);
            older.close(CloseCode::Replaced);
        }
        self.events.connected(peer, session, greeted.hello.clone());
        Ok(live)
    }

    /// The session's tasks have ended.
    pub(super) fn end(&self, ended: &LiveSession) {
        {
            let mut live = self.live.lock();
            if live.get(&ended.peer).is_none_or(|current| current.session != ended.session) {
                return;
            }
            live.remove(&ended.peer);
        }
        self.count_end(ended);
        self.events.disconnected(ended.peer, ended.session);
    }

    pub(super) fn stats(&self) -> Vec<PeerStats> {
        let totals = self.totals.lock().clone();
        let roster = self.roster.load();
        roster
            .1
            .iter()
            .map(|peer| {
                let live = self.live.lock().get(peer).cloned();
                let mut sums = totals.get(peer).copied().unwrap_or_default();
                if let Some(live) = &live {
                    sums.add(live);
                }
                PeerStats {
                    peer: *peer,
                    rtt: live.as_ref().map(|live| live.connection.rtt()),
                    udp_payload_bytes: live
                        .as_ref()
                        .map(|live| live.connection.stats().path.current_mtu),
                    sessions_ended: sums.sessions_ended,
                    sent_bytes: sums.sent_bytes,
                    received_bytes: sums.received_bytes,
                    lost_packets: sums.lost_packets,
                    dropped_frames: sums.dropped_frames,
                }
            })
            .collect()
    }

    fn count_end(&self, ended: &LiveSession) {
        let mut totals = self.totals.lock();
        let totals = totals.entry(ended.peer).or_default();
        totals.add(ended);
        totals.sessions_ended += 1;
    }
}
