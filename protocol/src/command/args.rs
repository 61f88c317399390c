//! The arguments of one command, taken from left to right.

use bytes::Bytes;

use super::KEY_BYTES_MAX;
use super::error::CommandError;
use super::number::{parse_i64, parse_u64};
use super::spec::Spec;

/// A cursor over a command's arguments; its name is already behind it.
pub(super) struct Args<'a> {
    spec: &'static Spec,
    argv: &'a mut [Bytes],
    next: usize,
}

impl<'a> Args<'a> {
    pub(super) fn new(spec: &'static Spec, argv: &'a mut [Bytes], skip: usize) -> Self {
        Self { spec, argv, next: skip }
    }

    pub(super) fn spec(&self) -> &'static Spec {
        self.spec
    }

    pub(super) fn left(&self) -> usize {
        self.argv.len() - self.next
    }

    /// The next argument without taking it.
    pub(super) fn peek(&self) -> Option<&[u8]> {
        self.argv.get(self.next).map(AsRef::as_ref)
    }

    /// Takes the next argument; a missing one is a syntax error.
    pub(super) fn take(&mut self) -> Result<Bytes, CommandError> {
        let arg = self.argv.get_mut(self.next).ok_or(CommandError::Syntax)?;
        self.next += 1;
        Ok(std::mem::take(arg))
    }

    /// Takes the next argument if it is this word, in any case.
    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let found = self.peek().is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()));
        self.next += usize::from(found);
        found
    }

    /// Takes a key.
    pub(super) fn key(&mut self) -> Result<Bytes, CommandError> {
        let key = self.take()?;
        if key.len() > KEY_BYTES_MAX {
            return Err(CommandError::KeyTooLong { bytes: key.len() });
        }
        Ok(key)
    }

    /// Takes all that is left as keys.
    pub(super) fn keys(&mut self) -> Result<Vec<Bytes>, CommandError> {
        let mut keys = Vec::with_capacity(self.left());
        while self.left() > 0 {
            keys.push(self.key()?);
        }
        Ok(keys)
    }

    /// Takes all that is left.
    pub(super) fn rest(&mut self) -> Vec<Bytes> {
        let rest = self.argv[self.next..].iter_mut().map(std::mem::take).collect();
        self.next = self.argv.len();
        rest
    }

    /// Takes an integer.
    pub(super) fn integer(&mut self) -> Result<i64, CommandError> {
        parse_i64(&self.take()?).ok_or(CommandError::NotAnInteger)
    }

    /// Takes an integer that isn't negative; the error of another is `text`.
    pub(super) fn unsigned(&mut self, text: &'static str) -> Result<u64, CommandError> {
        parse_u64(&self.take()?).ok_or(CommandError::Other(text))
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), CommandError> {
        if self.left() == 0 { Ok(()) } else { Err(CommandError::Syntax) }
    }
}
