//! The newest entries of the log in memory: what senders and the apply loop read without touching
//! the disk.

use std::collections::VecDeque;

use parking_lot::Mutex;
use quorate_protocol::entry::Entry;
use quorate_protocol::record::RECORD_HEADER_BYTES;
use quorate_protocol::types::Seq;

/// A contiguous run of the newest entries, bounded in bytes. Shared by reference: the quorum actor
/// pushes and cuts, everyone else only reads.
///
/// An entry leaves only after the journal wrote it, so that whatever is not in here can be read
/// there. Until then the bound may be exceeded; admission bounds what waits for the journal.
#[derive(Debug)]
pub struct LogCache {
    inner: Mutex<Inner>,
    bytes_max: usize,
}

#[derive(Debug)]
struct Inner {
    /// Contiguous by seq.
    entries: VecDeque<Entry>,
    /// Record bytes of `entries`.
    bytes: usize,
    /// The journal holds everything through this position.
    written: Seq,
}

/// Bytes that an entry takes as a record, in the journal and on the wire.
#[must_use]
pub fn record_bytes(entry: &Entry) -> usize {
    RECORD_HEADER_BYTES + entry.payload.len()
}

impl LogCache {
    /// Empty; keeps about `bytes_max` record bytes of entries that the journal has written.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let inner = Inner { entries: VecDeque::new(), bytes: 0, written: Seq::ZERO };
        Self { inner: Mutex::new(inner), bytes_max }
    }

    /// Appends the log's new last entry.
    ///
    /// # Panics
    /// If it doesn't follow the cached entries: what was cut must be cut here first.
    pub fn push(&self, entry: Entry) {
        let mut inner = self.inner.lock();
        if let Some(last) = inner.entries.back() {
            assert_eq!(last.id.seq.next(), entry.id.seq, "the cached log has no gaps");
        }
        inner.bytes += record_bytes(&entry);
        inner.entries.push_back(entry);
        inner.evict(self.bytes_max);
    }

    /// The journal's `write(2)` returned for everything through `seq`, so older entries may be
    /// evicted.
    pub fn set_written(&self, seq: Seq) {
        let mut inner = self.inner.lock();
        inner.written = inner.written.max(seq);
        inner.evict(self.bytes_max);
    }

    /// Forgets the entries from `first` on: they are being cut from the log (S8). Entries that
    /// follow them in the log must be pushed again.
    pub fn truncate_from(&self, first: Seq) {
        let mut inner = self.inner.lock();
        while inner.entries.back().is_some_and(|entry| entry.id.seq >= first) {
            if let Some(entry) = inner.entries.pop_back() {
                inner.bytes -= record_bytes(&entry);
            }
        }
        inner.written = inner.written.min(first.prev());
    }

    /// Forgets what the journal holds, to free memory. Returns how many bytes that were.
    pub fn drop_written(&self) -> usize {
        let mut inner = self.inner.lock();
        let before = inner.bytes;
        inner.evict(0);
        let freed = before - inner.bytes;
        inner.entries.shrink_to_fit();
        freed
    }

    /// Forgets everything, as after the log was replaced by a snapshot.
    pub fn clear(&self) {
        let mut inner = self.inner.lock();
        inner.entries.clear();
        inner.bytes = 0;
        inner.written = Seq::ZERO;
    }

    /// Entries from `first` on, contiguous: as many as fit into `bytes_max` record bytes, but at
    /// least one. `None` where `first` isn't cached (evicted, or above the last entry).
    #[must_use]
    pub fn range(&self, first: Seq, bytes_max: usize) -> Option<Vec<Entry>> {
        let inner = self.inner.lock();
        let start = inner.index_of(first)?;
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in inner.entries.range(start..) {
            bytes += record_bytes(entry);
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Some(entries)
    }

    /// The entry at `seq`, if it is cached.
    #[must_use]
    pub fn entry(&self, seq: Seq) -> Option<Entry> {
        let inner = self.inner.lock();
        let index = inner.index_of(seq)?;
        inner.entries.get(index).cloned()
    }

    /// Record bytes held now.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.inner.lock().bytes
    }

    /// First and last cached position.
    #[must_use]
    pub fn bounds(&self) -> Option<(Seq, Seq)> {
        let inner = self.inner.lock();
        Some((inner.entries.front()?.id.seq, inner.entries.back()?.id.seq))
    }
}

impl Inner {
    fn index_of(&self, seq: Seq) -> Option<usize> {
        let first = self.entries.front()?.id.seq;
        let index = usize::try_from(seq.0.checked_sub(first.0)?).ok()?;
        (index < self.entries.len()).then_some(index)
    }

    /// Drops the oldest entries beyond the bound, as far as the journal holds them.
    fn evict(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max
            && self.entries.front().is_some_and(|entry| entry.id.seq <= self.written)
        {
            if let Some(entry) = self.entries.pop_front() {
                self.bytes -= record_bytes(&entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_protocol::types::{Chain, ClusterTime, EntryId, EntryKind, Epoch};

    use super::*;

    const PAYLOAD: usize = 36;
    const RECORD: usize = RECORD_HEADER_BYTES + PAYLOAD;

    fn entry(epoch: u64, seq: u64) -> Entry {
        Entry {
            id: EntryId::new(Epoch(epoch), Seq(seq)),
            kind: EntryKind::Commands,
            time: ClusterTime(seq),
            chain: Chain(0),
            payload_crc: 0,
            payload: Bytes::from_static(&[0; PAYLOAD]),
        }
    }

    fn seqs(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.id.seq.0).collect()
    }

    #[test]
    fn range_is_contiguous_bounded_and_holds_at_least_one() {
        let cache = LogCache::new(10 * RECORD);
        (5..=9).for_each(|seq| cache.push(entry(1, seq)));
        assert_eq!(seqs(&cache.range(Seq(6), 2 * RECORD).unwrap()), [6, 7]);
        assert_eq!(seqs(&cache.range(Seq(6), 1).unwrap()), [6]);
        assert_eq!(seqs(&cache.range(Seq(8), usize::MAX).unwrap()), [8, 9]);
        assert_eq!(cache.range(Seq(4), 1000), None);
        assert_eq!(cache.range(Seq(10), 1000), None);
        assert_eq!(cache.bounds(), Some((Seq(5), Seq(9))));
    }

    #[test]
    fn an_entry_leaves_only_after_the_journal_wrote_it() {
        let cache = LogCache::new(2 * RECORD);
        (1..=4).for_each(|seq| cache.push(entry(1, seq)));
        assert_eq!(cache.bytes(), 4 * RECORD);
        cache.set_written(Seq(1));
        assert_eq!(cache.bounds(), Some((Seq(2), Seq(4))));
        cache.set_written(Seq(4));
        assert_eq!(cache.bounds(), Some((Seq(3), Seq(4))));
        assert_eq!(cache.bytes(), 2 * RECORD);
    }

    #[test]
    fn a_cut_tail_is_replaced_and_its_writes_no_longer_count() {
        let cache = LogCache::new(RECORD);
        (1..=4).for_each(|seq| cache.push(entry(1, seq)));
        cache.set_written(Seq(2));
        cache.truncate_from(Seq(3));
        (3..=5).for_each(|seq| cache.push(entry(2, seq)));
        // 3..5 of the new branch are not written: they stay although the bound is exceeded.
        assert_eq!(cache.bounds(), Some((Seq(3), Seq(5))));
        assert_eq!(cache.entry(Seq(3)).unwrap().id.epoch, Epoch(2));
        cache.truncate_from(Seq(1));
        assert_eq!(cache.bounds(), None);
        assert_eq!(cache.bytes(), 0);
    }
}
