//! A hash over what the state holds, equal on nodes that hold the same.

use std::ops::ControlFlow;

use quorate_protocol::command::{Value, slot};

use super::error::StateError;
use super::reader::{ContentHash, StateSnapshot};
use crate::scrub::{RangeHashes, SLOTS_PER_RANGE};

/// Walks over the whole snapshot. Keys that are expired at the applied entry's time don't count:
/// whether they are still stored is the same on all nodes, too, but not what a client would see.
pub(super) fn content_hash(snapshot: &StateSnapshot<'_>) -> Result<ContentHash, StateError> {
    let applied = snapshot.applied()?;
    let mut hasher = blake3::Hasher::new();
    let mut keys = 0;
    snapshot.visit_values(&mut |key, value| {
        if value.head().is_live(applied.time.0) {
            keys += 1;
            feed(&mut hasher, key, &value);
        }
        ControlFlow::Continue(())
    })?;
    snapshot.visit_tokens(&mut |token, record| feed_token(&mut hasher, token, record))?;
    Ok(ContentHash { id: applied.id, keys, hash: *hasher.finalize().as_bytes() })
}

/// The same by ranges of slots, which are neighbours in the state. A token counts in the slot that a
/// key of its name has.
pub(super) fn range_hashes(snapshot: &StateSnapshot<'_>) -> Result<RangeHashes, StateError> {
    let applied = snapshot.applied()?;
    let mut hashes = RangeHashes::new(applied.id);
    let mut hashers = vec![None::<Box<blake3::Hasher>>; hashes.ranges.len()];
    snapshot.visit_values(&mut |key, value| {
        if value.head().is_live(applied.time.0) {
            let range = usize::from(slot(key) / SLOTS_PER_RANGE);
            hashes.ranges[range].keys += 1;
            feed(hashers[range].get_or_insert_default(), key, &value);
        }
        ControlFlow::Continue(())
    })?;
    snapshot.visit_tokens(&mut |token, record| {
        let range = usize::from(slot(token) / SLOTS_PER_RANGE);
        feed_token(hashers[range].get_or_insert_default(), token, record);
    })?;
    for (range, hasher) in hashes.ranges.iter_mut().zip(hashers) {
        if let Some(hasher) = hasher {
            range.hash = *hasher.finalize().as_bytes();
        }
    }
    Ok(hashes)
}

fn feed(hasher: &mut blake3::Hasher, key: &[u8], value: &Value) {
    // Lengths first, so that no two contents feed the same bytes.
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(&value.version.0.to_le_bytes());
    hasher.update(&[u8::from(value.expires_at_ms.is_some())]);
    hasher.update(&value.expires_at_ms.unwrap_or(0).to_le_bytes());
    hasher.update(&(value.data.len() as u64).to_le_bytes());
    hasher.update(&value.data);
}

/// Tokens come after all keys, and begin with a length that no key has.
fn feed_token(hasher: &mut blake3::Hasher, token: &[u8], record: &[u8]) {
    hasher.update(&u64::MAX.to_le_bytes());
    hasher.update(&(token.len() as u64).to_le_bytes());
    hasher.update(token);
    hasher.update(&(record.len() as u64).to_le_bytes());
    hasher.update(record);
}
