//! What goes wrong.

use super::fault::{Fault, Scheduled};
use super::network::Cut;
use super::random::Random;
use super::world::{Action, World};

/// How long a cut connection goes unnoticed where nothing says so.
const IDLE_US: u64 = 700_000;

impl World {
    /// A fault of the schedule comes.
    pub(super) fn on_fault(&mut self, scheduled: Scheduled) {
        if self.calm {
            return;
        }
        let Scheduled { number, fault, seed, .. } = scheduled;
        let mut random = Random::new(seed);
        let node = self.pick(&mut random);
        let other = (node + 1 + random.index(self.nodes.len().max(2) - 1)) % self.nodes.len();
        let text = format!("{number:>4} {fault} at node {}, node {}", node + 1, other + 1);
        self.note(&|| format!("fault {text}"));
        self.injected.push((self.now_us, text));
        self.inject(fault, node, other, &mut random);
    }

    fn inject(&mut self, fault: Fault, node: usize, other: usize, random: &mut Random) {
        match fault {
            Fault::Partition
            | Fault::FullPartition
            | Fault::MinorityPartition
            | Fault::OneWay
            | Fault::Bridge
            | Fault::Chain => self.cut_off(fault, node, other, random),
            Fault::Flapping | Fault::BlackHole | Fault::Reconnect => {
                self.break_link(fault, node, other, random);
            }
            Fault::Kill
            | Fault::KillAll
            | Fault::CrashLoop
            | Fault::PowerCut
            | Fault::PowerCutAll
            | Fault::Stop => self.end_processes(fault, node, random),
            Fault::Pause => {
                self.outcome.fault(fault);
                let for_us = random.between(10_000, 3_000_000);
                self.nodes[node].paused_until_us = self.now_us + for_us;
            }
            Fault::Suspend => {
                self.outcome.fault(fault);
                let for_us = random.between(10_000, 6_000_000);
                self.nodes[node].paused_until_us = self.now_us + for_us;
                self.nodes[node].asleep_until_us = self.now_us + for_us;
            }
            Fault::SlowDisk
            | Fault::SlowHardState
            | Fault::StalledDisk
            | Fault::DiskFull
            | Fault::SyncError
            | Fault::Corruption
            | Fault::WipedDisk => self.break_disk(fault, node, random),
            Fault::ClockJump => self.jump_clock(node, random),
            Fault::AddNode
            | Fault::RemoveNode
            | Fault::PolicyChange
            | Fault::VersionRise
            | Fault::Transfer
            | Fault::Mark => self.operate(fault, node, random),
            Fault::Squeeze => self.squeeze(node, other, random),
            Fault::CutAndRestart => self.cut_and_restart(node, other, random),
            Fault::Silence | Fault::Burst => self.change_load(fault, random),
            Fault::Delay
            | Fault::Loss
            | Fault::Duplication
            | Fault::Reorder
            | Fault::Replay
            | Fault::Capacity
            | Fault::ClockRate
            | Fault::SlowSender
            | Fault::StateAhead
            | Fault::UnprovenTail
            | Fault::Trim
            | Fault::DeepTrim => unreachable!("{fault} is there all the time"),
        }
    }

    fn break_link(&mut self, fault: Fault, node: usize, other: usize, random: &mut Random) {
        self.outcome.fault(fault);
        match fault {
            Fault::Flapping => {
                let times = random.between(2, 8);
                self.flap(node, other, times);
            }
            Fault::BlackHole => {
                let until_us = self.now_us + random.between(50_000, 3_000_000);
                self.network.lose_large(node, other, until_us);
            }
            _ => self.break_connection(node, other, 100_000),
        }
    }

    fn change_load(&mut self, fault: Fault, random: &mut Random) {
        self.outcome.fault(fault);
        if fault == Fault::Silence {
            self.silent_until_us = self.now_us + random.between(100_000, 3_000_000);
            return;
        }
        let usual_us = self.plan.propose_every_us;
        if usual_us > BURST_EVERY_US {
            self.plan.propose_every_us = BURST_EVERY_US;
            self.after(random.between(50_000, 500_000), Action::BurstEnds { usual_us });
        }
    }

    /// A node; in half of the cases the primary.
    fn pick(&self, random: &mut Random) -> usize {
        let primary = (0..self.nodes.len()).rev().find(|node| self.nodes[*node].is_primary());
        match primary {
            Some(primary) if random.percent(50) => primary,
            Some(_) | None => random.index(self.nodes.len()),
        }
    }

    pub(super) fn pairs(&self, wanted: impl Fn(usize, usize) -> bool) -> Cut {
        let nodes = self.nodes.len();
        (0..nodes)
            .flat_map(|a| (0..nodes).map(move |b| (a, b)))
            .filter(|(a, b)| a != b && wanted(*a, *b))
            .collect()
    }

    fn cut_off(&mut self, fault: Fault, node: usize, other: usize, random: &mut Random) {
        let nodes = self.nodes.len();
        let cut = match fault {
            Fault::Partition => {
                let with: Vec<bool> = if random.percent(50) {
                    (0..nodes).map(|other| other == node).collect()
                } else {
                    (0..nodes).map(|_| random.percent(50)).collect()
                };
                self.pairs(|a, b| with[a] != with[b])
            }
            Fault::FullPartition => self.pairs(|_, _| true),
            Fault::MinorityPartition => {
                let few = 1 + random.index((nodes - 1).max(2) / 2);
                let with = |at: usize| (at + nodes - node) % nodes < few;
                self.pairs(|a, b| with(a) != with(b))
            }
            Fault::OneWay => match random.index(3) {
                0 => self.pairs(|a, b| (a, b) == (node, other)),
                1 => self.pairs(|a, _| a == node),
                _ => self.pairs(|_, b| b == node),
            },
            Fault::Bridge => self.pairs(|a, b| a != node && b != node),
            _ => self.pairs(|a, b| {
                // Places in a line that begins anywhere.
                let place = |at: usize| (at + nodes - other) % nodes;
                place(a).abs_diff(place(b)) != 1
            }),
        };
        let for_us = random.between(20_000, 4_000_000);
        self.cut_for_a_while(fault, cut, for_us);
    }

    /// `primary` goes on with `replica` alone, which loses power; then `primary` goes.
    fn squeeze(&mut self, primary: usize, replica: usize, random: &mut Random) {
        if primary == replica {
            return;
        }
        let others = |node: usize| node != primary && node != replica;
        let cut = self.pairs(|a, b| a == primary && others(b) || b == primary && others(a));
        self.cut_for_a_while(Fault::Squeeze, cut, random.between(20_000, 4_000_000));
        // With a slow disk much of what the replica acknowledges is in its memory only.
        if random.percent(70) {
            self.nodes[replica].disk_factor = random.between(5, 100);
            self.after(2_000_000, Action::DiskRecovers { node: replica });
        }
        let power_us = random.below(600_000);
        self.after(power_us, Action::Crash { node: replica, power: true });
        if random.percent(40) {
            let lost_us = power_us + random.between(100_000, 3_000_000);
            self.after(power_us, Action::LoseLarge { a: primary, b: replica, for_us: lost_us });
        }
        if random.percent(60) {
            // The primary goes as soon as it has the replica back, which may restart once more.
            let soon_us = [2_000, 20_000, 200_000][random.index(3)];
            self.trap = Some(Trap {
                primary,
                replica,
                again: random.percent(40).then(|| random.percent(30)),
                gone_us: random.below(soon_us),
            });
            return;
        }
        let gone_us = power_us + random.below(500_000);
        self.go_away(primary, gone_us, random);
    }

    fn go_away(&mut self, primary: usize, after_us: u64, random: &mut Random) {
        if random.percent(50) {
            self.after(after_us, Action::Crash { node: primary, power: false });
        } else {
            let cut = self.pairs(|a, b| a == primary || b == primary);
            let for_us = random.between(20_000, 4_000_000);
            self.after(after_us, Action::Cut { fault: Fault::Squeeze, cut, for_us });
        }
    }

    /// A replica that was squeezed is back: it may go once more, in one way or the other.
    pub(super) fn spring_on_boot(&mut self, node: usize) {
        if let Some(trap) = &mut self.trap
            && trap.replica == node
            && let Some(power) = trap.again.take()
        {
            let after_us = self.random.below(200_000);
            self.after(after_us, Action::Crash { node, power });
        }
    }

    /// A primary that was squeezed has its replica back.
    pub(super) fn spring_on_session(&mut self, node: usize, peer: usize) {
        let found = self
            .trap
            .take_if(|trap| (trap.primary, trap.replica) == (node, peer) && trap.again.is_none());
        if let Some(trap) = found {
            let mut random = Random::new(self.random.next());
            self.go_away(node, trap.gone_us, &mut random);
        }
    }

    /// `other` loses the primary; long after, everyone else starts anew, and the primary is cut off.
    fn cut_and_restart(&mut self, primary: usize, other: usize, random: &mut Random) {
        if primary == other {
            return;
        }
        let later_us = random.between(900_000, 1_700_000);
        let for_us = random.between(100_000, 1_500_000);
        // Without writes `other` misses nothing, and is a good candidate.
        self.silent_until_us = self.now_us + later_us + for_us;
        let fault = Fault::CutAndRestart;
        let cut = self.pairs(|a, b| (a, b) == (primary, other) || (a, b) == (other, primary));
        self.after(200_000, Action::Cut { fault, cut, for_us: later_us + for_us });
        for node in (0..self.nodes.len()).filter(|node| *node != primary && *node != other) {
            self.after(later_us, Action::Crash { node, power: false });
            self.after(later_us + random.between(1_000, 20_000), Action::Boot { node });
        }
        let cut = self.pairs(|a, b| (a == primary) != (b == primary));
        self.after(later_us, Action::Cut { fault, cut, for_us });
    }

    pub(super) fn cut_for_a_while(&mut self, fault: Fault, cut: Cut, for_us: u64) {
        self.outcome.fault(fault);
        self.network.cut(&cut);
        for (a, b) in &cut {
            let connection = self.network.connection(*a, *b);
            self.after(IDLE_US, Action::Idle { a: *a, b: *b, connection });
        }
        self.after(for_us, Action::Mend { cut });
    }

    pub(super) fn flap(&mut self, a: usize, b: usize, times: u64) {
        if times == 0 || self.calm || a == b {
            return;
        }
        let cut = vec![(a, b), (b, a)];
        self.network.cut(&cut);
        let down_us = self.random.between(1_000, 300_000);
        let up_us = self.random.between(1_000, 300_000);
        self.after(down_us, Action::Mend { cut });
        self.after(down_us + up_us, Action::Flap { a, b, times: times - 1 });
    }

    fn jump_clock(&mut self, node: usize, random: &mut Random) {
        self.outcome.fault(Fault::ClockJump);
        let drift = self.plan.strength(Fault::ClockRate) * 150;
        let rate_ppm = random.below(2 * drift + 1) as i64 - drift as i64;
        self.nodes[node].clock.jump(self.now_us, random.below(5_000), rate_ppm);
        self.arm(node);
    }
}

/// How often clients write in a burst.
const BURST_EVERY_US: u64 = 500;

/// What waits for a replica that lost its memory to come back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trap {
    primary: usize,
    replica: usize,
    /// Whether the replica goes once more when it is back, and whether by a power cut.
    again: Option<bool>,
    /// How long after that the primary goes.
    gone_us: u64,
}
