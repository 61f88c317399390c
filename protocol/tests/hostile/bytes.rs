//! Every decoder, fed with noise, with valid bytes that were damaged, and with numbers that lie
//! under right checksums.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use quorate_protocol::command::batch::Batches;
use quorate_protocol::command::parse;
use quorate_protocol::entry::Entry;
use quorate_protocol::policy::Policy;
use quorate_protocol::record::{
    EntryDecoder, Frame, INDEX_FOOTER_BYTES, IndexFooter, PAYLOAD_BYTES_MAX, RECORD_HEADER_BYTES,
    SegmentHeader, SegmentIndex,
};
use quorate_protocol::resp::{Limits, RequestParser};
use quorate_protocol::types::{Chain, ClusterTime, EntryId, EntryKind, Epoch, Seq};
use quorate_protocol::wire::{
    AppendHeader, LogDecoder, WIRE_VERSION, decode_cluster, decode_control, encode_log_header,
};

use crate::memory::peak_of;

/// Memory that a decoder may take for so many bytes of input: what it decodes holds them in
/// larger structs, and keeps whatever it has read of what is not complete.
fn justified(bytes: usize) -> usize {
    (64 << 10) + 64 * bytes
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len()).expect("short").to_le_bytes().to_vec();
    bytes.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// Bytes among which lengths, counts and their extremes are frequent.
fn lies() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        (0_u8..12).prop_map(|byte| vec![byte]),
        any::<u64>().prop_map(|word| [&[0xfd], &word.to_le_bytes()[..]].concat()),
        Just([&[0xfd], &u64::MAX.to_le_bytes()[..]].concat()),
        Just([&[0xfc], &u32::MAX.to_le_bytes()[..]].concat()),
        Just(u64::MAX.to_le_bytes().to_vec()),
        vec(any::<u8>(), 0..40),
    ];
    vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// Changes some bytes, and perhaps the length.
fn damage(
    mut bytes: Vec<u8>,
    changes: &[(prop::sample::Index, u8)],
    cut: Option<usize>,
) -> Vec<u8> {
    for (at, byte) in changes {
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
    }
    bytes.truncate(cut.unwrap_or(bytes.len()));
    bytes
}

fn damages() -> impl Strategy<Value = (Vec<(prop::sample::Index, u8)>, Option<usize>)> {
    (vec(any::<(prop::sample::Index, u8)>(), 0..6), proptest::option::of(0_usize..200))
}

fn records(payloads: &[Vec<u8>]) -> Vec<Entry> {
    let mut chain = Chain(0);
    let seal = |(seq, payload): (u64, &Vec<u8>)| {
        let id = EntryId::new(Epoch(2), Seq(seq));
        let kind = if seq % 2 == 0 { EntryKind::Commands } else { EntryKind::Cluster };
        let payload = Bytes::copy_from_slice(payload);
        let entry = Entry::seal(id, kind, ClusterTime(seq), chain, payload);
        chain = entry.chain;
        entry
    };
    (1..).zip(payloads).map(seal).collect()
}

fn decode_log(bytes: &[u8]) -> usize {
    let mut decoder = LogDecoder::default();
    let mut buffer = BytesMut::from(bytes);
    let mut found = 0;
    while let Ok(Some((_, entries))) = decoder.decode(&mut buffer) {
        found += entries.len();
    }
    found
}

proptest! {
    #[test]
    fn control_frames(mut body in lies(), tag in 0_u8..16) {
        body.splice(0..0, [WIRE_VERSION, tag]);
        let bytes = frame(&body);
        let (_, peak) = peak_of(|| decode_control(&mut BytesMut::from(&bytes[..])).is_ok());
        prop_assert!(peak <= justified(bytes.len()), "{peak} for {}", bytes.len());
    }

    #[test]
    fn cluster_payloads(mut body in lies()) {
        body.insert(0, WIRE_VERSION);
        let (_, peak) = peak_of(|| decode_cluster(&body).is_ok());
        prop_assert!(peak <= justified(body.len()), "{peak} for {}", body.len());
    }

    #[test]
    fn log_frames_that_lie(
        mut header in lies(), payloads in vec(lies(), 0..4), (changes, cut) in damages(),
    ) {
        header.insert(0, WIRE_VERSION);
        let mut bytes = frame(&header);
        for entry in records(&payloads) {
            bytes.extend_from_slice(&entry.record());
        }
        let bytes = damage(bytes, &changes, cut);
        let (_, peak) = peak_of(|| decode_log(&bytes));
        prop_assert!(peak <= justified(bytes.len()), "{peak} for {}", bytes.len());
    }

    #[test]
    fn log_frames_that_are_damaged(
        payloads in vec(lies(), 1..4), (changes, cut) in damages(),
    ) {
        let entries = records(&payloads);
        let append = AppendHeader {
            epoch: Epoch(2),
            prev: EntryId::ZERO,
            commit: Seq(u64::MAX),
            round: u64::MAX,
            time: ClusterTime(u64::MAX),
            recover: None,
        };
        let mut bytes = Vec::new();
        encode_log_header(&append, &entries, &mut bytes).expect("the entries follow each other");
        for entry in &entries {
            bytes.extend_from_slice(&entry.record());
        }
        let bytes = damage(bytes, &changes, cut);
        let (_, peak) = peak_of(|| decode_log(&bytes));
        prop_assert!(peak <= justified(bytes.len()), "{peak} for {}", bytes.len());
    }

    #[test]
    fn records_in_a_journal(payloads in vec(lies(), 0..4), (changes, cut) in damages()) {
        let mut bytes = Vec::new();
        for entry in records(&payloads) {
            bytes.extend_from_slice(&entry.record());
        }
        let bytes = damage(bytes, &changes, cut);
        let (_, peak) = peak_of(|| {
            let mut decoder = EntryDecoder::new(PAYLOAD_BYTES_MAX);
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decoder.decode(&mut buffer) {}
            decoder.missing(&buffer)
        });
        prop_assert!(peak <= justified(bytes.len()), "{peak} for {}", bytes.len());
    }

    #[test]
    fn segments(bytes in lies(), footer: [u8; INDEX_FOOTER_BYTES], resealed: bool) {
        let ((), peak) = peak_of(|| {
            let _ = SegmentHeader::decode(&bytes);
            if let Some(bytes) = bytes.first_chunk::<RECORD_HEADER_BYTES>() {
                let _ = Frame::decode(bytes);
            }
            let mut footer = footer;
            if resealed {
                let checked = INDEX_FOOTER_BYTES - 4;
                let crc = crc32c::crc32c(&footer[..checked]);
                footer[checked..].copy_from_slice(&crc.to_le_bytes());
            }
            if let Some(footer) = IndexFooter::decode(&footer) {
                let _ = SegmentIndex::decode(&footer, &bytes);
                let _ = footer.content_bytes();
            }
        });
        prop_assert!(peak <= justified(bytes.len()), "{peak} for {}", bytes.len());
    }

    #[test]
    fn batches_of_commands(count: u32, few in 0_u32..5, lie: bool, mut body in lies()) {
        // The format's version.
        body.insert(0, 1);
        let mut payload = u32::try_from(body.len()).expect("short").to_le_bytes().to_vec();
        payload.extend_from_slice(&(if lie { count } else { few }).to_le_bytes());
        payload.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        payload.extend_from_slice(&body);
        let payload = Bytes::from(payload);
        let bytes = payload.len();
        let (_, peak) = peak_of(|| {
            let batches = Batches::new(payload).flatten();
            batches.map(|batch| batch.units().flatten().count()).sum::<usize>()
        });
        prop_assert!(peak <= justified(bytes), "{peak} for {bytes}");
    }

    #[test]
    fn requests(
        pieces in vec(prop_oneof![
            Just(b"*".to_vec()), Just(b"$".to_vec()), Just(b"\r\n".to_vec()), Just(b"\"\\x".to_vec()),
            Just(b"9223372036854775807".to_vec()), Just(b"-1".to_vec()), Just(b"1048576".to_vec()),
            (0_u8..9).prop_map(|n| n.to_string().into_bytes()), vec(any::<u8>(), 0..9),
        ], 0..30),
        authenticated: bool,
    ) {
        let bytes = pieces.concat();
        let (_, peak) = peak_of(|| {
            let mut parser = RequestParser::new(Limits::default());
            parser.set_authenticated(authenticated);
            let (mut input, mut argv) = (BytesMut::from(&bytes[..]), Vec::new());
            while let Ok(true) = parser.parse(&mut input, &mut argv) {
                let _ = parse(&mut argv);
            }
            parser.wanted(&input)
        });
        prop_assert!(peak <= justified(bytes.len()), "{peak} for {}", bytes.len());
    }

    #[test]
    fn policies(
        words in vec(prop_oneof![
            Just("persisted"), Just("in_memory"), Just(">="), Just("&&"), Just(" "), Just("majority"),
            Just("all"), Just("0"), Just("1"), Just("255"), Just("256"), Just("-1"), Just("\u{e9}"),
        ], 0..12),
        voters in 0_usize..9,
    ) {
        let text = words.concat();
        if let Ok(policy) = Policy::parse(&text, voters) {
            prop_assert_eq!(Policy::parse(&policy.to_string(), voters), Ok(policy));
            let form = policy.normal_form(voters);
            prop_assert!((1..=voters).contains(&form.sealing_copies()));
        }
    }

    #[test]
    fn any_text_is_a_policy_or_refused(text: String, voters in 0_usize..9) {
        let _ = Policy::parse(&text, voters);
    }
}
