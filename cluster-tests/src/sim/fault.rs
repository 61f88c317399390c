//! Classes of faults, and the faults of a run.

use std::fmt;
use std::str::FromStr;

macro_rules! faults {
    ($($(#[$doc:meta])* $kind:ident $name:ident,)*) => {
        /// A class of faults.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault {
            $($(#[$doc])* $name,)*
        }

        impl Fault {
            /// Every class.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name in reports and scenarios.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// When it comes.
            pub(super) fn kind(self) -> Kind {
                match self {
                    $(Self::$name => Kind::$kind,)*
                }
            }
        }
    };
}

/// When a class of faults comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// At moments.
    Moment,
    /// All the time.
    Always,
}

faults! {
    /// Messages take long.
    Always Delay,
    /// Messages vanish.
    Always Loss,
    /// Messages come twice.
    Always Duplication,
    /// Messages overtake each other.
    Always Reorder,
    /// Messages of earlier connections and lives come again.
    Always Replay,
    /// A link carries few messages at a time; the others vanish.
    Always Capacity,
    /// The cluster falls into two parts.
    Moment Partition,
    /// No node reaches any other.
    Moment FullPartition,
    /// Fewer than half of the nodes, the primary among them where there is one, are cut off.
    Moment MinorityPartition,
    /// One way between two nodes, or all ways out of one or into one, are cut.
    Moment OneWay,
    /// One node sees all others, which don't see each other.
    Moment Bridge,
    /// Between two nodes small messages pass, and those with entries don't.
    Moment BlackHole,
    /// Each node sees only its neighbours.
    Moment Chain,
    /// A link goes down and up.
    Moment Flapping,
    /// A connection breaks and is made anew.
    Moment Reconnect,
    /// A process is killed.
    Moment Kill,
    /// Every process is killed.
    Moment KillAll,
    /// A process is killed again and again.
    Moment CrashLoop,
    /// A machine loses power.
    Moment PowerCut,
    /// Every machine loses power.
    Moment PowerCutAll,
    /// A node loses the primary for long; then the others start anew at once, and the primary is
    /// cut off from them, too.
    Moment CutAndRestart,
    /// A process ends in good order; its machine may restart.
    Moment Stop,
    /// A process stands still for a while; what is sent to it waits.
    Moment Pause,
    /// A machine sleeps for a while; what is sent to it is lost.
    Moment Suspend,
    /// A disk is slow.
    Moment SlowDisk,
    /// A disk stands still for a while.
    Moment StalledDisk,
    /// The hard state's sync is slow.
    Moment SlowHardState,
    /// A sync fails and what it was to make durable may be gone: the process ends.
    Moment SyncError,
    /// A disk is full for a while.
    Moment DiskFull,
    /// A record below the journal's marks is damaged, or was never written: found at the next boot.
    Moment Corruption,
    /// A data directory is emptied.
    Moment WipedDisk,
    /// Clocks run at different rates.
    Always ClockRate,
    /// A clock jumps ahead, within the drift bound.
    Moment ClockJump,
    /// A sender reads the log long after it was told to.
    Always SlowSender,
    /// The state is flushed ahead of the journal's sync.
    Always StateAhead,
    /// A boot proves less of the journal than was synced.
    Always UnprovenTail,
    /// Clients are silent for a while.
    Moment Silence,
    /// Clients write far more for a while.
    Moment Burst,
    /// Journals lose what every node's flushed state holds.
    Always Trim,
    /// Journals lose what the own flushed state holds, whatever others need.
    Always DeepTrim,
    /// A new machine is to join the cluster.
    Moment AddNode,
    /// A member is removed for good.
    Moment RemoveNode,
    /// The durability policy changes.
    Moment PolicyChange,
    /// The cluster version rises, and binaries with it.
    Moment VersionRise,
    /// Leadership is to go to another node.
    Moment Transfer,
    /// A control event is recorded.
    Moment Mark,
    /// The primary is cut off from all replicas but one, which loses its memory and returns; then
    /// the primary goes too. Who is left may have seen nothing of what is acknowledged.
    Moment Squeeze,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().copied().find(|fault| fault.name() == text);
        found.ok_or_else(|| format!("no fault is called {text}"))
    }
}

/// One fault of a run. All that is random in it follows from its own seed, so that the faults
/// that are left do the same when others are taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scheduled {
    /// Its number in the run's full schedule.
    pub(super) number: u32,
    /// When it comes.
    pub(super) at_us: u64,
    /// Which.
    pub(super) fault: Fault,
    /// What its choices follow from.
    pub(super) seed: u64,
}
