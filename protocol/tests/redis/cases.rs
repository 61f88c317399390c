//! What is compared.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::server::Value;

/// Commands whose replies must be equal; run in order on one connection.
pub(crate) const EDGE_CASES: &str = r#"
    FOO
    FOO a b c
    get
    GET a b
    SET a
    STRLEN
    MSET a
    MSET a 1 b
    MSETNX a 1 b
    OBJECT
    OBJECT FOO a
    OBJECT ENCODING
    CLIENT FOO bar
    CLIENT
    CLIENT SETNAME
    CLIENT KILL
    CLIENT KILL TYPE foo
    CLIENT KILL ID 0
    CLIENT KILL ID x
    CLIENT KILL FOO x
    CLIENT KILL ID 1 SKIPME maybe
    CLIENT LIST TYPE foo
    CLIENT LIST ID x
    CLIENT LIST FOO
    CLIENT REPLY foo
    CLIENT PAUSE x
    CLIENT PAUSE -1
    CLIENT PAUSE 1 FOO
    CLIENT UNBLOCK x
    CLIENT UNBLOCK 1 FOO
    CLIENT NO-EVICT maybe
    CLIENT TRACKING maybe
    CLIENT SETNAME \x01
    CONFIG FOO
    CONFIG SET a
    CONFIG SET a b c
    CONFIG GET
    COMMAND FOO
    COMMAND GETKEYS FOO
    COMMAND LIST FOO
    COMMAND LIST FILTERBY FOO x
    HELLO x
    HELLO 4
    HELLO 3 FOO
    HELLO 3 AUTH a
    HELLO 3 SETNAME \x01
    AUTH a b c
    PING a b
    ECHO
    SELECT x
    WAIT x 0
    WAIT 0 x
    WAIT 0 -1
    SLOWLOG GET x
    SLOWLOG GET -2
    SLOWLOG FOO
    MEMORY USAGE k FOO
    MEMORY USAGE k SAMPLES x
    MEMORY USAGE nothing
    LATENCY FOO
    ACL FOO
    SHUTDOWN FOO
    SHUTDOWN ABORT NOW
    SET k v EX
    SET k v EX 0
    SET k v EX -1
    SET k v EX x
    SET k v EX x FOO
    SET k v EX 9223372036854775807
    SET k v EX 9223372036854775
    SET k v PX 9223372036854775807
    SET k v EX 9223372036854775808
    SET k v EX 10 PX 10
    SET k v EX 10 EX 20
    TTL k
    SET k v EX 10 KEEPTTL
    SET k v KEEPTTL EX 10
    SET k v KEEPTTL KEEPTTL
    SET k v NX XX
    SET k v NX NX
    SET k v XX NX
    SET k v FOO
    SET k v PERSIST
    SET k v GET
    SET k w NX GET
    SET n w NX GET
    SET n w XX GET
    SET n w EXAT 1
    GET n
    SET n w PXAT 99999999999999
    PEXPIRETIME n
    EXPIRETIME n
    SETEX k 0 v
    SETEX k -1 v
    SETEX k x v
    PSETEX k 0 v
    SETEX k 9223372036854775807 v
    GETEX
    GETEX k FOO
    GETEX k EX 0
    GETEX k PX x
    GETEX k EX 10 PERSIST
    GETEX k KEEPTTL
    GETEX k PERSIST
    GETEX k EXAT 1
    GET k
    GETDEL nothing
    SET k 10
    OBJECT ENCODING k
    SET k aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
    OBJECT ENCODING k
    SET k aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
    OBJECT ENCODING k
    OBJECT ENCODING nothing
    OBJECT REFCOUNT k
    OBJECT FREQ k
    OBJECT FREQ nothing
    OBJECT IDLETIME nothing
    SET k 012
    INCR k
    SET k ""
    INCR k
    SET k +1
    INCR k
    SET k -0
    INCR k
    SET k 9223372036854775806
    INCR k
    INCR k
    INCRBY k -9223372036854775808
    DECRBY k 9223372036854775807
    DECRBY k 1
    DECRBY k -9223372036854775808
    INCRBY k x
    INCRBY k 1.5
    INCRBY k 9223372036854775808
    INCRBYFLOAT k x
    INCRBYFLOAT k 1e
    INCRBYFLOAT k inf
    INCRBYFLOAT k -inf
    INCRBYFLOAT k nan
    INCRBYFLOAT k ""
    SET k 0.1
    INCRBYFLOAT k 0.2
    INCRBYFLOAT k 1e2
    INCRBYFLOAT k -100.3
    INCRBYFLOAT k 3.0
    INCRBYFLOAT k .5
    INCRBYFLOAT k 1.
    INCRBYFLOAT k +1
    INCRBYFLOAT k -6
    SET k inf
    INCRBYFLOAT k 1
    SET k x
    INCRBYFLOAT k 1
    SET k Hello
    GETRANGE k x 1
    GETRANGE k 0
    GETRANGE k -3 -1
    GETRANGE k -1 -3
    GETRANGE k -9223372036854775808 9223372036854775807
    GETRANGE k 4 9
    GETRANGE k 5 9
    GETRANGE k -100 -50
    GETRANGE k -100 -5
    GETRANGE nothing 0 -1
    SUBSTR k 0 1
    SETRANGE k -1 x
    SETRANGE k x x
    SETRANGE k 4294967296 x
    SETRANGE k 9223372036854775807 x
    SETRANGE k 2 ""
    SETRANGE nothing 2 ""
    EXISTS nothing
    SETRANGE k 7 x
    GET k
    APPEND k ""
    APPEND fresh ""
    EXISTS fresh
    GET fresh
    EXPIRE k x
    EXPIRE k 1 FOO
    EXPIRE k x FOO
    EXPIRE k 1 NX XX
    EXPIRE k 1 NX GT
    EXPIRE k 1 GT LT
    EXPIRE k 1 XX GT LT
    EXPIRE k 9223372036854775807
    EXPIRE k -9223372036854775808
    EXPIRE k 9223372036854775
    PEXPIRE k 9223372036854775807
    EXPIREAT k 9223372036854775807
    EXPIRE nothing 10
    EXPIRE nothing x
    EXPIRE k 100 XX
    EXPIRE k 100 GT
    EXPIRE k 100 LT
    EXPIRE k 100 NX
    EXPIRE k 50 XX GT
    EXPIRE k 200 XX GT
    EXPIRE k 300 XX LT
    TTL k
    PERSIST k
    PERSIST k
    TTL k
    TTL nothing
    EXPIRETIME nothing
    EXPIRETIME k
    PEXPIREAT k 9999999999999
    PEXPIRETIME k
    EXPIREAT k -1
    EXISTS k
    EXPIRE k
    SCAN x
    SCAN 18446744073709551616
    SCAN 0 COUNT 0
    SCAN 0 COUNT x
    SCAN 0 COUNT
    SCAN 0 FOO x
    SCAN 0 FOO
    FLUSHALL FOO
    FLUSHALL SYNC FOO
    FLUSHDB ASYNC
    DBSIZE
    RANDOMKEY
    RENAME a
    RENAME nothing b
    RENAME nothing nothing
    RENAMENX nothing nothing
    SET a 1 EX 100
    SET b 2
    RENAME a a
    RENAMENX a a
    RENAMENX a b
    RENAME a b
    TTL b
    GET b
    COPY b b
    COPY nothing nothing
    COPY b c DB x
    COPY b c FOO
    COPY b c DB
    COPY b c
    COPY b c
    COPY b c REPLACE
    COPY b c DB 0 REPLACE
    TTL c
    TYPE c
    TYPE nothing
    TOUCH b c nothing
    EXISTS b b c
    DEL b b c
    UNLINK b
    SETBIT b x 1
    SETBIT b -1 1
    SETBIT b 4294967296 1
    SETBIT b 1 2
    SETBIT b 1 x
    SETBIT b 10 1
    SETBIT b 10 1
    SETBIT b 10 0
    GETBIT b x
    GETBIT b -1
    GETBIT b 10
    GETBIT b 10000
    SETBIT b 9 1
    BITCOUNT b
    BITCOUNT b 0
    BITCOUNT b 0 x
    BITCOUNT b 0 1 FOO
    BITCOUNT b 0 1 BIT BIT
    BITCOUNT b 9 9 BIT
    BITCOUNT b -1 -2
    BITCOUNT b 5 10
    BITPOS b x
    BITPOS b 2
    BITPOS b 1
    BITPOS b 0
    BITPOS b 1 2
    BITPOS b 1 -1
    BITPOS b 1 0 -1 BIT
    BITPOS b 0 0 -1 FOO
    BITPOS b 1 x
    SET ones \xff\xff
    BITPOS ones 0
    BITPOS ones 0 0
    BITPOS ones 0 0 -1
    BITPOS ones 0 1 1
    BITPOS ones 1 5 6
    BITPOS nothing 0
    BITPOS nothing 1
    BITPOS nothing 1 0 -1 BIT
    BITOP FOO d a
    BITOP NOT d a b
    BITOP NOT d ones
    BITOP AND d ones b
    BITOP XOR d ones b nothing
    BITCOUNT d
    BITOP OR d nothing
    EXISTS d
    LCS a
    MSET x ohmytext y mynewtext
    LCS x y
    LCS x y LEN
    LCS x y IDX
    LCS x y IDX WITHMATCHLEN
    LCS x y IDX MINMATCHLEN 4
    LCS x y IDX MINMATCHLEN -1 WITHMATCHLEN
    LCS x y IDX MINMATCHLEN x
    LCS x y MINMATCHLEN
    LCS x y LEN IDX
    LCS x y FOO
    LCS x nothing
    LCS nothing nothing IDX
    SET "" empty
    GET ""
    KEYS *
    KEYS [a-c]
    KEYS [^a-c]
    KEYS ?
    KEYS *e*
    CLUSTER
    CLUSTER KEYSLOT
    GETSET g 1
    GETSET g 2
    GETDEL g
    SETNX g 1
    SETNX g 1
    MSETNX g 1 h 2
    MSETNX h 1 i 2
    MGET g h i nothing
    MSET h 1 h 2
    GET h
    MODULE FOO
    MULTI x
    WATCH
    UNWATCH x
    ROLE x
    TIME x
    READONLY x
    INFO
    SUBSTR k 0
    DECRBY k
    LATENCY HISTORY
    ACL GETUSER
    ACL CAT a b
    "#;

/// Streams that end in an error of the protocol.
pub(crate) const BROKEN_REQUESTS: &[&[u8]] = &[
    b"*x\r\n",
    b"*1\r\n+4\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$01\r\n",
    b"*1\r\n$x\r\n",
    b"*1\r\n$999999999999\r\n",
    b"*999999999999\r\n",
    b"*01\r\n",
    b"*+1\r\n",
    b"set a \"b\r\n",
    b"set a 'b\r\n",
    b"set a \"b\"c\r\n",
    b"set a 'b'c\r\n",
];

/// Commands with keys, for `COMMAND GETKEYS`.
pub(crate) const KEYED_COMMANDS: &[&str] = &[
    "GET a",
    "MGET a b c",
    "MSET a 1 b 2",
    "DEL a b",
    "RENAME a b",
    "COPY a b REPLACE",
    "BITOP AND d a b c",
    "BITOP NOT d a",
    "LCS a b LEN",
    "OBJECT ENCODING a",
    "MEMORY USAGE a",
    "SETRANGE a 1 x",
    "INCR a",
    "GETDEL a",
    "GETEX a",
    "EXPIRE a 1",
    "APPEND a b",
    "SETNX a b",
    "PING a",
    "FOO a",
    "GET a b",
    "EXISTS a b",
    "SUBSTR a 0 1",
];

pub(crate) const NEWER_THAN_REDIS_7_0: &[&str] = &[
    "delifeq",
    "waitaof",
    "client|setinfo",
    "client|no-touch",
    "cluster|myshardid",
    "session",
    "session|deadline",
    "session|durability",
    "session|help",
    "session|read",
    "session|token",
    "quorate",
    "quorate|cursors",
    "quorate|help",
    "quorate|lastwrite",
    "quorate|outcome",
    "quorate|policy",
    "quorate|status",
    "sentinel",
    "sentinel|ckquorum",
    "sentinel|get-master-addr-by-name",
    "sentinel|help",
    "sentinel|master",
    "sentinel|masters",
    "sentinel|myid",
    "sentinel|replicas",
    "sentinel|sentinels",
    "sentinel|slaves",
];

/// A list whose order means nothing.
pub(crate) fn as_set(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Array(items) => items.iter().map(|item| format!("{item:?}")).collect(),
        other => BTreeSet::from([format!("{other:?}")]),
    }
}

/// Begin, end and flags of each key specification, without Redis's notes on them.
pub(crate) fn key_flags(specs: &Value) -> Vec<Vec<String>> {
    let Value::Array(specs) = specs else { panic!("an array") };
    let fields = |spec: &Value| {
        let Value::Array(pairs) = spec else { panic!("an array") };
        let note = Value::Bulk("notes".into());
        let pairs = pairs.chunks(2).filter(|pair| pair[0] != note);
        pairs.map(|pair| format!("{:?} {:?}", pair[0], as_set(&pair[1]))).collect()
    };
    specs.iter().map(fields).collect()
}

/// Commands by a seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn command(&mut self) -> String {
        let template = TEMPLATES[self.below(TEMPLATES.len())];
        let mut line = String::new();
        for (at, word) in template.split(' ').enumerate() {
            if let Some(optional) = word.strip_prefix('~') {
                if self.below(2) == 0 {
                    continue;
                }
                let _ = write!(line, " {}", self.word(optional));
            } else if at == 0 {
                line.push_str(word);
            } else {
                let _ = write!(line, " {}", self.word(word));
            }
        }
        line
    }

    fn word(&mut self, word: &str) -> String {
        match word {
            "K" => ["a", "b", "c", "{t}d", "e"][self.below(5)].to_owned(),
            "V" => {
                ["\"\"", "1", "-7", "3.25", "hello", "xyz", "\\xff\\x00"][self.below(7)].to_owned()
            }
            "I" => (self.below(41) as i64 - 20).to_string(),
            "N" => self.below(30).to_string(),
            "F" => format!("{}.{:02}", self.below(200) as i64 - 100, self.below(100)),
            "E" => ["EX", "PX", "EXAT", "PXAT", "KEEPTTL"][self.below(5)].to_owned(),
            "T" => ["100000", "99999999", "9999999999999", "0", "-5"][self.below(5)].to_owned(),
            "C" => ["NX", "XX", "GET"][self.below(3)].to_owned(),
            "X" => ["NX", "XX", "GT", "LT"][self.below(4)].to_owned(),
            // Not GT and LT: with times that count from now, a millisecond could decide.
            "Y" => ["NX", "XX"][self.below(2)].to_owned(),
            "U" => ["BIT", "BYTE"][self.below(2)].to_owned(),
            "O" => ["AND", "OR", "XOR", "NOT"][self.below(4)].to_owned(),
            "B" => self.below(2).to_string(),
            "P" => ["*", "?", "[a-b]", "[^a]*", "{*", "\\x61"][self.below(6)].to_owned(),
            word => word.to_owned(),
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

const TEMPLATES: &[&str] = &[
    "GET K",
    "SET K V",
    "SET K V ~C ~C",
    "SET K V ~C E T",
    "SET K V KEEPTTL ~C",
    "SETNX K V",
    "SETEX K T V",
    "GETSET K V",
    "GETDEL K",
    "GETEX K",
    "GETEX K EX 100",
    "GETEX K PXAT 9999999999999",
    "GETEX K PERSIST",
    "MGET K K K",
    "MSET K V K V",
    "MSETNX K V K V",
    "APPEND K V",
    "STRLEN K",
    "GETRANGE K I I",
    "SETRANGE K I V",
    "INCR K",
    "DECR K",
    "INCRBY K I",
    "DECRBY K I",
    "INCRBYFLOAT K F",
    "DEL K ~K",
    "UNLINK K",
    "EXISTS K K ~K",
    "TOUCH K",
    "TYPE K",
    "EXPIRE K T ~Y",
    "PEXPIRE K T ~Y",
    "EXPIREAT K T ~X ~X",
    "PEXPIREAT K T ~X",
    "TTL K",
    "PTTL K",
    "EXPIRETIME K",
    "PEXPIRETIME K",
    "PERSIST K",
    "RENAME K K",
    "RENAMENX K K",
    "COPY K K ~REPLACE",
    "SETBIT K N B",
    "GETBIT K N",
    "BITCOUNT K",
    "BITCOUNT K I I ~U",
    "BITPOS K B ~I",
    "BITPOS K B I I ~U",
    "BITOP O K K ~K",
    "LCS K K ~LEN ~IDX ~WITHMATCHLEN",
    "KEYS P",
    "FLUSHALL",
];
