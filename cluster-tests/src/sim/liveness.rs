//! After the faults: what the rules say must work is healed, the rest stays dead for ever, and
//! progress is demanded.

use quorate_protocol::types::Seq;

use super::fault::Fault;
use super::ledger::NODES_MAX;
use super::world::{Action, World};

/// How long a healthy rest may go without any progress before all is as it must be.
const STANDSTILL_US: u64 = 10_000_000;
/// How long it may take in all: small windows over slow disks take their time.
const CALM_US: u64 = 120_000_000;
/// How often it is looked at.
const LOOK_US: u64 = 250_000;
/// How long clients go on writing.
const LOAD_US: u64 = 3_000_000;

impl World {
    /// Runs the second phase.
    pub(super) fn settle(&mut self) {
        self.heal();
        let begun_us = self.now_us;
        if let Some(why) = self.cannot_recover() {
            self.outcome.over_budget = true;
            self.outcome.mark(why);
            self.run_until(begun_us + LOAD_US);
            return;
        }
        let seen = self.ledger.seen;
        let last = self.ledger.committed_through();
        let mut missing = String::new();
        let mut progress = (0, begun_us);
        while self.now_us < (begun_us + CALM_US).min(progress.1 + STANDSTILL_US)
            && self.outcome.violation.is_none()
        {
            self.run_until(self.now_us + LOOK_US);
            let synced = self.nodes.iter().map(|node| node.disk.journal.synced().0).sum();
            if synced > progress.0 {
                progress = (synced, self.now_us);
            }
            self.load = self.now_us < begun_us + LOAD_US;
            missing = self.missing(seen, last);
            if !self.load && missing.is_empty() {
                return;
            }
        }
        self.fail("Converges", missing);
    }

    fn heal(&mut self) {
        self.calm = true;
        self.silent_until_us = 0;
        self.stalled_until_us = [0; NODES_MAX];
        // A disk that is lost stays so.
        for node in 0..self.nodes.len() {
            let lost = self.nodes[node].disk.wiped || self.nodes[node].disk.journal.is_damaged();
            if lost && self.nodes[node].process.is_none() {
                self.boot(node);
            }
        }
        // One node may stay dead, if a primary can be elected without it.
        if self.random.percent(30) {
            let dead = self.random.index(self.nodes.len());
            let (votes, intact) = self.voters_but(Some(dead));
            let form = self.plan.policy.normal_form(self.nodes.len());
            if form.elects(votes, intact) {
                self.crash(dead, false);
                self.dead[dead] = true;
                self.outcome.mark("one node stays dead");
            }
        }
        // Cuts end by themselves within four seconds; what is down or stopped comes back now.
        for node in 0..self.nodes.len() {
            self.disk_recovers(node);
            let machine = &mut self.nodes[node];
            machine.paused_until_us = machine.paused_until_us.min(self.now_us);
            machine.asleep_until_us = machine.asleep_until_us.min(self.now_us);
            machine.full_until_us = 0;
            machine.sync_fails = false;
            if self.nodes[node].process.is_none() && !self.dead[node] {
                self.after(1_000, Action::Boot { node });
            }
        }
        self.run_until(self.now_us + 5_000_000);
    }

    /// How many of the nodes vote, and how many of them have no memory loss.
    fn voters_but(&self, dead: Option<usize>) -> (usize, usize) {
        let live: Vec<_> =
            (0..self.nodes.len()).filter(|node| !self.dead[*node] && Some(*node) != dead).collect();
        let intact = live.iter().filter(|node| !self.will_have_loss(**node)).count();
        (live.len(), intact)
    }

    fn will_have_loss(&self, node: usize) -> bool {
        let machine = &self.nodes[node];
        machine.disk.hard.memory_loss
            || machine.disk.failed
            || machine.disk.boot_id != machine.boot_id && !machine.disk.clean
    }

    /// Why the rules do not promise recovery; `None` if they do.
    fn cannot_recover(&self) -> Option<&'static str> {
        let (votes, intact) = self.voters_but(None);
        let leads = (0..self.nodes.len()).any(|node| self.nodes[node].is_primary());
        let form = self.plan.policy.normal_form(self.nodes.len());
        if !leads && !form.elects(votes, intact) {
            return Some("over budget: no election is safe");
        }
        if self.plan.strength(Fault::StateAhead) > 0 && self.needs_snapshot() {
            return Some("over budget: a log starts above what another needs");
        }
        None
    }

    fn needs_snapshot(&self) -> bool {
        let live = || (0..self.nodes.len()).filter(|node| !self.dead[*node]);
        let start = live().map(|node| self.nodes[node].disk.journal.cached.preceding().seq).max();
        let agreed = |node: usize| {
            let journal = &self.nodes[node].disk.journal.cached;
            (0..=self.ledger.committed_through().0)
                .rev()
                .map(Seq)
                .find(|seq| {
                    journal.at(*seq).is_some() && journal.at(*seq) == self.ledger.committed_at(*seq)
                })
                .unwrap_or(journal.preceding().seq)
        };
        live().any(|node| Some(agreed(node)) < start)
    }

    /// What is not yet as it must be; empty if nothing.
    fn missing(&self, seen_before: Seq, committed_before: Seq) -> String {
        let live: Vec<_> = (0..self.nodes.len()).filter(|node| !self.dead[*node]).collect();
        let leaders: Vec<_> =
            live.iter().copied().filter(|node| self.nodes[*node].is_primary()).collect();
        let [leader] = leaders[..] else {
            return format!("{} nodes lead", leaders.len());
        };
        let primary = self.nodes[leader].process.as_ref().expect("leads");
        let now = self.nodes[leader].clock.read(self.now_us);
        let last = primary.log.last();
        if primary.core.lease_until(now).is_none_or(|until| until <= now) {
            return format!("node {} leads without a lease", leader + 1);
        }
        if primary.core.committed() < committed_before {
            return "nothing commits".to_owned();
        }
        let writable = primary.core.admits(now).is_ok();
        let form = self.plan.policy.normal_form(self.nodes.len());
        if writable != (live.len() >= form.copies) {
            return format!(
                "{} of {} nodes live, writes: {writable}",
                live.len(),
                self.nodes.len()
            );
        }
        if writable && self.ledger.seen <= seen_before {
            return "no write is acknowledged".to_owned();
        }
        for node in live {
            let process = self.nodes[node].process.as_ref();
            let Some(process) = process else {
                return format!("node {} is down", node + 1);
            };
            let journal = &self.nodes[node].disk.journal;
            let complete = process.log.last() == last
                && (!writable || process.core.committed() == last.seq)
                && process.applied == process.core.committed()
                && journal.cached.last() == last
                && journal.synced() == last.seq
                && process.hard.is_idle();
            if !complete {
                return format!(
                    "node {}: log {} (primary {last}), committed {}, applied {}, journal {} synced \
                     {}",
                    node + 1,
                    process.log.last(),
                    process.core.committed(),
                    process.applied,
                    journal.cached.last(),
                    journal.synced()
                );
            }
            if process.core.memory_loss() {
                return format!("node {} does not leave memory loss", node + 1);
            }
            // Without enough copies a reply waits for its deadline, which is the gate's.
            if writable && !process.replies.is_empty() {
                return format!("node {}: {} replies wait", node + 1, process.replies.len());
            }
        }
        String::new()
    }
}
