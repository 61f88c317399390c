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
        /// S3: voters with memory loss count as if they had none.
        CountAmnesiacVoters,
        /// The runtime goes on after a failed sync, and takes the next one's word.
        RetryFailedSync,
        /// A node with an empty disk takes part under its old name.
        WipedNodeVotes,
        /// Recovery cuts the journal at a bad record that was synced.
        CutDamageBelowMarks,
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
