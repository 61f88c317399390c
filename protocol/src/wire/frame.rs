//! The frame: `u32` length of the body, `u32` CRC32C of the body (both little endian), body. A
//! body starts with the version of its format; the rest is bincode.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::{Decode, Encode};
use bytes::{Buf, Bytes, BytesMut};

use super::error::WireError;

/// Format of control frames, log headers and `Cluster` payloads that this binary writes, and the
/// highest that it reads.
pub const WIRE_VERSION: u8 = 1;

/// Length and checksum in front of every body.
pub const FRAME_PREFIX_BYTES: usize = 8;

// Byte order and integer coding are named here, so that the defaults of another release of
// bincode could not change the format unnoticed.
type Format<const LIMIT: usize> = Configuration<LittleEndian, Varint, Limit<LIMIT>>;

fn format<const LIMIT: usize>() -> Format<LIMIT> {
    bincode::config::standard().with_limit::<LIMIT>()
}

/// Appends one frame to `out`. On an error `out` is as it was.
pub(super) fn encode_frame<const LIMIT: usize>(
    value: &impl Encode,
    out: &mut Vec<u8>,
) -> Result<(), WireError> {
    let start = out.len();
    let result = encode_frame_at::<LIMIT>(value, out, start);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn encode_frame_at<const LIMIT: usize>(
    value: &impl Encode,
    out: &mut Vec<u8>,
    start: usize,
) -> Result<(), WireError> {
    out.extend_from_slice(&[0; FRAME_PREFIX_BYTES]);
    encode_body::<LIMIT>(value, out)?;
    let body_start = start + FRAME_PREFIX_BYTES;
    let length = out.len() - body_start;
    let crc = crc32c::crc32c(&out[body_start..]);
    let length_u32 =
        u32::try_from(length).map_err(|_| WireError::TooLong { length, limit: LIMIT })?;
    out[start..start + 4].copy_from_slice(&length_u32.to_le_bytes());
    out[start + 4..body_start].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// Takes one frame off the front of `buffer`; `None` while it isn't all there.
///
/// # Errors
/// The length is over `LIMIT` (known as soon as the first bytes are there), the checksum doesn't
/// match, or the body isn't exactly one value. The buffer must not be used further.
pub(super) fn decode_frame<const LIMIT: usize, T: Decode<()>>(
    buffer: &mut BytesMut,
) -> Result<Option<T>, WireError> {
    match take_body(buffer, LIMIT)? {
        Some(body) => decode_body::<LIMIT, T>(&body).map(Some),
        None => Ok(None),
    }
}

fn take_body(buffer: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, WireError> {
    let Some(prefix) = buffer.first_chunk::<FRAME_PREFIX_BYTES>() else {
        return Ok(None);
    };
    let [l0, l1, l2, l3, c0, c1, c2, c3] = *prefix;
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let found = u32::from_le_bytes([c0, c1, c2, c3]);
    if length > limit {
        return Err(WireError::TooLong { length, limit });
    }
    if buffer.len() < FRAME_PREFIX_BYTES + length {
        return Ok(None);
    }
    buffer.advance(FRAME_PREFIX_BYTES);
    let body = buffer.split_to(length).freeze();
    let computed = crc32c::crc32c(&body);
    if computed != found {
        return Err(WireError::Checksum { found, computed });
    }
    Ok(Some(body))
}

/// Appends version and value, without length and checksum.
fn encode_body<const LIMIT: usize>(
    value: &impl Encode,
    out: &mut Vec<u8>,
) -> Result<(), WireError> {
    encode_body_of::<LIMIT>(WIRE_VERSION, value, out)
}

/// The same for a body with versions of its own.
pub(super) fn encode_body_of<const LIMIT: usize>(
    version: u8,
    value: &impl Encode,
    out: &mut Vec<u8>,
) -> Result<(), WireError> {
    let start = out.len();
    out.push(version);
    bincode::encode_into_std_write(value, out, format::<LIMIT>())
        .map_err(|error| WireError::Malformed(error.to_string()))?;
    let length = out.len() - start;
    if length > LIMIT {
        return Err(WireError::TooLong { length, limit: LIMIT });
    }
    Ok(())
}

/// Reads version and value; the value must fill the rest.
fn decode_body<const LIMIT: usize, T: Decode<()>>(body: &[u8]) -> Result<T, WireError> {
    decode_body_of::<LIMIT, T>(WIRE_VERSION, body)
}

/// The same for a body with versions of its own.
pub(super) fn decode_body_of<const LIMIT: usize, T: Decode<()>>(
    known: u8,
    body: &[u8],
) -> Result<T, WireError> {
    if body.len() > LIMIT {
        return Err(WireError::TooLong { length: body.len(), limit: LIMIT });
    }
    let Some((&version, rest)) = body.split_first() else {
        return Err(WireError::TooShort { length: body.len() });
    };
    if version != known {
        return Err(WireError::Version { found: version, known });
    }
    let (value, used) = bincode::decode_from_slice(rest, format::<LIMIT>())
        .map_err(|error| WireError::Malformed(error.to_string()))?;
    match rest.len() - used {
        0 => Ok(value),
        left => Err(WireError::Trailing(left)),
    }
}

/// For golden bytes.
#[cfg(test)]
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 64;

    fn frame_of(value: &Vec<u8>) -> Vec<u8> {
        let mut out = Vec::new();
        encode_frame::<LIMIT>(value, &mut out).expect("it fits");
        out
    }

    #[test]
    fn golden_frame() {
        let out = frame_of(&vec![1, 2, 3]);
        assert_eq!(out[..4], [5, 0, 0, 0], "version, length, three bytes");
        assert_eq!(out[4..8], crc32c::crc32c(&[1, 3, 1, 2, 3]).to_le_bytes());
        assert_eq!(out[8..], [1, 3, 1, 2, 3]);
    }

    #[test]
    fn an_incomplete_frame_waits_at_every_length() {
        let whole = frame_of(&vec![7; 20]);
        for length in 0..whole.len() {
            let mut buffer = BytesMut::from(&whole[..length]);
            assert_eq!(decode_frame::<LIMIT, Vec<u8>>(&mut buffer), Ok(None), "{length}");
            assert_eq!(buffer.len(), length, "nothing may be taken");
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_the_body_is_there() {
        let mut buffer = BytesMut::from(&[255, 255, 255, 255, 0, 0, 0, 0][..]);
        let error = decode_frame::<LIMIT, Vec<u8>>(&mut buffer);
        assert_eq!(error, Err(WireError::TooLong { length: 0xFFFF_FFFF, limit: LIMIT }));
    }

    #[test]
    fn trailing_bytes_and_unknown_versions_are_refused() {
        assert_eq!(decode_body::<LIMIT, u8>(&[1, 9, 9]), Err(WireError::Trailing(1)));
        assert_eq!(decode_body::<LIMIT, u8>(&[]), Err(WireError::TooShort { length: 0 }));
        assert_eq!(
            decode_body::<LIMIT, u8>(&[2, 9]),
            Err(WireError::Version { found: 2, known: WIRE_VERSION })
        );
    }

    #[test]
    fn an_oversized_value_leaves_the_output_as_it_was() {
        let mut out = vec![42];
        let error = encode_frame::<LIMIT>(&vec![0_u8; 100], &mut out);
        assert!(matches!(error, Err(WireError::TooLong { .. })), "{error:?}");
        assert_eq!(out, [42]);
    }

    proptest! {
        #[test]
        fn a_flipped_bit_never_passes(at in 0_usize..31, bit in 0_u8..8) {
            let mut bytes = frame_of(&vec![7; 21]);
            bytes[at] ^= 1 << bit;
            let mut buffer = BytesMut::from(&bytes[..]);
            let decoded = decode_frame::<LIMIT, Vec<u8>>(&mut buffer);
            prop_assert!(!matches!(decoded, Ok(Some(_))));
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(value)) = decode_frame::<LIMIT, Vec<u8>>(&mut buffer) {
                prop_assert!(value.len() <= LIMIT);
            }
            let _ = decode_body::<LIMIT, Vec<u64>>(&bytes);
        }
    }
}
