//! What waits is sealed, kept, or refused by rule.

use std::time::Instant;

use quorate_protocol::core::{Event, Refused};
use quorate_protocol::policy::Evaluation;
use quorate_protocol::types::MonoTime;

use super::super::ports::Fatal;
use super::super::sealing::{refuse, refuse_expired, refuse_unmet};
use super::Driver;
use crate::submit::Refusal;

/// Entries that may be sealed and not yet committed before further batches wait for each other:
/// what is sealed later shares the next sync anyway, and fewer, larger entries cost less.
const UNCOMMITTED_ENTRIES_MAX: u64 = 4;

/// Entries that the state may lag behind the commit position before new work is refused.
const APPLY_LAG_MAX: u64 = 1 << 14;

/// How often an entry is sealed only to remove expired keys.
const EXPIRY_PERIOD_US: u64 = 100_000;

impl Driver {
    /// Seals what waits, or refuses it by rule.
    pub(super) fn seal_waiting(&mut self, now: MonoTime) -> Result<(), Fatal> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        refuse_expired(&mut self.waiting, Instant::now());
        if self.keeps_waiting(now) {
            return Ok(());
        }
        if let Some(refusal) = self.refusal(now) {
            refuse(std::mem::take(&mut self.waiting), &refusal);
            return Ok(());
        }
        let core = &self.core;
        refuse_unmet(&mut self.waiting, |policy| match core.judge(now, policy)? {
            Evaluation::Degraded(unmet) => Some(unmet),
            Evaluation::Met { .. } => None,
        });
        while !self.waiting.is_empty() && self.may_seal() {
            self.step(now, Event::Propose { time: self.time() }, Vec::new())?;
        }
        Ok(())
    }

    /// Whether batches wait for what comes of a change of leadership. It has just begun here; or it
    /// is about to go, or has gone to a primary that was not heard yet: they are then sent there or,
    /// if it came to nothing, sealed here.
    fn keeps_waiting(&self, now: MonoTime) -> bool {
        match self.core.admits(now) {
            Err(Refused::Starting | Refused::HandingOver(_)) => true,
            Err(Refused::NotPrimary) => self.core.primary().is_none() && now < self.parked_until,
            Err(Refused::Degraded(_)) | Ok(()) => false,
        }
    }

    /// Expired keys leave with the entries that are applied. Where no client writes, the primary
    /// seals one without commands, so that they leave all the same.
    pub(super) fn expire_idle(&mut self, now: MonoTime) -> Result<(), Fatal> {
        let idle = self.was_primary
            && self.waiting.is_empty()
            && self.core.log().last().seq == self.published.applied();
        let due = now >= self.expiry_due && self.published.next_expiry_ms() < self.time().0;
        if !idle || !due || self.refusal(now).is_some() {
            return Ok(());
        }
        self.expiry_due = now.plus(EXPIRY_PERIOD_US);
        self.step(now, Event::Propose { time: self.time() }, Vec::new())
    }

    fn may_seal(&self) -> bool {
        let uncommitted = self.core.log().last().seq.0 - self.core.committed().0;
        uncommitted < UNCOMMITTED_ENTRIES_MAX && self.ports.journal_has_room()
    }

    fn refusal(&self, now: MonoTime) -> Option<Refusal> {
        match self.core.admits(now) {
            Err(Refused::NotPrimary | Refused::Starting | Refused::HandingOver(_)) => {
                let primary = self.core.primary();
                Some(Refusal::NotPrimary { primary })
            }
            Err(Refused::Degraded(unmet)) => {
                Some(Refusal::NoReplicas { clause: unmet.to_string() })
            }
            Ok(()) if self.drains_alone() => Some(Refusal::Draining),
            Ok(()) => {
                let lag = self.core.committed().0.saturating_sub(self.published.applied().0);
                let overloaded = (lag > APPLY_LAG_MAX).then_some(Refusal::Overloaded);
                // What needs space on a full disk was refused by its connection already.
                self.ports.health.refusal(true).or(overloaded)
            }
        }
    }
}
