//! Reads of a round, under the lease rules.

use std::io;

use quorate_protocol::command::Walk;
use quorate_protocol::resp::Reply;
use quorate_protocol::types::EntryId;

use super::{Ask, FLUSH_BYTES, Round, slot_of, unreadable};
use crate::client::limits::Work;
use crate::client::reads::{self, Denied};
use crate::client::refusal::error;
use crate::client::transaction::read_key;

impl Round<'_, '_> {
    /// Answers the reads that were gathered.
    pub(super) async fn answer_reads(&mut self) -> io::Result<()> {
        if self.reads.is_empty() {
            return Ok(());
        }
        let mut asks = std::mem::take(&mut self.reads);
        let _turn = match self.shared.live().limits.turn(Work::Load, self.deadline()).await {
            Ok(turn) => turn,
            Err(refusal) => {
                self.deny(&asks, &Denied::Refused(refusal));
                return self.relieve().await;
            }
        };
        let mut at = 0;
        let mut confirm = false;
        while at < asks.len() {
            let right = match self.right(confirm).await {
                Ok(right) => right,
                Err(denied) => {
                    self.deny(&asks[at..], &denied);
                    break;
                }
            };
            let mark = self.out.len();
            let answered = self.read_some(&asks[at..]);
            if reads::still_holds(self.shared, right) {
                at += answered;
                self.relieve().await?;
            } else {
                // What was read may be old already. A round of heartbeats decides.
                self.out.buffer().truncate(mark);
                confirm = true;
            }
        }
        asks.clear();
        self.reads = asks;
        self.relieve().await
    }

    /// Appends replies until the buffer is full enough; returns how many reads they answer.
    fn read_some(&mut self, asks: &[Ask]) -> usize {
        let now_ms = self.shared.now_ms();
        let mark = self.out.len();
        for (at, ask) in asks.iter().enumerate() {
            let reply = self.shared.state.read(&ask.read, now_ms);
            let reply = reply.unwrap_or_else(|fault| unreadable(&fault));
            self.emit(&reply, ask.wanted);
            if self.out.len() - mark >= FLUSH_BYTES {
                return at + 1;
            }
        }
        asks.len()
    }

    fn deny(&mut self, asks: &[Ask], denied: &Denied) {
        if let Denied::Refused(refusal) = denied {
            self.note_refusal(refusal);
        }
        for ask in asks {
            let key_slot = read_key(&ask.read).map(slot_of);
            let reply = reads::denial(denied, self.session, key_slot);
            self.emit(&reply, ask.wanted);
        }
    }

    /// `QUORATE OUTCOME`: what became of an entry. Only a primary that may serve reads can tell,
    /// whatever the session takes for its reads.
    pub(super) async fn outcome(&self, asked: EntryId) -> Reply {
        let (deadline, until) = (self.deadline(), self.primary_until());
        if let Err(denied) = reads::confirm(self.shared, deadline, until).await {
            return reads::denial(&denied, self.session, None);
        }
        // Everything that was committed when the question came is applied.
        if asked.seq > self.shared.published.applied() {
            return Reply::Bulk("pending".into());
        }
        match self.shared.state.epoch_of(asked.seq) {
            Ok(Some(epoch)) if epoch == asked.epoch => Reply::Bulk("committed".into()),
            Ok(Some(_)) => Reply::Bulk("lost".into()),
            Ok(None) => Reply::Bulk("unknown".into()),
            Err(fault) => unreadable(&fault),
        }
    }

    /// `QUORATE OUTCOME TOKEN`: what became of a write that carried a token, as far as the state
    /// remembers. A write that is still on its way may come to be later.
    pub(super) async fn outcome_of_token(&self, token: &[u8]) -> Reply {
        let (deadline, until) = (self.deadline(), self.primary_until());
        if let Err(denied) = reads::confirm(self.shared, deadline, until).await {
            return reads::denial(&denied, self.session, None);
        }
        match self.shared.state.token(token) {
            Ok(Some(record)) if record.is_live(self.shared.now_ms()) => {
                Reply::Bulk("committed".into())
            }
            Ok(Some(_)) => error("ERR token expired"),
            Ok(None) => Reply::Bulk("unknown".into()),
            Err(fault) => unreadable(&fault),
        }
    }

    /// A read that visits many keys.
    pub(super) async fn walk(&mut self, walk: &Walk, wanted: bool) -> io::Result<()> {
        self.counts.reads += 1;
        self.settle().await?;
        let mut confirm = false;
        let turn = self.shared.live().limits.turn(Work::Load, self.deadline()).await;
        let reply = loop {
            let right = match &turn {
                Ok(_) => self.right(confirm).await,
                Err(refusal) => Err(Denied::Refused(refusal.clone())),
            };
            let right = match right {
                Ok(right) => right,
                Err(denied) => {
                    if let Denied::Refused(refusal) = &denied {
                        self.note_refusal(refusal);
                    }
                    break reads::denial(&denied, self.session, None);
                }
            };
            let now_ms = self.shared.now_ms();
            // Other tasks of this thread go on elsewhere while the store is visited.
            let reply = tokio::task::block_in_place(|| self.shared.state.walk(walk, now_ms));
            if reads::still_holds(self.shared, right) {
                break reply.unwrap_or_else(|fault| unreadable(&fault));
            }
            confirm = true;
        };
        self.answer(reply, wanted).await
    }
}
