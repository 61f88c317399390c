//! Deliberate mistakes, for tests of the tests: the simulator and the model check must find each.
//!
//! A mistake stands at the line that keeps a rule: `mutant!(Name, wrong, right)` is `right` alone
//! unless the feature `mutants` is on, which only the package `quorate-protocol-mutants` has. With
//! the feature, `wrong` is taken in a thread that switched `Name` on.

#[cfg(feature = "mutants")]
mod selected {
    use std::cell::Cell;

    macro_rules! mutants {
        ($($(#[$doc:meta])* $name:ident,)*) => {
            /// A mistake that can be switched on.
            #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub enum Mutant {
                $($(#[$doc])* $name,)*
            }

            impl Mutant {
                /// Every mistake.
                pub const ALL: &[Self] = &[$(Self::$name,)*];
            }
        };
    }

    mutants! {
        /// S1: a vote leaves before it is synced.
        VoteNotSynced,
        /// S1: a candidate counts its own vote before it is synced.
        OwnVoteNotSynced,
        /// S2: a second vote in the same epoch.
        VoteTwice,
        /// S2: a vote for a log that lacks what the voter holds.
        VoteForShorterLog,
        /// S2: logs are compared by position first.
        CompareSeqBeforeEpoch,
        /// S2: a vote although a primary was just heard.
        IgnoreHeardPrimary,
        /// S2: a vote right after boot.
        NoSilenceAfterBoot,
        /// Replies to an earlier round count.
        VoteOfEarlierRound,
        /// A vote for an earlier life of the candidate counts in a later epoch.
        VoteOfEarlierLife,
        /// S3: voters with memory loss count as if they had none.
        CountAmnesiacVoters,
        /// S3: a majority elects under every policy.
        ElectByMajorityAlone,
        /// S3: votes that meet every set of holders elect, majority or not.
        ElectWithoutMajority,
        /// S3: copies on disk and in memory are confused.
        ElectWithCountsSwapped,
        /// S10: an election is won under the newest configuration alone.
        ElectUnderNewestOnly,
        /// S10: a configuration counts for nothing until it is in force.
        ConfigAtCommit,
        /// Learners vote and count.
        LearnerCounts,
        /// S4: entries of earlier epochs commit by counting copies.
        Figure8Commit,
        /// The primary's own copy counts as synced when it is handed to the journal.
        OwnPersistedAtSubmit,
        /// A replica's copy in memory counts as one on disk.
        MemoryAsPersisted,
        /// The policy is met with one copy fewer.
        OneCopyTooFew,
        /// openraft 1802: the n-th cursor is taken from an unsorted array.
        OpenraftUnsortedQuorum,
        /// S4: one copy seals an entry.
        SealByOneCopy,
        /// S4: a sealed entry takes uncommitted commands before it along.
        SealedPastCommands,
        /// S5: acknowledgements of a replica's earlier life count.
        AckOfEarlierLife,
        /// openraft cecb5de8: cursors of an earlier life are kept for a new one.
        OpenraftStaleAck,
        /// openraft 6d53aa12: a rejected probe tries the same entry again.
        OpenraftNoBacktrack,
        /// A probe looks for an entry that the journal no longer has.
        KeepProbingTrimmed,
        /// S5: memory loss ends at the commit position.
        RecoverAtCommit,
        /// S5: memory loss ends by what the own disk holds, verified or not.
        RecoverUnverified,
        /// S5: what was fixed for an earlier life counts.
        RecoverInAnyLife,
        /// S5: memory loss ends at what the node itself still has.
        RecoverThroughOwnLast,
        /// S5: a second boot clears the mark of memory loss.
        ForgetLossAtBoot,
        /// S5: the mark of a clean end outlives the next start.
        CleanMarkSurvives,
        /// S1: an acknowledgement leaves before its epoch is synced.
        AckBeforeEpochSynced,
        /// What is handed to the journal is acknowledged as in memory.
        AckAtSubmit,
        /// The next entry to sync is acknowledged as synced.
        AckOneMore,
        /// What an earlier primary verified counts as verified by the next.
        VerifiedInAnyEpoch,
        /// S9: a replica commits as far as the primary, verified or not.
        CommitAsPrimarySays,
        /// Melin 1217ef37: entries are accepted after one that isn't held.
        MelinAcceptGap,
        /// openraft 9540c904: every append cuts the log after its `prev`.
        OpenraftTruncateAlways,
        /// etcd-io/raft, append ABA: the completion of an overwritten write counts.
        EtcdAppendAba,
        /// Melin 33780218: the completion of a part counts for all.
        MelinWholeBatch,
        /// S10: a configuration outlives the cut of its entry.
        KeepCutConfig,
        /// S11: the lease counts from a round's answer.
        LeaseFromAnswer,
        /// S11: the lease goes on while leadership is handed over.
        LeaseKeptInTransfer,
        /// S11: reads before the tenure's first entry is committed.
        ReadBeforeStart,
        /// etcd 20418: a read is confirmed by a round that was sent before it.
        EtcdReadRoundReused,
        /// Reads that wait are forgotten when a tenure ends.
        DropReads,
        /// Raft's single-server erratum: a change before an entry of the own epoch is committed.
        ThesisChangeBeforeStart,
        /// Single-server changes as the thesis first had them: one majority, that of the newest
        /// configuration, decides, and a change may come before an entry of the own epoch.
        ThesisSingleServer,
        /// S10: a second change while one is pending.
        ChangeBesidePending,
        /// S10: copies are counted over the new configuration alone.
        InForceByNewAlone,
        /// S10: a configuration is in force when it is appended.
        InForceAtAppend,
        /// S10: a configuration judges commits before it is in force.
        JudgeByNewest,
        /// S10: entries after a configuration commit before it is in force.
        CommitPastPending,
        /// The answer to a change is forgotten when a tenure ends.
        DropChange,
        /// A snapshot replaces what is committed beyond it.
        InstallOlder,
        /// A log is kept after a snapshot that it doesn't continue.
        KeepAnySuffix,
        /// Entries are appended while the log is being replaced.
        AppendDuringInstall,
        /// A snapshot says one entry more than it holds.
        SnapshotHeaderPlusOne,
        /// The journal is trimmed through what is applied and not flushed.
        TrimBeforeFlush,
        /// etcd 3.5: the applied index is saved ahead of the state.
        EtcdIndexSavedEarly,
        /// The runtime goes on after a failed sync, and takes the next one's word.
        RetryFailedSync,
        /// A boot takes what the journal shows for synced.
        TrustTailAtBoot,
        /// A damaged hard state is read as a new one.
        HardStateByDefault,
        /// S6: a node with an empty disk takes part under its old name.
        WipedNodeVotes,
        /// S6: recovery cuts the journal at a bad record that was synced.
        CutDamageBelowMarks,
        /// A deposed primary's waiting writes are answered as if it still led.
        OkAfterDepose,
    }

    thread_local! {
        static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    impl Mutant {
        /// Switches one mistake on in this thread, or all off.
        pub fn activate(mutant: Option<Self>) {
            ACTIVE.set(mutant);
        }

        /// Whether this mistake is on in this thread.
        #[must_use]
        pub fn is_active(self) -> bool {
            ACTIVE.get() == Some(self)
        }
    }
}

#[cfg(feature = "mutants")]
pub use selected::Mutant;

#[cfg(feature = "mutants")]
macro_rules! mutant {
    ($name:ident, $wrong:expr, $right:expr $(,)?) => {
        if $crate::mutants::Mutant::$name.is_active() { $wrong } else { $right }
    };
}

#[cfg(not(feature = "mutants"))]
macro_rules! mutant {
    ($name:ident, $wrong:expr, $right:expr $(,)?) => {
        $right
    };
}

pub(crate) use mutant;
