//! `CURRENT`: which instance of the state is in force, and what the journal must continue.
//!
//! Installing a snapshot has this one commit point: the file names both, and replacing it switches
//! both. Without it the state is the first instance and the journal starts wherever it starts. 80
//! bytes, little endian:
//!
//! ```text
//!  0 magic (8)   8 version  12 zero   16 instance  24 epoch  32 epoch and 40 seq of `preceding`
//! 48 chain (16) 64 zero     76 CRC32C of bytes 0..76
//! ```

use std::io;
use std::path::{Path, PathBuf};

use quorate_protocol::types::{Chain, EntryId, Epoch, Seq};

use super::data_dir::DataDirError;
use crate::storage::durable::{read_bounded, replace_file};

const NAME: &str = "CURRENT";
const MAGIC: [u8; 8] = *b"QUORCURR";
const VERSION: u32 = 1;
const BYTES: usize = 80;
const CRC_AT: usize = 76;

/// The instance of a state that no snapshot has replaced.
const FIRST_INSTANCE: u64 = 1;

/// What the last installed snapshot put in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    /// The folder of the state, under `state/`.
    pub instance: u64,
    /// The epoch in which the snapshot's maker knew it to be committed: this node must not answer
    /// the primary of an earlier one.
    pub epoch: Epoch,
    /// The snapshot's last entry: the journal holds it, or starts right after it.
    pub preceding: EntryId,
    /// The log's chain there.
    pub chain: Chain,
}

impl Current {
    /// What the data directory's file says; `None` where no snapshot was ever installed.
    ///
    /// # Errors
    /// It can't be read, is damaged or newer. It is never taken for absent then.
    pub fn load(data_dir: &Path) -> Result<Option<Self>, DataDirError> {
        let path = data_dir.join(NAME);
        match read_bounded(&path, BYTES) {
            Ok(bytes) => Self::decode(&bytes, path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(DataDirError::Damaged { path })
            }
            Err(source) => Err(DataDirError::Io { path, source }),
        }
    }

    /// Puts it in force: durable when this returns, and the old one stands where it fails.
    ///
    /// # Errors
    /// As the system reports them.
    pub fn store(&self, data_dir: &Path) -> io::Result<()> {
        replace_file(&data_dir.join(NAME), &self.encode())
    }

    /// The folder of the state that is in force.
    #[must_use]
    pub fn state_dir(data_dir: &Path, current: Option<&Self>) -> PathBuf {
        let instance = current.map_or(FIRST_INSTANCE, |current| current.instance);
        Self::instance_dir(data_dir, instance)
    }

    /// The folder of an instance of the state.
    #[must_use]
    pub fn instance_dir(data_dir: &Path, instance: u64) -> PathBuf {
        data_dir.join("state").join(instance.to_string())
    }

    /// The instance after the one in force.
    #[must_use]
    pub fn next_instance(current: Option<&Self>) -> u64 {
        current.map_or(FIRST_INSTANCE, |current| current.instance) + 1
    }

    fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.instance.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.epoch.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.preceding.epoch.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.preceding.seq.0.to_le_bytes());
        bytes[48..64].copy_from_slice(&self.chain.0.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8], path: PathBuf) -> Result<Self, DataDirError> {
        let Ok(bytes) = <&[u8; BYTES]>::try_from(bytes) else {
            return Err(DataDirError::Damaged { path });
        };
        let (data, crc) = bytes.split_at(CRC_AT);
        if crc32c::crc32c(data).to_le_bytes() != crc || data[..8] != MAGIC {
            return Err(DataDirError::Damaged { path });
        }
        let version = u32::from_le_bytes(take(data, 8));
        if version > VERSION {
            return Err(DataDirError::Newer { path, version });
        }
        let number = |at| u64::from_le_bytes(take(data, at));
        let current = Self {
            instance: number(16),
            epoch: Epoch(number(24)),
            preceding: EntryId::new(Epoch(number(32)), Seq(number(40))),
            chain: Chain(u128::from_le_bytes(take(data, 48))),
        };
        if current.encode() == *bytes { Ok(current) } else { Err(DataDirError::Damaged { path }) }
    }
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the range has N bytes")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::storage::scratch::{Scratch, hex};

    const CURRENT: Current = Current {
        instance: 2,
        epoch: Epoch(7),
        preceding: EntryId { epoch: Epoch(5), seq: Seq(900) },
        chain: Chain(0x1234),
    };

    #[test]
    fn bytes_are_fixed() {
        let expected = [
            "51554f5243555252010000000000000002000000000000000700000000000000",
            "0500000000000000840300000000000034120000000000000000000000000000",
            "00000000000000000000000066dc121c",
        ];
        assert_eq!(hex(&CURRENT.encode()), expected.concat());
    }

    #[test]
    fn it_survives_and_names_the_state() {
        let scratch = Scratch::new();
        let dir = scratch.path();
        assert_eq!(Current::load(dir).unwrap(), None);
        assert_eq!(Current::state_dir(dir, None), dir.join("state/1"));
        CURRENT.store(dir).unwrap();
        assert_eq!(Current::load(dir).unwrap(), Some(CURRENT));
        assert_eq!(Current::state_dir(dir, Some(&CURRENT)), dir.join("state/2"));
        assert_eq!(Current::next_instance(Some(&CURRENT)), 3);
    }

    #[test]
    fn damage_is_never_taken_for_absence() {
        let scratch = Scratch::new();
        let whole = CURRENT.encode();
        for bit in 0..8 * BYTES {
            let mut damaged = whole;
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(scratch.path().join(NAME), damaged).unwrap();
            let error = Current::load(scratch.path()).unwrap_err();
            assert!(matches!(error, DataDirError::Damaged { .. }), "bit {bit}: {error}");
        }
        for length in [0, BYTES - 1, BYTES + 1] {
            fs::write(scratch.path().join(NAME), vec![0; length]).unwrap();
            assert!(Current::load(scratch.path()).is_err(), "{length} bytes");
        }
    }
}
