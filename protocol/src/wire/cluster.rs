//! The payload of a `Cluster` entry. It is replicated and stored as it is, so its bytes are part
//! of the journal's format. There are two versions: the second has tokens behind the rest, and is
//! written only where there are any.

use bytes::Bytes;

use super::error::WireError;
use bincode::{Decode, Encode};

use super::frame::{WIRE_VERSION, decode_body_of, encode_body_of};
use crate::cluster::{
    ClusterEntry, JoinToken, MEMBERS_MAX, Member, SafetyTimers, TOKENS_MAX, VOTERS_MAX,
};
use crate::policy::Policy;
use crate::types::{ClusterId, Generation, NodeId};

/// Longest payload of a `Cluster` entry: some hundred members with long names. A control frame
/// must be able to carry the first one whole.
pub const CLUSTER_PAYLOAD_BYTES_MAX: usize = 48 * 1024;

/// The payload that stands for `entry`.
///
/// # Errors
/// The entry is longer than [`CLUSTER_PAYLOAD_BYTES_MAX`], or its members or removed ids are not
/// sorted or not unique: every node must derive the same order from it.
pub fn encode_cluster(entry: &ClusterEntry) -> Result<Bytes, WireError> {
    check(entry)?;
    let mut out = Vec::with_capacity(256);
    let (base, tokens) = Base::of(entry);
    if tokens.is_empty() {
        encode_body_of::<CLUSTER_PAYLOAD_BYTES_MAX>(WIRE_VERSION, &base, &mut out)?;
    } else {
        encode_body_of::<CLUSTER_PAYLOAD_BYTES_MAX>(WITH_TOKENS, &(base, tokens), &mut out)?;
    }
    Ok(out.into())
}

/// Reads a payload.
///
/// # Errors
/// It is too long, of another version, malformed, or breaks a rule of [`encode_cluster`].
pub fn decode_cluster(payload: &[u8]) -> Result<ClusterEntry, WireError> {
    let entry = if payload.first() == Some(&WITH_TOKENS) {
        let (base, tokens) = decode_body_of::<CLUSTER_PAYLOAD_BYTES_MAX, (Base, Vec<JoinToken>)>(
            WITH_TOKENS,
            payload,
        )?;
        if tokens.is_empty() {
            return Err(WireError::Invalid("the form with tokens has none"));
        }
        base.entry(tokens)
    } else {
        decode_body_of::<CLUSTER_PAYLOAD_BYTES_MAX, Base>(WIRE_VERSION, payload)?.entry(Vec::new())
    };
    check(&entry)?;
    Ok(entry)
}

/// The version of a payload with tokens.
const WITH_TOKENS: u8 = 2;

/// An entry without its tokens, in the order of its bytes.
#[derive(Encode, Decode)]
struct Base {
    cluster: ClusterId,
    generation: Generation,
    version: u32,
    members: Vec<Member>,
    policy: Policy,
    timers: SafetyTimers,
    removed: Vec<NodeId>,
}

impl Base {
    fn of(entry: &ClusterEntry) -> (Self, Vec<JoinToken>) {
        let ClusterEntry { cluster, generation, version, members, policy, timers, removed, tokens } =
            entry.clone();
        (Self { cluster, generation, version, members, policy, timers, removed }, tokens)
    }

    fn entry(self, tokens: Vec<JoinToken>) -> ClusterEntry {
        let Self { cluster, generation, version, members, policy, timers, removed } = self;
        ClusterEntry { cluster, generation, version, members, policy, timers, removed, tokens }
    }
}

fn check(entry: &ClusterEntry) -> Result<(), WireError> {
    if !entry.members.is_sorted_by(|a, b| a.node < b.node) {
        return Err(WireError::Invalid("members are not sorted by a unique node id"));
    }
    let voters = entry.voters().count();
    if voters == 0 || voters > VOTERS_MAX || entry.members.len() > MEMBERS_MAX {
        return Err(WireError::Invalid("no voters, or too many members"));
    }
    if entry.policy.check(voters).is_err() {
        return Err(WireError::Invalid("the policy asks for zero copies or more than voters"));
    }
    if !entry.timers.are_safe() {
        return Err(WireError::Invalid("a lease may outlast the shortest election timeout (S11)"));
    }
    if !entry.removed.is_sorted_by(|a, b| a < b) {
        return Err(WireError::Invalid("removed ids are not sorted and unique"));
    }
    if !entry.tokens.is_sorted_by(|a, b| a.node < b.node) || entry.tokens.len() > TOKENS_MAX {
        return Err(WireError::Invalid("tokens are not sorted by a unique node id, or too many"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frame::hex;
    use super::*;
    use crate::cluster::{Member, MemberKind, SafetyTimers};
    use crate::policy::{Policy, Threshold};
    use crate::types::{ClusterId, DiskId, Generation, NodeId};

    fn member(node: u64) -> Member {
        Member {
            node: NodeId(node),
            disk: DiskId(u128::from(node) << 64),
            kind: MemberKind::Voter,
            peer_addr: format!("10.0.0.{node}:7411"),
            client_addr: format!("10.0.0.{node}:7401"),
            plain_addr: String::new(),
        }
    }

    fn entry(nodes: &[u64]) -> ClusterEntry {
        ClusterEntry {
            cluster: ClusterId(0xC1),
            generation: Generation(2),
            version: 1,
            members: nodes.iter().copied().map(member).collect(),
            policy: Policy { persisted: Some(Threshold::Majority), in_memory: None },
            timers: SafetyTimers::LAN,
            removed: vec![NodeId(9)],
            tokens: Vec::new(),
        }
    }

    #[test]
    fn golden_payload() {
        let payload = encode_cluster(&entry(&[1])).expect("valid");
        let hex = hex(&payload);
        assert_eq!(
            hex,
            "01c102010101fe00000000000000000100000000000000000d\
             31302e302e302e313a373431310d31302e302e302e313a3734303100\
             010100fce0930400fc90d00300fb10270109"
        );
        assert_eq!(decode_cluster(&payload), Ok(entry(&[1])));
    }

    #[test]
    fn golden_payload_with_a_token() {
        let token =
            |node: u64, key| JoinToken { hash: [0xAA; 32], node: NodeId(node), expires_s: 7, key };
        let with = ClusterEntry { tokens: vec![token(4, Some([0xBB; 32]))], ..entry(&[1]) };
        let payload = encode_cluster(&with).expect("valid");
        let without = hex(&encode_cluster(&entry(&[1])).expect("valid"));
        let token_hex = format!("01{}040701{}", "aa".repeat(32), "bb".repeat(32));
        assert_eq!(hex(&payload), format!("02{}{token_hex}", &without[2..]));
        assert_eq!(decode_cluster(&payload), Ok(with));
        let twice = ClusterEntry { tokens: vec![token(4, None), token(4, None)], ..entry(&[1]) };
        assert!(encode_cluster(&twice).is_err());
        let mut empty = encode_cluster(&entry(&[1])).expect("valid").to_vec();
        empty[0] = WITH_TOKENS;
        empty.push(0);
        assert!(decode_cluster(&empty).is_err(), "one form for each entry");
    }

    #[test]
    fn unsorted_or_repeated_members_are_refused_both_ways() {
        assert!(matches!(encode_cluster(&entry(&[2, 1])), Err(WireError::Invalid(_))));
        assert!(matches!(encode_cluster(&entry(&[1, 1])), Err(WireError::Invalid(_))));
        let mut out = Vec::new();
        let base = Base::of(&entry(&[3, 1])).0;
        encode_body_of::<CLUSTER_PAYLOAD_BYTES_MAX>(WIRE_VERSION, &base, &mut out)
            .expect("it fits");
        assert!(matches!(decode_cluster(&out), Err(WireError::Invalid(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(mut bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode_cluster(&bytes);
            if let Some(version) = bytes.first_mut() {
                *version = WIRE_VERSION;
                let _ = decode_cluster(&bytes);
            }
        }

        #[test]
        fn every_cut_of_a_payload_fails(cut in 0_usize..200) {
            let payload = encode_cluster(&entry(&[1, 2, 3])).expect("valid");
            prop_assume!(cut < payload.len());
            prop_assert!(decode_cluster(&payload[..cut]).is_err());
        }
    }
}
