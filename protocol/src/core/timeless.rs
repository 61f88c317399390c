//! Forgetting time, for the model checker: two states that differ only in when something
//! happened, or in how often, become one, so that the reachable states are finitely many.
//!
//! What is forgotten decides nothing about elections, logs or commits. Every timer becomes due
//! and every silence (S2) is over, so each step that time could ever allow is allowed at once:
//! safety must not rest on timers, except for the lease (S11), which no model of this kind
//! judges. Numbers of heartbeat rounds go too, and with them confirmed reads.

use super::state::{Core, Duty};
use super::transfer::Pace;
use crate::types::{MonoTime, Seq};

impl Core {
    /// Sets every moment to `now` and every mere counter to where it started. No completion of
    /// the journal may be outstanding, and no answer to a pre-vote or a read.
    pub fn forget_time(&mut self, now: MonoTime) {
        self.election_due = now;
        self.silent_until = now;
        self.heard = None;
        self.vote_round = 0;
        self.primary_round = 0;
        self.applied = Seq::ZERO;
        self.log.forget_branches();
        let saved = self.durable_id;
        self.durable_id = 0;
        self.hard_id -= saved;
        self.epoch_id = self.epoch_id.saturating_sub(saved);
        for (needed, _, _) in &mut self.held {
            *needed -= saved;
        }
        match &mut self.duty {
            Duty::Replica { .. } => {}
            Duty::Candidate(candidacy) => {
                candidacy.round = 0;
                candidacy.hard_id = candidacy.hard_id.saturating_sub(saved);
            }
            Duty::Primary(tenure) => {
                tenure.round = 0;
                tenure.rounds.clear();
                tenure.heartbeat_due = now;
                tenure.contact = now;
                tenure.proven = false;
                tenure.pace = Pace::new(now);
                tenure.peers.values_mut().for_each(|progress| progress.forget_time(now));
            }
        }
    }
}
