use super::Invariant;
use crate::history::check_register_within;
use crate::sim::ledger::View;

/// The log's order explains a right history in one state for each operation; where it does not,
/// so many are tried for another one that does.
const STATES_MAX: usize = 200_000;

/// Per key there is one order of what clients did, in keeping with real time and with everything
/// that they were told. Judged at the end of a run.
///
/// Why only at the end: an operation may take effect after others that began later, so that
/// nothing is known before the last one has ended.
pub(super) struct Linearizable;

impl Invariant for Linearizable {
    fn name(&self) -> &'static str {
        "Linearizable"
    }

    fn conclude(&mut self, view: View<'_>, _settled: bool) -> Result<(), String> {
        for (key, history) in view.record.histories(view.ledger)? {
            check_register_within(&history, STATES_MAX)
                .map_err(|error| format!("key {key}: {error}"))?;
        }
        Ok(())
    }
}
