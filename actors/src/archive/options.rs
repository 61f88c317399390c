//! What may be asked of a backup.

/// What is asked of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// Whether the state is copied too.
    pub state: WithState,
    /// Whether the content is hashed then, so that a restore can be compared with it.
    pub hash: bool,
    /// Bytes after which a segment ends.
    pub segment_bytes_max: usize,
    /// Whether it keeps to the configured rate, and waits for the configured copies at its end.
    pub paced: bool,
}

/// When a run copies the state. The first run of an archive and one that found a gap do it anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithState {
    /// It does.
    Yes,
    /// Where the archive's newest snapshot is older than configured.
    IfDue,
    /// It doesn't.
    No,
}

impl Default for RunOptions {
    /// Everything, in segments of 32 MiB.
    fn default() -> Self {
        Self { state: WithState::Yes, hash: true, segment_bytes_max: 32 << 20, paced: true }
    }
}
