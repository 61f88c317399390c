//! Walking one segment file frame by frame, and judging what stands behind the last good one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use quorate_protocol::record::{
    FRAME_MAGIC, Frame, INDEX_FOOTER_BYTES, IndexFooter, RECORD_HEADER_BYTES, RecordFault,
    RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentIndex, SegmentTrailer, SyncMark,
};
use quorate_protocol::types::{Chain, EntryId, EntryKind, Seq};

const WINDOW_BYTES: usize = 1 << 20;

/// One entry in this many bytes gets a place in the index.
pub(super) const INDEX_STEP: u64 = 64 << 10;

/// What stands at an offset.
#[derive(Debug)]
pub(super) enum Item<'a> {
    Entry(RecordHeader, &'a [u8]),
    Mark(SyncMark),
    Trailer(SegmentTrailer),
    /// Zero bytes, or the end of the file.
    End,
    Bad(ScanFault),
}

/// Why a segment can't be read further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScanFault {
    /// The bytes aren't a frame or the payload is damaged.
    #[error(transparent)]
    Record(#[from] RecordFault),
    /// The payload would go beyond the end of the file.
    #[error("the record goes beyond the end of the file")]
    Beyond,
    /// The entry isn't the one that comes next.
    #[error("entry {found} follows entry {last}")]
    Order {
        /// The entry before.
        last: EntryId,
        /// The one that was found.
        found: EntryId,
    },
    /// The entry's hash doesn't continue the log.
    #[error("the hash chain breaks at entry {0}")]
    Chain(EntryId),
    /// A mark or trailer that doesn't speak of the entries before it.
    #[error("a mark for entry {found} stands behind entry {last}")]
    Mark {
        /// The entry before.
        last: EntryId,
        /// The entry that the mark names.
        found: EntryId,
    },
}

/// Reads a file forward through a window of bounded size.
#[derive(Debug)]
pub(super) struct Scanner<'f> {
    file: &'f File,
    len: u64,
    offset: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'f> Scanner<'f> {
    pub(super) fn new(file: &'f File, offset: u64) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file, len, offset, window: Vec::new(), window_at: offset })
    }

    /// Where the next frame starts.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The frame at the offset. Good frames move the offset behind themselves; after `End` and
    /// `Bad` it stays.
    pub(super) fn next(&mut self) -> io::Result<Item<'_>> {
        let at = self.offset;
        let header = self.bytes(at, RECORD_HEADER_BYTES)?;
        let Some(header) = header.first_chunk::<RECORD_HEADER_BYTES>() else {
            let rest_is_zero = header.iter().all(|b| *b == 0);
            return Ok(if rest_is_zero { Item::End } else { Item::Bad(ScanFault::Beyond) });
        };
        if header.iter().all(|b| *b == 0) {
            return Ok(Item::End);
        }
        let behind = at + RECORD_HEADER_BYTES as u64;
        match Frame::decode(header) {
            Err(fault) => Ok(Item::Bad(fault.into())),
            Ok(Frame::SyncMark(mark)) => {
                self.offset = behind;
                Ok(Item::Mark(mark))
            }
            Ok(Frame::Trailer(trailer)) => {
                self.offset = behind;
                Ok(Item::Trailer(trailer))
            }
            Ok(Frame::Entry(header)) => self.entry(header, behind),
        }
    }

    fn entry(&mut self, header: RecordHeader, behind: u64) -> io::Result<Item<'_>> {
        let end = behind + u64::from(header.payload_len);
        if end > self.len {
            return Ok(Item::Bad(ScanFault::Beyond));
        }
        let intact = {
            let payload = self.bytes(behind, header.payload_len as usize)?;
            payload.len() == header.payload_len as usize
                && crc32c::crc32c(payload) == header.payload_crc
        };
        if !intact {
            return Ok(Item::Bad(RecordFault::PayloadChecksum.into()));
        }
        self.offset = end;
        Ok(Item::Entry(header, self.bytes(behind, header.payload_len as usize)?))
    }

    /// `len` bytes at `at`, or fewer at the end of the file. The caller has checked a length that
    /// comes from the file against the file's size.
    fn bytes(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        let len = len.min(usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX));
        let window_end = self.window_at + self.window.len() as u64;
        if at < self.window_at || at + len as u64 > window_end {
            let left = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX);
            self.window.resize(len.max(WINDOW_BYTES).min(left), 0);
            self.window_at = at;
            let read = read_up_to(self.file, &mut self.window, at)?;
            if read < self.window.len() {
                // A running writer has sealed the file meanwhile and given back unused space.
                self.window.truncate(read);
                self.len = at + read as u64;
            }
        }
        let from = (at - self.window_at) as usize;
        Ok(&self.window[from..self.window.len().min(from + len)])
    }
}

/// Fills the buffer, or as much of it as the file still has.
fn read_up_to(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// What a walk over a segment found.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// The last good entry, or the one before the segment.
    pub(super) last: EntryId,
    pub(super) chain: Chain,
    /// The highest entry that a mark proves to have been synced.
    pub(super) proven: (EntryId, Chain),
    pub(super) count: u64,
    pub(super) marks: u64,
    /// First byte behind the last good frame.
    pub(super) end: u64,
    pub(super) stop: Stop,
    pub(super) index: SegmentIndex,
    /// The payloads of its `Cluster` entries.
    pub(super) clusters: Vec<(EntryId, Bytes)>,
}

/// Why a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// At the entry behind which the next segment goes on.
    Limit,
    /// At the trailer.
    Sealed,
    /// At zero bytes or the end of the file.
    End,
    Bad(ScanFault),
}

/// Walks a segment from its header on, through the entry at `limit` if one is given.
pub(super) fn walk(file: &File, header: &SegmentHeader, limit: Option<Seq>) -> io::Result<Report> {
    let mut scanner = Scanner::new(file, SEGMENT_HEADER_BYTES as u64)?;
    let mut report = Report {
        last: header.preceding,
        chain: header.preceding_chain,
        // A segment is made only after everything before it is synced.
        proven: (header.preceding, header.preceding_chain),
        count: 0,
        marks: 0,
        end: SEGMENT_HEADER_BYTES as u64,
        stop: Stop::End,
        index: SegmentIndex::default(),
        clusters: Vec::new(),
    };
    report.stop = loop {
        if limit.is_some_and(|limit| report.last.seq >= limit) {
            break Stop::Limit;
        }
        let at = scanner.offset();
        let stop = match scanner.next()? {
            Item::End => Some(Stop::End),
            Item::Bad(fault) => Some(Stop::Bad(fault)),
            Item::Entry(entry, payload) => report.take(&entry, payload, at).err(),
            Item::Mark(mark) => report.take_mark(header.nonce, mark).err(),
            Item::Trailer(trailer) => match report.take_trailer(header.nonce, &trailer) {
                Ok(()) => Some(Stop::Sealed),
                Err(stop) => Some(stop),
            },
        };
        match stop {
            None | Some(Stop::Sealed) => report.end = scanner.offset(),
            Some(Stop::End | Stop::Bad(_) | Stop::Limit) => {}
        }
        if let Some(stop) = stop {
            break stop;
        }
    };
    Ok(report)
}

impl Report {
    fn take(&mut self, entry: &RecordHeader, payload: &[u8], at: u64) -> Result<(), Stop> {
        if entry.id.seq != self.last.seq.next() || entry.id.epoch < self.last.epoch {
            let fault = ScanFault::Order { last: self.last, found: entry.id };
            return Err(Stop::Bad(fault));
        }
        if entry.chain_after(self.chain) != entry.chain {
            return Err(Stop::Bad(ScanFault::Chain(entry.id)));
        }
        note(&mut self.index, entry.id, entry.kind, at);
        if entry.kind == EntryKind::Cluster {
            self.clusters.push((entry.id, Bytes::copy_from_slice(payload)));
        }
        self.last = entry.id;
        self.chain = entry.chain;
        self.count += 1;
        Ok(())
    }

    fn take_mark(&mut self, nonce: u64, mark: SyncMark) -> Result<(), Stop> {
        self.check_mark(mark.nonce == nonce, mark.id, mark.chain)?;
        self.marks += 1;
        self.proven = (mark.id, mark.chain);
        Ok(())
    }

    fn take_trailer(&mut self, nonce: u64, trailer: &SegmentTrailer) -> Result<(), Stop> {
        let fits = trailer.nonce == nonce && trailer.count == self.count;
        self.check_mark(fits, trailer.last, trailer.chain)?;
        self.proven = (trailer.last, trailer.chain);
        Ok(())
    }

    /// The writer only ever marks the entry that stands directly before the mark.
    fn check_mark(&self, fits: bool, id: EntryId, chain: Chain) -> Result<(), Stop> {
        if fits && id == self.last && chain == self.chain {
            return Ok(());
        }
        Err(Stop::Bad(ScanFault::Mark { last: self.last, found: id }))
    }
}

/// Adds an entry, whose record starts at `at`, to its segment's index.
pub(super) fn note(index: &mut SegmentIndex, id: EntryId, kind: EntryKind, at: u64) {
    if index.places.last().is_none_or(|(_, indexed)| at - indexed >= INDEX_STEP) {
        index.places.push((id.seq, at));
    }
    if index.epochs.last().is_none_or(|(_, epoch)| *epoch != id.epoch) {
        index.epochs.push((id.seq, id.epoch));
    }
    if kind == EntryKind::Cluster {
        index.clusters.push((id, at));
    }
}

/// What a walk over a sealed segment would report, from its trailer and index. `None` where these
/// aren't whole: then only a walk tells.
pub(super) fn read_sealed(file: &File, header: &SegmentHeader) -> io::Result<Option<Report>> {
    let len = file.metadata()?.len();
    let Some(footer_at) = len.checked_sub(INDEX_FOOTER_BYTES as u64) else { return Ok(None) };
    let mut footer = [0; INDEX_FOOTER_BYTES];
    read_up_to(file, &mut footer, footer_at)?;
    let Some(footer) = IndexFooter::decode(&footer).filter(|f| f.nonce == header.nonce) else {
        return Ok(None);
    };
    let Some(bytes) = footer.content_bytes() else { return Ok(None) };
    let mut content = vec![0; RECORD_HEADER_BYTES + bytes];
    if footer.trailer_at.checked_add(content.len() as u64) != Some(footer_at) {
        return Ok(None);
    }
    read_up_to(file, &mut content, footer.trailer_at)?;
    let (trailer, content) = content.split_first_chunk().expect("it is longer than a frame");
    let Ok(Frame::Trailer(trailer)) = Frame::decode(trailer) else { return Ok(None) };
    let Some(index) = SegmentIndex::decode(&footer, content) else { return Ok(None) };
    let fits = trailer.nonce == header.nonce
        && header.preceding.seq.0.checked_add(trailer.count) == Some(trailer.last.seq.0)
        && index.places.is_sorted();
    if !fits {
        return Ok(None);
    }
    let mut clusters = Vec::with_capacity(index.clusters.len());
    for (id, at) in &index.clusters {
        match Scanner::new(file, *at)?.next()? {
            Item::Entry(found, payload) if found.id == *id => {
                clusters.push((*id, Bytes::copy_from_slice(payload)));
            }
            Item::Entry(..) | Item::Mark(_) | Item::Trailer(_) | Item::End | Item::Bad(_) => {
                return Ok(None);
            }
        }
    }
    Ok(Some(Report {
        last: trailer.last,
        chain: trailer.chain,
        proven: (trailer.last, trailer.chain),
        count: trailer.count,
        marks: 0,
        end: footer.trailer_at + RECORD_HEADER_BYTES as u64,
        stop: Stop::Sealed,
        index,
        clusters,
    }))
}

/// What stands behind the place where a walk ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Remainder {
    /// Whether any byte isn't zero.
    pub(super) used: bool,
    /// The highest entry that a mark of this segment claims to have been synced.
    pub(super) marked: Option<EntryId>,
}

/// Searches every byte from `from` on for marks and trailers of the segment with this nonce.
pub(super) fn remainder(file: &File, from: u64, nonce: u64) -> io::Result<Remainder> {
    let len = file.metadata()?.len();
    let mut found = Remainder::default();
    let mut window = vec![0; WINDOW_BYTES];
    let mut at = from;
    while at < len {
        let size = (len - at).min(WINDOW_BYTES as u64) as usize;
        let read = read_up_to(file, &mut window[..size], at)?;
        let window = &window[..read];
        if window.iter().any(|b| *b != 0) {
            found.used = true;
            search(window, nonce, &mut found);
        }
        if read < size || at + size as u64 == len {
            break;
        }
        // Overlap, so that a frame across the border is seen whole.
        at += (size - RECORD_HEADER_BYTES + 1) as u64;
    }
    Ok(found)
}

fn search(window: &[u8], nonce: u64, found: &mut Remainder) {
    let frames = window.windows(RECORD_HEADER_BYTES).filter(|w| w[..2] == FRAME_MAGIC);
    for bytes in frames {
        let bytes = bytes.first_chunk().expect("windows have this size");
        let marked = match Frame::decode(bytes) {
            Ok(Frame::SyncMark(mark)) if mark.nonce == nonce => mark.id,
            Ok(Frame::Trailer(trailer)) if trailer.nonce == nonce => trailer.last,
            Ok(Frame::SyncMark(_) | Frame::Trailer(_) | Frame::Entry(_)) | Err(_) => continue,
        };
        if found.marked.is_none_or(|known| known.seq < marked.seq) {
            found.marked = Some(marked);
        }
    }
}
