//! One cluster at a time: on two cores, two clusters would make each other's elections.

use std::fs::{File, OpenOptions};

use nix::fcntl::{Flock, FlockArg};

use super::files::target_dir;

/// Held while a cluster runs. Tests in other threads and other processes wait for it.
#[derive(Debug)]
pub struct ClusterLock {
    _file: Flock<File>,
}

impl ClusterLock {
    /// Waits for all clusters of this target directory to be gone.
    ///
    /// # Panics
    ///
    /// If the lock file can't be made or locked.
    #[must_use]
    pub fn acquire() -> Self {
        let path = target_dir().join("cluster-tests.lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
        let file = Flock::lock(file, FlockArg::LockExclusive)
            .unwrap_or_else(|(_, error)| panic!("lock {}: {error}", path.display()));
        Self { _file: file }
    }
}
