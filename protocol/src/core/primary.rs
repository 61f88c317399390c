//! Leading: sealing entries, and sending them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::event::Command;
use super::membership::WaitingChange;
use super::message::{Append, AppendAck, Message, RecoverTarget, Reject};
use super::progress::{Flow, Progress};
use super::reads::WaitingReads;
use super::state::{Core, Duty, PeerStatus, Refused};
use super::transfer::{Handover, Pace};
use crate::cluster::ClusterEntry;
use crate::mutants::mutant;
use crate::policy::Evaluation;
use crate::types::{ClusterTime, EntryId, EntryKind, MonoTime, NodeId, Seq};

/// A primary's tenure: everything that ends with it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tenure {
    /// Where this tenure's `EpochStart` stands.
    pub start: Seq,
    /// Entries of this tenure that are not `Commands`, and not yet committed: they commit when
    /// they are sealed.
    pub sealed_kinds: VecDeque<Seq>,
    /// Other members.
    pub peers: BTreeMap<NodeId, Progress>,
    /// When it began.
    pub began: MonoTime,
    /// The latest heartbeat round.
    pub round: u64,
    /// When the latest rounds were sent.
    pub rounds: VecDeque<(u64, MonoTime)>,
    /// When the next heartbeat is due.
    pub heartbeat_due: MonoTime,
    /// When the latest round was sent that a quorum answered; before the first such round, when
    /// the tenure began.
    pub contact: MonoTime,
    /// Whether a quorum has answered a round: without one there is no lease.
    pub proven: bool,
    /// Reads that wait for a round.
    pub reads: WaitingReads,
    /// The change that somebody waits for.
    pub change: Option<WaitingChange>,
    /// The transfer under way.
    pub handover: Option<Handover>,
    /// Whether a target was told to stand in this epoch: no lease is taken again in it (S11).
    pub lease_forgone: bool,
    /// When this primary last got on.
    pub pace: Pace,
}

impl Core {
    pub(super) fn become_primary(&mut self, now: MonoTime, out: &mut Vec<Command>) {
        let last = self.log.last();
        let peers = self.sessions.keys().map(|peer| (*peer, Progress::new(last, now))).collect();
        self.duty = Duty::Primary(Box::new(Tenure {
            start: last.seq.next(),
            sealed_kinds: VecDeque::new(),
            peers,
            began: now,
            round: 0,
            rounds: VecDeque::new(),
            heartbeat_due: now.plus(self.tuning.heartbeat_us),
            // Check-quorum has a full timeout until the first round tells; a vote proves no
            // silence towards other candidates, so it gives no lease.
            contact: now,
            proven: false,
            reads: WaitingReads::new(),
            change: None,
            handover: None,
            lease_forgone: false,
            pace: Pace::new(now),
        }));
        // What earlier tenures acknowledged stays so; nothing new is met yet.
        self.acknowledgeable = self.acknowledgeable.min(self.committed);
        out.push(Command::RoleChanged);
        self.seal(EntryKind::EpochStart, self.time, None, out);
        self.start_round(now, out);
        self.advance_commit(now, out);
    }

    /// Whether a write may be sealed now. Refused before it is sequenced, by rule and not by
    /// time-out, when the policy can't be met by the reachable voters.
    ///
    /// # Errors
    /// Not primary, or the clause that can't be met.
    pub fn admits(&self, now: MonoTime) -> Result<(), Refused> {
        let Duty::Primary(tenure) = &self.duty else {
            return Err(Refused::NotPrimary);
        };
        if let Some(handover) = &tenure.handover {
            return Err(Refused::HandingOver(handover.to));
        }
        match self.evaluate(self.configs.newest(), tenure, now) {
            Evaluation::Met { .. } => Ok(()),
            Evaluation::Degraded(_) if self.is_starting(tenure, now) => Err(Refused::Starting),
            Evaluation::Degraded(unmet) => Err(Refused::Degraded(unmet)),
        }
    }

    /// Whether the voters have not had the time to answer this tenure yet.
    fn is_starting(&self, tenure: &Tenure, now: MonoTime) -> bool {
        let patience_us = self.tuning.election_timeout_max_us;
        self.committed < tenure.start && now.since(tenure.began) < patience_us
    }

    /// The policy in force, judged now; `None` unless primary.
    #[must_use]
    pub fn evaluation(&self, now: MonoTime) -> Option<Evaluation> {
        let Duty::Primary(tenure) = &self.duty else {
            return None;
        };
        Some(self.evaluate(self.configs.in_force(), tenure, now))
    }

    /// Other members as this primary sees them; empty unless primary.
    #[must_use]
    pub fn peers(&self, now: MonoTime) -> Vec<PeerStatus> {
        let Duty::Primary(tenure) = &self.duty else {
            return Vec::new();
        };
        let status = |(node, progress): (&NodeId, &Progress)| PeerStatus {
            node: *node,
            connected: self.sessions.get(node).is_some_and(|session| session.up),
            in_view: self.is_in_view(progress, now),
            in_memory: progress.in_memory,
            persisted: progress.persisted,
            applied: progress.applied,
            below_journal: progress.flow == Flow::BelowJournal,
        };
        tenure.peers.iter().map(status).collect()
    }

    pub(super) fn propose(&mut self, now: MonoTime, time: ClusterTime, out: &mut Vec<Command>) {
        if self.admits(now).is_err() {
            return;
        }
        self.seal(EntryKind::Commands, time, None, out);
        self.send_entries_to_all(out);
    }

    /// A control event needs no policy to be met: it commits when it is sealed (S4).
    pub(super) fn propose_mark(
        &mut self,
        now: MonoTime,
        time: ClusterTime,
        out: &mut Vec<Command>,
    ) {
        match self.admits(now) {
            Err(Refused::NotPrimary | Refused::HandingOver(_)) => return,
            Err(Refused::Starting | Refused::Degraded(_)) | Ok(()) => {}
        }
        self.seal(EntryKind::Mark, time, None, out);
        self.send_entries_to_all(out);
    }

    /// Puts the next entry of this tenure into the log.
    pub(super) fn seal(
        &mut self,
        kind: EntryKind,
        time: ClusterTime,
        cluster: Option<Arc<ClusterEntry>>,
        out: &mut Vec<Command>,
    ) -> EntryId {
        let id = EntryId { epoch: self.hard.epoch, seq: self.log.last().seq.next() };
        self.time = self.time.max(time);
        self.log.push(id);
        if let (Duty::Primary(tenure), true) = (&mut self.duty, kind != EntryKind::Commands) {
            tenure.sealed_kinds.push_back(id.seq);
        }
        if let Some(cluster) = &cluster {
            self.configs.push(id, cluster.clone());
        }
        let branch = self.log.branch();
        out.push(Command::Seal { id, kind, time: self.time, cluster, branch });
        id
    }

    pub(super) fn tick_primary(&mut self, now: MonoTime, random: u64, out: &mut Vec<Command>) {
        // S11's check-quorum: a primary that can't reach a quorum fences itself by time.
        self.note_contact(now, out);
        let heartbeat_us = self.tuning.heartbeat_us;
        let Duty::Primary(tenure) = &mut self.duty else {
            return;
        };
        if now.since(tenure.contact) > self.tuning.election_timeout_max_us {
            self.become_replica(now, random, self.hard.epoch, None, out);
            return;
        }
        if now >= tenure.heartbeat_due {
            // Only here: rounds for reads and changes may be many, and must not put this off.
            tenure.heartbeat_due = now.plus(heartbeat_us);
            self.resend_lost(now);
            self.start_round(now, out);
            self.offer_snapshots(out);
            self.advance_commit(now, out);
            self.promote_learner(now, out);
            self.consider_handover(now, out);
            self.drive_handover(now, out);
        }
    }

    /// Opens a heartbeat round and sends it to every peer.
    pub(super) fn start_round(&mut self, now: MonoTime, out: &mut Vec<Command>) {
        let Duty::Primary(tenure) = &mut self.duty else {
            return;
        };
        tenure.open_round(now);
        let peers: Vec<NodeId> = tenure.peers.keys().copied().collect();
        for peer in peers {
            self.send_heartbeat(peer, out);
        }
        // Alone, the round is answered already.
        self.note_contact(now, out);
    }

    /// An append without entries: proves contact, carries the commit position, and asks for the
    /// entry where the logs may agree.
    fn send_heartbeat(&self, peer: NodeId, out: &mut Vec<Command>) {
        let Duty::Primary(tenure) = &self.duty else {
            return;
        };
        let Some(progress) = tenure.peers.get(&peer) else {
            return;
        };
        let prev = match progress.flow {
            Flow::Probe => progress.next.prev(),
            Flow::Pipeline | Flow::BelowJournal => progress.verified,
        };
        let prev = self.log.id_at(prev).unwrap_or(self.log.preceding());
        let message = Message::Append(Append {
            epoch: self.hard.epoch,
            prev,
            commit: self.committed,
            round: tenure.round,
            time: self.time,
            recover: progress.recover,
            entries: Vec::new(),
        });
        out.push(Command::Send { to: peer, message });
    }

    pub(super) fn send_entries_to_all(&mut self, out: &mut Vec<Command>) {
        let Duty::Primary(tenure) = &self.duty else {
            return;
        };
        let peers: Vec<NodeId> = tenure.peers.keys().copied().collect();
        for peer in peers {
            self.send_entries(peer, out);
        }
    }

    /// Asks the runtime to send what the peer lacks, within its window. A slow peer's window is
    /// capped and delays no one else.
    pub(super) fn send_entries(&mut self, peer: NodeId, out: &mut Vec<Command>) {
        let last = self.log.last();
        let window_bytes = self.tuning.window_bytes;
        let Duty::Primary(tenure) = &mut self.duty else {
            return;
        };
        let (Some(progress), Some(session)) =
            (tenure.peers.get_mut(&peer), self.sessions.get(&peer))
        else {
            return;
        };
        let bytes_max = progress.window(window_bytes);
        let ready = progress.flow == Flow::Pipeline && !progress.sending && bytes_max > 0;
        if !ready || progress.next > last.seq {
            return;
        }
        let Some(prev) = self.log.id_at(progress.next.prev()) else {
            progress.flow = Flow::BelowJournal;
            return;
        };
        progress.sending = true;
        out.push(Command::SendEntries {
            to: peer,
            session: session.number,
            epoch: self.hard.epoch,
            prev,
            first: progress.next,
            last: last.seq,
            bytes_max,
            commit: self.committed,
            round: tenure.round,
            recover: progress.recover,
        });
    }

    pub(super) fn on_sent(
        &mut self,
        now: MonoTime,
        peer: NodeId,
        session: u64,
        sent: Option<(Seq, u64)>,
        out: &mut Vec<Command>,
    ) {
        if self.sessions.get(&peer).is_none_or(|current| current.number != session) {
            return;
        }
        let Duty::Primary(tenure) = &mut self.duty else {
            return;
        };
        let Some(progress) = tenure.peers.get_mut(&peer) else {
            return;
        };
        if !progress.sending {
            return;
        }
        progress.sending = false;
        if progress.flow == Flow::Pipeline {
            if progress.is_idle() {
                progress.moved = now;
            }
            match sent {
                Some((through, bytes)) => progress.on_sent(through, bytes),
                None => progress.probe_from(progress.next, now),
            }
        }
        self.send_entries(peer, out);
    }

    pub(super) fn on_ack(
        &mut self,
        now: MonoTime,
        random: u64,
        from: NodeId,
        ack: AppendAck,
        out: &mut Vec<Command>,
    ) {
        if ack.epoch > self.hard.epoch {
            self.become_replica(now, random, ack.epoch, None, out);
            return;
        }
        let (last, preceding) = (self.log.last(), self.log.preceding());
        let learner_lag = self.tuning.learner_lag;
        // An ack of an earlier life speaks of memory that is gone (S5).
        let current = mutant!(
            AckOfEarlierLife,
            true,
            self.sessions.get(&from).is_some_and(|s| s.incarnation == ack.incarnation)
        );
        let Duty::Primary(tenure) = &mut self.duty else {
            return;
        };
        let Some(progress) = tenure.peers.get_mut(&from) else {
            return;
        };
        if ack.epoch < self.hard.epoch || !current || ack.verified > last.seq {
            return;
        }
        progress.answered = Some(now);
        progress.round = progress.round.max(ack.round.min(tenure.round));
        progress.applied = progress.applied.max(ack.applied.min(ack.verified));
        progress.on_cursors(ack.verified, ack.in_memory, ack.persisted, now);
        progress.memory_loss = ack.memory_loss;
        progress.reach = ack.reach;
        progress.note_distance(last.seq, learner_lag, now);
        let newly_in_loss = update_recover(progress, &ack, last.seq);
        match ack.reject {
            Some(reject) => self.on_reject(now, from, reject, out),
            None if progress.flow == Flow::Pipeline => {}
            None if progress.flow == Flow::BelowJournal && progress.verified < preceding.seq => {}
            None if progress.flow == Flow::BelowJournal => {
                // A snapshot has brought it to where the journal begins.
                progress.probe_from(progress.verified.next(), now);
                progress.flow = Flow::Pipeline;
            }
            None if progress.verified >= progress.next.prev() => {
                progress.flow = Flow::Pipeline;
                progress.moved = now;
            }
            None => {}
        }
        if newly_in_loss {
            self.send_heartbeat(from, out);
        }
        self.note_contact(now, out);
        self.advance_commit(now, out);
        self.send_entries(from, out);
        self.drive_handover_to(from, now, out);
    }

    /// The peer doesn't hold `reject.prev`: goes back to the highest entry that may agree. Each
    /// step goes below an epoch, so it ends after as many steps as the logs have epochs.
    fn on_reject(&mut self, now: MonoTime, from: NodeId, reject: Reject, out: &mut Vec<Command>) {
        let agree = self.log.last_at_most(reject.hint.seq, reject.hint.epoch);
        let preceding = self.log.preceding();
        let Duty::Primary(tenure) = &mut self.duty else {
            return;
        };
        let Some(progress) = tenure.peers.get_mut(&from) else {
            return;
        };
        // Nothing older than this is left to ask for: see `send_heartbeat`.
        let below = reject.prev == preceding && preceding.seq > progress.verified;
        if mutant!(KeepProbingTrimmed, false, below) {
            progress.flow = Flow::BelowJournal;
            return;
        }
        let stale = reject.prev.seq <= progress.verified && progress.flow != Flow::BelowJournal
            || reject.prev.seq >= progress.next;
        if stale || reject.hint == reject.prev {
            return;
        }
        if reject.prev.seq <= preceding.seq && preceding.seq > Seq::ZERO {
            progress.flow = Flow::BelowJournal;
            return;
        }
        let next = mutant!(OpenraftNoBacktrack, progress.next, agree.seq.next());
        progress.probe_from(next, now);
        self.send_heartbeat(from, out);
    }

    /// Entries that were sent and never arrived (a transport may lose them): starts again from
    /// what is verified.
    fn resend_lost(&mut self, now: MonoTime) {
        let patience_us = self.tuning.election_timeout_max_us;
        let Duty::Primary(tenure) = &mut self.duty else {
            return;
        };
        for progress in tenure.peers.values_mut() {
            let waits = progress.next > progress.verified.next() && !progress.sending;
            if progress.flow == Flow::Pipeline && waits && now.since(progress.moved) > patience_us {
                progress.probe_from(progress.verified.next(), now);
            }
        }
    }

    pub(super) fn on_peer_session(
        &mut self,
        now: MonoTime,
        peer: NodeId,
        same_life: bool,
        out: &mut Vec<Command>,
    ) {
        let last = self.log.last();
        let Duty::Primary(tenure) = &mut self.duty else {
            return;
        };
        tenure.peers.entry(peer).or_insert_with(|| Progress::new(last, now)).on_session(
            mutant!(OpenraftStaleAck, true, same_life),
            last,
            now,
        );
        self.send_heartbeat(peer, out);
    }

    pub(super) fn on_peer_gone(&mut self, now: MonoTime, peer: NodeId, out: &mut Vec<Command>) {
        let last = self.log.last();
        let Duty::Primary(tenure) = &mut self.duty else {
            return;
        };
        if let Some(progress) = tenure.peers.get_mut(&peer) {
            progress.on_session(true, last, now);
        }
        self.advance_commit(now, out);
    }
}

/// Fixes `R` when a life with memory loss is first seen, and forgets it when the loss is over.
/// True if `R` is new.
fn update_recover(progress: &mut Progress, ack: &AppendAck, last: Seq) -> bool {
    if !ack.memory_loss {
        progress.recover = None;
        return false;
    }
    let known = progress.recover.is_some_and(|target| target.incarnation == ack.incarnation);
    if !known {
        progress.recover = Some(RecoverTarget {
            incarnation: ack.incarnation,
            through: mutant!(RecoverThroughOwnLast, ack.verified, last),
        });
    }
    !known
}
