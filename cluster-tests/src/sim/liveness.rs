//! After the faults: what the rules say must work is healed, the rest stays dead for ever, and
//! progress is demanded.

use quorate_protocol::types::{EntryId, NodeId, Seq};

use super::ledger::NODES_MAX;
use super::node::Process;
use super::world::{Action, World};

/// How long a healthy rest may go without any progress before all is as it must be.
const STANDSTILL_US: u64 = 10_000_000;
/// How long it may take in all: small windows over slow disks take their time.
const CALM_US: u64 = 120_000_000;
/// How often it is looked at.
const LOOK_US: u64 = 250_000;
/// How long clients go on writing.
const LOAD_US: u64 = 3_000_000;
/// How long if nothing was acknowledged yet: a client that has chosen a dead node may wait there for
/// four seconds before it chooses another.
const UNHEARD_LOAD_US: u64 = 9_000_000;

impl World {
    /// Runs the second phase.
    pub(super) fn settle(&mut self) {
        self.heal();
        let begun_us = self.now_us;
        if let Some(why) = self.cannot_recover() {
            self.outcome.over_budget = true;
            self.outcome.mark(why);
            self.run_until(begun_us + LOAD_US);
            if self.random.percent(50) || !self.recover_lossily() {
                return;
            }
        }
        let begun_us = self.now_us;
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
            let load_us = if self.ledger.seen > seen { LOAD_US } else { UNHEARD_LOAD_US };
            self.load = self.now_us < begun_us + load_us;
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
            if self.nodes[node].disk.is_damaged() && self.nodes[node].process.is_none() {
                self.boot(node);
            }
        }
        // One node may stay dead, if a primary can be elected without it.
        if self.random.percent(30) {
            let dead = self.random.index(self.nodes.len());
            if !self.dead[dead] && self.may_stay_dead(dead) {
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

    /// Whether the others, if all of them come back, can elect a primary under every configuration
    /// that any of them may hold.
    fn may_stay_dead(&self, dead: usize) -> bool {
        let live = |voter: &NodeId| {
            let at = voter.0 as usize - 1;
            at != dead && !self.dead[at] && self.nodes[at].joined
        };
        let configs = self.nodes.iter().filter_map(|machine| machine.process.as_ref());
        let mut configs = configs.flat_map(|process| process.core.configs().all());
        configs.all(|config| {
            let votes = config.voters().filter(live).count();
            let intact = config.voters().filter(live).filter(|v| !self.will_have_loss(*v)).count();
            config.policy.normal_form(config.voters().count()).elects(votes, intact)
        })
    }

    fn will_have_loss(&self, node: NodeId) -> bool {
        let machine = &self.nodes[node.0 as usize - 1];
        machine.disk.hard.memory_loss
            || machine.disk.failed
            || machine.disk.boot_id != machine.boot_id && !machine.disk.clean
    }

    /// Why the rules do not promise recovery; `None` if they do: a node leads, or some node can
    /// win under every configuration in its log with the votes of those who are behind it.
    fn cannot_recover(&self) -> Option<&'static str> {
        let leads = (0..self.nodes.len()).any(|node| self.nodes[node].is_primary());
        let live: Vec<&Process> = self.nodes.iter().filter_map(|m| m.process.as_ref()).collect();
        let can_win = |candidate: &Process| {
            candidate.core.is_voter()
                && candidate.core.configs().all().all(|config| {
                    let lost: Vec<bool> = live
                        .iter()
                        .filter(|voter| voter.core.log().last() <= candidate.core.log().last())
                        .filter(|voter| voter.core.is_voter() && config.is_voter(voter.id))
                        .map(|voter| voter.core.memory_loss())
                        .collect();
                    let intact = lost.iter().filter(|lost| !**lost).count();
                    let form = config.policy.normal_form(config.voters().count());
                    form.elects(lost.len(), intact)
                })
        };
        let elects = live.iter().any(|candidate| can_win(candidate));
        (!leads && !elects).then_some("over budget: no election is safe")
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
        let handed_over = primary.handed_over_in == Some(primary.core.epoch());
        if !handed_over && primary.core.lease_until(now).is_none_or(|until| until <= now) {
            return format!("node {} leads without a lease", leader + 1);
        }
        if primary.core.committed() < committed_before {
            return "nothing commits".to_owned();
        }
        if primary.core.configs().all().count() > 1 {
            return "a configuration is not in force".to_owned();
        }
        let config = primary.core.configs().in_force();
        let live: Vec<_> =
            live.into_iter().filter(|node| config.member(self.nodes[*node].id).is_some()).collect();
        let voters = live.iter().filter(|node| config.is_voter(self.nodes[**node].id)).count();
        let writable = primary.core.admits(now).is_ok();
        let form = config.policy.normal_form(config.voters().count());
        if writable != (voters >= form.copies) {
            return format!("{voters} of {} voters live, writes: {writable}", form.voters);
        }
        if voters < live.len() {
            return "a learner is not promoted".to_owned();
        }
        if writable && self.ledger.seen <= seen_before {
            return "no write is acknowledged".to_owned();
        }
        let mut unlike = live.into_iter().map(|node| self.unlike(node, last, writable));
        unlike.find(|why| !why.is_empty()).unwrap_or_default()
    }

    /// In what a member is not yet like the primary; empty if in nothing.
    fn unlike(&self, node: usize, last: EntryId, writable: bool) -> String {
        let name = node + 1;
        let Some(process) = self.nodes[node].process.as_ref() else {
            return format!("node {name} is down");
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
                "node {name}: log {} (primary {last}), committed {}, applied {}, journal {} \
                 synced {}",
                process.log.last(),
                process.core.committed(),
                process.applied,
                journal.cached.last(),
                journal.synced()
            );
        }
        if !process.asked.is_empty() {
            return format!("node {name}: no answer to {:?}", process.asked);
        }
        if process.core.memory_loss() {
            return format!("node {name} does not leave memory loss");
        }
        if !process.front.is_idle() {
            return format!("node {name} has not answered all commands");
        }
        String::new()
    }
}
