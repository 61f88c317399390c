//! Units to bytes.

use super::fields::{put_signed, put_text, put_texts, put_varint};
use super::{Encoded, HEADER_BYTES, VERSION, opcode};
use crate::command::model::{
    BitOperation, BitRange, Exec, ExpireConditions, GetExExpiry, Lcs, ObjectProperty, Read, Seen,
    Set, SetCondition, SetExpiry, Step, TtlForm, Unit, Watched, When, Write,
};

/// Builds one batch. Units are encoded as they come, so that nothing is kept twice.
#[derive(Debug)]
pub struct Encoder {
    out: Vec<u8>,
    count: u32,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(&[0; HEADER_BYTES]);
        out.push(VERSION);
        Self { out, count: 0 }
    }

    /// Adds a unit.
    pub fn unit(&mut self, unit: &Unit) {
        match unit {
            Unit::Write(write) => self.write(write),
            Unit::Read(read) => self.read(read),
            Unit::Exec(exec) => self.exec(exec),
            Unit::Once(once) => {
                self.once(&once.token);
                self.unit(&once.unit);
            }
        }
    }

    /// The next unit, a write or a transaction, carries this token.
    pub fn once(&mut self, token: &[u8]) {
        self.out.push(opcode::ONCE);
        put_text(&mut self.out, token);
    }

    /// Adds a write.
    pub fn write(&mut self, write: &Write) {
        put_write(&mut self.out, write);
        self.count += 1;
    }

    /// Adds a read.
    ///
    /// # Panics
    /// For a [`Read::Walk`]: those are never part of a batch ([`Read::rides`]).
    pub fn read(&mut self, read: &Read) {
        put_read(&mut self.out, read);
        self.count += 1;
    }

    /// Adds a transaction.
    ///
    /// # Panics
    /// If a [`Read::Walk`] is among its steps.
    pub fn exec(&mut self, exec: &Exec) {
        put_exec(&mut self.out, exec);
        self.count += 1;
    }

    /// Number of units so far.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether there is no unit yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the batch so far, with its header.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    /// Fills in the header.
    ///
    /// # Panics
    /// If the batch is larger than 4 GiB: whoever adds units keeps it below an entry's size.
    #[must_use]
    pub fn finish(mut self) -> Encoded {
        let body = &self.out[HEADER_BYTES..];
        let body_crc = crc32c::crc32c(body);
        let body_len = u32::try_from(body.len()).expect("a batch is smaller than an entry");
        self.out[0..4].copy_from_slice(&body_len.to_le_bytes());
        self.out[4..8].copy_from_slice(&self.count.to_le_bytes());
        self.out[8..12].copy_from_slice(&body_crc.to_le_bytes());
        let crc = crc32c::crc32c(&self.out);
        Encoded { bytes: self.out.into(), crc, count: self.count }
    }
}

fn put_exec(out: &mut Vec<u8>, exec: &Exec) {
    out.push(opcode::EXEC);
    put_varint(out, exec.watches.len() as u64);
    for Watched { key, seen } in &exec.watches {
        put_text(out, key);
        let (kind, seq) = match seen {
            Seen::Version(seq) => (0, seq),
            Seen::Absent(seq) => (1, seq),
        };
        out.push(kind);
        put_varint(out, seq.0);
    }
    put_varint(out, exec.steps.len() as u64);
    for step in &exec.steps {
        match step {
            Step::Write(write) => put_write(out, write),
            Step::Read(read) => put_read(out, read),
        }
    }
}

fn put_write(out: &mut Vec<u8>, write: &Write) {
    match write {
        Write::Set(set) => put_set(out, set),
        Write::SetNx { key, value } => put_pair(out, opcode::SET_NX, key, value),
        Write::MSet { pairs, only_if_none } => {
            out.push(if *only_if_none { opcode::M_SET_NX } else { opcode::M_SET });
            put_varint(out, pairs.len() as u64);
            for (key, value) in pairs {
                put_text(out, key);
                put_text(out, value);
            }
        }
        Write::GetDel { key } => put_key(out, opcode::GET_DEL, key),
        Write::GetEx { key, expiry } => {
            put_key(out, opcode::GET_EX, key);
            match expiry {
                GetExExpiry::Keep => out.push(opcode::when::KEEP),
                GetExExpiry::Remove => out.push(opcode::when::REMOVE),
                GetExExpiry::At(when) => put_when(out, *when),
            }
        }
        Write::Append { key, value } => put_pair(out, opcode::APPEND, key, value),
        Write::SetRange { key, offset, value } => {
            put_pair(out, opcode::SET_RANGE, key, value);
            put_varint(out, *offset);
        }
        Write::IncrBy { key, delta } => {
            put_key(out, opcode::INCR_BY, key);
            put_signed(out, *delta);
        }
        Write::IncrByFloat { key, delta } => put_pair(out, opcode::INCR_BY_FLOAT, key, delta),
        Write::Del { keys } => {
            out.push(opcode::DEL);
            put_texts(out, keys);
        }
        Write::DelIfEq { key, value } => put_pair(out, opcode::DEL_IF_EQ, key, value),
        Write::Expire { key, when, condition } => {
            put_key(out, opcode::EXPIRE, key);
            put_when(out, *when);
            out.push(condition_bits(*condition));
        }
        Write::Persist { key } => put_key(out, opcode::PERSIST, key),
        Write::FlushAll => out.push(opcode::FLUSH_ALL),
        Write::Rename { from, to, only_if_none } => {
            let code = if *only_if_none { opcode::RENAME_NX } else { opcode::RENAME };
            put_pair(out, code, from, to);
        }
        Write::Copy { from, to, replace } => {
            put_pair(out, if *replace { opcode::COPY_REPLACE } else { opcode::COPY }, from, to);
        }
        Write::SetBit { key, offset, bit } => {
            put_key(out, opcode::SET_BIT, key);
            put_varint(out, u64::from(*offset));
            out.push(u8::from(*bit));
        }
        Write::BitOp { operation, to, from } => {
            put_key(out, opcode::BIT_OP, to);
            out.push(match operation {
                BitOperation::And => 0,
                BitOperation::Or => 1,
                BitOperation::Xor => 2,
                BitOperation::Not => 3,
            });
            put_texts(out, from);
        }
    }
}

fn put_set(out: &mut Vec<u8>, set: &Set) {
    let condition = match &set.condition {
        SetCondition::Always => 0,
        SetCondition::IfNone => opcode::set::IF_NONE,
        SetCondition::IfSome => opcode::set::IF_SOME,
        SetCondition::IfEqual(_) => opcode::set::IF_EQUAL,
    };
    let (expiry, millis) = match set.expiry {
        SetExpiry::None => (0, None),
        SetExpiry::Keep => (opcode::set::KEEP, None),
        SetExpiry::At(When::After(millis)) => (opcode::set::AFTER, Some(millis)),
        SetExpiry::At(When::At(millis)) => (opcode::set::AT, Some(millis)),
    };
    let flags = condition | expiry | if set.get { opcode::set::GET } else { 0 };
    if flags == 0 {
        return put_pair(out, opcode::SET, &set.key, &set.value);
    }
    put_pair(out, opcode::SET_WITH, &set.key, &set.value);
    out.push(flags);
    if let SetCondition::IfEqual(value) = &set.condition {
        put_text(out, value);
    }
    if let Some(millis) = millis {
        put_signed(out, millis);
    }
}

fn put_read(out: &mut Vec<u8>, read: &Read) {
    match read {
        Read::Get { key } => put_key(out, opcode::GET, key),
        Read::MGet { keys } => {
            out.push(opcode::M_GET);
            put_texts(out, keys);
        }
        Read::StrLen { key } => put_key(out, opcode::STR_LEN, key),
        Read::GetRange { key, start, end } => {
            put_key(out, opcode::GET_RANGE, key);
            put_signed(out, *start);
            put_signed(out, *end);
        }
        Read::Exists { keys } => {
            out.push(opcode::EXISTS);
            put_texts(out, keys);
        }
        Read::Type { key } => put_key(out, opcode::TYPE, key),
        Read::Ttl { key, form } => {
            put_key(out, opcode::TTL, key);
            out.push(match form {
                TtlForm::Seconds => 0,
                TtlForm::Millis => 1,
                TtlForm::AtSeconds => 2,
                TtlForm::AtMillis => 3,
            });
        }
        Read::Object { key, property } => {
            put_key(out, opcode::OBJECT, key);
            out.push(match property {
                ObjectProperty::Encoding => 0,
                ObjectProperty::RefCount => 1,
                ObjectProperty::IdleTime => 2,
                ObjectProperty::Frequency => 3,
            });
        }
        Read::MemoryUsage { key } => put_key(out, opcode::MEMORY_USAGE, key),
        Read::DbSize => out.push(opcode::DB_SIZE),
        Read::GetBit { key, offset } => {
            put_key(out, opcode::GET_BIT, key);
            put_varint(out, u64::from(*offset));
        }
        Read::BitCount { key, range } => {
            put_key(out, opcode::BIT_COUNT, key);
            put_range(out, *range);
        }
        Read::BitPos { key, bit, range, end_given } => {
            put_key(out, opcode::BIT_POS, key);
            out.push(u8::from(*bit) | u8::from(*end_given) << 1);
            put_range(out, *range);
        }
        Read::Lcs(lcs) => put_lcs(out, lcs),
        Read::Walk(_) => panic!("a walk over the keyspace is never part of a batch"),
    }
}

fn put_lcs(out: &mut Vec<u8>, lcs: &Lcs) {
    put_pair(out, opcode::LCS, &lcs.first, &lcs.second);
    out.push(u8::from(lcs.len) | u8::from(lcs.idx) << 1 | u8::from(lcs.with_match_len) << 2);
    put_signed(out, lcs.min_match_len);
}

fn put_range(out: &mut Vec<u8>, range: Option<BitRange>) {
    match range {
        None => out.push(0),
        Some(BitRange { start, end, bits }) => {
            out.push(if bits { 2 } else { 1 });
            put_signed(out, start);
            put_signed(out, end);
        }
    }
}

fn put_when(out: &mut Vec<u8>, when: When) {
    let (kind, millis) = match when {
        When::After(millis) => (opcode::when::AFTER, millis),
        When::At(millis) => (opcode::when::AT, millis),
    };
    out.push(kind);
    put_signed(out, millis);
}

fn condition_bits(condition: ExpireConditions) -> u8 {
    u8::from(condition.nx)
        | u8::from(condition.xx) << 1
        | u8::from(condition.gt) << 2
        | u8::from(condition.lt) << 3
}

fn put_key(out: &mut Vec<u8>, code: u8, key: &[u8]) {
    out.push(code);
    put_text(out, key);
}

fn put_pair(out: &mut Vec<u8>, code: u8, first: &[u8], second: &[u8]) {
    out.push(code);
    put_text(out, first);
    put_text(out, second);
}
