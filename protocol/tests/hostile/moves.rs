//! What may happen to a core, as numbers that depend on its state by then.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use quorate_protocol::cluster::{ClusterChange, ClusterEntry, Member, MemberKind, SafetyTimers};
use quorate_protocol::policy::Policy;
use quorate_protocol::types::{ClusterId, DiskId, Generation, NodeId};

/// A number in a message, as seen from the state of the core that gets it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Number {
    Small(u64),
    /// The core's epoch, and so much.
    Epoch(i64),
    /// Its last position, and so much.
    Last(i64),
    /// Its commit position, and so much.
    Committed(i64),
    /// The round that it last asked in.
    Asked,
    /// So much below the largest number.
    Huge(u64),
}

pub(crate) fn number() -> impl Strategy<Value = Number> {
    prop_oneof![
        2 => (0_u64..5).prop_map(Number::Small),
        4 => (-1_i64..=2).prop_map(Number::Epoch),
        4 => (-2_i64..=2).prop_map(Number::Last),
        1 => (-1_i64..=1).prop_map(Number::Committed),
        2 => Just(Number::Asked),
        1 => (0_u64..3).prop_map(Number::Huge),
    ]
}

/// What happens next; how it looks depends on the core's state by then.
#[derive(Clone, Debug)]
pub(crate) enum Move {
    Message {
        from: u64,
        kind: u8,
        numbers: [Number; 8],
        flags: u8,
        entries: Vec<(Number, u8)>,
    },
    /// A message that a correct peer could send now: it grants, follows or acknowledges.
    Agree {
        from: u64,
    },
    Tick {
        after: u8,
    },
    Connect {
        peer: u64,
        life: Number,
        flags: u8,
    },
    Disconnect {
        peer: u64,
    },
    Propose,
    Mark,
    Change {
        which: u8,
        peer: u64,
    },
    Transfer {
        peer: u64,
    },
    Read,
    Saved {
        number: Number,
        right: bool,
    },
    Written {
        synced: bool,
        right: bool,
        numbers: [Number; 3],
    },
    Applied {
        number: Number,
    },
    Sent {
        number: Number,
    },
    Fetched {
        numbers: [Number; 4],
        members: u8,
    },
    Installed {
        right: bool,
        numbers: [Number; 2],
    },
    Trimmed {
        number: Number,
    },
}

pub(crate) fn a_move() -> impl Strategy<Value = Move> {
    let numbers =
        || [number(), number(), number(), number(), number(), number(), number(), number()];
    let entries = vec((number(), any::<u8>()), 0..4);
    prop_oneof![
        8 => (0_u64..6, 0_u8..8, numbers(), any::<u8>(), entries).prop_map(
            |(from, kind, numbers, flags, entries)| Move::Message { from, kind, numbers, flags, entries }
        ),
        6 => (2_u64..4).prop_map(|from| Move::Agree { from }),
        4 => (0_u8..8).prop_map(|after| Move::Tick { after }),
        2 => (0_u64..6, number(), any::<u8>())
            .prop_map(|(peer, life, flags)| Move::Connect { peer, life, flags }),
        1 => (0_u64..6).prop_map(|peer| Move::Disconnect { peer }),
        2 => Just(Move::Propose),
        1 => Just(Move::Mark),
        1 => (0_u8..6, 0_u64..6).prop_map(|(which, peer)| Move::Change { which, peer }),
        1 => (0_u64..6).prop_map(|peer| Move::Transfer { peer }),
        1 => Just(Move::Read),
        5 => (number(), prop::bool::weighted(0.8))
            .prop_map(|(number, right)| Move::Saved { number, right }),
        5 => (any::<bool>(), prop::bool::weighted(0.8), [number(), number(), number()])
            .prop_map(|(synced, right, numbers)| Move::Written { synced, right, numbers }),
        1 => number().prop_map(|number| Move::Applied { number }),
        3 => number().prop_map(|number| Move::Sent { number }),
        1 => ([number(), number(), number(), number()], any::<u8>())
            .prop_map(|(numbers, members)| Move::Fetched { numbers, members }),
        1 => (any::<bool>(), [number(), number()])
            .prop_map(|(right, numbers)| Move::Installed { right, numbers }),
        1 => number().prop_map(|number| Move::Trimmed { number }),
    ]
}

pub(crate) fn config(policy: Policy) -> ClusterEntry {
    let member = |node: u64| Member {
        node: NodeId(node),
        disk: DiskId(u128::from(node)),
        kind: MemberKind::Voter,
        peer_addr: String::new(),
        client_addr: String::new(),
        plain_addr: String::new(),
    };
    ClusterEntry {
        cluster: ClusterId(1),
        generation: Generation(0),
        version: 1,
        members: (1..=3).map(member).collect(),
        policy,
        timers: SafetyTimers::LAN,
        removed: Vec::new(),
        tokens: Vec::new(),
    }
}

/// A configuration that a decoder lets pass, whatever a peer means by it.
pub(crate) fn another_config(flags: u8) -> Arc<ClusterEntry> {
    let flag = |bit: u8| flags & (1 << bit) != 0;
    let mut config = config(if flag(0) { Policy::MAJORITY } else { Policy::LOCAL });
    if flag(1) {
        config.members[2].kind = MemberKind::Learner;
    }
    if flag(2) {
        config.removed.push(config.members.remove(0).node);
    }
    if flag(3) && flag(4) {
        config.generation = Generation(1);
    }
    if flag(4) && flag(5) {
        config.version = 2;
    }
    if flag(3) && flag(5) {
        config.timers =
            SafetyTimers { election_timeout_min_us: u64::MAX, lease_us: u64::MAX - 2, drift_us: 1 };
    }
    Arc::new(config)
}

/// A change that an operator may ask for, sensible or not.
pub(crate) fn change(which: u8, peer: u64) -> ClusterChange {
    let node = NodeId(peer);
    match which {
        0 => ClusterChange::AddLearner(Member {
            disk: DiskId(u128::from(peer)),
            ..config(Policy::LOCAL).members[0].clone()
        }),
        1 => ClusterChange::Promote(node),
        2 => ClusterChange::Remove(node),
        3 => ClusterChange::SetPolicy(Policy::LOCAL),
        4 => ClusterChange::SetPolicy(Policy { persisted: None, in_memory: None }),
        _ => ClusterChange::RaiseVersion(u32::MAX),
    }
}
