//! Snapshots: fetched from a primary, switched to by the journal's thread.

use quorate_protocol::core::{Event, Snapshot, SnapshotRefused};
use quorate_protocol::mutants::Mutant;
use quorate_protocol::types::{ClusterTime, Seq};

use super::fault::Fault;
use super::state::State;
use super::world::{Action, World};

impl World {
    /// What a node's state would be as a snapshot now.
    pub(super) fn snapshot_of(&self, node: usize) -> Option<Snapshot> {
        let machine = &self.nodes[node];
        let process = machine.process.as_ref()?;
        let ahead = u64::from(Mutant::SnapshotHeaderPlusOne.is_active());
        let last = process.log.at(Seq(process.applied.0 + ahead))?;
        let held = process.log.range(process.log.preceding().seq, last.seq);
        let newer = held.iter().rev().find_map(|id| {
            let cluster = self.ledger.clusters.get(id)?;
            Some((*id, cluster.clone()))
        });
        let config = newer.unwrap_or_else(|| machine.disk.config.clone());
        let epoch = process.core.epoch();
        Some(Snapshot { last, epoch, config, time: ClusterTime(0) })
    }

    /// What a snapshot that a node just made really holds.
    pub(super) fn content_of(&self, node: usize) -> State {
        self.nodes[node].process.as_ref().expect("makes a snapshot").state.clone()
    }

    pub(super) fn start_fetching(&mut self, node: usize, from: usize, above: Seq) {
        let process = self.nodes[node].process.as_mut().expect("runs");
        if std::mem::replace(&mut process.fetching, true) {
            return;
        }
        let delay_us = self.random.latency(5_000);
        let life = self.nodes[node].life;
        self.after(delay_us, Action::Fetch { node, life, from, above });
    }

    /// The source makes the snapshot, and its files take their time.
    pub(super) fn fetch(&mut self, node: usize, from: usize, above: Seq) {
        let reachable = self.network.is_open_both_ways(from, node)
            && self.nodes[from].paused_until_us <= self.now_us;
        let snapshot = self.snapshot_of(from).filter(|s| reachable && s.last.seq >= above);
        let Some(snapshot) = snapshot else {
            self.outcome.mark("snapshot not fetched");
            self.nodes[node].process.as_mut().expect("lives").fetching = false;
            return;
        };
        let content = self.content_of(from);
        let mean_us = if self.random.percent(30) { 400_000 } else { 40_000 };
        let delay_us = self.random.latency(mean_us);
        let life = self.nodes[node].life;
        if self.plan.strength(Fault::Replay) > 0 && self.random.percent(30) {
            // A second, older download comes to its end late.
            let (snapshot, content) = (snapshot.clone(), content.clone());
            self.after(delay_us * 10, Action::Fetched { node, life, snapshot, content });
        }
        self.after(delay_us, Action::Fetched { node, life, snapshot, content });
    }

    pub(super) fn fetched(&mut self, node: usize, snapshot: Snapshot, content: State) {
        self.nodes[node].process.as_mut().expect("lives").fetched = content;
        self.step(node, Event::SnapshotFetched { snapshot });
    }

    pub(super) fn start_installing(&mut self, node: usize, snapshot: Snapshot, keep_suffix: bool) {
        if keep_suffix {
            self.outcome.mark("snapshot with a log that continues it");
        }
        let process = self.nodes[node].process.as_mut().expect("runs");
        process.fetching = false;
        // A primary of an earlier epoch may lack what the snapshot holds.
        let epochs = (process.core.epoch(), snapshot.epoch);
        process.journal.install(snapshot, process.fetched.clone(), keep_suffix);
        self.journal_starts(node);
        if epochs.0 < epochs.1 {
            let what = format!(
                "node {} stays in epoch {} with a snapshot of epoch {}",
                node + 1,
                epochs.0,
                epochs.1
            );
            self.fail("SnapshotEpoch", what);
        }
        let crashes = self.plan.strength(Fault::Kill) + self.plan.strength(Fault::PowerCut);
        if crashes > 0 && !self.calm && self.random.percent(20) {
            self.outcome.mark("crash during an install");
            let power = self.plan.strength(Fault::PowerCut) > 0;
            let after_us = self.random.below(20 * self.plan.sync_us);
            self.after(after_us, Action::Crash { node, power });
        }
    }

    pub(super) fn on_snapshot_refused(&mut self, node: usize, reason: SnapshotRefused) {
        self.nodes[node].process.as_mut().expect("runs").fetching = false;
        match reason {
            SnapshotRefused::Older { .. } => self.outcome.mark("snapshot refused: older"),
            SnapshotRefused::Busy => self.outcome.mark("snapshot refused: busy"),
            SnapshotRefused::Primary => self.outcome.mark("snapshot refused: primary"),
            SnapshotRefused::Foreign => self.outcome.mark("snapshot refused: foreign"),
            SnapshotRefused::Conflicting { .. } | SnapshotRefused::Malformed => {
                self.fail("SnapshotsAgree", format!("node {}: {reason}", node + 1));
            }
        }
    }
}
