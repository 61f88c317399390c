//! Following a primary: log matching, truncation (S8), acknowledgement, commit (S9), and leaving
//! the set of nodes with memory loss (S5).

use super::event::{Command, Violation};
use super::message::{Append, AppendAck, EntryMeta, Message, RecoverTarget, Reject};
use super::state::{Core, Duty};
use crate::mutants::mutant;
use crate::types::{EntryId, MonoTime, NodeId, Seq};

impl Core {
    pub(super) fn on_append(
        &mut self,
        now: MonoTime,
        random: u64,
        from: NodeId,
        append: Append,
        out: &mut Vec<Command>,
    ) {
        if append.epoch < self.hard.epoch {
            // The answer's epoch tells the sender that its tenure is over.
            self.acknowledge(from, None, out);
            return;
        }
        if !self.follow(now, random, from, &append, out) {
            return;
        }
        self.time = self.time.max(append.time);
        self.note_recover_target(append.recover);
        if mutant!(AppendDuringInstall, false, self.installing.is_some()) {
            // The log is about to be replaced: what would be appended is as good as lost.
            self.acknowledge(from, None, out);
            return;
        }
        let heartbeat = append.entries.is_empty();
        match self.match_entries(append.epoch, append.prev, append.entries, out) {
            Matched::Through { seq, appended } => {
                self.verified = self.verified.max(seq);
                self.leave_memory_loss(out);
                // S9: what this message verified, and no further.
                let verified = mutant!(CommitAsPrimarySays, self.log.last().seq, seq);
                // Started again in an older epoch, this node would follow a primary that lacks what
                // it knows to be committed (S1). The next heartbeat repeats it.
                if self.epoch_id <= self.durable_id {
                    self.commit_through(append.commit.min(verified), out);
                }
                // New entries are acknowledged when the journal has them.
                if heartbeat || !appended {
                    self.acknowledge(from, None, out);
                }
            }
            Matched::Not(reject) => self.acknowledge(from, Some(reject), out),
            Matched::Conflict(held) => {
                let violation =
                    Violation::CommittedConflict { epoch: append.epoch, sent: append.prev, held };
                self.halt(violation, out);
            }
        }
    }

    /// Accepts the sender as primary of its epoch. False if that breaks an invariant.
    fn follow(
        &mut self,
        now: MonoTime,
        random: u64,
        from: NodeId,
        append: &Append,
        out: &mut Vec<Command>,
    ) -> bool {
        let known = match &self.duty {
            Duty::Primary(_) if append.epoch == self.hard.epoch => Some(self.node),
            Duty::Replica { primary } if append.epoch == self.hard.epoch => *primary,
            Duty::Replica { .. } | Duty::Candidate(_) | Duty::Primary(_) => None,
        };
        match known {
            Some(primary) if primary != from => {
                let violation =
                    Violation::TwoPrimaries { epoch: append.epoch, primary, other: from };
                self.halt(violation, out);
                return false;
            }
            Some(_) => {}
            None => self.become_replica(now, random, append.epoch, Some(from), out),
        }
        self.heard = Some(now);
        self.primary_round = self.primary_round.max(append.round);
        self.restart_election_timer(now, random);
        true
    }

    /// Finds how far the message's entries agree with the log, cuts from the first that differs,
    /// and takes the rest.
    fn match_entries(
        &mut self,
        epoch: crate::types::Epoch,
        prev: EntryId,
        entries: Vec<EntryMeta>,
        out: &mut Vec<Command>,
    ) -> Matched {
        let through = entries.last().map_or(prev.seq, |entry| entry.id.seq);
        if !are_contiguous(epoch, prev, &entries) {
            // No correct primary sends this: nothing of it is used.
            return Matched::Not(Reject { prev, hint: self.log.last() });
        }
        // At or below the start of the journal everything is committed, so it agrees (the
        // primary holds all that is committed, S3).
        let parted = prev.seq >= self.log.first().prev() && !self.log.holds(prev);
        if mutant!(MelinAcceptGap, false, parted) {
            let hint = self.log.last_at_most(prev.seq, prev.epoch);
            return Matched::Not(Reject { prev, hint });
        }
        let preceding = self.log.preceding();
        let missing = mutant!(
            OpenraftTruncateAlways,
            (!entries.is_empty()).then_some(0),
            entries
                .iter()
                .position(|entry| entry.id.seq >= preceding.seq && !self.log.holds(entry.id))
        );
        let Some(missing) = missing else {
            // A prefix of what is held; below the journal's start it verifies what is there.
            return Matched::Through {
                seq: through.max(self.log.preceding().seq),
                appended: false,
            };
        };
        let first = entries[missing].id.seq;
        if first <= self.log.last().seq {
            // What is in force is as good as committed: every later primary has it (S10).
            if first <= self.committed.max(self.configs.in_force_at().seq) {
                let held =
                    self.log.id_at(first).expect("committed entries from the start on are held");
                return Matched::Conflict(held);
            }
            // S8: only from the first entry that differs.
            self.log.truncate(first);
            self.configs.truncate(first);
            out.push(Command::Truncate { from: first, branch: self.log.branch() });
        }
        for entry in entries.into_iter().skip(missing) {
            self.log.push(entry.id);
            if let Some(cluster) = entry.cluster {
                self.configs.push(entry.id, cluster);
            }
        }
        let branch = self.log.branch();
        out.push(Command::Append { first, last: through, branch });
        Matched::Through { seq: through, appended: true }
    }

    /// Tells the primary how far this node is, once the epoch is durable (S1: the epoch is synced
    /// before the first ack in it).
    pub(super) fn acknowledge(
        &mut self,
        to: NodeId,
        reject: Option<Reject>,
        out: &mut Vec<Command>,
    ) {
        let ack = AppendAck {
            epoch: self.hard.epoch,
            incarnation: self.incarnation,
            verified: self.verified,
            in_memory: mutant!(AckAtSubmit, self.verified, self.log.in_memory().min(self.verified)),
            persisted: mutant!(AckOneMore, self.log.persisted().next(), self.log.persisted())
                .min(self.verified),
            applied: self.applied.min(self.verified),
            round: self.primary_round,
            memory_loss: self.memory_loss(),
            reach: self.reach(),
            reject,
        };
        let needed = mutant!(AckBeforeEpochSynced, 0, self.epoch_id);
        self.send_after(needed, to, Message::AppendAck(ack), out);
    }

    fn note_recover_target(&mut self, target: Option<RecoverTarget>) {
        let current = |target: &RecoverTarget| target.incarnation == self.incarnation;
        if let Some(target) = target.filter(|t| mutant!(RecoverInAnyLife, true, current(t))) {
            self.recover_through = Some(target.through);
        }
    }

    /// S5: this node is whole again once it has persisted the primary's log through `R`.
    pub(super) fn leave_memory_loss(&mut self, out: &mut Vec<Command>) {
        let whole = mutant!(
            RecoverUnverified,
            self.log.persisted(),
            self.log.persisted().min(self.verified)
        );
        if self.hard.memory_loss
            && self
                .recover_through
                .is_some_and(|through| whole >= mutant!(RecoverAtCommit, self.committed, through))
        {
            self.hard.memory_loss = false;
            self.save_hard_state(out);
        }
    }

    /// Moves the commit position of a replica.
    fn commit_through(&mut self, through: Seq, out: &mut Vec<Command>) {
        if through <= self.committed {
            return;
        }
        self.committed = through;
        self.acknowledgeable = through;
        self.configs.bring_in_force(through);
        out.push(Command::Committed { committed: through, acknowledgeable: through });
        self.check_cluster_version(out);
    }
}

/// What an append's entries are to the own log.
enum Matched {
    /// The same through `seq`; whether entries were added.
    Through { seq: Seq, appended: bool },
    /// `prev` is not held.
    Not(Reject),
    /// This committed entry would be cut.
    Conflict(EntryId),
}

/// Whether the entries follow `prev` and each other without a gap, in epochs that don't fall and
/// don't exceed the sender's; an epoch can't be sealed before its primary exists.
fn are_contiguous(epoch: crate::types::Epoch, prev: EntryId, entries: &[EntryMeta]) -> bool {
    let mut last = prev;
    prev.epoch <= epoch
        && entries.iter().all(|entry| {
            let follows = entry.id.seq.0 == last.seq.0.wrapping_add(1)
                && entry.id.epoch >= last.epoch
                && entry.id.epoch <= epoch;
            last = entry.id;
            follows
        })
}
