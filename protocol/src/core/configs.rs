//! The configurations in the log: one in force, and those appended after it (S10).

use std::sync::Arc;

use crate::cluster::ClusterEntry;
use crate::mutants::mutant;
use crate::types::{EntryId, Seq};

/// A cluster entry with its id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// Where it stands in the log.
    pub id: EntryId,
    /// What it says.
    pub entry: Arc<ClusterEntry>,
}

/// Cluster entries by position. Never empty: a node without a configuration has no core.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Configs {
    in_force: Config,
    /// Entries that are not known to be in force, in order. A primary appends one at a time; a
    /// replica may hold more, since it learns of the first only by a commit.
    pending: Vec<Config>,
}

impl Configs {
    /// `entries` as found in state and log, in order; those at or below `committed` are in force.
    #[must_use]
    pub fn new(entries: Vec<(EntryId, Arc<ClusterEntry>)>, committed: Seq) -> Self {
        let mut entries = entries.into_iter().map(|(id, entry)| Config { id, entry });
        let first = entries.next().expect("a formed cluster has a cluster entry");
        let mut configs = Self { in_force: first, pending: Vec::new() };
        for config in entries {
            configs.push(config.id, config.entry);
        }
        configs.bring_in_force(committed);
        configs
    }

    /// The configuration that judges commits.
    #[must_use]
    pub fn in_force(&self) -> &Arc<ClusterEntry> {
        &self.in_force.entry
    }

    /// Where the configuration in force stands.
    #[must_use]
    pub fn in_force_at(&self) -> EntryId {
        self.in_force.id
    }

    /// The configuration that decides membership: the last one appended.
    #[must_use]
    pub fn newest(&self) -> &Arc<ClusterEntry> {
        self.pending.last().map_or(&self.in_force.entry, |config| &config.entry)
    }

    /// The oldest one that is not in force: nothing at or after it commits yet.
    #[must_use]
    pub fn pending(&self) -> Option<&Config> {
        self.pending.first()
    }

    /// Every configuration that a candidate must win under, and a lease must hold under.
    pub fn all(&self) -> impl Iterator<Item = &Arc<ClusterEntry>> {
        let pending = mutant!(ConfigAtCommit, &[][..], &self.pending[..]);
        std::iter::once(&self.in_force).chain(pending).map(|config| &config.entry)
    }

    /// A cluster entry was appended. One of a higher generation is in force at once: it is an
    /// operator's act that no election could confirm (S12).
    pub fn push(&mut self, id: EntryId, entry: Arc<ClusterEntry>) {
        let recovery = entry.generation > self.newest().generation;
        self.pending.push(Config { id, entry });
        if recovery {
            self.bring_in_force(id.seq);
        }
    }

    /// Entries from `from` on were cut. What is in force can't be among them: no later primary
    /// lacks it.
    pub fn truncate(&mut self, from: Seq) {
        assert!(self.in_force.id.seq < from, "the configuration in force is cut at {from}");
        mutant!(KeepCutConfig, (), self.pending.retain(|config| config.id.seq < from));
    }

    /// What stands at or before `through` is in force, as everything committed is.
    pub fn bring_in_force(&mut self, through: Seq) {
        let count = self.pending.partition_point(|config| config.id.seq <= through);
        if let Some(last) = self.pending.drain(..count).next_back() {
            self.in_force = last;
        }
    }

    /// A snapshot through `through`, with this configuration, replaced the log up to there; the
    /// log now ends at `last`. One that is in force already and stays in the log stays so.
    pub fn install(&mut self, config: (EntryId, Arc<ClusterEntry>), through: Seq, last: Seq) {
        let (id, entry) = config;
        if self.in_force.id.seq <= through {
            self.in_force = Config { id, entry };
        }
        self.pending.retain(|config| config.id.seq > through && config.id.seq <= last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Member, MemberKind, SafetyTimers};
    use crate::policy::Policy;
    use crate::types::{ClusterId, DiskId, Epoch, Generation, NodeId};

    fn config(seq: u64, generation: u64) -> (EntryId, Arc<ClusterEntry>) {
        let member = Member {
            node: NodeId(1),
            disk: DiskId(1),
            kind: MemberKind::Voter,
            peer_addr: String::new(),
            client_addr: String::new(),
            plain_addr: String::new(),
        };
        let entry = ClusterEntry {
            cluster: ClusterId(1),
            generation: Generation(generation),
            // Tells one from another.
            version: seq as u32,
            members: vec![member],
            policy: Policy::LOCAL,
            timers: SafetyTimers::LAN,
            removed: Vec::new(),
            tokens: Vec::new(),
        };
        (EntryId::new(Epoch(1), Seq(seq)), Arc::new(entry))
    }

    fn all(configs: &Configs) -> Vec<u32> {
        configs.all().map(|entry| entry.version).collect()
    }

    #[test]
    fn a_snapshot_does_not_put_out_of_force_what_stays_in_the_log() {
        // In force at 8, although only 5 is committed; 12 is pending.
        let mut configs = Configs::new(vec![config(1, 0), config(8, 0), config(12, 0)], Seq(5));
        configs.bring_in_force(Seq(8));
        let mut kept = configs.clone();
        kept.install(config(1, 0), Seq(7), Seq(20));
        assert_eq!(all(&kept), [8, 12]);
        let mut replaced = configs.clone();
        replaced.install(config(9, 0), Seq(10), Seq(20));
        assert_eq!(all(&replaced), [9, 12]);
        configs.install(config(9, 0), Seq(15), Seq(15));
        assert_eq!(all(&configs), [9]);
    }

    #[test]
    fn a_higher_generation_is_in_force_at_once() {
        let found = vec![config(1, 0), config(4, 0), config(6, 1), config(9, 1)];
        let configs = Configs::new(found, Seq(1));
        assert_eq!(all(&configs), [6, 9]);
        assert_eq!(configs.in_force_at().seq, Seq(6));
    }
}
