//! Transactions.

use super::super::model::{Command, Transaction};
use super::{Flags, KEYS_TOUCHED, SESSION, Spec};

const GROUP: &str = "transactions";
const FLAGS: Flags = SESSION.and(Flags::FAST).and(Flags::ALLOW_BUSY);

pub(super) const SPECS: &[Spec] =
    &[
        Spec::new("multi", 1, |_| Ok(Command::Transaction(Transaction::Multi))).flags(FLAGS).doc(
            GROUP,
            "1.2.0",
            "Starts a transaction.",
        ),
        Spec::new("exec", 1, |_| Ok(Command::Transaction(Transaction::Exec)))
            .flags(SESSION.and(Flags::SKIP_SLOWLOG))
            .doc(GROUP, "1.2.0", "Carries a transaction out, all of it or nothing."),
        Spec::new("discard", 1, |_| Ok(Command::Transaction(Transaction::Discard)))
            .flags(FLAGS)
            .doc(GROUP, "2.0.0", "Forgets a transaction."),
        Spec::new("watch", -2, |args| {
            Ok(Command::Transaction(Transaction::Watch { keys: args.keys()? }))
        })
        .flags(FLAGS)
        .keys(KEYS_TOUCHED)
        .doc(GROUP, "2.2.0", "Lets the next transaction fail if one of the keys changes."),
        Spec::new("unwatch", 1, |_| Ok(Command::Transaction(Transaction::Unwatch)))
            .flags(FLAGS)
            .doc(GROUP, "2.2.0", "Forgets the watched keys."),
    ];
