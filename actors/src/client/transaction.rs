//! `MULTI`, `EXEC` and `WATCH` on one connection: what is queued, and how the answer to the whole
//! is put together.

use bytes::Bytes;
use quorate_protocol::command::{CommandError, Connection, Exec, Read, Step, Watched, Write};
use quorate_protocol::resp::Reply;

/// Commands that one transaction may queue, and bytes of them: they become one entry.
const QUEUED_COUNT_MAX: usize = 65_536;

/// A connection's transaction.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    /// `Some` between `MULTI` and `EXEC`.
    queue: Option<Vec<Queued>>,
    /// A command could not be queued, so `EXEC` refuses the whole.
    aborted: bool,
    /// What `WATCH` saw.
    watches: Vec<Watched>,
}

/// One queued command.
#[derive(Debug)]
pub(super) enum Queued {
    /// Goes into the log.
    Data(Step),
    /// Answered by the connection when the transaction is executed. Boxed: it is rare.
    Local(Box<Connection>),
    /// Its arguments are wrong, which is its own reply and nobody else's.
    Failed(CommandError),
}

/// A transaction that is to be executed.
#[derive(Debug)]
pub(super) struct Plan {
    /// What goes into the log.
    pub exec: Exec,
    /// Where the other replies go among those of the log.
    pub layout: Vec<Element>,
}

/// Where one element of `EXEC`'s reply comes from.
#[derive(Debug)]
pub(super) enum Element {
    /// The next reply of the log.
    Logged,
    /// The connection.
    Local(Box<Connection>),
    /// Known already.
    Known(Reply),
}

impl Transaction {
    /// Whether commands are being queued.
    pub(super) fn is_open(&self) -> bool {
        self.queue.is_some()
    }

    /// `MULTI`; false where one is open already.
    pub(super) fn begin(&mut self) -> bool {
        if self.queue.is_some() {
            return false;
        }
        self.queue = Some(Vec::new());
        true
    }

    /// `DISCARD`; false where none is open. Forgets the watches, too.
    pub(super) fn discard(&mut self) -> bool {
        let open = self.queue.is_some();
        *self = Self::default();
        open
    }

    /// Marks the transaction as impossible.
    pub(super) fn abort(&mut self) {
        self.aborted = true;
    }

    /// Queues a command; false where the transaction is full.
    pub(super) fn push(&mut self, queued: Queued) -> bool {
        match &mut self.queue {
            Some(queue) if queue.len() < QUEUED_COUNT_MAX => {
                queue.push(queued);
                true
            }
            _ => false,
        }
    }

    /// `EXEC`: ends the transaction. `None` where none is open; an error where it was aborted.
    pub(super) fn take(&mut self) -> Option<Result<Plan, Aborted>> {
        let taken = std::mem::take(self);
        let queue = taken.queue?;
        if taken.aborted {
            return Some(Err(Aborted));
        }
        let mut steps = Vec::with_capacity(queue.len());
        let layout = queue
            .into_iter()
            .map(|queued| match queued {
                Queued::Data(step) => {
                    steps.push(step);
                    Element::Logged
                }
                Queued::Local(command) => Element::Local(command),
                Queued::Failed(error) => Element::Known(error.to_reply()),
            })
            .collect();
        Some(Ok(Plan { exec: Exec { watches: taken.watches, steps }, layout }))
    }

    /// Remembers what `WATCH` saw. A key that is watched already keeps what was seen first.
    pub(super) fn watch(&mut self, watched: Watched) {
        if self.watches.iter().all(|known| known.key != watched.key) {
            self.watches.push(watched);
        }
    }

    /// `UNWATCH`
    pub(super) fn unwatch(&mut self) {
        self.watches.clear();
    }

    /// Commands queued; −1 outside a transaction.
    pub(super) fn queued(&self) -> i64 {
        self.queue.as_ref().map_or(-1, |queue| queue.len() as i64)
    }

    /// Keys watched.
    pub(super) fn watched(&self) -> usize {
        self.watches.len()
    }
}

/// `EXEC` after a command that couldn't be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aborted;

impl Plan {
    /// Whether the log has to decide anything.
    pub(super) fn needs_log(&self) -> bool {
        !self.exec.steps.is_empty() || !self.exec.watches.is_empty()
    }

    /// The key of the first command that has one: where it lives is where all of it goes.
    pub(super) fn first_key(&self) -> Option<Bytes> {
        let of_step = |step: &Step| match step {
            Step::Write(write) => write_key(write).cloned(),
            Step::Read(read) => read_key(read).cloned(),
        };
        let watched = || self.exec.watches.first().map(|watched| watched.key.clone());
        self.exec.steps.iter().find_map(of_step).or_else(watched)
    }

    /// Whether it may change the keyspace.
    pub(super) fn writes(&self) -> bool {
        self.exec.steps.iter().any(|step| matches!(step, Step::Write(_)))
    }
}

/// The reply to `EXEC`: the log's, with the connection's own put in their places.
pub(super) fn merge(
    layout: Vec<Element>,
    logged: Reply,
    mut local: impl FnMut(Connection) -> Reply,
) -> Reply {
    let Reply::Array(logged) = logged else {
        // A watch failed, or an error that concerns the whole.
        return logged;
    };
    if layout.len() == logged.len() {
        return Reply::Array(logged);
    }
    let mut logged = logged.into_iter();
    let elements = layout.into_iter().map(|element| match element {
        Element::Logged => logged.next().unwrap_or(Reply::Null),
        Element::Local(command) => local(*command),
        Element::Known(reply) => reply,
    });
    Reply::Array(elements.collect())
}

/// The first key of a read.
pub(super) fn read_key(read: &Read) -> Option<&Bytes> {
    match read {
        Read::Get { key }
        | Read::StrLen { key }
        | Read::GetRange { key, .. }
        | Read::Type { key }
        | Read::Ttl { key, .. }
        | Read::Object { key, .. }
        | Read::MemoryUsage { key }
        | Read::GetBit { key, .. }
        | Read::BitCount { key, .. }
        | Read::BitPos { key, .. } => Some(key),
        Read::MGet { keys } | Read::Exists { keys } => keys.first(),
        Read::Lcs(lcs) => Some(&lcs.first),
        Read::DbSize | Read::Walk(_) => None,
    }
}

/// The first key of a write.
pub(super) fn write_key(write: &Write) -> Option<&Bytes> {
    match write {
        Write::Set(set) => Some(&set.key),
        Write::SetNx { key, .. }
        | Write::GetDel { key }
        | Write::GetEx { key, .. }
        | Write::Append { key, .. }
        | Write::SetRange { key, .. }
        | Write::IncrBy { key, .. }
        | Write::IncrByFloat { key, .. }
        | Write::DelIfEq { key, .. }
        | Write::Expire { key, .. }
        | Write::Persist { key }
        | Write::SetBit { key, .. } => Some(key),
        Write::MSet { pairs, .. } => pairs.first().map(|(key, _)| key),
        Write::Del { keys } => keys.first(),
        Write::Rename { from, .. } | Write::Copy { from, .. } => Some(from),
        Write::BitOp { to, .. } => Some(to),
        Write::FlushAll => None,
    }
}
