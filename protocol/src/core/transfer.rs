//! Leadership transfer: on request, and when this primary is worse placed than another voter
//! (Ongaro, 2014, section 3.10; without its gap in the lease, which is given up first).

use super::event::{Command, HandoverOutcome, HandoverRefused};
use super::message::{Message, TimeoutNow};
use super::primary::Tenure;
use super::progress::Progress;
use super::state::{Core, Duty};
use crate::types::{MonoTime, NodeId, Seq};

/// A transfer under way: nothing is admitted until it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Handover {
    token: Option<u64>,
    pub(super) to: NodeId,
    deadline: MonoTime,
    /// Whether the target was told to stand.
    told: bool,
}

/// When this primary last got on, by which it judges itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pace {
    persisted: Seq,
    committed: Seq,
    journal_moved: MonoTime,
    commit_moved: MonoTime,
    /// Who reaches more voters than this primary, and since when.
    farther: Option<(NodeId, MonoTime)>,
}

impl Pace {
    pub(super) fn new(now: MonoTime) -> Self {
        Self {
            persisted: Seq::ZERO,
            committed: Seq::ZERO,
            journal_moved: now,
            commit_moved: now,
            farther: None,
        }
    }

    /// Notes the positions now. At rest counts as moving.
    fn note(&mut self, now: MonoTime, last: Seq, persisted: Seq, committed: Seq) {
        if persisted != self.persisted || persisted == last {
            self.journal_moved = now;
        }
        if committed != self.committed || committed == last {
            self.commit_moved = now;
        }
        (self.persisted, self.committed) = (persisted, committed);
    }

    fn stands_still(&self, now: MonoTime, patience_us: u64) -> bool {
        now.since(self.journal_moved.min(self.commit_moved)) > patience_us
    }

    /// Whether the same node has reached more voters than this one for so long. A voter that falls
    /// silent is missed by one session earlier than by another: that alone makes no one better
    /// placed.
    fn is_farther(&mut self, now: MonoTime, node: NodeId, lasting_us: u64) -> bool {
        let since = match self.farther {
            Some((known, since)) if known == node => since,
            Some(_) | None => now,
        };
        self.farther = Some((node, since));
        now.since(since) >= lasting_us
    }
}

impl Core {
    /// Hands leadership to `to`, or to the most caught-up voter.
    pub(super) fn transfer(
        &mut self,
        now: MonoTime,
        token: u64,
        to: Option<NodeId>,
        out: &mut Vec<Command>,
    ) {
        match self.transfer_target(now, to) {
            Ok(to) => self.start_handover(now, Some(token), to, out),
            Err(refused) => {
                let outcome = HandoverOutcome::Refused(refused);
                out.push(Command::HandoverEnded { token: Some(token), outcome });
            }
        }
    }

    fn transfer_target(
        &self,
        now: MonoTime,
        to: Option<NodeId>,
    ) -> Result<NodeId, HandoverRefused> {
        let Duty::Primary(tenure) = &self.duty else {
            return Err(HandoverRefused::NotPrimary);
        };
        if let Some(handover) = &tenure.handover {
            return Err(HandoverRefused::UnderWay(handover.to));
        }
        if to == Some(self.node) {
            return Err(HandoverRefused::Itself);
        }
        let candidates = self.able_voters(tenure, now);
        if !candidates.is_empty() && !self.can_elect(tenure, now) {
            return Err(HandoverRefused::NoElection);
        }
        match to {
            Some(to) if candidates.iter().any(|(node, _)| *node == to) => Ok(to),
            Some(to) => Err(HandoverRefused::NotReachable(to)),
            None => candidates
                .iter()
                .max_by_key(|(_, progress)| (progress.in_memory, progress.persisted))
                .map(|(node, _)| *node)
                .ok_or(HandoverRefused::NoOther),
        }
    }

    /// Other voters that answer, in their current life and under every configuration.
    fn able_voters<'a>(&'a self, tenure: &'a Tenure, now: MonoTime) -> Vec<(NodeId, &'a Progress)> {
        let able = |node: NodeId, progress: &Progress| {
            self.is_in_view(progress, now)
                && self.configs.all().all(|config| self.counts_in(config, node))
        };
        let peers = tenure.peers.iter();
        peers.filter(|(node, p)| able(**node, p)).map(|(node, p)| (*node, p)).collect()
    }

    /// Whether the voters that answer could elect another primary (S3): without them the end of
    /// this tenure would be the end of all writes.
    fn can_elect(&self, tenure: &Tenure, now: MonoTime) -> bool {
        self.configs.all().all(|config| {
            let voters = self.view(config, tenure, now);
            let has_loss = |node: NodeId| match tenure.peers.get(&node) {
                Some(progress) => progress.memory_loss,
                None => self.memory_loss(),
            };
            let intact = voters.iter().filter(|cursors| !has_loss(cursors.node)).count();
            config.policy.normal_form(config.voters().count()).elects(voters.len(), intact)
        })
    }

    fn start_handover(
        &mut self,
        now: MonoTime,
        token: Option<u64>,
        to: NodeId,
        out: &mut Vec<Command>,
    ) {
        let deadline = now.plus(self.tuning.handover_us);
        let Duty::Primary(tenure) = &mut self.duty else {
            return;
        };
        tenure.handover = Some(Handover { token, to, deadline, told: false });
        out.push(Command::HandoverStarted { to });
        self.send_entries(to, out);
        self.drive_handover(now, out);
    }

    /// Once the target holds the whole log: gives up the lease, for the rest of this epoch, and
    /// tells the target to stand. Said again with every heartbeat: it may be lost.
    pub(super) fn drive_handover(&mut self, now: MonoTime, out: &mut Vec<Command>) {
        let (epoch, last) = (self.hard.epoch, self.log.last());
        let Duty::Primary(tenure) = &mut self.duty else {
            return;
        };
        let Some(handover) = tenure.handover else {
            return;
        };
        if now >= handover.deadline {
            tenure.handover = None;
            let outcome = HandoverOutcome::TimedOut(handover.to);
            out.push(Command::HandoverEnded { token: handover.token, outcome });
            return;
        }
        let complete = tenure
            .peers
            .get(&handover.to)
            .is_some_and(|progress| progress.in_memory == last.seq && progress.answered.is_some());
        if complete {
            tenure.handover = Some(Handover { told: true, ..handover });
            tenure.lease_forgone = true;
            out.push(Command::LeaseGivenUp);
            let order = TimeoutNow { epoch, last };
            out.push(Command::Send { to: handover.to, message: Message::TimeoutNow(order) });
        }
    }

    /// The target answered: it may hold the whole log now.
    pub(super) fn drive_handover_to(
        &mut self,
        node: NodeId,
        now: MonoTime,
        out: &mut Vec<Command>,
    ) {
        if let Duty::Primary(tenure) = &self.duty
            && tenure.handover.is_some_and(|handover| handover.to == node && !handover.told)
        {
            self.drive_handover(now, out);
        }
    }

    /// The primary of this epoch hands over to this node: stands at once, without a pre-vote, if
    /// nothing came in between.
    pub(super) fn on_timeout_now(
        &mut self,
        now: MonoTime,
        random: u64,
        from: NodeId,
        order: TimeoutNow,
        out: &mut Vec<Command>,
    ) {
        let asked = order.epoch == self.hard.epoch && order.last == self.log.last();
        let may = self.is_voter() && now >= self.silent_until && self.installing.is_none();
        if self.follows(from) && asked && may {
            self.restart_election_timer(now, random);
            self.start_vote(Some(order.epoch), out);
            self.count_own_vote(now, out);
        }
    }

    /// A primary whose own journal or whose commit position stands still while entries wait hands
    /// over, if another voter that holds the whole log is better placed: it reaches more voters,
    /// or as many and its disk is further.
    pub(super) fn consider_handover(&mut self, now: MonoTime, out: &mut Vec<Command>) {
        let (last, persisted, committed) =
            (self.log.last().seq, self.log.persisted(), self.committed);
        let patience_us = self.tuning.standstill_us;
        let Duty::Primary(tenure) = &mut self.duty else {
            return;
        };
        tenure.pace.note(now, last, persisted, committed);
        if tenure.handover.is_some() {
            return;
        }
        let due = tenure.pace.stands_still(now, patience_us);
        if self.is_removed() {
            // Elected to save what no other voter had, it leads until one has it.
            if let Ok(to) = self.transfer_target(now, None) {
                self.start_handover(now, None, to, out);
            }
            return;
        }
        if !due {
            return;
        }
        let Duty::Primary(tenure) = &self.duty else {
            return;
        };
        if !self.can_elect(tenure, now) {
            return;
        }
        let answering = self.view(self.configs.newest(), tenure, now).len();
        let own_reach = answering.max(usize::from(self.reach()));
        let target = self
            .able_voters(tenure, now)
            .into_iter()
            .filter(|(_, progress)| progress.in_memory == last)
            .map(|(node, progress)| ((usize::from(progress.reach), progress.persisted), node))
            .filter(|(place, _)| *place > (own_reach, persisted))
            .max();
        let Duty::Primary(tenure) = &mut self.duty else {
            return;
        };
        let Some(((reach, _), to)) = target else {
            tenure.pace.farther = None;
            return;
        };
        if reach > own_reach && !tenure.pace.is_farther(now, to, patience_us / 2) {
            return;
        }
        // The next attempt, if this one fails, waits as long again.
        tenure.pace = Pace::new(now);
        self.start_handover(now, None, to, out);
    }

    /// How many voters this node has a live session with, itself included.
    pub(super) fn reach(&self) -> u8 {
        let config = self.configs.newest();
        let reached = config.voters().filter(|voter| {
            *voter == self.node || self.sessions.get(voter).is_some_and(|session| session.up)
        });
        u8::try_from(reached.count()).unwrap_or(u8::MAX)
    }
}

impl Tenure {
    /// The tenure ends: as was asked for, or for another reason.
    pub(super) fn end_handover(&mut self, out: &mut Vec<Command>) {
        if let Some(Handover { token, to, deadline: _, told: _ }) = self.handover.take() {
            let outcome = HandoverOutcome::SteppedDown(to);
            out.push(Command::HandoverEnded { token, outcome });
        }
    }
}
