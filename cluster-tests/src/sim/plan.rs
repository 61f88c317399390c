//! What a seed draws before anything happens: the cluster, and which faults it will see. Each
//! class is off in half of the seeds, so that rare mixtures come up (swarm testing).

use std::collections::BTreeMap;

use quorate_protocol::cluster::SafetyTimers;
use quorate_protocol::core::Tuning;
use quorate_protocol::policy::Policy;

use super::random::Random;

/// A lease as long as the other timers allow.
const TIGHT: SafetyTimers =
    SafetyTimers { election_timeout_min_us: 300_000, lease_us: 289_000, drift_us: 10_000 };

/// A class of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// Messages take long.
    Delay,
    /// Messages vanish.
    Loss,
    /// Messages come twice.
    Duplication,
    /// Messages overtake each other.
    Reorder,
    /// Messages of earlier connections and lives come again.
    Replay,
    /// The cluster falls into two parts.
    Partition,
    /// One way between two nodes is cut.
    OneWay,
    /// One node sees all others, which don't see each other.
    Bridge,
    /// A link goes down and up.
    Flapping,
    /// A connection breaks and is made anew.
    Reconnect,
    /// A process is killed.
    Kill,
    /// Every process is killed.
    KillAll,
    /// A machine loses power.
    PowerCut,
    /// Every machine loses power.
    PowerCutAll,
    /// A process ends in good order; its machine may restart.
    Stop,
    /// A process stands still for a while.
    Pause,
    /// A disk is slow.
    SlowDisk,
    /// A disk stands still for a while.
    StalledDisk,
    /// The hard state's sync is slow.
    SlowHardState,
    /// Clocks run at different rates.
    ClockRate,
    /// A clock jumps ahead, within the drift bound.
    ClockJump,
    /// A sender reads the log long after it was told to.
    SlowSender,
    /// The state is flushed ahead of the journal's sync.
    StateAhead,
    /// A boot proves less of the journal than was synced.
    UnprovenTail,
    /// Clients are silent for a while.
    Silence,
    /// Journals lose what every node's flushed state holds.
    Trim,
    /// The primary is cut off from all replicas but one, which loses its memory and returns; then
    /// the primary goes too. Who is left may have seen nothing of what is acknowledged.
    Squeeze,
}

impl Fault {
    /// Every class.
    pub(super) const ALL: [Self; 27] = [
        Self::Delay,
        Self::Loss,
        Self::Duplication,
        Self::Reorder,
        Self::Replay,
        Self::Partition,
        Self::OneWay,
        Self::Bridge,
        Self::Flapping,
        Self::Reconnect,
        Self::Kill,
        Self::KillAll,
        Self::PowerCut,
        Self::PowerCutAll,
        Self::Stop,
        Self::Pause,
        Self::SlowDisk,
        Self::StalledDisk,
        Self::SlowHardState,
        Self::ClockRate,
        Self::ClockJump,
        Self::SlowSender,
        Self::StateAhead,
        Self::UnprovenTail,
        Self::Silence,
        Self::Trim,
        Self::Squeeze,
    ];

    /// Whether it comes at moments, rather than being there all the time.
    pub(super) fn is_momentary(self) -> bool {
        match self {
            Self::Partition
            | Self::OneWay
            | Self::Bridge
            | Self::Flapping
            | Self::Reconnect
            | Self::Kill
            | Self::KillAll
            | Self::PowerCut
            | Self::PowerCutAll
            | Self::Stop
            | Self::Pause
            | Self::SlowDisk
            | Self::StalledDisk
            | Self::SlowHardState
            | Self::ClockJump
            | Self::Silence
            | Self::Squeeze => true,
            Self::Delay
            | Self::Loss
            | Self::Duplication
            | Self::Reorder
            | Self::Replay
            | Self::ClockRate
            | Self::SlowSender
            | Self::StateAhead
            | Self::UnprovenTail
            | Self::Trim => false,
        }
    }
}

/// The draw of one seed.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// How many nodes.
    pub(super) nodes: usize,
    /// The cluster's policy.
    pub(super) policy: Policy,
    /// The policy's name.
    pub(super) policy_name: &'static str,
    /// Timers and limits.
    pub(super) tuning: Tuning,
    /// Classes that may occur, with the strength of each, from 1 to 100.
    pub(super) faults: BTreeMap<Fault, u64>,
    /// Mean time between momentary faults, in microseconds.
    pub(super) fault_every_us: u64,
    /// How long faults come, in microseconds.
    pub(super) faults_us: u64,
    /// Mean latency of a message, in microseconds.
    pub(super) link_us: u64,
    /// Mean time of a journal write, in microseconds.
    pub(super) write_us: u64,
    /// Mean time of a sync, in microseconds.
    pub(super) sync_us: u64,
    /// Timers in the cluster entry: the usual ones, or the tightest that are safe.
    pub(super) timers: SafetyTimers,
    /// Mean time between writes of clients, in microseconds.
    pub(super) propose_every_us: u64,
    /// Mean time between reads of clients, in microseconds.
    pub(super) read_every_us: u64,
}

impl Plan {
    /// Draws a plan.
    pub(super) fn draw(random: &mut Random) -> Self {
        let nodes = [3, 3, 3, 3, 3, 3, 3, 5, 5, 1][random.index(10)];
        let (policy_name, policy) = [
            ("local", Policy::LOCAL),
            ("memory", Policy::MEMORY),
            ("hybrid", Policy::HYBRID),
            ("hybrid", Policy::HYBRID),
            ("majority", Policy::MAJORITY),
            ("all", Policy::ALL),
        ][random.index(6)];
        // One voter can't hold two copies.
        let (policy_name, policy) =
            if nodes == 1 { ("local", Policy::LOCAL) } else { (policy_name, policy) };
        let mut faults = BTreeMap::new();
        for fault in Fault::ALL {
            if random.percent(50) {
                faults.insert(fault, random.between(1, 100));
            }
        }
        let tuning = Tuning {
            heartbeat_us: 50_000,
            election_timeout_max_us: 600_000,
            window_bytes: [500, 5_000, 1 << 20][random.index(3)],
            reads_max: [2, 64][random.index(2)],
            ..Tuning::default()
        };
        let slowest_sync_us = [1_000, 10_000, 60_000][random.index(3)];
        let sync_us = random.between(200, slowest_sync_us);
        Self {
            nodes,
            policy,
            policy_name,
            tuning,
            faults,
            fault_every_us: random.between(50_000, 1_500_000),
            faults_us: random.between(8_000_000, 20_000_000),
            link_us: random.between(100, 3_000),
            write_us: random.between(20, 500),
            sync_us,
            timers: if random.percent(50) { SafetyTimers::LAN } else { TIGHT },
            propose_every_us: random.between(2_000, 40_000),
            read_every_us: random.between(5_000, 40_000),
        }
    }

    /// The strength of a class; 0 where it is off.
    pub(super) fn strength(&self, fault: Fault) -> u64 {
        self.faults.get(&fault).copied().unwrap_or(0)
    }
}
