//! What goes into the core and what comes out.

use std::sync::Arc;

use super::message::{Message, RecoverTarget};
use super::snapshot::Snapshot;
use crate::cluster::{ChangeError, ClusterChange, ClusterEntry};
use crate::types::{
    Branch, ClusterTime, DiskId, EntryId, EntryKind, Epoch, Generation, Incarnation, NodeId, Seq,
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
        /// Lossy recoveries that the peer knows of; a session with another count is ignored (S12).
        generation: Generation,
        /// Highest cluster version that the peer's binary follows.
        version_max: u32,
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
        /// The clock for the entry.
        time: ClusterTime,
    },
    /// The runtime has a control event to record; answered like `Propose`, with a `Mark`.
    ProposeMark {
        /// The clock for the entry.
        time: ClusterTime,
    },
    /// An operator changes members, policy or version. Answered by [`Command::Reconfigured`].
    Reconfigure {
        /// Comes back in the answer.
        token: u64,
        /// What to change in the configuration in force.
        change: ClusterChange,
    },
    /// Leadership is to go to another voter. Answered by [`Command::HandoverEnded`].
    Transfer {
        /// Comes back in the answer.
        token: u64,
        /// To whom; `None` for the most caught-up voter.
        to: Option<NodeId>,
    },
    /// A snapshot that [`Command::FetchSnapshot`] asked for is whole, checked and synced beside
    /// the state.
    SnapshotFetched {
        /// What it stands for.
        snapshot: Snapshot,
    },
    /// The switch that [`Command::InstallSnapshot`] asked for is synced.
    SnapshotInstalled {
        /// The snapshot's last entry.
        last: EntryId,
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
    /// A change came to its end. The first answer to a token is the only one.
    Reconfigured {
        /// From [`Event::Reconfigure`].
        token: u64,
        /// How it ended.
        outcome: ChangeOutcome,
    },
    /// This primary gives up its lease now: no read may be served under it after this command,
    /// and before the commands that follow it take effect (S11).
    LeaseGivenUp,
    /// A transfer began: nothing is admitted until it ends. What waits may be parked.
    HandoverStarted {
        /// To whom.
        to: NodeId,
    },
    /// A transfer ended.
    HandoverEnded {
        /// From [`Event::Transfer`]; `None` for one that the core began by itself.
        token: Option<u64>,
        /// How it ended.
        outcome: HandoverOutcome,
    },
    /// This node needs a snapshot whose last entry is at or after `above`. Comes again with
    /// heartbeats; the runtime fetches one at a time, resumes what was interrupted, and says
    /// [`Event::SnapshotFetched`].
    FetchSnapshot {
        /// The primary, which has one or makes one.
        from: NodeId,
        /// The entry before the first one that the primary's journal holds.
        above: EntryId,
    },
    /// Switch state and journal to this snapshot in one synced step, then say
    /// [`Event::SnapshotInstalled`]. What the switch cuts from the log is archived (S8).
    InstallSnapshot {
        /// Which.
        snapshot: Snapshot,
        /// Whether the log's entries after it stay.
        keep_suffix: bool,
        /// The journal's branch from then on.
        branch: Branch,
    },
    /// A fetched snapshot is of no use and can be deleted.
    SnapshotRefused {
        /// Its last entry.
        last: EntryId,
        /// Why.
        reason: SnapshotRefused,
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
    /// A committed configuration needs a newer binary.
    #[error("cluster version {cluster} is in force, and this binary follows {supported} at most")]
    ClusterVersion {
        /// In force.
        cluster: u32,
        /// Supported here.
        supported: u32,
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

/// How a change of the configuration ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeOutcome {
    /// It is in force: no later primary lacks it (S10).
    InForce(EntryId),
    /// It did not happen.
    Refused(ChangeRefused),
    /// The tenure ended before it was in force: a later primary may have it or not.
    InDoubt(EntryId),
}

/// Why a change is not proposed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum ChangeRefused {
    /// This node doesn't lead.
    #[error("this node is not primary")]
    NotPrimary,
    /// Entries of earlier tenures may be committed and unknown here.
    #[error("this primary has not committed an entry of its own epoch yet; try again")]
    NotReady,
    /// One at a time.
    #[error("the change at entry {0} is not in force yet")]
    Pending(EntryId),
    /// Leadership is about to go.
    #[error("leadership is being handed over")]
    HandingOver,
    /// A primary leaves by handing over first.
    #[error("node {0} is primary; hand leadership over first")]
    RemovesPrimary(NodeId),
    /// Without so many voters no change is safe.
    #[error(
        "the change needs {needed} voters and {reachable} answer; missing: {}. If they are lost for \
         good, see `quorate recover`",
        node_list(missing)
    )]
    Unreachable {
        /// Voters that must hold the change before it is in force.
        needed: usize,
        /// Voters that answer.
        reachable: usize,
        /// Voters that don't.
        missing: Vec<NodeId>,
    },
    /// A member's binary is too old.
    #[error("node {node} follows cluster versions up to {supported}, not {asked}")]
    Version {
        /// Which member.
        node: NodeId,
        /// The version asked for.
        asked: u32,
        /// What it supports; 0 if it was not heard of since this node started.
        supported: u32,
    },
    /// The change has no result.
    #[error(transparent)]
    Invalid(#[from] ChangeError),
}

fn node_list(nodes: &[NodeId]) -> String {
    let names: Vec<String> = nodes.iter().map(|node| format!("node {node}")).collect();
    names.join(", ")
}

/// How a transfer ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HandoverOutcome {
    /// This node leads no more; that the target does shows in its messages.
    SteppedDown(NodeId),
    /// The target did not take over in time; this node goes on, without a lease in this epoch.
    TimedOut(NodeId),
    /// It did not begin.
    Refused(HandoverRefused),
}

/// Why no transfer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum HandoverRefused {
    /// This node doesn't lead.
    #[error("this node is not primary")]
    NotPrimary,
    /// One at a time.
    #[error("leadership is being handed over to node {0} already")]
    UnderWay(NodeId),
    /// The target leads.
    #[error("this node is primary already")]
    Itself,
    /// The target is no voter that answers.
    #[error("node {0} is not a voter that answers")]
    NotReachable(NodeId),
    /// No other voter answers.
    #[error("no other voter answers")]
    NoOther,
    /// Leadership would be lost, and not won by anyone.
    #[error("the voters that answer are too few to elect another primary under the policy")]
    NoElection,
}

/// Why a fetched snapshot is not installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum SnapshotRefused {
    /// It holds less than this node.
    #[error("it ends at or before the committed position {committed}")]
    Older {
        /// What is committed here.
        committed: Seq,
    },
    /// It holds another entry than this node committed.
    #[error("entry {held} is committed here, and the snapshot has another one")]
    Conflicting {
        /// What is held here.
        held: EntryId,
    },
    /// Another cluster or generation.
    #[error("it is of another cluster or generation")]
    Foreign,
    /// Its facts contradict each other.
    #[error("its configuration or epoch does not fit its last entry")]
    Malformed,
    /// Another one is being installed.
    #[error("another snapshot is being installed")]
    Busy,
    /// This node leads.
    #[error("this node is primary")]
    Primary,
}
