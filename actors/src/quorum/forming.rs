//! First boot: carries out what `protocol::formation` decides, until this node has a first entry
//! on its disk and becomes part of a cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;

use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::core::message::Message;
use quorate_protocol::core::{HardState, Log, Snapshot};
use quorate_protocol::entry::Entry;
use quorate_protocol::formation::{FIRST_ENTRY, Forming, Step};
use quorate_protocol::record::EntryDecoder;
use quorate_protocol::types::{Branch, Chain, ClusterId, EntryId, EntryKind, MonoTime, NodeId};
use quorate_protocol::wire::{
    CLUSTER_PAYLOAD_BYTES_MAX, Formation, Hello, decode_cluster, encode_cluster,
};

use super::actor::Phase;
use super::driver::{Driver, DriverParts, Found};
use super::ports::Fatal;
use crate::clock;
use crate::replication::{PeerEvent, Refusal, Session};
use crate::view::View;

/// How long a member's first entry is waited for, where it may come.
const FIRST_ENTRY_PATIENCE_US: u64 = 2_000_000;

/// How long a node that joins waits for sessions with further members, to choose among them.
const SESSIONS_PATIENCE_US: u64 = 500_000;

/// How long one member is asked for a snapshot without anything coming of it.
const SOURCE_PATIENCE_US: u64 = 5_000_000;

/// Between two requests for a snapshot. While a transfer is under way they are ignored.
const ASK_PERIOD_US: u64 = 500_000;

/// A node without a log.
pub(crate) struct FormingDriver {
    logic: Forming,
    parts: DriverParts,
    /// The id that this node gives the cluster if it is the one to form it.
    cluster: ClusterId,
    /// The first entry, on its way to the disk.
    adopting: Option<(Entry, Arc<ClusterEntry>)>,
    /// Sessions that are up.
    sessions: BTreeMap<NodeId, (Session, Box<Hello>)>,
    said: String,
    /// What to fetch where no first entry comes: a snapshot that names this node.
    joining: Joining,
}

/// How far a node without a log is with becoming a member of a formed cluster.
#[derive(Debug, Default)]
struct Joining {
    /// Since when a formed cluster has known this node, by its sessions.
    known_since: Option<MonoTime>,
    ask_due: MonoTime,
    /// Who was asked last, and since when nothing has come of it.
    asked: Option<NodeId>,
    asked_at: MonoTime,
    /// Who leads, as its messages tell.
    primary: Option<NodeId>,
    /// A snapshot is being put in force, which ends in a restart.
    installing: bool,
}

impl FormingDriver {
    pub(crate) fn new(logic: Forming, parts: DriverParts, cluster: ClusterId) -> Self {
        Self {
            logic,
            parts,
            cluster,
            adopting: None,
            sessions: BTreeMap::new(),
            said: String::new(),
            joining: Joining::default(),
        }
    }

    /// One round; gives the next phase, which is this one until the first entry is synced.
    pub(super) fn round(mut self: Box<Self>) -> Result<Phase, Fatal> {
        self.parts.queues.refuse_all();
        let mut events = Vec::new();
        self.parts.ports.peers.drain(&mut events);
        for event in events {
            self.on_peer_event(event)?;
        }
        if self.adopting.is_none() {
            let steps = self.logic.start(self.cluster);
            self.carry_out(steps)?;
        }
        let persisted =
            self.parts.ports.journal_progress(Branch(0)).map(|progress| progress.persisted);
        if persisted == Some(FIRST_ENTRY)
            && let Some((entry, config)) = self.adopting.take()
        {
            return self.join(&entry, config);
        }
        if self.adopting.is_none() {
            self.fetch_snapshot();
        }
        self.publish();
        Ok(Phase::Forming(self))
    }

    fn on_peer_event(&mut self, event: PeerEvent) -> Result<(), Fatal> {
        let steps = match event {
            PeerEvent::Connected { peer, session, hello }
            | PeerEvent::Greeted { peer, session, hello } => {
                let formed = hello.formed;
                self.sessions.insert(peer, (session, hello));
                if formed {
                    self.joining.known_since.get_or_insert(clock::now());
                    self.said.clear();
                }
                self.logic.on_connected(peer, formed)
            }
            PeerEvent::Disconnected { peer, session } => {
                if self.sessions.get(&peer).is_some_and(|(current, _)| *current == session) {
                    self.sessions.remove(&peer);
                    self.logic.on_disconnected(peer);
                }
                Vec::new()
            }
            PeerEvent::Formation { peer, message: Formation::Formed { record }, .. } => {
                return self.on_formed(peer, &record);
            }
            PeerEvent::Formation { peer, message, .. } => {
                self.logic.on_message(peer, message, self.cluster)
            }
            PeerEvent::Refused { peer, reason } => {
                self.on_refused(peer, &reason)?;
                Vec::new()
            }
            // A core speaks to nodes that have a log, but this tells who leads.
            PeerEvent::Message { peer, message: Message::Append(_), .. } => {
                self.joining.primary = Some(peer);
                Vec::new()
            }
            PeerEvent::Message { .. } | PeerEvent::Sent { .. } | PeerEvent::Unavailable { .. } => {
                Vec::new()
            }
        };
        self.carry_out(steps)
    }

    /// What a peer says of this node is what an operator must know.
    fn on_refused(&mut self, peer: NodeId, reason: &Refusal) -> Result<(), Fatal> {
        if let Refusal::OtherDiskByPeer | Refusal::CandidateByPeer = reason {
            let said = format!("node {peer}: {reason}");
            if self.sessions.is_empty() && self.said != said {
                self.said = said;
            }
            return Ok(());
        }
        self.parts.ports.refused(peer, reason)
    }

    /// A member that has let this node in knows it as a member, on this disk. Where no first entry
    /// comes that names it, it begins with a snapshot.
    fn fetch_snapshot(&mut self) {
        if let Some(snapshot) = self.parts.ports.snapshots.take_fetched() {
            self.judge(&snapshot);
        }
        let now = clock::now();
        let patience =
            if self.logic.joins() { SESSIONS_PATIENCE_US } else { FIRST_ENTRY_PATIENCE_US };
        let known = self.joining.known_since.is_some_and(|since| now.since(since) >= patience);
        if !known || self.joining.installing || now < self.joining.ask_due {
            return;
        }
        self.joining.ask_due = now.plus(ASK_PERIOD_US);
        if self.parts.ports.snapshots.stats().progress().is_some() {
            self.joining.asked_at = now;
            return;
        }
        let Some(peer) = self.source(now) else { return };
        let Some((session, _)) = self.sessions.get(&peer) else { return };
        if self.joining.asked != Some(peer) {
            self.joining.asked_at = now;
        }
        self.joining.asked = Some(peer);
        self.parts.ports.fetch_first_snapshot(peer, *session, self.parts.disk);
    }

    /// Whom to ask: always the same one, since what has arrived of its snapshot is of use with that
    /// one alone, until nothing comes of it. A member that doesn't lead, if there is one.
    fn source(&self, now: MonoTime) -> Option<NodeId> {
        let formed = self.sessions.iter().filter(|(_, (_, hello))| hello.formed);
        let formed: Vec<NodeId> = formed.map(|(peer, _)| *peer).collect();
        let replicas: Vec<NodeId> =
            formed.iter().copied().filter(|peer| Some(*peer) != self.joining.primary).collect();
        let sources = if replicas.is_empty() { formed } else { replicas };
        let asked = self.joining.asked.filter(|asked| sources.contains(asked));
        let patient = now.since(self.joining.asked_at) < SOURCE_PATIENCE_US;
        asked.filter(|_| patient).or_else(|| {
            let after = |asked: NodeId| sources.iter().find(|peer| **peer > asked);
            self.joining.asked.and_then(after).or(sources.first()).copied()
        })
    }

    fn judge(&mut self, snapshot: &Snapshot) {
        if self.logic.is_member_of(&snapshot.config.1) {
            tracing::info!(last = %snapshot.last, "joining the cluster by a snapshot");
            self.joining.installing = true;
            self.parts.ports.snapshots.install();
        } else {
            // Its maker had not executed the entry that made this node a member.
            tracing::info!(last = %snapshot.last, "a snapshot doesn't name this node yet");
            self.parts.ports.snapshots.discard();
        }
    }

    fn carry_out(&mut self, steps: Vec<Step>) -> Result<(), Fatal> {
        for step in steps {
            match step {
                Step::Send { to, message } => self.send(to, message),
                Step::Reserve { disk, to, message } => {
                    self.parts.ports.save_reservation(disk)?;
                    self.send(to, message);
                }
                Step::Form(config) => {
                    let payload = encode_cluster(&config).map_err(Fatal::Cluster)?;
                    let time = clock::wall();
                    let kind = EntryKind::Cluster;
                    let entry = Entry::seal(FIRST_ENTRY, kind, time, Chain(0), payload);
                    self.adopt(entry, config)?;
                }
            }
        }
        Ok(())
    }

    /// A formed node offers the first entry: it is taken only if it names this node on this disk.
    fn on_formed(&mut self, from: NodeId, record: &[u8]) -> Result<(), Fatal> {
        if self.adopting.is_some() {
            return Ok(());
        }
        let accepted = decode_record(record).and_then(|entry| {
            let config = decode_cluster(&entry.payload).map_err(|error| error.to_string())?;
            if !entry.follows(Chain(0)) {
                return Err("the first entry's chain is broken".to_owned());
            }
            self.logic.accepts(&entry, config).map(|config| (entry, config))
        });
        match accepted {
            Ok((entry, config)) => self.adopt(entry, Arc::new(config)),
            Err(reason) => {
                tracing::error!(%from, %reason, "can't join the cluster");
                self.said = reason;
                Ok(())
            }
        }
    }

    fn adopt(&mut self, entry: Entry, config: Arc<ClusterEntry>) -> Result<(), Fatal> {
        if self.adopting.is_none() {
            self.parts.ports.append(vec![entry.clone()], Branch(0))?;
            self.adopting = Some((entry, config));
        }
        Ok(())
    }

    /// The first entry is synced: from here on this node replicates.
    fn join(self: Box<Self>, entry: &Entry, config: Arc<ClusterEntry>) -> Result<Phase, Fatal> {
        let mut parts = self.parts;
        // After the entry: a directory that knows its cluster has a log, or has lost it (S6).
        parts.ports.save_cluster(config.cluster, config.generation)?;
        let runs = vec![(FIRST_ENTRY.seq, FIRST_ENTRY.epoch)];
        let log = Log::new(EntryId::ZERO, runs, FIRST_ENTRY, FIRST_ENTRY.seq);
        tracing::info!(cluster = %config.cluster, "cluster formed");
        let found = Found {
            hard: HardState::default(),
            log,
            chain: entry.chain,
            configs: vec![(FIRST_ENTRY, config.clone())],
            committed: FIRST_ENTRY.seq,
            time: entry.time,
        };
        parts.ports.formed(entry, config);
        parts.ports.apply_through(FIRST_ENTRY.seq, None);
        let connected = |(peer, (session, hello))| PeerEvent::Connected { peer, session, hello };
        parts.early = self.sessions.into_iter().map(connected).collect();
        Ok(Phase::Running(Box::new(Driver::new(parts, found))))
    }

    fn send(&mut self, to: NodeId, message: Formation) {
        if let Some((session, _)) = self.sessions.get(&to) {
            self.parts.ports.send_formation(to, *session, message);
        }
    }

    fn publish(&mut self) {
        let waiting = match self.joining.asked {
            Some(peer) => format!("a snapshot, from node {peer} at present"),
            None if self.said.is_empty() => self.logic.waiting_for(),
            None => self.said.clone(),
        };
        if self.parts.published.view().waiting.as_ref() == Some(&waiting) {
            return;
        }
        // Alone, there is nothing to wait for but its own disk.
        if !waiting.is_empty() {
            tracing::info!(waiting_for = %waiting, "not part of a cluster yet");
        }
        self.parts.published.set_view(View {
            node: self.parts.ports.node,
            incarnation: self.parts.ports.incarnation,
            waiting: Some(waiting),
            ..View::default()
        });
    }
}

fn decode_record(record: &[u8]) -> Result<Entry, String> {
    let mut buffer = BytesMut::from(record);
    let decoded = EntryDecoder::new(CLUSTER_PAYLOAD_BYTES_MAX).decode(&mut buffer);
    match decoded.map_err(|error| error.to_string())? {
        Some(entry) if buffer.is_empty() => Ok(entry),
        Some(_) | None => Err("the first entry's record has another length".to_owned()),
    }
}
