//! Requests that are a line of words, as typed into a terminal.

use bytes::Bytes;

/// Splits a line into words; `None` if a quote isn't closed, or is followed by anything but a
/// space. In double quotes `\n \r \t \b \a \xHH` and `\` before any other byte are escapes, in
/// single quotes only `\'`.
pub(super) fn split(line: &[u8]) -> Option<Vec<Bytes>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        let start = rest.iter().position(|byte| !is_space(*byte));
        let Some(start) = start else { return Some(words) };
        let (word, after) = take_word(&rest[start..])?;
        words.push(Bytes::from(word));
        rest = after;
    }
}

fn take_word(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    loop {
        rest = match rest {
            [] => return Some((word, rest)),
            [byte, ..] if is_space(*byte) || *byte == 0 => return Some((word, &rest[1..])),
            [b'"', quoted @ ..] => end_of_quotes(take_double_quoted(quoted, &mut word)?)?,
            [b'\'', quoted @ ..] => end_of_quotes(take_single_quoted(quoted, &mut word)?)?,
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
        };
    }
}

fn end_of_quotes(after: &[u8]) -> Option<&[u8]> {
    after.first().is_none_or(|byte| is_space(*byte)).then_some(after)
}

fn take_double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [] => return None,
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push(hex(*high) << 4 | hex(*low));
                after
            }
            [b'\\', escaped, after @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                after
            }
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
        };
    }
}

fn take_single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [] => return None,
            [b'\\', b'\'', after @ ..] => {
                word.push(b'\'');
                after
            }
            [b'\'', after @ ..] => return Some(after),
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
        };
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}
