//! Commands on single bits. Bit 0 is the most significant one of the first byte.

use bytes::{Bytes, BytesMut};

use super::read::bounds;
use super::write::{Scene, TOO_LONG};
use crate::command::VALUE_BYTES_MAX;
use crate::command::keyspace::Keyspace;
use crate::command::model::{BitOperation, BitRange};
use crate::resp::Reply;

/// Most bytes that one `BITOP` reads.
const BIT_OP_BYTES_MAX: usize = 64 << 20;

pub(super) fn get_bit(data: &[u8], offset: u32) -> Reply {
    Reply::Integer(i64::from(
        data.get((offset / 8) as usize).is_some_and(|byte| bit(*byte, offset)),
    ))
}

pub(super) fn bit_count(data: &[u8], range: Option<BitRange>) -> Reply {
    let Some(range) = range else { return Reply::Integer(ones(data)) };
    if range.start < 0 && range.end < 0 && range.start > range.end {
        return Reply::Integer(0);
    }
    let Some((first, last)) = bit_bounds(range, data.len()) else { return Reply::Integer(0) };
    let (first_byte, last_byte) = (first / 8, last / 8);
    let mut count = ones(&data[first_byte..=last_byte]);
    let before = data[first_byte] & !(0xff >> (first % 8));
    let behind = data[last_byte] & !(0xff << (7 - last % 8)) as u8;
    count -= i64::from(before.count_ones()) + i64::from(behind.count_ones());
    Reply::Integer(count)
}

pub(super) fn bit_pos(
    data: Option<&[u8]>,
    wanted: bool,
    range: Option<BitRange>,
    end_given: bool,
) -> Reply {
    let Some(data) = data else { return Reply::Integer(if wanted { -1 } else { 0 }) };
    let range = range.unwrap_or(BitRange { start: 0, end: -1, bits: false });
    let Some((first, last)) = bit_bounds(range, data.len()) else { return Reply::Integer(-1) };
    match find_bit(data, wanted, first, last) {
        Some(at) => Reply::Integer(at as i64),
        // Behind the end of the value, unless the caller fixed the end, are zeros.
        None if !wanted && !end_given => Reply::Integer(data.len() as i64 * 8),
        None => Reply::Integer(-1),
    }
}

pub(super) fn set_bit<K: Keyspace>(
    scene: &mut Scene<'_, K>,
    key: &Bytes,
    offset: u32,
    on: bool,
) -> Result<Reply, K::Error> {
    let found = scene.find(key)?;
    let at = (offset / 8) as usize;
    if at >= VALUE_BYTES_MAX {
        return Ok(Reply::error(TOO_LONG));
    }
    let old = found.data();
    let was = old.get(at).is_some_and(|byte| bit(*byte, offset));
    let mut data = BytesMut::zeroed(old.len().max(at + 1));
    data[..old.len()].copy_from_slice(old);
    let mask = 0x80 >> (offset % 8);
    if on {
        data[at] |= mask;
    } else {
        data[at] &= !mask;
    }
    scene.store(key, data.freeze(), found.expires_at_ms(), found.stored)?;
    Ok(Reply::Integer(i64::from(was)))
}

pub(super) fn bit_op<K: Keyspace>(
    scene: &mut Scene<'_, K>,
    operation: BitOperation,
    to: &Bytes,
    from: &[Bytes],
) -> Result<Reply, K::Error> {
    let mut bytes = 0;
    for key in from {
        bytes += scene.find(key)?.data().len();
        if bytes > BIT_OP_BYTES_MAX {
            return Ok(Reply::error("ERR BITOP reads too many bytes at once"));
        }
    }
    let mut result: Option<BytesMut> = None;
    for key in from {
        let found = scene.find(key)?;
        let data = found.data();
        result = Some(match result {
            None => data.into(),
            Some(result) => combine(operation, result, data),
        });
    }
    let mut result = result.unwrap_or_default();
    if operation == BitOperation::Not {
        for byte in result.iter_mut() {
            *byte = !*byte;
        }
    }
    let len = result.len();
    let stored = scene.keyspace.head(to)?;
    match stored {
        _ if len > 0 => scene.store(to, result.freeze(), None, stored)?,
        Some(stored) => scene.keyspace.delete(to, stored, scene.at.seq)?,
        None => {}
    }
    Ok(Reply::Integer(len as i64))
}

/// The shorter one counts as filled up with zeros.
fn combine(operation: BitOperation, mut left: BytesMut, right: &[u8]) -> BytesMut {
    if left.len() < right.len() {
        left.resize(right.len(), 0);
    }
    for (at, byte) in left.iter_mut().enumerate() {
        let other = right.get(at).copied().unwrap_or(0);
        match operation {
            BitOperation::And => *byte &= other,
            BitOperation::Or => *byte |= other,
            BitOperation::Xor => *byte ^= other,
            BitOperation::Not => {}
        }
    }
    left
}

/// First and last bit of a range of bytes or bits.
fn bit_bounds(range: BitRange, bytes: usize) -> Option<(usize, usize)> {
    if range.bits {
        return bounds(range.start, range.end, bytes * 8);
    }
    let (first, last) = bounds(range.start, range.end, bytes)?;
    Some((first * 8, last * 8 + 7))
}

fn find_bit(data: &[u8], wanted: bool, first: usize, last: usize) -> Option<usize> {
    let skip = if wanted { 0x00 } else { 0xff };
    let mut at = first;
    while at <= last {
        if at.is_multiple_of(8) && data[at / 8] == skip {
            at += 8;
        } else if bit(data[at / 8], at as u32) == wanted {
            return Some(at);
        } else {
            at += 1;
        }
    }
    None
}

fn bit(byte: u8, offset: u32) -> bool {
    byte & (0x80 >> (offset % 8)) != 0
}

fn ones(data: &[u8]) -> i64 {
    data.iter().map(|byte| i64::from(byte.count_ones())).sum()
}
