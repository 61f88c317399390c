//! Reading entries out of a stream of bytes, as it arrives.

use bytes::{Buf, BytesMut};

use super::frame::{PAYLOAD_BYTES_MAX, RECORD_HEADER_BYTES, RecordFault, RecordHeader};
use crate::entry::Entry;

/// A bad record, and where it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record at byte {offset}: {fault}")]
pub struct RecordError {
    /// Bytes from the start of the stream or file to the record's first byte.
    pub offset: u64,
    /// What is wrong with it.
    pub fault: RecordFault,
}

/// Takes whole entries off the front of a buffer that somebody else fills. Nothing is allocated
/// for a length that a header merely claims: the caller reads what arrives, and
/// [`EntryDecoder::missing`] says how much more would complete the next entry.
///
/// After an error the stream is useless: nothing says where the next record starts.
#[derive(Debug)]
pub struct EntryDecoder {
    payload_bytes_max: u32,
    offset: u64,
    header: Option<RecordHeader>,
}

impl EntryDecoder {
    /// Refuses payloads above `payload_bytes_max` bytes (and above [`PAYLOAD_BYTES_MAX`]).
    #[must_use]
    pub fn new(payload_bytes_max: usize) -> Self {
        let payload_bytes_max = payload_bytes_max.min(PAYLOAD_BYTES_MAX) as u32;
        Self { payload_bytes_max, offset: 0, header: None }
    }

    /// The next entry, or `None` until `buffer` holds all of it. Its payload shares the buffer's
    /// memory. Header, length and both checksums are verified; the chain is the caller's part.
    ///
    /// # Errors
    /// A [`RecordError`] with the offset of the bad record.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Entry>, RecordError> {
        let header = match self.header {
            Some(header) => header,
            None => match self.decode_header(buffer)? {
                Some(header) => *self.header.insert(header),
                None => return Ok(None),
            },
        };
        if buffer.len() < header.payload_len as usize {
            return Ok(None);
        }
        let payload = buffer.split_to(header.payload_len as usize).freeze();
        let entry = Entry::from_parts(&header, payload).map_err(|fault| self.error(fault))?;
        self.header = None;
        self.offset += header.record_bytes();
        Ok(Some(entry))
    }

    /// Bytes that must be added to `buffer` before [`EntryDecoder::decode`] can get any further.
    #[must_use]
    pub fn missing(&self, buffer: &BytesMut) -> usize {
        let wanted = self.header.map_or(RECORD_HEADER_BYTES, |h| h.payload_len as usize);
        wanted.saturating_sub(buffer.len())
    }

    /// Whether the stream may end here: no record was begun and left unfinished.
    #[must_use]
    pub fn is_between_records(&self, buffer: &BytesMut) -> bool {
        self.header.is_none() && buffer.is_empty()
    }

    fn decode_header(&self, buffer: &mut BytesMut) -> Result<Option<RecordHeader>, RecordError> {
        let Some(bytes) = buffer.first_chunk::<RECORD_HEADER_BYTES>() else {
            return Ok(None);
        };
        let header = RecordHeader::decode(bytes).map_err(|fault| self.error(fault))?;
        if header.payload_len > self.payload_bytes_max {
            let limit = self.payload_bytes_max;
            return Err(self.error(RecordFault::TooLong { found: header.payload_len, limit }));
        }
        buffer.advance(RECORD_HEADER_BYTES);
        Ok(Some(header))
    }

    fn error(&self, fault: RecordFault) -> RecordError {
        RecordError { offset: self.offset, fault }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    use crate::types::{Chain, ClusterTime, EntryId, EntryKind, Epoch, Seq};

    fn log(payloads: &[Vec<u8>]) -> Vec<Entry> {
        let mut chain = Chain(0);
        (1u64..)
            .zip(payloads)
            .map(|(seq, payload)| {
                let id = EntryId::new(Epoch(1), Seq(seq));
                let payload = Bytes::copy_from_slice(payload);
                let entry = Entry::seal(id, EntryKind::Commands, ClusterTime(seq), chain, payload);
                chain = entry.chain;
                entry
            })
            .collect()
    }

    fn bytes_of(entries: &[Entry]) -> Vec<u8> {
        entries
            .iter()
            .flat_map(|e| e.header().encode().into_iter().chain(e.payload.iter().copied()))
            .collect()
    }

    fn decode_in_chunks(bytes: &[u8], chunk: usize) -> Result<Vec<Entry>, RecordError> {
        let (mut decoder, mut buffer) = (EntryDecoder::new(1 << 20), BytesMut::new());
        let mut entries = Vec::new();
        for part in bytes.chunks(chunk.max(1)) {
            buffer.extend_from_slice(part);
            while let Some(entry) = decoder.decode(&mut buffer)? {
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    #[test]
    fn an_error_names_the_offset_of_its_record() {
        let entries = log(&[vec![1; 10], vec![2; 10]]);
        let mut bytes = bytes_of(&entries);
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let error = decode_in_chunks(&bytes, 1000).expect_err("the second payload is damaged");
        assert_eq!(error, RecordError { offset: 74, fault: RecordFault::PayloadChecksum });
    }

    #[test]
    fn a_claimed_length_above_the_limit_is_refused_before_its_bytes_arrive() {
        let bytes = bytes_of(&log(&[vec![0; 100]]));
        let mut buffer = BytesMut::from(&bytes[..RECORD_HEADER_BYTES]);
        let error = EntryDecoder::new(99).decode(&mut buffer).expect_err("100 is above 99");
        assert_eq!(error.fault, RecordFault::TooLong { found: 100, limit: 99 });
    }

    #[test]
    fn missing_counts_down_to_the_next_step() {
        let bytes = bytes_of(&log(&[vec![0; 100]]));
        let (mut decoder, mut buffer) = (EntryDecoder::new(100), BytesMut::new());
        assert_eq!(decoder.missing(&buffer), 64);
        assert!(decoder.is_between_records(&buffer));
        buffer.extend_from_slice(&bytes[..70]);
        assert_eq!(decoder.decode(&mut buffer), Ok(None));
        assert_eq!(decoder.missing(&buffer), 94);
        assert!(!decoder.is_between_records(&buffer));
    }

    proptest! {
        #[test]
        fn entries_survive_any_chunking(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8),
            chunk in 1..300usize,
        ) {
            let entries = log(&payloads);
            prop_assert_eq!(decode_in_chunks(&bytes_of(&entries), chunk), Ok(entries));
        }

        #[test]
        fn a_flipped_bit_is_found_or_cuts_the_stream(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..5),
            at: prop::sample::Index,
            bit in 0..8u8,
        ) {
            let mut bytes = bytes_of(&log(&payloads));
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode_in_chunks(&bytes, 4096).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, chunk in 1..64usize) {
            let _ = decode_in_chunks(&bytes, chunk);
        }
    }
}
