use quorate_protocol::core::message::Message;
use quorate_protocol::types::Seq;

use super::Invariant;
use crate::sim::disk::{Disk, Recovered};
use crate::sim::ledger::{Fact, View};
use crate::sim::random::Random;

/// An acknowledgement claims no more than the sender's memory and disk hold of the primary's
/// log: were its power cut now, what it called persisted would be there, and were its process
/// killed, what it called in memory. Of some acknowledgements that is tried on a copy of the disk.
#[derive(Default)]
pub(super) struct AckedIsReal {
    acknowledgements: u64,
}

/// Of so many acknowledgements one is tried on a copy of the disk.
const TRIED_EVERY: u64 = 16;

impl Invariant for AckedIsReal {
    fn name(&self) -> &'static str {
        "AckedIsReal"
    }

    fn check(&mut self, view: View<'_>, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Sent { from, message: Message::AppendAck(ack), .. } = fact else {
            return Ok(());
        };
        let node = &view.nodes[*from];
        let Some(process) = &node.process else {
            return Ok(());
        };
        // One that waited for the hard state may speak of a log that is gone since; no primary
        // of a later epoch reads it.
        if ack.epoch != process.core.epoch() {
            return Ok(());
        }
        let journal = &node.disk.journal;
        let Some(tenure) = view.ledger.tenures.get(&ack.epoch) else {
            // Whoever wins that epoch later has what is committed, such as what a snapshot brought.
            let kept = process.log.at(ack.verified);
            return if ack.verified <= process.log.preceding().seq
                || kept.is_some() && kept == view.ledger.committed_at(ack.verified)
            {
                Ok(())
            } else {
                Err(format!("node {} acknowledges to a primary that never was", from + 1))
            };
        };
        let same = |seq: Seq| {
            seq <= process.log.preceding().seq
                || seq <= tenure.log.preceding().seq
                || process.log.at(seq).is_some() && process.log.at(seq) == tenure.log.at(seq)
        };
        let written = |seq: Seq| {
            seq <= journal.cached.preceding().seq
                || journal.cached.at(seq).is_some() && journal.cached.at(seq) == process.log.at(seq)
        };
        let name = from + 1;
        if !same(ack.verified) {
            return Err(format!("node {name} calls verified what differs: {ack:?}"));
        }
        if ack.in_memory > ack.verified || !written(ack.in_memory) {
            return Err(format!("node {name} has not written what it acknowledges: {ack:?}"));
        }
        if ack.persisted > ack.in_memory || ack.persisted > journal.synced() {
            return Err(format!(
                "node {name} has synced through {} and acknowledges {ack:?}",
                journal.synced()
            ));
        }
        if ack.incarnation != node.disk.incarnation {
            return Err(format!("node {name} acknowledges in a life it does not have: {ack:?}"));
        }
        self.acknowledgements += 1;
        if !self.acknowledgements.is_multiple_of(TRIED_EVERY) || node.disk.is_damaged() {
            return Ok(());
        }
        let holds = |disk: &Disk, seq: Seq| {
            seq <= disk.flushed.seq
                || seq <= tenure.log.preceding().seq
                || disk.journal.cached.at(seq) == tenure.log.at(seq)
        };
        let mut random = Random::new(self.acknowledgements);
        let mut disk = node.disk.clone();
        process.journal.clone().crash(&mut disk, &mut random);
        if !holds(&disk, ack.in_memory) {
            return Err(format!("node {name}, if killed, lacks what it acknowledges: {ack:?}"));
        }
        disk.journal.cut_power(&mut random);
        if disk.journal.recover() == Recovered::Damaged || !holds(&disk, ack.persisted) {
            return Err(format!("node {name}, without power, lacks what it acknowledges: {ack:?}"));
        }
        Ok(())
    }
}
