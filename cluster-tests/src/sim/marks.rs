//! What a set of runs must have reached: a set that misses something checks less than it says.

use super::fault::Fault;
use super::total::Total;

/// Seeds from which on every mark has to be hit.
pub const JUDGED_FROM: u64 = 2_000;

/// Interesting branches, each counted where it is taken.
const MARKS: &[&str] = &[
    "batches of several connections in one entry",
    "boot with memory loss",
    "boot with the state ahead of the journal",
    "change in doubt",
    "change refused: another is pending",
    "change refused: handing over",
    "change refused: invalid",
    "change refused: not primary",
    "change refused: not ready",
    "change refused: old binary",
    "change refused: removes the primary",
    "change refused: voters missing",
    "client gives up",
    "client leaves with commands open",
    "client told in doubt",
    "condition not met",
    "configuration undone",
    "confirmed read",
    "connection reset",
    "crash during an install",
    "disk lost",
    "election won by a vote with memory loss",
    "election won under two configurations",
    "election won with memory loss",
    "election won",
    "entry committed before the primary's disk has it",
    "entry committed",
    "handover refused",
    "handover timed out",
    "leadership handed over by itself",
    "leadership transferred",
    "learner promoted",
    "lease given up",
    "leased read",
    "machine joined",
    "member added",
    "member removed",
    "memory loss cleared",
    "one node stays dead",
    "over budget: no election is safe",
    "policy changed",
    "read in a batch",
    "read refused by the second check",
    "recovered lossily",
    "refused command sent again",
    "refused: cluster down",
    "refused: deadline",
    "refused: disk full",
    "refused: handing over",
    "refused: moved",
    "refused: no replicas",
    "refused: overloaded",
    "replies in doubt",
    "restart",
    "snapshot installed",
    "snapshot not fetched",
    "snapshot refused: busy",
    "snapshot refused: older",
    "stopped in good order",
    "sync failed, node ended",
    "tail cut",
    "torn tail cut at boot",
    "unknown outcome: it happened",
    "unknown outcome: it never happened",
    "version raised",
    "vote with memory loss",
    "write acknowledged",
    "write in doubt at its deadline",
];

/// Classes of faults and marks that no run reached.
#[must_use]
pub fn missing(total: &Total) -> Vec<&'static str> {
    let faults = Fault::ALL.iter().map(|fault| fault.name());
    let faults = faults.filter(|name| !total.faults.contains_key(name));
    let marks = MARKS.iter().copied().filter(|mark| !total.marks.contains_key(mark));
    faults.chain(marks).collect()
}
