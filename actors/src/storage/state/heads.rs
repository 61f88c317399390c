//! The heads of keys that were changed lately.
//!
//! Almost every write asks whether its key exists and when it expires. Asking RocksDB costs more
//! than all the rest of applying a small command, most of it cache misses in the memtable; busy
//! keys are answered from here.
//!
//! Two generations bound the memory: what changes goes into the young one, and once that is full
//! it becomes the old one, whose keys are forgotten unless they change again.

use hashbrown::HashTable;
use quorate_protocol::command::Head;

/// Keys of one generation. With the keys' bytes both take at most 28 MiB.
const KEYS_MAX: usize = 1 << 17;

/// Bytes of all keys of one generation.
const KEY_BYTES_MAX: usize = 8 << 20;

/// Longer keys are not remembered: a few of them would displace all others.
const KEY_BYTES_EACH_MAX: usize = 1 << 10;

/// What is known of recent keys: always what the state holds, for any key or for none.
#[derive(Debug, Default)]
pub(super) struct RecentHeads {
    young: Generation,
    old: Generation,
}

/// The answer to a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recent {
    /// The state holds the key.
    Present(Head),
    /// It doesn't.
    Absent,
    /// Only the state knows.
    Unknown,
}

#[derive(Debug, Default)]
struct Generation {
    known: HashTable<Known>,
    /// The keys, one behind the other.
    keys: Vec<u8>,
}

#[derive(Debug)]
struct Known {
    hash: u64,
    start: u32,
    length: u32,
    /// `None`: there is no such key.
    head: Option<Head>,
}

impl RecentHeads {
    /// What is known of a key.
    pub(super) fn get(&self, hash: u64, key: &[u8]) -> Recent {
        match self.young.find(hash, key).or_else(|| self.old.find(hash, key)) {
            Some(Known { head: Some(head), .. }) => Recent::Present(*head),
            Some(Known { head: None, .. }) => Recent::Absent,
            None => Recent::Unknown,
        }
    }

    /// The state holds this of a key from now on. Every change must be told.
    pub(super) fn set(&mut self, hash: u64, key: &[u8], head: Option<Head>) {
        if key.len() > KEY_BYTES_EACH_MAX {
            return;
        }
        if self.young.replace(hash, key, head) {
            return;
        }
        if self.young.is_full(key) {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.add(hash, key, head);
    }

    /// Everything that was in the state is gone.
    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

impl Generation {
    fn find(&self, hash: u64, key: &[u8]) -> Option<&Known> {
        self.known.find(hash, |known| known.is(hash, key, &self.keys))
    }

    /// Whether the key was there.
    fn replace(&mut self, hash: u64, key: &[u8], head: Option<Head>) -> bool {
        let keys = &self.keys;
        let found = self.known.find_mut(hash, |known| known.is(hash, key, keys));
        let replaced = found.map(|known| known.head = head);
        replaced.is_some()
    }

    fn is_full(&self, key: &[u8]) -> bool {
        self.known.len() == KEYS_MAX || self.keys.len() + key.len() > KEY_BYTES_MAX
    }

    fn add(&mut self, hash: u64, key: &[u8], head: Option<Head>) {
        // Both fit: all keys together have at most `KEY_BYTES_MAX` bytes.
        let known = Known { hash, start: self.keys.len() as u32, length: key.len() as u32, head };
        self.keys.extend_from_slice(key);
        self.known.insert_unique(hash, known, |known| known.hash);
    }

    /// Keeps the memory: it fills again.
    fn clear(&mut self) {
        self.known.clear();
        self.keys.clear();
    }
}

impl Known {
    fn is(&self, hash: u64, key: &[u8], keys: &[u8]) -> bool {
        let start = self.start as usize;
        self.hash == hash && keys[start..start + self.length as usize] == *key
    }
}

#[cfg(test)]
mod tests {
    use quorate_protocol::types::Seq;

    use super::*;

    fn head(version: u64) -> Head {
        Head { bytes: 1, expires_at_ms: None, version: Seq(version) }
    }

    #[test]
    fn the_last_change_is_known_across_generations() {
        let mut heads = RecentHeads::default();
        heads.set(1, b"busy", Some(head(1)));
        heads.set(2, b"gone", Some(head(1)));
        heads.set(2, b"gone", None);
        for number in 0..KEYS_MAX as u64 {
            heads.set(100 + number, &number.to_le_bytes(), Some(head(2)));
        }
        assert_eq!(heads.get(1, b"busy"), Recent::Present(head(1)), "of the old generation");
        heads.set(1, b"busy", Some(head(3)));
        assert_eq!(heads.get(1, b"busy"), Recent::Present(head(3)));
        assert_eq!(heads.get(2, b"gone"), Recent::Absent);
        assert_eq!(heads.get(3, b"never"), Recent::Unknown);
        for number in 0..KEYS_MAX as u64 {
            heads.set(100 + number, &(number | 1 << 40).to_le_bytes(), Some(head(4)));
        }
        assert_eq!(heads.get(2, b"gone"), Recent::Unknown, "two generations later");
        heads.clear();
        assert_eq!(heads.get(1, b"busy"), Recent::Unknown);
    }

    #[test]
    fn keys_of_one_hash_are_told_apart_and_long_ones_left_out() {
        let mut heads = RecentHeads::default();
        heads.set(7, b"a", Some(head(1)));
        heads.set(7, b"b", Some(head(2)));
        assert_eq!(
            (heads.get(7, b"a"), heads.get(7, b"b")),
            (Recent::Present(head(1)), Recent::Present(head(2)))
        );
        let long = vec![b'x'; KEY_BYTES_EACH_MAX + 1];
        heads.set(8, &long, Some(head(3)));
        assert_eq!(heads.get(8, &long), Recent::Unknown);
    }

    #[test]
    fn the_bytes_of_keys_are_bounded() {
        let mut heads = RecentHeads::default();
        for number in 0..4 * (KEY_BYTES_MAX / KEY_BYTES_EACH_MAX) as u64 {
            let mut key = vec![0; KEY_BYTES_EACH_MAX];
            key[..8].copy_from_slice(&number.to_le_bytes());
            heads.set(number, &key, Some(head(number)));
            assert_eq!(heads.get(number, &key), Recent::Present(head(number)));
        }
        assert!(heads.young.keys.len() + heads.old.keys.len() <= 2 * KEY_BYTES_MAX);
    }
}
