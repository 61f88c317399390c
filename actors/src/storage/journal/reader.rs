//! Reading entries back, from any thread, while the writer goes on.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use quorate_protocol::entry::Entry;
use quorate_protocol::record::{Frame, RECORD_HEADER_BYTES, RecordFault};
use quorate_protocol::types::{EntryId, Seq};

use super::scan::INDEX_STEP;
use super::table::{Place, Table};

/// Reads entries of the log. Cheap to clone.
///
/// What it returns was written, not necessarily synced. After a truncation an older read may
/// still return entries that were cut; whoever needs the current branch compares ids with the
/// core's.
#[derive(Clone, Debug)]
pub struct JournalReader {
    table: Arc<Table>,
}

/// Why entries can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// They were trimmed: a snapshot is needed.
    #[error("the log starts at {first}")]
    Compacted {
        /// The first position that is still there.
        first: Seq,
    },
    /// The log isn't that long.
    #[error("the log ends at {last}")]
    Ahead {
        /// The last entry there is.
        last: EntryId,
    },
    /// The system couldn't read the file.
    #[error("reading {path}: {source}", path = path.display())]
    Io {
        /// The segment.
        path: PathBuf,
        /// As the system reports it.
        source: io::Error,
    },
    /// The bytes in the file are damaged (S6).
    #[error("{path} is damaged at byte {offset}: {what}", path = path.display())]
    Corrupt {
        /// The segment.
        path: PathBuf,
        /// Where the bad record starts.
        offset: u64,
        /// What is wrong with it.
        what: String,
    },
}

impl JournalReader {
    pub(super) fn new(table: Arc<Table>) -> Self {
        Self { table }
    }

    /// The first position that can be read; one behind the last where the log is empty.
    #[must_use]
    pub fn first(&self) -> Seq {
        self.table.bounds().first
    }

    /// The last entry that was written.
    #[must_use]
    pub fn last(&self) -> EntryId {
        self.table.bounds().last
    }

    /// For each segment, oldest first: the first position that it can hold, and its bytes.
    #[must_use]
    pub fn sizes(&self) -> Vec<(Seq, u64)> {
        self.table.sizes()
    }

    /// Entries from `first` on, in order and without gaps: at least one, and as many as fit into
    /// `bytes_max` bytes of records within one segment. Checksums are verified.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(&self, first: Seq, bytes_max: usize) -> Result<Vec<Entry>, ReadError> {
        let bounds = self.table.bounds();
        if first < bounds.first {
            return Err(ReadError::Compacted { first: bounds.first });
        }
        if first > bounds.last.seq {
            return Err(ReadError::Ahead { last: bounds.last });
        }
        // Between the two looks at the table the segment may have been trimmed or cut.
        let Some(place) = self.table.place(first) else {
            return Err(ReadError::Compacted { first: self.first() });
        };
        let entries = Walk { place, first, bytes_max, entries: Vec::new() }.run()?;
        if entries.is_empty() {
            return Err(ReadError::Ahead { last: self.last() });
        }
        Ok(entries)
    }
}

struct Walk {
    place: Place,
    first: Seq,
    bytes_max: usize,
    entries: Vec<Entry>,
}

impl Walk {
    fn run(mut self) -> Result<Vec<Entry>, ReadError> {
        let mut bytes_left = self.bytes_max;
        // The wanted entry may lie a step of the index behind the place.
        let mut want = self.bytes_max.saturating_add(INDEX_STEP as usize);
        while self.place.offset < self.place.end {
            let chunk = self.chunk(want)?;
            let (used, missing) = self.take_from(&chunk, &mut bytes_left)?;
            self.place.offset += used as u64;
            let Some(missing) = missing else { break };
            if used == 0 && missing <= chunk.len() {
                break;
            }
            if used == 0 && self.place.offset + chunk.len() as u64 == self.place.end {
                // Asking for more would go on for ever.
                return Err(ReadError::Corrupt {
                    path: self.place.path,
                    offset: self.place.offset,
                    what: "a record ends beyond what was written".to_owned(),
                });
            }
            want = missing.max(self.bytes_max);
        }
        Ok(self.entries)
    }

    /// Takes whole frames off the front of a chunk. Returns the bytes used and, if there is more
    /// to do, how many bytes the next frame needs.
    fn take_from(
        &mut self,
        chunk: &Bytes,
        bytes_left: &mut usize,
    ) -> Result<(usize, Option<usize>), ReadError> {
        let mut at = 0;
        loop {
            let Some(head) = chunk[at..].first_chunk::<RECORD_HEADER_BYTES>() else {
                return Ok((at, Some(RECORD_HEADER_BYTES)));
            };
            let header = match Frame::decode(head).map_err(|fault| self.corrupt(at, fault))? {
                Frame::Entry(header) => header,
                Frame::SyncMark(_) => {
                    at += RECORD_HEADER_BYTES;
                    continue;
                }
                Frame::Trailer(_) => return Ok((at, None)),
            };
            if self.place.next.is_some_and(|next| header.id.seq >= next) {
                return Ok((at, None));
            }
            let size = RECORD_HEADER_BYTES + header.payload_len as usize;
            if header.id.seq >= self.first {
                if size > *bytes_left && !self.entries.is_empty() {
                    return Ok((at, None));
                }
                if chunk.len() - at < size {
                    return Ok((at, Some(size)));
                }
                let payload = chunk.slice(at + RECORD_HEADER_BYTES..at + size);
                let entry =
                    Entry::from_parts(&header, payload).map_err(|fault| self.corrupt(at, fault))?;
                *bytes_left = bytes_left.saturating_sub(size);
                self.entries.push(entry);
            } else if chunk.len() - at < size {
                return Ok((at, Some(size)));
            }
            at += size;
        }
    }

    fn chunk(&self, want: usize) -> Result<Bytes, ReadError> {
        let left = usize::try_from(self.place.end - self.place.offset).unwrap_or(usize::MAX);
        let mut bytes = vec![0; want.min(left)];
        self.place
            .file
            .read_exact_at(&mut bytes, self.place.offset)
            .map_err(|source| ReadError::Io { path: self.place.path.clone(), source })?;
        Ok(bytes.into())
    }

    fn corrupt(&self, at: usize, fault: RecordFault) -> ReadError {
        ReadError::Corrupt {
            path: self.place.path.clone(),
            offset: self.place.offset + at as u64,
            what: fault.to_string(),
        }
    }
}
