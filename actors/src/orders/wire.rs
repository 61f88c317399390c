//! An order and its answer as bytes, all numbers little endian:
//!
//! ```text
//! order:  kind (1) cluster (16) generation (8) disk (16) limit in ms (4)
//!         operator: length (1), UTF-8   body: length (4), JSON
//! answer: code (2)   body: length (4), JSON
//! ```

use std::time::Duration;

use bytes::{Buf, Bytes};
use quorate_protocol::types::{ClusterId, DiskId, Generation};

/// Longest body of an order or an answer.
pub const BODY_BYTES_MAX: usize = 64 << 10;

/// Longest name of an operator; what is longer is cut.
const OPERATOR_BYTES_MAX: usize = u8::MAX as usize;

/// Everything before the operator's name.
const HEAD_BYTES: usize = 1 + 16 + 8 + 16 + 4;

/// Longest order.
pub(crate) const ORDER_BYTES_MAX: usize = HEAD_BYTES + 1 + OPERATOR_BYTES_MAX + 4 + BODY_BYTES_MAX;

/// Longest answer.
pub(super) const ANSWER_BYTES_MAX: usize = 2 + 4 + BODY_BYTES_MAX;

/// What is to be done. The numbers are part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderKind {
    /// Hand leadership over.
    Promote = 1,
    /// Replace the durability policy.
    SetPolicy = 2,
    /// Add or remove a member.
    Members = 3,
    /// Make or revoke a join token.
    Tokens = 4,
    /// Bind a token to the key of a node that joins.
    Redeem = 5,
    /// Sign the certificate of a node that joins.
    Sign = 6,
    /// Break yourself, for a drill.
    Drill = 64,
    /// Raise the cluster version.
    FinishUpgrade = 65,
    /// Sign a new certificate for the node that asks.
    Renew = 66,
}

impl OrderKind {
    const ALL: [Self; 9] = [
        Self::Promote,
        Self::SetPolicy,
        Self::Members,
        Self::Tokens,
        Self::Redeem,
        Self::Sign,
        Self::Drill,
        Self::FinishUpgrade,
        Self::Renew,
    ];

    /// As it is named in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::SetPolicy => "policy set",
            Self::Drill => "drill",
            Self::FinishUpgrade => "upgrade finish",
            Self::Renew => "renew",
            Self::Members => "members",
            Self::Tokens => "token",
            Self::Redeem => "redeem",
            Self::Sign => "sign",
        }
    }

    pub(super) fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// What one node asks of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// A number that this binary may not know.
    pub kind: u8,
    /// The asker's cluster.
    pub cluster: ClusterId,
    /// The asker's count of lossy recoveries (S12).
    pub generation: Generation,
    /// The asker's disk: a wiped node gives no orders (S6).
    pub disk: DiskId,
    /// How long the asker waits.
    pub limit: Duration,
    /// Who asked the asker.
    pub operator: String,
    /// JSON.
    pub body: Bytes,
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderAnswer {
    /// As HTTP would have it.
    pub code: u16,
    /// JSON; at most [`BODY_BYTES_MAX`].
    pub body: Bytes,
}

impl Order {
    /// Appends the bytes of an order whose body is within its limit.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let limit_ms = u32::try_from(self.limit.as_millis()).unwrap_or(u32::MAX);
        let operator = cut(&self.operator);
        out.push(self.kind);
        out.extend_from_slice(&self.cluster.0.to_le_bytes());
        out.extend_from_slice(&self.generation.0.to_le_bytes());
        out.extend_from_slice(&self.disk.0.to_le_bytes());
        out.extend_from_slice(&limit_ms.to_le_bytes());
        out.push(operator.len() as u8);
        out.extend_from_slice(operator.as_bytes());
        encode_body(&self.body, out);
    }

    /// An order that fills `bytes`.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let kind = bytes.try_get_u8().ok()?;
        let cluster = ClusterId(bytes.try_get_u128_le().ok()?);
        let generation = Generation(bytes.try_get_u64_le().ok()?);
        let disk = DiskId(bytes.try_get_u128_le().ok()?);
        let limit = Duration::from_millis(bytes.try_get_u32_le().ok()?.into());
        let length = usize::from(bytes.try_get_u8().ok()?);
        let (operator, rest) = bytes.split_at_checked(length)?;
        let operator = std::str::from_utf8(operator).ok()?.to_owned();
        let body = decode_body(rest)?;
        Some(Self { kind, cluster, generation, disk, limit, operator, body })
    }
}

impl OrderAnswer {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = self.code.to_le_bytes().to_vec();
        encode_body(&self.body, &mut out);
        out
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let code = bytes.try_get_u16_le().ok()?;
        Some(Self { code, body: decode_body(bytes)? })
    }
}

fn encode_body(body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(body);
}

/// A body that fills `bytes`.
fn decode_body(mut bytes: &[u8]) -> Option<Bytes> {
    let length = bytes.try_get_u32_le().ok()? as usize;
    (length == bytes.len() && length <= BODY_BYTES_MAX).then(|| Bytes::copy_from_slice(bytes))
}

/// As much of a name as has a place, in whole characters.
fn cut(name: &str) -> &str {
    let end = (0..=OPERATOR_BYTES_MAX).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    name.get(..end.min(name.len())).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Order {
        Order {
            kind: OrderKind::SetPolicy as u8,
            cluster: ClusterId(0x11),
            generation: Generation(2),
            disk: DiskId(0x33),
            limit: Duration::from_millis(4_000),
            operator: "ada".to_owned(),
            body: Bytes::from_static(b"{}"),
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn bytes_are_fixed() {
        let mut bytes = Vec::new();
        order().encode(&mut bytes);
        let expected = [
            "02",
            "11000000000000000000000000000000",
            "0200000000000000",
            "33000000000000000000000000000000",
            "a00f0000",
            "03616461",
            "020000007b7d",
        ];
        assert_eq!(hex(&bytes), expected.concat());
        assert_eq!(Order::decode(&bytes), Some(order()));
        let answer = OrderAnswer { code: 409, body: Bytes::from_static(b"{}") };
        assert_eq!(hex(&answer.encode()), "9901020000007b7d");
        assert_eq!(OrderAnswer::decode(&answer.encode()), Some(answer));
        let numbers = OrderKind::ALL.map(|kind| (kind as u8, OrderKind::of(kind as u8)));
        for (number, kind) in numbers {
            assert_eq!(kind.map(|kind| kind as u8), Some(number));
        }
        assert_eq!(OrderKind::of(0), None);
    }

    #[test]
    fn cut_long_and_padded_bytes_are_refused() {
        let mut bytes = Vec::new();
        order().encode(&mut bytes);
        for length in 0..bytes.len() {
            assert_eq!(Order::decode(&bytes[..length]), None, "{length}");
        }
        assert_eq!(Order::decode(&[&bytes[..], &[0]].concat()), None);
        let long = Order { body: vec![b' '; BODY_BYTES_MAX + 1].into(), ..order() };
        bytes.clear();
        long.encode(&mut bytes);
        assert_eq!(Order::decode(&bytes), None);
        let answer = OrderAnswer { code: 200, body: vec![b' '; BODY_BYTES_MAX].into() }.encode();
        assert_eq!(answer.len(), ANSWER_BYTES_MAX);
        assert!(OrderAnswer::decode(&answer).is_some());
        assert_eq!(OrderAnswer::decode(&answer[..answer.len() - 1]), None);
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let long = Order { operator: "ä".repeat(200), ..order() };
        let mut bytes = Vec::new();
        long.encode(&mut bytes);
        assert!(bytes.len() <= ORDER_BYTES_MAX);
        assert_eq!(Order::decode(&bytes).expect("it fits").operator, "ä".repeat(127));
    }
}
