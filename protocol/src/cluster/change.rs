//! Changes of a cluster entry: each gives the next entry, or says why it can't be (S10).

use thiserror::Error;

use super::{ClusterEntry, JoinToken, Member, MemberKind, TOKENS_MAX};
use crate::policy::{Policy, PolicyError};
use crate::types::NodeId;

/// Voters that a cluster may have. Evaluation and explanation look at every subset of them.
pub const VOTERS_MAX: usize = 9;

/// Members of any kind that a cluster may have.
pub const MEMBERS_MAX: usize = 32;

/// One change of members, policy or version. Only one is under way at a time (S10).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClusterChange {
    /// Adds a member that receives the log and doesn't count; its kind is ignored. Every member
    /// begins so, with the disk that it will count by (S6).
    AddLearner(Member),
    /// Makes a learner a voter.
    Promote(NodeId),
    /// Removes a member. Its id never returns.
    Remove(NodeId),
    /// Replaces the durability policy.
    SetPolicy(Policy),
    /// Records where a member is reached; the fields beside the addresses must be the member's.
    SetAddresses(Member),
    /// Raises the cluster version, which older binaries then don't follow.
    RaiseVersion(u32),
    /// Invites a node. Tokens that have ended by then are dropped.
    AddToken {
        /// The invitation, not redeemed yet.
        token: JoinToken,
        /// Now, in seconds since 1970.
        now_s: u64,
    },
    /// Binds a token to the key that it was redeemed for.
    RedeemToken {
        /// Which.
        hash: [u8; 32],
        /// BLAKE3 of the public key.
        key: [u8; 32],
        /// Now, in seconds since 1970.
        now_s: u64,
    },
    /// Drops a token.
    RevokeToken([u8; 32]),
}

/// Why a change has no result.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
pub enum ChangeError {
    /// The id is a member's.
    #[error("node {0} is a member already")]
    AlreadyMember(NodeId),
    /// The id isn't a member's.
    #[error("node {0} is not a member")]
    NotMember(NodeId),
    /// The id was a member's and is burnt.
    #[error("node {0} was removed from this cluster; ids are never used again")]
    Removed(NodeId),
    /// Ids begin at 1.
    #[error("node ids begin at 1")]
    ZeroId,
    /// Another member has the disk.
    #[error("the disk of node {0} belongs to node {1}")]
    DiskTaken(NodeId, NodeId),
    /// Only learners are promoted.
    #[error("node {0} is a voter already")]
    AlreadyVoter(NodeId),
    /// Someone has to be left.
    #[error("node {0} is the only voter")]
    LastVoter(NodeId),
    /// A bound of the format.
    #[error(
        "a cluster has at most {VOTERS_MAX} voters, {MEMBERS_MAX} members and {TOKENS_MAX} tokens"
    )]
    TooMany,
    /// The policy asks for more than the voters there would be.
    #[error("{0}")]
    Policy(PolicyError),
    /// Versions only rise.
    #[error("cluster version {asked} is not above the current one, {current}")]
    VersionNotRaised {
        /// The version asked for.
        asked: u32,
        /// The version in force.
        current: u32,
    },
    /// One invitation for each node.
    #[error("there is an open token for node {0} already; revoke it first")]
    TokenExists(NodeId),
    /// None with that secret.
    #[error("there is no such token: it was never made, was revoked, or its node has joined")]
    NoToken,
    /// Its time is over.
    #[error("the token has expired")]
    TokenExpired,
    /// It works once.
    #[error("the token was redeemed for another key")]
    TokenUsed,
    /// The change leaves everything as it is.
    #[error("nothing would change")]
    Nothing,
}

impl ClusterEntry {
    /// The entry after `change`.
    ///
    /// # Errors
    /// Says why there is none; this entry stays as it is.
    pub fn changed(&self, change: &ClusterChange) -> Result<Self, ChangeError> {
        let mut next = self.clone();
        match change {
            ClusterChange::AddLearner(member) => next.add_learner(member)?,
            ClusterChange::Promote(node) => {
                let member = next.member_mut(*node)?;
                if member.kind == MemberKind::Voter {
                    return Err(ChangeError::AlreadyVoter(*node));
                }
                member.kind = MemberKind::Voter;
            }
            ClusterChange::Remove(node) => {
                next.member_mut(*node)?;
                next.members.retain(|member| member.node != *node);
                if next.voters().next().is_none() {
                    return Err(ChangeError::LastVoter(*node));
                }
                next.removed.push(*node);
                next.removed.sort_unstable();
            }
            ClusterChange::SetPolicy(policy) => next.policy = *policy,
            ClusterChange::SetAddresses(changed) => {
                let member = next.member_mut(changed.node)?;
                member.peer_addr.clone_from(&changed.peer_addr);
                member.client_addr.clone_from(&changed.client_addr);
                member.plain_addr.clone_from(&changed.plain_addr);
            }
            ClusterChange::RaiseVersion(version) => {
                let (asked, current) = (*version, self.version);
                if asked <= current {
                    return Err(ChangeError::VersionNotRaised { asked, current });
                }
                next.version = asked;
            }
            ClusterChange::AddToken { token, now_s } => next.add_token(token, *now_s)?,
            ClusterChange::RedeemToken { hash, key, now_s } => {
                let token = next.tokens.iter_mut().find(|token| token.hash == *hash);
                let token = token.ok_or(ChangeError::NoToken)?;
                if !token.is_open(*now_s) {
                    return Err(ChangeError::TokenExpired);
                }
                if *token.key.get_or_insert(*key) != *key {
                    return Err(ChangeError::TokenUsed);
                }
            }
            ClusterChange::RevokeToken(hash) => {
                next.tokens.retain(|token| token.hash != *hash);
                if next.tokens.len() == self.tokens.len() {
                    return Err(ChangeError::NoToken);
                }
            }
        }
        if next == *self {
            return Err(ChangeError::Nothing);
        }
        let voters = next.voters().count();
        let tokens = next.tokens.len();
        if voters > VOTERS_MAX || next.members.len() > MEMBERS_MAX || tokens > TOKENS_MAX {
            return Err(ChangeError::TooMany);
        }
        next.policy.check(voters).map_err(ChangeError::Policy)?;
        Ok(next)
    }

    fn add_learner(&mut self, member: &Member) -> Result<(), ChangeError> {
        let node = member.node;
        self.check_new(node)?;
        if let Some(owner) = self.members.iter().find(|other| other.disk == member.disk) {
            return Err(ChangeError::DiskTaken(node, owner.node));
        }
        self.members.push(Member { kind: MemberKind::Learner, ..member.clone() });
        self.members.sort_unstable_by_key(|member| member.node);
        self.tokens.retain(|token| token.node != node);
        Ok(())
    }

    /// Whether an id can become a member's.
    fn check_new(&self, node: NodeId) -> Result<(), ChangeError> {
        if node == NodeId(0) {
            Err(ChangeError::ZeroId)
        } else if self.removed.contains(&node) {
            Err(ChangeError::Removed(node))
        } else if self.member(node).is_some() {
            Err(ChangeError::AlreadyMember(node))
        } else {
            Ok(())
        }
    }

    fn add_token(&mut self, token: &JoinToken, now_s: u64) -> Result<(), ChangeError> {
        self.check_new(token.node)?;
        self.tokens.retain(|token| token.is_open(now_s));
        if self.tokens.iter().any(|other| other.node == token.node) {
            return Err(ChangeError::TokenExists(token.node));
        }
        self.tokens.push(JoinToken { key: None, ..token.clone() });
        self.tokens.sort_unstable_by_key(|token| token.node);
        Ok(())
    }

    fn member_mut(&mut self, node: NodeId) -> Result<&mut Member, ChangeError> {
        let member = self.members.iter_mut().find(|member| member.node == node);
        member.ok_or(ChangeError::NotMember(node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::SafetyTimers;
    use crate::types::{ClusterId, DiskId, Generation};

    fn member(node: u64) -> Member {
        Member {
            node: NodeId(node),
            disk: DiskId(u128::from(node)),
            kind: MemberKind::Voter,
            peer_addr: format!("n{node}:1"),
            client_addr: format!("n{node}:2"),
            plain_addr: String::new(),
        }
    }

    fn entry(policy: Policy) -> ClusterEntry {
        ClusterEntry {
            cluster: ClusterId(7),
            generation: Generation(0),
            version: 1,
            members: vec![member(1), member(2), member(3)],
            policy,
            timers: SafetyTimers::LAN,
            removed: vec![NodeId(9)],
            tokens: Vec::new(),
        }
    }

    #[test]
    fn a_member_joins_as_learner_and_becomes_a_voter() {
        let joined = entry(Policy::MAJORITY).changed(&ClusterChange::AddLearner(member(4)));
        let joined = joined.expect("it fits");
        assert_eq!((joined.members.len(), joined.voters().count()), (4, 3));
        let promoted = joined.changed(&ClusterChange::Promote(NodeId(4))).expect("a learner");
        assert_eq!(promoted.voters().count(), 4);
        let again = promoted.changed(&ClusterChange::Promote(NodeId(4)));
        assert_eq!(again, Err(ChangeError::AlreadyVoter(NodeId(4))));
    }

    #[test]
    fn a_removed_id_never_returns() {
        let entry = entry(Policy::MAJORITY);
        let smaller = entry.changed(&ClusterChange::Remove(NodeId(2))).expect("a member");
        assert_eq!(smaller.removed, [NodeId(2), NodeId(9)]);
        let back = smaller.changed(&ClusterChange::AddLearner(member(2)));
        assert_eq!(back, Err(ChangeError::Removed(NodeId(2))));
        let old_disk = Member { node: NodeId(5), ..member(3) };
        let back = smaller.changed(&ClusterChange::AddLearner(old_disk));
        assert_eq!(back, Err(ChangeError::DiskTaken(NodeId(5), NodeId(3))));
    }

    #[test]
    fn a_change_that_the_policy_can_not_follow_names_the_clause() {
        let three = Policy::parse("in_memory>=3", 3).expect("three voters");
        let refused = entry(three).changed(&ClusterChange::Remove(NodeId(2)));
        let text = refused.expect_err("two voters hold no three copies").to_string();
        assert!(text.contains("in_memory>=3") && text.contains("2 voters"), "{text}");
        let mut one = entry(Policy::MAJORITY);
        one.members.truncate(1);
        let refused = one.changed(&ClusterChange::Remove(NodeId(1)));
        assert_eq!(refused, Err(ChangeError::LastVoter(NodeId(1))));
    }

    #[test]
    fn a_token_works_once_until_it_ends_and_goes_when_its_node_comes() {
        let token = |node, hash| JoinToken {
            hash: [hash; 32],
            node: NodeId(node),
            expires_s: 100,
            key: None,
        };
        let add = |token, now_s| ClusterChange::AddToken { token, now_s };
        let redeem = |hash, key, now_s| ClusterChange::RedeemToken {
            hash: [hash; 32],
            key: [key; 32],
            now_s,
        };
        let start = entry(Policy::MAJORITY);
        for (node, expected) in [
            (1, ChangeError::AlreadyMember(NodeId(1))),
            (9, ChangeError::Removed(NodeId(9))),
            (0, ChangeError::ZeroId),
        ] {
            assert_eq!(start.changed(&add(token(node, 1), 10)), Err(expected));
        }
        let made = start.changed(&add(token(4, 1), 10)).expect("a new id");
        let again = made.changed(&add(token(4, 2), 10));
        assert_eq!(again, Err(ChangeError::TokenExists(NodeId(4))));
        assert_eq!(made.changed(&redeem(2, 7, 10)), Err(ChangeError::NoToken));
        assert_eq!(made.changed(&redeem(1, 7, 100)), Err(ChangeError::TokenExpired));
        let used = made.changed(&redeem(1, 7, 99)).expect("open");
        assert_eq!(used.changed(&redeem(1, 7, 99)), Err(ChangeError::Nothing));
        assert_eq!(used.changed(&redeem(1, 8, 99)), Err(ChangeError::TokenUsed));
        let joined = used.changed(&ClusterChange::AddLearner(member(4))).expect("it joins");
        assert_eq!(joined.tokens, []);
        let later = made.changed(&add(token(4, 2), 100)).expect("the first has ended");
        assert_eq!(later.tokens, [token(4, 2)]);
        let revoked = made.changed(&ClusterChange::RevokeToken([1; 32])).expect("it is there");
        assert_eq!(revoked, start);
        let gone = start.changed(&ClusterChange::RevokeToken([1; 32]));
        assert_eq!(gone, Err(ChangeError::NoToken));
    }

    #[test]
    fn what_changes_nothing_is_refused() {
        let entry = entry(Policy::MAJORITY);
        let same = entry.changed(&ClusterChange::SetPolicy(Policy::MAJORITY));
        assert_eq!(same, Err(ChangeError::Nothing));
        let same = entry.changed(&ClusterChange::SetAddresses(member(1)));
        assert_eq!(same, Err(ChangeError::Nothing));
        let lower = entry.changed(&ClusterChange::RaiseVersion(1));
        assert_eq!(lower, Err(ChangeError::VersionNotRaised { asked: 1, current: 1 }));
    }
}
