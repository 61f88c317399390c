//! Discovery: `CLUSTER …`, `READONLY` and the like.

use super::super::connection::{Cluster, Connection};
use super::super::model::Walk;
use super::super::position::SLOTS;
use super::{
    ALWAYS, ALWAYS_FAST, Args, CommandError, Flags, Parsed, Read, Spec, connection, help, read,
};

const GROUP: &str = "cluster";
const STALE: Flags = Flags::STALE;

const UNSTEADY: &[&str] = &["nondeterministic_output"];

pub(super) const SPECS: &[Spec] = &[
    Spec::new("readonly", 1, |_| connection(Connection::ReadOnly)).flags(ALWAYS_FAST).doc(
        GROUP,
        "3.0.0",
        "Allows reads from a replica's own state.",
    ),
    Spec::new("readwrite", 1, |_| connection(Connection::ReadWrite)).flags(ALWAYS_FAST).doc(
        GROUP,
        "3.0.0",
        "Ends READONLY.",
    ),
    Spec::new("asking", 1, |_| connection(Connection::Asking)).flags(Flags::FAST).doc(
        GROUP,
        "3.0.0",
        "Says that the next command follows an ASK; there are none.",
    ),
    Spec::container("cluster", SUBCOMMANDS).doc(GROUP, "3.0.0", "Describes the cluster."),
];

const SUBCOMMANDS: &[Spec] = &[
    Spec::new("cluster|count-failure-reports", 3, |args| {
        cluster(Cluster::CountFailureReports { node: args.take()? })
    })
    .flags(STALE.and(Flags::ADMIN))
    .doc(GROUP, "3.0.0", "Failure reports are not used: 0.")
    .tips(UNSTEADY),
    Spec::new("cluster|countkeysinslot", 3, parse_count_keys_in_slot).flags(STALE).doc(
        GROUP,
        "3.0.0",
        "Counts the keys of a slot.",
    ),
    Spec::new("cluster|getkeysinslot", 4, parse_get_keys_in_slot)
        .flags(STALE)
        .doc(GROUP, "3.0.0", "Answers keys of a slot.")
        .tips(UNSTEADY),
    Spec::new("cluster|help", 2, help).flags(ALWAYS).doc(GROUP, "5.0.0", "Lists the subcommands."),
    Spec::new("cluster|info", 2, |_| cluster(Cluster::Info))
        .flags(STALE)
        .doc(GROUP, "3.0.0", "Describes the state of the cluster.")
        .tips(UNSTEADY),
    Spec::new("cluster|keyslot", 3, |args| cluster(Cluster::KeySlot { key: args.take()? }))
        .flags(STALE)
        .doc(GROUP, "3.0.0", "Answers the slot of a key."),
    Spec::new("cluster|links", 2, |_| cluster(Cluster::Links))
        .flags(STALE)
        .doc(GROUP, "7.0.0", "Lists the links between nodes.")
        .tips(UNSTEADY),
    Spec::new("cluster|myid", 2, |_| cluster(Cluster::MyId)).flags(STALE).doc(
        GROUP,
        "3.0.0",
        "Answers the id of this node.",
    ),
    Spec::new("cluster|myshardid", 2, |_| cluster(Cluster::MyShardId)).flags(STALE).doc(
        GROUP,
        "7.2.0",
        "Answers the id of the one shard.",
    ),
    Spec::new("cluster|nodes", 2, |_| cluster(Cluster::Nodes))
        .flags(STALE)
        .doc(GROUP, "3.0.0", "Lists the nodes, one in a line.")
        .tips(UNSTEADY),
    Spec::new("cluster|replicas", 3, |args| cluster(Cluster::Replicas { node: args.take()? }))
        .flags(STALE.and(Flags::ADMIN))
        .doc(GROUP, "5.0.0", "Lists the replicas of a node.")
        .tips(UNSTEADY),
    Spec::new("cluster|shards", 2, |_| cluster(Cluster::Shards))
        .flags(STALE)
        .doc(GROUP, "7.0.0", "Lists the shards.")
        .tips(UNSTEADY),
    Spec::new("cluster|slaves", 3, |args| cluster(Cluster::Replicas { node: args.take()? }))
        .flags(STALE.and(Flags::ADMIN))
        .doc(GROUP, "3.0.0", "Lists the replicas of a node, as REPLICAS does.")
        .tips(UNSTEADY),
    Spec::new("cluster|slots", 2, |_| cluster(Cluster::Slots))
        .flags(STALE)
        .doc(GROUP, "3.0.0", "Lists slots and the nodes that serve them.")
        .tips(&["nondeterministic_output"]),
];

fn cluster(cluster: Cluster) -> Parsed {
    connection(Connection::Cluster(cluster))
}

fn parse_count_keys_in_slot(args: &mut Args<'_>) -> Parsed {
    let slot = parse_slot(args.integer()?).ok_or(CommandError::Other("ERR Invalid slot"))?;
    read(Read::Walk(Walk::CountKeysInSlot { slot }))
}

fn parse_get_keys_in_slot(args: &mut Args<'_>) -> Parsed {
    let (slot, count) = (args.integer()?, args.integer()?);
    let (Some(slot), Ok(count)) = (parse_slot(slot), u64::try_from(count)) else {
        return Err(CommandError::Other("ERR Invalid slot or number of keys"));
    };
    read(Read::Walk(Walk::GetKeysInSlot { slot, count }))
}

fn parse_slot(number: i64) -> Option<u16> {
    u16::try_from(number).ok().filter(|&slot| slot < SLOTS)
}
