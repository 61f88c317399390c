//! How a client's value is stored: a header, then the bytes.
//!
//! The header is the type (1 byte), the version (the entry's seq, 8 bytes little endian), and for
//! types with an expiry its moment (ms, 8 bytes little endian).

use bytes::Bytes;
use quorate_protocol::command::{Head, Value};
use quorate_protocol::types::Seq;

const STRING: u8 = 1;
const STRING_WITH_EXPIRY: u8 = 2;

/// A stored value that this version can't read: damage, or the work of a newer version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored value of {length} bytes has no valid header")]
pub struct BadValue {
    /// Bytes of the stored value.
    pub length: usize,
}

/// Writes the stored form of a value into `buffer`, replacing what it held.
pub(crate) fn write(buffer: &mut Vec<u8>, value: &Value) {
    buffer.clear();
    buffer.push(match value.expires_at_ms {
        None => STRING,
        Some(_) => STRING_WITH_EXPIRY,
    });
    buffer.extend_from_slice(&value.version.0.to_le_bytes());
    if let Some(at) = value.expires_at_ms {
        buffer.extend_from_slice(&at.to_le_bytes());
    }
    buffer.extend_from_slice(&value.data);
}

/// A stored value without its bytes.
pub(crate) fn read_head(stored: &[u8]) -> Result<Head, BadValue> {
    split(stored).map(|(head, _)| head)
}

/// Copies a stored value.
pub(crate) fn read(stored: &[u8]) -> Result<Value, BadValue> {
    let (head, data) = split(stored)?;
    Ok(Value {
        data: Bytes::copy_from_slice(data),
        expires_at_ms: head.expires_at_ms,
        version: head.version,
    })
}

fn split(stored: &[u8]) -> Result<(Head, &[u8]), BadValue> {
    let bad = BadValue { length: stored.len() };
    let (&kind, rest) = stored.split_first().ok_or(bad)?;
    let (version, rest) = number(rest).ok_or(bad)?;
    let (expires_at_ms, data) = match kind {
        STRING => (None, rest),
        STRING_WITH_EXPIRY => {
            let (at, data) = number(rest).ok_or(bad)?;
            (Some(at), data)
        }
        _ => return Err(bad),
    };
    Ok((Head { bytes: data.len() as u64, expires_at_ms, version: Seq(version) }, data))
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::scratch::hex;

    proptest! {
        #[test]
        fn values_round_trip(version: u64, expires_at_ms: Option<u64>, bytes: Vec<u8>) {
            let value = Value { data: bytes.into(), expires_at_ms, version: Seq(version) };
            let mut stored = Vec::new();
            write(&mut stored, &value);
            prop_assert_eq!(read_head(&stored), Ok(value.head()));
            prop_assert_eq!(read(&stored), Ok(value));
        }

        #[test]
        fn no_bytes_make_it_panic(stored: Vec<u8>) {
            let _ = read(&stored);
        }
    }

    #[test]
    fn bytes_are_fixed() {
        let mut stored = Vec::new();
        for (expires_at_ms, expected) in [
            (None, "0184030000000000006162"),
            (Some(1_800_000_000_000), "02840300000000000000505c18a30100006162"),
        ] {
            let value = Value { data: "ab".into(), expires_at_ms, version: Seq(900) };
            write(&mut stored, &value);
            assert_eq!(hex(&stored), expected);
        }
    }

    #[test]
    fn a_short_value_and_an_unknown_type_are_refused() {
        assert_eq!(read(&[]), Err(BadValue { length: 0 }));
        assert_eq!(read(&[STRING; 8]), Err(BadValue { length: 8 }));
        assert_eq!(read(&[STRING_WITH_EXPIRY; 16]), Err(BadValue { length: 16 }));
        assert_eq!(read(&[9; 20]), Err(BadValue { length: 20 }));
    }
}
