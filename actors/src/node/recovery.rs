//! Puts together what a node finds on its disk: journal, state and hard state must tell one story
//! before the core may start from it.

use std::path::Path;
use std::sync::Arc;

use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::core::{HardState, Log};
use quorate_protocol::formation::FIRST_ENTRY;
use quorate_protocol::types::{Chain, ClusterTime, EntryId, Seq};
use quorate_protocol::wire::{WireError, decode_cluster};

use crate::divergence::{ChainPoint, Doubt, Finding, Suspect};
use crate::quorum::Found;
use crate::storage::identity::Current;
use crate::storage::journal::{OpenError, OpenJournal, Recovered};

/// What the state says about itself.
#[derive(Clone, Debug, Default)]
pub(super) struct StatePosition {
    /// The last entry applied and flushed.
    pub applied: EntryId,
    /// The log's chain there.
    pub chain: Chain,
    /// That entry's time.
    pub time: ClusterTime,
    /// The configuration as of there; `None` while the state holds nothing.
    pub cluster: Option<(EntryId, Arc<ClusterEntry>)>,
}

/// Why journal and state can't be put together.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The journal can't be opened or restarted.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// The journal lost synced entries (S6).
    #[error(
        "the journal lost synced entries from {at} on ({what}): this node must neither vote nor \
         count; remove its data directory and let it join anew"
    )]
    Damaged {
        /// The first lost position.
        at: Seq,
        /// Which file, and what is wrong.
        what: String,
    },
    /// The journal isn't what most voters hold (S6).
    #[error(
        "this node's journal is not what most voters hold, and neither is what it should hold in \
         its state: it must neither vote nor count; remove its data directory and let it join \
         anew. {found}"
    )]
    Diverged {
        /// What the voters said.
        found: String,
    },
    /// Journal and state differ, and nobody can say which is right.
    #[error("{reason}; there is no other member that could say which is right")]
    Contradiction {
        /// What they hold.
        reason: String,
    },
    /// The journal starts after the state's position: entries between are nowhere.
    #[error("the journal starts at {first}, but the state holds entries only through {applied}")]
    Gap {
        /// The journal's first position.
        first: Seq,
        /// The state's position.
        applied: EntryId,
    },
    /// The state isn't the one that was put in force.
    #[error("the snapshot in force ends at {installed}, but the state holds only {applied}")]
    NotInstalled {
        /// What CURRENT names.
        installed: EntryId,
        /// The state's position.
        applied: EntryId,
    },
    /// A cluster entry can't be read.
    #[error("cluster entry {id} can't be read: {source}")]
    Cluster {
        /// Which.
        id: EntryId,
        /// What is wrong.
        source: WireError,
    },
    /// There is a log but no configuration in it.
    #[error("neither journal nor state hold a cluster entry, though the log ends at {last}")]
    NoCluster {
        /// The log's end.
        last: EntryId,
    },
}

/// A journal that fits to the state, and what the core starts with; `None` before the first entry.
pub(super) struct Recovery {
    /// Ready to start.
    pub journal: OpenJournal,
    /// What was found, unless there is no log yet.
    pub found: Option<Found>,
    /// Whether entries that were acknowledged from memory may be gone: the state is ahead of the
    /// journal (S5).
    pub behind_state: bool,
    /// Set where the state is lost and the journal can't bring it back: a snapshot is needed that
    /// ends here or later.
    pub lacking: Option<EntryId>,
    /// Set where journal or state are in doubt: the voters must be asked first.
    pub doubt: Option<Doubt>,
}

/// What is known beforehand of a journal that may not be the others'.
pub(super) struct Suspected<'a> {
    /// The mark of an earlier life.
    pub mark: Option<Suspect>,
    /// The folder of the state.
    pub state_dir: &'a Path,
}

/// Fits the journal to the state.
///
/// # Errors
/// See [`RecoveryError`].
pub(super) fn recover(
    mut journal: OpenJournal,
    state: &StatePosition,
    current: Option<&Current>,
    hard: HardState,
    suspected: Suspected<'_>,
) -> Result<Recovery, RecoveryError> {
    let Suspected { mark, state_dir } = suspected;
    let mut recovered = journal.recovered().clone();
    if let Some(damage) = &recovered.repaired {
        tracing::error!(
            at = %damage.at, what = damage.what,
            "the journal was damaged; the state on disk holds what was in the damaged segments, \
             which were set aside in divergent/"
        );
    }
    if let Some(damage) = recovered.damage.clone() {
        return Err(RecoveryError::Damaged { at: damage.at, what: damage.what });
    }
    // An empty state is one that was lost: whoever empties it knows that the log has what was in it.
    let beginning = current.map_or(EntryId::ZERO, |current| current.preceding);
    let beginning = beginning.max(recovered.preceding);
    if state.applied == EntryId::ZERO && beginning != EntryId::ZERO {
        let lacking = Some(beginning);
        return Ok(Recovery { journal, found: None, behind_state: false, lacking, doubt: None });
    }
    let (mark, replaced) = match mark {
        Some(mark) if mark.finding == Finding::Lost => {
            return Err(RecoveryError::Diverged { found: mark.reason });
        }
        Some(mark) if mark.finding == Finding::Journal => {
            // The state holds all that was acknowledged here.
            if recovered.last.seq > state.applied.seq {
                return Err(RecoveryError::Diverged { found: mark.reason });
            }
            journal = journal.start_after(state.applied, state.chain)?;
            recovered = journal.recovered().clone();
            tracing::error!(reason = mark.reason, "the journal was set aside in divergent/");
            (None, true)
        }
        mark => (mark, false),
    };
    if !replaced && let Some(doubt) = doubt(&journal, state, mark, state_dir)? {
        let doubt = Some(doubt);
        return Ok(Recovery { journal, found: None, behind_state: false, lacking: None, doubt });
    }
    if let Some(current) = current {
        if state.applied.seq < current.preceding.seq {
            let (installed, applied) = (current.preceding, state.applied);
            return Err(RecoveryError::NotInstalled { installed, applied });
        }
        if !continues(&recovered, current.preceding) {
            // The rest of the switch. What is cut was acknowledged on no branch that holds what
            // the snapshot does, so no memory is lost.
            journal = journal.start_after(current.preceding, current.chain)?;
            recovered = journal.recovered().clone();
        }
    }
    if recovered.last == EntryId::ZERO && state.applied == EntryId::ZERO {
        return Ok(Recovery {
            journal,
            found: None,
            behind_state: false,
            lacking: None,
            doubt: None,
        });
    }
    if recovered.first > state.applied.seq.next() {
        return Err(RecoveryError::Gap { first: recovered.first, applied: state.applied });
    }
    // Legal when the copies that met the policy are elsewhere: the log goes on after what the
    // state holds, as after a snapshot. The journal may even be longer: entries are applied from
    // memory, so the state can be flushed before the journal cut the tail that they replaced.
    let behind_state = !holds(&recovered, state.applied);
    if behind_state {
        journal = journal.start_after(state.applied, state.chain)?;
    }
    let found = found(&journal, state, hard)?;
    Ok(Recovery { journal, found: Some(found), behind_state, lacking: None, doubt: None })
}

/// Whether the voters must be asked which log is right: an earlier life had reason to, or the
/// journal has another chain at the state's entry than the state.
fn doubt(
    journal: &OpenJournal,
    state: &StatePosition,
    mark: Option<Suspect>,
    state_dir: &Path,
) -> Result<Option<Doubt>, RecoveryError> {
    let recovered = journal.recovered();
    let applied = ChainPoint { id: state.applied, chain: state.chain };
    let there = (applied.id != EntryId::ZERO).then(|| journal.chain_at(applied.id)).flatten();
    let journal_there = there.map(|chain| ChainPoint { id: applied.id, chain });
    let contradiction = journal_there.filter(|journal| *journal != applied).map(|journal| {
        let reason = format!("the journal holds {journal}, the state {applied}");
        Suspect { finding: Finding::Unverified, seq: applied.id.seq, reason }
    });
    let Some(suspect) = mark.or(contradiction) else { return Ok(None) };
    let last = ChainPoint { id: recovered.last, chain: recovered.last_chain };
    let configs = configs(recovered, state)?;
    let Some((_, config)) = configs.last() else {
        return Err(RecoveryError::NoCluster { last: recovered.last });
    };
    Ok(Some(Doubt {
        suspect,
        state: applied,
        journal_there,
        journal: last,
        config: config.clone(),
        state_dir: state_dir.to_owned(),
    }))
}

/// Whether the journal goes on from this entry: it holds it, or has been trimmed beyond it.
fn continues(recovered: &Recovered, id: EntryId) -> bool {
    recovered.preceding.seq > id.seq || holds(recovered, id)
}

/// Whether the journal holds this very entry, or starts right after it.
fn holds(recovered: &Recovered, id: EntryId) -> bool {
    if id.seq == recovered.preceding.seq {
        return id == recovered.preceding;
    }
    let run = recovered.epochs.partition_point(|(first, _)| *first <= id.seq);
    let epoch = run.checked_sub(1).map(|index| recovered.epochs[index].1);
    id.seq <= recovered.last.seq && epoch == Some(id.epoch)
}

fn found(
    journal: &OpenJournal,
    state: &StatePosition,
    hard: HardState,
) -> Result<Found, RecoveryError> {
    let recovered = journal.recovered();
    let configs = configs(recovered, state)?;
    if configs.is_empty() {
        return Err(RecoveryError::NoCluster { last: recovered.last });
    }
    // Whoever holds a first entry knows that it is committed: it is the same everywhere.
    let committed = state.applied.seq.max(FIRST_ENTRY.seq);
    let log =
        Log::new(recovered.preceding, recovered.epochs.clone(), recovered.last, recovered.last.seq);
    Ok(Found { hard, log, chain: recovered.last_chain, configs, committed, time: state.time })
}

/// Cluster entries in state and journal, in order.
fn configs(
    recovered: &Recovered,
    state: &StatePosition,
) -> Result<Vec<(EntryId, Arc<ClusterEntry>)>, RecoveryError> {
    let mut configs: Vec<(EntryId, Arc<ClusterEntry>)> = state.cluster.iter().cloned().collect();
    for (id, payload) in &recovered.clusters {
        if configs.last().is_none_or(|(last, _)| last.seq < id.seq) {
            let config = decode_cluster(payload)
                .map_err(|source| RecoveryError::Cluster { id: *id, source })?;
            configs.push((*id, Arc::new(config)));
        }
    }
    Ok(configs)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_protocol::cluster::SafetyTimers;
    use quorate_protocol::entry::Entry;
    use quorate_protocol::policy::{Policy, Threshold};
    use quorate_protocol::types::{Branch, ClusterId, EntryKind, Epoch, Generation, Incarnation};

    use super::*;
    use crate::storage::journal::{Journal, JournalHooks, JournalOptions};
    use crate::storage::scratch::Scratch;

    fn unsuspected() -> Suspected<'static> {
        Suspected { mark: None, state_dir: Path::new("state/1") }
    }

    #[test]
    fn a_longer_journal_of_another_branch_does_not_hold_what_was_applied() {
        let id = |epoch, seq| EntryId::new(Epoch(epoch), Seq(seq));
        let recovered = Recovered {
            first: Seq(3),
            preceding: id(1, 2),
            preceding_chain: Chain(1),
            last: id(4, 9),
            last_chain: Chain(2),
            proven: id(4, 9),
            witnessed: None,
            cluster: None,
            epochs: vec![(Seq(3), Epoch(1)), (Seq(6), Epoch(4))],
            clusters: Vec::new(),
            torn: None,
            repaired: None,
            damage: None,
        };
        for held in [id(1, 2), id(1, 3), id(1, 5), id(4, 6), id(4, 9)] {
            assert!(holds(&recovered, held), "{held}");
        }
        for other in [id(2, 2), id(4, 5), id(5, 7), id(5, 9), id(4, 10)] {
            assert!(!holds(&recovered, other), "{other}");
        }
    }

    /// A journal with entries `1..=last` of one epoch, as an earlier life left it.
    fn journal(dir: &Scratch, last: u64) -> OpenJournal {
        let options = || JournalOptions::in_data_dir(dir.path());
        let open = OpenJournal::open(options()).unwrap();
        let hooks = JournalHooks::new(Arc::new(|| ()), Arc::new(|fault| panic!("{fault}")));
        let journal = Journal::start(open, Incarnation(1), Branch(0), hooks).unwrap();
        let mut chain = Chain::default();
        let entries = (1..=last).map(|seq| {
            let id = EntryId::new(Epoch(1), Seq(seq));
            let entry = Entry::seal(id, EntryKind::Mark, ClusterTime(seq), chain, Bytes::new());
            chain = entry.chain;
            entry
        });
        journal.append(Branch(0), entries.collect()).unwrap();
        assert!(journal.stop());
        OpenJournal::open(options()).unwrap()
    }

    fn installed(preceding: EntryId) -> (Current, StatePosition) {
        let chain = Chain(0x55);
        let current = Current { instance: 2, epoch: Epoch(4), preceding, chain };
        let config = ClusterEntry {
            cluster: ClusterId(7),
            generation: Generation(0),
            version: 1,
            members: Vec::new(),
            policy: Policy { persisted: Some(Threshold::Majority), in_memory: None },
            timers: SafetyTimers::LAN,
            removed: Vec::new(),
            tokens: Vec::new(),
        };
        let cluster = Some((EntryId::new(Epoch(1), Seq(1)), Arc::new(config)));
        let state = StatePosition { applied: preceding, chain, time: ClusterTime(9), cluster };
        (current, state)
    }

    #[test]
    fn a_journal_that_an_installed_snapshot_replaced_starts_behind_it_without_a_loss_of_memory() {
        for ends in [5, 12] {
            let dir = Scratch::new();
            let (current, state) = installed(EntryId::new(Epoch(3), Seq(9)));
            let hard = HardState::default();
            let recovery =
                recover(journal(&dir, ends), &state, Some(&current), hard, unsuspected()).unwrap();
            let recovered = recovery.journal.recovered().clone();
            assert!(!recovery.behind_state);
            assert_eq!((recovered.first, recovered.last), (Seq(10), current.preceding));
            assert_eq!(recovered.last_chain, current.chain);
            let cut = std::fs::read_dir(dir.path().join("divergent")).unwrap().count();
            assert_eq!(cut, 1, "what the switch cut is kept");
            drop(recovery);
            // A crash now, and every later start: there is nothing left to do.
            let again = OpenJournal::open(JournalOptions::in_data_dir(dir.path())).unwrap();
            let again = recover(again, &state, Some(&current), hard, unsuspected()).unwrap();
            assert_eq!(again.journal.recovered().first, Seq(10));
            assert_eq!(std::fs::read_dir(dir.path().join("divergent")).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_journal_that_continues_an_installed_snapshot_is_kept() {
        let dir = Scratch::new();
        let (current, state) = installed(EntryId::new(Epoch(1), Seq(9)));
        let hard = HardState::default();
        let recovery =
            recover(journal(&dir, 12), &state, Some(&current), hard, unsuspected()).unwrap();
        assert_eq!(recovery.journal.recovered().last, EntryId::new(Epoch(1), Seq(12)));
        assert!(!recovery.behind_state);
    }

    #[test]
    fn a_lost_state_is_asked_for_from_where_the_journal_begins() {
        let lost = StatePosition::default();
        let hard = HardState::default();
        let dir = Scratch::new();
        let (current, _) = installed(EntryId::new(Epoch(3), Seq(9)));
        let recovery =
            recover(journal(&dir, 5), &lost, Some(&current), hard, unsuspected()).unwrap();
        assert_eq!(recovery.lacking, Some(current.preceding));
        assert_eq!(recovery.journal.recovered().last.seq, Seq(5), "nothing is cut for it");
        assert!(recovery.found.is_none() && !recovery.behind_state);
        drop(recovery);

        let open = OpenJournal::open(JournalOptions::in_data_dir(dir.path())).unwrap();
        let cut = open.start_after(EntryId::new(Epoch(2), Seq(7)), Chain(3)).unwrap();
        let recovery = recover(cut, &lost, None, hard, unsuspected()).unwrap();
        assert_eq!(recovery.lacking, Some(EntryId::new(Epoch(2), Seq(7))));
    }

    #[test]
    fn a_state_that_is_not_the_one_in_force_is_refused() {
        let dir = Scratch::new();
        let (current, mut state) = installed(EntryId::new(Epoch(3), Seq(9)));
        state.applied = EntryId::new(Epoch(1), Seq(8));
        let hard = HardState::default();
        let outcome = recover(journal(&dir, 5), &state, Some(&current), hard, unsuspected());
        assert!(matches!(outcome, Err(RecoveryError::NotInstalled { .. })));
    }
}
