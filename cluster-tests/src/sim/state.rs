//! The state that committed entries build: one in each process, and one that all must agree with.

use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use quorate_protocol::command::execute::{Moment, apply_payload, execute_read};
use quorate_protocol::command::{MemoryKeyspace, Read};
use quorate_protocol::entry::Entry;
use quorate_protocol::resp::Reply;
use quorate_protocol::types::{ClusterTime, EntryKind, Seq};

/// Keys and values, changed by nothing but the node's own executor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    keys: MemoryKeyspace,
}

impl State {
    /// Applies the next entry. Returns one reply for each command.
    pub(super) fn apply(&mut self, entry: &Entry) -> Vec<Reply> {
        let mut replies = Vec::new();
        if entry.kind == EntryKind::Commands {
            let at = Moment { now_ms: entry.time.0, seq: entry.id.seq };
            apply_payload(&entry.payload, at, &mut self.keys, Some(&mut replies))
                .expect("entries hold batches that this version wrote");
        }
        replies
    }

    /// Answers a read.
    pub(super) fn read(&self, read: &Read, time: ClusterTime) -> Reply {
        let reply: Result<Reply, Infallible> = execute_read(read, time.0, &self.keys);
        reply.expect("memory does not fail")
    }

    /// The number that a key holds.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        match self.read(&Read::Get { key }, ClusterTime(0)) {
            Reply::Bulk(text) => std::str::from_utf8(&text).ok()?.parse().ok(),
            _ => None,
        }
    }

    /// A number that differs where the content does.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (key, value) in self.keys.iter() {
            (key, &value.data[..], value.expires_at_ms, value.version).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// What the committed log comes to, computed once.
#[derive(Clone, Debug, Default)]
pub(super) struct Reference {
    state: State,
    /// The state's digest after each position, from 1 on.
    digests: Vec<u64>,
    /// The replies of each position, from 1 on.
    replies: Vec<Vec<Reply>>,
}

impl Reference {
    /// Applies the next committed entry.
    pub(super) fn apply(&mut self, entry: &Entry) {
        assert_eq!(entry.id.seq.0, self.digests.len() as u64 + 1, "committed entries are in order");
        let replies = self.state.apply(entry);
        self.replies.push(replies);
        self.digests.push(self.state.digest());
    }

    /// The state after the last committed entry.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// The state's digest after a position, if that is committed.
    pub(super) fn digest(&self, seq: Seq) -> Option<u64> {
        self.digests.get(seq.0.checked_sub(1)? as usize).copied()
    }

    /// The replies to the commands of a committed position.
    pub(super) fn replies(&self, seq: Seq) -> Option<&[Reply]> {
        self.replies.get(seq.0.checked_sub(1)? as usize).map(Vec::as_slice)
    }
}
