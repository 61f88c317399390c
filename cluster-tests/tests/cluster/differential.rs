//! Commands and their replies, compared with a real Redis server's.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use quorate_cluster_tests::harness::{Cluster, RedisServer, work_dir};
use quorate_cluster_tests::resp::{Client, Value};

const REPLY_LIMIT: Duration = Duration::from_secs(10);
/// How far apart two servers' remaining times may be, in milliseconds.
const TIME_TOLERANCE: i64 = 1500;
/// Differences that are printed before giving up.
const SHOWN_MAX: usize = 40;

/// How two replies are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Exact,
    AboutEqual,
    Kind,
    AnyOrder,
}

struct Pair {
    redis: Client,
    node: Client,
    differences: String,
    count: usize,
}

impl Pair {
    fn connect(redis: &RedisServer, node: SocketAddr) -> Self {
        Self {
            redis: Client::connect(redis.address(), REPLY_LIMIT).expect("redis-server"),
            node: Client::connect(node, REPLY_LIMIT).expect("the node"),
            differences: String::new(),
            count: 0,
        }
    }

    fn protocol(&mut self, version: &str) {
        for client in [&mut self.redis, &mut self.node] {
            let reply = client.command(&["HELLO", version]).expect("a reply");
            assert!(reply.error().is_none(), "HELLO {version}: {reply:?}");
            client.command(&["FLUSHALL"]).expect("a reply");
        }
    }

    fn compare(&mut self, context: &str, command: &[Vec<u8>], comparison: Comparison) {
        let expected = self.redis.command(command).expect("redis-server replies");
        let shown: Vec<String> =
            command.iter().map(|word| word.escape_ascii().to_string()).collect();
        let found = self
            .node
            .command(command)
            .unwrap_or_else(|error| panic!("{context}: {shown:?}: {error}"));
        self.count += 1;
        if !agree(&expected, &found, comparison) && self.differences.lines().count() < SHOWN_MAX {
            let _ = writeln!(
                self.differences,
                "{context}: {}: redis {expected:?}, here {found:?}",
                shown.join(" ")
            );
        }
    }

    fn finish(self) {
        assert!(self.count > 0, "nothing was compared");
        assert!(self.differences.is_empty(), "of {} replies:\n{}", self.count, self.differences);
        println!("{} replies are the same", self.count);
    }
}

fn agree(expected: &Value, found: &Value, comparison: Comparison) -> bool {
    match comparison {
        Comparison::Exact => expected == found,
        Comparison::AboutEqual => match (expected, found) {
            (Value::Integer(a), Value::Integer(b)) => (a - b).abs() <= TIME_TOLERANCE,
            _ => expected == found,
        },
        Comparison::Kind => std::mem::discriminant(expected) == std::mem::discriminant(found),
        Comparison::AnyOrder => sorted(expected) == sorted(found),
    }
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(elements) => {
            let mut elements: Vec<Value> = elements.iter().map(sorted).collect();
            elements.sort_by_key(|element| format!("{element:?}"));
            Value::Array(elements)
        }
        other => other.clone(),
    }
}

/// Splits a line as redis-cli does.
fn words(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut rest = line.bytes().peekable();
    while let Some(&next) = rest.peek() {
        if next == b' ' {
            rest.next();
            continue;
        }
        let quoted = next == b'"';
        if quoted {
            rest.next();
        }
        let mut word = Vec::new();
        while let Some(byte) = rest.next_if(|byte| *byte != if quoted { b'"' } else { b' ' }) {
            if quoted && byte == b'\\' {
                word.push(match rest.next().expect("a character after a backslash") {
                    b'r' => b'\r',
                    b'n' => b'\n',
                    b'x' => {
                        let digits = [rest.next().expect("hex"), rest.next().expect("hex")];
                        let digits = std::str::from_utf8(&digits).expect("hex");
                        u8::from_str_radix(digits, 16).expect("hex")
                    }
                    other => other,
                });
            } else {
                word.push(byte);
            }
        }
        if quoted {
            rest.next();
        }
        words.push(word);
    }
    words
}

fn run_script(pair: &mut Pair, version: &str) {
    for (number, line) in (1..).zip(include_str!("commands.txt").lines()) {
        let context = format!("RESP{version}, line {number}");
        if line.starts_with("==") {
            pair.protocol(version);
        } else if !line.is_empty() && !line.starts_with('#') {
            let (comparison, command) = match line.split_at_checked(2) {
                Some(("~ ", rest)) => (Comparison::AboutEqual, rest),
                Some(("? ", rest)) => (Comparison::Kind, rest),
                Some(("* ", rest)) => (Comparison::AnyOrder, rest),
                _ => (Comparison::Exact, line),
            };
            let is_reset = command == "RESET";
            pair.compare(&context, &words(command), comparison);
            if is_reset {
                // RESET goes back to RESP2.
                for client in [&mut pair.redis, &mut pair.node] {
                    client.command(&["HELLO", version]).expect("a reply");
                }
            }
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    fn key(&mut self) -> &'static str {
        self.pick(&["k0", "k1", "k2", "k3", "k4", ""])
    }

    fn value(&mut self) -> &'static str {
        self.pick(&["", "0", "1", "-7", "abc", "9223372036854775807", " 1", "1.5", "3.0e2", "\r\n"])
    }

    fn command(&mut self) -> Vec<Vec<u8>> {
        let name = self.pick(&[
            "SET",
            "SET",
            "SET",
            "GET",
            "GET",
            "SETNX",
            "SETEX",
            "PSETEX",
            "GETSET",
            "GETDEL",
            "MGET",
            "MSET",
            "APPEND",
            "STRLEN",
            "INCR",
            "INCRBY",
            "DECR",
            "DECRBY",
            "DEL",
            "UNLINK",
            "EXISTS",
            "TYPE",
            "EXPIRE",
            "PERSIST",
            "DBSIZE",
            "EXPIREAT",
            "PEXPIRE",
            "EXPIRETIME",
        ]);
        let mut words = vec![name];
        match name {
            "SET" => {
                words.extend([self.key(), self.value()]);
                for _ in 0..self.below(4) {
                    words.push(self.pick(&["NX", "XX", "GET", "KEEPTTL", "EXAT", "99999999999"]));
                }
            }
            "SETEX" | "PSETEX" => {
                words.push(self.key());
                words.push(self.pick(&["100000", "0", "-1", "x"]));
                words.push(self.value());
            }
            "SETNX" | "GETSET" | "APPEND" => words.extend([self.key(), self.value()]),
            "INCRBY" | "DECRBY" => words.extend([self.key(), self.value()]),
            "MGET" | "DEL" | "UNLINK" | "EXISTS" => {
                for _ in 0..self.below(4) {
                    words.push(self.key());
                }
            }
            "MSET" => {
                for _ in 0..self.below(7) {
                    words.push(self.key());
                }
            }
            "EXPIRE" | "PEXPIRE" | "EXPIREAT" => {
                words.push(self.key());
                words.push(self.pick(&["99999999999", "0", "-1", "x", "9223372036854775807"]));
                // GT and LT compare with the clock, which two servers don't read at one moment.
                let conditions: &[&str] =
                    if name == "EXPIREAT" { &["NX", "XX", "GT", "LT"] } else { &["NX", "XX"] };
                for _ in 0..self.below(3) {
                    words.push(self.pick(conditions));
                }
            }
            "DBSIZE" => {}
            _ => words.push(self.key()),
        }
        words.into_iter().map(|word| word.as_bytes().to_vec()).collect()
    }
}

fn run_random(pair: &mut Pair, version: &str, seed: u64) {
    pair.protocol(version);
    let mut random = Random(seed);
    for step in 0..1_500 {
        let command = random.command();
        pair.compare(
            &format!("RESP{version}, seed {seed}, step {step}"),
            &command,
            Comparison::Exact,
        );
    }
}

#[test]
fn commands_answer_as_redis_does() {
    let cluster = Cluster::start("differential");
    let redis = RedisServer::start(&cluster.dir().join("redis"), &[]);
    let mut pair = Pair::connect(&redis, cluster.client_address(cluster.wait_until_writable()));
    for version in ["2", "3"] {
        run_script(&mut pair, version);
    }
    pair.finish();
}

#[test]
fn random_commands_answer_as_redis_does() {
    let cluster = Cluster::start("differential-random");
    let redis = RedisServer::start(&cluster.dir().join("redis"), &[]);
    let mut pair = Pair::connect(&redis, cluster.client_address(cluster.wait_until_writable()));
    for (version, seed) in [("2", 11), ("3", 12), ("3", 13)] {
        run_random(&mut pair, version, seed);
    }
    pair.finish();
}

/// What differs between two servers of one kind would say nothing about a third.
#[test]
fn two_redis_servers_answer_alike() {
    let dir = work_dir("two-redis");
    let one = RedisServer::start(&dir.join("one"), &[]);
    let two = RedisServer::start(&dir.join("two"), &[]);
    let mut pair = Pair::connect(&one, two.address());
    for (version, seed) in [("2", 11), ("3", 12)] {
        run_script(&mut pair, version);
        run_random(&mut pair, version, seed);
    }
    pair.finish();
    drop((one, two));
    std::fs::remove_dir_all(dir).expect("remove the servers' files");
}

#[test]
fn lines_are_split_as_redis_cli_does() {
    assert_eq!(words("SET a 1"), [b"SET".to_vec(), b"a".to_vec(), b"1".to_vec()]);
    assert_eq!(
        words("SET \"a b\" \"\\x00\\r\""),
        [b"SET".to_vec(), b"a b".to_vec(), b"\0\r".to_vec()]
    );
    assert_eq!(words("GET \"\""), [b"GET".to_vec(), Vec::new()]);
}
