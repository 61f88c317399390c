//! Replies to bytes.

use bytes::{BufMut, BytesMut};

use super::Reply;
use crate::command::number::print_u64;

/// The protocol that a connection speaks, chosen by `HELLO`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// What every connection starts with.
    #[default]
    Resp2,
    /// Has maps, sets, doubles, booleans and out-of-band messages.
    Resp3,
}

impl Reply {
    /// Appends the reply's bytes. Line breaks in simple strings and errors become spaces, so
    /// that no text can break the framing.
    pub fn write(&self, protocol: Protocol, out: &mut BytesMut) {
        match self {
            Self::Simple(text) => write_line(out, b'+', text),
            Self::Error(text) => write_line(out, b'-', text),
            Self::Integer(value) => write_integer(out, *value),
            Self::Bulk(data) => write_bulk(out, data),
            Self::Null => out.put_slice(match protocol {
                Protocol::Resp2 => b"$-1\r\n",
                Protocol::Resp3 => b"_\r\n",
            }),
            Self::NullArray => out.put_slice(match protocol {
                Protocol::Resp2 => b"*-1\r\n",
                Protocol::Resp3 => b"_\r\n",
            }),
            Self::Array(items) => write_items(out, b'*', items, protocol),
            Self::Map(pairs) => {
                match protocol {
                    Protocol::Resp2 => write_header(out, b'*', pairs.len() * 2),
                    Protocol::Resp3 => write_header(out, b'%', pairs.len()),
                }
                for (key, value) in pairs {
                    key.write(protocol, out);
                    value.write(protocol, out);
                }
            }
            Self::Set(items) => write_items(out, aggregate(protocol, b'~'), items, protocol),
            Self::Push(items) => write_items(out, aggregate(protocol, b'>'), items, protocol),
            Self::Double(value) => match protocol {
                Protocol::Resp2 => write_bulk(out, format_double(*value).as_bytes()),
                Protocol::Resp3 => write_line(out, b',', &format_double(*value)),
            },
            Self::Boolean(value) => out.put_slice(match (protocol, value) {
                (Protocol::Resp2, false) => b":0\r\n",
                (Protocol::Resp2, true) => b":1\r\n",
                (Protocol::Resp3, false) => b"#f\r\n",
                (Protocol::Resp3, true) => b"#t\r\n",
            }),
            Self::Verbatim(format, text) => match protocol {
                Protocol::Resp2 => write_bulk(out, text),
                Protocol::Resp3 => {
                    write_header(out, b'=', text.len() + 4);
                    out.put_slice(format.as_bytes());
                    out.put_u8(b':');
                    out.put_slice(text);
                    out.put_slice(b"\r\n");
                }
            },
        }
    }
}

fn aggregate(protocol: Protocol, resp3: u8) -> u8 {
    match protocol {
        Protocol::Resp2 => b'*',
        Protocol::Resp3 => resp3,
    }
}

fn write_items(out: &mut BytesMut, kind: u8, items: &[Reply], protocol: Protocol) {
    write_header(out, kind, items.len());
    for item in items {
        item.write(protocol, out);
    }
}

fn write_line(out: &mut BytesMut, kind: u8, text: &str) {
    out.reserve(text.len() + 3);
    out.put_u8(kind);
    if text.bytes().any(|byte| matches!(byte, b'\r' | b'\n')) {
        out.extend(text.bytes().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { b }));
    } else {
        out.put_slice(text.as_bytes());
    }
    out.put_slice(b"\r\n");
}

fn write_integer(out: &mut BytesMut, value: i64) {
    out.put_u8(b':');
    if value < 0 {
        out.put_u8(b'-');
    }
    out.put_slice(print_u64(value.unsigned_abs(), &mut [0; 20]));
    out.put_slice(b"\r\n");
}

fn write_bulk(out: &mut BytesMut, data: &[u8]) {
    out.reserve(data.len() + 16);
    write_header(out, b'$', data.len());
    out.put_slice(data);
    out.put_slice(b"\r\n");
}

fn write_header(out: &mut BytesMut, kind: u8, len: usize) {
    out.put_u8(kind);
    out.put_slice(print_u64(len as u64, &mut [0; 20]));
    out.put_slice(b"\r\n");
}

/// The shortest text that reads as the same double; an exponent only for very large and very
/// small ones.
fn format_double(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let magnitude = value.abs();
    if value == 0.0 || (1e-5..1e17).contains(&magnitude) {
        return value.to_string();
    }
    let text = format!("{value:e}");
    if magnitude >= 1.0 { text.replace('e', "e+") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(reply: &Reply, protocol: Protocol) -> String {
        let mut out = BytesMut::new();
        reply.write(protocol, &mut out);
        String::from_utf8(out.to_vec()).expect("text")
    }

    #[test]
    fn each_type_has_its_form_in_both_protocols() {
        let items = || vec![Reply::Integer(1), Reply::Null];
        for (reply, resp2, resp3) in [
            (Reply::OK, "+OK\r\n", "+OK\r\n"),
            (Reply::error("ERR a\r\nb"), "-ERR a  b\r\n", "-ERR a  b\r\n"),
            (Reply::Integer(i64::MIN), ":-9223372036854775808\r\n", ":-9223372036854775808\r\n"),
            (Reply::bulk("a\r\nb"), "$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n"),
            (Reply::Null, "$-1\r\n", "_\r\n"),
            (Reply::NullArray, "*-1\r\n", "_\r\n"),
            (Reply::Array(items()), "*2\r\n:1\r\n$-1\r\n", "*2\r\n:1\r\n_\r\n"),
            (Reply::Set(items()), "*2\r\n:1\r\n$-1\r\n", "~2\r\n:1\r\n_\r\n"),
            (Reply::Push(items()), "*2\r\n:1\r\n$-1\r\n", ">2\r\n:1\r\n_\r\n"),
            (
                Reply::Map(vec![(Reply::Integer(1), Reply::OK)]),
                "*2\r\n:1\r\n+OK\r\n",
                "%1\r\n:1\r\n+OK\r\n",
            ),
            (Reply::Double(1.5), "$3\r\n1.5\r\n", ",1.5\r\n"),
            (Reply::Boolean(true), ":1\r\n", "#t\r\n"),
            (Reply::Verbatim("txt", "ab".into()), "$2\r\nab\r\n", "=6\r\ntxt:ab\r\n"),
        ] {
            assert_eq!(written(&reply, Protocol::Resp2), resp2);
            assert_eq!(written(&reply, Protocol::Resp3), resp3);
        }
    }

    #[test]
    fn doubles_are_short() {
        for (value, text) in [
            (0.1, "0.1"),
            (3.0, "3"),
            (-0.5, "-0.5"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
            (1e300, "1e+300"),
            (1.5e-9, "1.5e-9"),
        ] {
            assert_eq!(format_double(value), text);
        }
    }
}
