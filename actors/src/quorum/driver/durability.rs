//! Sessions that ask for more than the cluster's policy: how far theirs is met.

use quorate_protocol::policy::{Evaluation, Policy};
use quorate_protocol::types::{EntryId, MonoTime, Seq};

use super::super::ports::Fatal;
use super::Driver;
use crate::submit::{GateInput, Waiting};

/// A session policy that sealed entries wait for. There are as many as policies over the voters
/// can differ, at most.
#[derive(Debug)]
pub(super) struct Further {
    policy: Policy,
    /// The last entry that waits for it.
    last: Seq,
    /// How far the gate was told.
    through: Seq,
}

impl Driver {
    /// Batches of this entry are about to wait.
    pub(super) fn note_durability(&mut self, id: EntryId, waiting: &[Waiting]) {
        for policy in waiting.iter().filter_map(|batch| batch.durability) {
            match self.further.iter_mut().find(|further| further.policy == policy) {
                Some(further) => further.last = id.seq,
                None => {
                    let through = id.seq.prev();
                    self.further.push(Further { policy, last: id.seq, through });
                }
            }
        }
    }

    /// After each event that may have moved a cursor: tells the gate what is met now. What the
    /// cluster's policy isn't met for isn't met for a session's either.
    pub(super) fn tell_durable(&mut self, now: MonoTime) -> Result<(), Fatal> {
        if self.further.is_empty() {
            return Ok(());
        }
        let (epoch, acknowledgeable) = (self.core.epoch(), self.core.acknowledgeable());
        let mut further = std::mem::take(&mut self.further);
        for one in &mut further {
            let Some(Evaluation::Met { position, .. }) = self.core.judge(now, &one.policy) else {
                continue;
            };
            let through = position.min(acknowledgeable);
            if through > one.through {
                one.through = through;
                let (policy, own) = (one.policy, self.ports.node);
                let met = self.crossing.met(&self.core, own, now, policy, through);
                self.ports.gate(GateInput::Durable { policy, epoch, through, met })?;
            }
        }
        further.retain(|one| one.through < one.last);
        self.further = further;
        Ok(())
    }
}
