//! Lossy recovery (S12): an operator's act, for when no election is safe any more.
//!
//! The survivor continues alone, in a new generation. Whatever other nodes hold beyond its log is
//! given up; nodes of the old generation are refused for ever and keep their logs as they are.

use std::sync::Arc;

use super::state::Boot;
use crate::cluster::{ClusterEntry, MemberKind};
use crate::policy::{Policy, PolicyError};
use crate::types::{EntryId, Epoch, NodeId};

/// Epochs of one generation, as a power of two: an election a millisecond for fifty days.
const GENERATION_BITS: u32 = 32;

/// The id of the entry that begins a new generation behind `last`, on a node that took part in epoch
/// `known`.
///
/// Nodes that are lost may have been far ahead in epochs, and an entry's id must not name another one
/// of theirs: the new generation begins beyond any epoch that they can have reached by elections.
#[must_use]
pub fn first_of_generation(known: Epoch, last: EntryId) -> EntryId {
    let known = known.max(last.epoch);
    let epoch = Epoch(((known.0 >> GENERATION_BITS) + 1) << GENERATION_BITS);
    EntryId::new(epoch, last.seq.next())
}

impl Boot {
    /// The survivor's log and hard state after a lossy recovery: one more entry, which makes this
    /// node the only member, under a higher generation, with `policy`. The caller syncs entry and
    /// hard state, on an installation that is stopped, before the node starts.
    ///
    /// Everything in the survivor's log stays, committed or not: what may have been acknowledged
    /// is never dropped here.
    ///
    /// # Errors
    /// `policy` can't be met by one voter.
    pub fn recover(&mut self, policy: Policy) -> Result<(EntryId, Arc<ClusterEntry>), PolicyError> {
        policy.check(1)?;
        // The survivor may be about to be removed by an entry that no one else holds.
        let own = self.configs.iter().rev().find(|(_, entry)| entry.member(self.node).is_some());
        let (_, newest) = own.expect("a node's log names it as a member");
        let mut entry = ClusterEntry::clone(newest);
        let gone: Vec<NodeId> = entry.members.iter().map(|member| member.node).collect();
        entry.removed.extend(gone.into_iter().filter(|node| *node != self.node));
        entry.removed.sort_unstable();
        entry.removed.dedup();
        entry.members.retain(|member| member.node == self.node);
        for member in &mut entry.members {
            member.kind = MemberKind::Voter;
            member.disk = self.disk;
        }
        entry.policy = policy;
        entry.generation.0 += 1;
        entry.removed.retain(|node| *node != self.node);

        let id = first_of_generation(self.hard.epoch, self.log.last());
        let epoch = id.epoch;
        self.log.push(id);
        self.log.on_persisted(self.log.branch(), id);
        self.hard.epoch = epoch;
        self.hard.vote = Some(self.node);
        self.hard.memory_loss = false;
        let entry = Arc::new(entry);
        self.configs.push((id, entry.clone()));
        Ok((id, entry))
    }
}
