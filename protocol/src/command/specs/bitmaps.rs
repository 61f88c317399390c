//! Single bits of a value.

use bytes::Bytes;

use super::super::VALUE_BYTES_MAX;
use super::super::model::{BitOperation, BitRange};
use super::super::number::parse_i64;
use super::{
    Args, CommandError, GROW, KEY_READ, KEY_READ_AND_UPDATED, Keys, Parsed, READ, READ_FAST, Read,
    Spec, Write, read, write,
};

const GROUP: &str = "bitmap";
const BAD_OFFSET: CommandError =
    CommandError::Other("ERR bit offset is not an integer or out of range");

pub(super) const SPECS: &[Spec] = &[
    Spec::new("setbit", 4, parse_set_bit).flags(GROW).keys(KEY_READ_AND_UPDATED).doc(
        GROUP,
        "2.2.0",
        "Sets or clears a bit.",
    ),
    Spec::new("getbit", 3, |args| {
        read(Read::GetBit { key: args.key()?, offset: parse_offset(&args.take()?)? })
    })
    .flags(READ_FAST)
    .keys(KEY_READ)
    .doc(GROUP, "2.2.0", "Answers a bit."),
    Spec::new("bitcount", -2, parse_bit_count).flags(READ).keys(KEY_READ).doc(
        GROUP,
        "2.6.0",
        "Counts the bits that are set.",
    ),
    Spec::new("bitpos", -3, parse_bit_pos).flags(READ).keys(KEY_READ).doc(
        GROUP,
        "2.8.7",
        "Finds the first bit that is set, or clear.",
    ),
    Spec::new("bitop", -4, parse_bit_op)
        .flags(GROW)
        .keys(&[Keys::new(2, 2, 1, &["OW", "update"]), Keys::new(3, -1, 1, &["RO", "access"])])
        .doc(GROUP, "2.6.0", "Combines values bit by bit."),
];

/// Offsets end where the longest value does.
fn parse_offset(text: &Bytes) -> Result<u32, CommandError> {
    parse_i64(text)
        .and_then(|offset| u32::try_from(offset).ok())
        .filter(|&offset| ((offset / 8) as usize) < VALUE_BYTES_MAX)
        .ok_or(BAD_OFFSET)
}

fn parse_set_bit(args: &mut Args<'_>) -> Parsed {
    let (key, offset, bit) = (args.key()?, parse_offset(&args.take()?)?, args.take()?);
    let bit = match &bit[..] {
        b"0" => false,
        b"1" => true,
        _ => return Err(CommandError::Other("ERR bit is not an integer or out of range")),
    };
    write(Write::SetBit { key, offset, bit })
}

fn parse_bit_count(args: &mut Args<'_>) -> Parsed {
    let key = args.key()?;
    let range = match args.left() {
        0 => None,
        2 | 3 => {
            let (start, end) = (args.integer()?, args.integer()?);
            Some(BitRange { start, end, bits: parse_unit(args)? })
        }
        _ => return Err(CommandError::Syntax),
    };
    read(Read::BitCount { key, range })
}

fn parse_bit_pos(args: &mut Args<'_>) -> Parsed {
    let (key, bit) = (args.key()?, args.integer()?);
    let bit = match bit {
        0 => false,
        1 => true,
        _ => return Err(CommandError::Other("ERR The bit argument must be 1 or 0.")),
    };
    let count = args.left();
    let range = match count {
        0 => None,
        1 => Some(BitRange { start: args.integer()?, end: -1, bits: false }),
        2 | 3 => {
            let (start, end) = (args.integer()?, args.integer()?);
            Some(BitRange { start, end, bits: parse_unit(args)? })
        }
        _ => return Err(CommandError::Syntax),
    };
    read(Read::BitPos { key, bit, range, end_given: count >= 2 })
}

fn parse_unit(args: &mut Args<'_>) -> Result<bool, CommandError> {
    if args.left() == 0 || args.take_word("BYTE") {
        return Ok(false);
    }
    if args.take_word("BIT") { Ok(true) } else { Err(CommandError::Syntax) }
}

fn parse_bit_op(args: &mut Args<'_>) -> Parsed {
    let operation = [
        ("AND", BitOperation::And),
        ("OR", BitOperation::Or),
        ("XOR", BitOperation::Xor),
        ("NOT", BitOperation::Not),
    ]
    .into_iter()
    .find_map(|(word, operation)| args.take_word(word).then_some(operation))
    .ok_or(CommandError::Syntax)?;
    let (to, from) = (args.key()?, args.keys()?);
    if operation == BitOperation::Not && from.len() != 1 {
        return Err(CommandError::Other("ERR BITOP NOT must be called with a single source key."));
    }
    write(Write::BitOp { operation, to, from })
}
