//! One round of a connection: the commands that its socket had, answered in their order.
//!
//! Two things are gathered while commands are taken one by one: reads that wait for one look at
//! the lease, and an open batch of writes (and of what follows them). Never both: a read after a
//! write belongs into the batch, and a write after reads has them answered first.

mod reading;
mod transacting;

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_protocol::command::batch::Encoder;
use quorate_protocol::command::{
    self, Client as ClientCommand, ClientReply, Command, CommandError, Connection, Quorate, Read,
    Write, slot,
};
use quorate_protocol::resp::Reply;
use quorate_protocol::types::{EntryId, Epoch, Seq};

use crate::client::batch::{self, Answer, Terms};
use crate::client::control::{Control, NO_AUTH, Wanted, current, names_primary, wait};
use crate::client::limits::Work;
use crate::client::output::Output;
use crate::client::reads::{self, Denied, Right};
use crate::client::refusal::{self, error};
use crate::client::registry::Client;
use crate::client::routing::{self, Route};
use crate::client::session::{Deadline, Mode, Session};
use crate::client::shared::{Shared, StateFault};
use crate::client::transaction::{self, Element, read_key, write_key};
use crate::metrics::RoundCounts;
use crate::submit::{Refusal, Waits};

/// A batch above this is handed over, and the round goes on with another one.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Reads that share one look at the lease.
const READS_COUNT_MAX: usize = 128;

/// Replies above this are handed to the socket in the middle of a round.
const FLUSH_BYTES: usize = 256 << 10;

/// The round of one connection.
pub(super) struct Round<'a, 's> {
    shared: &'a Shared,
    session: &'a mut Session,
    client: &'a Client,
    out: &'a mut Output<'s>,
    started: Instant,
    reads: Vec<Ask>,
    batch: Option<Open>,
    counts: RoundCounts,
    /// The last command's name, and how many of that name in a row aren't counted yet.
    called: (&'static str, u64),
    /// Time in commands that wait because they were asked to: nothing was slow.
    waited: Duration,
    /// What the slowest batch waited for.
    waits: Option<Waits>,
    /// Time spent on encoding the replies of batches.
    encoding: Duration,
}

struct Ask {
    read: Read,
    /// Whether the client wants the reply.
    wanted: bool,
}

/// A batch that is being put together, and the replies around its commands.
struct Open {
    encoder: Encoder,
    slots: Vec<Slot>,
    /// Whether every write in it only removes, which a full disk allows.
    frees_space: bool,
}

/// One command after the first write of a round.
enum Slot {
    /// Answered already; its reply keeps its place.
    Answered(Reply),
    /// In the batch.
    Logged { key: Option<Bytes>, write: bool, wanted: bool },
    /// A transaction in the batch.
    Exec { key: Option<Bytes>, write: bool, wanted: bool, layout: Vec<Element> },
}

impl<'a, 's> Round<'a, 's> {
    pub(super) fn new(
        shared: &'a Shared,
        session: &'a mut Session,
        client: &'a Client,
        out: &'a mut Output<'s>,
        started: Instant,
    ) -> Self {
        Self {
            shared,
            session,
            client,
            out,
            started,
            reads: Vec::new(),
            batch: None,
            counts: RoundCounts::default(),
            called: ("", 0),
            waited: Duration::ZERO,
            waits: None,
            encoding: Duration::ZERO,
        }
    }

    /// Takes one command. Its reply may come only with a later command's, or with `finish`.
    ///
    /// # Errors
    /// The connection is gone, or its client doesn't read.
    pub(super) async fn take(&mut self, argv: &mut [Bytes]) -> io::Result<()> {
        self.note_call(&argv[0]);
        let parsed = command::parse(argv);
        let wanted = self.session.take_wanted();
        if !self.session.authenticated && !is_open_to_all(&parsed) {
            self.session.transaction.abort();
            return self.answer(error(NO_AUTH), wanted).await;
        }
        if let Err(CommandError::WrongArity { name }) = &parsed
            && name == "exec"
        {
            self.session.transaction.discard();
            return self.answer(error(transacting::BAD_EXEC), wanted).await;
        }
        if self.session.transaction.is_open() && !transacting::ends_transaction(&parsed) {
            let reply = self.queue(parsed);
            return self.answer(reply, wanted).await;
        }
        match parsed {
            Ok(Command::Read(Read::Walk(walk))) => self.walk(&walk, wanted).await,
            Ok(Command::Read(read)) => self.read(read, wanted).await,
            Ok(Command::Write(write)) => self.write(&write, wanted).await,
            Ok(Command::Transaction(command)) => self.transaction(command, wanted).await,
            Ok(Command::Connection(command)) => self.connection(*command, wanted).await,
            Err(error) => self.answer(error.to_reply(), wanted).await,
        }
    }

    /// Answers whatever is left.
    ///
    /// # Errors
    /// As `take`.
    pub(super) async fn finish(&mut self) -> io::Result<RoundCounts> {
        self.count_calls();
        self.settle().await?;
        Ok(std::mem::take(&mut self.counts))
    }

    /// How long commands waited because they were asked to.
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }

    /// What the slowest batch waited for, and how long replies of batches took to encode; `None`
    /// where no batch was carried out.
    pub(super) fn waits(&self) -> Option<(Waits, Duration)> {
        self.waits.map(|waits| (waits, self.encoding))
    }

    /// Whether the connection ends after this round, so that no further command is taken.
    pub(super) fn is_closing(&self) -> bool {
        self.session.closing
    }

    /// Whether the client has shown who it is.
    pub(super) fn is_authenticated(&self) -> bool {
        self.session.authenticated
    }

    /// Counts a call. Commands of the same name in a row are counted together.
    fn note_call(&mut self, name: &[u8]) {
        if !self.called.0.as_bytes().eq_ignore_ascii_case(name) {
            self.count_calls();
            self.called.0 = command::find(name).map_or("", |spec| spec.name);
        }
        self.called.1 += 1;
    }

    fn count_calls(&mut self) {
        let (name, count) = std::mem::take(&mut self.called);
        if count > 0 {
            self.shared.metrics.called(name, count);
        }
    }

    /// Answers the input's end: what came before it was answered in order.
    ///
    /// # Errors
    /// As `take`.
    pub(super) async fn reject(&mut self, reply: Reply) -> io::Result<()> {
        self.session.closing = true;
        self.answer(reply, true).await
    }

    async fn read(&mut self, read: Read, wanted: bool) -> io::Result<()> {
        self.counts.reads += 1;
        if self.shared.is_paused() {
            self.shared.paused(false).await;
        }
        if let Some(open) = &mut self.batch {
            open.encoder.read(&read);
            let key = read_key(&read).cloned();
            open.slots.push(Slot::Logged { key, write: false, wanted });
            return self.submit_if_large().await;
        }
        self.reads.push(Ask { read, wanted });
        if self.reads.len() >= READS_COUNT_MAX { self.answer_reads().await } else { Ok(()) }
    }

    async fn write(&mut self, write: &Write, wanted: bool) -> io::Result<()> {
        let key = write_key(write).cloned();
        let slot = Slot::Logged { key, write: true, wanted };
        let token = self.session.token.take();
        let encode = |encoder: &mut Encoder| {
            if let Some(token) = &token {
                encoder.once(token);
            }
            encoder.write(write);
        };
        self.log(slot, write.frees_space(), encode).await
    }

    /// Puts a command into the open batch, or opens one if this node is the primary.
    async fn log(
        &mut self,
        slot: Slot,
        frees_space: bool,
        encode: impl FnOnce(&mut Encoder),
    ) -> io::Result<()> {
        self.counts.writes += 1;
        if self.shared.is_paused() {
            self.shared.paused(true).await;
        }
        if self.batch.is_none() {
            self.answer_reads().await?;
            let route = routing::route(self.shared, self.primary_until()).await;
            if route != Route::Here {
                let (key, write, wanted) = slot.into_parts();
                let reply =
                    routing::answer(&route, self.session.mode, key.as_deref().map(slot_of), write);
                self.emit(&reply, wanted);
                return self.relieve().await;
            }
        }
        if !frees_space
            && let Some(full @ (Refusal::DiskFull | Refusal::OutOfMemory)) =
                self.shared.health.refusal(frees_space)
        {
            // By itself: deletes and reads around it are carried out.
            let (_, _, wanted) = slot.into_parts();
            self.shared.metrics.refused(&full);
            return self.answer(refusal::refused(&full), wanted).await;
        }
        let open = self.batch.get_or_insert_with(|| Open {
            encoder: Encoder::new(),
            slots: Vec::new(),
            frees_space: true,
        });
        open.frees_space &= frees_space;
        encode(&mut open.encoder);
        open.slots.push(slot);
        self.submit_if_large().await
    }

    async fn submit_if_large(&mut self) -> io::Result<()> {
        match &self.batch {
            Some(open) if open.encoder.bytes() >= BATCH_BYTES_MAX => self.submit().await,
            _ => Ok(()),
        }
    }

    /// Sends the open batch through the log and answers its commands.
    async fn submit(&mut self) -> io::Result<()> {
        let Some(Open { encoder, slots, frees_space }) = self.batch.take() else { return Ok(()) };
        let encoded = encoder.finish();
        let terms = Terms {
            deadline: self.deadline(),
            primary_until: self.primary_until(),
            durability: self.session.durability,
        };
        let work = if frees_space { Work::Remove } else { Work::Store };
        let answer = match self.shared.health.refusal(frees_space) {
            Some(refusal) => Answer::Refused(refusal),
            None => match self.shared.live().limits.turn(work, terms.deadline).await {
                Ok(_turn) => batch::run(self.shared, &encoded, self.started, terms).await,
                Err(refusal) => Answer::Refused(refusal),
            },
        };
        match answer {
            Answer::Done { id, replies, waits } => {
                self.session.last_write = Some(id);
                let began = Instant::now();
                self.emit_done(slots, replies);
                self.encoding += began.elapsed();
                let took = |waits: Option<Waits>| waits.map(|waits| waits.total_us());
                if took(self.waits) < took(waits) || self.waits.is_none() {
                    self.waits = waits;
                }
            }
            Answer::InDoubt { id, index, reason } => {
                self.session.last_write = id.or(self.session.last_write);
                let mut at = index;
                self.emit_each(slots, |_, _, _| {
                    let reply = refusal::in_doubt(id, Some(at), reason);
                    at += 1;
                    reply
                });
            }
            Answer::NotHere(route) => {
                let mode = self.session.mode;
                self.emit_each(slots, |key, write, _| {
                    routing::answer(&route, mode, key.map(slot_of), write)
                });
            }
            Answer::Refused(refused) => {
                self.note_refusal(&refused);
                self.emit_each(slots, |_, _, _| refusal::refused(&refused));
            }
        }
        self.relieve().await
    }

    fn emit_done(&mut self, slots: Vec<Slot>, replies: Vec<Reply>) {
        let mut replies = replies.into_iter();
        // The gate hands out one reply per command; without one nothing may be claimed.
        let mut next = move || {
            replies.next().unwrap_or_else(|| error("INDOUBT epoch=? seq=? index=? reason=no_reply"))
        };
        for slot in slots {
            match slot {
                Slot::Answered(reply) => self.emit(&reply, true),
                Slot::Logged { wanted, .. } => {
                    let reply = next();
                    self.emit(&reply, wanted);
                }
                Slot::Exec { wanted, layout, .. } => {
                    let (shared, client) = (self.shared, self.client);
                    let session = &mut *self.session;
                    let reply = transaction::merge(layout, next(), |command| {
                        Control { shared, session, client }.answer(command)
                    });
                    self.emit(&reply, wanted);
                }
            }
        }
    }

    /// Answers the commands of a batch that was not carried out, or may have been.
    fn emit_each(
        &mut self,
        slots: Vec<Slot>,
        mut reply: impl FnMut(Option<&Bytes>, bool, bool) -> Reply,
    ) {
        for slot in slots {
            match slot {
                Slot::Answered(reply) => self.emit(&reply, true),
                Slot::Logged { key, write, wanted } | Slot::Exec { key, write, wanted, .. } => {
                    let reply = reply(key.as_ref(), write, wanted);
                    self.emit(&reply, wanted);
                }
            }
        }
    }

    async fn connection(&mut self, command: Connection, wanted: bool) -> io::Result<()> {
        self.counts.others += 1;
        let counted = match &command {
            Connection::Wait { replicas, timeout_ms } => {
                Some(Wanted { local: None, replicas: *replicas, timeout_ms: *timeout_ms })
            }
            Connection::WaitAof { local, replicas, timeout_ms } => {
                Some(Wanted { local: Some(*local), replicas: *replicas, timeout_ms: *timeout_ms })
            }
            _ => None,
        };
        if let Some(counted) = counted {
            self.settle().await?;
            let since = Instant::now();
            let reply = wait(self.shared, self.session, &counted).await;
            self.waited += since.elapsed();
            return self.answer(reply, wanted).await;
        }
        if changes_session(&command) {
            // Replies before it leave as it was agreed before.
            self.settle().await?;
        }
        if let Connection::Quorate(Quorate::Outcome { epoch, seq }) = &command {
            let asked = EntryId::new(Epoch(*epoch), Seq(*seq));
            let reply = self.outcome(asked).await;
            return self.answer(reply, wanted).await;
        }
        if let Connection::Quorate(Quorate::OutcomeOfToken { token }) = &command {
            let reply = self.outcome_of_token(token).await;
            return self.answer(reply, wanted).await;
        }
        if let Connection::Cluster(query) = &command
            && self.session.mode == Mode::Cluster
            && names_primary(query)
        {
            let since = Instant::now();
            current(self.shared, self.primary_until()).await;
            self.waited += since.elapsed();
        }
        let silent = matches!(
            command,
            Connection::Client(ClientCommand::Reply(ClientReply::Off | ClientReply::Skip))
        );
        let reset = matches!(command, Connection::Reset);
        let (shared, client) = (self.shared, self.client);
        let reply = Control { shared, session: &mut *self.session, client }.answer(command);
        if reset {
            self.note_transaction();
        }
        self.answer(reply, wanted && !silent).await
    }

    /// Answers one command in its place.
    async fn answer(&mut self, reply: Reply, wanted: bool) -> io::Result<()> {
        if let Some(open) = &mut self.batch {
            if wanted {
                open.slots.push(Slot::Answered(reply));
            }
            return Ok(());
        }
        self.answer_reads().await?;
        self.emit(&reply, wanted);
        self.relieve().await
    }

    /// Answers everything that was gathered.
    async fn settle(&mut self) -> io::Result<()> {
        self.answer_reads().await?;
        self.submit().await
    }

    fn emit(&mut self, reply: &Reply, wanted: bool) {
        if let Reply::Error(text) = reply {
            self.shared.metrics.error(text);
        }
        if wanted {
            reply.write(self.session.protocol, self.out.buffer());
        }
    }

    /// Counts a refusal. A store's deadline that was spent waiting is an error of the storage.
    fn note_refusal(&self, refused: &Refusal) {
        self.shared.metrics.refused(refused);
        if matches!(refused, Refusal::Timeout { caller: false }) {
            self.shared.health.report_soft("a request waited in vain until its store deadline");
        }
    }

    /// Keeps what waits for the client below its limit.
    async fn relieve(&mut self) -> io::Result<()> {
        if self.out.len() < FLUSH_BYTES {
            return Ok(());
        }
        self.out.flush()?;
        self.out.make_room().await
    }

    async fn right(&self, confirm: bool) -> Result<Right, Denied> {
        let (deadline, until) = (self.deadline(), self.primary_until());
        if confirm {
            return reads::confirm(self.shared, deadline, until).await;
        }
        reads::acquire(self.shared, self.session, deadline, until).await
    }

    fn deadline(&self) -> Deadline {
        self.session.deadline(self.started, self.shared.live().settings.store_deadline)
    }

    fn primary_until(&self) -> Instant {
        (self.started + self.shared.live().settings.primary_wait).min(self.deadline().at)
    }
}

impl Slot {
    fn into_parts(self) -> (Option<Bytes>, bool, bool) {
        match self {
            Self::Answered(_) => (None, false, true),
            Self::Logged { key, write, wanted } | Self::Exec { key, write, wanted, .. } => {
                (key, write, wanted)
            }
        }
    }
}

fn slot_of(key: impl AsRef<[u8]>) -> u16 {
    slot(key.as_ref())
}

/// Commands that need no password.
fn is_open_to_all(parsed: &Result<Command, CommandError>) -> bool {
    matches!(parsed, Ok(Command::Connection(command)) if matches!(
        **command,
        Connection::Auth { .. } | Connection::Hello(_) | Connection::Quit | Connection::Reset
    ))
}

/// Commands after which replies look different or come from elsewhere, and those that tell of
/// effects of the commands before them.
fn changes_session(command: &Connection) -> bool {
    !matches!(command, Connection::Ping { .. } | Connection::Echo { .. })
}

fn unreadable(fault: &StateFault) -> Reply {
    tracing::error!(%fault, "a read failed");
    refusal::unhealthy(&fault.to_string())
}
