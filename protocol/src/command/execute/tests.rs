use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::{Moment, apply_payload, execute_read, execute_unit, execute_walk, watch};
use crate::command::batch::Encoder;
use crate::command::batch::tests::unit;
use crate::command::{
    Command, Exec, Lookup, MemoryKeyspace, Once, Read, Seen, Step, TOKEN_LIFE_MS, Unit, Write,
    parse, slot,
};
use crate::resp::{Protocol, Reply};
use crate::types::Seq;

/// A keyspace that takes commands as text, one entry each, at a time that the test sets.
struct Store {
    keyspace: MemoryKeyspace,
    now_ms: u64,
    seq: u64,
}

impl Store {
    fn new() -> Self {
        Self { keyspace: MemoryKeyspace::default(), now_ms: 1_000_000, seq: 0 }
    }

    fn run(&mut self, line: &str) -> Reply {
        let command = match parse(&mut words(line)) {
            Ok(command) => command,
            Err(error) => return error.to_reply(),
        };
        let result = match command {
            Command::Write(write) => {
                self.seq += 1;
                let at = Moment { now_ms: self.now_ms, seq: Seq(self.seq) };
                execute_unit(&Unit::Write(write), at, &mut self.keyspace)
            }
            Command::Read(Read::Walk(walk)) => execute_walk(&walk, self.now_ms, 7, &self.keyspace),
            Command::Read(read) => execute_read(&read, self.now_ms, &self.keyspace),
            Command::Transaction(_) | Command::Connection(_) => panic!("not a data command"),
        };
        match result {
            Ok(reply) => reply,
            Err(never) => match never {},
        }
    }

    /// Runs lines of `command => reply`, the reply as RESP2 with spaces for line breaks; and
    /// `sleep milliseconds`.
    fn script(&mut self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some(millis) = line.strip_prefix("sleep ") {
                self.now_ms += millis.parse::<u64>().expect("milliseconds");
                continue;
            }
            let (command, expected) = line.split_once(" => ").expect("a reply");
            let mut out = bytes::BytesMut::new();
            self.run(command).write(Protocol::Resp2, &mut out);
            let reply = String::from_utf8_lossy(&out).replace("\r\n", " ");
            assert_eq!(reply.trim_end(), expected, "{command}");
        }
    }
}

fn words(line: &str) -> Vec<Bytes> {
    line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
}

#[test]
fn strings_are_set_under_their_conditions() {
    Store::new().script(
        "
        SET k v => +OK
        GET k => $1 v
        SET k w NX => $-1
        SET k w XX GET => $1 v
        SET k x NX GET => $1 w
        GET k => $1 w
        SET k x IFEQ v => $-1
        SET k x IFEQ w => +OK
        SET none x XX => $-1
        SET none x IFEQ x => $-1
        GET none => $-1
        SETNX k y => :0
        SETNX n y => :1
        GETSET n z => $1 y
        GETDEL n => $1 z
        GETDEL n => $-1
        DEL k => :1
        MSET a 1 b 2 a 3 => +OK
        MGET a b c => *3 $1 3 $1 2 $-1
        MSETNX c 1 a 1 => :0
        MSETNX c 1 d 1 => :1
        DEL a b a nothing => :2
        EXISTS c c d => :3
        DBSIZE => :2
        DELIFEQ c 2 => :0
        DELIFEQ c 1 => :1
        FLUSHALL => +OK
        DBSIZE => :0
        ",
    );
}

#[test]
fn expired_keys_are_absent() {
    Store::new().script(
        "
        SET k v PX 100 => +OK
        PTTL k => :100
        TTL k => :0
        PEXPIRETIME k => :1000100
        SET k w KEEPTTL => +OK
        APPEND k x => :2
        sleep 100
        GET k => $2 wx
        sleep 1
        GET k => $-1
        EXISTS k => :0
        TTL k => :-2
        PERSIST k => :0
        DEL k => :0
        DBSIZE => :1
        SETNX k v => :1
        TTL k => :-1
        EXPIRE k 10 GT => :0
        EXPIRE k 10 LT => :1
        EXPIRE k 20 NX => :0
        EXPIRE k 20 GT => :1
        EXPIRE k 30 LT => :0
        EXPIRE k 30 XX => :1
        PEXPIREAT k 1 => :1
        EXISTS k => :0
        DBSIZE => :0
        SET k v PXAT 1 => +OK
        GET k => $-1
        SET k v => +OK
        GETEX k EX 100 => $1 v
        TTL k => :100
        GETEX k PERSIST => $1 v
        TTL k => :-1
        GETEX k EXAT 1 => $1 v
        GET k => $-1
        ",
    );
}

#[test]
fn numbers_are_counted_and_kept_in_bounds() {
    Store::new().script(
        "
        INCR n => :1
        INCRBY n 41 => :42
        DECRBY n 2 => :40
        DECR n => :39
        SET n 9223372036854775807 => +OK
        INCR n => -ERR increment or decrement would overflow
        GET n => $19 9223372036854775807
        SET n 1.5 => +OK
        INCR n => -ERR value is not an integer or out of range
        INCRBYFLOAT n 0.1 => $3 1.6
        INCRBYFLOAT n -1.6 => $1 0
        INCRBYFLOAT n inf => -ERR increment would produce NaN or Infinity
        INCRBYFLOAT n x => -ERR value is not a valid float
        SET n x => +OK
        INCRBYFLOAT n 1 => -ERR value is not a valid float
        ",
    );
}

#[test]
fn parts_of_values_are_read_and_written() {
    Store::new().script(
        "
        SET k HelloWorld => +OK
        GETRANGE k 0 4 => $5 Hello
        GETRANGE k -5 -1 => $5 World
        GETRANGE k -1 -5 => $0
        GETRANGE k 8 100 => $2 ld
        GETRANGE k 20 30 => $0
        SUBSTR k -100 0 => $1 H
        SETRANGE k 5 Redis => :10
        GET k => $10 HelloRedis
        SETRANGE k -1 x => -ERR offset is out of range
        SETRANGE k 16777216 x => -ERR string exceeds maximum allowed size (proto-max-bulk-len)
        SETRANGE pad 2 x => :3
        STRLEN pad => :3
        STRLEN none => :0
        APPEND k ! => :11
        ",
    );
}

#[test]
fn keys_are_renamed_and_copied_with_their_expiry() {
    Store::new().script(
        "
        SET a 1 PX 1000 => +OK
        RENAME a b => +OK
        PTTL b => :1000
        RENAME a b => -ERR no such key
        SET c 3 => +OK
        RENAMENX b c => :0
        RENAMENX b d => :1
        COPY d c => :0
        COPY d c REPLACE => :1
        PTTL c => :1000
        COPY none c REPLACE => :0
        COPY c c => -ERR source and destination objects are the same
        RENAME c c => +OK
        TYPE c => +string
        TYPE none => +none
        DBSIZE => :2
        ",
    );
}

#[test]
fn bits_are_set_counted_and_found() {
    Store::new().script(
        "
        SETBIT b 7 1 => :0
        SETBIT b 7 0 => :1
        SETBIT b 9 1 => :0
        GETBIT b 9 => :1
        GETBIT b 100 => :0
        STRLEN b => :2
        SET f foobar => +OK
        BITCOUNT f => :26
        BITCOUNT f 0 0 => :4
        BITCOUNT f 1 1 => :6
        BITCOUNT f 5 30 BIT => :17
        BITCOUNT none 0 -1 => :0
        BITPOS b 1 => :9
        BITPOS b 0 => :0
        BITPOS none 1 => :-1
        BITPOS none 0 => :0
        BITOP NOT d f => :6
        BITCOUNT d => :22
        BITOP AND d f b => :6
        BITOP OR d none => :0
        EXISTS d => :0
        ",
    );
}

#[test]
fn common_subsequences_are_found() {
    Store::new().script(
        "
        MSET a ohmytext b mynewtext => +OK
        LCS a b => $6 mytext
        LCS a b LEN => :6
        LCS a none => $0
        LCS a b IDX MINMATCHLEN 4 => *4 $7 matches *1 *2 *2 :4 :7 *2 :5 :8 $3 len :6
        ",
    );
}

#[test]
fn a_scan_meets_every_key_that_stays_once_and_ends() {
    let mut store = Store::new();
    for n in 0..500 {
        store.run(&format!("SET key:{n} v"));
    }
    let (mut cursor, mut found, mut calls) = ("0".to_owned(), Vec::new(), 0);
    loop {
        let reply = store.run(&format!("SCAN {cursor} COUNT 7 MATCH key:*"));
        let Reply::Array(parts) = reply else { panic!("an array") };
        let [Reply::Bulk(next), Reply::Array(keys)] = &parts[..] else { panic!("two parts") };
        found.extend(keys.iter().map(|key| format!("{key:?}")));
        cursor = String::from_utf8_lossy(next).into_owned();
        calls += 1;
        // What comes and goes meanwhile doesn't disturb it.
        store.run(&format!("SET other:{calls} v"));
        store.run(&format!("DEL other:{}", calls - 3));
        if cursor == "0" {
            break;
        }
        assert!(calls < 1000, "a scan ends");
    }
    found.sort();
    let all = found.len();
    found.dedup();
    assert_eq!((all, found.len()), (500, 500));
    let nothing = Reply::Array(vec![Reply::bulk("0"), Reply::Array(Vec::new())]);
    assert_eq!(store.run("SCAN 0 TYPE list COUNT 10000"), nothing);
    assert_eq!(store.run("SCAN 999999999999999"), nothing);
}

#[test]
fn slots_and_random_keys_are_answered() {
    let mut store = Store::new();
    store.script("RANDOMKEY => $-1");
    store.script("MSET {t}1 v {t}2 v foo v => +OK");
    store.script(&format!("CLUSTER COUNTKEYSINSLOT {} => :2", slot(b"t")));
    let Reply::Array(keys) = store.run(&format!("CLUSTER GETKEYSINSLOT {} 1", slot(b"t"))) else {
        panic!("an array")
    };
    assert_eq!(keys.len(), 1);
    assert!(matches!(store.run("RANDOMKEY"), Reply::Bulk(_)));
    store.script("KEYS f?o => *1 $3 foo");
}

#[test]
fn a_transaction_happens_as_a_whole_or_not_at_all() {
    let mut store = Store::new();
    store.run("SET k 1");
    let at = |seq| Moment { now_ms: 1, seq: Seq(seq) };
    let steps = vec![
        Step::Write(Write::IncrBy { key: "k".into(), delta: 1 }),
        Step::Read(Read::Get { key: "k".into() }),
    ];
    let seen = watch("k".into(), 1, Seq(1), &store.keyspace).expect("in memory");
    assert_eq!(seen.seen, Seen::Version(Seq(1)));
    let exec = Unit::Exec(Exec { watches: vec![seen], steps });
    let done = Reply::Array(vec![Reply::Integer(2), Reply::bulk("2")]);
    assert_eq!(execute_unit(&exec, at(2), &mut store.keyspace), Ok(done));
    assert_eq!(execute_unit(&exec, at(3), &mut store.keyspace), Ok(Reply::NullArray));
    assert_eq!(store.run("GET k"), Reply::bulk("2"));
}

#[test]
fn a_watched_absent_key_that_came_and_went_counts_as_changed() {
    let mut store = Store::new();
    let absent = watch("k".into(), 1, Seq(0), &store.keyspace).expect("in memory");
    let exec = Unit::Exec(Exec { watches: vec![absent], steps: Vec::new() });
    let at = Moment { now_ms: 1, seq: Seq(9) };
    let done = Ok(Reply::Array(Vec::new()));
    assert_eq!(execute_unit(&exec, at, &mut store.keyspace), done);
    store.run("SET k v");
    assert_eq!(execute_unit(&exec, at, &mut store.keyspace), Ok(Reply::NullArray));
    store.run("DEL k");
    assert_eq!(execute_unit(&exec, at, &mut store.keyspace), Ok(Reply::NullArray));
}

#[test]
fn replicas_reach_the_same_state_without_replies() {
    let mut encoder = Encoder::new();
    for line in ["SET a 1 EX 10", "INCRBY a 5", "APPEND a x", "RENAME a b", "INCRBYFLOAT c 0.1"] {
        let Ok(Command::Write(write)) = parse(&mut words(line)) else { panic!("a write") };
        encoder.write(&write);
        encoder.read(&Read::DbSize);
    }
    let batch = encoder.finish();
    let payload = Bytes::from([&batch.bytes[..], &batch.bytes[..]].concat());
    let (mut primary, mut replica) = (MemoryKeyspace::default(), MemoryKeyspace::default());
    let at = Moment { now_ms: 5, seq: Seq(3) };
    let mut replies = Vec::new();
    apply_payload(&payload, at, &mut primary, Some(&mut replies)).expect("applied");
    apply_payload(&payload, at, &mut replica, None).expect("applied");
    assert_eq!(primary, replica);
    assert_eq!(replies.len(), 2 * batch.count as usize);
}

#[test]
fn reads_are_refused_once_the_replies_are_too_large() {
    let mut store = Store::new();
    store.run(&format!("SET k {}", "x".repeat(1 << 20)));
    let mut encoder = Encoder::new();
    encoder.read(&Read::MGet { keys: vec!["k".into(); 257] });
    for _ in 0..257 {
        encoder.read(&Read::Get { key: "k".into() });
    }
    encoder.write(&Write::GetDel { key: "k".into() });
    encoder.read(&Read::Get { key: "k".into() });
    let at = Moment { now_ms: 1, seq: Seq(2) };
    let mut replies = Vec::new();
    let payload = encoder.finish().bytes;
    apply_payload(&payload, at, &mut store.keyspace, Some(&mut replies)).expect("applied");
    assert!(matches!(replies[0], Reply::Error(_)));
    assert!(replies[1..=258].iter().all(|reply| matches!(reply, Reply::Bulk(_))));
    assert!(matches!(replies[259], Reply::Error(_)));
}

/// Words that commands are made of, so that random lines get far.
fn word() -> impl Strategy<Value = Bytes> {
    let names: Vec<&'static str> = crate::command::all()
        .flat_map(|spec| std::iter::once(spec).chain(spec.subcommands))
        .map(|spec| spec.name.rsplit('|').next().unwrap_or_default())
        .collect();
    let words = vec![
        "k",
        "1",
        "0",
        "-1",
        "9223372036854775807",
        "-9223372036854775808",
        "1e4932",
        "inf",
        "EX",
        "PX",
        "NX",
        "XX",
        "GET",
        "KEEPTTL",
        "GT",
        "LT",
        "MATCH",
        "COUNT",
        "TYPE",
        "AUTH",
        "SETNAME",
        "BIT",
        "AND",
        "NOT",
        "IDX",
        "ID",
        "TOKEN",
        "LEASE",
        "MAXLAG",
        "FILTERBY",
        "PATTERN",
    ];
    prop_oneof![
        2 => prop::sample::select(names).prop_map(|text| Bytes::from_static(text.as_bytes())),
        3 => prop::sample::select(words).prop_map(|text| Bytes::from_static(text.as_bytes())),
        1 => vec(any::<u8>(), 0..6).prop_map(Bytes::from),
    ]
}

proptest! {
    #[test]
    fn any_units_can_be_executed(units in vec((unit(), any::<u64>()), 1..12)) {
        let mut keyspace = MemoryKeyspace::default();
        for (seq, (unit, now_ms)) in units.iter().enumerate() {
            let at = Moment { now_ms: *now_ms, seq: Seq(seq as u64) };
            execute_unit(unit, at, &mut keyspace).expect("in memory");
        }
    }

    #[test]
    fn any_words_are_a_command_or_an_error(mut argv in vec(word(), 0..7)) {
        match parse(&mut argv) {
            Ok(Command::Write(write)) => {
                let mut encoder = Encoder::new();
                encoder.write(&write);
                let payload = encoder.finish().bytes;
                let at = Moment { now_ms: 5, seq: Seq(1) };
                apply_payload(&payload, at, &mut MemoryKeyspace::default(), None)?;
            }
            Ok(Command::Read(Read::Walk(walk))) => {
                execute_walk(&walk, 5, 9, &MemoryKeyspace::default()).expect("in memory");
            }
            Ok(Command::Read(read)) => {
                execute_read(&read, 5, &MemoryKeyspace::default()).expect("in memory");
            }
            Ok(Command::Connection(_) | Command::Transaction(_)) => {}
            Err(error) => prop_assert!(error.to_string().contains(' ')),
        }
    }
}

fn once(token: &'static str, line: &str) -> Unit {
    let Ok(Command::Write(write)) = parse(&mut words(line)) else { panic!("{line} is a write") };
    Unit::Once(Once { token: token.into(), unit: Box::new(Unit::Write(write)) })
}

#[test]
fn a_write_with_a_known_token_is_answered_and_not_carried_out() {
    let mut keyspace = MemoryKeyspace::default();
    let mut run = |unit: &Unit, now_ms, seq| {
        let at = Moment { now_ms, seq: Seq(seq) };
        let Ok(reply) = execute_unit(unit, at, &mut keyspace);
        reply
    };
    assert_eq!(run(&once("a", "INCR n"), 1_000, 1), Reply::Integer(1));
    assert_eq!(run(&once("a", "INCR n"), 2_000, 2), Reply::Integer(1));
    // The token decides, whatever comes with it.
    assert_eq!(run(&once("a", "SET n 70"), 2_000, 3), Reply::Integer(1));
    assert_eq!(run(&once("b", "INCR n"), 3_000, 4), Reply::Integer(2));
    // What failed on its own condition was carried out, too.
    assert_eq!(run(&once("c", "SET n 9 NX"), 3_000, 5), Reply::Null);
    assert_eq!(run(&once("c", "SET n 9"), 3_000, 6), Reply::Null);
    let (last, later) = (1_000 + TOKEN_LIFE_MS, 1_001 + TOKEN_LIFE_MS);
    assert_eq!(run(&once("a", "INCR n"), last, 7), Reply::Integer(1));
    assert_eq!(run(&once("a", "INCR n"), later, 8), Reply::error("ERR token expired"));
    assert_eq!(run(&once("d", "INCR n"), later, 9), Reply::Integer(3));
}

/// Nodes that don't answer remember the same as the one that does.
#[test]
fn what_is_remembered_does_not_depend_on_who_answers() {
    let Ok(Command::Read(read)) = parse(&mut words("GET k")) else { panic!("a read") };
    let Ok(Command::Write(write)) = parse(&mut words("SET k v")) else { panic!("a write") };
    let steps = vec![Step::Write(write), Step::Read(read)];
    let exec = Unit::Exec(Exec { watches: Vec::new(), steps });
    let mut encoder = Encoder::new();
    encoder.unit(&Unit::Once(Once { token: "t".into(), unit: Box::new(exec) }));
    let payload = encoder.finish().bytes;
    let at = Moment { now_ms: 5, seq: Seq(1) };
    let (mut primary, mut replica) = (MemoryKeyspace::default(), MemoryKeyspace::default());
    let mut replies = Vec::new();
    apply_payload(&payload, at, &mut primary, Some(&mut replies)).expect("it is well-formed");
    apply_payload(&payload, at, &mut replica, None).expect("it is well-formed");
    assert_eq!(primary, replica);
    let Ok(known) = primary.token(b"t");
    assert_eq!(replies, [known.expect("it is remembered").reply(5)]);
}
