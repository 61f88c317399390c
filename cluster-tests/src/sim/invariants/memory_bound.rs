use quorate_protocol::core::Tuning;
use quorate_protocol::core::message::Message;

use super::Invariant;
use crate::sim::clients::{UNWRITTEN_MAX, WAITING_MAX};
use crate::sim::ledger::{Fact, View};
use crate::sim::node::Process;

/// The shortest record.
const RECORD_BYTES_MIN: u64 = 64;
/// Sessions that a peer may begin while a journal stands still.
const SESSIONS_MAX: u64 = 8;
/// Entries that an operator and a new tenure add.
const OTHERS_MAX: u64 = 50;

/// What a node keeps for others is bounded, whatever disks, networks and clients do: batches that
/// wait, reads that wait, bytes on their way to a peer, entries that wait for the journal.
///
/// Why by counts and not by bytes where it can be: sizes are bounded where things are read.
pub(super) struct MemoryBound {
    /// Bytes that may be on their way to one peer.
    window_bytes: u64,
    /// Reads that may wait for a round.
    reads_max: usize,
}

impl Invariant for MemoryBound {
    fn name(&self) -> &'static str {
        "MemoryBound"
    }

    fn check(&mut self, view: View<'_>, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Sent { from, message: Message::Append(append), .. } => {
                let bytes: u64 = append.entries.iter().map(|entry| u64::from(entry.bytes)).sum();
                if bytes > self.window_bytes && append.entries.len() > 1 {
                    return Err(format!("node {} sends {bytes} bytes at once", from + 1));
                }
                Ok(())
            }
            Fact::Stepped => {
                for (index, node) in view.nodes.iter().enumerate() {
                    if let Some(process) = &node.process {
                        let written = node.disk.journal.cached.last().seq.0;
                        let last = process.log.last().seq.0;
                        self.judge(process, last.saturating_sub(written))
                            .map_err(|what| format!("node {}: {what}", index + 1))?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl MemoryBound {
    /// For nodes of this tuning.
    pub(super) fn of(tuning: Tuning) -> Self {
        Self { window_bytes: tuning.window_bytes, reads_max: tuning.reads_max }
    }

    fn judge(&self, process: &Process, unwritten: u64) -> Result<(), String> {
        let front = &process.front;
        if front.waiting.len() > WAITING_MAX {
            return Err(format!("{} batches wait", front.waiting.len()));
        }
        if front.asked_count() > self.reads_max {
            return Err(format!("{} reads wait for a round", front.asked_count()));
        }
        // A journal that stands still keeps no primary from sealing what may wait for it, and no
        // peer from sending a window in each session.
        let sealed_max = UNWRITTEN_MAX + OTHERS_MAX;
        let received_max = SESSIONS_MAX * (self.window_bytes / RECORD_BYTES_MIN + 1);
        if unwritten > sealed_max + received_max {
            return Err(format!("{unwritten} entries wait for the journal"));
        }
        Ok(())
    }
}
