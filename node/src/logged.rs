//! What an entry of the log holds, as a client would have sent it.

use bytes::Bytes;
use quorate_protocol::command::batch::{Batches, DecodeError};
use quorate_protocol::command::{Exec, Step, Unit};
use quorate_protocol::entry::Entry;
use quorate_protocol::types::EntryKind;
use quorate_protocol::wire::decode_cluster;
use serde_json::{Value, json};

use crate::moment::moment_ms;

/// Bytes of one argument that are shown to a person.
const SHOWN_BYTES_MAX: usize = 64;

/// A command with its arguments.
pub(crate) type Argv = Vec<Bytes>;

/// What is applied as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Logged {
    /// One write.
    Write(Argv),
    /// A transaction's writes.
    Transaction {
        /// In order.
        writes: Vec<Argv>,
        /// Keys that must not have changed since they were watched.
        watched: Vec<Bytes>,
    },
}

/// The contents of a `Commands` entry. Reads are left out: they changed nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// In order.
    pub(crate) logged: Vec<Logged>,
    /// Why the rest can't be read.
    pub(crate) fault: Option<DecodeError>,
}

/// Reads an entry's commands.
pub(crate) fn contents(entry: &Entry) -> Contents {
    let mut contents = Contents::default();
    if entry.kind == EntryKind::Commands {
        contents.fault = decode(entry, &mut contents.logged).err();
    }
    contents
}

fn decode(entry: &Entry, logged: &mut Vec<Logged>) -> Result<(), DecodeError> {
    for batch in Batches::new(entry.payload.clone()) {
        for unit in batch?.units() {
            logged.extend(logged_unit(unit?, entry.time.0));
        }
    }
    Ok(())
}

/// Without its token: that was for this log, and another cluster's tokens are its own.
fn logged_unit(unit: Unit, entry_ms: u64) -> Option<Logged> {
    match unit {
        Unit::Read(_) => None,
        Unit::Write(write) => Some(Logged::Write(write.argv(entry_ms))),
        Unit::Exec(exec) => transaction(&exec, entry_ms),
        Unit::Once(once) => logged_unit(*once.unit, entry_ms),
    }
}

fn transaction(exec: &Exec, entry_ms: u64) -> Option<Logged> {
    let writes: Vec<Argv> = exec
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Write(write) => Some(write.argv(entry_ms)),
            Step::Read(_) => None,
        })
        .collect();
    let watched = exec.watches.iter().map(|watched| watched.key.clone()).collect();
    (!writes.is_empty()).then_some(Logged::Transaction { writes, watched })
}

impl Logged {
    /// As lines for a person; long arguments are cut short.
    pub(crate) fn lines(&self) -> Vec<String> {
        match self {
            Self::Write(argv) => vec![line(argv)],
            Self::Transaction { writes, watched } => {
                let mut lines = Vec::new();
                if !watched.is_empty() {
                    lines.push(format!(
                        "WATCH {}",
                        watched.iter().map(shown).collect::<Vec<_>>().join(" ")
                    ));
                }
                lines.push("MULTI".to_owned());
                lines.extend(writes.iter().map(|argv| format!("  {}", line(argv))));
                lines.push("EXEC".to_owned());
                lines
            }
        }
    }

    /// As JSON, whole.
    pub(crate) fn json(&self) -> Value {
        match self {
            Self::Write(argv) => json!({ "command": argv_json(argv) }),
            Self::Transaction { writes, watched } => json!({
                "transaction": writes.iter().map(|argv| argv_json(argv)).collect::<Vec<_>>(),
                "watched": argv_json(watched),
            }),
        }
    }

    /// The commands to send to have it done again.
    pub(crate) fn commands(&self) -> Vec<Argv> {
        match self {
            Self::Write(argv) => vec![argv.clone()],
            Self::Transaction { writes, watched: _ } => {
                let word = |text: &'static str| vec![Bytes::from_static(text.as_bytes())];
                let mut commands = vec![word("MULTI")];
                commands.extend(writes.iter().cloned());
                commands.push(word("EXEC"));
                commands
            }
        }
    }
}

/// An entry as lines for a person: which it is, and what it holds.
pub(crate) fn entry_lines(entry: &Entry, contents: &Contents) -> Vec<String> {
    let mut head = format!("{} at {}", entry.id, moment_ms(entry.time.0));
    if let Some(remark) = remark(entry) {
        head.push_str(&format!(": {remark}"));
    }
    let mut lines = vec![head];
    lines.extend(contents.logged.iter().flat_map(Logged::lines).map(|line| format!("  {line}")));
    lines.extend(contents.fault.map(|fault| format!("  the rest can't be read: {fault}")));
    lines
}

/// An entry as JSON, whole.
pub(crate) fn entry_json(entry: &Entry, contents: &Contents) -> Value {
    json!({
        "epoch": entry.id.epoch.0,
        "seq": entry.id.seq.0,
        "time_ms": entry.time.0,
        "kind": format!("{:?}", entry.kind),
        "remark": remark(entry),
        "commands": contents.logged.iter().map(Logged::json).collect::<Vec<_>>(),
        "fault": contents.fault.map(|fault| fault.to_string()),
    })
}

/// One line on an entry that holds no commands.
fn remark(entry: &Entry) -> Option<String> {
    match entry.kind {
        EntryKind::Commands => None,
        EntryKind::EpochStart => Some(format!("epoch {} begins", entry.id.epoch)),
        EntryKind::Mark => Some("a mark".to_owned()),
        EntryKind::Cluster => Some(match decode_cluster(&entry.payload) {
            Ok(config) => {
                let members: Vec<String> = config
                    .members
                    .iter()
                    .map(|member| format!("{}@{}", member.node, member.peer_addr))
                    .collect();
                format!("policy {}, members {}", config.policy, members.join(" "))
            }
            Err(error) => format!("a configuration that can't be read: {error}"),
        }),
    }
}

fn line(argv: &[Bytes]) -> String {
    argv.iter().map(shown).collect::<Vec<_>>().join(" ")
}

fn shown(argument: &Bytes) -> String {
    let head = &argument[..argument.len().min(SHOWN_BYTES_MAX)];
    let plain =
        !head.is_empty() && head.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'"');
    let text = if plain {
        String::from_utf8_lossy(head).into_owned()
    } else {
        format!("\"{}\"", head.escape_ascii())
    };
    if head.len() < argument.len() { format!("{text}… ({} bytes)", argument.len()) } else { text }
}

/// Text as text; other bytes as `{"hex": …}`.
fn argv_json(argv: &[Bytes]) -> Value {
    let one = |argument: &Bytes| match std::str::from_utf8(argument) {
        Ok(text) => json!(text),
        Err(_) => {
            json!({ "hex": argument.iter().map(|byte| format!("{byte:02x}")).collect::<String>() })
        }
    };
    argv.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use quorate_protocol::command::batch::Encoder;
    use quorate_protocol::command::{Command, Seen, Watched, Write, parse};
    use quorate_protocol::types::{Chain, ClusterTime, EntryId, Epoch, Seq};

    use super::*;

    fn write(line: &str) -> Write {
        let mut argv: Vec<Bytes> =
            line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
        match parse(&mut argv) {
            Ok(Command::Write(write)) => write,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn entry(units: &[Unit]) -> Entry {
        let mut encoder = Encoder::new();
        for unit in units {
            encoder.unit(unit);
        }
        let id = EntryId::new(Epoch(2), Seq(9));
        let payload = encoder.finish().bytes;
        Entry::seal(id, EntryKind::Commands, ClusterTime(1_000), Chain(0), payload)
    }

    #[test]
    fn commands_and_transactions_come_out_as_they_were_sent() {
        let exec = Exec {
            watches: vec![Watched { key: "w".into(), seen: Seen::Absent(Seq(3)) }],
            steps: vec![Step::Write(write("INCR n")), Step::Write(write("DEL a b"))],
        };
        let entry = entry(&[Unit::Write(write("SET k v PX 5")), Unit::Exec(exec)]);
        let contents = contents(&entry);
        assert_eq!(contents.fault, None);
        let lines: Vec<String> = contents.logged.iter().flat_map(Logged::lines).collect();
        let expected =
            ["SET k v PXAT 1005", "WATCH w", "MULTI", "  INCRBY n 1", "  DEL a b", "EXEC"];
        assert_eq!(lines, expected);
        let json = contents.logged[1].json();
        assert_eq!(json["transaction"][0], json!(["INCRBY", "n", "1"]));
        assert_eq!(json["watched"], json!(["w"]));
        assert_eq!(contents.logged[1].commands().len(), 4);
    }

    #[test]
    fn arguments_are_quoted_and_cut_for_people_and_whole_for_programs() {
        let long = Bytes::from(vec![b'x'; 100]);
        assert_eq!(shown(&long), format!("{}… (100 bytes)", "x".repeat(64)));
        assert_eq!(shown(&Bytes::from_static(b"a b\n\xff")), "\"a b\\n\\xff\"");
        assert_eq!(shown(&Bytes::new()), "\"\"");
        assert_eq!(argv_json(&[Bytes::from_static(b"\xff\x01")]), json!([{ "hex": "ff01" }]));
        assert_eq!(argv_json(std::slice::from_ref(&long)), json!(["x".repeat(100)]));
    }

    #[test]
    fn an_entry_that_is_cut_short_says_so() {
        let mut entry = entry(&[Unit::Write(write("SET k v"))]);
        entry.payload = entry.payload.slice(..entry.payload.len() - 1);
        assert_eq!(contents(&entry).fault, Some(DecodeError::Truncated));
    }
}
