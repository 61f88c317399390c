//! Join tokens, as the log knows them: by the hash of their secret.

use bincode::{Decode, Encode};

use crate::types::NodeId;

/// Tokens that may be open at once.
pub const TOKENS_MAX: usize = 32;

/// An invitation for one node: whoever has the secret gets that node's certificate, once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct JoinToken {
    /// BLAKE3 of the secret.
    pub hash: [u8; 32],
    /// The node that it is for.
    pub node: NodeId,
    /// When it ends, in seconds since 1970.
    pub expires_s: u64,
    /// BLAKE3 of the public key that it was redeemed for: from then on for that key only, so that
    /// an answer that was lost can be asked for again.
    pub key: Option<[u8; 32]>,
}

impl JoinToken {
    /// Whether it still counts at this moment, in seconds since 1970.
    #[must_use]
    pub fn is_open(&self, now_s: u64) -> bool {
        now_s < self.expires_s
    }
}
