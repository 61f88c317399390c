//! A node that can't trust its journal or its state. It takes part in nothing until the voters have
//! said which of the two is right (`divergence`), which ends in a restart.

use super::driver::DriverParts;
use crate::view::{Absence, View};

/// A node in doubt.
pub(crate) struct VerifyingDriver {
    parts: DriverParts,
    reason: String,
}

impl VerifyingDriver {
    pub(crate) fn new(parts: DriverParts, reason: String) -> Self {
        Self { parts, reason }
    }

    /// One round: everything is refused, and nothing that peers say is answered.
    pub(super) fn round(&mut self) {
        self.parts.queues.refuse_all();
        let mut events = Vec::new();
        self.parts.ports.peers.drain(&mut events);
        let waiting = format!("most voters to say which log is right: {}", self.reason);
        if self.parts.published.view().waiting.as_ref() == Some(&waiting) {
            return;
        }
        self.parts.published.set_view(View {
            node: self.parts.ports.node,
            incarnation: self.parts.ports.incarnation,
            waiting: Some(waiting),
            absence: Absence::JournalRecovery,
            ..View::default()
        });
    }
}
