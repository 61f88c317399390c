//! The thread that writes hard state.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use quorate_protocol::core::HardState;
use quorate_protocol::types::Generation;

use super::file::HardStateFile;
use super::slot::NodeHardState;

/// Writes hard state on a thread named `hardstate`. At most one change waits: a newer one
/// supersedes it, and its completion stands for both.
#[derive(Debug)]
pub struct HardStateWriter {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<Option<HardStateFile>>>>,
}

/// What the writer calls, on its own thread. Neither may block.
#[derive(Clone)]
pub struct HardStateHooks {
    /// The core's part with this number, and all lower ones, are durable.
    pub saved: Arc<dyn Fn(u64) + Send + Sync>,
    /// A write or sync failed; nothing may be revealed any more and the process must end.
    pub fatal: Arc<dyn Fn(&HardStateFault) + Send + Sync>,
}

impl std::fmt::Debug for HardStateHooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HardStateHooks").finish_non_exhaustive()
    }
}

/// The hard state could not be written.
#[derive(Debug, thiserror::Error)]
#[error("hard state: {0}")]
pub struct HardStateFault(#[from] io::Error);

#[derive(Debug)]
struct Shared {
    state: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Debug)]
struct Pending {
    /// What is to be written; kept current even while nothing waits.
    next: NodeHardState,
    /// The highest number that `next` stands for.
    id: u64,
    waiting: bool,
    writing: bool,
    stopped: bool,
    failed: bool,
}

impl HardStateWriter {
    /// Starts the thread with slots that were loaded, and written for this boot.
    ///
    /// # Errors
    /// If the system can't start a thread.
    pub fn start(file: HardStateFile, hooks: HardStateHooks) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(Pending {
                next: file.state(),
                id: 0,
                waiting: false,
                writing: false,
                stopped: false,
                failed: false,
            }),
            changed: Condvar::new(),
        });
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("hardstate".to_owned())
            .spawn(move || run(file, &for_thread, &hooks))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Has the core's part written; `HardStateHooks::saved` follows with this or a higher number,
    /// unless the writer fails or is stopped. Never blocks. Numbers rise.
    pub fn save(&self, id: u64, core: HardState) {
        self.change(|pending| {
            // A recorded failure outlives what the core, which doesn't know of it, asks for.
            let memory_loss = core.memory_loss || pending.next.io_error;
            pending.next.core = HardState { memory_loss, ..core };
            pending.id = id;
        });
    }

    /// Has a generation written (S12), and waits for it.
    ///
    /// Returns whether it is durable; `false` if the deadline passed or the writer has ended.
    #[must_use]
    pub fn save_generation(&self, generation: Generation, deadline: Duration) -> bool {
        self.change(|pending| pending.next.generation = generation);
        self.wait(deadline)
    }

    /// Records that this life ends by a failed write or sync, and that entries which were
    /// acknowledged from memory may be lost (S5). Best effort: where the mark can't be stored
    /// either, the next boot finds no proof that they are still there and concludes the same.
    pub fn note_io_error(&self, deadline: Duration) -> bool {
        self.change(|pending| {
            pending.next.core.memory_loss = true;
            pending.next.io_error = true;
        });
        self.wait(deadline)
    }

    /// What was last asked to be written.
    #[must_use]
    pub fn latest(&self) -> NodeHardState {
        self.shared.state.lock().next
    }

    /// Writes what waits and ends the thread. With `clean`, writes the clean mark last: only
    /// after intake has stopped and the journal is synced. Returns whether all is durable.
    #[must_use]
    pub fn stop(&self, clean: bool) -> bool {
        self.shared.state.lock().stopped = true;
        self.shared.changed.notify_all();
        let thread = self.thread.lock().take();
        let file = thread.and_then(|thread| thread.join().ok().flatten());
        match file {
            Some(mut file) if clean => {
                let state = NodeHardState { clean: true, ..file.state() };
                file.write(state).is_ok()
            }
            Some(_) => true,
            None => false,
        }
    }

    fn change(&self, change: impl FnOnce(&mut Pending)) {
        let mut pending = self.shared.state.lock();
        change(&mut pending);
        pending.waiting = true;
        drop(pending);
        self.shared.changed.notify_all();
    }

    fn wait(&self, deadline: Duration) -> bool {
        let deadline = Instant::now() + deadline;
        let mut pending = self.shared.state.lock();
        while (pending.waiting || pending.writing) && !pending.failed {
            if self.shared.changed.wait_until(&mut pending, deadline).timed_out() {
                return false;
            }
        }
        !pending.failed
    }
}

impl Drop for HardStateWriter {
    fn drop(&mut self) {
        self.shared.state.lock().stopped = true;
        self.shared.changed.notify_all();
    }
}

/// Returns the slots, unless they can't be trusted any more.
fn run(mut file: HardStateFile, shared: &Shared, hooks: &HardStateHooks) -> Option<HardStateFile> {
    loop {
        let mut pending = shared.state.lock();
        while !pending.waiting {
            if pending.stopped {
                return Some(file);
            }
            shared.changed.wait(&mut pending);
        }
        let (state, id) = (pending.next, pending.id);
        pending.waiting = false;
        pending.writing = true;
        drop(pending);
        let written = file.write(state);
        let mut pending = shared.state.lock();
        pending.writing = false;
        pending.failed = written.is_err();
        drop(pending);
        shared.changed.notify_all();
        match written {
            Ok(()) => (hooks.saved)(id),
            Err(error) => {
                (hooks.fatal)(&error.into());
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::slot::sample;
    use super::*;
    use crate::storage::scratch::{Scratch, wait};
    use quorate_protocol::types::{Epoch, NodeId};

    fn start(dir: &Scratch) -> (HardStateWriter, Arc<Mutex<Vec<u64>>>) {
        let file = HardStateFile::create(dir.path(), sample()).expect("it is made");
        let saved = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&saved);
        let hooks = HardStateHooks {
            saved: Arc::new(move |id| seen.lock().push(id)),
            fatal: Arc::new(|fault| panic!("{fault}")),
        };
        (HardStateWriter::start(file, hooks).expect("it starts"), saved)
    }

    fn core(epoch: u64) -> HardState {
        HardState { epoch: Epoch(epoch), vote: Some(NodeId(1)), memory_loss: false }
    }

    #[test]
    fn a_state_is_durable_when_its_number_comes_back() {
        let dir = Scratch::new();
        let (writer, saved) = start(&dir);
        for id in 1..=5 {
            writer.save(id, core(10 + id));
            wait("the number", || saved.lock().last() == Some(&id));
            let crashed = dir.crashed();
            let state = HardStateFile::load(crashed.path()).expect("it is there").state();
            assert_eq!(state.core, core(10 + id));
            assert_eq!(state.incarnation, sample().incarnation);
        }
        assert!(writer.stop(false));
    }

    #[test]
    fn a_burst_ends_with_the_last_state_and_rising_numbers() {
        let dir = Scratch::new();
        let (writer, saved) = start(&dir);
        for id in 1..=1000 {
            writer.save(id, core(id));
        }
        wait("the last number", || saved.lock().last() == Some(&1000));
        assert!(saved.lock().is_sorted());
        assert!(writer.stop(true));
        let state = HardStateFile::load(dir.path()).expect("it is there").state();
        assert_eq!((state.core, state.clean), (core(1000), true));
    }

    #[test]
    fn a_failed_life_says_so_at_the_next_start() {
        let dir = Scratch::new();
        let (writer, _saved) = start(&dir);
        writer.save(1, core(3));
        assert!(writer.note_io_error(Duration::from_secs(20)));
        assert!(writer.save_generation(Generation(4), Duration::from_secs(20)));
        assert!(writer.stop(false));
        let state = HardStateFile::load(dir.path()).expect("it is there").state();
        assert!(state.io_error && state.core.memory_loss && !state.clean);
        assert_eq!((state.generation, state.core.epoch), (Generation(4), Epoch(3)));
    }
}
