//! How a client connection hands commands that must be replicated to the node, and what comes back.

use std::fmt;
use std::time::Instant;

use bytes::Bytes;
pub use quorate_protocol::gate::DoubtReason;
use quorate_protocol::gate::{Met, WaitedFor};
use quorate_protocol::policy::Policy;
use quorate_protocol::resp::Reply;
use quorate_protocol::types::{EntryId, Epoch, NodeId, Seq};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Commands of one connection, encoded once, that go into one entry together and in order.
#[derive(Debug)]
pub struct Batch {
    /// The encoded commands (`protocol::command::batch`).
    pub body: Bytes,
    /// CRC32C of `body`.
    pub crc: u32,
    /// How many commands `body` holds; at least 1.
    pub count: u32,
    /// When the connection task read the commands.
    pub accepted: Instant,
    /// After this moment the answer is a refusal (not yet sealed) or `InDoubt` (sealed).
    pub deadline: Instant,
    /// What the session asks for beyond the cluster's policy.
    pub durability: Option<Policy>,
    /// Bytes of the admission budget that the batch holds until it is sealed or refused.
    pub permit: OwnedSemaphorePermit,
    /// Where the outcome goes. Dropped means that the connection is gone.
    pub reply: oneshot::Sender<Outcome>,
}

/// How a batch ended: one of the three classes of the clients' contract.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Committed in the tenure of this node, under the policy, and applied.
    Done {
        /// The entry that holds the batch.
        id: EntryId,
        /// Position of the batch's first command within the entry.
        index: u32,
        /// One reply for each command, in order.
        replies: Vec<Reply>,
        /// What it waited for; `None` while that isn't noted.
        waits: Option<Waits>,
    },
    /// Certainly did not happen.
    Refused(Refusal),
    /// May have happened, now or later.
    InDoubt {
        /// The entry, where it was already known.
        id: Option<EntryId>,
        /// Position of the batch's first command within the entry.
        index: u32,
        /// Why it isn't known.
        reason: DoubtReason,
    },
}

/// Where the time of a batch went, from reading it off its connection to its release, in
/// microseconds each. One follows the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Until it was sealed.
    pub queue_us: u32,
    /// From then on, until this node's own copy was there.
    pub journal_us: u32,
    /// From then on, until the policy was met.
    pub replica_us: u32,
    /// From then on, until it was applied and released.
    pub apply_us: u32,
    /// The last cursor that it waited for.
    pub by: Option<WaitedFor>,
}

impl Waits {
    /// All of them.
    #[must_use]
    pub fn total_us(&self) -> u64 {
        [self.queue_us, self.journal_us, self.replica_us, self.apply_us].map(u64::from).iter().sum()
    }
}

impl fmt::Display for Waits {
    /// As the slow log shows it, in milliseconds: `queue 0.1, journal 0.3, replica 3 disk 2.5, …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: u32| f64::from(us) / 1_000.0;
        write!(f, "queue {:.1}, journal {:.1}, ", ms(self.queue_us), ms(self.journal_us))?;
        let replica_ms = ms(self.replica_us);
        match self.by {
            Some(WaitedFor::ReplicaMemory(node)) => {
                write!(f, "replica {node} memory {replica_ms:.1}, ")?;
            }
            Some(WaitedFor::ReplicaDisk(node)) => {
                write!(f, "replica {node} disk {replica_ms:.1}, ")?;
            }
            Some(WaitedFor::Journal) => {}
            None => write!(f, "policy {replica_ms:.1}, ")?,
        }
        write!(f, "apply {:.1}", ms(self.apply_us))
    }
}

/// Why a batch was refused before it was sealed. Each has its own code for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This node isn't the primary; where known, the one that is.
    NotPrimary {
        /// A primary of the current epoch that was heard within an election timeout.
        primary: Option<NodeId>,
    },
    /// No primary, or no quorum to elect one (`CLUSTERDOWN`).
    NoPrimary,
    /// The policy asks for more copies than connected voters (`NOREPLICAS`).
    NoReplicas {
        /// The clause that can't be met, and the count that is there.
        clause: String,
    },
    /// The health latch is set (`UNHEALTHY reason`).
    Unhealthy(String),
    /// Too little free space (`DISKFULL`).
    DiskFull,
    /// Too little memory (`OOM`).
    OutOfMemory,
    /// The admission budget is used up (`OVERLOADED`).
    Overloaded,
    /// The deadline ended first (`TIMEOUT caller` or `TIMEOUT store`).
    Timeout {
        /// Whether the client's own deadline ended, not the store's.
        caller: bool,
    },
    /// The node is stopping and no other voter exists (`DRAINING`).
    Draining,
}

/// Batches of one entry, registered with the gate at the moment when the entry is sealed.
#[derive(Debug)]
pub struct Sealed {
    /// The entry.
    pub id: EntryId,
    /// When it was sealed.
    pub at: Instant,
    /// Its batches in order.
    pub waiting: Vec<Waiting>,
}

/// One batch of a sealed entry.
#[derive(Debug)]
pub struct Waiting {
    /// Position of its first command within the entry.
    pub index: u32,
    /// Number of its commands.
    pub count: u32,
    /// When the connection task read it.
    pub accepted: Instant,
    /// After this moment the answer is `InDoubt`.
    pub deadline: Instant,
    /// What the session asks for beyond the cluster's policy.
    pub durability: Option<Policy>,
    /// Where the outcome goes.
    pub reply: oneshot::Sender<Outcome>,
}

/// What the apply loop produced for one entry that this node may have to answer for.
#[derive(Debug)]
pub struct Applied {
    /// The entry.
    pub id: EntryId,
    /// One reply for each command of the entry, in order.
    pub replies: Vec<Reply>,
}

/// What the gate is told. One message per round of its sender, never one per command.
#[derive(Debug)]
pub enum GateInput {
    /// An entry was sealed; its batches wait from now on.
    Sealed(Sealed),
    /// Entries were applied, in order.
    Applied(Vec<Applied>),
    /// Replies may leave up to this position (the policy in force is met there), as seen by the
    /// primary of this epoch.
    Acknowledgeable {
        /// The epoch of the tenure.
        epoch: Epoch,
        /// Highest position at which the policy is met.
        through: Seq,
        /// What moved it there.
        met: Met<Instant>,
    },
    /// Replies of sessions with this policy may leave up to this position: it is met there, and
    /// the cluster's is, too.
    Durable {
        /// The sessions' policy.
        policy: Policy,
        /// The epoch of the tenure.
        epoch: Epoch,
        /// Highest position at which both are met.
        through: Seq,
        /// What moved it there.
        met: Met<Instant>,
    },
    /// The tenure ended: everything that waits is in doubt, at once.
    Deposed {
        /// Why.
        reason: DoubtReason,
    },
}
