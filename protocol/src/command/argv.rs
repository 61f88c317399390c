//! Writes as a client sends them: the way back from a [`Write`] to arguments that [`super::parse`]
//! turns into the same.

use bytes::Bytes;

use super::model::{
    BitOperation, ExpireConditions, GetExExpiry, Set, SetCondition, SetExpiry, When, Write,
};

impl Write {
    /// The command's name and arguments. Times that count from the entry's come out as moments,
    /// given the entry's time in milliseconds since 1970: sent later, they end when they were meant
    /// to.
    #[must_use]
    pub fn argv(&self, entry_ms: u64) -> Vec<Bytes> {
        let at = |when: &When| number(moment(*when, entry_ms));
        match self {
            Self::Set(set) => set.argv(entry_ms),
            Self::SetNx { key, value } => command("SETNX", &[key, value]),
            Self::MSet { pairs, only_if_none } => {
                let mut argv = vec![name(if *only_if_none { "MSETNX" } else { "MSET" })];
                argv.extend(pairs.iter().flat_map(|(key, value)| [key.clone(), value.clone()]));
                argv
            }
            Self::GetDel { key } => command("GETDEL", &[key]),
            Self::GetEx { key, expiry } => {
                let mut argv = command("GETEX", &[key]);
                match expiry {
                    GetExExpiry::Keep => {}
                    GetExExpiry::Remove => argv.push(name("PERSIST")),
                    GetExExpiry::At(when) => argv.extend([name("PXAT"), at(when)]),
                }
                argv
            }
            Self::Append { key, value } => command("APPEND", &[key, value]),
            Self::SetRange { key, offset, value } => {
                command("SETRANGE", &[key, &number(offset), value])
            }
            Self::IncrBy { key, delta } => command("INCRBY", &[key, &number(delta)]),
            Self::IncrByFloat { key, delta } => command("INCRBYFLOAT", &[key, delta]),
            Self::Del { keys } => command("DEL", &keys.iter().collect::<Vec<_>>()),
            Self::DelIfEq { key, value } => command("DELIFEQ", &[key, value]),
            Self::Expire { key, when, condition } => {
                let mut argv = command("PEXPIREAT", &[key, &at(when)]);
                argv.extend(condition.argv());
                argv
            }
            Self::Persist { key } => command("PERSIST", &[key]),
            Self::FlushAll => command("FLUSHALL", &[]),
            Self::Rename { from, to, only_if_none } => {
                command(if *only_if_none { "RENAMENX" } else { "RENAME" }, &[from, to])
            }
            Self::Copy { from, to, replace } => {
                let mut argv = command("COPY", &[from, to]);
                argv.extend(replace.then(|| name("REPLACE")));
                argv
            }
            Self::SetBit { key, offset, bit } => {
                command("SETBIT", &[key, &number(offset), &number(u8::from(*bit))])
            }
            Self::BitOp { operation, to, from } => {
                let mut argv = command("BITOP", &[&name(operation.name()), to]);
                argv.extend(from.iter().cloned());
                argv
            }
        }
    }
}

impl Set {
    fn argv(&self, entry_ms: u64) -> Vec<Bytes> {
        let mut argv = command("SET", &[&self.key, &self.value]);
        match &self.condition {
            SetCondition::Always => {}
            SetCondition::IfNone => argv.push(name("NX")),
            SetCondition::IfSome => argv.push(name("XX")),
            SetCondition::IfEqual(value) => argv.extend([name("IFEQ"), value.clone()]),
        }
        argv.extend(self.get.then(|| name("GET")));
        match self.expiry {
            SetExpiry::None => {}
            SetExpiry::Keep => argv.push(name("KEEPTTL")),
            SetExpiry::At(when) => argv.extend([name("PXAT"), number(moment(when, entry_ms))]),
        }
        argv
    }
}

impl ExpireConditions {
    fn argv(self) -> impl Iterator<Item = Bytes> {
        let all = [(self.nx, "NX"), (self.xx, "XX"), (self.gt, "GT"), (self.lt, "LT")];
        all.into_iter().filter(|(asked, _)| *asked).map(|(_, text)| name(text))
    }
}

impl BitOperation {
    fn name(self) -> &'static str {
        match self {
            Self::And => "AND",
            Self::Or => "OR",
            Self::Xor => "XOR",
            Self::Not => "NOT",
        }
    }
}

fn command(text: &'static str, arguments: &[&Bytes]) -> Vec<Bytes> {
    let mut argv = vec![name(text)];
    argv.extend(arguments.iter().map(|argument| (*argument).clone()));
    argv
}

fn name(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn number(number: impl ToString) -> Bytes {
    Bytes::from(number.to_string())
}

fn moment(when: When, entry_ms: u64) -> i64 {
    match when {
        When::At(ms) => ms,
        When::After(ms) => i64::try_from(entry_ms).unwrap_or(i64::MAX).saturating_add(ms),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use crate::command::{Command, Write, parse};

    fn words(line: &str) -> Vec<Bytes> {
        line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
    }

    fn write(line: &str) -> Write {
        match parse(&mut words(line)) {
            Ok(Command::Write(write)) => write,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn every_write_comes_back_as_it_was_parsed() {
        for line in [
            "SET k v",
            "SET k v NX GET",
            "SET k v XX KEEPTTL",
            "SET k v IFEQ w PXAT 4102444800000",
            "SETNX k v",
            "MSET a 1 b 2",
            "MSETNX a 1 b 2",
            "GETDEL k",
            "GETEX k",
            "GETEX k PERSIST",
            "GETEX k PXAT 4102444800000",
            "APPEND k v",
            "SETRANGE k 7 v",
            "INCRBY k -3",
            "INCRBYFLOAT k 1.5",
            "DEL a b",
            "DELIFEQ k v",
            "PEXPIREAT k 4102444800000",
            "PEXPIREAT k 4102444800000 NX",
            "PEXPIREAT k 4102444800000 XX GT",
            "PEXPIREAT k 4102444800000 LT",
            "PERSIST k",
            "FLUSHALL",
            "RENAME a b",
            "RENAMENX a b",
            "COPY a b",
            "COPY a b REPLACE",
            "SETBIT k 9 1",
            "BITOP AND to a b",
            "BITOP NOT to a",
        ] {
            let parsed = write(line);
            assert_eq!(parsed.argv(0), words(line));
            assert_eq!(write(&String::from_utf8_lossy(&parsed.argv(0).join(&b' '))), parsed);
        }
    }

    #[test]
    fn a_time_to_live_becomes_the_moment_that_it_ends() {
        for (line, moment) in [
            ("SET k v PX 500", "SET k v PXAT 10500"),
            ("SETEX k 2 v", "SET k v PXAT 12000"),
            ("GETEX k EX 1", "GETEX k PXAT 11000"),
            ("EXPIRE k 3 GT", "PEXPIREAT k 13000 GT"),
        ] {
            assert_eq!(write(line).argv(10_000), words(moment), "{line}");
        }
    }
}
