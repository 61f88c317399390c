//! One slot: 128 bytes, little endian.
//!
//! ```text
//!  0 magic "QUORHARD"   8 version   12 flags        16 write number
//! 24 epoch             32 vote (0: none)            40 incarnation
//! 48 generation        56 boot id (16)              72 zero      124 CRC32C of bytes 0..124
//! ```

use std::io;

use quorate_protocol::core::HardState;
use quorate_protocol::types::{Epoch, Generation, Incarnation, NodeId};

/// Bytes of a slot: less than a disk sector, so that a write is there or not.
pub(super) const SLOT_BYTES: usize = 128;

const MAGIC: [u8; 8] = *b"QUORHARD";
const VERSION: u32 = 1;
const CRC_AT: usize = 124;
const FLAG_CLEAN: u32 = 1;
const FLAG_MEMORY_LOSS: u32 = 2;
const FLAG_IO_ERROR: u32 = 4;
const FLAGS: u32 = FLAG_CLEAN | FLAG_MEMORY_LOSS | FLAG_IO_ERROR;

/// Everything that a node keeps beside log and state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeHardState {
    /// Epoch, vote and the memory-loss flag: the core's part.
    pub core: HardState,
    /// This life of the node.
    pub incarnation: Incarnation,
    /// Lossy recoveries that this node knows of (S12).
    pub generation: Generation,
    /// The boot of the machine in which this life began.
    pub boot: BootId,
    /// Whether the life ended in order: intake had stopped and the journal was synced.
    pub clean: bool,
    /// Whether the life ended by a failed write or sync.
    pub io_error: bool,
}

/// Names one boot of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BootId(pub u128);

impl BootId {
    /// The current one.
    ///
    /// # Errors
    /// As the system reports them; `InvalidData` if it isn't a UUID.
    pub fn current() -> io::Result<Self> {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
        u128::from_str_radix(&digits, 16)
            .map(Self)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "boot_id is not a UUID"))
    }
}

/// Why bytes aren't a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SlotFault {
    #[error("it is damaged")]
    Damaged,
    #[error("its format {0} is newer than this version reads")]
    Newer(u32),
}

/// A hard state and the number of its write: the higher is the later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) number: u64,
    pub(super) state: NodeHardState,
}

impl Slot {
    pub(super) fn encode(&self) -> [u8; SLOT_BYTES] {
        let state = &self.state;
        let mut flags = 0;
        for (set, flag) in [
            (state.clean, FLAG_CLEAN),
            (state.core.memory_loss, FLAG_MEMORY_LOSS),
            (state.io_error, FLAG_IO_ERROR),
        ] {
            flags |= if set { flag } else { 0 };
        }
        let mut bytes = [0; SLOT_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&flags.to_le_bytes());
        let numbers = [
            self.number,
            state.core.epoch.0,
            state.core.vote.map_or(0, |vote| vote.0),
            state.incarnation.0,
            state.generation.0,
        ];
        for (at, number) in (16..).step_by(8).zip(numbers) {
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        bytes[56..72].copy_from_slice(&state.boot.0.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, SlotFault> {
        let bytes: &[u8; SLOT_BYTES] = bytes.try_into().map_err(|_| SlotFault::Damaged)?;
        let (data, crc) = bytes.split_at(CRC_AT);
        if crc32c::crc32c(data).to_le_bytes() != crc || data[..8] != MAGIC {
            return Err(SlotFault::Damaged);
        }
        let version = u32::from_le_bytes(take(data, 8));
        if version > VERSION {
            return Err(SlotFault::Newer(version));
        }
        let flags = u32::from_le_bytes(take(data, 12));
        let number = |at| u64::from_le_bytes(take(data, at));
        let vote = number(32);
        let slot = Self {
            number: number(16),
            state: NodeHardState {
                core: HardState {
                    epoch: Epoch(number(24)),
                    vote: (vote != 0).then_some(NodeId(vote)),
                    memory_loss: flags & FLAG_MEMORY_LOSS != 0,
                },
                incarnation: Incarnation(number(40)),
                generation: Generation(number(48)),
                boot: BootId(u128::from_le_bytes(take(data, 56))),
                clean: flags & FLAG_CLEAN != 0,
                io_error: flags & FLAG_IO_ERROR != 0,
            },
        };
        if flags & !FLAGS != 0 || slot.encode() != *bytes {
            return Err(SlotFault::Damaged);
        }
        Ok(slot)
    }
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the range has N bytes")
}

#[cfg(test)]
pub(super) fn sample() -> NodeHardState {
    NodeHardState {
        core: HardState { epoch: Epoch(5), vote: Some(NodeId(2)), memory_loss: true },
        incarnation: Incarnation(9),
        generation: Generation(1),
        boot: BootId(0xABCD),
        clean: false,
        io_error: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::scratch::hex;

    #[test]
    fn bytes_are_fixed() {
        let slot = Slot { number: 3, state: sample() };
        let expected = [
            "51554f5248415244010000000200000003000000000000000500000000000000",
            "020000000000000009000000000000000100000000000000cdab000000000000",
            "0000000000000000000000000000000000000000000000000000000000000000",
            "00000000000000000000000000000000000000000000000000000000658e0829",
        ];
        assert_eq!(hex(&slot.encode()), expected.concat());
    }

    #[test]
    fn every_field_and_flag_survives() {
        for bits in 0..8u32 {
            for vote in [None, Some(NodeId(7))] {
                let mut state = sample();
                state.core.vote = vote;
                state.core.memory_loss = bits & 1 != 0;
                state.clean = bits & 2 != 0;
                state.io_error = bits & 4 != 0;
                let slot = Slot { number: u64::from(bits), state };
                assert_eq!(Slot::decode(&slot.encode()), Ok(slot));
            }
        }
    }

    #[test]
    fn a_flipped_bit_or_a_missing_byte_is_found() {
        let bytes = Slot { number: 3, state: sample() }.encode();
        for bit in 0..8 * SLOT_BYTES {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Slot::decode(&damaged), Err(SlotFault::Damaged), "bit {bit}");
        }
        for len in 0..SLOT_BYTES {
            assert_eq!(Slot::decode(&bytes[..len]), Err(SlotFault::Damaged), "{len} bytes");
        }
    }
}
