//! Numbers as Redis reads and prints them.

use bytes::Bytes;

/// An integer in its one canonical form: no sign but a minus, no leading zeros, no spaces.
#[must_use]
pub(crate) fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let magnitude = parse_u64(digits)?;
    match (negative, magnitude) {
        (true, 0) => None,
        (true, _) if magnitude == 1 << 63 => Some(i64::MIN),
        (true, _) => i64::try_from(magnitude).ok().map(|value| -value),
        (false, _) => i64::try_from(magnitude).ok(),
    }
}

/// As [`parse_i64`] for a number without a sign.
#[must_use]
pub(crate) fn parse_u64(digits: &[u8]) -> Option<u64> {
    match digits {
        [b'0'] => return Some(0),
        [] | [b'0', ..] => return None,
        _ if digits.len() > 20 => return None,
        _ => {}
    }
    digits.iter().try_fold(0u64, |value, &digit| {
        let digit = digit.checked_sub(b'0').filter(|&digit| digit <= 9)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// An integer as text.
#[must_use]
pub(crate) fn format_i64(value: i64) -> Bytes {
    let mut buffer = [0; 20];
    let digits = print_u64(value.unsigned_abs(), &mut buffer);
    let mut text = Vec::with_capacity(digits.len() + 1);
    if value < 0 {
        text.push(b'-');
    }
    text.extend_from_slice(digits);
    text.into()
}

/// Prints an integer into `buffer`, and answers the part that was used.
pub(crate) fn print_u64(mut value: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return &buffer[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_integers_are_read() {
        for (text, value) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("99999999999999999999999", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("01", None),
            ("+1", None),
            (" 1", None),
            ("1 ", None),
            ("1.0", None),
        ] {
            assert_eq!(parse_i64(text.as_bytes()), value, "{text}");
        }
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"18446744073709551616"), None);
    }

    #[test]
    fn integers_are_printed_as_std_prints_them() {
        for value in [0, 1, 9, 10, 99, 12345, u64::MAX] {
            assert_eq!(print_u64(value, &mut [0; 20]), value.to_string().as_bytes());
        }
        for value in [0, -1, 42, i64::MIN, i64::MAX] {
            assert_eq!(format_i64(value), value.to_string().as_bytes());
        }
    }
}
