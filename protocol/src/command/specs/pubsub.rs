//! Subscriptions, on which news of the primary arrive.

use super::super::connection::Connection;
use super::{Flags, SESSION, Spec, connection};

const GROUP: &str = "pubsub";
const FLAGS: Flags = SESSION.and(Flags::PUBSUB);

pub(super) const SPECS: &[Spec] = &[
    Spec::new("subscribe", -2, |args| connection(Connection::Subscribe { channels: args.rest() }))
        .flags(FLAGS)
        .doc(GROUP, "2.0.0", "Listens to channels."),
    Spec::new("unsubscribe", -1, |args| {
        connection(Connection::Unsubscribe { channels: args.rest() })
    })
    .flags(FLAGS)
    .doc(GROUP, "2.0.0", "Stops listening to channels."),
    Spec::new("psubscribe", -2, |args| {
        connection(Connection::PSubscribe { patterns: args.rest() })
    })
    .flags(FLAGS)
    .doc(GROUP, "2.0.0", "Listens to channels that match patterns."),
    Spec::new("punsubscribe", -1, |args| {
        connection(Connection::PUnsubscribe { patterns: args.rest() })
    })
    .flags(FLAGS)
    .doc(GROUP, "2.0.0", "Stops listening to patterns."),
];
