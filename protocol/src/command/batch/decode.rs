//! Bytes to units.

use bytes::{Buf, Bytes};
use thiserror::Error;

use super::fields::Fields;
use super::{HEADER_BYTES, VERSION, opcode};
use crate::command::model::{
    BitOperation, BitRange, Exec, ExpireConditions, GetExExpiry, Lcs, ObjectProperty, Once, Read,
    Seen, Set, SetCondition, SetExpiry, Step, TtlForm, Unit, Watched, When, Write,
};
use crate::command::token::TOKEN_BYTES_MAX;
use crate::types::Seq;

/// Why a payload isn't a sequence of batches that this version understands. In a committed entry
/// it means that the node must stop applying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// A length or count goes beyond the end.
    #[error("a batch is cut short")]
    Truncated,
    /// The CRC32C of a body doesn't match.
    #[error("a batch has a wrong checksum")]
    Checksum,
    /// A body of another version.
    #[error("a batch has version {0}, this node knows {VERSION}")]
    Version(u8),
    /// No unit has this number.
    #[error("a batch has a command number that this node doesn't know: {0}")]
    Opcode(u8),
    /// A number isn't in its shortest form or too large.
    #[error("a batch has an ill-formed number")]
    Number,
    /// A flag that isn't defined.
    #[error("a batch has unknown flags")]
    Flags,
    /// A token's length is one that is never written.
    #[error("a batch has an ill-formed token")]
    Token,
    /// The header promises another number of units.
    #[error("a batch has another number of commands than its header says")]
    Count,
}

/// The batches of a payload, in order. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Batches {
    rest: Bytes,
}

/// One batch whose checksum is right; its units may still be ill-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedBatch {
    /// Number of units that its header promises.
    pub count: u32,
    body: Bytes,
}

/// The units of a batch, in order. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Units {
    fields: Fields,
    left: u32,
}

impl Batches {
    /// Reads the payload of a `Commands` entry.
    #[must_use]
    pub fn new(payload: Bytes) -> Self {
        Self { rest: payload }
    }

    fn read(&mut self) -> Result<EncodedBatch, DecodeError> {
        if self.rest.len() < HEADER_BYTES {
            return Err(DecodeError::Truncated);
        }
        let len = self.rest.get_u32_le() as usize;
        let count = self.rest.get_u32_le();
        let crc = self.rest.get_u32_le();
        if len > self.rest.len() {
            return Err(DecodeError::Truncated);
        }
        let mut body = self.rest.split_to(len);
        if crc32c::crc32c(&body) != crc {
            return Err(DecodeError::Checksum);
        }
        match body.first() {
            None => return Err(DecodeError::Truncated),
            Some(&VERSION) => body.advance(1),
            Some(&version) => return Err(DecodeError::Version(version)),
        }
        Ok(EncodedBatch { count, body })
    }
}

impl Iterator for Batches {
    type Item = Result<EncodedBatch, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let batch = self.read();
        if batch.is_err() {
            self.rest.clear();
        }
        Some(batch)
    }
}

impl EncodedBatch {
    /// Its units.
    #[must_use]
    pub fn units(self) -> Units {
        Units { fields: Fields::new(self.body), left: self.count }
    }
}

impl Iterator for Units {
    type Item = Result<Unit, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let unit = match (self.left, self.fields.is_empty()) {
            (0, true) => return None,
            (0, false) => Err(DecodeError::Count),
            (_, true) => Err(DecodeError::Count),
            (_, false) => unit(&mut self.fields),
        };
        match unit {
            Ok(_) => self.left -= 1,
            Err(_) => *self = Self { fields: Fields::new(Bytes::new()), left: 0 },
        }
        Some(unit)
    }
}

fn unit(fields: &mut Fields) -> Result<Unit, DecodeError> {
    match fields.byte()? {
        opcode::ONCE => {
            let token = fields.text()?;
            if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
                return Err(DecodeError::Token);
            }
            let code = fields.byte()?;
            match plain(code, fields)? {
                Unit::Read(_) | Unit::Once(_) => Err(DecodeError::Opcode(code)),
                unit @ (Unit::Write(_) | Unit::Exec(_)) => {
                    Ok(Unit::Once(Once { token, unit: Box::new(unit) }))
                }
            }
        }
        code => plain(code, fields),
    }
}

fn plain(code: u8, fields: &mut Fields) -> Result<Unit, DecodeError> {
    match code {
        opcode::EXEC => Ok(Unit::Exec(Exec {
            watches: fields.list(watched)?,
            steps: fields.list(|fields| {
                let code = fields.byte()?;
                step(code, fields)
            })?,
        })),
        code => Ok(match step(code, fields)? {
            Step::Write(write) => Unit::Write(write),
            Step::Read(read) => Unit::Read(read),
        }),
    }
}

fn step(code: u8, fields: &mut Fields) -> Result<Step, DecodeError> {
    if code < opcode::GET {
        write(code, fields).map(Step::Write)
    } else {
        read(code, fields).map(Step::Read)
    }
}

fn watched(fields: &mut Fields) -> Result<Watched, DecodeError> {
    let key = fields.text()?;
    let absent = fields.flags(1)? == 1;
    let seq = Seq(fields.varint()?);
    Ok(Watched { key, seen: if absent { Seen::Absent(seq) } else { Seen::Version(seq) } })
}

fn write(code: u8, fields: &mut Fields) -> Result<Write, DecodeError> {
    Ok(match code {
        opcode::SET => Write::Set(Set {
            key: fields.text()?,
            value: fields.text()?,
            condition: SetCondition::Always,
            expiry: SetExpiry::None,
            get: false,
        }),
        opcode::SET_WITH => Write::Set(set_with(fields)?),
        opcode::SET_NX => Write::SetNx { key: fields.text()?, value: fields.text()? },
        opcode::M_SET | opcode::M_SET_NX => Write::MSet {
            pairs: fields.list(|fields| Ok((fields.text()?, fields.text()?)))?,
            only_if_none: code == opcode::M_SET_NX,
        },
        opcode::GET_DEL => Write::GetDel { key: fields.text()? },
        opcode::GET_EX => Write::GetEx { key: fields.text()?, expiry: get_ex_expiry(fields)? },
        opcode::APPEND => Write::Append { key: fields.text()?, value: fields.text()? },
        opcode::SET_RANGE => {
            Write::SetRange { key: fields.text()?, value: fields.text()?, offset: fields.varint()? }
        }
        opcode::INCR_BY => Write::IncrBy { key: fields.text()?, delta: fields.signed()? },
        opcode::INCR_BY_FLOAT => Write::IncrByFloat { key: fields.text()?, delta: fields.text()? },
        opcode::DEL => Write::Del { keys: fields.texts()? },
        opcode::DEL_IF_EQ => Write::DelIfEq { key: fields.text()?, value: fields.text()? },
        opcode::EXPIRE => Write::Expire {
            key: fields.text()?,
            when: when(fields)?,
            condition: conditions(fields)?,
        },
        opcode::PERSIST => Write::Persist { key: fields.text()? },
        opcode::FLUSH_ALL => Write::FlushAll,
        opcode::RENAME | opcode::RENAME_NX => Write::Rename {
            from: fields.text()?,
            to: fields.text()?,
            only_if_none: code == opcode::RENAME_NX,
        },
        opcode::COPY | opcode::COPY_REPLACE => Write::Copy {
            from: fields.text()?,
            to: fields.text()?,
            replace: code == opcode::COPY_REPLACE,
        },
        opcode::SET_BIT => {
            Write::SetBit { key: fields.text()?, offset: fields.u32()?, bit: fields.flags(1)? == 1 }
        }
        opcode::BIT_OP => Write::BitOp {
            to: fields.text()?,
            operation: match fields.flags(3)? {
                0 => BitOperation::And,
                1 => BitOperation::Or,
                2 => BitOperation::Xor,
                _ => BitOperation::Not,
            },
            from: fields.texts()?,
        },
        code => return Err(DecodeError::Opcode(code)),
    })
}

fn set_with(fields: &mut Fields) -> Result<Set, DecodeError> {
    use opcode::set as bits;
    let (key, value) = (fields.text()?, fields.text()?);
    let flags = fields.flags(bits::CONDITION | bits::EXPIRY | bits::GET)?;
    if flags == 0 {
        return Err(DecodeError::Flags);
    }
    let condition = match flags & bits::CONDITION {
        bits::IF_NONE => SetCondition::IfNone,
        bits::IF_SOME => SetCondition::IfSome,
        bits::IF_EQUAL => SetCondition::IfEqual(fields.text()?),
        _ => SetCondition::Always,
    };
    let expiry = match flags & bits::EXPIRY {
        bits::KEEP => SetExpiry::Keep,
        bits::AFTER => SetExpiry::At(When::After(fields.signed()?)),
        bits::AT => SetExpiry::At(When::At(fields.signed()?)),
        _ => SetExpiry::None,
    };
    Ok(Set { key, value, condition, expiry, get: flags & bits::GET != 0 })
}

fn read(code: u8, fields: &mut Fields) -> Result<Read, DecodeError> {
    Ok(match code {
        opcode::GET => Read::Get { key: fields.text()? },
        opcode::M_GET => Read::MGet { keys: fields.texts()? },
        opcode::STR_LEN => Read::StrLen { key: fields.text()? },
        opcode::GET_RANGE => {
            Read::GetRange { key: fields.text()?, start: fields.signed()?, end: fields.signed()? }
        }
        opcode::EXISTS => Read::Exists { keys: fields.texts()? },
        opcode::TYPE => Read::Type { key: fields.text()? },
        opcode::TTL => Read::Ttl {
            key: fields.text()?,
            form: match fields.flags(3)? {
                0 => TtlForm::Seconds,
                1 => TtlForm::Millis,
                2 => TtlForm::AtSeconds,
                _ => TtlForm::AtMillis,
            },
        },
        opcode::OBJECT => Read::Object {
            key: fields.text()?,
            property: match fields.flags(3)? {
                0 => ObjectProperty::Encoding,
                1 => ObjectProperty::RefCount,
                2 => ObjectProperty::IdleTime,
                _ => ObjectProperty::Frequency,
            },
        },
        opcode::MEMORY_USAGE => Read::MemoryUsage { key: fields.text()? },
        opcode::DB_SIZE => Read::DbSize,
        opcode::GET_BIT => Read::GetBit { key: fields.text()?, offset: fields.u32()? },
        opcode::BIT_COUNT => Read::BitCount { key: fields.text()?, range: range(fields)? },
        opcode::BIT_POS => {
            let key = fields.text()?;
            let flags = fields.flags(3)?;
            let range = range(fields)?;
            Read::BitPos { key, bit: flags & 1 != 0, range, end_given: flags & 2 != 0 }
        }
        opcode::LCS => {
            let (first, second) = (fields.text()?, fields.text()?);
            let flags = fields.flags(7)?;
            Read::Lcs(Lcs {
                first,
                second,
                len: flags & 1 != 0,
                idx: flags & 2 != 0,
                with_match_len: flags & 4 != 0,
                min_match_len: fields.signed()?,
            })
        }
        code => return Err(DecodeError::Opcode(code)),
    })
}

fn range(fields: &mut Fields) -> Result<Option<BitRange>, DecodeError> {
    let kind = fields.byte()?;
    if kind > 2 {
        return Err(DecodeError::Flags);
    }
    if kind == 0 {
        return Ok(None);
    }
    Ok(Some(BitRange { start: fields.signed()?, end: fields.signed()?, bits: kind == 2 }))
}

fn get_ex_expiry(fields: &mut Fields) -> Result<GetExExpiry, DecodeError> {
    match fields.byte()? {
        opcode::when::KEEP => Ok(GetExExpiry::Keep),
        opcode::when::REMOVE => Ok(GetExExpiry::Remove),
        kind => Ok(GetExExpiry::At(when_of(kind, fields)?)),
    }
}

fn when(fields: &mut Fields) -> Result<When, DecodeError> {
    let kind = fields.byte()?;
    when_of(kind, fields)
}

fn when_of(kind: u8, fields: &mut Fields) -> Result<When, DecodeError> {
    match kind {
        opcode::when::AFTER => Ok(When::After(fields.signed()?)),
        opcode::when::AT => Ok(When::At(fields.signed()?)),
        _ => Err(DecodeError::Flags),
    }
}

fn conditions(fields: &mut Fields) -> Result<ExpireConditions, DecodeError> {
    let bits = fields.flags(15)?;
    Ok(ExpireConditions {
        nx: bits & 1 != 0,
        xx: bits & 2 != 0,
        gt: bits & 4 != 0,
        lt: bits & 8 != 0,
    })
}
