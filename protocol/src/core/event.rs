//! What goes into the core and what comes out.

use std::sync::Arc;

use super::message::{Message, RecoverTarget};
use crate::cluster::ClusterEntry;
use crate::types::{
    Branch, ClusterTime, DiskId, EntryId, EntryKind, Epoch, Incarnation, NodeId, Seq,
};

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// Time passed; due by [`Core::next_deadline`](super::Core::next_deadline) at the latest.
    Tick,
    /// A session with a peer is up. Replaces an earlier session with that peer.
    Connected {
        /// Which peer: proven by its certificate.
        peer: NodeId,
        /// Unique for this node's life; later sessions have higher numbers.
        session: u64,
        /// The peer's data directory.
        disk: DiskId,
        /// The peer's current life.
        incarnation: Incarnation,
    },
    /// The session is gone.
    Disconnected {
        /// Which peer.
        peer: NodeId,
        /// Which session; ignored unless it is the current one.
        session: u64,
    },
    /// A message arrived in the current session with `from`.
    Received {
        /// Who sent it.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// The runtime has commands to replicate; the core answers with [`Command::Seal`] if this node
    /// is primary and takes writes now (see [`Core::admits`](super::Core::admits)), else not at all.
    Propose {
        /// Bytes that the record will take.
        bytes: u32,
        /// The clock for the entry.
        time: ClusterTime,
    },
    /// The hard state with this number is synced.
    HardStateSaved {
        /// From [`Command::SaveHardState`].
        id: u64,
    },
    /// `write(2)` returned for everything through `id`.
    InMemory {
        /// The branch that the journal wrote.
        branch: Branch,
        /// The last entry written.
        id: EntryId,
    },
    /// `fdatasync` returned for everything through `id`.
    Persisted {
        /// The branch that the journal synced.
        branch: Branch,
        /// The last entry synced.
        id: EntryId,
    },
    /// The state holds everything through `seq`.
    Applied {
        /// The applied position.
        seq: Seq,
    },
    /// The runtime handed entries to the transport, as [`Command::SendEntries`] asked.
    Sent {
        /// To whom.
        peer: NodeId,
        /// In which session.
        session: u64,
        /// The last entry sent; `None` if none could be.
        through: Option<Seq>,
        /// Bytes of their records.
        bytes: u64,
    },
    /// A client wants a read that no lease covers.
    Read {
        /// Comes back in the answer.
        token: u64,
    },
    /// Journal segments below `first` are gone.
    Trimmed {
        /// The first entry that is left.
        first: Seq,
        /// The entry before it.
        preceding: EntryId,
    },
}

/// The part of the hard state that the core owns (S1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HardState {
    /// The highest epoch that this node took part in.
    pub epoch: Epoch,
    /// Its vote in that epoch.
    pub vote: Option<NodeId>,
    /// Whether it may have lost entries that it acknowledged from memory (S5).
    pub memory_loss: bool,
}

/// What the runtime must do, in order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Command {
    /// Sync this hard state, then say [`Event::HardStateSaved`]. A newer one supersedes it.
    SaveHardState {
        /// Rises with every change.
        id: u64,
        /// What to sync.
        state: HardState,
    },
    /// Send a message without entries. Loss is harmless.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Send entries from `first` on, as many as fit `bytes_max` but at least one, as an `Append`
    /// with these fields; then say [`Event::Sent`]. At most one is outstanding per peer.
    SendEntries {
        /// To whom.
        to: NodeId,
        /// In which session.
        session: u64,
        /// The primary's epoch.
        epoch: Epoch,
        /// The entry before `first`.
        prev: EntryId,
        /// The first entry to send.
        first: Seq,
        /// The last entry that may be sent.
        last: Seq,
        /// Bytes that may be sent.
        bytes_max: u64,
        /// The commit position.
        commit: Seq,
        /// The current heartbeat round.
        round: u64,
        /// See [`Append::recover`](super::message::Append::recover).
        recover: Option<RecoverTarget>,
    },
    /// This node, as primary, seals an entry: build the record and give it to the journal, under
    /// this branch.
    Seal {
        /// Its id.
        id: EntryId,
        /// `Commands` for a proposal.
        kind: EntryKind,
        /// Its time.
        time: ClusterTime,
        /// The configuration to encode; `Some` exactly for `Cluster`.
        cluster: Option<Arc<ClusterEntry>>,
        /// The journal's branch.
        branch: Branch,
    },
    /// Cut the journal from `from` on, archive what is cut (S8), and write later entries under
    /// `branch`.
    Truncate {
        /// The first entry that goes.
        from: Seq,
        /// The branch from now on.
        branch: Branch,
    },
    /// Give these entries of the message just received to the journal, under this branch.
    Append {
        /// The first.
        first: Seq,
        /// The last.
        last: Seq,
        /// The journal's branch.
        branch: Branch,
    },
    /// Everything through `committed` may be applied; replies may leave through
    /// `acknowledgeable`. Either may be unchanged.
    Committed {
        /// The commit position.
        committed: Seq,
        /// The position up to which the policy in force is met; at most `committed`.
        acknowledgeable: Seq,
    },
    /// Role, epoch or known primary changed. A tenure that ends here answers every waiting reply
    /// as in doubt before anything else happens.
    RoleChanged,
    /// A read may be served from state applied at least through `at`.
    ReadReady {
        /// From [`Event::Read`].
        token: u64,
        /// The commit position when the read arrived, or later.
        at: Seq,
    },
    /// A read can't be served here.
    ReadFailed {
        /// From [`Event::Read`].
        token: u64,
    },
    /// An invariant is broken: the node must stop.
    Halt {
        /// Which.
        violation: Violation,
    },
}

/// A broken invariant: this node, a peer or a disk did what the protocol rules out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Violation {
    /// The primary's log differs from an entry that is committed here.
    #[error("primary of epoch {epoch} sent {sent} where entry {held} is committed")]
    CommittedConflict {
        /// The primary's epoch.
        epoch: Epoch,
        /// What it sent.
        sent: EntryId,
        /// What is committed.
        held: EntryId,
    },
    /// Two primaries in one epoch.
    #[error("node {other} claims to be primary of epoch {epoch}, which belongs to node {primary}")]
    TwoPrimaries {
        /// The epoch.
        epoch: Epoch,
        /// Its known primary.
        primary: NodeId,
        /// The other claimant.
        other: NodeId,
    },
}
