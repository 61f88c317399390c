//! A node's life as anyone may read it at any time: its phase, the steps of its start, and when.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::phase::{Phase, PhaseCell};

/// The steps of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColdStep {
    /// The state on disk is opened; a lost one is set aside.
    Restore,
    /// Journal and hard state are read, and the journal's tail is proven.
    JournalReplay,
    /// A snapshot was fetched and put in force, in the life before this one.
    SnapshotInstall,
    /// What was found is made durable, threads are started, listeners bound.
    WarmUp,
}

impl ColdStep {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Restore, Self::JournalReplay, Self::SnapshotInstall, Self::WarmUp];

    /// Its name in figures.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Restore => "restore",
            Self::JournalReplay => "journal_replay",
            Self::SnapshotInstall => "snapshot_install",
            Self::WarmUp => "warm_up",
        }
    }

    /// Why a node in this step isn't ready.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Restore => "restore",
            Self::JournalReplay => "journal_recovery",
            Self::SnapshotInstall => "snapshot_install",
            Self::WarmUp => "initial_checkpoint",
        }
    }
}

/// Where a node is in its life, and how it got there. Exists before anything is recovered.
#[derive(Debug)]
pub struct Lifecycle {
    phase: PhaseCell,
    started: Instant,
    started_at: SystemTime,
    /// When the phase became [`Phase::Ready`].
    ready: OnceLock<(Instant, SystemTime)>,
    /// The step under way, and since when.
    step: Mutex<Option<(ColdStep, Instant)>>,
    took: [OnceLock<Duration>; ColdStep::ALL.len()],
}

impl Default for Lifecycle {
    /// A process that starts now.
    fn default() -> Self {
        Self {
            phase: PhaseCell::default(),
            started: Instant::now(),
            started_at: SystemTime::now(),
            ready: OnceLock::new(),
            step: Mutex::default(),
            took: Default::default(),
        }
    }
}

impl Lifecycle {
    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// How long the process has been running.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// When the process started.
    #[must_use]
    pub fn started_at(&self) -> SystemTime {
        self.started_at
    }

    /// When local recovery was done and all listeners were bound.
    #[must_use]
    pub fn ready_at(&self) -> Option<SystemTime> {
        self.ready.get().map(|(_, at)| *at)
    }

    /// Why a node that starts isn't ready yet; `None` once it has started.
    #[must_use]
    pub fn starting(&self) -> Option<&'static str> {
        let starts = self.phase() == Phase::Starting;
        starts.then(|| self.step.lock().map_or("starting", |(step, _)| step.reason()))
    }

    /// How long a step took; `None` where it isn't finished, or wasn't needed. Never changes once
    /// it is set.
    #[must_use]
    pub fn took(&self, step: ColdStep) -> Option<Duration> {
        self.took[step as usize].get().copied()
    }

    /// How long the whole start took, a snapshot that it began from included.
    #[must_use]
    pub fn total(&self) -> Option<Duration> {
        let (ready, _) = self.ready.get()?;
        let installed = self.took(ColdStep::SnapshotInstall).unwrap_or_default();
        Some(installed + ready.duration_since(self.started))
    }

    /// The start enters its next step, which ends the one before.
    pub fn begin(&self, step: ColdStep) {
        let mut running = self.step.lock();
        self.finish(running.replace((step, Instant::now())));
    }

    /// The state that this life begins with is a snapshot; fetching and installing it took so long.
    pub fn snapshot_installed(&self, took: Duration) {
        let _ = self.took[ColdStep::SnapshotInstall as usize].set(took);
    }

    /// Enters a phase; one that lies behind is ignored.
    pub(super) fn enter(&self, phase: Phase) {
        if phase == Phase::Ready && self.phase() == Phase::Starting {
            self.finish(self.step.lock().take());
            let _ = self.ready.set((Instant::now(), SystemTime::now()));
        }
        self.phase.advance(phase);
    }

    /// A step is measured once: what is set already stays.
    fn finish(&self, ran: Option<(ColdStep, Instant)>) {
        if let Some((step, since)) = ran {
            let _ = self.took[step as usize].set(since.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_of_a_start_is_measured_once_and_gives_the_reason_meanwhile() {
        let life = Lifecycle::default();
        assert_eq!(life.starting(), Some("starting"));
        life.begin(ColdStep::JournalReplay);
        assert_eq!(life.starting(), Some("journal_recovery"));
        assert_eq!(life.took(ColdStep::JournalReplay), None, "it is under way");
        life.begin(ColdStep::Restore);
        let journal = life.took(ColdStep::JournalReplay).expect("it is done");
        life.begin(ColdStep::JournalReplay);
        life.begin(ColdStep::WarmUp);
        assert_eq!(life.took(ColdStep::JournalReplay), Some(journal), "set once");
        assert_eq!(life.starting(), Some("initial_checkpoint"));
        assert_eq!((life.total(), life.ready_at()), (None, None));
        life.enter(Phase::Ready);
        let (total, ready) = (life.total().expect("started"), life.ready_at());
        assert!(total >= journal && life.took(ColdStep::WarmUp).is_some() && ready.is_some());
        assert_eq!(life.starting(), None);
        life.enter(Phase::Draining);
        life.enter(Phase::Ready);
        assert_eq!(
            (life.phase(), life.total(), life.ready_at()),
            (Phase::Draining, Some(total), ready)
        );
        assert_eq!(life.took(ColdStep::SnapshotInstall), None, "none was needed");
    }

    #[test]
    fn a_start_from_a_snapshot_includes_its_way_here() {
        let life = Lifecycle::default();
        life.snapshot_installed(Duration::from_secs(40));
        life.enter(Phase::Ready);
        assert_eq!(life.took(ColdStep::SnapshotInstall), Some(Duration::from_secs(40)));
        assert!(life.total().is_some_and(|total| total >= Duration::from_secs(40)));
    }
}
