//! Where the entries of a log stream come from, and how they are asked for.

use std::sync::Arc;

use quorate_protocol::entry::Entry;
use quorate_protocol::types::Seq;
use quorate_protocol::wire::AppendHeader;

use super::events::Session;
use crate::storage::cache::LogCache;
use crate::storage::journal::{self, JournalReader};

/// Entries of this node's log, for sending. Shared between the consensus thread, which only asks
/// for what is in memory, and blocking threads, which read the journal.
pub trait EntrySource: Send + Sync + 'static {
    /// Contiguous entries from `first` on, as far as they are in memory: as many as fit in
    /// `bytes_max` record bytes, but at least one. `None` where `first` isn't in memory, whether
    /// it is in the journal, not yet written, or trimmed. Never blocks.
    fn cached(&self, first: Seq, bytes_max: usize) -> Option<Vec<Entry>>;

    /// The same from the journal. Blocks. Empty where `first` is above the last entry.
    ///
    /// # Errors
    /// The entries are gone, or can't be read.
    fn read(&self, first: Seq, bytes_max: usize) -> Result<Vec<Entry>, ReadError>;
}

/// Why entries couldn't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The journal starts above the position: the peer needs a snapshot.
    #[error("the journal starts at {start}")]
    Trimmed {
        /// The journal's first entry.
        start: Seq,
    },
    /// The journal can't be read there; whoever owns it decides what that means.
    #[error("the journal can't be read: {0}")]
    Failed(String),
}

/// Asks a peer's sender for one append with entries. At most one is outstanding per peer: the
/// next may follow once `PeerEvent::Sent` or `PeerEvent::Unavailable` arrived.
#[derive(Clone, Copy, Debug)]
pub struct SendEntries {
    /// The session it is meant for; dropped without an answer where that one is over.
    pub session: Session,
    /// The append; its `prev` is the entry directly before `first`.
    pub header: AppendHeader,
    /// The first entry to send.
    pub first: Seq,
    /// Bytes of records to send at most, though always one entry.
    pub bytes_max: usize,
}

/// The node's log: the cache, and the journal for what has left it.
#[derive(Clone, Debug)]
pub struct LogSource {
    /// Newest entries.
    pub cache: Arc<LogCache>,
    /// All that was written and not trimmed.
    pub journal: JournalReader,
}

impl EntrySource for LogSource {
    fn cached(&self, first: Seq, bytes_max: usize) -> Option<Vec<Entry>> {
        self.cache.range(first, bytes_max)
    }

    /// The journal's thread cuts and writes a little later than the log says, so that where the
    /// cache has entries, the journal may still hold the branch that they replaced (S8).
    fn read(&self, first: Seq, bytes_max: usize) -> Result<Vec<Entry>, ReadError> {
        // Before the read: a cut that comes later spares what was committed by now.
        let cached_from = self.cache.bounds().map(|(first, _)| first);
        match self.journal.read(first, bytes_max) {
            Ok(entries) => Ok(below(entries, cached_from)),
            Err(journal::ReadError::Compacted { first }) => {
                Err(ReadError::Trimmed { start: first })
            }
            Err(journal::ReadError::Ahead { .. }) => Ok(Vec::new()),
            Err(error @ (journal::ReadError::Io { .. } | journal::ReadError::Corrupt { .. })) => {
                Err(ReadError::Failed(error.to_string()))
            }
        }
    }
}

/// The entries below `limit`, where there is one.
fn below(mut entries: Vec<Entry>, limit: Option<Seq>) -> Vec<Entry> {
    if let Some(limit) = limit {
        entries.retain(|entry| entry.id.seq < limit);
    }
    entries
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_protocol::types::{Chain, ClusterTime, EntryId, EntryKind, Epoch};

    use super::*;

    fn entry(epoch: u64, seq: u64) -> Entry {
        let id = EntryId::new(Epoch(epoch), Seq(seq));
        Entry::seal(id, EntryKind::Commands, ClusterTime(0), Chain(0), Bytes::new())
    }

    #[test]
    fn a_branch_that_is_being_cut_is_not_read() {
        let cache = LogCache::new(1 << 20);
        // The log was cut at 3; the journal has not done it yet.
        cache.push(entry(5, 3));
        cache.push(entry(5, 4));
        let journal = (1..=4).map(|seq| entry(4, seq)).collect();
        let read = below(journal, cache.bounds().map(|(first, _)| first));
        assert_eq!(read, [entry(4, 1), entry(4, 2)]);
        assert_eq!(below(vec![entry(4, 1)], None), [entry(4, 1)]);
    }
}
