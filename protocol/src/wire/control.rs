//! Control frames: everything but entries.

use bincode::{Decode, Encode};
use bytes::BytesMut;

use super::error::WireError;
use super::frame::{decode_frame, encode_frame};
use super::log::AppendHeader;
use crate::core::message::{AppendAck, Message, SnapshotOffer, TimeoutNow, VoteReply, VoteRequest};
use crate::types::{ClusterId, DiskId, Generation, Incarnation, NodeId};

/// Longest body of a control frame. The longest real one carries the first `Cluster` record.
pub const CONTROL_BODY_BYTES_MAX: usize = 64 * 1024;

const _: () = assert!(
    super::cluster::CLUSTER_PAYLOAD_BYTES_MAX + 1024 < CONTROL_BODY_BYTES_MAX,
    "`Formed` must be able to carry any first `Cluster` record"
);

/// What the control stream carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlFrame {
    /// First frame of either side, and again whenever something in it changed.
    Hello(Box<Hello>),
    /// A core message; an `Append` must be a heartbeat (no entries).
    Core(Message),
    /// First boot.
    Formation(Formation),
}

/// Who speaks. The node id is a claim until compared with the certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// Highest frame format that the sender reads.
    pub wire_version: u8,
    /// The operator's name for the cluster.
    pub cluster_name: String,
    /// The cluster that the sender's log belongs to, once there is one.
    pub cluster: Option<ClusterId>,
    /// Lossy recoveries that the sender knows of (S12).
    pub generation: Generation,
    /// The sender.
    pub node: NodeId,
    /// Its data directory (S6).
    pub disk: DiskId,
    /// Its current life.
    pub incarnation: Incarnation,
    /// Its binary, as `quorate version` prints it.
    pub binary_version: String,
    /// Highest cluster version that its binary supports.
    pub cluster_version_max: u32,
    /// Whether it has a log: false only for an empty data directory.
    pub formed: bool,
    /// The disk of the node that it promised to be formed by, if it has.
    pub reservation: Option<DiskId>,
    /// `host:port` of its QUIC endpoint.
    pub peer_addr: String,
    /// `host:port` of its cluster-mode listener.
    pub client_addr: String,
    /// `host:port` of its plain listener; empty where it has none.
    pub plain_addr: String,
}

/// How a cluster comes to be: the lowest initial id asks every other initial member whether it
/// is empty, then sends all of them the first entry.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Formation {
    /// Asks to be the one that forms the cluster.
    Query {
        /// The asker's disk.
        disk: DiskId,
        /// The cluster's name in the asker's configuration.
        cluster_name: String,
    },
    /// Answers a query. The reservation in it is synced before it is sent.
    Reply(FormReply),
    /// The first `Cluster` entry.
    Formed {
        /// Its record, byte for byte as in the journal.
        record: Vec<u8>,
    },
    /// The first entry is synced here.
    FormedAck,
}

/// What a node without a cluster says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct FormReply {
    /// The answering node's disk.
    pub disk: DiskId,
    /// Whether its directory holds no log.
    pub empty: bool,
    /// The disk that it has promised itself to.
    pub reserved_for: Option<DiskId>,
    /// `host:port` of its QUIC endpoint.
    pub peer_addr: String,
    /// `host:port` of its cluster-mode listener.
    pub client_addr: String,
    /// `host:port` of its plain listener; empty where it has none.
    pub plain_addr: String,
}

/// Appends one control frame to `out`.
///
/// # Errors
/// The frame is over [`CONTROL_BODY_BYTES_MAX`], or an append carries entries. `out` is then as
/// it was.
pub fn encode_control(frame: &ControlFrame, out: &mut Vec<u8>) -> Result<(), WireError> {
    let wire = match frame {
        ControlFrame::Hello(hello) => WireFrame::Hello(hello.as_ref().clone()),
        ControlFrame::Core(message) => core_frame(message)?,
        ControlFrame::Formation(formation) => WireFrame::Formation(formation.clone()),
    };
    encode_frame::<CONTROL_BODY_BYTES_MAX>(&wire, out)
}

/// Takes one control frame off the front of `buffer`; `None` while it isn't all there.
///
/// # Errors
/// As soon as the length is over the limit; at a wrong checksum or version, a malformed body, or
/// bytes left in it. The connection must then be closed.
pub fn decode_control(buffer: &mut BytesMut) -> Result<Option<ControlFrame>, WireError> {
    let Some(wire) = decode_frame::<CONTROL_BODY_BYTES_MAX, WireFrame>(buffer)? else {
        return Ok(None);
    };
    Ok(Some(match wire {
        WireFrame::Hello(hello) => ControlFrame::Hello(Box::new(hello)),
        WireFrame::PreVote(request) => ControlFrame::Core(Message::PreVote(request)),
        WireFrame::PreVoteReply(reply) => ControlFrame::Core(Message::PreVoteReply(reply)),
        WireFrame::Vote(request) => ControlFrame::Core(Message::Vote(request)),
        WireFrame::VoteReply(reply) => ControlFrame::Core(Message::VoteReply(reply)),
        WireFrame::Heartbeat(header) => {
            ControlFrame::Core(Message::Append(header.into_append(Vec::new())))
        }
        WireFrame::AppendAck(ack) => ControlFrame::Core(Message::AppendAck(ack)),
        WireFrame::TimeoutNow(order) => ControlFrame::Core(Message::TimeoutNow(order)),
        WireFrame::SnapshotOffer(offer) => ControlFrame::Core(Message::SnapshotOffer(offer)),
        WireFrame::Formation(formation) => ControlFrame::Formation(formation),
    }))
}

/// The order of the variants is the format.
#[derive(Encode, Decode)]
enum WireFrame {
    Hello(Hello),
    PreVote(VoteRequest),
    PreVoteReply(VoteReply),
    Vote(VoteRequest),
    VoteReply(VoteReply),
    Heartbeat(AppendHeader),
    AppendAck(AppendAck),
    TimeoutNow(TimeoutNow),
    Formation(Formation),
    SnapshotOffer(SnapshotOffer),
}

fn core_frame(message: &Message) -> Result<WireFrame, WireError> {
    Ok(match message {
        Message::PreVote(request) => WireFrame::PreVote(*request),
        Message::PreVoteReply(reply) => WireFrame::PreVoteReply(*reply),
        Message::Vote(request) => WireFrame::Vote(*request),
        Message::VoteReply(reply) => WireFrame::VoteReply(*reply),
        Message::Append(append) if append.entries.is_empty() => {
            WireFrame::Heartbeat(AppendHeader::of(append))
        }
        Message::Append(append) => return Err(WireError::EntriesInControl(append.entries.len())),
        Message::AppendAck(ack) => WireFrame::AppendAck(*ack),
        Message::TimeoutNow(order) => WireFrame::TimeoutNow(*order),
        Message::SnapshotOffer(offer) => WireFrame::SnapshotOffer(*offer),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frame::hex;
    use super::*;
    use crate::core::message::{Append, Reject};
    use crate::types::{ClusterTime, EntryId, Epoch, Seq};

    fn id(epoch: u64, seq: u64) -> EntryId {
        EntryId::new(Epoch(epoch), Seq(seq))
    }

    fn body_hex(frame: &ControlFrame) -> String {
        let mut out = Vec::new();
        encode_control(frame, &mut out).expect("it fits");
        hex(&out[crate::wire::FRAME_PREFIX_BYTES..])
    }

    fn heartbeat() -> Append {
        Append {
            epoch: Epoch(3),
            prev: id(2, 300),
            commit: Seq(299),
            round: 7,
            time: ClusterTime(1_000_000),
            recover: None,
            entries: Vec::new(),
        }
    }

    #[test]
    fn golden_frames() {
        let request = VoteRequest { round: 1, epoch: Epoch(4), last: id(3, 9), transfer: None };
        let reply = VoteReply { round: 1, epoch: Epoch(4), granted: true, memory_loss: false };
        let ack = AppendAck {
            epoch: Epoch(3),
            incarnation: Incarnation(5),
            verified: Seq(300),
            in_memory: Seq(300),
            persisted: Seq(299),
            applied: Seq(298),
            round: 7,
            memory_loss: true,
            reach: 3,
            reject: Some(Reject { prev: id(2, 4), hint: id(1, 3) }),
        };
        let order = TimeoutNow { epoch: Epoch(3), last: id(3, 9) };
        let offer = SnapshotOffer { epoch: Epoch(3), preceding: id(2, 8) };
        let core = ControlFrame::Core;
        let golden = [
            (core(Message::PreVote(request)), "010101040309".to_owned() + "00"),
            (core(Message::PreVoteReply(reply)), "01020104".to_owned() + "0100"),
            (core(Message::Vote(request)), "010301040309".to_owned() + "00"),
            (core(Message::VoteReply(reply)), "01040104".to_owned() + "0100"),
            (
                core(Message::Append(heartbeat())),
                "01050302fb2c01fb2b0107fc40420f00".to_owned() + "00",
            ),
            (
                core(Message::AppendAck(ack)),
                "01060305fb2c01fb2c01fb2b01fb2a010701".to_owned() + "030102040103",
            ),
            (core(Message::TimeoutNow(order)), "0107030309".to_owned()),
            (ControlFrame::Formation(Formation::FormedAck), "010803".to_owned()),
            (core(Message::SnapshotOffer(offer)), "0109030208".to_owned()),
        ];
        for (frame, hex) in golden {
            assert_eq!(body_hex(&frame), hex, "{frame:?}");
        }
    }

    #[test]
    fn golden_hello() {
        let hello = Hello {
            wire_version: 1,
            cluster_name: "c".to_owned(),
            cluster: Some(ClusterId(1)),
            generation: Generation(2),
            node: NodeId(3),
            disk: DiskId(4),
            incarnation: Incarnation(5),
            binary_version: "0.1.0".to_owned(),
            cluster_version_max: 1,
            formed: true,
            reservation: None,
            peer_addr: "a:1".to_owned(),
            client_addr: "b:2".to_owned(),
            plain_addr: String::new(),
        };
        assert_eq!(
            body_hex(&ControlFrame::Hello(Box::new(hello))),
            "01000101630101020304050530\
             2e312e3001010003613a3103623a3200"
        );
    }

    #[test]
    fn an_append_with_entries_is_refused() {
        let mut append = heartbeat();
        append.entries.push(crate::core::message::EntryMeta {
            id: id(3, 301),
            kind: crate::types::EntryKind::EpochStart,
            bytes: 64,
            cluster: None,
        });
        let mut out = vec![1];
        let error = encode_control(&ControlFrame::Core(Message::Append(append)), &mut out);
        assert_eq!(error, Err(WireError::EntriesInControl(1)));
        assert_eq!(out, [1]);
    }

    #[test]
    fn an_oversized_name_is_refused_by_the_sender() {
        let hello = Hello { cluster_name: "x".repeat(CONTROL_BODY_BYTES_MAX), ..Hello::default() };
        let error = encode_control(&ControlFrame::Hello(Box::new(hello)), &mut Vec::new());
        assert!(error.is_err());
    }

    #[test]
    fn the_longest_first_cluster_record_fits() {
        let record = vec![7; super::super::cluster::CLUSTER_PAYLOAD_BYTES_MAX + 64];
        let frame = ControlFrame::Formation(Formation::Formed { record });
        let mut out = Vec::new();
        encode_control(&frame, &mut out).expect("it fits");
        let decoded = decode_control(&mut BytesMut::from(&out[..]));
        assert_eq!(decoded, Ok(Some(frame)));
    }

    prop_compose! {
        fn any_message()(
            which in 0..8_u8, a: u64, b: u64, c: u64, d: u64, e: u64, f: u64, yes: bool, more: bool,
        ) -> Message {
            let request = VoteRequest {
                round: a, epoch: Epoch(b), last: id(c, d), transfer: more.then_some(Epoch(e)),
            };
            let reply = VoteReply { round: a, epoch: Epoch(b), granted: yes, memory_loss: more };
            match which {
                0 => Message::PreVote(request),
                1 => Message::PreVoteReply(reply),
                2 => Message::Vote(request),
                3 => Message::VoteReply(reply),
                4 => Message::Append(Append {
                    epoch: Epoch(a), prev: id(b, c), commit: Seq(d), round: e, time: ClusterTime(f),
                    recover: yes.then_some(crate::core::message::RecoverTarget {
                        incarnation: Incarnation(e), through: Seq(f),
                    }),
                    entries: Vec::new(),
                }),
                5 => Message::AppendAck(AppendAck {
                    epoch: Epoch(a), incarnation: Incarnation(b), verified: Seq(f), in_memory: Seq(c),
                    persisted: Seq(d), applied: Seq(e), round: f, memory_loss: yes,
                    reach: which,
                    reject: more.then_some(Reject { prev: id(a, b), hint: id(c, d) }),
                }),
                6 => Message::SnapshotOffer(SnapshotOffer { epoch: Epoch(a), preceding: id(b, c) }),
                _ => Message::TimeoutNow(TimeoutNow { epoch: Epoch(a), last: id(b, c) }),
            }
        }
    }

    proptest! {
        #[test]
        fn messages_round_trip_back_to_back(
            messages in proptest::collection::vec(any_message(), 1..6),
        ) {
            let mut out = Vec::new();
            for message in &messages {
                encode_control(&ControlFrame::Core(message.clone()), &mut out).expect("it fits");
            }
            let mut buffer = BytesMut::from(&out[..]);
            for message in messages {
                let decoded = decode_control(&mut buffer);
                prop_assert_eq!(decoded, Ok(Some(ControlFrame::Core(message))));
            }
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn any_body_with_a_right_checksum_decodes_or_fails(
            mut body in proptest::collection::vec(any::<u8>(), 1..300),
            tag in 0..12_u8,
        ) {
            body[0] = crate::wire::WIRE_VERSION;
            if let Some(first) = body.get_mut(1) {
                *first = tag;
            }
            let mut bytes = u32::try_from(body.len()).expect("short").to_le_bytes().to_vec();
            bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
            bytes.extend_from_slice(&body);
            let _ = decode_control(&mut BytesMut::from(&bytes[..]));
        }
    }
}
