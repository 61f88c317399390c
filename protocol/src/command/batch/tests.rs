use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::{Batches, DecodeError, Encoder, HEADER_BYTES, VERSION};
use crate::command::model::{
    BitOperation, BitRange, Exec, ExpireConditions, GetExExpiry, Lcs, ObjectProperty, Once, Read,
    Seen, Set, SetCondition, SetExpiry, Step, TtlForm, Unit, Watched, When, Write,
};
use crate::command::token::TOKEN_BYTES_MAX;
use crate::types::Seq;

fn decode(payload: Bytes) -> Result<Vec<Unit>, DecodeError> {
    let mut units = Vec::new();
    for batch in Batches::new(payload) {
        for unit in batch?.units() {
            units.push(unit?);
        }
    }
    Ok(units)
}

fn encode(units: &[Unit]) -> super::Encoded {
    let mut encoder = Encoder::new();
    for unit in units {
        encoder.unit(unit);
    }
    encoder.finish()
}

/// A batch around any body, with a right header.
fn framed(count: u32, body: &[u8]) -> Bytes {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes.into()
}

fn text() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..20).prop_map(Bytes::from)
}

fn when() -> impl Strategy<Value = When> {
    prop_oneof![any::<i64>().prop_map(When::After), any::<i64>().prop_map(When::At)]
}

fn set() -> impl Strategy<Value = Write> {
    let condition = prop_oneof![
        Just(SetCondition::Always),
        Just(SetCondition::IfNone),
        Just(SetCondition::IfSome),
        text().prop_map(SetCondition::IfEqual),
    ];
    let expiry =
        prop_oneof![Just(SetExpiry::None), Just(SetExpiry::Keep), when().prop_map(SetExpiry::At)];
    (text(), text(), condition, expiry, any::<bool>()).prop_map(
        |(key, value, condition, expiry, get)| {
            Write::Set(Set { key, value, condition, expiry, get })
        },
    )
}

fn write() -> impl Strategy<Value = Write> {
    let get_ex = prop_oneof![
        Just(GetExExpiry::Keep),
        Just(GetExExpiry::Remove),
        when().prop_map(GetExExpiry::At)
    ];
    let conditions = any::<(bool, bool, bool, bool)>()
        .prop_map(|(nx, xx, gt, lt)| ExpireConditions { nx, xx, gt, lt });
    let operation = prop::sample::select(vec![
        BitOperation::And,
        BitOperation::Or,
        BitOperation::Xor,
        BitOperation::Not,
    ]);
    prop_oneof![
        set(),
        (text(), text()).prop_map(|(key, value)| Write::SetNx { key, value }),
        (vec((text(), text()), 0..4), any::<bool>())
            .prop_map(|(pairs, only_if_none)| Write::MSet { pairs, only_if_none }),
        text().prop_map(|key| Write::GetDel { key }),
        (text(), get_ex).prop_map(|(key, expiry)| Write::GetEx { key, expiry }),
        (text(), text()).prop_map(|(key, value)| Write::Append { key, value }),
        (text(), any::<u64>(), text()).prop_map(|(key, offset, value)| Write::SetRange {
            key,
            offset,
            value
        }),
        (text(), any::<i64>()).prop_map(|(key, delta)| Write::IncrBy { key, delta }),
        (text(), text()).prop_map(|(key, delta)| Write::IncrByFloat { key, delta }),
        vec(text(), 0..4).prop_map(|keys| Write::Del { keys }),
        (text(), text()).prop_map(|(key, value)| Write::DelIfEq { key, value }),
        (text(), when(), conditions).prop_map(|(key, when, condition)| Write::Expire {
            key,
            when,
            condition
        }),
        text().prop_map(|key| Write::Persist { key }),
        Just(Write::FlushAll),
        (text(), text(), any::<bool>()).prop_map(|(from, to, only_if_none)| Write::Rename {
            from,
            to,
            only_if_none
        }),
        (text(), text(), any::<bool>()).prop_map(|(from, to, replace)| Write::Copy {
            from,
            to,
            replace
        }),
        (text(), any::<u32>(), any::<bool>()).prop_map(|(key, offset, bit)| Write::SetBit {
            key,
            offset,
            bit
        }),
        (operation, text(), vec(text(), 0..4)).prop_map(|(operation, to, from)| Write::BitOp {
            operation,
            to,
            from
        }),
    ]
}

fn read() -> impl Strategy<Value = Read> {
    let form = prop::sample::select(vec![
        TtlForm::Seconds,
        TtlForm::Millis,
        TtlForm::AtSeconds,
        TtlForm::AtMillis,
    ]);
    let property = prop::sample::select(vec![
        ObjectProperty::Encoding,
        ObjectProperty::RefCount,
        ObjectProperty::IdleTime,
        ObjectProperty::Frequency,
    ]);
    let range = || {
        prop::option::of(any::<(i64, i64, bool)>().prop_map(|(start, end, bits)| BitRange {
            start,
            end,
            bits,
        }))
    };
    let lcs = (text(), text(), any::<(bool, bool, i64, bool)>()).prop_map(
        |(first, second, (len, idx, min_match_len, with_match_len))| {
            Read::Lcs(Lcs { first, second, len, idx, min_match_len, with_match_len })
        },
    );
    prop_oneof![
        text().prop_map(|key| Read::Get { key }),
        vec(text(), 0..4).prop_map(|keys| Read::MGet { keys }),
        text().prop_map(|key| Read::StrLen { key }),
        (text(), any::<(i64, i64)>()).prop_map(|(key, (start, end))| Read::GetRange {
            key,
            start,
            end
        }),
        vec(text(), 0..4).prop_map(|keys| Read::Exists { keys }),
        text().prop_map(|key| Read::Type { key }),
        (text(), form).prop_map(|(key, form)| Read::Ttl { key, form }),
        (text(), property).prop_map(|(key, property)| Read::Object { key, property }),
        text().prop_map(|key| Read::MemoryUsage { key }),
        Just(Read::DbSize),
        (text(), any::<u32>()).prop_map(|(key, offset)| Read::GetBit { key, offset }),
        (text(), range()).prop_map(|(key, range)| Read::BitCount { key, range }),
        (text(), any::<(bool, bool)>(), range())
            .prop_map(|(key, (bit, end_given), range)| Read::BitPos { key, bit, range, end_given }),
        lcs,
    ]
}

pub(in crate::command) fn unit() -> impl Strategy<Value = Unit> {
    let seen = (any::<u64>(), any::<bool>()).prop_map(|(seq, absent)| {
        if absent { Seen::Absent(Seq(seq)) } else { Seen::Version(Seq(seq)) }
    });
    let watched = (text(), seen).prop_map(|(key, seen)| Watched { key, seen });
    let step = prop_oneof![write().prop_map(Step::Write), read().prop_map(Step::Read)];
    let once = (vec(any::<u8>(), 1..=TOKEN_BYTES_MAX), write()).prop_map(|(token, write)| {
        Unit::Once(Once { token: token.into(), unit: Box::new(Unit::Write(write)) })
    });
    prop_oneof![
        1 => once,
        4 => write().prop_map(Unit::Write),
        2 => read().prop_map(Unit::Read),
        1 => (vec(watched, 0..3), vec(step, 0..5))
            .prop_map(|(watches, steps)| Unit::Exec(Exec { watches, steps })),
    ]
}

proptest! {
    #[test]
    fn units_survive_the_round_trip(batches in vec(vec(unit(), 1..6), 0..4)) {
        let mut payload = Vec::new();
        for units in &batches {
            let encoded = encode(units);
            prop_assert_eq!(encoded.count as usize, units.len());
            prop_assert_eq!(encoded.crc, crc32c::crc32c(&encoded.bytes));
            payload.extend_from_slice(&encoded.bytes);
        }
        prop_assert_eq!(decode(payload.into()), Ok(batches.concat()));
    }

    #[test]
    fn a_cut_payload_is_refused(units in vec(unit(), 1..4), cut in any::<prop::sample::Index>()) {
        let bytes = encode(&units).bytes;
        let cut = cut.index(bytes.len() - 1) + 1;
        prop_assert!(decode(bytes.slice(..cut)).is_err() || cut == bytes.len());
    }

    #[test]
    fn a_cut_body_with_a_right_header_is_refused(
        units in vec(unit(), 1..4), cut in any::<prop::sample::Index>(),
    ) {
        let encoded = encode(&units);
        let body = &encoded.bytes[HEADER_BYTES..];
        let cut = cut.index(body.len());
        prop_assert!(decode(framed(encoded.count, &body[..cut])).is_err());
    }

    #[test]
    fn any_body_is_decoded_or_refused_and_has_one_encoding(
        count in 0u32..5, mut body in vec(any::<u8>(), 0..60),
    ) {
        body.insert(0, VERSION);
        let payload = framed(count, &body);
        if let Ok(units) = decode(payload.clone()) {
            prop_assert_eq!(encode(&units).bytes, payload);
        }
    }

    #[test]
    fn any_payload_is_decoded_or_refused(payload in vec(any::<u8>(), 0..60)) {
        let _ = decode(payload.into());
    }
}

/// Logs that are written once must be read by every later version.
#[test]
fn bytes_of_each_unit_are_fixed() {
    let mut opcodes = std::collections::BTreeSet::new();
    for line in include_str!("golden.txt").lines() {
        let (hex, text) = line.split_once(' ').expect("bytes and a unit");
        let pairs = (0..hex.len()).step_by(2);
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
        let bytes: Bytes = pairs.map(byte).collect();
        let units = decode(bytes.clone()).expect(text);
        assert_eq!(units.iter().map(|unit| format!("{unit:?}")).collect::<Vec<_>>(), [text]);
        assert_eq!(encode(&units).bytes, bytes, "{text}");
        opcodes.insert(bytes[HEADER_BYTES + 1]);
    }
    assert!(opcodes.into_iter().eq((1..=22).chain(64..=77).chain(128..=129)));
}

#[test]
fn refusals_say_why() {
    assert_eq!(decode(Bytes::from_static(&[1, 2, 3])), Err(DecodeError::Truncated));
    assert_eq!(decode(framed(0, &[])), Err(DecodeError::Truncated));
    assert_eq!(decode(framed(0, &[9])), Err(DecodeError::Version(9)));
    assert_eq!(decode(framed(1, &[VERSION, 255])), Err(DecodeError::Opcode(255)));
    assert_eq!(decode(framed(1, &[VERSION])), Err(DecodeError::Count));
    assert_eq!(decode(framed(0, &[VERSION, 16])), Err(DecodeError::Count));
    let over_long_number = [VERSION, 12, 0x80, 0x00];
    assert_eq!(decode(framed(1, &over_long_number)), Err(DecodeError::Number));
    let mut flipped = encode(&[Unit::Write(Write::FlushAll)]).bytes.to_vec();
    *flipped.last_mut().expect("not empty") ^= 1;
    assert_eq!(decode(flipped.into()), Err(DecodeError::Checksum));
}

#[test]
fn a_count_beyond_the_bytes_is_refused_before_anything_is_allocated() {
    let many = [VERSION, 12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    assert_eq!(decode(framed(1, &many)), Err(DecodeError::Truncated));
}

#[test]
fn a_set_costs_three_bytes_more_than_key_and_value() {
    let encoded = encode(&[Unit::Write(Write::Set(Set::plain("key".into(), "value".into())))]);
    assert_eq!(encoded.bytes.len(), HEADER_BYTES + 1 + 3 + 8);
}

/// The format of the log: what is written here must be readable for ever.
#[test]
fn units_are_encoded_as_they_always_were() {
    let (k, v) = (|| Bytes::from_static(b"k"), || Bytes::from_static(b"v"));
    let conditional = Set {
        condition: SetCondition::IfEqual(v()),
        expiry: SetExpiry::At(When::After(300)),
        get: true,
        ..Set::plain(k(), v())
    };
    let conditions = ExpireConditions { nx: false, xx: true, gt: true, lt: false };
    let writes = [
        (Write::Set(Set::plain(k(), v())), "01016b0176"),
        (Write::Set(conditional), "02016b01761b0176d804"),
        (Write::SetNx { key: k(), value: v() }, "03016b0176"),
        (Write::MSet { pairs: vec![(k(), v())], only_if_none: false }, "0401016b0176"),
        (Write::MSet { pairs: vec![(k(), v())], only_if_none: true }, "0501016b0176"),
        (Write::GetDel { key: k() }, "06016b"),
        (Write::GetEx { key: k(), expiry: GetExExpiry::Remove }, "07016b01"),
        (Write::Append { key: k(), value: v() }, "08016b0176"),
        (Write::SetRange { key: k(), offset: 200, value: v() }, "09016b0176c801"),
        (Write::IncrBy { key: k(), delta: -1 }, "0a016b01"),
        (Write::IncrByFloat { key: k(), delta: v() }, "0b016b0176"),
        (Write::Del { keys: vec![k(), v()] }, "0c02016b0176"),
        (Write::DelIfEq { key: k(), value: v() }, "0d016b0176"),
        (Write::Expire { key: k(), when: When::At(5), condition: conditions }, "0e016b030a06"),
        (Write::Persist { key: k() }, "0f016b"),
        (Write::FlushAll, "10"),
        (Write::Rename { from: k(), to: v(), only_if_none: false }, "11016b0176"),
        (Write::Rename { from: k(), to: v(), only_if_none: true }, "12016b0176"),
        (Write::Copy { from: k(), to: v(), replace: false }, "13016b0176"),
        (Write::Copy { from: k(), to: v(), replace: true }, "14016b0176"),
        (Write::SetBit { key: k(), offset: 7, bit: true }, "15016b0701"),
        (Write::BitOp { operation: BitOperation::Xor, to: k(), from: vec![v()] }, "16016b02010176"),
    ];
    for (write, expected) in writes {
        let bytes = encode(&[Unit::Write(write.clone())]).bytes;
        let expected: Vec<u8> = (0..expected.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&expected[at..at + 2], 16).expect("hex"))
            .collect();
        assert_eq!(&bytes[HEADER_BYTES + 1..], expected, "{write:?}");
    }
    let watches = vec![
        Watched { key: k(), seen: Seen::Version(Seq(9)) },
        Watched { key: v(), seen: Seen::Absent(Seq(300)) },
    ];
    let steps = vec![Step::Write(Write::FlushAll), Step::Read(Read::Get { key: k() })];
    let bytes = encode(&[Unit::Exec(Exec { watches, steps })]).bytes;
    assert_eq!(
        &bytes[..],
        b"\x11\0\0\0\x01\0\0\0\x5d\x7d\x44\xfe\x01\x80\x02\x01k\0\x09\x01v\x01\xac\x02\x02\x10\x40\x01k"
    );
}

#[test]
fn a_token_stands_before_what_carries_it() {
    let flush = Unit::Write(Write::FlushAll);
    let unit = Unit::Once(Once { token: "t1".into(), unit: Box::new(flush) });
    let body = [VERSION, 129, 2, b't', b'1', 16];
    assert_eq!(encode(std::slice::from_ref(&unit)).bytes, framed(1, &body));
    assert_eq!(decode(framed(1, &body)), Ok(vec![unit]));
    // No token, too long a one, a token of a token, of a read, of nothing.
    assert_eq!(decode(framed(1, &[VERSION, 129, 0, 16])), Err(DecodeError::Token));
    let mut long = vec![VERSION, 129, 129, 1];
    long.extend_from_slice(&[b'x'; 129]);
    long.push(16);
    assert_eq!(decode(framed(1, &long)), Err(DecodeError::Token));
    let twice = [VERSION, 129, 1, b'a', 129, 1, b'b', 16];
    assert_eq!(decode(framed(1, &twice)), Err(DecodeError::Opcode(129)));
    let read = [VERSION, 129, 1, b'a', 73];
    assert_eq!(decode(framed(1, &read)), Err(DecodeError::Opcode(73)));
    assert_eq!(decode(framed(1, &body[..5])), Err(DecodeError::Truncated));
}
