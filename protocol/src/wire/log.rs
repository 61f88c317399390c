//! Log frames: a header (framed as everything else), then records byte for byte as they stand in
//! the journal. Records carry their own checksums.

use std::sync::Arc;

use bincode::{Decode, Encode};
use bytes::BytesMut;

use super::cluster::decode_cluster;
use super::error::WireError;
use super::frame::{FRAME_PREFIX_BYTES, decode_frame, encode_frame};
use crate::core::message::{Append, EntryMeta, RecoverTarget};
use crate::entry::Entry;
use crate::record::{EntryDecoder, PAYLOAD_BYTES_MAX, RECORD_HEADER_BYTES};
use crate::types::{ClusterTime, EntryId, EntryKind, Epoch, Seq};

/// Longest body of a log header.
const HEADER_BODY_BYTES_MAX: usize = 256;

/// Most bytes of records in one log frame: one entry of the largest size that the journal allows
/// must fit, because what one node has stored every node must be able to receive.
pub const LOG_RECORD_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + RECORD_HEADER_BYTES;

/// Most entries in one log frame: bounds what a frame of tiny records costs to take apart.
pub const LOG_ENTRIES_MAX: usize = 64 * 1024;

/// An append without its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AppendHeader {
    /// The primary's epoch.
    pub epoch: Epoch,
    /// The entry before the first one carried.
    pub prev: EntryId,
    /// The primary's commit position.
    pub commit: Seq,
    /// Heartbeat round.
    pub round: u64,
    /// The cluster's time when it was sent.
    pub time: ClusterTime,
    /// Exit condition of a node with memory loss (S5).
    pub recover: Option<RecoverTarget>,
}

impl AppendHeader {
    /// The header of an append.
    #[must_use]
    pub fn of(append: &Append) -> Self {
        let Append { epoch, prev, commit, round, time, recover, entries: _ } = *append;
        Self { epoch, prev, commit, round, time, recover }
    }

    /// The append with these entries.
    #[must_use]
    pub fn into_append(self, entries: Vec<EntryMeta>) -> Append {
        let Self { epoch, prev, commit, round, time, recover } = self;
        Append { epoch, prev, commit, round, time, recover, entries }
    }
}

/// Appends the header of a frame that carries `entries`; the caller sends it, then each entry's
/// record header and payload in order.
///
/// # Errors
/// There are no entries, too many, too many bytes, or they don't follow `append.prev` in order.
/// `out` is then as it was.
pub fn encode_log_header(
    append: &AppendHeader,
    entries: &[Entry],
    out: &mut Vec<u8>,
) -> Result<(), WireError> {
    let mut order = Order::of(append);
    let mut bytes = 0_u64;
    for entry in entries {
        order.admit(entry.id)?;
        bytes += entry.header().record_bytes();
    }
    let header = LogHeader {
        append: *append,
        count: u32::try_from(entries.len()).unwrap_or(u32::MAX),
        bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
    };
    header.check()?;
    encode_frame::<HEADER_BODY_BYTES_MAX>(&header, out)
}

/// What the core knows of an entry.
///
/// # Errors
/// A `Cluster` entry's payload can't be read.
pub fn entry_meta(entry: &Entry) -> Result<EntryMeta, WireError> {
    let cluster = match entry.kind {
        EntryKind::Cluster => Some(Arc::new(decode_cluster(&entry.payload).map_err(|source| {
            WireError::Payload { id: entry.id, kind: entry.kind, source: Box::new(source) }
        })?)),
        EntryKind::Commands | EntryKind::EpochStart | EntryKind::Mark => None,
    };
    let bytes = u32::try_from(entry.header().record_bytes())
        .map_err(|_| WireError::Invalid("a record is longer than its header can say"))?;
    Ok(EntryMeta { id: entry.id, kind: entry.kind, bytes, cluster })
}

/// Takes appends off the front of a buffer that somebody else fills from a log stream. Nothing is
/// allocated for a length that is merely claimed. After an error the stream is useless.
#[derive(Debug, Default)]
pub struct LogDecoder {
    frame: Option<OpenFrame>,
}

/// An append whose records are still arriving.
#[derive(Debug)]
struct OpenFrame {
    header: LogHeader,
    order: Order,
    records: EntryDecoder,
    bytes: u64,
    metas: Vec<EntryMeta>,
    entries: Vec<Entry>,
}

impl LogDecoder {
    /// The next append with its entries, in the same order as its metadata; `None` until `buffer`
    /// holds all of it. Payloads share the buffer's memory. Checksums, order and contiguity are
    /// verified; the chain is the receiver's part.
    ///
    /// # Errors
    /// Whatever is wrong with the frame or one of its records.
    pub fn decode(
        &mut self,
        buffer: &mut BytesMut,
    ) -> Result<Option<(Append, Vec<Entry>)>, WireError> {
        if self.frame.is_none() {
            let header = decode_frame::<HEADER_BODY_BYTES_MAX, LogHeader>(buffer)?;
            let Some(header) = header else {
                return Ok(None);
            };
            self.frame = Some(OpenFrame::begin(header)?);
        }
        let complete = match &mut self.frame {
            Some(frame) => frame.fill(buffer)?,
            None => false,
        };
        match self.frame.take_if(|_| complete) {
            Some(frame) => Ok(Some((frame.header.append.into_append(frame.metas), frame.entries))),
            None => Ok(None),
        }
    }

    /// Bytes that must be added to `buffer` before [`LogDecoder::decode`] can get any further; at
    /// least 1.
    #[must_use]
    pub fn missing(&self, buffer: &BytesMut) -> usize {
        match &self.frame {
            Some(frame) => frame.records.missing(buffer).max(1),
            None => FRAME_PREFIX_BYTES.saturating_sub(buffer.len()).max(1),
        }
    }
}

impl OpenFrame {
    fn begin(header: LogHeader) -> Result<Self, WireError> {
        header.check()?;
        Ok(Self {
            header,
            order: Order::of(&header.append),
            records: EntryDecoder::new(PAYLOAD_BYTES_MAX),
            bytes: 0,
            metas: Vec::new(),
            entries: Vec::new(),
        })
    }

    /// Takes the records that are there; true once the frame is complete.
    fn fill(&mut self, buffer: &mut BytesMut) -> Result<bool, WireError> {
        while self.entries.len() < self.header.count as usize {
            let position = self.entries.len();
            let entry = self
                .records
                .decode(buffer)
                .map_err(|error| WireError::Record { position, reason: error.fault.to_string() })?;
            let Some(entry) = entry else { return Ok(false) };
            self.order.admit(entry.id)?;
            self.bytes += entry.header().record_bytes();
            if self.bytes > u64::from(self.header.bytes) {
                return Err(WireError::Invalid("records are longer than their header says"));
            }
            self.metas.push(entry_meta(&entry)?);
            self.entries.push(entry);
        }
        if self.bytes == u64::from(self.header.bytes) {
            Ok(true)
        } else {
            Err(WireError::Invalid("records are shorter than their header says"))
        }
    }
}

/// What stands in front of the records of one append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
struct LogHeader {
    append: AppendHeader,
    /// How many records follow: 1 to [`LOG_ENTRIES_MAX`].
    count: u32,
    /// How many bytes they take together: at most [`LOG_RECORD_BYTES_MAX`].
    bytes: u32,
}

impl LogHeader {
    fn check(&self) -> Result<(), WireError> {
        if self.count == 0 {
            return Err(WireError::Invalid("a log frame without entries"));
        }
        if self.count as usize > LOG_ENTRIES_MAX {
            return Err(WireError::Invalid("too many entries in one log frame"));
        }
        let length = self.bytes as usize;
        if length > LOG_RECORD_BYTES_MAX {
            return Err(WireError::TooLong { length, limit: LOG_RECORD_BYTES_MAX });
        }
        Ok(())
    }
}

/// Entries of an append are contiguous after `prev`, their epochs never go back, and none is
/// above the primary's own.
#[derive(Debug)]
struct Order {
    epoch: Epoch,
    previous: EntryId,
}

impl Order {
    fn of(append: &AppendHeader) -> Self {
        Self { epoch: append.epoch, previous: append.prev }
    }

    fn admit(&mut self, found: EntryId) -> Result<(), WireError> {
        let previous = self.previous;
        let contiguous = previous.seq.0.checked_add(1) == Some(found.seq.0);
        if !contiguous || found.epoch < previous.epoch || found.epoch > self.epoch {
            return Err(WireError::NotContiguous { previous, found });
        }
        self.previous = found;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::frame::hex;
    use super::*;
    use crate::cluster::{ClusterEntry, Member, MemberKind, SafetyTimers};
    use crate::policy::{Policy, Threshold};
    use crate::types::{Chain, ClusterId, DiskId, Generation, NodeId};
    use crate::wire::encode_cluster;

    fn header(prev_seq: u64) -> AppendHeader {
        AppendHeader {
            epoch: Epoch(2),
            prev: EntryId::new(Epoch(1), Seq(prev_seq)),
            commit: Seq(prev_seq),
            round: 5,
            time: ClusterTime(9),
            recover: None,
        }
    }

    fn entry(epoch: u64, seq: u64, kind: EntryKind, payload: Bytes) -> Entry {
        let id = EntryId::new(Epoch(epoch), Seq(seq));
        Entry::seal(id, kind, ClusterTime(9), Chain(1), payload)
    }

    fn commands(epoch: u64, seq: u64, length: usize) -> Entry {
        entry(epoch, seq, EntryKind::Commands, Bytes::from(vec![7; length]))
    }

    fn frame_of(append: &AppendHeader, entries: &[Entry]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_log_header(append, entries, &mut out).expect("valid");
        for entry in entries {
            out.extend_from_slice(&entry.header().encode());
            out.extend_from_slice(&entry.payload);
        }
        out
    }

    fn decode_in_chunks(
        bytes: &[u8],
        chunk: usize,
    ) -> Result<Vec<(Append, Vec<Entry>)>, WireError> {
        let (mut decoder, mut buffer) = (LogDecoder::default(), BytesMut::new());
        let mut found = Vec::new();
        for part in bytes.chunks(chunk) {
            buffer.extend_from_slice(part);
            while let Some(append) = decoder.decode(&mut buffer)? {
                found.push(append);
            }
            assert!(decoder.missing(&buffer) > 0);
        }
        Ok(found)
    }

    fn cluster_entry() -> ClusterEntry {
        ClusterEntry {
            cluster: ClusterId(7),
            generation: Generation(0),
            version: 1,
            members: vec![Member {
                node: NodeId(1),
                disk: DiskId(2),
                kind: MemberKind::Voter,
                peer_addr: String::new(),
                client_addr: String::new(),
                plain_addr: String::new(),
            }],
            policy: Policy { persisted: Some(Threshold::Majority), in_memory: None },
            timers: SafetyTimers::LAN,
            removed: Vec::new(),
            tokens: Vec::new(),
        }
    }

    #[test]
    fn golden_log_header() {
        let mut out = Vec::new();
        encode_log_header(&header(3), &[commands(2, 4, 10)], &mut out).expect("valid");
        let hex = hex(&out[8..]);
        assert_eq!(hex, "0102010303050900014a");
    }

    #[test]
    fn a_cluster_entry_arrives_with_its_configuration() {
        let payload = encode_cluster(&cluster_entry()).expect("valid");
        let entries = [entry(2, 4, EntryKind::Cluster, payload)];
        let found = decode_in_chunks(&frame_of(&header(3), &entries), 1000).expect("valid");
        let [(append, _)] = &found[..] else { panic!("one frame: {found:?}") };
        assert_eq!(append.entries[0].cluster.as_deref(), Some(&cluster_entry()));
    }

    #[test]
    fn a_cluster_entry_with_another_payload_is_refused() {
        let entries = [entry(2, 4, EntryKind::Cluster, Bytes::from_static(b"no"))];
        let error = decode_in_chunks(&frame_of(&header(3), &entries), 1000);
        assert!(matches!(error, Err(WireError::Payload { .. })), "{error:?}");
    }

    #[test]
    fn gaps_and_epochs_out_of_order_are_refused_on_both_sides() {
        let bad = [
            vec![commands(2, 5, 1)],
            vec![commands(2, 3, 1)],
            vec![commands(2, 4, 1), commands(2, 6, 1)],
            vec![commands(2, 4, 1), commands(1, 5, 1)],
            vec![commands(3, 4, 1)],
            vec![commands(0, 4, 1)],
        ];
        for entries in bad {
            let error = encode_log_header(&header(3), &entries, &mut Vec::new());
            assert!(matches!(error, Err(WireError::NotContiguous { .. })), "{entries:?}");
            let mut out = Vec::new();
            let wire = LogHeader { append: header(3), count: entries.len() as u32, bytes: 1000 };
            encode_frame::<HEADER_BODY_BYTES_MAX>(&wire, &mut out).expect("it fits");
            for entry in &entries {
                out.extend_from_slice(&entry.header().encode());
                out.extend_from_slice(&entry.payload);
            }
            let error = decode_in_chunks(&out, 1000);
            assert!(matches!(error, Err(WireError::NotContiguous { .. })), "{entries:?}");
        }
    }

    #[test]
    fn counts_and_lengths_must_agree_with_the_records() {
        let frame = |count: u32, bytes: u32| {
            let mut out = Vec::new();
            let wire = LogHeader { append: header(3), count, bytes };
            encode_frame::<HEADER_BODY_BYTES_MAX>(&wire, &mut out).expect("it fits");
            let entry = commands(2, 4, 10);
            out.extend_from_slice(&entry.header().encode());
            out.extend_from_slice(&entry.payload);
            decode_in_chunks(&out, 1000)
        };
        assert_eq!(frame(1, 74).map(|found| found.len()), Ok(1));
        assert!(frame(1, 73).is_err());
        assert!(frame(1, 75).is_err());
        assert!(frame(0, 74).is_err());
        assert!(frame(LOG_ENTRIES_MAX as u32 + 1, 74).is_err());
        assert!(frame(1, LOG_RECORD_BYTES_MAX as u32 + 1).is_err());
    }

    #[test]
    fn an_append_without_entries_is_not_a_log_frame() {
        assert!(encode_log_header(&header(3), &[], &mut Vec::new()).is_err());
    }

    proptest! {
        #[test]
        fn appends_survive_any_chunking(
            lengths in proptest::collection::vec(0..300_usize, 1..6),
            frames in 1..4_u64,
            chunk in 1..400_usize,
        ) {
            let mut bytes = Vec::new();
            let mut sent = Vec::new();
            let mut seq = 3;
            for _ in 0..frames {
                let append = header(seq);
                let entries: Vec<Entry> = (seq + 1..)
                    .zip(&lengths)
                    .map(|(seq, length)| commands(2, seq, *length))
                    .collect();
                seq += entries.len() as u64;
                bytes.extend_from_slice(&frame_of(&append, &entries));
                sent.push((append, entries));
            }
            let found = decode_in_chunks(&bytes, chunk).expect("valid");
            prop_assert_eq!(found.len(), sent.len());
            for ((append, entries), (sent_append, sent_entries)) in found.iter().zip(&sent) {
                prop_assert_eq!(&AppendHeader::of(append), sent_append);
                prop_assert_eq!(entries, sent_entries);
                let ids: Vec<EntryId> = append.entries.iter().map(|meta| meta.id).collect();
                prop_assert_eq!(ids, entries.iter().map(|entry| entry.id).collect::<Vec<_>>());
            }
        }

        #[test]
        fn a_flipped_bit_never_gives_an_append(at: proptest::sample::Index, bit in 0..8_u8) {
            let mut bytes = frame_of(&header(3), &[commands(2, 4, 40)]);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(!matches!(decode_in_chunks(&bytes, 64), Ok(found) if !found.is_empty()));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, chunk in 1..64_usize) {
            let _ = decode_in_chunks(&bytes, chunk);
        }
    }
}
