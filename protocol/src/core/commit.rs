//! Committing by the policy (S4): one consistent view of the cursors, judged by the configuration in
//! force.

use super::event::Command;
use super::primary::Tenure;
use super::progress::{Flow, Progress};
use super::state::{Core, Duty};
use crate::cluster::ClusterEntry;
use crate::mutants::mutant;
use crate::policy::{Cursors, Evaluation, Level, Policy};
use crate::types::{MonoTime, NodeId, Seq};

impl Core {
    /// S4: moves the commit position and the acknowledgeable position as far as the cursors, by
    /// one consistent view of them, allow.
    pub(super) fn advance_commit(&mut self, now: MonoTime, out: &mut Vec<Command>) {
        if self.bring_in_force(now, out) {
            self.commit_by_policy(now, out);
            // Until the others know, they may need voters that are no longer there.
            self.start_round(now, out);
        } else {
            self.commit_by_policy(now, out);
        }
    }

    fn commit_by_policy(&mut self, now: MonoTime, out: &mut Vec<Command>) {
        let Duty::Primary(tenure) = &self.duty else {
            return;
        };
        let config = mutant!(JudgeByNewest, self.configs.newest(), self.configs.in_force());
        let met = match self.evaluate(config, tenure, now) {
            Evaluation::Met { position, .. } => position,
            Evaluation::Degraded(_) => Seq::ZERO,
        };
        // Nothing at or after a configuration that is not in force commits (S10).
        let ceiling = mutant!(
            CommitPastPending,
            self.log.last().seq,
            self.configs.pending().map_or(self.log.last().seq, |pending| pending.id.seq.prev())
        );
        let met = met.min(ceiling);
        let own = mutant!(Figure8Commit, true, self.log.epoch_at(met) == Some(self.hard.epoch));
        let mut committed = if own { met.max(self.committed) } else { self.committed };
        let sealed = self.sealed_through(config, tenure, now).min(ceiling);
        committed = tenure.commit_sealed(committed, sealed);
        let acknowledgeable = met.min(committed).max(self.acknowledgeable);
        if (committed, acknowledgeable) == (self.committed, self.acknowledgeable) {
            return;
        }
        self.committed = committed;
        self.acknowledgeable = acknowledgeable;
        self.configs.bring_in_force(committed);
        let Duty::Primary(tenure) = &mut self.duty else {
            return;
        };
        tenure.forget_committed(committed);
        let sealed_start = committed >= tenure.start;
        out.push(Command::Committed { committed, acknowledgeable });
        // A primary with memory loss is whole once its tenure's first entry is sealed: no later
        // winner lacks what its log holds (S5).
        if sealed_start && self.hard.memory_loss {
            self.hard.memory_loss = false;
            self.save_hard_state(out);
        }
        self.check_cluster_version(out);
    }

    /// The highest position persisted on enough voters that no later winner can lack it.
    pub(super) fn sealed_through(
        &self,
        config: &ClusterEntry,
        tenure: &Tenure,
        now: MonoTime,
    ) -> Seq {
        let form = config.policy.normal_form(config.voters().count());
        let mut persisted: Vec<Seq> =
            self.view(config, tenure, now).iter().map(|cursors| cursors.persisted).collect();
        persisted.sort_unstable_by(|a, b| b.cmp(a));
        let least = mutant!(ThesisSingleServer, form.majority(), form.sealing_copies());
        let copies = mutant!(SealByOneCopy, 1, least);
        persisted.get(copies - 1).copied().unwrap_or(Seq::ZERO)
    }

    pub(super) fn evaluate(
        &self,
        config: &ClusterEntry,
        tenure: &Tenure,
        now: MonoTime,
    ) -> Evaluation {
        config.policy.evaluate(config.voters().count(), &self.view(config, tenure, now))
    }

    /// One member's cursors as they are now, if this node is primary and knows them.
    #[must_use]
    pub fn cursors(&self, node: NodeId) -> Option<Cursors> {
        let Duty::Primary(tenure) = &self.duty else {
            return None;
        };
        let (in_memory, persisted) = if node == self.node {
            (self.log.in_memory(), self.log.persisted())
        } else {
            let progress = tenure.peers.get(&node)?;
            (progress.in_memory, progress.persisted)
        };
        Some(Cursors { node, in_memory, persisted })
    }

    /// Which of one member's cursors, moving from where it was `before`, made this policy met at
    /// `seq`; `None` if it was neither, but a change of policy or view.
    #[must_use]
    pub fn crossed(
        &self,
        now: MonoTime,
        policy: &Policy,
        before: Cursors,
        seq: Seq,
    ) -> Option<Level> {
        let Duty::Primary(tenure) = &self.duty else {
            return None;
        };
        let config = self.configs.in_force();
        let view = self.view(config, tenure, now);
        policy.crossed(config.voters().count(), &view, before, seq)
    }

    /// What a policy other than the cluster's says of the voters in force; `None` unless primary.
    #[must_use]
    pub fn judge(&self, now: MonoTime, policy: &Policy) -> Option<Evaluation> {
        let Duty::Primary(tenure) = &self.duty else {
            return None;
        };
        let config = self.configs.in_force();
        Some(policy.evaluate(config.voters().count(), &self.view(config, tenure, now)))
    }

    /// One consistent reading: this node and the voters that answer in their current life.
    pub(super) fn view(
        &self,
        config: &ClusterEntry,
        tenure: &Tenure,
        now: MonoTime,
    ) -> Vec<Cursors> {
        let own = Cursors {
            node: self.node,
            in_memory: self.log.in_memory(),
            persisted: mutant!(OwnPersistedAtSubmit, self.log.last().seq, self.log.persisted()),
        };
        let own = self.counts_in(config, self.node).then_some(own);
        let peers = tenure
            .peers
            .iter()
            .filter(|(peer, progress)| {
                self.is_in_view(progress, now) && self.counts_in(config, **peer)
            })
            .map(|(peer, progress)| Cursors {
                node: *peer,
                in_memory: progress.in_memory,
                persisted: mutant!(MemoryAsPersisted, progress.in_memory, progress.persisted),
            });
        own.into_iter().chain(peers).collect()
    }

    /// A peer that needs entries which no journal has any more holds no copy of new ones before it
    /// has installed a snapshot: a policy that waited for it would wait for that.
    pub(super) fn is_in_view(&self, progress: &Progress, now: MonoTime) -> bool {
        let silence_us = self.tuning.election_timeout_max_us;
        if progress.flow == Flow::BelowJournal {
            return false;
        }
        progress.answered.is_some_and(|at| now.since(at) <= silence_us)
    }
}

impl Tenure {
    /// Extends `committed` over this tenure's entries that are not `Commands` and are sealed, as
    /// long as no `Commands` entry of this tenure before them is uncommitted.
    fn commit_sealed(&self, committed: Seq, sealed: Seq) -> Seq {
        let mut committed = committed;
        for seq in self.sealed_kinds.iter().copied() {
            // Everything between is of earlier tenures exactly for the first entry of this one;
            // after it, only a direct neighbour has no `Commands` in between.
            let clear =
                mutant!(SealedPastCommands, true, seq == self.start || seq <= committed.next());
            if seq > sealed || !clear {
                break;
            }
            committed = committed.max(seq);
        }
        committed
    }

    fn forget_committed(&mut self, committed: Seq) {
        while self.sealed_kinds.front().is_some_and(|seq| *seq <= committed) {
            self.sealed_kinds.pop_front();
        }
    }
}
