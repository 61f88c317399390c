//! Heartbeat rounds and what they prove: contact with a quorum, the lease, and confirmed reads
//! (S11).

use std::collections::VecDeque;

use super::event::Command;
use super::primary::Tenure;
use super::state::{Core, Duty};
use crate::mutants::mutant;
use crate::types::{MonoTime, Seq};

/// A read that waits for a heartbeat round sent after it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct WaitingRead {
    token: u64,
    round: u64,
    at: Seq,
}

impl Core {
    /// Until when reads may be served under the lease; `None` where none may be. The caller
    /// checks again before it replies.
    #[must_use]
    pub fn lease_until(&self, now: MonoTime) -> Option<MonoTime> {
        let Duty::Primary(tenure) = &self.duty else {
            return None;
        };
        let timers = &self.configs.newest().timers;
        let alone = self.leads_alone();
        let contact = if alone { now } else { tenure.contact };
        (self.is_readable(tenure)
            && (alone || tenure.proven)
            && !mutant!(LeaseKeptInTransfer, false, tenure.lease_forgone))
        .then(|| contact.plus(timers.lease_us.saturating_sub(timers.drift_us)))
    }

    /// Whether the tenure's first entry is committed: before that, entries of earlier epochs may
    /// be committed elsewhere and unknown here.
    fn is_readable(&self, tenure: &Tenure) -> bool {
        mutant!(ReadBeforeStart, true, self.committed >= tenure.start)
    }

    /// Whether no other node is needed to be sure that no one else leads.
    pub(super) fn leads_alone(&self) -> bool {
        self.configs.all().all(|config| {
            let form = config.policy.normal_form(config.voters().count());
            form.sealing_copies() == 1 && self.counts_in(config, self.node)
        })
    }

    pub(super) fn on_read(&mut self, now: MonoTime, token: u64, out: &mut Vec<Command>) {
        let leased = self.lease_until(now).is_some_and(|until| now < until);
        let at = self.committed;
        let reads_max = self.tuning.reads_max;
        let readable = match &self.duty {
            Duty::Primary(tenure) => self.is_readable(tenure) && tenure.reads.len() < reads_max,
            Duty::Replica { .. } | Duty::Candidate(_) => false,
        };
        if leased {
            out.push(Command::ReadReady { token, at });
        } else if readable {
            // A round of its own: one that was sent before the read arrived proves nothing.
            mutant!(EtcdReadRoundReused, (), self.start_round(now, out));
            let Duty::Primary(tenure) = &mut self.duty else {
                return;
            };
            tenure.reads.push_back(WaitingRead { token, round: tenure.round, at });
        } else {
            out.push(Command::ReadFailed { token });
        }
    }

    /// A member answered a round: `contact` moves to the time when the latest round was sent that
    /// a quorum has answered, under every configuration that may elect.
    pub(super) fn note_contact(&mut self, now: MonoTime, out: &mut Vec<Command>) {
        let Duty::Primary(tenure) = &self.duty else {
            return;
        };
        let answered = self.configs.all().map(|config| {
            let form = config.policy.normal_form(config.voters().count());
            let mut rounds: Vec<u64> = tenure
                .peers
                .iter()
                .filter(|(peer, _)| self.counts_in(config, **peer))
                .map(|(_, progress)| progress.round)
                .collect();
            if self.counts_in(config, self.node) {
                rounds.push(tenure.round);
            }
            rounds.sort_unstable_by(|a, b| b.cmp(a));
            rounds.get(form.sealing_copies() - 1).copied().unwrap_or(0)
        });
        let round = answered.min().unwrap_or(0);
        let alone = self.leads_alone();
        let Duty::Primary(tenure) = &mut self.duty else {
            return;
        };
        if alone {
            tenure.contact = now;
        } else if let Some(sent_at) = tenure.sent_at(round) {
            let at = mutant!(LeaseFromAnswer, now, sent_at);
            tenure.contact = tenure.contact.max(at);
            tenure.proven = true;
        }
        while tenure.reads.front().is_some_and(|read| read.round <= round) {
            let read = tenure.reads.pop_front().expect("just seen");
            out.push(Command::ReadReady { token: read.token, at: read.at });
        }
    }
}

impl Tenure {
    pub(super) fn fail_reads(&mut self, out: &mut Vec<Command>) {
        out.extend(self.reads.drain(..).map(|read| Command::ReadFailed { token: read.token }));
    }

    /// Opens a new round at `now`. Of too many unanswered rounds the later ones are not
    /// remembered: their answers then prove contact as of an earlier round, which is less.
    pub(super) fn open_round(&mut self, now: MonoTime) {
        const ROUNDS_MAX: usize = 1 << 10;
        self.round += 1;
        if self.rounds.len() < ROUNDS_MAX {
            self.rounds.push_back((self.round, now));
        }
    }

    /// When the latest remembered round up to `round` was sent; forgets it and those before it.
    fn sent_at(&mut self, round: u64) -> Option<MonoTime> {
        let mut sent_at = None;
        while let Some((number, at)) = self.rounds.front().copied()
            && number <= round
        {
            sent_at = Some(at);
            self.rounds.pop_front();
        }
        sent_at
    }
}

pub(super) type WaitingReads = VecDeque<WaitingRead>;
