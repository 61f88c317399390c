//! The same commands to a real Redis server and to this crate: the replies must be equal, byte
//! for byte.
//!
//! Needs `redis-server` 7.0 or later in the path; without it these tests fail, unless
//! `QUORATE_WITHOUT_REDIS` is set.

#![expect(clippy::disallowed_methods, reason = "a real server has a real clock")]

mod cases;
mod model;
mod server;

use bytes::Bytes;
use model::Model;
use server::{Connection, Server, Value};

/// Runs each line on both sides.
fn compare(lines: impl IntoIterator<Item = String>) {
    let Some(server) = Server::start() else { return };
    let mut redis = server.connect();
    let mut model = Model::default();
    let mut differences = Vec::new();
    for line in lines {
        let argv = split(&line);
        let theirs = redis.command(&argv);
        let Some(ours) = model.command(&argv) else { continue };
        if !equal(&argv, &ours, &theirs) {
            differences.push(format!("{line}\n   ours: {ours:?}\n theirs: {theirs:?}"));
        }
    }
    let first: Vec<String> = differences.iter().take(20).cloned().collect();
    assert!(first.is_empty(), "{} differences:\n{}", differences.len(), first.join("\n"));
}

/// Words; `""` is an empty one, and `\x00` a byte.
fn split(line: &str) -> Vec<Bytes> {
    let words = line.split(' ').map(|word| match word {
        "\"\"" => Bytes::new(),
        word if word.starts_with("\\x") => {
            let hex = word.split("\\x").skip(1);
            hex.map(|digits| u8::from_str_radix(digits, 16).expect("a byte")).collect()
        }
        word => Bytes::copy_from_slice(word.as_bytes()),
    });
    words.collect()
}

/// Times may differ by what the comparison takes, walks by their order.
fn equal(argv: &[Bytes], ours: &Value, theirs: &Value) -> bool {
    let name = String::from_utf8_lossy(&argv[0]).to_ascii_lowercase();
    match (name.as_str(), ours, theirs) {
        ("ttl" | "pttl" | "expiretime" | "pexpiretime", Value::Integer(a), Value::Integer(b)) => {
            a == b || *a > 0 && *b > 0 && (a - b).abs() <= 5000
        }
        ("keys", Value::Array(a), Value::Array(b)) => sorted(a) == sorted(b),
        _ => ours == theirs,
    }
}

fn sorted(values: &[Value]) -> Vec<String> {
    let mut texts: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    texts.sort();
    texts
}

#[test]
fn edge_cases_are_answered_as_by_redis() {
    compare(cases::EDGE_CASES.lines().map(str::trim).filter(|l| !l.is_empty()).map(String::from));
}

#[test]
fn random_commands_are_answered_as_by_redis() {
    let mut random = cases::Random::new(20_260_101);
    let lines: Vec<String> = (0..30_000).map(|_| random.command()).collect();
    compare(lines);
}

#[test]
fn broken_requests_are_answered_as_by_redis() {
    let Some(server) = Server::start() else { return };
    for stream in cases::BROKEN_REQUESTS {
        let mut redis = server.connect();
        redis.send(stream);
        let theirs = redis.receive();
        let ours = model::protocol_error(stream);
        assert_eq!(ours, theirs, "{}", String::from_utf8_lossy(stream));
    }
}

#[test]
fn the_table_of_commands_says_what_redis_says() {
    let Some(server) = Server::start() else { return };
    let mut redis = server.connect();
    let mut compared = 0;
    let mut differences = Vec::new();
    for spec in
        quorate_protocol::command::all().flat_map(|s| std::iter::once(s).chain(s.subcommands))
    {
        let ours = model::command_info(spec.name);
        let argv =
            ["COMMAND", "INFO", spec.name].map(|word| Bytes::copy_from_slice(word.as_bytes()));
        let Value::Array(theirs) = redis.command(&argv) else { panic!("an array") };
        let Value::Array(theirs) = &theirs[0] else {
            assert!(cases::NEWER_THAN_REDIS_7_0.contains(&spec.name), "{} is unknown", spec.name);
            continue;
        };
        // Name, arity, flags, keys, categories, hints; not the subcommands.
        for (at, (ours, theirs)) in ours.iter().zip(theirs).take(8).enumerate() {
            if cases::as_set(ours) != cases::as_set(theirs) {
                differences.push(format!("{} at {at}: {ours:?}, {theirs:?}", spec.name));
            }
        }
        assert_eq!(cases::key_flags(&ours[8]), cases::key_flags(&theirs[8]), "{}", spec.name);
        compared += 1;
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(compared > 100);
}

#[test]
fn keys_are_found_as_by_redis() {
    let Some(server) = Server::start() else { return };
    let mut redis: Connection = server.connect();
    for line in cases::KEYED_COMMANDS {
        for form in ["GETKEYS", "GETKEYSANDFLAGS"] {
            let argv = split(&format!("COMMAND {form} {line}"));
            assert_eq!(model::catalog(&argv), redis.command(&argv), "{form} {line}");
        }
    }
}
