//! Archived segments: the journal's format, in one piece, with the same bytes whichever node made
//! them.

use bytes::Bytes;
use quorate_protocol::entry::Entry;
use quorate_protocol::record::{
    Frame, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentTrailer,
};
use quorate_protocol::types::{Chain, ClusterId, EntryId, Generation};

/// A segment that is being put together.
pub(super) struct SegmentBuilder {
    header: SegmentHeader,
    bytes: Vec<u8>,
    last: EntryId,
    chain: Chain,
    count: u64,
}

impl SegmentBuilder {
    /// Begins one behind this entry.
    pub(super) fn new(
        origin: (ClusterId, Generation),
        preceding: EntryId,
        preceding_chain: Chain,
    ) -> Self {
        // Not random: two nodes that archive the same entries must write the same bytes. Here the
        // nonce needn't keep clients from forging marks, as nothing is recovered by marks.
        let nonce = (preceding_chain.0 as u64) ^ preceding.seq.0;
        let header = SegmentHeader {
            cluster: origin.0,
            generation: origin.1,
            nonce,
            base: false,
            preceding,
            preceding_chain,
        };
        let bytes = header.encode().to_vec();
        Self { header, bytes, last: preceding, chain: preceding_chain, count: 0 }
    }

    /// Adds the next entry.
    pub(super) fn push(&mut self, entry: &Entry) {
        self.bytes.extend_from_slice(&entry.header().encode());
        self.bytes.extend_from_slice(&entry.payload);
        (self.last, self.chain) = (entry.id, entry.chain);
        self.count += 1;
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Entries so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The whole file.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let trailer = SegmentTrailer {
            nonce: self.header.nonce,
            last: self.last,
            count: self.count,
            chain: self.chain,
        };
        self.bytes.extend_from_slice(&trailer.encode());
        self.bytes
    }
}

/// Reads a whole segment: its header, and every entry handed to `each` in order, with checksums,
/// positions and chain verified. Says what is wrong.
pub(super) fn read_segment<E: From<String>>(
    bytes: &Bytes,
    mut each: impl FnMut(Entry) -> Result<(), E>,
) -> Result<SegmentHeader, E> {
    let wrong = |at: usize, what: &dyn std::fmt::Display| E::from(format!("byte {at}: {what}"));
    let header = SegmentHeader::decode(bytes).map_err(|fault| wrong(0, &fault))?;
    let (mut last, mut chain, mut count) = (header.preceding, header.preceding_chain, 0);
    let mut at = SEGMENT_HEADER_BYTES;
    loop {
        let frame = bytes.get(at..at + RECORD_HEADER_BYTES).and_then(|frame| frame.try_into().ok());
        let frame: &[u8; RECORD_HEADER_BYTES] =
            frame.ok_or_else(|| wrong(at, &"it ends before its trailer"))?;
        let record = match Frame::decode(frame).map_err(|fault| wrong(at, &fault))? {
            Frame::Entry(record) => record,
            Frame::SyncMark(_) => return Err(wrong(at, &"a mark where none is written")),
            Frame::Trailer(trailer) => {
                let expected = SegmentTrailer { nonce: header.nonce, last, count, chain };
                if trailer != expected || bytes.len() != at + RECORD_HEADER_BYTES {
                    return Err(wrong(at, &"the trailer doesn't fit to what stands before it"));
                }
                return Ok(header);
            }
        };
        let from = at + RECORD_HEADER_BYTES;
        let end = from + record.payload_len as usize;
        if end > bytes.len() {
            return Err(wrong(at, &"a record ends beyond the file"));
        }
        let entry = Entry::from_parts(&record, bytes.slice(from..end));
        let entry = entry.map_err(|fault| wrong(at, &fault))?;
        if entry.id.seq != last.seq.next() || entry.id.epoch < last.epoch || !entry.follows(chain) {
            let id = entry.id;
            return Err(wrong(at, &format!("entry {id} doesn't continue entry {last}")));
        }
        (last, chain) = (entry.id, entry.chain);
        count += 1;
        at = end;
        each(entry)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_protocol::types::{ClusterTime, EntryKind, Epoch, Seq};

    fn segment(entries: u64) -> (Vec<u8>, Vec<Entry>) {
        let preceding = EntryId::new(Epoch(2), Seq(7));
        let mut chain = Chain(9);
        let origin = (ClusterId(5), Generation(1));
        let mut builder = SegmentBuilder::new(origin, preceding, chain);
        let mut all = Vec::new();
        for n in 1..=entries {
            let id = EntryId::new(Epoch(2 + n / 3), Seq(7 + n));
            let payload = Bytes::from(vec![n as u8; n as usize]);
            let entry = Entry::seal(id, EntryKind::Commands, ClusterTime(n), chain, payload);
            chain = entry.chain;
            builder.push(&entry);
            all.push(entry);
        }
        (builder.finish(), all)
    }

    fn read(bytes: Vec<u8>) -> Result<Vec<Entry>, String> {
        let mut entries = Vec::new();
        read_segment::<String>(&bytes.into(), |entry| {
            entries.push(entry);
            Ok(())
        })
        .map(|_| entries)
    }

    #[test]
    fn what_is_written_is_read_and_the_journal_s_own_tool_reads_it_too() {
        let (bytes, entries) = segment(9);
        assert_eq!(read(bytes.clone()), Ok(entries));
        assert_eq!(segment(9).0, bytes, "the same entries make the same bytes");
        let dir = crate::storage::scratch::Scratch::new();
        let path = dir.path().join("00000000000000000008-00000000000000000016.qj");
        std::fs::write(&path, bytes).expect("written");
        let verified = crate::storage::journal::verify(&path).expect("readable");
        assert!(verified.faults.is_empty(), "{:?}", verified.faults);
        assert_eq!((verified.entries, verified.last.seq), (9, Seq(16)));
    }

    #[test]
    fn every_flipped_bit_and_every_missing_byte_is_found() {
        let (bytes, _) = segment(5);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            assert!(read(flipped).is_err(), "byte {at}");
            assert!(read(bytes[..at].to_vec()).is_err(), "cut at {at}");
        }
        assert!(read([&bytes[..], &[0]].concat()).is_err(), "a byte too many");
    }
}
