//! Replies as values, and their parser.

use std::fmt;

use thiserror::Error;

/// Longest bulk string that the parser accepts, in bytes.
const BULK_BYTES_MAX: usize = 64 << 20;
/// Most elements of one aggregate.
const AGGREGATE_COUNT_MAX: usize = 1 << 22;
/// Deepest nesting of aggregates.
const DEPTH_MAX: usize = 16;

/// One reply. The three ways to say "nothing" are kept apart.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// `+text`
    Simple(String),
    /// `-CODE text`, or a RESP3 bulk error.
    Error(String),
    /// `:n`
    Integer(i64),
    /// `$n` bytes.
    Bulk(Vec<u8>),
    /// `$-1`
    NullBulk,
    /// `*-1`
    NullArray,
    /// `_`
    Null,
    /// `*n`
    Array(Vec<Value>),
    /// `%n`
    Map(Vec<(Value, Value)>),
    /// `~n`
    Set(Vec<Value>),
    /// `,text`: the digits as sent.
    Double(String),
    /// `#t` or `#f`
    Boolean(bool),
    /// `(digits`
    BigNumber(String),
    /// `=n`, with its three-letter format.
    Verbatim(String, Vec<u8>),
    /// `>n`
    Push(Vec<Value>),
}

impl Value {
    /// Whether this is one of the three ways to say "nothing".
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::NullBulk | Self::NullArray | Self::Null)
    }

    /// The bytes of a string of any kind.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bulk(bytes) | Self::Verbatim(_, bytes) => Some(bytes),
            Self::Simple(text) => Some(text.as_bytes()),
            _ => None,
        }
    }

    /// The elements of an array, a set or a push.
    #[must_use]
    pub fn elements(&self) -> Option<&[Value]> {
        match self {
            Self::Array(elements) | Self::Set(elements) | Self::Push(elements) => Some(elements),
            _ => None,
        }
    }

    /// The text of an error.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Error(text) => Some(text),
            _ => None,
        }
    }

    /// The first word of an error.
    #[must_use]
    pub fn error_code(&self) -> Option<&str> {
        self.error().map(|text| text.split(' ').next().unwrap_or_default())
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simple(text) => write!(f, "+{text}"),
            Self::Error(text) => write!(f, "-{text}"),
            Self::Integer(number) => write!(f, ":{number}"),
            Self::Bulk(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Self::NullBulk => f.write_str("$-1"),
            Self::NullArray => f.write_str("*-1"),
            Self::Null => f.write_str("_"),
            Self::Array(elements) => f.debug_list().entries(elements).finish(),
            Self::Map(pairs) => {
                f.write_str("%")?;
                f.debug_map().entries(pairs.iter().map(|(key, value)| (key, value))).finish()
            }
            Self::Set(elements) => {
                f.write_str("~")?;
                f.debug_list().entries(elements).finish()
            }
            Self::Double(text) => write!(f, ",{text}"),
            Self::Boolean(flag) => write!(f, "#{flag}"),
            Self::BigNumber(text) => write!(f, "({text}"),
            Self::Verbatim(format, bytes) => write!(f, "={format}:{}", bytes.escape_ascii()),
            Self::Push(elements) => {
                f.write_str(">")?;
                f.debug_list().entries(elements).finish()
            }
        }
    }
}

/// The server sent something that is no RESP.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("malformed reply: {0}")]
pub struct MalformedReply(String);

/// Parses one reply at the start of `input`.
///
/// Returns the reply and the number of bytes that it took, or `None` while it is incomplete.
///
/// # Errors
///
/// The bytes can't become a reply, whatever follows.
pub fn parse(input: &[u8]) -> Result<Option<(Value, usize)>, MalformedReply> {
    let mut reader = Reader { input, position: 0 };
    Ok(reader.value(0)?.map(|value| (value, reader.position)))
}

struct Reader<'a> {
    input: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Result<Option<Value>, MalformedReply> {
        if depth > DEPTH_MAX {
            return Err(MalformedReply("nested too deeply".into()));
        }
        let Some(line) = self.line() else { return Ok(None) };
        let Some((&kind, rest)) = line.split_first() else {
            return Err(MalformedReply("empty line".into()));
        };
        let text = || String::from_utf8_lossy(rest).into_owned();
        Ok(Some(match kind {
            b'+' => Value::Simple(text()),
            b'-' => Value::Error(text()),
            b':' => Value::Integer(number(rest)?),
            b'_' => Value::Null,
            b',' => Value::Double(text()),
            b'(' => Value::BigNumber(text()),
            b'#' => Value::Boolean(rest == b"t"),
            b'$' if rest == b"-1" => Value::NullBulk,
            b'*' if rest == b"-1" => Value::NullArray,
            b'$' | b'!' | b'=' => {
                let Some(bytes) = self.bulk(length(rest, BULK_BYTES_MAX)?)? else {
                    return Ok(None);
                };
                match kind {
                    b'$' => Value::Bulk(bytes),
                    b'!' => Value::Error(String::from_utf8_lossy(&bytes).into_owned()),
                    _ => verbatim(&bytes)?,
                }
            }
            b'*' | b'~' | b'>' => {
                let count = length(rest, AGGREGATE_COUNT_MAX)?;
                let Some(elements) = self.values(count, depth)? else { return Ok(None) };
                match kind {
                    b'*' => Value::Array(elements),
                    b'~' => Value::Set(elements),
                    _ => Value::Push(elements),
                }
            }
            b'%' => {
                let count = length(rest, AGGREGATE_COUNT_MAX)? * 2;
                let Some(flat) = self.values(count, depth)? else { return Ok(None) };
                let mut flat = flat.into_iter();
                let mut pairs = Vec::new();
                while let (Some(key), Some(value)) = (flat.next(), flat.next()) {
                    pairs.push((key, value));
                }
                Value::Map(pairs)
            }
            other => {
                return Err(MalformedReply(format!("unknown kind {:?}", char::from(other))));
            }
        }))
    }

    fn values(&mut self, count: usize, depth: usize) -> Result<Option<Vec<Value>>, MalformedReply> {
        let mut values = Vec::new();
        for _ in 0..count {
            let Some(value) = self.value(depth + 1)? else { return Ok(None) };
            values.push(value);
        }
        Ok(Some(values))
    }

    fn line(&mut self) -> Option<&'a [u8]> {
        let rest = &self.input[self.position..];
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        self.position += end + 2;
        Some(&rest[..end])
    }

    fn bulk(&mut self, length: usize) -> Result<Option<Vec<u8>>, MalformedReply> {
        let rest = &self.input[self.position..];
        if rest.len() < length + 2 {
            return Ok(None);
        }
        if &rest[length..length + 2] != b"\r\n" {
            return Err(MalformedReply("bulk string without its end".into()));
        }
        self.position += length + 2;
        Ok(Some(rest[..length].to_vec()))
    }
}

fn number(digits: &[u8]) -> Result<i64, MalformedReply> {
    std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
        MalformedReply(format!("not a number: {:?}", digits.escape_ascii().to_string()))
    })
}

fn length(digits: &[u8], limit: usize) -> Result<usize, MalformedReply> {
    let value = number(digits)?;
    usize::try_from(value)
        .ok()
        .filter(|length| *length <= limit)
        .ok_or_else(|| MalformedReply(format!("length {value} is out of bounds")))
}

fn verbatim(bytes: &[u8]) -> Result<Value, MalformedReply> {
    match bytes.split_at_checked(4) {
        Some((format, rest)) if format[3] == b':' => {
            Ok(Value::Verbatim(String::from_utf8_lossy(&format[..3]).into_owned(), rest.to_vec()))
        }
        _ => Err(MalformedReply("verbatim string without a format".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(input: &[u8]) -> Value {
        let (value, used) = parse(input).expect("well formed").expect("complete");
        assert_eq!(used, input.len());
        value
    }

    #[test]
    fn every_kind_is_read() {
        assert_eq!(whole(b"+OK\r\n"), Value::Simple("OK".into()));
        assert_eq!(whole(b"-ERR no\r\n").error_code(), Some("ERR"));
        assert_eq!(whole(b":-42\r\n"), Value::Integer(-42));
        assert_eq!(whole(b"$5\r\na\r\nbc\r\n"), Value::Bulk(b"a\r\nbc".to_vec()));
        assert_eq!(whole(b"$-1\r\n"), Value::NullBulk);
        assert_eq!(whole(b"*-1\r\n"), Value::NullArray);
        assert_eq!(whole(b"_\r\n"), Value::Null);
        assert_eq!(whole(b"#t\r\n"), Value::Boolean(true));
        assert_eq!(whole(b",1.5\r\n"), Value::Double("1.5".into()));
        assert_eq!(whole(b"=7\r\ntxt:abc\r\n"), Value::Verbatim("txt".into(), b"abc".to_vec()));
        assert_eq!(
            whole(b"%1\r\n+k\r\n*2\r\n:1\r\n$0\r\n\r\n"),
            Value::Map(vec![(
                Value::Simple("k".into()),
                Value::Array(vec![Value::Integer(1), Value::Bulk(Vec::new())])
            )])
        );
    }

    #[test]
    fn a_reply_cut_anywhere_is_incomplete() {
        let input = b"*3\r\n$3\r\nfoo\r\n%1\r\n+a\r\n:1\r\n-ERR x y\r\n";
        for end in 0..input.len() {
            assert_eq!(parse(&input[..end]), Ok(None), "cut at {end}");
        }
        whole(input);
    }

    #[test]
    fn nonsense_is_refused() {
        for input in [
            &b"hello\r\n"[..],
            b"\r\n",
            b":x\r\n",
            b"$99999999999\r\n",
            b"$-7\r\n",
            b"$1\r\nabc\r\n",
        ] {
            assert!(parse(input).is_err(), "{}", input.escape_ascii());
        }
        assert!(parse(&b"*1\r\n".repeat(64)).is_err());
    }
}
