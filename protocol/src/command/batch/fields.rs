//! Fields of units: numbers and texts.

use bytes::Bytes;

use super::DecodeError;

/// Longest LEB128 form of a `u64`.
const VARINT_BYTES_MAX: usize = 10;
/// Elements that are allocated for at once; more are allocated as they arrive.
const ELEMENTS_AT_ONCE: usize = 64;

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, (value << 1 ^ value >> 63) as u64);
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text);
}

pub(super) fn put_texts(out: &mut Vec<u8>, texts: &[Bytes]) {
    put_varint(out, texts.len() as u64);
    for text in texts {
        put_text(out, text);
    }
}

/// Reads fields from the front of a body. Texts are slices of it, not copies.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    rest: Bytes,
}

impl Fields {
    pub(super) fn new(body: Bytes) -> Self {
        Self { rest: body }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn byte(&mut self) -> Result<u8, DecodeError> {
        let &byte = self.rest.first().ok_or(DecodeError::Truncated)?;
        self.skip(1);
        Ok(byte)
    }

    pub(super) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for at in 0..VARINT_BYTES_MAX {
            let &byte = self.rest.get(at).ok_or(DecodeError::Truncated)?;
            let bits = u64::from(byte & 0x7f);
            let shift = 7 * at as u32;
            if bits.leading_zeros() < shift || (byte == 0 && at > 0) {
                return Err(DecodeError::Number);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                self.skip(at + 1);
                return Ok(value);
            }
        }
        Err(DecodeError::Number)
    }

    pub(super) fn signed(&mut self) -> Result<i64, DecodeError> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.varint()?).map_err(|_| DecodeError::Number)
    }

    pub(super) fn text(&mut self) -> Result<Bytes, DecodeError> {
        let len = usize::try_from(self.varint()?).map_err(|_| DecodeError::Truncated)?;
        if len > self.rest.len() {
            return Err(DecodeError::Truncated);
        }
        Ok(self.rest.split_to(len))
    }

    pub(super) fn texts(&mut self) -> Result<Vec<Bytes>, DecodeError> {
        self.list(Self::text)
    }

    /// A count, and so many elements of at least one byte each.
    pub(super) fn list<T>(
        &mut self,
        element: impl Fn(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = usize::try_from(self.varint()?).map_err(|_| DecodeError::Truncated)?;
        if count > self.rest.len() {
            return Err(DecodeError::Truncated);
        }
        let mut elements = Vec::with_capacity(count.min(ELEMENTS_AT_ONCE));
        for _ in 0..count {
            elements.push(element(self)?);
        }
        Ok(elements)
    }

    /// One byte of which only the bits of `allowed` may be set.
    pub(super) fn flags(&mut self, allowed: u8) -> Result<u8, DecodeError> {
        let flags = self.byte()?;
        if flags & !allowed == 0 { Ok(flags) } else { Err(DecodeError::Flags) }
    }

    fn skip(&mut self, bytes: usize) {
        bytes::Buf::advance(&mut self.rest, bytes);
    }
}
