//! The one latch of a node: readers and the apply loop raise errors, the monitor samples, and
//! admission asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use quorate_protocol::types::MonoTime;

use super::disk::{DiskGate, DiskLook, DiskOptions};
use super::latch::{Input, Latch, LatchOptions, Severity, Transition, step};
use super::memory::{MemoryGate, MemoryLook};
use crate::storage::state::StateError;
use crate::submit::Refusal;

/// A node's health. Cheap to ask, from any thread.
pub struct Health {
    /// Every change is made and published under this lock, so that an error that comes in during
    /// a sample can't be lost.
    judged: Mutex<Judged>,
    view: ArcSwap<HealthView>,
    latch_options: Mutex<LatchOptions>,
    disk_options: DiskOptions,
    started: Instant,
}

/// What is published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthView {
    /// Why writes are refused; `None` while the node is healthy.
    pub unhealthy: Option<String>,
    /// What of the state can't be read back, once that was found.
    pub loss: Option<String>,
    /// Whether writes that need space are refused.
    pub disk_full: bool,
    /// The last look at the disk.
    pub disk: DiskLook,
    /// Bytes that must stay free there.
    pub disk_min_free_bytes: u64,
    /// How often writes began to be refused for lack of space.
    pub disk_full_count: u64,
    /// Whether writes that need memory are refused.
    pub memory_full: bool,
    /// Memory at the last look.
    pub memory: MemoryLook,
    /// How often memory was given back.
    pub shrunk_count: u64,
    /// Bytes that the process gave back then.
    pub freed_bytes: u64,
    /// Errors of foreground operations so far.
    pub foreground_errors: u64,
    /// RocksDB's background errors at the last sample.
    pub background_errors: u64,
    /// Files of cut tails at the last sample.
    pub divergent_files: u64,
    /// How long the journal's system call had been running at the last sample.
    pub journal_stall: Duration,
    /// How often the latch closed.
    pub latched_count: u64,
}

/// What the monitor found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) background_errors: u64,
    pub(crate) divergent_files: u64,
    pub(crate) journal_stall: Duration,
}

#[derive(Debug, Default)]
struct Judged {
    latch: Latch,
    gate: DiskGate,
    memory: MemoryGate,
    view: HealthView,
}

impl Health {
    /// Healthy until told otherwise.
    #[must_use]
    pub fn new(latch_options: LatchOptions, disk_options: DiskOptions) -> Arc<Self> {
        Arc::new(Self {
            judged: Mutex::default(),
            view: ArcSwap::default(),
            latch_options: Mutex::new(latch_options),
            disk_options,
            started: Instant::now(),
        })
    }

    /// From the next look on the latch closes and opens by these.
    pub fn set_latch_options(&self, options: LatchOptions) {
        *self.latch_options.lock() = options;
    }

    /// What is known now.
    #[must_use]
    pub fn view(&self) -> Arc<HealthView> {
        self.view.load_full()
    }

    /// Whether the latch refuses writes.
    #[must_use]
    pub fn is_unhealthy(&self) -> bool {
        self.view.load().unhealthy.is_some()
    }

    /// Why a write must be refused now, before it is sealed. `frees_space` for writes that only
    /// remove: they stay possible on a full disk, and while memory is short.
    #[must_use]
    pub fn refusal(&self, frees_space: bool) -> Option<Refusal> {
        let view = self.view.load();
        if let Some(reason) = &view.unhealthy {
            return Some(Refusal::Unhealthy(reason.clone()));
        }
        let refusal = match (view.disk_full, view.memory_full) {
            (true, _) => Refusal::DiskFull,
            (false, true) => Refusal::OutOfMemory,
            (false, false) => return None,
        };
        (!frees_space).then_some(refusal)
    }

    /// An access to the state failed.
    pub fn report(&self, error: &StateError) {
        let severity = if error.is_damage() { Severity::Damage } else { Severity::Soft };
        if error.is_loss() {
            self.judged.lock().view.loss.get_or_insert_with(|| error.to_string());
        }
        self.raise(severity, error.to_string());
    }

    /// Something failed that doesn't put the data in doubt, such as a deadline that was spent
    /// wholly in backpressure.
    pub fn report_soft(&self, what: impl Into<String>) {
        self.raise(Severity::Soft, what.into());
    }

    pub(crate) fn sampled(&self, sample: Sample) {
        let mut judged = self.judged.lock();
        judged.view.journal_stall = sample.journal_stall;
        judged.view.background_errors = sample.background_errors;
        judged.view.divergent_files = sample.divergent_files;
        let input = Input::Sample { background_errors: sample.background_errors };
        self.advance(&mut judged, &input);
    }

    /// Whether this node may be asked to lead: it takes writes, and has room for some time.
    pub(crate) fn may_lead(&self) -> bool {
        let judged = self.judged.lock();
        let view = &judged.view;
        let roomy = self.disk_options.is_comfortable(&view.disk);
        view.unhealthy.is_none() && !view.disk_full && !view.memory_full && roomy
    }

    /// Judges a look at the disk, at so many background errors of RocksDB, and returns the gate.
    pub(crate) fn looked_at_disk(&self, look: &DiskLook, background_errors: u64) -> DiskGate {
        let mut judged = self.judged.lock();
        let gate = judged.gate.step(look, &self.disk_options);
        let min_free_bytes = self.disk_options.min_free_bytes(&look.space);
        if gate != judged.gate {
            let available_bytes = look.available_bytes();
            let (free_inodes, unflushed_bytes) = (look.space.free_inodes, look.unflushed_bytes);
            if gate.is_full() {
                judged.view.disk_full_count += 1;
                tracing::warn!(
                    available_bytes,
                    min_free_bytes,
                    free_inodes,
                    unflushed_bytes,
                    "the disk is nearly full: writes that need space are refused"
                );
            } else {
                tracing::info!(available_bytes, min_free_bytes, free_inodes, "the disk has space");
            }
        }
        judged.gate = gate;
        judged.view.disk = *look;
        judged.view.disk_min_free_bytes = min_free_bytes;
        judged.view.disk_full = gate.is_full();
        self.advance(&mut judged, &Input::Disk { full: gate.is_full(), background_errors });
        gate
    }

    /// Judges a look at memory.
    pub(crate) fn looked_at_memory(&self, look: MemoryLook) {
        let mut judged = self.judged.lock();
        let gate = judged.memory.step(&look);
        if gate != judged.memory {
            let MemoryLook { used_bytes, budget_bytes } = look;
            if gate.is_full() {
                tracing::warn!(used_bytes, budget_bytes, "memory runs out: writes are refused");
            } else {
                tracing::info!(used_bytes, budget_bytes, "there is memory again: writes are taken");
            }
        }
        judged.memory = gate;
        judged.view.memory = look;
        judged.view.memory_full = gate.is_full();
        self.publish(&judged);
    }

    /// Memory was given back, and the process has so much less of it.
    pub(crate) fn shrunk(&self, freed_bytes: u64) {
        let mut judged = self.judged.lock();
        judged.view.shrunk_count += 1;
        judged.view.freed_bytes += freed_bytes;
        self.publish(&judged);
    }

    fn raise(&self, severity: Severity, what: String) {
        self.advance(&mut self.judged.lock(), &Input::Error { severity, what });
    }

    fn advance(&self, judged: &mut Judged, input: &Input) {
        let now = MonoTime(self.started.elapsed().as_micros() as u64);
        let latch = std::mem::take(&mut judged.latch);
        let options = *self.latch_options.lock();
        let (latch, transitions) = step(latch, input, now, &options);
        judged.latch = latch;
        for transition in transitions {
            match transition {
                Transition::Latched { reason } => {
                    judged.view.latched_count += 1;
                    tracing::error!(reason, "the node is unhealthy: writes are refused");
                }
                Transition::Unlatched => tracing::info!("the node is healthy again"),
                Transition::Grew { which, from, to } => {
                    tracing::warn!(which, from, to, "storage errors");
                }
            }
        }
        judged.view.unhealthy = judged.latch.reason().map(str::to_owned);
        judged.view.foreground_errors = judged.latch.foreground_errors();
        self.publish(judged);
    }

    fn publish(&self, judged: &Judged) {
        if **self.view.load() != judged.view {
            self.view.store(Arc::new(judged.view.clone()));
        }
    }
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").field("view", &self.view()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Space;

    fn look(free_bytes: u64) -> DiskLook {
        let space = Space { free_bytes, total_bytes: 1000, ..Space::default() };
        DiskLook { space, ..DiskLook::default() }
    }

    #[test]
    fn damage_refuses_writes_at_once_and_names_the_key() {
        let health = Health::new(LatchOptions::default(), DiskOptions::default());
        assert_eq!(health.refusal(false), None);
        health.report(&StateError::BadRecord { record: "epochs" });
        let Some(Refusal::Unhealthy(reason)) = health.refusal(true) else {
            panic!("it must refuse");
        };
        assert!(reason.contains("epochs"), "{reason}");
        assert_eq!(health.view().latched_count, 1);
    }

    #[test]
    fn a_full_disk_refuses_what_needs_space_until_there_is_some() {
        let health = Health::new(LatchOptions::default(), DiskOptions::default());
        assert!(health.looked_at_disk(&look(99), 0).is_full());
        assert_eq!(health.refusal(false), Some(Refusal::DiskFull));
        assert_eq!(health.refusal(true), None);
        assert!(!health.looked_at_disk(&look(500), 0).is_full());
        assert_eq!(health.refusal(false), None);
        assert_eq!(health.view().disk_full_count, 1);
    }

    #[test]
    fn writes_are_refused_at_the_limit_of_memory_but_deletes() {
        let health = Health::new(LatchOptions::default(), DiskOptions::default());
        let look = |used_bytes| MemoryLook { used_bytes, budget_bytes: 1_000 };
        health.looked_at_memory(look(900));
        assert_eq!(health.refusal(false), Some(Refusal::OutOfMemory));
        assert_eq!(health.refusal(true), None);
        health.looked_at_memory(look(100));
        assert_eq!(health.refusal(false), None);
        health.shrunk(70);
        let view = health.view();
        assert_eq!((view.memory.used_bytes, view.shrunk_count, view.freed_bytes), (100, 1, 70));
    }

    #[test]
    fn soft_errors_alone_refuse_nothing_at_once() {
        let health = Health::new(LatchOptions::default(), DiskOptions::default());
        health.report_soft("a deadline was spent in backpressure");
        assert_eq!(health.refusal(false), None);
        assert_eq!(health.view().foreground_errors, 1);
    }
}
