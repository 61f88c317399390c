use std::collections::BTreeMap;

use quorate_protocol::types::EntryId;

use super::Invariant;
use crate::sim::clients::AttemptId;
use crate::sim::ledger::{Fact, View};

/// On one connection replies come in the order of the commands, one for each, and writes are in
/// the log in that order.
///
/// Why only within a connection: between connections nothing but real time is promised, which
/// `Linearizable` judges.
#[derive(Default)]
pub(super) struct PerConnectionOrder {
    heard: BTreeMap<u64, AttemptId>,
    sealed: BTreeMap<u64, (AttemptId, EntryId)>,
}

impl Invariant for PerConnectionOrder {
    fn name(&self) -> &'static str {
        "PerConnectionOrder"
    }

    fn check(&mut self, view: View<'_>, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Heard { connection, attempt } => self.heard(view, *connection, *attempt),
            Fact::Sealed { id, attempts } => {
                for attempt in *attempts {
                    let connection = view.record.get(*attempt).connection;
                    if let Some((before, in_entry)) =
                        self.sealed.insert(connection, (*attempt, *id))
                        && (before >= *attempt || in_entry > *id)
                    {
                        return Err(format!(
                            "connection {connection}: {attempt} is in {id}, {before} in {in_entry}"
                        ));
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl PerConnectionOrder {
    fn heard(&mut self, view: View<'_>, connection: u64, attempt: AttemptId) -> Result<(), String> {
        let before = self.heard.insert(connection, attempt);
        let attempts = view.record.attempts();
        let after = before.map_or(0, |before| before.0 + 1);
        let expected =
            (after..attempts.len()).find(|other| attempts[*other].connection == connection);
        if expected == Some(attempt.0) {
            Ok(())
        } else {
            Err(format!("connection {connection}: a reply to {attempt}, not to {expected:?}"))
        }
    }
}
