//! Elections: who may vote for whom (S2), and which votes suffice (S3).

use std::collections::BTreeMap;

use super::event::Command;
use super::message::{Message, VoteReply, VoteRequest};
use super::state::{Candidacy, Core, Duty};
use crate::mutants::mutant;
use crate::policy::NormalForm;
use crate::types::{Epoch, MonoTime, NodeId};

/// A voter's answer.
pub(super) struct Ballot {
    /// Who answers.
    pub from: NodeId,
    /// Whether to a vote, not to a pre-vote.
    pub real: bool,
    /// The answer.
    pub reply: VoteReply,
}

impl Core {
    /// Asks the voters whether an election could be won, without moving any epoch.
    pub(super) fn start_pre_vote(&mut self, now: MonoTime, random: u64, out: &mut Vec<Command>) {
        self.restart_election_timer(now, random);
        if let Duty::Candidate(candidacy) = &self.duty
            && candidacy.real
            && candidacy.hard_id > self.durable_id
        {
            // Its own vote is not synced yet. Another round would raise an epoch in which no one
            // has voted, and end the tenure of whoever is elected meanwhile.
            return;
        }
        if !self.may_lead() || self.installing.is_some() {
            if matches!(self.duty, Duty::Replica { primary: Some(_) } | Duty::Candidate(_)) {
                self.duty = Duty::Replica { primary: None };
                out.push(Command::RoleChanged);
            }
            return;
        }
        let own_vote = BTreeMap::from([(self.node, self.memory_loss())]);
        self.stand(
            Candidacy { real: false, round: 0, votes: own_vote, hard_id: 0, transfer: None },
            out,
        );
        self.request_votes(self.hard.epoch.next(), out);
        self.count_votes(now, out);
    }

    /// The pre-vote was won: enters the next epoch with a vote for itself. The requests leave,
    /// and the own vote counts, once that is synced (S1).
    /// With a `transfer` there was no pre-vote: the primary of that epoch asked for it.
    pub(super) fn start_vote(&mut self, transfer: Option<Epoch>, out: &mut Vec<Command>) {
        self.enter_epoch(self.hard.epoch.next(), Some(self.node), out);
        let hard_id = self.hard_id;
        self.stand(
            Candidacy { real: true, round: 0, votes: BTreeMap::new(), hard_id, transfer },
            out,
        );
        self.request_votes(self.hard.epoch, out);
    }

    fn stand(&mut self, candidacy: Candidacy, out: &mut Vec<Command>) {
        self.vote_round += 1;
        self.duty = Duty::Candidate(Candidacy { round: self.vote_round, ..candidacy });
        out.push(Command::RoleChanged);
    }

    fn request_votes(&mut self, epoch: Epoch, out: &mut Vec<Command>) {
        let Duty::Candidate(candidacy) = &self.duty else {
            return;
        };
        let Candidacy { round, transfer, .. } = *candidacy;
        let request = VoteRequest { round, epoch, last: self.log.last(), transfer };
        let (real, hard_id) = (candidacy.real, candidacy.hard_id);
        for peer in self.other_voters() {
            let message = if real { Message::Vote(request) } else { Message::PreVote(request) };
            self.send_after(hard_id, peer, message, out);
        }
    }

    /// Voters of every configuration that an election must be won under.
    fn other_voters(&self) -> Vec<NodeId> {
        let mut voters: Vec<NodeId> =
            self.configs.all().flat_map(|config| config.voters()).collect();
        voters.sort_unstable();
        voters.dedup();
        voters.retain(|voter| *voter != self.node);
        voters
    }

    pub(super) fn count_own_vote(&mut self, now: MonoTime, out: &mut Vec<Command>) {
        let own_loss = self.memory_loss();
        let Duty::Candidate(candidacy) = &mut self.duty else {
            return;
        };
        let durable = mutant!(OwnVoteNotSynced, true, candidacy.hard_id <= self.durable_id);
        if candidacy.real && durable {
            candidacy.votes.insert(self.node, own_loss);
            self.count_votes(now, out);
        }
    }

    /// S3 under every configuration that may decide.
    fn count_votes(&mut self, now: MonoTime, out: &mut Vec<Command>) {
        let Duty::Candidate(candidacy) = &self.duty else {
            return;
        };
        let own_counts = !candidacy.real || candidacy.votes.contains_key(&self.node);
        let won = own_counts
            && self.configs.all().all(|one| {
                let config = mutant!(ThesisSingleServer, self.configs.newest(), one);
                let granted: Vec<bool> = candidacy
                    .votes
                    .iter()
                    .filter(|(voter, _)| self.counts_in(config, **voter))
                    .map(|(_, memory_loss)| *memory_loss)
                    .collect();
                let intact = mutant!(
                    CountAmnesiacVoters,
                    granted.len(),
                    granted.iter().filter(|memory_loss| !**memory_loss).count()
                );
                let form = config.policy.normal_form(config.voters().count());
                mutant!(
                    ElectUnderNewestOnly,
                    config != self.configs.newest() || elects(form, granted.len(), intact),
                    elects(form, granted.len(), intact)
                )
            });
        match (won, candidacy.real) {
            (true, false) => {
                self.start_vote(None, out);
                // Nothing is synced yet, but a lone voter's disk may be instant.
                self.count_own_vote(now, out);
            }
            (true, true) => self.become_primary(now, out),
            (false, _) => {}
        }
    }

    pub(super) fn on_vote_reply(
        &mut self,
        now: MonoTime,
        random: u64,
        ballot: Ballot,
        out: &mut Vec<Command>,
    ) {
        let Ballot { from, real, reply } = ballot;
        if !reply.granted && reply.epoch > self.hard.epoch {
            // Without adopting it a node behind could never be elected by those ahead.
            self.become_replica(now, random, reply.epoch, None, out);
            return;
        }
        // Rounds are unique only within one life: a vote that waited for its voter's disk may
        // answer a round of an earlier life with the same number, but not of the same epoch.
        let stale = mutant!(VoteOfEarlierLife, false, real && reply.epoch != self.hard.epoch);
        let Duty::Candidate(candidacy) = &mut self.duty else {
            return;
        };
        let same_round = mutant!(VoteOfEarlierRound, true, candidacy.round == reply.round);
        let asked = candidacy.real == real && same_round;
        if reply.granted && asked && !stale {
            candidacy.votes.insert(from, reply.memory_loss);
            self.count_votes(now, out);
        }
    }

    pub(super) fn on_pre_vote(
        &mut self,
        now: MonoTime,
        from: NodeId,
        request: VoteRequest,
        out: &mut Vec<Command>,
    ) {
        let granted =
            self.may_vote(now, None) && request.epoch > self.hard.epoch && self.is_behind(&request);
        // The durable epoch: a pre-vote waits for no disk.
        let epoch = self.durable.epoch;
        let reply = self.vote_reply(&request, epoch, granted);
        out.push(Command::Send { to: from, message: Message::PreVoteReply(reply) });
    }

    pub(super) fn on_vote(
        &mut self,
        now: MonoTime,
        random: u64,
        from: NodeId,
        request: VoteRequest,
        out: &mut Vec<Command>,
    ) {
        // A transfer is for the epoch after the one whose primary gave up its lease for it.
        let transfer =
            request.transfer.filter(|epoch| epoch.0.checked_add(1) == Some(request.epoch.0));
        if !self.may_vote(now, transfer) || request.epoch < self.hard.epoch {
            let reply = self.vote_reply(&request, self.hard.epoch, false);
            self.send_after(self.epoch_id, from, Message::VoteReply(reply), out);
            return;
        }
        let newer = request.epoch > self.hard.epoch;
        let free =
            mutant!(VoteTwice, true, newer || self.hard.vote.is_none_or(|vote| vote == from));
        let granted = free && self.is_behind(&request);
        if newer {
            // Epoch and vote in one sync.
            self.enter_epoch(request.epoch, granted.then_some(from), out);
            self.become_replica(now, random, request.epoch, None, out);
        } else if granted && self.hard.vote.is_none() {
            self.hard.vote = Some(from);
            self.save_hard_state(out);
        }
        if granted {
            self.restart_election_timer(now, random);
        }
        let reply = self.vote_reply(&request, self.hard.epoch, granted);
        let needed = mutant!(VoteNotSynced, 0, self.hard_id);
        self.send_after(needed, from, Message::VoteReply(reply), out);
    }

    fn vote_reply(&self, request: &VoteRequest, epoch: Epoch, granted: bool) -> VoteReply {
        VoteReply { round: request.round, epoch, granted, memory_loss: self.memory_loss() }
    }

    /// S2: this voter holds nothing that the candidate's log might lack.
    fn is_behind(&self, request: &VoteRequest) -> bool {
        let (own, other) = (self.log.last(), request.last);
        mutant!(
            CompareSeqBeforeEpoch,
            (own.seq, own.epoch) <= (other.seq, other.epoch),
            mutant!(VoteForShorterLog, true, own <= other)
        )
    }

    /// Whether a vote from this disk may count (S6). Whether it does is the candidate's to say, by
    /// its own log: this node's may not yet hold, or no longer be held to, the configuration that
    /// makes it a voter (Ongaro, 2014, section 4.1).
    fn is_bound(&self) -> bool {
        self.configs
            .all()
            .all(|config| config.member(self.node).is_none_or(|member| member.disk == self.disk))
    }

    /// Whether this node votes under a configuration that may still decide. One that is about to
    /// be removed may hold entries that no other voter has.
    fn may_lead(&self) -> bool {
        self.configs.all().any(|config| self.counts_in(config, self.node))
    }

    /// S2: no vote within the silence after boot, nor while a primary is or was lately heard,
    /// unless that primary, of this epoch or an earlier one, hands over.
    fn may_vote(&self, now: MonoTime, transfer: Option<Epoch>) -> bool {
        let silence_us = self.configs.newest().timers.election_timeout_min_us;
        let lately = |at: MonoTime| now.since(at) < silence_us;
        let hears_primary = match &self.duty {
            Duty::Primary(tenure) => lately(tenure.contact),
            Duty::Replica { .. } | Duty::Candidate(_) => self.heard.is_some_and(lately),
        };
        let handed_over = transfer.is_some_and(|epoch| epoch >= self.hard.epoch);
        self.is_bound()
            && now >= self.silent_until
            && (mutant!(IgnoreHeardPrimary, true, !hears_primary) || handed_over)
    }
}

/// S3's rule for one configuration.
fn elects(form: NormalForm, votes: usize, intact: usize) -> bool {
    mutant!(
        ElectByMajorityAlone,
        votes >= form.majority(),
        mutant!(
            ElectWithoutMajority,
            votes + form.persisted > form.voters || intact + form.copies > form.voters,
            mutant!(
                ElectWithCountsSwapped,
                NormalForm { persisted: form.copies, copies: form.persisted, ..form }
                    .elects(votes, intact),
                form.elects(votes, intact)
            )
        )
    )
}
