//! Transactions of a round.

use std::io;

use bytes::Bytes;
use quorate_protocol::command::batch::Encoder;
use quorate_protocol::command::{
    Client as ClientCommand, Command, CommandError, Connection, Read, Step,
    Transaction as TransactionCommand, Unit, Watched,
};
use quorate_protocol::resp::Reply;

use super::{Round, Slot, slot_of, unreadable};
use crate::client::control::Control;
use crate::client::reads;
use crate::client::refusal::error;
use crate::client::routing::{self, Route};
use crate::client::shared::StateFault;
use crate::client::transaction::{self, Aborted, Queued, read_key, write_key};

/// Whatever is wrong with `EXEC` itself ends the transaction.
pub(super) const BAD_EXEC: &str = "EXECABORT Transaction discarded because of: wrong number of \
                                   arguments for 'exec' command";

const NOT_IN_TRANSACTION: &str = "ERR Command not allowed inside a transaction";

/// Redis walks here, too, and everyone waits. Here "everyone" would be the whole cluster, since
/// each node executes the transaction.
const WALK_IN_TRANSACTION: &str = "ERR commands that walk over keys are not allowed inside a \
                                   transaction: all writes would wait for the walk";

impl Round<'_, '_> {
    pub(super) async fn transaction(
        &mut self,
        command: TransactionCommand,
        wanted: bool,
    ) -> io::Result<()> {
        self.counts.others += 1;
        let reply = match command {
            TransactionCommand::Multi if self.session.transaction.begin() => Reply::OK,
            TransactionCommand::Multi => error("ERR MULTI calls can not be nested"),
            TransactionCommand::Discard if self.session.transaction.is_open() => {
                self.session.transaction.discard();
                Reply::OK
            }
            TransactionCommand::Discard => error("ERR DISCARD without MULTI"),
            TransactionCommand::Unwatch => {
                self.session.transaction.unwatch();
                Reply::OK
            }
            TransactionCommand::Watch { keys } => self.watch(keys).await?,
            TransactionCommand::Exec => return self.exec(wanted).await,
        };
        self.note_transaction();
        self.answer(reply, wanted).await
    }

    async fn watch(&mut self, keys: Vec<Bytes>) -> io::Result<Reply> {
        self.settle().await?;
        let mut confirm = false;
        loop {
            let right = match self.right(confirm).await {
                Ok(right) => right,
                Err(denied) => {
                    let key_slot = keys.first().map(slot_of);
                    return Ok(reads::denial(&denied, self.session, key_slot));
                }
            };
            // Noted before the look-ups, so that a key that is removed meanwhile counts as
            // changed.
            let applied = self.shared.published.applied();
            let now_ms = self.shared.now_ms();
            let state = &self.shared.state;
            let seen: Result<Vec<Watched>, StateFault> =
                keys.iter().map(|key| state.watch(key.clone(), applied, now_ms)).collect();
            if !reads::still_holds(self.shared, right) {
                confirm = true;
                continue;
            }
            return Ok(match seen {
                Ok(seen) => {
                    for watched in seen {
                        self.session.transaction.watch(watched);
                    }
                    Reply::OK
                }
                Err(fault) => unreadable(&fault),
            });
        }
    }

    async fn exec(&mut self, wanted: bool) -> io::Result<()> {
        let taken = self.session.transaction.take();
        self.note_transaction();
        let plan = match taken {
            None => return self.answer(error("ERR EXEC without MULTI"), wanted).await,
            Some(Err(Aborted)) => {
                let text = "EXECABORT Transaction discarded because of previous errors.";
                return self.answer(error(text), wanted).await;
            }
            Some(Ok(plan)) => plan,
        };
        if !plan.needs_log() {
            let (shared, client) = (self.shared, self.client);
            let session = &mut *self.session;
            let reply = transaction::merge(plan.layout, Reply::Array(Vec::new()), |command| {
                Control { shared, session, client }.answer(command)
            });
            return self.answer(reply, wanted).await;
        }
        let (key, write) = (plan.first_key(), plan.writes());
        let slot = Slot::Exec { key, write, wanted, layout: plan.layout };
        let exec = plan.exec;
        let frees_space = exec.steps.iter().all(|step| match step {
            Step::Write(write) => write.frees_space(),
            Step::Read(_) => true,
        });
        let token = self.session.token.take_if(|_| write);
        let encode = |encoder: &mut Encoder| {
            if let Some(token) = &token {
                encoder.once(token);
            }
            encoder.unit(&Unit::Exec(exec));
        };
        self.log(slot, frees_space, encode).await
    }

    /// Queues a command between `MULTI` and `EXEC`; returns what the client is told now.
    pub(super) fn queue(&mut self, parsed: Result<Command, CommandError>) -> Reply {
        self.counts.others += 1;
        let queued = match parsed {
            Ok(Command::Read(Read::Walk(_))) => Err(error(WALK_IN_TRANSACTION)),
            Ok(Command::Read(read)) => {
                let key = read_key(&read).map(slot_of);
                self.here_for(key, false).map(|()| Queued::Data(Step::Read(read)))
            }
            Ok(Command::Write(write)) => {
                let key = write_key(&write).map(slot_of);
                self.here_for(key, true).map(|()| Queued::Data(Step::Write(write)))
            }
            Ok(Command::Transaction(TransactionCommand::Watch { .. })) => {
                // Redis answers this without spoiling the transaction.
                return error("ERR WATCH inside MULTI is not allowed");
            }
            Ok(Command::Transaction(TransactionCommand::Multi)) => {
                return error("ERR MULTI calls can not be nested");
            }
            Ok(Command::Transaction(_)) => Ok(Queued::Local(Box::new(Connection::Asking))),
            Ok(Command::Connection(command)) if is_barred_in_transaction(&command) => {
                Err(error(NOT_IN_TRANSACTION))
            }
            Ok(Command::Connection(command)) => Ok(Queued::Local(command)),
            Err(refused) if refused.aborts_transaction() => Err(refused.to_reply()),
            Err(refused) => Ok(Queued::Failed(refused)),
        };
        match queued {
            Ok(queued) => {
                if self.session.transaction.push(queued) {
                    self.note_transaction();
                    return Reply::QUEUED;
                }
                self.session.transaction.abort();
                error("ERR too many commands in one transaction")
            }
            Err(reply) => {
                self.session.transaction.abort();
                reply
            }
        }
    }

    /// A transaction for a key that lives elsewhere is refused while it is queued, as Redis
    /// Cluster does, so that its client can go there with the whole of it.
    fn here_for(&self, key: Option<u16>, write: bool) -> Result<(), Reply> {
        match routing::route_now(self.shared) {
            Route::Here | Route::Unknown => Ok(()),
            route @ Route::Elsewhere(_) => {
                Err(routing::answer(&route, self.session.mode, key, write))
            }
        }
    }

    /// Tells `CLIENT LIST`.
    pub(super) fn note_transaction(&self) {
        let mut details = self.client.details.lock();
        details.queued = self.session.transaction.queued();
        details.watched = self.session.transaction.watched();
    }
}

/// Commands that are carried out between `MULTI` and `EXEC`.
pub(super) fn ends_transaction(parsed: &Result<Command, CommandError>) -> bool {
    match parsed {
        Ok(Command::Transaction(command)) => {
            matches!(command, TransactionCommand::Exec | TransactionCommand::Discard)
        }
        Ok(Command::Connection(command)) => {
            matches!(**command, Connection::Quit | Connection::Reset)
        }
        Ok(Command::Read(_) | Command::Write(_)) | Err(_) => false,
    }
}

/// Commands that change how later ones are answered, or are about the connection as a whole.
fn is_barred_in_transaction(command: &Connection) -> bool {
    matches!(
        command,
        Connection::Hello(_)
            | Connection::Session(_)
            | Connection::Subscribe { .. }
            | Connection::PSubscribe { .. }
            | Connection::Unsubscribe { .. }
            | Connection::PUnsubscribe { .. }
            | Connection::Shutdown { .. }
            | Connection::Client(ClientCommand::Reply(_))
    )
}
