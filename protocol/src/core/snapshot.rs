//! Replacing log and state by a snapshot: where a replica needs entries that no journal has any
//! more.
//!
//! ```text
//!  primary ──SnapshotOffer──► replica ──FetchSnapshot──► runtime: fetches files, hashes, syncs
//!                                     ◄─SnapshotFetched─
//!                                     ──InstallSnapshot─► runtime: one rename switches journal
//!                                     ◄SnapshotInstalled─          and state together
//! ```
//!
//! A snapshot holds only committed entries, so it is a beginning of every later primary's log,
//! whoever it came from.

use std::sync::Arc;

use super::event::{Command, SnapshotRefused};
use super::message::{Message, SnapshotOffer};
use super::progress::Flow;
use super::state::{Core, Duty};
use crate::cluster::ClusterEntry;
use crate::mutants::mutant;
use crate::types::{ClusterTime, EntryId, Epoch, MonoTime, NodeId, Seq};

/// What a snapshot stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Snapshot {
    /// The last entry that it holds; committed.
    pub last: EntryId,
    /// An epoch in which its maker knew `last` to be committed: every primary of a later epoch
    /// has it, one of an earlier epoch may not.
    pub epoch: Epoch,
    /// The newest cluster entry at or before `last`, with its id.
    pub config: (EntryId, Arc<ClusterEntry>),
    /// The time of the entry `last`.
    pub time: ClusterTime,
}

/// A snapshot on its way into the node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Installing {
    snapshot: Snapshot,
    /// Whether the runtime was told to switch to it.
    ordered: bool,
}

impl Core {
    /// Tells peers that what they need next is no longer in the journal.
    pub(super) fn offer_snapshots(&self, out: &mut Vec<Command>) {
        let Duty::Primary(tenure) = &self.duty else {
            return;
        };
        let offer = SnapshotOffer { epoch: self.hard.epoch, preceding: self.log.preceding() };
        for (peer, progress) in &tenure.peers {
            if progress.flow == Flow::BelowJournal {
                out.push(Command::Send { to: *peer, message: Message::SnapshotOffer(offer) });
            }
        }
    }

    pub(super) fn on_snapshot_offer(
        &mut self,
        from: NodeId,
        offer: SnapshotOffer,
        out: &mut Vec<Command>,
    ) {
        let needed = offer.preceding.seq > self.committed && !self.log.holds(offer.preceding);
        let asked = self.follows(from) && offer.epoch == self.hard.epoch && needed;
        if asked && self.installing.is_none() {
            out.push(Command::FetchSnapshot { from, above: offer.preceding });
        }
    }

    /// The runtime holds a whole, checked and synced snapshot. Until it is installed nothing is
    /// appended, committed or stood for: the log is about to be replaced.
    pub(super) fn on_snapshot_fetched(
        &mut self,
        now: MonoTime,
        random: u64,
        snapshot: Snapshot,
        out: &mut Vec<Command>,
    ) {
        let last = snapshot.last;
        if let Err(reason) = self.judge_snapshot(&snapshot) {
            out.push(Command::SnapshotRefused { last, reason });
            return;
        }
        // A primary of an earlier epoch may lack what the snapshot holds: it is followed no more.
        if snapshot.epoch > self.hard.epoch {
            self.become_replica(now, random, snapshot.epoch, None, out);
        } else if let Duty::Candidate(_) = self.duty {
            self.become_replica(now, random, self.hard.epoch, None, out);
        }
        self.installing = Some(Installing { snapshot, ordered: false });
        self.order_install(out);
    }

    /// Tells the runtime to switch, once the epoch is durable in which this node learns that the
    /// snapshot is committed (S1): started again, it must not follow an older primary.
    pub(super) fn order_install(&mut self, out: &mut Vec<Command>) {
        let durable = self.epoch_id <= self.durable_id;
        let Some(installing) = self.installing.as_mut().filter(|i| durable && !i.ordered) else {
            return;
        };
        installing.ordered = true;
        let snapshot = installing.snapshot.clone();
        let (keep_suffix, branch) = self.log.after_install(snapshot.last);
        out.push(Command::InstallSnapshot { snapshot, keep_suffix, branch });
    }

    fn judge_snapshot(&self, snapshot: &Snapshot) -> Result<(), SnapshotRefused> {
        let own = self.configs.in_force();
        let (config_id, config) = &snapshot.config;
        if (config.cluster, config.generation) != (own.cluster, own.generation) {
            return Err(SnapshotRefused::Foreign);
        }
        let beyond = snapshot.epoch > Epoch::MAX || snapshot.last.seq > Seq::MAX;
        if beyond || *config_id > snapshot.last || snapshot.epoch < snapshot.last.epoch {
            return Err(SnapshotRefused::Malformed);
        }
        if mutant!(InstallOlder, false, snapshot.last.seq <= self.committed) {
            let held = self.log.id_at(snapshot.last.seq);
            return Err(match held {
                Some(held) if held != snapshot.last => SnapshotRefused::Conflicting { held },
                Some(_) | None => SnapshotRefused::Older { committed: self.committed },
            });
        }
        // What is in force here is as good as committed.
        let in_force = self.configs.in_force_at();
        if in_force.seq > snapshot.last.seq && !self.log.holds(snapshot.last) {
            return Err(SnapshotRefused::Conflicting { held: in_force });
        }
        if self.installing.is_some() {
            return Err(SnapshotRefused::Busy);
        }
        match self.duty {
            // A primary holds all that is committed; it needs no one's snapshot.
            Duty::Primary(_) => Err(SnapshotRefused::Primary),
            Duty::Replica { .. } | Duty::Candidate(_) => Ok(()),
        }
    }

    /// The switch is synced: log, configurations and cursors move with it.
    pub(super) fn on_snapshot_installed(
        &mut self,
        now: MonoTime,
        last: EntryId,
        out: &mut Vec<Command>,
    ) {
        let installing = self.installing.take_if(|i| i.ordered && i.snapshot.last == last);
        let Some(Installing { snapshot, .. }) = installing else {
            return;
        };
        let Snapshot { last, epoch: _, config, time } = snapshot;
        self.log.install(last);
        let suffix_end = self.log.last().seq;
        self.configs.install(config, last.seq, suffix_end);
        self.time = self.time.max(time);
        self.verified = self.verified.clamp(last.seq, self.log.last().seq);
        self.applied = self.applied.max(last.seq);
        self.committed = last.seq;
        self.acknowledgeable = last.seq;
        out.push(Command::Committed { committed: last.seq, acknowledgeable: last.seq });
        self.check_cluster_version(out);
        self.on_own_cursor(now, out);
    }
}
