//! What a set of runs must have reached: a set that misses something checks less than it says.

use super::fault::Fault;
use super::total::Total;

/// Seeds from which on every mark has to be hit.
pub const JUDGED_FROM: u64 = 2_000;

/// Interesting branches, each counted where it is taken.
const MARKS: &[&str] = &[
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
    "configuration undone",
    "confirmed read",
    "crash during an install",
    "disk lost",
    "election won",
    "election won by a vote with memory loss",
    "election won with memory loss",
    "election won under two configurations",
    "entry committed",
    "entry committed before the primary's disk has it",
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
    "read refused by the second check",
    "recovered lossily",
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
    "version raised",
    "vote with memory loss",
    "write acknowledged",
    "write refused: disk full",
];

/// Classes of faults and marks that no run reached.
#[must_use]
pub fn missing(total: &Total) -> Vec<&'static str> {
    let faults = Fault::ALL.iter().map(|fault| fault.name());
    let faults = faults.filter(|name| !total.faults.contains_key(name));
    let marks = MARKS.iter().copied().filter(|mark| !total.marks.contains_key(mark));
    faults.chain(marks).collect()
}
