//! What goes wrong, and how it comes back.

use quorate_protocol::types::Seq;

use super::ledger::Fact;
use super::network::Cut;
use super::plan::Fault;
use super::world::{Action, World};

/// How long a broken connection goes unnoticed where nothing says so.
const IDLE_US: u64 = 700_000;

impl World {
    pub(super) fn on_fault(&mut self) {
        if self.calm {
            return;
        }
        let next_us = self.random.latency(self.plan.fault_every_us);
        self.after(next_us, Action::Fault);
        let classes: Vec<Fault> =
            self.plan.faults.keys().copied().filter(|fault| fault.is_momentary()).collect();
        if classes.is_empty() {
            return;
        }
        let fault = classes[self.random.index(classes.len())];
        self.inject(fault);
    }

    fn inject(&mut self, fault: Fault) {
        let node = self.pick();
        let other = (node + 1 + self.random.index(self.nodes.len().max(2) - 1)) % self.nodes.len();
        self.note(&|| format!("fault {fault:?} node {} other {}", node + 1, other + 1));
        match fault {
            Fault::Partition => self.partition(node),
            Fault::OneWay => {
                let cut = if self.random.percent(50) {
                    vec![(node, other)]
                } else {
                    (0..self.nodes.len()).filter(|to| *to != node).map(|to| (node, to)).collect()
                };
                self.cut_for_a_while("one-way", cut);
            }
            Fault::Bridge => {
                let cut = self.pairs(|a, b| a != node && b != node);
                self.cut_for_a_while("bridge", cut);
            }
            Fault::Flapping => {
                self.outcome.fault("flapping link");
                let times = self.random.between(2, 8);
                self.flap(node, other, times);
            }
            Fault::Reconnect => {
                self.outcome.fault("reconnect");
                self.break_connection(node, other, 100_000);
            }
            Fault::Kill => {
                self.outcome.fault("kill");
                self.crash(node, false);
            }
            Fault::KillAll => {
                self.outcome.fault("kill all");
                (0..self.nodes.len()).for_each(|node| self.crash(node, false));
            }
            Fault::PowerCut => {
                self.outcome.fault("power cut");
                self.crash(node, true);
            }
            Fault::PowerCutAll => {
                self.outcome.fault("power cut of all");
                (0..self.nodes.len()).for_each(|node| self.crash(node, true));
            }
            Fault::Stop => self.stop(node),
            Fault::Pause => {
                self.outcome.fault("pause");
                let for_us = self.random.between(10_000, 3_000_000);
                self.nodes[node].paused_until_us = self.now_us + for_us;
            }
            Fault::SlowDisk | Fault::SlowHardState | Fault::StalledDisk => {
                self.slow_down(node, fault);
            }
            Fault::ClockJump => self.jump_clock(node),
            Fault::Squeeze => self.squeeze(node, other),
            Fault::Silence => {
                self.outcome.fault("silence");
                let for_us = self.random.between(100_000, 3_000_000);
                self.silent_until_us = self.now_us + for_us;
            }
            Fault::Delay
            | Fault::Loss
            | Fault::Duplication
            | Fault::Reorder
            | Fault::Replay
            | Fault::ClockRate
            | Fault::SlowSender
            | Fault::StateAhead
            | Fault::UnprovenTail
            | Fault::Trim => {}
        }
    }

    fn slow_down(&mut self, node: usize, fault: Fault) {
        let for_us = self.random.between(100_000, 3_000_000);
        if fault == Fault::StalledDisk {
            self.outcome.fault("stalled disk");
            self.stalled_until_us[node] = self.now_us + for_us;
            return;
        }
        self.outcome.fault("slow disk");
        let factor = self.random.between(2, 100);
        if fault == Fault::SlowDisk {
            self.nodes[node].disk_factor = factor;
        } else {
            self.nodes[node].hard_factor = factor;
        }
        self.after(for_us, Action::DiskRecovers { node });
    }

    /// A node; in half of the cases the primary.
    fn pick(&mut self) -> usize {
        let primary = (0..self.nodes.len()).rev().find(|node| self.nodes[*node].is_primary());
        match primary {
            Some(primary) if self.random.percent(50) => primary,
            Some(_) | None => self.random.index(self.nodes.len()),
        }
    }

    fn pairs(&self, wanted: impl Fn(usize, usize) -> bool) -> Cut {
        let nodes = self.nodes.len();
        (0..nodes)
            .flat_map(|a| (0..nodes).map(move |b| (a, b)))
            .filter(|(a, b)| a != b && wanted(*a, *b))
            .collect()
    }

    fn partition(&mut self, node: usize) {
        let with: Vec<bool> = if self.random.percent(50) {
            (0..self.nodes.len()).map(|other| other == node).collect()
        } else {
            (0..self.nodes.len()).map(|_| self.random.percent(50)).collect()
        };
        let cut = self.pairs(|a, b| with[a] != with[b]);
        self.cut_for_a_while("partition", cut);
    }

    /// `primary` goes on with `replica` alone, which loses power; then `primary` goes.
    fn squeeze(&mut self, primary: usize, replica: usize) {
        if primary == replica {
            return;
        }
        let others = |node: usize| node != primary && node != replica;
        let cut = self.pairs(|a, b| a == primary && others(b) || b == primary && others(a));
        self.cut_for_a_while("squeeze", cut);
        // With a slow disk much of what the replica acknowledges is in its memory only.
        if self.random.percent(70) {
            self.nodes[replica].disk_factor = self.random.between(5, 100);
            self.after(2_000_000, Action::DiskRecovers { node: replica });
        }
        let power_us = self.random.below(600_000);
        self.after(power_us, Action::Crash { node: replica, power: true });
        let gone_us = power_us + self.random.below(500_000);
        if self.random.percent(50) {
            self.after(gone_us, Action::Crash { node: primary, power: false });
        } else {
            let cut = self.pairs(|a, b| a == primary || b == primary);
            self.after(gone_us, Action::Cut { cut });
        }
    }

    pub(super) fn cut_for_a_while(&mut self, name: &'static str, cut: Cut) {
        self.outcome.fault(name);
        self.network.cut(&cut);
        for (a, b) in &cut {
            let connection = self.network.connection(*a, *b);
            self.after(IDLE_US, Action::Idle { a: *a, b: *b, connection });
        }
        let for_us = self.random.between(20_000, 4_000_000);
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

    fn jump_clock(&mut self, node: usize) {
        self.outcome.fault("clock jump");
        let drift = self.plan.strength(Fault::ClockRate) * 150;
        let rate_ppm = self.random.below(2 * drift + 1) as i64 - drift as i64;
        let by_us = self.random.below(5_000);
        self.nodes[node].clock.jump(self.now_us, by_us, rate_ppm);
        self.arm(node);
    }

    pub(super) fn crash(&mut self, node: usize, power: bool) {
        self.note(&|| format!("node {} crashes, power cut: {power}", node + 1));
        let was_up = self.nodes[node].process.is_some();
        if power {
            self.nodes[node].cut_power(&mut self.random);
        } else {
            self.nodes[node].kill(&mut self.random);
        }
        self.after_end(node, was_up, power);
    }

    fn stop(&mut self, node: usize) {
        if self.nodes[node].stop() {
            self.outcome.fault("stop in good order");
            if self.random.percent(50) {
                self.nodes[node].boot_id += 1;
            }
            self.after_end(node, true, false);
        }
    }

    fn after_end(&mut self, node: usize, was_up: bool, silent: bool) {
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            let notice_us = if silent { IDLE_US } else { 50_000 };
            self.break_connection(node, peer, notice_us);
        }
        if was_up {
            let mean_us = [5_000, 200_000, 2_000_000][self.random.index(3)];
            let down_us = self.random.latency(mean_us);
            self.after(down_us, Action::Boot { node });
        }
    }

    pub(super) fn boot(&mut self, node: usize) {
        if self.nodes[node].process.is_some() || self.dead[node] {
            return;
        }
        let prove_all = self.plan.strength(Fault::UnprovenTail) == 0 || self.random.percent(30);
        let flushed = self.nodes[node].disk.flushed;
        let held = self.nodes[node].disk.journal.cached.last().seq;
        if !self.nodes[node].disk.journal.cached.holds(flushed) {
            self.outcome.mark("boot with the state ahead of the journal");
            for seq in (held.0 + 1..=flushed.seq.0).map(Seq) {
                if let Some(id) = self.ledger.committed_at(seq) {
                    self.ledger.note_disk(node, id);
                }
            }
        }
        let (cluster, tuning) = (self.cluster.clone(), self.plan.tuning);
        self.nodes[node].boot(&cluster, tuning, self.now_us, prove_all, &mut self.random);
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
        let machine = &self.nodes[node];
        let (incarnation, synced) = (machine.disk.incarnation.0, machine.disk.journal.synced());
        if machine.disk.hard.memory_loss {
            self.outcome.mark("boot with memory loss");
        }
        for id in machine.disk.journal.cached.ids() {
            self.ledger.note_memory(node, incarnation, *id);
            if id.seq <= synced {
                self.ledger.note_disk(node, *id);
            }
        }
        if machine.process.as_ref().is_some_and(|process| process.journal.is_busy()) {
            self.journal_works(node, self.plan.sync_us);
        }
        self.arm(node);
        self.observe(&Fact::Stepped);
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            self.connect_soon(node, peer);
        }
    }

    pub(super) fn disk_recovers(&mut self, node: usize) {
        self.nodes[node].disk_factor = 1;
        self.nodes[node].hard_factor = 1;
    }

    // Connections.

    pub(super) fn connect_soon(&mut self, a: usize, b: usize) {
        let (a, b) = (a.min(b), a.max(b));
        if a == b || self.network.connecting[a][b] || self.network.connection(a, b) != 0 {
            return;
        }
        self.network.connecting[a][b] = true;
        let delay_us = self.random.between(1_000, 150_000);
        self.after(delay_us, Action::Connect { a, b });
    }

    pub(super) fn connect(&mut self, a: usize, b: usize) {
        self.network.connecting[a][b] = false;
        if self.network.connection(a, b) != 0 {
            return;
        }
        let runs = |node: usize| {
            self.nodes[node].process.is_some() && self.nodes[node].paused_until_us <= self.now_us
        };
        if !runs(a) || !runs(b) || !self.network.is_open_both_ways(a, b) {
            if !self.dead[a] && !self.dead[b] {
                self.connect_soon(a, b);
            }
            return;
        }
        let connection = self.network.connect(a, b);
        for (node, peer) in [(a, b), (b, a)] {
            let incarnation = self.nodes[peer].disk.incarnation;
            let life = self.nodes[node].life;
            let delay_us = self.random.latency(self.plan.link_us);
            self.after(delay_us, Action::SessionUp { node, life, peer, connection, incarnation });
        }
    }

    /// Ends the connection of a pair; each side notices within `notice_us`.
    fn break_connection(&mut self, a: usize, b: usize, notice_us: u64) {
        let connection = self.network.connection(a, b);
        if a == b || connection == 0 {
            return;
        }
        self.network.disconnect(a, b);
        for (node, peer) in [(a, b), (b, a)] {
            let life = self.nodes[node].life;
            let delay_us = self.random.between(1, notice_us);
            self.after(delay_us, Action::SessionDown { node, life, peer, connection });
        }
        self.connect_soon(a, b);
    }

    /// A connection over a cut link ends when nothing came through for long enough.
    pub(super) fn on_idle(&mut self, a: usize, b: usize, connection: u64) {
        let same = connection != 0 && self.network.connection(a, b) == connection;
        if same && !self.network.is_open_both_ways(a, b) {
            self.break_connection(a, b, 1_000);
        }
    }
}
