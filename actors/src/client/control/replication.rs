//! `WAIT`, `WAITAOF` and `QUORATE …`: where this node and its replicas are.

use std::time::{Duration, Instant};

use quorate_protocol::command::Quorate;
use quorate_protocol::resp::Reply;
use quorate_protocol::types::{EntryId, Seq};

use super::{Control, bulk, text};
use crate::client::refusal::{cluster_down, error, not_primary};
use crate::client::session::Session;
use crate::client::shared::Shared;
use crate::view::{Role, View};

const UNBLOCKED: &str = "UNBLOCKED force unblock from blocking operation, instance state changed \
                         (master -> replica?)";

/// Answers `WAIT` or `WAITAOF` once enough members hold this connection's last write, or when its
/// time is over.
pub(in crate::client) async fn wait(shared: &Shared, session: &Session, wanted: &Wanted) -> Reply {
    if shared.published.role() != Role::Primary {
        return match shared.published.view().primary {
            Some(_) => not_primary(false),
            None => cluster_down(),
        };
    }
    let now = Instant::now();
    let until = match wanted.timeout_ms {
        0 => session.deadline(now, shared.live().settings.store_deadline).at,
        ms => now + Duration::from_millis(ms),
    };
    let mut watch = None;
    loop {
        // Before the look, so that no change falls in between.
        let changed = shared.published.view_changed();
        let counts = match Counts::of(&shared.published.view(), session.last_write) {
            Ok(counts) => counts,
            Err(refused) => return refused,
        };
        if wanted.are_met(&counts) || Instant::now() >= until {
            return wanted.reply(&counts);
        }
        if watch.is_none() {
            watch = Some(shared.published.watch_cursors());
            // Cursors that have moved already are published in the next round.
            shared.quorum.look();
        }
        // At the deadline there is one more look.
        let _ = tokio::time::timeout_at(until.into(), changed).await;
    }
}

impl Control<'_> {
    /// `WAIT` and `WAITAOF` inside a transaction: what is there now.
    pub(super) fn counts_now(&self, wanted: &Wanted) -> Reply {
        match Counts::of(&self.shared.published.view(), self.session.last_write) {
            Ok(counts) => wanted.reply(&counts),
            Err(refused) => refused,
        }
    }

    pub(super) fn quorate(&self, query: &Quorate) -> Reply {
        match query {
            Quorate::Status => self.status(),
            Quorate::Cursors => self.cursors(),
            Quorate::Policy => match &self.shared.published.view().config {
                Some(config) => text(config.policy.to_string()),
                None => Reply::Null,
            },
            Quorate::LastWrite => match self.session.last_write {
                Some(id) => Reply::Map(vec![
                    (bulk("epoch"), Reply::Integer(id.epoch.0 as i64)),
                    (bulk("seq"), Reply::Integer(id.seq.0 as i64)),
                ]),
                None => Reply::Null,
            },
            // Outside of one, it waits until it may be answered.
            Quorate::Outcome { .. } | Quorate::OutcomeOfToken { .. } => {
                error("ERR QUORATE OUTCOME is not allowed inside a transaction")
            }
        }
    }

    fn status(&self) -> Reply {
        let published = &self.shared.published;
        let view = published.view();
        let role = match published.role() {
            Role::Primary => "primary",
            Role::Candidate => "candidate",
            Role::Replica => "replica",
        };
        let number = |seq: Seq| Reply::Integer(seq.0 as i64);
        let optional = |value: &Option<String>| match value {
            Some(value) => text(value.clone()),
            None => Reply::Null,
        };
        Reply::Map(vec![
            (bulk("node"), Reply::Integer(self.shared.options.node.0 as i64)),
            (bulk("role"), bulk(role)),
            (bulk("epoch"), Reply::Integer(view.epoch.0 as i64)),
            (
                bulk("primary"),
                view.primary.map_or(Reply::Null, |node| Reply::Integer(node.0 as i64)),
            ),
            (bulk("committed"), number(published.committed())),
            (bulk("acknowledgeable"), number(published.acknowledgeable())),
            (bulk("applied"), number(published.applied())),
            (bulk("last"), number(view.last.seq)),
            (bulk("persisted"), number(view.persisted)),
            (bulk("memory_loss"), Reply::Boolean(view.memory_loss)),
            (bulk("degraded"), optional(&view.degraded)),
            (bulk("waiting"), optional(&view.waiting)),
        ])
    }

    fn cursors(&self) -> Reply {
        let view = self.shared.published.view();
        let line = |node: u64, connected, [in_memory, persisted, applied]: [Seq; 3]| {
            Reply::Map(vec![
                (bulk("node"), Reply::Integer(node as i64)),
                (bulk("connected"), Reply::Boolean(connected)),
                (bulk("in_memory"), Reply::Integer(in_memory.0 as i64)),
                (bulk("persisted"), Reply::Integer(persisted.0 as i64)),
                (bulk("applied"), Reply::Integer(applied.0 as i64)),
            ])
        };
        let own = [view.last.seq, view.persisted, self.shared.published.applied()];
        let mut lines = vec![line(self.shared.options.node.0, true, own)];
        lines.extend(view.peers.iter().map(|peer| {
            line(peer.node.0, peer.connected, [peer.in_memory, peer.persisted, peer.applied])
        }));
        Reply::Array(lines)
    }
}

/// What `WAIT` or `WAITAOF` asks for.
pub(in crate::client) struct Wanted {
    /// Own copies on disk; `None` for `WAIT`.
    pub local: Option<i64>,
    /// Copies on other members: in memory for `WAIT`, on disk for `WAITAOF`.
    pub replicas: i64,
    /// 0 means the request's deadline.
    pub timeout_ms: u64,
}

/// Who holds the connection's last write.
struct Counts {
    local_persisted: i64,
    in_memory: i64,
    persisted: i64,
}

impl Wanted {
    fn are_met(&self, counts: &Counts) -> bool {
        match self.local {
            None => counts.in_memory >= self.replicas,
            Some(local) => counts.local_persisted >= local && counts.persisted >= self.replicas,
        }
    }

    fn reply(&self, counts: &Counts) -> Reply {
        match self.local {
            None => Reply::Integer(counts.in_memory),
            Some(_) => Reply::Array(vec![
                Reply::Integer(counts.local_persisted),
                Reply::Integer(counts.persisted),
            ]),
        }
    }
}

impl Counts {
    /// Counts other members' cursors, and only in the epoch of the write: a cursor of another
    /// epoch may speak of another entry at the same position.
    fn of(view: &View, last_write: Option<EntryId>) -> Result<Self, Reply> {
        let write = last_write.unwrap_or(EntryId::new(view.epoch, Seq::ZERO));
        if write.epoch != view.epoch || view.role != Role::Primary {
            return Err(error(UNBLOCKED));
        }
        let connected = || view.peers.iter().filter(|peer| peer.connected);
        let count = |matching: usize| i64::try_from(matching).unwrap_or(i64::MAX);
        Ok(Self {
            local_persisted: i64::from(view.persisted >= write.seq),
            in_memory: count(connected().filter(|peer| peer.in_memory >= write.seq).count()),
            persisted: count(connected().filter(|peer| peer.persisted >= write.seq).count()),
        })
    }
}
