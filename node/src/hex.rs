//! 32 bytes as 64 hex digits.

use std::fmt::Write as _;

/// As lower-case digits.
pub(crate) fn encode(bytes: &[u8; 32]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string doesn't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// From exactly 64 digits.
pub(crate) fn decode(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_round_trip_and_nothing_else_is_read() {
        let bytes = std::array::from_fn(|index| index as u8 * 7);
        assert_eq!(decode(&encode(&bytes)), Some(bytes));
        for wrong in ["", "ab", &"g".repeat(64), &"+a".repeat(32), &"a".repeat(65)] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }
}
