//! A fast hash that is the same in every run, so that counts of states can be compared.

use std::hash::Hasher;

/// Multiplies each word into the state at full width and folds the halves together.
pub(super) struct Fold(u64);

const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl Default for Fold {
    fn default() -> Self {
        Self(0x243f_6a88_85a3_08d3)
    }
}

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
        self.write_u64(bytes.len() as u64);
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(FACTOR);
        self.0 = (product as u64 ^ (product >> 64) as u64).rotate_left(23);
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(u64::from(byte));
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        let product = u128::from(self.0 ^ FACTOR) * u128::from(0xd6e8_feb8_6659_fd93_u64);
        product as u64 ^ (product >> 64) as u64
    }
}
