use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

use super::{Limits, ProtocolError, RequestParser};

const LIMITS: Limits = Limits { arguments_max: 100, bulk_bytes_max: 1000, request_bytes_max: 2000 };

/// All requests of a stream that arrives in these pieces, and how it ended.
fn requests(
    pieces: impl IntoIterator<Item = impl AsRef<[u8]>>,
) -> (Vec<Vec<Bytes>>, Result<(), ProtocolError>) {
    let mut parser = RequestParser::new(LIMITS);
    parser.set_authenticated(true);
    let (mut input, mut argv, mut requests) = (BytesMut::new(), Vec::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece.as_ref());
        loop {
            match parser.parse(&mut input, &mut argv) {
                Ok(true) => requests.push(argv.clone()),
                Ok(false) => break,
                Err(error) => return (requests, Err(error)),
            }
        }
    }
    (requests, Ok(()))
}

fn error_of(input: &[u8]) -> String {
    requests([input]).1.expect_err("an error").to_string()
}

fn encode(request: &[Vec<u8>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", request.len()).into_bytes();
    for argument in request {
        out.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn request() -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec(vec(any::<u8>(), 0..30), 1..6)
}

/// Bytes that look like the protocol, and some that don't.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        Just(b"*1\r\n".to_vec()),
        Just(b"*2\r\n$3\r\n".to_vec()),
        Just(b"$4\r\nPING\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"*-1\r\n".to_vec()),
        Just(b"$-1\r\n".to_vec()),
        Just(b"GET \"a\\x41\" 'b'\n".to_vec()),
        Just(b"\"".to_vec()),
        vec(any::<u8>(), 0..8),
    ];
    vec(token, 0..12).prop_map(|tokens| tokens.concat())
}

fn cut<'a>(stream: &'a [u8], at: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = at.iter().map(|index| index.index(stream.len() + 1)).collect();
    cuts.extend([0, stream.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn requests_survive_the_round_trip_in_any_pieces(
        sent in vec(request(), 0..6), cuts in vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let stream: Vec<u8> = sent.iter().flat_map(|request| encode(request)).collect();
        let (received, end) = requests(cut(&stream, &cuts));
        prop_assert_eq!(end, Ok(()));
        let sent: Vec<Vec<Bytes>> =
            sent.into_iter().map(|r| r.into_iter().map(Bytes::from).collect()).collect();
        prop_assert_eq!(received, sent);
    }

    #[test]
    fn pieces_change_nothing(
        stream in noise(), cuts in vec(any::<prop::sample::Index>(), 0..10),
    ) {
        prop_assert_eq!(requests(cut(&stream, &cuts)), requests(stream.chunks(1)));
        prop_assert_eq!(requests(cut(&stream, &cuts)), requests([&stream[..]]));
    }
}

#[test]
fn errors_have_the_texts_of_redis() {
    for (input, text) in [
        ("*x\r\n", "Protocol error: invalid multibulk length"),
        ("*101\r\n", "Protocol error: invalid multibulk length"),
        ("*1\r\n+4\r\n", "Protocol error: expected '$', got '+'"),
        ("*1\r\n$-1\r\n", "Protocol error: invalid bulk length"),
        ("*1\r\n$1001\r\n", "Protocol error: invalid bulk length"),
        ("*1\r\n$x\r\n", "Protocol error: invalid bulk length"),
        ("GET \"a\r\n", "Protocol error: unbalanced quotes in request"),
        ("GET \"a\"b\r\n", "Protocol error: unbalanced quotes in request"),
    ] {
        assert_eq!(error_of(input.as_bytes()), text, "{input}");
    }
    let long = vec![b'1'; 70_000];
    assert_eq!(error_of(&long), "Protocol error: too big inline request");
    assert_eq!(error_of(&[b"*", &long[..]].concat()), "Protocol error: too big mbulk count string");
    assert_eq!(
        error_of(&[b"*1\r\n$", &long[..]].concat()),
        "Protocol error: too big bulk count string"
    );
    let arguments = vec![vec![b'x'; 900]; 3];
    assert_eq!(error_of(&encode(&arguments)), "Protocol error: too big request");
}

#[test]
fn before_authentication_little_is_accepted() {
    let parse = |stream: &[u8]| {
        let mut parser = RequestParser::new(Limits::default());
        parser.parse(&mut BytesMut::from(stream), &mut Vec::new())
    };
    assert_eq!(parse(&encode(&vec![b"x".to_vec(); 10])), Ok(true));
    assert_eq!(parse(b"*11\r\n"), Err(ProtocolError::UnauthenticatedMultibulkLength));
    assert_eq!(parse(b"*1\r\n$16384\r\n"), Ok(false));
    assert_eq!(parse(b"*1\r\n$16385\r\n"), Err(ProtocolError::UnauthenticatedBulkLength));
}

#[test]
fn empty_requests_are_passed_over() {
    let (received, end) = requests([&b"\r\n*0\r\n*-1\r\n  \r\nPING\r\n"[..]]);
    assert_eq!((received, end), (vec![vec![Bytes::from("PING")]], Ok(())));
}

#[test]
fn inline_words_may_be_quoted() {
    let line = b"set 'a\\'b' \"x\\x41\\n\\\"\" \"\" plain\n";
    let (received, _) = requests([&line[..]]);
    assert_eq!(received, [["set", "a'b", "xA\n\"", "", "plain"]]);
}

#[test]
fn an_announced_length_takes_no_memory() {
    let mut parser = RequestParser::new(Limits::default());
    parser.set_authenticated(true);
    let mut input = BytesMut::from(&b"*1048576\r\n$16777216\r\nabc"[..]);
    assert_eq!(parser.parse(&mut input, &mut Vec::new()), Ok(false));
    assert!(parser.wanted(&input) <= 64 << 10);
    assert!(input.capacity() < 1024);
}
