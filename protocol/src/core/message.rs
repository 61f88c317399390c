//! What cores say to each other. Any order, loss and duplication of messages is harmless.

use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::cluster::ClusterEntry;
use crate::types::{ClusterTime, EntryId, EntryKind, Epoch, Incarnation, Seq};

/// A message between two members' cores.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    /// Asks whether a vote would be granted, without moving anyone's epoch.
    PreVote(VoteRequest),
    /// Answers a pre-vote.
    PreVoteReply(VoteReply),
    /// Asks for a vote.
    Vote(VoteRequest),
    /// Answers a vote.
    VoteReply(VoteReply),
    /// Entries of the log, or a heartbeat when it carries none.
    Append(Append),
    /// Says how far a replica holds the primary's log.
    AppendAck(AppendAck),
    /// Tells the target of a transfer to stand for election at once.
    TimeoutNow(TimeoutNow),
    /// Tells a replica that what it needs next is no longer in the journal.
    SnapshotOffer(SnapshotOffer),
}

impl Message {
    /// The epoch that it speaks of: the sender's, or the one that it stands for.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        match self {
            Self::PreVote(request) | Self::Vote(request) => request.epoch,
            Self::PreVoteReply(reply) | Self::VoteReply(reply) => reply.epoch,
            Self::Append(append) => append.epoch,
            Self::AppendAck(ack) => ack.epoch,
            Self::TimeoutNow(order) => order.epoch,
            Self::SnapshotOffer(offer) => offer.epoch,
        }
    }
}

/// A candidate's question, for a pre-vote and for a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct VoteRequest {
    /// Unique among the candidate's rounds of one life; the reply repeats it, and replies to
    /// earlier rounds are ignored.
    pub round: u64,
    /// The epoch that the candidate stands for.
    pub epoch: Epoch,
    /// The candidate's last entry, whether persisted or not (S2).
    pub last: EntryId,
    /// The transfer that this candidacy belongs to: the epoch of the primary that hands over.
    pub transfer: Option<Epoch>,
}

/// A voter's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct VoteReply {
    /// The round of the question.
    pub round: u64,
    /// The voter's epoch when it answered.
    pub epoch: Epoch,
    /// Whether it voted for the asker.
    pub granted: bool,
    /// Whether the voter may have lost entries that it acknowledged from memory (S5).
    pub memory_loss: bool,
}

/// What the core knows of an entry: everything but its payload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryMeta {
    /// Which entry.
    pub id: EntryId,
    /// What it holds.
    pub kind: EntryKind,
    /// Bytes that its record takes on the wire and in the journal.
    pub bytes: u32,
    /// The configuration in it; `Some` exactly for `EntryKind::Cluster`.
    pub cluster: Option<Arc<ClusterEntry>>,
}

/// Entries after `prev`, or a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Append {
    /// The primary's epoch.
    pub epoch: Epoch,
    /// The entry before the first one carried. A receiver that doesn't hold it rejects.
    pub prev: EntryId,
    /// The primary's commit position.
    pub commit: Seq,
    /// Heartbeat round; the acknowledgement repeats it. It proves contact at the time when the
    /// round was sent (S11).
    pub round: u64,
    /// The cluster's time when it was sent.
    pub time: ClusterTime,
    /// How the receiver may leave the set of nodes with memory loss, if it is in it (S5).
    pub recover: Option<RecoverTarget>,
    /// Contiguous, the first directly after `prev`.
    pub entries: Vec<EntryMeta>,
}

/// The exit condition of a node with memory loss: void in any other epoch or incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct RecoverTarget {
    /// The incarnation that the primary saw.
    pub incarnation: Incarnation,
    /// The primary's last position at that moment.
    pub through: Seq,
}

/// A replica's cursors, each at most the position verified against this primary's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct AppendAck {
    /// The epoch of the primary that this answers.
    pub epoch: Epoch,
    /// The replica's current life.
    pub incarnation: Incarnation,
    /// Highest position that an append of this epoch verified: from there down both logs are the
    /// same. The cursors below never exceed it.
    pub verified: Seq,
    /// Highest verified position whose `write(2)` returned.
    pub in_memory: Seq,
    /// Highest verified position whose sync returned.
    pub persisted: Seq,
    /// Highest verified position that the replica's state holds.
    pub applied: Seq,
    /// Highest heartbeat round of this primary that was seen.
    pub round: u64,
    /// Whether the replica has memory loss now (S5).
    pub memory_loss: bool,
    /// How many voters the replica has a live session with, itself included.
    pub reach: u8,
    /// Set when the receiver doesn't hold `prev`.
    pub reject: Option<Reject>,
}

/// Where a replica's log parts from the primary's, as far as the replica can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Reject {
    /// The position that didn't match.
    pub prev: EntryId,
    /// The replica's highest entry at or below `prev` that may match: the last one it holds
    /// whose epoch is at most the epoch of `prev`.
    pub hint: EntryId,
}

/// Stand for election now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct TimeoutNow {
    /// The epoch of the primary that hands over.
    pub epoch: Epoch,
    /// The entry that the target must hold as its last.
    pub last: EntryId,
}

/// The primary's journal starts after what the replica holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct SnapshotOffer {
    /// The primary's epoch.
    pub epoch: Epoch,
    /// The entry before the first one in its journal: a snapshot must reach as far.
    pub preceding: EntryId,
}
