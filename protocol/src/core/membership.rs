//! Changing members, policy and version while the cluster runs (S10), and making voters of
//! learners.

use super::event::{ChangeOutcome, ChangeRefused, Command};
use super::primary::Tenure;
use super::state::{Core, Duty};
use crate::cluster::{ClusterChange, ClusterEntry, MemberKind};
use crate::mutants::mutant;
use crate::types::{EntryId, EntryKind, MonoTime, NodeId};

/// What a change would make of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// Of the configuration in force.
    pub old: Quorum,
    /// Of the one after it.
    pub new: Quorum,
    /// The one after it.
    pub next: ClusterEntry,
}

/// The voters of one configuration that have to hold a change, and those that can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// So many.
    pub needed: usize,
    /// Of these.
    pub reachable: Vec<NodeId>,
}

/// A change that somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct WaitingChange {
    token: u64,
    id: EntryId,
}

impl Core {
    pub(super) fn reconfigure(
        &mut self,
        now: MonoTime,
        token: u64,
        change: &ClusterChange,
        out: &mut Vec<Command>,
    ) {
        match self.next_configuration(now, change) {
            Ok(next) => {
                let id = self.seal_configuration(next, out);
                if let Duty::Primary(tenure) = &mut self.duty {
                    tenure.change = Some(WaitingChange { token, id });
                }
                self.send_entries_to_all(out);
                self.advance_commit(now, out);
            }
            Err(refused) => {
                let outcome = ChangeOutcome::Refused(refused);
                out.push(Command::Reconfigured { token, outcome });
            }
        }
    }

    /// The configuration after `change`, if it may be proposed now.
    fn next_configuration(
        &self,
        now: MonoTime,
        change: &ClusterChange,
    ) -> Result<ClusterEntry, ChangeRefused> {
        if let (ClusterChange::Remove(node), Duty::Primary(_)) = (change, &self.duty)
            && *node == self.node
        {
            return Err(ChangeRefused::RemovesPrimary(self.node));
        }
        self.outlook(now, change).map(|outlook| outlook.next)
    }

    /// What `change` would make of the configuration, and which voters have to hold it, if it may be
    /// proposed now: one change at a time, not before an entry of this tenure is committed, and only
    /// where enough voters are reachable for it to come in force. Nothing is changed. That a primary
    /// hands over before it is removed is left to whoever asks.
    ///
    /// # Errors
    /// Why the change would be refused.
    pub fn outlook(&self, now: MonoTime, change: &ClusterChange) -> Result<Outlook, ChangeRefused> {
        let Duty::Primary(tenure) = &self.duty else {
            return Err(ChangeRefused::NotPrimary);
        };
        let started = mutant!(ThesisChangeBeforeStart, true, self.committed >= tenure.start);
        if !mutant!(ThesisSingleServer, true, started) {
            return Err(ChangeRefused::NotReady);
        }
        if tenure.handover.is_some() {
            return Err(ChangeRefused::HandingOver);
        }
        if let Some(pending) = mutant!(ChangeBesidePending, None, self.configs.pending()) {
            return Err(ChangeRefused::Pending(pending.id));
        }
        let old = self.configs.in_force();
        let new = old.changed(change)?;
        if new.version > old.version {
            self.check_binaries(&new)?;
        }
        let old_quorum = self.reachable(old, tenure, now)?;
        let new_quorum = self.reachable(&new, tenure, now)?;
        Ok(Outlook { old: old_quorum, new: new_quorum, next: new })
    }

    /// Every member's binary must follow the version: its latest session says what it supports.
    fn check_binaries(&self, config: &ClusterEntry) -> Result<(), ChangeRefused> {
        let asked = config.version;
        for node in config.members.iter().map(|member| member.node) {
            let supported = if node == self.node {
                self.version_max
            } else {
                self.sessions.get(&node).map_or(0, |session| session.version_max)
            };
            if supported < asked {
                return Err(ChangeRefused::Version { node, asked, supported });
            }
        }
        Ok(())
    }

    /// S10: without `b` reachable voters no change is possible without risk.
    fn reachable(
        &self,
        config: &ClusterEntry,
        tenure: &Tenure,
        now: MonoTime,
    ) -> Result<Quorum, ChangeRefused> {
        let needed = config.policy.normal_form(config.voters().count()).sealing_copies();
        let reachable: Vec<NodeId> =
            self.view(config, tenure, now).iter().map(|cursors| cursors.node).collect();
        if reachable.len() >= needed {
            return Ok(Quorum { needed, reachable });
        }
        let missing = config.voters().filter(|voter| !reachable.contains(voter)).collect();
        Err(ChangeRefused::Unreachable { needed, reachable: reachable.len(), missing })
    }

    /// Appends a configuration. Its members count from here on; its policy judges nothing until
    /// it is in force.
    fn seal_configuration(&mut self, next: ClusterEntry, out: &mut Vec<Command>) -> EntryId {
        // S11: the lease is given up before a cluster entry. It returns with the first round that
        // enough voters of both configurations answer.
        if let Duty::Primary(tenure) = &mut self.duty {
            tenure.proven = false;
        }
        out.push(Command::LeaseGivenUp);
        self.seal(EntryKind::Cluster, self.time, Some(next.into()), out)
    }

    /// Brings what is pending in force, oldest first: an entry of this tenure at or after it is
    /// persisted on `b(old)` old voters and `b(new)` new ones, so that no later winner lacks it.
    /// True if one is.
    pub(super) fn bring_in_force(&mut self, now: MonoTime, out: &mut Vec<Command>) -> bool {
        let mut changed = false;
        while let Some(pending) = self.configs.pending() {
            let id = pending.id;
            let Duty::Primary(tenure) = &self.duty else {
                return changed;
            };
            let old = self.sealed_through(self.configs.in_force(), tenure, now);
            let new = self.sealed_through(&pending.entry, tenure, now);
            let both = mutant!(ThesisSingleServer, new, old.min(new));
            let sealed = mutant!(InForceByNewAlone, new, both);
            if mutant!(InForceAtAppend, id.seq, sealed) < id.seq.max(tenure.start) {
                return changed;
            }
            self.configs.bring_in_force(id.seq);
            changed = true;
            let Duty::Primary(tenure) = &mut self.duty else {
                return changed;
            };
            if let Some(change) = tenure.change.take_if(|change| change.id == id) {
                let outcome = ChangeOutcome::InForce(id);
                out.push(Command::Reconfigured { token: change.token, outcome });
            }
        }
        changed
    }

    /// A learner that has kept close to the log for a whole election timeout becomes a voter.
    pub(super) fn promote_learner(&mut self, now: MonoTime, out: &mut Vec<Command>) {
        let Duty::Primary(tenure) = &self.duty else {
            return;
        };
        let patience_us = self.tuning.election_timeout_max_us;
        let ready = self.configs.in_force().members.iter().find(|member| {
            member.kind == MemberKind::Learner
                && self.sessions.get(&member.node).is_some_and(|s| s.disk == member.disk)
                && tenure.peers.get(&member.node).is_some_and(|progress| {
                    self.is_in_view(progress, now)
                        && !progress.memory_loss
                        && progress.close_since.is_some_and(|at| now.since(at) >= patience_us)
                })
        });
        let Some(node) = ready.map(|member| member.node) else {
            return;
        };
        if let Ok(next) = self.next_configuration(now, &ClusterChange::Promote(node)) {
            self.seal_configuration(next, out);
            self.send_entries_to_all(out);
            self.advance_commit(now, out);
        }
    }

    /// Whether this node knows that it was removed for good: it must stop serving.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        let config = self.configs.in_force();
        config.removed.contains(&self.node) && config.member(self.node).is_none()
    }
}

impl Tenure {
    /// The tenure ends: whether the change that somebody waits for stands is not known here.
    pub(super) fn doubt_change(&mut self, out: &mut Vec<Command>) {
        if let Some(WaitingChange { token, id }) = self.change.take() {
            out.push(Command::Reconfigured { token, outcome: ChangeOutcome::InDoubt(id) });
        }
    }
}
