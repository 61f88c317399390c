//! What the rest of the node sees of the core: lease, clock and the slowly changing view.

use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate_protocol::core::{Event, Refused, Role};
use quorate_protocol::gate::{Look, Report};
use quorate_protocol::types::{MonoTime, Seq};

use super::super::copies::window;
use super::super::ports::Fatal;
use super::Driver;
use crate::view::{PeerView, View};

/// How often the slowly changing view is renewed while nothing else changes it.
const VIEW_PERIOD_US: u64 = 50_000;

impl Driver {
    pub(super) fn publish(&mut self, now: MonoTime) -> Result<(), Fatal> {
        let lease = self.core.lease_until(now);
        self.published.set_lease(lease.is_some(), lease.unwrap_or(MonoTime(0)));
        self.published.raise_cluster_time(self.time().0);
        self.published.set_heard(self.core.heard().unwrap_or(MonoTime(0)));
        let report = self.needs_memory || window::is_open(self.published.cluster_time_ms());
        self.report_in_memory.store(report, Ordering::Relaxed);
        if now < self.view_due {
            if self.published.cursors_are_watched() {
                self.publish_cursors(now);
            }
            return Ok(());
        }
        self.note_trimmed(now);
        self.view_due = now.plus(VIEW_PERIOD_US);
        let config = self.core.configs().newest().clone();
        let policy = self.core.configs().in_force().policy;
        if self.sampled_under.replace(policy) != Some(policy) {
            self.copies.clear();
        }
        self.needs_memory = config.policy.needs_memory(config.voters().count());
        self.published.set_view(self.view(now));
        self.report_degradation(now);
        self.membership.tell(&self.core, &self.ports)?;
        self.propose_members(now)
    }

    /// Says in the log what the policy's state is, where that has lasted. The view's period is
    /// what it is judged by without traffic.
    fn report_degradation(&mut self, now: MonoTime) {
        let (look, clause) = match self.core.admits(now) {
            Err(Refused::Degraded(unmet)) => (Look::Degraded, unmet.to_string()),
            Err(Refused::NotPrimary) => (Look::Away, String::new()),
            Err(Refused::Starting | Refused::HandingOver(_)) => (Look::Unknown, String::new()),
            Ok(()) => (Look::Met, String::new()),
        };
        let policy = self.core.configs().newest().policy;
        let seconds = |us: u64| Duration::from_micros(us).as_secs_f64();
        match self.degradation.step(now, look, policy) {
            None => {}
            Some(Report::Degraded { for_us, again: false }) => tracing::warn!(
                %policy, %clause, seconds = seconds(for_us),
                "degraded: the durability policy can't be met, writes are refused"
            ),
            Some(Report::Degraded { for_us, again: true }) => tracing::warn!(
                %policy, %clause, seconds = seconds(for_us), "still degraded: writes are refused"
            ),
            Some(Report::Met { after_us }) => tracing::info!(
                %policy, seconds = seconds(after_us), "the durability policy can be met again"
            ),
        }
        self.published.set_degraded_us(self.degradation.degraded_us());
    }

    /// Replaces the view if a cursor has moved.
    fn publish_cursors(&self, now: MonoTime) {
        let (known, view) = (self.published.view(), self.view(now));
        if (view.last, view.persisted, &view.peers) != (known.last, known.persisted, &known.peers) {
            self.published.set_view(view);
        }
    }

    /// The journal drops old segments by itself; the core must know where the log starts.
    fn note_trimmed(&mut self, now: MonoTime) {
        let first = self.ports.reader.first();
        if first > self.core.log().first()
            && let Some(preceding) = self.core.log().id_at(first.prev())
        {
            let mut commands = std::mem::take(&mut self.commands);
            let random = self.random.next();
            self.core.step(now, random, Event::Trimmed { first, preceding }, &mut commands);
            assert!(commands.is_empty(), "trimming asks for nothing");
            self.commands = commands;
        }
    }

    pub(super) fn view(&self, now: MonoTime) -> View {
        let config = self.core.configs().newest().clone();
        let statuses = self.core.peers(now);
        let peers =
            config.members.iter().filter(|member| member.node != self.ports.node).map(|member| {
                let status = statuses.iter().find(|status| status.node == member.node);
                let session = self.sessions.get(&member.node).copied();
                PeerView {
                    node: member.node,
                    connected: session.is_some(),
                    address: session.and_then(|session| {
                        self.ports.replication.address_of(member.node, session)
                    }),
                    in_memory: status.map_or(Seq::ZERO, |status| status.in_memory),
                    persisted: status.map_or(Seq::ZERO, |status| status.persisted),
                    applied: status.map_or(Seq::ZERO, |status| status.applied),
                }
            });
        let degraded = match self.core.admits(now) {
            Err(Refused::Degraded(unmet)) => Some(unmet.to_string()),
            Err(Refused::NotPrimary | Refused::Starting | Refused::HandingOver(_)) | Ok(()) => None,
        };
        View {
            node: self.ports.node,
            incarnation: self.ports.incarnation,
            role: match self.core.role() {
                Role::Replica => crate::view::Role::Replica,
                Role::Candidate => crate::view::Role::Candidate,
                Role::Primary => crate::view::Role::Primary,
            },
            epoch: self.core.epoch(),
            primary: self.core.primary(),
            cluster: Some(config.cluster),
            peers: peers.collect(),
            last: self.core.log().last(),
            persisted: self.core.log().persisted(),
            memory_loss: self.core.memory_loss(),
            degraded,
            waiting: None,
            absence: crate::view::Absence::default(),
            config: Some(config),
        }
    }
}
