//! Processes end and begin, disks fail, and what a node finds when it boots.

use std::sync::Arc;

use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::core::HardState;
use quorate_protocol::mutants::Mutant;
use quorate_protocol::types::Seq;

use super::disk::Recovered;
use super::fault::Fault;
use super::ledger::{Damage, Fact};
use super::node::Node;
use super::random::Random;
use super::world::{Action, World};

/// How long a broken connection goes unnoticed after a power cut.
const SILENT_US: u64 = 700_000;
/// How long after a kill, whose machine resets connections.
const RESET_US: u64 = 50_000;

impl World {
    pub(super) fn end_processes(&mut self, fault: Fault, node: usize, random: &mut Random) {
        self.outcome.fault(fault);
        match fault {
            Fault::Kill => self.crash(node, false),
            Fault::KillAll => (0..self.nodes.len()).for_each(|node| self.crash(node, false)),
            Fault::CrashLoop => {
                let mut after_us = 0;
                for _ in 0..random.between(2, 8) {
                    self.after(after_us, Action::Crash { node, power: false });
                    after_us += random.between(1_000, 400_000);
                }
            }
            Fault::PowerCut if random.percent(50) => {
                // While its disk is slow, much is written and not yet synced.
                self.nodes[node].disk_factor = random.between(5, 100);
                self.after(2_000_000, Action::DiskRecovers { node });
                self.after(random.below(400_000), Action::Crash { node, power: true });
            }
            Fault::PowerCut => self.crash(node, true),
            Fault::PowerCutAll => (0..self.nodes.len()).for_each(|node| self.crash(node, true)),
            _ => self.stop(node, random.percent(50)),
        }
    }

    pub(super) fn crash(&mut self, node: usize, power: bool) {
        self.note(&|| format!("node {} crashes, power cut: {power}", node + 1));
        let was_up = self.nodes[node].process.is_some();
        if power {
            self.ledger.damage.push((node, Damage::Memory));
            self.nodes[node].cut_power(&mut self.random);
        } else {
            self.nodes[node].kill(&mut self.random);
        }
        self.after_end(node, was_up, power);
    }

    /// The process ends in good order, if it is idle enough; its machine may restart.
    fn stop(&mut self, node: usize, restart: bool) {
        if self.nodes[node].stop() {
            self.outcome.mark("stopped in good order");
            if restart {
                self.nodes[node].boot_id += 1;
            }
            self.after_end(node, true, false);
        }
    }

    fn after_end(&mut self, node: usize, was_up: bool, silent: bool) {
        if !silent {
            self.reset_connections(node);
        }
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            let notice_us = if silent { SILENT_US } else { RESET_US };
            self.break_connection(node, peer, notice_us);
        }
        if was_up {
            let mean_us = [5_000, 200_000, 2_000_000][self.random.index(3)];
            let down_us = self.random.latency(mean_us);
            self.after(down_us, Action::Boot { node });
        }
    }

    // Disks.

    pub(super) fn break_disk(&mut self, fault: Fault, node: usize, random: &mut Random) {
        let for_us = random.between(100_000, 3_000_000);
        match fault {
            Fault::StalledDisk => self.stalled_until_us[node] = self.now_us + for_us,
            Fault::DiskFull => {
                self.nodes[node].full_until_us = self.now_us + for_us;
                // Where the reserve doesn't last, the journal waits for room.
                if random.percent(50) {
                    self.stalled_until_us[node] = self.now_us + for_us;
                }
            }
            Fault::SlowDisk => {
                self.nodes[node].disk_factor = random.between(2, 100);
                self.after(for_us, Action::DiskRecovers { node });
            }
            Fault::SlowHardState => {
                self.nodes[node].hard_factor = random.between(2, 100);
                self.after(for_us, Action::DiskRecovers { node });
            }
            Fault::SyncError => self.nodes[node].sync_fails = true,
            Fault::Corruption if self.may_lose(node) => {
                if random.percent(30) {
                    self.nodes[node].disk.hard_damaged = true;
                } else if !self.nodes[node].disk.journal.damage_below_marks(random) {
                    return;
                }
                self.ledger.damage.push((node, Damage::Disk));
                if random.percent(50) {
                    self.after(random.below(2_000_000), Action::Crash { node, power: false });
                }
            }
            Fault::WipedDisk if self.may_lose(node) => {
                self.crash(node, false);
                self.ledger.damage.push((node, Damage::Disk));
                self.nodes[node].disk.wiped = true;
            }
            _ => return,
        }
        self.outcome.fault(fault);
    }

    /// Whether the rest can still elect a primary when this disk is lost; beyond that only seeds
    /// go that are over budget.
    fn may_lose(&self, node: usize) -> bool {
        let lost = |at: usize| {
            let machine = &self.nodes[at];
            at == node || self.dead[at] || machine.disk.is_damaged()
        };
        let Some(config) = self.newest_anywhere() else {
            return false;
        };
        let left = config.voters().filter(|voter| !lost(voter.0 as usize - 1)).count();
        let form = config.policy.normal_form(config.voters().count());
        self.plan.over_budget || form.elects(left, left)
    }

    /// The newest configuration of the longest log that runs.
    pub(super) fn newest_anywhere(&self) -> Option<Arc<ClusterEntry>> {
        let processes = self.nodes.iter().filter_map(|machine| machine.process.as_ref());
        let longest = processes.max_by_key(|process| process.log.last());
        longest.map(|process| process.core.configs().newest().clone())
    }

    pub(super) fn disk_recovers(&mut self, node: usize) {
        self.nodes[node].disk_factor = 1;
        self.nodes[node].hard_factor = 1;
    }

    /// A sync failed: the process ends, and may not trust what it wrote since the last one (S5).
    pub(super) fn sync_fails(&mut self, node: usize) {
        self.nodes[node].sync_fails = false;
        self.ledger.damage.push((node, Damage::Memory));
        let machine = &mut self.nodes[node];
        machine.disk.journal.lose_unsynced(&mut self.random);
        if Mutant::RetryFailedSync.is_active() {
            return;
        }
        self.outcome.mark("sync failed, node ended");
        machine.disk.failed = true;
        self.crash(node, false);
    }

    // Boot.

    pub(super) fn boot(&mut self, node: usize) {
        if self.nodes[node].process.is_some() || self.dead[node] || !self.nodes[node].joined {
            return;
        }
        if self.disk_is_lost(node) {
            self.note(&|| format!("node {} finds its disk damaged", node + 1));
            self.outcome.mark("disk lost");
            self.dead[node] = true;
            return;
        }
        self.note_recovered_state(node);
        let prove_all = !self.nodes[node].disk.failed
            && (self.plan.strength(Fault::UnprovenTail) == 0 || self.random.percent(30));
        if !prove_all && !self.nodes[node].disk.failed {
            self.outcome.fault(Fault::UnprovenTail);
        }
        if self.random.percent(20) {
            self.nodes[node].next_version += 1;
        }
        let (clusters, tuning) = (&self.ledger.clusters, self.plan.tuning);
        self.nodes[node].boot(clusters, tuning, self.now_us, prove_all, &mut self.random);
        self.note_booted(node);
        self.ledger.pre_votes.retain(|(candidate, _), _| *candidate != node);
        self.spring_on_boot(node);
        if self.nodes[node].process.as_ref().is_some_and(|process| process.journal.is_busy()) {
            self.journal_works(node, self.plan.sync_us);
        }
        self.state_taken(node);
        self.arm(node);
        self.observe(&Fact::Stepped);
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            self.connect_soon(node, peer);
        }
    }

    /// S6: hard state gone, or a record damaged that a mark says was synced. A bad record above
    /// all marks is a torn tail, and cut.
    fn disk_is_lost(&mut self, node: usize) -> bool {
        let machine = &mut self.nodes[node];
        if machine.disk.wiped {
            if Mutant::WipedNodeVotes.is_active() {
                *machine = Node { life: machine.life, ..machine.as_new() };
                return false;
            }
            return true;
        }
        if machine.disk.hard_damaged {
            if Mutant::HardStateByDefault.is_active() {
                machine.disk.hard = HardState::default();
                machine.disk.hard_damaged = false;
                return false;
            }
            return true;
        }
        match machine.disk.journal.recover() {
            Recovered::Whole => false,
            Recovered::TornTail => {
                self.outcome.mark("torn tail cut at boot");
                false
            }
            Recovered::Damaged => true,
        }
    }

    /// The state may hold more than the journal: a copy in memory that was lost.
    fn note_recovered_state(&mut self, node: usize) {
        let disk = &self.nodes[node].disk;
        if !disk.journal.cached.holds(disk.flushed) {
            self.outcome.mark("boot with the state ahead of the journal");
        }
        let begins = disk.journal.cached.preceding();
        if begins > disk.flushed {
            let what = format!(
                "node {} has a state through {} and a journal from {begins}",
                node + 1,
                disk.flushed
            );
            self.fail("RecoveryIsWhole", what);
        }
        self.note_state(node);
    }

    /// What the flushed state stands for is on disk, whether the journal has it or not.
    pub(super) fn note_state(&mut self, node: usize) {
        let flushed = self.nodes[node].disk.flushed.seq;
        for seq in (1..=flushed.0).map(Seq) {
            if let Some(id) = self.ledger.committed_at(seq) {
                self.ledger.note_disk(node, id);
            }
        }
    }

    fn note_booted(&mut self, node: usize) {
        let machine = &self.nodes[node];
        self.note(&|| {
            format!(
                "node {} boots: incarnation {}, {:?}, log {} to {}, committed {}",
                node + 1,
                machine.disk.incarnation,
                machine.disk.hard,
                machine.disk.journal.cached.preceding(),
                machine.disk.journal.cached.last(),
                machine.disk.flushed
            )
        });
        let (incarnation, synced) = (machine.disk.incarnation.0, machine.disk.journal.synced());
        if machine.disk.incarnation.0 > 1 {
            self.outcome.mark("restart");
        }
        let machine = &self.nodes[node];
        if machine.disk.hard.memory_loss {
            self.outcome.mark("boot with memory loss");
        }
        for id in machine.disk.journal.cached.ids() {
            self.ledger.note_memory(node, incarnation, *id);
            if id.seq <= synced {
                self.ledger.note_disk(node, *id);
            }
        }
    }
}
